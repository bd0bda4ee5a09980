package connection

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Config is what a Service needs.
type Config struct {
	DB        *sqldb.DB
	Audit     *audit.Log
	PublicURL *url.URL // of the pages on which people connect accounts
	// OnEnded runs in the transaction in which a connection ends: sessions that
	// use it end, and its credential is put down for revocation, or nothing
	// happens at all.
	OnEnded func(ctx context.Context, tx *sqldb.Tx, c Connection) error
	// OnChange is told in its transaction of what happens to a connection.
	OnChange func(ctx context.Context, tx *sqldb.Tx, ch Change) error
	Now      func() time.Time
}

// Service is the room's door.
type Service struct {
	cfg     Config
	library provider.Library
}

// New makes a Service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.OnEnded == nil {
		cfg.OnEnded = func(context.Context, *sqldb.Tx, Connection) error { return nil }
	}
	if cfg.OnChange == nil {
		cfg.OnChange = func(context.Context, *sqldb.Tx, Change) error { return nil }
	}
	return &Service{cfg: cfg}
}

// Fresh is a connection about to be made, after the provider said whose account
// it is.
type Fresh struct {
	ID                id.Connection // made by the caller, who has sealed the credential under it
	Environment       id.Environment
	Organization      id.Organization
	Owner             id.User
	Record            provider.Record
	Account           provider.Account
	AuthMethod        string
	Scopes            []string
	Asked             []string           // scopes; what is not among Scopes was not granted
	Client            provider.ClientRef // of ours, that the grant was given to
	CredentialVersion int64
}

// MayConnect says whether the actor may make a connection for this owner. A
// person connects their own accounts; what belongs to the organization needs its
// management. Nobody connects for another person but an application.
func MayConnect(by account.Actor, org id.Organization, owner id.User) error {
	if _, person := by.Person(); person && owner != "" {
		if owner != by.User() {
			return fault.New(fault.NotFound, "not_found", "No such user.")
		}
		return by.May(org, account.UseOwn)
	}
	return by.May(org, account.ManageConnections)
}

// Target finds the connection that a finished authorization belongs to: the one
// that was to be reconnected if it has this very account, else a live one of the
// same owner with this account. None means that a new one is to be made; the
// account of a connection is never replaced by another (threats.md O15).
func (s *Service) Target(ctx context.Context, f Fresh, reconnect id.Connection) (Connection, bool, error) {
	if reconnect != "" {
		c, err := s.ByID(ctx, s.cfg.DB.Reader(), f.Environment, reconnect)
		if err != nil {
			return Connection{}, false, err
		}
		if c.Organization != f.Organization || c.Owner != f.Owner || c.Provider != f.Record.ID {
			return Connection{}, false, notFound()
		}
		if c.Live() && c.AccountID == f.Account.ID && c.Place == f.Record.AccountPlace() {
			return c, true, nil
		}
	}
	if f.Account.ID == "" {
		return Connection{}, false, nil
	}
	const query = `select ` + columns + ` from connection where environment_id = $1 and organization_id = $2 and user_id = $3 and provider = $4
		and account_id = $5 and place = $6 and state <> 'disconnected'`
	c, err := s.one(ctx, s.cfg.DB.Reader(), query, f.Environment, f.Organization, f.Owner, f.Record.ID, f.Account.ID, f.Record.AccountPlace())
	if fault.Is(err, "not_found") {
		return Connection{}, false, nil
	}
	return c, err == nil, err
}

// Create makes the connection in the caller's transaction, which also writes the
// credential.
func (s *Service) Create(ctx context.Context, tx *sqldb.Tx, by account.Actor, f Fresh) (Connection, error) {
	now := s.cfg.Now().UTC().Truncate(time.Microsecond)
	c := Connection{ID: f.ID, Environment: f.Environment, Organization: f.Organization, Owner: f.Owner, Provider: f.Record.ID, CreatedAt: now, Version: 1}
	if c.Environment == "" || c.Organization == "" || c.ID == "" {
		return Connection{}, fault.New(fault.Internal, "connection_incomplete", "A connection needs an environment and an organization.")
	}
	if err := c.renew(f, now); err != nil {
		return Connection{}, err
	}
	digest, err := SaveSnapshot(ctx, tx, c.Environment, f.Record, sqldb.Micros(now))
	if err != nil {
		return Connection{}, err
	}
	if err := s.insert(ctx, tx, c, digest); err != nil {
		return Connection{}, err
	}
	return c, s.tell(ctx, tx, by.Audit(), by.User(), by.Address(), "connection.connected", c, nil, nil)
}

