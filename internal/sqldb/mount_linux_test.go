package sqldb_test

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
)

// mountTiny puts a file system of a few MiB on dir until the end of t.
func mountTiny(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=3m,mode=0700"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() { unmount(t, dir) })
}

// unmount waits for who still has a file open: a process that another test starts
// has all of ours between its fork and its exec.
func unmount(t *testing.T, dir string) {
	t.Helper()
	err := syscall.Unmount(dir, 0)
	for end := time.Now().Add(10 * time.Second); errors.Is(err, syscall.EBUSY) && time.Now().Before(end); time.Sleep(time.Millisecond) {
		err = syscall.Unmount(dir, 0)
	}
	if err != nil {
		t.Errorf("unmount: %v", err)
		_ = syscall.Unmount(dir, syscall.MNT_DETACH) // nothing stays behind on the machine
	}
}

// sealFolder makes dir one that its owner cannot write to until the end of t:
// to root only a file system that is read-only is.
func sealFolder(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		return
	}
	mountTiny(t, dir)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "size=3m,mode=0700"); err != nil {
		t.Skipf("making a file system read-only: %v", err)
	}
}

func requireFull(t *testing.T, err error) {
	t.Helper()
	if !fault.Is(err, "disk_full") || fault.Of(err).Kind != fault.Unavailable || fault.Of(err).Hint == "" {
		t.Errorf("got %v, want disk_full with a hint", err)
	}
}
