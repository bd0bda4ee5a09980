package authserver

import (
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// asks reads what a client asks for with its authorization request: by scopes, or by
// authorization details (RFC 9396) where it has more to say. Nil: an identity.
func asks(p params) (*agent.Asks, error) {
	byScope, err := agent.AsksOfScope(p.get("scope"))
	if err != nil || !p.has("authorization_details") {
		return byScope, err
	}
	invalid := func(msg string) (*agent.Asks, error) {
		return nil, fault.New(fault.Invalid, "invalid_authorization_details", msg)
	}
	if byScope != nil {
		return invalid("What is asked for is in authorization_details or in scopes, not in both.")
	}
	var list []agent.Asks
	err = strictjson.Unmarshal([]byte(p.get("authorization_details")), &list, strictjson.Limits{Bytes: maxForm})
	if err != nil || len(list) != 1 || list[0].Type != agent.AsksType {
		return invalid("authorization_details is a JSON array of one object of the type " + agent.AsksType + ", with providers, tools, effects, minutes and purpose, and nothing else or twice.")
	}
	return &list[0], nil
}
