//go:build e2e

package fire

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/e2e/world"
	"github.com/ambit-dev/ambit/internal/cli/person"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/local"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// breakable is the ambit with failpoints, built once.
var breakable = sync.OnceValues(func() (string, error) { return world.Build(context.Background(), folder, "failpoint") })

// F1: the process is killed at every step of the store that anything of a life
// passes: before each commit, after it, and between a provider's answer and the
// row that keeps it. Afterwards nothing that was acknowledged is lost, nothing is
// half done, nothing arrived anywhere without an intent, and everything still works.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{sqlite, postgres} {
		for round := range rounds(10) { // each in a world of its own, so that none hides what another left
			t.Run(fmt.Sprintf("%s_%d", engine, round), func(t *testing.T) {
				t.Parallel()
				killedAtEveryStep(t, engine)
			})
		}
	}
}

func killedAtEveryStep(t *testing.T, engine string) {
	program, err := breakable()
	must(t, err)
	trace := &tracer{path: filepath.Join(t.TempDir(), "trace")}
	l := newLife(t, engine, program, "AMBIT_FAILPOINT_TRACE="+trace.path)
	l.mayLoseGrants = true
	r := &killing{life: l}
	points := trace.points(t, l)
	if len(points) < 100 { // a step that no act passes any more would go untested in silence
		t.Errorf("the life passes only %d points", len(points))
	}
	if rounds(10) == 1 && engine == postgres {
		points = every(points, 3)
	}
	for _, p := range points {
		r.kill(t, p)
	}
	r.finish(t)
	t.Logf("%d points, %d kills, %d at other moments, %d accounts connected again", len(points), r.kills, r.missed, l.reconnected)
	if r.missed > r.kills/10 {
		t.Errorf("%d of %d kills did not come where they should", r.missed, r.kills)
	}
}

// F1: a server is killed at every step of its very first start, as are those that
// start again after it. The one that lives serves, and its first owner can come in.
func TestKilledAtFirstStart(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{sqlite, postgres} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			trace := &tracer{path: filepath.Join(t.TempDir(), "trace")}
			first := newNode(t, engine)
			first.Env = append(first.Env, "AMBIT_FAILPOINT_TRACE="+trace.path)
			_, err := first.Start(t.Context())
			must(t, err)
			names := slices.Sorted(maps.Keys(trace.since(t)))
			if len(names) < 25 {
				t.Errorf("a first start passes only %d points", len(names))
			}
			times := rounds(10)
			if times == 1 && engine == postgres {
				names = every(names, 6)
			}
			for i := range times {
				for j, name := range names {
					n := newNode(t, engine)
					for _, name := range []string{name, names[(j+i+1)%len(names)]} { // dies again when it starts again
						startKilled(t, n, name)
					}
					startOwned(t, n)
				}
			}
			t.Logf("%d points", len(names))
		})
	}
}

// newNode is a server that has never run.
func newNode(t *testing.T, engine string) *world.Node {
	t.Helper()
	program, err := breakable()
	must(t, err)
	port, err := world.FreePort()
	must(t, err)
	n := &world.Node{Binary: program, Command: "serve", Home: t.TempDir(), Listen: "localhost:" + port}
	if engine == postgres {
		n.Database = newDatabase(t, setting(t, "AMBIT_TEST_DATABASE_URL"))
	}
	t.Cleanup(n.Kill)
	return n
}

// startKilled starts a node that dies at a point, or lives if it does not pass it.
func startKilled(t *testing.T, n *world.Node, name string) {
	t.Helper()
	env := n.Env
	n.Env = append(slices.Clone(env), "AMBIT_FAILPOINT="+name+"=kill")
	if _, err := n.Start(t.Context()); err != nil && !errors.Is(err, world.ErrEnded) {
		t.Errorf("at %q: %v", name, err)
	}
	n.Kill()
	n.Env = env
}

var ownerLink = regexp.MustCompile(`http://\S+/ui/enroll#\S+`)

// startOwned starts a node for good, and its first owner uses the link that it
// printed last.
func startOwned(t *testing.T, n *world.Node) {
	t.Helper()
	_, err := n.Start(t.Context())
	must(t, err)
	var links []string
	for range 100 { // it prints after it serves
		if links = ownerLink.FindAllString(n.Log(), -1); len(links) > 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(links) == 0 {
		t.Fatalf("no link for the first owner:\n%s", n.Log())
	}
	owner, err := person.New("http://" + n.Listen)
	must(t, err)
	must(t, owner.Enroll(t.Context(), links[len(links)-1]))
	n.Kill()
}

// F1: the process is killed at random moments of its start and of its work, with
// calls from six workers and two tenants who change things all the time.
func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	for engine, n := range map[string]int{sqlite: 600, postgres: 400} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			program, err := binary()
			must(t, err)
			l := newLife(t, engine, program)
			l.mayLoseGrants = true
			other, err := l.sibling(t.Context())
			must(t, err)
			r := &killing{life: l, others: []*life{other}}
			l.w.Nodes[0].Kill()
			n = rounds(n)
			for i := range n {
				r.killUnderLoad(t)
				if i%10 == 9 || i == n-1 {
					for _, b := range r.examine(t) {
						t.Errorf("after kill %d: %s", i, b)
					}
				}
				if t.Failed() {
					break
				}
			}
			acked := r.finish(t)
			t.Logf("%d kills, %d of them before it served; %d calls acknowledged, %d acts; %d accounts connected again",
				n, r.missed, acked, r.acts.Load(), l.reconnected+other.reconnected)
		})
	}
}

