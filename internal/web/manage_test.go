package web_test

import (
	"html"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// atSandbox goes on at the provider and gives where it sends the browser back.
func (s *site) atSandbox(t *testing.T, address string) string {
	t.Helper()
	return s.atSandboxAs(t, address, 0, func(url.Values) {})
}

// atSandboxAs is atSandbox with one of its accounts, and with what change makes of
// what is granted.
func (s *site) atSandboxAs(t *testing.T, address string, account int, change func(url.Values)) string {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	b := &browser{t: t, site: s, http: c}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	page := b.do(req).want(http.StatusOK)
	for n := range page.root.Descendants() {
		if n.Data != "form" {
			continue
		}
		if account--; account >= 0 {
			continue
		}
		values := fields(n)
		for c := range n.Descendants() {
			if c.Data == "button" && attr(c, "name") != "" && attr(c, "value") != "deny" {
				values.Set(attr(c, "name"), attr(c, "value"))
				break
			}
		}
		change(values)
		to, err := page.url.Parse(attr(n, "action"))
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, to.String(), strings.NewReader(values.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		back, err := url.Parse(b.do(req).header.Get("Location"))
		if err != nil || back.RawQuery == "" {
			t.Fatalf("the provider sent the browser to %q", back)
		}
		return back.RequestURI()
	}
	t.Fatal("the provider's page has no form")
	return ""
}

func (s *site) connected(t *testing.T, b *browser) []connection.Connection {
	t.Helper()
	list, err := s.Connections.List(t.Context(), account.ByPerson(b.Person).In(s.Environment), connection.Filter{Organization: s.Organization})
	if err != nil {
		t.Fatal(err)
	}
	return list.Connections
}

// O1: what one person began, nobody else can finish, in either direction.
func TestConnectByOAuth(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := siteOn(t, db)
		s.OAuthProvider(t)
		mia, eve := s.person(t, "mia@example.com", account.RoleMember), s.person(t, "eve@example.com", account.RoleMember)
		begin := func() string {
			page := mia.get(mia.get("/ui/connections/new").link("Sandbox")).want(http.StatusOK).submit("/ui/connections", nil).want(http.StatusOK)
			return page.link("Continue to")
		}
		back := s.atSandbox(t, begin())
		eve.get(back).want(http.StatusGone).says("no longer open")
		mia.get(back).want(http.StatusGone) // used up by the attempt
		if n := len(s.connected(t, eve)) + len(s.connected(t, mia)); n != 0 {
			t.Fatalf("%d accounts were connected", n)
		}
		s.open(t).get(s.atSandbox(t, begin())).want(http.StatusSeeOther).to("/ui/signin?next=%2Fui%2Fconnections")

		back = s.atSandbox(t, begin())
		mia.get(back).want(http.StatusOK).says("Connected", "is connected as")
		mia.get(back).want(http.StatusGone)
		eve.get("/ui/connections").says("No account connected yet")
		list := mia.get("/ui/connections").says("Yours", "OAuth", "Connected")
		mia.get(list.link("Reconnect")).want(http.StatusOK).says("Reconnect Sandbox").submit("/ui/connections", nil).want(http.StatusOK).says("Continue to")
		conn := s.connected(t, mia)[0]
		// The page that a refusal names has the provider or the connection picked.
		path := func(page string) string { return strings.TrimPrefix(page, "http://localhost:7420") }
		mia.get(path(s.Connections.ConnectURL(s.Organization, "sandbox"))).want(http.StatusOK).says("Connect Sandbox")
		mia.get(path(s.Connections.ReconnectURL(conn.ID))).want(http.StatusOK).says("Reconnect Sandbox", conn.AccountLabel).submit("/ui/connections", nil).want(http.StatusOK).says("Continue to")
		eve.get(path(s.Connections.ReconnectURL(conn.ID))).want(http.StatusNotFound)
		eve.post("/ui/connections/"+string(conn.ID)+"/disconnect", url.Values{}).want(http.StatusNotFound)
		mia.get("/ui/connections").submit("/ui/connections/"+string(conn.ID)+"/disconnect", nil).want(http.StatusOK).says("is disconnected", "has revoked the access")
		mia.get("/ui/connections").says("No account connected yet")
		// What has ended does not come back: its page makes a new one there.
		mia.get(path(s.Connections.ReconnectURL(conn.ID))).want(http.StatusOK).says("Connect Sandbox").submit("/ui/connections", nil).want(http.StatusOK).says("Continue to")
	})
}

