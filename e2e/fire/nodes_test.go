//go:build e2e

package fire

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/e2e/world"
)

// Issue 3 item 1: a node leaves and joins under load, twice politely and once
// killed. No call on the other node fails; on its own only those that met the
// end of it, each with a code that says what to do.
func TestNodesComeAndGoUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, 2, "AMBIT_DRAIN_DELAY=200ms")
	s := newSession(t, w.Owner, "third")
	load := world.Load{Workers: 6, Rate: 60, Next: func(i int) world.Shot {
		return world.Shot{Node: w.Nodes[i%2], Session: s, Tool: []string{"third_list", "third_create"}[i/2%2], Wait: 20 * time.Millisecond}
	}}
	stop := load.Background(t.Context())
	comer := w.Nodes[1]
	for range 2 {
		time.Sleep(500 * time.Millisecond)
		must(t, comer.Stop())
		_, err := comer.Start(t.Context())
		must(t, err)
	}
	time.Sleep(500 * time.Millisecond)
	comer.Kill()
	_, err := comer.Start(t.Context())
	must(t, err)
	time.Sleep(500 * time.Millisecond)
	ops := stop()
	served := 0
	for _, op := range ops {
		switch {
		case op.Answer.Code == world.OK:
			served++
		case op.Node == w.Nodes[0]:
			t.Errorf("a call on the node that stayed: %s %v", op.Answer.Code, op.Answer.Err)
		case !slices.Contains([]string{world.NoAnswer, "outcome_unknown", "server_stopping", "http_503"}, op.Answer.Code):
			t.Errorf("a call on the node that left: %s", op.Answer.Code)
		}
	}
	if acked := checkCalls(t, w, ops); acked < 50 || acked != served {
		t.Errorf("%d of %d calls are on record as served, callers saw %d", acked, len(ops), served)
	}
}

// Issue 3 item 1: a node that is told to stop waits for the call that runs, and one
// that is told twice does not. What it cut is on record.
func TestSecondSignalEndsADrain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqlite, 1)
	n, s := w.Nodes[0], newSession(t, w.Owner, "third")
	answer := slow(t, w, n, s, 50*time.Second)
	must(t, n.Signal(syscall.SIGTERM))
	eventually(t, "the node says that it drains", func() bool { return strings.Contains(n.Log(), "draining") })
	time.Sleep(500 * time.Millisecond)
	if !n.Running() {
		t.Fatal("the node ended while a call ran, after one signal")
	}
	must(t, n.Signal(syscall.SIGTERM))
	if !died(n, 5*time.Second) { // of the ten seconds that calls have
		t.Error("after a second signal the node waits on")
	}
	if op := <-answer; op.Answer.Code == world.OK || op.End.Sub(op.Start) > 30*time.Second {
		t.Errorf("the call ended after %v with %s", op.End.Sub(op.Start), op.Answer.Code)
	}
	n.Kill() // to reap it
	must(t, w.Start(t.Context()))
	eventually(t, "the call's end on record", func() bool { got := calls(t, w, s); return len(got) == 1 && got[0].Outcome.Status != "" })
	if status := calls(t, w, s)[0].Outcome.Status; status != "cut" && status != "unknown" {
		t.Errorf("the call is on record as %s", status)
	}
	if said := ambit(t, w, "audit", "verify"); !strings.Contains(said, "The log is whole") {
		t.Errorf("verify says:\n%s", said)
	}
}

// F12, issue 3 item 1: the next release migrates and serves beside this one,
// which starts anew on its schema; a step that this one could not go on beside
// is refused while it lives, and refuses it once it is applied.
func TestUpgradeOneNodeAfterTheOther(t *testing.T) {
	t.Parallel()
	next := future(t, map[string]string{"9001_adds": "create table added (id text not null primary key);"})
	last := future(t, map[string]string{"9001_adds": "create table added (id text not null primary key);", "9002_breaks": "-- oldest: 9001\nalter table added rename to moved;"})
	w := newWorld(t, postgres, 2)
	s := newSession(t, w.Owner, "third")
	old, other := w.Nodes[0], w.Nodes[1]
	now := old.Binary
	works := func(nodes ...*world.Node) {
		t.Helper()
		for _, n := range nodes {
			if a := s.Call(t.Context(), n, "third_list", nil); a.Code != world.OK {
				t.Fatalf("a call: %s %s %v", a.Code, a.Facts, a.Err)
			}
		}
	}
	load := world.Load{Workers: 2, Rate: 40, Next: func(int) world.Shot { return world.Shot{Node: old, Session: s, Tool: "third_list"} }}
	stop := load.Background(t.Context())
	must(t, other.Stop())
	other.Binary = next
	_, err := other.Start(t.Context())
	must(t, err)
	for _, op := range stop() {
		if op.Answer.Code != world.OK {
			t.Errorf("a call beside the migration: %s %v", op.Answer.Code, op.Answer.Err)
		}
	}
	works(old, other)
	must(t, old.Stop())
	_, err = old.Start(t.Context()) // the older binary on the newer schema
	must(t, err)
	works(other, old)

	must(t, other.Stop())
	other.Binary = last
	refusedStart(t, other, "cannot be applied while nodes run")
	works(old)
	must(t, old.Stop())
	_, err = other.Start(t.Context())
	must(t, err)
	works(other)
	refusedStart(t, old, "cannot run on it")
	old.Binary = last
	_, err = old.Start(t.Context())
	must(t, err)
	works(old, other)
	if now == old.Binary {
		t.Error("nothing was upgraded")
	}
}

// refusedStart wants the node not to start, and to say why.
func refusedStart(t *testing.T, n *world.Node, why string) {
	t.Helper()
	if _, err := n.Start(t.Context()); !errors.Is(err, world.ErrEnded) || !strings.Contains(n.Log(), why) {
		t.Fatalf("got %v, want the start refused with %q", err, why)
	}
	n.Kill() // to reap it
}

// future builds the binary of a later release, which has more migrations.
func future(t *testing.T, steps map[string]string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	must(t, err)
	root, dir := strings.TrimSpace(string(out)), t.TempDir()
	overlay := map[string]map[string]string{"Replace": {}}
	for name, text := range steps {
		file := filepath.Join(dir, name+".sql")
		must(t, os.WriteFile(file, []byte(text), 0o600))
		for _, engine := range []string{sqlite, postgres} {
			overlay["Replace"][filepath.Join(root, "internal", "sqldb", "migrate", engine, name+".sql")] = file
		}
	}
	doc, err := json.Marshal(overlay)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "overlay.json"), doc, 0o600))
	binary := filepath.Join(dir, "ambit")
	if out, err := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, "github.com/ambit-dev/ambit/cmd/ambit").CombinedOutput(); err != nil {
		t.Fatalf("building a later release: %v\n%s", err, out)
	}
	return binary
}
