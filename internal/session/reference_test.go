package session_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Issue 6: the defects of the reference (workos.md §3.6) that are about a grant and
// what it was given for. 3 is held by gateway.TestOnlyOurHeadersGoOut, 7 by
// gateway.TestRule6DestinationBinding, 9 by gateway.TestRule1NoRawCredentialToAnAgent
// and mcpserver.TestAnswers.
func TestDefectsOfTheReference(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		ctx := t.Context()

		// workos.md §3.6, 6: who signed in has nothing yet, and gets nothing unnamed.
		mine := account.ByPerson(s.owner.Signed(t)).In(s.Environment)
		if all, _, err := s.Sessions.List(ctx, mine, session.Filter{Organization: s.Organization, Agent: s.bot.Agent()}); err != nil || len(all) != 0 {
			t.Errorf("6: an agent that was just let in has %d sessions, %v", len(all), err)
		}
		if _, err := s.Call(t, s.bot, "", "tracker_list_issues", nil); code(err) != "approval_required" {
			t.Errorf("6: a call of an agent that was just let in: got %v, want approval_required", err)
		}
		if _, err := s.Sessions.Request(ctx, s.bot, session.Ask{Effects: []policy.Effect{policy.Read}, Purpose: "Anything."}, "127.0.0.1"); err == nil {
			t.Error("6: a request without providers was taken")
		}

		handle := s.Active(t, s.owner, s.bot, "tracker", policy.Read, policy.Write, policy.Destructive)
		send := func(path, body string) string {
			t.Helper()
			u, err := url.Parse(s.Sandbox.URL + path)
			gatewaytest.Must(t, err)
			r := gateway.Raw{Identity: s.bot, Handle: handle, Method: http.MethodDelete, URL: u, Header: http.Header{}, Door: "relay", Address: "127.0.0.1"}
			if body != "" {
				r.Body, r.Length = strings.NewReader(body), int64(len(body))
				r.Header.Set("Content-Type", "application/json")
			}
			x, err := s.Gateway.Exchange(ctx, r)
			if err != nil {
				return code(err)
			}
			defer x.Close()
			_, err = io.Copy(io.Discard, x)
			gatewaytest.Must(t, err)
			return ""
		}
		invoke := func(args string) string {
			_, err := s.Gateway.Invoke(ctx, gateway.Call{Identity: s.bot, Handle: handle, Tool: "tracker_destroy", Arguments: json.RawMessage(args), Address: "127.0.0.1"})
			return code(err)
		}
		// approve lets the person decide on the one call that waits, and gives what they see.
		approve := func() string {
			t.Helper()
			inbox, err := s.Sessions.Inbox(ctx, s.owner.Signed(t))
			gatewaytest.Must(t, err)
			inbox = slices.DeleteFunc(inbox, func(a session.Approval) bool { return a.Call == nil })
			if len(inbox) != 1 {
				t.Fatalf("%d calls wait for a decision, want one", len(inbox))
			}
			s.Approve(t, s.owner, inbox[0].ID, nil)
			return fmt.Sprint(inbox[0].Call.Fields)
		}
		deny := func() {
			t.Helper()
			inbox, err := s.Sessions.Inbox(ctx, s.owner.Signed(t))
			gatewaytest.Must(t, err)
			for _, a := range inbox {
				gatewaytest.Must(t, s.Sessions.Deny(ctx, s.owner.Signed(t), a.ID, ""))
			}
			s.Clock.Advance(5 * time.Minute) // past the pause after a denial
		}
		expect := func(what, got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("%s: got %q, want %q", what, got, want)
			}
		}

		expect("a request without a body", send("/things/1", ""), "approval_required")
		approve()
		expect("1: a body where none was approved", send("/things/1", `{"all":true}`), "approval_required")
		deny()
		expect("5: what was approved, after what was not", send("/things/1", ""), "")

		expect("a request with a body", send("/things/2", `{"why":"spam-of-mallory"}`), "approval_required")
		if seen := approve(); !strings.Contains(seen, "spam-of-mallory") {
			t.Errorf("2: the person decided on %s, which does not tell the body", seen)
		}
		expect("1: no body where one was approved", send("/things/2", ""), "approval_required")
		deny()
		expect("the approved body", send("/things/2", `{"why":"spam-of-mallory"}`), "")

		expect("a call", invoke(`{"method":"DELETE","path":"/things/3"}`), "approval_required")
		approve()
		expect("4: the same in another order", invoke(`{"path":"/things/3","method":"DELETE"}`), "")

		// 8: another agent of the same person, let in from the same browser.
		other := s.Agent(t, s.owner, "Another bot")
		_, err := s.Call(t, other, handle, "tracker_list_issues", nil)
		expect("8: the grant of another agent", code(err), "session_not_found")
		_, err = s.Agents.Disable(ctx, s.System, other.Agent())
		gatewaytest.Must(t, err)
		_, err = s.Call(t, s.bot, handle, "tracker_list_issues", nil)
		expect("8: after the other was disabled", code(err), "")

		// 10: the grant is in the database: a process that starts later has it.
		_, err = s.Beside(t, db).Call(t, s.bot, handle, "tracker_list_issues", nil)
		expect("10: at a server that started later", code(err), "")
	})
}
