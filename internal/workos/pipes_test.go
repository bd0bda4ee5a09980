package workos_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/integration"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/workos"
)

// product is the wire of Pipes over all real rooms, with the sandbox as the third
// party, and the key of a product's back end.
type product struct {
	*gatewaytest.World
	*server
}

func newProduct(t *testing.T, db *sqldb.DB) *product {
	t.Helper()
	return productOn(t, gatewaytest.New(t, db))
}

func productOn(t *testing.T, w *gatewaytest.World) *product {
	t.Helper()
	w.OAuthProvider(t)
	w.KeyProvider(t, "sandbox_key")
	p := &product{World: w, server: &server{db: w.DB, log: w.Audit, vault: w.Vault, people: w.Accounts, env: w.Environment, org: w.Organization}}
	p.url, p.client = p.serve(t, true).URL, http.DefaultClient
	p.key = p.issue(t, "back end", "", backEnd()...)
	return p
}

// backEnd is what the key of a product's back end may do.
func backEnd() []account.Scope {
	return []account.Scope{account.ScopeConnectionsRead, account.ScopeConnectionsWrite, account.ScopeConnectionsVend, account.ScopeProvidersWrite,
		account.ScopeUsersRead, account.ScopeUsersWrite, account.ScopeOrganizationsWrite}
}

func (p *product) serve(t *testing.T, vends bool) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	rooms := integration.New(integration.Config{DB: p.DB, Audit: p.Audit, People: p.Accounts, Providers: p.Providers, Connections: p.Connections, Credentials: p.Credentials, PublicURL: p.PublicURL,
		Vends: vends, Now: p.Clock.Now})
	workos.New(workos.Config{People: p.Accounts, Vault: p.Vault, Audit: p.Audit, Integrations: rooms, PublicURL: p.PublicURL}).Mount(mux)
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	return web
}

func eachProduct(t *testing.T, fn func(t *testing.T, p *product)) {
	t.Helper()
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) { fn(t, newProduct(t, db)) })
}

// denies checks status, code, and that the form is that of Pipes: without the
// "error" for which the SDKs take a 400 or 403 for one of OAuth's.
func (r reply) denies(t *testing.T, what string, status int, code string) {
	t.Helper()
	if _, has := r.body["error"]; r.status != status || r.body["code"] != code || r.body["message"] == "" || has || len(r.body) != 2 {
		t.Errorf("%s: got %d %s, want %d %s", what, r.status, r.raw, status, code)
	}
}

func (r reply) member(name string) map[string]any { m, _ := r.body[name].(map[string]any); return m }

func (r reply) list(t *testing.T) (out []map[string]any) {
	t.Helper()
	all, ok := r.body["data"].([]any)
	if !ok || r.body["object"] != "list" {
		t.Fatalf("not a list: %d %s", r.status, r.raw)
	}
	for _, v := range all {
		out = append(out, v.(map[string]any))
	}
	return out
}

// vends gives the records of what was vended, newest first.
func (p *product) vends(t *testing.T) []audit.Record {
	t.Helper()
	page, err := p.Audit.List(t.Context(), audit.Filter{Environment: p.env, Action: "credential.vended", Limit: 100})
	gatewaytest.Must(t, err)
	return page.Records
}

// vended gives a record of a vending that ended with code; "" is one that went well.
// Which of two is the newer, records of one moment do not tell.
func (p *product) vended(t *testing.T, code string) audit.Record {
	t.Helper()
	for _, r := range p.vends(t) {
		if r.Code == code {
			return r
		}
	}
	t.Fatalf("no vending with the code %q is on record", code)
	return audit.Record{}
}

const userKey = `{"user_id":"u-1","organization_id":"acme","secret":"` + gatewaytest.SandboxKey + `"}`

