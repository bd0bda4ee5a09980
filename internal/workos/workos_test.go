package workos_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
	"github.com/ambit-dev/ambit/internal/workos"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is the wire over real parts.
type server struct {
	url    string
	client *http.Client
	db     *sqldb.DB
	log    *audit.Log
	vault  *vault.Vault
	people *account.Service
	env    id.Environment
	org    id.Organization
	key    string // with all of the vault's scopes, for the whole environment
	logged *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func newServer(t *testing.T, db *sqldb.DB) *server {
	t.Helper()
	keeper := keyringtest.File(t, filepath.Join(t.TempDir(), "root.key"))
	var err error
	s := &server{db: db, logged: &lockedBuffer{}}
	logger := slog.New(slog.NewTextHandler(s.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if s.log, err = audit.New(t.Context(), audit.Config{DB: db, Keeper: keeper, CheckpointDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	s.vault = vault.New(vault.Config{DB: db, Keeper: keeper, Audit: s.log, Logger: logger})
	public, err := url.Parse("http://localhost:7420")
	if err != nil {
		t.Fatal(err)
	}
	if s.people, err = account.New(account.Config{DB: db, Vault: s.vault, Audit: s.log, PublicURL: public, Logger: logger}); err != nil {
		t.Fatal(err)
	}
	m := accounttest.Owner(t, s.people).Organizations()[0]
	s.env, s.org = m.Environment, m.Organization
	s.key = s.issue(t, "backend", "", account.ScopeVaultRead, account.ScopeVaultWrite, account.ScopeVaultDelete)
	mux := http.NewServeMux()
	workos.New(workos.Config{People: s.people, Vault: s.vault, Audit: s.log, Logger: logger}).Mount(mux)
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	s.url, s.client = web.URL, web.Client()
	return s
}

// issue gives the token of a new API key.
func (s *server) issue(t *testing.T, name string, org id.Organization, scopes ...account.Scope) string {
	t.Helper()
	_, token, err := s.people.IssueKey(t.Context(), account.NewKey{Environment: s.env, Organization: org, Name: name, Scopes: scopes})
	if err != nil {
		t.Fatal(err)
	}
	return string(token.Reveal())
}

type reply struct {
	status int
	header http.Header
	raw    string
	body   map[string]any
}

// do sends one request as the Node SDK does, with more headers in pairs.
func (s *server) do(t *testing.T, method, path, body string, headers ...string) reply {
	t.Helper()
	return s.as(t, s.key, method, path, body, headers...)
}

func (s *server) as(t *testing.T, key, method, path, body string, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	req.Header.Set("Accept", "application/json, text/plain, */*")
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "workos-node/11.0.0")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	r := reply{status: res.StatusCode, header: res.Header, raw: string(raw)}
	if err := json.Unmarshal(raw, &r.body); err != nil {
		t.Errorf("%s %s: the answer is no JSON object: %q", method, path, raw)
	}
	if res.Header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		t.Errorf("%s %s: headers %v", method, path, res.Header)
	}
	return r
}

// fails checks status, code and the error's three members.
func (r reply) fails(t *testing.T, what string, status int, code string) {
	t.Helper()
	if r.status != status || r.body["code"] != code || r.body["error"] == "" || r.body["error"] == nil || !strings.HasPrefix(fmt.Sprint(r.body["message"]), fmt.Sprint(r.body["error"])) || len(r.body) != 3 {
		t.Errorf("%s: got %d %s, want %d %s", what, r.status, r.raw, status, code)
	}
}

func (r reply) wants(t *testing.T, what string, status int) reply {
	t.Helper()
	if r.status != status {
		t.Fatalf("%s: got %d %s, want %d", what, r.status, r.raw, status)
	}
	return r
}

func keys(v any) (out []string) {
	m, _ := v.(map[string]any)
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func each(t *testing.T, fn func(t *testing.T, s *server)) {
	t.Helper()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) { fn(t, newServer(t, db)) })
}

// Each request that the SDKs make, with the statuses and shapes they are told of.
func TestRecordedRequests(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		made := s.do(t, "POST", "/vault/v1/kv", `{"key_context":{"organization_id":"org_1"},"name":"a b/c","value":"v <&> \u00e9"}`, "Idempotency-Key", "retry-1").wants(t, "createObject", 201)
		if diff := cmp.Diff([]string{"context", "environment_id", "id", "key_id", "updated_at", "updated_by", "version_id"}, keys(made.body)); diff != "" {
			t.Errorf("createObject: %s", diff)
		}
		sid := fmt.Sprint(made.body["id"])
		if made.body["environment_id"] != string(s.env) || !cmp.Equal(made.body["context"], map[string]any{"organization_id": "org_1"}) || !strings.HasPrefix(fmt.Sprint(made.body["key_id"]), "kek_") {
			t.Errorf("createObject: %s", made.raw)
		}
		if by, _ := made.body["updated_by"].(map[string]any); by["name"] != "backend" || !strings.HasPrefix(fmt.Sprint(by["id"]), "key_") {
			t.Errorf("updated_by: %v", by)
		}
		if at, err := time.Parse(time.RFC3339, fmt.Sprint(made.body["updated_at"])); err != nil || !strings.HasSuffix(fmt.Sprint(made.body["updated_at"]), "Z") || time.Since(at) > time.Minute {
			t.Errorf("updated_at: %v", made.body["updated_at"])
		}

		for _, path := range []string{"/vault/v1/kv/" + sid, "/vault/v1/kv/name/a%20b%2Fc", "/vault/v1/kv/name/%61%20b%2fc"} {
			got := s.do(t, "GET", path, "").wants(t, "readObject", 200)
			if diff := cmp.Diff([]string{"id", "metadata", "name", "value"}, keys(got.body)); diff != "" || got.body["value"] != "v <&> é" || got.body["name"] != "a b/c" || got.body["id"] != sid {
				t.Errorf("%s: %s", path, got.raw)
			}
			if diff := cmp.Diff(made.body, got.body["metadata"]); diff != "" {
				t.Errorf("%s: metadata differs: %s", path, diff)
			}
		}
		described := s.do(t, "GET", "/vault/v1/kv/"+sid+"/metadata", "").wants(t, "describeObject", 200)
		if diff := cmp.Diff([]string{"id", "metadata", "name"}, keys(described.body)); diff != "" {
			t.Errorf("describeObject: %s", diff)
		}

		updated := s.do(t, "PUT", "/vault/v1/kv/"+sid, `{"value":"v2","version_check":null}`).wants(t, "updateObject", 201)
		if diff := cmp.Diff([]string{"id", "metadata", "name"}, keys(updated.body)); diff != "" {
			t.Errorf("updateObject: %s", diff)
		}
		first, second := fmt.Sprint(made.body["version_id"]), fmt.Sprint(updated.body["metadata"].(map[string]any)["version_id"])
		s.do(t, "PUT", "/vault/v1/kv/"+sid, `{"value":"v3","version_check":"`+first+`"}`).fails(t, "update of an old version", 409, "version_mismatch")
		s.do(t, "PUT", "/vault/v1/kv/"+sid, `{"value":"v3","version_check":"`+second+`"}`).wants(t, "update of this version", 201)
		s.do(t, "PUT", "/vault/v1/kv/"+sid, `{"value":"v4"}`).wants(t, "update as Go sends it", 201)

		versions := s.do(t, "GET", "/vault/v1/kv/"+sid+"/versions", "").wants(t, "listObjectVersions", 200)
		data, _ := versions.body["data"].([]any)
		if len(data) != 4 || !cmp.Equal(keys(data[0]), []string{"created_at", "current_version", "etag", "id", "size"}) || data[0].(map[string]any)["current_version"] != true ||
			data[3].(map[string]any)["id"] != first || data[3].(map[string]any)["current_version"] != false || !cmp.Equal(keys(versions.body["list_metadata"]), []string{"after", "before"}) {
			t.Errorf("listObjectVersions: %s", versions.raw)
		}

		s.do(t, "DELETE", "/vault/v1/kv/"+sid+"?version_check="+first, "").fails(t, "delete of an old version", 409, "version_mismatch")
		gone := s.do(t, "DELETE", "/vault/v1/kv/"+sid, "").wants(t, "deleteObject", 200)
		if diff := cmp.Diff(map[string]any{"success": true, "name": "a b/c"}, gone.body); diff != "" {
			t.Errorf("deleteObject: %s", diff)
		}
		for _, r := range []reply{s.do(t, "GET", "/vault/v1/kv/"+sid, ""), s.do(t, "DELETE", "/vault/v1/kv/"+sid, ""), s.do(t, "PUT", "/vault/v1/kv/"+sid, `{"value":"x"}`),
			s.do(t, "GET", "/vault/v1/kv/name/a%20b%2Fc", ""), s.do(t, "GET", "/vault/v1/kv/"+sid+"/metadata", ""), s.do(t, "GET", "/vault/v1/kv/"+sid+"/versions", "")} {
			r.fails(t, "after delete", 404, "not_found")
		}
		again := s.do(t, "POST", "/vault/v1/kv", `{"key_context":{},"name":"versioned","value":""}`).wants(t, "create with an empty value", 201)
		s.do(t, "DELETE", fmt.Sprintf("/vault/v1/kv/%s?version_check=%s", again.body["id"], again.body["version_id"]), "").wants(t, "deleteObject(versionCheck)", 200)
	})
}

