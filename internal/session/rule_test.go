package session_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// settle lets the server's console change the settings.
func (s scene) settle(t *testing.T, change func(*policy.Settings)) {
	t.Helper()
	by := s.System.In(s.Environment)
	now, err := s.Sessions.Rules(t.Context(), by, s.Organization)
	gatewaytest.Must(t, err)
	change(&now.Settings)
	_, err = s.Sessions.SetSettings(t.Context(), by, s.Organization, now.SettingsVersion, now.Settings, account.Agreement{})
	gatewaytest.Must(t, err)
}

// ruled lets the server's console set the policies.
func (s scene) ruled(t *testing.T, text string) {
	t.Helper()
	by := s.System.In(s.Environment)
	now, err := s.Sessions.Rules(t.Context(), by, s.Organization)
	gatewaytest.Must(t, err)
	_, err = s.Sessions.SetPolicy(t.Context(), by, s.Organization, now.PolicyVersion, text, account.Agreement{})
	gatewaytest.Must(t, err)
}

// agreed makes a change as a person who agrees to exactly what it asks.
func agreed(t *testing.T, s scene, p *agenttest.Person, change func(account.Person, account.Agreement) error) error {
	t.Helper()
	me := p.Signed(t)
	err := change(me, account.Asking())
	need, ok := errors.AsType[*account.Unproven](err)
	if !ok {
		return err
	}
	ag, err := s.Accounts.Agree(t.Context(), me, need.Raise, "nonce", p.Proof(t, s.Accounts.RaiseDigest(me, need.Raise, "nonce")))
	gatewaytest.Must(t, err)
	return change(me, ag)
}

// Issue 6, settings: versioned, audited, for those who manage the organization,
// and with a person's fresh agreement where they allow more (rule 4).
func TestSettingsOfAnOrganization(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		admin := s.Person(t, "admin@example.com", account.RoleAdmin)
		set := func(p account.Person, version int64, x policy.Settings, ag account.Agreement) error {
			_, err := s.Sessions.SetSettings(t.Context(), account.ByPerson(p).In(s.Environment), s.Organization, version, x, ag)
			return err
		}
		tight := policy.Defaults()
		tight.LongestMinutes, tight.Approvals.Write = 60, policy.ByCall
		if err := set(s.owner.Signed(t), 0, tight, account.Agreement{}); code(err) != "not_allowed" {
			t.Errorf("by a member: got %v, want not_allowed", err)
		}
		gatewaytest.Must(t, set(admin.Signed(t), 0, tight, account.Agreement{})) // tightening is quick
		if err := set(admin.Signed(t), 0, tight, account.Agreement{}); code(err) != "version_conflict" {
			t.Errorf("over a version that is gone: got %v, want version_conflict", err)
		}
		loose := tight
		loose.LongestMinutes = 600
		if err := set(admin.Signed(t), 1, loose, account.Agreement{}); code(err) != "proof_required" {
			t.Errorf("loosening by a cookie alone: got %v, want proof_required", err)
		}
		gatewaytest.Must(t, agreed(t, s, admin, func(p account.Person, ag account.Agreement) error { return set(p, 1, loose, ag) }))
		now, err := s.Sessions.Rules(t.Context(), account.ByPerson(admin.Signed(t)).In(s.Environment), s.Organization)
		if err != nil || now.SettingsVersion != 2 || now.Settings.LongestMinutes != 600 {
			t.Errorf("got version %d, %+v, %v", now.SettingsVersion, now.Settings, err)
		}
		list, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Action: "settings.changed"})
		if err != nil || len(list.Records) != 2 || len(list.Records[0].Evidence) == 0 || list.Records[0].Detail["version"] != "2" || !strings.Contains(list.Records[0].Detail["to"], `"longest_minutes":600`) {
			t.Errorf("on record: %+v, %v, want both changes, the second with its evidence", list.Records, err)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for range 8 {
			wg.Go(func() {
				_, err := s.Sessions.SetSettings(t.Context(), s.System.In(s.Environment), s.Organization, 2, tight, account.Agreement{})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won++
				} else if code(err) != "version_conflict" {
					t.Errorf("a change at once with others: %v", err)
				}
			})
		}
		if wg.Wait(); won != 1 {
			t.Errorf("%d changes of one version took effect, want 1", won)
		}
	})
}

