//go:build !linux

package lite

// Fdatasync makes the engine sync with fdatasync(2) on Linux only.
func Fdatasync() {}
