package account

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"slices"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Proof is a person's answer to a challenge for one exact thing: a passkey
// assertion, or where the organization allows it a code of their authenticator
// app. Exactly one of the two is set.
type Proof struct {
	Assertion []byte // the credential's JSON, as the browser gives it
	TOTP      string
}

// Evidence is a proof that was verified, for one person and one digest. Only
// Prove makes it. Its JSON is what the audit keeps: with a passkey, all that is
// needed to verify the signature again without this server; binary values in
// base64url.
type Evidence struct {
	user   id.User
	digest [32]byte
	fields evidence
}

type evidence struct {
	Method            string              `json:"method"`
	User              id.User             `json:"user_id"`
	Digest            string              `json:"digest"`
	CredentialID      string              `json:"credential_id,omitempty"`
	PublicKey         string              `json:"public_key,omitempty"` // COSE
	ClientData        string              `json:"client_data_json,omitempty"`
	AuthenticatorData string              `json:"authenticator_data,omitempty"`
	Signature         string              `json:"signature,omitempty"`
	Step              int64               `json:"step,omitempty"`        // TOTP: Unix time over 30 s
	Provider          id.IdentityProvider `json:"provider_id,omitempty"` // of a fresh sign-in there
	Issuer            string              `json:"issuer,omitempty"`
	Subject           string              `json:"subject,omitempty"`
	AuthTime          int64               `json:"auth_time,omitempty"`
	Document          string              `json:"document,omitempty"` // what has this digest, where the entry itself does not say it
}

func (e Evidence) IsZero() bool     { return e.user == "" }
func (e Evidence) User() id.User    { return e.user }
func (e Evidence) Digest() [32]byte { return e.digest }
func (e Evidence) Method() string   { return e.fields.Method }

// MarshalJSON gives the form that the audit keeps; null for no evidence.
func (e Evidence) MarshalJSON() ([]byte, error) {
	if e.IsZero() {
		return []byte("null"), nil
	}
	return json.Marshal(e.fields)
}

