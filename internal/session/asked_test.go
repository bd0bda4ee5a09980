package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Issue 6, A1: whoever is to bring a request before a person is told of each once, in
// the transaction that makes it, without the agent's own words and without what a call
// would send. What cannot be told is not asked.
func TestRequestsAreTold(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		var mu sync.Mutex
		var told []session.Asked
		var fail error
		s.OnAsked = func(_ context.Context, _ *sqldb.Tx, a session.Asked) error {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, a)
			return fail
		}
		r := s.Ask(t, s.bot, "tracker", policy.Read, policy.Destructive)
		s.Ask(t, s.bot, "tracker", policy.Read, policy.Destructive) // the same, which nobody is told of again
		if len(told) != 1 || told[0].Approval != r.Session.Approval || told[0].Kind != session.KindSession || told[0].Minutes != 30 || told[0].URL != r.ApprovalURL || told[0].ID == "" {
			t.Fatalf("told %+v, want the one request", told)
		}
		s.Approve(t, s.owner, r.Session.Approval, nil)
		for range 2 {
			if _, err := s.Call(t, s.bot, r.Handle, "tracker_delete_issue", map[string]any{"number": 4711}); code(err) != "approval_required" {
				t.Fatalf("got %v, want approval_required", err)
			}
		}
		if len(told) != 2 || told[1].Kind != session.KindCall || told[1].Tool != "tracker_delete_issue" || told[1].Effects[0] != policy.Destructive {
			t.Fatalf("told %+v, want the call once", told)
		}
		for _, a := range told {
			doc, err := json.Marshal(a.Data())
			if err != nil || strings.Contains(string(doc), "Look after") || strings.Contains(string(doc), "4711") {
				t.Errorf("told %s, %v, with the agent's words or what it would send", doc, err)
			}
		}
		fail = errors.New("nobody can be told")
		_, err := s.Sessions.Request(t.Context(), s.bot, session.Ask{Providers: []string{"tracker"}, Purpose: "More."}, "")
		if inbox, ierr := s.Sessions.Inbox(t.Context(), s.owner.Signed(t)); err == nil || ierr != nil || len(inbox) != 1 {
			t.Errorf("what could not be told: %v; %d requests are open, want the call alone", err, len(inbox))
		}
	})
}
