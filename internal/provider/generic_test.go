package provider

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/fault"
)

const mailer = `id: mailer
name: Mailer
auth: api_key
api: {base: ["https://mailer.example/v1"]}
inject: {header: X-Key, format: "{api_key}"}
access: ["* /keys/**"]
generic: {read: true, write: true, destructive: true, refuse: ["POST /messages/{id}/send"]}
tools:
  - {name: send, title: Send, description: Sends., effect: destructive, input: {type: object, required: [id], properties: {id: {type: string}}},
     request: {method: POST, path: "/messages/{id}/send"}, target: {unnamed: It is in the call.}}
`

// Threat U5, issue 5: a generic tool makes one request, the one that a person
// reads. Paths that take requests inside a request are refused however they are
// spelled, and so is what the record leaves to its own tools.
func TestGenericToolsTakeNoBundles(t *testing.T) {
	t.Parallel()
	r, err := Parse([]byte(mailer))
	if err != nil {
		t.Fatal(err)
	}
	refused := []string{"/batch", "/$batch", "/%24batch", "/%2524batch", "/BATCH", "/_batch", "/batch/mail", "/x/batch", "/batch;v=1", "/batch.json", "/batch/", "/\uff42\uff41\uff54\uff43\uff48",
		"/graphql", "/api/GraphQL", "/composite", "/composite/tree", "/jsonrpc", "/messages:batch/x/batch", "/keys", "/keys/1", "/messages/7/send", "/messages/7/%73end", "/messages/7/send.json"}
	for _, path := range refused {
		for _, tool := range []string{"write", "destroy"} {
			_, err := build(t, r, tool, map[string]any{"method": "POST", "path": path, "body": map[string]any{}})
			if !fault.Is(err, "access_refused") {
				t.Errorf("%s POST %s: %v, want access_refused", tool, path, err)
			}
		}
	}
	for _, path := range []string{"/batch", "/$batch", "/graphql"} {
		if _, err := build(t, r, "read", map[string]any{"path": path}); !fault.Is(err, "access_refused") {
			t.Errorf("read %s: %v, want access_refused", path, err)
		}
	}
	for _, path := range []string{"/batches", "/messages/7", "/messages/7/sender", "/graph/ql", "/composites", "/messages/send"} {
		if _, err := build(t, r, "write", map[string]any{"method": "POST", "path": path}); err != nil {
			t.Errorf("%s: %v, want it taken", path, err)
		}
	}
	if _, err := build(t, r, "send", map[string]any{"id": "7"}); err != nil {
		t.Errorf("the record's own tool does not send: %v", err)
	}
	if _, err := build(t, r, "send", map[string]any{"id": "7/../x"}); !fault.Is(err, "path_argument_refused") {
		t.Errorf("a path trick: %v", err)
	}
	for text, field := range map[string]string{"POST messages": "generic.refuse[0]", "SEND /x": "generic.refuse[0]"} {
		_, err := Parse([]byte(strings.Replace(mailer, "POST /messages/{id}/send\"]}", text+"\"]}", 1)))
		if p := Problems(err); len(p) != 1 || p[0].Field != field {
			t.Errorf("%s: %v, want a problem of %s", text, p, field)
		}
	}
}

// Threat U5: no query and no body of a generic tool replaces the method, and no
// argument sets a header at all.
func TestGenericToolsKeepTheirMethod(t *testing.T) {
	t.Parallel()
	r, err := Parse([]byte(mailer))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"_method", "_METHOD", "_method[]", " _method", "\x00_method", "X-HTTP-Method-Override", "x_http_method_override", "X-Method-Override", "http_method",
		"X.HTTP.Method", "httpMethod", "method_override", "\uff3fmethod"} {
		for where, args := range map[string]map[string]any{
			"query":  {"method": "POST", "path": "/x", "query": map[string]any{name: "DELETE"}},
			"body":   {"method": "POST", "path": "/x", "body": map[string]any{name: "DELETE"}},
			"inside": {"method": "POST", "path": "/x", "body": map[string]any{"data": map[string]any{name: "DELETE"}}},
			"list":   {"method": "POST", "path": "/x", "body": []any{map[string]any{name: "DELETE"}}},
		} {
			if _, err := build(t, r, "write", args); fault.KindOf(err) != fault.Invalid {
				t.Errorf("%q in the %s: %v, want it refused", name, where, err)
			}
		}
		if _, err := build(t, r, "read", map[string]any{"path": "/x", "query": map[string]any{name: "DELETE"}}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q in the query of read: %v, want it refused", name, err)
		}
	}
	for _, args := range []string{`{"method":"DELETE","path":"/x"}`, `{"method":"post","path":"/x"}`, `{"method":"POST","path":"/x","headers":{"X-HTTP-Method-Override":"DELETE"}}`, `{"method":"POST","path":"/x?_method=DELETE"}`,
		`{"method":"POST","path":"/a/../keys"}`, `{"method":"POST","path":"/a/%2e%2e/keys"}`, `{"method":"POST","path":"//evil.example/x"}`, `{"method":"POST","path":"https://evil.example/"}`, `{"method":"POST","path":"/a%2fkeys"}`} {
		if _, err := named(t, r, "mailer_write").Build(json.RawMessage(args), r.API.Base...); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v, want it refused", args, err)
		}
	}
}

func build(t *testing.T, r Record, name string, args map[string]any) (*Request, error) {
	t.Helper()
	text, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	return named(t, r, fmt.Sprintf("%s_%s", r.ID, name)).Build(text, r.API.Base...)
}

func named(t *testing.T, r Record, name string) Tool {
	t.Helper()
	out, ok := r.Tool(name)
	if !ok {
		t.Fatalf("no tool %s", name)
	}
	return out
}
