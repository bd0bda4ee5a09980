//go:build unix

package scan

import (
	"os"
	"syscall"
)

// openNow opens without waiting: a pipe would wait for a writer.
func openNow(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW|syscall.O_NOCTTY, 0)
}
