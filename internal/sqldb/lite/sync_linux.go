package lite

import (
	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Fdatasync makes the engine sync with fdatasync(2) in this process, which is
// what it does itself where it is configured for Linux: the same durability
// without a wait for the file's times. Elsewhere it changes nothing.
func Fdatasync() {
	tls := libc.NewTLS()
	defer tls.Close()
	sqlite3.Xmodernc_fdatasync(tls, 1)
}
