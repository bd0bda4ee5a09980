package workos_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
)

// Threats.md S5: a key of one organization learned from status, code and words which
// users the others have.
func TestAKeyOfOneOrganizationDoesNotLearnWhoIsElsewhere(t *testing.T) {
	eachProduct(t, func(t *testing.T, p *product) {
		put := `{"user_id":"vic-ext","organization_id":"theirs","secret":"` + gatewaytest.SandboxKey + `"}`
		p.do(t, "PUT", "/data-integrations/sandbox_key/api-key", put).wants(t, "a user of another organization", 200)
		vic, err := p.Accounts.UserByExternalID(t.Context(), p.env, "vic-ext")
		gatewaytest.Must(t, err)
		mia := p.Person(t, "mia@example.com", account.RoleMember)
		read := p.issue(t, "reads", p.org, account.ScopeConnectionsRead, account.ScopeConnectionsWrite, account.ScopeConnectionsVend)
		write := p.issue(t, "makes", p.org, backEnd()...)
		// The last letter of an id carries fewer bits than it could, so another is changed.
		swap := map[bool]string{true: "1", false: "0"}
		absent := string(vic.ID)[:len(vic.ID)-2] + swap[vic.ID[len(vic.ID)-2] == '0'] + string(vic.ID)[len(vic.ID)-1:]
		requests := []struct{ method, path, body string }{
			{"GET", "/user_management/users/NAME/data_providers", ""},
			{"GET", "/user_management/users/NAME/connected_accounts/sandbox_key", ""},
			{"DELETE", "/user_management/users/NAME/connected_accounts/sandbox_key", ""},
			{"PUT", "/user_management/users/NAME/connected_accounts/sandbox", `{"state":"connected"}`},
			{"POST", "/data-integrations/sandbox_key/credentials", `{"user_id":"NAME"}`},
			{"POST", "/data-integrations/sandbox_key/credentials", `{"user_id":"NAME","connection_owner":"organization"}`},
			{"POST", "/data-integrations/sandbox/token", `{"user_id":"NAME"}`},
			{"POST", "/data-integrations/sandbox/authorize", `{"user_id":"NAME","return_to":"javascript:x"}`},
			{"PUT", "/data-integrations/sandbox_key/api-key", `{"user_id":"NAME","secret":"no-key-of-theirs"}`},
		}
		for who, key := range map[string]string{"reads": read, "makes": write} {
			for _, pair := range [][2]string{{"vic-ext", "nobody-x"}, {string(vic.ID), absent}} {
				for _, r := range requests {
					ask := func(name string) reply {
						return p.as(t, key, r.method, strings.ReplaceAll(r.path, "NAME", name), strings.ReplaceAll(r.body, "NAME", name))
					}
					there, not := ask(pair[0]), ask(pair[1])
					if there.status != not.status || there.raw != not.raw {
						t.Errorf("a key that %s, %s %s %s: %s answers %d %s, %s answers %d %s", who, r.method, r.path, r.body, pair[0], there.status, there.raw, pair[1], not.status, not.raw)
					}
					if who == "reads" && (not.status != 404 || not.body["code"] != "user_not_found") {
						t.Errorf("%s %s of an unknown user: %d %s", r.method, r.path, not.status, not.raw)
					}
				}
			}
		}
		// What it may make it makes; whom another has it does not get.
		body := func(name string) string {
			return `{"user_id":"` + name + `","secret":"` + gatewaytest.SandboxKey + `"}`
		}
		taken := p.as(t, write, "PUT", "/data-integrations/sandbox_key/api-key", body("vic-ext"))
		taken.denies(t, "a name of another organization", 404, "user_not_found")
		if unknown := p.as(t, write, "PUT", "/data-integrations/sandbox_key/api-key", body(absent)); unknown.raw != taken.raw {
			t.Errorf("what cannot be made: %s and %s", taken.raw, unknown.raw)
		}
		if in, err := p.Accounts.Active(t.Context(), p.env, p.org, vic.ID); err != nil || in {
			t.Errorf("a user of another organization was pulled in: %v", err)
		}
		p.as(t, write, "PUT", "/data-integrations/sandbox_key/api-key", body("new-one")).wants(t, "a free name", 200)
		p.as(t, read, "GET", fmt.Sprintf("/user_management/users/%s/data_providers", mia.ID), "").wants(t, "a member", 200)
	})
}

