package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"

	"github.com/ambit-dev/ambit/internal/api/apitest"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// document holds answers against the schemas that the document gives for them.
type document struct {
	raw     []byte
	schemas map[string]json.RawMessage
	ready   map[string]*jsonschema.Resolved
}

func documented(t testing.TB, url string) *document {
	t.Helper()
	d := &document{raw: ask(t, request{method: "GET", url: url + "/v1/openapi.json"}).body, ready: map[string]*jsonschema.Resolved{}}
	var doc struct {
		Components struct {
			Schemas map[string]json.RawMessage `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(d.raw, &doc); err != nil {
		t.Fatal(err)
	}
	d.schemas = doc.Components.Schemas
	return d
}

// resolve compiles a schema of the document as JSON Schema 2020-12, which is
// what OpenAPI 3.1 says it is.
func (d *document) resolve(t testing.TB, schema json.RawMessage) *jsonschema.Resolved {
	t.Helper()
	if r, ok := d.ready[string(schema)]; ok {
		return r
	}
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(schema, &whole); err != nil {
		t.Fatal(err)
	}
	defs, err := json.Marshal(d.reach(schema, map[string]json.RawMessage{}))
	if err != nil {
		t.Fatal(err)
	}
	whole["$defs"] = defs
	text, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(bytes.ReplaceAll(text, []byte("#/components/schemas/"), []byte("#/$defs/")), &s); err != nil {
		t.Fatalf("%s: %v", schema, err)
	}
	r, err := s.Resolve(nil)
	if err != nil {
		t.Fatalf("%s: %v", schema, err)
	}
	d.ready[string(schema)] = r
	return r
}

// reach collects what a schema refers to, and what that refers to.
func (d *document) reach(schema json.RawMessage, into map[string]json.RawMessage) map[string]json.RawMessage {
	for _, ref := range references.FindAllSubmatch(schema, -1) {
		name := string(ref[1])
		if _, ok := into[name]; !ok && d.schemas[name] != nil {
			into[name] = d.schemas[name]
			d.reach(d.schemas[name], into)
		}
	}
	return into
}

var references = regexp.MustCompile(`"#/components/schemas/([^"]*)"`)

// hold checks that an answer is one that the document names for op.
func (d *document) hold(t testing.TB, op operation, res response) {
	t.Helper()
	doc, err := json.Marshal(op.Responses[fmt.Sprint(res.status)])
	if err != nil {
		t.Fatal(err)
	}
	var described struct {
		Content map[string]struct {
			Schema json.RawMessage `json:"schema"`
		} `json:"content"`
	}
	if err := json.Unmarshal(doc, &described); err != nil {
		t.Fatal(err)
	}
	if op.Responses[fmt.Sprint(res.status)] == nil {
		t.Errorf("%s answers %d, which the document does not name", op.ID, res.status)
		return
	}
	if len(res.body) == 0 {
		return
	}
	var v any
	if err := json.Unmarshal(res.body, &v); err != nil {
		t.Fatalf("%s: %v: %s", op.ID, err, res.body)
	}
	if err := d.resolve(t, described.Content["application/json"].Schema).Validate(v); err != nil {
		t.Errorf("%s answers %d with what the document does not describe: %v\n%s", op.ID, res.status, err, res.body)
	}
}

func TestDocument(t *testing.T) {
	t.Parallel()
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	d := documented(t, w.URL)
	var head struct {
		OpenAPI    string                                `json:"openapi"`
		Info       map[string]any                        `json:"info"`
		Servers    []map[string]any                      `json:"servers"`
		Paths      map[string]any                        `json:"paths"`
		Components map[string]map[string]json.RawMessage `json:"components"`
	}
	if err := json.Unmarshal(d.raw, &head); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(head.OpenAPI, "3.1.") || head.Info["title"] == "" || head.Info["version"] == "" || len(head.Servers) != 1 || head.Servers[0]["url"] != "http://localhost:7420" {
		t.Errorf("the head of the document: %q %v %v", head.OpenAPI, head.Info, head.Servers)
	}
	for _, ref := range regexp.MustCompile(`"\$ref":"([^"]*)"`).FindAllSubmatch(d.raw, -1) {
		name, ok := strings.CutPrefix(string(ref[1]), "#/components/schemas/")
		if !ok || d.schemas[name] == nil {
			t.Errorf("%s leads nowhere", ref[1])
		}
	}
	for name := range d.schemas {
		if name == "ErrorModel" || name == "ErrorDetail" {
			t.Errorf("the document describes %s, which is never sent", name)
		}
		d.resolve(t, json.RawMessage(`{"$ref":"#/components/schemas/`+name+`"}`))
	}

	kebab := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	var table strings.Builder
	seen := map[string]string{}
	for _, op := range operations(t, w.URL) {
		at := op.method + " " + op.path
		if !kebab.MatchString(op.ID) || seen[op.ID] != "" {
			t.Errorf("%s has the operation id %q, also of %q", at, op.ID, seen[op.ID])
		}
		seen[op.ID] = at
		if op.Summary == "" || len(op.Tags) != 1 {
			t.Errorf("%s has the summary %q and the tags %q", at, op.Summary, op.Tags)
		}
		var inPath []string
		for _, p := range op.Parameters {
			if p.In == "path" {
				inPath = append(inPath, "{"+p.Name+"}")
			}
			if p.In == "cookie" {
				t.Errorf("%s takes a cookie", at)
			}
		}
		if want := regexp.MustCompile(`\{[^}]*\}`).FindAllString(op.path, -1); !slices.Equal(want, inPath) {
			t.Errorf("%s describes the path parameters %q", at, inPath)
		}
		statuses := slices.Sorted(maps.Keys(op.Responses))
		if !slices.ContainsFunc(statuses, func(s string) bool { return s[0] == '2' }) {
			t.Errorf("%s never succeeds: %q", at, statuses)
		}
		want := []string{"400", "403", "429", "500", "503"}
		if !op.Open {
			want = append(want, "401")
		}
		for _, s := range want {
			if !slices.Contains(statuses, s) {
				t.Errorf("%s does not describe %s", at, s)
			}
		}
		if op.Open != (len(op.Security) == 0) {
			t.Errorf("%s: security %s", at, op.Security)
		}
		who := "anybody known"
		switch {
		case op.Open:
			who = "open"
		case op.Person:
			who = "person"
		case len(op.Scopes) > 0:
			who = strings.Join(op.Scopes, " and ")
		case len(op.Any) > 0:
			who = strings.Join(op.Any, " or ")
		}
		fmt.Fprintf(&table, "%-6s %-50s %-24s %s\n", op.method, op.path, op.ID, who)
	}
	// Read every change of this file: it is who may come as far as a handler.
	golden := filepath.Join("testdata", "routes.txt")
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), table.String()); diff != "" {
		t.Errorf("the routes differ from %s (-want +got):\n%s", golden, diff)
		if os.Getenv("AMBIT_UPDATE_GOLDEN") == "1" {
			if err := os.WriteFile(golden, []byte(table.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
