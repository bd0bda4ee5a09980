package session_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// A8, issue 6: a denial holds back what is like what was denied, in whatever words
// and for however long it is asked; something else can be asked for. The wait grows
// with each denial, counts over a person's agents, and an approval of the like ends it.
func TestBackOffComparesLikeRequests(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		n := 0
		ask := func(who agent.Identity, effects ...policy.Effect) (session.Requested, error) {
			n++
			return s.Sessions.Request(t.Context(), who, session.Ask{Providers: []string{"tracker"}, Effects: effects, Purpose: fmt.Sprint("Words ", n), Minutes: n}, "")
		}
		deny := func(who agent.Identity, effects ...policy.Effect) {
			t.Helper()
			r, err := ask(who, effects...)
			gatewaytest.Must(t, err)
			gatewaytest.Must(t, s.Sessions.Deny(t.Context(), s.owner.Signed(t), r.Session.Approval, "No."))
		}
		wait := func(who agent.Identity, effects ...policy.Effect) time.Duration {
			t.Helper()
			r, err := ask(who, effects...)
			if err == nil {
				_, err := s.Sessions.Complete(t.Context(), who, r.Handle)
				gatewaytest.Must(t, err)
				return 0
			}
			if code(err) != "rate_limited" {
				t.Fatal(err)
			}
			return fault.Of(err).RetryAfter
		}
		other := s.Agent(t, s.owner, "Another bot")
		deny(s.bot, policy.Write)
		if got := wait(s.bot, policy.Write); got != time.Minute {
			t.Errorf("the same in other words: held back for %v, want a minute", got)
		}
		if got := wait(s.bot, policy.Read); got != 0 {
			t.Errorf("something else: held back for %v", got)
		}
		if got := wait(other, policy.Write); got != 0 {
			t.Errorf("another agent, after one denial: held back for %v", got)
		}
		s.Clock.Advance(time.Minute)
		deny(s.bot, policy.Write)
		if got := wait(s.bot, policy.Write); got != 2*time.Minute {
			t.Errorf("after a second denial: held back for %v, want two minutes", got)
		}
		if got := wait(other, policy.Write); got != time.Minute {
			t.Errorf("another agent of this person, after two denials: held back for %v, want a minute", got)
		}
		s.Clock.Advance(2 * time.Minute)
		r, err := ask(s.bot, policy.Write)
		gatewaytest.Must(t, err)
		s.Approve(t, s.owner, r.Session.Approval, nil)
		s.Clock.Advance(time.Second)
		deny(s.bot, policy.Write)
		if got := wait(s.bot, policy.Write); got != time.Minute {
			t.Errorf("a denial after an approval: held back for %v, want a minute again", got)
		}
	})
}

// A8: an agent that varies what it asks for is held back all the same, from the
// fifth denial in a row on, and so is every other agent of that person.
func TestManyDenialsHoldBackEverything(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		tools := []string{"tracker_list_issues", "tracker_get_issue", "tracker_update_issue", "tracker_delete_issue"}
		asks := []session.Ask{{Providers: []string{"tracker"}}}
		for _, tool := range tools {
			asks = append(asks, session.Ask{Tools: []string{tool}})
		}
		for _, ask := range asks {
			ask.Purpose = "Vary."
			r, err := s.Sessions.Request(t.Context(), s.bot, ask, "")
			gatewaytest.Must(t, err)
			gatewaytest.Must(t, s.Sessions.Deny(t.Context(), s.owner.Signed(t), r.Session.Approval, ""))
		}
		for _, who := range []agent.Identity{s.bot, s.Agent(t, s.owner, "Fresh bot")} {
			if _, err := s.Sessions.Request(t.Context(), who, session.Ask{Tools: tools[:2], Purpose: "Vary."}, ""); code(err) != "rate_limited" {
				t.Errorf("after five denials: got %v, want rate_limited", err)
			}
		}
	})
}

// A8: of the calls that need a decision of their own, those of the denied tool are
// held back, and from the third denial on all of the session.
func TestDeniedCallHoldsBackItsTool(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		r := s.Ask(t, s.bot, "tracker", policy.Read, policy.Write, policy.Destructive)
		s.Approve(t, s.owner, r.Session.Approval, func(d *session.Decision) { d.Confirm = policy.ConfirmWrite })
		n := 0
		ask := func(tool string) (session.Approval, string) {
			t.Helper()
			n++
			args := map[string]any{"number": n}
			if tool == "tracker_update_issue" {
				args["title"] = "x"
			}
			_, err := s.Call(t, s.bot, r.Handle, tool, args)
			if code(err) != "approval_required" {
				return session.Approval{}, code(err)
			}
			inbox, err := s.Sessions.Inbox(t.Context(), s.owner.Signed(t))
			gatewaytest.Must(t, err)
			return inbox[len(inbox)-1], "approval_required"
		}
		deny := func(tool string) {
			t.Helper()
			a, got := ask(tool)
			if got != "approval_required" {
				t.Fatalf("%s: %s", tool, got)
			}
			gatewaytest.Must(t, s.Sessions.Deny(t.Context(), s.owner.Signed(t), a.ID, ""))
		}
		deny("tracker_delete_issue")
		if _, got := ask("tracker_delete_issue"); got != "rate_limited" {
			t.Errorf("another call of the denied tool: got %s, want rate_limited", got)
		}
		deny("tracker_update_issue")
		s.Clock.Advance(time.Minute)
		deny("tracker_delete_issue")
		s.Clock.Advance(30 * time.Second) // the update's own wait is over
		if _, got := ask("tracker_update_issue"); got != "rate_limited" {
			t.Errorf("another tool after three denials: got %s, want rate_limited", got)
		}
	})
}

