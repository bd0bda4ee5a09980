package credential_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Issue 5: tokens of another system are taken over. They must open an account,
// which is asked for and shown; a refresh that they need happens once, and what it
// brought is given back when nothing comes of it.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newInternet(t, newScene(t, db))
		n.provider(t, "gitlab", nil)
		valid := map[string]string{"access-token-live": "P1", "access-token-renewed": "P1", "access-token-foreign": "P2"}
		refreshed, revoked, dead := 0, []string{}, false
		n.answer = func(s said) reply {
			switch {
			case s.Method == http.MethodPost && s.Form.Get("grant_type") == "refresh_token":
				refreshed++
				if s.Form.Get("refresh_token") != "refresh-token-1" {
					return reply{status: 400, body: `{"error":"invalid_grant"}`}
				}
				return reply{body: `{"access_token":"access-token-renewed","refresh_token":"refresh-token-2","expires_in":3600}`}
			case s.Form.Get("token") != "":
				revoked = append(revoked, s.Form.Get("token"))
				return reply{}
			}
			who := valid[(&http.Request{Header: s.Header}).Header.Get("Authorization")[len("Bearer "):]]
			if who == "" || dead {
				return reply{status: 401}
			}
			return reply{body: `{"id":"` + who + `","username":"` + who + `"}`}
		}
		take := func(again connection.Connection, in credential.Held) (connection.Connection, error) {
			st := start(n.World, "gitlab")
			st.Reconnect = again.ID
			return n.Credentials.TakeOver(t.Context(), n.me(t), st, n.owner.ID, in, account.Agreement{})
		}
		text := secret.FromString
		c, err := take(connection.Connection{}, credential.Held{Access: text("access-token-live"), Refresh: text("refresh-token-1"), ExpiresAt: n.Clock.Now().Add(time.Hour), Scopes: []string{"read_user"}})
		gatewaytest.Must(t, err)
		if c.AccountID != "P1" || c.AuthMethod != "oauth2" || refreshed != 0 {
			t.Errorf("connected %+v, refreshed %d", c, refreshed)
		}
		// O15: a token of another account does not take its place.
		if _, err := take(c, credential.Held{Access: text("access-token-foreign")}); code(err) != "account_differs" {
			t.Errorf("another account's: %v", err)
		}
		d, err := n.Credentials.Disconnect(t.Context(), n.me(t), c.ID)
		if err != nil || d.Connection.State != connection.Disconnected {
			t.Errorf("disconnect: %v", err)
		}
		revoked = nil
		for name, in := range map[string]credential.Held{
			"nothing":           {},
			"only an old one":   {Access: text("access-token-live"), ExpiresAt: n.Clock.Now().Add(-time.Hour)},
			"a short one":       {Access: text("short")},
			"one that is gone":  {Access: text("access-token-gone")},
			"a dead refresh":    {Refresh: text("refresh-token-0")},
			"a captured value":  {Access: text("access-token-live"), Told: map[string]string{"instance": "evil.example"}},
			"one far too large": {Access: text(string(make([]byte, 9<<10)))},
		} {
			if _, err := take(connection.Connection{}, in); err == nil || code(err) == "internal" {
				t.Errorf("%s: %v", name, err)
			}
		}
		c, err = take(connection.Connection{}, credential.Held{Access: text("access-token-live"), Refresh: text("refresh-token-1"), ExpiresAt: n.Clock.Now().Add(-time.Hour)})
		if err != nil || c.AccountID != "P1" || len(revoked) != 0 {
			t.Errorf("renewed on the way: %+v, %v; given back %v", c, err, revoked)
		}
		n.Clock.Advance(2 * time.Hour)
		dead = true
		if _, err := take(connection.Connection{}, credential.Held{Refresh: text("refresh-token-1")}); code(err) != "credential_rejected" {
			t.Errorf("an account that cannot be asked for: %v", err)
		}
		if len(revoked) == 0 || revoked[0] != "refresh-token-2" {
			t.Errorf("given back %v, want the tokens that the refresh brought", revoked)
		}
	})
}