func TestNamesInPaths(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		for _, name := range []string{"metadata", "versions", "name", "..", ".", "a/../b", "a//b", "%2F", "caf\u00e9", "a?b#c", "x;y=1", "100%", " padded "} {
			doc, err := json.Marshal(map[string]any{"name": name, "value": "value of " + name, "key_context": map[string]string{}})
			if err != nil {
				t.Fatal(err)
			}
			s.do(t, "POST", "/vault/v1/kv", string(doc)).wants(t, "create "+name, 201)
			if got := s.do(t, "GET", "/vault/v1/kv/name/"+url.PathEscape(name), ""); strings.Trim(name, ".") != "" && got.body["value"] != "value of "+name {
				t.Errorf("name %q: got %d %s", name, got.status, got.raw)
			}
		}
		for _, name := range []string{"%2E%2E", "%2E"} { // PathEscape leaves dots, which clients and the mux then clean away
			if got := s.do(t, "GET", "/vault/v1/kv/name/"+name, ""); got.status != 200 {
				t.Errorf("name %q: got %d %s", name, got.status, got.raw)
			}
		}
		s.do(t, "GET", "/vault/v1/kv/name/nothing", "").fails(t, "unknown name", 404, "not_found")
		s.do(t, "GET", "/vault/v1/kv/name/%00", "").fails(t, "zero byte", 404, "not_found")
		s.do(t, "GET", "/vault/v1/kv/name/%FF", "").fails(t, "not UTF-8", 404, "not_found")
	})
}

