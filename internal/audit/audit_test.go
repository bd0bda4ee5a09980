package audit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

func TestAppendSharesTheFateOfItsTransaction(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		w.record(t, l, 3)
		refused := errors.New("rolled back by its owner")
		for _, late := range []bool{false, true} {
			var event id.Event
			err := w.db.Update(t.Context(), func(_ context.Context, tx *sqldb.Tx) error {
				event = l.Append(tx, w.entry("session.approved"))
				if late { // after the chain has hashed the entry
					tx.BeforeCommit(func(context.Context) error { return refused })
					return nil
				}
				return refused
			})
			if !errors.Is(err, refused) {
				t.Fatalf("got %v", err)
			}
			if n := scan[int](t, w.db, `select count(*) from audit_entry where id = $1`, event); n != 0 {
				t.Errorf("late %v: the entry of a rolled back transaction stands", late)
			}
			w.record(t, l, 3)
			w.wantIntact(t)
		}
		// And the other way round: no entry, no commit.
		exec(t, w.db, `create table thing (id text not null primary key)`)
		exec(t, w.db, `alter table audit_entry rename to audit_away`)
		err := w.db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			l.Append(tx, w.entry("thing.created"))
			_, err := tx.ExecContext(ctx, `insert into thing (id) values ('1')`)
			return err
		})
		if err == nil || scan[int](t, w.db, `select count(*) from thing`) != 0 {
			t.Errorf("a change without its entry: got %v", err)
		}
		exec(t, w.db, `alter table audit_away rename to audit_entry`)
		w.record(t, l, 1)
		l.Stop()
		if r := w.wantIntact(t); len(r.Unwitnessed) != 0 {
			t.Errorf("after a clean stop these tails are unwitnessed: %+v", r.Unwitnessed)
		}
	})
}

// An entry that another hook adds after the chain was written must not be lost.
func TestEntryTooLateAbortsTheTransaction(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		err := w.db.Update(t.Context(), func(_ context.Context, tx *sqldb.Tx) error {
			l.Append(tx, w.entry("session.approved"))
			tx.BeforeCommit(func(context.Context) error {
				l.Append(tx, w.entry("session.revoked"))
				return nil
			})
			return nil
		})
		if err == nil {
			t.Error("the transaction committed without its second entry")
		}
		w.record(t, l, 1)
		w.wantIntact(t)
	})
}

// L2: Begin returns only when the intent stands, and the fence decides.
func TestBeginAndFinish(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		e := w.entry("tool.call")
		fenced := 0
		in, err := l.Begin(t.Context(), e, audit.FenceFunc(func(ctx context.Context, tx *sqldb.Tx) error {
			fenced++
			var n int
			return tx.QueryRowContext(ctx, `select count(*) from audit_entry`).Scan(&n)
		}))
		if err != nil || fenced != 1 {
			t.Fatalf("begin: %v, fence ran %d times", err, fenced)
		}
		if n := scan[int](t, w.db, `select count(*) from audit_entry where id = $1 and kind = 'intent'`, in.Event); n != 1 {
			t.Error("Begin returned before the intent stood")
		}
		revoked := fault.New(fault.Denied, "revoked", "The session was revoked.")
		before := scan[int](t, w.db, `select count(*) from audit_entry`)
		if _, err := l.Begin(t.Context(), e, audit.FenceFunc(func(context.Context, *sqldb.Tx) error { return revoked })); err != error(revoked) {
			t.Errorf("fence: got %v, want its own error", err)
		}
		if after := scan[int](t, w.db, `select count(*) from audit_entry`); after != before {
			t.Errorf("a refused intent left %d rows", after-before)
		}
		running, err := l.Unfinished(t.Context(), w.db.Reader(), e.Session)
		if err != nil || len(running) != 1 || running[0].ID != in.Event || running[0].Outcome != nil {
			t.Errorf("unfinished: got %+v, %v", running, err)
		}
		want := audit.Outcome{Status: "error", Code: "upstream_error", UpstreamStatus: 502, Duration: 1234567 * time.Nanosecond}
		l.Finish(in, want)
		page := eventually(t, func() (audit.Page, bool) {
			p, err := l.List(t.Context(), audit.Filter{Environment: w.env, Session: e.Session})
			return p, err == nil && len(p.Records) == 1 && p.Records[0].Outcome != nil
		})
		if diff := cmp.Diff(&want, page.Records[0].Outcome); diff != "" {
			t.Errorf("outcome: %s", diff)
		}
		if running, err := l.Unfinished(t.Context(), w.db.Reader(), e.Session); err != nil || len(running) != 0 {
			t.Errorf("unfinished after its outcome: %+v, %v", running, err)
		}
		got := page.Records[0].Entry
		e.ID, e.Time = got.ID, got.Time
		if diff := cmp.Diff(e, got); diff != "" {
			t.Errorf("entry changed on the way: %s", diff)
		}
		w.wantIntact(t)
	})
}

