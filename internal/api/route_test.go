package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/api"
	"github.com/ambit-dev/ambit/internal/api/apitest"
	"github.com/ambit-dev/ambit/internal/custody"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
	"github.com/ambit-dev/ambit/internal/webhook"
)

// operation is one route as the OpenAPI document tells it.
type operation struct {
	method, path string
	ID           string            `json:"operationId"`
	Summary      string            `json:"summary"`
	Tags         []string          `json:"tags"`
	Security     []json.RawMessage `json:"security"`
	Parameters   []parameter       `json:"parameters"`
	Body         json.RawMessage   `json:"requestBody"`
	Responses    map[string]any    `json:"responses"`
	Open         bool              `json:"x-ambit-open"`
	Person       bool              `json:"x-ambit-person"`
	Scopes       []account.Scope   `json:"x-ambit-scopes"`
	Any          []account.Scope   `json:"x-ambit-scopes-any"`
}

type parameter struct {
	Name string `json:"name"`
	In   string `json:"in"`
}

func operations(t testing.TB, url string) []operation {
	t.Helper()
	res := ask(t, request{method: "GET", url: url + "/v1/openapi.json"})
	if res.status != http.StatusOK {
		t.Fatalf("the document: %d %s", res.status, res.body)
	}
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(res.body, &doc); err != nil {
		t.Fatal(err)
	}
	var out []operation
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(doc.Paths[path])) {
			op := operation{method: strings.ToUpper(method), path: path}
			if err := json.Unmarshal(doc.Paths[path][method], &op); err != nil {
				t.Fatalf("%s %s: %v", method, path, err)
			}
			out = append(out, op)
		}
	}
	return out
}

type request struct {
	method, url string
	token       string // bearer
	cookie      string
	header      map[string]string
	body        string
	stream      bool // do not wait for the end of the answer
}

type response struct {
	status int
	header http.Header
	body   []byte
	Error  map[string]string
}

func (r response) code() string { return r.Error["code"] }

// ask sends one request and holds every refusal to the one shape.
func ask(t testing.TB, q request) response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), q.method, q.url, strings.NewReader(q.body))
	if err != nil {
		t.Fatal(err)
	}
	if q.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if q.token != "" {
		req.Header.Set("Authorization", "Bearer "+q.token)
	}
	if q.cookie != "" {
		for _, name := range []string{"ambit", "ambit_login", "__Host-ambit_login", "session"} {
			req.AddCookie(&http.Cookie{Name: name, Value: q.cookie})
		}
	}
	for k, v := range q.header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := response{status: resp.StatusCode, header: resp.Header}
	if q.stream && resp.StatusCode == http.StatusOK {
		return out
	}
	if out.body, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(out.body, []byte("$schema")) {
		t.Errorf("%s %s: the answer has a $schema", q.method, q.url)
	}
	if resp.StatusCode >= 400 {
		var e struct {
			Error map[string]string `json:"error"`
		}
		if err := json.Unmarshal(out.body, &e); err != nil {
			t.Fatalf("%s %s: %d: the refusal is not of our shape: %s", q.method, q.url, resp.StatusCode, out.body)
		}
		out.Error = e.Error
		if e.Error["code"] == "" || e.Error["message"] == "" || e.Error["request_id"] == "" || e.Error["request_id"] != resp.Header.Get("X-Request-ID") {
			t.Errorf("%s %s: a refusal lacks a part: %s", q.method, q.url, out.body)
		}
		if ct := resp.Header.Get("Content-Type"); ct != "application/json" {
			t.Errorf("%s %s: a refusal has the type %q", q.method, q.url, ct)
		}
	}
	return out
}

// expected says what an operation answers to those who are somebody. A login is
// the owner's; key and other have all scopes, for the whole of their
// environment; tenant has them for another organization of the same one.
type expected struct{ login, key, other, tenant int }

