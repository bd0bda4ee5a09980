package account_test

import (
	"context"
	"errors"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/issuer/issuertest"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

const publicURL = "http://localhost:7420"

// world is one node of the server, on a clock that the test moves.
type world struct {
	*account.Service
	db    *sqldb.DB
	audit *audit.Log
	vault *vault.Vault
	clock *atomic.Int64
	env   id.Environment
	left  []string // what the OnUserLeft hook was called with
	veto  error    // what it answers
}

func (w *world) now() time.Time          { return time.UnixMicro(w.clock.Load()).UTC() }
func (w *world) advance(d time.Duration) { w.clock.Add(d.Microseconds()) }

func newWorld(t testing.TB, db *sqldb.DB) *world {
	t.Helper()
	return newFederated(t, db, publicURL, nil, false)
}

// newFederated is newWorld with a public URL and an identity provider that it can
// reach, which is the operator's or only there.
func newFederated(t testing.TB, db *sqldb.DB, public string, idp *issuertest.Issuer, operator bool) *world {
	t.Helper()
	w := &world{db: db, clock: &atomic.Int64{}}
	w.clock.Store(time.Now().UnixMicro())
	dir := t.TempDir()
	keeper := keyringtest.File(t, filepath.Join(dir, "root.key"))
	var err error
	w.audit, err = audit.New(t.Context(), audit.Config{DB: db, Keeper: keeper, CheckpointDir: filepath.Join(dir, "checkpoints"), Node: "test", Now: w.now})
	check(t, err)
	w.audit.Start()
	t.Cleanup(w.audit.Stop)
	base, err := url.Parse(public)
	check(t, err)
	var client *outbound.Client
	var signIn account.OperatorSignIn
	if idp != nil {
		client, err = outbound.New(outbound.Policy{Allow: []string{idp.Host}})
		check(t, err)
		t.Cleanup(client.Close)
		if operator {
			signIn = account.OperatorSignIn{Name: "Example Login", Issuer: idp.URL, ClientID: issuertest.ClientID, Secret: secret.FromString(issuertest.Secret)}
		}
	}
	w.vault = vault.New(vault.Config{DB: db, Keeper: keeper, Audit: w.audit, Now: w.now})
	w.Service, err = account.New(account.Config{
		Outbound: client, SignIn: signIn,
		DB: db, Vault: w.vault, Audit: w.audit, PublicURL: base, Now: w.now,
		OnUserLeft: func(_ context.Context, _ *sqldb.Tx, env id.Environment, org id.Organization, user id.User) error {
			w.left = append(w.left, string(env)+" "+string(org)+" "+string(user))
			return w.veto
		},
	})
	check(t, err)
	return w
}

// restarted is the same server with another identity provider of the operator.
func (w *world) restarted(t testing.TB, signIn account.OperatorSignIn) *account.Service {
	t.Helper()
	base, err := url.Parse(publicURL)
	check(t, err)
	s, err := account.New(account.Config{DB: w.db, Vault: w.vault, Audit: w.audit, PublicURL: base, Now: w.now, SignIn: signIn})
	check(t, err)
	return s
}

func fuzzWorld(f *testing.F, db *sqldb.DB) *account.Service {
	f.Helper()
	return newWorld(f, db).Service
}

// withURL is a service reached at u, on nothing that works.
func withURL(t testing.TB, db *sqldb.DB, u *url.URL) (*account.Service, error) {
	t.Helper()
	return account.New(account.Config{DB: db, Vault: &vault.Vault{}, Audit: &audit.Log{}, PublicURL: u})
}

// each runs fn on both engines with a world whose first owner is signed in.
func each(t *testing.T, fn func(t *testing.T, w *world, owner *accounttest.Human)) {
	t.Helper()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := newWorld(t, db)
		owner := accounttest.Owner(t, w.Service)
		w.env = owner.Environment()
		fn(t, w, owner)
	})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantCode demands a refusal with a stable code, a public message, and no cause
// in it.
func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	if !fault.Is(err, code) {
		t.Fatalf("got %v, want %s", err, code)
	}
}

// none agrees to nothing.
var none account.Agreement

// agreed makes a change that h agrees to.
func agreed[T any](t testing.TB, h *accounttest.Human, change func(account.Agreement) (T, error)) (v T, err error) {
	t.Helper()
	err = h.Do(t, func(ag account.Agreement) error {
		var err error
		v, err = change(ag)
		return err
	})
	return v, err
}

// org is the person's first organization.
func org(p account.Person) account.Membership { return p.Organizations()[0] }

func (w *world) join(t testing.TB, by *accounttest.Human, role account.Role, email string) *accounttest.Human {
	t.Helper()
	m := org(by.Person)
	return accounttest.Join(t, w.Service, m.Environment, m.Organization, role, email)
}

// actions lists the audit's actions of env, oldest first, as "action/decision".
func (w *world) actions(t testing.TB) []string {
	t.Helper()
	page, err := w.audit.List(t.Context(), audit.Filter{Environment: w.env, Limit: 200})
	check(t, err)
	var out []string
	for _, r := range page.Records {
		a := r.Action
		if r.Decision != "" {
			a += "/" + r.Decision
		}
		if r.Code != "" {
			a += "/" + r.Code
		}
		out = append(out, a)
	}
	return out
}

func (w *world) audited(t testing.TB, action string) {
	t.Helper()
	for _, a := range w.actions(t) {
		if a == action {
			return
		}
	}
	t.Errorf("the audit has no %q; it has %s", action, strings.Join(w.actions(t), " "))
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errVeto = errors.New("sessions cannot be ended")

func token(v secret.Value) string { return string(v.Reveal()) }
