package mcpserver_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/mcpserver"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

// world is the door with everything real behind it: the rooms on a database, a
// sandbox as the third party, people with passkeys.
type world struct {
	mux         *http.ServeMux
	door        *mcpserver.Server
	later       atomic.Int64     // nanoseconds that sessions are ahead
	second      *httptest.Server // another third party, not started
	env         id.Environment
	org         id.Organization
	accounts    *account.Service
	agents      *agent.Service
	sessions    *session.Service
	connections *connection.Service
	credentials *credential.Service
	providers   *provider.Store
	sandbox     string
}

// bot is an agent that acts for a person.
type bot struct {
	id    id.Agent
	token string
	owner *accounttest.Human
}

const sandboxKey = "sbx-key-4f1c9a77d2e84b6f9c0d"

var generous = mcpserver.Limits{AgentRate: 1e6, AgentBurst: 1e6, AddressRate: 1e6, AddressBurst: 1e6, FailureRate: 1e6, FailureBurst: 1e6}

func newWorld(t testing.TB, engine sqldb.Engine) *world { return newWorldWith(t, engine, generous) }

func newWorldWith(t testing.TB, engine sqldb.Engine, limits mcpserver.Limits) *world {
	t.Helper()
	return worldOn(t, sqldbtest.Open(t, engine), limits)
}

func worldOn(t testing.TB, db *sqldb.DB, limits mcpserver.Limits) *world {
	t.Helper()
	third := httptest.NewServer(sandbox.New(sandbox.Config{APIKey: secret.FromString(sandboxKey)}).Handler())
	t.Cleanup(third.Close)
	w := &world{mux: http.NewServeMux(), sandbox: third.URL}
	public, err := url.Parse("http://localhost:7420")
	must(t, err)
	keys := t.TempDir()
	keeper := keyringtest.File(t, filepath.Join(keys, "root.key"))
	log, err := audit.New(t.Context(), audit.Config{DB: db, Keeper: keeper, CheckpointDir: filepath.Join(keys, "checkpoints"), Node: "test"})
	must(t, err)
	log.Start()
	t.Cleanup(log.Stop)
	v := vault.New(vault.Config{DB: db, Keeper: keeper, Audit: log})
	w.accounts, err = account.New(account.Config{DB: db, Vault: v, Audit: log, PublicURL: public})
	must(t, err)
	w.agents, err = agent.New(agent.Config{DB: db, Vault: v, Audit: log, People: w.accounts, PublicURL: public})
	must(t, err)
	w.agents.Start()
	t.Cleanup(w.agents.Stop)
	w.second = httptest.NewUnstartedServer(nil)
	t.Cleanup(w.second.Close)
	out, err := outbound.New(outbound.Policy{Allow: []string{third.Listener.Addr().String(), w.second.Listener.Addr().String()}})
	must(t, err)
	w.providers, err = provider.New(provider.Config{DB: db, Vault: v, Audit: log, People: w.accounts, Outbound: out})
	must(t, err)
	w.connections = connection.New(connection.Config{DB: db, Audit: log, PublicURL: public, OnEnded: func(ctx context.Context, tx *sqldb.Tx, c connection.Connection) error {
		return w.sessions.OnConnectionEnded(ctx, tx, c)
	}})
	connections := w.connections
	w.sessions = session.New(session.Config{DB: db, Vault: v, Audit: log, People: w.accounts, Agents: w.agents, Connections: connections, PublicURL: public,
		Now: func() time.Time { return time.Now().Add(time.Duration(w.later.Load())) }})
	w.sessions.Start()
	t.Cleanup(w.sessions.Stop)
	w.credentials = credential.New(credential.Config{DB: db, Vault: v, Audit: log, People: w.accounts, Connections: connections, Providers: w.providers, Outbound: out, PublicURL: public})
	w.credentials.Start()
	t.Cleanup(w.credentials.Stop)
	g := gateway.New(gateway.Config{Sessions: w.sessions, Credentials: w.credentials, Connections: connections, Providers: w.providers, Audit: log, Outbound: out})
	w.door = mcpserver.New(mcpserver.Config{Agents: w.agents, Sessions: w.sessions, Gateway: g, PublicURL: public, Subscribe: db.Subscribe, Limits: limits})
	w.door.Mount(w.mux)
	t.Cleanup(w.door.Stop)
	env, err := w.accounts.CreateEnvironment(t.Context(), system(), "production", account.Agreement{})
	must(t, err)
	w.env, w.org = env.ID, env.Operator
	return w
}

