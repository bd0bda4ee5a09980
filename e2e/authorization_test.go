//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/cli/person"
)

// Issue 6: judges that nobody here wrote go through the authorization server, and a
// person decides at the pages that they name (S1, S5, S16).
func TestForeignAuthorization(t *testing.T) {
	t.Parallel()
	s := dev(t, sqlite)
	ctx := t.Context()
	owner := s.enrolled(t)
	s.connect(t, owner, "sandbox", "mia@sandbox.example")

	asked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := decide(r, s, owner)
		if err != nil {
			http.Error(w, err.Error(), http.StatusTeapot)
			return
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(asked.Close)

	// The client of MCP's own TypeScript SDK, from its first request to an answer.
	t.Run("typescript", func(t *testing.T) {
		out, err := script(t, "mcp-signin.mjs", map[string]any{"url": s.MCPURL, "person": asked.URL}).Run()
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Done     []string
			Protocol string
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Done) != 2 || got.Protocol != "2025-11-25" {
			t.Errorf("got %s (%v), want both ways at 2025-11-25", out, err)
		}
	})

	t.Run("openid-client", func(t *testing.T) {
		made, err := client.New(s.URL, s.APIKey).CreateAgent(ctx, client.NewAgent{OrganizationID: s.OrganizationID, Name: "Robot", Kind: "delegated", OwnerID: s.UserID})
		if err != nil {
			t.Fatal(err)
		}
		out, err := script(t, "openid-client.mjs", map[string]any{"issuer": s.URL, "resource": s.MCPURL, "person": asked.URL,
			"robot": map[string]string{"id": made.ClientID, "secret": made.ClientSecret}}).Run()
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Done []string }
		if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Done) != 4*9 {
			t.Errorf("got %d steps (%v), want 9 for each of 4 ways to authenticate: %s", len(got.Done), err, out)
		}
	})

	// Its list of what an authorization server must do; nothing of it is excused.
	t.Run("conformance", func(t *testing.T) {
		port := freePort(t)
		back := "http://127.0.0.1:" + port + "/callback"
		registration, _ := json.Marshal(map[string]any{"redirect_uris": []string{back}, "token_endpoint_auth_method": "none"})
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/oauth/register", strings.NewReader(string(registration)))
		req.Header.Set("Content-Type", "application/json")
		var registered struct {
			ClientID string `json:"client_id"`
		}
		sendJSON(t, req, http.StatusCreated, &registered)
		cmd, dir := conformance(t, "authorization", "--url", s.URL, "--client-id", registered.ClientID, "--resource", s.MCPURL, "--port", port)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for lines := bufio.NewScanner(out); lines.Scan(); {
			fmt.Fprintln(&all, lines.Text())
			if !strings.HasPrefix(lines.Text(), s.URL+"/oauth/authorize?") {
				continue
			}
			back, err := consent(ctx, owner, lines.Text())
			if err != nil {
				t.Fatal(err)
			}
			resp, err := plain.Get(back)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
		}
		_ = cmd.Wait() // it fails when a scenario does
		got := conformanceResults(t, dir, all.String())
		for _, scenario := range []string{"authorization-server-metadata-endpoint", "authorization-code-grant"} {
			if len(got[scenario]) == 0 {
				t.Errorf("%s did not run: %v", scenario, got)
			}
		}
		for scenario, checks := range got {
			for check, failure := range checks {
				if failure != "" {
					t.Errorf("%s:%s fails: %s", scenario, check, failure)
				}
			}
		}
	})
}

// decide does what the script asks of the person or of the agent's own program.
func decide(r *http.Request, s *server, owner *person.Person) (map[string]string, error) {
	ctx := r.Context()
	var ask struct {
		Page, Token, Call string
		Approve           string
		Args              map[string]any
		HandOn            bool `json:"hand_on"`
	}
	if err := json.NewDecoder(r.Body).Decode(&ask); err != nil {
		return nil, err
	}
	if ask.Approve != "" {
		_, err := owner.Approve(ctx, ask.Approve, nil)
		return map[string]string{}, err
	}
	if ask.Page != "" {
		back, err := consent(ctx, owner, ask.Page)
		return map[string]string{"back": back}, err
	}
	c := mcp.NewClient(&mcp.Implementation{Name: "e2e", Version: "1"}, nil)
	session, err := c.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: s.MCPURL, DisableStandaloneSSE: true,
		HTTPClient: &http.Client{Transport: bearer{token: ask.Token}}}, nil)
	if err != nil && strings.Contains(err.Error(), "Unauthorized") {
		return map[string]string{"code": "unauthorized"}, nil
	}
	if err != nil {
		return nil, err
	}
	defer session.Close()
	if ask.Call != "" {
		got, err := callTool(ctx, session, ask.Call, ask.Args)
		return map[string]string{"code": got.fact("code")}, err
	}
	got, err := callTool(ctx, session, "request_session", map[string]any{"providers": []string{"sandbox"}, "effects": []string{"read", "write"}, "purpose": "Be judged.", "minutes": 10})
	if err != nil || got.refused {
		return nil, fmt.Errorf("request_session: %w %s", err, got.raw)
	}
	_, err = owner.Approve(ctx, got.fact("approval_url"), func(v url.Values) {
		if v.Del("hand_on"); ask.HandOn {
			v.Set("hand_on", "yes")
		}
	})
	return map[string]string{"session": got.fact("session")}, err
}

// consent lets a program sign in, at the page where a browser ends up, and gives the
// way back to it; a device has none.
func consent(ctx context.Context, owner *person.Person, page string) (back string, err error) {
	at, err := owner.Look(ctx, page)
	if err != nil {
		return "", err
	}
	_, after, err := owner.Do(ctx, at.Address.String(), at.Address.Path, func(v url.Values) { v.Set("label", "Judged") })
	if err == nil && strings.HasPrefix(after.Address.Path, "/ui/approvals/") { // it asked for a session too
		_, after, err = owner.Do(ctx, after.Address.String(), after.Address.Path+"/approve", nil)
	}
	return after.Link, err
}
