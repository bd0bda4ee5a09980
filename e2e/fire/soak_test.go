//go:build e2e

package fire

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/e2e/world"
)

// Issue 3: under ten minutes of everything that a server does, a node needs no more
// at the end than after three: its heap is flat within a tenth, and so are its
// goroutines, however many calls and streams there were. Acts bring new people,
// agents, keys and providers, of which nodes remember some thousands: each may cost
// keptOfAct. In ./check it is fifteen seconds, which show a leak that is coarse.
func TestSoak(t *testing.T) {
	t.Parallel()
	for engine, nodes := range map[string]int{sqlite: 1, postgres: 2} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			soak(t, engine, nodes)
		})
	}
}

// keptOfAct is what the first node may keep of one act: a parsed provider, a key,
// the buckets of those whose requests are counted.
const keptOfAct = 4 << 10

func soak(t *testing.T, engine string, nodes int) {
	long := os.Getenv("AMBIT_LONG") == "1"
	marks, pause := 5, 3*time.Second
	if long {
		marks, pause = 10, time.Minute
	}
	program, err := binary()
	must(t, err)
	third, err := world.NewThird()
	must(t, err)
	t.Cleanup(third.Close)
	cfg := world.Config{Dir: t.TempDir(), Binary: program, Third: third, Nodes: nodes}
	if engine == postgres {
		cfg.Database = newDatabase(t, setting(t, "AMBIT_TEST_DATABASE_URL"))
	}
	l := newLifeOn(t, cfg)
	w := l.w
	steady := newSession(t, w.Owner, "third")
	ctx, cancel := context.WithCancel(t.Context())
	stop := world.Load{Workers: 8, Rate: 50, Next: func(i int) world.Shot {
		return world.Shot{Node: w.Nodes[i%nodes], Session: steady, Tool: []string{"third_list", "third_create"}[i/nodes%2]}
	}}.Background(ctx)
	var busy sync.WaitGroup
	var streams, done atomic.Int64
	busy.Go(func() { l.soak(t, ctx, &done) })
	busy.Go(func() {
		for ctx.Err() == nil {
			abortStream(ctx, w)
			streams.Add(1)
		}
	})
	var seen [][]world.Vitals
	var lived []int64
	for i := range marks {
		time.Sleep(pause)
		seen, lived = append(seen, least(t, w)), append(lived, done.Load())
		t.Logf("after %v: %v", time.Duration(i+1)*pause, seen[i])
	}
	cancel()
	busy.Wait()
	ops := append(stop(), l.ops...)
	for i := range w.Nodes {
		from, to := seen[2][i], seen[marks-1][i]
		most := 2*from.Heap + 16<<20
		if long {
			most = from.Heap + from.Heap/10 + keptOfAct*(lived[marks-1]-lived[2])
		}
		if to.Heap > most {
			t.Errorf("node %d: the heap grew from %.1f MiB to %.1f MiB in %d acts", i, float64(from.Heap)/(1<<20), float64(to.Heap)/(1<<20), lived[marks-1]-lived[2])
		}
		if to.Goroutines > from.Goroutines+keptGoroutines {
			t.Errorf("node %d: goroutines grew from %d to %d", i, from.Goroutines, to.Goroutines)
		}
	}
	acked := checkCalls(t, w, ops)
	must(t, l.kept(t.Context()))
	for _, u := range l.unkept {
		t.Errorf("lost after it was acknowledged: %s", u)
	}
	report, err := w.API.VerifyAudit(t.Context())
	must(t, err)
	if len(report.Problems) > 0 || acked < marks || streams.Load() < int64(marks) || done.Load() < int64(marks) {
		t.Errorf("%d calls were acknowledged, %d streams aborted, %d acts done; the audit has the problems %v", acked, streams.Load(), done.Load(), report.Problems)
	}
	t.Logf("soak: %d calls acknowledged, %d acts, %d streams aborted, %d audit entries", acked, done.Load(), streams.Load(), report.Entries)
}

// least gives what the nodes need at a quiet moment among three.
func least(t *testing.T, w *world.World) []world.Vitals {
	t.Helper()
	out := vitals(t, w)
	for range 2 {
		time.Sleep(100 * time.Millisecond)
		for i, v := range vitals(t, w) {
			out[i].Goroutines, out[i].Heap = min(out[i].Goroutines, v.Goroutines), min(out[i].Heap, v.Heap)
		}
	}
	return out
}

// soak lives: sessions are asked for, approved, used, ended, revoked and expire,
// tokens are refreshed, accounts connected, agents made, people sign in.
func (l *life) soak(t *testing.T, ctx context.Context, done *atomic.Int64) {
	for ctx.Err() == nil {
		a := acts[rand.IntN(len(acts))]
		err := l.kept(ctx)
		if err == nil && l.tired() {
			err = l.renew(ctx)
		}
		if err == nil {
			err = a.do(l, ctx)
		}
		switch {
		case err == nil:
			done.Add(1)
		case strings.Contains(err.Error(), "Too many") || strings.Contains(err.Error(), "rate_limited"):
			time.Sleep(time.Second) // one address may register, and sign in, so often only
		case ctx.Err() == nil:
			t.Errorf("%s: %v", a.name, err)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// abortStream follows the audit for a moment and hangs up.
func abortStream(ctx context.Context, w *world.World) {
	ctx, cancel := context.WithTimeout(ctx, rand.N(150*time.Millisecond))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL+"/v1/audit/stream", nil)
	if err != nil {
		return
	}
	req.Header.Set("Authorization", "Bearer "+w.APIKey)
	if resp, err := plain.Do(req); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	<-ctx.Done()
}
