package provider

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/policy"
)

// curatedCase is one call of one tool: what it sends, and what it keeps of an
// answer in the provider's shape. All values are invented.
type curatedCase struct {
	Tool    string            `yaml:"tool"`
	Effect  policy.Effect     `yaml:"effect"`
	Args    document          `yaml:"args"`
	Request string            `yaml:"request"`
	Headers map[string]string `yaml:"headers"`
	Body    document          `yaml:"body"` // JSON that is sent
	Form    string            `yaml:"form"` // or a form
	Raw     string            `yaml:"raw"`  // or text
	Answer  document          `yaml:"answer"`
	Kept    document          `yaml:"kept"`
}

// curatedFiles gives the cases of each record that has some.
func curatedFiles(t *testing.T) map[string][]curatedCase {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", "tools", "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases (%v)", err)
	}
	out := map[string][]curatedCase{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var cases []curatedCase
		if err := yaml.Load(text, &cases, yaml.WithKnownFields()); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		out[strings.TrimSuffix(filepath.Base(path), ".yaml")] = cases
	}
	return out
}

// Issue 5: each curated tool builds exactly the request that its provider takes,
// and keeps of the answer what an agent can use, without credentials. None is
// claimed to have been tried live, and each that destroys names its target, or
// says why nothing can.
func TestCuratedTools(t *testing.T) {
	t.Parallel()
	for name, cases := range curatedFiles(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := FindEntry(name)
			if err != nil {
				t.Fatal(err)
			}
			r := e.Shown
			untested := map[string]bool{}
			for _, tool := range r.Tools() {
				if !tool.Generic {
					untested[tool.Name] = true
				}
			}
			for _, c := range cases {
				tool, ok := r.Tool(name + "_" + c.Tool)
				if !ok {
					t.Errorf("%s is not there", c.Tool)
					continue
				}
				delete(untested, tool.Name)
				curatedTool(t, r, tool, c)
			}
			for _, tool := range sortedKeys(untested) {
				t.Errorf("%s has no case", tool)
			}
		})
	}
}

func curatedTool(t *testing.T, r Record, tool Tool, c curatedCase) {
	t.Helper()
	if tool.Effect != c.Effect {
		t.Errorf("%s: effect %s, want %s", c.Tool, tool.Effect, c.Effect)
	}
	if tool.Tried != "" {
		t.Errorf("%s: tried on %s, but nobody has", c.Tool, tool.Tried)
	}
	if tool.Effect == policy.Destructive && tool.Target == nil {
		t.Errorf("%s: a person who approves it is not told what it is about", c.Tool)
	}
	if r.OAuth != nil {
		if o := r.OAuth.Scopes; len(o.Catalog)+len(o.Base) > 0 && len(tool.Scopes) == 0 {
			t.Errorf("%s: it does not say which scopes it needs", c.Tool)
		}
		for _, s := range tool.Scopes {
			known := slices.Contains(r.OAuth.Scopes.Base, s) || slices.ContainsFunc(r.OAuth.Scopes.Catalog, func(k Scope) bool { return k.ID == s })
			if !known {
				t.Errorf("%s: nobody can ask for its scope %s", c.Tool, s)
			}
		}
	}
	req, err := tool.Build(json.RawMessage(c.Args), r.API.Base...)
	if err != nil {
		t.Errorf("%s: %v", c.Tool, err)
		return
	}
	if got := req.Method + " " + req.URL.String(); got != c.Request {
		t.Errorf("%s:\n got %s\nwant %s", c.Tool, got, c.Request)
	}
	for k, v := range c.Headers {
		if req.Header.Get(k) != v {
			t.Errorf("%s: header %s is %q, want %q", c.Tool, k, req.Header.Get(k), v)
		}
	}
	body := c.Form + c.Raw
	if c.Body != nil {
		body = string(c.Body)
		if got, err := CanonicalArgs(req.Body); err == nil {
			req.Body = got
		}
	}
	if d := cmp.Diff(body, string(req.Body)); d != "" {
		t.Errorf("%s: the body (-want +got):\n%s", c.Tool, d)
	}
	resp := &outbound.Response{Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: bytes.Clone(c.Answer)}
	a := clean(resp, req.URL, newRedactor(&formSet{}), tool)
	if d := cmp.Diff(string(c.Kept), string(a.Body)); d != "" || !a.JSON && len(c.Kept) > 0 {
		t.Errorf("%s: what is kept of the answer (-want +got), withheld %q:\n%s", c.Tool, a.Withheld, d)
	}
}

// Issue 5: a record that gives somebody access is no record like another, however
// its name is written.
func TestSalesforceRecordsThatGiveAccess(t *testing.T) {
	t.Parallel()
	e, err := FindEntry("salesforce")
	if err != nil {
		t.Fatal(err)
	}
	tool, ok := e.Shown.Tool("salesforce_create_record")
	if !ok {
		t.Fatal("no such tool")
	}
	for _, object := range []string{"User", "user", "PermissionSetAssignment", "AccountShare", "GROUPMEMBER", "User;x"} {
		args, err := json.Marshal(map[string]any{"object": object, "fields": map[string]string{"Name": "x"}})
		if err != nil {
			t.Fatal(err)
		}
		if req, err := tool.Build(args, e.Shown.API.Base...); err == nil {
			t.Errorf("%s: built %s %s", object, req.Method, req.URL)
		}
	}
}

// Issue 5: sending mail is a tool's own work, which a person approves; the tools
// that make any request refuse it.
func TestGmailSendsByItsOwnToolOnly(t *testing.T) {
	t.Parallel()
	e, err := FindEntry("gmail")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/gmail/v1/users/me/messages/send", "/gmail/v1/users/me/Drafts/send"} {
		for _, name := range []string{"gmail_write", "gmail_destroy"} {
			tool, ok := e.Shown.Tool(name)
			if !ok {
				t.Fatalf("no tool %s", name)
			}
			if _, err := tool.Build(json.RawMessage(`{"method":"POST","path":"`+path+`","body":{}}`), e.Shown.API.Base...); !fault.Is(err, "access_refused") {
				t.Errorf("%s %s: got %v", name, path, err)
			}
		}
	}
}