// routes must name every operation of the document: T1, S5 and S6 hold for
// what is in it.
var routes = map[string]expected{
	"get-openapi": {200, 200, 200, 200}, "whoami": {200, 200, 200, 200},
	"start-cli-login": {200, 200, 200, 200}, "poll-cli-login": {410, 410, 410, 410}, "end-cli-login": {204, 403, 403, 403},
	"list-environments": {200, 200, 200, 200}, "create-environment": {403, 403, 403, 403},
	"list-organizations": {200, 200, 200, 200}, "create-organization": {201, 201, 201, 403}, "get-organization": {200, 200, 404, 404},
	"list-members": {200, 200, 404, 404}, "set-member": {403, 204, 404, 404}, "remove-member": {204, 204, 404, 404},
	"invite-first-owner": {403, 201, 404, 403},
	"get-settings":       {200, 200, 404, 404}, "set-settings": {200, 200, 404, 404}, "get-policy": {200, 200, 404, 404}, "set-policy": {403, 200, 404, 404}, "try-policy": {200, 200, 404, 404},
	"list-identity-providers": {200, 200, 404, 404}, "create-identity-provider": {403, 403, 403, 403}, "delete-identity-provider": {204, 403, 403, 403},
	"list-users": {200, 200, 200, 403}, "create-user": {403, 201, 404, 404}, "get-user": {200, 200, 404, 404},
	"disable-user": {204, 204, 404, 404}, "enable-user": {204, 204, 404, 404},
	"list-agents": {200, 200, 200, 200}, "create-agent": {403, 201, 404, 404}, "get-agent": {200, 200, 404, 404},
	"set-agent-ceiling": {200, 200, 404, 404}, "mute-agent": {200, 200, 404, 404}, "unmute-agent": {200, 200, 404, 404}, "disable-agent": {200, 200, 404, 404}, "enable-agent": {200, 200, 404, 404}, "rotate-agent-secret": {403, 200, 404, 404}, "set-agent-keys": {403, 200, 404, 404},
	"list-providers": {200, 200, 200, 200}, "get-provider": {200, 200, 404, 200}, "put-provider": {403, 200, 200, 403}, "delete-provider": {204, 204, 404, 403},
	"set-provider-hook": {200, 200, 404, 403}, "delete-provider-hook": {204, 204, 404, 403},
	"list-provider-clients": {200, 200, 404, 200}, "put-provider-client": {403, 200, 404, 404}, "delete-provider-client": {204, 204, 404, 404},
	"lint-provider": {200, 200, 200, 200}, "import-provider": {200, 200, 200, 403}, "list-provider-templates": {200, 200, 200, 200}, "list-provider-catalog": {200, 200, 200, 200}, "fill-provider-template": {200, 200, 200, 200},
	"add-mcp-server": {403, 200, 200, 403}, "look-at-tools": {400, 400, 404, 404}, "take-tools": {400, 400, 404, 404}, "adopt-tools": {400, 400, 404, 404},
	"list-connections": {200, 200, 200, 200}, "get-connection": {200, 200, 404, 404}, "create-connection": {201, 201, 404, 404}, "delete-connection": {200, 200, 404, 404}, "revoke-connections": {200, 200, 404, 404},
	"create-connect-token": {403, 201, 404, 404},
	"list-webhooks":        {200, 200, 200, 200}, "create-webhook": {403, 201, 201, 201}, "get-webhook": {200, 200, 404, 404}, "update-webhook": {200, 200, 404, 404}, "delete-webhook": {204, 204, 404, 404},
	"enable-webhook": {200, 200, 404, 404}, "disable-webhook": {200, 200, 404, 404}, "rotate-webhook-secret": {403, 200, 404, 404}, "test-webhook": {200, 200, 404, 404},
	"list-webhook-deliveries": {200, 200, 404, 404}, "replay-webhook": {200, 200, 404, 404},
	"vend-credential": {403, 200, 404, 404},
	"list-sessions":   {200, 200, 200, 200}, "get-session": {200, 200, 404, 404}, "revoke": {200, 200, 404, 404},
	"list-approvals": {200, 403, 403, 403}, "get-approval": {200, 403, 403, 403},
	"list-audit": {200, 200, 200, 200}, "stream-audit": {200, 200, 200, 200}, "verify-audit": {200, 200, 200, 403},
	"list-keys": {200, 403, 403, 403}, "create-key": {403, 403, 403, 403}, "delete-key": {204, 403, 403, 403},
	"key-status": {200, 200, 200, 403}, "list-context-keys": {200, 200, 200, 200}, "get-context-key": {200, 200, 404, 404}, "rotate-context-key": {200, 200, 404, 404},
	"shred-keys": {403, 200, 404, 404}, "probe-root-key": {200, 200, 404, 404}, "list-bindings": {200, 200, 200, 200}, "create-binding": {403, 201, 404, 404},
	"get-binding": {200, 200, 404, 404}, "delete-binding": {403, 204, 404, 404}, "migrate-binding": {200, 200, 404, 404}, "doubt-binding": {204, 204, 404, 404},
	"list-secrets": {200, 200, 200, 200}, "create-secret": {201, 201, 404, 404}, "get-secret": {200, 200, 404, 404}, "get-secret-value": {403, 200, 404, 404},
	"update-secret": {200, 200, 404, 404}, "delete-secret": {204, 204, 404, 404}, "edit-secret": {200, 200, 404, 404}, "list-secret-versions": {200, 200, 404, 404},
	"restore-secret-version": {200, 200, 404, 404}, "undelete-secret": {200, 200, 404, 404}, "decrypt-blob": {403, 200, 400, 400},
}

