package audit_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// eager runs a log that writes checkpoints all the time and calls them overdue
// soon.
func (w world) eager(t *testing.T, change func(*audit.Config), before func(*audit.Log)) *audit.Log {
	t.Helper()
	cfg := audit.Config{DB: w.db, Keeper: w.keeper, CheckpointDir: w.dir, Node: "node", Every: 10 * time.Millisecond, Overdue: 300 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	l, err := audit.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if before != nil {
		before(l)
	}
	l.Start()
	t.Cleanup(l.Stop)
	return l
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (w world) entries(t *testing.T, action string) int {
	t.Helper()
	return scan[int](t, w.db, `select count(*) from audit_entry where action = $1`, action)
}

// call makes one call of which only the audit matters.
func (w world) call(t *testing.T, l *audit.Log) error {
	t.Helper()
	in, err := l.Begin(t.Context(), w.entry("tool.call"), nil)
	if err == nil {
		l.Finish(in, audit.Outcome{Status: "ok"})
	}
	return err
}

// F10, L6: while checkpoints cannot be written, calls go on, because their intents
// are durable; it is an alarm on record, the server knows how far it is behind,
// and verify names what nobody has witnessed. When the folder is back, the next
// checkpoint covers everything.
func TestF10CheckpointFolderAway(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.eager(t, nil, nil)
		w.record(t, l, 3)
		within(t, "everything is witnessed", func() bool { return l.Witness().Behind == 0 })
		away := w.dir + ".away"
		if err := os.Rename(w.dir, away); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if err := w.call(t, l); err != nil {
				t.Errorf("a call without checkpoints: %v", err)
			}
		}
		within(t, "it is overdue", func() bool { return l.Witness().Overdue })
		if is := l.Witness(); is.Err == nil || is.Entries < 20 || is.Behind <= 0 {
			t.Errorf("the witness says %+v", is)
		}
		within(t, "it is on record", func() bool { return w.entries(t, "audit.checkpoint_overdue") == 1 })
		if r := func() audit.Report {
			old := w
			old.dir = away
			return old.verify(t)
		}(); len(r.Unwitnessed) == 0 || r.Unwitnessed[0].Entries < 20 || !r.Intact() {
			t.Errorf("verify says %+v, want the tail that nobody witnessed", r)
		}
		if err := os.Rename(away, w.dir); err != nil {
			t.Fatal(err)
		}
		within(t, "it is over, and on record", func() bool { return w.entries(t, "audit.checkpoint_resumed") == 1 && l.Witness().Behind == 0 })
		if is := l.Witness(); is.Overdue || is.Err != nil || is.Entries != 0 {
			t.Errorf("afterwards the witness says %+v", is)
		}
		l.Stop()
		if r := w.wantIntact(t); len(r.Unwitnessed) != 0 {
			t.Errorf("unwitnessed after the outage: %+v", r.Unwitnessed)
		}
	})
}

// F10, L6: an operator may want calls refused that nobody witnesses.
func TestF10CheckpointRequired(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.eager(t, func(c *audit.Config) { c.Unwitnessed = 500 * time.Millisecond }, nil)
		if err := w.call(t, l); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(w.dir, w.dir+".away"); err != nil {
			t.Fatal(err)
		}
		w.record(t, l, 1)
		var err error
		within(t, "calls are refused", func() bool { err = w.call(t, l); return err != nil })
		if f := fault.Of(err); f.Code != "audit_unwitnessed" || f.Kind != fault.Unavailable || f.RetryAfter <= 0 || f.Hint == "" {
			t.Errorf("got %v", err)
		}
		if err := l.Record(t.Context(), w.entry("session.revoked")); err != nil { // what ends access never waits for a folder
			t.Errorf("a revoke: %v", err)
		}
		if err := os.Rename(w.dir+".away", w.dir); err != nil {
			t.Fatal(err)
		}
		within(t, "calls go on", func() bool { return w.call(t, l) == nil })
	})
}

