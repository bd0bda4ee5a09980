package lite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"reflect"
	"strconv"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// stmt is a compiled statement.
type stmt struct {
	c       *Conn
	text    string // its key among the idle ones; empty when it is not kept
	handle  uintptr
	columns int
	numbers []int // of each placeholder, in the engine's order: the argument it stands for, from 1
	args    int   // how many arguments it takes

	buffer     uintptr // what is bound: texts and blobs, one after another
	size, used int
}

// numberPlaceholders finds the argument of each placeholder: $2 is the second
// argument wherever it stands, while the engine counts by first appearance.
func (s *stmt) numberPlaceholders() error {
	n := int(sqlite3.Xsqlite3_bind_parameter_count(s.c.tls, s.handle))
	s.numbers = make([]int, n)
	for i := range s.numbers {
		s.numbers[i] = i + 1
		name := libc.GoString(sqlite3.Xsqlite3_bind_parameter_name(s.c.tls, s.handle, int32(i+1)))
		if name != "" {
			number, err := strconv.Atoi(name[1:])
			if err != nil || number < 1 {
				return fmt.Errorf("the placeholder %s is not a number", name)
			}
			s.numbers[i] = number
		}
		s.args = max(s.args, s.numbers[i])
	}
	return nil
}

func (s *stmt) finalize() {
	sqlite3.Xsqlite3_finalize(s.c.tls, s.handle)
	libc.Xfree(s.c.tls, s.buffer)
	s.handle, s.buffer, s.size = 0, 0, 0
}

// maxBuffer is how large a buffer a statement keeps when it is idle.
const maxBuffer = 64 << 10

func (s *stmt) shrink() {
	if s.size > maxBuffer {
		libc.Xfree(s.c.tls, s.buffer)
		s.buffer, s.size = 0, 0
	}
}

// bind gives every placeholder its argument.
func (s *stmt) bind(args []any) error {
	if len(args) != s.args {
		return fmt.Errorf("the statement takes %d arguments and got %d", s.args, len(args))
	}
	// The buffer must not move once something is bound, so its size comes first.
	need := 0
	for _, number := range s.numbers {
		need += lengthOf(args[number-1])
	}
	if need > maxBound {
		return &Error{Code: sqlite3.SQLITE_TOOBIG, text: "string or blob too big"}
	}
	if err := s.reserve(need); err != nil {
		return err
	}
	for i, number := range s.numbers {
		if err := s.bindOne(int32(i+1), args[number-1]); err != nil {
			return err
		}
	}
	return nil
}

func (s *stmt) reserve(need int) error {
	s.used = 0
	if need <= s.size {
		return nil
	}
	libc.Xfree(s.c.tls, s.buffer)
	s.size = max(512, 2*need)
	if s.buffer = libc.Xmalloc(s.c.tls, libc.Tsize_t(s.size)); s.buffer == 0 {
		s.size = 0
		return &Error{Code: sqlite3.SQLITE_NOMEM, text: "out of memory"}
	}
	return nil
}

// lengthOf is how much of the buffer an argument needs at most.
func lengthOf(arg any) int {
	switch v := arg.(type) {
	case string:
		return len(v)
	case []byte:
		return len(v)
	case nil, int64, int, bool:
		return 0
	}
	if v := reflect.ValueOf(arg); v.Kind() == reflect.String || v.Kind() == reflect.Slice {
		return v.Len()
	}
	return 0
}

func (s *stmt) bindOne(i int32, arg any) error {
	var rc int32
	switch v := arg.(type) {
	case nil:
		rc = sqlite3.Xsqlite3_bind_null(s.c.tls, s.handle, i)
	case string:
		rc = s.bindText(i, v)
	case []byte:
		rc = s.bindBlob(i, v)
	case int64:
		rc = sqlite3.Xsqlite3_bind_int64(s.c.tls, s.handle, i, v)
	case int:
		rc = sqlite3.Xsqlite3_bind_int64(s.c.tls, s.handle, i, int64(v))
	case bool:
		n := int64(0)
		if v {
			n = 1
		}
		rc = sqlite3.Xsqlite3_bind_int64(s.c.tls, s.handle, i, n)
	case float64:
		rc = sqlite3.Xsqlite3_bind_double(s.c.tls, s.handle, i, v)
	default:
		if named := reflect.ValueOf(arg); named.Kind() == reflect.String { // an id, a state
			rc = s.bindText(i, named.String())
			break
		}
		plain, err := driver.DefaultParameterConverter.ConvertValue(arg)
		if err != nil {
			return fmt.Errorf("argument %d: %w", s.numbers[i-1], err)
		}
		switch plain.(type) {
		case nil, string, []byte, int64, bool, float64:
			return s.bindOne(i, plain)
		}
		return fmt.Errorf("argument %d has the type %T, which is not stored", s.numbers[i-1], arg)
	}
	if rc != sqlite3.SQLITE_OK {
		return s.c.fault(rc)
	}
	return nil
}

func (s *stmt) bindText(i int32, v string) int32 {
	p := s.buffer + uintptr(s.used)
	if len(v) > 0 {
		s.used += copy(bytesAt(p, len(v)), v)
	} else {
		p = emptyText(s)
	}
	return sqlite3.Xsqlite3_bind_text(s.c.tls, s.handle, i, p, int32(len(v)), 0)
}

// emptyText is an address for a text of no bytes: zero would mean null.
func emptyText(s *stmt) uintptr { return s.c.out }

func (s *stmt) bindBlob(i int32, v []byte) int32 {
	if v == nil {
		return sqlite3.Xsqlite3_bind_null(s.c.tls, s.handle, i)
	}
	p := s.buffer + uintptr(s.used)
	if len(v) > 0 {
		s.used += copy(bytesAt(p, len(v)), v)
	} else {
		p = emptyText(s)
	}
	return sqlite3.Xsqlite3_bind_blob(s.c.tls, s.handle, i, p, int32(len(v)), 0)
}

// step goes to the next row. Without one it reports false.
func (s *stmt) step(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	s.c.ctx = ctx
	switch rc := sqlite3.Xsqlite3_step(s.c.tls, s.handle); rc {
	case sqlite3.SQLITE_ROW:
		return true, nil
	case sqlite3.SQLITE_DONE:
		return false, nil
	case sqlite3.SQLITE_INTERRUPT:
		if err := ctx.Err(); err != nil {
			return false, err
		}
		return false, s.c.fault(rc)
	default:
		return false, s.c.fault(rc)
	}
}
