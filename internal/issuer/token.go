package issuer

import (
	"context"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

const (
	maxToken = 32 << 10    // bytes; some issuers put all of somebody's groups into one
	Leeway   = time.Minute // between two clocks
)

// Token is a JWT, read and not yet believed.
type Token struct {
	Said jwt.Claims // what it says

	parsed *jwt.JSONWebToken
	kid    string
}

// Read reads a token of an algorithm that counts. What it is not, it does not say.
func Read(v secret.Value) (Token, error) {
	bad := fault.New(fault.Invalid, "invalid_token", "This is not a JWT with one signature of a kind that counts.")
	if v.IsZero() || v.Len() > maxToken {
		return Token{}, bad
	}
	parsed, err := parse(v)
	if err != nil || len(parsed.Headers) != 1 {
		return Token{}, bad
	}
	t := Token{parsed: parsed, kid: parsed.Headers[0].KeyID}
	if err := parsed.UnsafeClaimsWithoutVerification(&t.Said); err != nil {
		return Token{}, bad
	}
	return t, nil
}

// IsZero reports whether there is no token.
func (t Token) IsZero() bool { return t.parsed == nil }

// By gives the claims that one of a set's keys signed, besides the registered ones
// in extra.
func (t Token) By(set jose.JSONWebKeySet, extra ...any) (jwt.Claims, bool) {
	for _, k := range matching(set, t.kid) {
		var c jwt.Claims
		if t.parsed.Claims(k.Key, append([]any{&c}, extra...)...) == nil {
			return c, true
		}
	}
	return jwt.Claims{}, false
}

// ByKeysAt is By for keys that lie elsewhere. A key that is not in the set that we
// have may be in a fresher one. The error says that the keys cannot be had.
func (r *Reader) ByKeysAt(ctx context.Context, address string, t Token, extra ...any) (jwt.Claims, bool, error) {
	for _, unknown := range []bool{false, true} {
		set, err := r.Keys(ctx, address, unknown)
		if err != nil {
			return jwt.Claims{}, false, err
		}
		if claims, ok := t.By(set, extra...); ok {
			return claims, true, nil
		}
	}
	return jwt.Claims{}, false, nil
}

// Current reports whether a token's times include now.
func Current(c jwt.Claims, now time.Time) bool {
	return c.Expiry != nil && now.Before(c.Expiry.Time().Add(Leeway)) &&
		(c.NotBefore == nil || !now.Before(c.NotBefore.Time().Add(-Leeway))) &&
		(c.IssuedAt == nil || !now.Before(c.IssuedAt.Time().Add(-Leeway)))
}