func TestList(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		empty := s.do(t, "GET", "/vault/v1/kv?order=desc", "").wants(t, "empty", 200)
		if empty.raw != `{"data":[],"list_metadata":{"before":null,"after":null}}`+"\n" {
			t.Errorf("empty list: %s", empty.raw)
		}
		for i := range 12 {
			s.do(t, "POST", "/vault/v1/kv", fmt.Sprintf(`{"name":"key %02d","value":"v","key_context":{}}`, i)).wants(t, "create", 201)
		}
		names := func(r reply) (out []string) {
			for _, d := range r.wants(t, "list", 200).body["data"].([]any) {
				if diff := cmp.Diff([]string{"id", "name", "updated_at"}, keys(d)); diff != "" {
					t.Errorf("item: %s", diff)
				}
				out = append(out, fmt.Sprint(d.(map[string]any)["name"]))
			}
			return out
		}
		after := func(r reply) any { return r.body["list_metadata"].(map[string]any)["after"] }
		first := s.do(t, "GET", "/vault/v1/kv?order=desc", "")
		if got := names(first); len(got) != 10 || got[0] != "key 11" || after(first) == nil {
			t.Errorf("first page: %s", first.raw)
		}
		second := s.do(t, "GET", "/vault/v1/kv?order=desc&after="+fmt.Sprint(after(first)), "")
		if got := names(second); !cmp.Equal(got, []string{"key 01", "key 00"}) || after(second) != nil {
			t.Errorf("second page: %s", second.raw)
		}
		for _, query := range []string{"limit=100&order=desc", "limit=5000", "limit=12&order=asc&updatedAfter=2020-01-01T00%3A00%3A00Z", "limit=12&updated_after=2020-01-01T00%3A00%3A00.000Z"} {
			if r := s.do(t, "GET", "/vault/v1/kv?"+query, ""); len(names(r)) != 12 || after(r) != nil {
				t.Errorf("%s: %s", query, r.raw)
			}
		}
		if got := names(s.do(t, "GET", "/vault/v1/kv?limit=10&search=KEY+07", "")); !cmp.Equal(got, []string{"key 07"}) {
			t.Errorf("search: %q", got)
		}
		if got := names(s.do(t, "GET", "/vault/v1/kv?updatedAfter=2100-01-01T00%3A00%3A00Z", "")); len(got) != 0 {
			t.Errorf("updatedAfter: %q", got)
		}
		for _, query := range []string{"limit=0", "limit=-1", "limit=x", "limit=1&limit=2", "order=random", "after=x", "updatedAfter=yesterday", "updated_after=1", "a=%zz", "after=a&before=b"} {
			if r := s.do(t, "GET", "/vault/v1/kv?"+query, ""); r.status != 400 || r.body["code"] == "" {
				t.Errorf("%s: got %d %s", query, r.status, r.raw)
			}
		}
	})
}

