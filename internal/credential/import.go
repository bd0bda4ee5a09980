package credential

import (
	"context"
	"slices"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Tokens are those that an application has of an account already, from a time
// before it used Ambit.
type Tokens struct {
	Access  secret.Value
	Refresh secret.Value
	Expires time.Time // of Access; zero: it does not, or nobody knows
	Scopes  []string
}

// Import makes a connection of tokens that an application has, or gives them to
// the connection that st names. Whose account they open is asked at the provider
// as after a sign-in; a connection of another account is not given them
// (threats.md O15). With a refresh token alone nothing can be asked: the account
// stays unknown, and only a connection of an unknown account takes it.
func (s *Service) Import(ctx context.Context, by account.Actor, st Start, owner id.User, t Tokens) (connection.Connection, error) {
	if by.Audit().Kind != "api_key" {
		return connection.Connection{}, fault.New(fault.Denied, "api_key_required", "Tokens are imported by API keys only.")
	}
	prov, err := s.offered(ctx, by, st, owner)
	if err != nil {
		return connection.Connection{}, err
	}
	if prov.Record.Auth != provider.OAuth2 || prov.Record.OAuth.Signs() {
		return connection.Connection{}, fault.New(fault.Invalid, "auth_method_mismatch", prov.Record.Name+" has no tokens to import.")
	}
	was, err := s.reconnected(ctx, st, owner)
	if err != nil {
		return connection.Connection{}, err
	}
	rec, err := chosen(st, prov.Record, was)
	if err != nil {
		return connection.Connection{}, err
	}
	if rec.Opaque() {
		return connection.Connection{}, fault.New(fault.Invalid, "not_importable", prov.Record.Name+" tells with its tokens where the account is, so they cannot be imported.").
			WithHint("Have the person connect it.")
	}
	g, err := s.imported(t)
	if err != nil {
		return connection.Connection{}, err
	}
	if g.unasked && (was.AccountID != "" || len(rec.Open()) > 0) {
		return connection.Connection{}, fault.New(fault.Invalid, "account_unknown", "Without an access token that works nobody can tell whether this is the same account.").
			WithHint("Send the access token too.")
	}
	slots := material{values: map[string]secret.Value{}}
	_ = g.first(rec.OAuth, slots, s.now())
	g.parts = slots.values
	m := material{values: map[string]secret.Value{provider.FieldAccessToken: g.access, fieldRefreshToken: g.refresh}}
	if err := usable(rec, m); err != nil {
		return connection.Connection{}, err
	}
	client, err := s.clientFor(ctx, st, rec)
	if err != nil && !t.Refresh.IsZero() && !fault.Is(err, "no_client") { // it could not be renewed
		return connection.Connection{}, err
	}
	return s.connect(ctx, by, connection.Fresh{Environment: st.Environment, Organization: st.Organization, Owner: owner, Record: rec, AuthMethod: string(provider.OAuth2),
		Scopes: t.Scopes, Asked: t.Scopes, Client: client}, st, m, g, account.Agreement{})
}

const maxToken = 16 << 10

func (s *Service) imported(t Tokens) (grant, error) {
	g := grant{access: t.Access, refresh: t.Refresh, scopes: slices.Clone(t.Scopes)}
	if t.Access.IsZero() && t.Refresh.IsZero() {
		return g, fault.New(fault.Invalid, "invalid_token_combination", "There is neither an access token nor a refresh token.")
	}
	if t.Access.Len() > maxToken || t.Refresh.Len() > maxToken {
		return g, fault.New(fault.TooLarge, "token_too_large", "A token has at most 16 KiB.")
	}
	if !t.Expires.IsZero() {
		g.lifetime = t.Expires.Sub(s.now())
	}
	if t.Access.IsZero() || g.lifetime < 0 {
		g.lifetime, g.unasked, g.spent = 0, true, true
		if t.Refresh.IsZero() {
			return g, fault.New(fault.Invalid, "invalid_token_combination", "The access token has expired, and there is no refresh token.").
				WithHint("Have the person connect the account again.")
		}
	}
	return g, nil
}

// SetState notes what an application says of a connection: that it works or has to
// be connected again, and which scopes it has. Nil scopes stay as they are.
func (s *Service) SetState(ctx context.Context, by account.Actor, conn id.Connection, state connection.State, scopes []string) (connection.Connection, error) {
	if by.Audit().Kind != "api_key" {
		return connection.Connection{}, fault.New(fault.Denied, "api_key_required", "This is for API keys only.")
	}
	var c connection.Connection
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		var err error
		if c, err = s.connections.ByID(ctx, tx, by.Environment(), conn); err != nil {
			return err
		}
		if err := by.May(c.Organization, account.ManageConnections); err != nil {
			return err
		}
		if scopes != nil {
			if err := s.connections.Grant(ctx, tx, by, c, scopes); err != nil {
				return err
			}
		}
		if state != "" {
			if err := s.connections.Mark(ctx, tx, by.Audit(), c.Environment, c.ID, state, map[connection.State]string{connection.NeedsReauth: "set_by_application"}[state]); err != nil {
				return err
			}
		}
		c, err = s.connections.ByID(ctx, tx, by.Environment(), conn)
		return err
	})
	return c, err
}
