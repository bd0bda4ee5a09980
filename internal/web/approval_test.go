package web_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// scene is a person with a browser, a connected account and an agent.
type scene struct {
	*site
	mia  *browser
	bot  agent.Identity
	conn connection.Connection
}

func newScene(t *testing.T, db *sqldb.DB) scene {
	t.Helper()
	return sceneOf(t, siteOn(t, db))
}

func sceneOf(t *testing.T, on *site) scene {
	t.Helper()
	s := scene{site: on}
	s.KeyProvider(t, "tracker")
	s.mia = s.person(t, "mia@example.com", account.RoleOwner)
	s.mia.get("/ui/connections/new?provider=tracker").submit("/ui/connections", func(v url.Values) { v.Set("key.api_key", gatewaytest.SandboxKey) }).want(http.StatusOK).says("Connected")
	list, err := s.Connections.List(t.Context(), account.ByPerson(s.mia.Person).In(s.Environment), connection.Filter{Organization: s.Organization})
	if err != nil || len(list.Connections) != 1 {
		t.Fatalf("got %+v, %v, want one connection", list, err)
	}
	s.conn = list.Connections[0]
	s.bot = s.consented(t, s.mia, "Triage bot")
	return s
}

// consented is an agent whose client the person let in through the page.
func (s *site) consented(t *testing.T, b *browser, label string) agent.Identity {
	t.Helper()
	auth := s.Client(t, agent.AuthNone)
	caller := s.Caller(t, auth)
	verifier, challenge := agenttest.PKCE()
	page := "/ui/consent/" + string(s.World.World.Begin(t, caller.Client(), challenge))
	done := b.get(page).want(http.StatusOK).submit(page, func(v url.Values) { v.Set("label", label) }).want(http.StatusOK)
	back, err := url.Parse(done.link("Back to the program"))
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := s.Agents.Exchange(t.Context(), caller, agent.CodeGrant{Code: secret.FromString(back.Query().Get("code")), RedirectURI: agenttest.Redirect, Verifier: verifier})
	if err != nil {
		t.Fatal(err)
	}
	who, err := s.Agents.Authenticate(t.Context(), tokens.Access)
	if err != nil {
		t.Fatal(err)
	}
	return who
}

func sceneOnSQLite(t *testing.T) scene { return newScene(t, sqldbtest.Open(t, sqldb.SQLite)) }

func (s scene) page(r session.Requested) string { return "/ui/approvals/" + string(r.Session.Approval) }

func TestApproveNarrowed(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		// A bug: after a narrower approval the page said that the agent had asked for what was left.
		r := s.Ask(t, s.bot, "tracker", policy.Read, policy.Write)
		s.mia.get("/ui/").want(http.StatusOK).says("Triage bot wants to read and change data")
		page := s.mia.get(s.page(r)).want(http.StatusOK).says("Triage bot wants to read and change data in", "for 30 minutes", "The agent says (not checked by Ambit)", "Look after the issues.")
		done := page.submit(s.page(r)+"/approve", func(v url.Values) {
			v["effect."+string(s.conn.ID)] = []string{"read"}
			v.Set("minutes", "5")
			v.Set("confirm", "write")
			v.Set("instructions", "Only the open ones.\r\nPlease.")
		}).follow().says("Approved", "You approved this", "Only the open ones.", "Triage bot was allowed to read data", "for 5 minutes")
		if strings.Contains(done.body, "<form class=\"decide\"") {
			t.Error("a decided request can be decided again")
		}
		got, err := s.Sessions.Check(t.Context(), s.bot, r.Handle, 0)
		if err != nil {
			t.Fatal(err)
		}
		g := got.Grants[0]
		if got.State != session.Active || got.Minutes != 5 || len(g.Effects) != 1 || g.Effects[0] != policy.Read || g.Confirm != policy.ConfirmWrite || got.Instructions != "Only the open ones.\nPlease." {
			t.Errorf("got %+v, want what was narrowed to", got)
		}
		for _, tool := range g.Tools {
			if tool.Effect != policy.Read {
				t.Errorf("the tool %s came along", tool.Name)
			}
		}
		s.mia.post(s.page(r)+"/approve", fields(page.form(s.page(r)+"/approve"))).want(http.StatusConflict).says("already been decided")
		s.mia.post(s.page(r)+"/deny", url.Values{}).want(http.StatusConflict)
	})
}