// Issue 5, workos.md 2.2: integrations, made of the catalogue, of a description, and
// of a provider that is there, for users and for organizations apart.
func TestDataIntegrations(t *testing.T) {
	eachProduct(t, func(t *testing.T, p *product) {
		// A provider that nobody made an integration of is offered as it is.
		got := p.do(t, "GET", "/data-integrations/sandbox", "").wants(t, "as it is", 200)
		if got.body["enabled"] != true || got.body["ownership"] != "user" || got.body["scopes"] != nil || got.member("credentials")["client_id"] != "ambit-test" ||
			got.body["redirect_uri"] != p.PublicURL.JoinPath("/ui/callback/"+string(p.env)+"/sandbox").String() {
			t.Errorf("as it is: %s", got.raw)
		}
		made := p.do(t, "POST", "/data-integrations", `{"provider":"github","ownership":"user","auth_methods":["oauth"],"description":"d","enabled":true,"scopes":["repo"],
			"credentials":{"type":"custom","client_id":"Iv1.0123456789abcdef","client_secret":"a-secret-canary"}}`).wants(t, "create", 201)
		want := []string{"auth_methods", "config", "created_at", "credentials", "custom_provider", "description", "enabled", "id", "installation", "integration_type", "object",
			"ownership", "redirect_uri", "scopes", "slug", "state", "updated_at"}
		if names := keys(made.body); !slices.Equal(names, want) {
			t.Errorf("members: got %v, want %v", names, want)
		}
		if made.body["object"] != "data_integration" || made.body["state"] != "valid" || fmt.Sprint(made.body["scopes"]) != "[repo]" || strings.Contains(made.raw, "canary") {
			t.Errorf("made: %s", made.raw)
		}
		p.do(t, "POST", "/data-integrations", `{"provider":"github"}`).denies(t, "twice", 409, "integration_exists")
		p.do(t, "POST", "/data-integrations", `{"provider":"no-such-thing"}`).denies(t, "unknown", 404, "provider_not_found")
		p.do(t, "POST", "/data-integrations", `{"provider":"linear","auth_methods":["api_key"]}`).denies(t, "another kind", 422, "auth_method_mismatch")
		p.do(t, "POST", "/data-integrations", `{"provider":"slack","config":{"undeclared":"x"}}`).denies(t, "undeclared config", 422, "template_param_unknown")

		custom := p.do(t, "POST", "/data-integrations", `{"provider":"acme-corp","credentials":{"type":"organization"},"scopes":null,"custom_provider":{"name":"Acme","authorization_url":"https://acme.example/authorize",
			"token_url":"https://acme.example/token","refresh_token_url":"https://acme.example/refresh","pkce_enabled":false,"request_scope_separator":",","scopes_required":true,"client_secret_required":true,
			"additional_authorization_parameters":{"access_type":"offline"},"token_body_content_type":"application/json","authenticate_via":"basic_auth_header"}}`).wants(t, "custom", 201)
		if c := custom.member("custom_provider"); custom.body["slug"] != "acme-corp" || c["refresh_token_url"] != "https://acme.example/refresh" || c["pkce_enabled"] != false || c["scopes_required"] != true ||
			c["request_scope_separator"] != "," || c["authenticate_via"] != "basic_auth_header" || c["token_body_content_type"] != "application/json" || custom.body["enabled"] != false ||
			fmt.Sprint(c["additional_authorization_parameters"]) != "map[access_type:offline]" {
			t.Errorf("custom: %s", custom.raw)
		}
		changed := p.do(t, "PUT", "/data-integrations/acme-corp", `{"enabled":true,"scopes":["a","b"],"custom_provider":{"name":"Acme 2","refresh_token_url":null},
			"credentials":{"type":"custom","client_id":"c1","client_secret":"canary-2"}}`).wants(t, "change", 200)
		if c := changed.member("custom_provider"); c["name"] != "Acme 2" || c["refresh_token_url"] != nil || c["token_url"] != "https://acme.example/token" ||
			changed.body["enabled"] != true || changed.member("credentials")["client_id"] != "c1" || strings.Contains(changed.raw, "canary") {
			t.Errorf("changed: %s", changed.raw)
		}
		if got := p.do(t, "PUT", "/data-integrations/acme-corp", `{"scopes":null}`).wants(t, "reset", 200); got.body["scopes"] != nil || got.body["enabled"] != true {
			t.Errorf("scopes reset: %s", got.raw)
		}

		// The twin for organizations is apart.
		p.do(t, "GET", "/data-integrations/acme-corp/organization", "").denies(t, "no twin", 404, "not_found")
		p.do(t, "POST", "/data-integrations", `{"provider":"acme-corp","ownership":"organization","enabled":true}`).wants(t, "twin", 201)
		p.do(t, "PUT", "/data-integrations/acme-corp/organization", `{"enabled":false}`).wants(t, "change the twin", 200)
		if got := p.do(t, "GET", "/data-integrations/acme-corp", ""); got.body["enabled"] != true {
			t.Errorf("changing the twin changed the other: %s", got.raw)
		}
		page := p.do(t, "GET", "/data-integrations?limit=2&order=desc", "").wants(t, "list", 200)
		first := page.list(t)
		if len(first) != 2 || page.member("list_metadata")["before"] != nil || page.member("list_metadata")["after"] == nil {
			t.Fatalf("first page: %s", page.raw)
		}
		seen := len(first)
		for after := page.member("list_metadata")["after"]; after != nil; after = page.member("list_metadata")["after"] {
			page = p.do(t, "GET", "/data-integrations?limit=2&order=desc&after="+fmt.Sprint(after), "").wants(t, "next page", 200)
			seen += len(page.list(t))
		}
		if only := p.do(t, "GET", "/data-integrations?ownership=organization", "").list(t); seen != 5 || len(only) != 1 {
			t.Errorf("%d in all and %d for organizations, want 5 and 1", seen, len(only))
		}
		p.do(t, "GET", "/data-integrations?limit=101", "").denies(t, "limit", 422, "invalid_field")
		for _, path := range []string{"/data-integrations/acme-corp/organization", "/data-integrations/acme-corp"} {
			if got := p.bare(t, "DELETE", path); got != 204 {
				t.Errorf("DELETE %s: got %d", path, got)
			}
			p.do(t, "GET", path, "").denies(t, "after "+path, 404, "not_found")
		}
	})
}