func TestDescribeAProvider(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "owner@example.com", account.RoleOwner)
	page := b.get("/ui/providers/new?template=custom_api_key").want(http.StatusOK)
	fill := func(v url.Values) {
		v.Set("param.id", "weather")
		v.Set("param.name", "Weather: \"today\"")
		v.Set("param.api_base", "https://api.weather.example/v1")
		for name := range v {
			if strings.HasPrefix(name, "param.identity") && v.Get(name) == "" {
				v.Set(name, "/me")
			}
		}
	}
	page.submit("/ui/providers", func(v url.Values) { fill(v); v.Set("param.api_base", "ftp://weather.example") }).want(http.StatusUnprocessableEntity)
	ask := page.submit("/ui/providers", fill).follow().says(`Weather: "today" may be connected. Its keys go to api.weather.example.`, "It has 3 tools")
	b.get("/ui/providers").not("Weather") // a draft is nothing yet
	b.post(ask.url.Path, fields(ask.form(ask.url.Path))).want(http.StatusOK).says("may be connected")
	b.get("/ui/providers").not("Weather")
	b.get(ask.link("Back to the form")).want(http.StatusOK).says("api.weather.example").submit("/ui/providers", nil).follow().submit("", nil)
	b.get(ask.url.Path).want(http.StatusNotFound) // the form that it went back to made another
	b.get("/ui/providers").says("Weather")
	edit := b.get(b.get("/ui/providers").link("Edit")).want(http.StatusOK)
	edit.submit("/ui/providers", func(v url.Values) {
		v.Set("yaml", "id: W\n"+strings.Replace(v.Get("yaml"), "id: weather\n", "", 1)+"\nnonsense: true\n")
	}).want(http.StatusUnprocessableEntity).
		says("Line 1: id \"W\" is not a slug.", "nonsense There is no such field.")
	ask = edit.submit("/ui/providers", func(v url.Values) {
		v.Set("yaml", strings.Replace(v.Get("yaml"), "api.weather.example", "api.elsewhere.example", 1))
	}).follow().
		says(`Weather: "today" changes. Its keys then go to api.elsewhere.example.`, "keep the record they have")
	ask.submit(ask.url.Path, nil).follow().says("Saved")
	b.get("/ui/connections/new?provider=weather").want(http.StatusOK).says("Connect Weather")
	b.get("/ui/connections/new?provider=nowhere").want(http.StatusNotFound)
	member := s.person(t, "member@example.com", account.RoleMember)
	member.get("/ui/providers/new").want(http.StatusForbidden)
	member.get("/ui/providers/catalog?search=zendesk").want(http.StatusOK).says("Zendesk", "not yet tried live").not("/ui/providers/new")
	member.post("/ui/providers", fields(edit.form("/ui/providers"))).want(http.StatusForbidden)
}

// Issue 5, W2: a client at a provider counts once a person has agreed to it with their
// passkey; one for all organizations needs a word on what that means; a member sees
// none. The secret that is replaced counts for as long as was chosen.
func TestClientsOfAProvider(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.OAuthProvider(t)
	b := s.person(t, "owner@example.com", account.RoleOwner)
	page := b.get(b.get("/ui/providers").link("Client")).want(http.StatusOK).says("The environment's client", "/ui/callback/"+string(s.Environment)+"/sandbox/"+string(s.Organization))
	own := func(v url.Values) {
		v.Set("of", "organization")
		v.Set("client_id", "ours-alone")
		v.Set("client_secret", "secret-of-ours-alone")
		v.Del("for")
		v.Del("accept")
		v.Del("overlap")
	}
	ask := page.submit("/ui/providers/sandbox/client", own).follow().says("ours-alone signs people in at Sandbox", "nobody else is signed in with it").not("secret-of-ours-alone")
	b.get("/ui/providers/sandbox/client").says("None yet.")
	ask.submit("", nil)
	b.get("/ui/providers/sandbox/client").says("One secret.", "Remove it").not("secret-of-ours-alone")
	rotate := func(v url.Values) { own(v); v.Set("client_secret", "another-of-ours-alone"); v.Set("overlap", "168") }
	b.get("/ui/providers/sandbox/client").submit("/ui/providers/sandbox/client", rotate).follow().says("counts as well for 168 hours").submit("", nil)
	b.get("/ui/providers/sandbox/client").says("Two secrets count.")
	all := func(v url.Values) {
		v.Set("of", "environment")
		v.Set("client_id", "ambit-test")
		v.Set("client_secret", "")
		v.Set("for", "none")
		v.Set("overlap", "24")
	}
	b.get("/ui/providers/sandbox/client").submit("/ui/providers/sandbox/client", all).follow().says("Nobody is signed in with ambit-test").submit("", nil)
	shared := func(v url.Values) { all(v); v.Set("for", "all"); v.Del("accept") }
	b.get("/ui/providers/sandbox/client").submit("/ui/providers/sandbox/client", shared).want(http.StatusForbidden).says("must be wanted")
	b.get("/ui/providers/sandbox/client").submit("/ui/providers/sandbox/client", func(v url.Values) { shared(v); v.Set("accept", "yes") }).follow().says("It is for all organizations").submit("", nil)
	b.get("/ui/providers/sandbox/client").submit("/ui/providers/sandbox/client/remove", nil)
	b.get("/ui/providers/sandbox/client").says("None yet.")
	member := s.person(t, "member@example.com", account.RoleMember)
	member.get("/ui/providers").not("/client")
	member.get("/ui/providers/sandbox/client").want(http.StatusForbidden)
	member.post("/ui/providers/sandbox/client", fields(page.form("/ui/providers/sandbox/client"))).want(http.StatusForbidden)
}

