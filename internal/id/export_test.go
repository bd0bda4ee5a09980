package id

// Names for the unexported kinds, so that tests can call the generic functions.
type (
	SessionKind = session
	KEKKind     = kek
)