// bare is for answers without a body.
func (p *product) bare(t *testing.T, method, path string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.url+path, nil)
	gatewaytest.Must(t, err)
	req.Header.Set("Authorization", "Bearer "+p.key)
	resp, err := p.client.Do(req)
	gatewaytest.Must(t, err)
	_ = resp.Body.Close()
	return resp.StatusCode
}

// Issue 5: a product's users and organizations by its own names for them, made just
// in time; several accounts of one user; keys kept apart by owner.
func TestConnectedAccounts(t *testing.T) {
	eachProduct(t, func(t *testing.T, p *product) {
		p.do(t, "POST", "/data-integrations", `{"provider":"openai","auth_methods":["api_key"],"enabled":true}`).wants(t, "openai", 201)
		mine := "/user_management/users/u-1/connected_accounts/sandbox_key?organization_id=acme"
		p.do(t, "GET", mine, "").denies(t, "nobody yet", 404, "connected_account_not_found")
		first := p.do(t, "PUT", "/data-integrations/sandbox_key/api-key", userKey).wants(t, "put a key", 200)
		want := []string{"account_display_name", "account_identifier", "api_key_last_4", "auth_method", "client_id", "client_secret_last_4", "config", "connection_role", "created_at", "id",
			"object", "organization_id", "scopes", "state", "updated_at", "user_id"}
		if names := keys(first.body); !slices.Equal(names, want) {
			t.Errorf("members: got %v, want %v", names, want)
		}
		if first.body["connection_role"] != "compatibility" || first.body["auth_method"] != "api_key" || first.body["state"] != "connected" || first.body["account_identifier"] == nil ||
			strings.Contains(first.raw, gatewaytest.SandboxKey) {
			t.Errorf("the account: %s", first.raw)
		}
		u, err := p.Accounts.UserByExternalID(t.Context(), p.env, "u-1")
		gatewaytest.Must(t, err)
		o, err := p.Accounts.OrganizationByExternalID(t.Context(), p.env, "acme")
		gatewaytest.Must(t, err)
		if in, err := p.Accounts.Active(t.Context(), p.env, o.ID, u.ID); err != nil || !in || first.body["user_id"] != string(u.ID) || first.body["organization_id"] != string(o.ID) {
			t.Errorf("made just in time: %v %v %s", in, err, first.raw)
		}
		again := p.do(t, "PUT", "/data-integrations/sandbox_key/api-key", userKey).wants(t, "put it again", 200)
		if again.body["id"] != first.body["id"] {
			t.Errorf("a second put made another account: %s", again.raw)
		}
		p.do(t, "POST", "/data-integrations/sandbox_key/api-key", userKey).denies(t, "a second without saying so", 409, "connected_account_exists")
		p.do(t, "POST", "/data-integrations/sandbox/api-key", userKey).denies(t, "a key where one signs in", 422, "auth_method_mismatch")
		p.do(t, "PUT", "/data-integrations/sandbox_key/client-credentials", `{"user_id":"u-1","organization_id":"acme","client_id":"client-id-1","client_secret":"secret-1"}`).denies(t, "client credentials", 422, "auth_method_mismatch")

		// A look-up never crosses: not the organization, not the owner.
		for what, path := range map[string]string{
			"without the organization": "/user_management/users/u-1/connected_accounts/sandbox_key", "another organization": "/user_management/users/u-1/connected_accounts/sandbox_key?organization_id=other",
			"another user": "/user_management/users/u-2/connected_accounts/sandbox_key?organization_id=acme", "the organization's": "/organizations/acme/connected_accounts/sandbox_key"} {
			p.do(t, "GET", path, "").denies(t, what, 404, "connected_account_not_found")
		}
		alone := p.do(t, "PUT", "/data-integrations/sandbox_key/api-key", `{"user_id":"u-1","secret":"`+gatewaytest.SandboxKey+`"}`).wants(t, "without an organization", 200)
		if alone.body["id"] == first.body["id"] || alone.body["organization_id"] == first.body["organization_id"] {
			t.Errorf("with and without an organization is one account: %s", alone.raw)
		}
		other := p.do(t, "PUT", "/data-integrations/sandbox_key/api-key", `{"user_id":"u-2","secret":"`+gatewaytest.SandboxKey+`"}`).wants(t, "another user", 200)
		if other.body["organization_id"] == alone.body["organization_id"] {
			t.Error("two users without an organization share a tenant")
		}

		// Several, of a provider that does not tell whose account a key opens.
		key := func(secret, more string) string {
			return `{"user_id":"u-1","organization_id":"acme","secret":"` + secret + `"` + more + `}`
		}
		p.Put(t, severalRecord(p.Sandbox.URL))
		one := p.do(t, "POST", "/data-integrations/several/api-key", key("first-key-1", "")).wants(t, "the first", 201)
		two := p.do(t, "POST", "/data-integrations/several/api-key", key("second-key-2", `,"connection_intent":"add"`)).wants(t, "the second", 201)
		if one.body["connection_role"] != "compatibility" || two.body["connection_role"] != "standard" {
			t.Errorf("roles: %s %s", one.raw, two.raw)
		}
		at := "/user_management/users/u-1/connected_accounts/several?organization_id=acme"
		if got := p.do(t, "GET", at, "").wants(t, "one of them", 200); got.body["id"] != one.body["id"] {
			t.Errorf("the one: %s", got.raw)
		}
		p.do(t, "GET", at+"&supports_multiple_connections=true", "").denies(t, "which", 409, "account_selection_required")
		if got := p.do(t, "GET", at+"&supports_multiple_connections=true&connected_account_id="+fmt.Sprint(two.body["id"]), "").wants(t, "by id", 200); got.body["id"] != two.body["id"] {
			t.Errorf("by id: %s", got.raw)
		}
		list := p.do(t, "GET", "/user_management/users/u-1/data_providers?organization_id=acme&supports_multiple_connections=true", "").list(t)
		at3 := slices.IndexFunc(list, func(m map[string]any) bool { return m["slug"] == "several" })
		if several := list[at3]; len(several["connected_accounts"].([]any)) != 2 || several["connected_account"].(map[string]any)["id"] != one.body["id"] || several["integrationType"] != "several" {
			t.Errorf("data provider: %v", several)
		}
		if got := p.bare(t, "DELETE", at); got != 204 {
			t.Errorf("DELETE: got %d", got)
		}
		// The second does not slip into the place of the first.
		p.do(t, "GET", at, "").denies(t, "after the first ended", 404, "connected_account_not_found")
		if got := p.do(t, "POST", "/data-integrations/several/token", `{"user_id":"u-1","organization_id":"acme"}`); got.status != 422 {
			t.Errorf("token of a key: %d %s", got.status, got.raw)
		}
		vended := p.do(t, "POST", "/data-integrations/several/credentials", `{"user_id":"u-1","organization_id":"acme","connected_account_id":"`+fmt.Sprint(two.body["id"])+`"}`).wants(t, "vend by id", 200)
		if c := vended.member("credential"); vended.body["active"] != true || c["value"] != "second-key-2" || c["auth_method"] != "api_key" || c["object"] != "credential" {
			t.Errorf("vended: %s", vended.raw)
		}

		// An organization's own, for which a member acts.
		shared := p.do(t, "PUT", "/data-integrations/sandbox_key/api-key", `{"user_id":"u-1","organization_id":"acme","connection_owner":"organization","secret":"`+gatewaytest.SandboxKey+`"}`).wants(t, "shared", 200)
		if got := p.do(t, "GET", "/organizations/acme/connected_accounts/sandbox_key", "").wants(t, "shared", 200); got.body["id"] != shared.body["id"] || got.body["user_id"] != nil {
			t.Errorf("shared: %s", got.raw)
		}
		p.do(t, "POST", "/data-integrations/sandbox_key/credentials", `{"user_id":"u-2","organization_id":"acme","connection_owner":"organization"}`).denies(t, "no member", 404, "user_not_found")

		// A key of one organization meets the others as absent, and makes nobody elsewhere.
		tenant := p.issue(t, "tenant", o.ID, backEnd()...)
		p.as(t, tenant, "GET", "/user_management/users/u-1/connected_accounts/sandbox_key?organization_id=other", "").denies(t, "another tenant", 404, "organization_not_found")
		if got := p.as(t, tenant, "GET", "/user_management/users/u-1/connected_accounts/sandbox_key", "").wants(t, "its own", 200); got.body["id"] != first.body["id"] {
			t.Errorf("its own: %s", got.raw)
		}
		// Without the scopes for it nobody is made.
		bare := p.issue(t, "bare", "", account.ScopeConnectionsRead, account.ScopeConnectionsWrite)
		p.as(t, bare, "PUT", "/data-integrations/sandbox_key/api-key", `{"user_id":"u-9","secret":"`+gatewaytest.SandboxKey+`"}`).denies(t, "not just in time", 404, "user_not_found")
	})
}

