//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// Clients that others wrote speak to /mcp with nothing but a bearer token.
func TestForeignClients(t *testing.T) {
	t.Parallel()
	s := dev(t, sqlite)
	b := signIn(t, s)
	connectSandbox(t, b)
	a := newAgent(t, b, s, "Foreign client")
	handle, approval := a.request(map[string]any{"providers": []string{"sandbox"}, "effects": []string{"read"}, "purpose": "Look.", "minutes": 10})
	approveByKeyboard(t, b, approval)

	t.Run("inspector", func(t *testing.T) {
		base := []string{s.MCPURL, "--transport", "http", "--header", "Authorization: Bearer " + a.token, "--method"}
		out, err := inspector(t, append(base, "tools/list")...)
		if err != nil || !strings.Contains(out, "sandbox_list_issues") || !strings.Contains(out, "request_session") {
			t.Fatalf("tools/list: %v: %s", err, out)
		}
		out, err = inspector(t, append(base, "tools/call", "--tool-name", "sandbox_list_issues", "--tool-arg", "session="+handle)...)
		if err != nil || !strings.Contains(out, "number") {
			t.Errorf("tools/call: %v: %s", err, out)
		}
		if out, err := inspector(t, s.MCPURL, "--transport", "http", "--header", "Authorization: Bearer amb_at_"+strings.Repeat("A", 43), "--method", "tools/list"); err == nil {
			t.Errorf("tools/list with a wrong token: got %s, want a failure", out)
		}
	})

	t.Run("typescript", func(t *testing.T) {
		var got struct {
			Tools  []string
			Result struct {
				IsError    bool
				Structured map[string]any `json:"structuredContent"`
			}
		}
		out, err := script(t, "mcp-client.mjs", map[string]any{"url": s.MCPURL, "token": a.token, "tool": "sandbox_list_issues", "args": map[string]any{"session": handle}}).Run()
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if !slices.Contains(got.Tools, "sandbox_list_issues") || got.Result.IsError || len(got.Result.Structured) == 0 {
			t.Errorf("got %s, want the tools and a structured answer", out)
		}
	})
}

