package session_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// scene is a person with a connected account and an agent.
type scene struct {
	*gatewaytest.World
	owner *agenttest.Person
	bot   agent.Identity
	conn  connection.Connection
}

func newScene(t *testing.T, db *sqldb.DB) scene {
	t.Helper()
	w := gatewaytest.New(t, db)
	w.KeyProvider(t, "tracker")
	s := scene{World: w, owner: w.Person(t, "mia@example.com", account.RoleMember)}
	s.conn = w.Connect(t, s.owner, "tracker", false)
	s.bot = w.Agent(t, s.owner, "Triage bot")
	return s
}

// code is the stable code of an error, or "".
func code(err error) string {
	if err == nil {
		return ""
	}
	return fault.Of(err).Code
}

func TestRequestApproveWorkEnd(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		r := s.Ask(t, s.bot, "tracker", policy.Read, policy.Write)
		if _, err := s.Call(t, s.bot, r.Handle, "tracker_list_issues", nil); code(err) != "pending" {
			t.Fatalf("before the decision: got %v, want pending", err)
		}
		s.Approve(t, s.owner, r.Session.Approval, func(d *session.Decision) { d.Instructions = "Only the open ones." })
		got, err := s.Sessions.Check(t.Context(), s.bot, r.Handle, 0)
		if err != nil || got.State != session.Active || got.Instructions != "Only the open ones." {
			t.Fatalf("after the decision: got %+v, %v", got, err)
		}
		if want := got.ApprovedAt.Add(30 * time.Minute); !got.ExpiresAt.Equal(want) {
			t.Errorf("expires at %v, want %v: expiry counts from the approval", got.ExpiresAt, want)
		}
		if _, err := s.Call(t, s.bot, r.Handle, "tracker_list_issues", nil); err != nil {
			t.Fatalf("a granted call: %v", err)
		}
		if _, err := s.Call(t, s.bot, r.Handle, "tracker_delete_issue", map[string]any{"number": 1}); code(err) != "not_granted" {
			t.Errorf("an effect that was not asked for: got %v, want not_granted", err)
		}
		if got, err = s.Sessions.Complete(t.Context(), s.bot, r.Handle); err != nil || got.Reason != session.Completed {
			t.Fatalf("ending: got %+v, %v", got, err)
		}
		if _, err := s.Call(t, s.bot, r.Handle, "tracker_list_issues", nil); code(err) != "ended" {
			t.Errorf("after the end: got %v, want ended", err)
		}
	})
}

// Rule 4: a session ends when its time is over, and nothing revives it, not
// even a clock that steps back.
func TestExpiryIsFinal(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		handle := s.Active(t, s.owner, s.bot, "tracker")
		s.Clock.Advance(30*time.Minute - time.Second)
		if _, err := s.Call(t, s.bot, handle, "tracker_list_issues", nil); err != nil {
			t.Fatalf("a second before the end: %v", err)
		}
		s.Clock.Advance(time.Second)
		if _, err := s.Call(t, s.bot, handle, "tracker_list_issues", nil); code(err) != "expired" {
			t.Fatalf("at the end: got %v, want expired", err)
		}
		gatewaytest.Must(t, s.Sessions.Sweep(t.Context()))
		s.Clock.Advance(-time.Hour)
		if _, err := s.Call(t, s.bot, handle, "tracker_list_issues", nil); code(err) != "expired" {
			t.Errorf("after the clock was set back: got %v, want expired", err)
		}
	})
}

// S3, S14: a handle is worth nothing without the token of its agent.
func TestHandleAloneOpensNothing(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		handle := s.Active(t, s.owner, s.bot, "tracker")
		other := s.Agent(t, s.owner, "Another bot of the same person")
		_, unknown := s.Sessions.Live(t.Context(), other, session.HandlePrefix+"AAAAAAAAAAAAAAAAAAAAAA")
		_, foreign := s.Sessions.Live(t.Context(), other, handle)
		if unknown == nil || foreign == nil || unknown.Error() != foreign.Error() || fault.Of(foreign).Hint != fault.Of(unknown).Hint {
			t.Errorf("a foreign handle answers %v, an unknown one %v: they must look alike", foreign, unknown)
		}
		if _, err := s.Sessions.Check(t.Context(), other, handle, 0); code(err) != "session_not_found" {
			t.Errorf("checking a foreign session: got %v", err)
		}
		if _, err := s.Sessions.Complete(t.Context(), other, handle); code(err) != "session_not_found" {
			t.Errorf("ending a foreign session: got %v", err)
		}
	})
}

