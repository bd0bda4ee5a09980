package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tailscale/hujson"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/disk"
	"github.com/ambit-dev/ambit/internal/fault"
)

// agentClient is a program with a list of MCP servers in a file of its own.
type agentClient struct {
	name, title string
	file        string         // below the home folder, or the current one with --project; empty: it has none there
	project     string         // below the current folder
	section     string         // of the file: a JSON object, or TOML tables
	entry       map[string]any // %s stands for the URL
	how         string         // what is to be done then
}

// agentClients are those whose files are known. None gets a token: each finds the
// authorization server by itself, and its person signs in there.
var agentClients = []agentClient{
	{"claude", "Claude Code", "", ".mcp.json", "mcpServers", map[string]any{"type": "http", "url": "%s"}, "In Claude Code: /mcp, choose ambit, authenticate. For all projects: claude mcp add --scope user --transport http ambit %s"},
	{"codex", "Codex", ".codex/config.toml", "", "mcp_servers", map[string]any{"url": "%s"}, "Then: codex mcp login ambit"},
	{"cursor", "Cursor", ".cursor/mcp.json", ".cursor/mcp.json", "mcpServers", map[string]any{"url": "%s"}, "Start Cursor anew; it asks to sign in."},
	{"gemini", "Gemini CLI", ".gemini/settings.json", ".gemini/settings.json", "mcpServers", map[string]any{"httpUrl": "%s"}, "In Gemini CLI: /mcp auth ambit"},
	{"opencode", "opencode", ".config/opencode/opencode.json", "opencode.json", "mcp", map[string]any{"type": "remote", "url": "%s", "enabled": true}, "Then: opencode mcp auth ambit"},
	{"vscode", "Visual Studio Code", "", ".vscode/mcp.json", "servers", map[string]any{"type": "http", "url": "%s"}, "In Visual Studio Code: MCP: List Servers, ambit, Start."},
	{"windsurf", "Windsurf", ".codeium/windsurf/mcp_config.json", "", "mcpServers", map[string]any{"serverUrl": "%s"}, "Refresh the list of MCP servers in Windsurf."},
	{"zed", "Zed", ".config/zed/settings.json", ".zed/settings.json", "context_servers", map[string]any{"url": "%s"}, "Zed asks to sign in."},
}

func agentClientNames() []string {
	var names []string
	for _, a := range agentClients {
		names = append(names, a.name)
	}
	return names
}

func (c *command) agentSetup() *cobra.Command {
	var write, project bool
	cmd := &cobra.Command{
		Use: "setup CLIENT", Short: "Print, or write, what connects an agent's program",
		Long: "Print what a program needs in its own configuration to reach this server, or put it there with --write: other entries and\n" +
			"comments stay as they are, and the file as it was is kept beside it. No token is written: the program signs in by itself.\n\n" +
			"Programs: " + strings.Join(agentClientNames(), ", ") + ". Any other takes the URL of /mcp, or runs ambit mcp.",
		Example:   "  ambit agent setup cursor\n  ambit agent setup codex --write\n  ambit agent setup claude --project --write",
		Args:      takes(1, "one argument: the program"),
		ValidArgs: agentClientNames(),
		RunE: func(_ *cobra.Command, args []string) error {
			i := slices.IndexFunc(agentClients, func(a agentClient) bool { return a.name == args[0] })
			if i < 0 {
				return usageError{fmt.Errorf("the programs are: %s", strings.Join(agentClientNames(), ", "))}
			}
			server := c.serverURL()
			if err := client.Check(server); err != nil {
				return err
			}
			s, err := c.setupOf(agentClients[i], strings.TrimRight(server, "/")+"/mcp", project)
			if err != nil {
				return err
			}
			return c.setUp(s, write)
		},
	}
	cmd.Flags().BoolVar(&write, "write", false, "put it into the program's file")
	cmd.Flags().BoolVar(&project, "project", false, "for the project in the current folder, not for all")
	return cmd
}

// setup is what is to be in a file.
type setup struct {
	agentClient
	path string
	url  string
}

func (c *command) setupOf(a agentClient, url string, project bool) (setup, error) {
	s := setup{agentClient: a, url: url}
	switch {
	case project && a.project == "":
		return s, usageError{fmt.Errorf("%s has no file of a project", a.title)}
	case project || a.file == "":
		s.path = filepath.FromSlash(a.project)
	default:
		home := first(c.env["HOME"], c.env["USERPROFILE"])
		if home == "" {
			return s, usageError{errors.New("HOME is not set")}
		}
		s.path = filepath.Join(home, filepath.FromSlash(a.file))
	}
	return s, nil
}

// filled is the entry for a server.
func (a agentClient) filled(url string) map[string]any {
	entry := map[string]any{}
	for k, v := range a.entry {
		if v == "%s" {
			v = url
		}
		entry[k] = v
	}
	return entry
}

// value is the entry as JSON.
func (s setup) value() []byte {
	doc, _ := json.Marshal(s.filled(s.url))
	return doc
}