// T3: an agent's secret is made only with a proof, and shown once.
func TestRegisterAnAgent(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "owner@example.com", account.RoleOwner)
	told := fields(b.get("/ui/agents/new?name=report&kind=autonomous&providers=acme&effect=read").want(http.StatusOK).form("/ui/agents"))
	if told.Get("name") != "report" || told.Get("kind") != "autonomous" || told.Get("providers") != "acme" || strings.Join(told["effect"], " ") != "read" {
		t.Errorf("the page forgot what a command line was told: %v", told)
	}
	page := b.get("/ui/agents/new").want(http.StatusOK)
	told = fields(b.get("/ui/agents/new?name=ci&issuer=https%3A%2F%2Fk8s.example&subject=system:serviceaccount:a:b&claims=team%3Dred").form("/ui/agents"))
	if told.Get("issuer") != "https://k8s.example" || told.Get("subject") != "system:serviceaccount:a:b" || strings.TrimSpace(told.Get("claims")) != "team=red" {
		t.Errorf("the page forgot the workload: %v", told)
	}
	workload := page.submit("/ui/agents", func(v url.Values) {
		v.Set("name", "Pod")
		v.Set("issuer", "https://k8s.example")
		v.Set("subject", "system:serviceaccount:a:b")
		v.Set("keys", agenttest.Set(agenttest.NewSigner(t, "1")))
	}).follow()
	workload.says("Pod", `tokens of https://k8s.example about "system:serviceaccount:a:b"`)
	podAt := b.get("/ui/agents").link("Pod")
	b.get(podAt).confirmed(podAt+"/keys", func(v url.Values) {
		v.Set("subject", "spiffe://a.example/b")
		v.Set("claims", "team=red\r\n\r\n")
		v.Set("keys", agenttest.Set(agenttest.NewSigner(t, "2")))
	}, `Pod will prove itself with tokens of whoever has its trust domain's keys about "spiffe://a.example/b" with team "red", signed by keys`).follow().says("Saved")
	b.get(podAt).submit(podAt+"/keys", func(v url.Values) { v.Set("issuer", "https://k8s.example"); v.Set("claims", "red") }).says("A claim has a name of its own")
	page = b.get("/ui/agents/new").want(http.StatusOK)
	values := fields(page.form("/ui/agents"))
	values.Set("name", "Nightly report")
	b.post("/ui/agents", values).want(http.StatusUnprocessableEntity).says("needs your passkey")
	once := page.submit("/ui/agents", func(v url.Values) { v.Set("name", "Nightly report") }).want(http.StatusOK).says("Copy this now", "amb_cs_")
	client, sec := codeAfter(once, "client_"), codeAfter(once, "amb_cs_")
	if _, err := s.Agents.AuthenticateClient(t.Context(), agent.ClientAuth{ID: client, Secret: secret.FromString(sec)}); err != nil {
		t.Fatalf("the shown secret: %v", err)
	}
	at := b.get("/ui/agents").says("Nightly report").link("Nightly report")
	b.get(at).want(http.StatusOK).not(sec)
	b.get(at).submit(at+"/ceiling", func(v url.Values) { v["effect"] = []string{"read"}; v.Set("providers", "tracker") }).follow().says("Saved")
	b.get(at).confirmed(at+"/ceiling", func(v url.Values) { v["effect"] = []string{"read", "write"} },
		"Nightly report may be granted more: to read and change data, at tracker.", "Until now: to read data, at tracker.").follow().says("Saved")
	rotated := b.get(b.get(at).link("Replace its secret")).submit(at+"/secret", nil).want(http.StatusOK)
	if _, err := s.Agents.AuthenticateClient(t.Context(), agent.ClientAuth{ID: client, Secret: secret.FromString(sec)}); err == nil {
		t.Error("the old secret still works")
	}
	fresh := agent.ClientAuth{ID: client, Secret: secret.FromString(codeAfter(rotated, "amb_cs_"))}
	b.get(at).submit(at+"/disable", nil).follow().says("Disabled")
	if _, err := s.Agents.ClientCredentials(t.Context(), s.Caller(t, fresh), ""); err == nil {
		t.Error("a disabled agent gets a token")
	}
	b.get(at).confirmed(at+"/enable", nil, "Nightly report may sign in and ask for access again.").follow().says("Enabled again")
	member := s.person(t, "member@example.com", account.RoleMember)
	member.get("/ui/agents/new").want(http.StatusForbidden)
	member.post(at+"/ceiling", url.Values{"version": {"1"}, "effect": {"read"}}).want(http.StatusForbidden)
}

// codeAfter finds a value that begins with prefix.
func codeAfter(d *doc, prefix string) string {
	d.b.t.Helper()
	for n := range d.root.Descendants() {
		if n.Data == "code" && strings.HasPrefix(textOf(n), prefix) {
			return textOf(n)
		}
	}
	d.b.t.Fatalf("%s shows nothing that begins with %q", d.url.Path, prefix)
	return ""
}

// A1, G4: at consent a client is what we know of it; what it calls itself stands
// below the decision, and its answer is a link.
func TestConsent(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "mia@example.com", account.RoleMember)
	client := s.Caller(t, s.Client(t, agent.AuthNone)).Client()
	_, challenge := agenttest.PKCE()
	flow := func() string { return "/ui/consent/" + string(s.World.World.Begin(t, client, challenge)) }
	at := flow()
	page := b.get(at).want(http.StatusOK).says("An unverified program on this computer (localhost)", "an identity, not access", "Totally Official Agent")
	if text := page.text("main"); strings.Index(text, "Totally Official Agent") < strings.Index(text, "Deny") {
		t.Error("the client's own name stands before the decision")
	}
	if strings.Contains(page.text("h1"), "Official") {
		t.Error("the client's own name is in the sentence")
	}
	values := fields(page.form(at))
	values.Set("label", "Editor")
	b.post(at, values).want(http.StatusUnprocessableEntity)
	b.prove(at+"/challenge", "get", values)
	values.Set("label", "Something else")
	b.post(at, values).want(http.StatusForbidden)
	done := page.submit(at, func(v url.Values) { v.Set("label", "Editor") }).want(http.StatusOK).says("It may sign in")
	if to := done.link("Back to the program"); !strings.HasPrefix(to, agenttest.Redirect+"?code=") {
		t.Errorf("the link goes to %q", to)
	}
	b.get(at).want(http.StatusNotFound)
	b.get("/ui/agents").says("Editor")

	at = flow()
	refused := b.post(at+"/deny", fields(b.get(at).form(at))).want(http.StatusOK)
	if to := refused.link("Tell the program"); !strings.Contains(to, "error=access_denied") {
		t.Errorf("the link goes to %q", to)
	}
	b.get(at).want(http.StatusNotFound)
	b.get("/ui/consent/flow_01jd0000000000000000000000").want(http.StatusNotFound)
}

