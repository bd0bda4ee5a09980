package provider

import (
	"bytes"
	"cmp"
	"encoding/json"
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
		out = append(out, MCPTool{State: MCPNew, Now: d, Effect: d.Suggested()})
	}
	slices.SortFunc(out, func(a, b MCPTool) int { return strings.Compare(a.Upstream(), b.Upstream()) })
	return out
}

// Upstream is the server's name of the tool.
func (c MCPTool) Upstream() string { return cmp.Or(c.Now.Name, c.Was.Name) }

// TakeMCP gives the record with the server's tools as they are now: those for
// which effects has one, by the server's names. All else in the record stays as it
// is written, and so do the names, titles and descriptions of tools that it has.
func (r Record) TakeMCP(listed Listing, effects map[string]policy.Effect) (Record, error) {
	if r.MCP == nil {
		return Record{}, fault.New(fault.Invalid, "not_mcp", r.Name+" is not an MCP server.")
	}
	specs, used := map[string]ToolSpec{}, map[string]bool{"read": true, "write": true, "destroy": true}
	for _, s := range r.ToolSpecs {
		if d, err := parseDefinition(s.MCP); err == nil {
			specs[d.Name] = s
			used[strings.ToLower(s.Name)] = true
		}
	}
	var b strings.Builder
	for _, d := range listed.Tools {
		effect, take := effects[d.Name]
		if !take {
			continue
		}
		s, had := specs[d.Name]
		if !had {
			s.Name = toolName(r.ID, d.Name, used)
		}
		head, err := json.Marshal(s.Name)
		if err != nil {
			return Record{}, err
		}
		fmt.Fprintf(&b, "  - name: %s\n    effect: %s\n", head, effect)
		for _, own := range []struct{ field, text string }{{"title", s.Title}, {"description", s.Description}} {
			if own.text != "" {
				line, err := json.Marshal(own.text)
				if err != nil {
					return Record{}, err
				}
				fmt.Fprintf(&b, "    %s: %s\n", own.field, asYAML(line))
			}
		}
		fmt.Fprintf(&b, "    mcp: %s\n", asYAML(d.text))
	}
	head, err := r.withoutTools(listed.Revision)
	if err != nil {
		return Record{}, err
	}
	text := string(head)
	if b.Len() > 0 {
		text += "tools:\n" + b.String()
	}
	return Parse([]byte(text))
}

// withoutTools is the record's text without its tools, of a server that speaks a
// revision.
func (r Record) withoutTools(revision string) ([]byte, error) {
	doc, err := readYAML(r.source)
	if err != nil {
		return nil, err
	}
	root := doc.Content[0]
	for i := 0; i+1 < len(root.Content); i += 2 {
		if m := root.Content[i+1]; root.Content[i].Value == "mcp" && r.MCP.Revision == "" && revision != "" {
			m.Content = append(m.Content, textNode("revision"), textNode(revision))
		}
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == "tools" {
			root.Content = slices.Delete(root.Content, i, i+2)
			break
		}
	}
	out, err := yaml.Dump(root)
	if err != nil {
		return nil, fault.New(fault.Internal, "record_unwritten", "The record could not be written.").WithCause(err)
	}
	return out, nil
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
		return Record{}, fault.New(fault.Internal, "record_unwritten", "The record could not be written.").WithCause(err)
	}
	return Parse(text)
}
