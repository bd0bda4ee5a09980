package credential_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// shape is how one provider of the catalogue differs, from the sign-in to the end.
type shape struct {
	params map[string]string // of the entry
	chosen map[string]string // by the person
	back   url.Values        // what the provider sends the person back with, besides code and state
	token  reply             // to the code
	longer string            // where the first token is swapped, and by what grant_type
	swap   reply
	who    string // the answer of the identity call
	again  reply  // to what renews it
	renews string // where, and by what grant_type; empty: nothing can be renewed
	gone   string // what gives it back: method, place and the token; empty: nothing

	account, api string   // that are pinned
	scopes       []string // granted
}

// Issue 5, the quirk server: the records of the catalogue as they are, through our
// own code: sign-in, identity, renewal and revocation of each odd provider.
var shapes = map[string]shape{
	"slack": {
		token:  reply{body: `{"ok":true,"app_id":"A1","team":{"id":"T024BE7LD"},"authed_user":{"id":"U1","scope":"users:read,chat:write","access_token":"xoxe.xoxp-1","refresh_token":"xoxe-1","expires_in":43200,"token_type":"user"}}`},
		who:    `{"ok":true,"user_id":"U1","user":"mia","team_id":"T024BE7LD"}`,
		again:  reply{body: `{"ok":true,"access_token":"xoxe.xoxp-2","refresh_token":"xoxe-2","expires_in":43200,"token_type":"user"}`},
		renews: "slack.com/api/oauth.v2.access refresh_token", gone: "POST slack.com/api/auth.revoke xoxe.xoxp-2", account: "U1", api: "slack.com/api", scopes: []string{"users:read", "chat:write"},
	},
	"github": {
		params: map[string]string{"client_id": "Iv1.0123456789abcdef"},
		token:  reply{media: "application/x-www-form-urlencoded", body: "access_token=gho_0123456789&scope=read%3Auser%2Crepo&token_type=bearer"},
		who:    `{"id":583231,"login":"octocat"}`, gone: `DELETE api.github.com/applications/Iv1.0123456789abcdef/grant gho_0123456789`, account: "583231", api: "api.github.com", scopes: []string{"read:user", "repo"},
	},
	"github_app": {
		params: map[string]string{"client_id": "Iv1.0123456789abcdef"},
		token:  reply{body: `{"access_token":"ghu_0123456789","expires_in":"28800","refresh_token":"ghr_1","refresh_token_expires_in":"15897600","scope":"","token_type":"bearer"}`},
		who:    `{"id":583231,"login":"octocat"}`,
		again:  reply{body: `{"access_token":"ghu_9876543210","expires_in":"28800","refresh_token":"ghr_2","scope":"","token_type":"bearer"}`},
		renews: "github.com/login/oauth/access_token refresh_token", gone: "DELETE api.github.com/applications/Iv1.0123456789abcdef/token ghu_9876543210", account: "583231", api: "api.github.com",
	},
	"salesforce": {
		chosen: map[string]string{"login": "test"},
		token:  reply{body: `{"access_token":"00Dxx!AQ1","refresh_token":"5Aep1","instance_url":"https://acme.my.salesforce.com","id":"https://test.salesforce.com/id/00D/005","issued_at":"1278448384422","signature":"x=","scope":"api refresh_token openid"}`},
		who:    `{"user_id":"005","preferred_username":"mia@acme.example","organization_id":"00D"}`,
		again:  reply{body: `{"access_token":"00Dxx!AQ2","instance_url":"https://acme.my.salesforce.com","issued_at":"1278448384422"}`},
		renews: "test.salesforce.com/services/oauth2/token refresh_token", gone: "POST test.salesforce.com/services/oauth2/revoke 5Aep1", account: "005", api: "acme.my.salesforce.com/services/data",
		scopes: []string{"api", "refresh_token", "openid"},
	},
	"zoho": {
		chosen: map[string]string{"dc": "zohocloud.ca"}, back: url.Values{"location": {"ca"}, "accounts-server": {"https://evil.example"}}, // the data centre is what was chosen
		token:  reply{body: `{"access_token":"1000.access-1","refresh_token":"1000.refresh","api_domain":"https://www.zohoapis.ca","token_type":"Bearer","expires_in":3600}`},
		who:    `{"ZUID":42,"Email":"mia@acme.example"}`,
		again:  reply{body: `{"access_token":"1000.access-2","api_domain":"https://www.zohoapis.ca","expires_in":3600}`},
		renews: "accounts.zohocloud.ca/oauth/v2/token refresh_token", gone: "POST accounts.zohocloud.ca/oauth/v2/token/revoke 1000.refresh", account: "42", api: "www.zohoapis.ca",
		scopes: []string{"AaaServer.profile.Read", "ZohoCRM.modules.READ", "ZohoCRM.modules.ALL"},
	},
	"quickbooks": {
		back:   url.Values{"realmId": {"9130350000000000"}},
		token:  reply{body: `{"access_token":"eyJ.qb-access-1","refresh_token":"AB-refresh","expires_in":3600,"x_refresh_token_expires_in":8726400,"token_type":"bearer"}`},
		who:    `{"sub":"u-1","email":"mia@acme.example"}`,
		again:  reply{body: `{"access_token":"eyJ.qb-access-2","refresh_token":"AB-refresh","expires_in":3600}`}, // the same one again
		renews: "oauth.platform.intuit.com/oauth2/v1/tokens/bearer refresh_token", gone: "POST developer.api.intuit.com/v2/oauth2/tokens/revoke AB-refresh", account: "u-1",
		api: "quickbooks.api.intuit.com/v3/company/9130350000000000", scopes: []string{"openid", "email", "com.intuit.quickbooks.accounting"},
	},
	"figma": {
		token: reply{body: `{"user_id":"7","access_token":"figu_access-1","refresh_token":"figur_refresh","expires_in":7776000}`}, who: `{"id":"7","email":"mia@acme.example"}`,
		again: reply{body: `{"access_token":"figu_access-2","expires_in":7776000}`}, renews: "api.figma.com/v1/oauth/refresh refresh_token", account: "7", api: "api.figma.com",
	},
	"hubspot": {
		token: reply{body: `{"access_token":"CJ-access-1","refresh_token":"hs-refresh","expires_in":1800,"hub_id":77,"scopes":["oauth"]}`}, who: `{"portalId":77,"accountType":"STANDARD"}`,
		again: reply{body: `{"access_token":"CJ-access-2","refresh_token":"hs-refresh","expires_in":1800}`}, renews: "api.hubapi.com/oauth/2026-03/token refresh_token", account: "77", api: "api.hubapi.com",
	},
	"tiktok": {
		token:  reply{body: `{"access_token":"act.access-1","open_id":"o-1","refresh_token":"rft.refresh-1","expires_in":86400,"refresh_expires_in":31536000,"scope":"user.info.basic,video.list"}`},
		who:    `{"data":{"user":{"open_id":"o-1","display_name":"Mia"}},"error":{"code":"ok"}}`,
		again:  reply{body: `{"access_token":"act.access-2","refresh_token":"rft.refresh-2","expires_in":86400,"scope":"user.info.basic,video.list"}`},
		renews: "open.tiktokapis.com/v2/oauth/token/ refresh_token", gone: "POST open.tiktokapis.com/v2/oauth/revoke/ rft.refresh-2", account: "o-1", api: "open.tiktokapis.com", scopes: []string{"user.info.basic", "video.list"},
	},
	"facebook": {
		token: reply{body: `{"access_token":"EAA-short-token","token_type":"bearer","expires_in":5183}`}, longer: "graph.facebook.com/v22.0/oauth/access_token fb_exchange_token",
		swap: reply{body: `{"access_token":"EAA-long-token-1","token_type":"bearer"}`}, who: `{"id":"10","name":"Mia"}`, again: reply{body: `{"access_token":"EAA-long-token-2","expires_in":5183944}`},
		renews: "graph.facebook.com/v22.0/oauth/access_token fb_exchange_token", gone: "DELETE graph.facebook.com/v22.0/me/permissions EAA-long-token-2", account: "10", api: "graph.facebook.com",
	},
	"instagram": {
		token: reply{body: `{"access_token":"IG-short-token","user_id":17,"permissions":["instagram_business_basic"]}`}, longer: "graph.instagram.com/access_token ig_exchange_token",
		swap: reply{body: `{"access_token":"IG-long-token-1","token_type":"bearer","expires_in":5183944}`}, who: `{"user_id":"17","username":"mia"}`, again: reply{body: `{"access_token":"IG-long-token-2","expires_in":5183944}`},
		renews: "graph.instagram.com/refresh_access_token ig_refresh_token", account: "17", api: "graph.instagram.com",
	},
	"threads": {
		token: reply{body: `{"access_token":"TH-short-token","user_id":18}`}, longer: "graph.threads.net/access_token th_exchange_token", swap: reply{body: `{"access_token":"TH-long-token-1","expires_in":5183944}`},
		who: `{"id":"18","username":"mia"}`, again: reply{body: `{"access_token":"TH-long-token-2","expires_in":5183944}`}, renews: "graph.threads.net/refresh_access_token th_refresh_token", account: "18", api: "graph.threads.net/v1.0",
	},
	"microsoft": {
		chosen: nil,
		token:  reply{body: `{"token_type":"Bearer","scope":"User.Read profile openid email","expires_in":4231,"ext_expires_in":4231,"access_token":"eyJ.ms-access-1","refresh_token":"0.ms-1"}`},
		who:    `{"id":"g-1","userPrincipalName":"mia@acme.example"}`, again: reply{body: `{"scope":"User.Read profile openid email","expires_in":4231,"access_token":"eyJ.ms-access-2","refresh_token":"0.ms-2"}`},
		renews: "login.microsoftonline.com/common/oauth2/v2.0/token refresh_token", account: "g-1", api: "graph.microsoft.com/v1.0", scopes: []string{"User.Read", "profile", "openid", "email", "offline_access"},
	},
	"sentry": {
		token: reply{body: `{"access_token":"sntryu-access-1","refresh_token":"sntryr-1","expires_at":"2099-01-01T00:00:00Z","expires_in":2591999,"user":{"id":"9","email":"mia@acme.example"},"scope":"org:read"}`},
		who:   `{"id":"9","email":"mia@acme.example"}`, again: reply{body: `{"access_token":"sntryu-access-2","refresh_token":"sntryr-2","expires_in":2591999,"user":{"id":"someone-else"}}`},
		renews: "sentry.io/oauth/token/ refresh_token", account: "9", api: "sentry.io/api/0", scopes: []string{"org:read"},
	},
}

