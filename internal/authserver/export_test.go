package authserver

import "github.com/ambit-dev/ambit/internal/agent"

// ParseParams and ParseRegistration open the decoders to the fuzzers.
func ParseParams(raw string) (values map[string]string, repeated map[string]bool, err error) {
	p, err := parseParams(raw)
	return p.values, p.repeated, err
}

// ParseAsks reads what a client asks for with its authorization request.
func ParseAsks(scope, details string) (*agent.Asks, error) {
	return asks(params{values: map[string]string{"scope": scope, "authorization_details": details}})
}

func ParseRegistration(body []byte) (agent.NewClient, error) { return agent.ReadClient(body) }
