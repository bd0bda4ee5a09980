//go:build e2e && linux

package fire

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/e2e/lossy"
	"github.com/ambit-dev/ambit/e2e/world"
)

// diskLife is a life whose data folder, root key and checkpoints lie on a disk
// that can break.
type diskLife struct {
	killing
	disk  *lossy.Disk
	dir   string
	mount *lossy.Mount
}

func newDiskLife(t *testing.T) *diskLife {
	t.Helper()
	program, err := binary()
	must(t, err)
	third, err := world.NewThird()
	must(t, err)
	t.Cleanup(third.Close)
	d := &diskLife{disk: lossy.New(), dir: t.TempDir()}
	d.insert(t)
	t.Cleanup(func() { d.mount.Abandon() })
	d.life = newLifeOn(t, world.Config{Dir: t.TempDir(), Disk: d.dir, Binary: program, Third: third})
	return d
}

func (d *diskLife) insert(t *testing.T) {
	t.Helper()
	var err error
	d.mount, err = d.disk.Mount(d.dir)
	must(t, err)
}

// examine looks at the disk as it would be found if the machine stopped now.
func (d *diskLife) examine(t *testing.T) []string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "copy")
	defer os.RemoveAll(dir)
	must(t, d.disk.CopyTo(dir))
	return examineFiles(t, dir, "")
}

// F2: the power fails while people and agents are at work. What was not synced is
// gone, there in part, or torn; what was acknowledged is there, the audit holds
// against its checkpoints, and everything goes on.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	d := newDiskLife(t)
	n := d.life.w.Nodes[0]
	d.life.mayLoseGrants = true
	n.Kill()
	seeds := rounds(200)
	for seed := range seeds {
		d.start(t, "")
		if d.life.tired() {
			must(t, d.life.renew(t.Context()))
		}
		stop := world.Load{Workers: 4, Next: func(i int) world.Shot {
			return world.Shot{Node: n, Session: d.life.session, Tool: []string{"third_list", "third_create"}[i%2]}
		}}.Background(t.Context())
		var busy sync.WaitGroup
		busy.Go(func() { d.live(t, d.life) })
		time.Sleep(20*time.Millisecond + rand.N(130*time.Millisecond))
		n.Kill()
		d.life.ops = append(d.life.ops, stop()...)
		busy.Wait()
		must(t, d.mount.Unmount())
		d.disk.PowerCut(rand.New(rand.NewPCG(uint64(seed), 2)))
		for _, b := range d.examine(t) {
			t.Errorf("after power cut %d: %s", seed, b)
		}
		d.insert(t)
		if t.Failed() {
			break
		}
	}
	acked := d.finish(t)
	t.Logf("%d power cuts, %d calls acknowledged, %d acts", seeds, acked, d.acts.Load())
}

// F2: the power fails during the very first start, when the database, the root
// key and the checkpoints' key come to be. The next start serves.
func TestPowerCutAtFirstStart(t *testing.T) {
	t.Parallel()
	for seed := range rounds(100) {
		d := &diskLife{disk: lossy.New(), dir: t.TempDir()}
		n := newNode(t, sqlite)
		n.Data = filepath.Join(d.dir, "data0")
		n.Env = []string{"AMBIT_ROOT_KEY=" + filepath.Join(d.dir, "root.key"), "AMBIT_CHECKPOINT_DIR=" + filepath.Join(d.dir, "checkpoints")}
		d.insert(t)
		t.Cleanup(func() { d.mount.Abandon() })
		must(t, n.Launch())
		time.Sleep(5*time.Millisecond + rand.N(100*time.Millisecond))
		n.Kill()
		must(t, d.mount.Unmount())
		d.disk.PowerCut(rand.New(rand.NewPCG(uint64(seed), 3)))
		d.insert(t)
		startOwned(t, n)
		must(t, d.mount.Unmount())
		for _, b := range d.examine(t) {
			t.Errorf("after power cut %d and a new start: %s", seed, b)
		}
	}
}
