package audit_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/keyring/local"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// dying tells a copy of the test binary to play the node that is about to be
// killed, and where.
const dying = "AMBIT_TEST_DYING_NODE"

type dyingNode struct {
	DataDir, URL, Schema string // of the database
	Key, Dir             string
	Environment          id.Environment
	Calls                int
}

// beKilled begins calls, ends the first of them, says so and waits.
func beKilled(doc string) {
	var n dyingNode
	err := json.Unmarshal([]byte(doc), &n)
	if err == nil {
		err = n.call(context.Background())
	}
	if err != nil {
		fmt.Println("failed:", err)
		return
	}
	select {}
}

func (n dyingNode) call(ctx context.Context) error {
	db, err := sqldb.Open(ctx, sqldb.Config{DataDir: n.DataDir, URL: n.URL, Schema: n.Schema, Connections: 4})
	if err != nil {
		return err
	}
	keeper, err := local.Open(n.Key)
	if err != nil {
		return err
	}
	l, err := audit.New(ctx, audit.Config{DB: db, Keeper: keyring.NewGuard(keeper, keyring.Config{}), CheckpointDir: n.Dir, Node: "dying", Heartbeat: 100 * time.Millisecond})
	if err != nil {
		return err
	}
	l.Start()
	var begun []string
	for i := range n.Calls {
		in, err := l.Begin(ctx, world{env: n.Environment}.entry("tool.call"), nil)
		if err != nil {
			return err
		}
		begun = append(begun, string(in.Event))
		if i == 0 {
			l.Finish(in, audit.Outcome{Status: "ok"})
			for open := true; open; time.Sleep(time.Millisecond) {
				running, err := l.Unfinished(ctx, db.Reader(), in.Session())
				if err != nil {
					return err
				}
				open = len(running) > 0
			}
		}
	}
	fmt.Println(strings.Join(begun, " "))
	return nil
}

// killed runs a node that is killed while calls run, and gives its calls; the
// first had ended.
func killed(t *testing.T, n dyingNode) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	child := osexec.CommandContext(t.Context(), self)
	child.Env = append(os.Environ(), dying+"="+string(doc))
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	kerr := child.Process.Kill() // SIGKILL
	_ = child.Wait()
	calls := strings.Fields(line)
	if errors.Join(err, kerr) != nil || len(calls) != n.Calls {
		t.Fatalf("the node said %q, %v, %v", line, err, kerr)
	}
	return calls
}

// deadNode gives a world in which a node was killed while calls ran.
func deadNode(t *testing.T, engine sqldb.Engine, calls int) (w world, cfg sqldb.Config, begun []string) {
	t.Helper()
	cfg = sqldbtest.Migrated(t, engine)
	db, err := sqldb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Migrate(t.Context()), db.Close()); err != nil { // SQLite has one process
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "root.key")
	w = world{keeper: keyringtest.File(t, key), dir: filepath.Join(t.TempDir(), "checkpoints"), env: id.NewEnvironment()}
	begun = killed(t, dyingNode{DataDir: cfg.DataDir, URL: cfg.URL, Schema: cfg.Schema, Key: key, Dir: w.dir, Environment: w.env, Calls: calls})
	w.db = sqldbtest.OpenConfig(t, cfg)
	return w, cfg, begun
}

func (w world) node(t *testing.T, name string, db *sqldb.DB, beat time.Duration) *audit.Log {
	t.Helper()
	l, err := audit.New(t.Context(), audit.Config{DB: db, Keeper: w.keeper, CheckpointDir: w.dir, Node: name, Every: time.Hour, Heartbeat: beat})
	if err != nil {
		t.Fatal(err)
	}
	lives := func() int64 {
		return scan[int64](t, db, `select coalesce(max(lives_until), 0) from audit_run where node = $1 and closed_at = 0`, name)
	}
	born := lives()
	l.Start()
	t.Cleanup(l.Stop)
	// On PostgreSQL its first sign of life comes at once; a test that takes it for
	// dead must not be overtaken by it. On SQLite no other process could settle.
	if db.Engine() == sqldb.PostgreSQL {
		within(t, "the node gives a sign of life", func() bool { return lives() != born })
	}
	return l
}

// outcomes maps the calls on record to how they ended.
func (w world) outcomes(t *testing.T, l *audit.Log) map[string]audit.Outcome {
	t.Helper()
	out := map[string]audit.Outcome{}
	for after := ""; ; {
		page, err := l.List(t.Context(), audit.Filter{Environment: w.env, Action: "tool.call", Limit: 200, After: after})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Records {
			out[string(r.ID)] = audit.Outcome{}
			if r.Outcome != nil {
				out[string(r.ID)] = *r.Outcome
			}
		}
		if after = page.Next; after == "" {
			return out
		}
	}
}

