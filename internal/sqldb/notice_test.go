package sqldb_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// ears subscribes and returns a function that awaits n payloads.
func ears(t *testing.T, db *sqldb.DB, channel string) func(n int) []string {
	t.Helper()
	heard := make(chan string, 100)
	t.Cleanup(db.Subscribe(channel, func(p string) { heard <- p }))
	return func(n int) (got []string) {
		t.Helper()
		for len(got) < n {
			select {
			case p := <-heard:
				got = append(got, p)
			case <-time.After(5 * time.Second):
				t.Fatalf("heard only %q, want %d notices", got, n)
			}
		}
		return got
	}
}

func notify(t *testing.T, db *sqldb.DB, channel string, payloads ...string) {
	t.Helper()
	update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
		for _, p := range payloads {
			tx.Notify(channel, p)
		}
		return nil
	})
}

func TestNoticesArriveOnCommitOnlyAndInOrder(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		await := ears(t, db, "session")
		other := ears(t, db, "other")
		db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			tx.Notify("session", "rolled back")
			return context.Canceled
		})
		update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
			tx.BeforeCommit(func(context.Context) error { tx.Notify("session", "from a hook"); return nil })
			tx.Notify("session", "one")
			tx.Notify("session", "two\nlines and 'quotes'")
			tx.Notify("session", "one")
			return nil
		})
		notify(t, db, "session", strings.Repeat("x", 4000))
		notify(t, db, "other", "elsewhere")
		want := []string{"one", "two\nlines and 'quotes'", "from a hook", strings.Repeat("x", 4000)}
		if diff := cmp.Diff(want, await(4)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"elsewhere"}, other(1)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestNoticeLimits(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		itemTable(t, db)
		for channel, payload := range map[string]string{
			"big":      strings.Repeat("x", 4001),
			"two\nwos": "x",
			"zero":     "\x00",
		} {
			err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
				if err := put(ctx, tx, "a"); err != nil {
					return err
				}
				tx.Notify(channel, payload)
				return nil
			})
			if err == nil {
				t.Errorf("%q: got no error", channel)
			}
		}
		if got := ids(t, db); got != nil {
			t.Errorf("got rows %v, want none", got)
		}
	})
}

func TestCancelledSubscriberHearsNothing(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		await := ears(t, db, "c")
		cancel := db.Subscribe("c", func(string) { t.Error("heard after cancel") })
		cancel()
		cancel()
		notify(t, db, "c", "x")
		await(1)
	})
}

// A subscriber may use the database, and one that stalls costs a re-read, not
// memory without end.
func TestSlowSubscriber(t *testing.T) {
	t.Parallel()
	db := sqldbtest.Open(t, sqldb.SQLite)
	entered, proceed, reread := make(chan struct{}), make(chan struct{}), make(chan struct{})
	seen := 0
	db.Subscribe("c", func(p string) {
		switch {
		case seen == 0:
			if err := db.Update(context.Background(), func(context.Context, *sqldb.Tx) error { return nil }); err != nil {
				t.Error(err)
			}
			close(entered)
			<-proceed
		case p == "":
			close(reread)
		}
		seen++
	})
	notify(t, db, "c", "first")
	<-entered
	for i := range 11 {
		var many []string
		for j := range 1000 {
			many = append(many, fmt.Sprint(i, "/", j))
		}
		notify(t, db, "c", many...)
	}
	close(proceed)
	select {
	case <-reread:
	case <-time.After(5 * time.Second):
		t.Fatal("no call to read again")
	}
}

func TestNoticesReachOtherNodesOfTheSameSchema(t *testing.T) {
	t.Parallel()
	cfg := sqldbtest.Config(t, sqldb.PostgreSQL)
	one, two := sqldbtest.OpenConfig(t, cfg), sqldbtest.OpenConfig(t, cfg)
	stranger := sqldbtest.Open(t, sqldb.PostgreSQL)
	awaitOne, awaitTwo, awaitStranger := ears(t, one, "c"), ears(t, two, "c"), ears(t, stranger, "c")
	notify(t, one, "c", "x")
	notify(t, stranger, "c", "y")
	for name, got := range map[string][]string{"x": awaitOne(1), "x ": awaitTwo(1), "y": awaitStranger(1)} {
		if got[0] != strings.TrimSpace(name) {
			t.Errorf("got %q, want %q", got, name)
		}
	}
}

// F6, product.md rule 7: a node whose connection for notices is cut off without
// a word knows that it may miss some, and hears all of them once it is back.
func TestADeafNodeKnowsIt(t *testing.T) {
	t.Parallel()
	cfg := sqldbtest.Config(t, sqldb.PostgreSQL)
	near := sqldbtest.OpenConfig(t, cfg)
	through, proxy := sqldbtest.Through(t, cfg)
	far := sqldbtest.OpenConfig(t, through)
	if far.Hearing() {
		t.Error("a node that never listened says that it hears")
	}
	await := ears(t, far, "c")
	until(t, "the node hears", far.Hearing)
	proxy.FreezeNotices()
	until(t, "the node knows that it is deaf", func() bool { return !far.Hearing() })
	notify(t, near, "c", "unheard")
	if err := far.Ping(t.Context()); err != nil {
		t.Errorf("its other connections: %v", err)
	}
	proxy.Thaw()
	until(t, "the node hears again", far.Hearing)
	// Either the notice came late or the node was told to read again.
	if got := await(1); got[0] != "unheard" && got[0] != "" {
		t.Errorf("heard %q", got)
	}
	if lite := sqldbtest.Open(t, sqldb.SQLite); !lite.Hearing() {
		t.Error("SQLite has no other nodes, and says that it is deaf")
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