func severalRecord(base string) string {
	return "id: several\nname: Several\nauth: api_key\napi: {base: [\"" + base + "\"]}\ninject: {header: X-Api-Key, format: \"{api_key}\"}\n"
}

// Rule 2, threats.md U1 and S5: what is vended to whom, and to whom never.
func TestVendingToAProduct(t *testing.T) {
	eachProduct(t, func(t *testing.T, p *product) {
		mia := p.Person(t, "mia@example.com", account.RoleMember)
		conn := p.ConnectOAuth(t, mia, gatewaytest.Mia, nil)
		ask := fmt.Sprintf(`{"user_id":%q,"organization_id":%q}`, mia.ID, p.org)
		got := p.do(t, "POST", "/data-integrations/sandbox/token", ask).wants(t, "token", 200)
		first := got.member("access_token")
		if got.body["active"] != true || first["object"] != "access_token" || fmt.Sprint(first["access_token"]) == "" || first["expires_at"] == nil || len(first["scopes"].([]any)) == 0 || len(keys(first)) != 5 {
			t.Fatalf("token: %s", got.raw)
		}
		if r := p.vended(t, ""); r.Decision != "allow" || r.User != mia.ID || r.Connection != conn.ID || r.Actor.Kind != "api_key" || r.Detail["key_name"] != "back end" || r.Detail["auth_method"] != "oauth2" || r.Address == "" {
			t.Errorf("on record: %+v", r.Entry)
		}
		// It is refreshed before it is vended, and an answer is kept for no repetition.
		p.Clock.Advance(2 * time.Hour)
		fresh := p.do(t, "POST", "/data-integrations/sandbox/token", ask, "Idempotency-Key", "retry-1").member("access_token")
		if fresh["access_token"] == first["access_token"] {
			t.Error("an expired token was vended")
		}
		p.Clock.Advance(2 * time.Hour)
		if third := p.do(t, "POST", "/data-integrations/sandbox/token", ask, "Idempotency-Key", "retry-1").member("access_token"); third["access_token"] == fresh["access_token"] {
			t.Error("an answer with a credential was kept for a repetition")
		}
		if n := len(p.vends(t)); n != 3 {
			t.Errorf("%d on record, want 3", n)
		}
		whole := p.do(t, "POST", "/data-integrations/sandbox/credentials", ask).wants(t, "credentials", 200).member("credential")
		if whole["auth_method"] != "oauth" || whole["value"] == "" || whole["expires_at"] == nil || whole["missing_scopes"] == nil {
			t.Errorf("credentials: %v", whole)
		}

		// Nothing is there, or nothing that works: 200, and on record.
		none := p.do(t, "POST", "/data-integrations/sandbox/token", `{"user_id":"nobody-yet"}`).wants(t, "nobody", 200)
		if none.body["active"] != false || none.body["error"] != "not_installed" {
			t.Errorf("nobody: %s", none.raw)
		}
		if r := p.vended(t, "not_installed"); r.Decision != "deny" {
			t.Errorf("on record: %+v", r.Entry)
		}
		if _, err := p.Accounts.UserByExternalID(t.Context(), p.env, "nobody-yet"); err == nil {
			t.Error("asking for a token made a user")
		}
		marked := p.do(t, "PUT", fmt.Sprintf("/user_management/users/%s/connected_accounts/sandbox?organization_id=%s", mia.ID, p.org), `{"state":"needs_reauthorization"}`).wants(t, "mark", 200)
		if got := p.do(t, "POST", "/data-integrations/sandbox/token", ask); marked.body["state"] != "needs_reauthorization" || got.status != 200 || got.body["active"] != false || got.body["error"] != "needs_reauthorization" {
			t.Errorf("needs reauthorization: %d %s", got.status, got.raw)
		}
		p.do(t, "PUT", fmt.Sprintf("/user_management/users/%s/connected_accounts/sandbox?organization_id=%s", mia.ID, p.org), `{"state":"connected"}`).wants(t, "mark", 200)

		// No agent, no session, no cookie, no key without the scope.
		bot := p.Agent(t, mia, "Bot")
		handle := p.Active(t, mia, bot, "sandbox", policy.Read)
		grant := p.Consented(t, mia, "Other bot")
		for what, token := range map[string]string{"an agent's token": string(grant.Tokens.Access.Reveal()), "a session's handle": handle} {
			for _, path := range []string{"/data-integrations/sandbox/token", "/data-integrations/sandbox/credentials"} {
				p.as(t, token, "POST", path, ask).denies(t, what, 403, "agent_not_allowed")
			}
		}
		login := string(mia.Token().Reveal())
		p.as(t, "", "POST", "/data-integrations/sandbox/token", ask, "Cookie", "ambit_login="+login+"; __Host-ambit_login="+login).denies(t, "a cookie", 401, "unauthorized")
		p.as(t, login, "POST", "/data-integrations/sandbox/token", ask).denies(t, "a login", 401, "invalid_api_key")
		scopeless := p.issue(t, "no vending", "", slices.DeleteFunc(backEnd(), func(s account.Scope) bool { return s == account.ScopeConnectionsVend })...)
		p.as(t, scopeless, "POST", "/data-integrations/sandbox/token", ask).denies(t, "without the scope", 403, "insufficient_scope")

		// No standing access: an organization's word counts whatever the key may do.
		o, err := p.Accounts.Organization(t.Context(), p.env, p.org)
		gatewaytest.Must(t, err)
		yes := true
		_, err = p.Accounts.UpdateOrganization(t.Context(), account.System("test").In(p.env), p.org, o.Version, account.OrganizationChange{NoVending: &yes}, account.Agreement{})
		gatewaytest.Must(t, err)
		p.do(t, "POST", "/data-integrations/sandbox/token", ask).denies(t, "no standing access", 403, "no_standing_access")
		p.do(t, "POST", "/data-integrations/sandbox/credentials", ask).denies(t, "no standing access", 403, "no_standing_access")
		if r := p.vended(t, "no_standing_access"); r.Decision != "deny" || r.Connection != conn.ID {
			t.Errorf("on record: %+v", r.Entry)
		}
		// The operator's word counts over everybody's.
		p.url = p.serve(t, false).URL
		p.do(t, "POST", "/data-integrations/sandbox/token", ask).denies(t, "switched off", 403, "vend_disabled")
	})
}

