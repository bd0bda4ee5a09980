package audit_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// K7, a bug: a server that ran on after its database was put back went on counting
// from the head that it remembered, so the log's last number was soon past the
// checkpoint's, and the next start served what had lost a revoke.
func TestPutBackShowsBehindHigherNumbers(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		w.record(t, l, 5)
		l.Stop()
		if err := audit.CheckBehind(t.Context(), w.db, w.dir, "server.restored"); err != nil {
			t.Fatalf("as it was left: %v", err)
		}
		refused := func(what string) {
			t.Helper()
			if err := audit.CheckBehind(t.Context(), w.db, w.dir, "server.restored"); !fault.Is(err, "database_put_back") {
				t.Errorf("%s: %v", what, err)
			}
		}
		last := scan[int64](t, w.db, `select max(seq) from audit_entry`)
		exec(t, w.db, fmt.Sprintf(`update audit_entry set seq = %d where seq = %d`, last+1000, last-2))
		refused("its entry is there and one before it is gone")
		exec(t, w.db, fmt.Sprintf(`update audit_entry set seq = %d where seq = %d`, last-2, last+1000),
			fmt.Sprintf(`update audit_entry set seq = seq + 100 where seq > %d`, last-3))
		refused("its entry is gone and later ones are there")
		exec(t, w.db, fmt.Sprintf(`update audit_entry set seq = %d where seq = %d`, last, last+98))
		refused("another entry stands in its place")
	})
}

// K7, a bug: a server that ran while its database was put back, or while a failover
// lost its last commits, served what had been ended since. It notices with the next
// entry, whichever chain that goes to, writes nothing more, and says so.
func TestRunningServerNoticesThatItsDatabaseWasPutBack(t *testing.T) {
	t.Parallel()
	for name, between := range map[string]func(l *audit.Log){
		"its chain goes on": func(*audit.Log) {}, "it begins another": (*audit.Log).Abandon,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, w world) {
				l := w.start(t)
				w.record(t, l, 3)
				if err := l.Ready(t.Context()); err != nil {
					t.Fatal(err)
				}
				last := scan[int64](t, w.db, `select max(seq) from audit_entry`)
				exec(t, w.db, fmt.Sprintf(`delete from audit_entry where seq = %d`, last))
				between(l)
				if err := l.Record(t.Context(), w.entry("session.requested")); !fault.Is(err, "database_put_back") {
					t.Errorf("an event: %v", err)
				}
				if _, err := l.Begin(t.Context(), w.entry("tool.call"), nil); !fault.Is(err, "database_put_back") {
					t.Errorf("a call: %v", err)
				}
				if err := l.Ready(t.Context()); !fault.Is(err, "database_put_back") {
					t.Errorf("ready: %v", err)
				}
				if got := scan[int64](t, w.db, `select max(seq) from audit_entry`); got != last-1 {
					t.Errorf("the log ends at %d, want %d", got, last-1)
				}
			})
		})
	}
}

// K7: a server without anything to do notices too.
func TestIdleServerNoticesThatItsDatabaseWasPutBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldbtest.Open(t, sqldb.PostgreSQL))
	l, err := audit.New(t.Context(), audit.Config{DB: w.db, Keeper: w.keeper, CheckpointDir: w.dir, Node: "node", Every: time.Hour, Heartbeat: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	l.Start()
	t.Cleanup(l.Stop)
	w.record(t, l, 1)
	exec(t, w.db, `delete from audit_entry where action = 'session.requested'`)
	for end := time.Now().Add(30 * time.Second); !fault.Is(l.Ready(t.Context()), "database_put_back"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not notice")
		}
	}
}

// A bug: the checkpoint of a server that had nothing to write grew old, and the
// doctor took the server for one that writes none. One that stands is written again.
func TestCheckpointThatStandsIsWrittenAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldbtest.Open(t, sqldb.SQLite))
	l, err := audit.New(t.Context(), audit.Config{DB: w.db, Keeper: w.keeper, CheckpointDir: w.dir, Node: "node", Every: 10 * time.Millisecond, Again: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	l.Start()
	t.Cleanup(l.Stop)
	written := func() (at time.Time) {
		files, _ := filepath.Glob(filepath.Join(w.dir, "*.checkpoint"))
		for _, f := range files {
			if info, err := os.Stat(f); err == nil && info.ModTime().After(at) {
				at = info.ModTime()
			}
		}
		return at
	}
	var first time.Time
	for end := time.Now().Add(30 * time.Second); first.IsZero(); first = written() {
		if time.Now().After(end) {
			t.Fatal("no checkpoint was written")
		}
		time.Sleep(10 * time.Millisecond)
	}
	entries := scan[int64](t, w.db, `select count(*) from audit_entry`)
	for end := time.Now().Add(30 * time.Second); !written().After(first); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the checkpoint was not written again")
		}
	}
	if got := scan[int64](t, w.db, `select count(*) from audit_entry`); got != entries {
		t.Errorf("%d entries were written for it", got-entries)
	}
}
