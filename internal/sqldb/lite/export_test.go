package lite

import sqlite3 "modernc.org/sqlite/lib"

// Compiled counts how often the engine compiled one of the idle statements anew
// because of what was bound to it.
func Compiled(c *Conn) (n int) {
	for _, s := range c.idle {
		n += int(sqlite3.Xsqlite3_stmt_status(c.tls, s.handle, sqlite3.SQLITE_STMTSTATUS_REPREPARE, 0))
	}
	return n
}