// S13, W6: what could be read in two ways, or is of another shape, is refused.
func TestBadBodies(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		made := s.do(t, "POST", "/vault/v1/kv", `{"name":"k","value":"v","key_context":{}}`).wants(t, "create", 201)
		path := "/vault/v1/kv/" + fmt.Sprint(made.body["id"])
		create := []struct {
			body   string
			status int
			code   string
		}{
			{``, 400, "invalid_json"}, {`{`, 400, "invalid_json"}, {`[]`, 422, "invalid_json"}, {`null`, 422, "missing_field"}, {`{}`, 422, "missing_field"},
			{`{"name":"x","value":"v"}`, 422, "missing_field"}, {`{"name":"x","value":null,"key_context":{}}`, 422, "missing_field"},
			{`{"name":"x","value":7,"key_context":{}}`, 422, "invalid_json"}, {`{"name":"x","value":"v","key_context":{"a":1}}`, 422, "invalid_json"},
			{`{"name":"x","value":"v","key_context":null}`, 422, "missing_field"}, {`{"name":"x","value":"v","key_context":[]}`, 422, "invalid_json"},
			{`{"name":"x","name":"y","value":"v","key_context":{}}`, 400, "invalid_json"}, {`{"name":"x","Name":"y","value":"v","key_context":{}}`, 400, "invalid_json"},
			{`{"name":"x","value":"v","key_context":{},"admin":true}`, 422, "invalid_json"}, {`{"name":"x","value":"a\u0000b","key_context":{}}`, 400, "invalid_json"},
			{`{"name":"","value":"v","key_context":{}}`, 422, "invalid_name"}, {`{"name":"` + strings.Repeat("n", 201) + `","value":"v","key_context":{}}`, 422, "invalid_name"},
			{`{"name":"x","value":"v","key_context":{"a":"` + strings.Repeat("v", 501) + `"}}`, 422, "invalid_key_context"},
			{`{"name":" k ","value":"v","key_context":{}}`, 409, "name_exists"},
			{`{"name":"x","value":"` + strings.Repeat("v", vault.MaxValue+1) + `","key_context":{}}`, 413, "value_too_large"},
			{`{"name":"x","value":"` + strings.Repeat("v", 10<<20) + `","key_context":{}}`, 413, "body_too_large"},
		}
		for _, c := range create {
			s.do(t, "POST", "/vault/v1/kv", c.body).fails(t, fmt.Sprintf("create %.60s", c.body), c.status, c.code)
		}
		// A field that is not known is not repeated; those that are, are named.
		odd := s.do(t, "POST", "/vault/v1/kv", `{"name":"x","value":"v","key_context":{},"admin":true}`)
		if m := fmt.Sprint(odd.body["message"]); !strings.Contains(m, "The fields are name, value, key_context.") || strings.Contains(m, "admin") {
			t.Errorf("an unknown field: %s", m)
		}
		for _, c := range create[:5] {
			s.do(t, "PUT", path, c.body).fails(t, fmt.Sprintf("update %.60s", c.body), 400, c.code)
		}
		s.do(t, "PUT", path, `{"value":1}`).fails(t, "update with a number", 400, "invalid_json")
		s.do(t, "PUT", path, `{"value":"v","version_check":""}`).fails(t, "empty check", 400, "invalid_version_check")
		s.do(t, "DELETE", path+"?version_check=a&version_check=b", "").fails(t, "two checks", 400, "invalid_version_check")
		s.do(t, "GET", "/vault/v1/kv/secret_x", "").fails(t, "malformed id", 404, "not_found")
		s.do(t, "GET", "/vault/v1/kv/"+string(id.NewSecret()), "").fails(t, "unknown id", 404, "not_found")
		s.do(t, "GET", path+"/value", "").fails(t, "unknown part", 404, "not_found")
		s.do(t, "POST", "/vault/v1/keys/unknown", "{}").fails(t, "unknown endpoint", 404, "not_found")
		s.do(t, "PATCH", path, "{}").fails(t, "unknown method", 404, "not_found")
		big := strings.Repeat("é<\U0001F600", vault.MaxValue/7)
		doc, err := json.Marshal(map[string]any{"value": big})
		if err != nil {
			t.Fatal(err)
		}
		s.do(t, "PUT", path, string(doc)).wants(t, "a great value", 201)
		if got := s.do(t, "GET", path, ""); got.body["value"] != big {
			t.Error("a great value changed on the way")
		}
		if _, err := s.vault.Create(t.Context(), s.caller(), vault.NewObject{Name: "binary", Value: vault.Value{Secret: secret.New([]byte{0xff, 0}), Content: vault.Binary}}); err != nil {
			t.Fatal(err)
		}
		s.do(t, "GET", "/vault/v1/kv/name/binary", "").fails(t, "binary value", 400, "value_not_text")
	})
}