// What the settings say is what happens: lengths, who decides, which calls need
// their own approval, when nobody is asked, and how much.
func TestSettingsHold(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		ask := func(minutes int, purpose string) (session.Requested, error) {
			return s.Sessions.Request(t.Context(), s.bot, session.Ask{Providers: []string{"tracker"}, Purpose: purpose, Minutes: minutes}, "")
		}
		s.settle(t, func(x *policy.Settings) { x.DefaultMinutes, x.LongestMinutes, x.Limits.OpenByAgent = 10, 20, 2 })
		if _, err := ask(21, "long"); code(err) != "invalid_arguments" {
			t.Errorf("over the longest: %v", err)
		}
		r, err := ask(0, "usual")
		if err != nil || r.Session.Minutes != 10 {
			t.Fatalf("the usual length: %d, %v", r.Session.Minutes, err)
		}
		if _, err := ask(20, "two"); err != nil {
			t.Fatal(err)
		}
		if _, err := ask(5, "three"); code(err) != "rate_limited" {
			t.Errorf("a third open request of two: %v", err)
		}
		s.Approve(t, s.owner, r.Session.Approval, nil)
		list := func() error {
			_, err := s.Call(t, s.bot, r.Handle, "tracker_list_issues", nil)
			return err
		}
		gatewaytest.Must(t, list())
		s.settle(t, func(x *policy.Settings) { x.Approvals.Read = policy.ByCall })
		if err := list(); code(err) != "approval_required" {
			t.Errorf("reads need their own approval from now on, also in a session that runs: got %v", err)
		}
		now := s.Clock.Now().UTC()
		s.settle(t, func(x *policy.Settings) {
			x.Approvals.Read = policy.ByGrant
			x.Quiet = &policy.Quiet{From: now.Add(-time.Hour).Format("15:04"), To: now.Add(time.Hour).Format("15:04"), Zone: "UTC"}
		})
		if _, err := ask(5, "at night"); code(err) != "quiet_hours" || fault.Of(err).RetryAfter == 0 {
			t.Errorf("in quiet hours: got %v, want quiet_hours with a time", err)
		}
		gatewaytest.Must(t, list()) // what runs goes on

		s.KeyProvider(t, "shared")
		approver := s.Person(t, "approver@example.com", account.RoleApprover)
		s.Connect(t, s.Person(t, "admin@example.com", account.RoleAdmin), "shared", true)
		s.settle(t, func(x *policy.Settings) {
			x.Quiet, x.Limits.OpenByAgent, x.Approvers = nil, 3, []string{"owner", "admin"}
		})
		shared := s.Ask(t, s.bot, "shared")
		if _, err := s.Sessions.Approval(t.Context(), approver.Signed(t), shared.Session.Approval); code(err) != "not_found" {
			t.Errorf("a role that no longer decides: got %v, want not_found", err)
		}
	})
}

