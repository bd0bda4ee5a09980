package scan

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Issue 8, where: every client that it names, at its place on each system; a home folder that
// came from another system is read as well.
func TestEveryClientsPlace(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	entry := func(n int) string {
		return fmt.Sprintf(`{"mcpServers":{"s":{"command":"s","env":{"GITHUB_TOKEN":"%s"}}}}`, token(n))
	}
	const mac, win = "Library/Application Support/", "AppData/Roaming/"
	want := map[string]string{
		".config/Claude/claude_desktop_config.json": "Claude Desktop", mac + "Claude/claude_desktop_config.json": "Claude Desktop", win + "Claude/claude_desktop_config.json": "Claude Desktop",
		".claude.json": "Claude Code", ".claude/settings.json": "Claude Code", ".cursor/mcp.json": "Cursor",
		".config/Code/User/mcp.json": "VS Code", mac + "Code/User/mcp.json": "VS Code", win + "Code/User/mcp.json": "VS Code",
		".codeium/windsurf/mcp_config.json": "Windsurf", ".config/zed/settings.json": "Zed", mac + "Zed/settings.json": "Zed", win + "Zed/settings.json": "Zed",
		".codex/config.toml": "Codex", ".codex/auth.json": "Codex", ".gemini/settings.json": "Gemini CLI", ".config/opencode/opencode.json": "OpenCode",
		".config/goose/config.yaml": "Goose", win + "Block/goose/config/config.yaml": "Goose",
		".config/Code/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json": "Cline", mac + "Code/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json": "Cline",
		win + "Code/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json": "Cline",
		".vscode-server/data/User/mcp.json":                                                     "VS Code", ".vscode-server/data/Machine/settings.json": "VS Code", ".cursor-server/data/Machine/settings.json": "Cursor", ".vscode-server/data/User/globalStorage/rooveterinaryinc.roo-cline/settings/mcp_settings.json": "Roo Code",
		".warp/.mcp.json": "Warp", ".config/kilo/kilo.jsonc": "Kilo Code", ".kilocode/cli/global/settings/mcp_settings.json": "Kilo Code", ".local/share/Jan/data/mcp_config.json": "Jan", mac + "Jan/data/mcp_config.json": "Jan", win + "Jan/data/mcp_config.json": "Jan",
		".copilot/mcp-config.json": "Copilot CLI", ".config/crush/crush.json": "Crush", ".qwen/settings.json": "Qwen Code", ".kiro/settings/mcp.json": "Kiro", ".factory/mcp.json": "Factory", ".config/amp/settings.json": "Amp",
		".pi/agent/auth.json": "Pi", ".kimi/config.toml": "Kimi CLI", ".rovodev/mcp.json": "Rovo Dev", ".iflow/settings.json": "iFlow", ".grok/user-settings.json": "Grok CLI", ".openhands/mcp.json": "OpenHands", ".mcp.json": "Visual Studio",
		".continue/config.yaml": "Continue", ".lmstudio/mcp.json": "LM Studio", ".aws/amazonq/mcp.json": "Amazon Q",
	}
	n := 0
	for path := range want {
		n++
		text := entry(n)
		switch filepath.Ext(path) {
		case ".toml":
			text = "[mcp_servers.s.env]\nGITHUB_TOKEN = \"" + token(n) + "\"\n"
		case ".yaml":
			text = "extensions:\n  s:\n    envs:\n      GITHUB_TOKEN: " + token(n) + "\n"
		}
		write(t, filepath.Join(home, filepath.FromSlash(path)), text)
	}
	r, err := Run(t.Context(), Options{Home: home})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range r.Findings {
		rel, _ := filepath.Rel(home, f.File)
		got[filepath.ToSlash(rel)] = f.Client
		if f.Exposure.Agent != "given" {
			t.Errorf("%s: an agent comes by it %q", rel, f.Exposure.Agent)
		}
	}
	for path, client := range want {
		if got[path] != client {
			t.Errorf("%s is %q's, want %q", path, got[path], client)
		}
	}
	if len(r.Findings) != len(want) {
		t.Errorf("%d findings in %d places", len(r.Findings), len(want))
	}
}