// A12: the code of a device is typed by a person, shown on both sides, and decided
// on like every sign-in, once.
func TestDeviceSignIn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "mia@example.com", account.RoleMember)
	c, _, err := s.Agents.RegisterClient(t.Context(), agent.NewClient{Name: "Screen", Grants: []string{agent.GrantDevice}, AuthMethod: agent.AuthNone})
	if err != nil {
		t.Fatal(err)
	}
	by := s.Caller(t, agent.ClientAuth{ID: string(c.ID)})
	d, err := s.Agents.BeginDevice(t.Context(), by, "", "203.0.113.9")
	if err != nil {
		t.Fatal(err)
	}
	b.get("/ui/device").want(http.StatusOK).says("Sign in an agent", "the device or the agent shows")
	b.get("/ui/device?code=BBBB-BBBB").want(http.StatusNotFound).says("Nothing waits with this code")
	at := b.get("/ui/device?code=" + strings.ToLower(d.UserCode)).want(http.StatusSeeOther).header.Get("Location")
	page := b.get(at).want(http.StatusOK).says(d.UserCode, "exactly this code", "It asked from 203.0.113.9.", "an identity, not access")
	page.submit(at, func(v url.Values) { v.Set("label", "Kitchen screen") }).want(http.StatusOK).says("Go back to the device")
	if _, err := s.Agents.ExchangeDevice(t.Context(), by, d.Code, ""); err != nil {
		t.Errorf("the device after the person agreed: %v", err)
	}
	b.get("/ui/device?code=" + d.UserCode).want(http.StatusNotFound)
	b.get("/ui/agents").says("Kitchen screen")
}

// A8, issue 6: a person mutes an agent on its page, sees it, and undoes it there.
func TestMuteAnAgent(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	at := "/ui/agents/" + string(s.bot.Agent())
	ask := func() string {
		_, err := s.Sessions.Request(t.Context(), s.bot, session.Ask{Providers: []string{"tracker"}, Purpose: "Ask."}, "")
		if err == nil {
			return ""
		}
		return fault.Of(err).Code
	}
	page := s.mia.get(at).want(http.StatusOK).submit(at+"/mute", func(v url.Values) { v.Set("length", "8h") }).follow().says("Its requests are refused", "Let it ask again")
	if got := ask(); got != "rate_limited" {
		t.Errorf("a muted agent's request: got %q, want rate_limited", got)
	}
	page.submit(at+"/unmute", nil).follow().says("It may ask again", "Mute this agent for")
	if got := ask(); got != "" {
		t.Errorf("after the mute was undone: %q", got)
	}
	s.mia.post(at+"/mute", url.Values{"length": {"forever"}}).want(http.StatusUnprocessableEntity)
}

func TestKillSwitches(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	for name, stop := range map[string]func() *doc{
		"agent": func() *doc {
			return s.mia.get(s.mia.get("/ui/agents").link("Triage bot")).submit("/ui/agents/"+string(s.bot.Agent())+"/revoke", nil)
		},
		"user": func() *doc {
			return s.mia.get("/ui/organization").submit("/ui/organization/members/"+string(s.mia.User())+"/revoke", nil)
		},
		"organization": func() *doc { return s.mia.get("/ui/organization").submit("/ui/organization/revoke", nil) },
		"connection": func() *doc {
			return s.mia.get("/ui/connections").submit("/ui/connections/"+string(s.connected(t, s.mia)[0].ID)+"/revoke", nil)
		},
		"provider": func() *doc { return s.mia.get("/ui/providers").submit("/ui/providers/tracker/revoke", nil) },
	} {
		handle := s.active(t, policy.Read)
		stop().want(http.StatusOK).says("1 session of", "ended")
		if _, err := s.Call(t, s.bot, handle, "tracker_list_issues", nil); err == nil {
			t.Errorf("%s: a call went through after the kill switch", name)
		}
	}

	// Who may only end their own sessions is shown no switch for everybody's, and
	// it does nothing for them.
	handle, eve := s.active(t, policy.Read), s.person(t, "eve@example.com", account.RoleMember)
	eve.get("/ui/providers").not("/ui/providers/tracker/revoke")
	eve.post("/ui/providers/tracker/revoke", url.Values{}).want(http.StatusNotFound)
	eve.post("/ui/connections/"+string(s.connected(t, s.mia)[0].ID)+"/revoke", url.Values{}).want(http.StatusNotFound)
	if _, err := s.Call(t, s.bot, handle, "tracker_list_issues", nil); err != nil {
		t.Errorf("after a stranger pressed the switches: %v", err)
	}
}

