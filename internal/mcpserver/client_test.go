package mcpserver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

var ours = []string{"whoami", "list_providers", "search_tools", "describe_tool", "request_session", "check_session", "end_session", "connect_provider", "call_read", "call_write", "call_destructive"}

// client is an agent as a real MCP client over HTTP.
type client struct {
	*mcp.ClientSession
	t testing.TB
}

type carrier struct{ token string }

func (c carrier) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+c.token)
	return http.DefaultTransport.RoundTrip(r)
}

func (w *world) connect(t testing.TB, token, version string) *client {
	t.Helper()
	server := httptest.NewServer(w.mux)
	t.Cleanup(server.Close)
	c := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil)
	s, err := c.Connect(t.Context(), &mcp.StreamableClientTransport{
		Endpoint: server.URL + "/mcp", HTTPClient: &http.Client{Transport: carrier{token}}, DisableStandaloneSSE: true, MaxRetries: -1,
	}, &mcp.ClientSessionOptions{ProtocolVersion: version})
	if err != nil {
		t.Fatalf("connect with %s: %v", version, err)
	}
	t.Cleanup(func() { s.Close() })
	if got := s.InitializeResult().ProtocolVersion; got != version {
		t.Fatalf("negotiated %s, want %s", got, version)
	}
	return &client{s, t}
}

// reply is a tool's answer in the shape that programs read.
type reply struct {
	facts   map[string]any
	text    string
	isError bool
	meta    mcp.Meta
	other   []mcp.Content // what is no text
}

func (r reply) str(name string) string { s, _ := r.facts[name].(string); return s }

func (c *client) call(name string, args map[string]any) reply {
	c.t.Helper()
	r, err := c.try(name, args)
	if err != nil {
		c.t.Fatalf("%s: %v", name, err)
	}
	return r
}

func (c *client) try(name string, args map[string]any) (reply, error) {
	res, err := c.CallTool(c.t.Context(), &mcp.CallToolParams{Name: name, Arguments: args})
	if err != nil {
		return reply{}, err
	}
	r := reply{isError: res.IsError, meta: res.Meta}
	for _, part := range res.Content {
		if text, ok := part.(*mcp.TextContent); ok {
			r.text += text.Text
		} else {
			r.other = append(r.other, part)
		}
	}
	r.facts, _ = res.StructuredContent.(map[string]any)
	return r, nil
}

// refused calls a tool and wants a denial with this code, in the one shape that
// denials have.
func (c *client) refused(code, name string, args map[string]any) reply {
	c.t.Helper()
	r := c.call(name, args)
	if !r.isError || r.str("code") != code {
		c.t.Fatalf("%s: got error %v with code %q (%s), want %q", name, r.isError, r.str("code"), r.text, code)
	}
	if r.str("message") == "" || r.str("hint") == "" || !strings.Contains(r.text, code) || !strings.Contains(r.text, r.str("hint")) {
		c.t.Errorf("%s: the denial says too little: %v, %q", name, r.facts, r.text)
	}
	return r
}

func (c *client) worked(name string, args map[string]any) reply {
	c.t.Helper()
	r := c.call(name, args)
	if r.isError {
		c.t.Fatalf("%s: %s", name, r.text)
	}
	return r
}

func (c *client) tools() []*mcp.Tool {
	c.t.Helper()
	var out []*mcp.Tool
	for tool, err := range c.Tools(c.t.Context(), nil) {
		if err != nil {
			c.t.Fatal(err)
		}
		out = append(out, tool)
	}
	return out
}

func names(tools []*mcp.Tool) []string {
	out := make([]string, len(tools))
	for i, t := range tools {
		out[i] = t.Name
	}
	return out
}