// Issue 5: tokens that an application has already.
func TestImportedAccounts(t *testing.T) {
	eachProduct(t, func(t *testing.T, p *product) {
		mia := p.Person(t, "mia@example.com", account.RoleMember)
		p.ConnectOAuth(t, mia, gatewaytest.Mia, nil)
		live := fmt.Sprint(p.do(t, "POST", "/data-integrations/sandbox/token", fmt.Sprintf(`{"user_id":%q,"organization_id":%q}`, mia.ID, p.org)).member("access_token")["access_token"])
		at := "/user_management/users/u-1/connected_accounts/sandbox"
		soon := p.Clock.Now().Add(10 * time.Minute).Format(time.RFC3339)
		p.do(t, "POST", at, `{}`).denies(t, "nothing", 422, "invalid_token_combination")
		p.do(t, "POST", at, `{"access_token":"`+live+`","expires_at":"2020-01-01T00:00:00.000Z"}`).denies(t, "expired", 422, "invalid_token_combination")
		if got := p.do(t, "POST", at, `{"access_token":"not-a-token-of-theirs"}`); got.status < 400 || got.status == 500 {
			t.Errorf("a wrong token: %d %s", got.status, got.raw)
		}
		made := p.do(t, "POST", at, `{"access_token":"`+live+`","expires_at":"`+soon+`","scopes":["issues:read"]}`).wants(t, "import", 201)
		if made.body["state"] != "connected" || made.body["account_identifier"] == nil || fmt.Sprint(made.body["scopes"]) != "[issues:read]" || strings.Contains(made.raw, live) {
			t.Errorf("imported: %s", made.raw)
		}
		p.do(t, "POST", at, `{"access_token":"`+live+`"}`).denies(t, "twice", 409, "connected_account_exists")
		got := p.do(t, "POST", "/data-integrations/sandbox/token", `{"user_id":"u-1"}`).wants(t, "vend", 200).member("access_token")
		if got["access_token"] != live || fmt.Sprint(got["missing_scopes"]) != "[issues:write issues:delete]" {
			t.Errorf("vended: %v", got)
		}
		// Scopes alone do not connect it again by accident.
		p.do(t, "PUT", at, `{"state":"needs_reauthorization"}`).wants(t, "mark", 200)
		if got := p.do(t, "PUT", at, `{"scopes":["issues:read","issues:write"]}`).wants(t, "scopes", 200); got.body["state"] != "needs_reauthorization" || fmt.Sprint(got.body["scopes"]) != "[issues:read issues:write]" {
			t.Errorf("scopes alone: %s", got.raw)
		}
		p.do(t, "PUT", at, `{"refresh_token":"a-refresh-token-alone"}`).denies(t, "an account that nobody can tell", 422, "account_unknown")
		if got := p.do(t, "PUT", at, `{"access_token":"`+live+`"}`).wants(t, "new tokens", 200); got.body["state"] != "connected" || got.body["id"] != made.body["id"] {
			t.Errorf("new tokens: %s", got.raw)
		}
		// Ending it ends it at the provider too, which WorkOS does not.
		if status := p.bare(t, "DELETE", at); status != 204 {
			t.Errorf("DELETE: got %d", status)
		}
		if got := p.do(t, "POST", "/data-integrations/sandbox/token", `{"user_id":"u-1"}`); got.body["error"] != "not_installed" {
			t.Errorf("after: %s", got.raw)
		}
		c, err := p.Connections.ByID(t.Context(), p.DB.Reader(), p.env, id.Connection(fmt.Sprint(made.body["id"])))
		if err != nil || c.State != connection.Disconnected {
			t.Errorf("the connection: %+v, %v", c.State, err)
		}
	})
}

