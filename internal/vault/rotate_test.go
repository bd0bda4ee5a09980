package vault_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

// quick is a rotation that waits for nobody.
var quick = vault.Rotation{Grace: time.Nanosecond}

// stock is a node with named secrets in several contexts, each with two versions.
type stock struct {
	node
	c       vault.Caller
	objects []vault.Object
	first   []string // the ids of their first versions
	clock   *offset
}

func newStock(t *testing.T, db *sqldb.DB, roots *keyring.Ring, rotation vault.Rotation) *stock {
	t.Helper()
	clock := &offset{}
	s := fill(t, ringNode(t, db, roots, rotation, clock))
	s.clock = clock
	return s
}

// fill stores what reads looks for.
func fill(t *testing.T, n node) *stock {
	t.Helper()
	s := &stock{node: n, c: newCaller()}
	for i := range 6 {
		o, err := s.Create(t.Context(), s.c, object(fmt.Sprintf("secret %d", i), fmt.Sprint("org ", i%3), value(i, 1)))
		if err != nil {
			t.Fatal(err)
		}
		s.first = append(s.first, o.VersionID)
		if o, err = s.Update(t.Context(), s.c, o.ID, vault.Value{Secret: value(i, 2)}, ""); err != nil {
			t.Fatal(err)
		}
		s.objects = append(s.objects, o)
	}
	return s
}

func object(name, organization string, v secret.Value) vault.NewObject {
	return vault.NewObject{Name: name, Context: map[string]string{"organization_id": organization}, Value: vault.Value{Secret: v}}
}

func value(i, version int) secret.Value {
	return secret.FromString(fmt.Sprintf("value %d in version %d", i, version))
}

