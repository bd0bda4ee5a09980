package provider_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
)

func TestBuild(t *testing.T) {
	t.Parallel()
	r := tracker(t)
	for _, row := range []struct {
		tool, args, method, url, body string
	}{
		{"search_issues", ``, "GET", "https://api.tracker.example/v2/issues?view=full", ""},
		{"search_issues", `{"q":"a b&c=d","labels":["x","y"],"limit":5}`, "GET",
			"https://api.tracker.example/v2/issues?label=x&label=y&per_page=5&q=a+b%26c%3Dd&view=full", ""},
		{"get_file", `{"project":"päper","name":"a b;c?d#e"}`, "GET", "https://api.tracker.example/v2/projects/p%C3%A4per/files/a%20b%3Bc%3Fd%23e.json", ""},
		{"create_issue", `{"title":"<x>","project":"p"}`, "POST", "https://api.tracker.example/v2/projects/p/issues",
			`{"issue":{"extra":[1.5,true],"source":"api","title":"<x>"}}`},
		{"create_issue", `{"title":"t","project":"p","assignee":null,"labels":[],"meta":{"b":1,"a":"{title}"}}`, "POST", "https://api.tracker.example/v2/projects/p/issues",
			`{"issue":{"assignee_id":null,"extra":[{"a":"{title}","b":1},1.5,true],"labels":[],"source":"api","title":"t"}}`},
		{"comment", `{"number":7,"text":"a&b=c","notify":true,"to":["x","y"]}`, "POST", "https://api.tracker.example/v2/issues/7/comments",
			"notify=true&text=a%26b%3Dc&to=x&to=y"},
		{"upload", `{"kind":"image"}`, "POST", "https://uploads.tracker.example/image/new", ""},
		{"read", `{"path":"/issues/7/comments/"}`, "GET", "https://api.tracker.example/v2/issues/7/comments/", ""},
		{"read", `{"method":"HEAD","path":"/a%20b/c:d","query":{"x":[1,"z"],"a":true}}`, "HEAD", "https://api.tracker.example/v2/a%20b/c:d?a=true&x=1&x=z", ""},
		{"read", `{"path":"/","base":"https://uploads.tracker.example"}`, "GET", "https://uploads.tracker.example/", ""},
		{"write", `{"method":"PATCH","path":"/issues/7","body":{"b":2,"a":[1]}}`, "PATCH", "https://api.tracker.example/v2/issues/7", `{"a":[1],"b":2}`},
		{"destroy", `{"method":"DELETE","path":"/issues/7"}`, "DELETE", "https://api.tracker.example/v2/issues/7", ""},
	} {
		req, err := tool(t, r, "tracker_"+row.tool).Build(json.RawMessage(row.args), r.Pinned().API...)
		if err != nil {
			t.Errorf("%s %s: %v", row.tool, row.args, err)
			continue
		}
		if got := req.URL.String(); req.Method != row.method || got != row.url || string(req.Body) != row.body {
			t.Errorf("%s %s:\ngot  %s %s %s\nwant %s %s %s", row.tool, row.args, req.Method, got, req.Body, row.method, row.url, row.body)
		}
	}
}