// Issue 8, where: what agents have of a project lies beside it. A user found that --home said
// nothing of the .env in the folder in which the agent worked.
func TestProjectsThatAgentsKnow(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	home := filepath.Join(top, "home")
	at := func(name string) string { return filepath.Join(top, name) }
	write(t, filepath.Join(home, ".claude.json"), fmt.Sprintf(`{"projects":{%q:{"mcpServers":{}},%q:{},"relative":{},"/":{},%q:{}}}`, at("a[1]"), at("gone"), home))
	write(t, filepath.Join(home, ".codex/config.toml"), fmt.Sprintf("[projects.%q]\ntrust_level = \"trusted\"\n", at("b")))
	write(t, filepath.Join(home, ".gemini/trustedFolders.json"), fmt.Sprintf("{%q: \"TRUST_FOLDER\"}", at("c")))
	write(t, filepath.Join(home, ".config/Code/User/workspaceStorage/x/workspace.json"), fmt.Sprintf(`{"folder": "file://%s"}`, filepath.ToSlash(at("d"))))
	n := 0
	want := []string{"a[1]/.env.local", "a[1]/.mcp.json", "b/.codex/config.toml", "b/.env", "c/.gemini/settings.json", "d/.vscode/mcp.json"}
	for _, f := range append(want, "a[1]/src/other.env", "e/.env") {
		n++
		text := "GITHUB_TOKEN=" + token(n) + "\n"
		switch filepath.Ext(f) {
		case ".json":
			text = fmt.Sprintf(`{"servers":{"s":{"env":{"GITHUB_TOKEN":"%s"}}}}`, token(n))
		case ".toml":
			text = "[mcp_servers.s.env]\nGITHUB_TOKEN = \"" + token(n) + "\"\n"
		}
		write(t, at(filepath.FromSlash(f)), text)
	}
	r, err := Run(t.Context(), Options{Home: home})
	if err != nil {
		t.Fatal(err)
	}
	got := filesOf(r, top)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("found in %q, want %q", got, want)
	}

	// A folder that is named too is told once, and a place that the environment moved is found.
	moved := at("moved")
	write(t, filepath.Join(moved, "auth.json"), `{"OPENAI_API_KEY":"`+token(99)+`"}`)
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	near, err := filepath.Rel(wd, at("b"))
	if err != nil {
		t.Fatal(err)
	}
	r, err = Run(t.Context(), Options{Home: home, Roots: []string{near, at("b")}, Moved: map[string]string{"~/.codex": moved}})
	if err != nil {
		t.Fatal(err)
	}
	got = nil
	for _, f := range r.Findings {
		if f.Copies != 1 {
			t.Errorf("%s is told %d times", f.File, f.Copies)
		}
		got = append(got, filepath.ToSlash(strings.TrimPrefix(f.File, top+string(filepath.Separator))))
	}
	slices.Sort(got)
	if all := slices.Sorted(slices.Values(append(want, "moved/auth.json"))); !slices.Equal(got, all) {
		t.Errorf("found in %q, want %q", got, all)
	}
}

// A bug: what these programs keep was not looked at.
func TestProgramsPlaces(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	for path, text := range map[string]string{
		".config/hcloud/cli.toml":            "active_context = \"a\"\n[[contexts]]\nname = \"a\"\ntoken = \"%s\"\n",
		".boto":                              "[Credentials]\ngs_oauth2_refresh_token = %s\n",
		".config/argocd/config":              "users:\n- auth-token: %s\n  name: cd.example.com\n",
		".aliyun/config.json":                `{"profiles":[{"name":"default","access_key_secret":"%s"}]}`,
		".config/systemd/user/agent.service": "[Service]\nEnvironment=\"LOG=info\" \"ACME_API_KEY=%s\"\n",
		".config/systemd/user/a.d/key.conf":  "[Service]\nEnvironment=ACME_API_KEY=%s\n",
		"Library/LaunchAgents/agent.plist":   "<?xml version=\"1.0\"?>\n<plist><dict><key>EnvironmentVariables</key><dict><key>LOG</key><string>info</string><key>ACME_API_KEY</key><string>%s</string></dict></dict></plist>\n",
		".aider.chat.history.md":             "#### use my key %s please\n",
		".n8n/config":                        `{"encryptionKey":"%s"}`,
		".jfrog/jfrog-cli.conf.v6":           `{"servers":[{"accessToken":"%s"}],"version":"6"}`,
		".config/Code/User/workspaceStorage/1/chatSessions/a.jsonl": `{"requests":[{"message":{"text":"use %s"}}]}` + "\n",
	} {
		key := "q8Zr2LmX0vKtY5nWc7PbQ3dF"
		if strings.Contains(path, "history") || strings.Contains(path, "chatSessions") { // there only a form of its own tells
			key = token(1)
		}
		write(t, filepath.Join(home, filepath.FromSlash(path)), fmt.Sprintf(text, key))
		if r, err := Run(t.Context(), Options{Home: home}); err != nil || len(r.Findings) != 1 || !strings.HasSuffix(filepath.ToSlash(r.Findings[0].File), path) || r.Findings[0].Client == "" {
			t.Errorf("%s: %v, %+v", path, err, r.Findings)
		}
		if err := os.Remove(filepath.Join(home, filepath.FromSlash(path))); err != nil {
			t.Fatal(err)
		}
	}
}