// Rule 4: the cookie alone makes no key.
func TestAPIKeys(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "owner@example.com", account.RoleOwner)
	b.get("/ui/apikeys").says("No API key yet")
	page := b.get("/ui/apikeys/new").want(http.StatusOK)
	fill := func(v url.Values) { v.Set("name", "Billing"); v["scope"] = []string{"vault:read"} }
	values := fields(page.form("/ui/apikeys"))
	fill(values)
	b.post("/ui/apikeys", values).want(http.StatusUnprocessableEntity).says("needs your passkey")
	b.prove("/ui/apikeys/challenge", "get", values)
	values.Add("scope", "vault:delete")
	b.post("/ui/apikeys", values).want(http.StatusForbidden)
	once := page.submit("/ui/apikeys", fill).want(http.StatusOK)
	value := codeAfter(once, "sk_")
	k, err := s.Accounts.AuthenticateKey(t.Context(), secret.FromString(value))
	if err != nil || k.Name() != "Billing" || !k.Has("vault:read") || k.Has("vault:delete") || k.Organization() != s.Organization {
		t.Fatalf("got %+v, %v", k, err)
	}
	list := b.get("/ui/apikeys").says("Billing", "vault:read").not(value)
	list.submit("/ui/apikeys/"+string(k.ID())+"/revoke", nil).follow().says("no longer works", "Revoked")
	if _, err := s.Accounts.AuthenticateKey(t.Context(), secret.FromString(value)); err == nil {
		t.Error("a revoked key still works")
	}
	s.person(t, "member@example.com", account.RoleMember).get("/ui/apikeys/new").want(http.StatusForbidden)
}

// U8: an organization's audit is for those who may read it; anybody else sees
// what was done by them or for them.
func TestAudit(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	handle := s.active(t, policy.Read)
	if _, err := s.Call(t, s.bot, handle, "tracker_list_issues", nil); err != nil {
		t.Fatal(err)
	}
	s.mia.get("/ui/audit").want(http.StatusOK).says("tool.call", "session.approved", "Triage bot for mia@example.com", "a passkey")
	s.mia.get("/ui/audit?action=session.*").says("session.approved").not(`"action">tool.call`)
	s.mia.get("/ui/audit?about=" + string(s.bot.Agent())).says("tool.call")
	for _, q := range []string{"about=x", "about=ses_short", "since=yesterday", "after=%00", "about=%27%20or%201=1"} {
		s.mia.get("/ui/audit?" + q).want(http.StatusUnprocessableEntity)
	}
	// Who runs the environment sees what belongs to no organization, and each
	// tenant's entries with its own alone.
	s.mia.get("/ui/audit?action=provider.*").says("provider.created", "in this environment")
	other := s.person(t, "other@example.com", account.RoleMember)
	other.get("/ui/audit?action=provider.*").not("provider.created")
	other.get("/ui/audit").want(http.StatusOK).not("tracker_list_issues", string(s.bot.Agent()))
	other.get("/ui/audit?about="+string(s.mia.User())).want(http.StatusOK).not(`"action">tool.call`, "mia@example.com")
	other.get("/ui/audit?org=org_01jd0000000000000000000000").want(http.StatusNotFound)
}

func TestPeople(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "owner@example.com", account.RoleOwner)
	fill := func(v url.Values) { v.Set("name", "Ada"); v.Set("email", "ada@example.com"); v.Set("role", "approver") }
	link := codeAfter(b.get("/ui/organization").confirmed("/ui/organization/members/new", fill, "Ada becomes an approver of ", "ada@example.com", "sign-in link").want(http.StatusOK), "http://localhost:7420/ui/enroll#")
	// What is refused leads back to the form with what was typed.
	back := b.get("/ui/organization").submit("/ui/organization/members/new", fill).want(http.StatusConflict).says("Another user of the environment has this e-mail")
	if v := fields(back.form("/ui/organization/members/new")); v.Get("name") != "Ada" || v.Get("email") != "ada@example.com" || v.Get("role") != "approver" {
		t.Errorf("the form forgot what was typed: %v", v)
	}
	members, _, err := s.Accounts.Members(t.Context(), s.System, s.Organization, account.List{Limit: 200})
	if err != nil {
		t.Fatal(err)
	}
	who := string(members[slices.IndexFunc(members, func(m account.Member) bool { return m.Name == "Ada" })].ID)
	member := "/ui/organization/members/" + who
	again := codeAfter(b.get(member+"/invite").want(http.StatusOK).says("Make a sign-in link for Ada?", "an approver of").submit(member+"/invite", nil).want(http.StatusOK), "http://localhost:7420/ui/enroll#")
	if link == again {
		t.Error("the same link twice")
	}
	_, token, _ := strings.Cut(again, "#")
	ada := s.open(t)
	ada.Human = &accounttest.Human{Authenticator: accounttest.New(s.Accounts.Origin())}
	ada.get("/ui/enroll").submit("/ui/enroll", func(v url.Values) { v.Set("token", token) }).follow().says("Ada")
	b.get(member+"/invite").want(http.StatusConflict).says("can sign in already", "Members")

	role := func(r string) func(url.Values) { return func(v url.Values) { v.Set("role", r) } }
	b.get("/ui/organization").submit(member+"/role", role("member")).follow().says("role was changed") // at once
	b.get("/ui/organization").confirmed(member+"/role", role("auditor"), "Ada becomes an auditor of ", "Until now a member").follow().says("role was changed")
	ada.get("/ui/organization").want(http.StatusOK).not("Add a person")
	ada.post(member+"/role", url.Values{"role": {"owner"}}).want(http.StatusForbidden)
	ada.post("/ui/organization/revoke", url.Values{}).want(http.StatusNotFound)

	b.get("/ui/organization").submit("/ui/organization/settings", func(v url.Values) { v.Set("require_passkey", "yes") }).follow().says("Saved")
	org, err := s.Accounts.Organization(t.Context(), s.Environment, s.Organization)
	if err != nil || !org.RequirePasskey {
		t.Errorf("got %+v, %v, want passkeys demanded", org, err)
	}
	b.get("/ui/organization").confirmed("/ui/organization/settings", func(v url.Values) { v.Del("require_passkey") }, "codes of authenticator apps approve again").follow().says("Saved")
	// Standing access is given up at once, and taken back with a passkey.
	b.get("/ui/organization").submit("/ui/organization/settings", func(v url.Values) { v.Set("no_vending", "yes") }).follow().says("Saved")
	b.get("/ui/organization").confirmed("/ui/organization/settings", func(v url.Values) { v.Del("no_vending") }, "keys of its accounts are handed to applications again").follow().says("Saved")

	b.get("/ui/organization").submit("/ui/users/"+who+"/disable", nil).follow().says("shut out", "Disabled")
	b.get("/ui/organization").confirmed("/ui/users/"+who+"/enable", nil, "Ada can sign in again.", "an auditor of").follow().says("can sign in again")
	b.get("/ui/organization").submit(member+"/remove", nil).follow().says("Removed").not("ada@example.com")
	b.get(member+"/role?role=member").want(http.StatusOK).says("Ada becomes a member of").submit(member+"/role", nil).follow().says("ada@example.com")

	b.get("/ui/account").submit("/ui/account/profile", func(v url.Values) { v.Set("name", "Olga") }).follow().says("Olga")
	b.get("/ui/account").confirmed("/ui/account/profile", func(v url.Values) { v.Set("email", "olga@example.com") }, "You will be known as olga@example.com.", "Until now owner@example.com.").follow().says("olga@example.com")
	back = b.post("/ui/account/profile", url.Values{"name": {"a\u202Eb"}, "email": {"x@example.com"}}).want(http.StatusUnprocessableEntity)
	if v := fields(back.form("/ui/account/profile")); v.Get("email") != "x@example.com" {
		t.Errorf("the form forgot what was typed: %v", v)
	}
	b.get("/ui/account/profile?name=Olga&email=olga@example.com").to("/ui/account") // nothing to confirm

	// Taking an owner's place takes a proof too.
	other := s.person(t, "second@example.com", account.RoleOwner)
	b.get("/ui/organization").confirmed("/ui/organization/members/"+string(other.User())+"/remove", nil, "second@example.com leaves ", "no longer an owner").follow().says("Removed")
}

