//go:build e2e && linux

package fire

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/e2e/world"
)

// W5: two thousand sockets of four strangers send a byte now and then, of a header
// or of a body that they have no right to send, and come back when they are cut. A
// good client's calls all succeed beside them; how long those take is told, and
// with AMBIT_LONG=1, alone on a machine, held to twice what they took before.
func TestSlowSocketsDisturbNobody(t *testing.T) {
	w := newWorld(t, sqlite, 1)
	n, s := w.Nodes[0], newSession(t, w.Owner, "third")
	before := vitals(t, w)
	long := time.Duration(rounds(30)) * time.Second
	usual := paces(t, w, s, long)
	const sockets = 2000
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var open, most, cut atomic.Int64
	for i := range sockets {
		wg.Go(func() {
			for ctx.Err() == nil {
				if dribble(ctx, n, i, func(d int64) { most.Store(max(most.Load(), open.Add(d))) }) {
					cut.Add(1)
				}
			}
		})
	}
	eventually(t, "all sockets are there", func() bool { return open.Load() > sockets*9/10 })
	disturbed := paces(t, w, s, long)
	cancel()
	wg.Wait()
	t.Logf("W5: beside %d slow sockets, of which %d were cut, calls took %v at the median and %v at p99; without them %v and %v", most.Load(), cut.Load(),
		disturbed[len(disturbed)/2], disturbed[len(disturbed)*99/100], usual[len(usual)/2], usual[len(usual)*99/100])
	if os.Getenv("AMBIT_LONG") == "1" {
		if before, with := usual[len(usual)*99/100], disturbed[len(disturbed)*99/100]; with > 2*max(before, 5*time.Millisecond) {
			t.Errorf("the p99 of calls grew from %v to %v", before, with)
		}
		if cut.Load() == 0 {
			t.Error("nobody was cut in half a minute")
		}
	}
	settle(t, w, before)
}

// paces makes calls at a steady rate, wants all to succeed, and gives how long they
// took, shortest first.
func paces(t *testing.T, w *world.World, s *world.Session, long time.Duration) (took []time.Duration) {
	t.Helper()
	stop := world.Load{Workers: 16, Rate: 100, Next: func(int) world.Shot { return world.Shot{Node: w.Nodes[0], Session: s, Tool: "third_list"} }}.Background(t.Context())
	time.Sleep(long)
	for _, op := range stop() {
		if op.Answer.Code != world.OK {
			t.Errorf("a good client's call ended with %s %s %v", op.Answer.Code, op.Answer.Facts, op.Answer.Err)
		}
		took = append(took, op.End.Sub(op.Start).Round(time.Microsecond))
	}
	slices.Sort(took)
	return took
}

// dribble is one slow connection, the i-th, and reports whether the server ended it.
func dribble(ctx context.Context, n *world.Node, i int, opened func(int64)) (cut bool) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%4))}, Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", strings.TrimPrefix(n.URL(), "http://"))
	if err != nil {
		return false
	}
	defer conn.Close()
	opened(1)
	defer opened(-1)
	start := "POST /oauth/token HTTP/1.1\r\nHost: " + n.Listen + "\r\nX-Slow: "
	if i%2 == 1 {
		start = fmt.Sprintf("POST /oauth/token HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\n", n.Listen)
	}
	if _, err := io.WriteString(conn, start); err != nil {
		return true
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Second):
		}
		if _, err := io.WriteString(conn, "a"); err != nil {
			return true
		}
	}
}
