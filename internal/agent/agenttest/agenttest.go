// Package agenttest builds a small world for tests that need agents: a
// database, the real rooms below, an environment with its organization, and a
// person who consents with a passkey.
package agenttest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

// PublicURL is where the world's server would be reached.
const PublicURL = "http://localhost:7420"

// Redirect is where the clients of Consented get their codes.
const Redirect = "http://localhost:3000/callback"

// Clock is a clock that a test moves.
type Clock struct{ us atomic.Int64 }

// Now reads the clock.
func (c *Clock) Now() time.Time { return time.UnixMicro(c.us.Load()).UTC() }

// Advance moves the clock.
func (c *Clock) Advance(d time.Duration) { c.us.Add(d.Microseconds()) }

// World is what New builds.
type World struct {
	DB           *sqldb.DB
	Clock        *Clock
	Audit        *audit.Log
	Vault        *vault.Vault
	Accounts     *account.Service
	Agents       *agent.Service
	Environment  id.Environment
	Organization id.Organization
	System       account.Actor
	Web          *Web // what the server can reach of the rest of the world

	// What higher rooms do when a user leaves or an agent ends; set by their
	// test kits before anything happens.
	OnUserLeft   func(ctx context.Context, tx *sqldb.Tx, env id.Environment, org id.Organization, user id.User) error
	OnAgentEnded func(ctx context.Context, tx *sqldb.Tx, env id.Environment, agent id.Agent) error

	Keeper *keyring.Guard
	Roots  *keyring.Ring // with Keeper as its primary root key
	// OpenRoot opens root keys that customers bring; nil opens none.
	OpenRoot func(ctx context.Context, uri string) (keyring.Keeper, error)

	keys string // folder of checkpoints
	node string

	mu    sync.Mutex
	ended []id.Agent
	fail  error
}

// New builds a World on db, with a root key in a file.
func New(t testing.TB, db *sqldb.DB) *World {
	t.Helper()
	return NewOn(t, db, keyringtest.File(t, filepath.Join(t.TempDir(), "root.key")))
}

// NewOn builds a World on db whose root key is behind keeper.
func NewOn(t testing.TB, db *sqldb.DB, keeper *keyring.Guard) *World {
	t.Helper()
	w := &World{DB: db, Clock: &Clock{}, System: account.System("test"), Keeper: keeper, keys: t.TempDir(), node: "test"}
	w.Clock.us.Store(time.Now().UnixMicro())
	w.rooms(t)
	env, err := w.Accounts.CreateEnvironment(t.Context(), w.System, "production", account.Agreement{})
	must(t, err)
	w.Environment, w.Organization = env.ID, env.Operator
	return w
}

// Beside builds the same rooms on another handle of the same database, as
// another process would have them. Clock, root key and tenants are shared.
func (w *World) Beside(t testing.TB, db *sqldb.DB) *World {
	t.Helper()
	other := &World{DB: db, Clock: w.Clock, Keeper: w.Keeper, System: w.System, Web: w.Web, Environment: w.Environment, Organization: w.Organization, keys: w.keys, node: "beside"}
	other.rooms(t)
	return other
}

func (w *World) rooms(t testing.TB) {
	t.Helper()
	ctx, db := t.Context(), w.DB
	if w.Web == nil {
		w.Web = newWeb(t)
	}
	client, err := outbound.New(outbound.Policy{Allow: []string{w.Web.host}})
	must(t, err)
	t.Cleanup(client.Close)
	public, err := url.Parse(PublicURL)
	must(t, err)
	keeper := w.Keeper
	w.Roots = keyring.NewRing(keyring.RingConfig{Open: func(ctx context.Context, uri string) (keyring.Keeper, error) {
		if w.OpenRoot == nil {
			return nil, errors.New("this world opens no root keys")
		}
		return w.OpenRoot(ctx, uri)
	}})
	w.Roots.Add(keeper)
	w.Audit, err = audit.New(ctx, audit.Config{DB: db, Keeper: keeper, CheckpointDir: filepath.Join(w.keys, "checkpoints"), Node: w.node, Now: w.Clock.Now})
	must(t, err)
	w.Audit.Start()
	t.Cleanup(w.Audit.Stop)
	w.Vault = vault.New(vault.Config{DB: db, Roots: w.Roots, Audit: w.Audit, Now: w.Clock.Now})
	w.Accounts, err = account.New(account.Config{DB: db, Vault: w.Vault, Audit: w.Audit, PublicURL: public, Now: w.Clock.Now,
		OnUserLeft: func(ctx context.Context, tx *sqldb.Tx, env id.Environment, org id.Organization, user id.User) error {
			if w.OnUserLeft != nil {
				if err := w.OnUserLeft(ctx, tx, env, org, user); err != nil {
					return err
				}
			}
			return w.Agents.RevokeUser(ctx, tx, env, org, user)
		}})
	must(t, err)
	w.Agents, err = agent.New(agent.Config{DB: db, Vault: w.Vault, Audit: w.Audit, People: w.Accounts, PublicURL: public, Outbound: client, Now: w.Clock.Now, OnAgentEnded: w.end})
	must(t, err)
	w.Agents.Start()
	t.Cleanup(w.Agents.Stop)
}

