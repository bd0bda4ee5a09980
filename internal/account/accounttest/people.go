// Package accounttest enrols people and signs them in, with a software
// authenticator through the real ceremonies, for tests of this room and of
// those above it.
package accounttest

import (
	"context"
	"crypto/rand"
	"errors"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/softkey"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Authenticator is the person's; see package softkey.
type Authenticator = softkey.Authenticator

// New makes an empty authenticator in a browser at origin.
func New(origin string) *Authenticator { return softkey.New(origin) }

// TB is what the helpers need of testing.TB.
type TB interface {
	Helper()
	Context() context.Context
	Fatalf(format string, args ...any)
}

// Address is where the helpers sign in from.
const Address = "127.0.0.1"

// Human is a person with an authenticator, signed in by passkey.
type Human struct {
	account.Person
	*Authenticator
	Token secret.Value // of the login

	service *account.Service
}

// Owner sets up an empty database (account.Bootstrap) and enrols its first owner.
func Owner(t TB, s *account.Service) *Human {
	t.Helper()
	link, needed, err := s.Bootstrap(t.Context())
	if err != nil || !needed {
		t.Fatalf("bootstrap: needed %v, %v", needed, err)
	}
	return Enroll(t, s, link)
}

// Join makes a user with role in org and enrols them.
func Join(t TB, s *account.Service, env id.Environment, org id.Organization, role account.Role, email string) *Human {
	t.Helper()
	u, err := s.CreateUser(t.Context(), account.System("test"), account.NewUser{Environment: env, Organization: org, Role: role, Name: email, Email: email}, account.Agreement{})
	if err != nil {
		t.Fatalf("create %s: %v", email, err)
	}
	link, err := s.Recover(t.Context(), string(u.ID))
	if err != nil {
		t.Fatalf("link for %s: %v", email, err)
	}
	return Enroll(t, s, link)
}

// Enroll registers a passkey through a link, and signs in with it.
func Enroll(t TB, s *account.Service, link secret.Value) *Human {
	t.Helper()
	h := &Human{Authenticator: New(s.Origin()), service: s}
	token := LinkToken(link)
	options, err := s.BeginEnroll(t.Context(), token)
	if err != nil {
		t.Fatalf("begin to enrol: %v", err)
	}
	cred, err := h.Register(options)
	if err != nil {
		t.Fatalf("register: %v", err)
	}
	if _, err := s.FinishEnroll(t.Context(), token, cred, "test", Address); err != nil {
		t.Fatalf("enrol: %v", err)
	}
	h.SignIn(t)
	return h
}

// SignIn makes a fresh login.
func (h *Human) SignIn(t TB) {
	t.Helper()
	flow, options, err := h.service.BeginSignIn(t.Context())
	if err != nil {
		t.Fatalf("begin to sign in: %v", err)
	}
	cred, err := h.Assert(options)
	if err != nil {
		t.Fatalf("assert: %v", err)
	}
	if h.Token, err = h.service.FinishSignIn(t.Context(), flow, cred, Address); err != nil {
		t.Fatalf("sign in: %v", err)
	}
	h.Reload(t)
}

// Reload reads the person again, as the next request would.
func (h *Human) Reload(t TB) {
	t.Helper()
	p, err := h.service.Authenticate(t.Context(), h.Token, Address)
	if err != nil {
		t.Fatalf("authenticate: %v", err)
	}
	h.Person = p
}

// Proof agrees to the thing that digest stands for.
func (h *Human) Proof(t TB, digest [32]byte) account.Proof {
	t.Helper()
	options, err := h.service.Challenge(t.Context(), h.Person, digest)
	if err != nil {
		t.Fatalf("challenge: %v", err)
	}
	assertion, err := h.Assert(options)
	if err != nil {
		t.Fatalf("assert: %v", err)
	}
	return account.Proof{Assertion: assertion}
}

// Unlock proves presence to register one more way to sign in.
func (h *Human) Unlock(t TB) secret.Value {
	t.Helper()
	nonce := rand.Text()
	grant, err := h.service.Unlock(t.Context(), h.Person, nonce, h.Proof(t, h.service.UnlockDigest(h.Person, nonce)))
	if err != nil {
		t.Fatalf("unlock: %v", err)
	}
	return grant
}

// Do makes a change as a browser does: it asks what there is to agree to,
// agrees with the passkey, and makes the change with that. What raises nothing
// is done as it is.
func (h *Human) Do(t TB, change func(account.Agreement) error) error {
	t.Helper()
	err := change(account.Asking())
	need, ok := errors.AsType[*account.Unproven](err)
	switch {
	case fault.Is(err, "nothing_to_confirm"):
		return change(account.Agreement{})
	case !ok:
		return err
	}
	ag, err := h.Agree(t, need.Raise)
	if err != nil {
		return err
	}
	return change(ag)
}

// Agree agrees to exactly r.
func (h *Human) Agree(t TB, r account.Raise) (account.Agreement, error) {
	t.Helper()
	nonce := rand.Text()
	return h.service.Agree(t.Context(), h.Person, r, nonce, h.Proof(t, h.service.RaiseDigest(h.Person, r, nonce)))
}
