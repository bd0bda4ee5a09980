package found

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/scan"
	"github.com/ambit-dev/ambit/internal/secret"
)

const canary = "canaryQ7w9E2r4T6y8U1i3O5p7A9s1"

// changed is what becomes of a file in which canary is the key of an account, and other
// another credential, taken or not.
func changed(file, text string, other bool) (next string, servers []string) {
	c := Change{path: file, was: []byte(text), entry: func(_ string, section []string) map[string]any {
		return map[string]any{"type": "http", "url": "http://localhost:7420/mcp"}
	}}
	c.Takes = []Take{{finding: scan.Finding{Value: secret.FromString(canary)}, account: Account{Provider: "p", Part: "api_key"}}}
	if other {
		c.others = []scan.Finding{{Value: secret.FromString("otherothers")}}
	}
	list := c.servers()
	now, ok := c.rewritten(bytes.ReplaceAll(c.was, []byte(canary), []byte("ambit_placeholder")), list)
	if !ok {
		return string(now), nil
	}
	for _, s := range list {
		servers = append(servers, s.Section+" "+s.Name)
	}
	return string(now), servers
}

// Issue 8: the entry of a server whose key is a connection becomes ours, and nothing else
// in the file changes.
func TestEntriesBecomeOurs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, text, want, servers string }{
		"two of one section": {"/h/.cursor/mcp.json", `{"mcpServers":{"a":{"command":"x","env":{"K":"CANARY"}},"b":{"url":"https://mcp.example/","headers":{"Authorization":"Bearer CANARY"}},"c":{"command":"y"}}}`,
			`{"mcpServers":{"c":{"command":"y"},"ambit":{"type":"http","url":"http://localhost:7420/mcp"}}}`, "mcpServers a, mcpServers b"},
		"the last one": {"/h/m.json", `{"mcpServers": {"c": {"command": "y"}, "a": {"command": "x", "args": ["--key=CANARY"]}}}`,
			`{"mcpServers": {"c": {"command": "y"},"ambit":{"type":"http","url":"http://localhost:7420/mcp"}}}`, "mcpServers a"},
		"ours is there": {"/h/m.json", `{"mcpServers": {"ambit": {"url": "x"}, "a": {"command": "x", "env": {"K": "CANARY"}}}}`, `{"mcpServers": {"ambit": {"url": "x"}}}`, "mcpServers a"},
		"a project of Claude Code": {"/h/.claude.json", `{"projects": {"/a/~b": {"mcpServers": {"a/b": {"command": "x", "env": {"K": "CANARY"}}}}}}`,
			`{"projects": {"/a/~b": {"mcpServers": {"ambit":{"type":"http","url":"http://localhost:7420/mcp"}}}}}`, "projects./a/~b.mcpServers a/b"},
		"comments":              {"/h/zed/settings.json", "{\n  // mine\n  \"context_servers\": {\n    \"a\": {\"command\": \"x\", \"env\": {\"K\": \"CANARY\"}}, // theirs\n  },\n}", "", "context_servers a"},
		"another key in it":     {"/h/m.json", `{"mcpServers": {"a": {"command": "x", "env": {"K": "CANARY", "O": "otherothers"}}}}`, `{"mcpServers": {"a": {"command": "x", "env": {"K": "ambit_placeholder", "O": "otherothers"}}}}`, ""},
		"servers of something":  {"/h/config.json", `{"servers": {"a": {"url": "https://db/", "token": "CANARY"}}}`, `{"servers": {"a": {"url": "https://db/", "token": "ambit_placeholder"}}}`, ""},
		"no server":             {"/h/m.json", `{"mcpServers": {"a": {"disabled": "CANARY"}}}`, `{"mcpServers": {"a": {"disabled": "ambit_placeholder"}}}`, ""},
		"a member twice":        {"/h/m.json", `{"mcpServers": {"a": {"command": "z"}, "a": {"command": "x", "env": {"K": "CANARY"}}}}`, `{"mcpServers": {"a": {"command": "z"}, "a": {"command": "x", "env": {"K": "ambit_placeholder"}}}}`, ""},
		"not JSON":              {"/h/m.json", `{"mcpServers": CANARY`, `{"mcpServers": ambit_placeholder`, ""},
		"a table of Codex":      {"/h/.codex/config.toml", "a = 1\n\n[mcp_servers.\"git.hub\"]\ncommand = \"x\"\n# why\n[mcp_servers.\"git.hub\".env]\nK = \"CANARY\"\n\n[mcp_servers.c]\ncommand = \"y\"\n", "a = 1\n\n[mcp_servers.c]\ncommand = \"y\"\n\n[mcp_servers.ambit]\ntype = \"http\"\nurl = \"http://localhost:7420/mcp\"\n", "mcp_servers git.hub"},
		"an inline table":       {"/h/.codex/config.toml", "[mcp_servers]\na = {command = \"x\", env = {K = \"CANARY\"}}\n", "[mcp_servers]\na = {command = \"x\", env = {K = \"ambit_placeholder\"}}\n", ""},
		"a text with a bracket": {"/h/.codex/config.toml", "[mcp_servers.a]\ncommand = \"\"\"\n[x]\n\"\"\"\nenv = {K = \"CANARY\"}\n", "[mcp_servers.a]\ncommand = \"\"\"\n[x]\n\"\"\"\nenv = {K = \"ambit_placeholder\"}\n", ""},
		"a form without a name": {"/h/goose/config.yaml", "extensions:\n  a: {cmd: x, envs: {K: CANARY}}\n", "extensions:\n  a: {cmd: x, envs: {K: ambit_placeholder}}\n", ""},
	} {
		got, servers := changed(c.file, strings.ReplaceAll(c.text, "CANARY", canary), true)
		if strings.Join(servers, ", ") != c.servers || strings.Contains(got, "canary") || c.want != "" && got != c.want {
			t.Errorf("%s: %q became\n%s", name, servers, got)
		}
		if name == "comments" && (!strings.Contains(got, "// mine") || strings.Contains(got, `"a"`)) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// Whatever stands in a file: it is changed as a whole or not, and never outside the entries.
func FuzzEntries(f *testing.F) {
	for _, s := range []string{`{"mcpServers":{"a":{"command":"x","env":{"K":"CANARY"}},"b":{"url":1}}}`, `{"mcp":{"a":{"url":"CANARY"}},"x":[1,{"mcpServers":{}}]}`, "[mcp_servers.a]\ncommand='CANARY'\n[b]\nc=1\n", "{/*x*/\"mcpServers\":{\"a\":{\"command\":\"CANARY\",},},}"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, text string, asTOML bool) {
		file := "/h/m.json"
		if asTOML {
			file = "/h/config.toml"
		}
		was := strings.ReplaceAll(text, "CANARY", canary)
		got, servers := changed(file, was, false)
		if len(servers) == 0 {
			if got != strings.ReplaceAll(was, canary, "ambit_placeholder") {
				t.Errorf("%q became %q", was, got)
			}
			return
		}
		if strings.Contains(got, canary) || json.Valid([]byte(was)) && !json.Valid([]byte(got)) || settings(file, []byte(got)) == nil {
			t.Errorf("%q became %q", was, got)
		}
	})
}
