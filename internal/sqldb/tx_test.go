package sqldb_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

func put(ctx context.Context, q sqldb.Querier, id string) error {
	_, err := q.ExecContext(ctx, insertItem, id, "t", 1, true, nil)
	return err
}

func ids(t *testing.T, db *sqldb.DB) []string {
	t.Helper()
	return column[string](t, db.Reader(), `select id from item order by id`)
}

func TestHooksRunInOrderAroundTheCommit(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		itemTable(t, db)
		var got []string
		say := func(s string) { got = append(got, s) }
		update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
			tx.Done(func(ok bool) { say(fmt.Sprint("done ", ok, " ", len(ids(t, db)))) })
			tx.BeforeCommit(func(ctx context.Context) error {
				say("first")
				tx.BeforeCommit(func(ctx context.Context) error { say("from a hook"); return put(ctx, tx, "late") })
				return nil
			})
			tx.BeforeCommit(func(context.Context) error { say("second"); return nil })
			say("body")
			return put(ctx, tx, "early")
		})
		if diff := cmp.Diff([]string{"body", "first", "second", "from a hook", "done true 2"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestBeforeCommitErrorAborts(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		itemTable(t, db)
		sentinel := errors.New("no audit, no change")
		var done []bool
		err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			tx.Done(func(ok bool) { done = append(done, ok) })
			tx.BeforeCommit(func(context.Context) error { return sentinel })
			tx.BeforeCommit(func(context.Context) error { t.Error("a hook ran after one that failed"); return nil })
			return put(ctx, tx, "a")
		})
		if err != sentinel {
			t.Errorf("got %v, want the hook's error", err)
		}
		if got := ids(t, db); got != nil {
			t.Errorf("got rows %v, want none", got)
		}
		if diff := cmp.Diff([]bool{false}, done); diff != "" {
			t.Error(diff)
		}
	})
}

// SQLite by itself would let a transaction go on after a failed statement,
// PostgreSQL would not: a room tested on one must not surprise on the other.
func TestFailedStatementEndsTheTransaction(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		itemTable(t, db)
		exec(t, db, insertItem, "a", "t", 1, true, nil)
		err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			if err := put(ctx, tx, "b"); err != nil {
				return err
			}
			if err := put(ctx, tx, "a"); !sqldb.IsUnique(err) {
				t.Errorf("got %v, want a unique violation", err)
			}
			if err := put(ctx, tx, "c"); !sqldb.IsUnique(err) {
				t.Errorf("next statement: got %v, want the first failure again", err)
			}
			if err := tx.QueryRowContext(ctx, `select 1`).Scan(new(int)); !sqldb.IsUnique(err) {
				t.Errorf("next row: got %v, want the first failure again", err)
			}
			return nil
		})
		if !sqldb.IsUnique(err) {
			t.Errorf("got %v, want the swallowed failure", err)
		}
		if diff := cmp.Diff([]string{"a"}, ids(t, db)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestPanicRollsBack(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		itemTable(t, db)
		var done []bool
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
				tx.Done(func(bool) { panic("another bug") }) // which keeps no other from its end
				tx.Done(func(ok bool) { done = append(done, ok) })
				put(ctx, tx, "a")
				panic("bug")
			})
		}()
		exec(t, db, insertItem, "b", "t", 1, true, nil)
		if diff := cmp.Diff([]string{"b"}, ids(t, db)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]bool{false}, done); diff != "" {
			t.Error(diff)
		}
	})
}

func TestNestedUpdateIsRefused(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			return db.Update(ctx, func(context.Context, *sqldb.Tx) error { return nil })
		})
		if !fault.Is(err, "nested_transaction") {
			t.Errorf("got %v, want nested_transaction", err)
		}
	})
}

func TestCancellationCommitsNothing(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		itemTable(t, db)
		ctx, cancel := context.WithCancel(t.Context())
		err := db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
			err := put(ctx, tx, "a")
			cancel()
			return err
		})
		if !errors.Is(err, context.Canceled) || !fault.Is(err, "database_unavailable") {
			t.Errorf("got %v, want database_unavailable for a cancellation", err)
		}
		exec(t, db, insertItem, "b", "t", 1, true, nil)
		if diff := cmp.Diff([]string{"b"}, ids(t, db)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestReaderRefusesWrites(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		itemTable(t, db)
		for name, q := range map[string]sqldb.Querier{"reader": db.Reader(), "near": db.Near()} {
			if err := put(t.Context(), q, "a"); !fault.Is(err, "write_outside_update") {
				t.Errorf("%s: got %v, want write_outside_update", name, err)
			}
		}
		// No text may write either, not even on the connection that writes.
		if db.Engine() == sqldb.SQLite {
			if err := db.Near().QueryRowContext(t.Context(), insertItem+" returning id", "a", "t", 1, true, nil).Scan(new(string)); err == nil {
				t.Error("a statement that writes ran as a read")
			}
		}
		if got := ids(t, db); len(got) != 0 {
			t.Errorf("%v was written", got)
		}
	})
}

