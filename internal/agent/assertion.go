package agent

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/issuer"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// AssertionType is that of a JWT by which a client proves itself (RFC 7523 §2.2).
const AssertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

const (
	maxAssertion = 8 << 10          // bytes
	assertionFor = 10 * time.Minute // the longest that one of a client may still count
)

// readAssertion reads the JWT of a client and does not believe it yet.
func readAssertion(v secret.Value) (issuer.Token, error) {
	if v.Len() > maxAssertion {
		return issuer.Token{}, invalidClient()
	}
	t, err := issuer.Read(v)
	if err != nil {
		return issuer.Token{}, invalidClient()
	}
	return t, nil
}

// proveByAssertion checks the JWT by which a client with keys of its own says who
// it is (RFC 7523 §3): signed by one of its keys, by and about itself, for us,
// for a short time, and never seen before.
func (s *Service) proveByAssertion(ctx context.Context, c Client, a issuer.Token) error {
	claims, ok, err := signedBy(ctx, s.keys, c.keysURL, c.keys, a)
	if err != nil {
		return err
	}
	if !ok {
		return invalidClient()
	}
	now := s.now()
	switch {
	case claims.Issuer != c.Wire() || claims.Subject != c.Wire(),
		len(claims.Audience) != 1 || !s.isUs(claims.Audience[0]), // for others too, they could use it here
		claims.Expiry == nil, claims.ID == "", len(claims.ID) > 255:
		return invalidClient()
	case !issuer.Current(claims, now), claims.Expiry.Time().After(now.Add(assertionFor)):
		return invalidClient().WithHint("The assertion is too old, or made for too long: at most ten minutes.")
	}
	hash := sha256.Sum256(crypt.Fields("ambit client assertion 1", string(c.ID), claims.ID))
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		n, err := affected(insertAssertion(ctx, tx, hash[:], claims.Expiry.Time().Add(issuer.Leeway)))
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

// signedBy gives the claims of a token once one of the keys at an address, or else of
// the JWK Set keys, has signed it, and reports whether one has.
func signedBy(ctx context.Context, from *issuer.Reader, address, keys string, t issuer.Token, extra ...any) (jwt.Claims, bool, error) {
	if address != "" {
		return from.ByKeysAt(ctx, address, t, extra...)
	}
	set, err := issuer.ReadKeys([]byte(keys))
	if err != nil {
		return jwt.Claims{}, false, err
	}
	claims, ok := t.By(set, extra...)
	return claims, ok, nil
}

func insertAssertion(ctx context.Context, tx *sqldb.Tx, hash []byte, expires time.Time) (sqldb.Result, error) {
	const query = `insert into client_assertion (hash, expires_at) values ($1, $2) on conflict (hash) do nothing`
	return tx.ExecContext(ctx, query, hash, sqldb.Micros(expires))
}
