package session_test

import (
	"slices"
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

// handOn gives the identity of a sub-agent in the session behind handle.
func (s scene) handOn(t *testing.T, handle string, ask session.HandOn) (agent.Identity, session.Session, error) {
	t.Helper()
	tokens, child, err := s.Sessions.HandOn(t.Context(), s.bot, handle, ask, "127.0.0.1")
	if err != nil {
		return agent.Identity{}, child, err
	}
	if !tokens.Refresh.IsZero() {
		t.Error("a sub-agent got a refresh token")
	}
	who, err := s.Agents.Authenticate(t.Context(), tokens.Access)
	if err != nil {
		t.Fatal(err)
	}
	return who, child, nil
}

// S16, S5: a sub-agent gets at most its parent's session, no longer, only if the
// approval said so, and hands on nothing itself; it ends with its parent at once.
func TestHandOn(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		plain := s.Ask(t, s.bot, "tracker", policy.Read, policy.Write)
		if _, _, err := s.handOn(t, plain.Handle, session.HandOn{}); code(err) != "pending" {
			t.Errorf("before the decision: got %v", err)
		}
		s.Approve(t, s.owner, plain.Session.Approval, nil)
		if _, _, err := s.handOn(t, plain.Handle, session.HandOn{}); code(err) != "not_granted" {
			t.Errorf("without the tick: got %v, want not_granted", err)
		}

		r := s.Ask(t, s.bot, "tracker", policy.Read, policy.Write)
		s.Approve(t, s.owner, r.Session.Approval, func(d *session.Decision) { d.HandOn = true })
		who, child, err := s.handOn(t, r.Handle, session.HandOn{Effects: []policy.Effect{policy.Read}, Minutes: 5})
		if err != nil {
			t.Fatal(err)
		}
		if who.Session() != child.ID || who.User() != s.owner.ID || !who.Expires().Equal(s.Clock.Now().Add(5*time.Minute)) {
			t.Errorf("got session %s, user %s, until %s", who.Session(), who.User(), who.Expires())
		}
		if parent, err := s.Sessions.Parent(t.Context(), child.ID); err != nil || parent != r.Session.ID {
			t.Errorf("its parent is %q, %v, want %s", parent, err, r.Session.ID)
		}
		if got, err := s.Sessions.Get(t.Context(), account.ByPerson(s.owner.Signed(t)).In(s.Environment), child.ID); err != nil || got.Parent != r.Session.ID {
			t.Errorf("whoever reads the child sees the parent %q, %v, want %s", got.Parent, err, r.Session.ID)
		}
		if _, err := s.Call(t, who, "", "tracker_list_issues", nil); err != nil {
			t.Errorf("reading, which was handed on: %v", err)
		}
		if _, err := s.Call(t, who, "", "tracker_create_issue", map[string]any{"title": "x"}); code(err) != "not_granted" {
			t.Errorf("writing, which was not: got %v", err)
		}
		if _, err := s.Call(t, who, r.Handle, "tracker_list_issues", nil); code(err) != "session_not_found" {
			t.Errorf("its parent's session: got %v", err)
		}
		// S14: with its parent's handle a sub-agent neither reads nor ends the parent.
		if _, err := s.Sessions.Check(t.Context(), who, r.Handle, 0); code(err) != "session_not_found" {
			t.Errorf("reading its parent: got %v, want session_not_found", err)
		}
		if _, err := s.Sessions.Complete(t.Context(), who, r.Handle); code(err) != "session_not_found" {
			t.Errorf("ending its parent: got %v, want session_not_found", err)
		}
		if got, err := s.Sessions.Check(t.Context(), s.bot, r.Handle, 0); err != nil || got.State != session.Active {
			t.Errorf("the parent, after that: %s, %v", got.State, err)
		}
		if _, _, err := s.Sessions.HandOn(t.Context(), who, "", session.HandOn{}, ""); code(err) != "not_granted" {
			t.Errorf("a sub-agent that hands on: got %v", err)
		}
		if _, err := s.Sessions.Request(t.Context(), who, session.Ask{Providers: []string{"tracker"}}, ""); code(err) != "not_granted" {
			t.Errorf("a sub-agent that asks for a session: got %v", err)
		}
		if _, _, err := s.handOn(t, r.Handle, session.HandOn{Providers: []string{"other"}}); code(err) != "not_granted" {
			t.Errorf("a provider that the session does not have: got %v", err)
		}
		if _, _, err := s.handOn(t, r.Handle, session.HandOn{Effects: []policy.Effect{policy.Destructive}}); code(err) != "not_granted" {
			t.Errorf("an effect that the session does not have: got %v", err)
		}
		long, _, err := s.handOn(t, r.Handle, session.HandOn{Minutes: 100_000})
		if err != nil || long.Expires().After(s.Clock.Now().Add(time.Duration(r.Session.Minutes)*time.Minute)) {
			t.Errorf("a long one ends at %s, %v", long.Expires(), err)
		}

		res, err := s.Sessions.Revoke(t.Context(), account.ByPerson(s.owner.Signed(t)).In(s.Environment), session.Aim{Session: r.Session.ID})
		if err != nil || len(res.Sessions) != 3 {
			t.Errorf("revoking the parent ended %v, %v, want it and its two children", res.Sessions, err)
		}
		if _, err := s.Call(t, who, "", "tracker_list_issues", nil); code(err) != "revoked" {
			t.Errorf("after its parent was revoked: got %v, want revoked", err)
		}
		if _, _, err := s.handOn(t, r.Handle, session.HandOn{}); code(err) != "revoked" {
			t.Errorf("handing on a revoked session: got %v", err)
		}
		// A session with a limited number of calls is not handed on: its sub-agents
		// would not be counted with it.
		few := s.Ask(t, s.bot, "tracker", policy.Read)
		s.Approve(t, s.owner, few.Session.Approval, func(d *session.Decision) { d.HandOn, d.Calls = true, 3 })
		if _, _, err := s.handOn(t, few.Handle, session.HandOn{}); code(err) != "not_granted" {
			t.Errorf("a session of three calls: got %v", err)
		}
	})
}

