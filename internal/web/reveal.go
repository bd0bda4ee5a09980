package web

import (
	"encoding/base64"
	"net/http"
	"strings"
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

// attachment is a value as a file, for the person who just proved presence for
// exactly it.
type attachment struct {
	name  string
	value secret.Value
}

func (a attachment) send(_ *Server, v *visit) {
	h := v.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", `attachment; filename="`+a.name+`"`)
	v.w.WriteHeader(http.StatusOK)
	_, _ = v.w.Write(a.value.Reveal())
}

// fileName makes the name of a file of the last part of a secret's.
func fileName(name string) string {
	name = name[strings.LastIndexByte(name, '/')+1:]
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r) {
			return r
		}
		return '_'
	}, name)
	if name = strings.TrimLeft(name, "."); name == "" {
		return "secret"
	}
	return name
}