// Issue 5: what one organization makes of an integration.
func TestConfigurations(t *testing.T) {
	eachProduct(t, func(t *testing.T, p *product) {
		all := p.do(t, "GET", "/organizations/acme/data_integration_configurations", "").list(t)
		if len(all) != 2 || all[0]["object"] != "data_integration_configuration" || all[0]["enabled"] != true {
			t.Fatalf("before: %v", all)
		}
		at := "/organizations/acme/data_integration_configurations/sandbox"
		p.do(t, "PUT", at, `{}`).denies(t, "nothing", 422, "invalid_field")
		p.do(t, "PUT", at, `{"scopes":["issues:everything"]}`).denies(t, "a scope beyond", 422, "scope_not_allowed")
		got := p.do(t, "PUT", at, `{"scopes":["issues:read"]}`).wants(t, "scopes", 200)
		if fmt.Sprint(got.body["scopes"]) != "[issues:read]" || got.member("credentials")["credentials_type"] != "custom" || got.member("credentials")["has_credentials"] != true {
			t.Errorf("scopes: %s", got.raw)
		}
		p.do(t, "PUT", at, `{"enabled":false}`).wants(t, "off", 200)
		p.do(t, "POST", "/data-integrations/sandbox/authorize", `{"user_id":"u-1","organization_id":"acme"}`).denies(t, "off here", 403, "integration_disabled")
		p.do(t, "POST", "/data-integrations/sandbox/authorize", `{"user_id":"u-1","organization_id":"other"}`).wants(t, "on elsewhere", 200)
		if got := p.do(t, "PUT", at, `{"scopes":null,"enabled":true}`).wants(t, "reset", 200); got.body["scopes"] != nil || got.body["enabled"] != true {
			t.Errorf("reset: %s", got.raw)
		}

		// A client of its own: its secret is told to nobody, and it is used for this
		// organization alone, at an address of its own.
		p.do(t, "PUT", at, `{"client_id":"acme-client"}`).denies(t, "a client without its secret", 400, "client_secret_missing")
		own := p.do(t, "PUT", at, `{"client_id":"acme-client","client_secret":"acme-client-secret"}`).wants(t, "own client", 200)
		c := own.member("credentials")
		if c["client_id"] != "acme-client" || c["has_credentials"] != true || c["client_secret_last_four"] != nil || strings.Contains(own.raw, "acme-client-secret") {
			t.Errorf("own client: %s", own.raw)
		}
		if uri := fmt.Sprint(c["redirect_uri"]); !strings.Contains(uri, "/sandbox/org_") {
			t.Errorf("own client: its redirect URI is %s", uri)
		}
		p.do(t, "PUT", at, `{"client_secret":"acme-client-secret-2"}`).wants(t, "another secret", 200)
		p.do(t, "PUT", "/data-integrations/sandbox", `{"credentials":{"type":"organization"}}`).wants(t, "each brings its own", 200)
		p.do(t, "POST", "/data-integrations/sandbox/authorize", `{"user_id":"u-1","organization_id":"acme"}`).wants(t, "with its own", 200)
		p.do(t, "POST", "/data-integrations/sandbox/authorize", `{"user_id":"u-1","organization_id":"other"}`).denies(t, "without", 409, "client_not_shared")
		if got := p.do(t, "GET", "/organizations/other/data_integration_configurations", ""); strings.Contains(got.raw, "acme-client") {
			t.Errorf("another organization is told: %s", got.raw)
		}
	})
}

