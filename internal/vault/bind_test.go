package vault_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

// weighed says that everything was weighed, which is not what these tests are about.
type weighed struct{}

func (weighed) For(string) error { return nil }

// byok is a node with two organizations of which one brings its own root key.
type byok struct {
	node
	ring     *keyring.Ring
	customer *keyringtest.Server
	uri      string
	c        vault.Caller
	org      id.Organization
	clock    *offset
	only     string       // unless empty, the one organization that the customer's key is for
	mine     vault.Object // of the customer
	other    vault.Object
}

func newBYOK(t *testing.T, db *sqldb.DB) *byok {
	t.Helper()
	b := &byok{customer: keyringtest.New(t), c: newCaller(), org: id.NewOrganization(), clock: &offset{}}
	b.uri = b.customer.Keeper(t).Describe().Ref
	b.ring = b.newRing(t, newKeeper(t))
	b.node = ringNode(t, db, b.ring, quick, b.clock)
	if err := b.AdoptRoot(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.log.Start()
	b.mine = mustCreate(t, b.node, b.c, "mine", map[string]string{"organization_id": string(b.org)}, "mine")
	b.other = mustCreate(t, b.node, b.c, "other", map[string]string{"organization_id": string(id.NewOrganization())}, "other")
	return b
}

func (b *byok) newRing(t *testing.T, own *keyring.Guard) *keyring.Ring {
	r := keyring.NewRing(keyring.RingConfig{Guard: keyring.Config{Now: b.clock.Now, Timeout: 2 * time.Second}, Open: func(_ context.Context, uri string) (keyring.Keeper, error) {
		if uri != b.uri {
			return nil, fault.New(fault.Invalid, "root_key_scheme", "no such key")
		}
		if b.only != "" {
			return choosy{b.customer.Keeper(t), b.only}, nil
		}
		return b.customer.Keeper(t), nil
	}})
	r.Add(own)
	t.Cleanup(r.Stop)
	return r
}

// beside is another node on the same database, with the server's root key.
func (b *byok) beside(t *testing.T) *vault.Vault {
	return vault.New(vault.Config{DB: b.db, Roots: b.newRing(t, b.ring.Primary()), Audit: b.log, Now: b.clock.Now, Rotation: quick})
}

func (b *byok) bind(t *testing.T, mode vault.Mode) vault.Binding {
	t.Helper()
	r, err := b.Try(t.Context(), vault.Scope{Environment: b.c.Environment, Organization: b.org}, b.uri)
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		t.Fatal(err)
	}
	var out vault.Binding
	b.do(t, func(ctx context.Context, tx *sqldb.Tx) error {
		out, err = b.Bind(ctx, tx, weighed{}, vault.Binding{Environment: b.c.Environment, Organization: b.org, Mode: mode, RootRef: r.Key.Ref, URI: b.uri}, audit.Entry{Actor: b.c.Actor})
		return err
	})
	return out
}

