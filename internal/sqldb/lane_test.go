package sqldb_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// flood runs fn often at once, and has begun when some of them hold what they wait
// for. fn calls hold where it would be slow.
func flood(t *testing.T, begun int64, fn func(ctx context.Context, hold func()) error) (release func()) {
	t.Helper()
	open := make(chan struct{})
	var held atomic.Int64
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			if err := fn(t.Context(), func() { held.Add(1); <-open }); err != nil {
				t.Errorf("the flood: %v", err)
			}
		})
	}
	for end := time.Now().Add(20 * time.Second); held.Load() < begun; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of the flood have begun", held.Load())
		}
	}
	time.Sleep(50 * time.Millisecond) // for the rest to stand in line
	return func() { close(open); wg.Wait() }
}

// passes requires that fn ends while a flood goes on.
func passes(t *testing.T, what string, fn func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := fn(ctx); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func one(ctx context.Context, q sqldb.Querier) error {
	return q.QueryRowContext(ctx, `select 1`).Scan(new(int))
}

func slowly(ctx context.Context, q sqldb.Querier, hold func()) error {
	rows, err := q.QueryContext(ctx, `select 1`)
	if err != nil {
		return err
	}
	defer rows.Close()
	hold()
	for rows.Next() {
	}
	return rows.Err()
}

func nothing(context.Context, *sqldb.Tx) error { return nil }

// W7: slow lists of one tenant, however many, leave connections for the lists of
// another, for what calls read, and for what is written.
func TestListsLeaveConnections(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		release := flood(t, 1, func(ctx context.Context, hold func()) error { return slowly(ctx, db.Lists("flood"), hold) })
		defer release()
		passes(t, "another tenant's list", func(ctx context.Context) error { return one(ctx, db.Lists("other")) })
		passes(t, "a read", func(ctx context.Context) error { return one(ctx, db.Reader()) })
		passes(t, "a write", func(ctx context.Context) error { return db.Update(ctx, nothing) })
		passes(t, "a revocation", func(ctx context.Context) error { return db.Urgent(ctx, "other", nothing) })
	})
}

// W7: on PostgreSQL, whatever has all connections that anybody may have, and is
// slow, has not those of revocations; and one tenant's revocations have not those of
// another's.
func TestRevocationsHaveConnectionsOfTheirOwn(t *testing.T) {
	t.Parallel()
	for name, work := range map[string]func(db *sqldb.DB, ctx context.Context, hold func()) error{
		"reads": func(db *sqldb.DB, ctx context.Context, hold func()) error { return slowly(ctx, db.Reader(), hold) },
		"writes": func(db *sqldb.DB, ctx context.Context, hold func()) error {
			return db.Update(ctx, func(context.Context, *sqldb.Tx) error { hold(); return nil })
		},
		"revocations": func(db *sqldb.DB, ctx context.Context, hold func()) error {
			return db.Urgent(ctx, "flood", func(context.Context, *sqldb.Tx) error { hold(); return nil })
		},
		"what revocations read": func(db *sqldb.DB, ctx context.Context, hold func()) error {
			return slowly(ctx, db.UrgentReader("flood"), hold)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := sqldbtest.Open(t, sqldb.PostgreSQL) // of 8 connections
			begun := int64(6)
			if strings.Contains(name, "revocations") {
				begun = 1
			}
			release := flood(t, begun, func(ctx context.Context, hold func()) error { return work(db, ctx, hold) })
			defer release()
			passes(t, "a revocation", func(ctx context.Context) error { return db.Urgent(ctx, "other", nothing) })
			for range 5 { // each gives its turn back
				passes(t, "what it reads before", func(ctx context.Context) error { return one(ctx, db.UrgentReader("other")) })
			}
			if begun == 1 {
				passes(t, "a read", func(ctx context.Context) error { return one(ctx, db.Reader()) })
				passes(t, "a write", func(ctx context.Context) error { return db.Update(ctx, nothing) })
			}
		})
	}
}

// W7: on SQLite, where one connection writes, a revocation is next in the line.
func TestRevocationIsNextInTheLine(t *testing.T) {
	t.Parallel()
	db := sqldbtest.Open(t, sqldb.SQLite)
	var before atomic.Int64
	var first sync.Once
	release := flood(t, 1, func(ctx context.Context, hold func()) error {
		return db.Update(ctx, func(context.Context, *sqldb.Tx) error {
			first.Do(hold)
			before.Add(1)
			return nil
		})
	})
	came := make(chan int64, 1)
	go func() {
		_ = db.Urgent(t.Context(), "other", func(context.Context, *sqldb.Tx) error { came <- before.Load(); return nil })
	}()
	time.Sleep(50 * time.Millisecond) // for it to stand in line
	release()
	if n := <-came; n > 2 {
		t.Errorf("the revocation came after %d of 40 writes", n)
	}
}

// A list that is read to its end, closed early, refused, or of one row gives its
// turn back, once.
func TestListsGiveTheirTurnBack(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		q := db.Lists("a")
		for range 20 {
			passes(t, "a list", func(ctx context.Context) error {
				rows, err := q.QueryContext(ctx, `select 1`)
				if err != nil {
					return err
				}
				for rows.Next() {
				}
				_ = rows.Close()
				return rows.Close()
			})
			passes(t, "a list that is not read", func(ctx context.Context) error {
				rows, err := q.QueryContext(ctx, `select 1`)
				if err != nil {
					return err
				}
				return rows.Close()
			})
			passes(t, "a row", func(ctx context.Context) error { return one(ctx, q) })
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if _, err := q.QueryContext(ctx, `select nothing from nowhere`); err == nil || ctx.Err() != nil {
				t.Errorf("a list that fails: %v", err)
			}
			cancel()
		}
	})
}