// Issue 5, threats.md S5: every route of Pipes against every kind of caller.
func TestEachPipesRouteAgainstEachCaller(t *testing.T) {
	eachProduct(t, func(t *testing.T, p *product) {
		mia := p.Person(t, "mia@example.com", account.RoleMember)
		agent := string(p.Consented(t, mia, "Bot").Tokens.Access.Reveal())
		login := string(mia.Token().Reveal())
		_, revoked, err := p.people.IssueKey(t.Context(), account.NewKey{Environment: p.env, Name: "revoked", Scopes: account.Scopes()})
		gatewaytest.Must(t, err)
		k, err := p.people.AuthenticateKey(t.Context(), revoked)
		gatewaytest.Must(t, err)
		gatewaytest.Must(t, p.people.RevokeKey(t.Context(), account.System("test").In(p.env), k.ID()))
		read, write, vend, setup := account.ScopeConnectionsRead, account.ScopeConnectionsWrite, account.ScopeConnectionsVend, account.ScopeProvidersWrite
		without := map[account.Scope]string{}
		for _, s := range []account.Scope{read, write, vend, setup} {
			without[s] = p.issue(t, "without "+s, "", slices.DeleteFunc(account.Scopes(), func(o account.Scope) bool { return o == s })...)
		}
		user, org := "/user_management/users/u/", "/organizations/o/"
		for route, scopes := range map[string][]account.Scope{
			"GET /data-integrations": {read}, "POST /data-integrations": {setup},
			"GET /data-integrations/sandbox": {read}, "PUT /data-integrations/sandbox": {setup}, "DELETE /data-integrations/sandbox": {setup, read, write},
			"GET /data-integrations/sandbox/organization": {read}, "PUT /data-integrations/sandbox/organization": {setup}, "DELETE /data-integrations/sandbox/organization": {setup, read, write},
			"POST /data-integrations/sandbox/authorize": {write}, "POST /data-integrations/sandbox/token": {vend}, "POST /data-integrations/sandbox/credentials": {vend},
			"POST /data-integrations/sandbox/api-key": {write}, "PUT /data-integrations/sandbox/api-key": {write},
			"POST /data-integrations/sandbox/client-credentials": {write}, "PUT /data-integrations/sandbox/client-credentials": {write},
			"GET " + user + "connected_accounts/sandbox": {read}, "POST " + user + "connected_accounts/sandbox": {write},
			"PUT " + user + "connected_accounts/sandbox": {write}, "DELETE " + user + "connected_accounts/sandbox": {write, read}, "GET " + user + "data_providers": {read},
			"GET " + org + "connected_accounts/sandbox": {read}, "POST " + org + "connected_accounts/sandbox": {write},
			"PUT " + org + "connected_accounts/sandbox": {write}, "DELETE " + org + "connected_accounts/sandbox": {write, read}, "GET " + org + "data_providers": {read},
			"GET " + org + "data_integration_configurations": {read}, "PUT " + org + "data_integration_configurations/sandbox": {setup},
		} {
			method, path, _ := strings.Cut(route, " ")
			as := func(who, token string, status int, code string, headers ...string) {
				t.Helper()
				p.as(t, token, method, path, "{}", headers...).denies(t, route+" by "+who, status, code)
			}
			as("nobody", "", 401, "unauthorized")
			as("a cookie", "", 401, "unauthorized", "Cookie", "ambit_login="+login+"; __Host-ambit_login="+login)
			as("a browser's login", login, 401, "invalid_api_key")
			as("a revoked key", string(revoked.Reveal()), 401, "invalid_api_key")
			as("an agent", agent, 403, "agent_not_allowed")
			as("an agent's secret", "amb_cs_"+strings.Repeat("A", 43), 403, "agent_not_allowed")
			as("an agent's refresh token", "amb_rt_"+strings.Repeat("A", 43), 403, "agent_not_allowed")
			for _, s := range scopes {
				as("a key without "+s, without[s], 403, "insufficient_scope")
			}
		}
		p.do(t, "GET", "/organizations/o/no_such_thing", "").denies(t, "no route", 404, "not_found")
	})
}

