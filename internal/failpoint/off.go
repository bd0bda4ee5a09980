//go:build !failpoint

package failpoint

// Enabled reports whether this binary has failpoints.
const Enabled = false

// Hit does nothing.
func Hit(string) error { return nil }

// Names collects what a transaction does. Here it is empty.
type Names struct{}

// Add does nothing.
func (*Names) Add(what, part string) {}

// Hit does nothing.
func (*Names) Hit(string) error { return nil }