// What a person approves names everything that will be sent.
func TestSummary(t *testing.T) {
	t.Parallel()
	r := tracker(t)
	req, err := tool(t, r, "tracker_create_issue").Build(json.RawMessage(`{"title":"line\nbreak","project":"p/q"}`), r.Pinned().API...)
	if err == nil {
		t.Fatalf("a slash in a path argument passed: %s", req.URL)
	}
	req, err = tool(t, r, "tracker_create_issue").Build(json.RawMessage(`{"title":"line\nbreak","project":"p","meta":{"x.y":[{"k":null}],"e":{}},"labels":["a","b"]}`), r.Pinned().API...)
	if err != nil {
		t.Fatal(err)
	}
	want := provider.Summary{
		Method: "POST", Host: "api.tracker.example", Path: "/v2/projects/p/issues",
		Body: []provider.Field{
			{Name: "body issue.extra[0].e (object)", Value: "{}"}, {Name: `body issue.extra[0]."x.y"[0].k (null)`, Value: "null"}, {Name: "body issue.extra[1] (number)", Value: "1.5"}, {Name: "body issue.extra[2] (boolean)", Value: "true"},
			{Name: "body issue.labels[0]", Value: "a"}, {Name: "body issue.labels[1]", Value: "b"}, {Name: "body issue.source", Value: "api"}, {Name: "body issue.title", Value: "line\nbreak"},
		},
	}
	if d := cmp.Diff(want, req.Summary); d != "" {
		t.Error(d)
	}
	req, err = tool(t, r, "tracker_get_file").Build(json.RawMessage(`{"project":"p","name":"n","etag":"\"7\""}`), r.Pinned().API...)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]provider.Field{{Name: "header Accept", Value: "text/plain"}, {Name: "header If-None-Match", Value: `"7"`}}, req.Summary.Header); d != "" {
		t.Error(d)
	}
}

// An approver tells the same name in two places apart, and text from what only
// looks like it.
func TestSummaryTellsPlacesAndTypesApart(t *testing.T) {
	t.Parallel()
	r := tracker(t)
	args := `{"method":"POST","path":"/pay","query":{"amount":1},"body":{"amount":"1000","a":true,"a (boolean)":"true","b":"true","n":null,"o":"null","i":1,"j":"1"}}`
	req, err := tool(t, r, "tracker_write").Build(json.RawMessage(args), r.Pinned().API...)
	if err != nil {
		t.Fatal(err)
	}
	want := []provider.Field{
		{Name: "body a (boolean)", Value: "true"}, {Name: `body "a (boolean)"`, Value: "true"}, {Name: "body amount", Value: "1000"}, {Name: "body b", Value: "true"},
		{Name: "body i (number)", Value: "1"}, {Name: "body j", Value: "1"}, {Name: "body n (null)", Value: "null"}, {Name: "body o", Value: "null"},
	}
	if d := cmp.Diff(want, req.Summary.Body); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]provider.Field{{Name: "query amount", Value: "1"}}, req.Summary.Query); d != "" {
		t.Error(d)
	}
}

// U4: no spelling of a name by which some framework replaces the method passes.
func TestMethodCannotBeOverridden(t *testing.T) {
	t.Parallel()
	r := tracker(t)
	build := func(tl, method, place string, value any) error {
		args, err := json.Marshal(map[string]any{"method": method, "path": "/issues/7", place: value})
		if err != nil {
			t.Fatal(err)
		}
		_, err = tool(t, r, tl).Build(args, r.Pinned().API...)
		return err
	}
	for _, name := range []string{"_method", "_METHOD", "-method", " _method", "_method ", "\t_method", "_method[]", ".method", "[method", " .method", "__method", "_.method",
		"\x00_method", "_method\x00", "_method\x00x", "_me\x00thod", "_method\n", "\u00a0_method", "\uff3fmethod", "_m\u200bethod", "_method.", "X-HTTP-Method-Override", "x_http_method[]", "X.HTTP.Method", "_HttpMethod", "x\rb"} {
		if err := build("tracker_read", "GET", "query", map[string]any{name: "DELETE"}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("query %q: got %v", name, err)
		}
		for _, body := range []any{map[string]any{name: "DELETE"}, map[string]any{"a": map[string]any{name: "DELETE"}}, []any{map[string]any{name: "DELETE"}}} {
			if err := build("tracker_write", "POST", "body", body); fault.KindOf(err) != fault.Invalid {
				t.Errorf("body %q: got %v", body, err)
			}
		}
	}
	for _, name := range []string{"method", "payment_method", "methods", "method_id", "payment.method", "filter[method]"} {
		if err := build("tracker_read", "GET", "query", map[string]any{name: "card"}); err != nil {
			t.Errorf("query %q: got %v", name, err)
		}
		if err := build("tracker_write", "POST", "body", map[string]any{name: "card"}); err != nil {
			t.Errorf("body %q: got %v", name, err)
		}
	}
}

