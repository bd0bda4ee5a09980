package app_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

// Issue 3 item 1: a server says of each part whether it is in order, and how long
// it took to find out.
func TestReadyzNamesEveryPart(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			n := newCluster(t, engine).add(nil)
			status, r := n.probe(t)
			if status != http.StatusOK || r.Status != "ready" {
				t.Errorf("got %d, %+v", status, r)
			}
			var names []string
			for _, p := range r.Parts {
				names = append(names, p.Name)
				if p.State != "ok" || p.Code != "" || p.Took < 0 {
					t.Errorf("got %+v", p)
				}
			}
			if want := []string{"database", "keeper", "audit", "checkpoints", "clock", "node"}; !slices.Equal(names, want) {
				t.Errorf("parts %v, want %v", names, want)
			}
			if resp, body := get(t, n.http, n.url("/healthz"), "", nil); resp.StatusCode != http.StatusOK || strings.TrimSpace(body) != `{"status":"alive"}` {
				t.Errorf("/healthz: %d %s", resp.StatusCode, body)
			}
		})
	}
}

// F6: a node that has lost its database says so in time, names the part, and is
// ready again by itself.
func TestReadyzWithoutDatabase(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sqldb.PostgreSQL)
	through, proxy := sqldbtest.Through(t, sqldb.Config{URL: c.cfg.DatabaseURL})
	c.cfg.DatabaseURL = through.URL
	n := c.add(nil)
	t.Cleanup(proxy.Thaw)
	proxy.Freeze()
	until(t, "the node is not ready", func() bool {
		status, r := n.probe(t)
		return status == http.StatusServiceUnavailable && r.Status == "not_ready" && failed(r, "database") != "" && failed(r, "audit") != "" && failed(r, "keeper") == ""
	})
	if status, _ := n.status(t, "/healthz"); status != http.StatusOK {
		t.Errorf("the process answers %d; it is alive", status)
	}
	proxy.Thaw()
	until(t, "the node is ready again", func() bool { status, _ := n.probe(t); return status == http.StatusOK })
}

// L2, F10: reading is not enough. A database that takes no writes, as a standby
// after a failover, makes no call, and the probe finds that out without one.
func TestReadyzWithoutWrites(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sqldb.PostgreSQL)
	n := c.add(nil)
	c.exec(`create function refuse() returns trigger language plpgsql as $f$ begin raise exception using errcode = '25006'; end $f$`)
	c.exec(`create trigger refuse before insert or update on lease for each row execute function refuse()`)
	until(t, "the node is not ready", func() bool {
		status, r := n.probe(t)
		return status == http.StatusServiceUnavailable && failed(r, "audit") == "database_unavailable" && failed(r, "database") == ""
	})
}

// A folder for checkpoints that cannot be written is an alarm and no outage.
func TestReadyzWithoutCheckpoints(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sqldb.SQLite)
	n := c.add(nil)
	must(t, os.RemoveAll(c.cfg.CheckpointDir))
	must(t, os.WriteFile(c.cfg.CheckpointDir, nil, 0o600))
	c.settle(n) // something to witness
	until(t, "the probe says so", func() bool {
		status, r := n.probe(t)
		return status == http.StatusOK && slices.ContainsFunc(r.Parts, func(p app.PartState) bool {
			return p.Name == "checkpoints" && p.State == "degraded" && p.Code == "checkpoint_failed"
		})
	})
}