func (b *byok) do(t *testing.T, fn func(ctx context.Context, tx *sqldb.Tx) error) {
	t.Helper()
	if err := b.db.Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func (b *byok) reads(t *testing.T, v *vault.Vault, o vault.Object) error {
	t.Helper()
	_, got, err := v.Get(t.Context(), b.c, o.ID)
	if err == nil && !got.Equal(secret.FromString(o.Name)) {
		t.Errorf("%s reads another value", o.Name)
	}
	return err
}

// Issue 4, bring your own key; K4: what is of a bound organization moves under its
// root key, and new values are there at once. While the customer has their key
// disabled, theirs is unreadable and says so, and nobody else notices; when it is
// back, so is everything. Taken back, it is needed no more.
func TestBringYourOwnKey(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		b := newBYOK(t, db)
		binding := b.bind(t, vault.Required)
		if o := mustCreate(t, b.node, b.c, "new", map[string]string{"organization_id": string(b.org)}, "new"); o.KEK != b.mine.KEK {
			t.Errorf("one context has two keys")
		}
		if n := count(t, db, `select count(*) from kek k join kek_version v on v.kek_id = k.id and v.version = k.version where v.root_ref = $1`, binding.RootRef); n != 1 {
			t.Error("a new value was sealed under the server's root key")
		}
		mustRotate(t, b.Vault)
		if m, err := b.Progress(t.Context(), binding); err != nil || m.Keys != 1 || m.Under != 1 || m.Waiting != 0 {
			t.Errorf("progress: %+v, %v", m, err)
		}
		// What the server's root key alone wraps does not open it, and never will again.
		if n := count(t, db, `select count(*) from kek_version v join kek k on k.id = v.kek_id where k.organization_id = $1 and v.root_ref <> $2`, b.org, binding.RootRef); n != 0 {
			t.Errorf("%d versions are under the server's root key", n)
		}
		second := b.beside(t)
		for _, v := range []*vault.Vault{b.Vault, second} {
			for _, o := range []vault.Object{b.mine, b.other} {
				if err := b.reads(t, v, o); err != nil {
					t.Errorf("%s: %v", o.Name, err)
				}
			}
		}

		b.customer.Be(keyringtest.Denied)
		if err := b.reads(t, second, b.mine); err != nil {
			t.Errorf("a held key within the bound: %v", err)
		}
		b.clock.Advance(5*time.Minute + time.Second)
		for _, v := range []*vault.Vault{b.Vault, second} {
			if err := b.reads(t, v, b.mine); !fault.Is(err, keyring.CodeDenied) {
				t.Errorf("after five minutes: got %v, want %s", err, keyring.CodeDenied)
			}
			if err := b.reads(t, v, b.other); err != nil {
				t.Errorf("another organization: %v", err)
			}
		}
		if _, err := b.Create(t.Context(), b.c, object("not now", string(b.org), value(1, 1))); !fault.Is(err, keyring.CodeDenied) {
			t.Errorf("a new value without the required key: got %v", err)
		}
		until(t, func() bool {
			return count(t, db, `select count(*) from audit_entry where action = 'key.unusable'`) > 0
		})
		b.customer.Be(keyringtest.Fine)
		b.clock.Advance(2 * time.Second)
		for _, v := range []*vault.Vault{b.Vault, second} {
			if err := b.reads(t, v, b.mine); err != nil {
				t.Errorf("the key is back: %v", err)
			}
		}

		// "Now" by one call.
		b.customer.Be(keyringtest.Denied)
		b.do(t, func(_ context.Context, tx *sqldb.Tx) error {
			b.Doubt(tx, binding, audit.Entry{Actor: b.c.Actor})
			return nil
		})
		if err := b.reads(t, b.Vault, b.mine); !fault.Is(err, keyring.CodeDenied) {
			t.Errorf("at once: got %v", err)
		}
		until(t, func() bool { return fault.Is(b.reads(t, second, b.mine), keyring.CodeDenied) })
		b.customer.Be(keyringtest.Fine)
		b.clock.Advance(2 * time.Second)

		b.do(t, func(ctx context.Context, tx *sqldb.Tx) error {
			return b.Unbind(ctx, tx, weighed{}, binding, audit.Entry{Actor: b.c.Actor})
		})
		mustRotate(t, b.Vault)
		b.customer.Down()
		for _, v := range []*vault.Vault{b.Vault, b.beside(t)} {
			if err := b.reads(t, v, b.mine); err != nil {
				t.Errorf("taken back: %v", err)
			}
		}
		if n := count(t, db, `select count(*) from root_brought`); n != 0 {
			t.Error("the customer's root key is not forgotten")
		}
	})
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("not within 20 s")
		}
	}
}

