package account

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

// refusalTime is how long a refused sign-in by code takes, whatever the reason,
// so that it does not tell who has an account (threats.md G7).
const refusalTime = 100 * time.Millisecond

var (
	errWrongCode = errors.New("the code is wrong or was used")
	errNoTOTP    = errors.New("no authenticator app is registered")
)

func totpPlace(u User, version int64) vault.Place {
	return vault.Place{Environment: u.Environment, User: u.ID, Kind: "totp", Object: string(u.ID), Version: version}
}

// keeps lists what this room has sealed.
func keeps() []vault.Sealed {
	place := func(scan func(dest ...any) error) (vault.Place, error) {
		var u User
		var version int64
		err := scan(&u.ID, &u.Environment, &version)
		return totpPlace(u, version), err
	}
	column := func(table, key string) vault.Sealed {
		return vault.Sealed{Table: table, Column: "envelope", Key: []string{key}, Join: `join person p on p.id = s.user_id`,
			Fields: `s.user_id, p.environment_id, s.sealed_version`, Place: place}
	}
	provider := vault.Sealed{Table: "identity_provider", Column: "envelope", Key: []string{"id"}, Fields: `s.id, s.environment_id, s.organization_id, s.sealed_version`,
		Place: func(scan func(dest ...any) error) (vault.Place, error) {
			var i IdentityProvider
			err := scan(&i.ID, &i.Environment, &i.Organization, &i.sealed)
			return i.place(i.sealed), err
		}}
	return []vault.Sealed{column("totp", "user_id"), column("totp_setup", "subject"), provider}
}

// BeginTOTP gives the otpauth URL of a new authenticator app, to show as a QR
// code, to who holds a grant; see Unlock. It replaces nothing until FinishTOTP.
func (s *Service) BeginTOTP(ctx context.Context, p Person, grant secret.Value) (otpauthURL secret.Value, err error) {
	if err := s.granted(ctx, s.db.Reader(), p, grant); err != nil {
		return secret.Value{}, err
	}
	return s.beginTOTP(ctx, p.user, string(p.login))
}

func (s *Service) beginTOTP(ctx context.Context, user id.User, subject string) (secret.Value, error) {
	h, err := s.holderOf(ctx, user)
	if err != nil {
		return secret.Value{}, err
	}
	name := strings.ReplaceAll(h.WebAuthnName(), ":", " ") // the label's separator
	key, err := totp.Generate(totp.GenerateOpts{Issuer: "Ambit " + s.rp.Config.RPID, AccountName: name, Period: totpPeriod})
	if err != nil {
		return secret.Value{}, err
	}
	now := s.now()
	t := sealed{user: user, version: now.UnixMicro()}
	if t.envelope, err = s.vault.Seal(ctx, totpPlace(h.user, t.version), secret.FromString(key.Secret())); err != nil {
		return secret.Value{}, err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error { return putSetup(ctx, tx, subject, t, now) })
	if err != nil {
		return secret.Value{}, sqldb.Wrap("begin an authenticator app", err)
	}
	return secret.FromString(key.URL()), nil
}

// FinishTOTP registers the app that BeginTOTP gave to this login, once it shows
// a right code, and uses the grant up. It replaces an app that was registered
// before.
func (s *Service) FinishTOTP(ctx context.Context, p Person, grant secret.Value, code string) error {
	if err := s.granted(ctx, s.db.Reader(), p, grant); err != nil {
		return err
	}
	t, u, err := s.shown(ctx, string(p.login), p.user, code)
	if err != nil {
		return err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if ok, err := lockUser(ctx, tx, p.user); err != nil || !ok {
			return orElse(err, unauthenticated())
		}
		if err := s.takeGrant(ctx, tx, p, grant); err != nil {
			return err
		}
		if err := s.registerTOTP(ctx, tx, string(p.login), t, u); err != nil {
			return err
		}
		s.audit.Append(tx, personEntry(p, "totp.registered", string(p.user)))
		return nil
	})
	return totpTaken(sqldb.Wrap("register an authenticator app", err))
}

// shown checks a code of an app that is being set up, and gives the app.
func (s *Service) shown(ctx context.Context, subject string, user id.User, code string) (sealed, User, error) {
	u, err := selectUser(ctx, s.db.Reader(), user)
	if err != nil {
		return sealed{}, User{}, sqldb.Wrap("read a user", err)
	}
	t, err := selectSetup(ctx, s.db.Reader(), subject, s.now())
	if sqldb.NoRows(err) || err == nil && t.user != user {
		return sealed{}, User{}, setupGone()
	}
	if err != nil {
		return sealed{}, User{}, sqldb.Wrap("read an authenticator app", err)
	}
	t.lastStep, err = s.guess(ctx, "setup "+string(user), func() (int64, error) { return s.codeStep(ctx, u, t, code) }, nil)
	switch {
	case errors.Is(err, errWrongCode):
		return sealed{}, User{}, fault.New(fault.Denied, "code_refused", "The code was not accepted.").WithHint("Scan the picture again, or wait for the next code.")
	case err != nil:
		return sealed{}, User{}, err
	}
	return t, u, nil
}