// Reconnect gives c a new credential, the provider's present record and new
// pinned places. The id stays, and with it grants and history. w says that this
// was weighed in the same transaction.
func (s *Service) Reconnect(ctx context.Context, tx *sqldb.Tx, by account.Actor, w account.Weighed, c Connection, f Fresh) (Connection, error) {
	if err := w.For(string(c.ID)); err != nil {
		return Connection{}, err
	}
	switch {
	case !c.Live():
		return Connection{}, fault.New(fault.Conflict, "disconnected", "The connection has ended.").WithHint("Make a new connection.").With("connect_url", s.ReconnectURL(c.ID))
	case c.AccountID != f.Account.ID || c.Place != f.Record.AccountPlace() || c.Provider != f.Record.ID || c.Owner != f.Owner || c.Organization != f.Organization || c.Environment != f.Environment:
		return Connection{}, fault.New(fault.Conflict, "account_differs", "This is another account than the one of the connection.").
			WithHint("Connect it as a new connection.")
	}
	now, had := s.cfg.Now().UTC().Truncate(time.Microsecond), c.Scopes
	if err := c.renew(f, now); err != nil {
		return Connection{}, err
	}
	c.Version++
	digest, err := SaveSnapshot(ctx, tx, c.Environment, f.Record, sqldb.Micros(now))
	if err != nil {
		return Connection{}, err
	}
	if err := s.save(ctx, tx, c, digest); err != nil {
		return Connection{}, err
	}
	if err := s.tell(ctx, tx, by.Audit(), by.User(), by.Address(), "connection.reconnected", c, w.Evidence(), nil); err != nil {
		return Connection{}, err
	}
	return c, s.scopesChanged(ctx, tx, by.Audit(), c, had)
}

// renew takes over what an authorization brought.
func (c *Connection) renew(f Fresh, now time.Time) error {
	for _, scope := range f.Scopes {
		if scope == "" || strings.ContainsFunc(scope, unicode.IsSpace) {
			return fault.New(fault.Internal, "scope_invalid", "A granted scope is empty or holds a blank.")
		}
	}
	if open := f.Record.Open(); len(open) > 0 {
		return fault.New(fault.Internal, "record_open", "The provider's record is not filled in: "+strings.Join(open, ", ")+".")
	}
	c.State, c.Reason = Connected, ""
	c.Place, c.Asked = f.Record.AccountPlace(), append([]string(nil), f.Asked...)
	c.ReauthorizeBy = f.Record.ReauthorizeBy(now)
	c.AccountID, c.AccountLabel, c.AuthMethod = f.Account.ID, f.Account.Label, f.AuthMethod
	c.Record, c.Pinned = f.Record, f.Record.Pinned()
	c.Pinned.Client = f.Client
	c.Scopes = append([]string(nil), f.Scopes...)
	c.CredentialVersion = f.CredentialVersion
	c.UpdatedAt = now
	return nil
}

// Grant notes which scopes a connection has, as its application says it has them.
func (s *Service) Grant(ctx context.Context, tx *sqldb.Tx, by account.Actor, c Connection, scopes []string) error {
	const query = `update connection set scopes = $3, updated_at = $4, version = version + 1 where environment_id = $1 and id = $2 and state <> 'disconnected'`
	if _, err := tx.ExecContext(ctx, query, c.Environment, c.ID, strings.Join(scopes, " "), sqldb.Micros(s.cfg.Now())); err != nil {
		return sqldb.Wrap("update a connection", err)
	}
	was := c.Scopes
	c.Scopes = scopes
	return s.scopesChanged(ctx, tx, by.Audit(), c, was)
}

