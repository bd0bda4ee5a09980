package provider_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/provider"
)

func places(err error) []string {
	var out []string
	for _, p := range provider.Problems(err) {
		out = append(out, fmt.Sprintf("%d:%d %s", p.Line, p.Column, p.Field))
	}
	return out
}

// One mistake hides no other: an unknown key once hid everything behind it.
// Each is told with its place, and nothing is told that only follows from it.
func TestAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := provider.Parse([]byte(`id: Démo
name: [Demo]
auth: api_key
acess: ["POST /keys"]
api:
  base: ["ftp://api.example.com"]
  bases: [x]
inject: {header: Authorization, format: "Bearer {token}"}
name: Again
generic: {read: maybe, wrte: true}
cut: &names [a]
tools:
  - name: get
    title: Get
    description: Gets.
    effect: raed
    input:
      type: object
      properties:
        n: {type: string, $ref: "#"}
        n: {type: integer}
    request:
      method: GTE
      path: /x/{id}
      query: {state: {state}}
  - not a tool
  - name: delete
    title: Delete
    description: Deletes.
    effect: write
    request: {method: DELETE, path: /x}
    output: {max_bytes: many}
`))
	want := []string{
		"1:5 id", "2:7 name", "4:1 acess", "6:10 api.base[0]", "7:3 api.bases", "8:41 inject.format", "9:1 name",
		"10:17 generic.read", "10:24 generic.wrte", "11:6 cut",
		"16:13 tools[0].effect", "20:33 tools[0].input.properties.n.$ref", "21:9 tools[0].input.properties.n",
		"22:5 tools[0].request", "23:15 tools[0].request.method", "24:13 tools[0].request.path", "25:22 tools[0].request.query.state", "26:5 tools[1]",
		"30:13 tools[2].effect", "32:25 tools[2].output.max_bytes",
	}
	if d := cmp.Diff(want, places(err)); d != "" {
		t.Errorf("%s\n%s", d, fault.Of(err).Fields["problems"])
	}
	for _, p := range provider.Problems(err) {
		if p.Message == "" || p.Fix == "" || strings.Contains(p.String(), "provider.") {
			t.Errorf("%+v does not say what is wrong and what to do", p)
		}
	}
}

// What is missing is told at the place where it belongs.
func TestMissingHasAPlace(t *testing.T) {
	t.Parallel()
	_, err := provider.Parse([]byte("name: Demo\nauth: oauth2\nidentity:\n  path: /me\noauth2:\n  token_url: https://example.com/t\n"))
	want := []string{"1:1 id", "1:1 api.base", "3:1 identity.id", "5:1 oauth2.authorize_url"}
	if d := cmp.Diff(want, places(err)); d != "" {
		t.Error(d)
	}
}

func TestUnknownFieldsAreRecognised(t *testing.T) {
	t.Parallel()
	for key, fix := range map[string]string{"acess": "Did you mean access?", "Cut": "Did you mean cut?", "tolos": "Did you mean tools?", "colours": "Here belong: about, access, api, auth,"} {
		_, err := provider.Parse([]byte(minimal + key + ": [x]\n"))
		p := provider.Problems(err)
		if len(p) != 1 || p[0].Field != key || !strings.Contains(p[0].Fix, fix) || p[0].Line != 6 {
			t.Errorf("%s: got %+v, want %q", key, p, fix)
		}
	}
}

// Text that is no YAML has one problem, with its place, and no words of a parser
// or of Go in it where people often meet it.
func TestNotYAML(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ text, place, says string }{
		{minimal + "website: https: //x\n", "6:15 ", "colon"},
		{minimal + "api2:\n\tbase: x\n", "7:1 ", "tab"},
		{minimal + "website: \"https://x\n", "6:10 ", "not closed"},
		{minimal + "- x\n", "6:1 ", "does not fit"},
		{minimal + "website: @x\n", "6:10 ", "cannot start"},
		{minimal + "---\nid: two\n", "6:1 ", "more than one"},
	} {
		_, err := provider.Parse([]byte(row.text))
		p := provider.Problems(err)
		if len(p) != 1 || p[0].Fix == "" || !strings.Contains(p[0].Message, row.says) || places(err)[0] != row.place {
			t.Errorf("%q: got %+v, want %q at %s", row.text, p, row.says, row.place)
		}
	}
}

// A hostile record cannot make the answer much larger than itself.
func TestProblemsAreBounded(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for i := range 9000 {
		fmt.Fprintf(&text, "k%d: x\n", i)
	}
	_, err := provider.Parse([]byte(text.String()))
	if n := len(provider.Problems(err)); n != 100 {
		t.Errorf("got %d problems, want 100", n)
	}
	if n := len(fault.Of(err).Fields["problems"]); n > 64<<10 {
		t.Errorf("the problems take %d bytes", n)
	}
}
