package sqldb

import (
	"context"
	"database/sql/driver"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ambit-dev/ambit/internal/fault"
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
