package gateway_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Issue 7: a client's own refresh of its placeholder is answered here, on record, and
// nothing goes to the provider. Anything else at the same place is a request like any
// other, of which every byte arrives: a bug was that what had been read to tell the
// two apart was lost.
func TestClientsOwnRefresh(t *testing.T) {
	t.Parallel()
	s := newScene(t, sqldbtest.Open(t, sqldb.SQLite))
	s.OAuthProvider(t)
	s.ConnectOAuth(t, s.owner, gatewaytest.Mia, nil)
	s.handle = s.Active(t, s.owner, s.bot, "sandbox", policy.Read, policy.Write, policy.Destructive)
	form := func(pairs ...string) string {
		v := url.Values{}
		for i := 0; i+1 < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return v.Encode()
	}
	const urlencoded = "application/x-www-form-urlencoded"
	for _, test := range []struct {
		name, body, media string
		ours              bool
	}{
		{"a form", form("grant_type", "refresh_token", "refresh_token", "ambit_refresh_token"), urlencoded, true},
		{"JSON", `{"grant_type":"refresh_token","refresh_token":"ambit_refresh_token"}`, "application/json", true},
		{"a token of another's", form("grant_type", "refresh_token", "refresh_token", "elsewhere"), urlencoded, false},
		{"another grant", form("grant_type", "client_credentials"), urlencoded, false},
		{"a long form", form("grant_type", "password", "text", strings.Repeat("long ", 10_000)), urlencoded, false},
	} {
		before := len(s.Arrivals("/oauth/token"))
		x, text, err := s.exchange(t, s.request(t, "POST", "/oauth/token", test.body, "Content-Type", test.media))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		all := s.Arrivals("/oauth/token")
		if x.Ours != test.ours || (len(all) == before) != test.ours {
			t.Errorf("%s: ours %v, %d arrived: %s", test.name, x.Ours, len(all)-before, text)
			continue
		}
		if !test.ours {
			if got := all[len(all)-1].Body; got != test.body {
				t.Errorf("%s: %d of %d bytes arrived", test.name, len(got), len(test.body))
			}
			continue
		}
		if !strings.Contains(text, `"refresh_token":"ambit_refresh_token"`) || !strings.Contains(text, `"access_token":"ambit_access_token"`) || !strings.Contains(text, `"expires_in":3600`) {
			t.Errorf("%s: the answer is %s", test.name, text)
		}
		page, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Action: "token.stand_in", Limit: 10})
		gatewaytest.Must(t, err)
		if len(page.Records) == 0 || page.Records[0].Agent != s.bot.Agent() || page.Records[0].Session == "" {
			t.Errorf("%s: on record is %+v", test.name, page.Records)
		}
	}
}