// eachEra runs fn on both engines and with a client of each era.
func eachEra(t *testing.T, fn func(t *testing.T, w *world, version string)) {
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		for _, version := range []string{"2026-07-28", "2025-11-25"} {
			t.Run(version, func(t *testing.T) { fn(t, worldOn(t, sqldbtest.Open(t, db.Engine()), generous), version) })
		}
	})
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	token := w.agent(t, "builder").token
	for _, version := range []string{"2026-07-28", "2025-11-25", "2025-06-18"} {
		c := w.connect(t, token, version)
		got := c.InitializeResult()
		if got.ServerInfo.Name != "ambit" || !strings.Contains(got.Instructions, "request_session") {
			t.Errorf("%s: got server %v, instructions %q", version, got.ServerInfo, got.Instructions)
		}
		// Only tools: no sampling, no logging, no resources or prompts. That their
		// list changed can be told in the stateless revision only.
		if diff := cmp.Diff(&mcp.ServerCapabilities{Tools: &mcp.ToolCapabilities{ListChanged: version == "2026-07-28"}}, got.Capabilities); diff != "" {
			t.Errorf("%s: capabilities (-want +got):\n%s", version, diff)
		}
	}
	// A client of before gets an offer to speak what is served (S15).
	c := w.send(t, token, message{body: `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2024-11-05","capabilities":{},"clientInfo":{"name":"old","version":"1"}}}`})
	if got := c.result["protocolVersion"]; got != "2025-11-25" {
		t.Errorf("an old client is offered %v, want 2025-11-25", got)
	}
}

func TestToolList(t *testing.T) {
	t.Parallel()
	eachEra(t, func(t *testing.T, w *world, version string) {
		a := w.agent(t, "builder")
		c := w.connect(t, a.token, version)
		if diff := cmp.Diff(ours, names(c.tools())); diff != "" {
			t.Fatalf("without accounts (-want +got):\n%s", diff)
		}
		w.connectSandbox(t, a.owner)
		c = w.connect(t, a.token, version) // the client keeps a list for as long as it may
		list := c.tools()
		theirs := names(list)[len(ours):]
		if len(theirs) < 8 || !slices.IsSorted(theirs) || !slices.Contains(theirs, "sandbox_key_list_issues") {
			t.Errorf("got provider tools %v, want those of the sandbox by name", theirs)
		}
		for _, tool := range list {
			doc, err := json.Marshal(tool.InputSchema)
			if err != nil {
				t.Fatal(err)
			}
			var s jsonschema.Schema
			if err := json.Unmarshal(doc, &s); err != nil {
				t.Fatalf("%s: %v", tool.Name, err)
			}
			if _, err := s.Resolve(nil); err != nil {
				t.Errorf("%s: the input schema is not valid: %v", tool.Name, err)
			}
			if tool.OutputSchema != nil {
				doc, _ := json.Marshal(tool.OutputSchema)
				var out jsonschema.Schema
				if err := json.Unmarshal(doc, &out); err != nil {
					t.Errorf("%s: output schema: %v", tool.Name, err)
				}
			}
			if tool.Title == "" || tool.Description == "" || tool.Annotations == nil || s.AdditionalProperties == nil {
				t.Errorf("%s is incomplete: %s", tool.Name, doc)
			}
			if theirs := !slices.Contains(ours, tool.Name); theirs && (s.Properties["session"] == nil || s.Properties["connection"] == nil || slices.Contains(s.Required, "session")) {
				t.Errorf("%s: got schema %s, want optional session and connection", tool.Name, doc)
			}
		}
		for name, want := range map[string]struct{ readOnly, destructive bool }{
			"sandbox_key_list_issues": {true, false}, "sandbox_key_create_issue": {false, false},
			"sandbox_key_delete_issue": {false, true}, "sandbox_key_create_key": {false, true}, "whoami": {true, false},
		} {
			i := slices.Index(names(list), name)
			if i < 0 {
				t.Errorf("%s is not listed", name)
				continue
			}
			if got := list[i].Annotations; got.ReadOnlyHint != want.readOnly || *got.DestructiveHint != want.destructive {
				t.Errorf("%s: got read-only %v, destructive %v, want %v", name, got.ReadOnlyHint, *got.DestructiveHint, want)
			}
		}
		if again := c.tools(); !slices.Equal(names(again), names(list)) {
			t.Errorf("the order changed: %v, then %v", names(list), names(again))
		}
	})
}

