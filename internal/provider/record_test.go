package provider_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sandbox"
)

func tracker(t testing.TB) provider.Record {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "records", "tracker.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

func parse(t testing.TB, text string) provider.Record {
	t.Helper()
	r, err := provider.Parse([]byte(text))
	if err != nil {
		t.Fatalf("parse: %v\n%s", err, fault.Of(err).Fields["problems"])
	}
	return r
}

func tool(t testing.TB, r provider.Record, name string) provider.Tool {
	t.Helper()
	found, ok := r.Tool(name)
	if !ok {
		t.Fatalf("%s has no tool %s", r.ID, name)
	}
	return found
}

func TestParse(t *testing.T) {
	t.Parallel()
	r := tracker(t)
	var got []string
	for _, tl := range r.Tools() {
		got = append(got, tl.Name+" "+string(tl.Effect))
	}
	want := []string{"tracker_search_issues read", "tracker_get_file read", "tracker_create_issue write", "tracker_comment write", "tracker_upload write",
		"tracker_create_key access", "tracker_read read", "tracker_write write", "tracker_destroy destructive"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	pinned := provider.Pinned{
		Authorize: "https://tracker.example/oauth/authorize", Token: "https://tracker.example/oauth/token", Revoke: "https://tracker.example/oauth/revoke",
		Identity: "https://accounts.tracker.example/v1/me", API: []string{"https://api.tracker.example/v2", "https://uploads.tracker.example"},
	}
	if d := cmp.Diff(pinned, r.Pinned()); d != "" {
		t.Error(d)
	}
	if !r.OAuth.UsesPKCE() || r.OAuth.RevokeStyle != "rfc7009" || r.Injection.Header != "Authorization" {
		t.Errorf("defaults are not filled in: %+v %+v", r.OAuth, r.Injection)
	}
}

func TestSandboxRecords(t *testing.T) {
	t.Parallel()
	oauth := parse(t, sandbox.Record("http://localhost:9999"))
	key := parse(t, sandbox.KeyRecord("http://localhost:9999/"))
	if oauth.ID != "sandbox" || key.ID != "sandbox_key" || oauth.Pinned().Token != "http://localhost:9999/oauth/token" {
		t.Errorf("got %s, %s, %+v", oauth.ID, key.ID, oauth.Pinned())
	}
	if d := cmp.Diff([]string{"api_key"}, key.CredentialFields()); d != "" {
		t.Error(d)
	}
	for _, r := range []provider.Record{oauth, key} {
		if tl := tool(t, r, r.ID+"_create_key"); tl.Effect != policy.Access {
			t.Errorf("%s has effect %s", tl.Name, tl.Effect)
		}
	}
}

const minimal = `id: demo
name: Demo
auth: api_key
api: {base: ["https://api.example.com"]}
inject: {header: Authorization, format: "Bearer {api_key}"}
`

// Each row is one mistake; the message names the field, the fix says what to do.
func TestLintNamesTheField(t *testing.T) {
	t.Parallel()
	oauth := func(line string) string {
		return "id: demo\nname: Demo\nauth: oauth2\napi: {base: [\"https://api.example.com\"]}\nidentity: {path: /me, id: id}\noauth2:\n" + line
	}
	ends := "  authorize_url: https://example.com/a\n  token_url: https://example.com/t\n"
	toolWith := func(line string) string { return minimal + "tools:\n  - " + line }
	good := `name: get
    title: Get
    description: Gets.
    effect: read
    request: {method: GET, path: /x}
`
	for field, text := range map[string]string{
		"id":                                   strings.Replace(minimal, "id: demo", "id: Démo", 1),
		"name":                                 strings.Replace(minimal, "name: Demo", `name: "De\u202Emo"`, 1),
		"auth":                                 strings.Replace(minimal, "auth: api_key", "auth: magic", 1),
		"api.base":                             strings.Replace(minimal, `["https://api.example.com"]`, "[]", 1),
		"api.base[0]":                          strings.Replace(minimal, "https://api.example.com", "https://user:pw@api.example.com", 1),
		"inject":                               strings.Replace(minimal, "header: Authorization,", "header: Authorization, query: key,", 1),
		"inject.header":                        strings.Replace(minimal, "header: Authorization", "header: Host", 1),
		"inject.realm":                         strings.Replace(minimal, `header: Authorization, format: "Bearer {api_key}"`, `header: Authorization, format: "Bearer {api_key}", realm: {url: https://auth.example.com/token, service: s}`, 1),
		"inject.realm.url":                     strings.Replace(minimal, `header: Authorization, format: "Bearer {api_key}"`, `basic: {username: a, password: "{api_key}"}, realm: {url: "https://auth.example.com/token?a=b", service: s}`, 1),
		"inject.realm.service":                 strings.Replace(minimal, `header: Authorization, format: "Bearer {api_key}"`, `basic: {username: a, password: "{api_key}"}, realm: {url: https://auth.example.com/token}`, 1),
		"api.open":                             strings.Replace(minimal, `["https://api.example.com"]`, `["https://api.example.com"], open: ["https://files.example.com"]`, 1),
		"api.open[0]":                          strings.Replace(minimal, `["https://api.example.com"]`, `["https://api.example.com"], open: ["https://api.example.com"]`, 1),
		"inject.format":                        strings.Replace(minimal, "{api_key}", "{access_token}", 1),
		"default_headers.Cookie":               minimal + "default_headers: {Cookie: a}\n",
		"default_headers.authorization":        minimal + "default_headers: {authorization: a}\n",
		"access[0]":                            minimal + "access: [/keys]\n",
		"identity":                             minimal + "identity: {id: id}\n",
		"health.path":                          minimal + "health: {path: me}\n",
		"oauth2":                               "id: demo\nname: Demo\nauth: oauth2\napi: {base: [\"https://api.example.com\"]}\nidentity: {path: /me, id: id}\n",
		"oauth2.token_url":                     oauth("  authorize_url: https://example.com/a\n  token_url: file:///etc/passwd\n"), // O9
		"oauth2.authorize_url":                 oauth("  authorize_url: \"javascript:alert(1)\"\n  token_url: https://example.com/t\n"),
		"oauth2.revoke_url":                    oauth(ends + "  revoke_style: rfc7009\n"),
		"oauth2.client_auth":                   oauth(ends + "  client_auth: magic\n"),
		"oauth2.pkce":                          oauth(ends + "  client_auth: none\n  pkce: false\n"),
		"oauth2.authorize_params.state":        oauth(ends + "  authorize_params: {state: x}\n"),
		"oauth2.authorize_params.Redirect_URI": oauth(ends + "  authorize_params: {Redirect_URI: x}\n"),
		"oauth2.client_id_param":               oauth(ends + "  client_id_param: redirect_uri\n"),
		"oauth2.authorize_drop[0]":             oauth(ends + "  authorize_drop: [state]\n"), // O4: the state is never left out
		"oauth2.authorize_params.user_scope":   oauth(ends + "  scopes: {param: user_scope}\n  authorize_params: {user_scope: x}\n"),
		"oauth2.scopes.param":                  oauth(ends + "  scopes: {param: \"a b\"}\n"),
		"oauth2.scopes.unlisted[0]":            oauth(ends + "  scopes: {unlisted: [\"a b\"]}\n"),
		"oauth2.token_body":                    oauth(ends + "  token_body: xml\n"),
		"oauth2.token_answer.at":               oauth(ends + "  token_answer: {at: \"a b\"}\n"),
		"oauth2.refresh.url":                   oauth(ends + "  refresh: {url: \"https://user:pw@example.com/r\"}\n"),
		"oauth2.refresh.params.refresh_token":  oauth(ends + "  refresh: {params: {refresh_token: x}}\n"),
		"oauth2.refresh.idle_days":             oauth(ends + "  refresh: {idle_days: -1}\n"),
		"oauth2.refresh.max_days":              oauth(ends + "  refresh: {max_days: 99999}\n"),
		"oauth2.revoke_style":                  oauth(ends + "  client_auth: none\n  revoke_url: https://example.com/r\n  revoke_style: client_delete\n"),
		"identity.body":                        minimal + "identity: {path: /me, id: id, body: {a: 1}}\n",
		"identity.query.a b":                   minimal + "identity: {path: /me, id: id, query: {a b: x}}\n",
		"pipes":                                minimal + "pipes: Google Drive\n",
		"about.confidence":                     minimal + "about: {confidence: certain}\n",
		"about.tried":                          minimal + "about: {tried: yesterday}\n",
		"about.docs[0]":                        minimal + "about: {docs: [\"javascript:alert(1)\"]}\n",
		"about.notes[0]":                       minimal + "about: {notes: [\"a\\u202Eb\"]}\n",
		"oauth2.scopes.base[0]":                oauth(ends + "  scopes: {base: [\"a b\"]}\n"),
		"tools[0].name":                        toolWith(strings.Replace(good, "name: get", "name: gеt", 1)), // U6: a Cyrillic letter
		"tools[0].effect":                      toolWith(strings.Replace(good, "GET", "DELETE", 1)),
		"tools[0].request.path":                toolWith(strings.Replace(good, "/x", "\"/x/{id}\"", 1)),
		"tools[0].request.method":              toolWith(strings.Replace(good, "GET", "CONNECT", 1)),
		"tools[0].request.base":                toolWith(strings.Replace(good, "path: /x", "path: /x, base: \"https://evil.example\"", 1)),
		"tools[0].request.headers.Cookie":      toolWith(strings.Replace(good, "path: /x", "path: /x, headers: {Cookie: x}", 1)),
		"tools[0].request.headers.X-Http-Method-Override": toolWith(strings.Replace(good, "path: /x", "path: /x, headers: {X-Http-Method-Override: DELETE}", 1)),
		"tools[0].request.query.state":                    toolWith(strings.Replace(good, "path: /x", "path: /x, query: {state: \"{state}\"}", 1)),
		"tools[0].request":                                toolWith(good + "    input: {type: object, properties: {unused: {type: string}}}\n"),
		"tools[0].request.body":                           toolWith(strings.Replace(good, "path: /x", "path: /x, body: {a: 1}", 1)),
		"tools[0].input.properties.a.$ref":                toolWith(good + "    input: {type: object, properties: {a: {$ref: \"#\"}}}\n"),
		"tools[0].input.properties.session":               toolWith(strings.Replace(good, "path: /x", "path: /x, query: {s: \"{session}\"}", 1) + "    input: {type: object, properties: {session: {type: string}}}\n"),
		"tools[0].input.additionalProperties":             toolWith(good + "    input: {type: object, additionalProperties: true}\n"),
		"tools[0].output.max_bytes":                       toolWith(good + "    output: {max_bytes: 99999999}\n"),
		"tools[1].name":                                   toolWith(good + "  - " + strings.Replace(good, "name: get", "name: GET", 1)),
	} {
		_, err := provider.Parse([]byte(text))
		f := fault.Of(err)
		if err == nil || f.Code != "record_invalid" || f.Hint == "" {
			t.Errorf("%s: got %v, want record_invalid with a hint", field, err)
			continue
		}
		problems := provider.Problems(err)
		if !slices.ContainsFunc(problems, func(p provider.Problem) bool { return p.Field == field && p.Line > 0 && p.Column > 0 && p.Fix != "" }) {
			t.Errorf("%s: not named, with its place and a fix, in %+v", field, problems)
		}
	}
	parse(t, minimal)
	parse(t, toolWith(good))
}

func TestParseRefusesAmbiguousYAML(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"unknown key":    minimal + "hooks: [x]\n",
		"case of a key":  minimal + "Cut: [x]\n",
		"repeated key":   minimal + "name: Other\n",
		"anchor":         minimal + "cut: &a [x]\naccess: *a\n",
		"own tag":        minimal + "cut: !!python/object [x]\n",
		"two documents":  minimal + "---\n" + minimal,
		"not a mapping":  "- a\n",
		"empty":          "",
		"nul":            minimal + "cut: [\"a\x00\"]\n",
		"not utf-8":      minimal + "cut: [\"\xff\"]\n",
		"too deep":       minimal + "cut: " + strings.Repeat("[", 60) + strings.Repeat("]", 60) + "\n",
		"too large":      minimal + "# " + strings.Repeat("a", 300<<10),
		"map for a text": minimal + "tools: [{name: a, request: {query: {state: {state}}}}]\n",
	} {
		if _, err := provider.Parse([]byte(text)); fault.KindOf(err) != fault.Invalid && fault.KindOf(err) != fault.TooLarge || err == nil {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
}

// Rule 5: whatever decides what a call does moves the digest; words do not.
func TestToolDigest(t *testing.T) {
	t.Parallel()
	text := string(tracker(t).Source())
	base := tool(t, tracker(t), "tracker_create_issue").Digest()
	for what, change := range map[string][2]string{
		"effect":   {"description: Creates an issue in a project.\n    effect: write", "description: Creates an issue in a project.\n    effect: destructive"},
		"path":     {"/projects/{project}/issues", "/projects/{project}/tasks"},
		"schema":   {"title: {type: string, minLength: 1}", "title: {type: string}"},
		"body":     {"source: api", "source: web"},
		"api base": {"https://api.tracker.example/v2", "https://api.tracker.example/v3"},
		"cut":      {"cut: [secret, token]", "cut: [secret]"},
	} {
		changed := strings.Replace(text, change[0], change[1], 1)
		if changed == text {
			t.Fatalf("%s: the change did not apply", what)
		}
		if tool(t, parse(t, changed), "tracker_create_issue").Digest() == base {
			t.Errorf("%s: the digest is the same", what)
		}
	}
	same := strings.Replace(text, "Creates an issue in a project.", "Makes an issue.", 1)
	if tool(t, parse(t, same), "tracker_create_issue").Digest() != base {
		t.Error("another description changed the digest")
	}
	wider := strings.Replace(text, `access: ["* /admin/**", `, `access: [`, 1)
	if tool(t, parse(t, wider), "tracker_write").Digest() == tool(t, tracker(t), "tracker_write").Digest() {
		t.Error("a generic tool that refuses less has the same digest")
	}
	if (provider.Tool{}).Digest() != [32]byte{} {
		t.Error("the zero tool has a digest")
	}
}

func FuzzParse(f *testing.F) {
	text, err := os.ReadFile(filepath.Join("testdata", "records", "tracker.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add(minimal)
	f.Add(minimal + "cut: &a [*a]\n")
	f.Add(sandbox.KeyRecord("http://localhost:1"))
	f.Fuzz(func(t *testing.T, text string) {
		r, err := provider.Parse([]byte(text))
		if err != nil {
			if k := fault.KindOf(err); k != fault.Invalid && k != fault.TooLarge {
				t.Fatalf("got %v, want a refusal that names the input", err)
			}
			if n := len(provider.Problems(err)); n == 0 || n > 100 {
				t.Fatalf("got %d problems", n)
			}
			return
		}
		names := map[string]bool{}
		for _, tl := range r.Tools() {
			if names[strings.ToLower(tl.Name)] || len(tl.Name) > 64 || tl.Digest() == [32]byte{} {
				t.Fatalf("accepted the tool %q", tl.Name)
			}
			names[strings.ToLower(tl.Name)] = true
		}
		if again, err := provider.Parse(r.Source()); err != nil || again.Digest() != r.Digest() {
			t.Fatalf("the source does not parse again: %v", err)
		}
	})
}
