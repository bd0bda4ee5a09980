package account

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Enrollment is whom a link is for.
type Enrollment struct {
	User      id.User
	Name      string
	Email     string
	First     bool // the user has no way to sign in yet
	ExpiresAt time.Time
}

func linkGone() error {
	return fault.New(fault.Expired, "link_expired", "This link was used, has been replaced, or is too old.").
		WithHint("Ask for a new one; on the server, run ambit recover.")
}

// Link looks at a link without using it up.
func (s *Service) Link(ctx context.Context, token secret.Value) (Enrollment, error) {
	l, h, err := s.linked(ctx, token)
	if err != nil {
		return Enrollment{}, err
	}
	n, err := s.factors(ctx, s.db.Reader(), h.user.ID)
	if err != nil {
		return Enrollment{}, sqldb.Wrap("count factors", err)
	}
	return Enrollment{User: h.user.ID, Name: h.user.Name, Email: h.user.Email, First: !n.any(), ExpiresAt: l.expires}, nil
}

func (s *Service) linked(ctx context.Context, token secret.Value) (link, holder, error) {
	if !secret.IsToken(token, linkPrefix) {
		return link{}, holder{}, linkGone()
	}
	l, ok, err := selectLink(ctx, s.db.Reader(), token, s.now())
	if err != nil {
		return link{}, holder{}, sqldb.Wrap("read a link", err)
	}
	if !ok {
		return link{}, holder{}, linkGone()
	}
	h, err := s.holderOf(ctx, l.user)
	return l, h, err
}

// BeginEnroll gives the WebAuthn creation options ({"publicKey": …}) for the
// user of a link.
func (s *Service) BeginEnroll(ctx context.Context, token secret.Value) (optionsJSON []byte, err error) {
	l, h, err := s.linked(ctx, token)
	if err != nil {
		return nil, err
	}
	options, state, err := s.beginRegistration(h)
	if err != nil {
		return nil, err
	}
	return options, s.keep(ctx, flow{subject: l.id, kind: flowEnroll, user: l.user, state: state})
}

// FinishEnroll registers the passkey, uses the link up and signs the user in.
func (s *Service) FinishEnroll(ctx context.Context, token secret.Value, credentialJSON []byte, label, address string) (secret.Value, error) {
	if err := checkLabel(label); err != nil {
		return secret.Value{}, err
	}
	l, h, err := s.linked(ctx, token)
	if err != nil {
		return secret.Value{}, err
	}
	f, err := s.take(ctx, l.id, flowEnroll)
	if err != nil {
		return secret.Value{}, err
	}
	e := audit.Entry{Environment: h.user.Environment, Actor: audit.Actor{Kind: "user", ID: string(h.user.ID)}, User: h.user.ID, Action: "passkey.registered", Address: address}
	k, err := s.finishRegistration(h, f.state, credentialJSON, label)
	if err != nil {
		s.refused(ctx, e, reason(err))
		return secret.Value{}, passkeyRefused(err)
	}
	e.Object = string(k.id)
	var login secret.Value
	err = s.enrolled(ctx, l, e, func(ctx context.Context, tx *sqldb.Tx, _ bool) error {
		if err := insertPasskey(ctx, tx, k); err != nil {
			return err
		}
		login, err = s.newLogin(ctx, tx, loginRow{user: l.user, method: MethodLink, passkey: k.id, address: address})
		return err
	})
	if sqldb.IsUnique(err) {
		return secret.Value{}, passkeyTaken()
	}
	return login, err
}

// enrolled is enrolling in a transaction of its own.
func (s *Service) enrolled(ctx context.Context, l link, e audit.Entry, do func(ctx context.Context, tx *sqldb.Tx, first bool) error) error {
	return sqldb.Wrap("enrol a user", s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error { return s.enrolling(ctx, tx, l, e, do) }))
}

// enrolling uses a link up, does what it was for, and records both.
func (s *Service) enrolling(ctx context.Context, tx *sqldb.Tx, l link, e audit.Entry, do func(ctx context.Context, tx *sqldb.Tx, first bool) error) error {
	// The lock comes first: of two links one is used, and it voids the other.
	if ok, err := lockUser(ctx, tx, l.user); err != nil || !ok {
		return orElse(err, linkGone())
	}
	if ok, err := takeLink(ctx, tx, l, s.now()); err != nil || !ok {
		return orElse(err, linkGone())
	}
	if err := deleteLinks(ctx, tx, l.user); err != nil {
		return err
	}
	n, err := s.factors(ctx, tx, l.user)
	if err != nil {
		return err
	}
	if err := do(ctx, tx, !n.any()); err != nil {
		return err
	}
	s.audit.Append(tx, e)
	e.Action, e.Object = "signin.link", string(l.user)
	s.audit.Append(tx, e)
	return nil
}

func checkLabel(label string) error {
	if len([]rune(label)) > 80 || !printable(label) {
		return fault.New(fault.Invalid, "invalid_label", "A label is at most 80 printable characters on one line.")
	}
	return nil
}