// mcp-remote brings clients that know only stdio to us: it finds the authorization
// server, registers and signs in by itself, in the person's browser, and then passes
// everything on. Its agent asks, waits and works like any other.
func TestForeignBridge(t *testing.T) {
	t.Parallel()
	s := dev(t, sqlite)
	b := signIn(t, s)
	connectSandbox(t, b)
	node := setting(t, "AMBIT_NODE")
	cmd := exec.Command(node, filepath.Join(setting(t, "AMBIT_NODE_MODULES"), "mcp-remote", "dist", "proxy.js"), s.MCPURL)
	cmd.Env = []string{"PATH=" + filepath.Dir(node), "HOME=" + t.TempDir()} // with no program that opens a browser
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	pages := make(chan string, 1)
	go func() {
		var all strings.Builder
		for lines := bufio.NewScanner(said); lines.Scan(); {
			line := strings.TrimSpace(lines.Text())
			all.WriteString(line + "\n")
			if strings.HasPrefix(line, s.URL) && strings.Contains(line, "client_id=") {
				pages <- line
			}
		}
		if t.Failed() {
			t.Log(all.String())
		}
	}()
	connected := make(chan error, 1)
	var session *mcp.ClientSession
	go func() {
		var err error
		session, err = mcp.NewClient(&mcp.Implementation{Name: "stdio only", Version: "1"}, nil).Connect(t.Context(), &mcp.CommandTransport{Command: cmd, TerminateDuration: time.Second}, &mcp.ClientSessionOptions{ProtocolVersion: "2025-11-25"}) // it passes the handshake on, not server/discover
		connected <- err
	}()
	select {
	case page := <-pages:
		b.open(page)
	case err := <-connected:
		t.Fatalf("without a sign-in: %v", err)
	case <-time.After(patience):
		t.Fatal("it named no page to sign in at")
	}
	b.arrives("/ui/consent/")
	b.fill("#label", "Stdio client")
	b.click("[data-prove]")
	b.until("the page has the way back", `document.querySelector('a.button.primary[href*="callback?"]')`)
	// The way back is followed without the browser, whose idle connections would keep
	// the program's callback from closing.
	back, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.querySelector('a.button.primary[href*="callback?"]').href`))
	if err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, back, nil)
	req.Close = true
	if resp, err := plain.Do(req); err != nil || resp.Body.Close() != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the way back: %v %v", resp, err)
	}
	select {
	case err := <-connected:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("it did not connect after the sign-in")
	}
	t.Cleanup(func() { _ = session.Close() })
	a := &agent{t: t, client: session}
	handle, approval := a.request(map[string]any{"providers": []string{"sandbox"}, "effects": []string{"read"}, "purpose": "Look.", "minutes": 10})
	a.refusedWith("pending", "sandbox_list_issues", map[string]any{"session": handle})
	approveByKeyboard(t, b, approval)
	if got := a.mustCall("sandbox_list_issues", map[string]any{"session": handle}); !strings.Contains(got.raw, "number") {
		t.Errorf("got %s", got.raw)
	}
}

// foreignStats is what the foreign provider saw.
type foreignStats struct {
	Exchanges, Refreshes, Refused, Revocations int
	Scopes                                     []string
	Latest                                     string // the newest access token
}

const foreignRecord = `id: foreign
name: Foreign
website: %[1]s
auth: oauth2
oauth2:
  authorize_url: %[1]s/auth
  token_url: %[1]s/token
  revoke_url: %[1]s/token/revocation
  revoke_style: rfc7009
  issuer: %[1]s
  client_auth: basic
  scopes:
    base: [openid, offline_access, email, "files:read", "files:write"]
  refresh: {rotates: true}
identity: {path: /me, id: sub, label: email}
api:
  base: ["%[1]s"]
inject: {header: Authorization, format: "Bearer {access_token}"}
tools:
  - name: profile
    title: Read the profile
    description: Tells whose account this is.
    effect: read
    input: {type: object, properties: {}}
    request: {method: GET, path: /me}
`

// A provider that nobody here wrote: a certified one, whose refresh tokens
// rotate and whose grant dies when one is used twice. Two nodes share the
// connection (O3, O5, O9, F7).
func TestForeignProvider(t *testing.T) {
	t.Parallel()
	const lifetime = 15 * time.Second
	port := freePort(t)
	place := "127.0.0.1:" + port
	allow := "AMBIT_OUTBOUND_ALLOW=" + place
	first := dev(t, postgres, allow)

	secret := "foreign-client-secret-" + random()
	var ready struct{ Issuer string }
	stop, err := script(t, "oidc-provider.mjs", map[string]any{
		"port": port, "client_id": "ambit", "client_secret": secret, "ttl": int(lifetime.Seconds()), "reject": []string{"files:write"},
		"redirect_uris": []string{first.URL + "/ui/callback/" + first.EnvironmentID + "/foreign"},
	}).Start(&ready)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	stats := func() foreignStats {
		t.Helper()
		var st foreignStats
		getJSON(t, ready.Issuer+"/_stats", "", &st)
		return st
	}

	b := signIn(t, first)
	second := first.secondNode(t, allow)
	b.open("/ui/providers/new")
	b.clickText("YAML")
	b.fill("#yaml", fmt.Sprintf(foreignRecord, ready.Issuer))
	b.fill("#client_id", "ambit")
	b.fill("#client_secret", secret)
	b.clickText("Continue")
	b.until("the page asks", `document.querySelector("form[data-passkey=get]")`)
	b.click("[data-prove]")
	b.until("the provider is stored", `document.readyState === "complete" && location.pathname === "/ui/providers" && document.body.innerText.includes("Foreign")`)
	b.open("/ui/connections/new?provider=foreign")
	b.clickText("Continue")
	b.until("the way to the provider is shown", fmt.Sprintf(`document.querySelector("a.button.primary")?.href.startsWith(%q)`, ready.Issuer))
	b.click("a.button.primary")
	b.connected(t, "mallory@foreign.example")
	if st := stats(); st.Exchanges != 1 || slices.Contains(st.Scopes, "files:write") {
		t.Fatalf("after connecting: got %+v, want one exchange with less than was asked for", st)
	}

	a := newAgent(t, b, first, "Two-node agent")
	handle, approval := a.request(map[string]any{"providers": []string{"foreign"}, "effects": []string{"read"}, "purpose": "Read the profile.", "minutes": 30})
	approveByKeyboard(t, b, approval)
	nodes := []*mcp.ClientSession{a.client, connect(t, second, a.token)}
	burst := func() {
		t.Helper()
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				r, err := callTool(t.Context(), nodes[i%2], "foreign_profile", map[string]any{"session": handle})
				if err != nil || r.refused || !strings.Contains(r.raw, "mallory") {
					t.Errorf("call %d on node %d: %v %s", i, i%2+1, err, r.raw)
				}
			})
		}
		wg.Wait()
	}

	burst()
	for round := range 2 {
		before := stats()
		time.Sleep(lifetime) // every token of before is now past its end
		idle := stats().Refreshes - before.Refreshes
		burst()
		after := stats()
		if after.Refused != 0 {
			t.Fatalf("round %d: the provider refused %d refreshes: a refresh token was used twice", round, after.Refused)
		}
		if n := after.Refreshes - before.Refreshes; idle != 0 || n != 1 {
			t.Errorf("round %d: 20 calls on two nodes at expiry caused %d refreshes, and %d before any call, want one and none", round, n, idle)
		}
	}

	// Disconnecting revokes at the provider: the token that worked is dead there.
	live := stats().Latest
	if got := userinfo(t, ready.Issuer, live); got != http.StatusOK {
		t.Fatalf("the newest token before disconnecting: got %d, want 200", got)
	}
	b.open("/ui/connections")
	b.click(`button[popovertarget^="off-"]`)
	b.click(`dialog[id^="off-"]:popover-open button.danger`)
	b.until("the account is disconnected", `document.readyState === "complete" && !document.querySelector('dialog[id^="off-"]')`)
	for end := time.Now().Add(patience); stats().Revocations == 0 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
	}
	if got := userinfo(t, ready.Issuer, live); got != http.StatusUnauthorized {
		t.Errorf("the newest token after disconnecting: got %d, want 401", got)
	}
	for i, n := range nodes {
		if r, err := callTool(t.Context(), n, "foreign_profile", map[string]any{"session": handle}); err == nil && !r.refused {
			t.Errorf("node %d still runs calls after disconnecting: %s", i+1, r.raw)
		}
	}
}

func userinfo(t *testing.T, issuer, token string) int {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, issuer+"/me", nil)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := plain.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}