// scene makes fresh things and requests that name them.
type scene struct {
	t testing.TB
	w *apitest.World
	n int

	secret id.Secret // the last one made
}

func (s *scene) name(what string) string { s.n++; return fmt.Sprintf("%s %d", what, s.n) }

func (s *scene) slug() string { s.n++; return fmt.Sprintf("weather%d", s.n) }

func (s *scene) record(slug string) string {
	return strings.Replace(sandbox.KeyRecord(s.w.Sandbox), "id: sandbox_key", "id: "+slug+"\nwebhooks: {style: github}", 1)
}

func (s *scene) provider() string {
	s.t.Helper()
	slug := s.slug()
	body := quote(map[string]any{"yaml": s.record(slug)})
	_, key := s.w.Key(s.t, s.w.Env, "", account.Scopes()...)
	if res := ask(s.t, request{method: "PUT", url: s.w.URL + "/v1/providers/" + slug, token: key, body: body}); res.status != 200 {
		s.t.Fatalf("put a provider: %d %s", res.status, res.body)
	}
	return slug
}

// ownClient makes a provider one of OAuth, with a client of the organization.
func (s *scene) ownClient(slug string) {
	s.t.Helper()
	in := provider.Input{YAML: []byte(strings.Replace(sandbox.Record(s.w.Sandbox), "id: sandbox", "id: "+slug, 1)), ClientID: "a", ClientSecret: secret.FromString("client-secret-1")}
	for _, org := range []id.Organization{"", s.w.Org} {
		in.Organization = org
		if _, err := s.w.Providers.Put(s.t.Context(), s.w.System().In(s.w.Env), in, account.Agreement{}); err != nil {
			s.t.Fatal(err)
		}
	}
}

// kek makes a key of a context of its own.
func (s *scene) kek() id.KEK {
	s.t.Helper()
	c := s.w.Applications()
	o, err := s.w.Vault.Create(s.t.Context(), c, vault.NewObject{Name: s.name("keyed"), Context: map[string]string{"organization_id": string(s.w.Org), "thing": s.name("thing")},
		Value: vault.Value{Secret: secret.FromString("secret-canary")}})
	if err != nil {
		s.t.Fatal(err)
	}
	return o.KEK
}

