package proxy

// For tests: the readers of what strangers send.
var (
	ParseTarget = parseTarget
	Credentials = credentials
	Agrees      = agrees
)