// Issue 4, bring your own key: without the customer's key a preferred binding seals
// under the server's, and what is under the customer's waits; then all follows.
func TestPreferredFallsBackAndRequiredDoesNot(t *testing.T) {
	t.Parallel()
	for _, mode := range []vault.Mode{vault.Preferred, vault.Required} {
		sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
			b := newBYOK(t, db)
			binding := b.bind(t, mode)
			mustRotate(t, b.Vault)
			b.customer.Be(keyringtest.Denied)
			v := b.beside(t)
			_, err := v.Create(t.Context(), b.c, object("meanwhile", string(b.org), secret.FromString("meanwhile")))
			if (err == nil) != (mode == vault.Preferred) {
				t.Errorf("%s: sealing without the customer's key: %v", mode, err)
			}
			if err := b.reads(t, v, b.mine); !fault.Is(err, keyring.CodeDenied) {
				t.Errorf("%s: what is under the customer's key: got %v", mode, err)
			}
			b.customer.Be(keyringtest.Fine)
			b.clock.Advance(2 * time.Second)
			mustRotate(t, v)
			if err := b.reads(t, v, b.mine); err != nil {
				t.Errorf("%s: the key is back: %v", mode, err)
			}
			if m, err := v.Progress(t.Context(), binding); err != nil || m.Under != m.Keys || m.Waiting != 0 {
				t.Errorf("%s: %+v, %v", mode, m, err)
			}
		})
	}
}

// Issue 4, bring your own key: a key that does not keep apart what it should is not
// bound, nor is the server's own or one that nobody can open.
func TestProbeBeforeBinding(t *testing.T) {
	t.Parallel()
	b := newBYOK(t, sqldbtest.Open(t, sqldb.SQLite))
	scope := vault.Scope{Environment: b.c.Environment, Organization: b.org}
	if _, err := b.Try(t.Context(), scope, b.ring.Primary().Describe().Ref); !fault.Is(err, "root_key_is_primary") {
		t.Errorf("the server's own: got %v", err)
	}
	path := filepath.Join(t.TempDir(), "some.key")
	keyringtest.File(t, path)
	// A bug: a path was answered in another way where it was that of the server's own
	// key, so whoever may try keys found out where it lies.
	var said []string
	for _, path := range []string{path, b.ring.Primary().Describe().Location} {
		for _, uri := range []string{path, "file:" + path} {
			_, err := b.Try(t.Context(), scope, uri)
			said = append(said, fault.Of(err).Code+fault.Of(err).Message)
			if !fault.Is(err, "root_key_scheme") {
				t.Errorf("T7, a file of the server's machine: got %v", err)
			}
		}
	}
	if slices.Sort(said); said[0] != said[len(said)-1] {
		t.Errorf("files are told apart: %q", said)
	}
	b.customer.Be(keyringtest.Denied)
	if r, err := b.Try(t.Context(), scope, b.uri); err != nil || !fault.Is(r.Err(), keyring.CodeDenied) {
		t.Errorf("a disabled key: %v, %v", err, r.Err())
	}
}

