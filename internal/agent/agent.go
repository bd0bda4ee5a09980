// Package agent knows the non-human callers: who they are, whose they are, how
// they prove it, and the most they may ever be granted. An agent's token gives
// identity, not access: access is a session, which a person approves. Agents
// are registered by an admin and hold a client secret, or appear when a person
// consents to an OAuth client; the same client is a different agent for each
// person and organization, so two of them share nothing.
//
// Tokens are random, prefixed, and stored as SHA-256 only:
//
//	amb_at_…  access   one hour
//	amb_rt_…  refresh  rotates on use; 30 days after the consent at the latest
//	amb_cs_…  client secret of an agent or of a confidential OAuth client
//
// Every issuance belongs to a family, the row that is locked by whoever adds to
// it and that one update revokes. A refresh token used a second time gets the
// same answer again for 120 seconds while its successor is unused, because
// clients retry; otherwise the family ends (threats.md G2, G3).
package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sync/singleflight"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/issuer"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/throttle"
	"github.com/ambit-dev/ambit/internal/vault"
)

// Scope is that of every token: it says who calls, nothing more. What a client asks for
// beyond it is left out, but for a session (see Asks), which gives no authority either:
// that is the session's (threats.md S7).
const Scope = "ambit"

// Kind says in whose name an agent acts.
type Kind string

const (
	Delegated  Kind = "delegated"  // for its owner
	Autonomous Kind = "autonomous" // for itself; a session's user is then its approver
)

// Agent is a registered non-human identity.
type Agent struct {
	ID           id.Agent
	Environment  id.Environment
	Organization id.Organization
	Name         string
	Verified     bool // Name was given by an admin or by the person at consent
	Kind         Kind
	Owner        id.User
	Client       id.Client
	ClientHost   string // where consent redirected to; empty for client credentials
	Ceiling      policy.Ceiling
	DisabledAt   time.Time
	MutedUntil   time.Time // nobody is asked for anything by it before
	LastSeenAt   time.Time // to the minute
	CreatedAt    time.Time
	Version      int64
}

// Label is what a person decides on. A name that the client gave itself never
// appears in it (product.md §5.1).
func (a Agent) Label() string { return label(a.Name, a.Verified, a.ClientHost) }

func label(name string, verified bool, host string) string {
	if verified {
		return name
	}
	return "unverified client, redirects to " + host
}

// Config is what a Service needs. All fields but Outbound, Now, Logger and
// OnAgentEnded are required.
type Config struct {
	DB        *sqldb.DB
	Vault     *vault.Vault
	Audit     *audit.Log
	People    *account.Service
	PublicURL *url.URL
	// Outbound fetches documents of clients and keys of issuers. Nil fetches none.
	Outbound *outbound.Client
	// Documents says whose client documents count; nil: everybody's.
	Documents Hosts
	// OnAgentEnded ends what an agent has running, in the transaction that
	// disables it.
	OnAgentEnded func(ctx context.Context, tx *sqldb.Tx, env id.Environment, agent id.Agent) error
	Now          func() time.Time
	Logger       *slog.Logger
}

// Service is the room's door. It is safe for concurrent use.
type Service struct {
	db      *sqldb.DB
	vault   *vault.Vault
	audit   *audit.Log
	people  *account.Service
	issuer  string
	onEnded func(ctx context.Context, tx *sqldb.Tx, env id.Environment, agent id.Agent) error
	now     func() time.Time
	log     *slog.Logger

	keys      *issuer.Reader    // of clients, which strangers name
	platforms *issuer.Reader    // that admins trust
	fetches   *throttle.Limiter // of client documents, by who asks and by host
	allowed   Hosts             // where they may lie
	documents singleflight.Group

	seenQueue chan id.Agent
	stop      chan struct{}
	wg        sync.WaitGroup
}

// New makes a Service. Start and Stop it for last_seen_at to be kept.
func New(cfg Config) (*Service, error) {
	if cfg.DB == nil || cfg.Vault == nil || cfg.Audit == nil || cfg.People == nil || cfg.PublicURL == nil {
		return nil, errors.New("agent: the configuration is incomplete")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.OnAgentEnded == nil {
		cfg.OnAgentEnded = func(context.Context, *sqldb.Tx, id.Environment, id.Agent) error { return nil }
	}
	cfg.Vault.Keeps(keeps(kindAccess), keeps(kindRefresh))
	return &Service{
		db: cfg.DB, vault: cfg.Vault, audit: cfg.Audit, people: cfg.People,
		issuer: strings.TrimRight(cfg.PublicURL.String(), "/"), onEnded: cfg.OnAgentEnded, now: cfg.Now, log: cfg.Logger,
		keys: issuer.NewReader(cfg.Outbound, cfg.Now), platforms: issuer.NewConfigured(cfg.Outbound, cfg.Now), fetches: throttle.New(1.0/6, 20, 20_000, cfg.Now), allowed: cfg.Documents,
		seenQueue: make(chan id.Agent, 1024), stop: make(chan struct{}),
	}, nil
}

// Issuer is the identifier of our authorization server: the public URL.
func (s *Service) Issuer() string { return s.issuer }

// Resource is the one audience of agents' tokens: the MCP endpoint.
func (s *Service) Resource() string { return s.issuer + "/mcp" }

// Challenge is the value of WWW-Authenticate for a door that refuses a token or
// got none (RFC 6750, RFC 9728 §5.1). code is empty for a missing token.
func (s *Service) Challenge(code string) string {
	c := `Bearer resource_metadata="` + s.issuer + `/.well-known/oauth-protected-resource/mcp", scope="` + Scope + `"`
	if code != "" {
		c += `, error="` + code + `"`
	}
	return c
}

// audience reads a resource parameter (RFC 8707). The bare origin is accepted
// because some clients send it; what is stored is always Resource.
func (s *Service) audience(resource string) (string, error) {
	switch resource {
	case "", s.Resource(), s.Resource() + "/", s.issuer, s.issuer + "/":
		return s.Resource(), nil
	}
	return "", fault.New(fault.Invalid, "invalid_target", "Tokens of this server are for "+s.Resource()+" only.").
		WithHint("Leave resource out, or send that URL.")
}

const maxNameLen = 80

// checkName accepts a name that a person will read: printable, on one line,
// without the marks that reorder or hide text.
func checkName(name string) error {
	if name == "" || len(name) > 4*maxNameLen || utf8.RuneCountInString(name) > maxNameLen ||
		!utf8.ValidString(name) || strings.TrimSpace(name) != name || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fault.New(fault.Invalid, "invalid_name", "An agent's name is 1 to 80 printable characters on one line.")
	}
	return nil
}

func checkCeiling(c policy.Ceiling) error {
	if len(c.Providers) > 200 {
		return fault.New(fault.Invalid, "invalid_ceiling", "A ceiling names at most 200 providers.")
	}
	for _, p := range c.Providers {
		if p == "" || len(p) > 64 || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return fault.New(fault.Invalid, "invalid_ceiling", "A ceiling names providers by their slug.")
		}
	}
	for _, e := range c.Effects {
		if _, err := policy.ParseEffect(string(e)); err != nil {
			return err
		}
	}
	return nil
}

func notFound() *fault.Error { return fault.New(fault.NotFound, "not_found", "No such agent.") }
