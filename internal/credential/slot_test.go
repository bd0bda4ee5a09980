package credential_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// bearers gives the tokens that calls on a path carried, in their order.
func (n *internet) bearers(path string) (out []string) {
	for _, s := range n.asked {
		if s.Path == path {
			out = append(out, strings.TrimPrefix(s.Header.Get("Authorization"), "Bearer "))
		}
	}
	return out
}

// Issue 5: a sign-in at Slack gives a token of the person and one of the bot. Each
// tool goes with its own, each is renewed by itself when it ends (with its own
// refresh token, which rotates), neither comes back in an answer, and a disconnect
// gives both back.
func TestSeveralSlots(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newInternet(t, newScene(t, db))
		n.provider(t, "slack_bot", nil)
		refreshed := map[string]int{}
		n.answer = func(s said) reply {
			switch {
			case s.Path == "/api/oauth.v2.access" && s.Form.Get("grant_type") == "refresh_token":
				whose, _, _ := strings.Cut(s.Form.Get("refresh_token"), "-refresh-")
				if want := fmt.Sprintf("%s-refresh-%d", whose, refreshed[whose]); s.Form.Get("refresh_token") != want {
					t.Errorf("refreshed with %s, want %s", s.Form.Get("refresh_token"), want)
				}
				refreshed[whose]++
				return reply{body: fmt.Sprintf(`{"ok":true,"access_token":"%[1]s-token-number-%[2]d","refresh_token":"%[1]s-refresh-%[2]d","expires_in":43200}`, whose, refreshed[whose])}
			case s.Path == "/api/oauth.v2.access":
				return reply{body: `{"ok":true,"access_token":"bot-token-number-0","refresh_token":"bot-refresh-0","expires_in":43200,"scope":"chat:write","team":{"id":"T1234"},
					"authed_user":{"id":"U1","access_token":"user-token-number-0","refresh_token":"user-refresh-0","expires_in":21600,"scope":"channels:read"}}`}
			case s.Path == "/api/auth.test":
				return reply{body: `{"ok":true,"user_id":"U1","user":"mia","team_id":"T1234"}`}
			}
			return reply{body: fmt.Sprintf(`{"ok":true,"channels":[],"ts":"seen user-token-number-%d bot-token-number-%d"}`, refreshed["user"], refreshed["bot"])}
		}
		done, asked, err := n.signIn(t, "slack_bot", nil, nil)
		gatewaytest.Must(t, err)
		if asked.Get("scope") != "chat:write,reactions:write" || asked.Get("user_scope") != "channels:read,channels:history,search:read" {
			t.Errorf("asked for %v", asked)
		}
		if !slices.Equal(done.Connection.Scopes, []string{"channels:read", "bot/chat:write"}) {
			t.Errorf("granted %v", done.Connection.Scopes)
		}
		handle := n.Active(t, n.owner, n.bot, "slack_bot", policy.Read, policy.Destructive)
		call := func(tool string, args map[string]any) error {
			r, err := n.Call(t, n.bot, handle, "slack_bot_"+tool, args)
			if strings.Contains(string(r.Body), "-token-number-") {
				t.Errorf("%s: a token came back: %s", tool, r.Body)
			}
			return err
		}
		post := func() error {
			args := map[string]any{"channel": "C1", "text": "hello"}
			if err := call("post_message", args); code(err) != "approval_required" {
				return err
			}
			inbox, err := n.Sessions.Inbox(t.Context(), n.owner.Signed(t))
			gatewaytest.Must(t, err)
			n.Approve(t, n.owner, inbox[0].ID, nil)
			return call("post_message", args)
		}
		gatewaytest.Must(t, call("list_channels", nil))
		gatewaytest.Must(t, post())
		if u, b := n.bearers("/api/conversations.list"), n.bearers("/api/chat.postMessage"); !slices.Equal(u, []string{"user-token-number-0"}) || !slices.Equal(b, []string{"bot-token-number-0"}) {
			t.Errorf("the person's tool went with %v, the bot's with %v", u, b)
		}
		if err := call("search_messages", map[string]any{"query": "x"}); code(err) != "scope_missing" {
			t.Errorf("a tool whose scope was declined: %v", err)
		}

		n.Clock.Advance(6*time.Hour + time.Minute) // the person's has ended, the bot's has not
		handle = n.Active(t, n.owner, n.bot, "slack_bot", policy.Read, policy.Destructive)
		gatewaytest.Must(t, call("list_channels", nil))
		gatewaytest.Must(t, post())
		if refreshed["user"] != 1 || refreshed["bot"] != 0 {
			t.Errorf("refreshed %v, want the person's alone", refreshed)
		}
		n.Clock.Advance(6 * time.Hour) // the bot's has ended, the person's has not
		handle = n.Active(t, n.owner, n.bot, "slack_bot", policy.Read, policy.Destructive)
		gatewaytest.Must(t, post())
		if refreshed["bot"] != 1 || refreshed["user"] > 2 {
			t.Errorf("refreshed %v, want the bot's too", refreshed)
		}
		if b := n.bearers("/api/chat.postMessage"); b[len(b)-1] != "bot-token-number-1" {
			t.Errorf("the bot's tool went with %v", b)
		}
		c, err := n.Connections.ByID(t.Context(), db.Reader(), n.Environment, done.Connection.ID)
		if err != nil || !slices.Equal(c.Scopes, done.Connection.Scopes) || c.State != connection.Connected {
			t.Errorf("after refreshes it is %s and holds %v (%v)", c.State, c.Scopes, err)
		}
		_, err = n.Credentials.Disconnect(t.Context(), n.me(t), done.Connection.ID)
		gatewaytest.Must(t, err)
		back := n.bearers("/api/auth.revoke")
		slices.Sort(back)
		if len(back) != 2 || !strings.HasPrefix(back[0], "bot-token") || !strings.HasPrefix(back[1], "user-token") {
			t.Errorf("given back: %v", back)
		}
	})
}

