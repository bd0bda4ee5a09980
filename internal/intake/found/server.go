package found

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/tailscale/hujson"

	"github.com/ambit-dev/ambit/internal/scan"
)

// Server is an entry of an MCP server in an agent's settings that becomes ours: each
// credential in it opens an account that Ambit has.
type Server struct {
	Name    string `json:"name"`
	Section string `json:"section"` // the key path of the list that it stands in

	path []string // of the section
}

// ours is the name of the entry that stands for all that became ours.
const ours = "ambit"

// sections are the names under which programs list MCP servers.
func isSection(file, name string) bool {
	switch name {
	case "mcpServers", "mcp_servers", "context_servers", "amp.mcpServers", "mcp.servers", "mcp":
		return true
	case "servers": // a name of many things elsewhere
		return filepath.Base(file) == "mcp.json"
	}
	return false
}

// settings decodes a file of settings; other kinds of files are nil.
func settings(file string, text []byte) map[string]any {
	var all map[string]any
	switch filepath.Ext(file) {
	case ".json", ".jsonc":
		plain, err := hujson.Standardize(bytes.Clone(text))
		if err != nil || json.Unmarshal(plain, &all) != nil {
			return nil
		}
	case ".toml":
		if toml.Unmarshal(text, &all) != nil {
			return nil
		}
	}
	return all
}

// eachServer visits the entries of MCP servers below v.
func eachServer(file string, v map[string]any, path []string, visit func(path []string, name string, entry map[string]any)) {
	if len(path) > 8 {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(v)) {
		inner, ok := v[key].(map[string]any)
		if !ok {
			continue
		}
		at := append(slices.Clone(path), key)
		if isSection(file, key) {
			for _, name := range slices.Sorted(maps.Keys(inner)) {
				if entry, ok := inner[name].(map[string]any); ok && startsServer(entry) {
					visit(at, name, entry)
				}
			}
		}
		eachServer(file, inner, at, visit)
	}
}

func startsServer(entry map[string]any) bool {
	for _, key := range []string{"command", "url", "httpUrl", "serverUrl", "uri"} {
		if entry[key] != nil {
			return true
		}
	}
	return false
}

// holds reports whether a text in v has value in it.
func holds(v any, value string) bool {
	switch v := v.(type) {
	case string:
		return strings.Contains(v, value)
	case []any:
		return slices.ContainsFunc(v, func(x any) bool { return holds(x, value) })
	case map[string]any:
		for _, x := range v {
			if holds(x, value) {
				return true
			}
		}
	}
	return false
}

// servers are the entries of c that become ours: those that hold credentials, all of
// which are of accounts that Ambit has, or will have. One that holds another credential
// too is left: what it opens would be lost.
func (c *Change) servers() []Server {
	if c.entry == nil || c.entry(c.path, nil) == nil {
		return nil
	}
	var out []Server
	eachServer(c.path, settings(c.path, c.was), nil, func(path []string, name string, entry map[string]any) {
		n := 0
		for _, t := range c.Takes {
			if holds(entry, string(t.finding.Value.Reveal())) {
				if !t.connects() {
					return
				}
				n++
			}
		}
		if n == 0 || name == ours || slices.ContainsFunc(c.others, func(f scan.Finding) bool { return holds(entry, string(f.Value.Reveal())) }) {
			return
		}
		out = append(out, Server{Name: name, Section: strings.Join(path, "."), path: path})
	})
	return out
}

// rewritten is text with these entries gone and ours in their place, or text as it is
// where its form does not let this be done without touching anything else.
func (c *Change) rewritten(text []byte, list []Server) ([]byte, bool) {
	if len(list) == 0 {
		return text, false
	}
	want := settings(c.path, text)
	for _, s := range list {
		section := inside(want, s.path)
		if section == nil || section[s.Name] == nil {
			return text, false
		}
		delete(section, s.Name)
		if section[ours] == nil {
			section[ours] = c.entry(c.path, s.path)
		}
	}
	edit := c.editJSON
	if filepath.Ext(c.path) == ".toml" {
		edit = c.editTOML
	}
	next, err := edit(text, list)
	if err != nil || json.Valid(text) && !json.Valid(next) || !same(settings(c.path, next), want) {
		return text, false
	}
	return next, true
}

// same compares settings by what they say.
func same(a, b map[string]any) bool {
	one, aerr := json.Marshal(a)
	two, berr := json.Marshal(b)
	var x, y any
	return aerr == nil && berr == nil && json.Unmarshal(one, &x) == nil && json.Unmarshal(two, &y) == nil && reflect.DeepEqual(x, y)
}

func inside(v map[string]any, path []string) map[string]any {
	for _, key := range path {
		v, _ = v[key].(map[string]any)
	}
	return v
}

// editJSON changes members and leaves the rest, comments too, as it is.
func (c *Change) editJSON(text []byte, list []Server) ([]byte, error) {
	v, err := hujson.Parse(text)
	if err != nil {
		return nil, err
	}
	var ops []map[string]any
	for _, s := range list {
		section := pointer(s.path...)
		ops = append(ops, map[string]any{"op": "remove", "path": section + pointer(s.Name)})
		added := slices.ContainsFunc(ops, func(op map[string]any) bool { return op["op"] == "add" && op["path"] == section+"/"+ours })
		if !added && v.Find(section+"/"+ours) == nil {
			ops = append(ops, map[string]any{"op": "add", "path": section + "/" + ours, "value": c.entry(c.path, s.path)})
		}
	}
	doc, err := json.Marshal(ops)
	if err != nil {
		return nil, err
	}
	if err := v.Patch(doc); err != nil {
		return nil, err
	}
	return v.Pack(), nil
}

// pointer is a path as a JSON Pointer (RFC 6901).
func pointer(path ...string) string {
	var b strings.Builder
	for _, key := range path {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key))
	}
	return b.String()
}

// editTOML takes whole tables out, and puts ours at the end.
func (c *Change) editTOML(text []byte, list []Server) ([]byte, error) {
	now := string(text)
	for _, s := range list {
		if len(s.path) != 1 {
			return nil, fmt.Errorf("%s is too deep", s.Section)
		}
		header := regexp.MustCompile(`(?m)^[ \t]*\[[ \t]*` + regexp.QuoteMeta(s.path[0]) + `[ \t]*\.[ \t]*(?:` + regexp.QuoteMeta(s.Name) + `|"` + regexp.QuoteMeta(s.Name) + `")[ \t]*[.\]]`)
		for at := header.FindStringIndex(now); at != nil; at = header.FindStringIndex(now) {
			end := len(now)
			if next := nextTable.FindStringIndex(now[at[1]:]); next != nil {
				end = at[1] + next[0]
			}
			now = now[:at[0]] + now[end:]
		}
	}
	section := inside(settings(c.path, text), list[0].path)
	if section[ours] != nil {
		return []byte(now), nil
	}
	if now != "" {
		now = strings.TrimRight(now, " \t\r\n") + "\n\n"
	}
	entry := c.entry(c.path, list[0].path)
	now += "[" + list[0].path[0] + "." + ours + "]\n"
	for _, key := range slices.Sorted(maps.Keys(entry)) {
		value, err := json.Marshal(entry[key]) // texts and booleans are written alike
		if err != nil {
			return nil, err
		}
		now += key + " = " + string(value) + "\n"
	}
	return []byte(now), nil
}

var nextTable = regexp.MustCompile(`(?m)^[ \t]*\[`)