// ringNode is newNode with a ring of root keys.
func ringNode(t *testing.T, db *sqldb.DB, roots *keyring.Ring, rotation vault.Rotation, clock *offset) node {
	t.Helper()
	log, err := audit.New(t.Context(), audit.Config{DB: db, Keeper: roots, CheckpointDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Stop)
	return node{vault.New(vault.Config{DB: db, Roots: roots, Audit: log, Now: clock.Now, Rotation: rotation}), db, log, roots.Primary()}
}

// reads fails the test unless every version of every secret is read as it was stored.
func (s *stock) reads(t *testing.T, v *vault.Vault, when string) {
	t.Helper()
	for i, o := range s.objects {
		for n, id := range []string{s.first[i], o.VersionID} {
			_, got, err := v.GetVersion(t.Context(), s.c, o.ID, id)
			if err != nil || !got.Equal(value(i, n+1)) {
				t.Errorf("%s: version %d of %s: %v", when, n+1, o.Name, err)
			}
		}
	}
}

// envelopes are those of named secrets by object and version.
func envelopes(t *testing.T, db *sqldb.DB) map[string][]byte {
	t.Helper()
	rows, err := db.Reader().QueryContext(t.Context(), `select object_id, version, envelope from secret_version`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all := map[string][]byte{}
	for rows.Next() {
		var object string
		var version int64
		var envelope []byte
		if err := rows.Scan(&object, &version, &envelope); err != nil {
			t.Fatal(err)
		}
		all[fmt.Sprint(object, " ", version)] = envelope
	}
	return all
}

func mustRotate(t *testing.T, v *vault.Vault) {
	t.Helper()
	if err := v.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// payload is where the part of an envelope begins that its data key encrypts.
const payload = crypt.Overhead - 28

// Issue 4, rotation; K3: another version of a key takes over every value of its
// context, of all their versions, and touches no ciphertext; then the old one is
// destroyed. Other contexts keep theirs.
func TestK3RotateKey(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newStock(t, db, keyring.RingOf(newKeeper(t)), quick)
		other := s.restarted() // a node that still holds the old version
		s.reads(t, other.Vault, "before")
		before := envelopes(t, db)
		mustReplace(t, s.Vault, s.objects[0].KEK, false)
		s.reads(t, s.Vault, "as soon as there is another version")
		mustRotate(t, s.Vault)
		for at, after := range envelopes(t, db) {
			kek, version, err := crypt.Inspect(after)
			if err != nil {
				t.Fatal(err)
			}
			mine := id.KEKFromBytes(kek) == s.objects[0].KEK
			if want := map[bool]uint32{true: 2, false: 1}[mine]; version != want {
				t.Errorf("%s is under version %d, want %d", at, version, want)
			}
			if !bytes.Equal(after[payload:], before[at][payload:]) {
				t.Errorf("%s: its ciphertext changed", at)
			}
			if mine == bytes.Equal(after, before[at]) {
				t.Errorf("%s: its data key is wrapped anew: %v, want %v", at, !mine, mine)
			}
		}
		if n := count(t, db, `select count(*) from kek_version where kek_id = $1`, s.objects[0].KEK); n != 1 {
			t.Errorf("the key has %d versions", n)
		}
		s.reads(t, s.Vault, "after")
		s.reads(t, other.Vault, "after, on another node")
		s.reads(t, s.restarted().Vault, "after, with nothing in memory")
		if n := count(t, db, `select count(*) from audit_entry where action in ('key.rotated', 'key.version_destroyed')`); n != 2 {
			t.Errorf("%d entries, want that it was rotated and that the old version was destroyed", n)
		}
		o, err := s.Update(t.Context(), s.c, s.objects[0].ID, vault.Value{Secret: value(0, 3)}, "")
		if err != nil || o.KEK != s.objects[0].KEK {
			t.Errorf("a new value is under the key %s, want %s: %v", o.KEK, s.objects[0].KEK, err)
		}
	})
}

func mustReplace(t *testing.T, v *vault.Vault, kek id.KEK, reseal bool) {
	t.Helper()
	if err := v.Replace(t.Context(), kek, reseal); err != nil {
		t.Fatal(err)
	}
}

// Issue 4, rotation: values can be encrypted anew under new data keys.
func TestK3ReencryptValues(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newStock(t, db, keyring.RingOf(newKeeper(t)), quick)
		before := envelopes(t, db)
		mustReplace(t, s.Vault, s.objects[1].KEK, true)
		mustRotate(t, s.Vault)
		for at, after := range envelopes(t, db) {
			kek, _, _ := crypt.Inspect(after)
			mine := id.KEKFromBytes(kek) == s.objects[1].KEK
			if same := bytes.Equal(after[payload+12:], before[at][payload+12:]); same == mine {
				t.Errorf("%s: the same ciphertext: %v, of the key that was asked for: %v", at, same, mine)
			}
		}
		s.reads(t, s.restarted().Vault, "after")
	})
}

// Issue 4, rotation; K3: under another root key of the server no value changes,
// and each context costs as much whatever it holds. Afterwards the old root key is
// needed for nothing: not for secrets, and not for the audit.
func TestK3RotateRoot(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		was, is := newKeeper(t), newKeeper(t)
		roots := keyring.RingOf(was)
		roots.Add(is)
		s := newStock(t, db, roots, quick)
		if err := s.AdoptRoot(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := envelopes(t, db)
		useRoot(t, s.Vault, db, is.Describe().Ref)
		mustRotate(t, s.Vault)
		for at, after := range envelopes(t, db) {
			if !bytes.Equal(after, before[at]) {
				t.Errorf("%s changed", at)
			}
		}
		if n := count(t, db, `select (select count(*) from kek_version where root_ref <> $1) + (select count(*) from audit_chain where key_ref <> $1)
			+ (select count(*) from audit_signer where key_ref <> $1)`, is.Describe().Ref); n != 0 {
			t.Errorf("%d keys are still under the old root key", n)
		}
		alone := ringNode(t, db, keyring.RingOf(is), quick, s.clock)
		s.reads(t, alone.Vault, "without the old root key")
		if _, err := alone.Create(t.Context(), s.c, object("another", "org new", value(9, 1))); err != nil {
			t.Error(err)
		}
		r, err := audit.Verify(t.Context(), audit.VerifyConfig{DB: db, Keeper: is, Checkpoints: []string{t.TempDir()}})
		for _, p := range r.Problems {
			if p.Chain != "" { // the others say that there are no checkpoints in that folder
				t.Errorf("the audit without the old root key: %+v", p)
			}
		}
		if err != nil {
			t.Errorf("the audit without the old root key: %v", err)
		}
		if _, _, err := ringNode2(t, db, keyring.RingOf(was), s).Get(t.Context(), s.c, s.objects[0].ID); !fault.Is(err, keyring.CodeMismatch) {
			t.Errorf("with the old root key alone: got %v", err)
		}
	})
}

