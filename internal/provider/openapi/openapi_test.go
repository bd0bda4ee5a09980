package openapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
)

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// report is what a person gets to read.
func report(d Draft) string {
	var b strings.Builder
	b.WriteString(d.YAML)
	for _, n := range d.Left {
		fmt.Fprintf(&b, "# left out: %s: %s\n", n.Where, n.Text)
	}
	for _, n := range d.Flagged {
		fmt.Fprintf(&b, "# look at: %s: %s\n", n.Where, n.Text)
	}
	return b.String()
}

// Issue 5: an OpenAPI document becomes a record for review, and what was left out
// or guessed is named. The whole of it is in testdata/depot.record.
func TestDraft(t *testing.T) {
	t.Parallel()
	d, err := Read(t.Context(), readFile(t, "depot.yaml"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := report(d)
	if os.Getenv("AMBIT_UPDATE") != "" {
		if err := os.WriteFile(filepath.Join("testdata", "depot.record"), []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(readFile(t, "depot.record")), got); diff != "" {
		t.Error(diff)
	}
	r, err := provider.Parse([]byte(d.YAML))
	if err != nil || r.ID != d.ID || len(r.Tools()) != d.Tools {
		t.Fatalf("%s, %d tools (%v), want what the draft says: %s, %d", r.ID, len(r.Tools()), err, d.ID, d.Tools)
	}
}

// A tool of a draft makes the request that the description means.
func TestDraftedToolsBuild(t *testing.T) {
	t.Parallel()
	d, err := Read(t.Context(), readFile(t, "depot.yaml"), Options{ID: "dd"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := provider.Parse([]byte(d.YAML))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ args, want string }{
		"dd_list_crates":               {`{"depot_id":"a b","tag":["x","y"],"ids":"1,2"}`, "GET https://eu.depot.example/v2/crates?depot-id=a+b&ids=1%2C2&tag=x&tag=y "},
		"dd_create_crate":              {`{"depot_id":"1","label":"box","note":null}`, `POST https://eu.depot.example/v2/crates?depot-id=1 {"label":"box","note":null}`},
		"dd_post_crates_crate_id_ship": {`{"crate_id":7,"to":"Ada","stamps":["a","b"]}`, "POST https://eu.depot.example/v2/crates/7/ship stamps=a&stamps=b&to=Ada"},
		"dd_delete_crate":              {`{"crate_id":7}`, "DELETE https://eu.depot.example/v2/crates/7 "},
	} {
		tool, ok := r.Tool(name)
		if !ok {
			t.Errorf("%s is not there", name)
			continue
		}
		req, err := tool.Build(json.RawMessage(c.args), r.API.Base...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := req.Method + " " + req.URL.String() + " " + string(req.Body); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

// Effects follow the method, and the words of the path make them stricter, never
// milder.
func TestEffects(t *testing.T) {
	t.Parallel()
	for request, want := range map[string]policy.Effect{
		"GET /items": policy.Read, "POST /items": policy.Write, "PUT /items/{id}": policy.Write, "PATCH /items/{id}": policy.Write, "DELETE /items/{id}": policy.Destructive,
		"GET /users": policy.Read, "POST /users": policy.Access, "DELETE /teams/{id}/users/{user}": policy.Access, "PATCH /users/{id}/settings": policy.Write,
		"GET /api_keys": policy.Access, "GET /apiKeys/{id}": policy.Access, "POST /oauth/revoke": policy.Access, "GET /tokens": policy.Access, "GET /projects/{id}/deploy-keys": policy.Access,
		"POST /repos/{r}/hooks": policy.Access, "GET /repos/{r}/hooks": policy.Read, "PUT /files/{id}/permissions/{p}": policy.Access, "POST /admin/jobs": policy.Access,
		"POST /invoices/{id}/void": policy.Destructive, "POST /messages/send": policy.Destructive, "POST /refunds": policy.Destructive, "POST /{id}/cancel": policy.Destructive,
		"GET /keyboards": policy.Read, "GET /monkeys": policy.Read, "GET /items/{token}": policy.Read, "POST /items/{invite}": policy.Write,
	} {
		method, path, _ := strings.Cut(request, " ")
		if got, why := effectOf(method, path, "", ""); got != want || (why == "") != (got == want && why == "") {
			t.Errorf("%s: %s (%s), want %s", request, got, why, want)
		}
	}
}

// Finding F6: a GET that deletes or sends was drafted as read, and a name that
// speaks of members or roles did not count. Words of the path, of the name and at
// the summary's beginning raise the effect over the method's, and that is told.
func TestEffectsOfNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method, path, id, summary string
		want                      policy.Effect
		raised                    bool
	}{
		// As they were found.
		{"GET", "/users/delete", "deleteUser", "", policy.Access, true},
		{"GET", "/send", "sendMail", "", policy.Destructive, true},
		{"GET", "/x", "purgeAll", "", policy.Destructive, true},
		{"PUT", "/m", "addMember", "", policy.Access, true},
		{"PATCH", "/m", "grantRole", "", policy.Access, true},
		// The same said by one place alone, and written otherwise.
		{"GET", "/users/delete", "", "", policy.Destructive, true},
		{"GET", "/users/delete", "getUsersDelete", "Get", policy.Destructive, true},
		{"GET", "/deleteuser", "", "", policy.Destructive, true},
		{"GET", "/x", "x-purge_all", "", policy.Destructive, true},
		{"GET", "/x", "XMLPurgeAll", "", policy.Destructive, true},
		{"GET", "/x", "x", "Deletes a crate", policy.Destructive, true},
		{"GET", "/x", "x", "publishes it", policy.Destructive, true},
		{"HEAD", "/x", "cancelOrder", "", policy.Destructive, true},
		{"GET", "/x", "createItem", "", policy.Write, true},
		{"GET", "/x", "x", "Approve it", policy.Write, true},
		{"GET", "/jobs/{id}/start", "getJobStart", "", policy.Write, true},
		{"GET", "/run", "getRun", "", policy.Write, true}, // the name is made of method and path
		{"GET", "/x", "inviteGuest", "", policy.Access, true},
		{"GET", "/x", "addWebhook", "", policy.Access, true},
		{"GET", "/x", "listApiKeys", "", policy.Access, true},
		{"GET", "/x", "getClientSecret", "", policy.Access, true},
		{"POST", "/x", "createUser", "", policy.Access, true},
		{"POST", "/x", "x", "Share a file", policy.Access, true},
		{"POST", "/x/{id}/y", "deleteX", "", policy.Destructive, true},
		{"POST", "/x", "refundOrder", "", policy.Destructive, true},
		{"DELETE", "/x", "removeCollaborator", "", policy.Access, true},
		// Nothing is raised that a method says, and things are no deeds.
		{"DELETE", "/items/{id}", "getItem", "List items", policy.Destructive, false},
		{"POST", "/items", "createItem", "Create an item", policy.Write, false},
		{"GET", "/refunds/{id}", "getRefund", "Get a refund", policy.Read, false},
		{"GET", "/posts/{id}/updates", "posts/list-updates", "", policy.Read, false},
		{"GET", "/payments", "", "", policy.Read, false},
		{"GET", "/senders", "listSenders", "Lists senders", policy.Read, false},
		{"GET", "/items/deleted", "listDeletedItems", "", policy.Read, false},
		{"GET", "/members", "listMembers", "", policy.Read, false},
	} {
		got, why := effectOf(c.method, c.path, c.id, c.summary)
		if got != c.want || (why != "") != c.raised {
			t.Errorf("%s %s (%s: %q): %s, %q; want %s, raised: %v", c.method, c.path, c.id, c.summary, got, why, c.want, c.raised)
		}
	}
	d, err := Read(t.Context(), []byte(strings.Replace(small, "operationId: x", "operationId: purgeAll", 1)), Options{})
	if err != nil || len(d.Flagged) == 0 || !strings.Contains(report(d), "look at: GET /x: Its name speaks of purge,") || !strings.Contains(d.YAML, "effect: destructive") {
		t.Errorf("a GET that purges is not told of: %v\n%s", err, report(d))
	}
}

const small = `openapi: 3.0.3
info: {title: Small}
servers: [{url: "https://small.example"}]
paths:
  /x: {get: {operationId: x, responses: {"200": {description: ok}}}}
`

// Threats U3, U5: a description is data. What would make reading it open a file,
// make a request or never end is refused, and so is what is no description.
func TestRefused(t *testing.T) {
	t.Parallel()
	ref := func(to string) string {
		return strings.Replace(small, "responses:", `parameters: [{name: a, in: query, schema: {$ref: "`+to+`"}}], responses:`, 1)
	}
	chain := small + "components:\n  schemas:\n"
	for i := range 150 {
		chain += fmt.Sprintf("    S%d: {properties: {p: {$ref: \"#/components/schemas/S%d\"}}}\n", i, i+1)
	}
	chain += "    S150: {type: string}\n"
	for name, c := range map[string]struct{ text, code string }{
		"file":        {ref("/etc/passwd"), "description_invalid"},
		"file URL":    {ref("file:///etc/passwd#/x"), "description_invalid"},
		"beside":      {ref("./other.yaml#/a"), "description_invalid"},
		"web":         {ref("https://evil.example/x.json#/a"), "description_invalid"},
		"bare anchor": {ref("#x"), "description_invalid"},
		"nowhere":     {ref("#/components/schemas/None"), "description_invalid"},
		"chain":       {chain, "description_too_large"},
		"aliases":     {"a: &a [1]\nb: *a\n" + small, "description_invalid"},
		"deep":        {"x: " + strings.Repeat("[", 80) + strings.Repeat("]", 80) + "\n" + small, "description_too_large"},
		"deep JSON":   {`{"openapi":"3.1.0","x":` + strings.Repeat("[", 80) + strings.Repeat("]", 80) + "}", "description_too_large"},
		"Swagger":     {"swagger: \"2.0\"\npaths: {}\n", "description_invalid"},
		"version":     {strings.Replace(small, "3.0.3", "4.0.0", 1), "description_invalid"},
		"no server":   {strings.Replace(small, "servers:", "x-servers:", 1), "description_invalid"},
		"no tools":    {strings.Replace(small, "get:", "trace:", 1), "description_invalid"},
		"no paths":    {"openapi: 3.1.0\ninfo: {title: x}\n", "description_invalid"},
		"empty":       {"", "description_invalid"},
		"no YAML":     {"{", "description_invalid"},
		"HTML":        {"<!doctype html><p>Sign in: please</p>", "description_invalid"},
		"no UTF-8":    {"\xff", "description_invalid"},
		"large":       {strings.Repeat(" ", MaxBytes+1), "description_too_large"},
		"good":        {small, ""},
	} {
		_, err := Read(t.Context(), []byte(c.text), Options{})
		if code := fault.Of(err); (c.code == "") != (err == nil) || err != nil && code.Code != c.code {
			t.Errorf("%s: %v, want %q", name, err, c.code)
		}
	}
}

// The server that credentials go to is the first one that a record can hold, in
// full; another one is never added by itself (threats.md O7).
func TestServer(t *testing.T) {
	t.Parallel()
	for servers, want := range map[string]string{
		`[{url: "https://a.example/v1/"}, {url: "https://b.example"}]`:  "https://a.example/v1",
		`[{url: "ftp://a.example"}, {url: "https://b.example"}]`:        "https://b.example",
		`[{url: "https://u:p@a.example"}, {url: "https://b.example"}]`:  "https://b.example",
		`[{url: "https://{h}.example"}, {url: "https://b.example"}]`:    "https://b.example",
		`[{url: "https://a.example/?x=1"}, {url: "https://b.example"}]`: "https://b.example",
		`[{url: /v3}]`: "https://source.example/v3",
		`[]`:           "https://source.example",
	} {
		d, err := Read(t.Context(), []byte(strings.Replace(small, `[{url: "https://small.example"}]`, servers, 1)), Options{Source: "https://source.example/docs/openapi.yaml"})
		if err != nil {
			t.Errorf("%s: %v", servers, err)
			continue
		}
		r, err := provider.Parse([]byte(d.YAML))
		if err != nil || len(r.API.Base) != 1 || r.API.Base[0] != want {
			t.Errorf("%s: %v (%v), want %s", servers, r.API.Base, err, want)
		}
	}
	if _, err := Read(t.Context(), []byte(small), Options{ID: "No Slug"}); !fault.Is(err, "description_invalid") {
		t.Errorf("an id that is no slug: %v", err)
	}
	d, err := Read(t.Context(), []byte(small), Options{Server: "https://other.example/v9"})
	if err != nil || !strings.Contains(d.YAML, "https://other.example/v9") || strings.Contains(d.YAML, "small.example") {
		t.Errorf("a server that is given: %v\n%s", err, d.YAML)
	}
}

// Each kind of credential that a record can hold alone.
func TestSecurity(t *testing.T) {
	t.Parallel()
	const who = `
  /me: {get: {responses: {"200": {description: ok, content: {application/json: {schema: {properties: {sub: {type: string}, email: {type: string}}}}}}}}}
components: {securitySchemes: {s: `
	for name, c := range map[string]struct{ scheme, want string }{
		"bearer": {"{type: http, scheme: bearer}", "auth: api_key\nidentity:\n  path: /me\n  id: sub\n  label: email\napi:\n  base:\n  - https://small.example\ninject:\n  header: Authorization\n  format: Bearer {api_key}\n"},
		"basic":  {"{type: http, scheme: Basic}", "inject:\n  basic:\n    username: '{username}'\n    password: '{password}'\n"},
		"query":  {"{type: apiKey, in: query, name: api_key}", "inject:\n  query: api_key\n  format: '{api_key}'\n"},
		"OAuth": {"{type: oauth2, flows: {authorizationCode: {authorizationUrl: \"https://small.example/authorize\", tokenUrl: /token, scopes: {\"items:read\": \"Read\\nitems\", \"admin\": \"\", \"a,b\": x}}}}",
			"oauth2:\n  authorize_url: https://small.example/authorize\n  token_url: https://source.example/token\n  scopes:\n    catalog:\n    - id: admin\n      title: admin\n      risk: admin\n    - id: items:read\n      title: Read items\n      risk: read\n"},
		"digest":  {"{type: http, scheme: digest}", "header: Authorization\n  format: Bearer {api_key}\n"},
		"OpenID":  {"{type: openIdConnect, openIdConnectUrl: \"https://small.example/\"}", "header: Authorization\n  format: Bearer {api_key}\n"},
		"machine": {"{type: oauth2, flows: {clientCredentials: {tokenUrl: \"https://small.example/token\", scopes: {}}}}", "header: Authorization\n  format: Bearer {api_key}\n"},
	} {
		d, err := Read(t.Context(), []byte(small+who[1:]+c.scheme+"}}\n"), Options{Source: "https://source.example/openapi.json"})
		if err != nil || !strings.Contains(d.YAML, c.want) {
			t.Errorf("%s: %v\n%s\nwant in it\n%s", name, err, d.YAML, c.want)
		}
		assumed := false
		for _, n := range d.Flagged {
			assumed = assumed || strings.Contains(n.Text, "assumed")
		}
		if guess := strings.Contains("digest OpenID machine", name); assumed != guess {
			t.Errorf("%s: it is told that the credential was assumed: %v", name, assumed)
		}
	}
}

// A large description gives as many tools as a record holds, says of the others
// that there was no room, and takes a part when asked for one.
func TestLarge(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("openapi: 3.1.0\ninfo: {title: Large}\nservers: [{url: \"https://large.example\"}]\npaths:\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "  /a%d/x: {get: {summary: Get %d, responses: {\"200\": {description: ok}}}}\n", i, i)
	}
	d, err := Read(t.Context(), []byte(b.String()), Options{})
	if err != nil || d.Tools != maxTools || len(d.Left) != 1000-maxTools {
		t.Errorf("%d tools, %d left out (%v), want %d and the rest", d.Tools, len(d.Left), err, maxTools)
	}
	d, err = Read(t.Context(), []byte(b.String()), Options{Only: []string{"/a99"}})
	if err != nil || d.Tools != 11 || len(d.Left) != 0 {
		t.Errorf("a part: %d tools, %d left out (%v), want 11", d.Tools, len(d.Left), err)
	}
}

// A tool whose path another tool of effect access reaches has that effect too;
// else the linter would refuse the record, or a mild tool do what a strict one
// guards.
func TestAccessSpreads(t *testing.T) {
	t.Parallel()
	text := strings.Replace(small, "paths:\n", `paths:
  /a/{kind}: {parameters: [{name: kind, in: path, required: true, schema: {type: string}}], post: {operationId: make, security: [], responses: {"200": {description: ok}}}}
  /{place}/tokens: {parameters: [{name: place, in: path, required: true, schema: {type: string}}], post: {operationId: token, responses: {"200": {description: ok}}}}
  /x/{y}: {parameters: [{name: y, in: path, required: true, schema: {type: string}}], post: {operationId: y, responses: {"200": {description: ok}}}}
`, 1)
	d, err := Read(t.Context(), []byte(text), Options{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := provider.Parse([]byte(d.YAML))
	if err != nil {
		t.Fatal(err)
	}
	tool, _ := r.Tool("small_y")
	if _, err := tool.Build(json.RawMessage(`{"y":"tokens"}`), r.API.Base...); !fault.Is(err, "access_refused") {
		t.Errorf("a mild tool makes a token: %v", err)
	}
}

// A description at an address is read by the server's own client: by those who
// may manage providers, from public places alone (threats.md O7), and without
// following redirects (O9).
func TestImport(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/openapi.yaml":
			if len(r.Cookies()) > 0 || r.Header.Get("Authorization") != "" {
				t.Error("the request carries a credential")
			}
			_, _ = w.Write([]byte(strings.Replace(small, "https://small.example", "/v1", 1)))
		case "/moved":
			http.Redirect(w, r, "/openapi.yaml", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	closed, err := outbound.New(outbound.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	open, err := outbound.New(outbound.Policy{Allow: []string{strings.TrimPrefix(srv.URL, "http://")}})
	if err != nil {
		t.Fatal(err)
	}
	by := account.System("test").In(id.NewEnvironment())
	d, err := NewImporter(open).Import(t.Context(), by, nil, Options{Source: srv.URL + "/openapi.yaml"})
	if err != nil || !strings.Contains(d.YAML, srv.URL+"/v1") {
		t.Errorf("%v\n%s", err, d.YAML)
	}
	for name, c := range map[string]struct {
		client *outbound.Client
		text   string
		source string
		code   string
	}{
		"not allowed": {closed, "", srv.URL + "/openapi.yaml", "destination_denied"},
		"private":     {closed, "", "https://10.0.0.1/openapi.json", "destination_denied"},
		"metadata":    {open, "", "http://169.254.169.254/latest", "destination_denied"},
		"a file":      {open, "", "file:///etc/passwd", "url_invalid"},
		"redirect":    {open, "", srv.URL + "/moved", "description_unavailable"},
		"absent":      {open, "", srv.URL + "/none", "description_unavailable"},
		"both":        {open, small, srv.URL + "/openapi.yaml", "invalid_request"},
		"neither":     {open, "", "", "invalid_request"},
	} {
		if _, err := NewImporter(c.client).Import(t.Context(), by, []byte(c.text), Options{Source: c.source}); !fault.Is(err, c.code) {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	if _, err := NewImporter(open).Import(t.Context(), account.Actor{}, []byte(small), Options{}); err == nil {
		t.Error("nobody may import")
	}
}

// Whatever the description, reading it ends, and what comes out is a record that
// the linter takes, with nothing in it that a reader cannot see.
func FuzzRead(f *testing.F) {
	for _, name := range []string{"depot.yaml"} {
		f.Add(readFile(f, name))
	}
	f.Add([]byte(small))
	f.Add([]byte(`{"openapi":"3.1.0","info":{"title":"\u202ex"},"servers":[{"url":"https://a.example"}],"paths":{"/x/{a}":{"post":{"requestBody":{"content":{"application/json":{"schema":{"anyOf":[true,{"type":["null","object"]}]}}}}}}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 64<<10 {
			return
		}
		d, err := Read(t.Context(), text, Options{Source: "https://source.example/openapi.json"})
		if err != nil {
			if kind := fault.KindOf(err); kind != fault.Invalid && kind != fault.TooLarge {
				t.Fatalf("an answer that is no refusal: %v", err)
			}
			return
		}
		if _, err := provider.Parse([]byte(d.YAML)); err != nil {
			t.Fatalf("the linter refuses the draft: %v\n%s", provider.Problems(err), d.YAML)
		}
		for _, r := range d.YAML {
			if r != '\n' && !printable(r) {
				t.Fatalf("the draft holds %U\n%s", r, d.YAML)
			}
		}
	})
}
