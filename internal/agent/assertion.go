package agent

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// AssertionType is that of a JWT by which a client proves itself (RFC 7523 §2.2).
const AssertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

const (
	maxAssertion    = 8 << 10          // bytes
	assertionFor    = 10 * time.Minute // the longest that one of a client may still count
	assertionLeeway = time.Minute      // between two clocks
)

// assertion is a JWT of a client, read and not yet believed.
type assertion struct {
	token *jwt.JSONWebToken
	kid   string
	said  jwt.Claims
}

func readAssertion(v secret.Value) (assertion, error) {
	if v.Len() > maxAssertion {
		return assertion{}, invalidClient()
	}
	t, err := parseAssertion(v)
	if err != nil || len(t.Headers) != 1 {
		return assertion{}, invalidClient()
	}
	a := assertion{token: t, kid: t.Headers[0].KeyID}
	if err := t.UnsafeClaimsWithoutVerification(&a.said); err != nil {
		return assertion{}, invalidClient()
	}
	return a, nil
}

// verified gives the claims that one of keys signed, besides the registered ones
// in extra.
func (a assertion) verified(keys []jose.JSONWebKey, extra ...any) (jwt.Claims, bool) {
	for _, k := range keys {
		var c jwt.Claims
		if a.token.Claims(k.Key, append([]any{&c}, extra...)...) == nil {
			return c, true
		}
	}
	return jwt.Claims{}, false
}

// proveByAssertion checks the JWT by which a client with keys of its own says who
// it is (RFC 7523 §3): signed by one of its keys, by and about itself, for us,
// for a short time, and never seen before.
func (s *Service) proveByAssertion(ctx context.Context, c Client, a assertion) error {
	claims, err := s.signedBy(ctx, c, a)
	if err != nil {
		return err
	}
	now := s.now()
	switch {
	case claims.Issuer != c.Wire() || claims.Subject != c.Wire(),
		len(claims.Audience) != 1 || !s.isUs(claims.Audience[0]), // for others too, they could use it here
		claims.Expiry == nil, claims.ID == "", len(claims.ID) > 255:
		return invalidClient()
	case !now.Before(claims.Expiry.Time().Add(assertionLeeway)), claims.Expiry.Time().After(now.Add(assertionFor)),
		claims.NotBefore != nil && now.Before(claims.NotBefore.Time().Add(-assertionLeeway)),
		claims.IssuedAt != nil && now.Before(claims.IssuedAt.Time().Add(-assertionLeeway)):
		return invalidClient().WithHint("The assertion is too old, or made for too long: at most ten minutes.")
	}
	hash := sha256.Sum256(crypt.Fields("ambit client assertion 1", string(c.ID), claims.ID))
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		n, err := affected(insertAssertion(ctx, tx, hash[:], claims.Expiry.Time().Add(assertionLeeway)))
		if err == nil && n == 0 {
			err = invalidClient().WithHint("The assertion was used before; each counts once.")
		}
		return err
	})
	return sqldb.Wrap("use a client's assertion", err)
}

// isUs reports whether an audience names this authorization server: by its
// issuer, or by the endpoint as RFC 7523 has it.
func (s *Service) isUs(aud string) bool { return aud == s.issuer || aud == s.issuer+"/oauth/token" }

// signedBy gives the claims of a once one of c's keys has signed it. A key that is
// not in the set that we have may be in a fresher one.
func (s *Service) signedBy(ctx context.Context, c Client, a assertion) (jwt.Claims, error) {
	if c.keysURL == "" {
		set, err := readKeys([]byte(c.keys))
		if err != nil {
			return jwt.Claims{}, err
		}
		claims, ok := a.verified(matching(set, a.kid))
		if !ok {
			return jwt.Claims{}, invalidClient()
		}
		return claims, nil
	}
	return s.signedAt(ctx, c.keysURL, a)
}

// signedAt is signedBy for keys that lie elsewhere.
func (s *Service) signedAt(ctx context.Context, address string, a assertion, extra ...any) (jwt.Claims, error) {
	for _, unknown := range []bool{false, true} {
		set, err := s.keysAt(ctx, address, unknown)
		if err != nil {
			return jwt.Claims{}, err
		}
		if claims, ok := a.verified(matching(set, a.kid), extra...); ok {
			return claims, nil
		}
	}
	return jwt.Claims{}, invalidClient()
}

func insertAssertion(ctx context.Context, tx *sqldb.Tx, hash []byte, expires time.Time) (sqldb.Result, error) {
	const query = `insert into client_assertion (hash, expires_at) values ($1, $2) on conflict (hash) do nothing`
	return tx.ExecContext(ctx, query, hash, sqldb.Micros(expires))
}