// killUnderLoad is one life of the process, of some tens of milliseconds.
func (k *killing) killUnderLoad(t *testing.T) {
	t.Helper()
	ctx, n := t.Context(), k.life.w.Nodes[0]
	lives := append([]*life{k.life}, k.others...)
	if rand.IntN(10) == 0 {
		must(t, n.Launch())
		time.Sleep(rand.N(100 * time.Millisecond))
		n.Kill()
		k.missed++
		return
	}
	k.start(t, "")
	for _, l := range lives {
		if l.tired() {
			must(t, l.renew(ctx))
		}
	}
	stop := world.Load{Workers: 6, Next: func(i int) world.Shot {
		return world.Shot{Node: n, Session: k.life.session, Tool: []string{"third_list", "third_create"}[i%2]}
	}}.Background(ctx)
	var busy sync.WaitGroup
	for _, l := range lives {
		busy.Go(func() { k.live(t, l) })
	}
	time.Sleep(20*time.Millisecond + rand.N(180*time.Millisecond))
	n.Kill()
	ops := stop()
	busy.Wait()
	k.life.ops = append(k.life.ops, ops...)
	k.mourn(t)
}

// live does one act after the other until the process has died.
func (k *killing) live(t *testing.T, l *life) {
	ctx := t.Context()
	err := l.kept(ctx)
	if err == nil {
		err = l.wake(ctx)
	}
	for what := "keeping what was promised"; ; {
		if err != nil {
			k.attempt(t, l, what, err)
			return
		}
		a := acts[rand.IntN(len(acts)-1)] // the last one takes seconds
		what, err = a.name, a.do(l, ctx)
		k.acts.Add(1)
	}
}

// every keeps each nth.
func every[T any](list []T, n int) (out []T) {
	for i := 0; i < len(list); i += n {
		out = append(out, list[i])
	}
	return out
}

// point is a failpoint, an act that passes it, and how often.
type point struct {
	name string
	act  act // none: the start of the process
	hits int
}

// tracer reads which failpoints a process has passed.
type tracer struct {
	path string
	read int
}

// since gives how often each name was passed since the last time.
func (tr *tracer) since(t *testing.T) map[string]int {
	t.Helper()
	all, err := os.ReadFile(tr.path)
	must(t, err)
	out := map[string]int{}
	for line := range strings.Lines(string(all[tr.read:])) {
		out[strings.TrimSpace(line)]++
	}
	tr.read = len(all)
	return out
}

// points starts the node again and lets it live once, to see which points that
// passes, and in which act first.
func (tr *tracer) points(t *testing.T, l *life) (out []point) {
	t.Helper()
	n := l.w.Nodes[0]
	must(t, n.Stop())
	tr.since(t)
	_, err := n.Start(t.Context())
	must(t, err)
	known := map[string]bool{}
	add := func(a act) {
		hits := tr.since(t)
		for _, name := range slices.Sorted(maps.Keys(hits)) {
			// A checkpoint comes when its time has come, not in an act.
			if !known[name] && !(a.do != nil && strings.HasPrefix(name, "disk: ")) {
				known[name] = true
				out = append(out, point{name, a, hits[name]})
			}
		}
	}
	add(act{})
	for _, a := range acts {
		if err := a.do(l, t.Context()); err != nil {
			t.Fatalf("%s: %v", a.name, err)
		}
		time.Sleep(50 * time.Millisecond) // outcomes follow
		add(a)
	}
	return out
}

// killing runs a life through kills.
type killing struct {
	life          *life
	others        []*life // in the same world
	kills, missed int
	acts          atomic.Int64
}

// kill starts the node so that it dies at a point, sees first that the kill
// before lost nothing, lets the act happen, and examines what is left.
func (k *killing) kill(t *testing.T, p point) {
	t.Helper()
	l, n, ctx := k.life, k.life.w.Nodes[0], t.Context()
	if n.Running() {
		n.Kill()
	}
	if l.tired() {
		k.start(t, "")
		must(t, l.renew(ctx))
		n.Kill()
	}
	turn := 1 + rand.IntN(max(p.hits, 1))
	if p.act.do == nil {
		turn = 1
	}
	k.kills++
	if k.start(t, fmt.Sprintf("%s=kill@%d", p.name, turn)) {
		err := l.kept(ctx)
		if err == nil && p.act.do != nil {
			if err = l.wake(ctx); err == nil {
				err = p.act.do(l, ctx)
			}
		}
		k.attempt(t, l, p.act.name, err)
		died(n, time.Second) // what follows an act by itself
	}
	if n.Running() {
		k.missed++
	}
	n.Kill()
	k.mourn(t)
	for _, b := range k.examine(t) {
		t.Errorf("after a kill at %q (%s): %s", p.name, p.act.name, b)
	}
}

