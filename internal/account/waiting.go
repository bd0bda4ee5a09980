package account

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

const (
	maxHeld     = 256 // sign-ins that wait for a sealed server to go on
	maxHeldEach = 8   // of one person, so that nobody takes the others' room
)

// signIn is one that a passkey has answered for, before anything is written: its
// token opens nothing until it is on record.
type signIn struct {
	passkey   passkey
	challenge [32]byte // digest of the one that was answered
	entry     audit.Entry
	token     secret.Value
	until     time.Time // no earlier than the challenge's own end
}

// Waiting holds the sign-ins that a sealed server has accepted, until
// [Service.Admit] puts them on record. None makes way for another while it could
// count, so no challenge is accepted twice. An empty one is ready; it is for all
// the times that one process is sealed. It is safe for concurrent use.
type Waiting struct {
	mu   sync.Mutex
	held []signIn // as they were accepted
}

func (w *Waiting) has(challenge [32]byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.holds(challenge)
}

func (w *Waiting) holds(challenge [32]byte) bool {
	return slices.ContainsFunc(w.held, func(h signIn) bool { return h.challenge == challenge })
}

// add refuses a challenge that is held, and whatever there is no room for.
func (w *Waiting) add(in signIn, now time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.holds(in.challenge) {
		return flowGone()
	}
	w.held = slices.DeleteFunc(w.held, func(h signIn) bool { return !now.Before(h.until) })
	if len(w.held) >= maxHeld {
		return fault.New(fault.Limited, "too_many_attempts", "Too many people wait for this server already.").WithHint("Sign in when it goes on.").WithRetry(time.Minute)
	}
	if w.of(in.passkey.user) >= maxHeldEach {
		return fault.New(fault.Limited, "too_many_attempts", "You have signed in often enough: it counts when the server goes on.").WithHint("Wait for that.").WithRetry(time.Minute)
	}
	w.held = append(w.held, in)
	return nil
}

func (w *Waiting) of(user id.User) (n int) {
	for _, h := range w.held {
		if h.passkey.user == user {
			n++
		}
	}
	return n
}

func (w *Waiting) all() []signIn {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.held)
}

// HoldSignIn is [Service.FinishSignIn] on a sealed server: it writes nothing. The
// token opens something once w was admitted. A challenge that w holds is answered
// as one that is spent.
func (s *Service) HoldSignIn(ctx context.Context, w *Waiting, flowID string, credentialJSON []byte, address string) (secret.Value, error) {
	in, err := s.checkSignIn(ctx, w, flowID, credentialJSON, address)
	if err != nil {
		return secret.Value{}, err
	}
	if err := w.add(in, s.now()); err != nil {
		return secret.Value{}, err
	}
	return in.token, nil
}

// Admit makes the logins of all sign-ins that w holds, in the order in which they
// were accepted, and puts them on record. One that is refused now is on record like
// any other, and its challenge is spent all the same: it was accepted once.
func (s *Service) Admit(ctx context.Context, w *Waiting) {
	for _, in := range w.all() {
		if !s.now().Before(in.until) {
			continue // nor does its challenge count any more
		}
		err := s.admit(ctx, in)
		if err == nil {
			continue
		}
		s.log.WarnContext(ctx, "a sign-in that was made while the server was sealed is not accepted", "error", err)
		err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error { return s.Spend(ctx, tx, in.challenge) })
		if err != nil && !fault.Is(err, codeProofUsed) {
			s.log.ErrorContext(ctx, "the challenge of that sign-in could not be spent", "error", err)
		}
	}
}