func eventually[T any](t testing.TB, ok func() (T, bool)) (v T) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		v, done := ok()
		if done {
			return v
		}
		if time.Now().After(deadline) {
			t.Fatalf("did not come about: %+v", v)
		}
	}
}

// L2: a call cannot begin when its intent cannot be written.
func TestBeginFailsClosed(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		unavailable := func(when string) {
			t.Helper()
			ran := false
			in, err := l.Begin(t.Context(), w.entry("tool.call"), audit.FenceFunc(func(context.Context, *sqldb.Tx) error { ran = true; return nil }))
			if in != nil || !fault.Is(err, "audit_unavailable") || fault.KindOf(err) != fault.Unavailable {
				t.Errorf("%s: got %v, want audit_unavailable (fence ran: %v)", when, err, ran)
			}
		}
		exec(t, w.db, `alter table audit_entry rename to audit_away`)
		unavailable("without its table")
		exec(t, w.db, `alter table audit_away rename to audit_entry`)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Begin(gone, w.entry("tool.call"), nil); !fault.Is(err, "audit_unavailable") {
			t.Errorf("caller gone: got %v", err)
		}
		if _, err := l.Begin(t.Context(), w.entry("tool.call"), nil); err != nil {
			t.Errorf("after the failures: %v", err)
		}
		w.wantIntact(t)
		if err := w.db.Close(); err != nil {
			t.Fatal(err)
		}
		unavailable("database gone")
		if err := l.Record(t.Context(), w.entry("session.denied")); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("record without a database: got %v", err)
		}
		l.Stop()
		for range 50 { // neither channel of Begin may swallow an intent
			unavailable("log stopped")
		}
	})
}

// Calls that begin at once share commits, and none of them breaks the chain.
func TestConcurrentCalls(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		before := w.db.Stats().Commits
		denied := errors.New("fence")
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				in, err := l.Begin(t.Context(), w.entry("tool.call"), audit.FenceFunc(func(context.Context, *sqldb.Tx) error {
					if i%8 == 0 {
						return denied
					}
					return nil
				}))
				if (i%8 == 0) != errors.Is(err, denied) {
					t.Errorf("call %d: got %v", i, err)
				}
				if err == nil {
					l.Finish(in, audit.Outcome{Status: "ok"})
				}
			})
			if i%16 == 0 {
				wg.Go(func() { w.record(t, l, 2) })
			}
		}
		wg.Wait()
		l.Stop()
		r := w.wantIntact(t)
		if got := scan[int](t, w.db, `select count(*) from audit_entry where action = 'tool.call'`); got != 2*56 {
			t.Errorf("got %d intents and outcomes, want 112", got)
		}
		if commits := w.db.Stats().Commits - before; commits > 100 { // 120 if each stood alone; how many meet depends on how busy the machine is
			t.Errorf("%d commits for 56 calls and 8 records: they were not grouped", commits)
		}
		if r.Chains != 1 || len(r.Unwitnessed) != 0 {
			t.Errorf("chains %d, unwitnessed %+v", r.Chains, r.Unwitnessed)
		}
	})
}