// A request that was refused left the user and the organization behind that it named.
func TestNobodyIsMadeForWhatIsRefused(t *testing.T) {
	eachProduct(t, func(t *testing.T, p *product) {
		p.Put(t, "id: desk\nname: Desk\nauth: api_key\ntenant:\n  - {name: area, title: Area, options: [north, south]}\napi: {base: [\""+p.Sandbox.URL+"/{area}\"]}\ninject: {header: X-Api-Key, format: \"{api_key}\"}\n")
		p.do(t, "PUT", "/data-integrations/sandbox", `{"enabled":false}`).wants(t, "switch off", 200)
		tenant := p.issue(t, "tenant", p.org, backEnd()...)
		for i, r := range []struct {
			path, more, code string
			status           int
		}{
			{"POST /data-integrations/desk/api-key", `,"secret":"a-key-long-enough"`, "tenant_invalid", 422},
			{"PUT /data-integrations/sandbox_key/api-key", `,"secret":"short"`, "credential_unusable", 422},
			{"PUT /data-integrations/sandbox_key/api-key", `,"secret":"no-key-of-theirs"`, "", 0},
			{"PUT /data-integrations/sandbox_key/client-credentials", `,"client_id":"c","client_secret":"s"`, "auth_method_mismatch", 422},
			{"POST /data-integrations/sandbox/authorize", ``, "integration_disabled", 403},
			{"POST /data-integrations/sandbox_key/authorize", ``, "auth_method_mismatch", 422},
			{"POST /user_management/users/squat-NN/connected_accounts/sandbox?organization_id=squat-org", `,"access_token":"not-of-theirs"`, "integration_disabled", 403},
		} {
			name := fmt.Sprintf("squat-%d", i)
			method, path, _ := strings.Cut(strings.ReplaceAll(r.path, "squat-NN", name), " ")
			for _, key := range []string{p.key, tenant} {
				path, in := path, ""
				if key == tenant {
					path, _, _ = strings.Cut(path, "?")
				} else if !strings.Contains(path, "?") {
					in = `,"organization_id":"squat-org"`
				}
				got := p.as(t, key, method, path, `{"user_id":"`+name+`"`+in+r.more+`}`)
				if got.status < 400 || r.code != "" && (got.status != r.status || got.body["code"] != r.code) {
					t.Errorf("%s: got %d %s, want %d %s", r.path, got.status, got.raw, r.status, r.code)
				}
			}
			if _, err := p.Accounts.UserByExternalID(t.Context(), p.env, name); !fault.Is(err, "not_found") {
				t.Errorf("%s %s was refused, and the user is there: %v", r.path, r.more, err)
			}
		}
		p.do(t, "PUT", "/organizations/squat-org/data_integration_configurations/sandbox_key", `{"scopes":["everything"]}`).denies(t, "a scope beyond", 422, "scope_not_allowed")
		if _, err := p.Accounts.OrganizationByExternalID(t.Context(), p.env, "squat-org"); !fault.Is(err, "not_found") {
			t.Errorf("everything was refused, and the organization is there: %v", err)
		}
	})
}

// Create with a custom_provider replaced the record of the provider that had the name,
// with its hosts, tools and live connections.
func TestACustomProviderTakesNoNameThatIsTaken(t *testing.T) {
	eachProduct(t, func(t *testing.T, p *product) {
		describe := func(name, owner string) reply {
			return p.do(t, "POST", "/data-integrations", `{"provider":"`+name+`","ownership":"`+owner+`","credentials":{"type":"organization"},"custom_provider":{"name":"Mine",
				"authorization_url":"https://evil.example/authorize","token_url":"https://evil.example/token"}}`)
		}
		key, err := p.Providers.Get(t.Context(), p.env, "sandbox_key")
		gatewaytest.Must(t, err)
		for _, name := range []string{"sandbox_key", "sandbox-key", "sandbox"} {
			for _, owner := range []string{"user", "organization"} {
				describe(name, owner).denies(t, name, 409, "provider_exists")
			}
		}
		now, err := p.Providers.Get(t.Context(), p.env, "sandbox_key")
		gatewaytest.Must(t, err)
		if now.Version != key.Version || string(now.Record.Source()) != string(key.Record.Source()) {
			t.Errorf("the record was replaced: version %d, then %d", key.Version, now.Version)
		}
		for _, name := range []string{"github", "GitHub", "linear"} {
			describe(name, "user").denies(t, name, 409, "provider_reserved")
		}
		describe("free-name", "user").wants(t, "a free name", 201)
		describe("free-name", "user").denies(t, "twice", 409, "provider_exists")
		if got := p.bare(t, "DELETE", "/data-integrations/free-name"); got != 204 {
			t.Errorf("DELETE: got %d", got)
		}
		describe("free-name", "user").wants(t, "free again", 201)
	})
}