// Who runs an environment looks after its other organizations, and makes others.
func TestRunningAnEnvironment(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "owner@example.com", account.RoleOwner)
	member := s.person(t, "member@example.com", account.RoleMember)
	_, err := s.Accounts.CreateOrganization(t.Context(), s.System, s.Environment, "Acme", "customer-42")
	if err != nil {
		t.Fatal(err)
	}
	at := b.get("/ui/organization").says("You run this environment", "customer-42").link("Acme")
	b.get(at).want(http.StatusOK).says("Acme", "you run the environment as owner").
		confirmed("/ui/organization/members/new", func(v url.Values) { v.Set("name", "Boss"); v.Set("email", "boss@acme.example"); v.Set("role", "owner") }, "Boss becomes an owner of Acme.").
		want(http.StatusOK).says("Give this link to Boss")
	b.get(at).says("boss@acme.example")
	member.get(at).want(http.StatusNotFound)
	member.get("/ui/organization").not("You run this environment")
	member.post("/ui/environments/new", url.Values{"name": {"mine"}}).want(http.StatusForbidden)

	b.get("/ui/organization").confirmed("/ui/environments/new", func(v url.Values) { v.Set("name", "staging") }, "You become the owner of a new environment, staging.").
		follow().says("you own it", "staging", "you are owner")
	b.get("/ui/organization").submit("/ui/environments/new", func(v url.Values) { v.Set("name", "staging") }).want(http.StatusConflict).says("There is an environment of this name")
}

// An owner is told of a recovery on every page, until they say that they know.
func TestOwnersAreToldWhereTheyLook(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b, second := s.person(t, "owner@example.com", account.RoleOwner), s.person(t, "second@example.com", account.RoleOwner)
	member := s.person(t, "member@example.com", account.RoleMember)
	quiet := func(b *browser) {
		for i := 0; i < 10 && strings.Contains(b.get("/ui/account").body, "I know about it"); i++ {
			for n := range b.get("/ui/account").root.Descendants() {
				if a := attr(n, "action"); strings.HasPrefix(a, "/ui/account/notices/") {
					b.post(a, url.Values{"next": {"/ui/account"}}).to("/ui/account")
				}
			}
		}
	}
	quiet(b)
	quiet(second)
	if _, err := s.Accounts.Recover(t.Context(), "member@example.com"); err != nil {
		t.Fatal(err)
	}
	const text = "A recovery link was made on the server for member@example.com."
	for _, path := range []string{"/ui/", "/ui/sessions?state=ended", "/ui/agents", "/ui/organization", "/ui/account", "/ui/nowhere"} {
		b.get(path).says(text)
		member.get(path).not(text)
	}
	page := b.get("/ui/sessions?state=ended")
	b.get(page.link("what was done")).want(http.StatusOK).says("user.recovery_link")
	for n := range page.root.Descendants() {
		if a := attr(n, "action"); strings.HasPrefix(a, "/ui/account/notices/") {
			page.submit(a, nil).to("/ui/sessions?state=ended")
		}
	}
	b.get("/ui/").not(text)
	second.get("/ui/").says(text) // each says so for themselves

	tenant, err := s.Accounts.CreateOrganization(t.Context(), s.System, s.Environment, "Acme", "")
	if err != nil {
		t.Fatal(err)
	}
	app := account.ByKey(s.Key(t, account.ScopeOrganizationsWrite, account.ScopeUsersWrite))
	if _, _, err := s.Accounts.InviteFirstOwner(t.Context(), app, tenant.ID, account.NewUser{Name: "Boss", Email: "boss@acme.example"}); err != nil {
		t.Fatal(err)
	}
	b.get("/ui/").says("An application made a sign-in link for Boss, as the first owner of an organization.")
	member.get("/ui/").not("An application made")
}