// param makes a thing of Env for a place in a path.
func (s *scene) param(name string) string {
	s.t.Helper()
	switch name {
	case "organization":
		return string(s.w.Org)
	case "user":
		return string(s.w.User(s.t, s.name("user")))
	case "agent":
		a, _ := s.w.Agent(s.t, s.name("agent"))
		return string(a)
	case "provider":
		return s.provider()
	case "template":
		return "custom_api_key"
	case "connection":
		return string(s.w.Connection(s.t, ""))
	case "identity_provider":
		i := id.NewIdentityProvider()
		err := s.w.DB.Update(s.t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := tx.ExecContext(ctx, `insert into identity_provider (id, environment_id, organization_id, name, issuer, client_id, envelope, sealed_version, admits, created_at, version)
				values ($1, $2, $3, 'Login', 'https://login.example.com', 'ambit', $4, 1, 0, 1, 1)`, i, s.w.Env, s.w.Org, []byte{1})
			return err
		})
		if err != nil {
			s.t.Fatal(err)
		}
		return string(i)
	case "webhook":
		e, _, err := s.w.Webhooks.Create(s.t.Context(), s.w.System().In(s.w.Env), webhook.Input{URL: s.w.Sandbox + "/hook", Organization: s.w.Org}, account.Agreement{})
		if err != nil {
			s.t.Fatal(err)
		}
		return string(e.ID)
	case "session":
		return string(s.w.Request(s.t, s.name("agent")).ID)
	case "approval":
		return string(s.w.Request(s.t, s.name("agent")).Approval)
	case "key":
		k, _ := s.w.Key(s.t, s.w.Env, "", account.ScopeAuditRead)
		return string(k)
	case "secret":
		s.secret = s.w.Secret(s.t, s.name("secret"), "secret-canary")
		return string(s.secret)
	case "version": // of the secret that the path names before it
		o, err := s.w.Vault.Describe(s.t.Context(), s.w.Applications(), s.secret)
		if err != nil {
			s.t.Fatal(err)
		}
		return o.VersionID
	case "blob":
		return s.w.Blob(s.t, "secret-canary")
	case "kek":
		return string(s.kek())
	case "binding":
		b, err := s.w.Custody.Bind(s.t.Context(), s.w.System().In(s.w.Env), custody.NewBinding{Organization: s.w.Org, URI: s.w.SpareRoot, Mode: vault.Preferred}, account.Agreement{})
		if err != nil {
			s.t.Fatal(err)
		}
		return string(b.ID)
	}
	s.t.Fatalf("this test knows no %q: add it", name)
	return ""
}

// random is a well-formed name of nothing.
func random(name string) string {
	switch name {
	case "organization":
		return string(id.NewOrganization())
	case "user":
		return string(id.NewUser())
	case "agent":
		return string(id.NewAgent())
	case "connection":
		return string(id.NewConnection())
	case "identity_provider":
		return string(id.NewIdentityProvider())
	case "webhook":
		return string(id.NewWebhook())
	case "session":
		return string(id.NewSession())
	case "approval":
		return string(id.NewApproval())
	case "key":
		return string(id.NewKey())
	case "secret":
		return string(id.NewSecret())
	case "kek":
		return string(id.NewKEK())
	case "binding":
		return string(id.NewBinding())
	case "blob":
		return apitest.BlobOf(append([]byte(vault.DataKeyMagic+"0123456789abcdef\x02{}"), make([]byte, 150)...), make([]byte, 32), "x")
	}
	return "nothing"
}

// rules are those of an organization, of any environment.
func (s *scene) rules(org string) session.Rules {
	r, _ := s.w.Sessions.Rules(s.t.Context(), s.w.System(), id.Organization(org))
	return r
}

