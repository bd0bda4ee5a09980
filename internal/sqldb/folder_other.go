//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package sqldb

import "github.com/ambit-dev/ambit/internal/fault"

// folder exists so that clients of the server build everywhere; a data folder
// needs file owners and flock.
type folder struct{ path string }

func openFolder(string) (*folder, error) {
	return nil, fault.New(fault.Invalid, "data_folder_unsupported", "A data folder cannot be protected on this operating system.").
		WithHint("Run the server on Linux, macOS or BSD, or use PostgreSQL.")
}

func (f *folder) unlock() {}

func unusable(code, what, command string, err error) error {
	return folderFault(code, what+".", command).WithCause(err)
}
