// Package credential obtains, keeps fresh, uses and gives back what connections
// hold. It is the only room that opens a connection's credential, and it does so
// on three roads (product.md rule 2): for a [session.Permit], to make one call;
// for upkeep (refresh, identity, revocation), sent to the connection's own
// pinned endpoints and returned to nobody; and, later, to vend to an application.
//
// A refresh token that is used twice usually kills the whole grant, so exactly
// one owner over all nodes refreshes a version of a credential. The owner takes
// a lease by compare-and-swap on that version, sends under a context of its own
// that no caller can cancel, and makes the answer durable before anybody gets
// it; everybody else waits for the version to move. See refresh.go.
package credential

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/source"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

// Config is what a Service needs. All but Now and Logger are required.
type Config struct {
	DB          *sqldb.DB
	Vault       *vault.Vault
	Audit       *audit.Log
	People      *account.Service
	Connections *connection.Service
	Providers   *provider.Store
	Outbound    *outbound.Client
	Sources     *source.Sources // of secrets that stay elsewhere; nil: there are none
	PublicURL   *url.URL
	// Alone says that no other process works on the database, so that what an
	// earlier one was doing is over.
	Alone bool
	// OnTicket is told of a connection that was begun with a connect token, in the
	// transaction that stores it; what it refuses is not connected. nil refuses all.
	OnTicket func(ctx context.Context, tx *sqldb.Tx, ticket id.Ticket, c connection.Connection) error
	Now      func() time.Time
	Logger   *slog.Logger
}

// Service keeps credentials. Start it for revocations that must be retried.
type Service struct {
	db          *sqldb.DB
	vault       *vault.Vault
	audit       *audit.Log
	people      *account.Service
	connections *connection.Service
	providers   *provider.Store
	outbound    *outbound.Client
	sources     *source.Sources
	public      *url.URL
	onTicket    func(ctx context.Context, tx *sqldb.Tx, ticket id.Ticket, c connection.Connection) error
	now         func() time.Time
	log         *slog.Logger
	owner       string // of the leases of this process
	alone       bool

	refreshing singleflight.Group
	looking    singleflight.Group // at MCP servers
	sealed     sealedCache
	work       work
	background context.Context // of refreshes, which outlive their callers
	cancel     context.CancelFunc
	wake       chan struct{}   // revocations have come in that are not to wait for the next round
	running    context.Context // until Stop: of what may be left for the next process
	stop       context.CancelFunc
}

// work counts the goroutines that Stop waits for, and admits none after it.
type work struct {
	mu      sync.Mutex
	stopped bool
	wg      sync.WaitGroup
}

func (w *work) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.wg.Add(1)
	}
	return !w.stopped
}

func (w *work) end() { w.wg.Done() }

func (w *work) finish() {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
	w.wg.Wait()
}

// New makes a Service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.OnTicket == nil {
		cfg.OnTicket = func(context.Context, *sqldb.Tx, id.Ticket, connection.Connection) error {
			return fault.New(fault.Internal, "no_tickets", "Nobody keeps connect tokens here.")
		}
	}
	s := &Service{onTicket: cfg.OnTicket, db: cfg.DB, vault: cfg.Vault, audit: cfg.Audit, people: cfg.People, connections: cfg.Connections, providers: cfg.Providers, outbound: cfg.Outbound,
		sources: cfg.Sources, public: cfg.PublicURL, now: cfg.Now, log: cfg.Logger}
	s.vault.Keeps(keeps()...)
	s.owner, s.alone, s.wake = rand.Text(), cfg.Alone, make(chan struct{}, 1)
	s.sealed.byConnection = map[id.Connection]row{}
	s.background, s.cancel = context.WithCancel(context.Background())
	s.running, s.stop = context.WithCancel(s.background)
	return s
}

// Start retries revocations that a provider could not take, until Stop.
func (s *Service) Start() {
	if s.alone {
		ctx, cancel := context.WithTimeout(s.running, writeLimit)
		defer cancel()
		if err := s.db.Update(ctx, releaseLeases); err != nil {
			s.log.Warn("refreshes that an earlier run began are waited for, since their leases could not be ended", "error", err)
		}
	}
	for _, loop := range []func(){s.retryRevocations, s.keepUp} {
		if s.work.begin() {
			go loop()
		}
	}
}

// Stop waits for refreshes that are under way: their answers must not be lost.
// It waits at most 45 s; an answer that the database has not taken by then is.
func (s *Service) Stop() {
	s.stop()
	late := time.AfterFunc(stopGrace, s.cancel)
	s.work.finish()
	late.Stop()
	s.cancel()
}

