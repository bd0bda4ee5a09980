package lite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"slices"
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
	writes  bool  // it changes the database
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
	// What is measured must be what is bound, so arguments are converted first, and once.
	args, err := plain(args)
	if err != nil {
		return err
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
			return fmt.Errorf("argument %d: %w", number, err)
		}
	}
	return nil
}

// plain gives args with what is not stored as it is, such as a pointer, a
// driver.Valuer or a named number, in the form that is. The caller's args stay.
func plain(args []any) ([]any, error) {
	own := false
	for i, arg := range args {
		if stored(arg) {
			continue
		}
		v, err := driver.DefaultParameterConverter.ConvertValue(arg)
		if err != nil {
			return nil, fmt.Errorf("argument %d: %w", i+1, err)
		}
		if !stored(v) {
			return nil, fmt.Errorf("argument %d has the type %T, which is not stored", i+1, arg)
		}
		if !own {
			args, own = slices.Clone(args), true
		}
		args[i] = v
	}
	return args, nil
}

// stored reports whether an argument is bound as it is. So are strings under
// another name, ids and states, unless they say otherwise.
func stored(arg any) bool {
	switch arg.(type) {
	case nil, string, []byte, int64, int, bool, float64:
		return true
	case driver.Valuer:
		return false
	}
	return reflect.TypeOf(arg).Kind() == reflect.String
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

// lengthOf is how much of the buffer a stored argument needs.
func lengthOf(arg any) int {
	switch v := arg.(type) {
	case string:
		return len(v)
	case []byte:
		return len(v)
	case nil, int64, int, bool, float64:
		return 0
	}
	return reflect.ValueOf(arg).Len()
}

func (s *stmt) bindOne(i int32, arg any) error {
	switch v := arg.(type) {
	case nil:
		return s.bound(sqlite3.Xsqlite3_bind_null(s.c.tls, s.handle, i))
	case string:
		return s.bindText(i, v)
	case []byte:
		return s.bindBlob(i, v)
	case int64:
		return s.bound(sqlite3.Xsqlite3_bind_int64(s.c.tls, s.handle, i, v))
	case int:
		return s.bound(sqlite3.Xsqlite3_bind_int64(s.c.tls, s.handle, i, int64(v)))
	case bool:
		n := int64(0)
		if v {
			n = 1
		}
		return s.bound(sqlite3.Xsqlite3_bind_int64(s.c.tls, s.handle, i, n))
	case float64:
		return s.bound(sqlite3.Xsqlite3_bind_double(s.c.tls, s.handle, i, v))
	default:
		return s.bindText(i, reflect.ValueOf(arg).String())
	}
}

func (s *stmt) bound(rc int32) error {
	if rc != sqlite3.SQLITE_OK {
		return s.c.fault(rc)
	}
	return nil
}

func (s *stmt) bindText(i int32, v string) error {
	p, err := place(s, v)
	if err != nil {
		return err
	}
	return s.bound(sqlite3.Xsqlite3_bind_text(s.c.tls, s.handle, i, p, int32(len(v)), 0))
}

func (s *stmt) bindBlob(i int32, v []byte) error {
	if v == nil {
		return s.bound(sqlite3.Xsqlite3_bind_null(s.c.tls, s.handle, i))
	}
	p, err := place(s, v)
	if err != nil {
		return err
	}
	return s.bound(sqlite3.Xsqlite3_bind_blob(s.c.tls, s.handle, i, p, int32(len(v)), 0))
}

var errNoRoom = errors.New("the value is longer than it was measured")

// place copies v into the buffer, behind what is bound already. Whatever was
// measured, nothing is written beyond the end.
func place[T string | []byte](s *stmt, v T) (uintptr, error) {
	if len(v) == 0 {
		return s.c.out, nil // an address, since zero would mean null
	}
	if len(v) > s.size-s.used {
		return 0, errNoRoom
	}
	p := s.buffer + uintptr(s.used)
	s.used += copy(bytesAt(p, len(v)), v)
	return p, nil
}

// step goes to the next row. Without one it reports false.
func (s *stmt) step(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	s.c.ctx = ctx
	rc := sqlite3.Xsqlite3_step(s.c.tls, s.handle)
	s.c.ctx = context.Background() // the engine asks while it compiles too, which is for somebody else
	switch rc {
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