// What is read near sees the newest commit, whether somebody writes or not, and
// waits for no writer.
func TestNearSeesTheNewestCommit(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		itemTable(t, db)
		count := func() (n int) {
			t.Helper()
			if err := db.Near().QueryRowContext(t.Context(), `select count(*) from item`).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		exec(t, db, insertItem, "a", "t", 1, true, nil)
		if got := count(); got != 1 {
			t.Errorf("%d items while nobody writes, want 1", got)
		}
		err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			if _, err := tx.ExecContext(ctx, insertItem, "b", "t", 1, true, nil); err != nil {
				return err
			}
			if got := count(); got != 1 {
				t.Errorf("%d items while the second is being written, want 1", got)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := count(); got != 2 {
			t.Errorf("%d items after the second, want 2", got)
		}
	})
}

// Hostile text gets the same answer on both engines, and a bug: behind a pointer and
// from a driver.Valuer it was not looked at.
func TestUnstorableTextIsInvalid(t *testing.T) {
	t.Parallel()
	type name string
	text, named := "a\x00b", name("\xff")
	pointer := &text
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		itemTable(t, db)
		for _, bad := range []any{"a\x00b", "\xff\xfe", name("\x00"), &text, &pointer, &named, sql.NullString{String: text, Valid: true}, &sql.NullString{String: text, Valid: true}, shouted(text)} {
			err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
				_, err := tx.ExecContext(ctx, insertItem, bad, "t", 1, true, nil)
				return sqldb.Wrap("insert", err)
			})
			if !fault.Is(err, "invalid_text") {
				t.Errorf("write of %q: got %v, want invalid_text", bad, err)
			}
			err = db.Reader().QueryRowContext(t.Context(), `select id from item where id = $1`, bad).Scan(new(string))
			if !fault.Is(err, "invalid_text") {
				t.Errorf("read of %q: got %v, want invalid_text", bad, err)
			}
		}
	})
}

// shouted is stored in capitals.
type shouted string

func (s shouted) Value() (driver.Value, error) { return strings.ToUpper(string(s)), nil }

// What is no text, or none to complain of, passes in the same forms.
func TestStorableTextPasses(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		itemTable(t, db)
		text := "a"
		var none *string
		for want, arg := range map[string]any{"a": &text, "b": sql.NullString{String: "b", Valid: true}, "C": shouted("c")} {
			update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
				_, err := tx.ExecContext(ctx, insertItem, arg, "t", 1, true, none)
				return err
			})
			if got := scan[string](t, db.Reader(), `select id from item where id = $1`, want); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		var null sql.NullString
		if err := db.Reader().QueryRowContext(t.Context(), `select cast($1 as text)`, (*sql.NullString)(nil)).Scan(&null); err != nil || null.Valid {
			t.Errorf("no text: %v, %v", null, err)
		}
	})
}

// Two writers that read, add one and write by version lose no increment.
func TestConcurrentCompareAndSwap(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		itemTable(t, db)
		exec(t, db, insertItem, "a", "t", 0, true, nil)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for added := 0; added < 10; {
					err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
						var n, version int64
						if err := tx.QueryRowContext(ctx, `select expires_at, version from item where id = $1`, "a").Scan(&n, &version); err != nil {
							return err
						}
						return tx.QueryRowContext(ctx, `update item set expires_at = $1, version = version + 1 where id = $2 and version = $3 returning version`, n+1, "a", version).Scan(&version)
					})
					switch {
					case err == nil:
						added++
					case !sqldb.NoRows(err):
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if got := scan[int64](t, db.Reader(), `select expires_at from item where id = $1`, "a"); got != 80 {
			t.Errorf("got %d increments, want 80", got)
		}
	})
}

