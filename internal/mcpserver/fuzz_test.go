package mcpserver_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// FuzzFront sends what it likes with a valid token. Nothing may panic, a body
// that has two readings is never answered with 200 (S13), and neither is one
// that its headers contradict (S12).
func FuzzFront(f *testing.F) {
	for _, body := range []string{
		ping, "", "[]", "null", `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}`, `{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search_tools","arguments":{"query":"x","limit":3}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"check_session","arguments":{"session":"sh_x"}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x_y","arguments":{"session":1,"connection":"conn_"}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"f","version":"1"}}}`,
		`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`, "{\"a\":\"\xff\"}", `{"Method":"ping"}`,
	} {
		f.Add([]byte(body), "", "", "")
		f.Add([]byte(body), "2026-07-28", "ping", "x")
	}
	for _, m := range []message{current("tools/list", ""), current("tools/call", `"name":"whoami"`), current("server/discover", "")} {
		f.Add([]byte(m.body), "2026-07-28", m.header.Get("Mcp-Method"), "whoami")
	}
	w := newWorld(f, sqldb.SQLite)
	token := w.agent(f, "fuzzer").token
	f.Fuzz(func(t *testing.T, body []byte, version, method, name string) {
		h := http.Header{}
		for k, v := range map[string]string{"Mcp-Protocol-Version": version, "Mcp-Method": method, "Mcp-Name": name} {
			if v != "" {
				h[k] = []string{v}
			}
		}
		got := w.send(t, token, message{header: h, body: string(body)})
		switch got.status {
		case 200, 202:
		case 400, 404, 413:
			if got.code == 0 {
				t.Errorf("status %d without an error", got.status)
			}
			return
		default:
			t.Errorf("got status %d", got.status)
		}
		if strictjson.Check(body, strictjson.Limits{}) != nil {
			t.Errorf("an ambiguous body was accepted: %q", body)
		}
		var m struct {
			Method string `json:"method"`
			Params struct {
				Name string `json:"name"`
			} `json:"params"`
		}
		if err := json.Unmarshal(body, &m); err != nil {
			t.Errorf("a body that does not decode was accepted: %q", body)
		}
		if method != "" && method[0] != '=' && method != m.Method || m.Method == "tools/call" && name != "" && name[0] != '=' && name != m.Params.Name {
			t.Errorf("headers %q, %q were accepted for %q", method, name, body)
		}
	})
}
