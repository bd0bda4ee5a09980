// Package app is the only wiring: it opens the rooms in the order of their
// levels, mounts the doors on one mux, and starts and stops everything.
//
// Reading New from top to bottom shows the whole house; reading handler shows
// every door.
package app

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/api"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/authority"
	"github.com/ambit-dev/ambit/internal/authserver"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/custody"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/integration"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/mail"
	"github.com/ambit-dev/ambit/internal/mcpserver"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/provider/discovery"
	"github.com/ambit-dev/ambit/internal/provider/openapi"
	"github.com/ambit-dev/ambit/internal/proxy"
	"github.com/ambit-dev/ambit/internal/relay"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/telemetry"
	"github.com/ambit-dev/ambit/internal/vault"
	"github.com/ambit-dev/ambit/internal/web"
	"github.com/ambit-dev/ambit/internal/webhook"
	"github.com/ambit-dev/ambit/internal/workos"
)

// App is a server that is open and not yet serving.
type App struct {
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

	cfg        Config
	public     *url.URL
	log        *slog.Logger
	db         *sqldb.DB
	roots      *keyring.Ring
	outbound   *outbound.Client
	gateway    *gateway.Gateway
	telemetry  *telemetry.Telemetry
	clock      *clock
	load       *load
	listen     []net.Listener
	atProxy    []net.Listener
	authority  *authority.Service
	proxy      *proxy.Server // while it runs
	console    *console
	certs      *certificates     // nil without TLS
	pages      *web.Server       // whose live streams would hold a shutdown
	management *api.API          // and so would its audit streams
	tools      *mcpserver.Server // and those of agents
	health     *health
	member     *sqldb.Membership // among the nodes of the database
	joined     bool
	requests   requests
	unrecorded []audit.Entry // what was done while it was sealed
	started    bool
	wg         sync.WaitGroup
	stop       chan struct{}
}

// New opens storage, keys and all rooms, and the addresses to listen on. When
// it returns an error it has closed what it opened. With Config.Sealed it waits,
// and serves sealed, while the root key cannot be used.
func New(ctx context.Context, cfg Config) (*App, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a := &App{cfg: cfg, log: cfg.Logger, stop: make(chan struct{}), load: newLoad(maxStrangers, maxKnown, maxRevocations)}
	waiting := &account.Waiting{}
	for {
		err := a.open(ctx)
		if err == nil {
			a.People.Admit(ctx, waiting)
			for _, e := range a.unrecorded {
				if err := a.Audit.Record(ctx, e); err != nil {
					a.closeAll()
					return nil, err
				}
			}
			a.unrecorded = nil
			return a, nil
		}
		a.closeRooms()
		if cfg.Sealed == nil || !KeyAway(err) {
			closeAll(append(a.listen, a.atProxy...))
			return nil, err
		}
		if err := a.sealed(ctx, err, waiting); err != nil {
			closeAll(a.listen)
			return nil, err
		}
	}
}

// sealed is waitSealed with what it needs of open.
func (a *App) sealed(ctx context.Context, why error, waiting *account.Waiting) error {
	defer a.closeRooms()
	if err := a.observe(ctx); err != nil {
		return err
	}
	var err error
	if a.outbound, err = a.cfg.newOutbound(); err != nil {
		return err
	}
	return a.waitSealed(ctx, why, waiting)
}

