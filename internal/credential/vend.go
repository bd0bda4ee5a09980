package credential

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Vended is a credential on its way to an application.
type Vended struct {
	Credential provider.Credential
	Version    int64
	Connection connection.Connection // as it was at that moment
	ExpiresAt  time.Time             // zero: it does not, or nobody knows
}

// Vend gives a connection's credential, never its refresh token, to an
// application whose key has the scope for it: the second road of product.md
// rule 2. That it was given is on record before it leaves; a refusal is too.
//
// whom is the user for whom the application says that it asks, of a connection of
// the organization; empty: it did not say. The owner of a connection is always
// named.
func (s *Service) Vend(ctx context.Context, by account.Actor, conn id.Connection, whom id.User) (Vended, error) {
	v, err := s.vend(ctx, by, conn, whom)
	if err != nil {
		rerr := s.audit.Record(ctx, audit.Entry{
			Environment: by.Environment(), Organization: by.Organization(), Actor: by.Audit(), User: whom, Connection: conn, Action: "credential.vended",
			Object: string(conn), Decision: "deny", Rule: "vend", Code: fault.Of(err).Code, Address: by.Address(),
		})
		if rerr != nil {
			s.log.Error("a refusal to vend could not be recorded", "connection", conn, "error", rerr)
		}
	}
	return v, err
}

func (s *Service) vend(ctx context.Context, by account.Actor, conn id.Connection, whom id.User) (Vended, error) {
	if err := application(by); err != nil {
		return Vended{}, err
	}
	if _, err := s.vendable(ctx, s.db.Reader(), by, conn); err != nil {
		return Vended{}, err
	}
	r, err := s.load(ctx, conn)
	if err != nil {
		return Vended{}, err
	}
	if r, err = s.renewed(ctx, r); err != nil {
		return Vended{}, err
	}
	cred, err := s.open(ctx, r)
	if err != nil {
		return Vended{}, err
	}
	maps.DeleteFunc(cred.Values, func(name string, _ secret.Value) bool {
		return strings.HasPrefix(name, slotPrefix) || r.kind == provider.OAuth2 && name == provider.FieldConsumerSecret
	}) // those are for tools, and ours
	var c connection.Connection
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		// Read again in this transaction: nothing is vended of what has ended.
		var err error
		if c, err = s.vendable(ctx, tx, by, conn); err != nil {
			return err
		}
		e := s.entry(r, "credential.vended", "")
		e.Actor, e.Decision, e.Rule, e.Address = by.Audit(), "allow", "vend", by.Address()
		e.User = cmp.Or(e.User, whom)
		e.Detail = map[string]string{"version": fmt.Sprint(r.version), "key_name": by.Name(), "auth_method": c.AuthMethod, "account": c.AccountLabel}
		if len(c.Scopes) > 0 {
			e.Detail["scopes"] = strings.Join(c.Scopes, " ")
		}
		s.audit.AppendEvent(tx, e)
		return nil
	})
	if _, ok := errors.AsType[*fault.Error](err); err != nil && !ok {
		err = fault.New(fault.Unavailable, "audit_unavailable", "The audit log cannot be written, so nothing was vended.").WithHint("Try again shortly.").WithCause(err)
	}
	if err != nil {
		return Vended{}, err
	}
	return Vended{Credential: cred, Version: r.version, Connection: c, ExpiresAt: r.expiresAt}, nil
}

// application refuses whoever is no application with the scope for credentials. That is
// told before a look-up could tell more.
func application(by account.Actor) error {
	if by.Audit().Kind != "api_key" {
		return fault.New(fault.Denied, "api_key_required", "This is for the API keys of applications only.").
			WithHint("Use the API key of an application, with the scope " + account.ScopeConnectionsVend + ".")
	}
	return by.May(by.Organization(), account.VendConnections)
}

// applications reads a connection whose credential by's scope is for; any other is not
// there.
func (s *Service) applications(ctx context.Context, q sqldb.Querier, by account.Actor, conn id.Connection) (connection.Connection, error) {
	c, err := s.connections.ByID(ctx, q, by.Environment(), conn)
	if err != nil {
		return connection.Connection{}, err
	}
	if err := by.May(c.Organization, account.VendConnections); err != nil {
		return connection.Connection{}, fault.New(fault.NotFound, "not_found", "No such connection.").WithCause(err)
	}
	return c, nil
}

// vendable reads a connection that by may have the credential of.
func (s *Service) vendable(ctx context.Context, q sqldb.Querier, by account.Actor, conn id.Connection) (connection.Connection, error) {
	c, err := s.applications(ctx, q, by, conn)
	if err != nil {
		return c, err
	}
	if err := s.people.Vends(ctx, q, c.Organization); err != nil {
		return c, err
	}
	switch c.State {
	case connection.Connected:
		return c, nil
	case connection.NeedsReauth:
		return c, s.connections.MustReconnect(c.ID, "The account must be connected again.")
	}
	return c, fault.New(fault.Conflict, "disconnected", "The connection has ended.").WithHint("Make a new connection.").With("connect_url", s.connections.ReconnectURL(c.ID))
}