// U3: what must not become part of a path, in any encoding; and arguments that
// do not fit the schema.
func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	r := tracker(t)
	file := func(name string) string {
		b, _ := json.Marshal(map[string]string{"project": "p", "name": name})
		return string(b)
	}
	path := func(p string) string {
		b, _ := json.Marshal(map[string]string{"path": p})
		return string(b)
	}
	rows := [][2]string{
		{"search_issues", `{"state":"open"}`}, {"search_issues", `{"limit":0}`}, {"search_issues", `{"limit":"5"}`}, {"search_issues", `[]`}, {"search_issues", `null`},
		{"search_issues", `{"q":"a","q":"b"}`}, {"search_issues", `{"q":"a","Q":"b"}`}, {"search_issues", `{"q":"\ud800"}`}, {"search_issues", `{`},
		{"search_issues", `{"limit":9007199254740993}`},
		{"get_file", `{"project":"p"}`}, {"get_file", `{"project":"p","name":"n","etag":"a\r\nX: y"}`},
		{"create_issue", `{"project":"p","title":""}`}, {"create_issue", `{"project":"p","title":"t","assignee":"7"}`},
		{"comment", `{"number":7,"text":"a","to":[["x"]]}`},
		{"read", `{"path":"/x","method":"POST"}`}, {"read", `{"path":"/x","body":{}}`}, {"read", `{"path":"/x","headers":{"A":"b"}}`},
		{"read", `{"path":"/x","base":"https://evil.example"}`}, {"read", `{"path":"/x","query":{"a":{"b":1}}}`},
		{"read", `{"path":"/x","query":{"_method":"DELETE"}}`}, {"write", `{"method":"POST","path":"/x","body":{"_METHOD":"DELETE"}}`},
		{"write", `{"method":"DELETE","path":"/x"}`}, {"write", `{"method":"post","path":"/x"}`}, {"destroy", `{"method":"GET","path":"/x"}`},
		{"create_key", `{"name":7}`},
	}
	for _, s := range []string{"", ".", "..", "a/b", `a\b`, "a\rb", "a\nb", "a\x00b", "%2e%2e", "%252e%252e", "%2f", "%5c", "%00", "..;x", ".. ", " ", "．．", "a／b", "‥",
		strings.Repeat("a", 3000)} {
		rows = append(rows, [2]string{"get_file", file(s)})
	}
	for _, s := range []string{"", "x", "//evil.example/x", "/a//b", "/a/../b", "/a/%2e%2e/b", "/a/%2E./b", "/a/.%252e/b", "/a%2fb", `/a\b`, "/a%5cb", "/a?b=c", "/a#b", "/%zz", "/a%",
		"/a%0d%0ab", "/..;/admin", "https://evil.example/", "/.", "/a/ /b", "/" + strings.Repeat("a/", 5000)} {
		rows = append(rows, [2]string{"read", path(s)})
	}
	for _, row := range rows {
		req, err := tool(t, r, "tracker_"+row[0]).Build(json.RawMessage(row[1]), r.Pinned().API...)
		if k := fault.KindOf(err); err == nil || k != fault.Invalid && k != fault.TooLarge {
			t.Errorf("%s %s: got %+v, %v, want a refusal", row[0], row[1], req, err)
		}
	}
	if _, err := (provider.Tool{}).Build(nil); fault.KindOf(err) != fault.NotFound {
		t.Errorf("the zero tool: got %v", err)
	}
	for _, api := range [][]string{nil, {"https://api.tracker.example"}, {"https://uploads.tracker.example"}} { // rule 6
		if _, err := tool(t, r, "tracker_search_issues").Build(nil, api...); !fault.Is(err, "destination_denied") {
			t.Errorf("pinned to %v: got %v, want destination_denied", api, err)
		}
	}
}

