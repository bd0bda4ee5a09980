// Package apitest serves the management API over HTTP with everything real
// behind it: the rooms on a database, a sandbox as the third party, and an owner
// with a passkey.
package apitest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/api"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/custody"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/integration"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/provider/discovery"
	"github.com/ambit-dev/ambit/internal/provider/openapi"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
	"github.com/ambit-dev/ambit/internal/webhook"
)

// SandboxKey opens the sandbox. It must never be in an answer but a vended one.
const SandboxKey = "sbx-key-canary-4f1c9a77d2e84b6f9c0d"

// World is a served API and what stands behind it. Env is run by Org, whose
// owner is Owner; Tenant is another organization of it; Other is another
// environment.
type World struct {
	URL          string
	API          *api.API
	People       *account.Service
	Agents       *agent.Service
	Providers    *provider.Store
	Connections  *connection.Service
	Credentials  *credential.Service
	Integrations *integration.Service
	Sessions     *session.Service
	Audit        *audit.Log
	Vault        *vault.Vault
	Custody      *custody.Service
	Webhooks     *webhook.Service
	Sandbox      string
	Log          *Lines
	DB           *sqldb.DB

	SpareRoot string // the URI of a root key that can be bound

	Owner  *accounttest.Human
	Env    id.Environment
	Org    id.Organization
	Tenant id.Organization
	Other  id.Environment
}

const clientSecret = "client-secret-canary"

// Generous limits let a test ask as fast as it can.
var Generous = api.Limits{CallerRate: 1e6, CallerBurst: 1e6, AddressRate: 1e6, AddressBurst: 1e6, FailureRate: 1e6, FailureBurst: 1e6,
	RevocationRate: 1e6, RevocationBurst: 1e6}

