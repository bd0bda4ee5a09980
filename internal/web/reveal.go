package web

import "github.com/ambit-dev/ambit/internal/secret"

// reveal is the one place of this room that looks inside a secret.Value: to put
// a fresh sign-in token into its cookie, and to show once, to the person who
// just proved presence for it, a key, a client secret, a link or the seed of an
// authenticator app.
func reveal(v secret.Value) string { return string(v.Reveal()) }
