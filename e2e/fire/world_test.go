//go:build e2e

package fire

import (
	"context"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/e2e/world"
)

// What everything here rests on: a call that the caller saw succeed has arrived
// once and stands in the audit with its outcome, also after the node was killed
// and started again.
func TestWorldHoldsTogether(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{sqlite, postgres} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, engine, map[string]int{sqlite: 1, postgres: 2}[engine])
			s := newSession(t, w.Owner, "third")
			load := world.Load{Workers: 4, Rate: 100, Next: func(i int) world.Shot {
				return world.Shot{Node: w.Nodes[i%len(w.Nodes)], Session: s, Tool: []string{"third_list", "third_create"}[i/2%2]}
			}}
			stop := load.Background(t.Context())
			time.Sleep(500 * time.Millisecond)
			last := w.Nodes[len(w.Nodes)-1]
			last.Kill()
			_, err := last.Start(t.Context())
			must(t, err)
			_, err = last.Vitals(t.Context())
			must(t, err)
			time.Sleep(300 * time.Millisecond)
			ops := stop()
			if acked := checkCalls(t, w, ops); acked < 20 {
				t.Errorf("%d of %d calls succeeded, want those before and after the kill", acked, len(ops))
			}
		})
	}
}

// checkCalls holds what callers saw against what the audit and the third party
// say: no arrival without an intent, no acknowledged call without both, and
// nothing twice (rule 3, F4). It gives the number of acknowledged calls.
func checkCalls(t *testing.T, w *world.World, ops []world.Op) (acked int) {
	t.Helper()
	var ledger world.Ledger
	settled := func() bool {
		var err error
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if ledger, err = w.Ledger(ctx, time.Time{}); err != nil {
			t.Logf("reading the audit: %v", err)
			return false
		}
		for _, op := range ops {
			if _, ended := ledger.Outcomes[ledger.Intents[op.Digest()].ID]; op.Answer.Code == world.OK && !ended && !op.Node.Died(op.Start, time.Now()) {
				return false // outcomes follow a little later
			}
		}
		return true
	}
	for end := time.Now().Add(10 * time.Second); !settled() && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
	}
	arrived := map[string]int{}
	for _, a := range w.Third.Arrivals() {
		arrived[a.ID]++
	}
	for _, op := range ops {
		intent, intended := ledger.Intents[op.Digest()]
		outcome, ended := ledger.Outcomes[intent.ID]
		if n := arrived[op.ID]; n > 1 || n == 1 && !intended {
			t.Errorf("%s (%s) arrived %d times, with an intent in the audit: %v", op.ID, op.Answer.Code, n, intended)
		}
		if op.Answer.Code != world.OK {
			continue
		}
		acked++
		if arrived[op.ID] != 1 || !intended || intent.ID != op.Answer.Event {
			t.Errorf("%s was acknowledged as %s: it arrived %d times and its intent is %q", op.ID, op.Answer.Event, arrived[op.ID], intent.ID)
		}
		// Only a process that was killed may have answered and not yet written the
		// outcome: there is none then, or one that says that nobody knows.
		lost := (!ended || outcome.Status == "unknown") && op.Node.Died(op.Start, op.End.Add(10*time.Second))
		if outcome.Status != "ok" && !lost {
			t.Errorf("%s was acknowledged, and its outcome is %q", op.ID, outcome.Status)
		}
	}
	return acked
}
