// Package lite drives SQLite without database/sql. Both use the same engine,
// modernc.org/sqlite in pure Go; what is left out is what stands between: a
// goroutine for each statement that watches the context, names and types of
// columns that nobody asks for, a lock a step. A read of a call takes about half
// the time so and an eighth of the memory (docs/decisions/0008-sqlite-direct.md).
//
// A [Conn] belongs to one goroutine at a time. It keeps its compiled statements,
// understands placeholders $1, $2, … by their number, and asks the context of
// the statement that runs every thousand steps of the engine.
//
// This is the one package that holds memory outside Go: the engine's own, and
// for each statement one buffer with the texts and blobs bound to it. The buffer
// lives as long as the statement, and each run binds every placeholder anew, so
// the engine never looks at what an earlier run has left.
package lite

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Error is a failure that the engine reported.
type Error struct {
	Code int // extended result code
	text string
}

func (e *Error) Error() string { return e.text + " (" + strconv.Itoa(e.Code) + ")" }

// Conn is one connection to a database file.
type Conn struct {
	tls  *libc.TLS
	db   uintptr
	out  uintptr          // two pointers for what the engine hands out
	idle map[string]*stmt // compiled and not in use
	ctx  context.Context  // of the step that runs; otherwise one without an end
	hook func(*libc.TLS, uintptr) int32
}

// maxIdle bounds the compiled statements of a connection. Lists with filters
// make their text from the filters that are set; what comes after the first ones
// is compiled for each run.
const maxIdle = 512

// stepsBetween is after how many steps of the engine's machine the context of a
// statement is looked at: some microseconds of work.
const stepsBetween = 1000

// Open opens the database file at path, which must exist.
func Open(path string) (*Conn, error) {
	c := &Conn{tls: libc.NewTLS(), idle: map[string]*stmt{}, ctx: context.Background()}
	const pointers = libc.Tsize_t(2 * unsafe.Sizeof(uintptr(0)))
	if c.out = libc.Xmalloc(c.tls, pointers); c.out == 0 {
		c.tls.Close()
		return nil, &Error{Code: sqlite3.SQLITE_NOMEM, text: "out of memory"}
	}
	name, err := libc.CString(path)
	if err != nil {
		c.release()
		return nil, err
	}
	defer libc.Xfree(c.tls, name)
	// The connection is ours alone, so the engine takes no lock for it.
	rc := sqlite3.Xsqlite3_open_v2(c.tls, name, c.out, sqlite3.SQLITE_OPEN_READWRITE|sqlite3.SQLITE_OPEN_NOMUTEX, 0)
	c.db = *(*uintptr)(at(c.out))
	if rc != sqlite3.SQLITE_OK {
		err := c.fault(rc)
		_ = c.Close()
		return nil, err
	}
	sqlite3.Xsqlite3_extended_result_codes(c.tls, c.db, 1)
	if err := c.steadyPlans(); err != nil {
		_ = c.Close()
		return nil, err
	}
	c.hook = func(*libc.TLS, uintptr) int32 {
		if c.ctx.Err() != nil {
			return 1
		}
		return 0
	}
	sqlite3.Xsqlite3_progress_handler(c.tls, c.db, stepsBetween, *(*uintptr)(unsafe.Pointer(&c.hook)), 0)
	return c, nil
}

// steadyPlans has each statement planned once, from its text alone. Otherwise the
// engine may look at what is bound and plan a statement anew for each run, which
// costs more than most runs.
func (c *Conn) steadyPlans() error {
	args := libc.NewVaList(int32(1), uintptr(0))
	defer libc.Xfree(c.tls, args)
	if rc := sqlite3.Xsqlite3_db_config(c.tls, c.db, sqlite3.SQLITE_DBCONFIG_ENABLE_QPSG, args); rc != sqlite3.SQLITE_OK {
		return c.fault(rc)
	}
	return nil
}

// Close gives everything back.
func (c *Conn) Close() error {
	for _, s := range c.idle {
		s.finalize()
	}
	c.idle = nil
	var err error
	if c.db != 0 {
		if rc := sqlite3.Xsqlite3_close_v2(c.tls, c.db); rc != sqlite3.SQLITE_OK {
			err = c.fault(rc)
		}
		c.db = 0
	}
	c.release()
	return err
}

func (c *Conn) release() {
	if c.tls != nil {
		libc.Xfree(c.tls, c.out)
		c.tls.Close()
		c.tls = nil
	}
	runtime.KeepAlive(c.hook) // the engine held its address
}

// InTransaction reports whether a transaction is open.
func (c *Conn) InTransaction() bool { return sqlite3.Xsqlite3_get_autocommit(c.tls, c.db) == 0 }