// A12: a command line is signed in by a proof for exactly its code, seen on both
// sides.
func TestSignInACommandLine(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "mia@example.com", account.RoleMember)
	code, poll, err := s.Accounts.StartCLI(t.Context(), "192.0.2.9")
	if err != nil {
		t.Fatal(err)
	}
	page := b.get("/ui/cli?code="+url.QueryEscape(code)).follow().says(code, "192.0.2.9")
	path := "/ui/cli/" + strings.ReplaceAll(code, "-", "")
	b.post(path, url.Values{}).want(http.StatusUnprocessableEntity)
	if _, err := s.Accounts.PollCLI(t.Context(), poll, ""); !fault.Is(err, "authorization_pending") {
		t.Fatalf("before the confirmation: got %v", err)
	}
	page.submit(path, nil).want(http.StatusOK).says("is signed in")
	token, err := s.Accounts.PollCLI(t.Context(), poll, "")
	if err != nil {
		t.Fatal(err)
	}
	// Who did not start it refuses it, and it waits no longer.
	code, poll, err = s.Accounts.StartCLI(t.Context(), "198.51.100.9")
	if err != nil {
		t.Fatal(err)
	}
	unwanted := "/ui/cli/" + strings.ReplaceAll(code, "-", "") + "/refuse"
	b.get("/ui/cli?code="+url.QueryEscape(code)).follow().submit(unwanted, nil).want(http.StatusOK).says("is not signed in")
	if _, err := s.Accounts.PollCLI(t.Context(), poll, ""); !fault.Is(err, "flow_expired") {
		t.Fatalf("after the refusal: got %v", err)
	}
	// A mistyped code used to be a dead end: it is asked for again, with what was typed.
	for _, typed := range []string{"BCDF-GHJK", "ABC"} {
		d := b.get("/ui/cli?code="+typed).want(http.StatusNotFound).says("eight letters in two groups, like BCDF-GHJK", "Go on")
		if got := fields(d.form("/ui/cli")).Get("code"); got != typed {
			t.Errorf("the form holds %q, want %q, which was typed", got, typed)
		}
	}
	b.get("/ui/cli/BCDFGHJK").want(http.StatusNotFound).says("No command line waits with this code.", "Go on")
	// Its stored login is no browser's.
	other := s.open(t)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/ui/account", nil)
	req.Header.Set("Cookie", "ambit="+show(token))
	other.do(req).want(http.StatusSeeOther).to("/ui/signin")
}

// A page of another site could use up a person's wrong codes: five visits that it
// caused, and the terminal's own code was refused for a quarter of an hour.
func TestOtherSitesUseUpNoCodes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "mia@example.com", account.RoleMember)
	code, _, err := s.Accounts.StartCLI(t.Context(), "192.0.2.9")
	if err != nil {
		t.Fatal(err)
	}
	path := "/ui/cli/" + strings.ReplaceAll(code, "-", "")
	led := func(path, from string) *doc {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Sec-Fetch-Site", from)
		return b.do(req)
	}
	for range 4 {
		for _, from := range []string{"cross-site", "same-site"} {
			led("/ui/cli/BCDFGHJK", from).want(http.StatusOK).form("/ui/cli")
			led("/ui/cli?code=BCDFGHJK", from).want(http.StatusOK).form("/ui/cli")
		}
	}
	// A link to the right code costs one more press, and nothing is lost.
	d := led(path, "cross-site").want(http.StatusOK)
	led("/ui/cli?"+fields(d.form("/ui/cli")).Encode(), "same-origin").follow().says(code, "192.0.2.9")

	// What the person types is still counted (G9), and the limit says what to do here.
	for range 5 {
		led("/ui/cli?code=BCDFGHJK", "same-origin").want(http.StatusNotFound)
	}
	if d := led(path, "none").want(http.StatusTooManyRequests); !strings.Contains(d.body, "type the code that your terminal shows") || strings.Contains(d.body, "use a passkey") {
		t.Errorf("the limit says %q", d.text("main"))
	}
}

// Issue 5: an OpenAPI description becomes a record in the form, with what was
// left out and guessed beside it, and nothing is there before it is confirmed.
func TestImport(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "owner@example.com", account.RoleOwner)
	const text = "openapi: 3.1.0\ninfo: {title: Shop}\nservers: [{url: \"https://shop.example\"}]\npaths:\n  /orders: {get: {responses: {\"200\": {description: ok}}}}\n" +
		"  /old: {get: {deprecated: true, responses: {\"200\": {description: ok}}}}\n  /tokens: {post: {responses: {\"200\": {description: ok}}}}\n"
	page := b.get("/ui/providers/new?template=yaml").want(http.StatusOK)
	page.submit("/ui/providers/import", func(v url.Values) { v.Set("document", "openapi: 2") }).want(http.StatusUnprocessableEntity).says("OpenAPI 3.0 or 3.1")
	page.submit("/ui/providers/import", func(v url.Values) { v.Set("url", "https://10.0.0.1/openapi.json") }).want(http.StatusForbidden)
	got := page.submit("/ui/providers/import", func(v url.Values) { v.Set("document", text) }).want(http.StatusOK).
		says("with 2 tools", "GET /old", "The description calls it deprecated", "POST /tokens", "The path speaks of tokens")
	got.submit("/ui/providers", nil).follow().says("Shop may be connected. Its keys go to shop.example.", "It has 2 tools")
	b.get("/ui/providers").not("Shop")
	s.person(t, "approver@example.com", account.RoleApprover).post("/ui/providers/import", url.Values{"document": {text}}).want(http.StatusForbidden)
}

