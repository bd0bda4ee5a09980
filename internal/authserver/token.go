package authserver

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	var t agent.Tokens
	var exchanged bool
	err := s.authenticated(w, r, func(c agent.Caller, p params) (err error) {
		// Anybody may call in a public client's name, so that only tokens that it
		// was given count against it.
		spend, issued := s.issuances.Allow, func(string) (bool, time.Duration) { return true, 0 }
		if c.Public() {
			spend, issued = s.issuances.Ready, s.issuances.Allow
		}
		if ok, wait := spend(string(c.Client())); !ok {
			return tooMany(wait)
		}
		exchanged = p.get("grant_type") == agent.GrantExchange
		if t, err = s.grant(r, c, p); err == nil {
			issued(string(c.Client()))
		}
		return err
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeTokens(w, t, exchanged)
}

func (s *Server) revoke(w http.ResponseWriter, r *http.Request) {
	err := s.authenticated(w, r, func(c agent.Caller, p params) error {
		if !p.has("token") {
			return missing("token")
		}
		return s.agents.RevokeToken(r.Context(), c, p.secret("token"))
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	noStore(w)
	w.WriteHeader(http.StatusOK)
}

func (s *Server) grant(r *http.Request, c agent.Caller, p params) (agent.Tokens, error) {
	ctx := r.Context()
	switch p.get("grant_type") {
	case agent.GrantCode:
		for _, name := range []string{"code", "redirect_uri", "code_verifier"} {
			if !p.has(name) {
				return agent.Tokens{}, missing(name)
			}
		}
		return s.agents.Exchange(ctx, c, agent.CodeGrant{Code: p.secret("code"), RedirectURI: p.get("redirect_uri"),
			Verifier: p.secret("code_verifier"), Resource: p.get("resource")})
	case agent.GrantRefresh:
		if !p.has("refresh_token") {
			return agent.Tokens{}, missing("refresh_token")
		}
		return s.agents.Refresh(ctx, c, agent.RefreshGrant{Refresh: p.secret("refresh_token"), Resource: p.get("resource")})
	case agent.GrantClientCredentials, agent.GrantAssertion:
		return s.agents.ClientCredentials(ctx, c, p.get("resource"))
	case agent.GrantDevice:
		if !p.has("device_code") {
			return agent.Tokens{}, missing("device_code")
		}
		return s.agents.ExchangeDevice(ctx, c, p.secret("device_code"), p.get("resource"))
	case agent.GrantExchange:
		return s.exchange(r, c, p)
	case "":
		return agent.Tokens{}, missing("grant_type")
	}
	return agent.Tokens{}, fault.New(fault.Invalid, "unsupported_grant_type", "grant_type is one of grant_types_supported in the metadata.")
}

func missing(name string) error {
	return fault.New(fault.Invalid, "invalid_request", name+" is missing.")
}

// authenticated reads the form, authenticates the client, and runs fn. Only what
// failed is counted, and only a failure is answered with the limit: asked before,
// whoever fails on purpose would lock out all that sit behind the same address
// (threats.md W7). A public client proves who it is by the grant, so its refused
// grants are failures too, of this client at this address.
func (s *Server) authenticated(w http.ResponseWriter, r *http.Request, fn func(agent.Caller, params) error) error {
	address := s.caller(r)
	if ok, wait := s.flood.Allow(address); !ok {
		return tooMany(wait)
	}
	p, err := readForm(w, r)
	if err != nil {
		return s.failed(address, err)
	}
	auth, err := clientAuth(r, p)
	if err != nil {
		return s.failed(address, err)
	}
	c, err := s.agents.AuthenticateClient(r.Context(), auth)
	if err != nil {
		return s.failed(address, err)
	}
	if err = fn(c, p); err != nil && c.Public() {
		return s.failed(string(c.Client())+"|"+address, err)
	}
	return err
}

// failed counts what was the caller's fault and gives what to answer.
func (s *Server) failed(key string, err error) error {
	switch fault.KindOf(err) {
	case fault.Limited, fault.Unavailable, fault.Internal:
		return err
	}
	if fault.Is(err, "authorization_pending") || fault.Is(err, "slow_down") {
		return err // what a device is told while the person has not decided
	}
	if ok, wait := s.failures.Allow(key); !ok {
		return tooMany(wait)
	}
	return err
}

// clientAuth finds how the client says who it is: one way only (RFC 6749 §2.3).
func clientAuth(r *http.Request, p params) (agent.ClientAuth, error) {
	headers := r.Header.Values("Authorization")
	if p.get("grant_type") == agent.GrantAssertion { // a platform's token is the grant, and says who the client is
		if len(headers) > 0 || p.has("client_secret") || p.has("client_assertion") || p.has("client_assertion_type") {
			return agent.ClientAuth{}, fault.New(fault.Invalid, "invalid_request", "The client authenticates in one way only: here, by its assertion.")
		}
		for _, name := range []string{"assertion", "client_id"} {
			if !p.has(name) {
				return agent.ClientAuth{}, missing(name)
			}
		}
		return agent.ClientAuth{ID: p.get("client_id"), Assertion: p.secret("assertion"), Platform: true}, nil
	}
	if p.has("client_assertion") || p.has("client_assertion_type") {
		if len(headers) > 0 || p.has("client_secret") || !p.has("client_assertion") || p.get("client_assertion_type") != agent.AssertionType && p.get("client_assertion_type") != agent.AssertionSPIFFE {
			return agent.ClientAuth{}, fault.New(fault.Invalid, "invalid_request", "The client authenticates in one way only; client_assertion_type is "+agent.AssertionType+".")
		}
		return agent.ClientAuth{ID: p.get("client_id"), Assertion: p.secret("client_assertion"), Platform: p.get("client_assertion_type") == agent.AssertionSPIFFE}, nil
	}
	if len(headers) == 0 {
		if !p.has("client_id") {
			return agent.ClientAuth{}, missing("client_id")
		}
		return agent.ClientAuth{ID: p.get("client_id"), Secret: p.secret("client_secret")}, nil
	}
	user, pass, ok := r.BasicAuth()
	if len(headers) > 1 || !ok {
		return agent.ClientAuth{}, fault.New(fault.Unauthenticated, "invalid_client", "The Authorization header is not HTTP Basic.")
	}
	name, err := url.QueryUnescape(user)
	if err != nil {
		return agent.ClientAuth{}, fault.New(fault.Unauthenticated, "invalid_client", "The Authorization header is not form-encoded.")
	}
	sec, err := url.QueryUnescape(pass)
	if err != nil {
		return agent.ClientAuth{}, fault.New(fault.Unauthenticated, "invalid_client", "The Authorization header is not form-encoded.")
	}
	if p.has("client_secret") || p.has("client_id") && p.get("client_id") != name || strings.ContainsRune(name, 0) {
		return agent.ClientAuth{}, fault.New(fault.Invalid, "invalid_request", "The client authenticates in one way only.")
	}
	return agent.ClientAuth{ID: name, Secret: secret.FromString(sec)}, nil
}