// The whole way of an agent: look, ask, wait, work, give back.
func TestWork(t *testing.T) {
	t.Parallel()
	eachEra(t, func(t *testing.T, w *world, version string) {
		a := w.agent(t, "builder")
		c := w.connect(t, a.token, version)

		me := c.worked("whoami", nil)
		if me.str("agent") != "builder" || me.str("agent_id") != string(a.id) || me.str("user_id") != string(a.owner.User()) {
			t.Errorf("whoami: got %v", me.facts)
		}
		c.refused("not_found", "request_session", map[string]any{"providers": []string{"sandbox_key"}, "purpose": "look"})
		w.put(t, sandbox.KeyRecord(w.sandbox))
		page := "http://localhost:7420/ui/connections/new?org=" + string(a.owner.Organizations()[0].Organization) + "&provider=sandbox_key"
		link := c.worked("connect_provider", map[string]any{"provider": "sandbox_key"})
		if link.str("connect_url") != page || !strings.Contains(link.text, page) {
			t.Errorf("connect_provider: got %v", link.facts)
		}
		for tool, args := range map[string]map[string]any{
			"request_session": {"providers": []string{"sandbox_key"}, "purpose": "look"}, "describe_tool": {"name": "sandbox_key_me"}, "sandbox_key_me": {},
		} {
			if got := c.refused("connect_provider", tool, args); got.str("connect_url") != page || !strings.Contains(got.text, page) {
				t.Errorf("%s without an account: got %v", tool, got.facts)
			}
		}
		c.refused("not_found", "connect_provider", map[string]any{"provider": "nowhere"})

		w.connectSandbox(t, a.owner)
		if got := c.worked("list_providers", nil); !strings.Contains(got.text, `"id":"sandbox_key"`) || !strings.Contains(got.text, `"connected":true`) {
			t.Errorf("list_providers: got %s", got.text)
		}
		hits := c.worked("search_tools", map[string]any{"query": "remove an issue", "provider": "sandbox_key"})
		if first := hits.facts["tools"].([]any)[0].(map[string]any)["name"]; first != "sandbox_key_delete_issue" && !strings.Contains(fmt.Sprint(first), "issue") {
			t.Errorf("search_tools: got %v first", first)
		}
		if got := c.worked("describe_tool", map[string]any{"name": "sandbox_key_get_issue"}); !strings.Contains(got.text, `"number"`) {
			t.Errorf("describe_tool: got %s", got.text)
		}
		c.refused("tool_not_found", "describe_tool", map[string]any{"name": "sandbox_key_nothing"})

		// Without a session there is no access, but a way to it.
		asked := c.refused("approval_required", "sandbox_key_list_issues", nil)
		if !strings.HasPrefix(asked.str("approval_url"), "http://localhost:7420/ui/approvals/apr_") || !strings.HasPrefix(asked.str("request_id"), "apr_") || !strings.HasPrefix(asked.str("session"), "sh_") {
			t.Errorf("a call without a session: got %v", asked.facts)
		}
		c.worked("end_session", map[string]any{"session": asked.str("session")})

		req := c.worked("request_session", map[string]any{
			"providers": []string{"sandbox_key"}, "effects": []string{"read", "write", "destructive"}, "purpose": "triage the issues", "minutes": 10,
		})
		handle := req.str("session")
		if req.str("state") != "pending" || !strings.Contains(req.text, req.str("approval_url")) || !strings.Contains(req.text, handle) {
			t.Errorf("request_session: got %v", req.facts)
		}
		if got := c.worked("check_session", map[string]any{"session": handle}); got.str("state") != "pending" {
			t.Errorf("check_session: got %v", got.facts)
		}
		pending := c.refused("pending", "sandbox_key_list_issues", map[string]any{"session": handle})
		if pending.str("approval_url") != req.str("approval_url") {
			t.Errorf("a call while pending: got %v", pending.facts)
		}

		decided := make(chan reply, 1)
		go func() {
			r, err := c.try("check_session", map[string]any{"session": handle, "wait_seconds": 25})
			if err != nil {
				r.text = err.Error()
			}
			decided <- r
		}()
		time.Sleep(50 * time.Millisecond) // most likely it waits by now; if not, it finds the decision
		w.approve(t, a.owner, req.str("request_id"), func(d *session.Decision) { d.Instructions = "Close nothing." })
		active := <-decided
		if active.str("state") != "active" || active.str("expires_at") == "" || !strings.Contains(active.text, "Close nothing.") {
			t.Fatalf("check_session after the approval: got %v, %q", active.facts, active.text)
		}

		list := c.worked("sandbox_key_list_issues", map[string]any{"session": handle, "limit": 2})
		if list.facts == nil || !strings.HasPrefix(fmt.Sprint(list.meta["dev.ambit/event_id"]), "evt_") || list.meta["dev.ambit/content"] != "third_party" {
			t.Errorf("list_issues: got %v, meta %v", list.facts, list.meta)
		}
		made := c.worked("sandbox_key_create_issue", map[string]any{"session": handle, "title": "from an agent"})
		number := made.facts["number"]
		if number == nil {
			t.Fatalf("create_issue: got %v", made.facts)
		}
		lost := c.call("sandbox_key_get_issue", map[string]any{"session": handle, "number": 99999})
		if !lost.isError || lost.str("code") != "upstream_error" || lost.facts["status"] != float64(404) {
			t.Errorf("an issue that is not there: got %v", lost.facts)
		}
		c.refused("invalid_arguments", "sandbox_key_get_issue", map[string]any{"session": handle, "number": "one"})
		c.refused("invalid_arguments", "sandbox_key_get_issue", map[string]any{"session": 7, "number": 1})
		c.refused("invalid_arguments", "sandbox_key_get_issue", map[string]any{"session": handle, "connection": "acct", "number": 1})
		c.refused("invalid_arguments", "request_session", map[string]any{"provider": "sandbox_key", "purpose": "x"})
		c.refused("not_granted", "sandbox_key_create_key", map[string]any{"session": handle, "name": "k"})

		// A destructive call needs a decision of its own, on exactly this call.
		gone := c.refused("approval_required", "sandbox_key_delete_issue", map[string]any{"session": handle, "number": number})
		w.approve(t, a.owner, gone.str("request_id"), nil)
		c.refused("approval_required", "sandbox_key_delete_issue", map[string]any{"session": handle, "number": 1})
		c.worked("sandbox_key_delete_issue", map[string]any{"session": handle, "number": number})

		if got := c.worked("end_session", map[string]any{"session": handle}); got.str("state") != "ended" || got.str("reason") != "completed" {
			t.Errorf("end_session: got %v", got.facts)
		}
		if got := c.call("sandbox_key_list_issues", map[string]any{"session": handle}); !got.isError {
			t.Error("a call after the end worked")
		}
	})
}

