package cli

import (
	"fmt"
	"syscall"
)

// kinds are file systems by the number that statfs(2) gives.
var kinds = map[int64]string{
	0x6969: "nfs", 0x517b: "smb", 0xff534d42: "cifs", 0xfe534d42: "smb", 0x01021997: "9p", 0x65735546: "fuse", 0x00c36400: "ceph", 0x5346414f: "afs",
	0x0bd00bd0: "lustre", 0x47504653: "gpfs", 0x786f4256: "vboxsf", 0x01021994: "tmpfs", 0x858458f6: "ramfs", 0x794c7630: "overlayfs",
}

func diskOf(dir string) (volume, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return volume{}, fmt.Errorf("statfs: %w", err)
	}
	id, err := deviceOf(dir)
	block := uint64(fs.Bsize)
	return volume{id: id, kind: kinds[int64(fs.Type)&0xffffffff], free: fs.Bavail * block, total: fs.Blocks * block, files: fs.Ffree, counted: fs.Files > 0}, err
}

// clockSynchronized asks the kernel whether something keeps its clock.
func clockSynchronized() (synchronized, known bool) {
	const unsynchronized = 0x40 // STA_UNSYNC of adjtimex(2)
	var t syscall.Timex
	if _, err := syscall.Adjtimex(&t); err != nil {
		return false, false
	}
	return t.Status&unsynchronized == 0, true
}
