package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/issuer"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Whoever signs in at an identity provider and has no passkey can prove presence by
// signing in there anew: the provider is asked for a login that just happened
// (prompt=login), and its word for when that was is checked. It gives a code of six
// digits, which counts once, for three minutes, in the login that asked, wherever a
// code of an authenticator app would. So it never counts where an organization
// demands passkeys, and a provider of one organization proves nothing outside it.
// Where the public URL is loopback there are none: any local program can be there
// (product.md rule 4).

// FreshCodeAge is how long such a code counts.
const FreshCodeAge = 3 * time.Minute

// MethodFederated is that of a sign-in at an identity provider, and of evidence of one.
const MethodFederated = "oidc"

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && ip.IsLoopback()
}

// FreshIdentities are the providers at which a person may sign in anew to get a code
// for a form.
func (s *Service) FreshIdentities(ctx context.Context, p Person) ([]IdentityProvider, error) {
	if err := p.browser(); err != nil || s.local {
		return nil, err
	}
	list, err := s.Identities(ctx, p)
	var out []IdentityProvider
	for _, i := range list {
		if i.Provider.Issuer == i.Issuer && i.Provider.ClientID != "" {
			out = append(out, i.Provider)
		}
	}
	return out, err
}

// HasCode reports whether the person has a source of codes: an authenticator app, or
// a provider to sign in at anew.
func (s *Service) HasCode(ctx context.Context, p Person) (bool, error) {
	has, err := s.HasTOTP(ctx, p)
	if err != nil || has {
		return has, err
	}
	list, err := s.FreshIdentities(ctx, p)
	return len(list) > 0, err
}

// LeaveForCode sends a person to a provider of theirs to sign in anew.
func (s *Service) LeaveForCode(ctx context.Context, p Person, provider id.IdentityProvider) (Leaving, error) {
	list, err := s.FreshIdentities(ctx, p)
	if err := among(list, provider, err); err != nil {
		return Leaving{}, err
	}
	return s.leave(ctx, provider, forCode+" "+string(p.login), "")
}

// codeFor makes the code of a sign-in that was fresh, for the login that asked.
func (s *Service) codeFor(ctx context.Context, p Person, login id.Login, is identity, who issuer.Identity, flow string) (string, error) {
	if s.local || p.user == "" || p.login != login {
		return "", flowGone()
	}
	now := s.now()
	began, err := beginningOf(flow)
	if err != nil {
		return "", err
	}
	if who.AuthTime.IsZero() || who.AuthTime.Before(began.Add(-issuer.Leeway)) || who.AuthTime.Before(now.Add(-FlowAge)) || who.AuthTime.After(now.Add(issuer.Leeway)) {
		return "", fault.New(fault.Denied, "sign_in_not_fresh", "The identity provider did not ask you anew who you are, or does not say so.").
			WithHint("Use a passkey. The provider must honour prompt=login and tell auth_time.")
	}
	code := freshDigits()
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		user, err := selectIdentity(ctx, tx, is)
		if err != nil || user != p.user {
			return orElse(err, unknownIdentity())
		}
		done := personEntry(p, "proof.fresh_signin", string(p.login))
		done.Organization, done.Detail = is.organization, is.detail()
		s.audit.Append(tx, done)
		return putCode(ctx, tx, p.login, freshCode{hash: freshHash(p.login, code), who: is, proved: who.AuthTime}, now)
	})
	return code, sqldb.Wrap("make a code", err)
}

func freshDigits() string {
	n, _ := rand.Int(rand.Reader, big.NewInt(1_000_000)) // never fails
	return fmt.Sprintf("%06d", n.Int64())
}

// freshHash stands for a code in the database. A code is short: what guards it is
// that it counts for one login, for three minutes, and that guesses are counted.
func freshHash(login id.Login, code string) []byte {
	sum := sha256.Sum256(crypt.Fields("ambit fresh code 1", string(login), code))
	return sum[:]
}

// tryFresh gives the fresh sign-in whose code this is, also if it does not count in
// org; none if it is none's.
func (s *Service) tryFresh(ctx context.Context, p Person, org id.Organization, code string) (freshCode, error) {
	if s.local {
		return freshCode{}, nil
	}
	c, err := selectCode(ctx, s.db.Reader(), p.login, s.now())
	if sqldb.NoRows(err) {
		return freshCode{}, nil
	}
	if err != nil {
		return freshCode{}, sqldb.Wrap("read a code", err)
	}
	if subtle.ConstantTimeCompare(c.hash, freshHash(p.login, code)) != 1 || c.user != p.user {
		return freshCode{}, nil
	}
	if c.who.organization != "" && c.who.organization != org {
		return c, confinedLogin()
	}
	return c, nil
}

func (s *Service) spendFresh(ctx context.Context, tx *sqldb.Tx, p Person, c freshCode) error {
	ok, err := takeCode(ctx, tx, p.login, c, s.now())
	if err == nil && !ok {
		err = errWrongCode
	}
	return err
}
