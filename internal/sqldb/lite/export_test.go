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

// Place binds a text and a blob of length bytes in a buffer that was reserved for
// measured ones, and says how each ended.
func Place(c *Conn, measured, length int) (text, blob error) {
	s, _, err := c.take(`select $1`)
	if err != nil {
		return err, err
	}
	defer c.give(s)
	if err := s.reserve(measured); err != nil {
		return err, err
	}
	s.size = measured // what is reserved beyond is the buffer's own matter
	text = s.bindText(1, string(make([]byte, length)))
	s.used = 0
	return text, s.bindBlob(1, make([]byte, length))
}
