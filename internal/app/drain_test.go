package app_test

import (
	"bufio"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Issue 3 item 1: told to stop, a server is not ready at once and serves on
// until balancers had time to notice; then it ends.
func TestDrainDelay(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sqldb.SQLite)
	force := make(chan struct{})
	n := c.add(func(cfg *app.Config) { cfg.DrainDelay, cfg.Force = time.Hour, force })
	c.settle(n)
	handle := c.active(n, "read")
	if status, _ := n.probe(t); status != http.StatusOK {
		t.Fatalf("not ready: %d", status)
	}
	n.stop()
	until(t, "the probe says draining", func() bool {
		status, r := n.probe(t)
		return status == http.StatusServiceUnavailable && r.Status == "draining"
	})
	if a := c.call(n, "sandbox_key_list_issues", map[string]any{"session": handle}); a.code != "" {
		t.Errorf("a call during the delay: %s", a.raw)
	}
	resp, _ := get(t, n.http, n.url("/healthz"), "", nil)
	if !resp.Close {
		t.Error("the connection is kept, so the next request comes here too")
	}
	// A second signal waits for nothing.
	close(force)
	<-n.done
	if _, err := net.Dial("tcp", n.Addresses()[0]); err == nil {
		t.Error("somebody still listens")
	}
}

// A call that ends within the drain is answered and recorded as ever.
func TestDrainLetsCallsFinish(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, engine)
			n := c.add(func(cfg *app.Config) { cfg.Drain = time.Hour })
			c.settle(n)
			handle := c.active(n, "read")
			c.third.hang.Store(true)
			answered := make(chan answer, 1)
			go func() { answered <- c.call(n, "sandbox_key_list_issues", map[string]any{"session": handle}) }()
			until(t, "the call has arrived", func() bool { return c.third.arrived.Load() == 1 })
			n.stop()
			until(t, "nobody listens", func() bool {
				conn, err := net.Dial("tcp", n.Addresses()[0])
				if err == nil {
					conn.Close()
				}
				return err != nil
			})
			select {
			case a := <-answered:
				t.Fatalf("the call ended early: %s", a.raw)
			case <-n.done:
				t.Fatal("the server ended before the call")
			default:
			}
			close(c.third.release)
			if a := <-answered; a.code != "" {
				t.Errorf("the call: %s", a.raw)
			}
			<-n.done
			if status, code := c.outcome(c.add(nil)); status != "ok" {
				t.Errorf("its outcome: %s %s", status, code)
			}
		})
	}
}

// A call that does not end in time is cut: its agent hears that nobody knows
// what became of it, and the audit says the same.
func TestDrainCutsWhatTakesLonger(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, engine)
			n := c.add(func(cfg *app.Config) { cfg.Drain = 500 * time.Millisecond })
			c.settle(n)
			handle := c.active(n, "read")
			c.third.hang.Store(true)
			answered := make(chan answer, 1)
			go func() { answered <- c.call(n, "sandbox_key_list_issues", map[string]any{"session": handle}) }()
			until(t, "the call has arrived", func() bool { return c.third.arrived.Load() == 1 })
			n.stop()
			if a := <-answered; a.code != "outcome_unknown" {
				t.Errorf("the agent hears %s", a.raw)
			}
			<-n.done
			if status, code := c.outcome(c.add(nil)); status != "unknown" {
				t.Errorf("the audit says %s %s", status, code)
			}
		})
	}
}

// A long poll is answered at once with what is known, and the agent asks again:
// another node.
func TestDrainAnswersLongPolls(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sqldb.SQLite)
	n := c.add(func(cfg *app.Config) { cfg.Drain = time.Hour })
	c.settle(n)
	asked := c.call(n, "request_session", map[string]any{"providers": []string{"sandbox_key"}, "purpose": "Test."})
	answered := make(chan answer, 1)
	began := time.Now()
	go func() {
		answered <- c.call(n, "check_session", map[string]any{"session": asked.fact("session"), "wait_seconds": 25})
	}()
	time.Sleep(200 * time.Millisecond) // most likely it waits by now
	n.stop()
	if a := <-answered; a.code != "" || a.fact("state") != "pending" {
		t.Errorf("the poll: %s", a.raw)
	}
	<-n.done
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the poll was held for %v", took)
	}
}

// The service manager hears when the server is ready and when it stops.
func TestServiceManagerIsTold(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer conn.Close()
	said := make(chan string, 10)
	go func() {
		defer close(said)
		for r, buf := bufio.NewReader(conn), make([]byte, 512); ; {
			k, err := r.Read(buf)
			if err != nil {
				return
			}
			said <- string(buf[:k])
		}
	}()
	n := newCluster(t, sqldb.SQLite).add(func(cfg *app.Config) { cfg.NotifySocket = path })
	if got := <-said; got != "READY=1" {
		t.Errorf("heard %q", got)
	}
	n.stop()
	if got := <-said; got != "STOPPING=1" {
		t.Errorf("heard %q", got)
	}
	<-n.done
	conn.Close()
	for range said { // until the reader has ended
	}
}
