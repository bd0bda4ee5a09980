//go:build linux

package lossy_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ambit-dev/ambit/e2e/lossy"
	"github.com/ambit-dev/ambit/internal/disk"
)

func mount(t *testing.T, d *lossy.Disk) (string, *lossy.Mount) {
	t.Helper()
	dir := t.TempDir()
	m, err := d.Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Abandon)
	return dir, m
}

// cut runs fn on a new disk, cuts the power, and gives what is left.
func cut(t *testing.T, seed uint64, fn func(dir string)) string {
	t.Helper()
	d := lossy.New()
	dir, m := mount(t, d)
	fn(dir)
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	d.PowerCut(rand.New(rand.NewPCG(seed, 1)))
	dir, _ = mount(t, d)
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func syncFolder(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	must(t, err)
	must(t, errors.Join(f.Sync(), f.Close()))
}

// What was synced is there after every cut, byte for byte. What was not synced
// is there sometimes, in part sometimes, and sometimes not at all.
func TestOnlySyncIsKept(t *testing.T) {
	t.Parallel()
	kept, changed := bytes.Repeat([]byte("k"), 8192), bytes.Repeat([]byte("c"), 4096)
	outcomes := map[string]bool{}
	for seed := range uint64(40) {
		dir := cut(t, seed, func(dir string) {
			f, err := os.OpenFile(filepath.Join(dir, "file"), os.O_RDWR|os.O_CREATE, 0o600)
			must(t, err)
			_, err = f.Write(kept)
			must(t, err)
			must(t, f.Sync())
			syncFolder(t, dir)
			for _, at := range []int64{0, 8192} {
				_, err = f.WriteAt(changed, at)
				must(t, err)
			}
			must(t, f.Close())
			must(t, os.WriteFile(filepath.Join(dir, "new"), kept, 0o600))
		})
		got, err := os.ReadFile(filepath.Join(dir, "file"))
		must(t, err)
		if len(got) < 8192 || !bytes.Equal(got[4096:8192], kept[4096:]) {
			t.Fatalf("seed %d: a synced part is gone", seed)
		}
		switch c := bytes.Count(got, []byte("c")); c {
		case 0:
			outcomes["none"] = true
		case 8192:
			outcomes["all"] = true
		default:
			outcomes["part"] = true
		}
		switch got, err := os.ReadFile(filepath.Join(dir, "new")); {
		case err != nil:
			outcomes["no name"] = true
		case len(got) == 0:
			outcomes["empty"] = true
		case bytes.Equal(got, kept):
			outcomes["whole"] = true
		}
	}
	for _, want := range []string{"none", "all", "part", "no name", "empty", "whole"} {
		if !outcomes[want] {
			t.Errorf("no cut left: %s", want)
		}
	}
}

// A file that is replaced by package disk is the old one or the new one; one that
// is only renamed is sometimes empty.
func TestReplacedFile(t *testing.T) {
	t.Parallel()
	broken := 0
	for seed := range uint64(40) {
		dir := cut(t, seed, func(dir string) {
			for _, name := range []string{"safe", "careless"} {
				must(t, disk.Replace(filepath.Join(dir, name), []byte("old")))
			}
			must(t, disk.Replace(filepath.Join(dir, "safe"), []byte("new")))
			must(t, os.WriteFile(filepath.Join(dir, "tmp"), []byte("new"), 0o600))
			must(t, os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, "careless")))
			must(t, disk.Create(filepath.Join(dir, "once"), []byte("once")))
		})
		for name, want := range map[string]string{"safe": "new", "once": "once"} {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
				t.Errorf("seed %d: %s is %q, %v", seed, name, got, err)
			}
		}
		if got, err := os.ReadFile(filepath.Join(dir, "careless")); err != nil || string(got) != "old" && string(got) != "new" {
			broken++
		}
	}
	if broken == 0 {
		t.Error("no cut broke the file that was renamed without a sync: the disk loses too little")
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	d := lossy.New()
	dir, _ := mount(t, d)
	path := filepath.Join(dir, "file")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()

	d.Room(10_000)
	if _, err := f.Write(make([]byte, 20_000)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk took the write: %v", err)
	}
	d.Room(0)
	_, err = f.WriteString("text")
	must(t, err)

	d.ReadOnly(true)
	if _, err := f.WriteString("more"); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a read-only disk took the write: %v", err)
	}
	if _, err := os.Create(filepath.Join(dir, "other")); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a read-only disk took a file: %v", err)
	}
	d.ReadOnly(false)

	var seen []string
	d.Fail(func(op lossy.Op) syscall.Errno {
		seen = append(seen, op.Kind+" "+op.Name)
		if op.Kind == "sync" {
			return syscall.EIO
		}
		return 0
	})
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("the sync gave %v", err)
	}
	must(t, os.Remove(path))
	d.Fail(nil)
	if got := strings.Join(seen, ", "); got != "sync file, remove file" {
		t.Errorf("the operations were: %s", got)
	}
	must(t, f.Sync())
}
