package session_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// more asks to add effects at a provider to the session behind handle.
func (s scene) more(t *testing.T, handle, provider string, change func(*session.Ask), effects ...policy.Effect) (session.Requested, error) {
	t.Helper()
	ask := session.Ask{Widen: handle, Providers: []string{provider}, Effects: effects, Purpose: "It turned out to need this."}
	if change != nil {
		change(&ask)
	}
	return s.Sessions.Request(t.Context(), s.bot, ask, "127.0.0.1")
}

// Rule 4, S5: a session is widened by a person only, who is shown what it has and what
// would be new. It ends when it would have ended, and goes on meanwhile.
func TestWidenASession(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.KeyProvider(t, "other")
		s.Connect(t, s.owner, "other", false)
		ctx, mine := t.Context(), account.ByPerson(s.owner.Signed(t)).In(s.Environment)
		create := func(handle string) error {
			_, err := s.Call(t, s.bot, handle, "tracker_create_issue", map[string]any{"title": "x"})
			return err
		}
		first := s.Ask(t, s.bot, "tracker", policy.Read)
		s.Approve(t, s.owner, first.Session.Approval, func(d *session.Decision) {
			d.Confirm, d.Instructions, d.HandOn = policy.ConfirmWrite, "Be quick.", true
		})
		child, _, err := s.handOn(t, first.Handle, session.HandOn{})
		gatewaytest.Must(t, err)
		ends := s.Clock.Now().Add(30 * time.Minute)
		s.Clock.Advance(10 * time.Minute)

		r, err := s.more(t, first.Handle, "tracker", nil, policy.Write)
		gatewaytest.Must(t, err)
		if again, err := s.more(t, first.Handle, "tracker", nil, policy.Write); err != nil || again.Session.ID != r.Session.ID {
			t.Errorf("the same again: %s, %v, want the same request", again.Session.ID, err)
		}
		if err := create(first.Handle); code(err) != "not_granted" {
			t.Errorf("before the decision: got %v, want not_granted", err)
		}
		if err := create(r.Handle); code(err) != "pending" {
			t.Errorf("under the request's handle: got %v, want pending", err)
		}
		if _, err := s.Call(t, s.bot, first.Handle, "tracker_list_issues", nil); err != nil {
			t.Errorf("what it has goes on: %v", err)
		}
		a, err := s.Sessions.Approval(ctx, s.owner.Signed(t), r.Session.Approval)
		gatewaytest.Must(t, err)
		g := a.Session.Grants[0]
		if a.Widened == nil || a.Widened.ID != first.Session.ID || g.Had == nil || !slices.Equal(g.Had.Effects, []policy.Effect{policy.Read}) || !slices.Equal(g.Effects, []policy.Effect{policy.Read, policy.Write}) {
			t.Fatalf("the person is shown %+v of %+v", g, a.Widened)
		}
		for _, n := range g.New() {
			if n.Effect != policy.Write {
				t.Errorf("%s is shown as new", n.Name)
			}
		}
		if d := s.Sessions.DefaultDecision(a); d.Confirm != policy.ConfirmWrite {
			t.Errorf("the rule of the session becomes %q unless the person changes it", d.Confirm)
		}
		// Nothing that is decided makes it longer or lets it hand on.
		s.Approve(t, s.owner, r.Session.Approval, func(d *session.Decision) {
			d.Minutes, d.Calls, d.HandOn, d.Confirm, d.Instructions = 480, 5, true, policy.ConfirmDestructive, "Only one."
		})
		for _, handle := range []string{first.Handle, r.Handle} {
			got, err := s.Sessions.Check(ctx, s.bot, handle, 0)
			if err != nil || got.ID != first.Session.ID || got.State != session.Active || !got.ExpiresAt.Equal(ends) || got.Calls != 0 || got.Instructions != "Be quick.\nOnly one." {
				t.Errorf("after the decision: %+v, %v", got, err)
			}
			if err := create(handle); err != nil {
				t.Errorf("what was added: %v", err)
			}
		}
		if got, err := s.Sessions.CheckRequest(ctx, s.bot, r.Session.Approval, 0); err != nil || got.ID != first.Session.ID {
			t.Errorf("the request is %s, %v, want the session", got.ID, err)
		}
		if got, err := s.Sessions.Get(ctx, mine, r.Session.ID); err != nil || got.State != session.Ended || got.Cause != session.CauseWidened || got.Widens != first.Session.ID || len(got.Grants) != 1 {
			t.Errorf("the request on record: %+v, %v", got, err)
		}
		if err := s.TryApprove(t, s.owner, r.Session.Approval, nil); code(err) != "already_decided" {
			t.Errorf("a second yes: got %v", err)
		}
		// What was handed on before stays what it was.
		if _, err := s.Call(t, child, "", "tracker_create_issue", map[string]any{"title": "x"}); code(err) != "not_granted" {
			t.Errorf("a sub-agent of before: got %v, want not_granted", err)
		}
		actions := s.Actions(t)
		if !slices.Contains(actions, "session.widened") {
			t.Errorf("on record: %v", actions)
		}

		// Another account; and what is approved of it can be less.
		r, err = s.more(t, first.Handle, "other", nil, policy.Read, policy.Write)
		gatewaytest.Must(t, err)
		s.Approve(t, s.owner, r.Session.Approval, func(d *session.Decision) { d.Grants[0].Effects = []policy.Effect{policy.Read} })
		got, err := s.Sessions.Check(ctx, s.bot, first.Handle, 0)
		if err != nil || len(got.Grants) != 2 || got.Grants[0].ProviderName == got.Grants[0].Provider {
			t.Fatalf("with another account: %+v, %v", got.Grants, err)
		}
		if _, err := s.Call(t, s.bot, first.Handle, "other_list_issues", nil); err != nil {
			t.Errorf("reading there: %v", err)
		}
		if _, err := s.Call(t, s.bot, first.Handle, "other_create_issue", map[string]any{"title": "x"}); code(err) != "not_granted" {
			t.Errorf("writing there, which was left out: got %v", err)
		}
		s.Clock.Advance(20 * time.Minute)
		if _, err := s.Call(t, s.bot, first.Handle, "other_list_issues", nil); code(err) != "expired" {
			t.Errorf("at its end: got %v, want expired", err)
		}
		list, err := s.Sessions.Widenings(ctx, mine, first.Session.ID)
		gatewaytest.Must(t, err)
		if len(list) == 0 || list[len(list)-1].Outcome() != "granted" || list[len(list)-1].DecidedBy != s.owner.ID {
			t.Fatalf("the session lists %+v", list)
		}
		for _, g := range list[len(list)-1].Grants {
			if g.Had == nil || !slices.ContainsFunc(g.Tools, func(t session.ToolRef) bool { return !g.Has(t) }) {
				t.Errorf("the difference is not told: %+v", g)
			}
		}
		stranger := account.ByPerson(s.Person(t, "stranger@example.com", account.RoleMember).Signed(t)).In(s.Environment)
		if _, err := s.Sessions.Widenings(ctx, stranger, first.Session.ID); code(err) != "session_not_found" {
			t.Errorf("somebody else reads them: %v", err)
		}
	})
}

