// Package mcpserver is the MCP door for agents: POST /mcp, stateless, for the
// revision 2026-07-28 and for the handshake revisions before it. The front
// (front.go, message.go, revision.go) refuses whatever two readers could read in
// two ways, finds out who calls, and only then looks at what is asked. What an
// agent gets is its tools (tool.go, meta.go) and their answers (call.go,
// result.go); the rules behind them live in session and gateway.
//
// All methods of the stateless revision are answered here and not through the
// SDK's server, for three reasons: an identity would have to travel inside a
// context, a call of the older revisions would outlive the client that made it,
// and decoding a message a dozen times costs more than all the rest of a call. The
// SDK keeps the handshake of the older revisions and gives the wire types.
package mcpserver

import (
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/throttle"
)

// Path is where the door is.
const Path = "/mcp"

// Limits are requests a second and how many may come at once. A zero value
// stands for the default.
type Limits struct {
	AgentRate, AddressRate, FailureRate    float64 // AgentRate also bounds each token
	AgentBurst, AddressBurst, FailureBurst int
}

// The default limits (threats.md W7). Each token has a budget, and all tokens of
// an agent share one of the same size, so that a fresh token sheds nothing; two
// agents of one user share none here (S14). The ceiling of an address comes
// before authentication and only keeps a flood off the database: many agents may
// sit behind one, and none may starve its neighbours. Sessions and users are counted by the gateway,
// for all doors.
func (l Limits) withDefaults() Limits {
	set := func(rate *float64, burst *int, r float64, b int) {
		if *rate == 0 {
			*rate = r
		}
		if *burst == 0 {
			*burst = b
		}
	}
	set(&l.AgentRate, &l.AgentBurst, 50, 200)
	set(&l.AddressRate, &l.AddressBurst, 10_000, 20_000)
	set(&l.FailureRate, &l.FailureBurst, 5, 50)
	return l
}

// Config is what a Server needs. Version, Limits, Logger and Now have defaults.
type Config struct {
	Agents    *agent.Service
	Sessions  *session.Service
	Gateway   *gateway.Gateway
	PublicURL *url.URL
	// Subscribe calls fn on every notice of a channel, as sqldb.DB does.
	Subscribe func(channel string, fn func(payload string)) (cancel func())
	Version   string // of the product, told to clients
	Limits    Limits
	Logger    *slog.Logger
	Now       func() time.Time
}

// Server answers agents. It is safe for concurrent use. Stop it before the HTTP
// server in front: its streams last as long as their clients.
type Server struct {
	agents    *agent.Service
	sessions  *session.Service
	gateway   *gateway.Gateway
	log       *slog.Logger
	origin    string // scheme://host[:port] of the public URL
	challenge string // of every 401
	name      mcp.Implementation

	byToken   *throttle.Limiter
	byAgent   *throttle.Limiter
	byAddress *throttle.Limiter
	failures  *throttle.Limiter
	waits     *waits
	arriving  *throttle.Shares // bodies, by agent

	subscribe    func(channel string, fn func(payload string)) (cancel func())
	streams      *throttle.Shares // by organization
	agentStreams *throttle.Shares
	stop         chan struct{}
	stopOnce     sync.Once

	meta      []metaTool
	handshake http.Handler
}

const throttleKeys = 50_000

// New makes a Server.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Version == "" {
		cfg.Version = "dev"
	}
	l := cfg.Limits.withDefaults()
	base := strings.TrimRight(cfg.PublicURL.String(), "/")
	s := &Server{
		agents: cfg.Agents, sessions: cfg.Sessions, gateway: cfg.Gateway, log: cfg.Logger,
		origin:    strings.ToLower(cfg.PublicURL.Scheme + "://" + cfg.PublicURL.Host),
		challenge: `Bearer resource_metadata="` + base + `/.well-known/oauth-protected-resource` + Path + `", scope="` + agent.Scope + `"`,
		name:      mcp.Implementation{Name: "ambit", Title: "Ambit", Version: cfg.Version, WebsiteURL: base},
		byToken:   throttle.New(l.AgentRate, l.AgentBurst, throttleKeys, cfg.Now),
		byAgent:   throttle.New(l.AgentRate, l.AgentBurst, throttleKeys, cfg.Now),
		byAddress: throttle.New(l.AddressRate, l.AddressBurst, throttleKeys, cfg.Now),
		failures:  throttle.New(l.FailureRate, l.FailureBurst, throttleKeys, cfg.Now),
		waits:     newWaits(),
		subscribe: cfg.Subscribe, streams: throttle.NewShares(maxAllStreams, maxOrgStreams), agentStreams: throttle.NewShares(math.MaxInt, maxStreams), stop: make(chan struct{}),
		arriving: throttle.NewShares(math.MaxInt, maxArriving), // all of them are bounded in front of every door
	}
	s.meta = s.metaTools()
	s.handshake = newHandshake(s.name, cfg.Logger)
	return s
}

// Mount adds the door to mux, for all methods: those that are not POST get a
// 405, whatever else the mux would make of them.
func (s *Server) Mount(mux *http.ServeMux) { mux.Handle(Path, s) }
