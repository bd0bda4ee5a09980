//go:build linux

package lossy

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Mount shows the disk at dir, until Unmount. It needs root or fusermount3.
func (d *Disk) Mount(dir string) (*Mount, error) {
	server, err := fs.Mount(dir, &folderNode{d: d, f: d.root}, &fs.Options{
		NullPermissions: true,
		RootStableAttr:  &fs.StableAttr{Ino: d.root.ino},
		MountOptions:    fuse.MountOptions{DirectMount: true, DisableXAttrs: true, FsName: "lossy", Name: "lossy", MaxWrite: 1 << 20},
	})
	if err != nil {
		return nil, fmt.Errorf("mounting a disk at %s: %w", dir, err)
	}
	return &Mount{server, dir}, nil
}

// Mount is a mounted disk.
type Mount struct {
	server *fuse.Server
	dir    string
}

// Unmount takes the disk away. It fails while a process has a file open.
func (m *Mount) Unmount() error {
	if err := m.server.Unmount(); err != nil {
		return fmt.Errorf("unmounting %s: %w", m.dir, err)
	}
	m.server.Wait()
	return nil
}

// Abandon takes the disk away from whoever still uses it.
func (m *Mount) Abandon() { _ = syscall.Unmount(m.dir, syscall.MNT_DETACH) }

type folderNode struct {
	fs.Inode
	d *Disk
	f *folder
}

type fileNode struct {
	fs.Inode
	d    *Disk
	f    *file
	name string
}

// attr fills what stat shows.
func attr(e any, out *fuse.Attr) {
	switch e := e.(type) {
	case *folder:
		out.Ino, out.Mode, out.Nlink = e.ino, syscall.S_IFDIR|e.mode, 2
	case *file:
		out.Ino, out.Mode, out.Nlink, out.Size = e.ino, e.mode, uint32(e.links), uint64(len(e.seen))
	}
	out.Owner = fuse.Owner{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
}

// child gives the node of an entry. The kernel's inode is found again by number.
func (n *folderNode) child(ctx context.Context, name string, e any, out *fuse.EntryOut) *fs.Inode {
	attr(e, &out.Attr)
	if sub, ok := e.(*folder); ok {
		return n.NewInode(ctx, &folderNode{d: n.d, f: sub}, fs.StableAttr{Mode: syscall.S_IFDIR, Ino: sub.ino})
	}
	f := e.(*file)
	return n.NewInode(ctx, &fileNode{d: n.d, f: f, name: name}, fs.StableAttr{Mode: f.mode & syscall.S_IFMT, Ino: f.ino})
}

func (n *folderNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	e, ok := n.f.seen[name]
	if !ok {
		return nil, syscall.ENOENT
	}
	return n.child(ctx, name, e, out), 0
}

func (n *folderNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	attr(n.f, &out.Attr)
	return 0
}

func (n *folderNode) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if mode, ok := in.GetMode(); ok {
		if errno := n.d.admit("chmod", "."); errno != 0 {
			return errno
		}
		n.f.mode = mode & 0o7777
	}
	attr(n.f, &out.Attr)
	return 0
}

func (n *folderNode) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	var list []fuse.DirEntry
	for _, name := range slices.Sorted(maps.Keys(n.f.seen)) {
		var a fuse.Attr
		attr(n.f.seen[name], &a)
		list = append(list, fuse.DirEntry{Name: name, Mode: a.Mode, Ino: a.Ino})
	}
	return fs.NewListDirStream(list), 0
}

func (n *folderNode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	room := n.d.room
	if room == 0 {
		room = 1 << 30
	}
	out.Bsize, out.NameLen = 4096, 255
	out.Blocks = uint64(room) / 4096
	out.Bfree = uint64(max(0, room-n.d.used)) / 4096
	out.Bavail = out.Bfree
	return 0
}

// put adds an entry under a name that is free.
func (n *folderNode) put(ctx context.Context, kind, name string, e any, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.d.admit(kind, name); errno != 0 {
		return nil, errno
	}
	if _, taken := n.f.seen[name]; taken {
		return nil, syscall.EEXIST
	}
	if f, ok := e.(*file); ok {
		f.links++
	}
	n.f.change(func(names map[string]any) { names[name] = e })
	return n.child(ctx, name, e, out), 0
}

func (n *folderNode) Create(ctx context.Context, name string, _ uint32, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	node, errno := n.put(ctx, "create", name, &file{ino: n.d.ino(), mode: syscall.S_IFREG | mode&0o7777}, out)
	return node, nil, openFlags(name), errno
}

func (n *folderNode) Mknod(ctx context.Context, name string, mode uint32, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	return n.put(ctx, "create", name, &file{ino: n.d.ino(), mode: mode}, out)
}

func (n *folderNode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	sub := n.d.newFolder()
	sub.mode = mode & 0o7777
	return n.put(ctx, "mkdir", name, sub, out)
}