// What cannot be widened is told why, and nobody is asked.
func TestWideningThatIsRefused(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		waits := s.Ask(t, s.bot, "tracker", policy.Read)
		refused := func(want, why string, handle string, change func(*session.Ask), effects ...policy.Effect) {
			t.Helper()
			if _, err := s.more(t, handle, "tracker", change, effects...); code(err) != want {
				t.Errorf("%s: got %v, want %s", why, err, want)
			}
		}
		refused("pending", "one that waits", waits.Handle, nil, policy.Write)
		s.Approve(t, s.owner, waits.Session.Approval, nil)
		handle := waits.Handle
		refused("nothing_new", "what it has", handle, nil, policy.Read)
		refused("invalid_arguments", "longer", handle, func(a *session.Ask) { a.Minutes = 60 }, policy.Write)
		refused("invalid_arguments", "with more calls", handle, func(a *session.Ask) { a.Calls = 60 }, policy.Write)
		refused("session_not_found", "no session", "sh_none", nil, policy.Write)
		other := s.Agent(t, s.owner, "Another bot")
		if _, err := s.Sessions.Request(t.Context(), other, session.Ask{Widen: handle, Providers: []string{"tracker"}, Effects: []policy.Effect{policy.Write}, Purpose: "Mine now."}, ""); code(err) != "session_not_found" {
			t.Errorf("S14, another agent's: got %v", err)
		}
		_, err := s.Sessions.Complete(t.Context(), s.bot, handle)
		gatewaytest.Must(t, err)
		refused("ended", "one that is over", handle, nil, policy.Write)

		// Limits stay, unless others are asked for in their place, which is shown.
		limit := func(values ...string) []session.AskedLimit {
			return []session.AskedLimit{{Limit: policy.Limit{Argument: "number", OneOf: values}}}
		}
		r, err := s.Sessions.Request(t.Context(), s.bot, session.Ask{Providers: []string{"tracker"}, Effects: []policy.Effect{policy.Read}, Purpose: "One.", Limits: limit("7")}, "")
		gatewaytest.Must(t, err)
		s.Approve(t, s.owner, r.Session.Approval, nil)
		refused("invalid_limit", "a tool that does not take the limit", r.Handle, func(a *session.Ask) { a.Providers, a.Tools = nil, []string{"tracker_create_issue"} })
		del := func(n int) error {
			_, err := s.Call(t, s.bot, r.Handle, "tracker_update_issue", map[string]any{"number": n, "title": "x"})
			return err
		}
		w, err := s.more(t, r.Handle, "tracker", nil, policy.Write)
		gatewaytest.Must(t, err)
		s.Approve(t, s.owner, w.Session.Approval, nil)
		if err := del(7); err != nil {
			t.Errorf("within the limit: %v", err)
		}
		if err := del(8); code(err) != "not_granted" {
			t.Errorf("outside of the limit: got %v", err)
		}
		w, err = s.more(t, r.Handle, "tracker", func(a *session.Ask) { a.Limits = limit("7", "8") }, policy.Write)
		gatewaytest.Must(t, err)
		a, err := s.Sessions.Approval(t.Context(), s.owner.Signed(t), w.Session.Approval)
		gatewaytest.Must(t, err)
		if g := a.Session.Grants[0]; !g.Relimited() || len(g.Had.Limits) != 1 || len(g.New()) != len(g.Tools) {
			t.Errorf("the person is shown %+v", g)
		}
		s.Approve(t, s.owner, w.Session.Approval, nil)
		if err := del(8); err != nil {
			t.Errorf("within the new limit: %v", err)
		}
	})
}

