package integration

import "github.com/ambit-dev/ambit/internal/secret"

// pathOf puts a fresh token into the one address that it is for.
func pathOf(token secret.Value) string { return string(token.Reveal()) }