// open fills a; what it opened before an error, closeAll closes.
func (a *App) open(ctx context.Context) (err error) {
	cfg := a.cfg
	if cfg.Node == "" {
		host, _ := os.Hostname()
		a.cfg.Node = fmt.Sprintf("%s/%d", host, os.Getpid())
	}
	if a.listen == nil {
		if a.listen, err = listen(cfg.Listen); err != nil {
			return err
		}
	}
	if a.atProxy == nil && cfg.ProxyListen != "" {
		if a.atProxy, err = listen(cfg.ProxyListen); err != nil {
			return atProxy(err)
		}
	}
	if cfg.PublicURL == "" {
		_, port, _ := net.SplitHostPort(a.listen[0].Addr().String())
		scheme := "http"
		if cfg.TLSCert != "" {
			scheme = "https"
		}
		a.cfg.PublicURL = scheme + "://localhost:" + port
	}
	if a.public, err = parsePublic(a.cfg.PublicURL); err != nil {
		return err
	}
	if cfg.TLSCert != "" {
		a.certs = &certificates{cert: cfg.TLSCert, key: cfg.TLSKey, log: cfg.Logger}
		if _, err := a.certs.get(nil); err != nil {
			return err
		}
	}
	if err := a.observe(ctx); err != nil {
		return err
	}
	if a.outbound, err = cfg.newOutbound(); err != nil {
		return err
	}

	// Level 1: storage and the root key.
	if a.db, err = sqldb.Open(ctx, sqldb.Config{DataDir: cfg.DataDir, URL: cfg.DatabaseURL, Logger: cfg.Logger}); err != nil {
		return err
	}
	if err := a.openRoots(ctx); err != nil {
		return err
	}
	if err := a.db.Migrate(ctx); err != nil {
		return err
	}
	if err := a.join(ctx); err != nil {
		return err
	}
	a.clock = newClock(a.db, cfg.Logger)
	if err := a.clock.compare(); err != nil { // before the first call, not soon after it
		return err
	}

	// Levels 2 and 3: the record of everything, sealing, people, agents, providers.
	a.Audit, err = audit.New(ctx, audit.Config{DB: a.db, Keeper: a.roots, CheckpointDir: a.cfg.CheckpointDir, Node: a.cfg.Node, Unwitnessed: cfg.CheckpointRequired, Written: a.telemetry.Entry, Now: a.clock.Now, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	a.Vault = vault.New(vault.Config{DB: a.db, Roots: a.roots, Audit: a.Audit, Now: a.clock.Now, Logger: cfg.Logger})
	if err := a.Vault.AdoptRoot(ctx); err != nil {
		return err
	}
	a.People, err = account.New(account.Config{DB: a.db, Vault: a.Vault, Audit: a.Audit, PublicURL: a.public, Outbound: a.outbound, SignIn: cfg.SignIn, OnUserLeft: a.onUserLeft, Now: a.clock.Now, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	documents, err := agent.ParseHosts(cfg.ClientDocuments)
	if err != nil {
		return err
	}
	a.Agents, err = agent.New(agent.Config{Documents: documents, DB: a.db, Vault: a.Vault, Audit: a.Audit, People: a.People, PublicURL: a.public, Outbound: a.outbound, OnAgentEnded: a.onAgentEnded, Now: a.clock.Now, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	var mailer webhook.Mailer
	if !cfg.Mail.IsZero() {
		if mailer, err = mail.New(cfg.Mail); err != nil {
			return err
		}
	}
	a.Webhooks = webhook.New(webhook.Config{Mail: mailer, DB: a.db, Vault: a.Vault, Audit: a.Audit, People: a.People, Outbound: a.outbound, Kinds: append(slices.Sorted(maps.Keys(connection.Changes())), session.EventAsked), Now: a.clock.Now, Logger: cfg.Logger})
	a.Connections = connection.New(connection.Config{DB: a.db, Audit: a.Audit, PublicURL: a.public, OnEnded: a.onConnectionEnded, OnChange: a.onConnectionChange, Now: a.clock.Now})
	a.Providers, err = provider.New(provider.Config{DB: a.db, Vault: a.Vault, Audit: a.Audit, People: a.People, Outbound: a.outbound, InUse: a.Connections.InUse, Now: a.clock.Now})
	if err != nil {
		return err
	}

	if a.authority, err = authority.New(authority.Config{DB: a.db, Vault: a.Vault, Audit: a.Audit, Now: a.clock.Now}); err != nil {
		return err
	}
	a.Custody = custody.New(custody.Config{DB: a.db, Vault: a.Vault, Audit: a.Audit, People: a.People})

	// Levels 5 to 7: sessions, credentials, the spine.
	a.Sessions = session.New(session.Config{DB: a.db, Vault: a.Vault, Audit: a.Audit, People: a.People, Agents: a.Agents, Connections: a.Connections, PublicURL: a.public, OnAsked: a.onAsked, Now: a.clock.Now, Ready: a.clock.Ready, Logger: cfg.Logger})
	sources, err := cfg.sources(ctx, a.outbound)
	if err != nil {
		return err
	}
	a.Credentials = credential.New(credential.Config{DB: a.db, Vault: a.Vault, Audit: a.Audit, People: a.People, Connections: a.Connections, Providers: a.Providers, Outbound: a.outbound, Sources: sources,
		PublicURL: a.public, Alone: a.db.Engine() == sqldb.SQLite, OnTicket: a.onTicket, Now: a.clock.Now, Logger: cfg.Logger})
	a.Integrations = integration.New(integration.Config{DB: a.db, Audit: a.Audit, People: a.People, Providers: a.Providers, Connections: a.Connections, Credentials: a.Credentials,
		PublicURL: a.public, Vends: cfg.AllowVend, Now: a.clock.Now})
	a.gateway = gateway.New(gateway.Config{Sessions: a.Sessions, Credentials: a.Credentials, Connections: a.Connections, Providers: a.Providers, Audit: a.Audit,
		Outbound: a.outbound, Ready: a.mayCall, SessionRate: cfg.CallRate, Egress: cfg.Egress, Telemetry: a.telemetry, Now: a.clock.Now, Logger: cfg.Logger})
	a.health = a.newHealth()
	a.gauges()
	return nil
}

// openRoots opens the root keys, and holds them against the database before
// anything is written there: a node with another key must leave no trace. Neither
// must one whose database was put back by other means than Restore.
func (a *App) openRoots(ctx context.Context) error {
	fresh, err := vault.Empty(ctx, a.db)
	if err != nil {
		return err
	}
	if fresh && a.cfg.Existing {
		return fault.New(fault.NotFound, "no_database", "No server has ever used this database.").
			WithHint("Is it the right one? Look at AMBIT_DATABASE_URL, and at the search_path of its user, or name another data folder with --data.")
	}
	if a.roots, err = roots(ctx, a.cfg, a.outbound, fresh); err != nil {
		return err
	}
	if a.cfg.Sealed != nil {
		err = rootsUsable(ctx, a.db, a.roots)
	} else {
		err = audit.CheckKey(ctx, a.db, a.roots)
	}
	if err == nil { // before anything new is wrapped
		var primary *keyring.Guard
		if primary, err = vault.PrimaryOf(ctx, a.db, a.roots); err == nil {
			a.roots.SetPrimary(primary.Describe().Ref)
		}
	}
	if err != nil || a.cfg.restoring {
		return err
	}
	return audit.CheckBehind(ctx, a.db, a.cfg.CheckpointDir, actionRestored)
}

// The hooks through which lower rooms end what rests on them, each in the
// transaction of the change.

func (a *App) onUserLeft(ctx context.Context, tx *sqldb.Tx, env id.Environment, org id.Organization, user id.User) error {
	if err := a.Sessions.OnUserLeft(ctx, tx, env, org, user); err != nil {
		return err
	}
	if err := a.Agents.RevokeUser(ctx, tx, env, org, user); err != nil {
		return err
	}
	if org == "" {
		return nil // disabled, not gone: the connections wait for the user
	}
	_, err := a.Connections.EndOwned(ctx, tx, audit.Actor{Kind: "system", ID: "server"}, env, org, user)
	return err
}

func (a *App) onAgentEnded(ctx context.Context, tx *sqldb.Tx, env id.Environment, agent id.Agent) error {
	return a.Sessions.OnAgentEnded(ctx, tx, env, agent)
}

func (a *App) onConnectionEnded(ctx context.Context, tx *sqldb.Tx, c connection.Connection) error {
	if err := a.Sessions.OnConnectionEnded(ctx, tx, c); err != nil {
		return err
	}
	return a.Credentials.OnConnectionEnded(ctx, tx, c)
}

func (a *App) onTicket(ctx context.Context, tx *sqldb.Tx, ticket id.Ticket, c connection.Connection) error {
	return a.Integrations.Connected(ctx, tx, ticket, c)
}

func (a *App) onConnectionChange(ctx context.Context, tx *sqldb.Tx, ch connection.Change) error {
	c := ch.Connection
	return a.Webhooks.Emit(ctx, tx, webhook.Event{ID: ch.ID, Environment: c.Environment, Organization: c.Organization, Kind: ch.Kind, At: ch.At, Data: ch.Data()})
}

func (a *App) onAsked(ctx context.Context, tx *sqldb.Tx, x session.Asked) error {
	return a.Webhooks.Emit(ctx, tx, webhook.Event{ID: x.ID, Environment: x.Environment, Organization: x.Organization, Kind: session.EventAsked, At: x.At, Data: x.Data(), Users: x.Users, Roles: x.Roles})
}

// handler mounts every door.
func (a *App) handler() (http.Handler, error) {
	mux := http.NewServeMux()
	a.tools = mcpserver.New(mcpserver.Config{Agents: a.Agents, Sessions: a.Sessions, Gateway: a.gateway, PublicURL: a.public, Subscribe: a.db.Subscribe, Version: a.cfg.Version, Limits: a.cfg.limits(), Logger: a.log, Now: a.clock.Now})
	a.tools.Mount(mux)
	authserver.New(authserver.Config{Agents: a.Agents, Sessions: a.Sessions, People: a.People, Address: a.address, NoRegistration: a.cfg.NoRegistration, Now: a.clock.Now, Logger: a.log}).Mount(mux)
	importer := openapi.NewImporter(a.outbound)
	finder := discovery.New(discovery.Config{Outbound: a.outbound, Public: a.public, Path: credential.CallbackPath, DocumentPath: web.ClientPath})
	management, err := api.New(api.Config{People: a.People, Agents: a.Agents, Providers: a.Providers, Importer: importer, Finder: finder, Connections: a.Connections, Credentials: a.Credentials, Integrations: a.Integrations,
		Sessions: a.Sessions, Audit: a.Audit, Vault: a.Vault, Custody: a.Custody, Webhooks: a.Webhooks, Verify: a.VerifyAudit, PublicURL: a.public, Address: a.address, AllowVend: a.cfg.AllowVend, Version: a.cfg.Version, Logger: a.log, Now: a.clock.Now})
	if err != nil {
		return nil, err
	}
	management.Mount(mux)
	mux.Handle("POST /hooks/{environment}/{provider}", management.Notices())
	workos.New(workos.Config{People: a.People, Vault: a.Vault, Audit: a.Audit, Integrations: a.Integrations, PublicURL: a.public, Address: a.address, Logger: a.log}).Mount(mux)
	pages, err := web.New(web.Config{People: a.People, Agents: a.Agents, Providers: a.Providers, Importer: importer, Finder: finder, Connections: a.Connections, Credentials: a.Credentials, Integrations: a.Integrations,
		Sessions: a.Sessions, Audit: a.Audit, Vault: a.Vault, Custody: a.Custody, Webhooks: a.Webhooks, Subscribe: a.db.Subscribe, PublicURL: a.public, Address: a.address, Logger: a.log, Now: a.clock.Now})
	if err != nil {
		return nil, err
	}
	pages.Mount(mux)
	a.pages, a.management = pages, management
	a.proxy = proxy.New(proxy.Config{People: a.People, Agents: a.Agents, Sessions: a.Sessions, Gateway: a.gateway, Authority: a.authority, URL: a.ProxyURL(), Logger: a.log})
	a.proxy.Mount(mux)
	mux.HandleFunc("GET /healthz", a.health.alive)
	mux.HandleFunc("GET /readyz", a.health.ready)
	mux.HandleFunc("GET /metrics", a.metrics)
	doors := relay.New(relay.Config{Agents: a.Agents, People: a.People, Integrations: a.Integrations, Gateway: a.gateway, Address: a.address, Logger: a.log, Now: a.clock.Now}).Before(mux)
	return a.watched(a.edge(doors)), nil
}

// PublicURL is where the server is reached.
func (a *App) PublicURL() *url.URL { u := *a.public; return &u }

// ProxyURL is where the forward proxy is reached; empty: there is none.
func (a *App) ProxyURL() string {
	if len(a.atProxy) == 0 {
		return ""
	}
	host, _, _ := net.SplitHostPort(a.cfg.ProxyListen)
	_, port, _ := net.SplitHostPort(a.atProxy[0].Addr().String())
	scheme := "http"
	if a.cfg.TLSCert != "" {
		scheme = "https"
		if !isLoopback(host) {
			host = a.public.Hostname() // for which the certificate is
		}
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// Addresses are those that the server listens on.
func (a *App) Addresses() []string {
	var out []string
	for _, l := range a.listen {
		out = append(out, l.Addr().String())
	}
	return out
}

// VerifyAudit holds the audit log against its chains and checkpoints.
func (a *App) VerifyAudit(ctx context.Context, progress func(entries int64)) (audit.Report, error) {
	return a.verify(ctx, progress)
}

func (a *App) start() {
	a.started = true
	a.roots.Start()
	a.Vault.Start()
	a.Audit.Start()
	a.clock.start()
	a.member.Start()
	a.Agents.Start()
	a.Sessions.Start()
	a.Credentials.Start()
	a.Webhooks.Start()
	a.wg.Go(a.sweep)
}

// sweep forgets what nobody uses any more.
func (a *App) sweep() {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-a.stop:
			return
		case <-tick.C:
			if a.clock.Ready() != nil {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			if err := a.Agents.Sweep(ctx); err != nil {
				a.log.Warn("old rows could not be removed", "error", fault.Of(err).Error())
			}
			if err := a.Vault.Sweep(ctx); err != nil {
				a.log.Warn("deleted secrets could not be purged", "error", fault.Of(err).Error())
			}
			cancel()
		}
	}
}

// closeAll stops in the reverse order of start. It is safe on a half-open App.
func (a *App) closeAll() {
	closeAll(append(a.listen, a.atProxy...))
	a.closeRooms()
}

// closeRooms is closeAll but for the addresses. What it closed can be opened again.
func (a *App) closeRooms() {
	if a.console != nil {
		a.console.close()
	}
	if a.started {
		close(a.stop)
		a.wg.Wait()
		a.Webhooks.Stop()
		a.Credentials.Stop()
		a.Sessions.Stop()
		a.Agents.Stop()
		a.clock.close()
		a.Vault.Stop()
		a.Audit.Stop()
		a.started = false
	} else if a.Audit != nil {
		a.Audit.Stop() // it has begun a run, which is over
	}
	a.Audit = nil
	if a.roots != nil {
		a.roots.Stop()
		a.roots = nil
	}
	a.stopTelemetry()
	if a.joined {
		a.member.Stop()
		a.joined = false
	}
	if a.outbound != nil {
		a.outbound.Close()
		a.outbound = nil
	}
	if a.db != nil {
		if err := a.db.Close(); err != nil {
			a.log.Error("the database did not close cleanly", "error", err)
		}
		a.db = nil
	}
}

// Close releases an App that was never run.
func (a *App) Close() { a.closeAll() }