// Rule 4, A12: who may decide. A user-owned connection is its owner's to grant,
// an organization's an approver's; for anybody else the request does not exist.
func TestWhoMayDecide(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.KeyProvider(t, "shared")
		admin := s.Person(t, "admin@example.com", account.RoleAdmin)
		approver := s.Person(t, "approver@example.com", account.RoleApprover)
		member := s.Person(t, "member@example.com", account.RoleMember)
		auditor := s.Person(t, "auditor@example.com", account.RoleAuditor)
		s.Connect(t, admin, "shared", true)

		own := s.Ask(t, s.bot, "tracker")
		for _, p := range []*agenttest.Person{admin, approver, member, auditor} {
			if err := s.TryApprove(t, p, own.Session.Approval, nil); code(err) != "not_found" {
				t.Errorf("%s on another person's account: got %v, want not found", p.ID, err)
			}
			if err := s.Sessions.Deny(t.Context(), p.Signed(t), own.Session.Approval, ""); code(err) != "not_found" {
				t.Errorf("%s denies another person's request: got %v, want not found", p.ID, err)
			}
		}
		shared := s.Ask(t, s.bot, "shared")
		for _, p := range []*agenttest.Person{s.owner, member, auditor} {
			if err := s.TryApprove(t, p, shared.Session.Approval, nil); code(err) != "not_found" {
				t.Errorf("%s on the organization's account: got %v, want not found", p.ID, err)
			}
		}
		s.Approve(t, s.owner, own.Session.Approval, nil)
		s.Approve(t, approver, shared.Session.Approval, nil)
		for p, want := range map[*agenttest.Person]int{s.owner: 0, approver: 0} {
			if list, err := s.Sessions.Inbox(t.Context(), p.Signed(t)); err != nil || len(list) != want {
				t.Errorf("inbox of %s: %d requests, %v, want %d", p.ID, len(list), err, want)
			}
		}
	})
}

// Rule 5, A4: the proof is over exactly what is allowed. Each part changes it.
func TestDigestCoversEverythingAllowed(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		ctx, me := t.Context(), s.owner.Signed(t)
		r := s.Ask(t, s.bot, "tracker", policy.Read, policy.Write, policy.Destructive)
		a, err := s.Sessions.Approval(ctx, me, r.Session.Approval)
		gatewaytest.Must(t, err)
		changes := map[string]func(*session.Decision){
			"as asked":     func(*session.Decision) {},
			"minutes":      func(d *session.Decision) { d.Minutes = 5 },
			"effects":      func(d *session.Decision) { d.Grants[0].Effects = []policy.Effect{policy.Read} },
			"tools":        func(d *session.Decision) { d.Grants[0].Tools = []string{"tracker_list_issues"} },
			"confirm":      func(d *session.Decision) { d.Confirm = policy.ConfirmWrite },
			"instructions": func(d *session.Decision) { d.Instructions = "Be careful." },
		}
		seen := map[string]string{}
		for name, change := range changes {
			d := s.Sessions.DefaultDecision(a)
			change(&d)
			digest, err := s.Sessions.Digest(ctx, me, a.ID, d)
			gatewaytest.Must(t, err)
			key := hex.EncodeToString(digest[:])
			if other, dup := seen[key]; dup {
				t.Errorf("%q and %q have the same digest", name, other)
			}
			seen[key] = name
		}
		// A proof over one decision does not carry another.
		d := s.Sessions.DefaultDecision(a)
		narrow := d
		narrow.Minutes = 1
		digest, err := s.Sessions.Digest(ctx, me, a.ID, narrow)
		gatewaytest.Must(t, err)
		if _, err := s.Sessions.Approve(ctx, me, a.ID, d, s.owner.Proof(t, digest)); err == nil {
			t.Error("a proof over one minute approved more")
		}
		if _, err := s.Sessions.Approve(ctx, me, a.ID, d, account.Proof{}); err == nil {
			t.Error("the signed-in person alone approved")
		}
	})
}

