package credential_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// livingScene is a scene whose provider ends grants that lie idle for 40 days, and
// every grant after 100.
func livingScene(t *testing.T, db *sqldb.DB) scene {
	t.Helper()
	w := gatewaytest.New(t, db)
	in := oauthInput(w)
	in.YAML = []byte(strings.Replace(string(in.YAML), "refresh: {rotates: true}", "refresh: {rotates: true, idle_days: 40, max_days: 100}", 1))
	_, err := w.Providers.Put(t.Context(), w.System.In(w.Environment), in, account.Agreement{})
	gatewaytest.Must(t, err)
	s := scene{World: w, owner: w.Person(t, "mia@example.com", account.RoleMember)}
	s.conn = w.ConnectOAuth(t, s.owner, gatewaytest.Mia, nil)
	return s
}

// Issue 5, Living: a grant that would lapse unused is refreshed in time; who must
// sign in again by a date is told once, two weeks before, and the date is kept.
func TestIdleGrantIsKeptAlive(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := livingScene(t, db)
		if by := s.now(t).ReauthorizeBy; by.Sub(s.Clock.Now()).Round(24*time.Hour) != 100*24*time.Hour {
			t.Errorf("to be connected again by %v", by)
		}
		// Checks refresh as well, and are for another test.
		s.exec(t, `update credential set check_at = 0`)
		gatewaytest.Must(t, s.Credentials.Upkeep(t.Context()))
		if n := s.Stats(t).Refreshes; n != 0 {
			t.Errorf("%d refreshes of a grant that was just made", n)
		}
		told := func() int { return strings.Count(strings.Join(s.Actions(t), " "), "connection.expiring") }
		for day := range 101 {
			s.Clock.Advance(24 * time.Hour)
			gatewaytest.Must(t, s.Credentials.Upkeep(t.Context()))
			if n := told(); day < 84 && n != 0 || day > 87 && n != 1 {
				t.Fatalf("day %d: told %d times", day, n)
			}
		}
		if n := s.Stats(t).Refreshes; n < 8 || n > 12 {
			t.Errorf("%d refreshes in a hundred days, want one in about ten days", n)
		}
		if c := s.now(t); c.State != connection.NeedsReauth || c.Reason != "reauthorize_by" || !strings.Contains(c.Why(), "after a time") {
			t.Errorf("when the time has come: %s %s", c.State, c.Reason)
		}
		again := s.ConnectOAuth(t, s.owner, gatewaytest.Mia, func(st *credential.Start) { st.Reconnect = s.conn.ID })
		if again.State != connection.Connected || again.ReauthorizeBy.Before(s.Clock.Now().AddDate(0, 0, 99)) {
			t.Errorf("after a reconnect: %s, by %v", again.State, again.ReauthorizeBy)
		}
	})
}

// A keep-alive that fails is tried again, and a connection that needs a person is
// left alone.
func TestKeepAliveThatFails(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := livingScene(t, db)
		s.exec(t, `update credential set check_at = 0`)
		s.Fault(t, map[string]any{"path": "/oauth/token", "status": 503, "times": 2}) // an attempt and its repetition
		s.Clock.Advance(12 * 24 * time.Hour)
		gatewaytest.Must(t, s.Credentials.Upkeep(t.Context()))
		if r := s.stored(t); r.version != 1 || r.failures != 1 {
			t.Errorf("after a failure: %+v", r)
		}
		s.Clock.Advance(2 * time.Hour)
		gatewaytest.Must(t, s.Credentials.Upkeep(t.Context()))
		if r := s.stored(t); r.version != 2 || r.failures != 0 {
			t.Errorf("two hours later: %+v", r)
		}
	})
}

// Rule 10 of oauth.md §3.1 and issue 5: health checks act on two signals, and what
// the provider takes again goes on by itself.
func TestHealthChecks(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		w.KeyProvider(t, "tracker")
		s := scene{World: w, owner: w.Person(t, "mia@example.com", account.RoleMember)}
		s.conn = w.Connect(t, s.owner, "tracker", false)
		look := func(after time.Duration, want connection.State) {
			t.Helper()
			s.Clock.Advance(after)
			gatewaytest.Must(t, s.Credentials.Upkeep(t.Context()))
			if c := s.now(t); c.State != want {
				t.Errorf("it is %s %s, want %s", c.State, c.Reason, want)
			}
		}
		before := len(s.Arrivals("/me"))
		look(time.Hour, connection.Connected)
		if n := len(s.Arrivals("/me")) - before; n != 0 {
			t.Errorf("%d checks within an hour", n)
		}
		look(27*time.Hour, connection.Connected)
		if n := len(s.Arrivals("/me")) - before; n != 1 {
			t.Errorf("%d checks in a day, want 1", n)
		}
		s.Fault(t, map[string]any{"path": "/me", "status": 503, "times": 1})
		look(27*time.Hour, connection.Connected) // not reached: it says nothing
		s.Fault(t, map[string]any{"path": "/me", "status": 401, "times": 1})
		look(27*time.Hour, connection.Connected)   // one refusal
		look(11*time.Minute, connection.Connected) // and taken again
		s.Fault(t, map[string]any{"path": "/me", "status": 401, "times": 2})
		look(27*time.Hour, connection.Connected)
		look(11*time.Minute, connection.NeedsReauth) // refused twice
		if why := s.now(t).Why(); why != "The provider does not take its key any more." {
			t.Errorf("people read %q", why)
		}
		look(27*time.Hour, connection.Connected) // the provider takes it again
		got := strings.Join(s.Actions(t), " ")
		if !strings.Contains(got, "connection.needs_reauthorization connection.recovered") {
			t.Errorf("audit: %s", got)
		}
	})
}

