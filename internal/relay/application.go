package relay

import (
	"net/http"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/integration"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/throttle"
)

// keyPrefix begins the API key of an application.
const keyPrefix = "sk_"

// application makes a request for an application, as WorkOS' clients send it: with
// an API key, and with the user in X-Relay-User.
func (s *Server) application(w http.ResponseWriter, r *http.Request, token secret.Value, raw gateway.Raw) (*gateway.Exchange, error) {
	key, err := s.people.AuthenticateKey(r.Context(), token)
	if err != nil {
		return nil, s.failed(r, err)
	}
	by := account.ByKey(key).From(raw.Address)
	group, name := by.Counted()
	if err := throttle.Known(w, group, name); err != nil {
		return nil, err
	}
	if err := by.May(by.Organization(), account.VendConnections); err != nil {
		return nil, err
	}
	names := integration.Names{User: r.Header.Get(HeaderUser), Organization: r.Header.Get(HeaderOrganization)}
	switch {
	case names.User == "":
		return nil, fault.New(fault.Invalid, "relay_user_required", "The request does not say for which user it is.").WithHint("Send " + HeaderUser + ".")
	case raw.Provider == "":
		return nil, fault.New(fault.NotFound, "relay_provider_not_found", "The request does not say of which provider it is.").WithHint("Send " + HeaderProvider + " beside " + HeaderURL + ".")
	}
	aim := integration.Aim{Slug: raw.Provider, Ownership: integration.Users, Names: names, Connection: string(raw.Connection), Plural: true}
	conn, whom, err := s.account(r, by, aim)
	if err != nil {
		return nil, err
	}
	return s.gateway.ExchangeFor(r.Context(), by, conn, whom, raw)
}

// account finds the account that is meant: the user's, or the organization's when
// that is named and the user has none.
func (s *Server) account(r *http.Request, by account.Actor, aim integration.Aim) (id.Connection, id.User, error) {
	_, found, err := s.integrations.Account(r.Context(), by, aim)
	if err != nil && aim.Names.Organization != "" && fault.KindOf(err) == fault.NotFound {
		if _, other, oerr := s.integrations.Account(r.Context(), by, integration.Aim{Slug: aim.Slug, Ownership: integration.Organizations, Names: aim.Names, Connection: aim.Connection, Plural: true}); oerr == nil {
			found, err = other, nil
		}
	}
	switch f := fault.Of(err); {
	case err == nil:
		return found.ID, found.Owner, nil
	case f.Code == "user_not_found":
		return "", "", fault.New(fault.Invalid, "relay_user_not_found", "There is no such user.")
	case f.Code == "not_found":
		return "", "", fault.New(fault.NotFound, "relay_provider_not_found", "There is no such provider.")
	case f.Kind == fault.NotFound:
		if !s.exists(r, by, aim.Names.User) { // and nobody is made by a request for data
			return "", "", fault.New(fault.Invalid, "relay_user_not_found", "There is no such user.")
		}
		missing := fault.New(fault.Denied, connection.CodeConnect, "The user has connected no account there.").WithHint("Send the user to authorization_url, then try again.")
		if aim.Names.Organization == "" { // one would be made for them alone
			return "", "", missing.WithHint("Send the user to authorization_url of the Pipes authorize route, then try again; or name " + HeaderOrganization + ".")
		}
		if to, aerr := s.integrations.Authorize(r.Context(), by, aim, "", nil); aerr == nil {
			missing = missing.With("connect_url", to)
		}
		return "", "", missing
	}
	return "", "", err
}

// exists reports whether a user is there, by our id or the product's.
func (s *Server) exists(r *http.Request, by account.Actor, name string) bool {
	if _, err := s.people.User(r.Context(), by.Environment(), id.User(name)); err == nil {
		return true
	}
	_, err := s.people.UserByExternalID(r.Context(), by.Environment(), name)
	return err == nil
}
