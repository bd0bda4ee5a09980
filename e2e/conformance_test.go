//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/client"
)

// The protocol's own conformance suite judges the built binary, with its real
// bearer check, sessions and gateway behind /mcp. The tools that the suite calls
// by fixed names are those of a provider that is connected here. What is not
// offered is listed, with the reason, in conformance.txt: a listed scenario that
// passes fails this test as an unlisted one does that fails (S10, S12, S13).
func TestConformance(t *testing.T) {
	t.Parallel()
	third := httptest.NewServer(http.HandlerFunc(fixture))
	t.Cleanup(third.Close)
	address := strings.TrimPrefix(third.URL, "http://")
	s := dev(t, sqlite, "AMBIT_OUTBOUND_ALLOW="+address, "AMBIT_CALL_RATE=100000")
	front := conformanceFront(t, s, address)
	for _, revision := range []string{"2026-07-28", "2025-11-25"} {
		t.Run(revision, func(t *testing.T) {
			excused := excusedChecks(t, revision)
			for scenario, checks := range runConformance(t, front, revision) {
				excused.judge(t, scenario, checks, "")
			}
			excused.settle(t)
		})
	}
}

// excuses are lines of conformance.txt, and which of them something needed.
type excuses struct {
	why  map[string]string // by scenario, or scenario:check
	used map[string]bool
}

// judge fails the test for each check that failed and that no line excuses.
func (e excuses) judge(t *testing.T, scenario string, checks map[string]string, more string) {
	t.Helper()
	for check, failure := range checks {
		if line := e.line(scenario, check); line != "" {
			e.used[line] = e.used[line] || failure != ""
		} else if failure != "" {
			t.Errorf("%s:%s fails: %s%s", scenario, check, failure, more)
		}
	}
}

// settle fails the test for each line that nothing needed.
func (e excuses) settle(t *testing.T) {
	t.Helper()
	for line, why := range e.why {
		if !e.used[line] {
			t.Errorf("nothing of %s fails, though conformance.txt says: %s", line, why)
		}
	}
}

// line is the one that excuses a check.
func (e excuses) line(scenario, check string) string {
	for line := range e.why {
		of, one, _ := strings.Cut(line, ":")
		if matches(of, scenario) && (one == "" || matches(one, check)) {
			return line
		}
	}
	return ""
}

func matches(pattern, name string) bool {
	if start, star := strings.CutSuffix(pattern, "*"); star {
		return strings.HasPrefix(name, start)
	}
	return pattern == name
}

// fixture is the third party whose tools the suite knows by name.
func fixture(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/me":
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"1","email":"judge@example.com"}`)
	case "/text":
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "This is a simple text response for testing.")
	case "/image":
		w.Header().Set("Content-Type", "image/png")
		_, _ = w.Write([]byte("\x89PNG\r\n\x1a\n\x00\xff"))
	case "/audio":
		w.Header().Set("Content-Type", "audio/wav")
		_, _ = w.Write([]byte("RIFF\x00\xff\xffWAVE"))
	case "/file":
		w.Header().Set("Content-Type", "application/zip")
		_, _ = w.Write([]byte("PK\x03\x04\xff\x00"))
	default:
		http.Error(w, "This tool intentionally returns an error for testing", http.StatusUnprocessableEntity)
	}
}

// fixtureTools are those of a provider "test": the name of a provider is the first
// part of the name of a tool, so they have the names that the suite calls.
const fixtureTools = `
  - {name: simple_text, title: Text, description: Gives a text., effect: read, request: {method: GET, path: /text}}
  - {name: image_content, title: Image, description: Gives an image., effect: read, request: {method: GET, path: /image}}
  - {name: audio_content, title: Audio, description: Gives a sound., effect: read, request: {method: GET, path: /audio}}
  - {name: embedded_resource, title: File, description: Gives a file., effect: read, request: {method: GET, path: /file}}
  - {name: error_handling, title: Error, description: Fails., effect: read, request: {method: GET, path: /error}}
