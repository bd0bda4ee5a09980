//go:build linux || darwin

package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// theSystems are attributes that the system makes itself, of the content or of the program
// that writes.
var theSystems = [...]string{"security.ima", "security.evm", "com.apple.provenance", "com.apple.macl"}

// keepAttributes gives a new file the extended attributes that the one at path has, access
// lists among them, and takes away what its folder gave it: that could let others read.
func keepAttributes(f *os.File, path string, is fs.FileInfo) error {
	old, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer old.Close()
	if now, err := old.Stat(); err != nil || !os.SameFile(now, is) {
		return errors.Join(errors.New("it was replaced meanwhile"), err)
	}
	want, err := attributes(old)
	if err != nil {
		return err
	}
	has, err := attributes(f)
	if err != nil {
		return err
	}
	for name := range has {
		if _, ok := want[name]; ok {
			continue
		}
		if err := unix.Fremovexattr(int(f.Fd()), name); err != nil && !errors.Is(err, noAttribute) {
			return fmt.Errorf("%w: %s: %w", ErrAttribute, name, err)
		}
	}
	for name, value := range want {
		if before, ok := has[name]; ok && bytes.Equal(before, value) {
			continue
		}
		if err := unix.Fsetxattr(int(f.Fd()), name, value, 0); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrAttribute, name, err)
		}
	}
	return nil
}

// attributes are those of an open file; none where the file system has none.
func attributes(f *os.File) (map[string][]byte, error) {
	list, err := whole(func(to []byte) (int, error) { return unix.Flistxattr(int(f.Fd()), to) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAttribute, err)
	}
	out := map[string][]byte{}
	for name := range strings.SplitSeq(string(list), "\x00") {
		if name == "" || slices.Contains(theSystems[:], name) {
			continue
		}
		value, err := whole(func(to []byte) (int, error) { return unix.Fgetxattr(int(f.Fd()), name, to) })
		if errors.Is(err, noAttribute) {
			continue // taken away since
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrAttribute, name, err)
		}
		out[name] = value
	}
	return out, nil
}

// whole reads what the system first tells the size of, and may grow meanwhile.
func whole(read func(to []byte) (int, error)) ([]byte, error) {
	for range 8 {
		n, err := read(nil)
		if err != nil || n == 0 {
			return nil, err
		}
		buf := make([]byte, n)
		n, err = read(buf)
		if errors.Is(err, unix.ERANGE) {
			continue
		}
		return buf[:max(n, 0)], err
	}
	return nil, unix.ERANGE
}
