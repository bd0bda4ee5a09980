//go:build unix

package disk

import (
	"os"
	"syscall"
)

// Lock holds a file that others of this machine may lock too. It does not wait: locked
// says that another has it. The system lets go of it when the process ends.
func Lock(path string) (unlock func(), locked bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err == syscall.EWOULDBLOCK, err
	}
	return func() { _ = f.Close() }, false, nil
}