// fill gives the path and body of a request that is fit to succeed. thing makes
// the things that it names.
func (s *scene) fill(op operation, thing func(string) string) (path, body string) {
	s.t.Helper()
	path = op.path
	last := ""
	for _, p := range op.Parameters {
		if p.In == "path" {
			last = thing(p.Name)
			if op.ID == "invite-first-owner" && last == string(s.w.Org) { // which has an owner
				o, err := s.w.People.CreateOrganization(s.t.Context(), s.w.System(), s.w.Env, s.name("customer"), "")
				if err != nil {
					s.t.Fatal(err)
				}
				last = string(o.ID)
			}
			path = strings.ReplaceAll(path, "{"+p.Name+"}", last)
		}
	}
	if strings.HasSuffix(op.ID, "-provider-client") && last != "nothing" {
		s.ownClient(last)
	}
	var v map[string]any
	switch op.ID {
	case "poll-cli-login":
		v = map[string]any{"poll": "amb_poll_" + strings.Repeat("A", 43)}
	case "create-environment", "create-organization":
		v = map[string]any{"name": s.name("new")}
	case "invite-first-owner":
		s.n++
		v = map[string]any{"name": "Boss", "email": fmt.Sprintf("boss%d@example.com", s.n)}
	case "create-identity-provider":
		v = map[string]any{"name": "Login", "issuer": "https://login.example.com", "client_id": "ambit"}
	case "set-member":
		v = map[string]any{"role": "approver"}
	case "set-settings":
		v = map[string]any{"version": s.rules(last).SettingsVersion, "default_minutes": 20, "longest_minutes": 240, "approvals": map[string]any{"read": "grant", "write": "call", "destructive": "second", "access": "second"},
			"approvers": []string{"owner"}, "second_to_start": []string{"access"}, "limits": map[string]any{"open_by_agent": 3, "open_by_user": 20, "hourly_by_agent": 20, "hourly_by_user": 100}}
	case "set-policy":
		v = map[string]any{"version": s.rules(last).PolicyVersion, "policy": "forbid(principal, action, resource) when { context.hour < 6 };"}
	case "try-policy":
		v = map[string]any{"policy": "forbid(principal, action, resource);"}
	case "create-user":
		v = map[string]any{"name": s.name("new"), "organization_id": thing("organization")}
	case "create-agent":
		v = map[string]any{"name": s.name("new"), "organization_id": thing("organization"), "kind": "delegated", "owner_id": string(s.w.Owner.User())}
	case "mute-agent":
		v = map[string]any{"seconds": 3600}
	case "set-agent-ceiling":
		v = map[string]any{"version": 1, "ceiling": map[string]any{"effects": []string{"read"}}}
	case "rotate-agent-secret":
		v = map[string]any{"overlap_seconds": 60}
	case "set-agent-keys":
		v = map[string]any{"version": 1, "keys": agenttest.Set(agenttest.NewSigner(s.t, "1"))}
	case "put-provider":
		v = map[string]any{"yaml": s.record(last)}
	case "set-provider-hook":
		v = map[string]any{"secret": "signing-secret-of-the-app"}
	case "put-provider-client":
		v = map[string]any{"organization_id": thing("organization"), "client_id": "b", "client_secret": "client-secret-2", "overlap_seconds": 60}
	case "delete-provider-client":
		path += "?organization_id=" + thing("organization")
	case "lint-provider":
		v = map[string]any{"yaml": s.record("fine")}
	case "import-provider":
		v = map[string]any{"document": "openapi: 3.1.0\ninfo: {title: Fine}\nservers: [{url: \"https://fine.example\"}]\npaths: {/x: {get: {responses: {\"200\": {description: ok}}}}}\n"}
	case "add-mcp-server":
		v = map[string]any{"url": "https://mcp.example.com/mcp", "id": strings.ReplaceAll(s.name("mcp"), " ", "_"), "header": "Authorization"}
	case "take-tools":
		v = map[string]any{"effects": map[string]string{}, "pins": map[string]string{}}
	case "fill-provider-template":
		v = map[string]any{"params": map[string]string{"id": "own", "name": "Own", "api_base": "https://api.example.com"}}
	case "create-connection":
		v = map[string]any{"organization_id": thing("organization"), "provider": "sandbox_key", "fields": map[string]string{"api_key": apitest.SandboxKey}}
	case "create-connect-token":
		v = map[string]any{"user_id": thing("user"), "organization_id": thing("organization"), "providers": []string{"sandbox_key"}}
	case "create-webhook", "update-webhook":
		v = map[string]any{"url": s.w.Sandbox + "/hook", "events": []string{"connection.revoked"}}
	case "rotate-webhook-secret", "replay-webhook":
		v = map[string]any{}
	case "revoke-connections":
		v = map[string]any{"organization_id": thing("organization"), "provider": "not_there"}
	case "revoke":
		v = map[string]any{"session_id": thing("session")}
	case "create-secret":
		v = map[string]any{"name": s.name("new"), "value": "secret-canary", "key_context": map[string]string{"organization_id": thing("organization")}}
	case "update-secret":
		v = map[string]any{"value": "secret-canary"}
	case "edit-secret":
		v = map[string]any{"description": "New.", "tags": []string{"a"}, "expires_at": ""}
	case "restore-secret-version", "rotate-context-key":
		v = map[string]any{}
	case "shred-keys":
		v = map[string]any{"key_id": thing("kek")}
	case "probe-root-key", "create-binding":
		v = map[string]any{"organization_id": thing("organization"), "uri": s.w.SpareRoot}
	case "decrypt-blob":
		v = map[string]any{"blob": thing("blob")}
	}
	if (v != nil) != (len(op.Body) > 0) {
		s.t.Fatalf("%s: the document and this test differ in whether there is a body", op.ID)
	}
	if v == nil {
		return path, ""
	}
	return path, quote(v)
}

