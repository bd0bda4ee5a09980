package gateway_test

import (
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Issue 5: a person who decides on a call reads what it is about in the
// provider's words. Ambit asks once, with the connection's credential, on record
// as a read; the agent hears nothing of it. And what a statement can change
// decides over what its tool declares.
func TestCallIsNamedAndJudged(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := scene{logs: &logs{}}
		s.World = gatewaytest.New(t, db)
		record := strings.Replace(sandbox.KeyRecord(s.Sandbox.URL), "id: sandbox_key", "id: named", 1)
		record = strings.Replace(record, "tools:\n", `tools:
  - name: drop_issue
    title: Drop an issue
    description: Deletes an issue.
    effect: destructive
    input: {type: object, required: [number], properties: {number: {type: integer}}}
    request: {method: DELETE, path: "/issues/{number}"}
    target: {tool: get_issue, name: [title]}
  - name: ask
    title: Ask
    description: Runs a statement.
    effect: read
    input: {type: object, required: [statement], properties: {statement: {type: string}}}
    request: {method: POST, path: /issues, body: {title: "{statement}"}}
    classify: {language: sql, dialect: postgres, argument: statement}
`, 1)
		s.Put(t, record)
		s.owner = s.Person(t, "mia@example.com", account.RoleMember)
		s.conn = s.Connect(t, s.owner, "named", false)
		s.bot = s.Agent(t, s.owner, "Triage bot")
		s.handle = s.Active(t, s.owner, s.bot, "named", policy.Read, policy.Write, policy.Destructive)
		waits := func() session.Approval {
			inbox, err := s.Sessions.Inbox(t.Context(), s.owner.Signed(t))
			gatewaytest.Must(t, err)
			if len(inbox) != 1 {
				t.Fatalf("%d requests are open, want one", len(inbox))
			}
			return inbox[0]
		}
		_, err := s.do(t, "named_create_issue", map[string]any{"title": "production-db"})
		gatewaytest.Must(t, err)
		for range 2 { // the second asks for nothing anew
			if _, err := s.do(t, "named_drop_issue", map[string]any{"number": 1}); code(err) != "approval_required" || strings.Contains(err.Error(), "production-db") {
				t.Fatalf("got %v, want approval_required", err)
			}
		}
		title, err := s.do(t, "named_get_issue", map[string]any{"number": 1})
		gatewaytest.Must(t, err)
		a := waits()
		if a.Target == "" || !strings.Contains(string(title.Body), `"`+a.Target+`"`) {
			t.Errorf("the person reads %q of %s", a.Target, title.Body)
		}
		page, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Action: "tool.look_up", Limit: 10})
		gatewaytest.Must(t, err)
		if len(page.Records) != 1 {
			t.Fatalf("%d look-ups are on record, want one", len(page.Records))
		}
		if r := page.Records[0]; r.Tool != "named_get_issue" || r.Effect != "read" || r.Approval != a.ID || r.Connection != s.conn.ID || r.Agent != s.bot.Agent() || r.Actor.Kind != "system" {
			t.Errorf("the look-up is on record as %+v", r.Entry)
		}
		s.approve(t)
		if _, err := s.do(t, "named_drop_issue", map[string]any{"number": 1}); err != nil {
			t.Errorf("the approved call: %v", err)
		}
		// What is not there has no name, and the person can decide all the same.
		if _, err := s.do(t, "named_drop_issue", map[string]any{"number": 4711}); code(err) != "approval_required" {
			t.Fatalf("got %v", err)
		}
		if a := waits(); a.Target != "" {
			t.Errorf("got the name %q of nothing", a.Target)
		}
		s.approve(t)

		if _, err := s.do(t, "named_ask", map[string]any{"statement": "select 1"}); err != nil {
			t.Errorf("a statement that reads: %v", err)
		}
		if _, err := s.do(t, "named_ask", map[string]any{"statement": "drop table t"}); code(err) != "approval_required" {
			t.Errorf("a statement that destroys, by a tool that reads: got %v", err)
		}
		if a := waits(); a.Call.Effect != policy.Destructive || a.Call.Why == "" || !strings.Contains(strings.Join(a.Risk, " "), "DROP") {
			t.Errorf("the person reads %+v, %q", a.Call, a.Risk)
		}
		s.handle = s.Active(t, s.owner, s.bot, "named", policy.Read)
		before := s.Stats(t).Calls
		for _, statement := range []string{"drop table t", "update t set a = 1", "grant a to b", "select evil()"} {
			if _, err := s.do(t, "named_ask", map[string]any{"statement": statement}); code(err) != "not_granted" {
				t.Errorf("%s in a session that reads: got %v", statement, err)
			}
		}
		if after := s.Stats(t).Calls; after != before {
			t.Errorf("%d calls arrived", after-before)
		}
		if r := s.last(t); r.Effect != "destructive" || r.Code != "not_granted" {
			t.Errorf("the refusal is on record as %+v", r.Entry)
		}
	})
}