func setupGone() error {
	return fault.New(fault.Expired, "setup_expired", "This took too long, or was answered already.").WithHint("Start again.")
}

func (s *Service) registerTOTP(ctx context.Context, tx *sqldb.Tx, subject string, t sealed, u User) error {
	ok, err := deleteSetup(ctx, tx, subject, t)
	if err != nil {
		return err
	}
	if !ok {
		return setupGone()
	}
	// Read again, since the person may just have changed it: the e-mail is what
	// a sign-in by code is looked up by.
	now, err := selectUser(ctx, tx, u.ID)
	if err != nil {
		return err
	}
	return putTOTP(ctx, tx, t, now.Email, s.now())
}

func totpTaken(err error) error {
	if sqldb.IsUnique(err) {
		return fault.New(fault.Conflict, "email_taken", "Another person with this e-mail signs in by authenticator app.").WithHint("Change your e-mail first.")
	}
	return err
}

// BeginEnrollTOTP is BeginEnroll for somebody who has no device for passkeys.
// It works only for the very first way to sign in.
func (s *Service) BeginEnrollTOTP(ctx context.Context, token secret.Value) (otpauthURL secret.Value, err error) {
	l, err := s.firstLink(ctx, token)
	if err != nil {
		return secret.Value{}, err
	}
	return s.beginTOTP(ctx, l.user, l.id)
}

// FinishEnrollTOTP registers the app, uses the link up and signs the user in.
func (s *Service) FinishEnrollTOTP(ctx context.Context, token secret.Value, code, address string) (secret.Value, error) {
	l, err := s.firstLink(ctx, token)
	if err != nil {
		return secret.Value{}, err
	}
	t, u, err := s.shown(ctx, l.id, l.user, code)
	if err != nil {
		return secret.Value{}, err
	}
	e := audit.Entry{Environment: u.Environment, Actor: audit.Actor{Kind: "user", ID: string(u.ID)}, User: u.ID, Action: "totp.registered", Object: string(u.ID), Address: address}
	var login secret.Value
	err = s.enrolled(ctx, l, e, func(ctx context.Context, tx *sqldb.Tx, first bool) error {
		if !first {
			return passkeyFirst()
		}
		if err := s.registerTOTP(ctx, tx, l.id, t, u); err != nil {
			return err
		}
		login, err = s.newLogin(ctx, tx, loginRow{user: l.user, method: MethodLink, address: address})
		return err
	})
	return login, totpTaken(err)
}

func (s *Service) firstLink(ctx context.Context, token secret.Value) (link, error) {
	l, h, err := s.linked(ctx, token)
	if err != nil {
		return link{}, err
	}
	n, err := s.factors(ctx, s.db.Reader(), h.user.ID)
	if err != nil {
		return link{}, sqldb.Wrap("count factors", err)
	}
	if n.any() {
		return link{}, passkeyFirst()
	}
	return l, nil
}

func passkeyFirst() error {
	return fault.New(fault.Denied, "passkey_required", "After a recovery a passkey comes first.").WithHint("Register a passkey, sign in with it, then add the app.")
}

// RemoveTOTPDigest is what a person proves presence for to forget their app.
func (s *Service) RemoveTOTPDigest(p Person, nonce string) [32]byte {
	return sha256.Sum256(crypt.Fields("ambit remove totp 2", s.origin, string(p.user), string(p.login), nonce))
}

// RemoveTOTP forgets the person's authenticator app.
func (s *Service) RemoveTOTP(ctx context.Context, p Person, nonce string, proof Proof) error {
	digest := s.RemoveTOTPDigest(p, nonce)
	ev, err := s.Prove(ctx, p, digest, "", proof)
	if err != nil {
		return err
	}
	return s.removeFactor(ctx, p, ev, "totp.removed", string(p.user), func(ctx context.Context, tx *sqldb.Tx) (bool, error) {
		if err := s.Spend(ctx, tx, digest); err != nil { // an app can be registered again in the same login
			return false, err
		}
		return deleteTOTP(ctx, tx, p.user)
	})
}

// HasTOTP reports whether the person has an authenticator app.
func (s *Service) HasTOTP(ctx context.Context, p Person) (bool, error) {
	n, err := s.factors(ctx, s.db.Reader(), p.user)
	return n.totp > 0, sqldb.Wrap("count factors", err)
}

// tryCode gives the unused time step whose code this is.
func (s *Service) tryCode(ctx context.Context, user id.User, code string) (int64, error) {
	t, err := selectTOTP(ctx, s.db.Reader(), user)
	if sqldb.NoRows(err) {
		return 0, errNoTOTP
	}
	if err != nil {
		return 0, sqldb.Wrap("read an authenticator app", err)
	}
	u, err := selectUser(ctx, s.db.Reader(), user)
	if err != nil {
		return 0, sqldb.Wrap("read a user", err)
	}
	return s.codeStep(ctx, u, t, code)
}