func (s *server) caller() vault.Caller {
	return vault.Caller{Reach: vault.Everything(), Actor: audit.Actor{Kind: "system", ID: "test"}, Environment: s.env}
}

// S9: only an application's own valid key is an authentication; and a scope is
// asked for on every route.
func TestAuthentication(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		made := s.do(t, "POST", "/vault/v1/kv", `{"name":"k","value":"canary","key_context":{}}`).wants(t, "create", 201)
		path := "/vault/v1/kv/" + fmt.Sprint(made.body["id"])
		routes := []struct{ scope, method, path, body string }{
			{"vault:read", "GET", path, ""}, {"vault:read", "GET", "/vault/v1/kv/name/k", ""}, {"vault:read", "GET", path + "/metadata", ""},
			{"vault:read", "GET", path + "/versions", ""}, {"vault:read", "GET", "/vault/v1/kv", ""},
			{"vault:write", "POST", "/vault/v1/kv", `{"name":"n","value":"v","key_context":{}}`}, {"vault:write", "PUT", path, `{"value":"x"}`},
			{"vault:delete", "DELETE", path, ""},
		}
		revoked, token, err := s.people.IssueKey(t.Context(), account.NewKey{Environment: s.env, Name: "revoked", Scopes: account.Scopes()})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.people.RevokeKey(t.Context(), account.System("test").In(s.env), revoked.ID); err != nil {
			t.Fatal(err)
		}
		others := map[string]string{"read": s.issue(t, "r", "", account.ScopeVaultRead), "write": s.issue(t, "w", "", account.ScopeVaultWrite),
			"delete": s.issue(t, "d", "", account.ScopeVaultDelete), "audit": s.issue(t, "a", "", account.ScopeAuditRead)}
		for _, r := range routes {
			for what, key := range map[string]string{"none": "", "wrong": "sk_x", "unknown": string(secret.Token("sk_").Reveal()),
				"revoked": string(token.Reveal()), "cut": s.key[:len(s.key)-1], "longer": s.key + "A", "padded": " " + s.key, "other case": strings.ToUpper(s.key)} {
				got := s.as(t, key, r.method, r.path, r.body)
				if got.status != 401 || got.header.Get("WWW-Authenticate") == "" || strings.Contains(got.raw, "canary") {
					t.Errorf("%s %s with key %s: got %d %s", r.method, r.path, what, got.status, got.raw)
				}
			}
			s.as(t, string(secret.Token("amb_at_").Reveal()), r.method, r.path, r.body).fails(t, "an agent", 403, "agent_not_allowed")
			got := s.as(t, "", r.method, r.path, r.body, "Authorization", "Bearer "+s.key, "Authorization", "Bearer sk_x")
			got.fails(t, "two keys", 401, "unauthorized")
			s.as(t, "", r.method, r.path, r.body, "Authorization", "Basic "+s.key).fails(t, "basic", 401, "unauthorized")
			for scope, key := range others {
				if "vault:"+scope != r.scope {
					s.as(t, key, r.method, r.path, r.body).fails(t, r.method+" "+r.path+" with "+scope, 403, "insufficient_scope")
				}
			}
		}
		p, err := s.log.List(t.Context(), audit.Filter{Environment: s.env, Action: "secret.*", Decision: "deny", Limit: 200})
		if err != nil || len(p.Records) != 3*8 {
			t.Errorf("%d refusals on record, %v; want one for each of 24", len(p.Records), err)
		}
		for _, r := range p.Records {
			if r.Code != "insufficient_scope" || r.Actor.Kind != "api_key" || r.Address == "" {
				t.Errorf("refusal: %+v", r.Entry)
			}
		}
		s.do(t, "GET", path, "").wants(t, "the secret stands", 200)
	})
}