// JSON is MarshalJSON for audit.Entry.Evidence.
func (e Evidence) JSON() json.RawMessage {
	b, _ := e.MarshalJSON() // strings and a number always encode
	return b
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Challenge gives WebAuthn request options ({"publicKey": …}) for one of the
// person's passkeys, whose challenge is the digest itself.
func (s *Service) Challenge(ctx context.Context, p Person, digest [32]byte) (optionsJSON []byte, err error) {
	if err := p.browser(); err != nil {
		return nil, err
	}
	h, err := s.holderOf(ctx, p.user)
	if err != nil {
		return nil, err
	}
	if len(h.keys) == 0 {
		return nil, fault.New(fault.Denied, "no_passkey", "You have no passkey.").WithHint("Use a code of your authenticator app, or register a passkey.")
	}
	assertion, session, err := s.rp.BeginLogin(h, webauthn.WithChallenge(digest[:]))
	if err != nil {
		return nil, err
	}
	options, _, err := encodeBoth(assertion, session)
	return options, err
}

// Prove verifies that the person in front of the browser agreed to exactly the
// thing that digest stands for. org is where it counts; empty is everywhere
// that the person is a member. It keeps no challenge: a proof is good for
// digest only, and whoever acts on it must let one thing happen once.
func (s *Service) Prove(ctx context.Context, p Person, digest [32]byte, org id.Organization, proof Proof) (Evidence, error) {
	if err := p.browser(); err != nil {
		return Evidence{}, err
	}
	if digest == ([32]byte{}) {
		return Evidence{}, fault.New(fault.Internal, "no_digest", "Nothing was named that could be agreed to.")
	}
	if _, ok := p.Role(org); org != "" && !ok {
		return Evidence{}, notFound("organization")
	}
	switch {
	case len(proof.Assertion) > 0 && proof.TOTP == "":
		return s.proveByPasskey(ctx, p, digest, org, proof.Assertion)
	case len(proof.Assertion) == 0 && proof.TOTP != "":
		return s.proveByCode(ctx, p, digest, org, proof.TOTP)
	}
	return Evidence{}, fault.New(fault.Invalid, "proof_required", "This needs your passkey or a code of your authenticator app.").
		WithHint("Confirm it in the browser.")
}

func (s *Service) proveByPasskey(ctx context.Context, p Person, digest [32]byte, org id.Organization, assertion []byte) (Evidence, error) {
	refuse := func(err error) error { return s.proofRefused(ctx, p, org, MethodPasskey, err) }
	h, err := s.holderOf(ctx, p.user)
	if err != nil {
		return Evidence{}, err
	}
	parsed, err := s.parseAssertion(assertion)
	if err != nil {
		return Evidence{}, refuse(err)
	}
	k, err := s.checkAssertion(h, digest[:], parsed)
	if err != nil {
		return Evidence{}, refuse(err)
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error { return s.spend(ctx, tx, k) })
	if err != nil {
		return Evidence{}, refuse(sqldb.Wrap("note the use of a passkey", err))
	}
	raw := parsed.Raw.AssertionResponse
	return Evidence{user: p.user, digest: digest, fields: evidence{
		Method: MethodPasskey, User: p.user, Digest: b64(digest[:]), CredentialID: b64(k.credential), PublicKey: b64(k.publicKey),
		ClientData: b64(raw.ClientDataJSON), AuthenticatorData: b64(raw.AuthenticatorData), Signature: b64(raw.Signature),
	}}, nil
}

func (s *Service) proveByCode(ctx context.Context, p Person, digest [32]byte, org id.Organization, code string) (Evidence, error) {
	if slices.ContainsFunc(p.memberships, func(m Membership) bool { return (org == "" || m.Organization == org) && m.requirePasskey }) {
		return Evidence{}, fault.New(fault.Denied, "passkey_required", "This organization demands a passkey.").WithHint("Register a passkey and use it.")
	}
	return s.proveByAnyCode(ctx, p, digest, org, code)
}

// proveByAnyCode is proveByCode whatever the person's organizations demand.
func (s *Service) proveByAnyCode(ctx context.Context, p Person, digest [32]byte, org id.Organization, code string) (Evidence, error) {
	var fresh freshCode // zero: the code is an authenticator app's
	step, err := s.guess(ctx, "proof "+p.guesser(), func() (step int64, err error) {
		if fresh, err = s.tryFresh(ctx, p, org, code); err != nil || fresh.hash != nil {
			return 0, err
		}
		return s.tryCode(ctx, p.user, code)
	}, func(ctx context.Context, tx *sqldb.Tx, step int64) error {
		if fresh.hash != nil {
			return s.spendFresh(ctx, tx, p, fresh)
		}
		return s.spendStep(ctx, tx, p.user, step)
	})
	if err != nil {
		method := MethodTOTP
		if fresh.hash != nil || errors.Is(err, errNoTOTP) && !s.local { // without an app it can only be meant as the other
			method = MethodFederated
		}
		return Evidence{}, s.proofRefused(ctx, p, org, method, err)
	}
	if fresh.hash != nil {
		return Evidence{user: p.user, digest: digest, fields: evidence{Method: MethodFederated, User: p.user, Digest: b64(digest[:]),
			Provider: fresh.who.provider, Issuer: fresh.who.issuer, Subject: fresh.who.subject, AuthTime: fresh.proved.Unix()}}, nil
	}
	return Evidence{user: p.user, digest: digest, fields: evidence{Method: MethodTOTP, User: p.user, Digest: b64(digest[:]), Step: step}}, nil
}

// proofRefused records a proof that failed and gives what the person sees.
func (s *Service) proofRefused(ctx context.Context, p Person, org id.Organization, method string, cause error) error {
	switch fault.KindOf(cause) {
	case fault.Unavailable:
		return cause
	case fault.Limited:
		// The guess that met the limit was recorded; the flood after it is not.
		return cause
	}
	e := entry(ByPerson(p), p.home, org, "proof.refused", string(p.login))
	e.Detail = map[string]string{"method": method}
	s.refused(ctx, e, reason(cause))
	if fault.Is(cause, "sign_in_confined") {
		return cause
	}
	if method != MethodPasskey {
		return fault.New(fault.Denied, "proof_refused", "The code was not accepted.").WithHint("Wait for the next code and try again; each code works once.").WithCause(cause)
	}
	return fault.New(fault.Denied, "proof_refused", "The passkey was not accepted for this.").
		WithHint("Reload the page and confirm again: what you were shown may have changed.").WithCause(cause)
}

// VerifyEvidence checks evidence as the audit keeps it, without the database:
// that the passkey named in it signed exactly this digest, with the person
// verified, at origin, and that a document kept with it has this digest. Evidence of an authenticator app cannot be verified
// again, which it reports.
func VerifyEvidence(doc json.RawMessage, digest [32]byte, origin string) error {
	var e evidence
	if err := json.Unmarshal(doc, &e); err != nil {
		return errors.New("the evidence is not JSON")
	}
	if subtle.ConstantTimeCompare([]byte(e.Digest), []byte(b64(digest[:]))) != 1 {
		return errors.New("the evidence is for another digest")
	}
	if sum := sha256.Sum256([]byte(e.Document)); e.Document != "" && sum != digest {
		return errors.New("the document has another digest")
	}
	if e.Method != MethodPasskey {
		return errors.New("a code of an authenticator app, or of a sign-in elsewhere, cannot be verified again")
	}
	var raw [4][]byte
	for i, text := range []string{e.PublicKey, e.ClientData, e.AuthenticatorData, e.Signature} {
		b, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil {
			return errors.New("the evidence is malformed")
		}
		raw[i] = b
	}
	var client protocol.CollectedClientData
	if err := json.Unmarshal(raw[1], &client); err != nil {
		return errors.New("the client data is malformed")
	}
	if client.Type != protocol.AssertCeremony || client.Origin != origin || client.Challenge != e.Digest || client.CrossOrigin {
		return errors.New("the passkey signed something else")
	}
	u, err := url.Parse(origin)
	if err != nil {
		return errors.New("the origin is malformed")
	}
	var data protocol.AuthenticatorData
	if err := data.Unmarshal(raw[2]); err != nil {
		return errors.New("the authenticator data is malformed")
	}
	party := sha256.Sum256([]byte(u.Hostname()))
	if err := data.Verify(party[:], nil, true, true); err != nil {
		return errors.New("the person was not verified")
	}
	key, err := webauthncose.ParsePublicKey(raw[0])
	if err != nil {
		return errors.New("the public key is malformed")
	}
	hash := sha256.Sum256(raw[1])
	if ok, err := webauthncose.VerifySignature(key, slices.Concat(raw[2], hash[:]), raw[3]); err != nil || !ok {
		return errors.New("the signature does not verify")
	}
	return nil
}
