package disk_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ambit-dev/ambit/internal/disk"
)

// Of many that create a file one succeeds, and nobody ever sees a part of it.
func TestCreateOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	var made atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			text := strings.Repeat(string(rune('a'+i)), 1<<16)
			err := disk.Create(path, []byte(text))
			if err == nil {
				made.Add(1)
			} else if !errors.Is(err, fs.ErrExist) {
				t.Errorf("create: %v", err)
			}
			got, err := os.ReadFile(path)
			if err != nil || len(got) != 1<<16 || strings.Trim(string(got), string(got[0])) != "" {
				t.Errorf("got %d bytes of several writers, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("%d created the file", made.Load())
	}
	onlyFile(t, path)
}

func TestReplace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	for _, text := range []string{"one", "two, longer", ""} {
		if err := disk.Replace(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("got %q, %v", got, err)
		}
	}
	onlyFile(t, path)
	if err := disk.Replace(filepath.Join(t.TempDir(), "missing", "file"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is missing gave %v", err)
	}
}

func onlyFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the file there is more: %v, %v", entries, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestFolder(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	path := filepath.Join(root, "a", "b")
	for range 2 {
		if err := disk.Folder(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{path, filepath.Dir(path)} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", p, info, err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := disk.Folder(filepath.Join(root, "file", "x")); err == nil {
		t.Error("a folder was made below a file")
	}
}

// A bug: who may write to the folder put a link to another file into the new one's
// place, which then got the mode and the owner of the replaced one.
func TestSwapFollowsNobodysLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, victim := filepath.Join(dir, "shared"), filepath.Join(dir, "victim")
	must(t, os.WriteFile(file, []byte("old"), 0o600))
	must(t, os.Chmod(file, 0o666))
	must(t, os.WriteFile(victim, []byte("key"), 0o600))
	is, err := os.Stat(file)
	must(t, err)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			names, _ := filepath.Glob(filepath.Join(dir, ".shared.*"))
			for _, name := range names {
				_ = os.Remove(name)
				_ = os.Symlink(victim, name)
			}
		}
	}()
	refused := 0
	for range 300 {
		if disk.Swap(file, bytes.Repeat([]byte("new"), 1<<16), disk.Kept{Is: is, Mode: 0o666}) != nil {
			refused++
		}
	}
	close(stop)
	<-done
	now, err := os.Stat(victim)
	must(t, err)
	if text, err := os.ReadFile(victim); err != nil || string(text) != "key" || now.Mode().Perm() != 0o600 {
		t.Errorf("the other file has mode %o and holds %q, %v", now.Mode().Perm(), text, err)
	}
	t.Logf("%d of 300 were refused", refused)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