// Rule 4, A6: an approval is a proof over exactly the decision that is sent;
// the cookie alone, or a proof over another decision, approves nothing.
func TestApprovingTakesAProofOfThatDecision(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	r := s.Ask(t, s.bot, "tracker", policy.Read, policy.Write)
	form := s.mia.get(s.page(r)).form(s.page(r) + "/approve")
	values := func() url.Values { return fields(form) }
	s.mia.post(s.page(r)+"/approve", values()).want(http.StatusUnprocessableEntity).says("needs your passkey")
	for name, change := range map[string]func(url.Values){
		"longer":            func(v url.Values) { v.Set("minutes", "30") },
		"without asking":    func(v url.Values) { v.Set("confirm", "none") },
		"more effects":      func(v url.Values) { v.Add("effect."+string(s.conn.ID), "write") },
		"other words":       func(v url.Values) { v.Set("instructions", "Delete it all.") },
		"one tool less":     func(v url.Values) { v["tool."+string(s.conn.ID)] = v["tool."+string(s.conn.ID)][1:] },
		"of another page":   func(v url.Values) { v.Set("credential", `{"id":"x"}`) },
		"a code as well":    func(v url.Values) { v.Set("credential", ""); v.Set("code", "123456") },
		"no minutes at all": func(v url.Values) { v.Del("minutes") },
	} {
		v := values()
		v.Set("minutes", "15")
		v["effect."+string(s.conn.ID)] = []string{"read"}
		s.mia.prove(s.page(r)+"/challenge", "get", v)
		change(v)
		if d := s.mia.post(s.page(r)+"/approve", v); d.status < 400 || d.status >= 500 {
			t.Errorf("%s: got status %d, want it refused", name, d.status)
		}
	}
	v := values()
	delete(v, "effect."+string(s.conn.ID))
	s.mia.post(s.page(r)+"/challenge", v, "Accept", "application/json").want(http.StatusUnprocessableEntity)
	v = values()
	v.Set("minutes", "31")
	s.mia.post(s.page(r)+"/challenge", v, "Accept", "application/json").want(http.StatusUnprocessableEntity)
	got, err := s.Sessions.Check(t.Context(), s.bot, r.Handle, 0)
	if err != nil || got.State != session.Pending {
		t.Fatalf("got %s, %v, want it still pending", got.State, err)
	}
}

func TestDenyWithAReason(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	r := s.Ask(t, s.bot, "tracker")
	s.mia.post(s.page(r)+"/deny", url.Values{"instructions": {"Not today."}}).follow().says("Denied", "You denied this", "Not today.")
	got, err := s.Sessions.Check(t.Context(), s.bot, r.Handle, 0)
	if err != nil || got.Reason != session.Denied || got.DenyReason != "Not today." {
		t.Errorf("got %+v, %v, want it denied with the reason", got, err)
	}
	s.mia.get("/ui/").says("Nothing waits for you")
}

// A12: the link carries no authority. Anybody else sees what they would see for
// a request that does not exist.
func TestForeignRequestsDoNotExist(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	r := s.Ask(t, s.bot, "tracker")
	for _, role := range []account.Role{account.RoleAdmin, account.RoleApprover, account.RoleMember, account.RoleAuditor} {
		b := s.person(t, string(role)+"@example.com", role)
		b.get("/ui/").says("Nothing waits for you")
		unknown := b.get("/ui/approvals/apr_01jd0000000000000000000000").want(http.StatusNotFound)
		foreign := b.get(s.page(r)).want(http.StatusNotFound).not("Triage bot", "Look after")
		if unknown.text("h1") != foreign.text("h1") || paragraphs(unknown) != paragraphs(foreign) {
			t.Errorf("%s: a foreign request answers %q, an unknown one %q", role, paragraphs(foreign), paragraphs(unknown))
		}
		b.post(s.page(r)+"/challenge", url.Values{}).want(http.StatusNotFound)
		b.post(s.page(r)+"/approve", url.Values{}).want(http.StatusNotFound)
		b.post(s.page(r)+"/deny", url.Values{}).want(http.StatusNotFound)
	}
	s.open(t).get(s.page(r)).want(http.StatusSeeOther).to("/ui/signin?next=%2Fui%2Fapprovals%2F")
}

func paragraphs(d *doc) string {
	var out []string
	for n := range d.root.Descendants() {
		if n.Data == "p" {
			out = append(out, textOf(n))
		}
	}
	return strings.Join(out, "|")
}

