package web

import (
	"encoding/base64"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/secret"
)

// This file is the one place of this room that looks inside a secret.Value: to put
// a fresh sign-in token into its cookie, and to show once, to the person who
// just proved presence for it, a key, a client secret, a link or the seed of an
// authenticator app.
func reveal(v secret.Value) string { return string(v.Reveal()) }

// revealValue gives a value as text, or else in base64, to the person who just
// proved presence for exactly it.
func revealValue(v secret.Value) (text string, encoded bool) {
	raw := v.Reveal()
	if utf8.Valid(raw) {
		return string(raw), false
	}
	return base64.StdEncoding.EncodeToString(raw), true
}