// Each call asks the database anew (S4).
func TestRevokedBetweenCalls(t *testing.T) {
	t.Parallel()
	eachEra(t, func(t *testing.T, w *world, version string) {
		a := w.agent(t, "builder")
		w.connectSandbox(t, a.owner)
		c := w.connect(t, a.token, version)
		handle := w.session(t, c, a)
		c.worked("sandbox_key_list_issues", map[string]any{"session": handle})
		if _, err := w.sessions.Revoke(t.Context(), system().In(w.env), session.Aim{Agent: a.id}); err != nil {
			t.Fatal(err)
		}
		c.refused("revoked", "sandbox_key_list_issues", map[string]any{"session": handle})
		if got := c.worked("check_session", map[string]any{"session": handle, "wait_seconds": 25}); got.str("reason") != "revoked" {
			t.Errorf("check_session: got %v", got.facts)
		}
	})
}

// A handle is a name, not a key: with another agent's token it is answered like
// one that was never given out (S3), and two agents of one user see nothing of
// each other (S14).
func TestAgentsApart(t *testing.T) {
	t.Parallel()
	eachEra(t, func(t *testing.T, w *world, version string) {
		a := w.agent(t, "builder")
		b := w.agentOf(t, "other", a.owner)
		w.connectSandbox(t, a.owner)
		ca, cb := w.connect(t, a.token, version), w.connect(t, b.token, version)
		handle := w.session(t, ca, a)
		unknown := "sh_" + strings.Repeat("A", len(handle)-3)
		for _, name := range []string{"check_session", "end_session", "sandbox_key_list_issues"} {
			got, want := cb.call(name, map[string]any{"session": handle}), cb.call(name, map[string]any{"session": unknown})
			if !got.isError || got.str("code") != "session_not_found" {
				t.Errorf("%s: got %v, want session_not_found", name, got.facts)
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(reply{})); diff != "" {
				t.Errorf("%s: a foreign handle differs from an unknown one (-unknown +foreign):\n%s", name, diff)
			}
		}
		ca.worked("sandbox_key_list_issues", map[string]any{"session": handle})
		for _, name := range []string{"whoami", "list_providers"} {
			if got := cb.worked(name, nil); strings.Contains(got.text, string(a.id)) || strings.Contains(got.text, "ses_") || strings.Contains(got.text, "sh_") {
				t.Errorf("%s tells the other agent %s", name, got.text)
			}
		}
	})
}

