package disk_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-dev/ambit/internal/disk"
)

const (
	accessList = "system.posix_acl_access"
	inherited  = "system.posix_acl_default"
)

// acl is an access list as Linux has it (posix_acl_xattr.h): user 12345 may read.
func acl() []byte {
	out := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range [][3]uint32{{1, 6, 0xffffffff}, {2, 4, 12345}, {4, 0, 0xffffffff}, {16, 4, 0xffffffff}, {32, 0, 0xffffffff}} {
		out = binary.LittleEndian.AppendUint16(out, uint16(e[0]))
		out = binary.LittleEndian.AppendUint16(out, uint16(e[1]))
		out = binary.LittleEndian.AppendUint32(out, e[2])
	}
	return out
}

func give(t *testing.T, path, name string, value []byte) {
	t.Helper()
	if err := unix.Setxattr(path, name, value, 0); errors.Is(err, unix.ENOTSUP) {
		t.Skip("the file system has none of these")
	} else if err != nil {
		t.Fatal(err)
	}
}

func attributeOf(path, name string) string {
	buf := make([]byte, 1<<12)
	n, err := unix.Getxattr(path, name, buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// A bug: a file that was replaced lost its extended attributes and its access list.
func TestSwapKeepsAttributes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, []byte("old"), 0o640))
	give(t, file, accessList, acl())
	give(t, file, "user.note", []byte("mine"))
	give(t, file, "user.empty", nil)
	was := attributeOf(file, accessList)
	is, err := os.Stat(file)
	must(t, err)
	then := time.Unix(1700000000, 123456789)
	must(t, disk.TrySwap(file, 8192, disk.Kept{Is: is, Mode: is.Mode().Perm()}))
	must(t, disk.Swap(file, []byte("new"), disk.Kept{Is: is, Mode: is.Mode().Perm(), Modified: then}))
	now, err := os.Stat(file)
	must(t, err)
	if attributeOf(file, accessList) != was || attributeOf(file, "user.note") != "mine" || now.Mode() != is.Mode() || !now.ModTime().Equal(then) {
		t.Errorf("access list %q, note %q, mode %v, %v", attributeOf(file, accessList), attributeOf(file, "user.note"), now.Mode(), now.ModTime())
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "new" {
		t.Errorf("it holds %q, %v", text, err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(file)); len(entries) != 1 {
		t.Errorf("beside the file there is more: %v", entries)
	}
}

// A bug: the new file took the access list that its folder gives to new files, so that
// others could read what only its owner could.
func TestSwapInheritsNobody(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, []byte("old"), 0o640))
	give(t, dir, inherited, acl())
	is, err := os.Stat(file)
	must(t, err)
	must(t, disk.Swap(file, []byte("new"), disk.Kept{Is: is, Mode: 0o640}))
	if got := attributeOf(file, accessList); got != "" {
		t.Errorf("the new file has the access list %q", got)
	}
}

// A file that is not the one that was looked at is left alone.
func TestSwapOfAnotherFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, other := filepath.Join(dir, "file"), filepath.Join(dir, "other")
	must(t, os.WriteFile(file, []byte("old"), 0o600))
	must(t, os.WriteFile(other, []byte("other"), 0o600))
	is, err := os.Stat(file)
	must(t, err)
	must(t, os.Rename(other, file))
	if err := disk.Swap(file, []byte("new"), disk.Kept{Is: is, Mode: 0o600}); err == nil {
		t.Error("it was replaced")
	}
	if text, _ := os.ReadFile(file); string(text) != "other" {
		t.Errorf("it holds %q", text)
	}
}
