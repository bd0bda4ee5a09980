package scan

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ambit-dev/ambit/internal/disk"
)

// syncs are folders that a service copies to other machines.
var syncs = []struct{ part, name string }{
	{"/dropbox/", "Dropbox"}, {"/onedrive/", "OneDrive"}, {"/onedrive - ", "OneDrive"}, {"/google drive/", "Google Drive"}, {"/googledrive/", "Google Drive"}, {"/my drive/", "Google Drive"}, {"/cloudstorage/googledrive", "Google Drive"}, {"/cloudstorage/dropbox", "Dropbox"}, {"/cloudstorage/onedrive", "OneDrive"}, {"/cloudstorage/box", "Box"},
	{"/mobile documents/", "iCloud"}, {"/iclouddrive/", "iCloud"}, {"/icloud drive/", "iCloud"}, {"/box sync/", "Box"}, {"/box/", "Box"}, {"/nextcloud/", "Nextcloud"}, {"/owncloud/", "ownCloud"}, {"/syncthing/", "Syncthing"}, {"/pcloud", "pCloud"}, {"/mega/", "MEGA"}, {"/seafile/", "Seafile"}, {"/proton drive/", "Proton Drive"}, {"/yandex.disk/", "Yandex Disk"}, {"/creative cloud files/", "Creative Cloud"},
}

// agentFolder lists what a folder holds in which an agent works.
var agentFolder = []string{".mcp.json", ".claude", "CLAUDE.md", "AGENTS.md", ".cursor", ".cursorrules", ".codex", ".gemini", "GEMINI.md", ".windsurf", ".windsurfrules", ".github/copilot-instructions.md", ".continue", ".amazonq", ".kiro", "opencode.json", ".opencode", ".goosehints", ".clinerules", ".roo", ".aider.conf.yml", ".zed", ".junie", ".vscode/mcp.json"}

// expose fills in who can read each finding where it lies.
func expose(ctx context.Context, list []Finding, home string) {
	folders, known := map[string]bool{}, map[readBy]Exposure{}
	for i := range list {
		f := &list[i]
		if f.Commit != "" || strings.HasPrefix(f.File, "process ") {
			continue
		}
		file := readBy{f.File, f.Client}
		e, ok := known[file]
		if !ok {
			e = file.exposure(folders, home)
			known[file] = e
		}
		f.Exposure = e
	}
	committed(ctx, list)
}

// readBy is a file, with the program whose it is.
type readBy struct{ file, client string }

func (r readBy) exposure(folders map[string]bool, home string) (e Exposure) {
	path, err := filepath.Abs(r.file)
	if err != nil {
		return e
	}
	if info, err := os.Stat(path); err == nil {
		e.Mode, e.Readers = modeOf(info)
		e.Owner = ownerOf(info)
		names, _ := disk.Names(info)
		e.Links = max(0, names-1)
	}
	low := strings.ToLower(slashed(path))
	for _, s := range syncs {
		if strings.Contains(low, s.part) {
			e.Synced = s.name
			break
		}
	}
	e.Agent = reach(path, low, r.client, folders, home)
	return e
}

func modeOf(info fs.FileInfo) (mode, readers string) {
	perm := info.Mode().Perm()
	digits := "0" + strings.ToLower(string([]byte{'0' + byte(perm>>6&7), '0' + byte(perm>>3&7), '0' + byte(perm&7)}))
	switch {
	case perm&0o004 != 0:
		readers = "everyone"
	case perm&0o040 != 0:
		readers = "group"
	default:
		readers = "owner"
	}
	return digits, readers
}

// reach says how an agent comes by a file.
func reach(path, low, client string, folders map[string]bool, home string) string {
	for _, t := range []string{".jsonl", "/.claude/projects/", "/.codex/sessions/", "/.claude/history", "/.codex/history", "/chats/", "/chatsessions/", "emptywindowchatsessions/", "/session-state/", "/.aider.input.history", "/.aider.llm.history", "api_conversation_history.json", "/sessions/", "transcript", "/.aider.chat.history"} {
		if strings.Contains(low, t) && (client != "" || t != "/sessions/" && t != "/chats/" && t != ".jsonl") {
			return "transcript"
		}
	}
	if isAgentClient(client) || isMCPFile(low) {
		return "given"
	}
	for dir := filepath.Dir(path); dir != filepath.Dir(dir) && dir != home; dir = filepath.Dir(dir) {
		has, ok := folders[dir]
		if !ok {
			for _, name := range agentFolder {
				if _, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(name))); err == nil {
					has = true
					break
				}
			}
			folders[dir] = has
		}
		if has {
			return "beside"
		}
	}
	return "readable"
}

func isMCPFile(low string) bool {
	for _, s := range []string{"/.mcp.json", "/mcp.json", "/mcp_config.json", "/mcp_settings.json", "/cline_mcp_settings.json", "/claude_desktop_config.json", "/.claude.json", "/.claude/settings.json", "/.claude/settings.local.json", "/.codex/config.toml", "/.gemini/settings.json", "/opencode.json", "/opencode.jsonc", "/goose/config.yaml", "/zed/settings.json", "/.zed/settings.json", "/.continue/config.yaml", "/.continue/config.json", "/mcp-config.json"} {
		if strings.HasSuffix(low, s) {
			return true
		}
	}
	return false
}