// Token gives the credential of a permitted call and the version that it is,
// refreshed if it is about to expire.
func (s *Service) Token(ctx context.Context, p session.Permit) (provider.Credential, int64, error) {
	if !p.Valid() {
		return provider.Credential{}, 0, fault.New(fault.Internal, "no_permit", "A credential was asked for without a permit.")
	}
	r, err := s.current(ctx, p.Connection(), p.CredentialVersion())
	if err != nil {
		return provider.Credential{}, 0, err
	}
	if r, err = s.renewed(ctx, r); err != nil {
		return provider.Credential{}, 0, err
	}
	if err := s.permits(ctx, p, r); err != nil {
		return provider.Credential{}, 0, err
	}
	cred, err := s.openSlot(ctx, r, slotOf(p))
	return cred, r.version, err
}

// slotOf is the slot of the tool that a permit is for.
func slotOf(p session.Permit) string {
	t, _ := p.Record().Tool(p.Tool())
	return t.Slot
}

// earlyWait is how long a caller whose token still works waits for a newer one.
const earlyWait = 3 * time.Second

// renewed gives a row that has not expired, refreshed when it is about to. One that
// holds several tokens is refreshed one token after the other.
func (s *Service) renewed(ctx context.Context, r row) (row, error) {
	for range 1 + maxSlots {
		fresh, err := s.renewedOnce(ctx, r)
		if err != nil || fresh.version == r.version || !fresh.expired(s.now()) {
			return fresh, err
		}
		r = fresh
	}
	return r, nil
}

// maxSlots is how many more tokens a connection can hold.
const maxSlots = 5

// renewedOnce refreshes what ends first. While it works, a refresh that fails or
// takes long holds nobody up.
func (s *Service) renewedOnce(ctx context.Context, r row) (row, error) {
	now := s.now()
	if !r.stale(now) {
		return r, nil
	}
	if r.expired(now) {
		return s.refresh(ctx, r)
	}
	if !r.refreshable {
		return r, nil
	}
	newest, err := s.load(ctx, r.connection)
	if err != nil {
		return row{}, err
	}
	if newest.version != r.version {
		s.sealed.put(newest)
		return newest, nil
	}
	if newest.leased(now) || newest.nextAttempt.After(now) {
		return r, nil // somebody is at it, or was when they died; or it failed just now
	}
	wait, cancel := context.WithTimeout(ctx, earlyWait)
	defer cancel()
	fresh, err := s.refresh(wait, r)
	if err != nil {
		s.log.Warn("a credential could not be refreshed early", "connection", r.connection, "error", err)
		return r, nil
	}
	return fresh, nil
}

// permits refuses a credential that is newer than the permit if a reconnect with
// another record brought it: the permit's hosts are not those it belongs to
// (product.md rule 6). A refresh changes no record.
func (s *Service) permits(ctx context.Context, p session.Permit, r row) error {
	if r.version == p.CredentialVersion() {
		return nil
	}
	c, err := s.connections.ByID(ctx, s.db.Reader(), p.Environment(), p.Connection())
	if err != nil {
		return err
	}
	if c.State != connection.Connected {
		return s.connections.MustReconnect(c.ID, "The account must be connected again.")
	}
	if c.Record.Digest() != p.Record().Digest() {
		return fault.New(fault.Denied, "approval_stale", "The account was connected anew while this call was on its way.").WithHint("Make the call again.")
	}
	return nil
}

// Refresh gives a newer credential than version, which the provider refused. Of
// many callers with the same version one refreshes.
func (s *Service) Refresh(ctx context.Context, p session.Permit, version int64) (provider.Credential, int64, error) {
	if !p.Valid() {
		return provider.Credential{}, 0, fault.New(fault.Internal, "no_permit", "A credential was asked for without a permit.")
	}
	r, err := s.load(ctx, p.Connection())
	if err != nil {
		return provider.Credential{}, 0, err
	}
	if r.version == version {
		if r, err = s.refresh(ctx, r); err != nil {
			return provider.Credential{}, 0, err
		}
	}
	if err := s.permits(ctx, p, r); err != nil {
		return provider.Credential{}, 0, err
	}
	cred, err := s.openSlot(ctx, r, slotOf(p))
	return cred, r.version, err
}

// Refreshable reports whether a newer credential than the permit's can be had
// without a person.
func (s *Service) Refreshable(ctx context.Context, p session.Permit) bool {
	r, err := s.load(ctx, p.Connection())
	return err == nil && r.refreshable
}

// Rejected is told that a provider refused version of a credential, fresh or
// beyond refreshing. It reports whether the account must be connected again: not
// when the provider's own check of a credential still takes it, for then it was
// the request that was refused, and an agent must not be able to disable an
// account by finding such a request.
func (s *Service) Rejected(ctx context.Context, p session.Permit, version int64) bool {
	r, err := s.load(ctx, p.Connection())
	if err != nil || r.version != version {
		return false // reconnected or refreshed in the meantime
	}
	rec := p.Record()
	if rec.Health != nil || rec.Identity != nil || rec.MCP != nil { // a server's list of tools is its check
		cred, err := s.open(ctx, r)
		if err == nil {
			err = provider.CheckHealth(ctx, s.outbound, p.Pinned(), rec, cred)
		}
		if !fault.Is(err, provider.CodeRefused) {
			return false
		}
	}
	if err := s.needsReauthorization(ctx, r, reasonRejected); err != nil {
		s.log.Warn("a rejected credential could not be marked", "connection", r.connection, "error", err)
	}
	return true
}

