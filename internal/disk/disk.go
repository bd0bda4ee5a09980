// Package disk writes small files so that they are there after a power cut, and
// never there in part: not when the process is killed in the middle, and not when
// the machine stops before its caches are written.
//
// A file system keeps the content of a file and its name apart. So a file is
// written under another name and synced, takes its own name, and then the folder
// is synced, which is what keeps the name.
package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ambit-dev/ambit/internal/failpoint"
)

// Folder makes a folder for this user alone, and those above it, and keeps their
// names. A folder that is there is left as it is.
func Folder(path string) error {
	if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(path)
	if err := Folder(parent); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(parent)
}

// Create makes a file for this user alone. Of several that create it at once one
// succeeds; the others, and whoever comes later, get an error that wraps
// fs.ErrExist.
func Create(path string, content []byte) error {
	return put(path, content, nil, func(from string) error {
		err := os.Link(from, path)
		if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EPERM) {
			// A file system without links: then the one check must do.
			if _, err := os.Lstat(path); err == nil {
				return fs.ErrExist
			}
			return os.Rename(from, path)
		}
		return err
	})
}

// Replace makes or replaces a file for this user alone. Readers see the old
// content or the new one.
func Replace(path string, content []byte) error {
	return put(path, content, nil, func(from string) error { return os.Rename(from, path) })
}

// Kept is what a file of somebody's keeps when it is replaced, besides its owner, group,
// extended attributes and, on Linux, access list.
type Kept struct {
	Is       fs.FileInfo // the file that is replaced
	Mode     fs.FileMode
	Modified time.Time // zero: now
}

// ErrAttribute says that a file has an extended attribute or an access list that a new one
// cannot be given.
var ErrAttribute = errors.New("an extended attribute cannot be kept")

// Swap replaces a file of somebody's: like [Replace], and it stays what it was in all but
// its content. Other names of the file (hard links) have the old content from then on.
func Swap(path string, content []byte, k Kept) error {
	return put(path, content, k.give(path), func(from string) error { return os.Rename(from, path) })
}

// TrySwap finds out whether [Swap] could do it with a content of this size in bytes, and
// changes nothing.
func TrySwap(path string, size int, k Kept) error {
	return put(path, make([]byte, size), k.give(path), func(string) error { return nil })
}

// give works by the open file, not by its name: whoever may write to the folder could put
// a link to another file there meanwhile. The mode comes after what takes bits away.
func (k Kept) give(path string) func(f *os.File) error {
	return func(f *os.File) error {
		err := keepOwner(f, k.Is)
		if err == nil {
			err = keepAttributes(f, path, k.Is)
		}
		if err == nil {
			err = f.Chmod(k.Mode)
		}
		if err == nil && !k.Modified.IsZero() {
			err = setModified(f, k.Modified)
		}
		return err
	}
}

// put writes content under a name that nobody else uses, prepares the file and hands
// it over, if its name is still its own. A process that is killed in the middle leaves
// the other name behind.
func put(path string, content []byte, prepare func(f *os.File) error, publish func(from string) error) (err error) {
	dir, name := filepath.Dir(path), filepath.Base(path)
	f, err := os.CreateTemp(dir, "."+name+".*") // made with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if rerr := os.Remove(f.Name()); err == nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = rerr
		}
	}()
	_, err = f.Write(content)
	if err == nil && prepare != nil {
		err = prepare(f)
	}
	if err == nil {
		err = failpoint.Hit("disk: before sync")
	}
	if err == nil {
		err = f.Sync()
	}
	var is fs.FileInfo
	if err == nil {
		is, err = f.Stat()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := failpoint.Hit("disk: before publish"); err != nil {
		return err
	}
	if now, err := os.Lstat(f.Name()); err != nil || !os.SameFile(is, now) {
		return fmt.Errorf("writing %s: somebody put another file in the place of the new one", name)
	}
	if err := publish(f.Name()); err != nil {
		return err
	}
	if err := failpoint.Hit("disk: after publish"); err != nil {
		return err
	}
	return syncFolder(dir)
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("keeping what is new in %s: %w", path, err)
	}
	return nil
}