// The fence of a tool call reads the session row with ShareLock: a revoke that
// comes meanwhile waits, so no intent commits after it.
func TestShareLockHoldsOffWriters(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		itemTable(t, db)
		exec(t, db, insertItem, "session", "t", 1, true, nil)
		var mu sync.Mutex
		var order []string
		say := func(s string) { mu.Lock(); order = append(order, s); mu.Unlock() }
		revoked := make(chan error, 1)
		update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
			if live := scan[bool](t, tx, `select live from item where id = $1`+tx.ShareLock(), "session"); !live {
				t.Error("not live")
			}
			go func() {
				revoked <- db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
					_, err := tx.ExecContext(ctx, `update item set live = $1 where id = $2`, false, "session")
					say("revoked")
					return err
				})
			}()
			time.Sleep(100 * time.Millisecond)
			say("intent")
			return put(ctx, tx, "intent")
		})
		if err := <-revoked; err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"intent", "revoked"}, order); diff != "" {
			t.Error(diff)
		}
	})
}

func TestCloseWaitsAndRefuses(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			cfg := sqldbtest.Config(t, engine)
			db, err := sqldb.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			itemTable(t, db)
			started, result := make(chan struct{}), make(chan error, 1)
			var ended atomic.Bool
			go func() {
				result <- db.Update(context.Background(), func(ctx context.Context, tx *sqldb.Tx) error {
					tx.Done(func(bool) { ended.Store(true) })
					close(started)
					time.Sleep(50 * time.Millisecond)
					return put(ctx, tx, "a")
				})
			}()
			<-started
			if err := db.Close(); err != nil {
				t.Error(err)
			}
			if !ended.Load() {
				t.Error("Close did not wait for a running update")
			}
			if err := <-result; err != nil {
				t.Errorf("running update: got %v, want it finished", err)
			}
			if err := db.Close(); err != nil {
				t.Errorf("second Close: %v", err)
			}
			err = db.Update(t.Context(), func(context.Context, *sqldb.Tx) error { return nil })
			if !fault.Is(err, "database_unavailable") {
				t.Errorf("got %v, want database_unavailable", err)
			}
			if diff := cmp.Diff([]string{"a"}, ids(t, sqldbtest.OpenConfig(t, cfg))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTimeAndStats(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		at := time.Date(2026, 7, 1, 12, 0, 0, 123456789, time.FixedZone("x", 3600))
		if got := sqldb.Time(sqldb.Micros(at)); !got.Equal(at.Truncate(time.Microsecond)) || got.Location() != time.UTC {
			t.Errorf("got %v, want %v in UTC", got, at)
		}
		if !sqldb.Time(0).IsZero() || sqldb.Micros(time.Time{}) != 0 {
			t.Error("no time does not round trip as 0")
		}
		now, err := db.Clock(t.Context())
		if err != nil || time.Since(now).Abs() > 5*time.Second {
			t.Errorf("clock: got %v, %v", now, err)
		}
		if err := db.Ping(t.Context()); err != nil {
			t.Error(err)
		}
		before := db.Stats()
		update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
			return tx.QueryRowContext(ctx, `select 1`).Scan(new(int))
		})
		after := db.Stats()
		if after.Commits-before.Commits != 1 || after.Statements-before.Statements != 1 {
			t.Errorf("got %+v after %+v, want one more of each", after, before)
		}
	})
}

// What is put off is there for the next statement, and its failure is the
// transaction's, in the words of whoever put it off.
func TestLater(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		itemTable(t, db)
		refused := errors.New("there is one already")
		explain := func(err error) error {
			if sqldb.IsUnique(err) {
				return refused
			}
			return err
		}
		seen := int64(0)
		update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
			if err := tx.Later(ctx, explain, insertItem, "a", "t", 1, true, nil); err != nil {
				return err
			}
			return tx.QueryRowContext(ctx, `select count(*) from item`).Scan(&seen)
		})
		if seen != 1 {
			t.Errorf("the next statement saw %d rows, want 1", seen)
		}
		for _, with := range []string{"the next statement", "the flush", "the commit"} {
			done := []bool{}
			err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
				tx.Done(func(ok bool) { done = append(done, ok) })
				if err := errors.Join(tx.Flush(ctx), put(ctx, tx, "b"), tx.Flush(ctx)); err != nil { // nothing waits
					return err
				}
				if err := tx.Later(ctx, explain, insertItem, "a", "t", 2, true, nil); err != nil {
					return err
				}
				switch with {
				case "the commit":
					return nil
				case "the flush":
					if err := tx.Flush(ctx); !errors.Is(err, refused) {
						t.Errorf("the flush gave %v", err)
					}
				}
				return put(ctx, tx, "c")
			})
			if !errors.Is(err, refused) || sqldb.Uncertain(err) || len(done) != 1 || done[0] {
				t.Errorf("a failure sent with %s: got %v, done %v", with, err, done)
			}
		}
		if got := ids(t, db); len(got) != 1 {
			t.Errorf("got rows %v, want the first alone", got)
		}
	})
}