func passkeyRefused(cause error) error {
	return fault.New(fault.Denied, "passkey_refused", "The passkey was not accepted.").
		WithHint("Start again on this page; the device must verify you, by fingerprint, face or PIN.").WithCause(cause)
}

func passkeyTaken() error {
	return fault.New(fault.Conflict, "passkey_exists", "This passkey is registered already.").WithHint("Use another device or password manager.")
}

// BeginAddPasskey gives creation options for one more passkey, to who holds a
// grant; see Unlock.
func (s *Service) BeginAddPasskey(ctx context.Context, p Person, grant secret.Value) (flowID string, optionsJSON []byte, err error) {
	if err := s.granted(ctx, s.db.Reader(), p, grant); err != nil {
		return "", nil, err
	}
	h, err := s.holderOf(ctx, p.user)
	if err != nil {
		return "", nil, err
	}
	options, state, err := s.beginRegistration(h)
	if err != nil {
		return "", nil, err
	}
	f := flow{subject: string(id.NewFlow()), kind: flowAdd, user: p.user, login: p.login, state: state}
	return f.subject, options, s.keep(ctx, f)
}

// FinishAddPasskey registers what BeginAddPasskey asked for, in the same login,
// and uses the grant up.
func (s *Service) FinishAddPasskey(ctx context.Context, p Person, grant secret.Value, flowID string, credentialJSON []byte, label string) (Passkey, error) {
	if err := s.granted(ctx, s.db.Reader(), p, grant); err != nil {
		return Passkey{}, err
	}
	if err := checkLabel(label); err != nil {
		return Passkey{}, err
	}
	f, err := s.take(ctx, flowID, flowAdd)
	if err != nil {
		return Passkey{}, err
	}
	if f.user != p.user || f.login != p.login {
		return Passkey{}, fault.New(fault.Expired, "flow_expired", "This took too long, or was answered already.").WithHint("Start again.")
	}
	h, err := s.holderOf(ctx, p.user)
	if err != nil {
		return Passkey{}, err
	}
	k, err := s.finishRegistration(h, f.state, credentialJSON, label)
	if err != nil {
		s.refused(ctx, personEntry(p, "passkey.registered", ""), reason(err))
		return Passkey{}, passkeyRefused(err)
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if ok, err := lockUser(ctx, tx, p.user); err != nil || !ok {
			return orElse(err, unauthenticated())
		}
		if err := s.takeGrant(ctx, tx, p, grant); err != nil {
			return err
		}
		if err := insertPasskey(ctx, tx, k); err != nil {
			return err
		}
		s.audit.Append(tx, personEntry(p, "passkey.registered", string(k.id)))
		return nil
	})
	if sqldb.IsUnique(err) {
		return Passkey{}, passkeyTaken()
	}
	return k.public(), sqldb.Wrap("register a passkey", err)
}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// Passkeys lists the person's passkeys.
func (s *Service) Passkeys(ctx context.Context, p Person) ([]Passkey, error) {
	if p.user == "" {
		return nil, unauthenticated()
	}
	keys, err := selectPasskeys(ctx, s.db.Reader(), p.user)
	var out []Passkey
	for _, k := range keys {
		out = append(out, k.public())
	}
	return out, sqldb.Wrap("list passkeys", err)
}

// RemovePasskeyDigest is what a person proves presence for to remove a passkey.
func (s *Service) RemovePasskeyDigest(p Person, k id.Passkey) [32]byte {
	return sha256.Sum256(crypt.Fields("ambit remove passkey 1", s.origin, string(p.user), string(p.login), string(k)))
}

// RemovePasskey forgets a passkey and ends the logins that it made. The last
// way to sign in stays.
func (s *Service) RemovePasskey(ctx context.Context, p Person, k id.Passkey, proof Proof) error {
	ev, err := s.Prove(ctx, p, s.RemovePasskeyDigest(p, k), "", proof)
	if err != nil {
		return err
	}
	return s.removeFactor(ctx, p, ev, "passkey.removed", string(k), func(ctx context.Context, tx *sqldb.Tx) (bool, error) {
		ok, err := deletePasskey(ctx, tx, p.user, k)
		if err != nil || !ok {
			return ok, err
		}
		_, err = revokeLogins(ctx, tx, p.user, "", k, s.now())
		return true, err
	})
}

func (s *Service) removeFactor(ctx context.Context, p Person, ev Evidence, action, object string, remove func(ctx context.Context, tx *sqldb.Tx) (bool, error)) error {
	return sqldb.Wrap("remove a way to sign in", s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if ok, err := lockUser(ctx, tx, p.user); err != nil || !ok {
			return orElse(err, unauthenticated())
		}
		ok, err := remove(ctx, tx)
		if err != nil {
			return err
		}
		if !ok {
			return notFound("passkey")
		}
		n, err := s.factors(ctx, tx, p.user)
		if err != nil {
			return err
		}
		if n.passkeys+n.totp == 0 { // what a provider says may end with the provider
			return fault.New(fault.Conflict, "last_factor", "This is your only way to sign in.").WithHint("Register another passkey first.")
		}
		e := personEntry(p, action, object)
		e.Evidence = ev.JSON()
		s.audit.Append(tx, e)
		return nil
	}))
}

