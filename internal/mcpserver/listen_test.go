package mcpserver_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

const patience = 30 * time.Second // only a hang reaches it

// frames reads a stream's messages as they come; the channel closes with it.
func (w *world) frames(t testing.TB, token string, m message) (status int, frames <-chan map[string]any, leave func()) {
	t.Helper()
	server := httptest.NewServer(w.mux)
	t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/mcp", strings.NewReader(m.body))
	must(t, err)
	req.Header = m.header.Clone()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultTransport.RoundTrip(req)
	must(t, err)
	out := make(chan map[string]any, 16)
	go func() {
		defer close(out)
		defer res.Body.Close()
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			var frame map[string]any
			if ok && json.Unmarshal([]byte(data), &frame) == nil {
				out <- frame
			}
		}
	}()
	return res.StatusCode, out, cancel
}

func next(t testing.TB, frames <-chan map[string]any) map[string]any {
	t.Helper()
	select {
	case f := <-frames:
		return f
	case <-time.After(patience):
		t.Fatal("nothing comes")
		return nil
	}
}

// Clients hear that their list changed when an account comes or goes and when the
// agent's ceiling does, on every node; the stream ends with the token (S4).
func TestListen(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := worldOn(t, db, generous)
		a, neighbour := w.agent(t, "builder"), w.agent(t, "neighbour")
		listen := current("subscriptions/listen", `"notifications":{"toolsListChanged":true,"promptsListChanged":true,"resourceSubscriptions":["x:y"]}`)
		status, frames, _ := w.frames(t, a.token, listen)
		ack := next(t, frames)
		params, _ := ack["params"].(map[string]any)
		meta, _ := params["_meta"].(map[string]any)
		agreed, _ := params["notifications"].(map[string]any)
		if status != 200 || ack["method"] != "notifications/subscriptions/acknowledged" || meta["io.modelcontextprotocol/subscriptionId"] != 1.0 || len(agreed) != 1 || agreed["toolsListChanged"] != true {
			t.Fatalf("first: got %d %v, want the acknowledgement of the list of tools alone", status, ack)
		}
		changed := func(what string) {
			t.Helper()
			f := next(t, frames)
			params, _ := f["params"].(map[string]any)
			meta, _ := params["_meta"].(map[string]any)
			if f["method"] != "notifications/tools/list_changed" || meta["io.modelcontextprotocol/subscriptionId"] != 1.0 || len(params) != 1 {
				t.Errorf("%s: got %v, want list_changed with the subscription's id and nothing else", what, f)
			}
		}
		// What changes for somebody else is nothing to this agent (S14): the next
		// frame is of its own account.
		w.connectSandbox(t, neighbour.owner)
		w.key(t, a.owner, "sandbox_key", a.owner.User())
		changed("an account came")
		got, err := w.agents.Get(t.Context(), system().In(w.env), a.id)
		must(t, err)
		_, err = w.agents.SetCeiling(t.Context(), system().In(w.env), a.id, got.Version, policy.Ceiling{Effects: []policy.Effect{policy.Read}}, account.Agreement{})
		must(t, err)
		changed("the ceiling fell")
		_, err = w.agents.Disable(t.Context(), system().In(w.env), a.id)
		must(t, err)
		if f := next(t, frames); f["result"] == nil {
			t.Errorf("after the agent was disabled: got %v, want the end", f)
		}
		if f, open := <-frames; open {
			t.Errorf("after the end: got %v", f)
		}
	})
}

// A real client that wants to hear of changes listens by itself.
func TestListenWithClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	a := w.agent(t, "builder")
	server := httptest.NewServer(w.mux)
	t.Cleanup(server.Close)
	heard := make(chan struct{}, 8)
	c := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, &mcp.ClientOptions{ToolListChangedHandler: func(context.Context, *mcp.ToolListChangedRequest) { heard <- struct{}{} }})
	s, err := c.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: server.URL + "/mcp", HTTPClient: &http.Client{Transport: carrier{a.token}}, MaxRetries: -1},
		&mcp.ClientSessionOptions{ProtocolVersion: "2026-07-28"})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	before, err := s.ListTools(t.Context(), nil)
	must(t, err)
	w.connectSandbox(t, a.owner)
	select {
	case <-heard:
	case <-time.After(patience):
		t.Fatal("the client hears of no change")
	}
	after, err := s.ListTools(t.Context(), nil)
	must(t, err)
	if len(after.Tools) <= len(before.Tools) {
		t.Errorf("got %d tools, then %d, want more", len(before.Tools), len(after.Tools))
	}
}

// Streams are bounded by agent and end with the server; what was not asked for is
// not sent (W5).
func TestListenEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	a, other := w.agent(t, "builder"), w.agent(t, "other")
	listen := current("subscriptions/listen", `"notifications":{"toolsListChanged":true}`)
	var open []<-chan map[string]any
	for i := range 16 {
		status, frames, _ := w.frames(t, a.token, listen)
		if status != 200 {
			t.Fatalf("stream %d: got %d", i, status)
		}
		next(t, frames)
		open = append(open, frames)
	}
	w.send(t, a.token, listen).want(t, 429, -32000)
	status, frames, leave := w.frames(t, other.token, listen)
	if next(t, frames); status != 200 {
		t.Errorf("another agent: got %d, want a stream", status)
	}
	leave()

	_, frames, _ = w.frames(t, other.token, current("subscriptions/listen", `"notifications":{"promptsListChanged":true}`))
	next(t, frames)
	if f := next(t, frames); f["result"] == nil {
		t.Errorf("a stream of nothing: got %v, want its end", f)
	}
	for name, params := range map[string]string{"nothing": "", "a list": `"notifications":[]`, "a word": `"notifications":{"toolsListChanged":"yes"}`} {
		if got := w.send(t, other.token, current("subscriptions/listen", params)); got.status != 400 || got.code != -32602 {
			t.Errorf("%s: got %d %d, want 400 -32602", name, got.status, got.code)
		}
	}

	w.door.Stop()
	for i, frames := range open {
		if f := next(t, frames); f["result"] == nil {
			t.Errorf("stream %d after the server stopped: got %v, want its end", i, f)
		}
	}
}
