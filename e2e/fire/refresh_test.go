//go:build e2e

package fire

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/e2e/world"
)

const callers = 64 // on each node

// F7, O11: whenever an access token ends, by its time or because the API refuses
// it, 64 callers on each of four processes want the next one, and the provider,
// who ends a grant when a refresh token comes twice, is asked once.
func TestRefreshStorm(t *testing.T) {
	for engine, nodes := range map[string]int{postgres: 4, sqlite: 1} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			refreshStorm(t, newForeign(t, engine, nodes, time.Hour, "storm"))
		})
	}
}

func refreshStorm(t *testing.T, f *foreign) {
	w := f.w
	tokens := &bearers{seen: map[string]bool{}, refused: map[string]bool{}}
	w.Third.Refuse = tokens.judge
	s := newSession(t, w.Owner, "storm")
	before := vitals(t, w)
	n := rounds(200)
	if len(w.Nodes) == 1 {
		n /= 2
	}
	const life = time.Second
	var ops []world.Op
	ops = append(ops, burst(t, w, s, "storm_list", 1)...)
	for round := range n {
		if byTime := round%2 == 1; byTime {
			time.Sleep(life)
		} else {
			tokens.end()
		}
		// What this round obtains is what the next one sees end.
		f.live(map[bool]time.Duration{true: time.Hour, false: life}[round%2 == 1])
		was, _, _ := f.stored(t, "storm")
		all := burst(t, w, s, "storm_list", callers)
		for _, op := range all {
			if op.Answer.Code != world.OK {
				t.Fatalf("round %d: a call got %s %s %v", round, op.Answer.Code, op.Answer.Facts, op.Answer.Err)
			}
		}
		ops = append(ops, all...)
		is, state, reason := f.stored(t, "storm")
		granted, refused := f.count("storm")
		if refused != 0 || f.twice() != 0 || granted != is-1 || state != "connected" {
			t.Fatalf("round %d: the provider refreshed %d times, refused %d and saw %d tokens twice; stored is version %d, %s %s", round, granted, refused, f.twice(), is, state, reason)
		}
		if is == was {
			t.Fatalf("round %d: nothing was refreshed", round)
		}
	}
	ended, more := f.endAmong(t, s, tokens)
	granted, refused := f.count("storm")
	if refused != 0 || f.twice() != 0 {
		t.Errorf("while the session ended, the provider refused %d refreshes and saw %d tokens twice", refused, f.twice())
	}
	ops = append(ops, more...)
	t.Logf("F7: %d expiries met by %d callers on each of %d nodes: %d refreshes, one for each version, none refused", n, callers, len(w.Nodes), granted)
	checkHistory(t, uses(ops), grants(s), []event{ended})
	settle(t, w, before)
}

// endAmong lets the session end between those who want the next token.
func (f *foreign) endAmong(t *testing.T, s *world.Session, tokens *bearers) (ended event, ops []world.Op) {
	t.Helper()
	tokens.end()
	at := time.Now().Add(300 * time.Millisecond)
	ended = endAt(t, f.w, s, at)
	for time.Now().Before(at.Add(100 * time.Millisecond)) {
		ops = append(ops, burst(t, f.w, s, "storm_list", callers)...)
	}
	for _, op := range ops {
		// Those under way at the end are cut, or may not try again with the next token.
		across := op.Start.Before(at) && !op.End.Before(at)
		if code := op.Answer.Code; code != world.OK && code != expired && !(across && (code == "outcome_unknown" || code == "upstream_error")) && op.Answer.RetryAfter == 0 {
			t.Errorf("while its session ended, a call got %s %s %v", code, op.Answer.Facts, op.Answer.Err)
		}
	}
	return ended, ops
}

// burst has so many callers on each node call once, at the same time.
func burst(t *testing.T, w *world.World, s *world.Session, tool string, each int) []world.Op {
	t.Helper()
	ops := make([]world.Op, each*len(w.Nodes))
	var wg sync.WaitGroup
	for i := range ops {
		wg.Go(func() {
			ops[i] = world.Shot{Node: w.Nodes[i%len(w.Nodes)], Session: s, Tool: tool}.Do(t.Context(), 2*time.Minute)
		})
	}
	wg.Wait()
	return ops
}

// F7: the node that refreshes is killed when the provider has answered, before
// or just after it got the answer. Whatever comes of it is one of two states: the
// new token was stored and works, or the account must be connected again, with the
// reason, an entry in the audit, and an agent that is told so. Nobody else notices.
func TestRefreshWinnerKilled(t *testing.T) {
	t.Parallel()
	for engine, nodes := range map[string]int{postgres: 4, sqlite: 1} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			winnersKilled(t, engine, nodes, rounds(20))
		})
	}
}