// The expired and the withdrawn say so, and offer nothing.
func TestLateDecisions(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	r := s.Ask(t, s.bot, "tracker")
	form := fields(s.mia.get(s.page(r)).form(s.page(r) + "/approve"))
	s.Clock.Advance(16 * time.Minute)
	s.mia.get(s.page(r)).want(http.StatusOK).says("Expired", "Nothing was granted").not("data-begin")
	s.mia.post(s.page(r)+"/approve", form).want(http.StatusGone).says("expired")
	s.mia.post(s.page(r)+"/deny", form).want(http.StatusGone)

	r = s.Ask(t, s.bot, "tracker", policy.Read, policy.Write)
	if _, err := s.Sessions.Complete(t.Context(), s.bot, r.Handle); err != nil {
		t.Fatal(err)
	}
	s.mia.get(s.page(r)).says("Withdrawn").not("data-begin")
}

// §5.5: one call, exactly as it will be sent, once.
func TestApproveOneCall(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	handle := s.active(t, policy.Read, policy.Destructive)
	_, err := s.Call(t, s.bot, handle, "tracker_delete_issue", map[string]any{"number": 1})
	call := approvalOf(t, err)
	page := s.mia.get(call).want(http.StatusOK).says("Triage bot wants to run", "once", "DELETE", "It can delete things", "Approves this one call, once")
	const words = "Only number 1,\r\nit is a duplicate.\u202e"
	page.submit(call+"/approve", func(v url.Values) { v.Set("instructions", words) }).follow().says("Approved", "this one call, once", "You told the agent", "it is a duplicate.")
	if r, err := s.Call(t, s.bot, handle, "tracker_delete_issue", map[string]any{"number": 1}); err != nil || r.Note != "Only number 1,\nit is a duplicate." {
		t.Fatalf("the approved call: %q, %v", r.Note, err)
	}
	s.mia.get(call).says("Approved and used", "cannot be made again")
	s.mia.get("/ui/sessions").says("Triage bot").not("Nothing")
	sid := s.mia.get("/ui/sessions").link("Triage bot")
	s.mia.get(sid).says("can read and delete data", "tracker_delete_issue", "approval_required", "Told the agent: Only number 1,", "Approved and used")
	for range 100 { // outcomes are written in batches
		if strings.Contains(s.mia.get(sid).text("main"), "Done") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the call's outcome never appeared")
}

// Issue 2: a call shows as running while it runs, and one whose server stopped says
// so.
func TestCallOfAStoppedServer(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	handle := s.active(t, policy.Read)
	ses, err := s.Sessions.Check(t.Context(), s.bot, handle, 0)
	if err != nil {
		t.Fatal(err)
	}
	other := s.Beside(t, s.DB)
	_, err = other.Audit.Begin(t.Context(), audit.Entry{Environment: s.Environment, Organization: s.Organization, Actor: audit.Actor{Kind: "agent", ID: string(s.bot.Agent())},
		Agent: s.bot.Agent(), User: s.mia.User(), Session: ses.ID, Action: "tool.call", Tool: "tracker_me", Decision: "allow"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	pages := []string{"/ui/audit", "/ui/sessions/" + string(ses.ID)}
	for _, page := range pages {
		s.mia.get(page).says("tracker_me", "Running").not("server stopped")
	}
	other.Audit.Stop()
	for range 200 { // another log of this process may be at it
		if err := s.Audit.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		if open, err := s.Audit.Unfinished(t.Context(), s.DB.Reader(), ses.ID); err != nil || len(open) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, page := range pages {
		s.mia.get(page).says("tracker_me", "Outcome unknown", "the server stopped while it ran").not("Running")
	}
	s.mia.get("/ui/audit").says("Settled by", "Nobody knows whether it took effect")
}

func (s scene) active(t *testing.T, effects ...policy.Effect) string {
	t.Helper()
	r := s.Ask(t, s.bot, "tracker", effects...)
	s.mia.get(s.page(r)).submit(s.page(r)+"/approve", nil).want(http.StatusSeeOther)
	return r.Handle
}

func TestRevokeASession(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	handle := s.active(t, policy.Read)
	page := s.mia.get("/ui/sessions").says("Triage bot", "left", "Active").link("Triage bot")
	s.mia.get(page).submit(page+"/revoke", nil).want(http.StatusOK).says("1 session of Triage bot ended", "Nothing was interrupted")
	if _, err := s.Call(t, s.bot, handle, "tracker_list_issues", nil); err == nil {
		t.Error("a call went through after the revoke")
	}
	s.mia.get(page).says("Revoked").not("popovertarget=\"revoke\"")
	s.mia.get("/ui/sessions?state=ended").says("Revoked")
	other := s.person(t, "other@example.com", account.RoleMember)
	other.get(page).want(http.StatusNotFound)
	other.post(page+"/revoke", url.Values{}).want(http.StatusNotFound)
}

// The live inbox: what is asked appears, what is answered goes, and signing out
// ends it.
func TestLiveInbox(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		news := s.mia.live()
		next := func() (n struct {
			Count int
			Items []map[string]any
		}) {
			t.Helper()
			select {
			case data, ok := <-news:
				if !ok {
					t.Fatal("the stream ended")
				}
				if err := json.Unmarshal([]byte(data), &n); err != nil {
					t.Fatal(err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("no news")
			}
			return n
		}
		if n := next(); n.Count != 0 {
			t.Fatalf("at first: got %d, want 0", n.Count)
		}
		r := s.Ask(t, s.bot, "tracker")
		n := next()
		if n.Count != 1 || n.Items[0]["id"] != string(r.Session.Approval) || n.Items[0]["agent"] != "Triage bot" || n.Items[0]["verbs"] != "read data" {
			t.Errorf("after a request: got %+v", n)
		}
		if !strings.Contains(s.mia.get("/ui/sessions").text("title"), "(1)") {
			t.Error("the title does not count the request")
		}
		s.mia.post(s.page(r)+"/deny", url.Values{})
		if n := next(); n.Count != 0 {
			t.Errorf("after the answer: got %d, want 0", n.Count)
		}
		s.mia.get("/ui/").submit("/ui/signout", nil)
		s.Pages.Stop()
		select {
		case _, ok := <-news:
			if ok {
				t.Error("news after the sign-out")
			}
		case <-time.After(10 * time.Second):
			t.Error("the stream did not end")
		}
	})
}

func approvalOf(t *testing.T, err error) string {
	t.Helper()
	u, perr := url.Parse(fieldOf(err, "approval_url"))
	if perr != nil || u.Path == "" {
		t.Fatalf("got %v, want an approval to be asked for", err)
	}
	return u.Path
}

// The page works without script: the decision with a code of an authenticator
// app is an ordinary form, unless the organization demands passkeys.
func TestApproveByCode(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	page := s.mia.get("/ui/account/authenticator").submit("/ui/account/authenticator", nil).want(http.StatusOK)
	seed := strings.ReplaceAll(page.text("code"), " ", "")
	code := func() string {
		s.Clock.Advance(time.Minute) // each code works once
		c, err := totp.GenerateCode(seed, s.Clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	page.submit("/ui/account/authenticator/confirm", func(v url.Values) { v.Set("code", code()) })
	decide := func(r session.Requested, code string) *doc {
		v := fields(s.mia.get(s.page(r)).form(s.page(r) + "/approve"))
		v.Set("code", code)
		return s.mia.post(s.page(r)+"/approve", v)
	}
	r := s.Ask(t, s.bot, "tracker")
	s.mia.get(s.page(r)).says("Use a code instead")
	decide(r, "000000").want(http.StatusForbidden).says("The code was not accepted", "Triage bot wants to")
	decide(r, code()).follow().says("Approved")

	s.mia.get("/ui/organization").submit("/ui/organization/settings", func(v url.Values) { v.Set("require_passkey", "yes") }).want(http.StatusSeeOther)
	r = s.Ask(t, s.bot, "tracker")
	if text := s.mia.get(s.page(r)).text("main"); strings.Contains(text, "authenticator code") {
		t.Error("a code is offered where passkeys are demanded")
	}
	decide(r, code()).want(http.StatusForbidden).says("demands a passkey")
}

// Issue 5: a person who decides reads which tools nobody has tried with the
// provider itself, where its record says how sure it is.
func TestUntriedToolsAreMarked(t *testing.T) {
	t.Parallel()
	s := newScene(t, sqldbtest.Open(t, sqldb.SQLite))
	record := strings.Replace(sandbox.KeyRecord(s.Sandbox.URL), "id: sandbox_key", "id: fresh\nabout: {confidence: medium}", 1)
	s.Put(t, strings.Replace(record, "    effect: read\n", "    effect: read\n    tried: \"2026-11-28\"\n", 1))
	s.mia.get("/ui/connections/new?provider=fresh").submit("/ui/connections", func(v url.Values) { v.Set("key.api_key", gatewaytest.SandboxKey) }).want(http.StatusOK).says("Connected")
	page := func(slug string) int {
		return strings.Count(s.mia.get(s.page(s.Ask(t, s.bot, slug, policy.Read))).want(http.StatusOK).body, "not yet tried live")
	}
	if n := page("tracker"); n != 0 {
		t.Errorf("a record that says nothing of it marks %d tools", n)
	}
	tools := strings.Count(record, "effect: read\n")
	if n := page("fresh"); n != tools-1 || n == 0 {
		t.Errorf("%d tools of %d are marked, want all but the one that was tried", n, tools)
	}
}
