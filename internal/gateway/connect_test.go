package gateway_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Issue 2, product.md rule 9: whatever is refused for want of an account that
// works says on which page a person connects one, with the provider or the
// connection picked already.
func TestEveryRefusalForWantOfAnAccountNamesThePage(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.KeyProvider(t, "spare")
		s.OAuthProvider(t)
		page := func(q url.Values) string { return "http://localhost:7420/ui/connections/new?" + q.Encode() }
		fresh := func(provider string) string {
			return page(url.Values{"org": {string(s.Organization)}, "provider": {provider}})
		}
		again := func(c connection.Connection) string { return page(url.Values{"reconnect": {string(c.ID)}}) }
		want := func(what string, err error, wantCode, wantURL string) {
			t.Helper()
			if code(err) != wantCode {
				t.Errorf("%s: got %v, want %s", what, err, wantCode)
			} else if got := fault.Of(err).Fields["connect_url"]; got != wantURL || fault.Of(err).Hint == "" {
				t.Errorf("%s: connect_url is %q, want %q, and a hint", what, got, wantURL)
			}
		}
		ask := func(a session.Ask) error {
			a.Purpose = "look"
			_, err := s.Gateway.Request(t.Context(), s.bot, a, "")
			return err
		}
		asks := func(what, provider, tool, wantCode, wantURL string) {
			t.Helper()
			want(what+", asked for", ask(session.Ask{Providers: []string{provider}}), wantCode, wantURL)
			want(what+", its tool asked for", ask(session.Ask{Tools: []string{"tracker_me", tool}}), wantCode, wantURL)
			want(what+", described", s.Gateway.NoTool(t.Context(), s.bot, tool), wantCode, wantURL)
			_, err := s.Call(t, s.bot, "", tool, nil)
			want(what+", called without a session", err, wantCode, wantURL)
			_, got, err := s.Gateway.Connect(t.Context(), s.bot, provider)
			if err != nil || got != wantURL {
				t.Errorf("%s, connect_provider: got %q, %v, want %q", what, got, err, wantURL)
			}
		}

		asks("no account at all", "spare", "spare_me", "connect_provider", fresh("spare"))
		if err := ask(session.Ask{Providers: []string{"nowhere"}}); code(err) != "not_found" || fault.Of(err).Fields["connect_url"] != "" {
			t.Errorf("a provider that does not exist: got %v with %v", err, fault.Of(err).Fields)
		}
		if err := ask(session.Ask{Tools: []string{"nowhere_me"}}); code(err) != "tool_not_found" {
			t.Errorf("a tool that does not exist: got %v", err)
		}

		// The provider rejects the credential, in a session that goes on.
		oauth := s.ConnectOAuth(t, s.owner, gatewaytest.Mia, nil)
		handle := s.Active(t, s.owner, s.bot, "sandbox", policy.Read)
		me := func() error { _, err := s.Call(t, s.bot, handle, "sandbox_me", nil); return err }
		s.Fault(t, map[string]any{"path": "/me", "status": 401, "times": 3})
		want("the credential was rejected", me(), "reconnect", again(oauth))
		s.Mend(t)
		want("the account needs its person", me(), "reconnect", again(oauth))
		asks("the account needs its person", "sandbox", "sandbox_me", "reconnect", again(oauth))
		list, err := s.Gateway.Providers(t.Context(), s.bot)
		gatewaytest.Must(t, err)
		for _, p := range list {
			if p.ID == "sandbox" && (p.Connected || len(p.Accounts) != 1 || p.Accounts[0].State != "needs_reauthorization") {
				t.Errorf("list_providers does not tell a broken account from none: %+v", p)
			}
		}

		// The refresh fails for good: the provider ended the grant, or gave no
		// means to renew it, or the credential is not there any more.
		mend := func() { s.exec(t, `update connection set state = 'connected', reason = '' where id = $1`, oauth.ID) }
		mend()
		s.Fault(t, map[string]any{"path": "/me", "status": 401, "times": 1})
		s.Fault(t, map[string]any{"path": "/oauth/token", "status": 400, "body": map[string]any{"error": "invalid_grant"}})
		want("the grant has ended", me(), "reconnect", again(oauth))
		s.Mend(t)
		mend()
		s.exec(t, `update credential set refreshable = 0, expires_at = 1 where connection_id = $1`, oauth.ID)
		want("nothing renews it", s.afresh(t, handle), "reconnect", again(oauth))
		mend()
		s.exec(t, `delete from credential where connection_id = $1`, oauth.ID)
		want("the credential is gone", s.afresh(t, handle), "reconnect", again(oauth))

		// Disconnected: the sessions end, and say why and where to go on.
		_, err = s.Connections.Disconnect(t.Context(), account.ByPerson(s.owner.Signed(t)).In(s.Environment), s.conn.ID)
		gatewaytest.Must(t, err)
		_, err = s.do(t, "tracker_me", nil)
		want("disconnected, in the session", err, "revoked", again(s.conn))
		want("disconnected, asked for", ask(session.Ask{Providers: []string{"tracker"}}), "connect_provider", fresh("tracker"))
		want("disconnected, its tool asked for", ask(session.Ask{Tools: []string{"tracker_me"}}), "connect_provider", fresh("tracker"))
	})
}