// A8, issue 6: a muted agent's requests are refused, for sessions and for calls that
// need a decision, with the time at which to ask again; what it was granted goes on.
// Whoever decides may mute and undo it, both are on record, and it ends by itself.
func TestMutedAgentAsksNobody(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		r := s.Ask(t, s.bot, "tracker", policy.Read, policy.Destructive)
		s.Approve(t, s.owner, r.Session.Approval, nil)
		me := account.ByPerson(s.owner.Signed(t)).In(s.Environment)
		stranger := account.ByPerson(s.Person(t, "noa@example.com", account.RoleMember).Signed(t)).In(s.Environment)
		approver := account.ByPerson(s.Person(t, "ada@example.com", account.RoleApprover).Signed(t)).In(s.Environment)
		ask := func(who agent.Identity) error {
			_, err := s.Sessions.Request(t.Context(), who, session.Ask{Providers: []string{"tracker"}, Purpose: "More."}, "")
			return err
		}
		for _, length := range []time.Duration{0, -time.Hour, 31 * 24 * time.Hour} {
			if _, err := s.Agents.Mute(t.Context(), me, s.bot.Agent(), length); code(err) != "invalid_arguments" {
				t.Errorf("muted for %v: got %v", length, err)
			}
		}
		if _, err := s.Agents.Mute(t.Context(), stranger, s.bot.Agent(), time.Hour); err == nil {
			t.Error("a member mutes another person's agent")
		}
		a, err := s.Agents.Mute(t.Context(), me, s.bot.Agent(), time.Hour)
		gatewaytest.Must(t, err)
		err = ask(s.bot)
		if f := fault.Of(err); code(err) != "rate_limited" || f.RetryAfter <= 0 || f.RetryAfter > time.Hour || f.Fields["muted_until"] != a.MutedUntil.UTC().Format(time.RFC3339) || f.Hint == "" {
			t.Errorf("a muted agent's request: got %v, %+v", err, f)
		}
		if _, err := s.Call(t, s.bot, r.Handle, "tracker_delete_issue", map[string]any{"number": 1}); code(err) != "rate_limited" {
			t.Errorf("a call that needs a decision: got %v, want rate_limited", err)
		}
		if inbox, err := s.Sessions.Inbox(t.Context(), s.owner.Signed(t)); err != nil || len(inbox) != 0 {
			t.Errorf("the person is asked %d times, %v", len(inbox), err)
		}
		if _, err := s.Call(t, s.bot, r.Handle, "tracker_list_issues", nil); err != nil {
			t.Errorf("a call that was granted: %v", err)
		}
		if err := ask(s.Agent(t, s.owner, "Another bot")); err != nil {
			t.Errorf("another agent: %v", err)
		}
		if _, err := s.Agents.Unmute(t.Context(), stranger, s.bot.Agent()); err == nil {
			t.Error("a member undoes another person's mute")
		}
		if a, err = s.Agents.Unmute(t.Context(), approver, s.bot.Agent()); err != nil || !a.MutedUntil.IsZero() {
			t.Errorf("an approver undoes it: until %v, %v", a.MutedUntil, err)
		}
		gatewaytest.Must(t, ask(s.bot))
		_, err = s.Agents.Mute(t.Context(), approver, s.bot.Agent(), time.Minute)
		gatewaytest.Must(t, err)
		s.Clock.Advance(time.Minute)
		if _, err := s.Call(t, s.bot, r.Handle, "tracker_delete_issue", map[string]any{"number": 1}); code(err) != "approval_required" {
			t.Errorf("after its time: got %v, want approval_required", err)
		}
		var said []string
		for _, want := range []string{"agent.muted", "agent.unmuted", "session.request_refused"} {
			page, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Agent: s.bot.Agent(), Action: want})
			gatewaytest.Must(t, err)
			if len(page.Records) == 0 {
				said = append(said, want)
			}
		}
		if len(said) > 0 {
			t.Errorf("not on record: %v", said)
		}
	})
}