// A decision can only narrow.
func TestDecisionNeverWidens(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		me := s.owner.Signed(t)
		r := s.Ask(t, s.bot, "tracker", policy.Read)
		a, err := s.Sessions.Approval(t.Context(), me, r.Session.Approval)
		gatewaytest.Must(t, err)
		for name, change := range map[string]func(*session.Decision){
			"longer":         func(d *session.Decision) { d.Minutes = 30 + 1 },
			"another effect": func(d *session.Decision) { d.Grants[0].Effects = append(d.Grants[0].Effects, policy.Write) },
			"another tool":   func(d *session.Decision) { d.Grants[0].Tools = []string{"tracker_delete_issue"} },
			"nothing":        func(d *session.Decision) { d.Grants = nil },
		} {
			d := s.Sessions.DefaultDecision(a)
			change(&d)
			if _, err := s.Sessions.Digest(t.Context(), me, a.ID, d); code(err) != "invalid_decision" {
				t.Errorf("%s: got %v, want it refused", name, err)
			}
		}
	})
}

// A11: fifty people-in-a-hurry on one request: one outcome, one event.
func TestOneDecisionWins(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		ctx, me := t.Context(), s.owner.Signed(t)
		r := s.Ask(t, s.bot, "tracker")
		a, err := s.Sessions.Approval(ctx, me, r.Session.Approval)
		gatewaytest.Must(t, err)
		d := s.Sessions.DefaultDecision(a)
		digest, err := s.Sessions.Digest(ctx, me, a.ID, d)
		gatewaytest.Must(t, err)
		proofs := make([]account.Proof, 25)
		for i := range proofs {
			proofs[i] = s.owner.Proof(t, digest)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for i := range 50 {
			wg.Go(func() {
				var err error
				if i%2 == 0 {
					_, err = s.Sessions.Approve(ctx, me, a.ID, d, proofs[i/2])
				} else {
					err = s.Sessions.Deny(ctx, me, a.ID, "no")
				}
				if err == nil {
					mu.Lock()
					won++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if won != 1 {
			t.Errorf("%d decisions took effect, want 1", won)
		}
		events := 0
		for _, action := range s.Actions(t) {
			if action == "session.approved" || action == "session.denied" {
				events++
			}
		}
		if events != 1 {
			t.Errorf("%d decision events, want 1", events)
		}
	})
}

// An agent that repeated its request grew the table of handles without bound. A
// session keeps eight; the newest always works.
func TestRepeatsKeepEightHandles(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		ask := func(purpose string) session.Requested {
			got, err := s.Sessions.Request(t.Context(), s.bot, session.Ask{Providers: []string{"tracker"}, Purpose: purpose}, "")
			gatewaytest.Must(t, err)
			return got
		}
		other := ask("other")
		var handles []string
		for range 20 {
			handles = append(handles, ask("same").Handle)
			if _, err := s.Sessions.Check(t.Context(), s.bot, handles[len(handles)-1], 0); err != nil {
				t.Fatalf("the newest handle: got %v", err)
			}
			s.Clock.Advance(time.Millisecond)
		}
		for i, h := range handles {
			_, err := s.Sessions.Check(t.Context(), s.bot, h, 0)
			if kept := i >= len(handles)-8; kept != (err == nil) || !kept && code(err) != "session_not_found" {
				t.Errorf("handle %d of %d: got %v", i+1, len(handles), err)
			}
		}
		if _, err := s.Sessions.Check(t.Context(), s.bot, other.Handle, 0); err != nil {
			t.Errorf("another session's handle: got %v", err)
		}
		var rows int
		if err := db.Reader().QueryRowContext(t.Context(), `select count(*) from session_handle`).Scan(&rows); err != nil || rows != 8+1 {
			t.Errorf("%d rows, %v, want 9", rows, err)
		}
		// Issue 3, item 3, and a bug: they stayed for ever.
		s.Clock.Advance(6 * 24 * time.Hour)
		gatewaytest.Must(t, s.Sessions.Sweep(t.Context()))
		if got, err := s.Sessions.Check(t.Context(), s.bot, other.Handle, 0); err != nil || got.State != session.Ended {
			t.Errorf("days after the session: got %s, %v", got.State, err)
		}
		s.Clock.Advance(2 * 24 * time.Hour)
		gatewaytest.Must(t, s.Sessions.Sweep(t.Context()))
		if err := db.Reader().QueryRowContext(t.Context(), `select count(*) from session_handle`).Scan(&rows); err != nil || rows != 0 {
			t.Errorf("%d rows, %v, a week later", rows, err)
		}
		if _, err := s.Sessions.Check(t.Context(), s.bot, other.Handle, 0); code(err) != "session_not_found" {
			t.Errorf("a forgotten handle: got %v", err)
		}
	})
}

// A bug: the approval of a single call said that it could be used after the end of
// its session.
func TestCallApprovalsEndWithTheirSession(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		handle := s.Active(t, s.owner, s.bot, "tracker", policy.Read, policy.Write, policy.Destructive)
		ses, err := s.Sessions.Check(t.Context(), s.bot, handle, 0)
		gatewaytest.Must(t, err)
		s.Clock.Advance(ses.ExpiresAt.Sub(s.Clock.Now()) - 20*time.Second)
		_, err = s.Call(t, s.bot, handle, "tracker_delete_issue", map[string]any{"number": 1})
		request := id.Approval(fault.Of(err).Fields["request_id"])
		asked, err := s.Sessions.CheckCall(t.Context(), s.bot, handle, request, 0)
		if err != nil || asked.ExpiresAt.After(ses.ExpiresAt) {
			t.Errorf("it waits until %v, %v; the session ends at %v", asked.ExpiresAt, err, ses.ExpiresAt)
		}
		s.Approve(t, s.owner, request, nil)
		if got, err := s.Sessions.CheckCall(t.Context(), s.bot, handle, request, 0); err != nil || got.ExpiresAt.After(ses.ExpiresAt) {
			t.Errorf("it is good until %v, %v; the session ends at %v", got.ExpiresAt, err, ses.ExpiresAt)
		}
	})
}