// Issue 2, F1: a call that ran when its process was killed does not stay open for
// ever. The next start, or whichever of several other nodes is first, gives it the
// outcome "unknown" once, and says who did; what had ended stays as it was.
func TestCallsOfAKilledNodeAreSettledOnce(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			const calls = 250 // more than a page
			w, cfg, begun := deadNode(t, engine, calls)
			var nodes []*audit.Log
			for i := range 3 { // at once, against the dead node and each other
				db := w.db
				if engine == sqldb.PostgreSQL && i > 0 {
					db = sqldbtest.OpenConfig(t, cfg)
				}
				nodes = append(nodes, w.node(t, fmt.Sprintf("node %d", i), db, 100*time.Millisecond))
			}
			const settled = `select count(*) from audit_run where node = 'dying' and settled_at > 0`
			within(t, "the calls are settled", func() bool { return scan[int](t, w.db, settled) == 1 })
			got := w.outcomes(t, nodes[0])
			by := got[begun[1]].SettledBy
			if !strings.HasPrefix(by, "node ") {
				t.Errorf("settled by %q", by)
			}
			for i, call := range begun {
				want := audit.Outcome{Status: "unknown", Code: "outcome_unknown", SettledBy: by}
				if i == 0 {
					want = audit.Outcome{Status: "ok"}
				}
				if got[call] != want {
					t.Fatalf("call %d: %+v, want %+v", i, got[call], want)
				}
			}
			for _, l := range nodes {
				if err := l.Settle(t.Context()); err != nil {
					t.Errorf("settling again: %v", err)
				}
				l.Stop()
			}
			// Once, although all looked; and a later start changes nothing.
			later := w.node(t, "later", w.db, time.Hour)
			if err := later.Settle(t.Context()); err != nil {
				t.Error(err)
			}
			later.Stop()
			for what, want := range map[string]int{
				`select count(*) from audit_entry where kind = 'outcome'`:              calls,
				`select count(*) from audit_entry where action = 'audit.run_closed'`:   1,
				`select count(*) from audit_entry where action = 'audit.chain_closed'`: 1,
				`select count(*) from audit_run where settled_at = 0`:                  0,
			} {
				if n := scan[int](t, w.db, what); n != want {
					t.Errorf("%s: %d, want %d", what, n, want)
				}
			}
			if r := w.wantIntact(t); len(r.Unwitnessed) != 0 {
				t.Errorf("unwitnessed: %+v", r.Unwitnessed)
			}
		})
	}
}

// A node that lives keeps its calls, however often others look.
func TestCallsOfALivingNodeAreLeftAlone(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		a, b := w.node(t, "a", w.db, 0), w.node(t, "b", w.db, 0)
		in, err := a.Begin(t.Context(), w.entry("tool.call"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if err := errors.Join(b.Settle(t.Context()), a.Settle(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
		if got := w.outcomes(t, b)[string(in.Event)]; got != (audit.Outcome{}) {
			t.Errorf("a running call has the outcome %+v", got)
		}
		a.Finish(in, audit.Outcome{Status: "ok", UpstreamStatus: 200})
		within(t, "it ends", func() bool { return w.outcomes(t, b)[string(in.Event)].Status == "ok" })
		if n := w.entries(t, "audit.run_closed"); n != 0 {
			t.Errorf("%d runs were closed", n)
		}
	})
}

// settle lets a node look until no run is over any more. Another node may be at it,
// and then it returns at once.
func (w world) settle(t *testing.T, l *audit.Log) {
	t.Helper()
	within(t, "every run that is over is settled", func() bool {
		if err := l.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		return scan[int](t, w.db, `select count(*) from audit_run where settled_at = 0 and (lives_until = 0 or closed_at > 0)`) == 0
	})
}

// takeForDead makes the runs of a node look over, as after a stall of half a
// minute or a cut connection.
func (w world) takeForDead(t testing.TB, node string) {
	t.Helper()
	if err := w.db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, `update audit_run set lives_until = 0 where node = $1 and closed_at = 0`, node)
		return err
	}); err != nil {
		t.Error(err)
	}
}

