package account

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// GrantAge is how long a proven unlock may be used for one more way to sign in.
const GrantAge = 5 * time.Minute

const grantPrefix = "amb_unlock_"

// UnlockDigest is what a person proves presence for before another way to sign
// in is registered. The nonce tells two such wishes of one login apart.
func (s *Service) UnlockDigest(p Person, nonce string) [32]byte {
	return sha256.Sum256(crypt.Fields("ambit unlock 1", s.origin, string(p.user), string(p.login), nonce))
}

// Unlock lets this login register one more passkey or authenticator app. A
// login alone never does, however fresh: whoever stole the cookie would have a
// way in of their own (threats.md A9).
func (s *Service) Unlock(ctx context.Context, p Person, nonce string, proof Proof) (grant secret.Value, err error) {
	if err := p.browser(); err != nil {
		return secret.Value{}, err
	}
	digest := s.UnlockDigest(p, nonce)
	ev, err := s.proveOldFactor(ctx, p, digest, proof)
	if err != nil {
		return secret.Value{}, err
	}
	grant = secret.Token(grantPrefix)
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := s.Spend(ctx, tx, digest); err != nil {
			return err
		}
		now := s.now()
		f := flow{subject: grantSubject(grant), kind: flowGrant, user: p.user, login: p.login, state: []byte{}, expires: now.Add(GrantAge)}
		if err := putFlow(ctx, tx, f, now); err != nil {
			return err
		}
		e := personEntry(p, "user.unlocked", string(p.user))
		e.Evidence = ev.JSON()
		s.audit.Append(tx, e)
		return nil
	})
	return grant, sqldb.Wrap("unlock an account", err)
}

// proveOldFactor is Prove where a code always counts for people who have no
// passkey: else an organization's demand for passkeys would keep them from
// getting one.
func (s *Service) proveOldFactor(ctx context.Context, p Person, digest [32]byte, proof Proof) (Evidence, error) {
	if len(proof.Assertion) == 0 && proof.TOTP != "" {
		n, err := s.factors(ctx, s.db.Reader(), p.user)
		if err != nil {
			return Evidence{}, sqldb.Wrap("count factors", err)
		}
		if n.passkeys == 0 {
			return s.proveByAnyCode(ctx, p, digest, "", proof.TOTP)
		}
	}
	return s.Prove(ctx, p, digest, "", proof)
}

// grantSubject is how a grant stands in the database: by its hash, as tokens do.
func grantSubject(grant secret.Value) string {
	hash := grant.Hash()
	return "grant_" + hex.EncodeToString(hash[:])
}

// granted demands a grant of this very login, and leaves it for takeGrant.
func (s *Service) granted(ctx context.Context, q sqldb.Querier, p Person, grant secret.Value) error {
	if err := p.browser(); err != nil {
		return err
	}
	if !secret.IsToken(grant, grantPrefix) {
		return proofFirst()
	}
	f, err := selectFlow(ctx, q, grantSubject(grant))
	if err != nil && !sqldb.NoRows(err) {
		return sqldb.Wrap("read a grant", err)
	}
	if err != nil || f.kind != flowGrant || f.user != p.user || f.login != p.login || !s.now().Before(f.expires) {
		return proofFirst()
	}
	return nil
}

// takeGrant uses a grant up, in the transaction that registers what it was for.
func (s *Service) takeGrant(ctx context.Context, tx *sqldb.Tx, p Person, grant secret.Value) error {
	f, err := takeFlow(ctx, tx, grantSubject(grant))
	if err != nil && !sqldb.NoRows(err) {
		return err
	}
	if err != nil || f.kind != flowGrant || f.user != p.user || f.login != p.login || !s.now().Before(f.expires) {
		return proofFirst()
	}
	return nil
}

func proofFirst() error {
	return fault.New(fault.Denied, "unlock_required", "First show that it is you, with a passkey or authenticator app that you have.").
		WithHint("Start again on your account page; a confirmation is good for five minutes and one change.")
}

const codeProofUsed = "proof_used"

// Spend lets the proof over digest act once, in the transaction that acts. What
// the audit keeps of a proof would otherwise act again for whoever reads it
// and holds the same login. A digest must name the login: spent ones are
// forgotten only when every login that could have made them is over.
func (s *Service) Spend(ctx context.Context, tx *sqldb.Tx, digest [32]byte) error {
	now := s.now()
	if err := sweepProofs(ctx, tx, now.Add(-LoginAge-24*time.Hour)); err != nil {
		return err
	}
	ok, err := insertProof(ctx, tx, digest, now)
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.Conflict, codeProofUsed, "This confirmation has been used already.").WithHint("Open the form again and confirm it anew.")
	}
	return nil
}
