package session_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// asked is the one request that waits for the owner.
func (s scene) asked(t *testing.T) session.Approval {
	t.Helper()
	inbox, err := s.Sessions.Inbox(t.Context(), s.owner.Signed(t))
	gatewaytest.Must(t, err)
	if len(inbox) != 1 {
		t.Fatalf("%d requests wait", len(inbox))
	}
	return inbox[0]
}

// confirmed is the handle of a session in which every change needs an approval.
func (s scene) confirmed(t *testing.T, effects ...policy.Effect) string {
	t.Helper()
	r := s.Ask(t, s.bot, "tracker", effects...)
	s.Approve(t, s.owner, r.Session.Approval, func(d *session.Decision) { d.Confirm = policy.ConfirmWrite })
	return r.Handle
}

// A8, rule 5: whoever approves a call may allow the next ones like it: so many, in that
// session, with the same tool, account and arguments but for those that they named. That
// is what their passkey signs, and each call is on record under the approval.
func TestNextCallsLikeIt(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		handle := s.confirmed(t, policy.Read, policy.Write)
		update := func(number int, more map[string]any) error {
			args := map[string]any{"number": number}
			for k, v := range more {
				args[k] = v
			}
			_, err := s.Call(t, s.bot, handle, "tracker_update_issue", args)
			return err
		}
		title := func(text string) map[string]any { return map[string]any{"title": text, "state": "open"} }
		if err := update(1, title("a")); code(err) != "approval_required" {
			t.Fatal(err)
		}
		a := s.asked(t)
		if !a.Repeats() || strings.Join(a.Call.MayDiffer(), " ") != "number state title" {
			t.Fatalf("arguments: %v", a.Call.MayDiffer())
		}
		digests := map[[32]byte]bool{}
		for _, like := range []session.Like{{}, {Calls: 3}, {Calls: 3, Differ: []string{"title"}}, {Calls: 4, Differ: []string{"title"}}} {
			digest, err := s.Sessions.Digest(t.Context(), s.owner.Signed(t), a.ID, session.Decision{Like: like})
			gatewaytest.Must(t, err)
			digests[digest] = true
		}
		if len(digests) != 4 {
			t.Error("two decisions are proved by one digest")
		}
		for why, like := range map[string]session.Like{"too many": {Calls: session.MaxLike + 1}, "an argument that is none": {Calls: 1, Differ: []string{"owner"}}, "fewer than none": {Calls: -1}} {
			if err := s.TryApprove(t, s.owner, a.ID, func(d *session.Decision) { d.Like = like }); code(err) != "invalid_decision" {
				t.Errorf("%s: got %v", why, err)
			}
		}
		s.Approve(t, s.owner, a.ID, func(d *session.Decision) {
			d.Like, d.Instructions = session.Like{Calls: 3, Differ: []string{"title"}}, "Only titles."
		})
		if r, err := s.Sessions.CheckCall(t.Context(), s.bot, handle, a.ID, 0); err != nil || r.Series == nil || r.Series.Calls != 3 || r.Series.Used != 0 {
			t.Errorf("the agent is told %+v, %v", r.Series, err)
		}
		for _, text := range []string{"a", "b", "c"} { // the call itself, and two like it
			if err := update(1, title(text)); err != nil {
				t.Errorf("%s: %v", text, err)
			}
		}
		for why, err := range map[string]error{
			"another number":       update(2, title("d")),
			"another state":        update(1, map[string]any{"title": "d", "state": "closed"}),
			"an argument left out": update(1, map[string]any{"title": "d"}),
		} {
			if code(err) != "approval_required" {
				t.Errorf("%s: got %v, want approval_required", why, err)
			}
		}
		if _, err := s.Call(t, s.bot, handle, "tracker_create_issue", map[string]any{"title": "d"}); err == nil {
			t.Error("another tool went through")
		}
		other := s.confirmed(t, policy.Read, policy.Write)
		if _, err := s.Call(t, s.bot, other, "tracker_update_issue", map[string]any{"number": 1, "title": "d", "state": "open"}); code(err) != "approval_required" {
			t.Errorf("in another session: %v", err)
		}
		if err := update(1, title("d")); err != nil {
			t.Errorf("the third like it: %v", err)
		}
		if err := update(1, title("e")); err == nil {
			t.Error("a fourth like it went through")
		}
		got, err := s.Sessions.Approval(t.Context(), s.owner.Signed(t), a.ID)
		if err != nil || got.State != session.ApprovalUsed || got.Series == nil || got.Series.Used != 3 {
			t.Errorf("the person is shown %s, %+v, %v", got.State, got.Series, err)
		}
	})
}

