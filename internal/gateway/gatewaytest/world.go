// Package gatewaytest builds the whole spine for tests: all rooms up to the
// gateway on a real database, the sandbox as a third party over HTTP, people
// with passkeys and agents with tokens.
package gatewaytest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/source"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/telemetry"
)

// SandboxKey opens the sandbox's API.
const SandboxKey = "sbx-key-4f1c9a77d2e84b6f9c0d"

// World is the spine with everything below it.
type World struct {
	*agenttest.World
	Outbound    *outbound.Client
	Providers   *provider.Store
	Connections *connection.Service
	Sessions    *session.Service
	Credentials *credential.Service
	Sources     *source.Sources // for the next Node; nil: there are none
	Gateway     *gateway.Gateway
	Sandbox     *httptest.Server
	PublicURL   *url.URL
	// OnTicket is told of connect tokens; nil refuses them.
	OnTicket func(ctx context.Context, tx *sqldb.Tx, ticket id.Ticket, c connection.Connection) error
	// OnAsked is told of new requests; it may be nil.
	OnAsked   func(ctx context.Context, tx *sqldb.Tx, a session.Asked) error
	Telemetry *telemetry.Telemetry // of the gateway; nil measures nothing
	Logger    *slog.Logger         // of the rooms from here up; nil logs nothing

	traffic *traffic
}

// New builds a World on db. Its background work is started and stopped.
func New(t testing.TB, db *sqldb.DB) *World { t.Helper(); return NewLogging(t, db, nil) }

// NewLogging is New with a logger for the rooms from connection to gateway.
func NewLogging(t testing.TB, db *sqldb.DB, logger *slog.Logger) *World {
	t.Helper()
	return NewOn(t, agenttest.New(t, db), logger)
}

// NewOn builds a World on the rooms below, such as those with another keeper.
func NewOn(t testing.TB, below *agenttest.World, logger *slog.Logger) *World {
	t.Helper()
	third := httptest.NewUnstartedServer(nil)
	public, err := url.Parse(agenttest.PublicURL)
	Must(t, err)
	w := &World{World: below, PublicURL: public, Sandbox: third, Logger: logger, traffic: &traffic{}}
	box := sandbox.New(sandbox.Config{
		Now: w.Clock.Now, ClientID: "ambit-test", ClientSecret: secret.FromString("sbxs_" + SandboxKey), APIKey: secret.FromString(SandboxKey),
		RedirectURIs: []string{public.JoinPath(credential.CallbackPath(w.Environment, "sandbox")).String()},
	})
	w.traffic.next = box.Handler()
	third.Config.Handler = w.traffic
	third.Start()
	t.Cleanup(third.Close)
	allow := []string{third.Listener.Addr().(*net.TCPAddr).String()}
	if u, err := url.Parse(os.Getenv("AMBIT_TEST_DATABASE_URL")); err == nil && u.Host != "" {
		allow = append(allow, u.Host) // where a tenant's own database is (sqldbtest.NewTenant)
	}
	w.Outbound, err = outbound.New(outbound.Policy{Allow: allow})
	Must(t, err)
	t.Cleanup(w.Outbound.Close)
	w.Node(t)
	w.OnUserLeft, w.OnAgentEnded = w.Sessions.OnUserLeft, w.Sessions.OnAgentEnded
	return w
}

// Beside gives the same world as another process would have it: rooms of its
// own on another handle of the same database. The first goes on.
func (w *World) Beside(t testing.TB, db *sqldb.DB) *World {
	t.Helper()
	other := *w
	other.World = w.World.Beside(t, db)
	other.Node(t)
	other.OnUserLeft, other.OnAgentEnded = other.Sessions.OnUserLeft, other.Sessions.OnAgentEnded
	return &other
}

// Node builds the rooms from connection to gateway anew, as another process on
// the same database would have them. The ones before go on.
func (w *World) Node(t testing.TB) {
	t.Helper()
	var err error
	sessions, credentials := new(*session.Service), new(*credential.Service)
	w.Connections = connection.New(connection.Config{DB: w.DB, Audit: w.Audit, PublicURL: w.PublicURL, Now: w.Clock.Now,
		OnEnded: func(ctx context.Context, tx *sqldb.Tx, c connection.Connection) error {
			if err := (*sessions).OnConnectionEnded(ctx, tx, c); err != nil {
				return err
			}
			return (*credentials).OnConnectionEnded(ctx, tx, c)
		}})
	w.Providers, err = provider.New(provider.Config{DB: w.DB, Vault: w.Vault, Audit: w.Audit, People: w.Accounts, Outbound: w.Outbound, InUse: w.Connections.InUse, Now: w.Clock.Now})
	Must(t, err)
	w.Sessions = session.New(session.Config{DB: w.DB, Vault: w.Vault, Audit: w.Audit, People: w.Accounts, Agents: w.Agents, Connections: w.Connections, PublicURL: w.PublicURL, Now: w.Clock.Now, Logger: w.Logger,
		OnAsked: func(ctx context.Context, tx *sqldb.Tx, a session.Asked) error {
			if w.OnAsked == nil {
				return nil
			}
			return w.OnAsked(ctx, tx, a)
		}})
	w.Credentials = credential.New(credential.Config{DB: w.DB, Vault: w.Vault, Audit: w.Audit, People: w.Accounts, Connections: w.Connections, Providers: w.Providers,
		Outbound: w.Outbound, Sources: w.Sources, PublicURL: w.PublicURL, OnTicket: w.onTicket, Now: w.Clock.Now, Logger: w.Logger})
	*sessions, *credentials = w.Sessions, w.Credentials
	w.Sessions.Start()
	t.Cleanup(w.Sessions.Stop)
	w.Credentials.Start()
	t.Cleanup(w.Credentials.Stop)
	w.Gateway = gateway.New(gateway.Config{Sessions: w.Sessions, Credentials: w.Credentials, Connections: w.Connections, Providers: w.Providers,
		Audit: w.Audit, Outbound: w.Outbound, SessionRate: 1e6, Telemetry: w.Telemetry, Now: w.Clock.Now, Logger: w.Logger})
}

