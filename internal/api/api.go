// Package api is the management API, /v1: JSON over HTTP for applications with
// an API key and for command lines with a person's stored login. Its OpenAPI 3.1
// document, /v1/openapi.json, is generated from the code that serves it; there
// is no route that the document does not name. The room decodes, calls the room
// that knows, and encodes; what an actor may do is decided there, except that a
// route names the scopes without which an API key does not get any further.
//
// Every request passes one door, [API.enter], before anything is decoded: its
// caller is authenticated from the Authorization header alone (never a cookie),
// an agent's token is turned away whatever the route (threats.md S5), rates are
// held, and a body is read to its limit and checked for ambiguity. No route
// approves anything, and what needs a person's presence answers
// browser_required with the page to open (threats.md S6).
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/custody"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/integration"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/provider/discovery"
	"github.com/ambit-dev/ambit/internal/provider/openapi"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/throttle"
	"github.com/ambit-dev/ambit/internal/vault"
	"github.com/ambit-dev/ambit/internal/webhook"
)

// Config is what an API needs. The rooms and PublicURL are required.
type Config struct {
	People       *account.Service
	Agents       *agent.Service
	Providers    *provider.Store
	Importer     *openapi.Importer
	Finder       *discovery.Finder
	Connections  *connection.Service
	Credentials  *credential.Service
	Integrations *integration.Service
	Sessions     *session.Service
	Audit        *audit.Log
	Vault        *vault.Vault
	Custody      *custody.Service
	Webhooks     *webhook.Service
	// Verify holds the audit log against its chains and checkpoints.
	Verify func(ctx context.Context, progress func(entries int64)) (audit.Report, error)

	PublicURL *url.URL
	// Address gives the client's address. Default: the peer's.
	Address func(*http.Request) string
	// AllowVend lets applications with the scope for it fetch credentials.
	AllowVend bool
	Version   string
	Limits    Limits
	// Heartbeat is how often an audit stream shows a sign of life and looks
	// whether its caller is still allowed. Default 5 s.
	Heartbeat time.Duration
	Logger    *slog.Logger
	Now       func() time.Time
}

// Limits are rates per second and how much may come at once. Zero values take
// the defaults.
type Limits struct {
	CallerRate, AddressRate, FailureRate, RevocationRate     float64
	CallerBurst, AddressBurst, FailureBurst, RevocationBurst int
}

func (l Limits) withDefaults() Limits {
	fill := func(rate *float64, burst *int, r float64, b int) {
		if *rate == 0 {
			*rate = r
		}
		if *burst == 0 {
			*burst = b
		}
	}
	fill(&l.CallerRate, &l.CallerBurst, 50, 200)
	fill(&l.AddressRate, &l.AddressBurst, 2000, 8000)  // before anybody is known: for the database's sake only
	fill(&l.FailureRate, &l.FailureBurst, 0.5, 30)     // requests that nobody stands behind
	fill(&l.RevocationRate, &l.RevocationBurst, 1, 20) // on top of CallerRate
	return l
}

// maxKeys bounds the memory of each limiter.
const maxKeys = 50_000

// API serves /v1. It is safe for concurrent use.
type API struct {
	cfg  Config
	log  *slog.Logger
	now  func() time.Time
	base string // public URL without a slash at its end

	mux      *http.ServeMux
	huma     huma.API
	document []byte

	callers, addresses, failures, revocations *throttle.Limiter

	verifying sync.Mutex
	streams   streams
	stop      chan struct{}
	stopOnce  sync.Once
}

// New builds the routes and the document.
func New(cfg Config) (*API, error) {
	if cfg.People == nil || cfg.Agents == nil || cfg.Providers == nil || cfg.Importer == nil || cfg.Finder == nil || cfg.Connections == nil || cfg.Credentials == nil || cfg.Integrations == nil || cfg.Sessions == nil ||
		cfg.Audit == nil || cfg.Vault == nil || cfg.Custody == nil || cfg.Webhooks == nil || cfg.Verify == nil || cfg.PublicURL == nil {
		return nil, errors.New("api: the configuration is incomplete")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Address == nil {
		cfg.Address = peer
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = 5 * time.Second
	}
	l := cfg.Limits.withDefaults()
	a := &API{cfg: cfg, log: cfg.Logger, now: cfg.Now, base: strings.TrimRight(cfg.PublicURL.String(), "/"), mux: http.NewServeMux(),
		callers:     throttle.New(l.CallerRate, l.CallerBurst, maxKeys, cfg.Now),
		addresses:   throttle.New(l.AddressRate, l.AddressBurst, maxKeys, cfg.Now),
		failures:    throttle.New(l.FailureRate, l.FailureBurst, maxKeys, cfg.Now),
		revocations: throttle.New(l.RevocationRate, l.RevocationBurst, maxKeys, cfg.Now),
		streams:     streams{open: map[string]int{}}, stop: make(chan struct{}),
	}
	a.huma = newHuma(a, cfg.Version)
	a.routes()
	var err error
	a.document, err = finish(a.huma.OpenAPI())
	return a, err
}

// routes is the table of all that there is.
func (a *API) routes() {
	a.documentRoutes()
	a.loginRoutes()
	a.tenantRoutes()
	a.identityRoutes()
	a.ruleRoutes()
	a.userRoutes()
	a.agentRoutes()
	a.providerRoutes()
	a.connectionRoutes()
	a.ticketRoutes()
	a.webhookRoutes()
	a.vendRoutes()
	a.sessionRoutes()
	a.approvalRoutes()
	a.auditRoutes()
	a.keyRoutes()
	a.custodyRoutes()
	a.secretRoutes()
}

// Stop ends the audit streams, which would otherwise hold a server's shutdown.
func (a *API) Stop() { a.stopOnce.Do(func() { close(a.stop) }) }

// Mount adds /v1/ to a server's routes.
func (a *API) Mount(mux *http.ServeMux) { mux.Handle("/v1/", a) }

// ServeHTTP holds what is true of every request, known route or not.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if h.Get("X-Request-ID") == "" {
		h.Set("X-Request-ID", newRequestID())
	}
	if err := a.outside(r); err != nil {
		a.refuse(w, r, err)
		return
	}
	handler, pattern := a.mux.Handler(r)
	if pattern == "" {
		a.unrouted(w, r, handler)
		return
	}
	a.mux.ServeHTTP(w, r)
}

// unrouted answers in our shape what the mux would answer in plain text.
func (a *API) unrouted(w http.ResponseWriter, r *http.Request, handler http.Handler) {
	said := &headerOnly{header: http.Header{}}
	handler.ServeHTTP(said, r)
	if said.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", said.header.Get("Allow"))
		writeFailure(w, http.StatusMethodNotAllowed, fault.New(fault.Invalid, "method_not_allowed", "This path does not have that method.").
			WithHint("It has: "+said.header.Get("Allow")+"."))
		return
	}
	a.refuse(w, r, fault.New(fault.NotFound, "no_such_route", "There is nothing at this path.").WithHint("All routes are in "+a.base+"/v1/openapi.json."))
}

// headerOnly keeps what a handler says and drops what it writes.
type headerOnly struct {
	header http.Header
	status int
}

func (h *headerOnly) Header() http.Header         { return h.header }
func (h *headerOnly) WriteHeader(status int)      { h.status = status }
func (h *headerOnly) Write(b []byte) (int, error) { return len(b), nil }

// peer is the address at the other end of the connection.
func peer(r *http.Request) string {
	p, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return p.Addr().Unmap().String()
}