// A node that only stalled finds its run closed: it goes on in a new one, and what
// it then says of a call that was settled stands beside the outcome, not in its
// place.
func TestStalledNodeCannotContradict(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		a, b := w.node(t, "a", w.db, time.Hour), w.node(t, "b", w.db, time.Hour)
		entry := w.entry("tool.call")
		in, err := a.Begin(t.Context(), entry, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.takeForDead(t, "a")
		w.settle(t, b)
		want := audit.Outcome{Status: "unknown", Code: "outcome_unknown", SettledBy: "b"}
		if got := w.outcomes(t, b)[string(in.Event)]; got != want {
			t.Fatalf("settled as %+v, want %+v", got, want)
		}
		// It wakes. Its chain is closed, so what it tries first is refused, and
		// nothing of it stands.
		if err := a.Record(t.Context(), w.entry("session.approved")); !fault.Is(err, "audit_unavailable") || fault.KindOf(err) != fault.Unavailable {
			t.Errorf("an entry into a closed chain: %v", err)
		}
		if n := w.entries(t, "session.approved"); n != 0 {
			t.Errorf("%d entries stand in a closed chain", n)
		}
		a.Finish(in, audit.Outcome{Status: "ok", UpstreamStatus: 201})
		within(t, "the late end is on record", func() bool { return w.entries(t, "call.ended_late") == 1 })
		if got := w.outcomes(t, b)[string(in.Event)]; got != want {
			t.Errorf("the outcome became %+v", got)
		}
		page, err := b.List(t.Context(), audit.Filter{Environment: w.env, Session: entry.Session, Action: "call.ended_late"})
		if err != nil || len(page.Records) != 1 {
			t.Fatalf("the late end: %+v, %v", page, err)
		}
		if late := page.Records[0]; late.Object != string(in.Event) || late.Detail["status"] != "ok" || late.Detail["upstream_status"] != "201" || late.Agent != entry.Agent || late.Actor.Kind != "system" {
			t.Errorf("the late end says %+v", late)
		}
		// It works on, and its next calls are its own.
		next, err := a.Begin(t.Context(), entry, nil)
		if err != nil {
			t.Fatalf("a call in the new run: %v", err)
		}
		if err := b.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.Finish(next, audit.Outcome{Status: "ok"})
		within(t, "the next call ends", func() bool { return w.outcomes(t, b)[string(next.Event)].Status == "ok" })
		a.Stop()
		b.Stop()
		w.wantIntact(t)
		if n := scan[int](t, w.db, `select count(*) from audit_run where settled_at = 0`); n != 0 {
			t.Errorf("%d runs are left", n)
		}
	})
}

// A run that is renewed after it was closed learns so even if it has nothing to
// append.
func TestStalledNodeHearsOfItsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldbtest.Open(t, sqldb.PostgreSQL))
	a, b := w.node(t, "a", w.db, 50*time.Millisecond), w.node(t, "b", w.db, time.Hour)
	within(t, "it is closed", func() bool {
		w.takeForDead(t, "a") // it may be renewed in between: then once more
		if err := b.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		return w.entries(t, "audit.run_closed") == 1
	})
	within(t, "it knows", func() bool { return a.Run() == "" })
	if err := a.Record(t.Context(), w.entry("session.requested")); err != nil {
		t.Errorf("the first entry of the new run: %v", err)
	}
}

// A node that was taken for dead and stops before it knows still tells how its last
// call ended. It gave up at the first refusal, and the late end was lost.
func TestStoppingAfterItWasTakenForDead(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		a, b := w.node(t, "a", w.db, time.Hour), w.node(t, "b", w.db, time.Hour)
		in, err := a.Begin(t.Context(), w.entry("tool.call"), nil)
		if err != nil {
			t.Fatal(err)
		}
		w.takeForDead(t, "a")
		if err := b.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		if o := w.outcomes(t, b)[string(in.Event)]; o.Status != "unknown" {
			t.Fatalf("the call is %+v, want it settled", o)
		}
		a.Finish(in, audit.Outcome{Status: "ok"})
		a.Stop()
		if n := w.entries(t, "call.ended_late"); n != 1 {
			t.Errorf("%d late ends are on record, want 1", n)
		}
		b.Stop()
		w.wantIntact(t)
	})
}

