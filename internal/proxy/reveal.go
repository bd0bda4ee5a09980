package proxy

import "github.com/ambit-dev/ambit/internal/secret"

// reveal hands a freshly made token to the agent that asked for it, once.
func reveal(token secret.Value) string { return string(token.Reveal()) }