// Exec runs a statement to its end and gives how many rows it changed. Without
// arguments the query may be a script of several.
func (c *Conn) Exec(ctx context.Context, query string, args []any) (changed int64, err error) {
	for {
		s, rest, err := c.take(query)
		if err != nil {
			return 0, err
		}
		if s != nil {
			if rest != "" && len(args) > 0 {
				s.finalize()
				return 0, fmt.Errorf("a script takes no arguments")
			}
			if changed, err = c.run(ctx, s, args); err != nil {
				return 0, err
			}
		}
		if rest == "" {
			return changed, nil
		}
		query = rest
	}
}

func (c *Conn) run(ctx context.Context, s *stmt, args []any) (int64, error) {
	defer c.give(s)
	if err := s.bind(args); err != nil {
		return 0, err
	}
	for {
		more, err := s.step(ctx)
		if err != nil {
			return 0, err
		}
		if !more {
			return sqlite3.Xsqlite3_changes64(c.tls, c.db), nil
		}
	}
}

// Query runs a query up to its first row. The Cursor must be closed.
func (c *Conn) Query(ctx context.Context, query string, args []any) (*Cursor, error) {
	return c.query(ctx, query, args, false)
}

// Read is Query of a statement that only reads; another is an error, and does
// not run.
func (c *Conn) Read(ctx context.Context, query string, args []any) (*Cursor, error) {
	return c.query(ctx, query, args, true)
}

func (c *Conn) query(ctx context.Context, query string, args []any, reads bool) (*Cursor, error) {
	s, rest, err := c.take(query)
	switch {
	case err != nil:
		return nil, err
	case s == nil || rest != "":
		if s != nil {
			s.finalize()
		}
		return nil, fmt.Errorf("a query is one statement")
	case reads && s.writes:
		c.give(s)
		return nil, fmt.Errorf("a statement that writes was to be read")
	}
	if err := s.bind(args); err != nil {
		c.give(s)
		return nil, err
	}
	more, err := s.step(ctx)
	if err != nil {
		c.give(s)
		return nil, err
	}
	return &Cursor{s: s, ctx: ctx, more: more, ahead: true}, nil
}

// take gives a compiled statement and what follows it in the text. Nil stands
// for a text without a statement, such as a comment.
func (c *Conn) take(query string) (*stmt, string, error) {
	if s := c.idle[query]; s != nil {
		delete(c.idle, query)
		return s, "", nil
	}
	text, err := libc.CString(query)
	if err != nil {
		return nil, "", err
	}
	defer libc.Xfree(c.tls, text)
	rc := sqlite3.Xsqlite3_prepare_v3(c.tls, c.db, text, int32(len(query)+1), sqlite3.SQLITE_PREPARE_PERSISTENT, c.out, c.out+unsafe.Sizeof(uintptr(0)))
	if rc != sqlite3.SQLITE_OK {
		return nil, "", c.fault(rc)
	}
	handle, tail := *(*uintptr)(at(c.out)), *(*uintptr)(at(c.out + unsafe.Sizeof(uintptr(0))))
	rest := strings.TrimSpace(query[tail-text:])
	if handle == 0 {
		return nil, rest, nil
	}
	s := &stmt{c: c, handle: handle, columns: int(sqlite3.Xsqlite3_column_count(c.tls, handle)), writes: sqlite3.Xsqlite3_stmt_readonly(c.tls, handle) == 0}
	if rest == "" {
		s.text = query
	}
	if err := s.numberPlaceholders(); err != nil {
		s.finalize()
		return nil, "", err
	}
	return s, rest, nil
}

// give puts a statement back that has run.
func (c *Conn) give(s *stmt) {
	sqlite3.Xsqlite3_reset(c.tls, s.handle) // it repeats the error of the step, which is known
	if _, twice := c.idle[s.text]; twice || s.text == "" || len(c.idle) >= maxIdle {
		s.finalize()
		return
	}
	s.shrink()
	c.idle[s.text] = s
}

// fault makes an error of a result code.
func (c *Conn) fault(rc int32) error {
	text := libc.GoString(sqlite3.Xsqlite3_errstr(c.tls, rc))
	if c.db != 0 {
		if more := libc.GoString(sqlite3.Xsqlite3_errmsg(c.tls, c.db)); more != text {
			text += ": " + more
		}
	}
	return &Error{Code: int(rc), text: text}
}

// at is a pointer into the engine's memory.
func at(p uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }

// bytesAt are n bytes of the engine's memory.
func bytesAt(p uintptr, n int) []byte { return unsafe.Slice((*byte)(at(p)), n) }

const maxBound = math.MaxInt32 // of one text or blob