// The message of a refusal names the argument, not what was in it.
func TestRefusalNamesTheArgument(t *testing.T) {
	t.Parallel()
	r := tracker(t)
	for args, want := range map[string]string{
		`{"limit":"hunter2"}`: "limit", `{"hunter":1}`: "hunter", `{"labels":[1]}`: "labels",
	} {
		_, err := tool(t, r, "tracker_search_issues").Build(json.RawMessage(args), r.Pinned().API...)
		if f := fault.Of(err); f.Code != "invalid_arguments" || !strings.Contains(f.Message, want) || strings.Contains(err.Error(), "hunter2") || f.Hint == "" {
			t.Errorf("%s: got %v", args, err)
		}
	}
}

// Access operations are refused on generic tools however the path is spelled,
// and so are own tools whose arguments lead to one.
func TestAccessIsRefusedOnGenericTools(t *testing.T) {
	t.Parallel()
	r := tracker(t)
	refused := [][2]string{
		{"write", `{"method":"POST","path":"/keys"}`}, {"write", `{"method":"POST","path":"/KEYS/"}`}, {"write", `{"method":"POST","path":"/keys;a=b"}`},
		{"write", `{"method":"POST","path":"/%6beys"}`}, {"write", `{"method":"POST","path":"/%256beys"}`}, {"write", `{"method":"POST","path":"/keys.json"}`},
		{"write", `{"method":"POST","path":"/keys%20"}`}, {"write", `{"method":"POST","path":"/ｋeys"}`}, {"write", `{"method":"POST","path":"/keys."}`},
		{"destroy", `{"method":"POST","path":"/keys"}`}, {"destroy", `{"method":"DELETE","path":"/admin/users/7"}`}, {"destroy", `{"method":"DELETE","path":"/admin"}`},
		{"read", `{"path":"/Admin/users"}`}, {"read", `{"method":"HEAD","path":"/admin"}`},
		{"write", `{"method":"PUT","path":"/projects/p/members/u"}`},
	}
	for _, row := range refused {
		if _, err := tool(t, r, "tracker_"+row[0]).Build(json.RawMessage(row[1]), r.Pinned().API...); !fault.Is(err, "access_refused") || fault.Of(err).Hint == "" {
			t.Errorf("%s %s: got %v, want access_refused", row[0], row[1], err)
		}
	}
	for _, row := range [][2]string{
		{"read", `{"path":"/keys"}`}, {"write", `{"method":"POST","path":"/keyset"}`}, {"write", `{"method":"POST","path":"/projects/p/members/u"}`}, {"read", `{"path":"/administrators"}`},
	} {
		if _, err := tool(t, r, "tracker_"+row[0]).Build(json.RawMessage(row[1]), r.Pinned().API...); err != nil {
			t.Errorf("%s %s: %v", row[0], row[1], err)
		}
	}
	if _, err := tool(t, r, "tracker_create_key").Build(json.RawMessage(`{"name":"x"}`), r.Pinned().API...); err != nil {
		t.Errorf("the access tool itself: %v", err)
	}
	nested := parse(t, `id: demo
name: Demo
auth: api_key
api: {base: ["https://h.example", "https://h.example/api"]}
inject: {header: Authorization, format: "Bearer {api_key}"}
generic: {write: true}
access: [POST /keys]
tools:
  - name: make
    title: Make
    description: Makes a thing of any kind.
    effect: write
    input: {type: object, required: [kind], properties: {kind: {type: string}}}
    request: {method: POST, path: "/{kind}"}
`)
	for name, args := range map[string]string{"demo_write": `{"method":"POST","path":"/api/keys"}`, "demo_make": `{"kind":"keys"}`} {
		if _, err := tool(t, nested, name).Build(json.RawMessage(args), nested.Pinned().API...); !fault.Is(err, "access_refused") {
			t.Errorf("%s: got %v, want access_refused", name, err)
		}
	}
	if _, err := tool(t, nested, "demo_make").Build(json.RawMessage(`{"kind":"notes"}`), nested.Pinned().API...); err != nil {
		t.Error(err)
	}
}

