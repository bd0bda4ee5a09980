//go:build e2e && linux

package fire

import (
	"fmt"
	"net"
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
	n := l.w.Nodes[0]
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
	exhausted(t, l, 2*time.Second)
	closeIdle()
	calm(t, l)
}

// F14: with little memory to work in, under load, the process lives, sheds what
// it must, and works again afterwards.
func TestMemoryRunsOut(t *testing.T) {
	t.Parallel()
	program, err := binary()
	must(t, err)
	l := newLife(t, sqlite, program, "GOMEMLIMIT=40MiB")
	exhausted(t, l, 3*time.Second)
	calm(t, l)
}

// exhausted calls from many workers for a while, and lets people and applications
// try their part.
func exhausted(t *testing.T, l *life, long time.Duration) {
	t.Helper()
	n := l.w.Nodes[0]
	stop := world.Load{Workers: 64, Timeout: 5 * time.Second, Next: func(i int) world.Shot {
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
	}
	t.Logf("the calls ended with %v", count)
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