// T1: a key of one organization meets the secrets of others as absent ones.
func TestKeyOfOneOrganization(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		limited := s.issue(t, "limited", s.org, account.ScopeVaultRead, account.ScopeVaultWrite, account.ScopeVaultDelete)
		own := s.as(t, limited, "POST", "/vault/v1/kv", `{"name":"own","value":"v","key_context":{"organization_id":"`+string(s.org)+`"}}`).wants(t, "own", 201)
		s.as(t, limited, "GET", "/vault/v1/kv/"+fmt.Sprint(own.body["id"]), "").wants(t, "own", 200)
		s.as(t, limited, "POST", "/vault/v1/kv", `{"name":"x","value":"v","key_context":{"organization_id":"org_other"}}`).fails(t, "create for another", 403, "organization_required")
		foreign := s.do(t, "POST", "/vault/v1/kv", `{"name":"foreign","value":"canary","key_context":{"organization_id":"org_other"}}`).wants(t, "foreign", 201)
		path := "/vault/v1/kv/" + fmt.Sprint(foreign.body["id"])
		unknown := s.as(t, limited, "GET", "/vault/v1/kv/"+string(id.NewSecret()), "")
		for _, r := range []reply{s.as(t, limited, "GET", path, ""), s.as(t, limited, "GET", "/vault/v1/kv/name/foreign", ""), s.as(t, limited, "GET", path+"/metadata", ""),
			s.as(t, limited, "GET", path+"/versions", ""), s.as(t, limited, "PUT", path, `{"value":"x"}`), s.as(t, limited, "DELETE", path, "")} {
			if r.status != 404 || r.raw != unknown.raw {
				t.Errorf("got %d %s, want what an unknown id gets: %s", r.status, r.raw, unknown.raw)
			}
		}
		if r := s.as(t, limited, "GET", "/vault/v1/kv", ""); strings.Contains(r.raw, "foreign") || !strings.Contains(r.raw, "own") {
			t.Errorf("list: %s", r.raw)
		}
	})
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		const body = `{"key_context":{"a":"b"},"name":"k","value":"v"}`
		var wg sync.WaitGroup
		replies := make([]reply, 6)
		for i := range replies {
			wg.Go(func() { replies[i] = s.do(t, "POST", "/vault/v1/kv", body, "Idempotency-Key", "retry-1") })
		}
		wg.Wait()
		for _, r := range replies {
			if r.status != 201 || r.raw != replies[0].raw {
				t.Errorf("got %d %s, want the same answer: %s", r.status, r.raw, replies[0].raw)
			}
		}
		reordered := s.do(t, "POST", "/vault/v1/kv", ` {"value":"v", "name":"k", "key_context":{"a":"b"}}`, "Idempotency-Key", "retry-1")
		if reordered.raw != replies[0].raw {
			t.Errorf("the same JSON in another order: got %d %s", reordered.status, reordered.raw)
		}
		s.do(t, "POST", "/vault/v1/kv", `{"key_context":{"a":"b"},"name":"k","value":"w"}`, "Idempotency-Key", "retry-1").fails(t, "another body", 422, "idempotency_mismatch")
		s.do(t, "POST", "/vault/v1/kv", body, "Idempotency-Key", "retry-2").fails(t, "another key", 409, "name_exists")
		s.do(t, "POST", "/vault/v1/kv", body).fails(t, "no key", 409, "name_exists")
		other := s.issue(t, "other", "", account.ScopeVaultWrite)
		s.as(t, other, "POST", "/vault/v1/kv", body, "Idempotency-Key", "retry-1").fails(t, "key of another caller", 409, "name_exists")
		s.do(t, "POST", "/vault/v1/kv", body, "Idempotency-Key", strings.Repeat("k", 256)).fails(t, "long key", 400, "invalid_idempotency_key")
		s.do(t, "POST", "/vault/v1/kv", body, "Idempotency-Key", "a", "Idempotency-Key", "b").fails(t, "two keys", 400, "invalid_idempotency_key")
	})
}

