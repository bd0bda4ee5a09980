package scan

import (
	"context"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// inProject are the files of a project in which agents' settings and its own keys lie.
var inProject = []Place{
	{Client: "dotenv", Path: ".env*", format: asINI}, {Client: "dotenv", Path: ".dev.vars", format: asINI},
	{Client: "Claude Code", Path: ".mcp.json", format: asJSON}, {Client: "Claude Code", Path: ".claude/settings*.json", format: asJSON},
	{Client: "Cursor", Path: ".cursor/mcp.json", format: asJSON}, {Client: "VS Code", Path: ".vscode/mcp.json", format: asJSON}, {Client: "VS Code", Path: ".vscode/settings.json", format: asJSON},
	{Client: "Gemini CLI", Path: ".gemini/settings.json", format: asJSON}, {Client: "Gemini CLI", Path: ".gemini/.env", format: asINI}, {Client: "Qwen Code", Path: ".qwen/settings.json", format: asJSON},
	{Client: "Codex", Path: ".codex/config.toml", format: asTOML}, {Client: "OpenCode", Path: "opencode.json*", format: asJSON}, {Client: "Zed", Path: ".zed/settings.json", format: asJSON},
	{Client: "Roo Code", Path: ".roo/mcp.json", format: asJSON}, {Client: "Kilo Code", Path: ".kilocode/mcp.json", format: asJSON}, {Client: "Junie", Path: ".junie/mcp/mcp.json", format: asJSON},
	{Client: "Kiro", Path: ".kiro/settings/mcp.json", format: asJSON}, {Client: "Amazon Q", Path: ".amazonq/*.json", format: asJSON}, {Client: "Continue", Path: ".continue/mcpServers/*"},
	{Client: "Copilot CLI", Path: ".copilot/mcp-config.json", format: asJSON}, {Client: "Crush", Path: "*crush.json", format: asJSON}, {Client: "Aider", Path: ".aider.conf.yml", format: asYAML}, {Client: "Aider", Path: ".aider.*history*"},
	{Client: "Kilo Code", Path: "kilo.json*", format: asJSON}, {Client: "Kilo Code", Path: ".kilo/kilo.json*", format: asJSON}, {Client: "Amp", Path: ".amp/settings.json*", format: asJSON}, {Client: "Warp", Path: ".warp/.mcp.json", format: asJSON},
	{Client: "Factory", Path: ".factory/*.json", format: asJSON}, {Client: "Trae", Path: ".trae/mcp.json", format: asJSON}, {Client: "iFlow", Path: ".iflow/settings.json", format: asJSON}, {Client: "Deep Agents", Path: ".deepagents/.mcp.json", format: asJSON}, {Client: "Pi", Path: ".pi/*.json", format: asJSON},
}

const (
	maxProjects = 2000
	maxSettings = 32 << 20 // of a file that lists them
)

// projects are the folders in which agents have worked, as their own settings list them.
func (w *walker) projects(places []string) []string {
	var list []string
	for _, file := range places {
		info, err := os.Stat(file)
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxSettings {
			continue
		}
		if b, err := os.ReadFile(file); err == nil {
			list = append(list, listed(filepath.Base(file), b)...)
		}
	}
	home := filepath.Clean(w.s.opt.Home)
	list = slices.DeleteFunc(list, func(dir string) bool {
		return !filepath.IsAbs(dir) || filepath.Clean(dir) == home || filepath.Dir(dir) == dir
	})
	slices.Sort(list)
	list = slices.Compact(list)
	return list[:min(len(list), maxProjects)]
}

// listed are the projects in a file of that name.
func listed(name string, b []byte) (list []string) {
	switch name {
	case ".claude.json":
		return keysOf(parseJSON(b, 1).child("projects"))
	case "trustedFolders.json": // of the Gemini CLI
		return keysOf(parseJSON(b, 1))
	case "config.toml":
		var got struct {
			Projects map[string]any `toml:"projects"`
		}
		if toml.Unmarshal(b, &got) == nil {
			for dir := range got.Projects {
				list = append(list, dir)
			}
		}
	case "workspace.json": // of VS Code and what descends from it
		if u, err := url.Parse(parseJSON(b, 1).string("folder")); err == nil && u.Scheme == "file" && u.Host == "" {
			dir := u.Path
			if runtime.GOOS == "windows" {
				dir = strings.TrimPrefix(dir, "/")
			}
			list = append(list, filepath.FromSlash(dir))
		}
	}
	return list
}

// keysOf are the keys of an object.
func keysOf(n *node) (keys []string) {
	if n != nil && n.kind == object {
		for _, c := range n.inner {
			keys = append(keys, c.key)
		}
	}
	return keys
}

// project reads the known files of a project, and notes its repository.
func (w *walker) project(ctx context.Context, dir string) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return
	}
	if repo := repositoryOf(dir); repo != "" && w.s.opt.Git {
		w.meet(repo)
	}
	for _, p := range inProject {
		found, _ := fs.Glob(os.DirFS(dir), p.Path) // the folder's own name is no pattern
		for _, m := range found {
			w.place(ctx, filepath.Join(dir, filepath.FromSlash(m)), p, false)
		}
	}
}
