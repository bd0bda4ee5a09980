package credential

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Held is what another system has of an account: tokens that the provider gave to
// this very OAuth client.
type Held struct {
	Access    secret.Value
	Refresh   secret.Value      // zero: the access ends with Access
	ExpiresAt time.Time         // of Access; zero: not known
	Scopes    []string          // as granted; none: those that the record always asks for
	Told      map[string]string // what the record captures from callback and token
}

// TakeOver connects an account with tokens that another system has, so that nobody
// has to sign in again. It is Import for whoever may connect, with an account that
// is known. Access must open an account: it is renewed first where it
// has ended. After that only Ambit may refresh: where a provider rotates, the
// other system's refresh token is dead once ours has been used.
func (s *Service) TakeOver(ctx context.Context, by account.Actor, st Start, owner id.User, in Held, ag account.Agreement) (connection.Connection, error) {
	rec, err := s.place(ctx, by, st, owner)
	if err != nil {
		return connection.Connection{}, err
	}
	if rec.Auth != provider.OAuth2 || rec.OAuth.Signs() {
		return connection.Connection{}, fault.New(fault.Invalid, "not_oauth", rec.Name+" is connected with a key, not with tokens.").WithHint("Give the key instead.")
	}
	for _, v := range []secret.Value{in.Access, in.Refresh} {
		if v.Len() > 8<<10 {
			return connection.Connection{}, fault.New(fault.Invalid, "invalid_credential", "A token is over 8 KiB.")
		}
	}
	if rec, err = rec.Bind(in.Told); err != nil {
		return connection.Connection{}, err
	}
	client, err := s.clientFor(ctx, st, rec) // theirs must be the one that accounts here are connected with
	if err != nil {
		return connection.Connection{}, err
	}
	now := s.now()
	g := grant{access: in.Access, refresh: in.Refresh, scopes: in.Scopes, given: true}
	if !in.ExpiresAt.IsZero() {
		g.lifetime = in.ExpiresAt.Sub(now)
	}
	renewed := g.access.IsZero() || g.lifetime < 0
	if renewed {
		if in.Refresh.IsZero() {
			return connection.Connection{}, fault.New(fault.Invalid, "invalid_credential", "There is no access token that has not ended, and no refresh token.").WithHint("Give one of them.")
		}
		if g, err = s.mint(ctx, st, rec, client, material{values: map[string]secret.Value{fieldRefreshToken: in.Refresh}}); err != nil {
			return connection.Connection{}, err
		}
		if g.given = true; g.refresh.IsZero() {
			g.refresh = in.Refresh
		}
		if g.scopes == nil {
			g.scopes = in.Scopes
		}
	}
	if g.scopes == nil {
		g.scopes = rec.OAuth.Scopes.Base
	}
	m := g.onto(material{})
	c, err := s.taken(ctx, by, st, owner, rec, client, m, g, ag)
	if err != nil && renewed && !g.refresh.Equal(in.Refresh) && !sqldb.Uncertain(err) {
		s.takeOverFailed(ctx, by, st, rec, client, m, err)
	}
	return c, err
}

func (s *Service) taken(ctx context.Context, by account.Actor, st Start, owner id.User, rec provider.Record, client provider.ClientRef, m material, g grant, ag account.Agreement) (connection.Connection, error) {
	if err := usable(rec, m); err != nil {
		return connection.Connection{}, err
	}
	return s.connect(ctx, by, connection.Fresh{Environment: st.Environment, Organization: st.Organization, Owner: owner, Record: rec, AuthMethod: string(provider.OAuth2), Scopes: g.scopes, Client: client},
		st, m, g, ag)
}

// takeOverFailed gives back what a refresh brought that nobody will use: the token
// before it, which the caller still has, is dead.
func (s *Service) takeOverFailed(ctx context.Context, by account.Actor, st Start, rec provider.Record, client provider.ClientRef, m material, cause error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	f := flow{environment: st.Environment, organization: st.Organization, startedBy: by.User(), provider: rec.ID, reconnect: st.Reconnect, client: client}
	left := s.giveGrantBack(ctx, f, rec, m)
	if err := s.audit.Record(ctx, abandonedEntry(f, fault.Of(cause).Code, left)); err != nil {
		s.log.Error("what became of tokens that were taken over could not be recorded", "provider", rec.ID, "grant", left, "error", err)
	}
}

// offered is the provider that somebody gives a credential of, if it may be owner's.
func (s *Service) offered(ctx context.Context, by account.Actor, st Start, owner id.User) (provider.Provider, error) {
	if by.Environment() != st.Environment {
		return provider.Provider{}, fault.New(fault.NotFound, "not_found", "No such organization.")
	}
	if err := connection.MayConnect(by, st.Organization, owner); err != nil {
		return provider.Provider{}, err
	}
	if p, ok := by.Person(); ok {
		if err := p.ConnectsAt(st.Provider); err != nil {
			return provider.Provider{}, err
		}
	}
	return s.providers.Get(ctx, st.Environment, st.Provider)
}

// place is where a credential that somebody gives goes: whose it may be, and the
// record with the tenant that was chosen.
func (s *Service) place(ctx context.Context, by account.Actor, st Start, owner id.User) (provider.Record, error) {
	prov, err := s.offered(ctx, by, st, owner)
	if err != nil {
		return provider.Record{}, err
	}
	was, err := s.reconnected(ctx, st, owner)
	if err != nil {
		return provider.Record{}, err
	}
	return chosen(st, prov.Record, was)
}