// Issue 6, four eyes: a second person must approve exactly what the first did.
// They are neither the first nor the one for whom the agent acts, and nothing is
// granted before.
func TestSecondPerson(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		admin := s.Person(t, "admin@example.com", account.RoleAdmin)
		other := s.Person(t, "other@example.com", account.RoleApprover)
		s.settle(t, func(x *policy.Settings) {
			x.SecondToStart, x.Approvals.Destructive = []policy.Effect{policy.Destructive}, policy.BySecond
		})
		sees := func(p *agenttest.Person, a id.Approval) bool {
			_, err := s.Sessions.Approval(t.Context(), p.Signed(t), a)
			return err == nil
		}
		r := s.Ask(t, s.bot, "tracker", policy.Read, policy.Write, policy.Destructive)
		if sees(admin, r.Session.Approval) {
			t.Error("before the first has approved, the request is nobody else's")
		}
		s.Approve(t, s.owner, r.Session.Approval, func(d *session.Decision) {
			d.Minutes, d.Calls, d.Instructions = 7, 9, "Gently."
			d.Grants[0].Effects = []policy.Effect{policy.Read, policy.Destructive}
		})
		if got, _ := s.Sessions.Check(t.Context(), s.bot, r.Handle, 0); got.State != session.Pending {
			t.Fatalf("after one of two: %s, want pending", got.State)
		}
		if err := s.TryApprove(t, s.owner, r.Session.Approval, nil); code(err) != "second_person" {
			t.Errorf("the first a second time: got %v, want second_person", err)
		}
		if inbox, _ := s.Sessions.Inbox(t.Context(), s.owner.Signed(t)); len(inbox) != 0 {
			t.Errorf("the first is still asked: %d", len(inbox))
		}
		a, err := s.Sessions.Approval(t.Context(), admin.Signed(t), r.Session.Approval)
		if err != nil || a.First.By != s.owner.ID || a.Session.Minutes != 7 || len(a.Session.Grants[0].Effects) != 2 || a.Note != "Gently." {
			t.Fatalf("the second sees %+v, %v, want what the first allowed", a, err)
		}
		// What the second sends beside their yes changes nothing.
		s.Approve(t, admin, r.Session.Approval, func(d *session.Decision) { d.Minutes, d.Instructions, d.Grants = 480, "Hurry.", nil })
		got, err := s.Sessions.Check(t.Context(), s.bot, r.Handle, 0)
		if err != nil || got.State != session.Active || got.Minutes != 7 || got.Calls != 9 || got.Instructions != "Gently." || got.User != s.owner.ID || len(got.Grants[0].Effects) != 2 {
			t.Fatalf("granted: %+v, %v, want what the first allowed", got, err)
		}

		// A call that two must approve.
		del := func() error {
			_, err := s.Call(t, s.bot, r.Handle, "tracker_delete_issue", map[string]any{"number": 1})
			return err
		}
		if err := del(); code(err) != "approval_required" {
			t.Fatal(err)
		}
		inbox, err := s.Sessions.Inbox(t.Context(), s.owner.Signed(t))
		gatewaytest.Must(t, err)
		s.Approve(t, s.owner, inbox[0].ID, nil)
		if err := del(); code(err) != "approval_required" {
			t.Errorf("after one of two: got %v, want approval_required", err)
		}
		s.Approve(t, other, inbox[0].ID, nil)
		if err := del(); err != nil {
			t.Errorf("after both: %v", err)
		}
		var order []string
		for _, action := range s.Actions(t) {
			if strings.Contains(action, ".approved") {
				order = append(order, action)
			}
		}
		if want := "session.approved_first session.approved call.approved_first call.approved"; strings.Join(order, " ") != want {
			t.Errorf("on record: %v, want %s", order, want)
		}

		// A narrower first decision may need no second.
		mild := s.Ask(t, s.bot, "tracker", policy.Read, policy.Destructive)
		s.Approve(t, s.owner, mild.Session.Approval, func(d *session.Decision) { d.Grants[0].Effects = []policy.Effect{policy.Read} })
		if got, _ := s.Sessions.Check(t.Context(), s.bot, mild.Handle, 0); got.State != session.Active {
			t.Errorf("without what needs two: %s, want active", got.State)
		}
	})
}

