package disk

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const noAttribute = unix.ENOATTR

// setModified dates an open file.
func setModified(f *os.File, at time.Time) error {
	tv := unix.NsecToTimeval(at.UnixNano())
	return unix.Futimes(int(f.Fd()), []unix.Timeval{tv, tv})
}
