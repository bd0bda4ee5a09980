// Package session is the heart: an agent asks, a person decides, and for a
// limited time calls are permitted. It is the only maker of [Live], a session
// seen active just now for this agent, and of [Permit], the right to make one
// call. Both are read from the database for that call; nothing here authorizes
// from memory.
//
// A session goes pending → active → ended and never back. Expiry counts from
// the approval; nothing extends it. An approval is bound to a digest of exactly
// what it allows (agent, person, connections, tools with the digests of their
// definitions, limits; for one call its canonical arguments), proven by the
// approver's passkey over that digest. A call starts when its intent commits in
// a transaction that locks the session row against a revoke; every revoke,
// whatever its aim, ends the session rows it hits, so no intent commits after it.
package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

// The states of a session, and why one ended.
const (
	Pending = "pending"
	Active  = "active"
	Ended   = "ended"

	Expired   = "expired"
	Revoked   = "revoked"
	Completed = "completed"
	Denied    = "denied"
	Withdrawn = "withdrawn"
)

// What a session rested on, when the end of that ended the session.
const (
	CauseAgent   = "agent_disabled"
	CauseUser    = "user_left"
	CauseAccount = "account_disconnected"
	CauseFirst   = "first_left"   // who approved first, before the second did
	CauseParent  = "parent_ended" // of a sub-agent's, or of a request to widen it
	CauseWidened = "widened"      // the request was granted: it is a part of the session that it widened
)

// Why what a request asks for on one connection cannot be granted as things
// stand.
const (
	LostAccount = "disconnected"          // for good
	LostKey     = "needs_reauthorization" // a reconnect mends it
	LostTool    = "changed"               // a tool is not what it was when the agent asked
)

// The limits of this room. Times in minutes count a session's length.
const (
	MaxPurpose = 2000 // bytes
	MaxCalls   = 10_000

	handleFor      = 7 * 24 * time.Hour // a handle, from when it was made: far longer than any session
	pendingFor     = 15 * time.Minute   // an unanswered request lives this long
	callPendingFor = 10 * time.Minute
	callUsableFor  = 10 * time.Minute // an approved call must be made within

	maxHandles = 8 // of a session; the oldest goes
)

// HandlePrefix starts every session handle.
const HandlePrefix = "sh_"

// Channel carries a notice when a request, an approval or a session changed.
// The payload is the organization's id.
const Channel = "session"

// endedChannel tells nodes to cut the running calls of a session.
const endedChannel = "session_ended"

// Session is one agent's access, asked for or granted.
type Session struct {
	ID            id.Session
	Environment   id.Environment
	Organization  id.Organization
	Agent         id.Agent
	AgentLabel    string // from our records, never the agent's own words
	AgentVerified bool
	User          id.User // whom the agent acts for; of an autonomous agent, the approver
	Purpose       string  // the agent's own words
	State         string
	Reason        string // why it ended
	Cause         string // what it rested on that ended, if that is why
	Minutes       int    // asked for while pending, granted after
	Calls         int    // the most that may start, likewise; 0: no limit
	Used          int    // calls that have started, where there is a limit
	RequestedAt   time.Time
	PendingUntil  time.Time
	ApprovedAt    time.Time
	ExpiresAt     time.Time
	EndedAt       time.Time
	Instructions  string // the approver's words to the agent
	DenyReason    string
	Grants        []Grant // what is asked for while pending, granted after
	Approval      id.Approval
	Parent        id.Session // of a sub-agent's: the session that it is a part of
	Widens        id.Session // of a request to widen a session: which one
	Version       int64

	base          int64 // the version of the session that it is to widen
	asked         asked
	needsUser     bool
	needsApprover bool
}

// Grant is access to one connection.
type Grant struct {
	Connection   id.Connection   `json:"connection_id"`
	Provider     string          `json:"provider"`
	ProviderName string          `json:"provider_name"`
	AccountLabel string          `json:"account"`
	Owner        id.User         `json:"owner_id,omitempty"` // empty: the organization's
	Effects      []policy.Effect `json:"effects"`
	Tools        []ToolRef       `json:"tools"` // every tool that the grant covers
	Confirm      policy.Confirm  `json:"confirm"`
	Limits       []policy.Limit  `json:"limits,omitempty"`
	Had          *Had            `json:"had,omitempty"` // in a request to widen a session: what that has here already
	Lost         string          `json:"-"`             // why it cannot be granted any more, as its connection stands now; empty: it can

	arguments map[string][]string // of a pending one: what each tool takes, by name
}