// While one node works at full speed, another takes it for dead again and again.
// Whatever the order, each call has one outcome, one that was settled first has its
// late end beside it, and the chains are whole.
func TestClosingRacesAppending(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		a, b := w.node(t, "a", w.db, time.Hour), w.node(t, "b", w.db, time.Hour)
		var stop atomic.Bool
		var mu sync.Mutex
		ended := map[string]bool{} // calls that a finished
		var workers sync.WaitGroup
		for range 4 {
			workers.Go(func() {
				for !stop.Load() {
					in, err := a.Begin(context.WithoutCancel(t.Context()), w.entry("tool.call"), nil)
					if fault.Is(err, "audit_unavailable") {
						continue // refused, as a closed run must be
					}
					if err != nil {
						t.Errorf("begin: %v", err)
						return
					}
					a.Finish(in, audit.Outcome{Status: "ok"})
					mu.Lock()
					ended[string(in.Event)] = true
					mu.Unlock()
				}
			})
		}
		for range 60 {
			w.takeForDead(t, "a")
			if err := b.Settle(t.Context()); err != nil {
				t.Errorf("settle: %v", err)
			}
		}
		stop.Store(true)
		workers.Wait()
		a.Stop()
		w.settle(t, b)
		settled := 0
		for call, o := range w.outcomes(t, b) {
			switch {
			case o.Status == "":
				t.Errorf("%s is open", call)
			case o.Status == "unknown" && ended[call]:
				settled++
			case o.Status == "ok" != ended[call]:
				t.Errorf("%s: %+v, and its node says ended %v", call, o, ended[call])
			}
		}
		if n := w.entries(t, "call.ended_late"); n != settled {
			t.Errorf("%d late ends of %d calls that were settled first", n, settled)
		}
		if n := scan[int](t, w.db, `select count(*) from (select ref from audit_entry where kind = 'outcome' group by ref having count(*) > 1) twice`); n != 0 {
			t.Errorf("%d calls have two outcomes", n)
		}
		if w.entries(t, "audit.run_closed") == 0 {
			t.Error("no run was ever closed: nothing was tested")
		}
		b.Stop()
		w.wantIntact(t)
	})
}

// A log that stops says so. Calls that are still open then are settled at once by
// whoever looks next; without any there is nothing to settle.
func TestStopLeavesTheRun(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		a, b := w.node(t, "a", w.db, 0), w.node(t, "b", w.db, 0)
		in, err := a.Begin(t.Context(), w.entry("tool.call"), nil)
		if err != nil {
			t.Fatal(err)
		}
		a.Stop()
		a.Finish(in, audit.Outcome{Status: "ok"}) // too late to be written
		w.settle(t, b)
		if got := w.outcomes(t, b)[string(in.Event)]; got.Status != "unknown" || got.SettledBy != "b" {
			t.Errorf("a call that was open at the stop: %+v", got)
		}
		closed := w.entries(t, "audit.run_closed")
		c := w.node(t, "c", w.db, 0)
		if err := w.call(t, c); err != nil {
			t.Fatal(err)
		}
		c.Stop()
		w.settle(t, b)
		if n := w.entries(t, "audit.run_closed"); n != closed {
			t.Error("a run that ended with all its calls was closed by another")
		}
		if n := scan[int](t, w.db, `select count(*) from audit_run where node = 'c' and settled_at > 0`); n != 1 {
			t.Error("a run that ended with all its calls is not settled")
		}
		b.Stop()
		w.wantIntact(t)
	})
}

// Settling that was interrupted after the run was closed is finished by another.
func TestSettlingGoesOn(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		a, b := w.node(t, "a", w.db, time.Hour), w.node(t, "b", w.db, time.Hour)
		in, err := a.Begin(t.Context(), w.entry("tool.call"), nil)
		if err != nil {
			t.Fatal(err)
		}
		exec(t, w.db, `update audit_run set closed_at = 1, closed_by = 'interrupted' where node = 'a'`)
		w.settle(t, b)
		if got := w.outcomes(t, b)[string(in.Event)]; got.Status != "unknown" {
			t.Errorf("the call: %+v", got)
		}
	})
}

// What closes a chain is part of the proof: nothing may stand after it, its run may
// not be exchanged, and who cuts the end of a dead node's chain is found although
// no checkpoint of that node saw it.
func TestVerifyKnowsClosedChains(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ change, found string }{
		"a call goes on after the end": {`update audit_entry set action = 'audit.chain_closed' where action = 'server.started' and chain_id = (select id from audit_chain where node = 'a')`, "after the entry that closed"},
		"another run":                  {`update audit_chain set run_id = 'evt_x' where node = 'a'`, "what its row in audit_chain says"},
		"the end is cut": {`delete from audit_entry where chain_id = (select id from audit_chain where node = 'a')
			and seq >= (select max(seq) from audit_entry where action = 'audit.chain_closed')`, "a later chain follows"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sqldbtest.Open(t, sqldb.SQLite))
			a, b := w.node(t, "a", w.db, time.Hour), w.node(t, "b", w.db, time.Hour)
			if _, err := a.Begin(t.Context(), w.entry("tool.call"), nil); err != nil {
				t.Fatal(err)
			}
			w.takeForDead(t, "a")
			w.settle(t, b)
			w.wantIntact(t)
			exec(t, w.db, test.change)
			if r := w.verify(t); !slices.ContainsFunc(r.Problems, func(p audit.Problem) bool { return strings.Contains(p.What, test.found) }) {
				t.Errorf("found %+v, want one that says %q", r.Problems, test.found)
			}
		})
	}
}
