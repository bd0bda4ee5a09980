package relay_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/relay"
)

// An application asks with its API key, for a user, as WorkOS' clients do; its key
// needs the scope that could have the credential itself, and each request is on
// record under the key. An agent gains nothing by the header.
func TestApplications(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	key := func(scopes ...account.Scope) string {
		t.Helper()
		_, token, err := s.Accounts.IssueKey(t.Context(), account.NewKey{Environment: s.Environment, Organization: s.Organization, Name: "backend", Scopes: scopes})
		gatewaytest.Must(t, err)
		return "Bearer " + string(token.Reveal())
	}
	may := key(account.ScopeConnectionsVend, account.ScopeConnectionsRead)
	user := string(s.owner.ID)
	for _, test := range []struct {
		name, method, path string
		header             []string
		status             int
		code               string
	}{
		{"a request", "GET", "/relay/tracker/me", []string{"Authorization", may, relay.HeaderUser, user}, 200, ""},
		{"by URL", "GET", "/relay", []string{"Authorization", may, relay.HeaderUser, user, relay.HeaderProvider, "tracker", relay.HeaderURL, s.Sandbox.URL + "/me"}, 200, ""},
		{"no user", "GET", "/relay/tracker/me", []string{"Authorization", may}, 400, "relay_user_required"},
		{"an unknown user", "GET", "/relay/tracker/me", []string{"Authorization", may, relay.HeaderUser, "nobody"}, 400, "relay_user_not_found"},
		{"an unknown user of a key that may make them", "GET", "/relay/tracker/me", []string{"Authorization", key(account.Scopes()...), relay.HeaderUser, "nobody"}, 400, "relay_user_not_found"},
		{"an unknown provider", "GET", "/relay/other/me", []string{"Authorization", may, relay.HeaderUser, user}, 404, "relay_provider_not_found"},
		{"another place", "GET", "/relay", []string{"Authorization", may, relay.HeaderUser, user, relay.HeaderProvider, "tracker", relay.HeaderURL, "https://elsewhere.example/"}, 403, "destination_denied"},
		{"what makes access", "POST", "/relay/tracker/keys", []string{"Authorization", may, relay.HeaderUser, user}, 403, "access_refused"},
		{"no scope", "GET", "/relay/tracker/me", []string{"Authorization", key(account.ScopeConnectionsRead), relay.HeaderUser, user}, 403, "missing_scope"},
		{"a wrong key", "GET", "/relay/tracker/me", []string{"Authorization", "Bearer sk_no", relay.HeaderUser, user}, 401, "invalid_api_key"},
		{"an agent", "GET", "/relay/tracker/me", []string{relay.HeaderSession, "", relay.HeaderUser, user}, 403, "session_missing"},
	} {
		resp, text := s.do(t, test.method, test.path, "", test.header...)
		if resp.StatusCode != test.status || !strings.Contains(text, test.code) || (resp.Header.Get(relay.HeaderStatus) != "") != (test.status == 200) || strings.Contains(text, gatewaytest.SandboxKey) {
			t.Errorf("%s: %d %s", test.name, resp.StatusCode, text)
		}
	}
	page, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Action: "relay.call", Limit: 20})
	gatewaytest.Must(t, err)
	allowed := 0
	for _, r := range page.Records {
		if r.Actor.Kind != "api_key" || r.Actor.ID == "" || r.Connection == "" || r.User != s.owner.ID || r.Detail["key_name"] != "backend" {
			t.Errorf("an entry is incomplete: %+v", r)
		}
		if r.Decision == "allow" {
			allowed++
		}
	}
	if allowed != 2 {
		t.Errorf("%d requests are on record, want 2", allowed)
	}
}

// brokers.md §2.3 (agent-vault): an early refresh that fails fails no call while
// the token is valid. §2.2: what has expired is never sent: a code instead. And a
// client's own refresh of its placeholder is answered here (onecli #363).
func TestCredentialsAreFreshOrNotSent(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.OAuthProvider(t)
	s.ConnectOAuth(t, s.owner, gatewaytest.Mia, nil)
	handle := s.Active(t, s.owner, s.bot, "sandbox", policy.Read)
	// refresh is a client's of its placeholder.
	refresh := func(token string) (*http.Response, string) {
		return s.do(t, "POST", "/relay", "grant_type=refresh_token&refresh_token="+token, relay.HeaderURL, s.Sandbox.URL+"/oauth/token", relay.HeaderSession, handle, "Content-Type", "application/x-www-form-urlencoded")
	}
	before := len(s.Arrivals("/oauth/token"))
	resp, text := refresh("ambit_refresh_token")
	if resp.StatusCode != 200 || !strings.Contains(text, `"access_token":"ambit_access_token"`) || !strings.Contains(text, `"expires_in":3600`) || resp.Header.Get(relay.HeaderStatus) != "" {
		t.Errorf("a refresh of a placeholder: %d %s", resp.StatusCode, text)
	}
	if resp, text := refresh("sbx_stolen"); resp.StatusCode != 403 || !strings.Contains(text, "not_granted") {
		t.Errorf("a refresh of something else: %d %s", resp.StatusCode, text)
	}
	if n := len(s.Arrivals("/oauth/token")) - before; n != 0 {
		t.Errorf("%d requests of clients reached the token endpoint", n)
	}
	get := func() (int, string) {
		resp, text := s.do(t, "GET", "/relay/sandbox/me", "", relay.HeaderSession, handle)
		return resp.StatusCode, text
	}
	if status, text := get(); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	s.Fault(t, map[string]any{"path": "/oauth/token", "status": 503, "times": 1000})
	calls := len(s.Arrivals("/me"))
	s.Clock.Advance(50 * time.Second) // of the minute that it lives
	if status, text := get(); status != 200 {
		t.Errorf("while the token is valid: %d %s", status, text)
	}
	s.Clock.Advance(time.Minute)
	if status, text := get(); status != 502 || !strings.Contains(text, `"code":"relay_`) {
		t.Errorf("after it: %d %s", status, text)
	}
	if n := len(s.Arrivals("/me")) - calls; n != 1 {
		t.Errorf("%d requests went out, want the one with a valid token", n)
	}
}