// A8: what deletes, and what an organization wants approved one by one, is approved one
// by one; the organization's word counts for what was allowed before it too.
func TestNoNextCallsOfWhatIsApprovedOneByOne(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		handle := s.confirmed(t, policy.Read, policy.Write, policy.Destructive)
		call := func(tool, title string) error {
			args := map[string]any{"number": 1}
			if title != "" {
				args = map[string]any{"title": title}
			}
			_, err := s.Call(t, s.bot, handle, tool, args)
			return err
		}
		if err := call("tracker_delete_issue", ""); code(err) != "approval_required" {
			t.Fatal(err)
		}
		a := s.asked(t)
		if err := s.TryApprove(t, s.owner, a.ID, func(d *session.Decision) { d.Like.Calls = 1 }); a.Repeats() || code(err) != "invalid_decision" {
			t.Errorf("deletions: got %v, want it refused", err)
		}
		s.Approve(t, s.owner, a.ID, nil)
		if err := call("tracker_create_issue", "a"); code(err) != "approval_required" {
			t.Fatal(err)
		}
		s.Approve(t, s.owner, s.asked(t).ID, func(d *session.Decision) { d.Like = session.Like{Calls: 5, Differ: []string{"title"}} })
		gatewaytest.Must(t, call("tracker_create_issue", "b"))
		s.settle(t, func(x *policy.Settings) { x.Approvals.Write = policy.ByCall })
		if err := call("tracker_create_issue", "c"); code(err) != "approval_required" {
			t.Errorf("after the organization wants each approved: got %v", err)
		}
		if a := s.asked(t); a.Repeats() {
			t.Error("more of them can be allowed at once")
		}
	})
}

// Many at once use no more than were allowed, nor than the session's calls.
func TestNextCallsAreCountedAtTheFence(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		handle := s.confirmed(t, policy.Write)
		create := func(title string) error {
			_, err := s.Call(t, s.bot, handle, "tracker_create_issue", map[string]any{"title": title})
			return err
		}
		if err := create("a"); code(err) != "approval_required" {
			t.Fatal(err)
		}
		s.Approve(t, s.owner, s.asked(t).ID, func(d *session.Decision) { d.Like = session.Like{Calls: 4, Differ: []string{"title"}} })
		var wg sync.WaitGroup
		var mu sync.Mutex
		ran := 0
		for i := range 16 {
			wg.Go(func() {
				if create(fmt.Sprint("like ", i)) == nil {
					mu.Lock()
					ran++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if ran != 4 {
			t.Errorf("%d ran, want 4", ran)
		}
		gatewaytest.Must(t, create("a")) // the call itself is still to be made
	})
}

// Two nodes that take calls of the same approvals at once take them in one order, whatever
// the order of the calls: neither waits for the other while that waits for it.
func TestNextCallsAreTakenInOneOrder(t *testing.T) {
	t.Parallel()
	db := sqldbtest.Open(t, sqldb.PostgreSQL) // SQLite has one writer
	s := newScene(t, db)
	handle := s.confirmed(t, policy.Write)
	var series []session.Approval
	for _, title := range []string{"a", "b"} {
		if _, err := s.Call(t, s.bot, handle, "tracker_create_issue", map[string]any{"title": title}); code(err) != "approval_required" {
			t.Fatal(err)
		}
		a := s.asked(t)
		s.Approve(t, s.owner, a.ID, func(d *session.Decision) { d.Like = session.Like{Calls: 2} })
		series = append(series, a)
	}
	slices.SortFunc(series, func(a, b session.Approval) int { return cmp.Compare(a.ID, b.ID) })
	low, high := series[0], series[1]
	answers := make(chan []error, 1)
	gatewaytest.Must(t, db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error { // one node
		use := func(a session.Approval) error {
			_, err := tx.ExecContext(ctx, `update approval_series set used = used + 1 where approval_id = $1`, a.ID)
			return err
		}
		var pid int
		gatewaytest.Must(t, use(low))
		gatewaytest.Must(t, tx.QueryRowContext(ctx, `select pg_backend_pid()`).Scan(&pid))
		go func() { // another
			all := []audit.Fence{session.PermitLike(s.Sessions, high.Session.ID, high.ID), session.PermitLike(s.Sessions, low.Session.ID, low.ID)}
			var refused []error
			_ = db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
				refused = all[0].Check(ctx, tx, all)
				return nil
			})
			answers <- refused
		}()
		for waits := false; !waits; {
			const waiting = `select exists (select 1 from pg_locks where not granted and $1 = any(pg_blocking_pids(pid))) from pg_sleep(0.02)`
			gatewaytest.Must(t, db.Reader().QueryRowContext(ctx, waiting, pid).Scan(&waits))
		}
		_, err := tx.ExecContext(ctx, `set local lock_timeout = '500ms'`)
		gatewaytest.Must(t, err)
		if err := use(high); err != nil {
			return fmt.Errorf("they wait for each other: %v", err)
		}
		return nil
	}))
	for i, err := range <-answers {
		if err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

// A8, S14: a person's no to just this call stands in the session and all that was handed
// on of it, whatever calls like it were allowed, until a person says yes to just this call.
func TestNextCallsNeverMakeADeniedOne(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		r := s.Ask(t, s.bot, "tracker", policy.Write)
		s.Approve(t, s.owner, r.Session.Approval, func(d *session.Decision) { d.Confirm, d.HandOn = policy.ConfirmWrite, true })
		create := func(title string) error {
			_, err := s.Call(t, s.bot, r.Handle, "tracker_create_issue", map[string]any{"title": title})
			return err
		}
		if err := create("no"); code(err) != "approval_required" {
			t.Fatal(err)
		}
		gatewaytest.Must(t, s.Sessions.Deny(t.Context(), s.owner.Signed(t), s.asked(t).ID, "Not this."))
		s.Clock.Advance(5 * time.Minute)
		allow := func(title string) {
			t.Helper()
			if err := create(title); code(err) != "approval_required" {
				t.Fatalf("%s: got %v", title, err)
			}
			s.Approve(t, s.owner, s.asked(t).ID, func(d *session.Decision) { d.Like = session.Like{Calls: 9, Differ: []string{"title"}} })
			gatewaytest.Must(t, create(title))
		}
		allow("one")
		gatewaytest.Must(t, create("two"))
		if err := create("no"); code(err) != "approval_required" {
			t.Fatalf("the denied call, minutes later: got %v, want a person to be asked", err)
		}
		gatewaytest.Must(t, s.Sessions.Deny(t.Context(), s.owner.Signed(t), s.asked(t).ID, "Still not."))
		if err := create("no"); code(err) != "denied" {
			t.Errorf("at once after it was denied: got %v, want denied", err)
		}
		gatewaytest.Must(t, create("three"))

		// A denial in a sub-agent's session counts in its parent's, and the other way round.
		s.Clock.Advance(5 * time.Minute)
		who, _, err := s.handOn(t, r.Handle, session.HandOn{})
		gatewaytest.Must(t, err)
		sub := func(title string) error {
			_, err := s.Call(t, who, "", "tracker_create_issue", map[string]any{"title": title})
			return err
		}
		if err := sub("four"); code(err) != "approval_required" {
			t.Fatal(err)
		}
		gatewaytest.Must(t, s.Sessions.Deny(t.Context(), s.owner.Signed(t), s.asked(t).ID, ""))
		if err := create("four"); code(err) != "denied" {
			t.Errorf("denied to a sub-agent: got %v, want denied", err)
		}
		// A later yes to just this call is the last word.
		s.Clock.Advance(5 * time.Minute)
		if err := create("no"); code(err) != "approval_required" {
			t.Fatal(err)
		}
		s.Approve(t, s.owner, s.asked(t).ID, nil)
		gatewaytest.Must(t, create("no"))
		gatewaytest.Must(t, create("no"))
	})
}

