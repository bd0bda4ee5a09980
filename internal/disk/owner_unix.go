//go:build unix

package disk

import (
	"io/fs"
	"os"
	"syscall"
)

// keepOwner gives a file to the owner and group of another.
func keepOwner(f *os.File, is fs.FileInfo) error {
	st, ok := is.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == os.Geteuid() && int(st.Gid) == os.Getegid() {
		return nil
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}

// Names is how many names (hard links) a file has, and by which number its file system
// knows it under all of them.
func Names(is fs.FileInfo) (n int, inode uint64) {
	if st, ok := is.Sys().(*syscall.Stat_t); ok {
		return int(st.Nlink), st.Ino
	}
	return 1, 0
}
