//go:build e2e

package fire

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/e2e/world"
)

// folder holds what all tests share; it goes away with the process.
var folder string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if folder, err = os.MkdirTemp("", "ambit-fire-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(folder)
		return m.Run()
	}())
}

// binary is the ambit that all tests run, built once.
var binary = sync.OnceValues(func() (string, error) { return world.Build(context.Background(), folder) })

// rounds is n in ./check --long, and a tenth of it otherwise.
func rounds(n int) int {
	if os.Getenv("AMBIT_LONG") == "1" {
		return n
	}
	return max(n/10, 1)
}

// setting reads what ./check found or started.
func setting(t testing.TB, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		t.Fatalf("%s is not set: run ./check --only fire", name)
	}
	return v
}

const (
	sqlite   = "sqlite"
	postgres = "postgres"
)

// newWorld starts nodes that live as long as the test, on SQLite or on a
// database of the check's PostgreSQL.
func newWorld(t *testing.T, engine string, nodes int, env ...string) *world.World {
	t.Helper()
	database := ""
	if engine == postgres {
		database = newDatabase(t, setting(t, "AMBIT_TEST_DATABASE_URL"))
	}
	return newWorldOn(t, database, nodes, env...)
}

// newWorldOn is newWorld on a database that the test has made.
func newWorldOn(t *testing.T, database string, nodes int, env ...string) *world.World {
	t.Helper()
	return newWorldWith(t, world.Config{Database: database, Nodes: nodes, Env: env})
}

// newWorldWith fills in what every world of a test has.
func newWorldWith(t *testing.T, cfg world.Config) *world.World {
	t.Helper()
	var err error
	cfg.Dir = t.TempDir()
	cfg.Binary, err = binary()
	must(t, err)
	cfg.Third, err = world.NewThird()
	must(t, err)
	t.Cleanup(cfg.Third.Close)
	w, err := world.New(t.Context(), cfg)
	t.Cleanup(func() {
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			for i, n := range w.Nodes {
				t.Logf("node %d:\n%s", i, n.Log())
			}
		}
	})
	must(t, err)
	return w
}

func newDatabase(t *testing.T, admin string) string {
	t.Helper()
	address, drop, err := world.NewDatabase(t.Context(), admin)
	must(t, err)
	t.Cleanup(func() {
		if err := drop(); err != nil {
			t.Errorf("dropping a database: %v", err)
		}
	})
	return address
}

// newSession has a new agent of the tenant get a session with a provider.
func newSession(t *testing.T, tenant *world.Tenant, providers ...string) *world.Session {
	t.Helper()
	a, err := tenant.NewAgent(t.Context(), "fire")
	must(t, err)
	s, err := a.Session(t.Context(), world.Ask{Providers: providers})
	must(t, err)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what must come about, within a bound that only catches a
// hang.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("after a minute: not yet %s", what)
}

// vitals are what each node needs.
func vitals(t *testing.T, w *world.World) []world.Vitals {
	t.Helper()
	var out []world.Vitals
	for _, n := range w.Nodes {
		v, err := n.Vitals(t.Context())
		must(t, err)
		out = append(out, v)
	}
	return out
}

// What a node may keep more of than before, after a flood: the connections of its
// pools, with two goroutines each, what its caches hold, and memory that the
// runtime gives back to the system only slowly.
const (
	keptFiles      = 24
	keptGoroutines = 64
	keptHeap       = 24 << 20
	keptResident   = 96 << 20
)

// settle waits until no node needs more than before (F14).
func settle(t *testing.T, w *world.World, before []world.Vitals) {
	t.Helper()
	var now []world.Vitals
	eventually(t, "what all nodes need back at its level", func() bool {
		world.CloseIdle()
		w.Third.CloseIdle()
		now = vitals(t, w)
		for i, v := range now {
			if b := before[i]; v.Descriptors > b.Descriptors+keptFiles || v.Goroutines > b.Goroutines+keptGoroutines || v.Heap > b.Heap+keptHeap || v.Resident > b.Resident+keptResident {
				return false
			}
		}
		return true
	})
	for i := range now {
		t.Logf("F14: node %d needed %v, and needs %v", i, before[i], now[i])
	}
}
