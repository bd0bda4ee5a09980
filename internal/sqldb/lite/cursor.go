package lite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"strconv"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Cursor goes through the rows of a query.
type Cursor struct {
	s     *stmt
	ctx   context.Context
	more  bool // there is a row
	ahead bool // it was read before it was asked for
	done  bool // nothing is left to step through
}

// Next goes to the next row.
func (c *Cursor) Next() (bool, error) {
	if c.done {
		return false, nil
	}
	var err error
	if c.ahead {
		c.ahead = false
	} else if c.more, err = c.s.step(c.ctx); err != nil {
		c.more = false
	}
	c.done = !c.more
	return c.more, err
}

// Columns names the columns.
func (c *Cursor) Columns() []string {
	names := make([]string, c.s.columns)
	for i := range names {
		names[i] = libc.GoString(sqlite3.Xsqlite3_column_name(c.s.c.tls, c.s.handle, int32(i)))
	}
	return names
}

// Close ends the query. Its connection can be used by others then.
func (c *Cursor) Close() {
	if c.s != nil {
		c.s.c.give(c.s)
		c.s, c.more, c.done = nil, false, true
	}
}

var (
	errNoRow   = errors.New("there is no row to read")
	errNull    = errors.New("the value is null")
	errAnother = errors.New("the value has another type")
)

// Scan reads the row into pointers, one for each column: to a string, a number,
// a bool, a []byte, a type that is one of these, or a sql.Scanner. A null is
// taken by the last two only.
func (c *Cursor) Scan(dest ...any) error {
	if !c.more {
		return errNoRow
	}
	if len(dest) != c.s.columns {
		return fmt.Errorf("the row has %d columns and is read into %d values", c.s.columns, len(dest))
	}
	for i, d := range dest {
		if err := c.column(int32(i), d); err != nil {
			return fmt.Errorf("column %d: %w", i+1, err)
		}
	}
	return nil
}

func (c *Cursor) column(i int32, dest any) (err error) {
	switch d := dest.(type) {
	case *string:
		*d, err = c.text(i)
	case *[]byte:
		*d = c.blob(i)
	case *int64:
		*d, err = c.integer(i)
	case *int:
		var n int64
		n, err = c.integer(i)
		*d = int(n)
	case *bool:
		var n int64
		n, err = c.integer(i)
		*d = n != 0
	case *any:
		*d = c.value(i)
	case *sql.NullString:
		if d.Valid = !c.null(i); d.Valid {
			d.String, err = c.text(i)
		} else {
			d.String = ""
		}
	case *float64:
		if c.null(i) {
			return errNull
		}
		*d = sqlite3.Xsqlite3_column_double(c.s.c.tls, c.s.handle, i)
	case sql.Scanner:
		err = d.Scan(c.value(i))
	default:
		err = c.reflected(i, dest)
	}
	return err
}

// reflected reads into a type that is a string, a number, a bool or a []byte
// under another name.
func (c *Cursor) reflected(i int32, dest any) error {
	p := reflect.ValueOf(dest)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return errAnother
	}
	v := p.Elem()
	switch v.Kind() {
	case reflect.String:
		text, err := c.text(i)
		v.SetString(text)
		return err
	case reflect.Bool:
		n, err := c.integer(i)
		v.SetBool(n != 0)
		return err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := c.integer(i)
		if err == nil && v.OverflowInt(n) {
			return errAnother
		}
		v.SetInt(n)
		return err
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := c.integer(i)
		if err == nil && (n < 0 || v.OverflowUint(uint64(n))) {
			return errAnother
		}
		v.SetUint(uint64(n))
		return err
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(c.blob(i))
			return nil
		}
	}
	return errAnother
}

func (c *Cursor) kind(i int32) int32 {
	return sqlite3.Xsqlite3_column_type(c.s.c.tls, c.s.handle, i)
}

func (c *Cursor) null(i int32) bool { return c.kind(i) == sqlite3.SQLITE_NULL }

// text reads a text, or another value as the engine writes it.
func (c *Cursor) text(i int32) (string, error) {
	if c.null(i) {
		return "", errNull
	}
	p := sqlite3.Xsqlite3_column_text(c.s.c.tls, c.s.handle, i)
	n := int(sqlite3.Xsqlite3_column_bytes(c.s.c.tls, c.s.handle, i))
	if p == 0 || n == 0 {
		return "", nil
	}
	return string(bytesAt(p, n)), nil
}

// blob reads a blob or a text; a null is nil.
func (c *Cursor) blob(i int32) []byte {
	if c.null(i) {
		return nil
	}
	p := sqlite3.Xsqlite3_column_blob(c.s.c.tls, c.s.handle, i)
	n := int(sqlite3.Xsqlite3_column_bytes(c.s.c.tls, c.s.handle, i))
	out := make([]byte, n)
	if p != 0 {
		copy(out, bytesAt(p, n))
	}
	return out
}

// integer reads an integer, or a text that is one.
func (c *Cursor) integer(i int32) (int64, error) {
	switch c.kind(i) {
	case sqlite3.SQLITE_INTEGER:
		return sqlite3.Xsqlite3_column_int64(c.s.c.tls, c.s.handle, i), nil
	case sqlite3.SQLITE_NULL:
		return 0, errNull
	case sqlite3.SQLITE_TEXT:
		text, _ := c.text(i)
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, nil
		}
	}
	return 0, errAnother
}

// value is a column as it is stored.
func (c *Cursor) value(i int32) any {
	switch c.kind(i) {
	case sqlite3.SQLITE_INTEGER:
		return sqlite3.Xsqlite3_column_int64(c.s.c.tls, c.s.handle, i)
	case sqlite3.SQLITE_FLOAT:
		return sqlite3.Xsqlite3_column_double(c.s.c.tls, c.s.handle, i)
	case sqlite3.SQLITE_TEXT:
		text, _ := c.text(i)
		return text
	case sqlite3.SQLITE_BLOB:
		return c.blob(i)
	}
	return nil
}