// Issue 4, shredding; K5: the keys of an organization are gone from memory on every
// node, from the database and from its files, and its values can be read by nobody
// any more. Others are not touched, and the context never gets another key.
func TestK5Shred(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			cfg := sqldbtest.Migrated(t, engine)
			db := sqldbtest.OpenConfig(t, cfg)
			b := newBYOK(t, db)
			second := b.beside(t)
			mustReplace(t, b.Vault, b.mine.KEK, false)
			user := id.NewUser()
			place := vault.Place{Environment: b.c.Environment, Organization: b.org, User: user, Kind: "credential", Object: "1", Version: 1}
			envelope, err := b.Seal(t.Context(), place, secret.FromString("token"))
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range []*vault.Vault{b.Vault, second} {
				if err := b.reads(t, v, b.mine); err != nil {
					t.Fatal(err)
				}
			}
			var wraps, kept [][]byte
			for _, k := range keks(t, db) {
				if bytes.Contains(k.context, []byte(b.org)) {
					wraps = append(wraps, k.wrapped)
				} else {
					kept = append(kept, k.wrapped)
				}
			}
			if len(wraps) != 3 || len(kept) != 1 {
				t.Fatalf("%d and %d wraps", len(wraps), len(kept))
			}
			b.do(t, func(ctx context.Context, tx *sqldb.Tx) error {
				n, err := b.Shred(ctx, tx, weighed{}, vault.Scope{Environment: b.c.Environment, Organization: b.org}, "", audit.Entry{Actor: b.c.Actor})
				if err == nil && n != 2 {
					t.Errorf("%d keys were shredded, want those of the organization and of its user", n)
				}
				return err
			})
			until(t, func() bool { return b.Scrub(t.Context()) == nil }) // other tests on this server read too
			raw := files(t, db, cfg)
			for _, w := range kept {
				if !bytes.Contains(raw, w) {
					t.Fatal("the files lack a wrap that stands; the scan proves nothing")
				}
			}
			for _, w := range wraps {
				if bytes.Contains(raw, w) {
					t.Error("a wrap that was destroyed is in the files")
				}
			}
			if err := b.reads(t, b.Vault, b.mine); !fault.Is(err, "key_shredded") {
				t.Errorf("at once: got %v", err)
			}
			// docs/secrets.md: each read is on record, also one that was refused. This one was not.
			page, err := b.log.List(t.Context(), audit.Filter{Environment: b.c.Environment, Action: "secret.read", Decision: "deny", Limit: 10})
			if err != nil || len(page.Records) != 1 || page.Records[0].Code != "key_shredded" || page.Records[0].Object != string(b.mine.ID) {
				t.Errorf("the refused read on record: %+v, %v", page.Records, err)
			}
			until(t, func() bool { return fault.Is(b.reads(t, second, b.mine), "key_shredded") })
			if _, err := b.beside(t).Open(t.Context(), place, envelope); !fault.Is(err, "key_shredded") {
				t.Errorf("what another room sealed for a user: got %v", err)
			}
			if _, err := b.Create(t.Context(), b.c, object("again", string(b.org), value(1, 1))); !fault.Is(err, "key_shredded") {
				t.Errorf("a new value: got %v", err)
			}
			if err := b.reads(t, b.Vault, b.other); err != nil {
				t.Errorf("another organization: %v", err)
			}
			mustRotate(t, b.Vault)
		})
	}
}

// files is everything that stands in the database's files, without the archive of
// its log.
func files(t *testing.T, db *sqldb.DB, cfg sqldb.Config) (all []byte) {
	t.Helper()
	if db.Engine() == sqldb.SQLite {
		return dumpFolder(t, cfg.DataDir)
	}
	var base, path string
	if err := db.Reader().QueryRowContext(t.Context(), `select current_setting('data_directory'), pg_relation_filepath('kek_version')`).Scan(&base, &path); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(base, path))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// Issue 4, a bug: the root key of a customer who lets it be used for one organization
// alone was asked without saying for whom, and counted as forbidden.
func TestCustomersKeyIsAskedForItsOwner(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		b := newBYOK(t, db)
		b.only = string(b.org)
		b.ring = b.newRing(t, b.ring.Primary())
		b.Vault = vault.New(vault.Config{DB: db, Roots: b.ring, Audit: b.log, Now: b.clock.Now, Rotation: quick})
		binding := b.bind(t, vault.Required)
		mustRotate(t, b.Vault)
		for _, v := range []*vault.Vault{b.Vault, b.beside(t)} {
			b.clock.Advance(6 * time.Minute) // past the grace, so that the key has to be asked
			if err := b.reads(t, v, b.mine); err != nil {
				t.Errorf("bound: %v", err)
			}
			if _, err := v.Progress(t.Context(), binding); err != nil {
				t.Error(err)
			}
			b.clock.Advance(6 * time.Minute)
			if err := b.reads(t, v, b.mine); err != nil {
				t.Errorf("asked again: %v", err)
			}
		}
	})
}

// choosy is a key whose owner allows one organization.
type choosy struct {
	keyring.Keeper
	only string
}

func (c choosy) Wrap(ctx context.Context, seed secret.Value, of keyring.Context) ([]byte, error) {
	if of.Organization != c.only {
		return nil, keyring.Failure(keyring.CodeDenied, nil)
	}
	return c.Keeper.Wrap(ctx, seed, of)
}

func (c choosy) Unwrap(ctx context.Context, blob []byte, of keyring.Context) (secret.Value, error) {
	if of.Organization != c.only {
		return secret.Value{}, keyring.Failure(keyring.CodeDenied, nil)
	}
	return c.Keeper.Unwrap(ctx, blob, of)
}
