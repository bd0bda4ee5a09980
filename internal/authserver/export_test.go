package authserver

import "github.com/ambit-dev/ambit/internal/agent"

// ParseParams and ParseRegistration open the decoders to the fuzzers.
func ParseParams(raw string) (values map[string]string, repeated map[string]bool, err error) {
	p, err := parseParams(raw)
	return p.values, p.repeated, err
}

func ParseRegistration(body []byte) (agent.NewClient, error) { return agent.ReadClient(body) }
