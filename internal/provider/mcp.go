package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/jsonschema-go/jsonschema"
	"golang.org/x/net/http/httpguts"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/strictjson"
	"github.com/ambit-dev/ambit/internal/telemetry"
)

// A record with mcp is a server that speaks the Model Context Protocol over
// streamable HTTP. Its tools are that server's own, each kept in the record as the
// server described it when a person agreed to it: agents read these words and no
// others, and a tool that the server describes in another way since is not called
// until a person has looked (see [Definition], [Store.Looked]). What a call may do
// is the effect in the record; the server's annotations are hints and decide
// nothing.

// MCP is where the server is.
type MCP struct {
	URL      string `yaml:"url"`                                   // of its endpoint
	Revision string `yaml:"revision" enum:"2026-07-28,2025-11-25"` // of the protocol that it speaks; default: it is asked each time
}

// The revisions that an upstream server may speak. An older one than the second is
// answered by a server to an offer of it, and taken down to 2025-03-26, the first
// with streamable HTTP.
const (
	RevisionStateless = "2026-07-28"
	RevisionHandshake = "2025-11-25"
	revisionOldest    = "2025-03-26"
)

// mcpPlan is a tool of such a server, compiled.
type mcpPlan struct {
	def     Definition
	headers []param // arguments that the server wants in a header, too (x-mcp-header)
}

// mcpCall is what a request carries to it.
type mcpCall struct {
	name    string
	args    json.RawMessage
	headers http.Header
}

// lintMCP checks what only such a server has, and what it has not.
func (r *Record) lintMCP(l *linter) {
	m := r.MCP
	if m == nil {
		for i, s := range r.ToolSpecs {
			if s.MCP != nil {
				l.add(fmt.Sprintf("tools[%d].mcp", i), "Add mcp with url, or write request.", "Only an MCP server has such tools.")
			}
		}
		return
	}
	l.url("mcp.url", m.URL, true)
	l.oneOf("mcp.revision", m.Revision, "", RevisionStateless, RevisionHandshake)
	if base := strings.TrimRight(m.URL, "/"); len(r.API.Base) == 0 {
		r.API.Base = []string{base}
	} else if len(r.API.Base) != 1 || r.API.Base[0] != base {
		l.add("api.base", "Leave api out.", "The tools of an MCP server are at its own address.")
	}
	for _, s := range []struct {
		field string
		set   bool
	}{
		{"health", r.Health != nil}, {"access", len(r.Access) > 0}, {"webhooks", r.Webhooks != nil}, {"auth", r.Auth == Database}, {"default_headers", len(r.DefaultHeaders) > 0},
		{"generic", r.Generic.Read || r.Generic.Write || r.Generic.Destructive},
	} {
		if s.set {
			l.add(s.field, "Remove it.", "An MCP server has none of its own.")
		}
	}
}

// compileMCP is compileRequest for a tool of an MCP server, whose definition is def
// unless it could not be read.
func (r *Record) compileMCP(l *linter, field string, s ToolSpec, p *plan, def Definition, unread error) (input json.RawMessage) {
	if s.MCP == nil {
		l.add(field+".mcp", "Take the tool from what the server lists.", "The tool of an MCP server is one that it lists.")
		return nil
	}
	if q := s.Request; q.Method != "" || q.Path != "" || s.Poll != nil || s.SQL != nil || s.Classify != nil || len(s.Input) > 0 {
		l.add(field+".request", "Remove what is not mcp.", "The server itself says what the tool takes and does.")
	}
	if s.Target != nil && s.Target.Tool != "" {
		l.add(field+".target.tool", "Say target.unnamed.", "A tool of an MCP server is not called to name what another call is about.")
	}
	if unread != nil {
		l.add(field+".mcp", "Leave it as the server listed it.", "%s", fault.Of(unread).Message)
		return nil
	}
	p.mcp = &mcpPlan{def: def}
	if len(r.API.Base) > 0 {
		p.base = r.API.Base[0]
	}
	input, problem := p.compileUpstream(def)
	if problem != "" {
		l.add(field+".mcp.inputSchema", "Leave the tool out.", "%s", problem)
	}
	return input
}

