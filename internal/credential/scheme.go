package credential

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
)

// scheme is one kind of credential: how what a connection keeps becomes what a
// call carries, and how that is made anew. What is common to all of them (who may
// renew, when, how often, and what a failure means) is in refresh.go.
type scheme interface {
	// renew asks for something newer than what order has, at the record's pinned
	// places only. Its failure is a [tokenError] where the provider gave the reason.
	renew(ctx context.Context, s *Service, o order) (grant, error)
	// carries picks what goes into a call. The rest never leaves this room but to
	// be renewed.
	carries(m material) map[string]secret.Value
	// renews reports whether m can be renewed without a person.
	renews(rec provider.Record, m material) bool
}

// order is what a renewal is made of.
type order struct {
	organization id.Organization
	record       provider.Record
	pinned       provider.Pinned
	client       provider.Client // ours at the provider, where it needs one
	have         material
}

func schemeOf(kind provider.Auth) scheme {
	switch kind {
	case provider.OAuth2:
		return oauth{}
	case provider.ClientCredentials:
		return clientCredentials{}
	case provider.JWT:
		return signedToken{}
	case provider.JWTBearer:
		return assertion{}
	case provider.GitHubApp:
		return installation{}
	case provider.AWSAssumeRole:
		return role{}
	}
	return asGiven{}
}

// renew makes what o has anew.
func (s *Service) renew(ctx context.Context, o order) (grant, error) {
	g, err := schemeOf(o.record.Auth).renew(ctx, s, o)
	if g.member == nil {
		g.member = func(string) (string, bool) { return "", false }
	}
	return g, err
}

// client opens our client at a connection's provider, where its kind needs one.
func (s *Service) client(ctx context.Context, c connection.Connection) (provider.Client, error) {
	if !c.Record.NeedsClient() {
		return provider.Client{}, nil
	}
	return s.providers.Client(ctx, c.Environment, c.Provider, c.Pinned)
}

// errNothing says that a kind of credential has nothing to renew.
var errNothing = errors.New("nothing to renew")

// asGiven is what is used as a person gave it.
type asGiven struct{}

func (asGiven) renew(context.Context, *Service, order) (grant, error) { return grant{}, errNothing }
func (asGiven) carries(m material) map[string]secret.Value            { return m.values }
func (asGiven) renews(provider.Record, material) bool                 { return false }

// oauth renews with a refresh token (RFC 6749 §6).
type oauth struct{}

func (oauth) renew(ctx context.Context, s *Service, o order) (grant, error) {
	p := o.record.OAuth
	if p.Refresh.Swap != nil {
		return s.swap(ctx, o.pinned.Refreshing(), p.Refresh.Swap, o.client, o.have.values[provider.FieldAccessToken])
	}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {string(o.have.values[fieldRefreshToken].Reveal())}}
	for _, params := range []map[string]string{p.TokenParams, p.Refresh.Params} {
		for k, v := range params {
			form.Set(k, v)
		}
	}
	if len(p.Slots) > 0 {
		if name, _ := firstToEnd(p, o.have); name != "" {
			slot, _ := p.Slot(name)
			return s.renewSlot(ctx, o, slot, form)
		}
	}
	return s.ask(ctx, o.pinned.Refreshing(), p, o.client, form)
}

func (oauth) carries(m material) map[string]secret.Value { return only(m, provider.FieldAccessToken) }
func (oauth) renews(rec provider.Record, m material) bool {
	return !m.values[fieldRefreshToken].IsZero() || rec.OAuth != nil && rec.OAuth.Refresh.Swap != nil
}

// swap asks for a newer token with the one that there is. Both go in the query, as
// the providers want it, and no address is ever logged.
func (s *Service) swap(ctx context.Context, endpoint string, how *provider.Swap, client provider.Client, token secret.Value) (grant, error) {
	var g grant
	err := s.asClient(ctx, client, func(client provider.Client) error {
		q := url.Values{"grant_type": {how.Grant}, how.Token: {string(token.Reveal())}}
		if how.Client != "none" {
			q.Set("client_secret", string(client.Secret.Reveal()))
		}
		if how.Client == "both" {
			q.Set("client_id", client.ID)
		}
		resp, err := s.sendWithin(ctx, http.MethodGet, endpoint, endpoint+"?"+q.Encode(), http.Header{"Accept": {"application/json"}}, nil)
		if err != nil {
			return unanswered(err)
		}
		g, err = parseGrant(resp, "", s.now())
		return err
	})
	return g, err
}

// minted is common to the kinds whose parts live long.
type minted struct{}

