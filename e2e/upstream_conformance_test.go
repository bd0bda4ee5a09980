//go:build e2e

package e2e

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/client"
)

// judged names the binary that the client of the suite runs, in its own process.
const judged = "AMBIT_E2E_JUDGED"

// The conformance suite's own authorization servers judge how accounts are
// connected at MCP servers: where metadata is looked for, what is registered, which
// scopes and resource are asked for, whose answers are believed (O2, O9, S10). Each
// scenario has ports of its own, so each has a server of ours that may go there.
func TestConformanceUpstream(t *testing.T) {
	t.Parallel()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	excused := excusedChecks(t, "upstream")
	maps.DeleteFunc(excused.why, func(line, _ string) bool { return !strings.HasPrefix(line, "upstream-") })
	for _, scenario := range authScenarios(t) {
		t.Run(strings.TrimPrefix(scenario, "auth/"), func(t *testing.T) {
			if line := excused.line("upstream-"+scenario, ""); strings.Contains(line, "*") {
				excused.used[line] = true
				return // a kind of authorization that is not offered
			}
			cmd, dir := conformance(t, "client", "--command", self+" -test.run=^TestConformanceUpstreamClient$ --", "--scenario", scenario, "--timeout", "120000")
			cmd.Env = append(cmd.Env, judged+"="+bin, "AMBIT_NODE="+setting(t, "AMBIT_NODE"), "AMBIT_NODE_MODULES="+setting(t, "AMBIT_NODE_MODULES"))
			out, _ := cmd.CombinedOutput()
			for _, checks := range conformanceResults(t, filepath.Join(dir, "auth"), string(out)) {
				excused.judge(t, "upstream-"+scenario, checks, "\n"+tail(out))
			}
		})
	}
	excused.settle(t)
}

func tail(out []byte) string { return string(out[max(0, len(out)-2500):]) }

// authScenarios lists those that the suite has for clients.
func authScenarios(t *testing.T) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), setting(t, "AMBIT_NODE"), filepath.Join(setting(t, "AMBIT_NODE_MODULES"), "@modelcontextprotocol", "conformance", "dist", "index.js"), "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "- auth/"); ok {
			name, _, _ = strings.Cut(name, " ")
			if !slices.Contains(all, "auth/"+name) {
				all = append(all, "auth/"+name)
			}
		}
	}
	if len(all) < 20 {
		t.Fatalf("the suite lists %d scenarios of authorization", len(all))
	}
	return all
}

// TestConformanceUpstreamClient is the client that the suite starts: the built
// binary, told of an MCP server, with a person who says yes to everything.
func TestConformanceUpstreamClient(t *testing.T) {
	bin := os.Getenv(judged)
	if bin == "" {
		t.Skip("the conformance suite runs it")
	}
	binary = func() (string, error) { return bin, nil }
	at := os.Args[len(os.Args)-1]
	s := dev(t, sqlite, "AMBIT_OUTBOUND_ALLOW="+strings.Join(placesOf(t, at), ","))
	ctx := t.Context()
	api := client.New(s.URL, s.APIKey)
	owner := s.enrolled(t)
	var given struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	_ = json.Unmarshal([]byte(os.Getenv("MCP_CONFORMANCE_CONTEXT")), &given) // most scenarios give nothing
	if _, err := api.AddMCPServer(ctx, client.AddMCPServer{URL: at, ID: "judge", Name: "Judge", ClientID: given.ID, ClientSecret: given.Secret}); err != nil {
		t.Fatal(err)
	}
	s.connect(t, owner, "judge", "")
	list, err := api.Connections(ctx, client.ConnectionFilter{OrganizationID: s.OrganizationID})
	if err != nil || len(list.Data) != 1 {
		t.Fatalf("after signing in: %v %+v", err, list)
	}
	conn := list.Data[0].ID
	seen, err := api.LookAtTools(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	effects, pins := map[string]string{}, map[string]string{}
	for _, tool := range seen.Tools {
		effects[tool.Name], pins[tool.Name] = "read", tool.Pin
	}
	if _, err := api.TakeTools(ctx, conn, effects, pins); err != nil {
		t.Fatal(err)
	}
	if _, err := api.AdoptTools(ctx, conn); err != nil {
		t.Fatal(err)
	}
	a := s.robot(t, "Judge")
	handle := a.approved(owner, "judge", 30)
	p, err := api.Provider(ctx, "judge")
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range p.Tools {
		a.call(tool.Name, map[string]any{"session": handle})
	}
}

// placesOf lists the hosts and ports that a scenario is played at, which its
// documents name.
func placesOf(t *testing.T, at string) []string {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	root := u.Scheme + "://" + u.Host
	places := []string{u.Host}
	look := []string{root + "/.well-known/oauth-protected-resource" + u.Path, root + "/.well-known/oauth-protected-resource"}
	if resp, err := plain.Post(at, "application/json", strings.NewReader(`{}`)); err == nil {
		_ = resp.Body.Close()
		if _, rest, ok := strings.Cut(resp.Header.Get("WWW-Authenticate"), `resource_metadata="`); ok {
			told, _, _ := strings.Cut(rest, `"`)
			look = []string{told}
		}
	}
	for _, place := range look { // in the order of a good client, which the suite watches
		resp, err := plain.Get(place)
		if err != nil {
			continue
		}
		doc, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		var said struct {
			Servers []string `json:"authorization_servers"`
		}
		if resp.StatusCode != http.StatusOK || json.Unmarshal(doc, &said) != nil {
			continue
		}
		for _, server := range said.Servers {
			if s, err := url.Parse(server); err == nil && !slices.Contains(places, s.Host) {
				places = append(places, s.Host)
			}
		}
		break
	}
	return places
}
