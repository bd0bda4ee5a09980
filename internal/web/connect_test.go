package web_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/integration"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Issue 5: the page says who will be connected to what before anybody leaves for
// the provider; a second account is a second connection, what was not granted is
// said and recorded, and asked for again.
func TestConnectPageSaysWhoToWhat(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.OAuthProvider(t)
	mia := s.person(t, "mia@example.com", account.RoleMember)
	page := mia.get("/ui/connections/new?provider=sandbox").want(http.StatusOK).says("You are", mia.Person.Name(), "For", "Kind of account", "One that you sign in to", "Looks", "Changes", "Risk")
	to := page.submit("/ui/connections", nil).link("Continue to")
	var left string
	mia.get(s.atSandboxAs(t, to, 0, func(f url.Values) { left, f["grant"] = f["grant"][0], f["grant"][1:] })).want(http.StatusOK).says("did not grant: "+left, "Reconnect to ask for it again")
	first := s.connected(t, mia)[0]
	if lacks := first.Lacking(); len(lacks) != 1 || lacks[0] != left {
		t.Errorf("it lacks %q, want %s", lacks, left)
	}
	mia.get("/ui/connections").says("Not granted: " + left)

	again := "/ui/connections/new?reconnect=" + string(first.ID)
	to = mia.get(again).want(http.StatusOK).submit("/ui/connections", nil).link("Continue to")
	if asked, _ := url.Parse(to); !strings.Contains(asked.Query().Get("scope"), left) {
		t.Errorf("a reconnect asks for %q, which lacks %s", asked.Query().Get("scope"), left)
	}
	mia.get(s.atSandbox(t, to)).want(http.StatusOK).not("did not grant")
	if list := s.connected(t, mia); len(list) != 1 || len(list[0].Lacking()) != 0 || list[0].ID != first.ID {
		t.Fatalf("%+v", list)
	}
	to = mia.get("/ui/connections/new?provider=sandbox").submit("/ui/connections", nil).link("Continue to")
	mia.get(s.atSandboxAs(t, to, 1, func(url.Values) {})).want(http.StatusOK).says("Connected").not("Another account")
	if n := len(s.connected(t, mia)); n != 2 {
		t.Errorf("a second account makes %d connections, want 2", n)
	}
}

// O15: another account at a reconnect is never taken in silence: the person is
// asked whether it stays beside the first, and can take it out again at once.
func TestAnotherAccountAtAReconnectAsks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.OAuthProvider(t)
	mia := s.person(t, "mia@example.com", account.RoleMember)
	begin := func(path string) string {
		return mia.get(path).want(http.StatusOK).submit("/ui/connections", nil).want(http.StatusOK).link("Continue to")
	}
	mia.get(s.atSandbox(t, begin("/ui/connections/new?provider=sandbox"))).want(http.StatusOK)
	was := s.connected(t, mia)[0]
	asked := mia.get(s.atSandboxAs(t, begin("/ui/connections/new?reconnect="+string(was.ID)), 1, func(url.Values) {})).want(http.StatusOK).
		says("Another account", "You were to reconnect "+was.AccountLabel, "Do you want to keep", "Keep both", "Take it out again")
	var other connection.Connection
	for _, c := range s.connected(t, mia) {
		if c.ID != was.ID {
			other = c
		}
	}
	if other.AccountID == was.AccountID || other.ID == "" {
		t.Fatalf("another account: %+v", other)
	}
	asked.submit("/ui/connections/"+string(other.ID)+"/disconnect", nil).want(http.StatusOK).says("is disconnected", "has revoked the access")
	for _, c := range s.connected(t, mia) {
		if c.Live() != (c.ID == was.ID) || c.ID == was.ID && (c.AccountID != was.AccountID || c.CredentialVersion != was.CredentialVersion) {
			t.Errorf("%s is %s with version %d", c.AccountLabel, c.State, c.CredentialVersion)
		}
	}
}