// Issue 5, workos.md 5.3: the SDKs send a POST again when its answer did not come.
// What it makes is made once, and the second gets the answer of the first; also two
// at the same time. Another request, another caller and what was refused are new.
func TestPipesIdempotencyKey(t *testing.T) {
	eachProduct(t, func(t *testing.T, p *product) {
		p.Put(t, severalRecord(p.Sandbox.URL))
		const body = `{"user_id":"u-1","organization_id":"acme","secret":"a-first-key-1","connection_intent":"add"}`
		at := "/data-integrations/several/api-key"
		var wg sync.WaitGroup
		replies := make([]reply, 4)
		other := *p.server // another node, of the same database
		other.url = p.serve(t, true).URL
		for i := range replies {
			node := []*server{p.server, &other}[i%2]
			wg.Go(func() { replies[i] = node.do(t, "POST", at, body, "Idempotency-Key", "retry-1") })
		}
		wg.Wait()
		for i, r := range replies {
			if r.wants(t, "at the same time", 201); r.raw != replies[0].raw {
				t.Errorf("%d: %s, want %s", i, r.raw, replies[0].raw)
			}
		}
		reordered := p.do(t, "POST", at, `{"connection_intent":"add","secret":"a-first-key-1","organization_id":"acme","user_id":"u-1"}`, "Idempotency-Key", "retry-1").wants(t, "later", 201)
		if reordered.body["id"] != replies[0].body["id"] {
			t.Errorf("made again: %s", reordered.raw)
		}
		p.do(t, "POST", at, strings.Replace(body, "first-key-1", "other-key-2", 1), "Idempotency-Key", "retry-1").denies(t, "another request", 422, "idempotency_mismatch")
		p.do(t, "POST", at, body, "Idempotency-Key", strings.Repeat("k", 256)).denies(t, "a long key", 400, "invalid_idempotency_key")
		if fresh := p.do(t, "POST", at, body, "Idempotency-Key", "retry-2").wants(t, "another key", 201); fresh.body["id"] == replies[0].body["id"] {
			t.Error("another key made nothing new")
		}
		if n := len(p.do(t, "GET", "/user_management/users/u-1/data_providers?organization_id=acme", "").list(t)); n == 0 {
			t.Error("nothing is there")
		}

		made := p.do(t, "POST", "/data-integrations", `{"provider":"linear"}`, "Idempotency-Key", "retry-3").wants(t, "create", 201)
		if again := p.do(t, "POST", "/data-integrations", `{"provider":"linear"}`, "Idempotency-Key", "retry-3").wants(t, "create, sent again", 201); again.raw != made.raw {
			t.Errorf("sent again: %s, want %s", again.raw, made.raw)
		}
		p.do(t, "POST", "/data-integrations", `{"provider":"linear"}`, "Idempotency-Key", "retry-4").denies(t, "a new request", 409, "integration_exists")
		if got := p.bare(t, "DELETE", "/data-integrations/linear"); got != 204 {
			t.Fatalf("removed: %d", got)
		}
		p.do(t, "POST", "/data-integrations", `{"provider":"linear"}`, "Idempotency-Key", "retry-4").wants(t, "what was refused may be tried again", 201)
	})
}

// Issue 5, workos.md 2.2: config of an authorization is what the person would choose.
// It is held to the record (threats.md O7), and nothing of it is passed over unsaid.
func TestAuthorizeTakesConfig(t *testing.T) {
	eachProduct(t, func(t *testing.T, p *product) {
		p.do(t, "POST", "/data-integrations", `{"provider":"zendesk","enabled":true,"credentials":{"type":"custom","client_id":"c1","client_secret":"a-client-secret"}}`).wants(t, "create", 201)
		ask := func(config string) reply {
			return p.do(t, "POST", "/data-integrations/zendesk/authorize", `{"user_id":"u-1","organization_id":"acme","config":`+config+`}`)
		}
		if got := fmt.Sprint(ask(`{"subdomain":"acme-help"}`).wants(t, "authorize", 200).body["url"]); !strings.Contains(got, "tenant.subdomain=acme-help") {
			t.Errorf("the page is %s", got)
		}
		ask(`{}`).wants(t, "nothing known", 200)
		ask(`{"host":"acme"}`).denies(t, "a name that is none", 422, "template_param_unknown")
		ask(`{"subdomain":"evil.example/"}`).denies(t, "a value that leads elsewhere", 422, "tenant_invalid")
		p.do(t, "PUT", "/organizations/acme/data_integration_configurations/zendesk", `{"enabled":true,"config":{"subdomain":"x"}}`).denies(t, "of a configuration", 422, "invalid_field")
		p.do(t, "PUT", "/organizations/acme/data_integration_configurations/zendesk", `{"enabled":true,"config":{}}`).wants(t, "an empty one", 200)
	})
}
