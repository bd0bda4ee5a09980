//go:build unrecorded

package audit

import "os"

// Recorded says that calls are not put on record, and not held against a revoke that
// comes meanwhile either: this is a build to measure with, and no product.
const Recorded = false

// measuring reports whether somebody measures. Nobody else runs such a build: a tag
// that was left in a build's settings must not make a server without a record.
func measuring() bool { return os.Getenv("AMBIT_MEASURE_WITHOUT_RECORD") == "yes" }