func winnersKilled(t *testing.T, engine string, nodes, kills int) {
	slugs := []string{"spared"}
	for i := range kills {
		slugs = append(slugs, fmt.Sprintf("victim%d", i))
	}
	f := newForeign(t, engine, nodes, time.Second, slugs...)
	w := f.w
	w.Third.Refuse = (&bearers{seen: map[string]bool{}, refused: map[string]bool{}}).judge
	sessions := map[string]*world.Session{}
	for _, slug := range slugs {
		sessions[slug] = newSession(t, w.Owner, slug)
	}
	f.live(time.Hour)
	time.Sleep(time.Second) // now no token works any more
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen, dead := map[string]int{}, map[*world.Node]bool{} // what callers on nodes that lived got
	for i, slug := range slugs[1:] {
		killed := make(chan *world.Node, 1)
		f.once(slug, func(n *world.Node, answer func()) {
			if i%2 == 1 {
				answer()
				time.Sleep(rand.N(50 * time.Millisecond))
			}
			mu.Lock()
			dead[n] = true
			mu.Unlock()
			n.Kill()
			killed <- n
		})
		ended := make(chan []world.Op, 1)
		wg.Go(func() { ended <- burst(t, w, sessions[slug], slug+"_list", 8) })
		var victim *world.Node
		select {
		case victim = <-killed:
		case <-time.After(time.Minute):
			t.Fatalf("nobody refreshed %s", slug)
		}
		_, err := victim.Start(t.Context())
		must(t, err)
		wg.Go(func() {
			ops := <-ended
			mu.Lock()
			defer mu.Unlock()
			for _, op := range ops {
				if !dead[op.Node] {
					seen[op.Answer.Code]++
				}
			}
		})
	}
	for _, op := range burst(t, w, sessions["spared"], "spared_list", 8) {
		if op.Answer.Code != world.OK {
			t.Errorf("an account that nobody was refreshing: %s %s", op.Answer.Code, op.Answer.Facts)
		}
	}
	wg.Wait()
	kept, lost := 0, 0
	for i, slug := range slugs[1:] {
		eventually(t, slug+" has a state that is told", func() bool {
			code := sessions[slug].Call(t.Context(), w.Nodes[0], slug+"_list", nil).Code
			return code == world.OK || code == "reconnect"
		})
		if f.judge(t, sessions[slug], slug, i%2 == 0) {
			kept++
		} else {
			lost++
		}
	}
	t.Logf("F7: %d nodes killed while they refreshed: %d tokens stored, %d answers lost and told; callers elsewhere got %v", kills, kept, lost, seen)
	for code := range seen {
		if code != world.OK && code != "reconnect" && code != "upstream_timeout" {
			t.Errorf("a caller on a node that lived was told %s", code)
		}
	}
	// Whoever is asked to connect again does, and the same session goes on.
	f.signIn(t, slugs[1])
	if a := sessions[slugs[1]].Call(t.Context(), w.Nodes[0], slugs[1]+"_list", nil); a.Code != world.OK {
		t.Errorf("after connecting again: %s %s", a.Code, a.Facts)
	}
}

// judge says whether an account outlived the kill of the node that refreshed it,
// and holds it against what may be.
func (f *foreign) judge(t *testing.T, s *world.Session, slug string, answerLost bool) (kept bool) {
	t.Helper()
	version, state, reason := f.stored(t, slug)
	granted, refused := f.count(slug)
	code := s.Call(t.Context(), f.w.Nodes[0], slug+"_list", nil).Code
	if granted != 1 || refused > 1 {
		t.Errorf("%s: the provider refreshed %d times and refused %d, want one refresh and at most one attempt after it", slug, granted, refused)
	}
	if state == "connected" {
		if version != 2 || code != world.OK || answerLost || refused != 0 {
			t.Errorf("%s: connected, version %d, %d refused attempts, a call gets %s", slug, version, refused, code)
		}
		return true
	}
	if state != "needs_reauthorization" || reason != "refresh_outcome_unknown" || version != 1 || code != "reconnect" {
		t.Errorf("%s: %s (%s), version %d, a call gets %s", slug, state, reason, version, code)
	}
	ledger, err := f.w.Ledger(t.Context(), time.Time{})
	must(t, err)
	for _, e := range ledger.Entries {
		if e.Action == "credential.refresh_failed" && e.Code == "refresh_outcome_unknown" && f.provider(t, e.Connection) == slug {
			return false
		}
	}
	t.Errorf("%s: the audit does not say that a refresh was lost", slug)
	return false
}