// afresh calls from a node that has no credential in memory.
func (s scene) afresh(t *testing.T, handle string) error {
	t.Helper()
	other := *s.World
	other.Node(t)
	_, err := other.Call(t, s.bot, handle, "sandbox_me", nil)
	return err
}

// What an agent may not be granted it does not hear about: no label, no page.
func TestBrokenAccountBeyondTheCeilingStaysUnseen(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.KeyProvider(t, "spare")
		hidden := s.Connect(t, s.owner, "spare", false)
		s.exec(t, `update connection set state = 'needs_reauthorization' where id = $1`, hidden.ID)
		g := s.Consented(t, s.owner, "Narrow bot")
		made, err := s.Agents.Lookup(t.Context(), s.Environment, g.Identity.Agent())
		gatewaytest.Must(t, err)
		_, err = s.Agents.SetCeiling(t.Context(), s.System.In(s.Environment), made.ID, made.Version, policy.Ceiling{Providers: []string{"tracker"}}, account.Agreement{})
		gatewaytest.Must(t, err)
		narrow, err := s.Agents.Authenticate(t.Context(), g.Tokens.Access)
		gatewaytest.Must(t, err)
		for what, err := range map[string]error{
			"the provider": func() error {
				_, err := s.Gateway.Request(t.Context(), narrow, session.Ask{Providers: []string{"spare"}, Purpose: "look"}, "")
				return err
			}(),
			"its tool": s.Gateway.NoTool(t.Context(), narrow, "spare_me"),
		} {
			f := fault.Of(err)
			if f == nil || f.Kind != fault.NotFound || f.Fields["connect_url"] != "" || strings.Contains(f.Message, hidden.AccountLabel) {
				t.Errorf("%s: got %v with %v", what, err, f)
			}
		}
		page, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Action: "session.requested"})
		gatewaytest.Must(t, err)
		if len(page.Records) != 1 {
			t.Errorf("%d requests are on record, want the scene's own", len(page.Records))
		}
	})
}

// Threat O14: a grant that is narrower than what was asked for is enforced here. A
// tool whose scopes the account does not hold is refused before anything is sent or
// anybody is asked, with the page where a person grants more; what has the scope
// works, and after it was granted so does the rest.
func TestToolWithoutItsScopes(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := scene{World: gatewaytest.New(t, db), logs: &logs{}}
		s.OAuthProvider(t)
		s.owner = s.Person(t, "mia@example.com", account.RoleMember)
		connect := func(again id.Connection, granted ...string) {
			at := s.Begin(t, s.owner, func(st *credential.Start) { st.Reconnect = again })
			done, err := s.Credentials.Callback(t.Context(), s.owner.Signed(t), s.Environment, "sandbox", s.Consent(t, at, gatewaytest.Mia, granted...))
			gatewaytest.Must(t, err)
			s.conn = done.Connection
		}
		connect("", "issues:read")
		s.bot = s.Agent(t, s.owner, "Triage bot")
		s.handle = s.Active(t, s.owner, s.bot, "sandbox", policy.Read, policy.Write, policy.Destructive)
		if _, err := s.do(t, "sandbox_list_issues", nil); err != nil {
			t.Errorf("what the account holds the scope of: %v", err)
		}
		before := s.Stats(t).Calls
		for tool, args := range map[string]map[string]any{"sandbox_create_issue": {"title": "one"}, "sandbox_delete_issue": {"number": 1}} {
			_, err := s.do(t, tool, args)
			f := fault.Of(err)
			if code(err) != "scope_missing" || !strings.Contains(f.Fields["connect_url"], string(s.conn.ID)) || !strings.HasPrefix(f.Fields["scopes"], "issues:") {
				t.Errorf("%s: got %v %v", tool, err, f.Fields)
			}
			if r := s.last(t); r.Decision != "deny" || r.Code != "scope_missing" || r.Rule != "connection.scopes" {
				t.Errorf("%s is on record as %+v", tool, r.Entry)
			}
		}
		if after := s.Stats(t).Calls; after != before {
			t.Errorf("%d calls arrived", after-before)
		}
		if inbox, err := s.Sessions.Inbox(t.Context(), s.owner.Signed(t)); err != nil || len(inbox) != 0 {
			t.Errorf("a person is asked about what cannot work: %v (%v)", inbox, err)
		}
		connect(s.conn.ID, "issues:read", "issues:write")
		if _, err := s.do(t, "sandbox_create_issue", map[string]any{"title": "one"}); err != nil {
			t.Errorf("once it was granted: %v", err)
		}
	})
}