// product is a product's back end.
func (s *site) product(t *testing.T, scopes ...account.Scope) account.Actor {
	t.Helper()
	_, token, err := s.Accounts.IssueKey(t.Context(), account.NewKey{Environment: s.Environment, Name: "Product", Scopes: scopes})
	gatewaytest.Must(t, err)
	key, err := s.Accounts.AuthenticateKey(t.Context(), token)
	gatewaytest.Must(t, err)
	return account.ByKey(key)
}

// state asks as a page of another origin does, and gives what it is told.
func (s *site) state(t *testing.T, token string, header ...string) (status int, body map[string]any, h http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/connect/state", nil)
	gatewaytest.Must(t, err)
	req.Header.Set("Origin", "https://product.example")
	req.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := s.server.Client().Do(req)
	gatewaytest.Must(t, err)
	defer res.Body.Close()
	gatewaytest.Must(t, json.NewDecoder(res.Body).Decode(&body))
	return res.StatusCode, body, res.Header
}

const product = account.ScopeConnectionsWrite + " " + account.ScopeConnectionsRead + " " + account.ScopeUsersWrite + " " + account.ScopeOrganizationsWrite + " " + account.ScopeUsersVouch

// Issue 5, O1: a connect token is one user's, for one account, at the providers that
// it names. Whoever else opens its page finds nothing, and who holds it learns what
// became of it and nothing else.
func TestConnectToken(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := siteOn(t, db)
		s.OAuthProvider(t)
		s.KeyProvider(t, "weather")
		by := s.product(t, strings.Fields(product)...)
		mia, eve := s.person(t, "mia@example.com", account.RoleMember), s.person(t, "eve@example.com", account.RoleMember)
		open := func(slugs ...string) (token, page string) {
			t.Helper()
			o, err := s.Rooms.Open(t.Context(), by, integration.Names{User: string(mia.Person.User()), Organization: string(s.Organization)}, slugs, false)
			gatewaytest.Must(t, err)
			return string(o.Token.Reveal()), strings.TrimPrefix(string(o.URL.Reveal()), "http://localhost:7420")
		}
		tells := func(token, want string) map[string]any {
			t.Helper()
			status, body, _ := s.state(t, token)
			if status != http.StatusOK || body["state"] != want {
				t.Errorf("it tells %d %v, want %s", status, body, want)
			}
			return body
		}

		token, page := open("sandbox", "weather")
		tells(token, "pending")
		if strings.Contains(page, token) || strings.Contains(page, "amb_") {
			t.Errorf("the page's address holds the token: %s", page)
		}
		eve.get(page).want(http.StatusNotFound)
		eve.post("/ui/connections", url.Values{"ticket": {strings.TrimPrefix(page, "/ui/connect/")}, "provider": {"sandbox"}}).want(http.StatusNotFound)
		s.open(t).get(page).want(http.StatusSeeOther).to("/ui/signin?next=")
		mia.get(page + "?provider=github").want(http.StatusNotFound)
		form := mia.get(mia.get(page).want(http.StatusOK).not("Inbox", "Describe a provider").link("Sandbox")).want(http.StatusOK).says("You are", mia.Person.Name(), "For").not("Cancel", "The organization's")
		to := form.submit("/ui/connections", nil).want(http.StatusOK).link("Continue to")
		tells(token, "connecting")
		back := s.atSandbox(t, to)
		eve.get(back).want(http.StatusGone) // the state is used up, and is not hers
		to = mia.get(page+"?provider=sandbox").submit("/ui/connections", nil).link("Continue to")
		second := mia.get(page+"?provider=sandbox").submit("/ui/connections", nil).link("Continue to")
		mia.get(s.atSandbox(t, to)).want(http.StatusOK).says("Connected", "You can close this window").not("See connections")
		told := tells(token, "connected")
		c := s.connected(t, mia)[0]
		if told["connection_id"] != string(c.ID) || told["provider"] != "sandbox" || len(told) != 4 {
			t.Errorf("it tells %v of %s", told, c.ID)
		}
		mia.get(page).want(http.StatusConflict).says("was used")
		mia.get(s.atSandboxAs(t, second, 1, func(url.Values) {})).want(http.StatusConflict)
		if n := len(s.connected(t, mia)); n != 1 {
			t.Errorf("one token connected %d accounts", n)
		}

		// A key is typed in the same window; a wrong one ends nothing.
		token, page = open("weather")
		mia.get(page).submit("/ui/connections", func(f url.Values) { f.Set("key.api_key", "wrong-key-of-some-length") }).want(http.StatusForbidden)
		tells(token, "pending")
		mia.get(page).submit("/ui/connections", func(f url.Values) { f.Set("key.api_key", gatewaytest.SandboxKey) }).want(http.StatusOK).says("You can close this window")
		tells(token, "connected")

		// A no at the provider ends it.
		token, page = open("sandbox")
		to = mia.get(page).submit("/ui/connections", nil).link("Continue to")
		asked, err := url.Parse(to)
		gatewaytest.Must(t, err)
		mia.get("/ui/callback/" + string(s.Environment) + "/sandbox?error=access_denied&iss=" + url.QueryEscape(s.Sandbox.URL) + "&state=" + url.QueryEscape(asked.Query().Get("state"))).want(http.StatusForbidden)
		if told := tells(token, "failed"); told["code"] != "access_denied" {
			t.Errorf("it failed with %v", told)
		}
		mia.get(page).want(http.StatusGone)

		// It is short, but who began in time may end.
		token, page = open("sandbox")
		late, other := open("weather")
		s.Clock.Advance(integration.TicketAge - 5*time.Second)
		to = mia.get(page).submit("/ui/connections", nil).link("Continue to")
		s.Clock.Advance(6 * time.Second)
		tells(token, "connecting")
		tells(late, "expired")
		mia.get(other).want(http.StatusGone).says("open for too long")
		mia.get(page).want(http.StatusGone)
		mia.get(s.atSandbox(t, to)).want(http.StatusOK)
		tells(token, "connected")
	})
}

