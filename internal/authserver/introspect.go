package authserver

import (
	"net/http"
	"strings"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

// device begins the grant of RFC 8628 for a device that shows a code.
func (s *Server) device(w http.ResponseWriter, r *http.Request) {
	var d agent.Device
	err := s.authenticated(w, r, func(c agent.Caller, p params) (err error) {
		// Anybody may begin in a public client's name: the address counts.
		if ok, wait := s.registrations.Allow(s.caller(r) + " device"); !ok {
			return tooMany(wait)
		}
		d, err = s.agents.BeginDevice(r.Context(), c, p.get("resource"), s.address(r))
		return err
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.writeDevice(w, d)
}

// introspect says what a token stands for (RFC 7662): to a client with a secret
// about its own tokens, to an API key that may read agents about theirs.
func (s *Server) introspect(w http.ResponseWriter, r *http.Request) {
	var i agent.Introspection
	var err error
	if scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		i, err = s.introspectByKey(w, r, key)
	} else {
		err = s.authenticated(w, r, func(c agent.Caller, p params) (err error) {
			if !p.has("token") {
				return missing("token")
			}
			i, err = s.agents.Introspect(r.Context(), c, p.secret("token"))
			return err
		})
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, s.introspection(i))
}

func (s *Server) introspectByKey(w http.ResponseWriter, r *http.Request, key string) (agent.Introspection, error) {
	address := s.caller(r)
	if ok, wait := s.flood.Allow(address); !ok {
		return agent.Introspection{}, tooMany(wait)
	}
	k, err := s.people.AuthenticateKey(r.Context(), secret.FromString(key))
	if err != nil {
		return agent.Introspection{}, s.failed(address, err)
	}
	if !k.Has(account.ScopeAgentsRead) {
		return agent.Introspection{}, fault.New(fault.Denied, "insufficient_scope", "This API key lacks the scope "+string(account.ScopeAgentsRead)+".")
	}
	p, err := readForm(w, r)
	if err == nil && !p.has("token") {
		err = missing("token")
	}
	if err != nil {
		return agent.Introspection{}, err
	}
	return s.agents.IntrospectFor(r.Context(), account.ByKey(k), p.secret("token"))
}

// introspection is the document of RFC 7662 §2.2. sub is in whose name the agent
// acts, and act (RFC 8693 §4.1) the agent that does; one that acts for itself is
// sub.
func (s *Server) introspection(i agent.Introspection) map[string]any {
	if !i.Active {
		return map[string]any{"active": false}
	}
	doc := map[string]any{
		"active": true, "iss": s.agents.Issuer(), "aud": i.Audience, "client_id": i.Client, "scope": i.Scope, "token_type": "Bearer",
		"iat": i.IssuedAt.Unix(), "exp": i.ExpiresAt.Unix(), "sub": string(i.Agent), "environment_id": string(i.Environment), "organization_id": string(i.Organization),
	}
	if i.Refresh {
		doc["token_type"] = "refresh_token"
	}
	if i.User != "" {
		doc["sub"], doc["act"] = string(i.User), map[string]any{"sub": string(i.Agent)}
	}
	if i.Session != "" {
		doc["sid"] = string(i.Session)
	}
	return doc
}