// New builds a world on db. change may adjust the API's configuration.
func New(t testing.TB, db *sqldb.DB, change func(*api.Config)) *World {
	t.Helper()
	w := &World{Log: &Lines{}, DB: db}
	logger := slog.New(slog.NewJSONHandler(w.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	public, err := url.Parse("http://localhost:7420")
	must(t, err)
	keys := t.TempDir()
	keeper := keyringtest.File(t, filepath.Join(keys, "root.key"))
	checkpoints := filepath.Join(keys, "checkpoints")
	roots := keyring.RingOf(keeper)
	spare := keyringtest.File(t, filepath.Join(keys, "customer.key"))
	w.SpareRoot = spare.Describe().Ref
	roots.Add(spare)
	w.Audit, err = audit.New(t.Context(), audit.Config{DB: db, Keeper: roots, CheckpointDir: checkpoints, Node: "test"})
	must(t, err)
	w.Audit.Start()
	t.Cleanup(w.Audit.Stop)
	w.Vault = vault.New(vault.Config{DB: db, Roots: roots, Audit: w.Audit})
	away, err := outbound.New(outbound.Policy{})
	must(t, err)
	t.Cleanup(away.Close)
	w.People, err = account.New(account.Config{DB: db, Vault: w.Vault, Audit: w.Audit, PublicURL: public, Outbound: away, OnUserLeft: w.userLeft})
	must(t, err)
	w.Agents, err = agent.New(agent.Config{DB: db, Vault: w.Vault, Audit: w.Audit, People: w.People, PublicURL: public, OnAgentEnded: w.agentEnded})
	must(t, err)
	w.Agents.Start()
	t.Cleanup(w.Agents.Stop)
	w.Owner = accounttest.Owner(t, w.People)
	m := w.Owner.Organizations()[0]
	w.Env, w.Org = m.Environment, m.Organization
	third := httptest.NewServer(sandbox.New(sandbox.Config{ClientID: "ambit", ClientSecret: secret.FromString(clientSecret), APIKey: secret.FromString(SandboxKey),
		RedirectURIs: []string{public.JoinPath(credential.CallbackPath(w.Env, "sandbox")).String()}}).Handler())
	t.Cleanup(third.Close)
	w.Sandbox = third.URL
	out, err := outbound.New(outbound.Policy{Allow: []string{third.Listener.Addr().String()}})
	must(t, err)
	w.Connections = connection.New(connection.Config{DB: db, Audit: w.Audit, PublicURL: public, OnEnded: w.connectionEnded})
	w.Providers, err = provider.New(provider.Config{DB: db, Vault: w.Vault, Audit: w.Audit, People: w.People, Outbound: out, InUse: w.Connections.InUse})
	must(t, err)
	w.Sessions = session.New(session.Config{DB: db, Vault: w.Vault, Audit: w.Audit, People: w.People, Agents: w.Agents, Connections: w.Connections, PublicURL: public})
	w.Sessions.Start()
	t.Cleanup(w.Sessions.Stop)
	w.Credentials = credential.New(credential.Config{DB: db, Vault: w.Vault, Audit: w.Audit, People: w.People, Connections: w.Connections, Providers: w.Providers, Outbound: out, PublicURL: public, OnTicket: w.onTicket})
	w.Credentials.Start()
	t.Cleanup(w.Credentials.Stop)

	w.Integrations = integration.New(integration.Config{DB: db, Audit: w.Audit, People: w.People, Providers: w.Providers, Connections: w.Connections, Credentials: w.Credentials, PublicURL: public})
	w.Webhooks = webhook.New(webhook.Config{DB: db, Vault: w.Vault, Audit: w.Audit, People: w.People, Outbound: out, Kinds: slices.Sorted(maps.Keys(connection.Changes()))})
	w.Custody = custody.New(custody.Config{DB: db, Vault: w.Vault, Audit: w.Audit, People: w.People})
	cfg := api.Config{People: w.People, Agents: w.Agents, Providers: w.Providers, Importer: openapi.NewImporter(out), Finder: discovery.New(discovery.Config{Outbound: out, Public: public, Path: credential.CallbackPath, DocumentPath: credential.CallbackPath}), Connections: w.Connections, Credentials: w.Credentials, Integrations: w.Integrations, Sessions: w.Sessions,
		Audit: w.Audit, Vault: w.Vault, Custody: w.Custody, Webhooks: w.Webhooks, PublicURL: public, Limits: Generous, Logger: logger,
		Verify: func(ctx context.Context, progress func(int64)) (audit.Report, error) {
			return audit.Verify(ctx, audit.VerifyConfig{DB: db, Keeper: keeper, Checkpoints: []string{checkpoints}, Progress: progress})
		}}
	if change != nil {
		change(&cfg)
	}
	w.API, err = api.New(cfg)
	must(t, err)
	mux := http.NewServeMux()
	w.API.Mount(mux)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	w.URL = srv.URL

	tenant, err := w.People.CreateOrganization(t.Context(), w.System(), w.Env, "Tenant", "")
	must(t, err)
	w.Tenant = tenant.ID
	other, err := w.People.CreateEnvironment(t.Context(), account.System("test"), "staging", account.Agreement{})
	must(t, err)
	w.Other = other.ID
	_, err = w.Providers.Put(t.Context(), w.System(), provider.Input{YAML: []byte(sandbox.KeyRecord(w.Sandbox))}, account.Agreement{})
	must(t, err)
	_, err = w.Providers.Put(t.Context(), w.System(), provider.Input{YAML: []byte(sandbox.Record(w.Sandbox)), ClientID: "ambit", ClientSecret: secret.FromString(clientSecret)}, account.Agreement{})
	must(t, err)
	return w
}

func (w *World) userLeft(ctx context.Context, tx *sqldb.Tx, env id.Environment, org id.Organization, user id.User) error {
	if err := w.Sessions.OnUserLeft(ctx, tx, env, org, user); err != nil {
		return err
	}
	return w.Agents.RevokeUser(ctx, tx, env, org, user)
}

func (w *World) agentEnded(ctx context.Context, tx *sqldb.Tx, env id.Environment, a id.Agent) error {
	return w.Sessions.OnAgentEnded(ctx, tx, env, a)
}

func (w *World) onTicket(ctx context.Context, tx *sqldb.Tx, ticket id.Ticket, c connection.Connection) error {
	return w.Integrations.Connected(ctx, tx, ticket, c)
}

func (w *World) connectionEnded(ctx context.Context, tx *sqldb.Tx, c connection.Connection) error {
	if err := w.Sessions.OnConnectionEnded(ctx, tx, c); err != nil {
		return err
	}
	return w.Credentials.OnConnectionEnded(ctx, tx, c)
}

// System acts for the server in Env.
func (w *World) System() account.Actor { return account.System("test").In(w.Env) }

// Environment makes an environment of the owner's own.
func (w *World) Environment(t testing.TB, name string) id.Environment {
	t.Helper()
	var e account.Environment
	must(t, w.Owner.Do(t, func(ag account.Agreement) (err error) {
		e, err = w.People.CreateEnvironment(t.Context(), account.ByPerson(w.Owner.Person), name, ag)
		return err
	}))
	return e.ID
}

// Key makes an API key. Without an organization it is for the whole environment.
func (w *World) Key(t testing.TB, env id.Environment, org id.Organization, scopes ...account.Scope) (id.Key, string) {
	t.Helper()
	k, token, err := w.People.IssueKey(t.Context(), account.NewKey{Environment: env, Organization: org, Name: "test", Scopes: scopes})
	must(t, err)
	return k.ID, string(token.Reveal())
}

// Login makes a command line's login for h, as a person confirms it.
func (w *World) Login(t testing.TB, h *accounttest.Human) string {
	t.Helper()
	code, poll, err := w.People.StartCLI(t.Context(), "127.0.0.1")
	must(t, err)
	must(t, w.People.ConfirmCLI(t.Context(), h.Person, code, h.Proof(t, w.People.CLIDigest(h.Person, code))))
	token, err := w.People.PollCLI(t.Context(), poll, "127.0.0.1")
	must(t, err)
	return string(token.Reveal())
}

// User makes a member of Org.
func (w *World) User(t testing.TB, name string) id.User {
	t.Helper()
	u, err := w.People.CreateUser(t.Context(), w.System(), account.NewUser{Environment: w.Env, Organization: w.Org, Name: name}, account.Agreement{})
	must(t, err)
	return u.ID
}

// Agent registers an agent of the owner and gives its access token.
func (w *World) Agent(t testing.TB, name string) (id.Agent, string) {
	t.Helper()
	a, client, s, err := w.Agents.Register(t.Context(), w.System(), agent.NewAgent{Environment: w.Env, Organization: w.Org, Name: name, Kind: agent.Delegated, Owner: w.Owner.User()})
	must(t, err)
	caller, err := w.Agents.AuthenticateClient(t.Context(), agent.ClientAuth{ID: string(client), Secret: s})
	must(t, err)
	tokens, err := w.Agents.ClientCredentials(t.Context(), caller, "")
	must(t, err)
	return a.ID, string(tokens.Access.Reveal())
}

// Connection connects the sandbox with a key, for Org or for owner.
func (w *World) Connection(t testing.TB, owner id.User) id.Connection {
	t.Helper()
	return w.ConnectionIn(t, w.Org, owner)
}

// ConnectionIn is Connection in any organization of Env.
func (w *World) ConnectionIn(t testing.TB, org id.Organization, owner id.User) id.Connection {
	t.Helper()
	c, err := w.Credentials.AddKey(t.Context(), w.System(), credential.Start{Environment: w.Env, Organization: org, Provider: "sandbox_key", OrganizationOwned: owner == ""}, owner,
		map[string]secret.Value{"api_key": secret.FromString(SandboxKey)}, account.Agreement{})
	must(t, err)
	return c.ID
}

// Authorized connects the sandbox for Org by signing in there.
func (w *World) Authorized(t testing.TB) id.Connection {
	t.Helper()
	at, err := w.Credentials.Authorize(t.Context(), w.Owner.Person, credential.Start{Environment: w.Env, Organization: w.Org, Provider: "sandbox", OrganizationOwned: true})
	must(t, err)
	u, err := url.Parse(at)
	must(t, err)
	form := u.Query()
	form.Set("account", "mia@sandbox.example")
	form.Set("decision", "allow")
	form["grant"] = strings.Fields(form.Get("scope"))
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.PostForm(w.Sandbox+u.Path, form)
	must(t, err)
	defer resp.Body.Close()
	back, err := resp.Location()
	must(t, err)
	c, err := w.Credentials.Callback(t.Context(), w.Owner.Person, w.Env, "sandbox", back.Query())
	must(t, err)
	return c.Connection.ID
}

// Request lets a fresh agent ask for a session on the sandbox.
func (w *World) Request(t testing.TB, name string) session.Session {
	t.Helper()
	w.Connection(t, "")
	_, token := w.Agent(t, name)
	who, err := w.Agents.Authenticate(t.Context(), secret.FromString(token))
	must(t, err)
	r, err := w.Sessions.Request(t.Context(), who, session.Ask{Providers: []string{"sandbox_key"}, Purpose: "read the issues"}, "127.0.0.1")
	must(t, err)
	return r.Session
}

// Approve approves a request as it stands.
func (w *World) Approve(t testing.TB, apr id.Approval) {
	t.Helper()
	a, err := w.Sessions.Approval(t.Context(), w.Owner.Person, apr)
	must(t, err)
	d := w.Sessions.DefaultDecision(a)
	digest, err := w.Sessions.Digest(t.Context(), w.Owner.Person, apr, d)
	must(t, err)
	_, err = w.Sessions.Approve(t.Context(), w.Owner.Person, apr, d, w.Owner.Proof(t, digest))
	must(t, err)
}

// Applications is the vault's caller for the whole environment.
func (w *World) Applications() vault.Caller {
	return vault.Caller{Reach: vault.Everything(), Actor: audit.Actor{Kind: "system", ID: "test"}, Environment: w.Env}
}

// Blob is text as the SDK for Node encrypts it locally, under a data key of Org.
func (w *World) Blob(t testing.TB, text string) string {
	t.Helper()
	k, err := w.Vault.CreateDataKey(t.Context(), w.Applications(), vault.Once{}, map[string]string{"organization_id": string(w.Org)})
	must(t, err)
	return BlobOf(k.Wrapped, k.Key.Reveal(), text)
}

// BlobOf encrypts text under a key, of which wrapped is the wrapped form.
func BlobOf(wrapped, key []byte, text string) string {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	nonce := make([]byte, 12)
	sealed := aead.Seal(nil, nonce, []byte(text), nil)
	ct, tag := sealed[:len(text)], sealed[len(text):]
	length := binary.AppendUvarint(nil, uint64(len(wrapped)))
	return base64.StdEncoding.EncodeToString(slices.Concat(nonce, tag, length, wrapped, ct))
}

// Secret stores a secret of Org.
func (w *World) Secret(t testing.TB, name, value string) id.Secret {
	t.Helper()
	o, err := w.Vault.Create(t.Context(), vault.Caller{Reach: vault.Everything(), Actor: audit.Actor{Kind: "system", ID: "test"}, Environment: w.Env}, vault.NewObject{Name: name, Context: map[string]string{"organization_id": string(w.Org)}, Value: vault.Value{Secret: secret.FromString(value)}})
	must(t, err)
	return o.ID
}

// Actions lists what the audit holds of one action, newest first.
func (w *World) Actions(t testing.TB, action string) []audit.Record {
	t.Helper()
	p, err := w.Audit.List(t.Context(), audit.Filter{Environment: w.Env, Action: action, Limit: 200})
	must(t, err)
	return p.Records
}

// Lines is a log that a test reads.
type Lines struct {
	mu  sync.Mutex
	all strings.Builder
}

func (l *Lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *Lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// Eventually waits until ok, at most ten seconds.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