// However often it is asked, the server looks once a second; that it stops is
// never told from memory; and no answer says more than names and codes.
func TestProbesAreCheapAndSayLittle(t *testing.T) {
	t.Parallel()
	var looks atomic.Int64
	var broken atomic.Pointer[error]
	now := time.Now()
	var ahead atomic.Int64
	p := app.NewProbes(func() time.Time { return now.Add(time.Duration(ahead.Load())) }, func() error {
		looks.Add(1)
		if err := broken.Load(); err != nil {
			return *err
		}
		return nil
	}, func() error { return errors.New("password=hunter2") })
	ask := func() (int, app.Readiness, string) {
		w := httptest.NewRecorder()
		p.Ready(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		var r app.Readiness
		if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
			t.Error(err)
		}
		return w.Code, r, w.Body.String()
	}
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if status, r, body := ask(); status != http.StatusOK || r.Status != "ready" || strings.Contains(body, "hunter2") {
				t.Errorf("got %d %s", status, body)
			}
		})
	}
	wg.Wait()
	if n := looks.Load(); n != 1 {
		t.Errorf("200 probes caused %d looks", n)
	}
	err := app.ErrSkew()
	broken.Store(&err)
	ahead.Add(int64(time.Second))
	if status, r, _ := ask(); status != http.StatusServiceUnavailable || r.Status != "not_ready" || failed(r, "must") != "clock_skew" {
		t.Errorf("a second later: %d %+v", status, r)
	}
	broken.Store(nil)
	ahead.Add(int64(time.Second))
	if status, _, _ := ask(); status != http.StatusOK {
		t.Errorf("mended: %d", status)
	}
	p.Drain()
	if status, r, _ := ask(); status != http.StatusServiceUnavailable || r.Status != "draining" {
		t.Errorf("draining: %d %+v", status, r)
	}
}

// Probes used to queue while a part hung: each found the look before it stale,
// because a look was as old as its beginning, and took two seconds of its own. And
// as many as came could wait.
func TestProbesShareALookThatHangs(t *testing.T) {
	t.Parallel()
	const probes, wait = 400, 256
	var looks, ahead atomic.Int64
	began, release := make(chan struct{}, probes), make(chan struct{})
	now := time.Now()
	p := app.NewProbes(func() time.Time { return now.Add(time.Duration(ahead.Load())) }, func() error {
		looks.Add(1)
		began <- struct{}{}
		<-release
		ahead.Add(int64(2 * time.Second))
		return nil
	}, func() error { return nil })
	answers := make(chan int, 1+probes)
	var wg sync.WaitGroup
	ask := func() {
		w := httptest.NewRecorder()
		p.Ready(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		answers <- w.Code
	}
	wg.Go(ask)
	<-began
	for range probes {
		wg.Go(ask)
	}
	limit := time.After(20 * time.Second)
	for left := probes - wait; left > 0; left-- { // answered though the look still hangs
		select {
		case status := <-answers:
			if status != http.StatusServiceUnavailable {
				t.Errorf("a server that never looked answers %d", status)
			}
		case <-limit:
			t.Error("over 256 probes wait for one look")
			left = 0
		}
	}
	close(release)
	wg.Wait()
	close(answers)
	for status := range answers {
		if status != http.StatusOK {
			t.Errorf("who waited got %d", status)
		}
	}
	if n := looks.Load(); n != 1 {
		t.Errorf("%d probes during one look caused %d looks", probes, n)
	}
}

// failed is the code of a part that failed, "" if it did not.
func failed(r app.Readiness, name string) string {
	for _, p := range r.Parts {
		if p.Name == name && p.State == "failed" {
			return p.Code
		}
	}
	return ""
}

func (n *node) status(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, body := get(t, n.http, n.url(path), "", nil)
	return resp.StatusCode, body
}

// F5: a root key that cannot be reached takes no node out of the balancer while
// what it has unwrapped may still be used, and does after that.
func TestReadyzWithoutTheRootKey(t *testing.T) {
	t.Parallel()
	for grace, want := range map[time.Duration]struct {
		status int
		state  string
	}{
		time.Hour:        {http.StatusOK, "degraded"},
		time.Millisecond: {http.StatusServiceUnavailable, "failed"},
	} {
		c := newCluster(t, sqldb.SQLite)
		n := c.add(func(cfg *app.Config) { cfg.KeyGrace = grace })
		must(t, os.Rename(c.cfg.RootKey, c.cfg.RootKey+".away"))
		// A key context that is new has the root key asked.
		place := vault.Place{Environment: id.NewEnvironment(), Kind: "test", Object: "x", Version: 1}
		if _, err := n.Vault.Seal(t.Context(), place, secret.FromString("x")); !fault.Is(err, "root_key_unavailable") {
			t.Fatalf("sealing without the root key: %v", err)
		}
		until(t, "the probe says so", func() bool {
			status, r := n.probe(t)
			return status == want.status && slices.ContainsFunc(r.Parts, func(p app.PartState) bool {
				return p.Name == "keeper" && p.State == want.state && p.Code == "root_key_unavailable"
			})
		})
	}
}