func system() account.Actor { return account.System("test") }

// agent gives a fresh person's agent.
func (w *world) agent(t testing.TB, label string) bot {
	t.Helper()
	return w.agentOf(t, label, accounttest.Join(t, w.accounts, w.env, w.org, account.RoleApprover, label+"@example.com"))
}

func (w *world) agentOf(t testing.TB, label string, p *accounttest.Human) bot {
	t.Helper()
	a, client, key, err := w.agents.Register(t.Context(), system().In(w.env), agent.NewAgent{Environment: w.env, Organization: w.org, Name: label, Kind: agent.Delegated, Owner: p.User()})
	must(t, err)
	caller, err := w.agents.AuthenticateClient(t.Context(), agent.ClientAuth{ID: string(client), Secret: key})
	must(t, err)
	tokens, err := w.agents.ClientCredentials(t.Context(), caller, "")
	must(t, err)
	return bot{id: a.ID, token: string(tokens.Access.Reveal()), owner: p}
}

// connectSandbox connects the person's own sandbox account by an API key.
func (w *world) connectSandbox(t testing.TB, p *accounttest.Human) {
	t.Helper()
	w.connectSandboxFor(t, p, p.User())
}

// connectSandboxFor connects one for owner, or for the organization.
func (w *world) connectSandboxFor(t testing.TB, p *accounttest.Human, owner id.User) {
	t.Helper()
	text := strings.ReplaceAll(sandbox.KeyRecord(w.sandbox), `{header: Authorization, format: "Bearer {api_key}"}`, `{header: X-Api-Key, format: "{api_key}"}`)
	w.put(t, text)
	w.key(t, p, "sandbox_key", owner)
}

func (w *world) put(t testing.TB, text string) {
	t.Helper()
	_, err := w.providers.Put(t.Context(), system().In(w.env), provider.Input{YAML: []byte(text)}, account.Agreement{})
	must(t, err)
}

func (w *world) key(t testing.TB, p *accounttest.Human, slug string, owner id.User) {
	t.Helper()
	by := system().In(w.env)
	if owner != "" {
		by = account.ByPerson(p.Person).In(w.env)
	}
	_, err := w.credentials.AddKey(t.Context(), by, credential.Start{Environment: w.env, Organization: w.org, Provider: slug, OrganizationOwned: owner == ""},
		owner, map[string]secret.Value{"api_key": secret.FromString(sandboxKey)}, account.Agreement{})
	must(t, err)
}

// provider adds a provider with n tools and connects it.
func (w *world) provider(t testing.TB, p *accounttest.Human, slug string, n int, format string) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "id: %s\nname: Many\nwebsite: %s\nauth: api_key\ninject: {header: X-Api-Key, format: \"{api_key}\"}\nidentity: {path: /me, id: id, label: email}\napi:\n  base: [%q]\ntools:\n", slug, w.sandbox, w.sandbox)
	for i := range n {
		name := format
		if strings.Contains(format, "%") {
			name = fmt.Sprintf(format, i)
		}
		fmt.Fprintf(&b, "  - {name: %s, title: Reads, description: Reads things., effect: read, request: {method: GET, path: /me}}\n", name)
	}
	w.put(t, b.String())
	w.key(t, p, slug, p.User())
}

// approve lets a person approve a request as it stands, or as change makes it.
func (w *world) approve(t testing.TB, p *accounttest.Human, request string, change func(*session.Decision)) {
	t.Helper()
	ctx, apr, me := context.WithoutCancel(t.Context()), id.Approval(request), p.Person
	a, err := w.sessions.Approval(ctx, me, apr)
	must(t, err)
	d := w.sessions.DefaultDecision(a)
	for _, g := range a.Session.Grants[len(d.Grants):] { // of several accounts the default picks none
		d.Grants = append(d.Grants, session.Choice{Connection: g.Connection, Effects: g.Effects})
	}
	if change != nil {
		change(&d)
	}
	digest, err := w.sessions.Digest(ctx, me, apr, d)
	must(t, err)
	_, err = w.sessions.Approve(ctx, me, apr, d, p.Proof(t, digest))
	must(t, err)
}

// session gives an approved session for reading at the sandbox.
func (w *world) session(t testing.TB, c *client, a bot) (handle string) {
	t.Helper()
	r := c.worked("request_session", map[string]any{"providers": []string{"sandbox_key"}, "purpose": "read the issues"})
	w.approve(t, a.owner, r.str("request_id"), nil)
	return r.str("session")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
