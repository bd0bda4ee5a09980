package provider

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/policy"
)

// MCPState is how a server's tool stands to the record.
type MCPState string

// The states.
const (
	MCPSame    MCPState = "unchanged"
	MCPChanged MCPState = "changed" // frozen until a person agrees to what it is now
	MCPNew     MCPState = "new"     // no agent sees it until a person takes it in
	MCPGone    MCPState = "gone"
)

// MCPTool is one tool of a server, as the record has it and as the server lists it.
type MCPTool struct {
	State  MCPState
	Tool   Tool       // of the record; zero of a new one
	Was    Definition // of the record; zero of a new one
	Now    Definition // as the server lists it; zero of one that is gone
	Effect policy.Effect
}

// CompareMCP holds what a server lists against the record, by the server's names.
func (r Record) CompareMCP(listed []Definition) []MCPTool {
	now := map[string]Definition{}
	for _, d := range listed {
		now[d.Name] = d
	}
	var out []MCPTool
	for _, t := range r.tools {
		was, ok := t.Upstream()
		if !ok {
			continue
		}
		c := MCPTool{State: MCPGone, Tool: t, Was: was, Effect: t.Effect}
		if d, listed := now[was.Name]; listed {
			c.State, c.Now = MCPSame, d
			if !bytes.Equal(d.text, was.text) {
				c.State = MCPChanged
			}
			delete(now, was.Name)
		}
		out = append(out, c)
	}
	for _, d := range now {
		out = append(out, MCPTool{State: MCPNew, Now: d, Effect: policy.Destructive})
	}
	slices.SortFunc(out, func(a, b MCPTool) int { return strings.Compare(a.Upstream(), b.Upstream()) })
	return out
}

// Upstream is the server's name of the tool.
func (c MCPTool) Upstream() string { return cmp.Or(c.Now.Name, c.Was.Name) }

// TakeMCP gives the record with the server's tools as they are now: those for
// which effects has one, by the server's names. All else that the record says stays
// as it is, of a tool that it has everything but the effect and the definition.
// How it is laid out may change.
func (r Record) TakeMCP(listed Listing, effects map[string]policy.Effect) (Record, error) {
	if r.MCP == nil {
		return Record{}, fault.New(fault.Invalid, "not_mcp", r.Name+" is not an MCP server.")
	}
	doc, err := readYAML(r.source)
	if err != nil {
		return Record{}, err
	}
	root := doc.Content[0]
	old := takeField(root, "tools")
	if m := mapValue(root, "mcp"); m != nil && r.MCP.Revision == "" && listed.Revision != "" {
		m.Content = append(m.Content, textNode("revision"), textNode(listed.Revision))
	}
	taken := map[string]Definition{}
	for _, d := range listed.Tools {
		if _, take := effects[d.Name]; take {
			taken[d.Name] = d
		}
	}
	var b strings.Builder
	write := func(node *yaml.Node, d Definition) error {
		out, err := yaml.Dump(node)
		if err != nil {
			return unwritten(err)
		}
		sign := "  - "
		for line := range strings.Lines(string(out)) {
			if strings.TrimSpace(line) != "" {
				line = sign + line
				sign = "    "
			}
			b.WriteString(line)
		}
		fmt.Fprintf(&b, "    mcp: %s\n", asYAML(d.text))
		return nil
	}
	used := map[string]bool{"read": true, "write": true, "destroy": true}
	for i, s := range r.ToolSpecs {
		was, _ := r.tools[i].Upstream() // an MCP server has no tools but these
		used[strings.ToLower(s.Name)] = true
		d, take := taken[was.Name]
		if !take {
			continue
		}
		delete(taken, was.Name)
		node := old.Content[i]
		node.Style &^= yaml.FlowStyle
		takeField(node, "mcp")
		if e := mapValue(node, "effect"); e.Value != string(effects[d.Name]) {
			e.Value = string(effects[d.Name])
		}
		if err := write(node, d); err != nil {
			return Record{}, err
		}
	}
	for _, d := range listed.Tools {
		if _, is := taken[d.Name]; !is {
			continue
		}
		node := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{
			textNode("name"), textNode(toolName(r.ID, d.Name, used)), textNode("effect"), textNode(string(effects[d.Name]))}}
		if err := write(node, d); err != nil {
			return Record{}, err
		}
	}
	head, err := yaml.Dump(root)
	if err != nil {
		return Record{}, unwritten(err)
	}
	text := string(head)
	if b.Len() > 0 {
		text += "tools:\n" + b.String()
	}
	return Parse([]byte(text))
}

func unwritten(err error) error {
	return fault.New(fault.Internal, "record_unwritten", "The record could not be written.").WithCause(err)
}

// takeField takes a field out, and gives its value.
func takeField(n *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			v := n.Content[i+1]
			n.Content = slices.Delete(n.Content, i, i+2)
			return v
		}
	}
	return nil
}

// asYAML is a JSON document as YAML takes it on one line: what a text of YAML may
// not hold as it is, is escaped. All such characters stand within quotes.
func asYAML(doc []byte) string {
	var b strings.Builder
	for _, r := range string(doc) {
		switch {
		case !unprintable(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08X`, r)
		default:
			fmt.Fprintf(&b, `\u%04X`, r)
		}
	}
	return b.String()
}

// MCPServer is what the record of a server says beside its tools.
type MCPServer struct {
	ID, Name, Website, URL, Revision string

	Auth   Auth
	Header string // of APIKey: where the key goes
	Format string // and how it is written, such as "Bearer {api_key}"

	// Of OAuth2.
	AuthorizeURL, TokenURL, RevokeURL, Issuer, ClientAuth, Resource string
	IssuerOptional                                                  bool // a callback may come without it
	Scopes                                                          []string
}

// Record writes the record, without tools.
func (s MCPServer) Record() (Record, error) {
	doc := map[string]any{"id": s.ID, "name": s.Name, "auth": string(s.Auth), "mcp": map[string]any{"url": s.URL}}
	if s.Revision != "" {
		doc["mcp"] = map[string]any{"url": s.URL, "revision": s.Revision}
	}
	if s.Website != "" {
		doc["website"] = s.Website
	}
	switch s.Auth {
	case OAuth2:
		oauth := map[string]any{"authorize_url": s.AuthorizeURL, "token_url": s.TokenURL, "client_auth": s.ClientAuth,
			"authorize_params": map[string]string{"resource": s.Resource}, "token_params": map[string]string{"resource": s.Resource}}
		if s.RevokeURL != "" {
			oauth["revoke_url"] = s.RevokeURL
		}
		if s.Issuer != "" {
			oauth["issuer"], oauth["issuer_optional"] = s.Issuer, s.IssuerOptional
		}
		if len(s.Scopes) > 0 {
			oauth["scopes"] = map[string]any{"base": s.Scopes}
		}
		doc["oauth2"] = oauth
	case APIKey:
		doc["inject"] = map[string]any{"header": s.Header, "format": s.Format}
	}
	text, err := yaml.Dump(doc)
	if err != nil {
		return Record{}, unwritten(err)
	}
	return Parse(text)
}