// ToolRef names a tool and pins its definition.
type ToolRef struct {
	Name   string        `json:"name"`
	Title  string        `json:"title"`
	Effect policy.Effect `json:"effect"`
	Digest string        `json:"digest"` // of the definition, hex
	// Untried says that people are to read "not yet tried live".
	Untried bool `json:"untried,omitempty"`
}

// asked is what a request resolved to when it was made.
type asked struct {
	Grants []Grant `json:"grants"`
}

// Config is what a Service needs. All but Now and Logger are required.
type Config struct {
	DB          *sqldb.DB
	Vault       *vault.Vault
	Audit       *audit.Log
	People      *account.Service
	Agents      *agent.Service
	Connections *connection.Service
	PublicURL   *url.URL
	Now         func() time.Time // must never go backwards within a process
	// OnAsked is told of each new request, in the transaction that makes it. It may be
	// nil.
	OnAsked func(ctx context.Context, tx *sqldb.Tx, a Asked) error
	// Ready says whether Now can be trusted to end what others see too. It may be
	// nil.
	Ready  func() error
	Logger *slog.Logger
}

// Service keeps sessions. Start it for expiry and for cutting running calls
// when another node revokes.
type Service struct {
	db          *sqldb.DB
	vault       *vault.Vault
	audit       *audit.Log
	people      *account.Service
	agents      *agent.Service
	connections *connection.Service
	public      *url.URL
	now         func() time.Time
	ready       func() error
	onAsked     func(ctx context.Context, tx *sqldb.Tx, a Asked) error
	log         *slog.Logger

	running *running
	missed  atomic.Bool // a notice, perhaps
	parsed  *grantCache
	rules   *ruleCache
	waits   chan struct{} // closed when nobody may wait any more
	endOnce sync.Once
	stop    chan struct{}
	wg      sync.WaitGroup
	cancel  func()
}

// New makes a Service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Ready == nil {
		cfg.Ready = func() error { return nil }
	}
	if cfg.OnAsked == nil {
		cfg.OnAsked = func(context.Context, *sqldb.Tx, Asked) error { return nil }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Vault.Keeps(keeps()...)
	return &Service{
		db: cfg.DB, vault: cfg.Vault, audit: cfg.Audit, people: cfg.People, agents: cfg.Agents, connections: cfg.Connections, public: cfg.PublicURL,
		now: cfg.Now, ready: cfg.Ready, onAsked: cfg.OnAsked, log: cfg.Logger, running: newRunning(), parsed: newGrantCache(), rules: newRuleCache(),
		waits: make(chan struct{}), stop: make(chan struct{}),
	}
}

// Start runs expiry and listens for revokes of other nodes, until Stop.
func (s *Service) Start() {
	s.cancel = s.db.Subscribe(endedChannel, func(payload string) {
		if payload == "" { // something may have been missed
			s.missed.Store(true)
			return
		}
		s.running.cut(id.Session(payload), errEnded)
	})
	s.wg.Go(s.watch)
	s.wg.Go(s.expire)
}

// expire marks what has run out. Any number of nodes may do it: an update by
// one leaves nothing for the others.
func (s *Service) expire() {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			if s.ready() != nil {
				continue // by a clock that is off, other nodes' sessions would end
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			if err := s.Sweep(ctx); err != nil {
				s.log.Warn("expired sessions could not be marked", "error", err)
			}
			cancel()
		}
	}
}

// EndWaits makes everybody who waits for a decision get an answer at once, from now on: the server
// stops, and another node can be asked.
func (s *Service) EndWaits() { s.endOnce.Do(func() { close(s.waits) }) }

// Stop ends what Start began, and waits for it.
func (s *Service) Stop() {
	close(s.stop)
	s.wg.Wait()
	s.cancel()
}

func (s *Service) approvalURL(a id.Approval) string {
	return s.public.JoinPath("ui", "approvals", string(a)).String()
}

// newHandle makes the name by which an agent refers to its session: 128 random
// bits. It is looked up together with the agent and user of the token, and is
// worth nothing without them (threats.md S3).
func newHandle() string { return randomName(HandlePrefix) }

func randomName(prefix string) string {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	return prefix + base64.RawURLEncoding.EncodeToString(b)
}

func handleHash(handle string) string { return hexDigest([]byte(handle)) }

func hexDigest(doc []byte) string {
	sum := sha256.Sum256(doc)
	return hex.EncodeToString(sum[:])
}

func notFound() error {
	return fault.New(fault.NotFound, "session_not_found", "No such session.").
		WithHint("Use the session handle that request_session gave you, or request a new session.")
}

func noApproval() error { return fault.New(fault.NotFound, "not_found", "No such request.") }

// changed announces a change to whoever shows the inbox of this organization.
func changed(tx *sqldb.Tx, org id.Organization) { tx.Notify(Channel, string(org)) }
