package web_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// A request whose only account is disconnected says so and offers nothing to
// decide; the inbox does not show it (rule 7).
func TestRequestWithoutItsAccount(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	r := s.Ask(t, s.bot, "tracker")
	form := fields(s.mia.get(s.page(r)).form(s.page(r) + "/approve"))
	if _, err := s.Credentials.Disconnect(t.Context(), s.System.In(s.Environment), s.conn.ID); err != nil {
		t.Fatal(err)
	}
	s.mia.get(s.page(r)).want(http.StatusOK).says("Withdrawn", s.conn.AccountLabel+" was disconnected", "Nothing was granted").not("<form class=\"decide\"")
	s.mia.get("/ui/").says("Nothing waits for you")
	s.mia.post(s.page(r)+"/approve", form).want(http.StatusConflict).says("was withdrawn meanwhile")
	s.mia.get("/ui/sessions/"+string(r.Session.ID)).says("was disconnected", "It cannot be granted")
}

// With other accounts left, the lost one is named, cannot be ticked and is out
// of the sentence that the person decides on.
func TestRequestWithALostAccount(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	s.KeyProvider(t, "other")
	s.mia.get("/ui/connections/new?provider=other").submit("/ui/connections", func(v url.Values) { v.Set("key.api_key", gatewaytest.SandboxKey) }).want(http.StatusOK)
	r, err := s.Sessions.Request(t.Context(), s.bot, session.Ask{Providers: []string{"tracker", "other"}, Purpose: "Compare."}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Credentials.Disconnect(t.Context(), s.System.In(s.Environment), s.conn.ID); err != nil {
		t.Fatal(err)
	}
	page := s.mia.get(s.page(r)).want(http.StatusOK).says("This account was disconnected after the agent asked. It cannot be granted.")
	if asks := page.text("h1"); strings.Count(asks, "·") != 1 {
		t.Errorf("the sentence is %q, want the account that is left alone", asks)
	}
	if v := fields(page.form(s.page(r) + "/approve")); len(v["effect."+string(s.conn.ID)]) != 0 {
		t.Errorf("the lost account can be ticked: %v", v)
	}
	page.submit(s.page(r)+"/approve", nil).follow().says("Approved")
	got, err := s.Sessions.Check(t.Context(), s.bot, r.Handle, 0)
	if err != nil || len(got.Grants) != 1 || got.Grants[0].Connection == s.conn.ID {
		t.Errorf("granted %+v, %v, want the account that is left", got.Grants, err)
	}
}

// A request that waits is withdrawn with its agent, and says why.
func TestRequestOfADisabledAgent(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	r := s.Ask(t, s.bot, "tracker")
	s.mia.post("/ui/agents/"+string(s.bot.Agent())+"/disable", url.Values{}).want(http.StatusSeeOther)
	s.mia.get(s.page(r)).says("Withdrawn", "The agent was disabled").not("<form class=\"decide\"")
	s.mia.get("/ui/").says("Nothing waits for you")
}

// Calls of one agent on one account used to look alike in the inbox.
func TestInboxTellsCallsApart(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		handle := s.active(t, policy.Read, policy.Destructive)
		for n := range 2 {
			if _, err := s.Call(t, s.bot, handle, "tracker_delete_issue", map[string]any{"number": n + 1}); err == nil {
				t.Fatal("the call ran without an approval")
			}
		}
		s.mia.get("/ui/").says("/issues/1", "/issues/2", "DELETE", "Can delete")
	})
}

// What a person is told about a session that is not there is not what an agent
// is told.
func TestNoSuchSessionSpeaksToAPerson(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "mia@example.com", account.RoleMember)
	b.get("/ui/sessions/"+string(id.NewSession())).want(http.StatusNotFound).says("No such session.", "It may belong to somebody else").not("request_session", "handle")
}

// Alarms about the server itself belong to no environment, so that nobody saw
// them: the owners of the organization that runs an environment do.
func TestServerAlarmsAreShownToOwners(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := siteOn(t, db)
		owner, admin := s.person(t, "owner@example.com", account.RoleOwner), s.person(t, "admin@example.com", account.RoleAdmin)
		if err := s.Audit.Record(t.Context(), audit.Entry{Actor: audit.Actor{Kind: "system", ID: "vault"}, Action: "key.unusable", Object: "file", Code: "root_key_mismatch"}); err != nil {
			t.Fatal(err)
		}
		owner.get("/ui/audit").says("what happened to the server itself", "key.unusable", "root_key_mismatch", "Server (vault)")
		owner.get("/ui/audit?action=server.*").says("server.started") // a bug: starts, backups and restores were shown to nobody
		owner.get("/ui/audit?action=key.*").says("key.unusable").not("passkey.registered")
		owner.get("/ui/audit?action=connection.*").not("key.unusable")
		admin.get("/ui/audit").says("Everything that happened in this environment").not("key.unusable", "server.started", "the server itself")
		// Pages end where they should, in order, and lose nothing.
		for i := range 60 {
			env := s.Environment
			if i%3 == 0 {
				env = ""
			}
			if err := s.Audit.Record(t.Context(), audit.Entry{Environment: env, Actor: audit.Actor{Kind: "system", ID: "vault"}, Action: "key.unreachable", Object: fmt.Sprintf("entry%02d", i), Code: "x"}); err != nil {
				t.Fatal(err)
			}
		}
		seen := map[string]bool{}
		for after, pages := "", 0; pages < 9; pages++ {
			list, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Server: true, Action: "key.unreachable", Limit: 7, After: after})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range list.Records {
				if seen[r.Object] {
					t.Errorf("%s is on two pages", r.Object)
				}
				seen[r.Object] = true
			}
			if after = list.Next; after == "" {
				break
			}
		}
		if len(seen) != 60 {
			t.Errorf("%d entries on all pages, want 60", len(seen))
		}
	})
}
