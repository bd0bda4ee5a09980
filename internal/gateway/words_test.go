package gateway_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// remove calls the tool that needs an approval for each call.
func (s scene) remove(t *testing.T, w *gatewaytest.World, number int) (note string, f *fault.Error) {
	t.Helper()
	r, err := w.Call(t, s.bot, s.handle, "tracker_delete_issue", map[string]any{"number": number})
	return r.Note, fault.Of(err)
}

// asked makes a call that needs an approval and gives the request for it.
func (s scene) asked(t *testing.T, number int) id.Approval {
	t.Helper()
	_, f := s.remove(t, s.World, number)
	if f == nil || f.Code != "approval_required" || !strings.Contains(f.Hint, "check_session") {
		t.Fatalf("got %v, want approval_required and a hint at check_session", f)
	}
	return id.Approval(f.Fields["request_id"])
}

// Issue 2, product.md rule 5: an agent waits for the approval of a call without
// repeating the call, on whichever node it asks, and what the person wrote
// reaches it with the decision and with the answer. The words are part of what
// was signed, and hold nothing that the person could not see.
func TestApproversWordsReachTheAgent(t *testing.T) {
	t.Parallel()
	eachCluster(t, func(t *testing.T, db *sqldb.DB, another func() *sqldb.DB) {
		s := newScene(t, db)
		other := s.Beside(t, another())
		const written = "  Only this one.\r\nIt is a dup\u202elicate.\U000E0041\x00 \u2764\uFE0F "
		const meant = "Only this one.\nIt is a duplicate. \u2764\uFE0F"
		request := s.asked(t, 1)
		type result struct {
			session.CallRequest
			err error
		}
		got := make(chan result, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // less than the wait: only a notice can end it
			defer cancel()
			r, err := other.Sessions.CheckCall(ctx, s.bot, s.handle, request, session.MaxWait)
			got <- result{r, err}
		}()
		time.Sleep(50 * time.Millisecond) // most likely it waits by now; if not, it finds the decision
		// A proof over other words approves nothing.
		me := s.owner.Signed(t)
		digest, err := s.Sessions.Digest(t.Context(), me, request, session.Decision{Instructions: "Do it."})
		gatewaytest.Must(t, err)
		if _, err := s.Sessions.Approve(t.Context(), me, request, session.Decision{Instructions: "Do it all."}, s.owner.Proof(t, digest)); err == nil {
			t.Error("a proof over other words approved the call")
		}
		if err := s.TryApprove(t, s.owner, request, func(d *session.Decision) { d.Instructions = strings.Repeat("x", 2001) }); code(err) != "invalid_decision" {
			t.Errorf("2001 bytes: got %v", err)
		}
		s.Approve(t, s.owner, request, func(d *session.Decision) { d.Instructions = written })
		r := <-got
		if r.err != nil || r.State != session.ApprovalApproved || r.Note != meant || r.Tool != "tracker_delete_issue" || !r.ExpiresAt.After(s.Clock.Now()) {
			t.Errorf("the waiting agent got %+v, %v", r.CallRequest, r.err)
		}
		if note, f := s.remove(t, other, 1); f != nil || note != meant {
			t.Errorf("the approved call: %q, %v, want %q", note, f, meant)
		}
		if r, err := other.Sessions.CheckCall(t.Context(), s.bot, "", request, session.MaxWait); err != nil || r.State != session.ApprovalUsed {
			t.Errorf("after the call: %+v, %v", r, err)
		}
		list, err := s.Sessions.CallRequests(t.Context(), account.ByPerson(me).In(s.Environment), r.Session)
		if err != nil || len(list) != 1 || list[0].Note != meant || list[0].DecidedBy != s.owner.ID || list[0].DecidedAt.IsZero() {
			t.Errorf("the session shows %+v, %v", list, err)
		}

		// An approval without words says nothing, and not the words of another.
		second := s.asked(t, 2)
		s.Approve(t, s.owner, second, nil)
		if note, f := s.remove(t, s.World, 2); f != nil || note != "" {
			t.Errorf("without words: %q, %v", note, f)
		}
		// The approval is used up by a call that fails, so its words come with the
		// failure.
		third := s.asked(t, 3)
		s.Approve(t, s.owner, third, func(d *session.Decision) { d.Instructions = written })
		s.Fault(t, map[string]any{"path": "/issues", "cut": true})
		if _, f := s.remove(t, s.World, 3); f == nil || f.Code != "outcome_unknown" || f.Fields["note"] != meant {
			t.Errorf("a call that was lost: %v with %v", f, f.Fields)
		}
	})
}