`

// conformanceFront connects the fixture and gives the address of a front that
// adds what the suite cannot send: a token, and the session of a tool call.
func conformanceFront(t *testing.T, s *server, third string) string {
	t.Helper()
	ctx := t.Context()
	api := client.New(s.URL, s.APIKey)
	owner := s.enrolled(t)
	record := "id: test\nname: Fixture\nwebsite: http://" + third + "\nauth: api_key\ninject: {header: X-Api-Key, format: \"{api_key}\"}\n" +
		"identity: {path: /me, id: id, label: email}\napi:\n  base: [\"http://" + third + "\"]\ntools:" + fixtureTools
	if _, err := api.PutProvider(ctx, "test", client.PutProvider{YAML: record}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Connect(ctx, client.NewConnection{OrganizationID: s.OrganizationID, Provider: "test", OwnerID: s.UserID, Fields: map[string]string{"api_key": "fixture-" + random()}}); err != nil {
		t.Fatal(err)
	}
	a := s.robot(t, "Judge")
	handle := a.approved(owner, "test", 60)

	to, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	var front *httptest.Server
	proxy := &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		if r.Out.Host = r.In.Host; r.In.Host == front.Listener.Addr().String() {
			r.Out.Host = to.Host
		}
		if r.In.Header.Get("Origin") == front.URL {
			r.Out.Header.Set("Origin", s.URL)
		}
		r.Out.Header.Set("Authorization", "Bearer "+a.token)
		body, _ := io.ReadAll(r.In.Body)
		body = withSession(body, handle)
		r.Out.Body, r.Out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}}
	front = httptest.NewServer(proxy)
	t.Cleanup(front.Close)
	return front.URL + "/mcp"
}

// toolArguments is where the arguments of a call of the fixture begin.
var toolArguments = regexp.MustCompile(`"name":"test_\w+","arguments":\{`)

// withSession adds the session to a call of the fixture and leaves every other
// byte as the suite sent it.
func withSession(body []byte, handle string) []byte {
	return toolArguments.ReplaceAllFunc(body, func(call []byte) []byte {
		rest := body[bytes.Index(body, call)+len(call):]
		if bytes.HasPrefix(rest, []byte("}")) {
			return append(bytes.Clone(call), `"session":"`+handle+`"`...)
		}
		return append(bytes.Clone(call), `"session":"`+handle+`",`...)
	})
}

func clientCredentials(t *testing.T, s *server, id, secret string) string {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "resource": {s.MCPURL}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	var tokens struct {
		Access string `json:"access_token"`
	}
	sendJSON(t, req, http.StatusOK, &tokens)
	return tokens.Access
}

// runConformance runs all that a revision requires, and gives how each check of
// each scenario failed; one that did not has an empty text.
func runConformance(t *testing.T, at, revision string) map[string]map[string]string {
	t.Helper()
	cmd, dir := conformance(t, "server", "--url", at, "--requirements", revision)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run() // it fails when any scenario does
	return conformanceResults(t, dir, out.String())
}

// conformance is a command of the suite, and the folder that it writes to.
func conformance(t *testing.T, args ...string) (*exec.Cmd, string) {
	t.Helper()
	dir := t.TempDir()
	args = append([]string{filepath.Join(setting(t, "AMBIT_NODE_MODULES"), "@modelcontextprotocol", "conformance", "dist", "index.js")}, args...)
	cmd := exec.CommandContext(t.Context(), setting(t, "AMBIT_NODE"), append(args, "--output-dir", dir)...)
	cmd.Env = []string{"PATH=" + filepath.Dir(setting(t, "AMBIT_NODE")) + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	return cmd, dir
}

// conformanceResults reads what the suite wrote: how each check of each scenario
// failed. What was skipped is left out.
func conformanceResults(t *testing.T, dir, out string) map[string]map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "checks.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("the suite wrote nothing: %v\n%s", err, out)
	}
	all := map[string]map[string]string{}
	for _, file := range files {
		doc, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var checks []struct{ ID, Status, ErrorMessage string }
		if err := json.Unmarshal(doc, &checks); err != nil {
			t.Fatal(err)
		}
		scenario := scenarioOf(filepath.Base(filepath.Dir(file)))
		if all[scenario] == nil {
			all[scenario] = map[string]string{}
		}
		for _, c := range checks {
			if c.Status == "FAILURE" {
				all[scenario][c.ID] += " " + c.ErrorMessage
			} else if c.Status == "SUCCESS" {
				all[scenario][c.ID] += ""
			}
		}
	}
	t.Logf("%d scenarios", len(all))
	return all
}

// scenarioOf is the scenario in the name of a folder of results.
func scenarioOf(folder string) string {
	name := regexp.MustCompile(`-\d{4}-\d\d-\d\dT.*$`).ReplaceAllString(folder, "")
	return strings.TrimPrefix(strings.TrimPrefix(name, "authorization-"), "server-")
}

// excusedChecks reads conformance.txt.
func excusedChecks(t *testing.T, revision string) excuses {
	t.Helper()
	text, err := os.ReadFile("conformance.txt")
	if err != nil {
		t.Fatal(err)
	}
	excused := excuses{map[string]string{}, map[string]bool{}}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		scenario, rest, _ := strings.Cut(line, " ")
		revisions, why, _ := strings.Cut(strings.TrimSpace(rest), " ")
		if strings.TrimSpace(why) == "" {
			t.Fatalf("conformance.txt gives no reason: %s", line)
		}
		if revisions == "both" || revisions == revision {
			excused.why[scenario] = strings.TrimSpace(why)
		}
	}
	return excused
}
