package relay_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/integration"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/relay"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scene is the door on a server of its own, before the sandbox, which an agent may
// use in a session, as provider "tracker".
type scene struct {
	*gatewaytest.World
	door   *httptest.Server
	owner  *agenttest.Person
	bot    agent.Identity
	token  string
	handle string
}

func newScene(t testing.TB) scene {
	t.Helper()
	s := scene{World: gatewaytest.New(t, sqldbtest.Open(t, sqldb.SQLite))}
	s.PlainProvider(t, "tracker")
	s.owner = s.Person(t, "mia@example.com", account.RoleMember)
	s.Connect(t, s.owner, "tracker", false)
	grant := s.Consented(t, s.owner, "Client bot")
	s.bot, s.token = grant.Identity, string(grant.Tokens.Access.Reveal())
	s.handle = s.Active(t, s.owner, s.bot, "tracker", policy.Read, policy.Write, policy.Destructive)
	rooms := integration.New(integration.Config{DB: s.DB, Audit: s.Audit, People: s.Accounts, Providers: s.Providers, Connections: s.Connections, Credentials: s.Credentials, Now: s.Clock.Now})
	s.door = httptest.NewServer(relay.New(relay.Config{Agents: s.Agents, People: s.Accounts, Integrations: rooms, Gateway: s.Gateway, Now: s.Clock.Now}).Before(http.NotFoundHandler()))
	t.Cleanup(s.door.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return s
}

// request is one of a client that was told our host and an agent's token.
func (s scene) request(t testing.TB, method, path string, body io.Reader, header ...string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.door.URL+path, body)
	gatewaytest.Must(t, err)
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set(relay.HeaderSession, s.handle)
	for i := 0; i+1 < len(header); i += 2 {
		if req.Header.Set(header[i], header[i+1]); header[i+1] == "" {
			req.Header.Del(header[i])
		}
	}
	return req
}

func (s scene) do(t testing.TB, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	resp, err := http.DefaultClient.Do(s.request(t, method, path, in, header...))
	gatewaytest.Must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	gatewaytest.Must(t, err)
	return resp, string(text)
}

// revoke ends the agent's sessions, as somebody with the right does.
func (s scene) revoke(t testing.TB) {
	t.Helper()
	_, err := s.Sessions.Revoke(t.Context(), account.ByPerson(s.owner.Signed(t)).In(s.Environment), session.Aim{Agent: s.bot.Agent()})
	gatewaytest.Must(t, err)
}

// records lists what is on record of calls, once each has its outcome.
func (s scene) records(t testing.TB) []audit.Record {
	t.Helper()
	for range 200 {
		page, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Action: "tool.call", Limit: 200})
		gatewaytest.Must(t, err)
		open := 0
		for _, r := range page.Records {
			if r.Decision == "allow" && r.Outcome == nil {
				open++
			}
		}
		if open == 0 {
			return page.Records
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatal("a call has no outcome after 5 s")
	return nil
}

