//go:build e2e

package fire

import (
	"context"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/e2e/world"
)

// ambit runs the command line against the first node.
func ambit(t *testing.T, w *world.World, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), w.Nodes[0].Binary, args...)
	cmd.Env = []string{"HOME=" + t.TempDir(), "AMBIT_SERVER=" + w.URL, "AMBIT_API_KEY=" + w.APIKey, "COLUMNS=400"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("ambit %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// calls lists the calls of a session as the management API shows them.
func calls(t *testing.T, w *world.World, s *world.Session) []client.Event {
	t.Helper()
	page, err := w.API.Audit(t.Context(), client.AuditFilter{SessionID: s.ID, Action: "tool.call"})
	must(t, err)
	return page.Data
}

// slow makes a call on a node whose answer takes long, and returns once it has
// arrived at the third party.
func slow(t *testing.T, w *world.World, n *world.Node, s *world.Session, takes time.Duration) (answer <-chan world.Op) {
	t.Helper()
	before := len(w.Third.Arrivals())
	got := make(chan world.Op, 1)
	go func() {
		got <- world.Shot{Node: n, Session: s, Tool: "third_create", Wait: takes}.Do(context.WithoutCancel(t.Context()), 2*time.Minute)
	}()
	eventually(t, "at the third party", func() bool { return len(w.Third.Arrivals()) > before })
	return got
}

// elapse lets half a minute pass for the lives of nodes that say nothing.
func elapse(t *testing.T, w *world.World) {
	t.Helper()
	db, err := w.OpenDatabase()
	must(t, err)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), `update audit_run set lives_until = lives_until - 30000000 where closed_at = 0`)
	must(t, err)
}

const stopped = "unknown - the server stopped while it ran"

// Issue 2, F1: people see that a call runs, and of a call whose server was killed
// that nobody knows how it ended: after the next start, or from another node that
// goes on.
func TestCallOfAKilledServerIsSettled(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{sqlite, postgres} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, engine, map[string]int{sqlite: 1, postgres: 2}[engine])
			s := newSession(t, w.Owner, "third")
			dying := w.Nodes[len(w.Nodes)-1]
			answer := slow(t, w, dying, s, time.Minute)
			if got := calls(t, w, s); len(got) != 1 || got[0].Outcome.Status != "" {
				t.Errorf("while it runs: %+v", got)
			}
			if said := ambit(t, w, "audit", "list", "--action", "tool.call"); !strings.Contains(said, "running") {
				t.Errorf("while it runs the command line says:\n%s", said)
			}
			dying.Kill()
			if op := <-answer; op.Answer.Code != world.NoAnswer {
				t.Errorf("the agent got %+v", op.Answer)
			}
			if engine == sqlite {
				must(t, w.Start(t.Context()))
			} else {
				elapse(t, w)
			}
			var got []client.Event
			eventually(t, "settled", func() bool { got = calls(t, w, s); return len(got) == 1 && got[0].Outcome.Status != "" })
			if o := got[0].Outcome; o.Status != "unknown" || o.Code != "outcome_unknown" || o.SettledBy == "" {
				t.Errorf("settled as %+v", o)
			}
			for _, args := range [][]string{{"audit", "list", "--action", "tool.call"}, {"audit", "tail", "-n", "200"}} {
				if said := ambit(t, w, args...); !strings.Contains(said, stopped) {
					t.Errorf("ambit %s says:\n%s", strings.Join(args, " "), said)
				}
			}
			must(t, w.Start(t.Context()))
			if op := (world.Shot{Node: dying, Session: s, Tool: "third_list"}).Do(t.Context(), time.Minute); op.Answer.Code != world.OK {
				t.Errorf("a call on the node that was started again: %+v", op.Answer)
			}
			if said := ambit(t, w, "audit", "verify"); !strings.Contains(said, "The log is whole") {
				t.Errorf("verify says:\n%s", said)
			}
			ledger, err := w.Ledger(t.Context(), time.Time{})
			must(t, err)
			n := 0
			for _, e := range ledger.Entries {
				if e.Kind == "outcome" && e.Ref == got[0].ID {
					n++
				}
			}
			if n != 1 {
				t.Errorf("the call has %d outcomes", n)
			}
		})
	}
}

// A node that only stood still for a while finds that its call was settled: the
// agent gets the provider's answer, the record says "unknown" and beside it what
// came late, and the node goes on.
func TestStalledServerCannotContradict(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, 2)
	s := newSession(t, w.Owner, "third")
	stalled := w.Nodes[1]
	answer := slow(t, w, stalled, s, 2*time.Second)
	pid := stalled.PID()
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	awake := false
	t.Cleanup(func() {
		if !awake {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	})
	elapse(t, w)
	eventually(t, "settled", func() bool { got := calls(t, w, s); return len(got) == 1 && got[0].Outcome.Status == "unknown" })
	must(t, syscall.Kill(pid, syscall.SIGCONT))
	awake = true
	if op := <-answer; op.Answer.Code != world.OK {
		t.Errorf("the agent got %+v", op.Answer)
	}
	var late []client.Event
	eventually(t, "the late end on record", func() bool {
		page, err := w.API.Audit(t.Context(), client.AuditFilter{Action: "call.ended_late"})
		must(t, err)
		late = page.Data
		return len(late) == 1
	})
	got := calls(t, w, s)
	if len(got) != 1 || got[0].Outcome.Status != "unknown" || got[0].Outcome.SettledBy == "" || late[0].Object != got[0].ID || late[0].Detail["status"] != "ok" {
		t.Errorf("on record: %+v, and late: %+v", got, late)
	}
	eventually(t, "the node works on", func() bool {
		return world.Shot{Node: stalled, Session: s, Tool: "third_list"}.Do(t.Context(), time.Minute).Answer.Code == world.OK
	})
	if said := ambit(t, w, "audit", "verify"); !strings.Contains(said, "The log is whole") {
		t.Errorf("verify says:\n%s", said)
	}
}