// Issue 5: a provider of the catalogue is found, its tenant filled in, and
// confirmed with the hosts that it then has.
func TestCatalogue(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "owner@example.com", account.RoleOwner)
	b.get("/ui/providers/catalog?search=no+such+thing").want(http.StatusOK).says("Nothing of that name")
	// The catalogue is long, so that it comes in pages, each entry once.
	seen, place, pages := map[string]bool{}, "/ui/providers/catalog", 0
	for ; place != "" && pages < 20; pages++ {
		got := b.get(place).want(http.StatusOK)
		place = ""
		for _, id := range regexp.MustCompile(`template=([a-z0-9_]+)`).FindAllStringSubmatch(got.body, -1) {
			if seen[id[1]] {
				t.Errorf("%s is on two pages", id[1])
			}
			seen[id[1]] = true
		}
		if m := regexp.MustCompile(`href="(/ui/providers/catalog\?[^"]*after=[^"]*)"`).FindStringSubmatch(got.body); m != nil {
			place = html.UnescapeString(m[1])
		}
	}
	all, err := provider.Entries()
	if err != nil || len(seen) != len(all) || pages != (len(all)+24)/25 {
		t.Errorf("%d entries on %d pages (%v), want %d", len(seen), pages, err, len(all))
	}
	list := b.get("/ui/providers/catalog?search=EGNYTE").want(http.StatusOK).says("Egnyte", "medium confidence, not yet tried live", "acme.egnyte.com").not("Intercom")
	page := b.get(list.link("Add")).want(http.StatusOK).says("Add Egnyte", "medium confidence, not yet tried live", "/egnyte")
	with := func(subdomain string) func(url.Values) {
		return func(v url.Values) {
			v.Set("param.subdomain", subdomain)
			v.Set("client_id", "ours")
			v.Set("client_secret", "secret-canary")
		}
	}
	page.submit("/ui/providers", with("evil.example/")).want(http.StatusUnprocessableEntity) // O7
	page.submit("/ui/providers", with("acme-help")).follow().says("Egnyte may be connected. Its keys go to acme-help.egnyte.com.").submit("", nil)
	b.get("/ui/providers").says("Egnyte")
	// One whose address a person chooses when they connect.
	desk := b.get(b.get("/ui/providers/catalog?search=zendesk").link("Add")).want(http.StatusOK)
	desk.submit("/ui/providers", func(v url.Values) {
		v.Set("client_id", "ours")
		v.Set("client_secret", "secret-canary")
	}).follow().says("Zendesk may be connected. Its keys go to {subdomain}.zendesk.com.").submit("", nil)
	form := b.get("/ui/connections/new?provider=zendesk").says("Subdomain", "{subdomain}.zendesk.com")
	at := func(subdomain string) func(url.Values) {
		return func(v url.Values) { v.Set("tenant.subdomain", subdomain) }
	}
	form.submit("/ui/connections", at("evil.example/")).want(http.StatusUnprocessableEntity).says("Subdomain cannot be") // O7
	form.submit("/ui/connections", at("acme-help")).want(http.StatusOK).says("acme-help.zendesk.com")
	// What a product knows already stands in the form, to be seen and changed.
	b.get("/ui/connections/new?provider=zendesk&tenant.subdomain=acme-desk").want(http.StatusOK).submit("/ui/connections", nil).want(http.StatusOK).says("acme-desk.zendesk.com")
	b.get("/ui/connections/new?provider=zendesk&tenant.subdomain=evil.example/").submit("/ui/connections", nil).want(http.StatusUnprocessableEntity)
}

// Issue 5: after an incident an admin sees first what would end, then ends it, and
// sees what became of it at the provider. A member does neither.
func TestDisconnectMany(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "owner@example.com", account.RoleOwner)
	s.KeyProvider(t, "tracker")
	member := s.person(t, "member@example.com", account.RoleMember)
	member.get("/ui/connections/new?provider=tracker").submit("/ui/connections", func(v url.Values) { v.Set("key.api_key", gatewaytest.SandboxKey) }).want(http.StatusOK)
	member.get("/ui/connections").not("Disconnect many")
	member.get("/ui/connections/incident?provider=tracker").says("does not allow")
	b.get("/ui/connections").says("Disconnect many")
	b.get("/ui/connections/incident?provider=").says("1 account", "Sandbox with a key")
	b.get("/ui/connections/incident?provider=sandbox").says("Nothing is connected that fits")
	b.get("/ui/connections/incident?provider=tracker").says("1 account").submit("/ui/connections/revoke", nil).want(http.StatusOK).says("1 account disconnected.")
	b.get("/ui/connections").says("No account connected yet")
	b.get("/ui/connections?ended=1").says("It was disconnected together with others.", "remove the access there")
}
