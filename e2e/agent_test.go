//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/e2e/world"
	"github.com/ambit-dev/ambit/internal/cli/person"
)

// agent is a program that got its identity through the authorization server,
// with its person's consent in the browser.
type agent struct {
	t      *testing.T
	token  string
	client *mcp.ClientSession
}

// plain is a client that neither follows redirects nor keeps cookies.
var plain = &http.Client{Timeout: 40 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func freePort(t *testing.T) string {
	t.Helper()
	port, err := world.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// getJSON fetches and decodes, and fails on any other status than 200.
func getJSON(t *testing.T, u, bearer string, into any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	sendJSON(t, req, http.StatusOK, into)
}

func sendJSON(t *testing.T, req *http.Request, want int, into any) {
	t.Helper()
	resp, err := plain.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != want {
		t.Fatalf("%s %s: got %d, want %d: %s", req.Method, req.URL, resp.StatusCode, want, body)
	}
	if into != nil {
		if err := json.Unmarshal(body, into); err != nil {
			t.Fatalf("%s %s: %v: %s", req.Method, req.URL, err, body)
		}
	}
}

// robot is an agent of the first person that authenticates with a secret of its own.
func (s *server) robot(t *testing.T, name string) *agent {
	t.Helper()
	made, err := client.New(s.URL, s.APIKey).CreateAgent(t.Context(), client.NewAgent{OrganizationID: s.OrganizationID, Name: name, Kind: "delegated", OwnerID: s.UserID})
	if err != nil {
		t.Fatal(err)
	}
	token := clientCredentials(t, s, made.ClientID, made.ClientSecret)
	return &agent{t: t, token: token, client: connect(t, s, token)}
}

// approved asks for a provider, has a person say yes, and gives the session.
func (a *agent) approved(p *person.Person, provider string, minutes int) string {
	a.t.Helper()
	asked := a.mustCall("request_session", map[string]any{"providers": []string{provider}, "purpose": "Work there.", "minutes": minutes})
	if _, err := p.Approve(a.t.Context(), asked.fact("approval_url"), func(url.Values) {}); err != nil {
		a.t.Fatal(err)
	}
	return asked.fact("session")
}

// newAgent finds the authorization server from a refused call, registers,
// has the person in the browser consent, and connects.
func newAgent(t *testing.T, b *browser, s *server, label string) *agent {
	t.Helper()
	// A call without a token says where to go (RFC 9728).
	resp, err := plain.Post(s.MCPURL, "application/json", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	challenge := resp.Header.Get("WWW-Authenticate")
	_, rest, ok := strings.Cut(challenge, `resource_metadata="`)
	if resp.StatusCode != http.StatusUnauthorized || !ok {
		t.Fatalf("a call without a token: got %d with %q, want 401 that names the resource metadata", resp.StatusCode, challenge)
	}
	metadata, _, _ := strings.Cut(rest, `"`)
	var resource struct {
		Resource string   `json:"resource"`
		Servers  []string `json:"authorization_servers"`
	}
	getJSON(t, metadata, "", &resource)
	if resource.Resource != s.MCPURL || len(resource.Servers) != 1 {
		t.Fatalf("resource metadata: got %+v, want %s with one authorization server", resource, s.MCPURL)
	}
	var as struct {
		Issuer       string `json:"issuer"`
		Authorize    string `json:"authorization_endpoint"`
		Token        string `json:"token_endpoint"`
		Registration string `json:"registration_endpoint"`
	}
	getJSON(t, resource.Servers[0]+"/.well-known/oauth-authorization-server", "", &as)

	answers := make(chan url.Values, 1)
	callback := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/callback" {
			answers <- r.URL.Query()
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!doctype html><title>agent</title><h1>Back to your agent</h1>")
	}))
	t.Cleanup(callback.Close)
	redirect := callback.URL + "/callback"
	registration, _ := json.Marshal(map[string]any{
		"client_name": "Totally Official Client", "redirect_uris": []string{redirect}, "token_endpoint_auth_method": "none",
		"grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"}, "application_type": "native",
	})
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, as.Registration, strings.NewReader(string(registration)))
	req.Header.Set("Content-Type", "application/json")
	var registered struct {
		ClientID string `json:"client_id"`
	}
	sendJSON(t, req, http.StatusCreated, &registered)

	verifier, state := random(), random()
	sum := sha256.Sum256([]byte(verifier))
	b.open(as.Authorize + "?" + url.Values{
		"client_id": {registered.ClientID}, "redirect_uri": {redirect}, "response_type": {"code"}, "state": {state}, "resource": {resource.Resource},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}.Encode())
	b.arrives("/ui/consent/")
	// A name that a program gives itself is not what the person decides on (A1).
	if heading := b.text("h1"); strings.Contains(heading, "Totally Official Client") {
		t.Errorf("the consent page's heading believes the program's own name: %s", heading)
	}
	b.fill("#label", label)
	b.click("[data-prove]")
	b.until("the page has the way back", `document.querySelector('a.button.primary[href*="/callback?"]')`)
	b.click(`a.button.primary[href*="/callback?"]`)

	var answer url.Values
	select {
	case answer = <-answers:
	case <-time.After(patience):
		t.Fatal("the browser did not come back to the agent")
	}
	if answer.Get("state") != state || answer.Get("iss") != as.Issuer || answer.Get("code") == "" {
		t.Fatalf("answer to the agent: got %v, want code, our state and iss %s", answer, as.Issuer)
	}
	form := url.Values{
		"grant_type": {"authorization_code"}, "code": {answer.Get("code")}, "client_id": {registered.ClientID}, "redirect_uri": {redirect},
		"code_verifier": {verifier}, "resource": {resource.Resource},
	}
	req, _ = http.NewRequestWithContext(t.Context(), http.MethodPost, as.Token, strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var tokens struct {
		Access string `json:"access_token"`
	}
	sendJSON(t, req, http.StatusOK, &tokens)
	a := &agent{t: t, token: tokens.Access}
	a.client = connect(t, s, a.token)
	return a
}

