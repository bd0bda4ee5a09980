//go:build linux

// Package lossy is a disk for tests. It lives in memory, is mounted by FUSE, and
// keeps apart what programs see and what has reached the medium: content by fsync
// of the file, names by fsync of the folder. A power cut leaves of the rest a
// part that nobody can count on: nothing, all, some writes, torn sectors. It also
// fails as disks do: full, read-only, or with an error at a chosen operation.
//
// Of changes to the names in one folder a cut keeps the first ones, as file
// systems with a journal do. Content and names do not wait for each other.
package lossy

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// Op is an operation that a program asks for.
type Op struct {
	Kind string // read, write, truncate, sync, create, mkdir, link, rename, remove, chmod or sync folder
	Name string // of the file, without its folder
}

// Disk is a disk. Mount it to use it.
type Disk struct {
	mu       sync.Mutex
	root     *folder
	lastIno  uint64
	used     int64
	room     int64 // bytes of content that fit; 0 means any number
	readOnly bool
	fail     func(Op) syscall.Errno
}

// New makes an empty disk.
func New() *Disk {
	d := &Disk{}
	d.root = d.newFolder()
	return d
}

// Room sets how many bytes of content the disk holds; 0 means any number. What
// does not fit is refused with ENOSPC.
func (d *Disk) Room(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room = bytes
}

// Used is how many bytes of content there are.
func (d *Disk) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used
}

// ReadOnly refuses every change with EROFS, as after a remount.
func (d *Disk) ReadOnly(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.readOnly = on
}

// Fail asks fn before each operation; what it returns, unless 0, is the answer.
// A sync that fails loses what it was to keep for good, although programs still
// see it: that is what Linux does. nil ends it.
func (d *Disk) Fail(fn func(Op) syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = fn
}

// PowerCut forgets what was not synced, as far as rng says. The disk must not be
// mounted.
func (d *Disk) PowerCut(rng *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutFolder(d.root, rng)
	d.used = d.root.size()
}

func (d *Disk) cutFolder(f *folder, rng *rand.Rand) {
	for _, change := range f.changes[:rng.IntN(len(f.changes)+1)] {
		change(f.kept)
	}
	f.changes = nil
	f.seen = maps.Clone(f.kept)
	for _, name := range slices.Sorted(maps.Keys(f.seen)) { // sorted: the same seed is the same cut
		switch e := f.seen[name].(type) {
		case *folder:
			d.cutFolder(e, rng)
		case *file:
			e.cut(rng)
		}
	}
}

// CopyTo writes what programs see into a folder of the real file system.
func (d *Disk) CopyTo(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.root.copyTo(dir)
}

// admit decides about an operation before anything changes.
func (d *Disk) admit(kind, name string) syscall.Errno {
	if d.readOnly && kind != "read" {
		return syscall.EROFS
	}
	if d.fail != nil {
		return d.fail(Op{kind, name})
	}
	return 0
}

// grow accounts for n more bytes.
func (d *Disk) grow(n int64) syscall.Errno {
	if n > 0 && d.room > 0 && d.used+n > d.room {
		return syscall.ENOSPC
	}
	d.used += n
	return 0
}

func (d *Disk) ino() uint64 {
	d.lastIno++
	return d.lastIno
}

// folder has entries *folder and *file.
type folder struct {
	ino        uint64
	mode       uint32
	seen, kept map[string]any
	changes    []func(names map[string]any) // since the last sync
}

func (d *Disk) newFolder() *folder {
	return &folder{ino: d.ino(), mode: 0o700, seen: map[string]any{}, kept: map[string]any{}}
}

func (f *folder) change(fn func(names map[string]any)) {
	fn(f.seen)
	f.changes = append(f.changes, fn)
}

func (f *folder) sync() {
	for _, change := range f.changes {
		change(f.kept)
	}
	f.changes = nil
}

func (f *folder) size() (n int64) {
	for _, e := range f.seen {
		switch e := e.(type) {
		case *folder:
			n += e.size()
		case *file:
			n += int64(len(e.seen))
		}
	}
	return n
}

func (f *folder) copyTo(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, e := range f.seen {
		path := filepath.Join(dir, name)
		switch e := e.(type) {
		case *folder:
			if err := e.copyTo(path); err != nil {
				return err
			}
		case *file:
			if e.mode&syscall.S_IFMT != syscall.S_IFREG {
				continue
			}
			if err := os.WriteFile(path, e.seen, os.FileMode(e.mode&0o777)); err != nil {
				return err
			}
		}
	}
	return nil
}

// file is a regular file or a socket.
type file struct {
	ino        uint64
	mode       uint32 // with its type
	links      int
	seen, kept []byte
	writes     []write // since the last sync
}

// write is a change of content: of bytes, or of the size.
type write struct {
	at       int64
	data     []byte
	truncate bool // to size at
}

func (w write) apply(to []byte) []byte {
	if w.truncate {
		return resize(to, w.at)
	}
	if end := w.at + int64(len(w.data)); end > int64(len(to)) {
		to = resize(to, end)
	}
	copy(to[w.at:], w.data)
	return to
}

// resize makes b n bytes long; what is new is zero.
func resize(b []byte, n int64) []byte {
	if n <= int64(len(b)) {
		return b[:n]
	}
	had := len(b)
	b = slices.Grow(b, int(n)-had)[:n]
	clear(b[had:])
	return b
}

func (f *file) change(w write) {
	f.seen = w.apply(f.seen)
	f.writes = append(f.writes, w)
}

func (f *file) sync() {
	for _, w := range f.writes {
		f.kept = w.apply(f.kept)
	}
	f.writes = nil
}

// cut keeps a part of the writes since the last sync.
func (f *file) cut(rng *rand.Rand) {
	mode := rng.IntN(4)
	last := rng.IntN(len(f.writes) + 1)
	for i, w := range f.writes {
		switch {
		case mode == 0: // nothing got there
		case mode == 1: // all of it did
			f.kept = w.apply(f.kept)
		case mode == 2 && i < last: // the first ones, the next one torn
			f.kept = w.apply(f.kept)
		case mode == 2 && i == last, mode == 3 && rng.IntN(3) == 0:
			f.kept = w.tear(f.kept, rng)
		case mode == 3 && rng.IntN(2) == 0: // some of them
			f.kept = w.apply(f.kept)
		}
	}
	f.writes = nil
	f.seen = slices.Clone(f.kept)
}

const sector = 512

// tear writes some of the sectors.
func (w write) tear(to []byte, rng *rand.Rand) []byte {
	if w.truncate {
		return to
	}
	for begin := int64(0); begin < int64(len(w.data)); {
		end := min(int64(len(w.data)), begin+sector-(w.at+begin)%sector)
		if rng.IntN(2) == 0 {
			to = write{at: w.at + begin, data: w.data[begin:end]}.apply(to)
		}
		begin = end
	}
	return to
}
