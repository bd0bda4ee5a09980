package account

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// credentialLimits are far above what a browser sends for one credential.
func credentialLimits() strictjson.Limits {
	return strictjson.Limits{Bytes: 64 << 10, Depth: 16, Items: 1000}
}

func relyingParty(host, origin string) (*webauthn.WebAuthn, error) {
	required := true
	rp, err := webauthn.New(&webauthn.Config{
		RPID:          host,
		RPDisplayName: "Ambit",
		RPOrigins:     []string{origin},
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, RequireResidentKey: &required,
			UserVerification: protocol.VerificationRequired,
		},
		// Which make an authenticator is decides nothing here, and asking for it
		// costs the person a warning.
		AttestationPreference: protocol.PreferNoAttestation,
		// Password managers answer extensions that nobody asked for; we read none.
		ExtensionsUnsolicitedOutputPolicy: protocol.UnsolicitedOutputPolicyIgnore,
		Timeouts: webauthn.TimeoutsConfig{
			Login:        webauthn.TimeoutConfig{Timeout: FlowAge / 2, TimeoutUVD: FlowAge / 2},
			Registration: webauthn.TimeoutConfig{Timeout: FlowAge / 2, TimeoutUVD: FlowAge / 2},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("account: passkeys need a public URL with a host name, such as http://localhost:7420: %w", err)
	}
	return rp, nil
}

// holder is a user as the WebAuthn library sees one. The user handle is the id:
// random, and no personal data.
type holder struct {
	user User
	keys []passkey
}

func (h holder) WebAuthnID() []byte { return []byte(h.user.ID) }
func (h holder) WebAuthnName() string {
	if h.user.Email != "" {
		return h.user.Email
	}
	return h.user.Name
}
func (h holder) WebAuthnDisplayName() string { return h.user.Name }
func (h holder) WebAuthnCredentials() []webauthn.Credential {
	var out []webauthn.Credential
	for _, k := range h.keys {
		c := webauthn.Credential{ID: k.credential, PublicKey: k.publicKey, AttestationFormat: "none",
			Flags:         webauthn.CredentialFlags{UserPresent: true, UserVerified: true, BackupEligible: k.backupEligible, BackupState: k.backupState},
			Authenticator: webauthn.Authenticator{SignCount: k.signCount}}
		for _, t := range k.transports {
			c.Transport = append(c.Transport, protocol.AuthenticatorTransport(t))
		}
		out = append(out, c)
	}
	return out
}

func (h holder) key(credential []byte) (passkey, bool) {
	for _, k := range h.keys {
		if bytes.Equal(k.credential, credential) {
			return k, true
		}
	}
	return passkey{}, false
}

// errClone is an assertion whose counter did not rise: a copy of the
// authenticator, or an assertion sent a second time.
var errClone = errors.New("the signature counter did not rise")

// beginRegistration makes options for h and the state to check the answer with.
func (s *Service) beginRegistration(h holder) (options, state []byte, err error) {
	var have []protocol.CredentialDescriptor
	for _, c := range h.WebAuthnCredentials() {
		have = append(have, c.Descriptor())
	}
	creation, session, err := s.rp.BeginRegistration(h, webauthn.WithExclusions(have))
	if err != nil {
		return nil, nil, fmt.Errorf("beginning a registration: %w", err)
	}
	return encodeBoth(creation, session)
}

func encodeBoth(options any, session *webauthn.SessionData) ([]byte, []byte, error) {
	o, err := json.Marshal(options)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding WebAuthn options: %w", err)
	}
	st, err := json.Marshal(session)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding a WebAuthn ceremony: %w", err)
	}
	return o, st, nil
}