// A8: pending requests are bounded, repeats join, denials back off.
func TestFatigueLimits(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		ask := func(purpose string) (session.Requested, error) {
			return s.Sessions.Request(t.Context(), s.bot, session.Ask{Providers: []string{"tracker"}, Purpose: purpose}, "")
		}
		first, err := ask("one")
		gatewaytest.Must(t, err)
		again, err := ask("one")
		if err != nil || again.Session.ID != first.Session.ID || again.Handle == first.Handle {
			t.Errorf("the same request: got %+v, %v, want the same session under a new handle", again.Session.ID, err)
		}
		for _, p := range []string{"two", "three"} {
			if _, err := ask(p); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ask("four"); code(err) != "rate_limited" || fault.Of(err).RetryAfter == 0 {
			t.Errorf("a fourth open request: got %v, want rate_limited with a time", err)
		}
		gatewaytest.Must(t, s.Sessions.Deny(t.Context(), s.owner.Signed(t), first.Session.Approval, "Not now."))
		_, err = ask("one")
		if code(err) != "rate_limited" {
			t.Fatalf("a repeat after a denial: got %v, want rate_limited", err)
		}
		// A8, and a bug: it said that only the like was denied, and held back everything.
		if f := fault.Of(err); f.RetryAfter == 0 || !strings.Contains(f.Message, "same providers, effects and tools") || !strings.Contains(f.Hint, "retry_after") {
			t.Errorf("the agent is not told what it may ask for, and when: %v, %q, %v", f, f.Hint, f.RetryAfter)
		}
		if _, err := s.Call(t, s.bot, first.Handle, "tracker_list_issues", nil); code(err) != "denied" {
			t.Errorf("a call on a denied session: got %v, want denied", err)
		}
		s.Clock.Advance(fault.Of(err).RetryAfter + time.Second)
		if _, err := ask("one"); err != nil {
			t.Errorf("after the wait: %v", err)
		}
	})
}

