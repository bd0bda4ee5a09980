//go:build !unix

package disk

import (
	"io/fs"
	"os"
)

// keepOwner has nothing to do: a new file is its folder's here.
func keepOwner(*os.File, fs.FileInfo) error { return nil }

// Names is how many names (hard links) a file has, which is not asked here.
func Names(fs.FileInfo) (n int, inode uint64) { return 1, 0 }