func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// bearer adds a token, and the public host for a node that is reached at its
// own address.
type bearer struct {
	token, host string
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	r.Host = b.host
	return http.DefaultTransport.RoundTrip(r)
}

// connect opens an MCP connection to one node.
func connect(t *testing.T, s *server, token string) *mcp.ClientSession {
	t.Helper()
	public, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "e2e", Version: "1"}, nil)
	session, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{
		Endpoint: s.MCPURL, HTTPClient: &http.Client{Transport: bearer{token, public.Host}}, DisableStandaloneSSE: true,
	}, nil)
	if err != nil {
		t.Fatalf("connecting to %s: %v", s.MCPURL, err)
	}
	t.Cleanup(func() { _ = session.Close() })
	return session
}

// result is what a tool answered: whole, and its facts.
type result struct {
	raw     string
	refused bool
	facts   map[string]any
}

func (r result) fact(name string) string { s, _ := r.facts[name].(string); return s }

func callTool(ctx context.Context, c *mcp.ClientSession, name string, args map[string]any) (result, error) {
	res, err := c.CallTool(ctx, &mcp.CallToolParams{Name: name, Arguments: args})
	if err != nil {
		return result{}, err
	}
	raw, err := json.Marshal(res)
	if err != nil {
		return result{}, err
	}
	var doc struct {
		Structured map[string]any `json:"structuredContent"`
	}
	_ = json.Unmarshal(raw, &doc)
	return result{raw: string(raw), refused: res.IsError, facts: doc.Structured}, nil
}

// call calls a tool and lets the test read whatever was answered.
func (a *agent) call(name string, args map[string]any) result {
	a.t.Helper()
	r, err := callTool(a.t.Context(), a.client, name, args)
	if err != nil {
		a.t.Fatalf("%s: %v", name, err)
	}
	return r
}

// mustCall wants the tool to succeed.
func (a *agent) mustCall(name string, args map[string]any) result {
	a.t.Helper()
	r := a.call(name, args)
	if r.refused {
		a.t.Fatalf("%s was refused: %s", name, r.raw)
	}
	return r
}

// refusedWith wants a refusal with a stable code and something to do next.
func (a *agent) refusedWith(code, name string, args map[string]any) result {
	a.t.Helper()
	r := a.call(name, args)
	if !r.refused || r.fact("code") != code {
		a.t.Fatalf("%s: got %s, want a refusal with code %s", name, r.raw, code)
	}
	if r.fact("hint") == "" {
		a.t.Errorf("%s: the refusal %s has no hint", name, code)
	}
	return r
}

// request asks for a session and returns its handle and the approval's path.
func (a *agent) request(args map[string]any) (handle, approval string) {
	a.t.Helper()
	r := a.mustCall("request_session", args)
	u, err := url.Parse(r.fact("approval_url"))
	if err != nil || r.fact("session") == "" || u.Path == "" {
		a.t.Fatalf("request_session: got %s, want a handle and an approval_url", r.raw)
	}
	return r.fact("session"), u.Path
}

// state waits until the session has left pending.
func (a *agent) state(handle string) result {
	a.t.Helper()
	return a.mustCall("check_session", map[string]any{"session": handle, "wait_seconds": 20})
}
