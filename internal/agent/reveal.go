package agent

import (
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/ambit-dev/ambit/internal/secret"
)

// parseAssertion is the only place in the room that looks at a secret: a JWT by
// which a client proves itself, whose parser takes text. Errors of the parser may
// quote it and go nowhere.
func parseAssertion(v secret.Value) (*jwt.JSONWebToken, error) {
	return jwt.ParseSigned(string(v.Reveal()), algorithms())
}