// A8, S14: handing on sheds no limit. It ends no back-off, is no request of the
// person's, does not let a denied call be asked again or more calls wait, and each
// refusal is on record.
func TestHandOnShedsNoLimit(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.settle(t, func(x *policy.Settings) { x.Limits.HourlyByAgent, x.Limits.HourlyByUser = 3, 3 })
		r := s.Ask(t, s.bot, "tracker", policy.Read, policy.Destructive)
		s.Approve(t, s.owner, r.Session.Approval, func(d *session.Decision) { d.HandOn = true })
		ask := func(who agent.Identity, purpose string) (session.Requested, error) {
			return s.Sessions.Request(t.Context(), who, session.Ask{Providers: []string{"tracker"}, Purpose: purpose}, "")
		}
		hand := func() agent.Identity {
			t.Helper()
			who, _, err := s.handOn(t, r.Handle, session.HandOn{})
			gatewaytest.Must(t, err)
			return who
		}
		s.Clock.Advance(time.Second)
		q, err := ask(s.bot, "One.")
		gatewaytest.Must(t, err)
		gatewaytest.Must(t, s.Sessions.Deny(t.Context(), s.owner.Signed(t), q.Session.Approval, "No."))
		s.Clock.Advance(time.Second)
		first, second := hand(), hand()
		if _, err := ask(s.bot, "Two."); code(err) != "rate_limited" {
			t.Errorf("what was denied, after handing on: got %v, want rate_limited", err)
		}
		if _, err := ask(s.Agent(t, s.owner, "Other bot"), "Three."); err != nil {
			t.Errorf("another agent of the person: %v", err)
		}
		call := func(who agent.Identity, handle string, number int) string {
			_, err := s.Call(t, who, handle, "tracker_delete_issue", map[string]any{"number": number})
			return code(err)
		}
		for i, who := range []agent.Identity{first, second, first} {
			if got := call(who, "", i+1); got != "approval_required" {
				t.Fatalf("call %d: %s", i, got)
			}
		}
		if got := call(second, "", 9); got != "rate_limited" {
			t.Errorf("a fourth call that waits: got %s, want rate_limited", got)
		}
		inbox, err := s.Sessions.Inbox(t.Context(), s.owner.Signed(t))
		gatewaytest.Must(t, err)
		for _, a := range inbox {
			if a.Call != nil && string(a.Call.Arguments) == `{"number":1}` {
				gatewaytest.Must(t, s.Sessions.Deny(t.Context(), s.owner.Signed(t), a.ID, "Never."))
			}
		}
		for _, got := range []string{call(first, "", 1), call(second, "", 1), call(s.bot, r.Handle, 1)} {
			if got != "denied" {
				t.Errorf("the denied call elsewhere: got %s, want denied", got)
			}
		}
		for range 18 {
			_, err := s.Sessions.Complete(t.Context(), hand(), "")
			gatewaytest.Must(t, err)
		}
		if _, _, err := s.handOn(t, r.Handle, session.HandOn{}); code(err) != "not_granted" {
			t.Errorf("handed on a 21st time: got %v, want not_granted", err)
		}
		if !slices.Contains(s.Actions(t), "session.hand_on_refused") {
			t.Error("the refusal is not on record")
		}
	})
}

