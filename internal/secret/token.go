package secret

import (
	"crypto/rand"
	"encoding/base64"
	"strings"
)

// tokenBytes is 256 bits, twice what threats.md S8 asks for.
const tokenBytes = 32

// Token makes a fresh bearer token: prefix followed by 256 random bits in
// base64url. The prefix lets credential scanners recognise a leaked token.
func Token(prefix string) Value {
	b := make([]byte, tokenBytes)
	_, _ = rand.Read(b) // never fails: crypto/rand aborts the process instead
	return New(append([]byte(prefix), base64.RawURLEncoding.EncodeToString(b)...))
}

// IsToken reports whether v has exactly the form that Token gives for prefix.
// It is a cheap filter before a database look-up, not an authentication.
func IsToken(v Value, prefix string) bool {
	s := string(v.Reveal())
	body, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return false
	}
	if len(body) != base64.RawURLEncoding.EncodedLen(tokenBytes) {
		return false // the decoder below skips line breaks
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(body)
	return err == nil && len(b) == tokenBytes
}