func (w *World) end(ctx context.Context, tx *sqldb.Tx, env id.Environment, a id.Agent) error {
	if w.OnAgentEnded != nil {
		if err := w.OnAgentEnded(ctx, tx, env, a); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = append(w.ended, a)
	return w.fail
}

// Ended lists the agents whose sessions were to be ended.
func (w *World) Ended() []id.Agent {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]id.Agent(nil), w.ended...)
}

// FailEnding makes ending the sessions of an agent fail from now on.
func (w *World) FailEnding(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail = err
}

// Client registers a client as an agent on a person's machine does.
func (w *World) Client(t testing.TB, method string) agent.ClientAuth {
	t.Helper()
	c, sec, err := w.Agents.RegisterClient(t.Context(), agent.NewClient{RedirectURIs: []string{Redirect}, Name: "Totally Official Agent",
		Grants: []string{agent.GrantCode, agent.GrantRefresh}, AuthMethod: method, Address: "127.0.0.1"})
	must(t, err)
	return agent.ClientAuth{ID: string(c.ID), Secret: sec}
}

// Caller authenticates a client.
func (w *World) Caller(t testing.TB, auth agent.ClientAuth) agent.Caller {
	t.Helper()
	c, err := w.Agents.AuthenticateClient(t.Context(), auth)
	must(t, err)
	return c
}

// PKCE is a fresh verifier and its challenge.
func PKCE() (verifier secret.Value, challenge string) {
	verifier = secret.FromString(rand.Text() + rand.Text())
	h := verifier.Hash()
	return verifier, base64.RawURLEncoding.EncodeToString(h[:])
}

// Begin stores an authorization request of client.
func (w *World) Begin(t testing.TB, client id.Client, challenge string) id.Flow {
	t.Helper()
	flow, err := w.Agents.BeginAuthorize(t.Context(), agent.AuthRequest{Client: agent.Client{ID: client}, RedirectURI: Redirect, State: "st&te=1", Challenge: challenge})
	must(t, err)
	return flow
}

// Agree lets person consent to flow and returns the parameters of the redirect.
func (w *World) Agree(t testing.TB, p *Person, flow id.Flow, label string) url.Values {
	t.Helper()
	req, err := w.Agents.PendingAuthorize(t.Context(), flow)
	must(t, err)
	c := agent.Consent{Organization: w.Organization, Label: label}
	me := p.Signed(t)
	redirect, err := w.Agents.Consent(t.Context(), me, flow, c, p.Prove(t, w.Agents.ConsentDigest(me.User(), req, c), w.Organization))
	must(t, err)
	u, err := url.Parse(redirect)
	must(t, err)
	return u.Query()
}

// Grant is an agent that a person has consented to.
type Grant struct {
	Caller   agent.Caller
	Auth     agent.ClientAuth
	Code     string
	Verifier secret.Value
	Tokens   agent.Tokens
	Identity agent.Identity
}

// Consented registers a public client, lets person consent, and gets tokens.
func (w *World) Consented(t testing.TB, p *Person, label string) Grant {
	t.Helper()
	g := Grant{Auth: w.Client(t, agent.AuthNone)}
	g.Caller = w.Caller(t, g.Auth)
	var challenge string
	g.Verifier, challenge = PKCE()
	g.Code = w.Agree(t, p, w.Begin(t, g.Caller.Client(), challenge), label).Get("code")
	var err error
	g.Tokens, err = w.Agents.Exchange(t.Context(), g.Caller, g.CodeGrant())
	must(t, err)
	g.Identity, err = w.Agents.Authenticate(t.Context(), g.Tokens.Access)
	must(t, err)
	return g
}

// CodeGrant is the request that exchanges g's code.
func (g Grant) CodeGrant() agent.CodeGrant {
	return agent.CodeGrant{Code: secret.FromString(g.Code), RedirectURI: Redirect, Verifier: g.Verifier}
}

// Service registers an agent with client credentials.
func (w *World) Service(t testing.TB, kind agent.Kind, owner id.User) (agent.Agent, agent.ClientAuth) {
	t.Helper()
	a, c, sec, err := w.Agents.Register(t.Context(), w.System, agent.NewAgent{Environment: w.Environment, Organization: w.Organization, Name: "nightly build", Kind: kind, Owner: owner})
	must(t, err)
	return a, agent.ClientAuth{ID: string(c), Secret: sec}
}

// Key is an application's key for the whole environment.
func (w *World) Key(t testing.TB, scopes ...account.Scope) account.Key {
	t.Helper()
	_, token, err := w.Accounts.IssueKey(t.Context(), account.NewKey{Environment: w.Environment, Name: "back end", Scopes: scopes})
	must(t, err)
	k, err := w.Accounts.AuthenticateKey(t.Context(), token)
	must(t, err)
	return k
}

// Actions lists what the audit says was done, newest last.
func (w *World) Actions(t testing.TB) []string {
	t.Helper()
	page, err := w.Audit.List(t.Context(), audit.Filter{Environment: w.Environment, Limit: 200})
	must(t, err)
	var out []string
	for i := len(page.Records) - 1; i >= 0; i-- {
		out = append(out, page.Records[i].Action)
	}
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
