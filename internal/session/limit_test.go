package session_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Issue 6: a session is asked for with limits of arguments and a number of calls,
// a person adds to them, and each call is held to both. Rules 4 and 5: neither is
// widened by the decision, and the proof covers both. Threat U7: a call on what was
// not approved is denied before anything is sent.
func TestLimitedSession(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		ask := session.Ask{Providers: []string{"tracker"}, Effects: []policy.Effect{policy.Read, policy.Write}, Purpose: "Mend one issue.", Calls: 4}
		for _, l := range []policy.Limit{{Argument: "owner", Equals: "x"}, {Argument: "number"}, {Argument: "number", Equals: "1", Prefix: "1"}} {
			bad := ask
			bad.Limits = []session.AskedLimit{{Limit: l}}
			if _, err := s.Sessions.Request(t.Context(), s.bot, bad, ""); code(err) != "invalid_limit" {
				t.Errorf("%+v: got %v, want invalid_limit", l, err)
			}
		}
		named := ask
		named.Tools, named.Limits = []string{"tracker_list_issues"}, []session.AskedLimit{{Limit: policy.Limit{Argument: "number", Equals: "1"}}}
		if _, err := s.Sessions.Request(t.Context(), s.bot, named, ""); code(err) != "invalid_limit" {
			t.Errorf("a named tool that cannot be limited: got %v, want invalid_limit", err)
		}
		ask.Limits = []session.AskedLimit{{Limit: policy.Limit{Argument: "number", OneOf: []string{"1", "2"}}}}
		r, err := s.Sessions.Request(t.Context(), s.bot, ask, "")
		gatewaytest.Must(t, err)
		var names []string
		for _, tool := range r.Session.Grants[0].Tools {
			names = append(names, tool.Name)
		}
		if !slices.Equal(names, []string{"tracker_get_issue", "tracker_update_issue"}) {
			t.Errorf("it asks for %v, want the tools that take the limited argument", names)
		}
		me := s.owner.Signed(t)
		a, err := s.Sessions.Approval(t.Context(), me, r.Session.Approval)
		gatewaytest.Must(t, err)
		if got := a.Session.Grants[0].Arguments(); !slices.Equal(got, []string{"number", "body", "state", "title"}) {
			t.Errorf("what can be limited: %v", got)
		}
		d := s.Sessions.DefaultDecision(a)
		wide, err := s.Sessions.Digest(t.Context(), me, a.ID, d)
		gatewaytest.Must(t, err)
		more := d
		more.Calls = 5
		if _, err := s.Sessions.Digest(t.Context(), me, a.ID, more); code(err) != "invalid_decision" {
			t.Errorf("more calls than asked for: got %v", err)
		}
		fewer := d
		fewer.Calls = 3
		if got, err := s.Sessions.Digest(t.Context(), me, a.ID, fewer); err != nil || got == wide {
			t.Errorf("the proof does not cover the number of calls: %v", err)
		}
		d.Grants[0].Limits = []policy.Limit{{Argument: "number", Equals: "2"}}
		if got, err := s.Sessions.Digest(t.Context(), me, a.ID, d); err != nil || got == wide {
			t.Errorf("the proof does not cover the limits: %v", err)
		}
		s.Approve(t, s.owner, a.ID, func(x *session.Decision) { *x = d })
		get := func(n int) error {
			_, err := s.Call(t, s.bot, r.Handle, "tracker_get_issue", map[string]any{"number": n})
			return err
		}
		before := s.Stats(t).Calls
		for _, n := range []int{1, 3} { // the first is outside of what the person added
			if err := get(n); code(err) != "not_granted" || fault.Of(err).Fields["argument"] != "number" {
				t.Errorf("number %d: got %v, want not_granted, for the argument number", n, err)
			}
		}
		if _, err := s.Call(t, s.bot, r.Handle, "tracker_list_issues", nil); code(err) != "not_granted" {
			t.Errorf("a tool that cannot be limited: got %v", err)
		}
		if after := s.Stats(t).Calls; after != before {
			t.Errorf("%d calls arrived", after-before)
		}
		for range 4 {
			if err := get(2); err != nil {
				t.Fatalf("a call within the limits: %v", err)
			}
		}
		if err := get(2); code(err) != "not_granted" || fault.Of(err).Fields["calls"] != "4" {
			t.Errorf("a fifth call: got %v, want not_granted, naming the number of calls", err)
		}
		got, err := s.Sessions.Check(t.Context(), s.bot, r.Handle, 0)
		if err != nil || got.Calls != 4 || got.Used != 4 || len(got.Grants[0].Limits) != 2 {
			t.Errorf("the session shows %d of %d calls, limits %v, %v", got.Used, got.Calls, got.Grants[0].Limits, err)
		}
	})
}

// Issue 6: many calls at once use no more than the number that was approved, and
// a call whose approval of its own fails at the fence uses none.
func TestCallsAreCountedAtTheFence(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		r, err := s.Sessions.Request(t.Context(), s.bot, session.Ask{Providers: []string{"tracker"}, Effects: []policy.Effect{policy.Read, policy.Destructive},
			Purpose: "x", Calls: 6}, "")
		gatewaytest.Must(t, err)
		s.Approve(t, s.owner, r.Session.Approval, nil)
		del := map[string]any{"number": 1}
		if _, err := s.Call(t, s.bot, r.Handle, "tracker_delete_issue", del); code(err) != "approval_required" {
			t.Fatal(err)
		}
		inbox, err := s.Sessions.Inbox(t.Context(), s.owner.Signed(t))
		gatewaytest.Must(t, err)
		s.Approve(t, s.owner, inbox[0].ID, nil)
		together := func(n int, tool string, args map[string]any) (ran int) {
			var wg sync.WaitGroup
			var mu sync.Mutex
			for range n {
				wg.Go(func() {
					if _, err := s.Call(t, s.bot, r.Handle, tool, args); err == nil {
						mu.Lock()
						ran++
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			return ran
		}
		if ran := together(8, "tracker_delete_issue", del); ran != 1 {
			t.Errorf("the approved call ran %d times, want once", ran)
		}
		got, err := s.Sessions.Check(t.Context(), s.bot, r.Handle, 0)
		if err != nil || got.Used != 1 {
			t.Errorf("%d calls counted, %v, want the one that ran", got.Used, err)
		}
		if ran := together(24, "tracker_list_issues", nil); ran != 5 {
			t.Errorf("%d calls ran, want the 5 that were left", ran)
		}
	})
}