// Issue 5, Microsoft: one sign-in and one refresh token, and a token for each API.
// Where nobody consented to one of them, the others go on.
func TestOneRefreshTokenForSeveralResources(t *testing.T) {
	t.Parallel()
	n := newInternet(t, newScene(t, sqldbtest.Open(t, sqldb.SQLite)))
	n.provider(t, "microsoft_azure", map[string]string{"tenant": "organizations"})
	refresh, refused := 0, false
	n.answer = func(s said) reply {
		switch {
		case strings.HasSuffix(s.Path, "/oauth2/v2.0/token") && s.Form.Get("grant_type") == "authorization_code":
			if s.Form.Get("scope") != "offline_access User.Read" {
				t.Errorf("the code is exchanged for %q", s.Form.Get("scope"))
			}
			return reply{body: `{"access_token":"graph-token-number-0","refresh_token":"ms-refresh-0","expires_in":3600,"scope":"User.Read"}`}
		case strings.HasSuffix(s.Path, "/oauth2/v2.0/token"):
			if s.Form.Get("refresh_token") != fmt.Sprintf("ms-refresh-%d", refresh) {
				t.Errorf("refreshed with %s, want the newest, %d", s.Form.Get("refresh_token"), refresh)
			}
			azure := strings.HasSuffix(s.Form.Get("scope"), "management.azure.com/user_impersonation")
			if azure && refused {
				return reply{status: 400, body: `{"error":"invalid_grant","suberror":"consent_required"}`}
			}
			refresh++
			return reply{body: fmt.Sprintf(`{"access_token":"%s-token-number-%d","refresh_token":"ms-refresh-%d","expires_in":3600}`, map[bool]string{true: "azure", false: "graph"}[azure], refresh, refresh)}
		case s.Path == "/v1.0/me":
			return reply{body: `{"id":"m1","userPrincipalName":"mia@example.com"}`}
		}
		return reply{body: `{"value":[]}`}
	}
	done, asked, err := n.signIn(t, "microsoft_azure", nil, nil)
	gatewaytest.Must(t, err)
	if want := n.here("offline_access User.Read https://management.azure.com/user_impersonation"); asked.Get("scope") != want {
		t.Errorf("asked for %q", asked.Get("scope"))
	}
	handle := n.Active(t, n.owner, n.bot, "microsoft_azure", policy.Read)
	call := func(tool string) error {
		_, err := n.Call(t, n.bot, handle, "microsoft_azure_"+tool, nil)
		return err
	}
	gatewaytest.Must(t, call("list_subscriptions"))
	gatewaytest.Must(t, call("me"))
	if a, g := n.bearers("/subscriptions"), n.bearers("/v1.0/me"); !slices.Equal(a, []string{"azure-token-number-1"}) || g[len(g)-1] != "graph-token-number-0" {
		t.Errorf("Azure was called with %v, Graph with %v", a, g)
	}
	n.Clock.Advance(time.Hour)
	refused = true
	handle = n.Active(t, n.owner, n.bot, "microsoft_azure", policy.Read)
	gatewaytest.Must(t, call("me"))
	if err := call("list_subscriptions"); code(err) != "reconnect" {
		t.Errorf("an API that nobody consented to: %v", err)
	}
	if c, err := n.Connections.ByID(t.Context(), n.DB.Reader(), n.Environment, done.Connection.ID); err != nil || c.State != connection.Connected {
		t.Errorf("it is %s %s (%v)", c.State, c.Reason, err)
	}
	gatewaytest.Must(t, call("me"))
}

// Issue 5, F11: a sign-in that fails after the tokens came gives each of them back,
// those of slots too. The bot's used to stay at Slack.
func TestAFailedSignInGivesBackEverySlot(t *testing.T) {
	t.Parallel()
	n := newInternet(t, newScene(t, sqldbtest.Open(t, sqldb.SQLite)))
	n.provider(t, "slack_bot", nil)
	n.answer = func(s said) reply {
		switch s.Path {
		case "/api/oauth.v2.access":
			return reply{body: `{"ok":true,"access_token":"bot-token-number-0","scope":"chat:write","team":{"id":"T1234"},
				"authed_user":{"id":"U1","access_token":"user-token-number-0","scope":"channels:read"}}`}
		case "/api/auth.test":
			return reply{body: `{"ok":false,"error":"fatal_error"}`}
		}
		return reply{body: `{"ok":true}`}
	}
	if _, _, err := n.signIn(t, "slack_bot", nil, nil); err == nil {
		t.Fatal("an account that nobody could identify was connected")
	}
	back := n.bearers("/api/auth.revoke")
	slices.Sort(back)
	if !slices.Equal(back, []string{"bot-token-number-0", "user-token-number-0"}) {
		t.Errorf("given back: %v", back)
	}
}