// One caller's bad bytes spoil neither its own record nor the calls beside it.
func TestHostileBytesAreRecorded(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		bad := w.entry("tool.call")
		bad.Session, bad.Tool, bad.Address, bad.Detail = "ses_\x00\xff", "a\xff\x00b", "\xc3\x28", map[string]string{"\xff": "\x00"}
		unencodable := w.entry("tool.call")
		unencodable.Evidence = []byte(`{"a":`)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				in, err := l.Begin(t.Context(), bad, nil)
				if err != nil {
					t.Errorf("bad bytes: %v", err)
					return
				}
				l.Finish(in, audit.Outcome{Status: "error", Code: "\xff\x00"})
			})
			wg.Go(func() {
				if _, err := l.Begin(t.Context(), unencodable, nil); !fault.Is(err, "audit_unavailable") {
					t.Errorf("what cannot be encoded: got %v", err)
				}
			})
			wg.Go(func() {
				if _, err := l.Begin(t.Context(), w.entry("tool.call"), nil); err != nil {
					t.Errorf("a neighbour: %v", err)
				}
			})
		}
		wg.Wait()
		l.Stop()
		w.wantIntact(t)
		p, err := l.List(t.Context(), audit.Filter{Environment: w.env, Session: "ses_\uFFFD\uFFFD"})
		if err != nil || len(p.Records) != 8 || p.Records[0].Tool != "a\uFFFD\uFFFDb" || p.Records[0].Outcome == nil || p.Records[0].Outcome.Code != "\uFFFD\uFFFD" {
			t.Errorf("got %d records, %v", len(p.Records), err)
		}
		if err := l.Record(t.Context(), unencodable); err == nil {
			t.Error("recorded what cannot be encoded")
		}
	})
}

// An outcome whose commit looked failed is written again only if it is missing.
func TestOutcomeIsWrittenOnce(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		in, err := l.Begin(t.Context(), w.entry("tool.call"), nil)
		if err != nil {
			t.Fatal(err)
		}
		exec(t, w.db, `alter table audit_entry rename to audit_away`)
		l.Finish(in, audit.Outcome{Status: "ok"})
		time.Sleep(60 * time.Millisecond) // longer than an outcome waits
		exec(t, w.db, `alter table audit_away rename to audit_entry`)
		const outcomes = `select count(*) from audit_entry where kind = 'outcome'`
		eventually(t, func() (int, bool) { n := scan[int](t, w.db, outcomes); return n, n == 1 })
		stands := scan[string](t, w.db, `select id from audit_entry where kind = 'outcome'`)
		l.FinishAgain(in, audit.Outcome{Status: "ok"}, id.Event(stands))
		if _, err := l.Begin(t.Context(), w.entry("tool.call"), nil); err != nil {
			t.Errorf("a repeated outcome blocks the next call: %v", err)
		}
		l.Stop()
		if n := scan[int](t, w.db, outcomes); n != 1 {
			t.Errorf("%d outcomes of one call", n)
		}
		w.wantIntact(t)
	})
}

func TestListPagesAndFilters(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		start := time.Now().UTC().Truncate(time.Microsecond).Add(-time.Hour)
		var all []audit.Entry
		for i, action := range []string{"session.requested", "session.approved", "sessionx.a", "session", "sessio.n", "secret.read", "tool.call", "Session.x", "session.denied", "session/x"} {
			e := w.entry(action)
			e.Time = start.Add(time.Duration(i/2) * time.Minute) // pairs share a time
			if i%3 == 0 {
				e.Decision = "deny"
			}
			if err := l.Record(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
		}
		foreign := w.entry("session.requested")
		foreign.Environment = id.NewEnvironment()
		if err := l.Record(t.Context(), foreign); err != nil {
			t.Fatal(err)
		}
		list := func(f audit.Filter) (got []string) {
			t.Helper()
			f.Environment = w.env
			f.Limit = 3
			for {
				p, err := l.List(t.Context(), f)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range p.Records {
					got = append(got, r.Action)
				}
				if p.Next == "" {
					break
				}
				f.After = p.Next
			}
			slices.Sort(got)
			return got
		}
		want := func(f audit.Filter, keep func(int, audit.Entry) bool) {
			t.Helper()
			var names []string
			for i, e := range all {
				if keep(i, e) {
					names = append(names, e.Action)
				}
			}
			slices.Sort(names)
			if diff := cmp.Diff(names, list(f)); diff != "" {
				t.Errorf("%+v (-want +got):\n%s", f, diff)
			}
		}
		want(audit.Filter{}, func(int, audit.Entry) bool { return true })
		want(audit.Filter{Action: "session.*"}, func(_ int, e audit.Entry) bool { return strings.HasPrefix(e.Action, "session.") })
		want(audit.Filter{Action: "session"}, func(_ int, e audit.Entry) bool { return e.Action == "session" })
		want(audit.Filter{Action: "%"}, func(int, audit.Entry) bool { return false })
		want(audit.Filter{Decision: "deny"}, func(i int, _ audit.Entry) bool { return i%3 == 0 })
		want(audit.Filter{Since: all[2].Time, Until: all[6].Time}, func(i int, _ audit.Entry) bool { return i >= 2 && i < 6 })
		want(audit.Filter{Agent: all[4].Agent}, func(i int, _ audit.Entry) bool { return i == 4 })
		want(audit.Filter{User: all[4].User}, func(i int, _ audit.Entry) bool { return i == 4 })
		want(audit.Filter{Session: all[4].Session}, func(i int, _ audit.Entry) bool { return i == 4 })
		want(audit.Filter{Organization: all[4].Organization}, func(i int, _ audit.Entry) bool { return i == 4 })
		want(audit.Filter{Connection: all[4].Connection}, func(i int, _ audit.Entry) bool { return i == 4 })
		want(audit.Filter{Connection: all[4].Connection, Agent: all[3].Agent}, func(int, audit.Entry) bool { return false })
		for what, f := range map[string]audit.Filter{"no environment": {}, "limit": {Environment: w.env, Limit: 201}, "negative": {Environment: w.env, Limit: -1}, "cursor": {Environment: w.env, After: "?"}} {
			if _, err := l.List(t.Context(), f); fault.KindOf(err) != fault.Invalid {
				t.Errorf("%s: got %v, want invalid", what, err)
			}
		}
		p, err := l.List(t.Context(), audit.Filter{Environment: w.env, Limit: 200})
		if err != nil || !slices.IsSortedFunc(p.Records, func(a, b audit.Record) int { return b.Time.Compare(a.Time) }) || p.Next != "" {
			t.Errorf("not newest first on one page: %v", err)
		}
	})
}

