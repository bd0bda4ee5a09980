//go:build !unrecorded

package audit

// Recorded says that calls are put on record. Only a build to measure without has it
// otherwise (-tags unrecorded, bench/doors.go): it says so at its start, and is no
// product.
const Recorded = true

func measuring() bool { return false }