// Issue 5: where the environment's client is not for an organization, its connect tokens
// are refused with that and with what mends it. It used to be that no client is configured.
func TestConnectTokenWithoutASharedClient(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.OAuthProvider(t)
	p, err := s.Providers.Get(t.Context(), s.Environment, "sandbox")
	gatewaytest.Must(t, err)
	_, err = s.Providers.Put(t.Context(), s.System.In(s.Environment), provider.Input{YAML: p.Record.Source(), ClientID: p.ClientID, For: provider.ForNobody}, account.Agreement{})
	gatewaytest.Must(t, err)
	by := s.product(t, strings.Fields(product)...)
	for _, org := range []string{string(s.Organization), "acme"} { // acme is not there yet
		_, err = s.Rooms.Open(t.Context(), by, integration.Names{User: "u-1", Organization: org}, []string{"sandbox"}, false)
		if f := fault.Of(err); f.Code != "client_not_shared" || !strings.Contains(f.Hint, "ambit provider client set sandbox --for") {
			t.Errorf("%s: %v", org, err)
		}
	}
}

// W3: pages of all origins may ask what became of a connect token, and of nothing
// else; no cookie counts, and none is set.
func TestConnectStateIsForOtherOrigins(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.KeyProvider(t, "weather")
	mia := s.person(t, "mia@example.com", account.RoleOwner)
	o, err := s.Rooms.Open(t.Context(), s.product(t, strings.Fields(product)...), integration.Names{User: string(mia.Person.User()), Organization: string(s.Organization)}, []string{"weather"}, false)
	gatewaytest.Must(t, err)
	_, _, h := s.state(t, string(o.Token.Reveal()))
	for name, want := range map[string]string{"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "", "Cache-Control": "no-store", "Set-Cookie": ""} {
		if h.Get(name) != want {
			t.Errorf("%s: got %q, want %q", name, h.Get(name), want)
		}
	}
	for _, token := range []string{"", "x", "amb_connect_" + strings.Repeat("A", 43), mia.cookie(), string(secret.Token("amb_login_").Reveal())} {
		if status, body, _ := s.state(t, token, "Cookie", "ambit="+mia.cookie()); status != http.StatusUnauthorized || body["code"] != "unauthenticated" {
			t.Errorf("%q: got %d %v", token, status, body)
		}
	}
	for _, path := range []string{"/ui/", "/ui/signin", "/ui/connect/" + string(o.ID), "/ui/vouch"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
		gatewaytest.Must(t, err)
		req.Header.Set("Origin", "https://product.example")
		if d := mia.do(req); d.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s is for other origins", path)
		}
	}
	js := mia.get("/connect/ambit-connect.js").want(http.StatusOK)
	if js.header.Get("Content-Type") != "text/javascript; charset=utf-8" || js.header.Get("Access-Control-Allow-Origin") != "*" || js.header.Get("Cross-Origin-Resource-Policy") != "cross-origin" {
		t.Errorf("the component comes with %v", js.header)
	}
}