// A4, A11: a yes counts for the session as it was shown. When that ends or is widened
// otherwise in between, nothing is granted; a denial takes nothing of what it has.
func TestWideningOfAnotherSessionThanShown(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		mine := account.ByPerson(s.owner.Signed(t)).In(s.Environment)
		handle := s.Active(t, s.owner, s.bot, "tracker")
		two := make([]session.Requested, 2)
		for i, e := range []policy.Effect{policy.Write, policy.Destructive} {
			var err error
			two[i], err = s.more(t, handle, "tracker", nil, e)
			gatewaytest.Must(t, err)
		}
		var wg sync.WaitGroup
		errs := make([]error, 2)
		for i := range two {
			wg.Go(func() { errs[i] = s.TryApprove(t, s.owner, two[i].Session.Approval, nil) })
		}
		wg.Wait()
		slices.SortFunc(errs, func(a, b error) int { return strings.Compare(code(a), code(b)) })
		// A passkey whose proofs arrive in another order than they were made is refused.
		if errs[0] != nil || !slices.Contains([]string{"approval_stale", "proof_refused"}, code(errs[1])) {
			t.Errorf("two at once: %v, want one of them stale", errs)
		}
		for i := range two {
			if err := s.TryApprove(t, s.owner, two[i].Session.Approval, nil); !slices.Contains([]string{"approval_stale", "already_decided"}, code(err)) {
				t.Errorf("what is left of them: %v", err)
			}
		}

		s.Clock.Advance(time.Minute)
		r, err := s.more(t, s.Active(t, s.owner, s.bot, "tracker"), "tracker", nil, policy.Write)
		gatewaytest.Must(t, err)
		gatewaytest.Must(t, s.Sessions.Deny(t.Context(), s.owner.Signed(t), r.Session.Approval, "No."))
		if got, err := s.Sessions.Get(t.Context(), mine, r.Session.Widens); err != nil || got.State != session.Active {
			t.Errorf("after a denial the session is %s, %v", got.State, err)
		}
		if got, _ := s.Sessions.Check(t.Context(), s.bot, r.Handle, 0); got.DenyReason != "No." {
			t.Errorf("the agent is told %+v", got)
		}
		if _, err := s.Sessions.Request(t.Context(), s.bot, session.Ask{Widen: "", Providers: []string{"tracker"}, Effects: []policy.Effect{policy.Write}, Purpose: "In other words."}, ""); code(err) != "rate_limited" {
			t.Errorf("A8: what was denied, asked for as a session of its own: got %v, want rate_limited", err)
		}

		s.Clock.Advance(2 * time.Hour)
		gatewaytest.Must(t, s.Sessions.Sweep(t.Context()))
		base := s.Active(t, s.owner, s.bot, "tracker")
		r, err = s.more(t, base, "tracker", nil, policy.Access)
		gatewaytest.Must(t, err)
		_, err = s.Sessions.Revoke(t.Context(), mine, session.Aim{Session: r.Session.Widens})
		gatewaytest.Must(t, err)
		if got, err := s.Sessions.Get(t.Context(), mine, r.Session.ID); err != nil || got.State != session.Ended || got.Reason != session.Withdrawn {
			t.Errorf("with its session revoked the request is %+v, %v", got, err)
		}
		if err := s.TryApprove(t, s.owner, r.Session.Approval, nil); err == nil {
			t.Error("a session was widened that had been revoked")
		}
		if _, err := s.Call(t, s.bot, base, "tracker_list_issues", nil); code(err) != "revoked" {
			t.Errorf("after the revoke: got %v", err)
		}
	})
}