// A1, A8: of a call in the words of HTTP only the body may be different. Where it goes, in
// what way, and how its body is read stay as they were shown, also in a forged form.
func TestNextCallsOfHTTPDifferInTheBodyOnly(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		handle := s.confirmed(t, policy.Write)
		post := func(path string, body, query map[string]any) error {
			args := map[string]any{"method": "POST", "path": path, "body": body}
			if query != nil {
				args["query"] = query
			}
			_, err := s.Call(t, s.bot, handle, "tracker_write", args)
			return err
		}
		one := map[string]any{"title": "One"}
		if err := post("/issues", one, map[string]any{"a": "b"}); code(err) != "approval_required" {
			t.Fatal(err)
		}
		a := s.asked(t)
		if got := strings.Join(a.Call.MayDiffer(), " "); !a.Repeats() || got != "body" {
			t.Errorf("may differ: %q", got)
		}
		for _, name := range []string{"path", "method", "query", "base", "header", "body_type", "body_sha256"} {
			if err := s.TryApprove(t, s.owner, a.ID, func(d *session.Decision) { d.Like = session.Like{Calls: 1, Differ: []string{name}} }); code(err) != "invalid_decision" {
				t.Errorf("%s: got %v, want invalid_decision", name, err)
			}
		}
		s.Approve(t, s.owner, a.ID, func(d *session.Decision) { d.Like = session.Like{Calls: 5, Differ: []string{"body"}} })
		gatewaytest.Must(t, post("/issues", map[string]any{"title": "Two"}, map[string]any{"a": "b"}))
		for why, err := range map[string]error{"another path": post("/issues/1/comments", one, map[string]any{"a": "b"}), "another query": post("/issues", one, nil)} {
			if code(err) != "approval_required" {
				t.Errorf("%s: got %v, want approval_required", why, err)
			}
		}
	})
}
