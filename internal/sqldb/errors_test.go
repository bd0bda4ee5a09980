package sqldb

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb/lite"
)

// F4: whoever is refused because the database is away, full or busy used to be
// told to try again, but not when.
func TestWhatTheDatabaseCannotDoSaysWhenToTryAgain(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"lost": driver.ErrBadConn, "cut": context.DeadlineExceeded, "full": &pgconn.PgError{Code: "53100"}, "busy": &pgconn.PgError{Code: "53300"},
		"restarting": &pgconn.PgError{Code: "57P03"}, "read-only": &pgconn.PgError{Code: "25006"},
	} {
		f := fault.Of(Wrap("read", err))
		if f.Kind != fault.Unavailable || f.RetryAfter < time.Second {
			t.Errorf("%s: got %v with a wait of %v, want unavailable and at least a second", name, f, f.RetryAfter)
		}
	}
}

// F4: after an outage of more than 15 s, a node used to refuse calls for up to
// another five, until its next regular renewal.
func TestANodeThatCouldNotRenewTriesAgainSoon(t *testing.T) {
	t.Parallel()
	if wait := untilBeat(driver.ErrBadConn); wait > time.Second {
		t.Errorf("a node that could not renew waits %v", wait)
	}
	if wait := untilBeat(nil); wait != nodeBeat {
		t.Errorf("a node that renewed waits %v, want %v", wait, nodeBeat)
	}
}

// F4, and a bug: an error at a commit that neither the engine nor the network has
// a name for was told as a failure, though the commit had been sent.
func TestACommitIsUncertainUnlessTheEngineSaidNo(t *testing.T) {
	t.Parallel()
	refused := errors.New("refused by the caller's own words")
	for name, c := range map[string]struct {
		err  error
		open bool
	}{
		"a name that nobody knows":          {errors.New("unexpected message type"), true},
		"a lost connection":                 {io.ErrUnexpectedEOF, true},
		"our own deadline":                  {context.DeadlineExceeded, true},
		"a server that stops":               {&pgconn.PgError{Code: "57P01"}, true},
		"a disk that failed":                {&lite.Error{Code: sqlite3.SQLITE_IOERR_FSYNC}, true},
		"the server: conflict":              {&pgconn.PgError{Code: "40001"}, false},
		"the server: not unique":            {fmt.Errorf("commit: %w", &pgconn.PgError{Code: "23505"}), false},
		"the server: rolled back":           {pgx.ErrTxCommitRollback, false},
		"SQLite: full":                      {&lite.Error{Code: sqlite3.SQLITE_FULL}, false},
		"a statement that the server took":  {beforeCommit{refused, &pgconn.PgError{Code: "23505"}}, false},
		"a statement without its answer":    {beforeCommit{refused, io.EOF}, true},
		"a statement with an unknown error": {beforeCommit{refused, errors.New("unexpected message type")}, true},
	} {
		if got := outcomeOpen(c.err); got != c.open {
			t.Errorf("%s: open %v, want %v", name, got, c.open)
		}
	}
	if f := fault.Of(unsure(errors.New("x"))); f.Kind != fault.Unavailable || !strings.Contains(f.Hint, "look first") || !Uncertain(unsure(errors.New("x"))) {
		t.Errorf("an unsure commit says %v, %q", f, f.Hint)
	}
}