// Issue 5, product.md rule 4: whom an application vouches for gets to the page where
// they connect, and to nothing else; the link is followed only after they said that
// it is theirs, and never over somebody else's sign-in (O1).
func TestVouchedWindow(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.OAuthProvider(t)
	by := s.product(t, strings.Fields(product)...)
	window := func() (integration.Opened, url.Values) {
		t.Helper()
		o, err := s.Rooms.Open(t.Context(), by, integration.Names{User: "u-1", Organization: "acme"}, []string{"sandbox"}, true)
		gatewaytest.Must(t, err)
		page, token, _ := strings.Cut(string(o.URL.Reveal()), "#")
		if page != "http://localhost:7420/ui/vouch" {
			t.Fatalf("the window opens %s", page)
		}
		return o, url.Values{"token": {token}}
	}
	o, form := window()
	mia := s.person(t, "mia@example.com", account.RoleOwner)
	mia.get("/ui/vouch").want(http.StatusOK).says("Go on only if that is you")
	mia.post("/ui/vouch", form).want(http.StatusConflict)
	mia.get("/ui/").want(http.StatusOK)

	b := s.open(t)
	b.post("/ui/vouch/look", form, "Accept", "application/json").want(http.StatusOK)
	b.get(b.post("/ui/vouch", form).want(http.StatusSeeOther).to("/ui/connect/"+string(o.ID)).follow().url.Path).want(http.StatusOK).says("Connect Sandbox", "You are", "u-1", "For", "acme")
	s.open(t).post("/ui/vouch", form).want(http.StatusGone)
	for _, r := range s.Pages.Routes() {
		method, path := split(r.Pattern)
		if r.Open || method == http.MethodPost && strings.HasSuffix(path, "/signout") {
			continue
		}
		d := b.send(method, path)
		switch may := map[string]bool{"GET /ui/connections/new": true, "POST /ui/connections": true, "GET /ui/connect/{id}": true, "GET /ui/callback/{environment}/{provider}": true, "GET /ui/callback/{environment}/{provider}/{organization}": true,
			"GET /ui/return/{token}": true, "POST /ui/connections/{id}/disconnect": true}[r.Pattern]; {
		case may && (d.status == http.StatusUnauthorized || strings.HasPrefix(d.header.Get("Location"), "/ui/signin")):
			t.Errorf("%s: got %d", r.Pattern, d.status)
		case !may && d.status != http.StatusUnauthorized && !strings.HasPrefix(d.header.Get("Location"), "/ui/signin"):
			t.Errorf("%s: got %d on an application's word", r.Pattern, d.status)
		}
	}
	if d := b.get("/ui/events"); d.status != http.StatusUnauthorized {
		t.Errorf("the live stream: got %d", d.status)
	}
	to := b.get("/ui/connect/"+string(o.ID)).submit("/ui/connections", nil).want(http.StatusOK).link("Continue to")
	b.get(s.atSandbox(t, to)).want(http.StatusOK).says("Connected", "You can close this window").not("See connections", "Inbox")
	status, told, _ := s.state(t, string(o.Token.Reveal()))
	if status != http.StatusOK || told["state"] != "connected" {
		t.Fatalf("got %d %v", status, told)
	}
	c, err := s.Connections.ByID(t.Context(), s.DB.Reader(), s.Environment, id.Connection(told["connection_id"].(string)))
	gatewaytest.Must(t, err)
	if c.Owner != o.User || c.Organization != o.Organization {
		t.Errorf("it is %s's in %s, want %s's in %s", c.Owner, c.Organization, o.User, o.Organization)
	}
}