func TestWaitingForACallEnds(t *testing.T) {
	t.Parallel()
	eachCluster(t, func(t *testing.T, db *sqldb.DB, another func() *sqldb.DB) {
		s := newScene(t, db)
		other := s.Beside(t, another())
		state := func(request id.Approval, wait time.Duration) session.CallRequest {
			t.Helper()
			r, err := other.Sessions.CheckCall(t.Context(), s.bot, s.handle, request, wait)
			gatewaytest.Must(t, err)
			return r
		}
		denied := s.asked(t, 1)
		if r := state(denied, 0); r.State != session.ApprovalPending || !strings.HasSuffix(r.ApprovalURL, "/ui/approvals/"+string(denied)) {
			t.Errorf("before the decision: %+v", r)
		}
		gatewaytest.Must(t, s.Sessions.Deny(t.Context(), s.owner.Signed(t), denied, "That one is mine."))
		if r := state(denied, session.MaxWait); r.State != session.ApprovalDenied || r.Note != "That one is mine." {
			t.Errorf("denied: %+v", r)
		}
		s.Clock.Advance(2 * time.Minute) // past the back-off after a denial
		unused := s.asked(t, 2)
		s.Approve(t, s.owner, unused, nil)
		undecided := s.asked(t, 3)
		s.Clock.Advance(11 * time.Minute)
		for what, request := range map[string]id.Approval{"approved and not used": unused, "not decided": undecided} {
			if r := state(request, session.MaxWait); r.State != session.ApprovalExpired {
				t.Errorf("%s in time: %+v", what, r)
			}
		}
		withdrawn := s.asked(t, 4)
		_, err := s.Sessions.Complete(t.Context(), s.bot, s.handle)
		gatewaytest.Must(t, err)
		if r := state(withdrawn, session.MaxWait); r.State != session.ApprovalWithdrawn {
			t.Errorf("the session ended: %+v", r)
		}
	})
}

// S3: the id of a request is a name, not a key. To another agent, of the same
// person or not, it is one that was never given out.
func TestForeignRequestLooksUnknown(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		noa := s.Person(t, "noa@example.com", account.RoleMember)
		request := s.asked(t, 1)
		ofSession := s.Ask(t, s.bot, "tracker").Session.Approval
		if ses, err := s.Sessions.CheckRequest(t.Context(), s.bot, ofSession, 0); err != nil || ses.State != session.Pending {
			t.Errorf("the request for a session, by its id: %+v, %v", ses, err)
		}
		sibling := s.Agent(t, s.owner, "Another bot")
		theirs := s.Active(t, s.owner, sibling, "tracker")
		for what, who := range map[string]struct {
			bot    func() (session.CallRequest, error)
			opened func() (session.Session, error)
		}{
			"another agent of the person": {
				func() (session.CallRequest, error) {
					return s.Sessions.CheckCall(t.Context(), sibling, "", request, 0)
				},
				func() (session.Session, error) {
					return s.Sessions.CheckRequest(t.Context(), sibling, ofSession, 0)
				},
			},
			"with a session of its own": {
				func() (session.CallRequest, error) {
					return s.Sessions.CheckCall(t.Context(), sibling, theirs, request, 0)
				},
				func() (session.Session, error) { return s.Sessions.CheckRequest(t.Context(), sibling, request, 0) },
			},
			"another person's agent": {
				func() (session.CallRequest, error) {
					return s.Sessions.CheckCall(t.Context(), s.Agent(t, noa, "Noa's bot"), "", request, 0)
				},
				func() (session.Session, error) {
					return s.Sessions.CheckRequest(t.Context(), s.Agent(t, noa, "Noa's bot"), ofSession, 0)
				},
			},
			"nobody's request": {
				func() (session.CallRequest, error) {
					return s.Sessions.CheckCall(t.Context(), s.bot, "", id.NewApproval(), 0)
				},
				func() (session.Session, error) {
					return s.Sessions.CheckRequest(t.Context(), s.bot, id.NewApproval(), 0)
				},
			},
		} {
			call, cerr := who.bot()
			ses, serr := who.opened()
			for _, err := range []error{cerr, serr} {
				if f := fault.Of(err); f == nil || f.Code != "request_not_found" || f.Kind != fault.NotFound || len(f.Fields) > 0 || f.Error() != "No such request. (request_not_found)" {
					t.Errorf("%s: got %v", what, err)
				}
			}
			if call.ID != "" || ses.ID != "" {
				t.Errorf("%s learned %+v, %+v", what, call, ses)
			}
		}
		// A handle of another session of the agent's own does not fit either.
		if _, err := s.Sessions.CheckCall(t.Context(), s.bot, s.Active(t, s.owner, s.bot, "tracker"), request, 0); code(err) != "request_not_found" {
			t.Errorf("the handle of another session: got %v", err)
		}
	})
}