func quote(v any) string {
	doc, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(doc)
}

func without(scopes []account.Scope, drop ...account.Scope) []account.Scope {
	return slices.DeleteFunc(slices.Clone(scopes), func(s account.Scope) bool { return slices.Contains(drop, s) })
}

// T1, S5, S6: each operation of the document against each sort of caller.
func TestEachRouteAgainstEachCaller(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := apitest.New(t, db, func(c *api.Config) { c.AllowVend = true })
		s := &scene{t: t, w: w}
		_, agentToken := w.Agent(t, "intruder")
		_, full := w.Key(t, w.Env, "", account.Scopes()...)
		_, other := w.Key(t, w.Other, "", account.Scopes()...)
		_, tenant := w.Key(t, w.Env, w.Tenant, account.Scopes()...)
		revoked, dead := w.Key(t, w.Env, "", account.Scopes()...)
		if err := w.People.RevokeKey(t.Context(), w.System(), revoked); err != nil {
			t.Fatal(err)
		}
		login := w.Login(t, w.Owner)
		browser := string(w.Owner.Token.Reveal())
		seen := map[string]bool{}
		answers := documented(t, w.URL)
		for _, op := range operations(t, w.URL) {
			seen[op.ID] = true
			want, ok := routes[op.ID]
			if !ok {
				t.Errorf("%s %s (%s) is a new route: say in routes who may use it", op.method, op.path, op.ID)
				continue
			}
			path, body := s.fill(op, s.param)
			q := request{method: op.method, url: w.URL + path, body: body, stream: op.ID == "stream-audit"}
			check := func(who string, change func(*request), status int, code string) {
				t.Helper()
				q := q
				change(&q)
				res := ask(t, q)
				answers.hold(t, op, res)
				if res.status != status || code != "" && res.code() != code {
					t.Errorf("%s by %s: got %d %s, want %d %s\n%s", op.ID, who, res.status, res.code(), status, code, res.body)
				}
			}
			nobody, no := http.StatusUnauthorized, ""
			if op.Open {
				nobody = want.key
			}
			as := func(token string) func(*request) { return func(q *request) { q.token = token } }
			// S5: whatever the route, an agent is turned away.
			check("an agent", as(agentToken), http.StatusForbidden, "agent_not_allowed")
			check("an agent with a path of another case of scheme", func(q *request) { q.header = map[string]string{"Authorization": "bearer " + agentToken} }, http.StatusForbidden, "agent_not_allowed")
			check("nobody", as(""), nobody, no)
			check("a cookie", func(q *request) { q.cookie = browser }, nobody, no)
			check("a command line's login in a cookie", func(q *request) { q.cookie = login }, nobody, no)
			check("a browser's login as bearer", as(browser), nobody, no)
			check("a revoked key", as(dead), nobody, no)
			check("a key as basic", func(q *request) { q.header = map[string]string{"Authorization": "Basic c2s6c2s="} }, nobody, no)

			// A key with every scope but the one that counts.
			switch {
			case op.Person:
				check("a key", as(full), http.StatusForbidden, "person_required")
			case len(op.Scopes) > 0:
				for _, drop := range op.Scopes {
					_, bare := w.Key(t, w.Env, "", without(account.Scopes(), drop)...)
					check("a key without "+drop, as(bare), http.StatusForbidden, "missing_scope")
				}
			case len(op.Any) > 0:
				_, bare := w.Key(t, w.Env, "", without(account.Scopes(), op.Any...)...)
				check("a key without a scope", as(bare), http.StatusForbidden, "missing_scope")
			case !op.Open && op.ID != "whoami" && op.ID != "list-environments" && op.ID != "create-key":
				t.Errorf("%s asks for no scope", op.ID)
			}

			// T1: what is another's looks as if it were not.
			for who, c := range map[string]struct {
				token string
				want  int
			}{"another environment's key": {other, want.other}, "another organization's key": {tenant, want.tenant}} {
				check(who, as(c.token), c.want, no)
				if c.want != http.StatusNotFound {
					continue
				}
				real := q
				real.token = c.token
				path, body := s.fill(op, random)
				made := request{method: op.method, url: w.URL + path, token: c.token, body: body}
				if a, b := ask(t, real), ask(t, made); a.status != b.status || withoutRequest(a) != withoutRequest(b) {
					t.Errorf("%s by %s tells what is there from what is not:\n%s\n%s", op.ID, who, a.body, b.body)
				}
			}

			// Those who may.
			path, body = s.fill(op, s.param)
			q.url, q.body = w.URL+path, body
			token := login
			if op.ID == "end-cli-login" {
				token = w.Login(t, w.Owner)
			}
			check("the owner's command line", as(token), want.login, no)
			if !op.Person {
				path, body = s.fill(op, s.param)
				q.url, q.body = w.URL+path, body
				check("a key with all scopes", as(full), want.key, no)
			}
		}
		for name := range routes {
			if !seen[name] {
				t.Errorf("%s is not in the document", name)
			}
		}
		if log := w.Log.String(); strings.Contains(log, "canary") {
			t.Errorf("the log holds a secret:\n%s", log)
		}
	})
}

