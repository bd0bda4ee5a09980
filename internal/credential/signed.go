package credential

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/failpoint"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
)

// OAuth 1.0 (RFC 5849) connects an account in the same steps as OAuth 2, with other
// words. A temporary token is asked for first, signed by our client and with the
// address to come back to; its secret is kept where the PKCE verifier is otherwise.
// The token is what comes back with the person, as the state does: it counts once,
// for the login that began, and oauth_verifier is the code. Requests are signed with
// our client's secret of the moment, so that a secret that is replaced counts at once.

// signs reports that a credential is a token of OAuth 1.0.
func (m material) signs() bool { return !m.values[provider.FieldTokenSecret].IsZero() }

// signing is what the calls of a connection are signed with.
func (s *Service) signing(ctx context.Context, c connection.Connection, m material) (map[string]secret.Value, error) {
	client, err := s.client(ctx, c)
	if err != nil {
		return nil, err
	}
	return client.Signed(m.values[provider.FieldAccessToken], m.values[provider.FieldTokenSecret]), nil
}

// temporary asks for the token that a person then agrees to (RFC 5849 §2.1).
func (s *Service) temporary(ctx context.Context, st Start, rec provider.Record, ref provider.ClientRef) (token, key secret.Value, err error) {
	if err := s.outbound.Check(ctx, rec.OAuth.RequestURL); err != nil {
		return token, key, err
	}
	pinned := rec.Pinned()
	pinned.Client = ref
	client, err := s.providers.Client(ctx, st.Environment, st.Provider, pinned)
	if err != nil {
		return token, key, err
	}
	back := s.public.JoinPath(OwnCallbackPath(st.Environment, st.Provider, ref.Of)).String()
	g, err := s.ask1(ctx, rec.OAuth.RequestURL, client, secret.Value{}, secret.Value{}, [2]string{"oauth_callback", back})
	if err == nil {
		if said, _ := g.member("oauth_callback_confirmed"); said != "true" { // one of before RFC 5849, which anybody's session could be fixed on
			err = &tokenError{code: "unreadable", status: http.StatusOK}
		}
	}
	if err != nil {
		s.log.Warn("a temporary token could not be had", "provider", st.Provider, "error", err)
		return token, key, fault.New(fault.Unavailable, "exchange_failed", "The provider did not begin a sign-in.").
			WithHint("An admin should check the provider's client id and secret, and that its redirect address is registered there.").WithCause(err)
	}
	return g.access, g.parts[provider.FieldTokenSecret], nil
}

// exchange1 turns what a person agreed to into the token of their account (RFC 5849
// §2.3).
func (s *Service) exchange1(ctx context.Context, f flow, rec provider.Record, token secret.Value, verifier string) (material, grant, error) {
	pinned := rec.Pinned()
	key, client, err := s.resume(ctx, f, pinned)
	if err != nil {
		return material{}, grant{}, err
	}
	g, err := s.ask1(ctx, pinned.Token, client, token, key, [2]string{"oauth_verifier", verifier})
	if err != nil {
		return material{}, grant{}, s.notExchanged(f, err)
	}
	m := g.onto(material{})
	if err := failpoint.Hit("exchange: answered"); err != nil {
		return m, g, err
	}
	return m, g, usable(rec, m)
}

// ask1 makes one signed request for a token. A secret of ours that is being replaced
// is tried too, as with OAuth 2.
func (s *Service) ask1(ctx context.Context, endpoint string, client provider.Client, token, key secret.Value, more [2]string) (grant, error) {
	var g grant
	err := s.asClient(ctx, client, func(client provider.Client) error {
		req, err := client.Ask1(endpoint, token, key, more, s.now())
		if err != nil {
			return err
		}
		resp, err := s.outbound.Do(ctx, outbound.Bound{Bases: []string{endpoint}}, req, tokenLimits)
		if err != nil {
			return unanswered(err)
		}
		g, err = parseGrant1(resp)
		return err
	})
	return g, err
}

const maxToken1 = 4096

// parseGrant1 reads an answer, which is a form whatever its media type says. What a
// failure says besides its status is nothing that is agreed on.
func parseGrant1(resp *outbound.Response) (grant, error) {
	failed := &tokenError{code: "unreadable", status: resp.Status, retry: retryAfter(resp.Header)}
	switch {
	case resp.Status == http.StatusTooManyRequests || resp.Status == http.StatusRequestTimeout || resp.Status >= 500:
		failed.code, failed.sent = "unavailable", resp.Status >= 500
		return grant{}, failed
	case resp.Status == http.StatusUnauthorized || resp.Status == http.StatusForbidden:
		failed.code = "invalid_client" // RFC 5849 §3.2: 401 for the client, its signature, or the token
		return grant{}, failed
	case resp.Status < 200 || resp.Status > 299:
		failed.code = "invalid_request"
		return grant{}, failed
	}
	form, err := url.ParseQuery(strings.TrimSpace(string(resp.Body)))
	token, key := form["oauth_token"], form["oauth_token_secret"]
	if err != nil || len(token) != 1 || len(key) != 1 || !plainToken(token[0]) || !plainToken(key[0]) {
		failed.sent = true
		return grant{}, failed
	}
	return grant{access: secret.FromString(token[0]), parts: map[string]secret.Value{provider.FieldTokenSecret: secret.FromString(key[0])},
		member: func(name string) (string, bool) { v, ok := form[name]; return strings.Join(v, " "), ok }}, nil
}

func plainToken(t string) bool {
	return t != "" && len(t) <= maxToken1 && !strings.ContainsFunc(t, func(r rune) bool { return r < 0x21 || r > 0x7e })
}

// answered1 reads what a provider of OAuth 1.0 sent a person back with, in the words
// of OAuth 2. ok is false where it is none.
func answered1(q url.Values) (in url.Values, ok bool) {
	said := func(name string) bool { return len(q[name]) > 0 }
	if said("state") || said("code") || !said("oauth_token") && !said("denied") {
		return q, false
	}
	in = url.Values{}
	for name, v := range q {
		switch name {
		case "oauth_token", "denied":
			in["state"] = append(in["state"], v...)
		case "oauth_verifier":
			in["code"] = v
		default:
			in[name] = v
		}
	}
	if !said("oauth_verifier") { // X says denied, Trello nothing
		in["error"] = []string{"access_denied"}
	}
	return in, true
}