// open decrypts a row for use.
func (s *Service) open(ctx context.Context, r row) (provider.Credential, error) {
	return s.openSlot(ctx, r, "")
}

// openSlot is open, for a tool of a slot.
func (s *Service) openSlot(ctx context.Context, r row, slot string) (provider.Credential, error) {
	m, err := s.material(ctx, r)
	if err != nil {
		return provider.Credential{}, err
	}
	values, ok := schemeOf(r.kind).carries(m), true
	if r.kind == provider.OAuth2 {
		if values, ok = m.inSlot(slot, values); !ok {
			return provider.Credential{}, s.connections.MustReconnect(r.connection, "The account was connected without the "+slot+" token that this tool needs.")
		}
	}
	if r.kind == provider.OAuth2 && m.signs() {
		conn, err := s.connections.ByID(ctx, s.db.Reader(), r.environment, r.connection)
		if err != nil {
			return provider.Credential{}, err
		}
		if values, err = s.signing(ctx, conn, m); err != nil {
			return provider.Credential{}, err
		}
	}
	if values, err = s.fetched(ctx, r, values); err != nil {
		return provider.Credential{}, err
	}
	return provider.Credential{Kind: r.kind, Values: values, Party: string(r.connection)}, nil
}

// Kept beside the access token and never injected: the refresh token, and a mark
// of the authorization that all tokens refreshed from it share.
const (
	fieldRefreshToken = "refresh_token"
	fieldGrant        = "grant"
)

// material is an opened credential.
type material struct{ values map[string]secret.Value }

// sameGrant reports whether two credentials come from one authorization, or may:
// those of before the mark was kept do not say.
func (m material) sameGrant(o material) bool {
	a, b := m.values[fieldGrant], o.values[fieldGrant]
	return a.IsZero() || b.IsZero() || a.Equal(b)
}

func (s *Service) material(ctx context.Context, r row) (material, error) {
	if len(r.envelope) == 0 {
		return material{}, s.connections.MustReconnect(r.connection, "The account's credential was removed.")
	}
	plain, err := s.vault.Open(ctx, r.place(), r.envelope)
	if fault.Is(err, vault.CodeKeyMissing) { // it was put under another key while we kept it in memory
		s.sealed.drop(r.connection)
		if fresh, lerr := s.load(ctx, r.connection); lerr == nil && fresh.version == r.version {
			plain, err = s.vault.Open(ctx, fresh.place(), fresh.envelope)
		}
	}
	if err != nil {
		return material{}, err
	}
	var raw map[string]string
	if err := json.Unmarshal(plain.Reveal(), &raw); err != nil {
		return material{}, fmt.Errorf("reading a credential: %T", err)
	}
	m := material{values: map[string]secret.Value{}}
	for k, v := range raw {
		m.values[k] = secret.FromString(v)
	}
	return m, nil
}

// seal encrypts m for the place of r. It must run outside transactions.
func (s *Service) seal(ctx context.Context, r row, m material) ([]byte, error) {
	raw := map[string]string{}
	for k, v := range m.values {
		if !v.IsZero() {
			raw[k] = string(v.Reveal())
		}
	}
	doc, err := json.Marshal(raw)
	if err != nil {
		return nil, fmt.Errorf("encoding a credential: %T", err)
	}
	defer clear(doc)
	return s.vault.Seal(ctx, r.place(), secret.New(doc))
}

// sealedCache keeps the newest sealed row of each connection, so that a call
// whose version is known reads nothing. It holds ciphertext only.
type sealedCache struct {
	mu           sync.Mutex
	byConnection map[id.Connection]row
}

const maxSealed = 10_000

func (c *sealedCache) get(conn id.Connection, version int64) (row, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.byConnection[conn]
	return r, ok && r.version == version
}

func (c *sealedCache) put(r row) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.byConnection) >= maxSealed {
		clear(c.byConnection)
	}
	c.byConnection[r.connection] = r
}

func (c *sealedCache) drop(conn id.Connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byConnection, conn)
}

// current gives the row of a version that the database has just named.
func (s *Service) current(ctx context.Context, conn id.Connection, version int64) (row, error) {
	if r, ok := s.sealed.get(conn, version); ok {
		return r, nil
	}
	r, err := s.load(ctx, conn)
	if err == nil {
		s.sealed.put(r)
	}
	return r, err
}

func (s *Service) load(ctx context.Context, conn id.Connection) (row, error) {
	r, err := loadRow(ctx, s.db.Reader(), conn)
	if sqldb.NoRows(err) {
		return row{}, s.connections.MustReconnect(conn, "The account has no credential.")
	}
	if err != nil {
		return row{}, sqldb.Wrap("load a credential", err)
	}
	return r, nil
}