// ringNode2 is a vault beside s that has other root keys; its audit has those of s.
func ringNode2(t *testing.T, db *sqldb.DB, roots *keyring.Ring, s *stock) *vault.Vault {
	t.Helper()
	return vault.New(vault.Config{DB: db, Roots: roots, Audit: s.log, Now: s.clock.Now, Rotation: quick})
}

func useRoot(t *testing.T, v *vault.Vault, db *sqldb.DB, ref string) {
	t.Helper()
	err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
		return v.UseRoot(ctx, tx, ref, audit.Entry{Actor: audit.Actor{Kind: "system", ID: "test"}})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// K2: how often a key was used is counted before it is used, so that a process that
// dies leaves the count too high and never too low; a key that was used enough, or
// is old enough, is replaced by itself.
func TestK2UsesAreCounted(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		rotation := vault.Rotation{Grace: time.Nanosecond, MaxWraps: 20}.InBlocksOf(8)
		clock := &offset{}
		n := ringNode(t, db, keyring.RingOf(newKeeper(t)), rotation, clock)
		p := neighbours()[0]
		seal := func(v *vault.Vault, times int) {
			t.Helper()
			for range times {
				if _, err := v.Seal(t.Context(), p, secret.FromString("x")); err != nil {
					t.Fatal(err)
				}
			}
		}
		counted := func() int { return count(t, db, `select wraps from kek_version order by version desc limit 1`) }
		usual := vault.New(vault.Config{DB: db, Roots: keyring.RingOf(n.keeper), Audit: n.log}) // where nobody says otherwise
		seal(usual, 1)
		keys, err := usual.Keys(t.Context(), p.Environment, "", "", "", 1)
		if err != nil || len(keys) != 1 || keys[0].MaxWraps != 1<<30 || keys[0].DueAt.Sub(keys[0].RotatedAt) != 90*24*time.Hour {
			t.Errorf("by default: %+v, %v", keys, err)
		}
		exec(t, db, `delete from kek_version`, `delete from kek`)
		seal(n.Vault, 8)
		if got := counted(); got != 8 {
			t.Errorf("8 uses are counted as %d", got)
		}
		seal(n.Vault, 1)
		if got := counted(); got != 16 {
			t.Errorf("9 uses are counted as %d, want two blocks", got)
		}
		died := vault.New(vault.Config{DB: db, Roots: keyring.RingOf(n.keeper), Audit: n.log, Now: clock.Now, Rotation: rotation})
		seal(died, 1) // 15 of the 16 may have been used, and 7 never will be
		if got := counted(); got != 24 {
			t.Errorf("after a restart: %d, want another block", got)
		}
		mustRotate(t, died)
		if got := count(t, db, `select version from kek`); got != 2 {
			t.Errorf("a key that was used enough has version %d, want 2", got)
		}
		seal(n.Vault, 3)                             // another node uses the new one too
		if got := counted(); got != 8 && got != 16 { // it may hear late that there is a new one, and count anew
			t.Errorf("the new version is counted as %d, want 8 or 16", got)
		}
		clock.Advance(91 * 24 * time.Hour)
		mustRotate(t, died)
		if got := count(t, db, `select version from kek`); got != 3 {
			t.Errorf("a key of 91 days has version %d, want 3", got)
		}
	})
}

