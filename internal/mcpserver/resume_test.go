package mcpserver_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// opens is the official client with a person who opens the pages that it is asked to
// open, and answers as act says.
func (w *world) opens(t *testing.T, token string, act func(url string) (action string)) *client {
	t.Helper()
	server := httptest.NewServer(w.mux)
	t.Cleanup(server.Close)
	c := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, &mcp.ClientOptions{
		Capabilities: &mcp.ClientCapabilities{Elicitation: &mcp.ElicitationCapabilities{URL: &mcp.URLElicitationCapabilities{}}},
		ElicitationHandler: func(_ context.Context, r *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			if r.Params.Mode != "url" {
				t.Errorf("asked in mode %q", r.Params.Mode)
			}
			return &mcp.ElicitResult{Action: act(r.Params.URL)}, nil
		},
	})
	s, err := c.Connect(t.Context(), &mcp.StreamableClientTransport{
		Endpoint: server.URL + "/mcp", HTTPClient: &http.Client{Transport: carrier{token}}, DisableStandaloneSSE: true, MaxRetries: -1,
	}, &mcp.ClientSessionOptions{ProtocolVersion: "2026-07-28"})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return &client{s, t}
}

func requestIn(url string) string { return url[strings.LastIndex(url, "/")+1:] }

// Issue 6, S6: a client that declares URL elicitation opens the approval's page by
// itself, and its call goes on once a person has decided there. The client's own answer
// decides nothing.
func TestClientOpensTheApproval(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := worldOn(t, db, generous)
		a := w.agent(t, "builder")
		w.connectSandbox(t, a.owner)
		var opened atomic.Int32
		c := w.opens(t, a.token, func(url string) string {
			opened.Add(1)
			if !strings.HasPrefix(url, "http://localhost:7420/ui/approvals/") {
				t.Errorf("asked to open %s", url)
			}
			w.approve(t, a.owner, requestIn(url), nil)
			return "accept"
		})
		// A tool without a session: the session is asked for, and the call made in it.
		if got := c.worked("sandbox_key_list_issues", nil); opened.Load() != 1 {
			t.Errorf("opened %d pages: %v", opened.Load(), got.facts)
		}
		got := c.worked("request_session", map[string]any{"providers": []string{"sandbox_key"}, "effects": []string{"read", "destructive"}, "purpose": "clean up"})
		if got.str("state") != "active" || opened.Load() != 2 || got.str("session") == "" {
			t.Errorf("a request: %v %s", got.facts, got.text)
		}
		// A call that needs an approval of its own, in that session.
		made := c.worked("sandbox_key_list_issues", map[string]any{"session": got.str("session")})
		list, _ := made.facts["result"].([]any)
		if len(list) == 0 {
			list, _ = made.facts["issues"].([]any)
		}
		if len(list) == 0 {
			t.Fatalf("no issue to delete: %v", made.facts)
		}
		number := list[0].(map[string]any)["number"]
		c.worked("sandbox_key_delete_issue", map[string]any{"session": got.str("session"), "number": number})
		if opened.Load() != 3 {
			t.Errorf("opened %d pages, want 3", opened.Load())
		}
	})
}

// Who says no to opening the page, or accepts where nobody decided, is told what every
// client is told; the client's accept alone approves nothing.
func TestAcceptOfTheClientDecidesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	a := w.agent(t, "builder")
	w.connectSandbox(t, a.owner)
	for _, action := range []string{"decline", "cancel"} {
		c := w.opens(t, a.token, func(string) string { return action })
		got := c.refused("pending", "sandbox_key_list_issues", nil)
		if got.str("approval_url") == "" || got.str("session") == "" {
			t.Errorf("%s: %v", action, got.facts)
		}
	}
	denied := w.opens(t, a.token, func(url string) string {
		must(t, w.sessions.Deny(context.WithoutCancel(t.Context()), a.owner.Person, id.Approval(requestIn(url)), "Not now."))
		return "accept"
	})
	if got := denied.refused("denied", "sandbox_key_me", nil); got.facts["code"] != "denied" {
		t.Errorf("denied: %v", got.facts)
	}
}

// MRTR: requestState is good once, for the agent, the tool and the arguments that it was
// given for, and changed nowhere; a client that does not declare URL elicitation never
// gets one (S3, S12).
func TestRequestState(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := worldOn(t, db, generous)
		a := w.agent(t, "builder")
		w.connectSandbox(t, a.owner)
		other := w.agentOf(t, "another", a.owner)
		call := func(token, tool, args, more, caps string) answer {
			m := current("tools/call", `"name":"`+tool+`","arguments":`+args+more)
			m.body = strings.Replace(m.body, `"io.modelcontextprotocol/clientCapabilities":{}`, `"io.modelcontextprotocol/clientCapabilities":`+caps, 1)
			m.header.Set("Mcp-Name", tool)
			return w.send(t, token, m)
		}
		const tool, url = "sandbox_key_list_issues", `{"elicitation":{"url":{}}}`
		for _, caps := range []string{`{}`, `{"elicitation":{}}`, `{"elicitation":{"form":{}}}`, `{"sampling":{}}`} {
			if got := call(a.token, tool, `{}`, "", caps); got.result["resultType"] != "complete" || got.result["requestState"] != nil {
				t.Errorf("%s: %s", caps, got.body)
			}
		}
		got := call(a.token, tool, `{}`, "", url)
		state, _ := got.result["requestState"].(string)
		requests, _ := got.result["inputRequests"].(map[string]any)
		if got.result["resultType"] != "input_required" || len(state) < 22 || len(requests) != 1 || got.result["content"] != nil {
			t.Fatalf("got %s", got.body)
		}
		again := func(state string) string {
			doc, err := json.Marshal(state)
			must(t, err)
			return `,"requestState":` + string(doc) + `,"inputResponses":{"approval":{"action":"decline"}}`
		}
		const badParams = -32602
		call(other.token, tool, `{}`, again(state), url).want(t, http.StatusBadRequest, badParams)
		call(a.token, "sandbox_key_me", `{}`, again(state), url).want(t, http.StatusBadRequest, badParams)
		call(a.token, tool, `{"state":"open"}`, again(state), url).want(t, http.StatusBadRequest, badParams)
		call(a.token, tool, `{}`, again(state+"x"), url).want(t, http.StatusBadRequest, badParams)
		call(a.token, tool, `{}`, again(strings.Repeat("x", 300)), url).want(t, http.StatusBadRequest, badParams)
		call(a.token, tool, `{}`, `,"requestState":"`+state+`"`, url).want(t, http.StatusBadRequest, badParams)
		call(a.token, tool, `{}`, `,"requestState":"`+state+`","inputResponses":{"approval":{}}`, url).want(t, http.StatusBadRequest, badParams)
		call(a.token, "whoami", `{}`, again(state), url).want(t, http.StatusBadRequest, badParams)
		if got := call(a.token, tool, `{}`, again(state), url); got.status != http.StatusOK || got.result["isError"] != true || got.result["resultType"] != "complete" {
			t.Errorf("the right one: %s", got.body)
		}
		call(a.token, tool, `{}`, again(state), url).want(t, http.StatusBadRequest, badParams)
	})
}