// Rule 7: every aim of a revoke ends exactly what it hits.
func TestRevokeIsPrecise(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.KeyProvider(t, "other")
		other := s.Person(t, "noa@example.com", account.RoleMember)
		conn2 := s.Connect(t, other, "other", false)
		bot2 := s.Agent(t, other, "Other bot")
		admin := account.ByPerson(s.Person(t, "admin@example.com", account.RoleAdmin).Signed(t)).In(s.Environment)
		aims := map[string]session.Aim{
			"agent": {Agent: s.bot.Agent()}, "user": {User: s.owner.ID}, "connection": {Connection: s.conn.ID},
			"provider": {Provider: "tracker", Organization: s.Organization},
		}
		for name, aim := range aims {
			mine, theirs := s.Active(t, s.owner, s.bot, "tracker"), s.Active(t, other, bot2, "other")
			got, err := s.Sessions.Revoke(t.Context(), admin, aim)
			if err != nil || len(got.Sessions) != 1 {
				t.Fatalf("%s: ended %d sessions, %v, want 1", name, len(got.Sessions), err)
			}
			if _, err := s.Call(t, s.bot, mine, "tracker_list_issues", nil); code(err) != "revoked" {
				t.Errorf("%s: the session that was hit: got %v, want revoked", name, err)
			}
			if _, err := s.Call(t, bot2, theirs, "other_list_issues", nil); err != nil {
				t.Errorf("%s: a session that was not hit: %v", name, err)
			}
			_, err = s.Sessions.Complete(t.Context(), bot2, theirs)
			gatewaytest.Must(t, err)
		}
		_ = conn2
		a, b := s.Active(t, s.owner, s.bot, "tracker"), s.Active(t, other, bot2, "other")
		if got, err := s.Sessions.Revoke(t.Context(), admin, session.Aim{Organization: s.Organization}); err != nil || len(got.Sessions) != 2 {
			t.Fatalf("organization: ended %d, %v, want 2", len(got.Sessions), err)
		}
		for who, h := range map[string]string{"tracker_list_issues": a, "other_list_issues": b} {
			bot := s.bot
			if h == b {
				bot = bot2
			}
			if _, err := s.Call(t, bot, h, who, nil); code(err) != "revoked" {
				t.Errorf("organization: got %v, want revoked", err)
			}
		}
	})
}

// Rule 7: a user has sessions in several organizations. The newest one's used to
// decide alone: an admin of another organization was told that there is no such
// user, and an application ended that organization's sessions only.
func TestRevokeOfAUserReachesEveryOrganization(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		here, there := s.Ask(t, s.bot, "tracker"), id.NewOrganization()
		s.Approve(t, s.owner, here.Session.Approval, nil)
		s.Clock.Advance(time.Minute)
		elsewhere := s.Ask(t, s.bot, "tracker")
		s.Approve(t, s.owner, elsewhere.Session.Approval, nil)
		gatewaytest.Must(t, db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := tx.ExecContext(ctx, `update session set organization_id = $1 where id = $2`, there, elsewhere.Session.ID)
			return err
		}))
		admin := account.ByPerson(s.Person(t, "admin@example.com", account.RoleAdmin).Signed(t)).In(s.Environment)
		got, err := s.Sessions.Revoke(t.Context(), admin, session.Aim{User: s.owner.ID})
		if err != nil || !slices.Equal(got.Sessions, []id.Session{here.Session.ID}) {
			t.Errorf("an admin of one organization: ended %v, %v, want the session there", got.Sessions, err)
		}
		_, secret, err := s.Accounts.IssueKey(t.Context(), account.NewKey{Environment: s.Environment, Name: "kill", Scopes: []account.Scope{account.ScopeSessionsRevoke}, Expires: s.Clock.Now().Add(time.Hour)})
		gatewaytest.Must(t, err)
		key, err := s.Accounts.AuthenticateKey(t.Context(), secret)
		gatewaytest.Must(t, err)
		got, err = s.Sessions.Revoke(t.Context(), account.ByKey(key), session.Aim{User: s.owner.ID})
		if err != nil || !slices.Equal(got.Sessions, []id.Session{elsewhere.Session.ID}) {
			t.Errorf("an application of the environment: ended %v, %v, want the session in the other organization", got.Sessions, err)
		}
	})
}

// T1: a member revokes what acts for themselves, and nothing else exists.
func TestMembersRevokeTheirOwnOnly(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		r := s.Ask(t, s.bot, "tracker")
		s.Approve(t, s.owner, r.Session.Approval, nil)
		stranger := account.ByPerson(s.Person(t, "noa@example.com", account.RoleMember).Signed(t)).In(s.Environment)
		if got, err := s.Sessions.Revoke(t.Context(), stranger, session.Aim{Session: r.Session.ID}); err == nil && len(got.Sessions) > 0 {
			t.Error("a stranger revoked somebody's session")
		}
		if _, err := s.Sessions.Get(t.Context(), stranger, r.Session.ID); code(err) != "session_not_found" {
			t.Errorf("a stranger looks at a session: got %v", err)
		}
		if _, err := s.Call(t, s.bot, r.Handle, "tracker_list_issues", nil); err != nil {
			t.Fatalf("the session should go on: %v", err)
		}
		me := account.ByPerson(s.owner.Signed(t)).In(s.Environment)
		if got, err := s.Sessions.Revoke(t.Context(), me, session.Aim{Session: r.Session.ID}); err != nil || len(got.Sessions) != 1 {
			t.Errorf("the owner revokes: %d, %v", len(got.Sessions), err)
		}
	})
}

