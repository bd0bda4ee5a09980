package agenttest

import (
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/id"
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

// Prove agrees with the passkey to the thing that digest stands for.
func (p *Person) Prove(t testing.TB, digest [32]byte, org id.Organization) account.Evidence {
	t.Helper()
	e, err := p.accounts.Prove(t.Context(), p.human.Person, digest, org, p.human.Proof(t, digest))
	must(t, err)
	return e
}