// Nothing of the agent's own request reaches the provider (S1), and nothing of
// the credential comes back.
func TestNothingPassesThrough(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	a := w.agent(t, "builder")
	w.connectSandbox(t, a.owner)
	handle := w.session(t, w.connect(t, a.token, "2026-07-28"), a)
	m := message{body: `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"sandbox_key_echo","arguments":{"session":"` + handle + `"}}}`, header: http.Header{}}
	for _, name := range []string{"Cookie", "X-Api-Key", "X-Forwarded-For", "X_Forwarded_For", "Forwarded", "Traceparent", "Proxy-Authorization", "X-Canary", "User-Agent", "Via", "If-None-Match", "Range"} {
		m.header[name] = []string{"canary-of-the-agent"}
	}
	got := w.send(t, a.token, m)
	if got.status != 200 || got.result["isError"] == true {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	for _, banned := range []string{"canary-of-the-agent", a.token, sandboxKey} {
		if strings.Contains(string(got.body), banned) {
			t.Errorf("the echo holds %q: %s", banned, got.body)
		}
	}
}

// Where several accounts could serve, the agent must say which.
func TestConnectionArgument(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	a := w.agent(t, "builder")
	w.connectSandbox(t, a.owner)
	w.connectSandboxFor(t, a.owner, "")
	c := w.connect(t, a.token, "2026-07-28")
	handle := w.session(t, c, a)
	c.refused("ambiguous_account", "sandbox_key_list_issues", map[string]any{"session": handle})
	grants := c.worked("check_session", map[string]any{"session": handle}).facts["grants"].([]any)
	if len(grants) != 2 {
		t.Fatalf("got %d grants, want 2", len(grants))
	}
	for _, g := range grants {
		c.worked("sandbox_key_list_issues", map[string]any{"session": handle, "connection": g.(map[string]any)["connection"]})
	}
}

// A wait ends with the client that waits, and an agent holds only a few.
func TestLongPoll(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	a := w.agent(t, "builder")
	w.connectSandbox(t, a.owner)
	c := w.connect(t, a.token, "2025-11-25")
	handle := c.worked("request_session", map[string]any{"providers": []string{"sandbox_key"}, "purpose": "wait"}).str("session")
	poll := func(ctx context.Context) *http.Request {
		body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"check_session","arguments":{"session":"` + handle + `","wait_seconds":25}}}`
		r := httptest.NewRequestWithContext(ctx, "POST", "/mcp", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+a.token)
		return r
	}
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan struct{}, 9)
	for range 9 {
		go func() {
			w.mux.ServeHTTP(httptest.NewRecorder(), poll(ctx))
			done <- struct{}{}
		}()
	}
	// Whichever comes last is one too many and is answered at once.
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("nine waits of one agent are held")
	}
	select {
	case <-done:
		t.Fatal("only seven waits of one agent are held")
	case <-time.After(300 * time.Millisecond):
	}
	leave()
	for range 8 {
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Fatal("a wait goes on without its client")
		}
	}
	for _, bad := range []any{-1, 26, 1.5, "25"} {
		c.refused("invalid_arguments", "check_session", map[string]any{"session": handle, "wait_seconds": bad})
	}
}

// More tools than fit one page come in pages that together are the whole list,
// and a provider whose tool would carry one of our names does not get it (U6).
func TestPagesAndShadows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	a := w.agent(t, "builder")
	for _, slug := range []string{"many_a", "many_b"} {
		w.provider(t, a.owner, slug, 300, "tool_%03d")
	}
	w.provider(t, a.owner, "request", 1, "session")
	c := w.connect(t, a.token, "2026-07-28")
	first, err := c.ListTools(t.Context(), nil)
	if err != nil || len(first.Tools) != 500 || first.NextCursor == "" {
		t.Fatalf("the first page: got %d tools, cursor %q, %v", len(first.Tools), first.NextCursor, err)
	}
	all := names(c.tools())
	if len(all) != len(ours)+600 || len(slices.Compact(slices.Sorted(slices.Values(all)))) != len(all) {
		t.Errorf("all pages: got %d tools, want %d different ones", len(all), len(ours)+600)
	}
	if got := c.refused("invalid_arguments", "request_session", map[string]any{"session": "x"}); !strings.Contains(got.text, "request_session") {
		t.Errorf("request_session is not ours: %s", got.text)
	}
}
