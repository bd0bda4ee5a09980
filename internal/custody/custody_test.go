package custody_test

import (
	"errors"
	"net/url"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/custody"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type world struct {
	*custody.Service
	owner *accounttest.Human
	env   id.Environment
	org   id.Organization
	spare string // the URI of a root key that can be bound
}

func each(t *testing.T, fn func(t *testing.T, w *world)) {
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		dir := t.TempDir()
		roots := keyring.RingOf(keyringtest.File(t, filepath.Join(dir, "root.key")))
		roots.Add(keyringtest.File(t, filepath.Join(dir, "customer.key")))
		log, err := audit.New(t.Context(), audit.Config{DB: db, Keeper: roots, CheckpointDir: filepath.Join(dir, "checkpoints")})
		must(t, err)
		t.Cleanup(log.Stop)
		v := vault.New(vault.Config{DB: db, Roots: roots, Audit: log})
		must(t, v.AdoptRoot(t.Context()))
		public, err := url.Parse("http://localhost:7420")
		must(t, err)
		people, err := account.New(account.Config{DB: db, Vault: v, Audit: log, PublicURL: public})
		must(t, err)
		w := &world{Service: custody.New(custody.Config{DB: db, Vault: v, Audit: log, People: people}), owner: accounttest.Owner(t, people),
			spare: roots.Own()[1].Describe().Ref}
		w.env, w.org = w.owner.Organizations()[0].Environment, w.owner.Organizations()[0].Organization
		w.seal(t, w.org, "")
		fn(t, w)
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) seal(t *testing.T, org id.Organization, user id.User) []byte {
	t.Helper()
	envelope, err := w.Vault.Seal(t.Context(), place(w.env, org, user), secret.FromString("canary"))
	must(t, err)
	return envelope
}

func place(env id.Environment, org id.Organization, user id.User) vault.Place {
	return vault.Place{Environment: env, Organization: org, User: user, Kind: "credential", Object: "1", Version: 1}
}

func (w *world) me() account.Actor     { return account.ByPerson(w.owner.Person).In(w.env) }
func (w *world) system() account.Actor { return account.System("test").In(w.env) }

// agree is the owner's passkey over exactly what err asks for.
func (w *world) agree(t *testing.T, err error) account.Agreement {
	t.Helper()
	need, ok := errors.AsType[*account.Unproven](err)
	if !ok {
		t.Fatalf("got %v, want that a proof is asked for", err)
	}
	ag, err := w.owner.Agree(t, need.Raise)
	must(t, err)
	return ag
}

// Rule 4, A9: whoever holds a person's cookie binds no root key, ends no binding and
// destroys no key: each takes the person's passkey over exactly that. Replacing a
// key takes none, since it gives nobody anything.
func TestRulingOverKeysTakesAProof(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		n := custody.NewBinding{Organization: w.org, URI: w.spare, Mode: vault.Required}
		_, err := w.Bind(ctx, w.me(), n, account.Agreement{})
		ag := w.agree(t, err)
		other := n
		other.Mode = vault.Preferred
		if _, err := w.Bind(ctx, w.me(), other, ag); !fault.Is(err, "changed_meanwhile") {
			t.Errorf("another mode than was agreed to: got %v", err)
		}
		b, err := w.Bind(ctx, w.me(), n, ag)
		must(t, err)
		if _, err := w.Bind(ctx, w.me(), n, ag); err == nil {
			t.Error("one agreement bound twice")
		}
		must(t, w.Vault.Rotate(ctx))
		if b, err = w.Binding(ctx, w.me(), b.ID); err != nil || b.Moved.Keys != 1 || b.Moved.Under != 1 {
			t.Errorf("got %+v, %v", b.Moved, err)
		}
		keys, _, err := w.Keys(ctx, w.me(), w.org, "", "", 10)
		must(t, err)
		if len(keys) != 1 || keys[0].Version != 2 {
			t.Fatalf("got %+v", keys)
		}
		if _, err := w.Replace(ctx, w.me(), w.org, keys[0].ID, false); err != nil {
			t.Errorf("replacing: %v", err)
		}
		must(t, w.Doubt(ctx, w.me(), b.ID))
		err = w.Unbind(ctx, w.me(), b.ID, account.Agreement{})
		must(t, w.Unbind(ctx, w.me(), b.ID, w.agree(t, err)))
		if all, err := w.Bindings(ctx, w.me(), ""); err != nil || len(all) != 0 {
			t.Errorf("got %v, %v", all, err)
		}
		_, err = w.Shred(ctx, w.me(), w.org, "", "", account.Agreement{})
		gone, err := w.Shred(ctx, w.me(), w.org, "", "", w.agree(t, err))
		if err != nil || gone != 1 {
			t.Errorf("shredding: %d, %v", gone, err)
		}
		for _, action := range []string{"root_key.bound", "root_key.unbound", "key.shredded"} {
			page, err := w.Audit.List(ctx, audit.Filter{Environment: w.env, Action: action, Limit: 5})
			must(t, err)
			if len(page.Records) != 1 || len(page.Records[0].Entry.Evidence) == 0 {
				t.Errorf("%s: %d entries, or no evidence", action, len(page.Records))
			}
		}
	})
}

// T1: another environment's keys and bindings look absent, also to its system.
func TestForeignKeysLookAbsent(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		b, err := w.Bind(ctx, w.system(), custody.NewBinding{Organization: w.org, URI: w.spare, Mode: vault.Required}, account.Agreement{})
		must(t, err)
		keys, _, err := w.Keys(ctx, w.system(), "", "", "", 10)
		must(t, err)
		elsewhere := account.System("test").In(id.NewEnvironment())
		if _, err := w.Key(ctx, elsewhere, "", keys[0].ID); !fault.Is(err, "not_found") {
			t.Errorf("a key: got %v", err)
		}
		if _, err := w.Replace(ctx, elsewhere, "", keys[0].ID, false); !fault.Is(err, "not_found") {
			t.Errorf("replacing: got %v", err)
		}
		if _, err := w.Shred(ctx, elsewhere, "", "", keys[0].ID, account.Agreement{}); !fault.Is(err, "not_found") {
			t.Errorf("shredding: got %v", err)
		}
		if _, err := w.Binding(ctx, elsewhere, b.ID); !fault.Is(err, "not_found") {
			t.Errorf("a binding: got %v", err)
		}
		if err := w.Unbind(ctx, elsewhere, b.ID, account.Agreement{}); !fault.Is(err, "not_found") {
			t.Errorf("ending it: got %v", err)
		}
		if _, err := w.Shred(ctx, w.system(), "", "", "", account.Agreement{}); !fault.Is(err, "invalid_scope") {
			t.Errorf("shredding a whole environment: got %v", err)
		}
		if err := w.UseRoot(ctx, w.me(), "file:x"); !fault.Is(err, "console_required") {
			t.Errorf("the server's root key by a person: got %v", err)
		}
	})
}
