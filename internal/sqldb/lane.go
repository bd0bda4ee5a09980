package sqldb

import (
	"context"

	"github.com/ambit-dev/ambit/internal/throttle"
)

// lanes divide the connections, so that no flood takes the last one from what
// must go on (threats.md W7). Lists have half of those that read and one caller
// a quarter of that; what ends access has a quarter of PostgreSQL's connections
// for itself, and on SQLite the next turn of the one that writes. Everything else
// is short and shares the rest.
type lanes struct {
	lists, urgent *throttle.Turns
	common        chan struct{} // PostgreSQL: places of all but the urgent; nil is no bound
}

// newLanes divides size connections, of which reserved are for the urgent only.
func newLanes(size, reserved int) lanes {
	l := lanes{lists: throttle.NewTurns(size/2, size/8), urgent: throttle.NewTurns(max(reserved, 1), max(reserved/2, 1))}
	if reserved > 0 {
		l.common = make(chan struct{}, size-reserved)
	}
	return l
}

// share waits for a connection that anybody may have.
func (l lanes) share(ctx context.Context) error {
	if l.common == nil {
		return nil
	}
	select {
	case l.common <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l lanes) unshare() {
	if l.common != nil {
		<-l.common
	}
}

// Lists is [DB.Reader] for what reads many rows on somebody's behalf: by names the
// organization, or what else there is, whose lists take turns. A list is read to
// its end, or closed, before the next one is begun.
func (db *DB) Lists(by string) Querier { return lists{reader{db}, by} }

type lists struct {
	reader
	by string
}

func (l lists) QueryContext(ctx context.Context, query string, args ...any) (Rows, error) {
	done, err := l.db.lanes.lists.Wait(ctx, l.by)
	if err != nil {
		return nil, err
	}
	rows, err := l.reader.QueryContext(ctx, query, args...)
	if err != nil {
		done()
		return nil, err
	}
	return &heldRows{Rows: rows, release: done}, nil
}

func (l lists) QueryRowContext(ctx context.Context, query string, args ...any) Row {
	return oneOf(l.QueryContext(ctx, query, args...))
}

// heldRows give back what was held for them at their end.
type heldRows struct {
	Rows
	release func()
}

func (r *heldRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	_ = r.Close()
	return false
}

func (r *heldRows) Close() error {
	err := r.Rows.Close()
	if r.release != nil {
		r.release()
		r.release = nil
	}
	return err
}

// Urgent is [DB.Update] for what ends access, which stands behind no other work:
// neither that of other kinds nor the like of another caller. by names the
// organization, or what else there is, that asks.
func (db *DB) Urgent(ctx context.Context, by string, fn func(ctx context.Context, tx *Tx) error) error {
	if err := db.outside(ctx); err != nil {
		return err
	}
	if err := db.enter(); err != nil {
		return err
	}
	defer db.inflight.Done()
	done, err := db.lanes.urgent.Wait(ctx, by)
	if err != nil {
		return Wrap("wait for a turn", err)
	}
	defer done()
	return db.attempts(ctx, txLimit, true, fn)
}

// UrgentReader is [DB.Reader] for what must be read before access can be ended:
// who asks, and what they aim at. On PostgreSQL it has the connections and the
// turns of [DB.Urgent], and by names the same; what it reads is short and read to
// its end. On SQLite, where reads do not wait for writes, it is a Reader.
func (db *DB) UrgentReader(by string) Querier {
	if db.engine == SQLite {
		return db.Reader()
	}
	return urgentReader{reader{db}, by}
}

type urgentReader struct {
	reader
	by string
}

func (u urgentReader) QueryContext(ctx context.Context, query string, args ...any) (Rows, error) {
	if err := checkText(args); err != nil {
		return nil, err
	}
	done, err := u.db.lanes.urgent.Wait(ctx, u.by)
	if err != nil {
		return nil, err
	}
	u.db.statements.Add(1)
	rows, err := u.db.store.urgent(ctx, query, args)
	if err != nil {
		done()
		return nil, err
	}
	return &heldRows{Rows: rows, release: done}, nil
}

func (u urgentReader) QueryRowContext(ctx context.Context, query string, args ...any) Row {
	return oneOf(u.QueryContext(ctx, query, args...))
}