// Issue 6, four eyes: the first of two persons must still be there, and may still
// decide, when the second approves. What waits for a second is withdrawn when the
// first leaves.
func TestFirstPersonMustStayForTheSecond(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		a := s.Person(t, "a@example.com", account.RoleAdmin)
		s.Connect(t, a, "tracker", true)
		s.KeyProvider(t, "shared")
		s.Connect(t, a, "shared", true)
		s.settle(t, func(x *policy.Settings) {
			x.SecondToStart, x.Approvals.Destructive = []policy.Effect{policy.Write}, policy.BySecond
		})
		by := s.System.In(s.Environment)
		leaves := func(p *agenttest.Person) {
			t.Helper()
			gatewaytest.Must(t, s.Accounts.RemoveMember(t.Context(), by, s.Organization, p.ID, account.Agreement{}))
		}
		ask := func(email string, effect policy.Effect) (*agenttest.Person, session.Requested) {
			t.Helper()
			b := s.Person(t, email, account.RoleAdmin)
			r := s.Ask(t, s.bot, "shared", effect)
			s.Approve(t, b, r.Session.Approval, nil)
			return b, r
		}
		state := func(r session.Requested) string {
			t.Helper()
			got, err := s.Sessions.Check(t.Context(), s.bot, r.Handle, 0)
			gatewaytest.Must(t, err)
			return got.State + " " + got.Reason + " " + got.Cause
		}

		b, r := ask("b@example.com", policy.Write)
		leaves(b)
		if got := state(r); got != "ended withdrawn first_left" {
			t.Errorf("after the first left: %s", got)
		}
		if err := s.TryApprove(t, a, r.Session.Approval, nil); code(err) != "withdrawn" {
			t.Errorf("the second, after the first left: got %v, want withdrawn", err)
		}

		b, r = ask("c@example.com", policy.Write)
		gatewaytest.Must(t, s.Accounts.SetRole(t.Context(), by, s.Organization, b.ID, account.RoleMember, account.Agreement{}))
		if err := s.TryApprove(t, a, r.Session.Approval, nil); code(err) != "approval_stale" || state(r) != "pending  " {
			t.Errorf("the second, after the first no longer decides: got %v, session %s", err, state(r))
		}
		gatewaytest.Must(t, s.Accounts.SetRole(t.Context(), by, s.Organization, b.ID, account.RoleApprover, account.Agreement{}))
		if err := s.TryApprove(t, a, r.Session.Approval, nil); err != nil || state(r) != "active  " {
			t.Errorf("the second, while the first decides: got %v, session %s", err, state(r))
		}

		// Leaving found nothing to withdraw: the second is refused all the same.
		b, r = ask("d@example.com", policy.Write)
		hook := s.OnUserLeft
		s.OnUserLeft = nil
		leaves(b)
		s.OnUserLeft = hook
		if err := s.TryApprove(t, a, r.Session.Approval, nil); code(err) != "approval_stale" || state(r) != "pending  " {
			t.Errorf("the second, after the first is gone: got %v, session %s", err, state(r))
		}

		b, r = ask("e@example.com", policy.Destructive)
		del := func() error {
			_, err := s.Call(t, s.bot, r.Handle, "shared_delete_issue", map[string]any{"number": 1})
			return err
		}
		call := id.Approval(fault.Of(del()).Fields["request_id"])
		s.Approve(t, b, call, nil)
		leaves(b)
		if got, err := s.Sessions.CheckCall(t.Context(), s.bot, "", call, 0); err != nil || got.State != session.ApprovalWithdrawn {
			t.Errorf("the call that they approved first: %+v, %v, want withdrawn", got, err)
		}
		if err := s.TryApprove(t, a, call, nil); code(err) != "withdrawn" {
			t.Errorf("the second for that call: got %v, want withdrawn", err)
		}
		if !slices.Contains(s.Actions(t), "call.withdrawn") {
			t.Error("the withdrawal is not on record")
		}
	})
}