// mourn sees whose account the dead node was refreshing. On PostgreSQL that may
// be another node, which lives, so for most of a minute nobody else refreshes it:
// these lives go on with a new account, and finish returns to the old one.
func (k *killing) mourn(t *testing.T) {
	t.Helper()
	if k.life.w.Nodes[0].Database == "" {
		return
	}
	db, err := k.life.w.OpenDatabase()
	must(t, err)
	defer db.Close()
	for _, l := range append(k.others, k.life) {
		must(t, db.QueryRowContext(t.Context(), `select count(*) from credential k join connection c on c.id = k.connection_id
where k.lease_owner <> '' and c.organization_id = $1`, l.tenant.Organization).Scan(&l.leased))
	}
}

// attempt wants what is done while the node lives to work.
func (k *killing) attempt(t *testing.T, l *life, what string, err error) {
	t.Helper()
	if err != nil && !l.unheard(err) {
		t.Errorf("%s: %v", what, err)
	}
}

// start starts the node with a failpoint and reports whether it lived to serve.
func (k *killing) start(t *testing.T, failpoint string) bool {
	t.Helper()
	n := k.life.w.Nodes[0]
	env := n.Env
	n.Env = append(slices.Clone(env), "AMBIT_FAILPOINT="+failpoint)
	_, err := n.Start(t.Context())
	n.Env = env
	if err != nil && (failpoint == "" || !errors.Is(err, world.ErrEnded)) {
		t.Fatalf("with %q: %v", failpoint, err)
	}
	return err == nil
}

// died waits a little for a process to end by itself.
func died(n *world.Node, within time.Duration) bool {
	for end := time.Now().Add(within); n.Running() && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	return !n.Running()
}

// finish starts the node for good and holds everything against it. It gives the
// number of acknowledged calls.
func (k *killing) finish(t *testing.T) (acked int) {
	t.Helper()
	l := k.life
	if !l.w.Nodes[0].Running() {
		k.start(t, "")
	}
	for _, l := range append(k.others, l) {
		must(t, l.wake(t.Context()))
		must(t, l.kept(t.Context()))
		for _, u := range l.unkept {
			t.Errorf("lost after it was acknowledged: %s", u)
		}
		if l.leased > 0 {
			must(t, l.renew(t.Context()))
		}
		for _, a := range acts {
			if err := a.do(l, t.Context()); err != nil {
				t.Errorf("%s: %v", a.name, err)
			}
		}
		for _, s := range l.parked {
			eventually(t, "what became of a refresh is told", func() bool {
				code := s.Call(t.Context(), l.w.Nodes[0], "sandbox_list_issues", nil).Code
				return code == world.OK || code == "reconnect"
			})
		}
	}
	for _, other := range k.others {
		l.ops = append(l.ops, other.ops...)
	}
	if acked = checkCalls(t, l.w, l.ops); acked == 0 {
		t.Error("no call succeeded")
	}
	report, err := l.w.API.VerifyAudit(t.Context())
	must(t, err)
	if len(report.Problems) > 0 {
		t.Errorf("the audit does not verify: %v", report.Problems)
	}
	return acked
}

// examine reads what the dead node left: on SQLite a copy of its files, so that
// its own recovery has everything to do.
func (k *killing) examine(t *testing.T) []string {
	t.Helper()
	n := k.life.w.Nodes[0]
	if n.Database != "" {
		return examineFiles(t, filepath.Dir(n.DataDir()), n.Database)
	}
	dir := filepath.Join(t.TempDir(), "copy")
	defer os.RemoveAll(dir)
	must(t, copyFiles(filepath.Dir(n.DataDir()), dir))
	return examineFiles(t, dir, "")
}

// examineFiles examines a database with the root key and the checkpoints in dir,
// where a SQLite database lies too. It changes them.
func examineFiles(t *testing.T, dir, database string) []string {
	t.Helper()
	file, err := local.Open(filepath.Join(dir, "root.key"))
	must(t, err)
	cfg := sqldb.Config{URL: database, Connections: 2}
	if database == "" {
		cfg.DataDir = filepath.Join(dir, "data0")
	}
	db, err := sqldb.Open(t.Context(), cfg)
	must(t, err)
	defer db.Close()
	return examine(t, db, keyring.NewGuard(file, keyring.Config{}), filepath.Join(dir, "checkpoints"))
}

// copyFiles copies what a copy can have: no sockets, no homes of nodes, and not
// SQLite's shared memory, which a new process makes anew.
func copyFiles(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(from, path)
		switch {
		case errors.Is(err, fs.ErrNotExist): // a temporary file
			return nil
		case err != nil:
			return err
		case e.IsDir() && e.Name() == "node0":
			return fs.SkipDir
		case e.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		case !e.Type().IsRegular() || strings.HasSuffix(name, "-shm"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), text, 0o600)
	})
}