func TestFollowSeesEveryNode(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			cfg := sqldbtest.Migrated(t, engine)
			w := newWorld(t, sqldbtest.OpenConfig(t, cfg))
			other := w.db
			if engine == sqldb.PostgreSQL {
				other = sqldbtest.OpenConfig(t, cfg)
			}
			first, second := w.start(t), w.startOn(t, other)
			ctx, cancel := context.WithCancel(t.Context())
			seen := make(chan audit.Record, 100)
			ended := make(chan error, 1)
			go func() {
				ended <- first.Follow(ctx, audit.Filter{Environment: w.env, Action: "tool.*"}, func(r audit.Record) error { seen <- r; return nil })
			}()
			time.Sleep(50 * time.Millisecond)
			want := map[id.Event]bool{}
			for _, l := range []*audit.Log{first, second, second, first} {
				in, err := l.Begin(t.Context(), w.entry("tool.call"), nil)
				if err != nil {
					t.Fatal(err)
				}
				want[in.Event] = true
				l.Finish(in, audit.Outcome{Status: "ok"})
				w.record(t, l, 1) // not of this noun
			}
			intents, outcomes := 0, 0
			for intents+outcomes < 8 {
				select {
				case r := <-seen:
					switch {
					case r.Kind == audit.KindIntent && want[r.ID]:
						intents++
					case r.Kind == audit.KindOutcome && want[r.Ref] && r.Outcome != nil:
						outcomes++
					default:
						t.Errorf("unexpected %s %s %s", r.Kind, r.Action, r.ID)
					}
				case <-time.After(10 * time.Second):
					t.Fatalf("saw %d intents and %d outcomes, want 4 and 4", intents, outcomes)
				}
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("follow ended with %v", err)
			}
			stop := errors.New("enough")
			if err := first.Follow(t.Context(), audit.Filter{Environment: w.env, Since: time.Now().Add(-time.Minute)}, func(audit.Record) error { return stop }); !errors.Is(err, stop) {
				t.Errorf("follow ended with %v, want the callback's error", err)
			}
			if err := first.Follow(t.Context(), audit.Filter{}, nil); fault.KindOf(err) != fault.Invalid {
				t.Errorf("without an environment: got %v", err)
			}
		})
	}
}

