package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"math/big"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// A command line signs in as a device does (RFC 8628): it shows a code, the
// person types it in the browser, sees from where the request came, and proves
// presence for exactly that code; the command line fetches its token with a
// secret of its own (threats.md A12).

const (
	// Consonants only: no words, no digits that look like letters. Eight of
	// twenty are 34 bits.
	codeAlphabet = "BCDFGHJKLMNPQRSTVWXZ"
	codeLength   = 8
	codeHint     = "Compare it with your terminal: eight letters in two groups, like BCDF-GHJK, without vowels and digits."
	pollInterval = 2 * time.Second
	// maxWaiting bounds what unauthenticated callers can leave in the database.
	// Over it the oldest of the address that has most make way, a tenth at once.
	// Those that a person has opened stay, the last maxOpened of each person.
	maxWaiting = 10_000
	maxOpened  = 10
)

// CLIRequest is a command line that waits to be confirmed.
type CLIRequest struct {
	Code      string
	Address   string // where it runs, as the server sees it
	CreatedAt time.Time
	ExpiresAt time.Time

	id           string
	user         id.User         // once confirmed
	organization id.Organization // of the login that confirmed it, if that is confined
	provider     id.IdentityProvider
	pollHash     []byte
	version      int64
}

// StartCLI makes a code to show to the person and the secret to poll with.
func (s *Service) StartCLI(ctx context.Context, address string) (userCode string, poll secret.Value, err error) {
	code := NewUserCode()
	poll = secret.Token(pollPrefix)
	now := s.now()
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		n, err := sweepCLI(ctx, tx, now)
		if err != nil {
			return err
		}
		if n >= maxWaiting {
			n, err = thinCLI(ctx, tx, n)
		}
		if err != nil {
			return err
		}
		if n >= maxWaiting { // all opened
			return fault.New(fault.Limited, "too_many_requests", "Too many command lines wait for a sign-in.").WithRetry(time.Minute)
		}
		return insertCLI(ctx, tx, CLIRequest{id: string(id.NewFlow()), Code: code, Address: address, CreatedAt: now, ExpiresAt: now.Add(FlowAge)}, poll.Hash())
	})
	if err != nil {
		return "", secret.Value{}, sqldb.Wrap("start a sign-in of a command line", err)
	}
	return ShowUserCode(code), poll, nil
}

// NewUserCode makes a code for a person to type that another device shows: about
// 34 bits, without vowels, so that no words come out. It is stored as it is.
func NewUserCode() string {
	var b strings.Builder
	for range codeLength {
		n, _ := rand.Int(rand.Reader, big.NewInt(int64(len(codeAlphabet)))) // never fails
		b.WriteByte(codeAlphabet[n.Int64()])
	}
	return b.String()
}

// ShowUserCode writes a code for people: in two groups.
func ShowUserCode(code string) string { return code[:4] + "-" + code[4:] }

// GuessUserCode lets a person try a code as they typed it: look says whether
// something waits behind it. Wrong codes are counted as in CLIRequest, of which
// this is the form for other rooms; retry is what the person does when it is gone.
func (s *Service) GuessUserCode(ctx context.Context, p Person, typed, retry string, look func(code string) (found bool, err error)) error {
	if err := p.browser(); err != nil {
		return err
	}
	_, err := s.guess(ctx, "cli "+p.guesser(), func() (int64, error) {
		code, ok := canonicalCode(typed)
		if !ok {
			return 0, notFound("code").WithHint(codeHint)
		}
		found, err := look(code)
		if err == nil && !found {
			err = fault.New(fault.NotFound, "not_found", "Nothing waits with this code.").WithHint(codeHint + " It works once, for ten minutes. " + retry)
		}
		return 0, err
	}, nil)
	if f := fault.Of(err); f != nil && f.Code == tooManyAttempts {
		return f.WithHint("Wait a quarter of an hour, then type the code again.")
	}
	return err
}

// canonicalCode is a code as typed by a person, in the form that is stored.
func canonicalCode(s string) (string, bool) {
	s = strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(s))
	return s, len(s) == codeLength && strings.Trim(s, codeAlphabet) == ""
}

// CLIRequest gives what waits behind a code, for the person to compare. Wrong
// codes are counted.
func (s *Service) CLIRequest(ctx context.Context, p Person, userCode string) (CLIRequest, error) {
	if err := p.browser(); err != nil {
		return CLIRequest{}, err
	}
	var r CLIRequest
	_, err := s.guess(ctx, "cli "+p.guesser(), func() (int64, error) {
		code, ok := canonicalCode(userCode)
		if !ok {
			return 0, notFound("code").WithHint(codeHint)
		}
		var err error
		r, err = selectCLI(ctx, s.db.Reader(), code, s.now())
		if sqldb.NoRows(err) || err == nil && r.user != "" {
			return 0, fault.New(fault.NotFound, "not_found", "No command line waits with this code.").WithHint(codeHint + " It works once, for ten minutes; then run ambit login again.")
		}
		return 0, sqldb.Wrap("read a command line's request", err)
	}, func(ctx context.Context, tx *sqldb.Tx, _ int64) error { return openCLI(ctx, tx, r, p.user) })
	if f := fault.Of(err); f != nil && f.Code == tooManyAttempts {
		return r, f.WithHint("Wait a quarter of an hour, then type the code that your terminal shows.")
	}
	return r, err
}

