package workos_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/intake"
	moving "github.com/ambit-dev/ambit/internal/intake/workos"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// people are the routes of WorkOS' API that are no part of Vault or Pipes: a page each of
// one entry. All else is the wire of another server of ours.
func people(t *testing.T, wire string) *httptest.Server {
	t.Helper()
	at, err := url.Parse(wire)
	gatewaytest.Must(t, err)
	rest := httputil.NewSingleHostReverseProxy(at)
	rest.Transport = http.DefaultTransport
	lists := map[string][]string{
		"/user_management/users": {`{"id":"u-1"}`, `{"id":"u-2"}`, `{"id":"u-3"}`},
		"/organizations":         {`{"id":"acme"}`, `{"id":"empty"}`},
		"/user_management/organization_memberships?user_id=u-1":           {`{"id":"m1","user_id":"u-1","organization_id":"acme"}`},
		"/user_management/organization_memberships?user_id=u-2":           {`{"id":"m2","user_id":"u-2","organization_id":"acme"}`},
		"/user_management/organization_memberships?organization_id=acme":  {`{"id":"m1","user_id":"u-1","organization_id":"acme"}`, `{"id":"m2","user_id":"u-2","organization_id":"acme"}`},
		"/user_management/organization_memberships?user_id=u-3":           {},
		"/user_management/organization_memberships?organization_id=empty": {},
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		after := q.Get("after")
		q.Del("after")
		q.Del("limit")
		key := r.URL.Path
		if len(q) > 0 {
			key += "?" + q.Encode()
		}
		all, ok := lists[key]
		if !ok {
			rest.ServeHTTP(w, r)
			return
		}
		n := 0
		_, _ = fmt.Sscan(after, &n)
		page, next := all[min(n, len(all)):min(n+1, len(all))], "null"
		if n+1 < len(all) {
			next = fmt.Sprintf(`"%d"`, n+1)
		}
		_, _ = fmt.Fprintf(w, `{"object":"list","data":[%s],"list_metadata":{"before":null,"after":%s}}`, strings.Join(page, ","), next)
	}))
	t.Cleanup(web.Close)
	return web
}

// Issue 8, import of connected accounts through WorkOS' API: keys and tokens of users and of
// an organization come over under the ids that they had; a dry run reads no credential and
// changes nothing, a second run does nothing, and no result holds a value. The counterpart is our own wire,
// which WorkOS' SDK passes.
func TestAccountsComeOver(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		from := newProduct(t, sqldbtest.Open(t, sqldb.SQLite))
		there := gatewaytest.New(t, db)
		there.Sandbox, there.Outbound = from.Sandbox, from.Outbound // one third party
		there.Node(t)
		to := productOn(t, there)
		until := from.Clock.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		from.KeyProvider(t, "team_key")
		to.KeyProvider(t, "team_key")
		mia := from.Person(t, "mia@example.com", account.RoleMember)
		from.ConnectOAuth(t, mia, gatewaytest.Mia, nil)
		live := fmt.Sprint(from.do(t, "POST", "/data-integrations/sandbox/token", fmt.Sprintf(`{"user_id":%q,"organization_id":%q}`, mia.ID, from.org)).member("access_token")["access_token"])
		from.do(t, "PUT", "/data-integrations/sandbox_key/api-key", userKey).wants(t, "a key", 200)
		from.do(t, "POST", "/user_management/users/u-2/connected_accounts/sandbox?organization_id=acme", `{"access_token":"`+live+`","expires_at":"`+until+`","scopes":["read"]}`).wants(t, "a token", 201)
		from.do(t, "POST", "/data-integrations", `{"provider":"team_key","ownership":"organization","enabled":true}`).wants(t, "shared", 201)
		from.do(t, "PUT", "/data-integrations/team_key/api-key", `{"user_id":"u-1","organization_id":"acme","connection_owner":"organization","secret":"`+gatewaytest.SandboxKey+`"}`).wants(t, "a shared key", 200)
		to.do(t, "POST", "/data-integrations", `{"provider":"team_key","ownership":"organization","enabled":true}`).wants(t, "shared", 201)

		web := people(t, from.url)
		at, err := url.Parse(web.URL)
		gatewaytest.Must(t, err)
		out, err := outbound.New(outbound.Policy{Allow: []string{at.Host}})
		gatewaytest.Must(t, err)
		src, err := moving.Open(moving.Config{BaseURL: web.URL, Key: secret.FromString(from.key), Out: out})
		gatewaytest.Must(t, err)
		run := func(apply bool) []string {
			t.Helper()
			var list []string
			_, err := moving.ImportAccounts(t.Context(), moving.AccountPlan{Source: src, To: client.New(to.url, to.key), Apply: apply, Done: func(r moving.AccountResult) {
				doc, err := json.Marshal(r)
				gatewaytest.Must(t, err)
				if strings.Contains(string(doc), gatewaytest.SandboxKey) {
					t.Errorf("a key is in the results: %s", doc)
				}
				list = append(list, fmt.Sprintf("%s %s %s %v %s%s", r.User, r.Organization, r.Provider, r.Shared, r.State, r.Code))
			}})
			gatewaytest.Must(t, err)
			slices.Sort(list)
			return list
		}
		all := func(s intake.State) []string {
			return []string{" acme team_key true " + string(s), "u-1 acme sandbox_key false " + string(s), "u-2 acme sandbox false " + string(s)}
		}
		vended := len(from.vends(t))
		if got := run(false); !slices.Equal(got, all(intake.Would)) || len(from.vends(t)) != vended {
			t.Errorf("dry: %q, and %d credentials were read", got, len(from.vends(t))-vended)
		}
		if got := run(true); !slices.Equal(got, all(intake.Taken)) {
			t.Fatalf("taken: %q", got)
		}
		if got := run(true); !slices.Equal(got, all(intake.Same)) {
			t.Errorf("again: %q", got)
		}
		if got := to.do(t, "POST", "/data-integrations/sandbox_key/credentials", `{"user_id":"u-1","organization_id":"acme"}`).wants(t, "the key", 200); got.member("credential")["value"] != gatewaytest.SandboxKey {
			t.Errorf("the key there: %s", got.raw)
		}
		if got := to.do(t, "GET", "/user_management/users/u-2/connected_accounts/sandbox?organization_id=acme", "").wants(t, "the token", 200); got.body["state"] != "connected" || fmt.Sprint(got.body["scopes"]) != "[read]" {
			t.Errorf("the account of OAuth: %s", got.raw)
		}
		to.do(t, "GET", "/user_management/users/u-1/connected_accounts/sandbox_key", "").denies(t, "without its organization", 404, "connected_account_not_found")

		// One whose token has ended gets the one that WorkOS has.
		to.do(t, "PUT", "/user_management/users/u-2/connected_accounts/sandbox?organization_id=acme", `{"state":"needs_reauthorization"}`).wants(t, "ended", 200)
		if got := run(true); !slices.Contains(got, "u-2 acme sandbox false taken") {
			t.Errorf("renewed: %q", got)
		}
	})
}