// S16: a sub-agent's session ends no later than its parent, also when it took long to
// write it.
func TestHandOnThatTakesLong(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		r := s.Ask(t, s.bot, "tracker")
		s.Approve(t, s.owner, r.Session.Approval, func(d *session.Decision) { d.HandOn = true })
		parent, err := s.Sessions.Check(t.Context(), s.bot, r.Handle, 0)
		gatewaytest.Must(t, err)
		slow := session.New(session.Config{DB: s.DB, Vault: s.Vault, Audit: s.Audit, People: s.Accounts, Agents: s.Agents, Connections: s.Connections,
			PublicURL: s.PublicURL, Now: func() time.Time { s.Clock.Advance(50 * time.Second); return s.Clock.Now() }})
		tokens, _, err := slow.HandOn(t.Context(), s.bot, r.Handle, session.HandOn{}, "")
		gatewaytest.Must(t, err)
		who, err := s.Agents.Authenticate(t.Context(), tokens.Access)
		gatewaytest.Must(t, err)
		if who.Expires().After(parent.ExpiresAt) {
			t.Errorf("it ends at %s, its parent at %s", who.Expires(), parent.ExpiresAt)
		}
	})
}

// S16: whoever is handed a session while it ends gets nothing that lasts.
func TestHandOnRacesRevoke(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		r := s.Ask(t, s.bot, "tracker", policy.Read)
		s.Approve(t, s.owner, r.Session.Approval, func(d *session.Decision) { d.HandOn = true })
		var mu sync.Mutex
		var got []agent.Tokens
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if tokens, _, err := s.Sessions.HandOn(t.Context(), s.bot, r.Handle, session.HandOn{}, ""); err == nil {
					mu.Lock()
					got = append(got, tokens)
					mu.Unlock()
				}
			})
		}
		wg.Go(func() {
			if _, err := s.Sessions.Revoke(t.Context(), s.System.In(s.Environment), session.Aim{Session: r.Session.ID}); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		for _, tokens := range got {
			if _, err := s.Agents.Authenticate(t.Context(), tokens.Access); code(err) != "invalid_token" {
				t.Errorf("a token outlived its session's parent: %v", err)
			}
		}
	})
}