// K2: many who seal at once use no more than was counted.
func TestK2UsesAreCountedUnderLoad(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := ringNode(t, db, keyring.RingOf(newKeeper(t)), vault.Rotation{}.InBlocksOf(16), &offset{})
		p := neighbours()[0]
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 100 {
					if _, err := n.Seal(t.Context(), p, secret.FromString("x")); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if got := count(t, db, `select wraps from kek_version`); got < 800 || got > 800+16 {
			t.Errorf("800 uses are counted as %d", got)
		}
	})
}

// Issue 4, rotation: a data key that an application holds goes on to open, however
// often its key was replaced.
func TestRotationSparesDataKeys(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newStock(t, db, keyring.RingOf(newKeeper(t)), quick)
		k, err := s.CreateDataKey(t.Context(), s.c, vault.Once{}, map[string]string{"organization_id": "org 0"})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			mustReplace(t, s.Vault, s.objects[0].KEK, false)
			mustRotate(t, s.Vault)
		}
		if n := count(t, db, `select count(*) from kek_version where kek_id = $1`, s.objects[0].KEK); n != 2 {
			t.Errorf("%d versions, want the newest and that of the data key", n)
		}
		if got, err := s.restarted().DecryptDataKey(t.Context(), s.c, k.Wrapped); err != nil || !got.Key.Equal(k.Key) {
			t.Errorf("the data key: %v", err)
		}
	})
}

// Issue 4, rotation; K3: while keys of every level are replaced no read fails, on
// no node.
func TestK3NoReadFailsMeanwhile(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			cfg := sqldbtest.Migrated(t, engine)
			db := sqldbtest.OpenConfig(t, cfg)
			second := db
			if engine == sqldb.PostgreSQL {
				second = sqldbtest.OpenConfig(t, cfg)
			}
			was, is := newKeeper(t), newKeeper(t)
			ring := func() *keyring.Ring { r := keyring.RingOf(was); r.Add(is); return r }
			s := newStock(t, db, ring(), vault.Rotation{})
			beside := ringNode(t, second, ring(), vault.Rotation{}, s.clock)
			for _, v := range []*vault.Vault{s.Vault, beside.Vault} {
				if err := v.AdoptRoot(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			var done atomic.Bool
			var reads atomic.Int64
			var wg sync.WaitGroup
			for _, v := range []*vault.Vault{s.Vault, beside.Vault} {
				wg.Go(func() {
					for i := 0; !done.Load(); i++ {
						n := i % len(s.objects)
						_, got, err := v.GetVersion(t.Context(), s.c, s.objects[n].ID, s.first[n])
						if err != nil || !got.Equal(value(n, 1)) {
							t.Errorf("a read failed: %v", err)
							return
						}
						reads.Add(1)
					}
				})
				wg.Go(func() {
					for i := 0; !done.Load(); i++ {
						if _, err := v.Create(t.Context(), s.c, object(fmt.Sprintf("more %p %d", v, i), fmt.Sprint("org ", i%4), value(i, 1))); err != nil {
							t.Errorf("a write failed: %v", err)
							return
						}
					}
				})
			}
			for i := range 4 {
				mustReplace(t, s.Vault, s.objects[i%3].KEK, i == 2)
				mustRotate(t, s.Vault)
				useRoot(t, s.Vault, db, []*keyring.Guard{is, was}[i%2].Describe().Ref)
				mustRotate(t, beside.Vault)
			}
			done.Store(true)
			wg.Wait()
			// Who sealed just before a version was found empty is found when it would be destroyed.
			s.clock.Advance(2 * time.Hour)
			for range 3 {
				mustRotate(t, s.Vault)
			}
			for at, envelope := range envelopes(t, db) {
				kek, version, _ := crypt.Inspect(envelope)
				if newest := count(t, db, `select version from kek where id = $1`, id.KEKFromBytes(kek)); int(version) != newest {
					t.Errorf("%s is under version %d of %d", at, version, newest)
				}
			}
			t.Logf("%d reads", reads.Load())
		})
	}
}
