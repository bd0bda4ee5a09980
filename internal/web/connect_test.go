package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
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