// Mark records whether the credential works: Connected, or NeedsReauth with a
// stable reason. An ended connection stays ended; a state that is so already is
// left alone. A change is told in the audit.
func (s *Service) Mark(ctx context.Context, tx *sqldb.Tx, by audit.Actor, env id.Environment, conn id.Connection, state State, reason string) error {
	if state != Connected && state != NeedsReauth {
		return fault.New(fault.Internal, "state_invalid", "A connection is ended by Disconnect only.")
	}
	const query = `update connection set state = $3, reason = $4, updated_at = $5, version = version + 1
		where environment_id = $1 and id = $2 and state <> 'disconnected' and state <> $3`
	res, err := tx.ExecContext(ctx, query, env, conn, state, reason, sqldb.Micros(s.cfg.Now()))
	if err != nil {
		return sqldb.Wrap("mark a connection", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return sqldb.Wrap("mark a connection", err)
	}
	c, err := s.ByID(ctx, tx, env, conn)
	if err != nil {
		return err
	}
	action := "connection.recovered"
	if state == NeedsReauth {
		action = "connection.needs_reauthorization"
	}
	return s.tell(ctx, tx, by, "", "", action, c, nil, nil)
}

// Move pins other places of the same record, which the provider named with a new
// token and the record allows (product.md rule 6). What was approved for the old
// ones is approved for them no more.
func (s *Service) Move(ctx context.Context, tx *sqldb.Tx, by audit.Actor, env id.Environment, conn id.Connection, rec provider.Record) error {
	const query = `update connection set pinned = $3, updated_at = $4, version = version + 1 where environment_id = $1 and id = $2 and state <> 'disconnected'`
	c, err := s.ByID(ctx, tx, env, conn)
	if err != nil {
		return err
	}
	if rec.TextDigest() != c.Record.TextDigest() || rec.AccountPlace() != c.Place || len(rec.Open()) > 0 {
		return fault.New(fault.Internal, "record_differs", "A connection keeps the record that it was made with.")
	}
	was := c.Pinned
	c.Record, c.Pinned = rec, rec.Pinned()
	c.Pinned.Client = was.Client
	pinned, err := json.Marshal(c.Pinned)
	if err != nil {
		return fmt.Errorf("encode the pinned places of a connection: %w", err)
	}
	if _, err := tx.ExecContext(ctx, query, env, conn, pinned, sqldb.Micros(s.cfg.Now())); err != nil {
		return sqldb.Wrap("move a connection", err)
	}
	s.cfg.Audit.AppendEvent(tx, audit.Entry{Environment: c.Environment, Organization: c.Organization, Actor: by, Connection: c.ID, Action: "connection.moved", Object: string(c.ID),
		Provider: c.Provider, Detail: map[string]string{"from": strings.Join(was.API, " "), "to": strings.Join(c.Pinned.API, " ")}})
	return nil
}

// SetCredential tells the connection which version of its credential is current
// and what it allows, after a refresh. False means that the connection has ended
// or that a newer version is there already.
func (s *Service) SetCredential(ctx context.Context, tx *sqldb.Tx, by audit.Actor, env id.Environment, conn id.Connection, version int64, scopes []string) (bool, error) {
	c, err := s.ByID(ctx, tx, env, conn)
	if err != nil {
		return false, err
	}
	const query = `update connection set credential_version = $3, scopes = $4, updated_at = $5, version = version + 1
		where environment_id = $1 and id = $2 and state <> 'disconnected' and credential_version < $3`
	res, err := tx.ExecContext(ctx, query, env, conn, version, strings.Join(scopes, " "), sqldb.Micros(s.cfg.Now()))
	if err != nil {
		return false, sqldb.Wrap("update a connection", err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return false, sqldb.Wrap("update a connection", err)
	}
	was := c.Scopes
	c.Scopes, c.CredentialVersion = scopes, version
	return true, s.scopesChanged(ctx, tx, by, c, was)
}

// Disconnect ends a connection for good, and with it, in the same transaction,
// every session that uses it. Ending it twice is no error.
func (s *Service) Disconnect(ctx context.Context, by account.Actor, conn id.Connection) (Connection, error) {
	line, _ := by.Counted()
	c, err := s.get(ctx, s.cfg.DB.UrgentReader(line), by, conn)
	if err != nil {
		return Connection{}, err
	}
	if c.Owner == "" || c.Owner != by.User() {
		if err := by.May(c.Organization, account.ManageConnections); err != nil {
			return Connection{}, err
		}
	}
	err = s.cfg.DB.Urgent(ctx, line, func(ctx context.Context, tx *sqldb.Tx) error {
		// Read again: the state may have moved, and a retry starts here.
		if c, err = s.ByID(ctx, tx, by.Environment(), conn); err != nil || !c.Live() {
			return err
		}
		c, err = s.end(ctx, tx, c, "disconnected", by.Audit(), by.User(), by.Address())
		return err
	})
	return c, err
}

// EndOwned ends all connections that a user owns in an organization, in the
// caller's transaction: the user leaves it.
func (s *Service) EndOwned(ctx context.Context, tx *sqldb.Tx, by audit.Actor, env id.Environment, org id.Organization, owner id.User) (int, error) {
	if owner == "" {
		return 0, fault.New(fault.Internal, "owner_missing", "No owner was named.")
	}
	const query = `select ` + columns + ` from connection where environment_id = $1 and organization_id = $2 and user_id = $3 and state <> 'disconnected' order by id`
	list, err := s.many(ctx, tx, query, env, org, owner)
	if err != nil {
		return 0, err
	}
	for _, c := range list {
		if _, err := s.end(ctx, tx, c, "owner_left", by, "", ""); err != nil {
			return 0, err
		}
	}
	return len(list), nil
}

func (s *Service) end(ctx context.Context, tx *sqldb.Tx, c Connection, reason string, by audit.Actor, user id.User, address string) (Connection, error) {
	const query = `update connection set state = 'disconnected', reason = $3, updated_at = $4, ended_at = $4, version = version + 1
		where environment_id = $1 and id = $2 and state <> 'disconnected'`
	now := s.cfg.Now().UTC().Truncate(time.Microsecond)
	if _, err := tx.ExecContext(ctx, query, c.Environment, c.ID, reason, sqldb.Micros(now)); err != nil {
		return c, sqldb.Wrap("end a connection", err)
	}
	c.State, c.Reason, c.UpdatedAt, c.EndedAt = Disconnected, reason, now, now
	c.Version++
	if err := s.cfg.OnEnded(ctx, tx, c); err != nil {
		return c, err
	}
	return c, s.tell(ctx, tx, by, user, address, "connection.disconnected", c, nil, nil)
}

// Adopt gives c the provider's present record in place of the one that it was made
// with: of an MCP server whose tools a person has looked at anew. No credential goes
// anywhere else by it: every place must have the part that is pinned. What agents may
// do does not grow by it either: a tool that is another one, or new, takes a new
// approval (product.md rules 5 and 6).
func (s *Service) Adopt(ctx context.Context, by account.Actor, conn id.Connection, rec provider.Record) (Connection, error) {
	const query = `update connection set record_digest = $3, updated_at = $4, version = $5 where environment_id = $1 and id = $2 and version = $5 - 1`
	var out Connection
	err := s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		c, err := s.get(ctx, tx, by, conn)
		if err != nil {
			return err
		}
		if err := MayConnect(by, c.Organization, c.Owner); err != nil {
			return err
		}
		places := rec.Pinned()
		places.Client = c.Pinned.Client
		switch {
		case !c.Live():
			return fault.New(fault.Conflict, "disconnected", "The connection has ended.").WithHint("Make a new connection.")
		case c.Record.MCP == nil || rec.MCP == nil || rec.ID != c.Provider || len(rec.Open()) > 0:
			return fault.New(fault.Invalid, "not_mcp", "Only the record of an MCP server is adopted so.").WithHint("Reconnect the account.")
		case !reflect.DeepEqual(places, c.Pinned) || !reflect.DeepEqual(c.Record.Injection, rec.Injection) || !reflect.DeepEqual(c.Record.OAuth, rec.OAuth) || rec.Auth != provider.Auth(c.AuthMethod) || rec.AccountPlace() != c.Place || rec.MCP.URL != c.Record.MCP.URL:
			return fault.New(fault.Conflict, "provider_changed", "The provider's record names other places than the account was connected at, or sends its key there in another way.").WithHint("Reconnect the account.")
		case rec.TextDigest() == c.Record.TextDigest():
			out = c
			return nil
		}
		from := c.Record.TextDigest()
		c.Record, c.UpdatedAt = rec, s.cfg.Now().UTC().Truncate(time.Microsecond)
		c.Version++
		digest, err := SaveSnapshot(ctx, tx, c.Environment, rec, sqldb.Micros(c.UpdatedAt))
		if err != nil {
			return err
		}
		if err := written(tx.ExecContext(ctx, query, c.Environment, c.ID, digest[:], sqldb.Micros(c.UpdatedAt), c.Version)); err != nil {
			return err
		}
		s.cfg.Audit.AppendEvent(tx, audit.Entry{Environment: c.Environment, Organization: c.Organization, Actor: by.Audit(), User: by.User(), Address: by.Address(), Connection: c.ID,
			Action: "connection.adopted", Object: string(c.ID), Provider: c.Provider, Detail: map[string]string{"from": hex.EncodeToString(from[:]), "to": hex.EncodeToString(digest[:])}})
		tx.Notify(Channel, string(c.Organization))
		out = c
		return nil
	})
	return out, err
}