// compileUpstream takes the schema of a server as it is. What this server cannot
// hold arguments against (references, and patterns that RE2 does not know) the
// upstream server does alone.
func (p *plan) compileUpstream(def Definition) (json.RawMessage, string) {
	top, ok := strictjson.Members(def.Input)
	if !ok || string(top["type"]) != `"object"` {
		return nil, "The input is not the schema of an object."
	}
	props := map[string]json.RawMessage{}
	if raw, has := top["properties"]; has {
		if props, ok = strictjson.Members(raw); !ok {
			return nil, "The properties of the input are not an object."
		}
	}
	for _, taken := range []string{"session", "connection"} {
		if _, has := props[taken]; has {
			return nil, "The tool has an argument named " + taken + ", with which agents say something else here."
		}
	}
	shown := map[string]any{}
	for _, name := range sortedKeys(props) { // how the server is called is nothing for agents
		shown[name] = props[name]
		fields, _ := strictjson.Members(props[name])
		raw, has := fields["x-mcp-header"]
		if !has {
			continue
		}
		var header string
		if json.Unmarshal(raw, &header) == nil && header != "" && len(header) <= 64 && httpguts.ValidHeaderFieldName(header) {
			p.mcp.headers = append(p.mcp.headers, param{name: "Mcp-Param-" + header, arg: name})
		}
		delete(fields, "x-mcp-header")
		shown[name] = fields
	}
	var input []byte
	doc, err := json.Marshal(shown)
	if err == nil {
		top["properties"] = doc
		input, err = strictjson.CanonicalOf(top)
	}
	if err != nil {
		return nil, "The input has no canonical form."
	}
	var s jsonschema.Schema
	if !refers(jsontext.Value(def.Input)) && json.Unmarshal(input, &s) == nil {
		if resolved, err := s.Resolve(nil); err == nil {
			p.schema = resolved
		}
	}
	return input, ""
}

// refers reports whether a schema has a reference. One that leads back to itself
// never ends.
func refers(schema jsontext.Value) bool {
	switch schema.Kind() {
	case '{':
		list, err := members(schema)
		return err != nil || slices.ContainsFunc(list, func(m jsonMember) bool {
			return slices.Contains([]string{"$ref", "$dynamicref", "$recursiveref"}, strings.ToLower(m.name)) || refers(m.value)
		})
	case '[':
		var list []jsontext.Value
		return unmarshal(schema, &list) != nil || slices.ContainsFunc(list, refers)
	}
	return false
}

// buildMCP makes the request that calls the server's tool.
func (p *plan) buildMCP(t Tool, canonical []byte, given arguments, api []string) (*Request, error) {
	if !slices.Contains(api, p.base) {
		return nil, unbound()
	}
	at, err := url.Parse(p.base)
	if err != nil {
		return nil, fault.New(fault.Internal, "record_invalid", "The connection has no place to ask.").WithCause(err)
	}
	req := &Request{Args: canonical, Method: "CALL", URL: at, Header: http.Header{}, Effect: t.Effect, base: p.base,
		Summary: Summary{Method: "CALL", Host: at.Host, Path: at.EscapedPath(), Body: []Field{{"tool", p.mcp.def.Name}}},
		mcp:     &mcpCall{name: p.mcp.def.Name, args: canonical, headers: http.Header{}}}
	for _, h := range p.mcp.headers {
		v, ok := given[h.arg]
		if !ok {
			continue
		}
		list, err := scalars(v)
		if err != nil || len(list) != 1 || v.Kind() == '[' {
			return nil, badArguments("The argument " + quoted(h.arg) + " must be text, a number, true or false.")
		}
		req.mcp.headers.Set(h.name, HeaderText(list[0]))
	}
	if len(given) > 0 {
		for _, f := range flatten(nil, "", canonical) {
			req.Summary.Body = append(req.Summary.Body, Field{"argument " + f.Name, f.Value})
		}
	}
	return req, nil
}

// callMCP makes a call, and gives its answer in the form of the others.
func callMCP(ctx context.Context, client *outbound.Client, pinned Pinned, rec Record, tool Tool, req *Request, cred Credential) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, mcpCallTimeout)
	defer cancel()
	line, err := rec.openMCP(ctx, client, pinned, cred)
	if err != nil {
		return unanswered(err)
	}
	defer line.hangUp(ctx)
	result, err := line.call(ctx, req.mcp)
	if err != nil {
		return unanswered(err)
	}
	telemetry.Enter(ctx, telemetry.Redact)
	done, err := client.Hold(ctx, len(result.doc))
	if err != nil {
		return Answer{Status: http.StatusOK, Header: http.Header{}, Withheld: tooBusy}, nil
	}
	defer done()
	resp, withheld := result.response()
	if withheld != "" {
		return Answer{Status: resp.Status, Header: http.Header{}, Withheld: withheld}, nil
	}
	return clean(resp, req.URL, line.red, tool), nil
}

// unanswered is the answer of a server that refused, or an error.
func unanswered(err error) (Answer, error) {
	refused, ok := asRefusal(err)
	if !ok {
		return Answer{}, err
	}
	a := Answer{Status: refused.status, Header: http.Header{}, AuthFailed: refused.status == http.StatusUnauthorized, Withheld: refused.message}
	if a.AuthFailed {
		a.Withheld = "The provider refused the credential; its message is not passed on."
	}
	if refused.retry != "" {
		a.Header.Set("Retry-After", refused.retry)
	}
	return a, nil
}

// identifyMCP tries the credential with the server. It does not tell whose account
// it opens: the protocol has no such question.
func (r Record) identifyMCP(ctx context.Context, client *outbound.Client, pinned Pinned, cred Credential) error {
	_, err := r.ListMCP(ctx, client, pinned, cred, nil)
	return err
}