// The wire: path routing, the whole URL in a header, a marked upstream status, our
// own errors without that mark (workos.md §2.7).
func TestRelayRoutes(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	resp, text := s.do(t, "GET", "/relay/tracker/issues/1", "")
	if resp.StatusCode != 200 || resp.Header.Get(relay.HeaderStatus) != "200" || !strings.Contains(text, `"number":1`) {
		t.Errorf("path routing: %d %v %s", resp.StatusCode, resp.Header, text)
	}
	for name, want := range map[string]string{"Content-Security-Policy": "sandbox", "X-Content-Type-Options": "nosniff"} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	resp, text = s.do(t, "GET", "/relay", "", relay.HeaderURL, s.Sandbox.URL+"/issues?state=open&per_page=1")
	if resp.StatusCode != 200 || !strings.Contains(text, `"per_page":1`) {
		t.Errorf("URL routing: %d %s", resp.StatusCode, text)
	}
	resp, _ = s.do(t, "GET", "/relay/tracker/issues/999", "")
	if resp.StatusCode != 404 || resp.Header.Get(relay.HeaderStatus) != "404" {
		t.Errorf("an error of the provider's: %d %v", resp.StatusCode, resp.Header)
	}
	s.Serve("sets", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Content-Security-Policy", "default-src *")
		w.Header().Set("X-Relay-Upstream-Status", "999")
		_, _ = io.WriteString(w, fmt.Sprint(len(r.Header["Cookie"]), r.Header["X-Relay-User"], r.Header["X-Ambit-Session"], r.Header["Authorization"], r.Header["Accept-Language"]))
	}))
	resp, text = s.do(t, "GET", "/relay/tracker/sets", "", "Accept-Language", "de", "X-Relay-User", "user_1")
	if text != "0 [] [] [] [de]" || resp.Header.Get("Set-Cookie") != "" || resp.Header.Get("Content-Security-Policy") != "sandbox" || resp.Header.Get(relay.HeaderStatus) != "200" {
		t.Errorf("headers: %s %v", text, resp.Header)
	}

	for _, test := range []struct {
		name, path string
		header     []string
		status     int
		code       string
	}{
		{"no token", "/relay/tracker/me", []string{"Authorization", ""}, 401, "unauthorized"},
		{"a wrong token", "/relay/tracker/me", []string{"Authorization", "Bearer amb_at_no"}, 401, "invalid_token"},
		{"another's handle", "/relay/tracker/me", []string{relay.HeaderSession, "sh_AAAAAAAAAAAAAAAAAAAAAA"}, 404, "session_not_found"},
		{"no session", "/relay/tracker/me", []string{relay.HeaderSession, ""}, 403, "session_missing"},
		{"no place", "/relay", nil, 400, "relay_missing_url"},
		{"no URL", "/relay", []string{relay.HeaderURL, "elsewhere"}, 400, "relay_invalid_url"},
		{"two places", "/relay/tracker/me", []string{relay.HeaderURL, s.Sandbox.URL + "/me"}, 400, "relay_provider_conflict"},
		{"two providers", "/relay/tracker/me", []string{relay.HeaderProvider, "other"}, 400, "relay_provider_conflict"},
		{"another provider", "/relay/other/me", nil, 403, "not_granted"},
		{"another host", "/relay", []string{relay.HeaderURL, "https://elsewhere.example/me"}, 403, "destination_denied"},
		{"a cookie", "/relay/tracker/me", []string{"Cookie", "a=b"}, 403, "relay_cookie_refused"},
		{"a browser", "/relay/tracker/me", []string{"Sec-Fetch-Site", "cross-site"}, 403, "relay_browser_refused"},
		{"a navigation", "/relay/tracker/me", []string{"Sec-Fetch-Mode", "navigate"}, 403, "relay_browser_refused"},
		{"a broken step upwards", "/relay/tracker/x/..%2f..%2fkeys", nil, 403, "destination_denied"},
	} {
		resp, text := s.do(t, "GET", test.path, "", test.header...)
		if resp.StatusCode != test.status || !strings.Contains(text, `"code":"`+test.code+`"`) || resp.Header.Get(relay.HeaderStatus) != "" || resp.Header.Get("Content-Security-Policy") != "sandbox" {
			t.Errorf("%s: %d %s", test.name, resp.StatusCode, text)
		}
		if test.status == 401 && len(resp.Header["Www-Authenticate"]) != 2 {
			t.Errorf("%s: no challenge", test.name)
		}
	}
	resp, text = s.do(t, "DELETE", "/relay/tracker/issues/3", "")
	if resp.StatusCode != 403 || !strings.Contains(text, "approval_required") || !strings.Contains(text, `"approval_url":"`+s.PublicURL.String()) {
		t.Errorf("what needs an approval: %d %s", resp.StatusCode, text)
	}
	resp, _ = s.do(t, "GET", "/relay/tracker/me", "", "Sec-Fetch-Mode", "cors")
	if resp.StatusCode != 200 {
		t.Errorf("fetch of Node: %d", resp.StatusCode)
	}
	s.Fault(t, map[string]any{"path": "/me", "status": 401, "times": 10})
	resp, text = s.do(t, "GET", "/relay/tracker/me", "")
	if resp.StatusCode != 402 || !strings.Contains(text, `"relay_authorization_required"`) || !strings.Contains(text, `"authorization_url":"http`) {
		t.Errorf("an account that must be connected again: %d %s", resp.StatusCode, text)
	}
}

// The token that `ambit run` gives its program, and the session's id beside it, are
// good at the relay too; an id is nobody else's handle (S3).
func TestSessionTokenNamesItsSession(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	live, err := s.Sessions.Live(t.Context(), s.bot, s.handle)
	gatewaytest.Must(t, err)
	bound, err := s.Agents.TokenForSession(t.Context(), s.bot, agent.SessionGrant{Agent: s.bot.Agent(), Session: live.Session(), User: live.User(), Expires: live.Until()})
	gatewaytest.Must(t, err)
	token, named := string(bound.Access.Reveal()), string(live.Session())
	other := s.Active(t, s.owner, s.bot, "tracker", policy.Read)
	for _, test := range []struct {
		name, authorization, session string
		status                       int
	}{
		{"with its id", "Bearer " + token, named, 200},
		{"without", "Bearer " + token, "", 200},
		{"as the user name", "Basic " + base64.StdEncoding.EncodeToString([]byte(named+":"+token)), "", 200},
		{"with another session", "Bearer " + token, other, 404},
		{"an unbound token with an id", "Bearer " + s.token, named, 404},
	} {
		if resp, text := s.do(t, "GET", "/relay/tracker/issues/1", "", "Authorization", test.authorization, relay.HeaderSession, test.session); resp.StatusCode != test.status {
			t.Errorf("%s: %d %s, want %d", test.name, resp.StatusCode, text, test.status)
		}
	}
}