// A11: of fifty who are first or second at once, one first and one second count.
func TestSecondPersonAtOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		seconds := []*agenttest.Person{s.Person(t, "a@example.com", account.RoleAdmin), s.Person(t, "b@example.com", account.RoleApprover)}
		s.settle(t, func(x *policy.Settings) { x.SecondToStart = []policy.Effect{policy.Read} })
		r := s.Ask(t, s.bot, "tracker")
		s.Approve(t, s.owner, r.Session.Approval, nil)
		type try struct {
			p     account.Person
			proof account.Proof
		}
		var tries []try
		for i := range 50 {
			who := seconds[i%2]
			me := who.Signed(t)
			digest, err := s.Sessions.Digest(t.Context(), me, r.Session.Approval, session.Decision{})
			gatewaytest.Must(t, err)
			tries = append(tries, try{me, who.Proof(t, digest)})
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for i, x := range tries {
			wg.Go(func() {
				var err error
				if i%3 == 0 {
					err = s.Sessions.Deny(t.Context(), x.p, r.Session.Approval, "no")
				} else {
					_, err = s.Sessions.Approve(t.Context(), x.p, r.Session.Approval, session.Decision{}, x.proof)
				}
				if err == nil {
					mu.Lock()
					won++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		ends := 0
		for _, action := range s.Actions(t) {
			if action == "session.approved" || action == "session.denied" {
				ends++
			}
		}
		if won != 1 || ends != 1 {
			t.Errorf("%d decisions took effect and left %d events, want one of each", won, ends)
		}
	})
}

// Issue 6, Cedar: a policy forbids what a grant allows, from the next call on, the
// audit names it and its version, and a dry run shows what a change would have
// decided.
func TestPolicyOfAnOrganization(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		admin := s.Person(t, "admin@example.com", account.RoleAdmin)
		handle := s.Active(t, s.owner, s.bot, "tracker", policy.Read, policy.Write)
		create := func(title string) error {
			_, err := s.Call(t, s.bot, handle, "tracker_create_issue", map[string]any{"title": title})
			return err
		}
		gatewaytest.Must(t, create("one"))
		set := func(p account.Person, text string, version int64, ag account.Agreement) error {
			_, err := s.Sessions.SetPolicy(t.Context(), account.ByPerson(p).In(s.Environment), s.Organization, version, text, ag)
			return err
		}
		if err := set(admin.Signed(t), "forbid(principal, action, resource) when { context.colour };", 0, account.Agreement{}); code(err) != "invalid_policy" {
			t.Errorf("what does not fit the schema: %v", err)
		}
		const text = `@id("titles") forbid(principal, action == Action::"write", resource) when { context.arguments.hasTag("title") && context.arguments.getTag("title") like "*secret*" };`
		if err := set(admin.Signed(t), text, 0, account.Agreement{}); code(err) != "proof_required" {
			t.Errorf("by a cookie alone: got %v, want proof_required", err)
		}
		gatewaytest.Must(t, agreed(t, s, admin, func(p account.Person, ag account.Agreement) error { return set(p, text, 0, ag) }))
		if err := create("a secret plan"); code(err) != "policy_denied" || fault.Of(err).Fields["policy"] != "1:titles" {
			t.Errorf("what the policy forbids: got %v, want policy_denied by 1:titles", err)
		}
		gatewaytest.Must(t, create("two"))
		list, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Action: "tool.call"})
		gatewaytest.Must(t, err)
		if r := list.Records[1]; r.Rule != "policy" || r.Detail["policy"] != "1:titles" {
			t.Errorf("the refusal is on record as %+v", r)
		}
		if r := list.Records[0]; r.Decision != "allow" || r.Detail["policy"] != "1" {
			t.Errorf("the call is on record as %+v, want it with the version that allowed it", r)
		}
		try := func(text string) session.Replayed {
			got, err := s.Sessions.TryPolicy(t.Context(), account.ByPerson(admin.Signed(t)).In(s.Environment), s.Organization, text, s.Clock.Now().Add(-24*time.Hour))
			gatewaytest.Must(t, err)
			return got
		}
		if got := try(`@id("no") forbid(principal, action == Action::"write", resource);`); got.Calls != 3 || got.Denied != 3 || len(got.Changed) != 2 || got.Changed[0].Policy != "0:no" || got.Changed[0].Tool != "tracker_create_issue" {
			t.Errorf("a dry run: %+v, want three writes denied, of which two ran", got)
		}
		if got := try(text); got.Unknown != 3 || len(got.Changed) != 0 {
			t.Errorf("a dry run of what reads arguments: %+v, want all unknown", got)
		}
		if got := try(``); got.Allowed != 3 || len(got.Changed) != 1 {
			t.Errorf("a dry run of none: %+v, want the refused one changed", got)
		}
		s.ruled(t, `@id("sum") forbid(principal, action, resource) when { context.hour + 9223372036854775807 == 1 && context.hour > 100 || 9223372036854775807 + context.weekday > 1 };`)
		if err := create("three"); code(err) != "policy_denied" {
			t.Errorf("a policy that fails: got %v, want policy_denied", err)
		}
		s.ruled(t, "")
		gatewaytest.Must(t, create("four"))
	})
}
