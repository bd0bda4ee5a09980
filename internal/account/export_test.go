package account

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// ReadCredential runs what reads a browser's credential before any of it is
// believed.
func (s *Service) ReadCredential(doc []byte) (accepted bool) {
	h := holder{user: User{ID: "user_0"}}
	_, state, err := s.beginRegistration(h)
	if err != nil {
		panic(err)
	}
	if _, err := s.finishRegistration(h, state, doc, ""); err == nil {
		return true
	}
	parsed, err := s.parseAssertion(doc)
	if err != nil {
		return false
	}
	h.keys = []passkey{{credential: parsed.RawID, publicKey: parsed.RawID}}
	_, err = s.checkAssertion(h, make([]byte, 32), parsed)
	return err == nil
}

// Permissions is the list that raises are computed from.
func Permissions() []Permission { return permissions() }

// WriteUnweighed calls what writes rows of authority without a Weighed.
func (s *Service) WriteUnweighed(ctx context.Context, org id.Organization, user id.User) map[string]error {
	out := map[string]error{}
	for name, write := range map[string]func(context.Context, *sqldb.Tx) error{
		"disable": func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := disable(ctx, tx, Weighed{}, user, 1)
			return err
		},
		"enable": func(ctx context.Context, tx *sqldb.Tx) error { _, err := enable(ctx, tx, Weighed{}, user); return err },
		"setProfile": func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := setProfile(ctx, tx, Weighed{}, user, "x", "x@y")
			return err
		},
		"setRole": func(ctx context.Context, tx *sqldb.Tx) error {
			return setRole(ctx, tx, Weighed{}, org, user, RoleMember)
		},
		"deleteMember": func(ctx context.Context, tx *sqldb.Tx) error { return deleteMember(ctx, tx, Weighed{}, org, user) },
		"insertMember": func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := insertMember(ctx, tx, Weighed{}, org, user, RoleOwner, 1)
			return err
		},
		"updateOrganization": func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := updateOrganization(ctx, tx, Weighed{}, Organization{ID: org})
			return err
		},
		"insertEnvironment": func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := insertEnvironment(ctx, tx, Weighed{}, Environment{ID: "env_x", Name: "x"})
			return err
		},
		"addLink": func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := s.addLink(ctx, tx, console(), Weighed{}, User{ID: user}, "x")
			return err
		},
	} {
		out[name] = s.db.Update(ctx, write)
	}
	return out
}

// MaxWaiting is how many command lines may wait to be confirmed.
const MaxWaiting = maxWaiting

// Nobody is what guesses at an unknown e-mail are counted by.
func Nobody(email string) string { return nobody(email) }

// The bounds of Waiting.
const (
	MaxHeld     = maxHeld
	MaxHeldEach = maxHeldEach
)

// HoldFor has w hold a sign-in of user with the nth challenge, and gives the code.
func HoldFor(w *Waiting, user string, n int) string {
	now := time.Now()
	err := w.add(signIn{passkey: passkey{user: id.User(user)}, challenge: [32]byte{byte(n), byte(n >> 8)}, until: now.Add(time.Hour)}, now)
	if err != nil {
		return fault.Of(err).Code
	}
	return "ok"
}