func TestCanonicalArgs(t *testing.T) {
	t.Parallel()
	same := []string{`{"b":1,"a":"é"}`, ` { "a" : "\u00e9", "b" : 1.0 } `, `{"a":"é","b":1e0}`}
	for _, s := range same {
		got, err := provider.CanonicalArgs(json.RawMessage(s))
		if err != nil || string(got) != `{"a":"é","b":1}` {
			t.Errorf("%s: got %s, %v", s, got, err)
		}
	}
	if got, err := provider.CanonicalArgs(nil); err != nil || string(got) != "{}" {
		t.Errorf("absent: got %s, %v", got, err)
	}
	for _, s := range []string{`[]`, `{"a":1,"a":2}`, `{"a":9007199254740993}`, `{"a":[{"b":-99999999999999999999}]}`, `{"a":1}{}`} {
		if _, err := provider.CanonicalArgs(json.RawMessage(s)); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: got %v, want a refusal", s, err)
		}
	}
}

func TestToolsAreSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	r := tracker(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if _, err := tool(t, r, "tracker_search_issues").Build(json.RawMessage(`{"q":"x","labels":["a"]}`), r.Pinned().API...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// FuzzBuild's oracle: whatever the arguments, a request that is built lies below
// one of the API bases, as outbound reads it, with the tool's method, and never
// meets the access list.
func FuzzBuild(f *testing.F) {
	for _, s := range []string{"7", "..", "%2e%2e", "a/b", "//evil.example", "/x/../y", "/%2e%2e/x", "/a?b", "https://evil.example/", "/keys", "/KEYS;x", "@evil.example", ":80/x", "\\x", "/a b"} {
		f.Add(s, s, "GET")
	}
	r := tracker(f)
	bases := outbound.Bound{Bases: r.Pinned().API}
	f.Fuzz(func(t *testing.T, a, b, method string) {
		args := func(m map[string]any) json.RawMessage { doc, _ := json.Marshal(m); return doc }
		for name, doc := range map[string]json.RawMessage{
			"get_file": args(map[string]any{"project": a, "name": b, "etag": a}),
			"upload":   args(map[string]any{"kind": a}),
			"read":     args(map[string]any{"path": a, "query": map[string]any{b: a}}),
			"write":    args(map[string]any{"method": method, "path": a, "body": map[string]any{b: a}}),
			"destroy":  args(map[string]any{"method": method, "path": b, "query": map[string]any{a: b}}),
		} {
			tl := tool(t, r, "tracker_"+name)
			req, err := tl.Build(doc, r.Pinned().API...)
			if err != nil {
				if fault.KindOf(err) == fault.Internal {
					t.Fatalf("%s %s: %v", name, doc, err)
				}
				continue
			}
			again, err := url.Parse(req.URL.String())
			if err != nil || !bases.Contains(again) || !bases.Contains(req.URL) || req.URL.User != nil || req.URL.Fragment != "" {
				t.Fatalf("%s %s: built %s", name, doc, req.URL)
			}
			if strings.ContainsAny(req.URL.String(), "\r\n\x00\\ ") {
				t.Fatalf("%s %s: built %q", name, doc, req.URL)
			}
			if tl.Effect == policy.Read && req.Method != "GET" && req.Method != "HEAD" || tl.Effect == policy.Write && req.Method == "DELETE" {
				t.Fatalf("%s %s: built %s", name, doc, req.Method)
			}
			segments := strings.Split(strings.Trim(strings.ToLower(req.URL.Path), "/"), "/")
			if tl.Generic && req.URL.Host == "api.tracker.example" && len(segments) > 1 && (segments[1] == "admin" || req.Method == "POST" && segments[1] == "keys" && len(segments) == 2) {
				t.Fatalf("%s %s: reached an access operation at %s", name, doc, req.URL)
			}
			if tl.Name == "tracker_get_file" && strings.Count(req.URL.EscapedPath(), "/") != 5 {
				t.Fatalf("%s %s: an argument made another segment: %s", name, doc, req.URL)
			}
		}
	})
}