func (w *World) onTicket(ctx context.Context, tx *sqldb.Tx, ticket id.Ticket, c connection.Connection) error {
	if w.OnTicket == nil {
		return errors.New("nobody keeps connect tokens")
	}
	return w.OnTicket(ctx, tx, ticket, c)
}

// KeyProvider adds the provider that the sandbox is with an API key, under slug.
func (w *World) KeyProvider(t testing.TB, slug string) {
	t.Helper()
	w.Put(t, strings.Replace(sandbox.KeyRecord(w.Sandbox.URL), "id: sandbox_key", "id: "+slug, 1))
}

// PlainProvider is KeyProvider without fields that are cut, so that a raw request
// may be answered with anything.
func (w *World) PlainProvider(t testing.TB, slug string) {
	t.Helper()
	var kept strings.Builder
	for line := range strings.Lines(strings.Replace(sandbox.KeyRecord(w.Sandbox.URL), "id: sandbox_key", "id: "+slug, 1)) {
		if !strings.HasPrefix(line, "cut:") {
			kept.WriteString(line)
		}
	}
	w.Put(t, kept.String())
}

// OAuthProvider adds the provider that the sandbox is by OAuth, with one client for
// all organizations.
func (w *World) OAuthProvider(t testing.TB) {
	t.Helper()
	_, err := w.Providers.Put(t.Context(), w.System.In(w.Environment), provider.Input{YAML: []byte(sandbox.Record(w.Sandbox.URL)),
		ClientID: "ambit-test", ClientSecret: secret.FromString("sbxs_" + SandboxKey), For: provider.ForAll, AcceptShared: true}, account.Agreement{})
	Must(t, err)
}

// Put adds a provider from its record.
func (w *World) Put(t testing.TB, record string) {
	t.Helper()
	_, err := w.Providers.Put(t.Context(), w.System.In(w.Environment), provider.Input{YAML: []byte(record)}, account.Agreement{})
	Must(t, err)
}

// Connect connects an account with the API key: of p, or of the organization
// when shared.
func (w *World) Connect(t testing.TB, p *agenttest.Person, slug string, shared bool) connection.Connection {
	t.Helper()
	by, owner := account.ByPerson(p.Signed(t)).In(w.Environment), p.ID
	if shared {
		by, owner = w.System.In(w.Environment), ""
	}
	c, err := w.Credentials.AddKey(t.Context(), by, credential.Start{Environment: w.Environment, Organization: w.Organization, Provider: slug, OrganizationOwned: shared},
		owner, map[string]secret.Value{provider.FieldAPIKey: secret.FromString(SandboxKey)}, account.Agreement{})
	Must(t, err)
	return c
}

// Agent is an agent that p consented to.
func (w *World) Agent(t testing.TB, p *agenttest.Person, label string) agent.Identity {
	t.Helper()
	return w.Consented(t, p, label).Identity
}

// Ask requests a session for providers.
func (w *World) Ask(t testing.TB, who agent.Identity, slug string, effects ...policy.Effect) session.Requested {
	t.Helper()
	r, err := w.Sessions.Request(t.Context(), who, session.Ask{Providers: []string{slug}, Effects: effects, Purpose: "Look after the issues."}, "127.0.0.1")
	Must(t, err)
	return r
}

// Approve lets p approve a request as it stands, or as change makes it.
func (w *World) Approve(t testing.TB, p *agenttest.Person, a id.Approval, change func(*session.Decision)) {
	t.Helper()
	Must(t, w.TryApprove(t, p, a, change))
}

// TryApprove is Approve for approvals that may be refused.
func (w *World) TryApprove(t testing.TB, p *agenttest.Person, a id.Approval, change func(*session.Decision)) error {
	t.Helper()
	ctx, me := t.Context(), p.Signed(t)
	ap, err := w.Sessions.Approval(ctx, me, a)
	if err != nil {
		return err
	}
	d := w.Sessions.DefaultDecision(ap)
	if change != nil {
		change(&d)
	}
	digest, err := w.Sessions.Digest(ctx, me, a, d)
	if err != nil {
		return err
	}
	_, err = w.Sessions.Approve(ctx, me, a, d, p.Proof(t, digest))
	return err
}

// Active gives the handle of an approved session.
func (w *World) Active(t testing.TB, p *agenttest.Person, who agent.Identity, slug string, effects ...policy.Effect) string {
	t.Helper()
	r := w.Ask(t, who, slug, effects...)
	w.Approve(t, p, r.Session.Approval, nil)
	return r.Handle
}

// Call makes a call through the spine.
func (w *World) Call(t testing.TB, who agent.Identity, handle, tool string, args map[string]any) (gateway.Result, error) {
	t.Helper()
	if args == nil {
		args = map[string]any{}
	}
	doc, err := json.Marshal(args)
	Must(t, err)
	return w.Gateway.Invoke(t.Context(), gateway.Call{Identity: who, Handle: handle, Tool: tool, Arguments: doc, Address: "127.0.0.1"})
}

// Must ends the test on an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
