package disk

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const noAttribute = unix.ENODATA

// setModified dates an open file.
func setModified(f *os.File, at time.Time) error {
	now, err := unix.TimeToTimespec(at)
	if err != nil {
		return err
	}
	// By the open file: its name may have come to be another's.
	return unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(f.Fd())), []unix.Timespec{{Nsec: unix.UTIME_OMIT}, now}, 0)
}
