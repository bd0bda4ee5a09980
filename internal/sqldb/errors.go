package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb/lite"
)

const (
	codeUnavailable = "database_unavailable"
	codeDiskFull    = "disk_full"
)

// Wrap says what we were doing when the database returned err, and turns what
// only the operator or time can mend (connection, disk, lock, deadline) into a
// fault. Missing rows and unique violations stay what they are, for [NoRows]
// and [IsUnique]. Wrap of nil is nil.
func Wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	cause := fmt.Errorf("%s: %w", op, err)
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return cause
	}
	switch classify(err) {
	case classFull:
		return fault.New(fault.Unavailable, codeDiskFull, "The disk of the database is full.").
			WithHint("Free some space on the database's disk; the server goes on by itself.").WithCause(cause).WithRetry(retryAfter)
	case classReadOnly:
		return unavailable("The database is read-only.",
			"Make its disk writable or, with PostgreSQL, point the URL at the primary.", cause)
	case classDamaged:
		return unavailable("The database file is damaged.",
			"Stop the server and restore the newest backup.", cause)
	case classIO:
		return unavailable("The disk of the database reports an error.",
			"Check the disk and the kernel log.", cause)
	case classBusy, classConflict:
		return unavailable("The database is busy.", "Try again.", cause)
	case classLost:
		return unavailable("The database cannot be reached.",
			"Try again; if it stays, check that the database is running.", cause)
	case classCut:
		return unavailable("The database did not answer in time.", "Try again.", cause)
	case classText:
		return invalidText().WithCause(cause)
	}
	return cause
}

func invalidText() *fault.Error {
	return fault.New(fault.Invalid, "invalid_text", "A text is not valid UTF-8 or contains a zero byte.").
		WithHint("Send plain UTF-8 text.")
}

func unavailable(message, hint string, cause error) error {
	return fault.New(fault.Unavailable, codeUnavailable, message).WithHint(hint).WithCause(cause).WithRetry(retryAfter)
}

// retryAfter is when to try again what the database could not do. It may last
// longer; nobody here knows.
const retryAfter = time.Second

// IsUnique reports whether err is a violated unique or primary key.
func IsUnique(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code == "23505"
	}
	if e, ok := errors.AsType[*lite.Error](err); ok {
		return e.Code == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
	}
	return false
}

// IsNull reports whether err is a null where none may be.
func IsNull(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code == "23502"
	}
	if e, ok := errors.AsType[*lite.Error](err); ok {
		return e.Code == sqlite3.SQLITE_CONSTRAINT_NOTNULL
	}
	return false
}

// NoRows reports whether err says that there was no row: nothing found, or a
// compare-and-swap that came too late.
func NoRows(err error) bool { return errors.Is(err, sql.ErrNoRows) }

// Uncertain reports whether err is a commit that may have taken effect: it was
// sent, and the engine did not say that it failed. Read again before acting.
func Uncertain(err error) bool {
	_, ok := errors.AsType[uncertain](err)
	return ok
}

type uncertain struct{ error }

func (u uncertain) Unwrap() error { return u.error }

type class int

const (
	classOther class = iota
	classFull
	classReadOnly
	classDamaged
	classIO
	classBusy
	classConflict // serialization failure or deadlock: run again
	classLost     // no connection, or it broke
	classCut      // our own deadline or cancellation
	classText     // a text that the engine cannot store
)

func classify(err error) class {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return classLost // whatever the server said while refusing
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return classifyPostgres(e.Code)
	}
	if e, ok := errors.AsType[*lite.Error](err); ok {
		return classifySQLite(e.Code)
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return classCut
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone), errors.Is(err, net.ErrClosed),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), pgconn.SafeToRetry(err),
		strings.HasSuffix(err.Error(), "closed pool"), strings.HasSuffix(err.Error(), "conn closed"): // this process is stopping; neither has a name here
		return classLost
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return classLost
	}
	return classOther
}

func classifySQLite(code int) class {
	switch code & 0xff { // the rest of an extended code is detail
	case sqlite3.SQLITE_FULL:
		return classFull
	case sqlite3.SQLITE_READONLY:
		return classReadOnly
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return classDamaged
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOMEM:
		return classIO
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return classBusy
	case sqlite3.SQLITE_INTERRUPT:
		return classCut
	}
	return classOther
}

func classifyPostgres(code string) class {
	switch code {
	case "53100":
		return classFull
	case "25006":
		return classReadOnly
	case "40001", "40P01":
		return classConflict
	case "55P03", "53300", "53200", "53400":
		return classBusy
	case "57014":
		return classCut
	case "22021", "22P05":
		return classText
	case "XX001", "XX002":
		return classDamaged
	case "57P01", "57P02", "57P03", "57P05", "25P03":
		return classLost
	}
	switch {
	case strings.HasPrefix(code, "08"):
		return classLost
	case strings.HasPrefix(code, "58"):
		return classIO
	}
	return classOther
}

// transient reports whether a transaction that met err before its commit, or
// that the server said it rolled back, may run again.
func transient(err error) bool {
	if err == nil {
		return false
	}
	if _, ok := errors.AsType[*lite.Error](err); ok {
		return false // the single writer has no races to lose
	}
	c := classify(err)
	return c == classConflict || c == classLost
}

// outcomeOpen reports whether a failed commit may still have taken effect: it may
// unless the engine said that it did not. A server that answers has decided;
// SQLite is unsure only when the disk failed.
func outcomeOpen(err error) bool {
	if late, ok := errors.AsType[beforeCommit](err); ok {
		err = late.said
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return classifyPostgres(e.Code) == classLost
	}
	if e, ok := errors.AsType[*lite.Error](err); ok {
		return classifySQLite(e.Code) == classIO
	}
	return !errors.Is(err, pgx.ErrTxCommitRollback)
}

// unsure says of a commit whose outcome is open what [Wrap] would say of its
// error, but not to do it again unseen.
func unsure(err error) error {
	return uncertain{unavailable("The database did not say whether it kept the change.",
		"It may have taken effect: look first, then try again.", fmt.Errorf("commit: %w", err))}
}
