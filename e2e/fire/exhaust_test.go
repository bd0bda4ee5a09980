//go:build e2e && linux

package fire

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/e2e/world"
)

// F14: the process may have 256 files open, and strangers hold more connections
// than that. Whoever gets through is answered or refused, nothing is half done,
// and when they have gone everything works again, without a restart.
func TestDescriptorsRunOut(t *testing.T) {
	t.Parallel()
	program, err := binary()
	must(t, err)
	l := newLife(t, sqlite, program)
	n, before := l.w.Nodes[0], vitals(t, l.w)
	if out, err := exec.CommandContext(t.Context(), "prlimit", fmt.Sprintf("--pid=%d", n.PID()), "--nofile=256:256").CombinedOutput(); err != nil {
		t.Fatalf("prlimit: %v %s", err, out)
	}
	var idle []net.Conn
	closeIdle := sync.OnceFunc(func() {
		for _, c := range idle {
			_ = c.Close()
		}
	})
	defer closeIdle()
	for range 400 {
		c, err := net.DialTimeout("tcp", strings.TrimPrefix(n.URL(), "http://"), time.Second)
		if err != nil {
			break // the queue of the kernel is full too
		}
		idle = append(idle, c)
	}
	used, err := n.Descriptors()
	must(t, err)
	if used < 200 {
		t.Errorf("with %d connections the process has %d files open: the test exhausts nothing", len(idle), used)
	}
	exhausted(t, l, 2*time.Second, 5*time.Second)
	closeIdle()
	settle(t, l.w, before)
	calm(t, l)
}

// F14, W5: with 40 MiB to work in, somebody at another address sends bodies of a
// megabyte, 32 at once and as fast as they can. The process has a bounded need of
// memory, good calls go on or are told when to come again, and afterwards it needs
// what it did.
func TestMemoryRunsOut(t *testing.T) {
	t.Parallel()
	program, err := binary()
	must(t, err)
	const limit = 40 << 20
	l := newLife(t, sqlite, program, fmt.Sprintf("GOMEMLIMIT=%d", limit))
	n, before := l.w.Nodes[0], vitals(t, l.w)
	stranger, err := l.tenant.NewAgent(t.Context(), "stranger")
	must(t, err)
	stop := flood(n, stranger.Token, 32)
	ops := exhausted(t, l, 3*time.Second, time.Minute)
	sent := stop()
	for _, op := range ops {
		if op.Answer.Code != world.OK && op.Answer.RetryAfter == 0 {
			t.Errorf("a call during the flood ended with %s %s %v", op.Answer.Code, op.Answer.Facts, op.Answer.Err)
		}
	}
	if sent[http.StatusBadRequest] == 0 || sent[-http.StatusTooManyRequests] > 0 {
		t.Errorf("the bodies were answered with %v", sent)
	}
	peak, err := n.Peak()
	must(t, err)
	t.Logf("F14: %v bodies of a megabyte; the process had %d MiB at most with a limit of %d MiB to its heap", sent, peak>>20, limit>>20)
	if peak > before[0].Resident+limit+96<<20 { // what is sent at once stays below a hundred megabytes
		t.Errorf("the process had %d MiB of memory", peak>>20)
	}
	settle(t, l.w, before)
	calm(t, l)
}

// flood sends large bodies from another address, from so many at once, until stop
// is called, which gives how they were answered.
func flood(n *world.Node, token string, senders int) (stop func() map[int]int) {
	body := []byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"third_list","arguments":{"id":"` + strings.Repeat("x", 1_000_000) + `"}}}`)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: senders,
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}).DialContext}}
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var wg sync.WaitGroup
	count := map[int]int{}
	for range senders {
		wg.Go(func() {
			for ctx.Err() == nil {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.URL()+"/mcp", bytes.NewReader(body))
				if err != nil {
					return
				}
				req.Host = n.Listen
				req.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}, "Authorization": {"Bearer " + token},
					"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {"third_list"}}
				status := 0
				if resp, err := client.Do(req); err == nil {
					if status = resp.StatusCode; status == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
						status = -status // which nobody should answer
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
				mu.Lock()
				count[status]++
				mu.Unlock()
			}
		})
	}
	return func() map[int]int {
		cancel()
		wg.Wait()
		client.CloseIdleConnections()
		return count
	}
}

// exhausted calls from many workers for a while, of which each waits for an answer
// as long as it has patience, and lets people and applications try their part.
func exhausted(t *testing.T, l *life, long, patience time.Duration) []world.Op {
	t.Helper()
	n := l.w.Nodes[0]
	stop := world.Load{Workers: 64, Timeout: patience, Next: func(i int) world.Shot {
		return world.Shot{Node: n, Session: l.session, Tool: []string{"third_list", "third_create"}[i%2]}
	}}.Background(t.Context())
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		_ = l.secret(t.Context()) // may be refused; what is acknowledged is promised
	}
	ops := stop()
	l.ops = append(l.ops, ops...)
	if !n.Running() {
		t.Fatal("the process has ended")
	}
	count := map[string]int{}
	for _, op := range ops {
		count[op.Answer.Code]++
		if vague(op.Answer.Code) && op.Answer.Code != world.NoAnswer {
			t.Errorf("a call ended with %s %s", op.Answer.Code, op.Answer.Facts)
		}
		if op.Answer.Status == http.StatusServiceUnavailable && op.Answer.RetryAfter == 0 {
			t.Error("a call was shed and not told when to come again")
		}
	}
	t.Logf("the calls ended with %v", count)
	return ops
}

// calm waits until everything works, and holds everything against the database.
func calm(t *testing.T, l *life) {
	t.Helper()
	k := &killing{life: l}
	eventually(t, "a call succeeds", func() bool {
		return l.op(world.Shot{Node: l.w.Nodes[0], Session: l.session, Tool: "third_list"}.Do(t.Context(), time.Minute)) == nil
	})
	k.finish(t)
	must(t, l.w.Nodes[0].Stop())
	for _, b := range k.examine(t) {
		t.Error(b)
	}
}
