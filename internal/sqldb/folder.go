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

func openFolder(path string) (*folder, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the data folder: %w", err)
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := disk.Folder(path); err != nil {
			return nil, folderFault("data_folder_missing", "The data folder cannot be made.", "mkdir -p -m 700 "+quote(path)).WithCause(err)
		}
		info, err = os.Stat(path)
	}
	if err != nil {
		return nil, folderFault("data_folder_missing", "The data folder cannot be read.", "ls -ld "+quote(path)).WithCause(err)
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
	name := filepath.Join(path, "lock")
	lock, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, folderFault("data_folder_locked", "The lock of the data folder cannot be opened.", "ls -l "+quote(name)).WithCause(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fault.New(fault.Conflict, "data_folder_locked", "Another ambit process uses this folder: "+path+".").
				WithHint("Stop the other process, or speak to it through the API or the command line; only one process may own a data folder.")
		}
		return nil, folderFault("data_folder_locked", "The data folder cannot be locked; it must be on a local disk.", "df "+quote(path)).WithCause(err)
	}
	return &folder{path: path, lock: lock}, nil
}

// unlock gives the lock back in so many words: closing is not enough while a
// child process between fork and exec still shares the open file.
func (f *folder) unlock() {
	syscall.Flock(int(f.lock.Fd()), syscall.LOCK_UN)
	f.lock.Close()
}
