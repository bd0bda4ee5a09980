package authserver

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
)

const accessTokenType = "urn:ietf:params:oauth:token-type:access_token"

// exchange gives a token for a sub-agent in exchange for the agent's own (RFC 8693):
// bound to a part of one of its sessions. Which session, and which part, say the
// parameters session (a handle), providers, effects and minutes, which are ours.
func (s *Server) exchange(r *http.Request, c agent.Caller, p params) (agent.Tokens, error) {
	invalid := func(code, msg string) (agent.Tokens, error) {
		return agent.Tokens{}, fault.New(fault.Invalid, code, msg)
	}
	switch {
	case s.sessions == nil:
		return invalid("unsupported_grant_type", "This server exchanges no tokens.")
	case !p.has("subject_token"):
		return agent.Tokens{}, missing("subject_token")
	case p.get("subject_token_type") != accessTokenType:
		return invalid("invalid_request", "subject_token_type is "+accessTokenType+".")
	case p.has("requested_token_type") && p.get("requested_token_type") != accessTokenType:
		return invalid("invalid_request", "requested_token_type is "+accessTokenType+".")
	case p.has("actor_token"), p.has("actor_token_type"):
		return invalid("invalid_request", "There is no actor_token: the sub-agent is the agent's own.")
	case p.has("audience"):
		return invalid("invalid_target", "Send resource instead of audience.")
	}
	who, err := s.agents.SubjectOf(r.Context(), c, p.secret("subject_token"), p.get("resource"))
	if err != nil {
		return agent.Tokens{}, err
	}
	ask := session.HandOn{Providers: strings.Fields(p.get("providers"))}
	for _, e := range strings.Fields(p.get("effects")) {
		effect, err := policy.ParseEffect(e)
		if err != nil {
			return invalid("invalid_request", "effects are read, write, destructive and access.")
		}
		ask.Effects = append(ask.Effects, effect)
	}
	if p.has("minutes") {
		if ask.Minutes, err = strconv.Atoi(p.get("minutes")); err != nil || ask.Minutes < 1 {
			return invalid("invalid_request", "minutes is a whole number from 1.")
		}
	}
	t, _, err := s.sessions.HandOn(r.Context(), who, p.get("session"), ask, s.address(r))
	return t, refusedExchange(err)
}

// refusedExchange is the refusal of a session in the words of OAuth.
func refusedExchange(err error) error {
	if err == nil {
		return nil
	}
	f := fault.Of(err)
	switch f.Kind {
	case fault.Denied, fault.NotFound, fault.Expired:
		return fault.New(fault.Invalid, "invalid_grant", f.Message).WithHint(f.Hint)
	}
	return err
}