// S4, rule 7: what a session rests on ends it in the same transaction.
func TestSessionsEndWithWhatTheyRestOn(t *testing.T) {
	t.Parallel()
	ends := map[string]func(t *testing.T, s scene, admin account.Actor) error{
		"the connection": func(t *testing.T, s scene, admin account.Actor) error {
			_, err := s.Credentials.Disconnect(t.Context(), admin, s.conn.ID)
			return err
		},
		"the agent": func(t *testing.T, s scene, admin account.Actor) error {
			_, err := s.Agents.Disable(t.Context(), admin, s.bot.Agent())
			return err
		},
		"the user": func(t *testing.T, s scene, admin account.Actor) error {
			return s.Accounts.RemoveMember(t.Context(), admin, s.Organization, s.owner.ID, account.Agreement{})
		},
	}
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		for name, end := range ends {
			t.Run(name, func(t *testing.T) {
				s := newScene(t, sqldbtest.Open(t, db.Engine()))
				handle := s.Active(t, s.owner, s.bot, "tracker")
				if err := end(t, s, s.System.In(s.Environment)); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Sessions.Live(t.Context(), s.bot, handle); code(err) != "revoked" {
					t.Errorf("the session: got %v, want revoked", err)
				}
			})
		}
	})
}

// A call needs its own approval, of exactly that call, used once (rule 5).
func TestCallApproval(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		handle := s.Active(t, s.owner, s.bot, "tracker", policy.Read, policy.Destructive)
		del := func(n int) error {
			_, err := s.Call(t, s.bot, handle, "tracker_delete_issue", map[string]any{"number": n})
			return err
		}
		err := del(1)
		if code(err) != "approval_required" {
			t.Fatalf("got %v, want approval_required", err)
		}
		inbox, err := s.Sessions.Inbox(t.Context(), s.owner.Signed(t))
		if err != nil || len(inbox) != 1 || inbox[0].Call == nil {
			t.Fatalf("inbox: %d, %v", len(inbox), err)
		}
		c := inbox[0].Call
		if c.Method != "DELETE" || c.Effect != policy.Destructive || c.AccountLabel == "" {
			t.Errorf("the subject shows %+v", c)
		}
		if err := del(1); code(err) != "approval_required" {
			t.Errorf("asking again while it waits: %v", err)
		}
		if again, _ := s.Sessions.Inbox(t.Context(), s.owner.Signed(t)); len(again) != 1 {
			t.Errorf("asking again made %d requests, want the one", len(again))
		}
		s.Approve(t, s.owner, inbox[0].ID, nil)
		if err := del(2); code(err) != "approval_required" {
			t.Errorf("another argument under this approval: got %v, want approval_required", err)
		}
		if err := del(1); err != nil {
			t.Errorf("the approved call: %v", err)
		}
		if err := del(1); code(err) != "approval_required" {
			t.Errorf("the approved call a second time: got %v, want approval_required", err)
		}
	})
}