func (minted) carries(m material) map[string]secret.Value { return only(m, provider.FieldAccessToken) }
func (minted) renews(provider.Record, material) bool      { return true }

func only(m material, names ...string) map[string]secret.Value {
	out := map[string]secret.Value{}
	for _, n := range names {
		if v, ok := m.values[n]; ok {
			out[n] = v
		}
	}
	return out
}

// clientCredentials asks with the connection's own client (RFC 6749 §4.4).
type clientCredentials struct{ minted }

func (clientCredentials) renew(ctx context.Context, s *Service, o order) (grant, error) {
	m := o.record.Mint
	form := url.Values{"grant_type": {"client_credentials"}}
	if len(m.Scopes) > 0 {
		form.Set("scope", strings.Join(m.Scopes, " "))
	}
	for k, v := range m.TokenParams {
		form.Set(k, v)
	}
	g, err := s.ask(ctx, o.pinned.Token, m.OAuth(), ownClient(o.have), form)
	return g.withScopes(m.Scopes), theirs(err)
}

// ownClient is the client that a connection itself is.
func ownClient(m material) provider.Client {
	return provider.Client{ID: string(m.values[provider.FieldClientID].Reveal()), Secret: m.values[provider.FieldClientSecret]}
}

// theirs judges a refusal of what a person gave. A client that is not known is
// theirs here, and not our registration.
func theirs(err error) error {
	if te := (*tokenError)(nil); errors.As(err, &te) && (te.class() == classClient || te.code == "access_denied") {
		return &tokenError{code: codeRejected, status: te.status, retry: te.retry}
	}
	return err
}

// assertion asks with a JWT that it signs (RFC 7523 §2.1), as service accounts of
// Google and connected apps of Salesforce do.
type assertion struct{ minted }

func (assertion) renew(ctx context.Context, s *Service, o order) (grant, error) {
	m := o.record.Mint
	signed, _, err := sign(o, s.now(), assertionLife)
	if err != nil {
		return grant{}, err
	}
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {string(signed.Reveal())}}
	for k, v := range m.TokenParams {
		form.Set(k, v)
	}
	p := m.OAuth()
	p.ClientAuth = "assertion"
	g, err := s.ask(ctx, o.pinned.Token, p, provider.Client{}, form)
	return g.withScopes(m.Scopes), theirs(err)
}

// signedToken signs what a call carries, and asks nobody, as Snowflake's key pairs
// do.
type signedToken struct{ minted }

func (signedToken) renew(_ context.Context, s *Service, o order) (grant, error) {
	token, life, err := sign(o, s.now(), tokenLife)
	return grant{access: token, lifetime: life}, err
}

// installation asks for the token of a GitHub App's installation, with a JWT of
// the app.
type installation struct{ minted }

func (installation) renew(ctx context.Context, s *Service, o order) (grant, error) {
	signed, err := signApp(o, s.now())
	if err != nil {
		return grant{}, err
	}
	header := http.Header{"Accept": {"application/vnd.github+json"}, "Authorization": {"Bearer " + string(signed.Reveal())}}
	at := strings.TrimRight(o.pinned.Token, "/") + "/" + url.PathEscape(string(o.have.values[provider.FieldInstallationID].Reveal())) + "/access_tokens"
	resp, err := s.sendWithin(ctx, http.MethodPost, o.pinned.Token, at, header, []byte{})
	if err != nil {
		return grant{}, unanswered(err)
	}
	return installationGrant(resp, s.now())
}

// role assumes a role in a customer's AWS account with our own keys. The
// organization's id is the external id: nobody can have us assume a role that
// trusts us for somebody else (the confused deputy of AWS's own guide).
type role struct{}

func (role) renews(provider.Record, material) bool { return true }
func (role) carries(m material) map[string]secret.Value {
	return only(m, provider.FieldAccessKeyID, provider.FieldSecretAccessKey, provider.FieldSessionToken)
}

// onto puts what a renewal brought over what there was.
func (g grant) onto(old material) material {
	m := material{values: maps.Clone(old.values)}
	if m.values == nil {
		m.values = map[string]secret.Value{}
	}
	if !g.access.IsZero() {
		m.values[provider.FieldAccessToken] = g.access
	}
	if !g.refresh.IsZero() { // a provider that sends none leaves the old one in force (RFC 6749 §6)
		m.values[fieldRefreshToken] = g.refresh
	}
	maps.Copy(m.values, g.parts)
	return m
}

func (g grant) withScopes(asked []string) grant {
	if g.scopes == nil && len(asked) > 0 {
		g.scopes = asked
	}
	return g
}