func withoutRequest(r response) string {
	e := maps.Clone(r.Error)
	delete(e, "request_id")
	return quote(e)
}

// The list of what must send a person to the browser: their stored login does
// none of it (product.md §6).
func TestStoredLoginIsSentToTheBrowser(t *testing.T) {
	t.Parallel()
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), func(c *api.Config) { c.AllowVend = true })
	s := &scene{t: t, w: w}
	login := w.Login(t, w.Owner)
	want := map[string]string{"create-key": "browser_required", "create-agent": "browser_required", "rotate-agent-secret": "browser_required", "create-webhook": "browser_required", "rotate-webhook-secret": "browser_required",
		"get-secret-value": "browser_required", "vend-credential": "api_key_required", "decrypt-blob": "api_key_required"}
	for _, op := range operations(t, w.URL) {
		if want[op.ID] == "" {
			continue
		}
		path, body := s.fill(op, s.param)
		res := ask(t, request{method: op.method, url: w.URL + path, token: login, body: body})
		if res.status != http.StatusForbidden || res.code() != want[op.ID] {
			t.Errorf("%s: got %d %s, want 403 %s", op.ID, res.status, res.body, want[op.ID])
		}
		if want[op.ID] == "browser_required" && !strings.HasPrefix(res.Error["url"], "http://localhost:7420/ui/") {
			t.Errorf("%s: the refusal names no page: %s", op.ID, res.body)
		}
	}
}

// S6: no route decides anything.
func TestNothingApproves(t *testing.T) {
	t.Parallel()
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	apr := string(w.Request(t, "eager").Approval)
	_, agentToken := w.Agent(t, "intruder")
	_, key := w.Key(t, w.Env, "", account.Scopes()...)
	for _, token := range []string{agentToken, key, w.Login(t, w.Owner), string(w.Owner.Token.Reveal())} {
		for _, method := range []string{"POST", "PUT", "PATCH"} {
			for _, path := range []string{"", "/approve", "/decision", "/deny"} {
				res := ask(t, request{method: method, url: w.URL + "/v1/approvals/" + apr + path, token: token, body: `{"approve":true}`})
				if res.status != http.StatusForbidden && res.status != http.StatusNotFound && res.status != http.StatusMethodNotAllowed {
					t.Errorf("%s %s: got %d", method, path, res.status)
				}
			}
		}
	}
	a, err := w.Sessions.Approval(t.Context(), w.Owner.Person, id.Approval(apr))
	if err != nil || a.State != "pending" {
		t.Errorf("the request is %s (%v), want pending", a.State, err)
	}
}