func TestProvidersAsTheyAre(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newInternet(t, newScene(t, db))
		for _, h := range []string{"acme.my.salesforce.com", "test.salesforce.com", "accounts.zohocloud.ca", "www.zohoapis.ca"} {
			n.serve(h)
		}
		for entry, s := range shapes {
			t.Run(entry, func(t *testing.T) { n.follows(t, entry, s) })
		}
	})
}

func (n *internet) follows(t *testing.T, entry string, s shape) {
	n.asked = nil
	rec := n.provider(t, entry, s.params)
	n.answer = func(q said) reply {
		place := q.Host + q.Path + " " + q.Form.Get("grant_type") + q.Query.Get("grant_type")
		switch {
		case q.Form.Get("grant_type") == "authorization_code":
			return s.token
		case place == s.longer && strings.Contains(q.Query.Encode(), "short-token"):
			return s.swap
		case s.renews != "" && place == s.renews:
			return s.again
		case place == n.identity(rec.Identity.URL, rec.API.Base[0]+rec.Identity.Path, s)+" ":
			return reply{body: s.who}
		}
		return reply{status: 200, body: `{"ok":true}`}
	}
	done, _, err := n.signIn(t, entry, s.chosen, s.back)
	if err != nil {
		t.Fatalf("%v; asked %v", err, n.places())
	}
	c := done.Connection
	if c.AccountID != s.account || c.Pinned.API[0] != n.Sandbox.URL+"/"+s.api {
		t.Errorf("connected as %q at %v", c.AccountID, c.Pinned.API)
	}
	if s.scopes != nil && !slices.Equal(c.Scopes, s.scopes) {
		t.Errorf("scopes %v, want %v", c.Scopes, s.scopes)
	}
	if got := n.places()[0]; s.longer != "" && !slices.Contains(n.places(), s.longer) || strings.Contains(got, "evil") {
		t.Errorf("asked %v", n.places())
	}
	before := len(n.asked)
	if s.renews != "" {
		version, err := n.Credentials.RefreshAfter(t, c.ID, func() {})
		if err != nil || version != 2 || len(n.asked) != before+1 || n.places()[before] != s.renews {
			t.Errorf("renewed to %d, %v, by %v", version, err, n.places()[before:])
		}
	}
	before = len(n.asked)
	d, err := n.Credentials.Disconnect(t.Context(), n.me(t), c.ID)
	gatewaytest.Must(t, err)
	if s.gone == "" {
		if d.Upstream != "unsupported" || len(n.asked) != before {
			t.Errorf("disconnected: %s, asked %v", d.Upstream, n.places()[before:])
		}
	} else if method, rest, _ := strings.Cut(s.gone, " "); d.Upstream != "revoked" || len(n.asked) == before || n.asked[before].Method != method || !n.asked[before].gives(rest) {
		t.Errorf("disconnected: %s, asked %+v, want %s", d.Upstream, n.asked[before:], s.gone)
	}
	if got, err := n.Connections.ByID(t.Context(), n.DB.Reader(), n.Environment, c.ID); err != nil || got.State != connection.Disconnected {
		t.Errorf("afterwards %s, %v", got.State, err)
	}
}

// identity is the host and path of an identity call, with what was told and chosen.
func (n *internet) identity(own, below string, s shape) string {
	if own == "" {
		own = below
	}
	own = strings.NewReplacer("{instance}", "acme.my.salesforce.com", "{company}", "9130350000000000", "{api}", "www.zohoapis.ca", "{dc}", s.chosen["dc"]).Replace(own)
	return strings.TrimPrefix(own, n.Sandbox.URL+"/")
}

// places lists what was asked, and by what grant_type.
func (n *internet) places() []string {
	var out []string
	for _, q := range n.asked {
		out = append(out, q.Host+q.Path+" "+q.Form.Get("grant_type")+q.Query.Get("grant_type"))
	}
	return out
}

// gives reports whether a request goes to place with token in it.
func (q said) gives(want string) bool {
	place, token, _ := strings.Cut(want, " ")
	sent := q.Header.Get("Authorization") + " " + q.Form.Get("token") + " " + q.Form.Get("access_token") + " "
	return q.Host+q.Path == place && strings.Contains(sent, token+" ")
}