// One approval, many callers at once: it is used once.
func TestCallApprovalIsUsedOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		handle := s.Active(t, s.owner, s.bot, "tracker", policy.Destructive)
		args := map[string]any{"number": 1}
		_, err := s.Call(t, s.bot, handle, "tracker_delete_issue", args)
		if code(err) != "approval_required" {
			t.Fatal(err)
		}
		inbox, err := s.Sessions.Inbox(t.Context(), s.owner.Signed(t))
		gatewaytest.Must(t, err)
		s.Approve(t, s.owner, inbox[0].ID, nil)
		var wg sync.WaitGroup
		var mu sync.Mutex
		ran := 0
		for range 16 {
			wg.Go(func() {
				if _, err := s.Call(t, s.bot, handle, "tracker_delete_issue", args); err == nil {
					mu.Lock()
					ran++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if ran != 1 {
			t.Errorf("the approved call ran %d times, want once", ran)
		}
	})
}

// A session for several accounts of one provider runs on the one that the
// person picks, and a call on two must name which.
func TestSeveralAccounts(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		boss := s.Person(t, "boss@example.com", account.RoleOwner)
		bot := s.Agent(t, boss, "Boss bot")
		mine, shared := s.Connect(t, boss, "tracker", false), s.Connect(t, boss, "tracker", true)
		r := s.Ask(t, bot, "tracker")
		if len(r.Session.Grants) != 2 {
			t.Fatalf("%d candidates, want the own and the shared account", len(r.Session.Grants))
		}
		both := func(d *session.Decision) {
			d.Grants = []session.Choice{{Connection: mine.ID, Effects: []policy.Effect{policy.Read}}, {Connection: shared.ID, Effects: []policy.Effect{policy.Read}}}
		}
		if err := s.TryApprove(t, boss, r.Session.Approval, nil); code(err) != "invalid_decision" {
			t.Errorf("approving without picking: got %v", err)
		}
		s.Approve(t, boss, r.Session.Approval, both)
		if _, err := s.Call(t, bot, r.Handle, "tracker_list_issues", nil); code(err) != "ambiguous_account" {
			t.Errorf("not saying which: got %v, want ambiguous_account", err)
		}
	})
}

// autonomous is an agent of p's that acts for nobody.
func (s scene) autonomous(t *testing.T, p *agenttest.Person) agent.Identity {
	t.Helper()
	_, auth := s.Service(t, agent.Autonomous, p.ID)
	tokens, err := s.Agents.ClientCredentials(t.Context(), s.Caller(t, auth), "")
	gatewaytest.Must(t, err)
	bot, err := s.Agents.Authenticate(t.Context(), tokens.Access)
	gatewaytest.Must(t, err)
	return bot
}

// Autonomous agents act for the organization; their session's user is whoever
// approves, and people's own accounts are out of reach.
func TestAutonomousAgent(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.KeyProvider(t, "shared")
		approver := s.Person(t, "approver@example.com", account.RoleApprover)
		s.Connect(t, approver, "shared", true)
		bot := s.autonomous(t, approver)
		if _, err := s.Sessions.Request(t.Context(), bot, session.Ask{Providers: []string{"tracker"}, Purpose: "x"}, ""); code(err) != "connect_provider" {
			t.Errorf("a person's own account: got %v, want connect_provider", err)
		}
		r := s.Ask(t, bot, "shared")
		s.Approve(t, approver, r.Session.Approval, nil)
		if _, err := s.Call(t, bot, r.Handle, "shared_list_issues", nil); err != nil {
			t.Fatal(err)
		}
		page, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Session: r.Session.ID, Action: "tool.call"})
		if err != nil || len(page.Records) != 1 || page.Records[0].User != approver.ID || page.Records[0].Agent != bot.Agent() {
			t.Errorf("audit of the call: %+v, %v, want the approver as its user", page.Records, err)
		}
	})
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		for name, row := range map[string]struct {
			ask  session.Ask
			want string
		}{
			"nothing named":    {session.Ask{Purpose: "x"}, "invalid_arguments"},
			"no purpose":       {session.Ask{Providers: []string{"tracker"}, Purpose: "  "}, "invalid_arguments"},
			"too long":         {session.Ask{Providers: []string{"tracker"}, Purpose: "x", Minutes: policy.Defaults().LongestMinutes + 1}, "invalid_arguments"},
			"negative":         {session.Ask{Providers: []string{"tracker"}, Purpose: "x", Minutes: -1}, "invalid_arguments"},
			"unknown effect":   {session.Ask{Providers: []string{"tracker"}, Purpose: "x", Effects: []policy.Effect{"everything"}}, "invalid_effect"},
			"unknown provider": {session.Ask{Providers: []string{"nowhere"}, Purpose: "x"}, "connect_provider"},
			"unknown tool":     {session.Ask{Tools: []string{"tracker_fly"}, Purpose: "x"}, "tool_not_found"},
			"huge purpose":     {session.Ask{Providers: []string{"tracker"}, Purpose: fmt.Sprintf("%03000d", 1)}, "invalid_arguments"},
		} {
			if _, err := s.Sessions.Request(t.Context(), s.bot, row.ask, ""); code(err) != row.want {
				t.Errorf("%s: got %v, want %s", name, err, row.want)
			}
		}
	})
}