// brokers.md §2.3 (agent-vault): every entry names agent, user and session, of
// what is refused too.
func TestIdentityIsOnEveryAuditRow(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, path := range []string{"/relay/tracker/me", "/relay/tracker/keys/1", "/relay/other/x", "/relay/tracker/issues?page=2"} {
		s.do(t, "GET", path, "")
	}
	all := s.records(t)
	if len(all) != 4 {
		t.Fatalf("%d entries, want 4", len(all))
	}
	for _, r := range all {
		if r.Actor.Kind != "agent" || r.Agent != s.bot.Agent() || r.User != s.owner.ID || r.Session == "" || r.Address == "" || r.Detail["door"] != "relay" || r.Decision == "" {
			t.Errorf("an entry is incomplete: %+v", r)
		}
	}
}

// A bug: an answer to HEAD, of which there is no body to read, was on record as given
// up by its client (L1: the record says what happened).
func TestHeadIsOnRecordAsOk(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	resp, text := s.do(t, "HEAD", "/relay/tracker/issues/1", "")
	if resp.StatusCode != 200 || resp.ContentLength < 1 || text != "" {
		t.Errorf("HEAD: %d, length %d, %q", resp.StatusCode, resp.ContentLength, text)
	}
	if all := s.records(t); len(all) != 1 || all[0].Outcome.Status != "ok" || all[0].Outcome.Code != "" {
		t.Errorf("on record is %+v", all[0].Outcome)
	}
}

// An upload and a download of any size go through while they arrive, with their
// length, and ranges stay true.
func TestBodiesStream(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const size = 8 << 20
	s.Serve("blob", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "blob.bin", time.Time{}, bytes.NewReader(pattern(size)))
	}))
	got := make(chan int64, 1)
	first := make(chan struct{})
	s.Stream("up", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.CopyN(io.Discard, r.Body, 2<<20)
		close(first)
		m, _ := io.Copy(io.Discard, r.Body)
		got <- n + m
	}))
	resp, text := s.do(t, "GET", "/relay/tracker/blob", "")
	if resp.ContentLength != size || text != string(pattern(size)) {
		t.Errorf("the download has %d bytes, length %d", len(text), resp.ContentLength)
	}
	resp, text = s.do(t, "GET", "/relay/tracker/blob", "", "Range", "bytes=1000-1999")
	if resp.StatusCode != 206 || resp.Header.Get("Content-Range") != fmt.Sprintf("bytes 1000-1999/%d", size) || text != string(pattern(size)[1000:2000]) {
		t.Errorf("a range: %d %v", resp.StatusCode, resp.Header)
	}
	// Half of the upload arrives before the client has sent the other half.
	r, w := io.Pipe()
	go func() {
		_, _ = w.Write(pattern(size)[:4<<20])
		<-first
		_, _ = w.Write(pattern(size)[4<<20:])
		_ = w.Close()
	}()
	answer, err := http.DefaultClient.Do(s.request(t, "PUT", "/relay/tracker/up", r, "Content-Type", "application/octet-stream"))
	gatewaytest.Must(t, err)
	_ = answer.Body.Close()
	if n := <-got; n != size || answer.StatusCode != 200 {
		t.Errorf("%d bytes arrived, status %d", n, answer.StatusCode)
	}
}

func pattern(n int) []byte { return bytes.Repeat([]byte("0123456789abcdef"), n/16) }

// An event arrives when it is sent, a trailer after the body, and a revoke ends
// both within a second: the client sees that the answer is not whole.
func TestStreamsAndTrailers(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	more := make(chan struct{})
	s.Serve("events", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := 0; ; i++ {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-more:
			case <-r.Context().Done():
				return
			}
		}
	}))
	s.Serve("trail", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", "42 "+gatewaytest.SandboxKey)
	}))
	resp, text := s.do(t, "GET", "/relay/tracker/trail", "")
	if sum := resp.Trailer.Get("X-Sum"); text != "body" || !strings.HasPrefix(sum, "42 ") || strings.Contains(sum, gatewaytest.SandboxKey) {
		t.Errorf("the trailer is %q after %q", sum, text)
	}
	resp, err := http.DefaultClient.Do(s.request(t, "GET", "/relay/tracker/events", nil))
	gatewaytest.Must(t, err)
	defer resp.Body.Close()
	p := make([]byte, 100)
	for i := range 3 {
		n, err := resp.Body.Read(p)
		if err != nil || string(p[:n]) != fmt.Sprintf("data: %d\n\n", i) {
			t.Fatalf("event %d: %q, %v", i, p[:n], err)
		}
		if i < 2 {
			more <- struct{}{}
		}
	}
	s.revoke(t)
	if _, err := resp.Body.Read(p); err == nil || err == io.EOF {
		t.Errorf("after the revoke: %v", err)
	}
	for _, r := range s.records(t) {
		if r.Tool == "tracker_read" && strings.Contains(r.Object, "read") && r.Outcome != nil && r.Outcome.Status == "cut" {
			return
		}
	}
	t.Error("no call is on record as cut")
}