// S16, rule 4: what may be handed on stays as it was approved. What the session was
// widened by is not: no other account, no further tool, and no fewer limits or questions.
func TestWhatAWideningAddsIsNotHandedOn(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.KeyProvider(t, "other")
		s.Connect(t, s.owner, "other", false)
		r, err := s.Sessions.Request(t.Context(), s.bot, session.Ask{Tools: []string{"tracker_get_issue", "tracker_update_issue"}, Purpose: "One.",
			Limits: []session.AskedLimit{{Limit: policy.Limit{Argument: "number", OneOf: []string{"7"}}}}}, "")
		gatewaytest.Must(t, err)
		s.Approve(t, s.owner, r.Session.Approval, func(d *session.Decision) { d.HandOn, d.Confirm = true, policy.ConfirmDestructive })
		whole := func() (agent.Identity, session.Session) {
			t.Helper()
			who, child, err := s.handOn(t, r.Handle, session.HandOn{})
			gatewaytest.Must(t, err)
			return who, child
		}
		_, before := whole()
		widen := func(slug string, change func(*session.Ask), decide func(*session.Decision), effects ...policy.Effect) {
			t.Helper()
			s.Clock.Advance(time.Second)
			w, err := s.more(t, r.Handle, slug, change, effects...)
			gatewaytest.Must(t, err)
			s.Approve(t, s.owner, w.Session.Approval, decide)
		}
		widen("other", nil, nil, policy.Read)
		// Twice on the account that it had: with further limits, tools and fewer questions.
		widen("tracker", func(a *session.Ask) {
			a.Limits = []session.AskedLimit{{Limit: policy.Limit{Argument: "number", OneOf: []string{"7", "8"}}}}
		}, func(d *session.Decision) { d.Confirm = policy.ConfirmNone }, policy.Read, policy.Write)
		widen("tracker", nil, func(d *session.Decision) { d.Confirm = policy.ConfirmNone }, policy.Destructive)
		for tool, args := range map[string]map[string]any{"tracker_get_issue": {"number": 8}, "tracker_delete_issue": {"number": 8}, "other_list_issues": nil} {
			if _, err := s.Call(t, s.bot, r.Handle, tool, args); code(err) == "not_granted" || code(err) == "approval_required" {
				t.Fatalf("the session itself, %s: %v", tool, err)
			}
		}
		who, child := whole()
		if len(child.Grants) != 1 || len(child.Grants[0].Tools) != len(before.Grants[0].Tools) || child.Grants[0].Confirm != policy.ConfirmDestructive {
			t.Errorf("handed on was %+v, want what was before: %+v", child.Grants, before.Grants)
		}
		if _, err := s.Call(t, who, "", "tracker_update_issue", map[string]any{"number": 7, "title": "x"}); code(err) == "not_granted" {
			t.Errorf("what was approved: %v", err)
		}
		for tool, args := range map[string]map[string]any{
			"tracker_update_issue": {"number": 8, "title": "x"}, "tracker_get_issue": {"number": 8}, "tracker_delete_issue": {"number": 7}, "other_list_issues": nil, "tracker_list_issues": nil,
		} {
			if _, err := s.Call(t, who, "", tool, args); code(err) != "not_granted" {
				t.Errorf("%s %v: got %v, want not_granted", tool, args, err)
			}
		}
		if _, _, err := s.handOn(t, r.Handle, session.HandOn{Providers: []string{"other"}}); code(err) != "not_granted" {
			t.Errorf("only what was added: got %v, want not_granted", err)
		}
		// What a widening took away is not handed on either.
		widen("tracker", func(a *session.Ask) {
			a.Limits = []session.AskedLimit{{Limit: policy.Limit{Argument: "number", OneOf: []string{"7", "9"}}}}
		}, func(d *session.Decision) { d.Grants[0].Tools = []string{"tracker_get_issue"} }, policy.Read)
		if _, child := whole(); len(child.Grants) != 1 || len(child.Grants[0].Tools) != 1 || child.Grants[0].Tools[0].Name != "tracker_get_issue" {
			t.Errorf("after less: %+v, want tracker_get_issue alone", child.Grants)
		}
	})
}