func (n *folderNode) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	t, ok := target.(*fileNode)
	if !ok {
		return nil, syscall.EPERM
	}
	return n.put(ctx, "link", name, t.f, out)
}

func (n *folderNode) Rename(_ context.Context, name string, parent fs.InodeEmbedder, to string, flags uint32) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if p, ok := parent.(*folderNode); !ok || p.f != n.f {
		return syscall.EXDEV // nobody here moves files between folders
	}
	if errno := n.d.admit("rename", to); errno != 0 {
		return errno
	}
	if flags != 0 {
		return syscall.EINVAL
	}
	e := n.f.seen[name]
	n.drop(n.f.seen[to])
	n.f.change(func(names map[string]any) {
		delete(names, name)
		names[to] = e
	})
	return 0
}

func (n *folderNode) Unlink(_ context.Context, name string) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	return n.remove(name)
}

func (n *folderNode) Rmdir(_ context.Context, name string) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if sub, ok := n.f.seen[name].(*folder); ok && len(sub.seen) > 0 {
		return syscall.ENOTEMPTY
	}
	return n.remove(name)
}

func (n *folderNode) remove(name string) syscall.Errno {
	if errno := n.d.admit("remove", name); errno != 0 {
		return errno
	}
	n.drop(n.f.seen[name])
	n.f.change(func(names map[string]any) { delete(names, name) })
	return 0
}

// drop takes one name from a file; the last one gives its space back.
func (n *folderNode) drop(e any) {
	if f, ok := e.(*file); ok {
		if f.links--; f.links == 0 {
			n.d.used -= int64(len(f.seen))
		}
	}
}

// OpendirHandle gives a handle, which is what a folder's sync is asked of.
func (n *folderNode) OpendirHandle(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	stream, errno := n.Readdir(context.Background())
	return &folderHandle{stream, n}, 0, errno
}

type folderHandle struct {
	stream fs.DirStream
	n      *folderNode
}

func (h *folderHandle) Readdirent(context.Context) (*fuse.DirEntry, syscall.Errno) {
	if !h.stream.HasNext() {
		return nil, 0
	}
	e, errno := h.stream.Next()
	return &e, errno
}

func (h *folderHandle) Seekdir(_ context.Context, off uint64) syscall.Errno {
	var errno syscall.Errno
	h.stream, errno = h.n.Readdir(context.Background())
	for range off {
		if h.stream.HasNext() {
			_, errno = h.stream.Next()
		}
	}
	return errno
}

func (h *folderHandle) Fsyncdir(context.Context, uint32) syscall.Errno {
	h.n.d.mu.Lock()
	defer h.n.d.mu.Unlock()
	if errno := h.n.d.admit("sync folder", "."); errno != 0 {
		return errno
	}
	h.n.f.sync()
	return 0
}

// openFlags lets every read and write come here, so that it can fail. The file
// that SQLite maps into memory needs the kernel's cache.
func openFlags(name string) uint32 {
	if strings.HasSuffix(name, "-shm") {
		return 0
	}
	return fuse.FOPEN_DIRECT_IO
}

func (n *fileNode) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if n.d.readOnly && flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	return nil, openFlags(n.name), 0
}

func (n *fileNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	attr(n.f, &out.Attr)
	return 0
}

func (n *fileNode) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if mode, ok := in.GetMode(); ok {
		if errno := n.d.admit("chmod", n.name); errno != 0 {
			return errno
		}
		n.f.mode = n.f.mode&syscall.S_IFMT | mode&0o7777
	}
	if size, ok := in.GetSize(); ok && size != uint64(len(n.f.seen)) {
		errno := n.d.admit("truncate", n.name)
		if errno == 0 {
			errno = n.d.grow(int64(size) - int64(len(n.f.seen)))
		}
		if errno != 0 {
			return errno
		}
		n.f.change(write{at: int64(size), truncate: true})
	}
	attr(n.f, &out.Attr)
	return 0
}

func (n *fileNode) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if errno := n.d.admit("read", n.name); errno != 0 {
		return nil, errno
	}
	if off > int64(len(n.f.seen)) {
		off = int64(len(n.f.seen))
	}
	return fuse.ReadResultData(dest[:copy(dest, n.f.seen[off:])]), 0
}

func (n *fileNode) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	errno := n.d.admit("write", n.name)
	if errno == 0 {
		errno = n.d.grow(max(0, off+int64(len(data))-int64(len(n.f.seen))))
	}
	if errno != 0 {
		return 0, errno
	}
	n.f.change(write{at: off, data: slices.Clone(data)})
	return uint32(len(data)), 0
}

func (n *fileNode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if errno := n.d.admit("sync", n.name); errno != 0 {
		n.f.writes = nil
		return errno
	}
	n.f.sync()
	return 0
}
