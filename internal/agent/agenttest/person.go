package agenttest

import (
	"testing"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Person is a member of the world's organization with a passkey of their own.
type Person struct {
	ID id.User

	human    *accounttest.Human
	accounts *account.Service
}

// Person makes a user with role, enrols them, and signs them in.
func (w *World) Person(t testing.TB, email string, role account.Role) *Person {
	t.Helper()
	h := accounttest.Join(t, w.Accounts, w.Environment, w.Organization, role, email)
	return &Person{ID: h.User(), human: h, accounts: w.Accounts}
}

// Signed gives the person as signed in.
func (p *Person) Signed(testing.TB) account.Person { return p.human.Person }

// SignIn makes a fresh login.
func (p *Person) SignIn(t testing.TB) { p.human.SignIn(t) }

// Token is that of the person's login.
func (p *Person) Token() secret.Value { return p.human.Token }

// Prove agrees with the passkey to the thing that digest stands for.
func (p *Person) Prove(t testing.TB, digest [32]byte, org id.Organization) account.Evidence {
	t.Helper()
	e, err := p.accounts.Prove(t.Context(), p.human.Person, digest, org, p.human.Proof(t, digest))
	must(t, err)
	return e
}

// Proof is the passkey's answer to digest, for the room that asked.
func (p *Person) Proof(t testing.TB, digest [32]byte) account.Proof {
	t.Helper()
	return p.human.Proof(t, digest)
}

// Do makes a change with the person's agreement to it.
func (p *Person) Do(t testing.TB, change func(account.Agreement) error) error {
	t.Helper()
	return p.human.Do(t, change)
}

// Agree agrees with the passkey to exactly r.
func (p *Person) Agree(t testing.TB, r account.Raise) (account.Agreement, error) {
	t.Helper()
	return p.human.Agree(t, r)
}

// AgreeByCode registers an authenticator app and agrees with one of its codes.
func (p *Person) AgreeByCode(t testing.TB, clock *Clock, r account.Raise) (account.Agreement, error) {
	t.Helper()
	return p.accounts.Agree(t.Context(), p.human.Person, r, "code", account.Proof{TOTP: p.code(t, clock)})
}

// ProveByCode registers an authenticator app and agrees with one of its codes.
func (p *Person) ProveByCode(t testing.TB, clock *Clock, digest [32]byte, org id.Organization) account.Evidence {
	t.Helper()
	e, err := p.accounts.Prove(t.Context(), p.human.Person, digest, org, account.Proof{TOTP: p.code(t, clock)})
	must(t, err)
	return e
}

// code registers an authenticator app and gives one of its codes.
func (p *Person) code(t testing.TB, clock *Clock) string {
	t.Helper()
	grant := p.human.Unlock(t)
	link, err := p.accounts.BeginTOTP(t.Context(), p.human.Person, grant)
	must(t, err)
	key, err := otp.NewKeyFromURL(string(link.Reveal()))
	must(t, err)
	code := func() string {
		c, err := totp.GenerateCode(key.Secret(), clock.Now())
		must(t, err)
		return c
	}
	must(t, p.accounts.FinishTOTP(t.Context(), p.human.Person, grant, code()))
	clock.Advance(time.Minute) // each code works once
	return code()
}
