package mcpserver_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// shake is the handshake of a client of 2025-11-25 with these capabilities, and gives the
// Mcp-Session-Id that it got.
func (w *world) shake(t *testing.T, token, version, caps string) string {
	t.Helper()
	got := w.send(t, token, message{body: `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"` + version + `","capabilities":` + caps + `,"clientInfo":{"name":"test","version":"1"}}}`})
	if got.status != http.StatusOK || got.result["protocolVersion"] != version {
		t.Fatalf("the handshake: %d %s", got.status, got.body)
	}
	return got.header.Get("Mcp-Session-Id")
}

// Issue 6, S6: on 2025-11-25 a client that declares URL elicitation is told the page by
// the error -32042, makes the same call again, and that goes on once a person has decided.
// Nobody else's call does, and a client that declares nothing never gets the error.
func TestClientOfTheHandshakeOpensTheApproval(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := worldOn(t, db, generous)
		a := w.agent(t, "builder")
		w.connectSandbox(t, a.owner)
		call := func(window, tool, args string) answer {
			h := http.Header{"Mcp-Protocol-Version": {"2025-11-25"}}
			if window != "" {
				h.Set("Mcp-Session-Id", window)
			}
			return w.send(t, a.token, message{header: h, body: `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + tool + `","arguments":` + args + `}}`})
		}
		for _, caps := range []string{`{}`, `{"elicitation":{}}`, `{"elicitation":{"form":{}}}`, `{"elicitation":{"url":null}}`} {
			if got := w.shake(t, a.token, "2025-11-25", caps); got != "" {
				t.Errorf("%s gets %q", caps, got)
			}
		}
		if got := w.shake(t, a.token, "2025-06-18", `{"elicitation":{"url":{}}}`); got != "" {
			t.Errorf("an older revision gets %q", got)
		}
		window, other := w.shake(t, a.token, "2025-11-25", `{"elicitation":{"url":{}}}`), w.shake(t, a.token, "2025-11-25", `{"elicitation":{"url":{}}}`)
		if window == other || len(window) < 26 {
			t.Fatalf("two clients got %q and %q", window, other)
		}
		const tool = "sandbox_key_list_issues"
		for _, none := range []string{"", "something", "window_" + strings.Repeat("x", 80)} {
			if got := call(none, tool, `{}`); got.code != 0 || got.result["isError"] != true {
				t.Errorf("%q: %s", none, got.body)
			}
		}
		asked := func(got answer) string {
			t.Helper()
			var doc struct {
				Error struct {
					Data struct {
						Elicitations []struct {
							Mode, URL, Message string
							ID                 string `json:"elicitationId"`
						}
					}
				}
			}
			must(t, json.Unmarshal(got.body, &doc))
			list := doc.Error.Data.Elicitations
			if got.status != http.StatusOK || got.code != -32042 || len(list) != 1 || list[0].Mode != "url" || list[0].Message == "" || requestIn(list[0].URL) != list[0].ID || !strings.Contains(got.text, list[0].URL) {
				t.Fatalf("got %d %s", got.status, got.body)
			}
			return list[0].ID
		}
		// A tool without a session.
		w.approve(t, a.owner, asked(call(window, tool, `{}`)), nil)
		if got := call(other, tool, `{}`); got.code != -32042 {
			t.Errorf("another client's call goes on: %s", got.body)
		}
		if got := call(window, tool, `{"state":"open"}`); got.code != -32042 {
			t.Errorf("another call goes on: %s", got.body)
		}
		if got := call(window, tool, `{}`); got.code != 0 || got.result["isError"] == true {
			t.Fatalf("the same call again: %s", got.body)
		}
		mine := asked(call(window, tool, `{}`)) // a third time
		// S3: another agent that says the same window and makes the same call has its own.
		b := w.agent(t, "stranger")
		w.connectSandbox(t, b.owner)
		asked(w.send(t, b.token, message{header: http.Header{"Mcp-Protocol-Version": {"2025-11-25"}, "Mcp-Session-Id": {window}},
			body: `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + tool + `","arguments":{}}}`}))
		w.approve(t, a.owner, mine, nil)
		if got := call(window, tool, `{}`); got.code != 0 || got.result["isError"] == true {
			t.Errorf("the same call again, after another agent's: %s", got.body)
		}
		// A request, and a call that needs an approval of its own in what it gave.
		const request = `{"providers":["sandbox_key"],"effects":["read","destructive"],"purpose":"clean up"}`
		w.approve(t, a.owner, asked(call(window, "request_session", request)), nil)
		facts, _ := call(window, "request_session", request).result["structuredContent"].(map[string]any)
		handle, _ := facts["session"].(string)
		if facts["state"] != "active" || handle == "" {
			t.Fatalf("the request again: %v", facts)
		}
		w.approve(t, a.owner, asked(call(window, "sandbox_key_delete_issue", `{"session":"`+handle+`","number":1}`)), nil)
		if got := call(window, "sandbox_key_delete_issue", `{"session":"`+handle+`","number":1}`); got.code != 0 || got.result["isError"] == true {
			t.Errorf("the approved call: %s", got.body)
		}
	})
}
