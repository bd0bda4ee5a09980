//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package sqldb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/ambit-dev/ambit/internal/disk"
	"github.com/ambit-dev/ambit/internal/fault"
)

// folder is the data folder, locked for as long as it is open. The lock is a
// flock: it belongs to the open file, goes with the process however that
// dies, and holds against a second handle in the same process too.
type folder struct {
	path string
	lock *os.File
}

// writeAndEnter are the rights that access(2) is asked about: W_OK and X_OK.
const writeAndEnter = 2 | 1

// unusable is a folder, or a file in it, that the operating system refuses. What
// mends it depends on why: no command of this user's opens a disk that is
// read-only, or a folder in which this user may not be at all.
func unusable(code, what, command string, err error) error {
	switch {
	case errors.Is(err, syscall.EROFS):
		return fault.New(fault.Invalid, code, what+" (its file system is read-only).").
			WithHint("Mount it writable, or copy the folder to where it can be written and name the copy with --data.").WithCause(err)
	case errors.Is(err, fs.ErrPermission) && code == "data_folder_missing":
		return fault.New(fault.Invalid, "data_folder_denied", what+" (this user may not enter a folder above it).").
			WithHint("Run this as the user that runs the server, or name another folder with --data.").WithCause(err)
	case errors.Is(err, fs.ErrPermission):
		what += " (this user may not)"
	}
	return folderFault(code, what+".", command).WithCause(err)
}

func openFolder(path string) (*folder, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the data folder: %w", err)
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := disk.Folder(path); err != nil {
			return nil, unusable("data_folder_missing", "The data folder cannot be made: "+path, "mkdir -p -m 700 "+quote(path), err)
		}
		info, err = os.Stat(path)
	}
	if err != nil {
		return nil, unusable("data_folder_missing", "The data folder cannot be looked at: "+path, "ls -ld "+quote(path), err)
	}
	if !info.IsDir() {
		return nil, fault.New(fault.Invalid, "data_folder_missing", "The data folder is not a folder: "+path+".").
			WithHint("Name a folder that only this server uses.")
	}
	// Owner before mode: chmod on somebody else's folder would not help.
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return nil, folderFault("data_folder_owner", "The data folder belongs to another user.",
			fmt.Sprintf("chown -R %d %s", os.Geteuid(), quote(path)))
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, folderFault("data_folder_mode", fmt.Sprintf("Other users can reach the data folder (mode %04o).", info.Mode().Perm()),
			"chmod 700 "+quote(path))
	}
	if err := syscall.Access(path, writeAndEnter); err != nil {
		return nil, unusable("data_folder_not_writable", "The data folder cannot be written to: "+path, "chmod 700 "+quote(path), err)
	}
	name := filepath.Join(path, "lock")
	lock, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unusable("data_folder_not_writable", "The lock of the data folder cannot be opened: "+name, "chmod 600 "+quote(name), err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fault.New(fault.Conflict, "data_folder_locked", "Another ambit process uses this folder: "+path+".").
				WithHint("Stop the other process, or speak to it through the API or the command line; only one process may own a data folder.")
		}
		return nil, folderFault("data_folder_unlockable", "The data folder cannot be locked; it must be on a local disk.", "df "+quote(path)).WithCause(err)
	}
	return &folder{path: path, lock: lock}, nil
}

// unlock gives the lock back in so many words: closing is not enough while a
// child process between fork and exec still shares the open file.
func (f *folder) unlock() {
	syscall.Flock(int(f.lock.Fd()), syscall.LOCK_UN)
	f.lock.Close()
}
