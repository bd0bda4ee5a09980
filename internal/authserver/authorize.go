package authserver

import (
	"net/http"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
)

// authorize checks an authorization request, stores it, and sends the browser
// to the page where a person decides.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	noStore(w)
	if ok, wait := s.flood.Allow(s.caller(r) + " authorize"); !ok {
		s.showError(w, r, tooMany(wait))
		return
	}
	req, p, err := s.trusted(r)
	if err != nil {
		s.showError(w, r, err)
		return
	}
	flow, err := s.begin(r, req, p)
	if err != nil {
		f := fault.Of(err)
		code, _ := oauthError(f)
		s.showErrorWith(w, r, err, backTo(s.agents.Refusal(req, code, describe(f))))
		return
	}
	w.Header().Set("Location", "/ui/consent/"+string(flow))
	w.WriteHeader(http.StatusSeeOther)
}

// trusted finds the client and matches the redirect URI. Until it succeeds no
// byte of the request decides where the browser goes.
func (s *Server) trusted(r *http.Request) (agent.AuthRequest, params, error) {
	p, err := parseParams(r.URL.RawQuery)
	if err != nil {
		return agent.AuthRequest{}, p, err
	}
	c, err := s.agents.FindClient(r.Context(), p.get("client_id"), s.address(r))
	if fault.Is(err, "not_found") {
		return agent.AuthRequest{}, p, unknownClient()
	}
	if err != nil {
		return agent.AuthRequest{}, p, err
	}
	if !agent.MatchRedirect(c.RedirectURIs, p.get("redirect_uri")) {
		return agent.AuthRequest{}, p, fault.New(fault.Invalid, "invalid_request", "The agent's redirect address is not the one it registered.").
			WithHint("Remove the agent's stored registration and let it register again.")
	}
	return agent.AuthRequest{Client: c, RedirectURI: p.get("redirect_uri"), State: p.get("state"), Address: s.address(r)}, p, nil
}

func unknownClient() error {
	return fault.New(fault.Invalid, "invalid_request", "The agent is not registered here, or its registration was dropped because nobody used it for a day.").
		WithHint("Remove the agent's stored registration and let it register again.")
}

// begin checks the rest of the request; its errors are for the client.
func (s *Server) begin(r *http.Request, req agent.AuthRequest, p params) (id.Flow, error) {
	invalid := func(code, msg string) (id.Flow, error) { return "", fault.New(fault.Invalid, code, msg) }
	switch {
	case p.repeated["resource"]:
		return invalid("invalid_target", "A token is for one resource.")
	case len(p.repeated) > 0:
		return invalid("invalid_request", "A parameter is sent twice.")
	case p.has("request"):
		return invalid("request_not_supported", "Request objects are not supported.")
	case p.has("request_uri"):
		return invalid("request_uri_not_supported", "Request objects are not supported.")
	case !p.has("response_type"):
		return invalid("invalid_request", "response_type is missing.")
	case p.get("response_type") != "code":
		return invalid("unsupported_response_type", "response_type is code.")
	case p.has("response_mode") && p.get("response_mode") != "query":
		return invalid("invalid_request", "response_mode is query.")
	case !p.has("code_challenge"):
		return invalid("invalid_request", "code_challenge is missing: PKCE is required.")
	case p.get("code_challenge_method") != "S256":
		return invalid("invalid_request", "code_challenge_method is S256.")
	}
	req.Challenge, req.Resource, req.Scope = p.get("code_challenge"), p.get("resource"), p.get("scope")
	var err error
	if req.Asks, err = asks(p); err != nil {
		return "", err
	}
	return s.agents.BeginAuthorize(r.Context(), req)
}