// L1: whoever acted, for whom, in which session, on what, by which rule.
func TestEntriesNameTheirActors(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		for _, decision := range []string{"allow", "deny"} {
			e := w.entry("tool.call")
			e.Decision = decision
			if err := l.Record(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		p, err := l.List(t.Context(), audit.Filter{Environment: w.env})
		if err != nil || len(p.Records) != 2 {
			t.Fatalf("got %d, %v", len(p.Records), err)
		}
		for _, r := range p.Records {
			doc, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			var fields map[string]any
			if err := json.Unmarshal(doc, &fields); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"id", "time", "environment_id", "organization_id", "actor", "agent_id", "user_id", "session_id", "approval_id", "connection_id",
				"action", "object", "provider", "tool", "effect", "argument_digest", "decision", "rule", "code", "evidence", "address", "chain", "seq"} {
				if v, ok := fields[name]; !ok || v == "" {
					t.Errorf("%s: no %s in %s", r.Decision, name, doc)
				}
			}
		}
	})
}

// L5: what an agent says cannot forge a line of a log or of a terminal.
func TestOneEntryIsOneLine(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		e := w.entry("session.requested")
		hostile := "x\r\n{\"action\":\"session.approved\"}\n\",\"decision\":\"allow\x1b[2K\x1b]0;t\a\u0085"
		e.Object, e.Tool, e.Code, e.Detail = hostile, hostile, hostile, map[string]string{"purpose": hostile, hostile: "v"}
		if err := l.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		p, err := l.List(t.Context(), audit.Filter{Environment: w.env})
		if err != nil || len(p.Records) != 1 {
			t.Fatalf("got %d, %v", len(p.Records), err)
		}
		line, err := json.Marshal(p.Records[0])
		if err != nil {
			t.Fatal(err)
		}
		var raw []byte
		if err := w.db.Reader().QueryRowContext(t.Context(), `select body from audit_entry where environment_id = $1`, w.env).Scan(&raw); err != nil {
			t.Fatal(err)
		}
		for what, doc := range map[string][]byte{"exported": line, "stored": raw} {
			if i := slices.IndexFunc(doc, func(b byte) bool { return b < 0x20 }); i >= 0 {
				t.Errorf("%s: control character %#x in the line", what, doc[i])
			}
		}
		var back audit.Record
		if err := json.Unmarshal(line, &back); err != nil || back.Detail["purpose"] != hostile || back.Action != "session.requested" || back.Decision != "allow" {
			t.Errorf("the line reads back as %+v, %v", back, err)
		}
	})
}

func TestRestartNamesTheOldHead(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		w.record(t, l, 5)
		l.Stop()
		var chain string
		var seq int64
		var hash []byte
		if err := w.db.Reader().QueryRowContext(t.Context(), `select chain_id, seq, hash from audit_entry order by seq desc limit 1`).Scan(&chain, &seq, &hash); err != nil {
			t.Fatal(err)
		}
		l = w.start(t)
		w.record(t, l, 1)
		l.Stop()
		var raw []byte
		if err := w.db.Reader().QueryRowContext(t.Context(), `select body from audit_entry where action = 'audit.chain_started' and chain_id <> $1`, chain).Scan(&raw); err != nil {
			t.Fatal(err)
		}
		r, err := audit.DecodeBody(raw)
		if want := fmt.Sprintf("%s %d %x", chain, seq, hash); err != nil || r.Detail["follows_0"] != want {
			t.Errorf("the new chain follows %q, want %q (%v)", r.Detail["follows_0"], want, err)
		}
		if r := w.wantIntact(t); r.Chains != 2 || r.Checkpoints != 2 || len(r.Unwitnessed) != 0 {
			t.Errorf("got %+v", r)
		}
	})
}

// Reading a value takes one wait for the disk with others, not each its own, and
// what is written so is an event: no call that is left open.
func TestAccessesAreWrittenTogether(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		var wg sync.WaitGroup
		before := w.db.Stats().Commits
		const n = 200
		for range n {
			wg.Go(func() {
				if err := l.Access(t.Context(), w.entry("secret.read")); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if commits := w.db.Stats().Commits - before; commits >= n {
			t.Errorf("%d accesses took %d commits", n, commits)
		}
		p, err := l.List(t.Context(), audit.Filter{Environment: w.entry("x").Environment, Action: "secret.read", Limit: 200})
		if err != nil || len(p.Records) != n || p.Records[0].Kind != audit.KindEvent {
			t.Errorf("%d on record, %v", len(p.Records), err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Access(ended, w.entry("secret.read")); !fault.Is(err, "audit_unavailable") {
			t.Errorf("for somebody who left: got %v", err)
		}
	})
}
