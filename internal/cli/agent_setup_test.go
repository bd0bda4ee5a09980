package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a program has in its file stays as it is, comments too; the entry comes
// once, and is brought up to date.
func TestAgentSetupKeepsTheRest(t *testing.T) {
	t.Parallel()
	const url = "https://ambit.example/mcp"
	for name, test := range map[string]struct{ client, before, after string }{
		"nothing":           {"cursor", "", "{\"mcpServers\": {\"ambit\": {\"url\": \"" + url + "\"}}}\n"},
		"another server":    {"cursor", "{\n  \"mcpServers\": {\n    \"x\": {\"url\": \"https://x.example\"}\n  }\n}\n", "x.example"},
		"comments":          {"zed", "// mine\n{\n  \"theme\": \"One\", // dark\n  \"context_servers\": {},\n}\n", "\"theme\": \"One\", // dark"},
		"no section":        {"gemini", `{"theme":"x"}`, `"httpUrl":"` + url + `"`},
		"old address":       {"windsurf", `{"mcpServers":{"ambit":{"serverUrl":"http://old.example/mcp"},"y":{}}}`, `{"mcpServers":{"ambit":{"serverUrl":"` + url + `"},"y":{}}}`},
		"toml, nothing":     {"codex", "", "[mcp_servers.ambit]\nurl = \"" + url + "\"\n"},
		"toml, others":      {"codex", "model = \"x\" # mine\n\n[mcp_servers.y]\ncommand = \"y\"", "model = \"x\" # mine\n\n[mcp_servers.y]\ncommand = \"y\"\n\n[mcp_servers.ambit]\nurl = \"" + url + "\"\n"},
		"toml, old address": {"codex", "[mcp_servers.ambit]\nurl = \"http://old.example/mcp\"\n\n[z]\na = 1\n", "[mcp_servers.ambit]\nurl = \"" + url + "\"\n\n[z]\na = 1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup{agentClient: clientOf(t, test.client), url: url}
			if s.path = "x.json"; test.client == "codex" {
				s.path = "x.toml"
			}
			got, err := s.merged([]byte(test.before))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(got), test.after) || strings.Count(string(got), url) != 1 || strings.Contains(string(got), "old.example") {
				t.Errorf("got\n%s\nwant it to hold\n%s", got, test.after)
			}
			if again, err := s.merged(got); err != nil || !bytes.Equal(again, got) {
				t.Errorf("a second time: got\n%s\n%v, want no change", again, err)
			}
			if test.before != "" {
				for _, kept := range []string{"x.example", "// mine", "# mine", "command", "theme", "\"y\"", "[z]"} {
					if strings.Contains(test.before, kept) && !strings.Contains(string(got), kept) {
						t.Errorf("%q is gone:\n%s", kept, got)
					}
				}
			}
		})
	}
	for name, test := range map[string]struct{ client, before string }{
		"not JSON": {"cursor", "{"}, "a list": {"cursor", "[]"}, "a section of another kind": {"cursor", `{"mcpServers":[]}`},
		"a TOML text of several lines": {"codex", "a = \"\"\"\n[mcp_servers.ambit]\n\"\"\"\n"}, "twice": {"codex", "[mcp_servers.ambit]\n[mcp_servers.ambit]\n"},
		"TOML written in another way": {"codex", "mcp_servers.ambit.url = \"x\"\n"},
	} {
		s := setup{agentClient: clientOf(t, test.client), url: url, path: map[bool]string{true: "x.toml", false: "x.json"}[test.client == "codex"]}
		if got, err := s.merged([]byte(test.before)); err == nil {
			t.Errorf("%s: got\n%s\nwant it left to its owner", name, got)
		}
	}
}

func clientOf(t *testing.T, name string) agentClient {
	t.Helper()
	for _, a := range agentClients {
		if a.name == name {
			return a
		}
	}
	t.Fatalf("no client %s", name)
	return agentClient{}
}

// The file as it was is kept, the mode stays, a link stays a link, and without
// --write nothing is written.
func TestAgentSetupWrites(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		var out, complaints bytes.Buffer
		if code := Main(t.Context(), append([]string{"agent", "setup"}, args...), []string{"HOME=" + home, "AMBIT_SERVER=https://ambit.example"}, &bytes.Buffer{}, &out, &complaints); code != 0 {
			t.Fatalf("exit %d: %s", code, &complaints)
		}
		return out.String()
	}
	file := filepath.Join(home, ".cursor", "mcp.json")
	if out := run("cursor"); !strings.Contains(out, file) || !strings.Contains(out, "https://ambit.example/mcp") {
		t.Errorf("printed %q", out)
	}
	if _, err := os.Stat(filepath.Dir(file)); err == nil {
		t.Error("printing made a folder")
	}
	real := filepath.Join(home, "dotfiles.json")
	for _, err := range []error{os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(real, []byte(`{"mcpServers":{"x":{}}}`), 0o600), os.Chmod(real, 0o644), os.Symlink(real, file)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	run("cursor", "--write")
	text, err := os.ReadFile(real)
	if err != nil || !strings.Contains(string(text), "ambit.example") || !strings.Contains(string(text), `"x"`) {
		t.Errorf("got %s, %v", text, err)
	}
	if info, err := os.Lstat(file); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v %v", info, err)
	}
	if info, err := os.Stat(real); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("the mode changed: %v %v", info, err)
	}
	if was, err := os.ReadFile(real + ".before-ambit"); err != nil || string(was) != `{"mcpServers":{"x":{}}}` {
		t.Errorf("as it was: got %s, %v", was, err)
	}
	if out := run("cursor", "--write"); !strings.Contains(out, "has it already") {
		t.Errorf("a second time: %q", out)
	}
}
