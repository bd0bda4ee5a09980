//go:build unix

package scan

import (
	"io/fs"
	"os/user"
	"strconv"
	"syscall"
)

// ownerOf is the name of the user to whom a file belongs, and how many names the file has.
func ownerOf(info fs.FileInfo) (owner string, names int) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", 1
	}
	id := strconv.FormatUint(uint64(s.Uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username, int(s.Nlink)
	}
	return id, int(s.Nlink)
}