// finishRegistration checks what an authenticator made for h. The error says
// why not, for the audit and the log only.
func (s *Service) finishRegistration(h holder, state, credentialJSON []byte, label string) (passkey, error) {
	var session webauthn.SessionData
	if err := json.Unmarshal(state, &session); err != nil {
		return passkey{}, fmt.Errorf("reading a WebAuthn ceremony: %w", err)
	}
	if err := strictjson.Check(credentialJSON, credentialLimits()); err != nil {
		return passkey{}, err
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(credentialJSON)
	if err != nil {
		return passkey{}, err
	}
	if parsed.Response.CollectedClientData.Origin != s.origin {
		return passkey{}, errors.New("the registration comes from another origin")
	}
	c, err := s.rp.CreateCredential(h, session, parsed)
	if err != nil {
		return passkey{}, err
	}
	k := passkey{id: id.NewPasskey(), user: h.user.ID, credential: c.ID, publicKey: c.PublicKey, signCount: c.Authenticator.SignCount,
		backupEligible: c.Flags.BackupEligible, backupState: c.Flags.BackupState, label: label, createdAt: s.now()}
	for _, t := range c.Transport {
		if len(k.transports) < 8 && len(t) < 32 && printable(string(t)) {
			k.transports = append(k.transports, string(t))
		}
	}
	return k, nil
}

// parseAssertion reads what an authenticator signed, and holds it against the
// origin byte for byte: the library folds case and default ports.
func (s *Service) parseAssertion(credentialJSON []byte) (*protocol.ParsedCredentialAssertionData, error) {
	if err := strictjson.Check(credentialJSON, credentialLimits()); err != nil {
		return nil, err
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(credentialJSON)
	if err != nil {
		return nil, err
	}
	if got := parsed.Response.CollectedClientData; got.Origin != s.origin || got.Type != protocol.AssertCeremony || got.CrossOrigin {
		return nil, errors.New("the assertion comes from another origin or ceremony")
	}
	return parsed, nil
}

// checkAssertion verifies an assertion of one of h's passkeys over challenge,
// with the person verified, and gives the passkey as it then stands.
func (s *Service) checkAssertion(h holder, challenge []byte, parsed *protocol.ParsedCredentialAssertionData) (passkey, error) {
	k, ok := h.key(parsed.RawID)
	if !ok {
		return passkey{}, errors.New("the passkey is not this person's")
	}
	session := webauthn.SessionData{
		Challenge: base64.RawURLEncoding.EncodeToString(challenge), RelyingPartyID: s.rp.Config.RPID, Origin: s.origin,
		UserID: h.WebAuthnID(), AllowedCredentialIDs: [][]byte{k.credential}, UserVerification: protocol.VerificationRequired,
	}
	c, err := s.rp.ValidateLogin(h, session, parsed)
	if err != nil {
		return passkey{}, err
	}
	if !parsed.Response.AuthenticatorData.Flags.HasUserVerified() {
		return passkey{}, errors.New("the person was not verified")
	}
	if c.Authenticator.CloneWarning {
		return k, errClone
	}
	k.signCount, k.backupState = c.Authenticator.SignCount, c.Flags.BackupState
	return k, nil
}

// spend notes the use of a passkey in tx. Of two assertions with one counter,
// on whatever nodes, one gets errClone.
func (s *Service) spend(ctx context.Context, tx *sqldb.Tx, k passkey) error {
	ok, err := usePasskey(ctx, tx, k, s.now())
	if err == nil && !ok {
		err = errClone
	}
	return err
}

// reason names a refusal for the audit without quoting the input.
func reason(err error) string {
	switch {
	case errors.Is(err, errClone):
		return "clone_suspected"
	case fault.Is(err, "invalid_json"), fault.Is(err, "body_too_large"):
		return "malformed"
	}
	return "not_verified"
}

// holderOf reads an enabled user and their passkeys.
func (s *Service) holderOf(ctx context.Context, user id.User) (holder, error) {
	u, err := selectUser(ctx, s.db.Reader(), user)
	if sqldb.NoRows(err) || err == nil && !u.DisabledAt.IsZero() {
		return holder{}, unauthenticated()
	}
	if err != nil {
		return holder{}, sqldb.Wrap("read a user", err)
	}
	keys, err := selectPasskeys(ctx, s.db.Reader(), user)
	return holder{user: u, keys: keys}, sqldb.Wrap("read passkeys", err)
}

// take ends a ceremony that has begun, whatever comes of it: each challenge is
// good for one answer.
func (s *Service) take(ctx context.Context, subject, kind string) (flow, error) {
	var f flow
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		var err error
		f, err = takeFlow(ctx, tx, subject)
		return err
	})
	if sqldb.NoRows(err) {
		return flow{}, flowGone()
	}
	if err != nil {
		return flow{}, sqldb.Wrap("end a sign-in ceremony", err)
	}
	if f.kind != kind || !s.now().Before(f.expires) {
		return flow{}, flowGone()
	}
	return f, nil
}

func (s *Service) keep(ctx context.Context, f flow) error {
	now := s.now()
	f.expires = now.Add(FlowAge)
	return sqldb.Wrap("begin a sign-in ceremony", s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error { return putFlow(ctx, tx, f, now) }))
}

// Passkey is one of a person's passkeys, as they see it.
type Passkey struct {
	ID         id.Passkey
	Label      string
	Synced     bool // backed up by its maker's cloud
	CreatedAt  time.Time
	LastUsedAt time.Time
}

func (k passkey) public() Passkey {
	return Passkey{ID: k.id, Label: k.label, Synced: k.backupState, CreatedAt: k.createdAt, LastUsedAt: k.lastUsedAt}
}