// codeStep checks a code: six ASCII digits and nothing else, so that no second
// spelling of a used code is a new one (threats.md G9).
func (s *Service) codeStep(ctx context.Context, u User, t sealed, code string) (int64, error) {
	seed, err := s.vault.Open(ctx, totpPlace(u, t.version), t.envelope)
	if err != nil {
		return 0, err
	}
	if len(code) != 6 || strings.Trim(code, "0123456789") != "" {
		return 0, errWrongCode
	}
	step, ok := totpStep(seed, code, s.now())
	if !ok || step <= t.lastStep {
		return 0, errWrongCode
	}
	return step, nil
}

// spendStep makes sure, over all nodes, that no step serves twice.
func (s *Service) spendStep(ctx context.Context, tx *sqldb.Tx, user id.User, step int64) error {
	ok, err := useStep(ctx, tx, user, step)
	if err == nil && !ok {
		err = errWrongCode
	}
	return err
}

const tooManyAttempts = "too_many_attempts"

// guess runs try at most five times in 15 minutes for a subject, counted in the
// database before the outcome is known. What succeeds is done and uncounted in
// one transaction.
func (s *Service) guess(ctx context.Context, subject string, try func() (int64, error), do func(ctx context.Context, tx *sqldb.Tx, step int64) error) (int64, error) {
	var n int64
	var since time.Time
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		var err error
		n, since, err = countGuess(ctx, tx, subject, s.now())
		return err
	})
	if err != nil {
		return 0, sqldb.Wrap("count an attempt", err)
	}
	if n > maxGuesses {
		return 0, fault.New(fault.Limited, tooManyAttempts, "Too many attempts.").
			WithHint("Wait a quarter of an hour, or use a passkey.").WithRetry(since.Add(guessWindow).Sub(s.now()))
	}
	step, err := try()
	if err != nil {
		return 0, err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if do != nil {
			if err := do(ctx, tx, step); err != nil {
				return err
			}
		}
		return uncountGuess(ctx, tx, subject)
	})
	if err != nil {
		return 0, sqldb.Wrap("use a code", err)
	}
	return step, nil
}

// nobody is what guesses at an e-mail that nobody signs in with are counted by.
// There are 16,384 of these, so that no number of made-up e-mails leaves more in
// the database (threats.md W7).
func nobody(email string) string {
	sum := sha256.Sum256([]byte(email))
	return "sign-in of nobody " + strconv.Itoa(int(binary.BigEndian.Uint16(sum[:])>>2))
}

// SignInTOTP signs in with an e-mail and a code of a registered app. Unknown
// e-mails, wrong codes and people without an app get the same answer after the
// same time, and meet the same limit.
func (s *Service) SignInTOTP(ctx context.Context, email, code, address string) (secret.Value, error) {
	answer := time.NewTimer(refusalTime)
	defer answer.Stop()
	token, err := s.signInTOTP(ctx, email, code, address)
	if err != nil {
		select {
		case <-answer.C:
		case <-ctx.Done():
		}
	}
	return token, err
}

func (s *Service) signInTOTP(ctx context.Context, email, code, address string) (secret.Value, error) {
	canonical, err := CanonicalEmail(email)
	if err != nil {
		canonical = "" // nobody's; the attempt takes the same course
	}
	e := audit.Entry{Actor: audit.Actor{Kind: "system", ID: "sign-in"}, Action: "signin.totp", Address: address}
	u, found := selectTOTPUser(ctx, s.db.Reader(), canonical)
	subject := "sign-in " + canonical
	switch {
	case sqldb.NoRows(found):
		subject = nobody(canonical)
	case found != nil:
		return secret.Value{}, sqldb.Wrap("read a user", found)
	}
	user := u.ID
	var login secret.Value
	_, err = s.guess(ctx, subject, func() (int64, error) {
		if found != nil {
			return 0, errNoTOTP
		}
		e.Environment, e.User, e.Object = u.Environment, u.ID, string(u.ID)
		return s.tryCode(ctx, u.ID, code)
	}, func(ctx context.Context, tx *sqldb.Tx, step int64) error {
		if ok, err := lockUser(ctx, tx, user); err != nil || !ok {
			return orElse(err, errNoTOTP)
		}
		if err := s.spendStep(ctx, tx, user, step); err != nil {
			return err
		}
		done := e
		done.Actor, done.Decision = audit.Actor{Kind: "user", ID: string(user)}, "allow"
		s.audit.Append(tx, done)
		var err error
		login, err = s.newLogin(ctx, tx, loginRow{user: user, method: MethodTOTP, address: address})
		return err
	})
	if err == nil {
		return login, nil
	}
	if k := fault.KindOf(err); k == fault.Limited || k == fault.Unavailable {
		return secret.Value{}, err
	}
	s.turnedAway(ctx, e, reason(err))
	return secret.Value{}, signInRefused(err)
}