// F10: a folder that hangs holds up neither calls nor the stop of the server for
// longer than Stop is patient.
func TestF10CheckpointFolderHangs(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		var release func()
		l := w.eager(t, nil, func(l *audit.Log) { release = l.Hang() })
		for range 20 {
			if err := w.call(t, l); err != nil {
				t.Errorf("a call: %v", err)
			}
		}
		within(t, "the alarm is on record", func() bool { return w.entries(t, "audit.checkpoint_overdue") == 1 })
		if err := w.call(t, l); err != nil {
			t.Errorf("a call: %v", err)
		}
		release()
		within(t, "all is witnessed", func() bool { return l.Witness().Behind == 0 && l.Witness().Entries == 0 })
	})
}

// F5, F10: a chain that must be left while the keeper is away is followed by
// another: calls do not end because a commit failed at the wrong moment. When
// chains are left more often than keys could be wrapped before, entries are
// refused, not written without a chain.
func TestF5ChainBeginsWithoutTheKeeper(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		server := keyringtest.New(t)
		w.keeper = server.Guard(t, keyring.Config{})
		l := w.start(t)
		within(t, "keys are ready", func() bool { return l.Spares() == 2 })
		server.Down()
		for i := range 2 {
			l.Abandon()
			if err := l.Record(t.Context(), w.entry("session.requested")); err != nil {
				t.Errorf("chain %d: %v", i, err)
			}
		}
		l.Abandon()
		// A bug: applications were told of an internal error, and not when to come again.
		if err := l.Record(t.Context(), w.entry("session.requested")); !fault.Is(err, "audit_unavailable") || fault.Of(err).RetryAfter == 0 {
			t.Errorf("an entry without the key of a chain: got %v", err)
		}
		if err := w.call(t, l); !fault.Is(err, "audit_unavailable") {
			t.Errorf("a call: got %v", err)
		}
		server.Up(t)
		within(t, "entries are written again", func() bool { return l.Record(t.Context(), w.entry("session.requested")) == nil })
		l.Stop()
		w.wantIntact(t)
	})
}

// F5: an alarm waits for nothing, and the same one counts once a minute.
func TestAlarm(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		for range 50 {
			l.Alarm(audit.Entry{Actor: audit.Actor{Kind: "system", ID: "test"}, Action: "test.alarm", Object: "a", Code: "bad"})
		}
		l.Alarm(audit.Entry{Actor: audit.Actor{Kind: "system", ID: "test"}, Action: "test.alarm", Object: "b", Code: "bad"})
		l.Stop() // writes what waits
		if n := w.entries(t, "test.alarm"); n != 2 {
			t.Errorf("%d entries, want one for each object", n)
		}
		if r := w.wantIntact(t); len(r.Unwitnessed) != 0 {
			t.Errorf("alarms were written after the last checkpoint: %+v", r.Unwitnessed)
		}
	})
}

// F4, a bug: one connection that lost its packets at a commit stopped every entry
// of its node, a revocation's too, for 40 s and whatever its caller's patience.
func TestLostCommitHoldsNobodyPastTheirPatience(t *testing.T) {
	t.Parallel()
	cfg := sqldbtest.Migrated(t, sqldb.PostgreSQL)
	through, proxy := sqldbtest.Through(t, cfg)
	w := newWorld(t, sqldbtest.OpenConfig(t, through))
	l := w.start(t)
	w.record(t, l, 1)
	proxy.Lose(500)
	stalled := make(chan error, 1)
	go func() { stalled <- l.Record(context.WithoutCancel(t.Context()), w.entry("session.requested")) }()
	within(t, "a commit is lost", proxy.Lost)

	revoke := func(patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return w.db.Urgent(ctx, "org", func(_ context.Context, tx *sqldb.Tx) error {
			l.AppendEvent(tx, w.entry("session.revoked"))
			return nil
		})
	}
	if err := revoke(500 * time.Millisecond); !fault.Is(err, "database_unavailable") || fault.Of(err).RetryAfter == 0 {
		t.Errorf("a revocation beside the lost commit: %v", err)
	}
	select {
	case err := <-stalled:
		t.Fatalf("the lost commit ended first, with %v: the revocation waited for it", err)
	default:
	}
	if err := revoke(20 * time.Second); err != nil {
		t.Errorf("a revocation that waits: %v", err)
	}
	if err := <-stalled; !sqldb.Uncertain(err) {
		t.Errorf("the lost commit: %v, want it uncertain", err)
	}
	proxy.Thaw()
	l.Stop()
	w.wantIntact(t)
}