// A token that is refused gets a second chance with a new one.
func TestHealthCheckRefreshes(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.Clock.Advance(28 * time.Hour)
		s.Fault(t, map[string]any{"path": "/me", "status": 401, "times": 1})
		gatewaytest.Must(t, s.Credentials.Upkeep(t.Context()))
		if c := s.now(t); c.State != connection.Connected {
			t.Errorf("after one refusal: %s %s", c.State, c.Reason)
		}
		s.Clock.Advance(28 * time.Hour)
		s.Fault(t, map[string]any{"path": "/me", "status": 401, "times": 5})
		gatewaytest.Must(t, s.Credentials.Upkeep(t.Context()))
		if c := s.now(t); c.State != connection.NeedsReauth || c.Reason != "credential_rejected" {
			t.Errorf("the new token is refused too: %s %s", c.State, c.Reason)
		}
	})
}

// O14, issue 5: asking for more asks for what is there already as well, and until
// the new grant works the old one does. What was not granted is kept on record.
func TestIncrementalScopes(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		w.OAuthProvider(t)
		s := scene{World: w, owner: w.Person(t, "mia@example.com", account.RoleMember)}
		s.conn = s.ConnectOAuth(t, s.owner, gatewaytest.Mia, func(st *credential.Start) { st.Scopes = []string{"issues:write"} })
		more := func(st *credential.Start) { st.Reconnect, st.Scopes = s.conn.ID, []string{"issues:delete"} }
		at := s.Begin(t, s.owner, more)
		asked := strings.Fields(must(url.Parse(at)).Query().Get("scope"))
		if want := []string{"issues:read", "issues:delete", "issues:write"}; !slices.Equal(asked, want) {
			t.Errorf("asked for %v, want %v", asked, want)
		}
		s.bot = s.Agent(t, s.owner, "Bot")
		s.handle = s.Active(t, s.owner, s.bot, "sandbox")
		gatewaytest.Must(t, s.call(t)) // nothing is lost while it is not finished
		done, err := s.Credentials.Callback(t.Context(), s.owner.Signed(t), s.Environment, "sandbox", s.Consent(t, at, gatewaytest.Mia, "issues:read", "issues:write"))
		gatewaytest.Must(t, err)
		c := s.now(t)
		if done.Connection.ID != s.conn.ID || !slices.Equal(c.Lacking(), []string{"issues:delete"}) || len(c.Scopes) != 2 {
			t.Errorf("granted %v, lacking %v", c.Scopes, c.Lacking())
		}
		done, err = s.Credentials.Callback(t.Context(), s.owner.Signed(t), s.Environment, "sandbox", s.Consent(t, s.Begin(t, s.owner, more), gatewaytest.Mia))
		gatewaytest.Must(t, err)
		if c := s.now(t); len(c.Lacking()) != 0 || len(c.Scopes) != 3 {
			t.Errorf("granted %v, lacking %v", c.Scopes, c.Lacking())
		}
		if got := strings.Join(s.Actions(t), " "); strings.Count(got, "connection.scopes_changed") != 1 {
			t.Errorf("audit: %s", got)
		}
	})
}

// A bug: at a provider where one token given back ends the whole grant, a reconnect
// gave the old one back and ended the new one.
func TestReconnectDoesNotEndTheNewGrant(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		in := oauthInput(w)
		in.YAML = []byte(strings.Replace(string(in.YAML), "revoke_style: rfc7009\n", "revoke_style: rfc7009\n  revokes_grant: true\n", 1))
		_, err := w.Providers.Put(t.Context(), w.System.In(w.Environment), in, account.Agreement{})
		gatewaytest.Must(t, err)
		s := scene{World: w, owner: w.Person(t, "mia@example.com", account.RoleMember)}
		s.conn = w.ConnectOAuth(t, s.owner, gatewaytest.Mia, nil)
		w.ConnectOAuth(t, s.owner, gatewaytest.Mia, nil)
		if n := w.Stats(t).Revocations; n != 0 {
			t.Errorf("%d revocations by a reconnect", n)
		}
		if d, err := w.Credentials.Disconnect(t.Context(), s.me(t), s.conn.ID); err != nil || d.Upstream != credential.RevokedUpstream {
			t.Errorf("a disconnect: %+v, %v", d, err)
		}
	})
}