// Issue 5: a person who connects comes back where their product wanted them, and
// nobody else is sent anywhere.
func TestAuthorizeLeadsBack(t *testing.T) {
	eachProduct(t, func(t *testing.T, p *product) {
		mia, ben := p.Person(t, "mia@example.com", account.RoleMember), p.Person(t, "ben@example.com", account.RoleMember)
		ask := func(to string) reply {
			return p.do(t, "POST", "/data-integrations/sandbox/authorize", fmt.Sprintf(`{"user_id":%q,"organization_id":%q,"return_to":%q}`, mia.ID, p.org, to))
		}
		for _, to := range []string{"javascript:alert(1)", "//evil.example/", "http://evil.example/", "https://user:secret@evil.example/", "/ui/", "ftp://x.example/"} {
			ask(to).denies(t, to, 422, "invalid_return_to")
		}
		got := ask("https://product.example/done").wants(t, "authorize", 200)
		at, err := url.Parse(fmt.Sprint(got.body["url"]))
		gatewaytest.Must(t, err)
		if at.Host != p.PublicURL.Host || at.Path != "/ui/connections/new" || strings.Contains(at.String(), "product.example") {
			t.Errorf("the page: %s", at)
		}
		rooms := integration.New(integration.Config{DB: p.DB, Audit: p.Audit, People: p.Accounts, Providers: p.Providers, Connections: p.Connections, Credentials: p.Credentials, PublicURL: p.PublicURL, Now: p.Clock.Now})
		token := secret.FromString(at.Query().Get("back"))
		if to, err := rooms.Return(t.Context(), mia.Signed(t), token); err != nil || to != "https://product.example/done" {
			t.Errorf("back: %q, %v", to, err)
		}
		if to, err := rooms.Return(t.Context(), ben.Signed(t), token); err == nil {
			t.Errorf("another person was sent to %s", to)
		}
		p.Clock.Advance(2 * time.Hour)
		if to, err := rooms.Return(t.Context(), mia.Signed(t), token); err == nil {
			t.Errorf("after two hours: sent to %s", to)
		}
	})
}