// Rule 4: of two persons each must agree to more where the organization says so, and
// a revoke of the account ends what was widened by it.
func TestWideningNeedsTheSecondPerson(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.KeyProvider(t, "other")
		conn := s.Connect(t, s.owner, "other", false)
		admin := s.Person(t, "admin@example.com", account.RoleAdmin)
		s.settle(t, func(x *policy.Settings) { x.SecondToStart = []policy.Effect{policy.Destructive} })
		handle := s.Active(t, s.owner, s.bot, "tracker")
		r, err := s.more(t, handle, "other", nil, policy.Read, policy.Destructive)
		gatewaytest.Must(t, err)
		s.Approve(t, s.owner, r.Session.Approval, nil)
		state := func(who agent.Identity) session.Session {
			got, err := s.Sessions.Check(t.Context(), who, handle, 0)
			gatewaytest.Must(t, err)
			return got
		}
		if got := state(s.bot); len(got.Grants) != 1 {
			t.Errorf("after one of two it has %d accounts", len(got.Grants))
		}
		a, err := s.Sessions.Approval(t.Context(), admin.Signed(t), r.Session.Approval)
		if err != nil || a.Widened == nil || a.Session.Grants[0].Had != nil {
			t.Fatalf("the second sees %+v, %v", a, err)
		}
		s.Approve(t, admin, r.Session.Approval, nil)
		if got := state(s.bot); len(got.Grants) != 2 || got.User != s.owner.ID {
			t.Errorf("after both: %+v", got)
		}
		_, err = s.Sessions.Revoke(t.Context(), account.ByPerson(s.owner.Signed(t)).In(s.Environment), session.Aim{Connection: conn.ID})
		gatewaytest.Must(t, err)
		if got := state(s.bot); got.State != session.Ended || got.Reason != session.Revoked {
			t.Errorf("after a revoke of the account that was added: %s %s", got.State, got.Reason)
		}
	})
}

// A1: a session in which nobody is asked again does not make that the default for what is
// new in it: only more of reading, on an account that it has, keeps it.
func TestWideningAsksAgainBeforeDeletionsByDefault(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.KeyProvider(t, "other")
		s.Connect(t, s.owner, "other", false)
		r, err := s.Sessions.Request(t.Context(), s.bot, session.Ask{Tools: []string{"tracker_list_issues"}, Purpose: "One."}, "")
		gatewaytest.Must(t, err)
		s.Approve(t, s.owner, r.Session.Approval, func(d *session.Decision) { d.Confirm = policy.ConfirmNone })
		for _, row := range []struct {
			slug   string
			effect policy.Effect
			want   policy.Confirm
		}{
			{"tracker", policy.Read, policy.ConfirmNone}, {"tracker", policy.Write, policy.ConfirmDestructive},
			{"tracker", policy.Destructive, policy.ConfirmDestructive}, {"other", policy.Read, policy.ConfirmDestructive},
		} {
			w, err := s.more(t, r.Handle, row.slug, nil, row.effect)
			gatewaytest.Must(t, err)
			a, err := s.Sessions.Approval(t.Context(), s.owner.Signed(t), w.Session.Approval)
			gatewaytest.Must(t, err)
			if got := s.Sessions.DefaultDecision(a).Confirm; got != row.want {
				t.Errorf("%s at %s: the default is %q, want %q", row.effect, row.slug, got, row.want)
			}
			_, err = s.Sessions.Complete(t.Context(), s.bot, w.Handle)
			gatewaytest.Must(t, err)
		}
	})
}

