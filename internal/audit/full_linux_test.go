package audit_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// F10: a full disk under the folder is an outage of the folder, not of calls, and
// leaves the last good checkpoint.
func TestF10CheckpointFolderFull(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		if err := os.MkdirAll(w.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		mountTiny(t, w.dir)
		l := w.eager(t, nil, nil)
		w.record(t, l, 2)
		within(t, "everything is witnessed", func() bool { return l.Witness().Behind == 0 })
		ballast := filepath.Join(w.dir, "ballast")
		f, err := os.Create(ballast)
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = f.Write(make([]byte, 1<<12))
		}
		_ = f.Close()
		for range 10 {
			if err := w.call(t, l); err != nil {
				t.Errorf("a call: %v", err)
			}
		}
		within(t, "it is overdue", func() bool { return l.Witness().Overdue })
		w.wantIntact(t)
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		within(t, "all is witnessed", func() bool { return l.Witness().Entries == 0 && !l.Witness().Overdue })
		l.Stop()
	})
}

func mountTiny(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() {
		// A process that another test starts has our open files between fork and exec.
		err := syscall.Unmount(dir, 0)
		for end := time.Now().Add(10 * time.Second); errors.Is(err, syscall.EBUSY) && time.Now().Before(end); time.Sleep(time.Millisecond) {
			err = syscall.Unmount(dir, 0)
		}
		if err != nil {
			t.Errorf("unmount: %v", err)
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
}
