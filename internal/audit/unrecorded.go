//go:build unrecorded

package audit

// Recorded says that calls are not put on record, and not held against a revoke that
// comes meanwhile either: this is a build to measure with, and no product.
const Recorded = false