// CLIDigest is what a person proves presence for to confirm a code.
func (s *Service) CLIDigest(p Person, userCode string) [32]byte {
	code, _ := canonicalCode(userCode)
	return sha256.Sum256(crypt.Fields("ambit cli 1", s.origin, string(p.user), string(p.login), code))
}

// ConfirmCLI lets the command line that shows the code sign in as the person, with
// no more than the login that confirms it.
func (s *Service) ConfirmCLI(ctx context.Context, p Person, userCode string, proof Proof) error {
	r, err := s.CLIRequest(ctx, p, userCode)
	if err != nil {
		return err
	}
	ev, err := s.Prove(ctx, p, s.CLIDigest(p, userCode), p.confined, proof)
	if err != nil {
		return err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		// Whatever ends this login forgets what it let in, and one of the two waits for
		// the other: so what is confirmed and not taken yet is still good.
		if p.provider != "" {
			if _, err := s.held(ctx, tx, p.provider); err != nil {
				return err
			}
		}
		if ok, err := lockUser(ctx, tx, p.user); err != nil || !ok {
			return orElse(err, unauthenticated())
		}
		ok, err := confirmCLI(ctx, tx, r, p, s.now())
		if err != nil {
			return err
		}
		if !ok {
			return fault.New(fault.Expired, "flow_expired", "This took too long, or was answered already.").WithHint("Run ambit login again.")
		}
		e := personEntry(p, "cli.confirmed", r.id)
		e.Evidence, e.Detail = ev.JSON(), map[string]string{"cli_address": r.Address}
		s.audit.Append(tx, e)
		return nil
	})
	return sqldb.Wrap("confirm a command line", err)
}

// RefuseCLI ends the request behind a code: nobody can confirm it any more, and
// its command line stops waiting. It takes no proof, as whatever takes access away.
func (s *Service) RefuseCLI(ctx context.Context, p Person, userCode string) error {
	r, err := s.CLIRequest(ctx, p, userCode)
	if err != nil {
		return err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		ok, err := takeCLI(ctx, tx, r)
		if err != nil {
			return err
		}
		if !ok {
			return fault.New(fault.Expired, "flow_expired", "This was answered already.").WithHint("If a command line that you do not know is signed in, end it on your account page.")
		}
		e := personEntry(p, "cli.refused", r.id)
		e.Decision, e.Detail = "deny", map[string]string{"cli_address": r.Address}
		s.audit.Append(tx, e)
		return nil
	})
	return sqldb.Wrap("refuse a command line", err)
}

// PollCLI gives the login once the person has confirmed it, exactly once. Until
// then the error has the code authorization_pending.
func (s *Service) PollCLI(ctx context.Context, poll secret.Value, address string) (secret.Value, error) {
	gone := fault.New(fault.Expired, "flow_expired", "The code was refused, not confirmed in time, or used already.").WithHint("Run ambit login again.")
	if !secret.IsToken(poll, pollPrefix) {
		return secret.Value{}, gone
	}
	hash := poll.Hash()
	r, err := selectCLIByPoll(ctx, s.db.Reader(), hash, s.now())
	if sqldb.NoRows(err) || err == nil && subtle.ConstantTimeCompare(r.pollHash, hash[:]) != 1 {
		return secret.Value{}, gone
	}
	if err != nil {
		return secret.Value{}, sqldb.Wrap("read a command line's request", err)
	}
	if r.user == "" {
		return secret.Value{}, fault.New(fault.Conflict, "authorization_pending", "The code has not been confirmed yet.").WithRetry(pollInterval)
	}
	u, err := selectUser(ctx, s.db.Reader(), r.user)
	if err != nil {
		return secret.Value{}, sqldb.Wrap("read a user", err)
	}
	var login secret.Value
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if ok, err := lockUser(ctx, tx, r.user); err != nil || !ok {
			return orElse(err, gone)
		}
		if ok, err := takeCLI(ctx, tx, r); err != nil || !ok {
			return orElse(err, gone)
		}
		var err error
		login, err = s.newLogin(ctx, tx, loginRow{user: r.user, method: MethodCLI, organization: r.organization, provider: r.provider, address: address})
		s.audit.Append(tx, audit.Entry{Environment: u.Environment, Actor: audit.Actor{Kind: "user", ID: string(u.ID)}, User: u.ID,
			Action: "signin.cli", Object: r.id, Decision: "allow", Address: address})
		return err
	})
	if err != nil {
		return secret.Value{}, sqldb.Wrap("sign a command line in", err)
	}
	return login, nil
}
