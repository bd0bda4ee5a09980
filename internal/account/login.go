package account

import (
	"context"
	"crypto/subtle"
	"slices"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Login is one place where a person is signed in.
type Login struct {
	ID              id.Login
	Method          string
	Address         string // where the sign-in came from
	AuthenticatedAt time.Time
	LastSeenAt      time.Time // to the minute
	ExpiresAt       time.Time
	Current         bool // the one that asks
}

func unauthenticated() error {
	return fault.New(fault.Unauthenticated, "unauthenticated", "You are not signed in, or not any more.").WithHint("Sign in.")
}

// newLogin makes a login and its token, which is returned once.
func (s *Service) newLogin(ctx context.Context, tx *sqldb.Tx, l loginRow) (secret.Value, error) {
	token := secret.Token(loginPrefix)
	return token, s.addLogin(ctx, tx, l, token)
}

// addLogin is newLogin for a token that was made before.
func (s *Service) addLogin(ctx context.Context, tx *sqldb.Tx, l loginRow, token secret.Value) error {
	l.id, l.hash, l.at = id.NewLogin(), token.Hash(), s.now()
	l.expires = l.at.Add(LoginAge)
	switch l.method {
	case MethodCLI:
		l.expires = l.at.Add(CLIAge)
		if l.provider != "" {
			l.expires = l.at.Add(LoginAge)
		}
	case MethodFederated:
		l.expires = l.at.Add(FederatedAge)
	case MethodVouched:
		l.expires = l.at.Add(VouchedAge)
	}
	return insertLogin(ctx, tx, l)
}

// Authenticate gives the person behind a login token, as the database knows
// them now: a revoked login, a disabled user, a lost role count at once.
func (s *Service) Authenticate(ctx context.Context, token secret.Value, address string) (Person, error) {
	return s.authenticate(ctx, s.common(), token, address)
}

func (s *Service) authenticate(ctx context.Context, way way, token secret.Value, address string) (Person, error) {
	if !secret.IsToken(token, loginPrefix) {
		return Person{}, unauthenticated()
	}
	now, hash := s.now(), token.Hash()
	p, st, err := selectPerson(ctx, way.read, hash, now)
	if err != nil {
		return Person{}, sqldb.Wrap("authenticate a person", err)
	}
	if !st.found || subtle.ConstantTimeCompare(st.hash, hash[:]) != 1 || !p.CLI() && now.Sub(st.lastSeen) >= LoginIdle {
		return Person{}, unauthenticated()
	}
	p.address = address
	if now.Sub(st.lastSeen) >= time.Minute {
		err := way.write(ctx, func(ctx context.Context, tx *sqldb.Tx) error { return touchLogin(ctx, tx, p.login, now) })
		if err != nil {
			s.log.WarnContext(ctx, "the last use of a login could not be noted", "login", p.login, "error", err)
		}
	}
	return p, nil
}

// Own reports whether p may change what is the person's own: signed in through a
// browser, and not by a login that counts in one organization only.
func (p Person) Own() error {
	if err := p.browser(); err != nil {
		return err
	}
	if p.confined != "" {
		return confinedLogin()
	}
	return nil
}

// browser refuses whoever is not signed in through a browser.
func (p Person) browser() error {
	if p.user == "" {
		return unauthenticated()
	}
	if p.CLI() {
		return browserRequired()
	}
	if p.Vouched() {
		return vouchedOnly()
	}
	return nil
}

// Logins lists where the person is signed in, newest first.
func (s *Service) Logins(ctx context.Context, p Person) ([]Login, error) {
	if p.user == "" {
		return nil, unauthenticated()
	}
	out, err := selectLogins(ctx, s.db.Reader(), p.user, s.now())
	if p.confined != "" { // where else they are is not the organization's to know
		out = slices.DeleteFunc(out, func(l Login) bool { return l.ID != p.login })
	}
	for i := range out {
		out[i].Current = out[i].ID == p.login
	}
	return out, sqldb.Wrap("list logins", err)
}

// SignOut ends one login of the person.
func (s *Service) SignOut(ctx context.Context, p Person, login id.Login) error {
	if login == "" || p.confined != "" && login != p.login {
		return notFound("login")
	}
	return s.signOut(ctx, p, login, "login.revoked", func(ctx context.Context, tx *sqldb.Tx) (bool, error) {
		return revokeLogins(ctx, tx, p.user, login, "", s.now())
	})
}

// SignOutEverywhere ends all logins of the person, this one too.
func (s *Service) SignOutEverywhere(ctx context.Context, p Person) error {
	if p.confined != "" {
		return confinedLogin()
	}
	return s.signOut(ctx, p, "", "login.all_revoked", func(ctx context.Context, tx *sqldb.Tx) (bool, error) {
		return endLogins(ctx, tx, p.user, s.now())
	})
}

func (s *Service) signOut(ctx context.Context, p Person, login id.Login, action string, end func(ctx context.Context, tx *sqldb.Tx) (bool, error)) error {
	if p.user == "" {
		return unauthenticated()
	}
	err := s.ending(ctx, ByPerson(p), func(ctx context.Context, tx *sqldb.Tx) error {
		if ok, err := end(ctx, tx); err != nil || !ok {
			return orElse(err, notFound("login"))
		}
		s.audit.Append(tx, personEntry(p, action, string(login)))
		return nil
	})
	return sqldb.Wrap("sign out", err)
}