// BeginSignIn gives WebAuthn request options ({"publicKey": …}) for whoever
// has a passkey for this server.
func (s *Service) BeginSignIn(ctx context.Context) (flowID string, optionsJSON []byte, err error) {
	flow, challenge, err := s.newChallenge(ctx)
	if err != nil {
		return "", nil, err
	}
	assertion, session, err := s.rp.BeginDiscoverableLogin(webauthn.WithChallenge(challenge))
	if err != nil {
		return "", nil, err
	}
	options, _, err := encodeBoth(assertion, session)
	return flow, options, err
}

func signInRefused(cause error) error {
	return fault.New(fault.Unauthenticated, "sign_in_refused", "The sign-in was not accepted.").
		WithHint("Try again. If you lost your passkeys, ask an owner or run ambit recover on the server.").WithCause(cause)
}

// FinishSignIn signs the passkey's owner in.
func (s *Service) FinishSignIn(ctx context.Context, flowID string, credentialJSON []byte, address string) (secret.Value, error) {
	in, err := s.checkSignIn(ctx, &Waiting{}, flowID, credentialJSON, address)
	if err != nil {
		return secret.Value{}, err
	}
	if err := s.admit(ctx, in); err != nil {
		return secret.Value{}, err
	}
	return in.token, nil
}

// checkSignIn checks a sign-in and writes nothing of it. Refusals are recorded as
// far as this server can.
func (s *Service) checkSignIn(ctx context.Context, w *Waiting, flowID string, credentialJSON []byte, address string) (signIn, error) {
	challenge, err := s.challengeOf(ctx, flowID)
	if err != nil {
		return signIn{}, err
	}
	// Looked at first: an answer that is sent twice is no copied authenticator.
	in := signIn{challenge: sha256.Sum256(challenge), token: secret.Token(loginPrefix), until: s.now().Add(FlowAge)}
	if spent, err := isSpent(ctx, s.db.Reader(), in.challenge); err != nil || spent || w.has(in.challenge) {
		return signIn{}, orElse(sqldb.Wrap("read spent proofs", err), flowGone())
	}
	in.entry = audit.Entry{Actor: audit.Actor{Kind: "system", ID: "sign-in"}, Action: "signin.passkey", Address: address}
	parsed, err := s.parseAssertion(credentialJSON)
	if err != nil {
		return signIn{}, s.refuseSignIn(ctx, in.entry, err)
	}
	h, err := s.discovered(ctx, parsed)
	if err != nil {
		return signIn{}, s.refuseSignIn(ctx, in.entry, err)
	}
	in.entry.Environment, in.entry.User, in.entry.Object = h.user.Environment, h.user.ID, string(h.user.ID)
	if in.passkey, err = s.checkAssertion(h, challenge, parsed); err != nil {
		return signIn{}, s.refuseSignIn(ctx, in.entry, err)
	}
	return in, nil
}

// admit makes the login of a sign-in that was checked, and puts it on record.
func (s *Service) admit(ctx context.Context, in signIn) error {
	k := in.passkey
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if ok, err := lockUser(ctx, tx, k.user); err != nil || !ok {
			return orElse(err, unauthenticated())
		}
		if err := s.Spend(ctx, tx, in.challenge); err != nil {
			return err
		}
		if err := s.spend(ctx, tx, k); err != nil {
			return err
		}
		e := in.entry
		e.Actor, e.Decision = audit.Actor{Kind: "user", ID: string(k.user)}, "allow"
		e.Detail = map[string]string{"passkey": string(k.id)}
		s.audit.Append(tx, e)
		return s.addLogin(ctx, tx, loginRow{user: k.user, method: MethodPasskey, passkey: k.id, address: e.Address}, in.token)
	})
	if fault.Is(err, codeProofUsed) {
		return flowGone()
	}
	if err != nil {
		return s.refuseSignIn(ctx, in.entry, sqldb.Wrap("sign in", err))
	}
	return nil
}

func (s *Service) refuseSignIn(ctx context.Context, e audit.Entry, err error) error {
	if fault.KindOf(err) == fault.Unavailable {
		return err
	}
	s.turnedAway(ctx, e, reason(err))
	return signInRefused(err)
}

// discovered finds whose passkey answered. The authenticator names the user
// too, and the two must agree.
func (s *Service) discovered(ctx context.Context, parsed *protocol.ParsedCredentialAssertionData) (holder, error) {
	k, err := selectPasskeyByCredential(ctx, s.db.Reader(), parsed.RawID)
	if err != nil {
		return holder{}, sqldb.Wrap("read a passkey", err)
	}
	if string(parsed.Response.UserHandle) != string(k.user) {
		return holder{}, signInRefused(nil)
	}
	return s.holderOf(ctx, k.user)
}
