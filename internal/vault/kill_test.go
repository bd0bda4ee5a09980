package vault_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/local"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

// killPlace names the database to a copy of the test binary that replaces keys and
// is killed at it.
const killPlace = "AMBIT_TEST_KEYS_PLACE"

// place is where a child works, and on what.
type place struct {
	DataDir     string
	URL, Schema string
	Roots       []string // files
	Checkpoints string
	Replace     []id.KEK
	Customer    *customerAct // unless nil, what is done instead
}

// open gives a server's keys at that place; the caller closes the database.
func (p place) open(ctx context.Context) (*sqldb.DB, *audit.Log, *vault.Vault, *keyring.Ring, error) {
	db, err := sqldb.Open(ctx, sqldb.Config{DataDir: p.DataDir, URL: p.URL, Schema: p.Schema, Connections: 6})
	if err != nil {
		return nil, nil, nil, nil, err
	}
	ring := keyring.NewRing(keyring.RingConfig{Open: func(_ context.Context, uri string) (keyring.Keeper, error) { return local.Open(uri) }})
	for _, path := range p.Roots {
		k, err := local.OpenOrCreate(path, true)
		if err != nil {
			return nil, nil, nil, nil, err
		}
		ring.Add(keyring.NewGuard(k, keyring.Config{}))
	}
	log, err := audit.New(ctx, audit.Config{DB: db, Keeper: ring, CheckpointDir: p.Checkpoints})
	if err != nil {
		return nil, nil, nil, nil, err
	}
	v := vault.New(vault.Config{DB: db, Roots: ring, Audit: log, Rotation: quick})
	return db, log, v, ring, v.AdoptRoot(ctx)
}

// killChild replaces keys on all levels.
func killChild(doc string) error {
	ctx := context.Background()
	var p place
	if err := json.Unmarshal([]byte(doc), &p); err != nil {
		return err
	}
	db, log, v, ring, err := p.open(ctx)
	if err != nil {
		return err
	}
	if p.Customer != nil {
		if err := p.Customer.do(ctx, db, v); err != nil {
			return err
		}
		log.Stop()
		ring.Stop()
		return db.Close()
	}
	for i, kek := range p.Replace {
		if err := v.Replace(ctx, kek, i == 1); err != nil {
			return err
		}
	}
	next := ring.Own()[0]
	if next == ring.Primary() {
		next = ring.Own()[1]
	}
	err = db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		return v.UseRoot(ctx, tx, next.Describe().Ref, audit.Entry{Actor: audit.Actor{Kind: "system", ID: "test"}})
	})
	if err != nil {
		return err
	}
	if err := v.Rotate(ctx); err != nil {
		return err
	}
	log.Stop()
	return db.Close()
}

// failpointsDir is where withFailpoints built; TestMain removes it.
var failpointsDir atomic.Pointer[string]

// withFailpoints is this test with failpoints in it, built once.
var withFailpoints = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ambit-keys")
	if err != nil {
		return "", err
	}
	failpointsDir.Store(&dir)
	path := filepath.Join(dir, "vault.test")
	out, err := osexec.Command("go", "test", "-c", "-tags", "failpoint", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// Issue 4, proofs; K3: kill -9 at every step of a rotation on all levels leaves
// nothing unreadable, and whoever comes next finishes it.
func TestK3KilledAtEveryStep(t *testing.T) {
	t.Parallel()
	program, err := withFailpoints()
	if err != nil {
		t.Fatal(err)
	}
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cfg := sqldbtest.Migrated(t, engine)
			p := place{DataDir: cfg.DataDir, URL: cfg.URL, Schema: cfg.Schema, Roots: []string{filepath.Join(dir, "a.key"), filepath.Join(dir, "b.key")}, Checkpoints: filepath.Join(dir, "checkpoints")}
			var s *stock
			visit := func(fn func(v *vault.Vault, db *sqldb.DB)) {
				t.Helper()
				db, log, v, ring, err := p.open(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				fn(v, db)
				log.Stop()
				ring.Stop()
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
			}
			visit(func(v *vault.Vault, db *sqldb.DB) {
				s = fill(t, node{Vault: v, db: db})
				for _, o := range s.objects[:2] {
					p.Replace = append(p.Replace, o.KEK)
				}
			})
			run := func(env ...string) (ended bool, out string) {
				doc, err := json.Marshal(p)
				if err != nil {
					t.Fatal(err)
				}
				child := osexec.CommandContext(t.Context(), program)
				child.Env = append(append(os.Environ(), killPlace+"="+string(doc)), env...)
				said, err := child.CombinedOutput()
				return err == nil, string(said)
			}
			trace := filepath.Join(dir, "trace")
			if ended, out := run("AMBIT_FAILPOINT_TRACE=" + trace); !ended {
				t.Fatalf("without a kill: %s", out)
			}
			raw, err := os.ReadFile(trace)
			if err != nil {
				t.Fatal(err)
			}
			names := strings.Split(strings.TrimSpace(string(raw)), "\n")
			slices.Sort(names)
			names = slices.DeleteFunc(slices.Compact(names), func(name string) bool {
				return strings.HasPrefix(name, "disk") || strings.Contains(name, "server.started")
			})
			if len(names) < 15 {
				t.Errorf("a rotation passes only %d points: %q", len(names), names)
			}
			kills := 0
			for _, name := range names {
				turns := []int{1, 2}
				if os.Getenv("AMBIT_LONG") != "1" {
					turns = turns[:1]
				}
				for _, turn := range turns {
					if ended, out := run(fmt.Sprintf("AMBIT_FAILPOINT=%s=kill@%d", name, turn)); !ended {
						if kills++; out != "" {
							t.Errorf("%s: %s", name, out)
						}
					}
					visit(func(v *vault.Vault, db *sqldb.DB) {
						s.reads(t, v, "killed at "+name)
						exec(t, db, `delete from lease`) // of who was killed, which ends by itself in a minute
						mustRotate(t, v)
						mustRotate(t, v) // destroys what the first found empty
						s.reads(t, v, "and finished, killed at "+name)
						if st, err := v.Status(t.Context()); err != nil || st.WaitingSeeds+st.WaitingValues+st.WaitingVersions != 0 {
							t.Errorf("killed at %s, and finished: %+v, %v", name, st, err)
						}
						if n := count(t, db, `select count(*) from kek_version v join kek k on k.id = v.kek_id where v.version < k.version`); n != 0 {
							t.Errorf("killed at %s: %d old versions are left", name, n)
						}
					})
					if t.Failed() {
						t.FailNow()
					}
				}
			}
			if kills < len(names) {
				t.Errorf("%d kills at %d points", kills, len(names))
			}
			t.Logf("%d points, %d kills", len(names), kills)
		})
	}
}