// L2, L3: a value leaves only when its read is on record, and neither log holds it.
func TestReadsAreOnRecord(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		const canary = "canary-3b1f6c"
		made := s.do(t, "POST", "/vault/v1/kv", `{"name":"k","value":"`+canary+`","key_context":{}}`).wants(t, "create", 201)
		path := "/vault/v1/kv/" + fmt.Sprint(made.body["id"])
		s.do(t, "GET", path, "").wants(t, "read", 200)
		p, err := s.log.List(t.Context(), audit.Filter{Environment: s.env, Action: "secret.read"})
		if err != nil || len(p.Records) != 1 || p.Records[0].Object != made.body["id"] || p.Records[0].Decision != "allow" || p.Records[0].Address != "127.0.0.1" {
			t.Errorf("reads on record: %+v, %v", p.Records, err)
		}
		doc, err := json.Marshal(p)
		if err != nil || bytes.Contains(doc, []byte(canary)) {
			t.Errorf("the audit log holds the value (%v)", err)
		}
		err = s.db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := tx.ExecContext(ctx, `alter table audit_entry rename to audit_away`)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []string{path, "/vault/v1/kv/name/k", path + "/metadata", "/vault/v1/kv"} {
			r := s.do(t, "GET", at, "")
			r.fails(t, at+" without audit", 503, "audit_unavailable")
			if r.header.Get("Retry-After") == "" || strings.Contains(r.raw, canary) {
				t.Errorf("%s: %v %s", at, r.header, r.raw)
			}
		}
		s.logged.mu.Lock()
		defer s.logged.mu.Unlock()
		if strings.Contains(s.logged.String(), canary) || strings.Contains(s.logged.String(), s.key) {
			t.Error("the server's log holds a secret")
		}
	})
}