func (c *command) setUp(s setup, write bool) error {
	if to, err := filepath.EvalSymlinks(s.path); err == nil {
		s.path = to // a link stays one
	}
	now, err := os.ReadFile(s.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Invalid, "file_unreadable", "The file cannot be read: "+s.path+".").WithCause(err)
	}
	next, err := s.merged(now)
	if err != nil {
		return fault.New(fault.Invalid, "file_unreadable", s.path+" is not a file of "+s.title+" that can be changed: "+err.Error()+".").
			WithHint("Add the entry by hand: leave out --write to see it.")
	}
	how := strings.ReplaceAll(s.how, "%s", s.url)
	if !write {
		alone, err := s.merged(nil)
		if err != nil {
			return err
		}
		return c.show(map[string]any{"client": s.name, "file": s.path, "content": string(alone), "next": how}, func() {
			fmt.Fprintf(c.stdout, "%s\n\n%s\n%s\n", s.path, alone, how)
		})
	}
	backup := ""
	if !bytes.Equal(now, next) {
		if now != nil {
			backup = s.path + ".before-ambit"
			if err := disk.Replace(backup, now); err != nil {
				return err
			}
		}
		if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
			return err
		}
		before, berr := os.Stat(s.path)
		if err := disk.Replace(s.path, next); err != nil {
			return err
		}
		if berr == nil { // a project's file may be for others too
			if err := os.Chmod(s.path, before.Mode().Perm()); err != nil {
				return err
			}
		}
	}
	return c.show(map[string]any{"client": s.name, "file": s.path, "changed": !bytes.Equal(now, next), "backup": backup, "next": how}, func() {
		switch {
		case bytes.Equal(now, next):
			fmt.Fprintf(c.stdout, "%s has it already.\n%s\n", s.path, how)
		case backup != "":
			fmt.Fprintf(c.stdout, "%s is written; as it was it is in %s.\n%s\n", s.path, backup, how)
		default:
			fmt.Fprintf(c.stdout, "%s is written.\n%s\n", s.path, how)
		}
	})
}

// merged is the text of a file with the entry in it. What has it already stays as
// it is, to the byte.
func (s setup) merged(now []byte) ([]byte, error) {
	if strings.HasSuffix(s.path, ".toml") {
		return s.mergedTOML(string(now))
	}
	if len(bytes.TrimSpace(now)) == 0 {
		now = []byte("{}\n")
	}
	v, err := hujson.Parse(now)
	if err != nil {
		return nil, errors.New("it is not JSON")
	}
	top, ok := v.Value.(*hujson.Object)
	if !ok {
		return nil, errors.New("it is not a JSON object")
	}
	section, entry := "/"+s.section, "/"+s.section+"/ambit"
	if had := v.Find(entry); had != nil && sameJSON(*had, s.value()) {
		return now, nil
	}
	var ops []string
	if had := v.Find(section); had == nil {
		ops = append(ops, fmt.Sprintf(`{"op":"add","path":%q,"value":{}}`, section))
	} else if _, ok := had.Value.(*hujson.Object); !ok {
		return nil, errors.New(s.section + " is not an object")
	}
	empty := len(top.Members) == 0
	ops = append(ops, fmt.Sprintf(`{"op":"add","path":%q,"value":%s}`, entry, s.value()))
	if err := v.Patch([]byte("[" + strings.Join(ops, ",") + "]")); err != nil {
		return nil, err
	}
	if empty {
		v.Format() // nothing of anybody's is in it
	}
	return v.Pack(), nil
}

func sameJSON(v hujson.Value, doc []byte) bool {
	plain := v.Clone()
	plain.Standardize()
	var a, b any
	if json.Unmarshal(plain.Pack(), &a) != nil || json.Unmarshal(doc, &b) != nil {
		return false
	}
	one, _ := json.Marshal(a)
	two, _ := json.Marshal(b)
	return bytes.Equal(one, two)
}

// mergedTOML adds a table at the end, or replaces the lines of the one that is
// there. Written in any other way, it is left to its owner.
func (s setup) mergedTOML(now string) ([]byte, error) {
	var table strings.Builder
	fmt.Fprintf(&table, "[%s.ambit]\n", s.section)
	for _, k := range slices.Sorted(maps.Keys(s.entry)) {
		fmt.Fprintf(&table, "%s = %q\n", k, strings.ReplaceAll(fmt.Sprint(s.entry[k]), "%s", s.url))
	}
	header := regexp.MustCompile(`(?m)^[ \t]*\[[ \t]*` + regexp.QuoteMeta(s.section) + `[ \t]*\.[ \t]*(?:ambit|"ambit")[ \t]*\][ \t]*(?:#.*)?\r?\n?`)
	at := header.FindAllStringIndex(now, -1)
	switch {
	case len(at) > 1 || strings.Contains(now, `"""`) || strings.Contains(now, "'''"):
		return nil, errors.New("it has parts that cannot be told apart safely")
	case len(at) == 0 && regexp.MustCompile(`(?m)^[ \t]*`+regexp.QuoteMeta(s.section)+`\b`).MatchString(now):
		return nil, errors.New(s.section + " is written in another way there")
	case len(at) == 1:
		end := len(now)
		if next := regexp.MustCompile(`(?m)^[ \t]*\[`).FindStringIndex(now[at[0][1]:]); next != nil {
			end = at[0][1] + next[0]
		}
		body := now[at[0][0]:end]
		kept := strings.TrimRight(body, " \t\r\n")
		if kept+"\n" == table.String() {
			return []byte(now), nil
		}
		return []byte(now[:at[0][0]] + table.String() + body[len(kept):][min(1, len(body)-len(kept)):] + now[end:]), nil
	}
	if now != "" && !strings.HasSuffix(now, "\n") {
		now += "\n"
	}
	if now != "" {
		now += "\n"
	}
	return []byte(now + table.String()), nil
}
