package account_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

// answer is what a browser posts to sign in.
type answer struct {
	flow string
	cred []byte
}

func (w *world) answered(t testing.TB, key *accounttest.Authenticator) answer {
	t.Helper()
	flow, options, err := w.BeginSignIn(t.Context())
	check(t, err)
	cred, err := key.Assert(options)
	check(t, err)
	return answer{flow, cred}
}

// synced gives a person a passkey that does not count.
func (w *world) synced(t testing.TB, p *accounttest.Human) *accounttest.Authenticator {
	t.Helper()
	grant := p.Unlock(t)
	flow, options, err := w.BeginAddPasskey(t.Context(), p.Person, grant)
	check(t, err)
	key := accounttest.New(publicURL)
	key.Synced = true
	cred, err := key.Register(options)
	check(t, err)
	_, err = w.FinishAddPasskey(t.Context(), p.Person, grant, flow, cred, "synced")
	check(t, err)
	return key
}

// Rule 4, and a bug (F4): a sealed server accepted one assertion as often as it was
// sent, the last sender's login displaced the first's, and only the last challenge of
// a passkey was spent when the server went on.
func TestRule4HeldSignInIsGoodOnce(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		hold := func(in *account.Waiting, a answer) (secret.Value, error) {
			return w.HoldSignIn(ctx, in, a.flow, a.cred, "192.0.2.1")
		}
		finish := func(a answer) error {
			_, err := w.FinishSignIn(ctx, a.flow, a.cred, "192.0.2.2")
			return err
		}
		key := w.synced(t, owner)
		lee := w.join(t, owner, account.RoleMember, "lee@example.com")
		waiting := &account.Waiting{}

		one, two := w.answered(t, key), w.answered(t, key)
		var wg sync.WaitGroup
		var tokens sync.Map
		var in, out atomic.Int64
		for range 8 {
			wg.Go(func() {
				switch tok, err := hold(waiting, one); {
				case err == nil:
					tokens.Store("one", tok)
					in.Add(1)
				case fault.Is(err, "flow_expired"):
					out.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if in.Load() != 1 || out.Load() != 7 {
			t.Fatalf("of 8 that sent one answer %d signed in and %d were refused", in.Load(), out.Load())
		}
		first, _ := tokens.Load("one")
		second, err := hold(waiting, two)
		check(t, err)
		_, err = hold(waiting, one)
		wantCode(t, err, "flow_expired")
		_, err = hold(waiting, answer{one.flow, []byte("{")}) // as on a server that runs
		wantCode(t, err, "flow_expired")
		gone := w.answered(t, lee.Authenticator)
		lost, err := hold(waiting, gone)
		check(t, err)

		// Lee is disabled before the server goes on, and enabled afterwards.
		check(t, owner.Do(t, func(ag account.Agreement) error {
			return w.DisableUser(ctx, account.ByPerson(owner.Person), lee.User(), ag)
		}))
		w.Admit(ctx, waiting)
		for what, token := range map[string]secret.Value{"first": first.(secret.Value), "second": second} {
			if _, err := w.Authenticate(ctx, token, ""); err != nil {
				t.Errorf("the %s sign-in does not count: %v", what, err)
			}
		}
		check(t, owner.Do(t, func(ag account.Agreement) error {
			return w.EnableUser(ctx, account.ByPerson(owner.Person), lee.User(), ag)
		}))
		if _, err := w.Authenticate(ctx, lost, ""); !fault.Is(err, "unauthenticated") {
			t.Errorf("the sign-in of somebody who was disabled: %v", err)
		}
		for what, a := range map[string]answer{"first": one, "second": two, "refused": gone} {
			if err := finish(a); !fault.Is(err, "flow_expired") {
				t.Errorf("the %s answer signs in once more on the server that runs: %v", what, err)
			}
		}

		// Answers that the database knows already, and those of one person too many.
		again := &account.Waiting{}
		_, err = hold(again, one)
		wantCode(t, err, "flow_expired")
		held := w.answered(t, key)
		token, err := hold(again, held)
		check(t, err)
		for i := range account.MaxHeldEach - 1 {
			if _, err := hold(again, w.answered(t, key)); err != nil {
				t.Fatalf("sign-in %d: %v", i, err)
			}
		}
		_, err = hold(again, w.answered(t, key))
		wantCode(t, err, "too_many_attempts")
		_, err = hold(again, held)
		wantCode(t, err, "flow_expired")
		if _, err := hold(again, w.answered(t, lee.Authenticator)); err != nil {
			t.Errorf("one person took the room of another: %v", err)
		}
		w.Admit(ctx, again)
		if _, err := w.Authenticate(ctx, token, ""); err != nil {
			t.Errorf("what was held first was displaced: %v", err)
		}
		// What has ended makes room, and signs nobody in.
		late := w.answered(t, key)
		w.advance(account.FlowAge)
		_, err = hold(again, late)
		wantCode(t, err, "flow_expired")
		late = w.answered(t, key)
		token, err = hold(again, late)
		check(t, err)
		w.advance(account.FlowAge)
		w.Admit(ctx, again)
		if _, err := w.Authenticate(ctx, token, ""); !fault.Is(err, "unauthenticated") {
			t.Errorf("a sign-in that waited too long: %v", err)
		}
	})
}

// W7: sign-ins that wait take a bounded room, and none makes way for another.
func TestHeldSignInsAreBounded(t *testing.T) {
	t.Parallel()
	w, codes := &account.Waiting{}, map[string]int{}
	for i := range account.MaxHeld + 10 {
		codes[account.HoldFor(w, fmt.Sprint("user", i), i)]++
	}
	if codes["ok"] != account.MaxHeld || codes["too_many_attempts"] != 10 {
		t.Errorf("got %v", codes)
	}
	if code := account.HoldFor(w, "user0", 0); code != "flow_expired" {
		t.Errorf("the first was forgotten: %s", code)
	}
}