// A request whose session has changed meanwhile cannot be granted any more: to ask again,
// in the same words, makes another that can. And a call that waited for the first yes goes
// on in the session that was widened.
func TestWideningIsAskedForAgain(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.KeyProvider(t, "other")
		s.Connect(t, s.owner, "other", false)
		first := s.Ask(t, s.bot, "tracker")
		s.Approve(t, s.owner, first.Session.Approval, nil)
		stale, err := s.more(t, first.Handle, "tracker", nil, policy.Write)
		gatewaytest.Must(t, err)
		other, err := s.more(t, first.Handle, "other", nil)
		gatewaytest.Must(t, err)
		state := session.NewState()
		err = s.Sessions.Suspend(t.Context(), s.bot, other.Session.Approval, state, "call")
		gatewaytest.Must(t, err)
		s.Approve(t, s.owner, other.Session.Approval, nil)
		got, err := s.Sessions.Resume(t.Context(), s.bot, state, "call")
		gatewaytest.Must(t, err)
		if ses, err := s.Sessions.Check(t.Context(), s.bot, got.Handle, 0); err != nil || ses.ID != first.Session.ID {
			t.Errorf("the call that waited goes on in %s (%s), %v, want the session that was widened", ses.ID, ses.State, err)
		}
		if _, err := s.Call(t, s.bot, got.Handle, "tracker_list_issues", nil); err != nil {
			t.Errorf("a call in it: %v", err)
		}
		if err := s.TryApprove(t, s.owner, stale.Session.Approval, nil); code(err) != "approval_stale" {
			t.Fatalf("the one from before: got %v, want approval_stale", err)
		}
		again, err := s.more(t, first.Handle, "tracker", nil, policy.Write)
		if err != nil || again.Session.ID == stale.Session.ID {
			t.Fatalf("asked again: %s, %v, want another request", again.Session.ID, err)
		}
		s.Approve(t, s.owner, again.Session.Approval, nil)
		if _, err := s.Call(t, s.bot, first.Handle, "tracker_create_issue", map[string]any{"title": "x"}); err != nil {
			t.Errorf("what was added: %v", err)
		}
	})
}

// Rule 4: whom an autonomous agent acts for, by the approval of its session, is not the
// second person when it is widened.
func TestWideningOfAnAutonomousAgentHasItsUser(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		a, b, c := s.Person(t, "a@example.com", account.RoleAdmin), s.Person(t, "b@example.com", account.RoleAdmin), s.Person(t, "c@example.com", account.RoleAdmin)
		s.KeyProvider(t, "shared")
		s.Connect(t, a, "shared", true)
		s.settle(t, func(x *policy.Settings) { x.SecondToStart = []policy.Effect{policy.Write} })
		bot := s.autonomous(t, a)
		r := s.Ask(t, bot, "shared")
		s.Approve(t, a, r.Session.Approval, nil)
		w, err := s.Sessions.Request(t.Context(), bot, session.Ask{Widen: r.Handle, Providers: []string{"shared"}, Effects: []policy.Effect{policy.Write}, Purpose: "More."}, "")
		gatewaytest.Must(t, err)
		s.Approve(t, b, w.Session.Approval, nil)
		if err := s.TryApprove(t, a, w.Session.Approval, nil); code(err) != "second_person" {
			t.Errorf("the session's own person as the second: got %v, want second_person", err)
		}
		s.Approve(t, c, w.Session.Approval, nil)
		if got, err := s.Sessions.Check(t.Context(), bot, r.Handle, 0); err != nil || got.User != a.ID || len(got.Grants[0].Effects) != 2 {
			t.Errorf("after a second who may: %+v, %v", got, err)
		}
	})
}
