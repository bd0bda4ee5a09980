package provider

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/jsonschema-go/jsonschema"

	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// plan is what a tool needs to build requests, compiled once.
type plan struct {
	base    string
	method  string
	path    pathTemplate
	query   []param
	headers []param
	body    *bodyTemplate
	form    bool
	encode  string         // how parts are written
	parts   []partTemplate // instead of body
	poll    *pollPlan
	keep    *kept           // nil: all is kept
	decode  map[string]bool // folded names of answer fields
	// defaults are what the schema says of arguments that are left out.
	defaults map[string]jsontext.Value
	schema   *jsonschema.Resolved
	names    map[string]bool // of the arguments; nil while they are not known
	needs    []string        // required arguments
	bases    []string        // all bases of the record
	guard    []accessRule    // what a tool must not reach unless access is set
	access   bool
	generic  *genericPlan
	sql      *sqlPlan // of a database, in place of a request
	mcp      *mcpPlan // of an MCP server, in place of a request
	classify *ClassifySpec
	shown    *Shown          // nil: fields
	cut      map[string]bool // folded names of answer fields
	digest   [32]byte
}

// param is one query parameter or header: a constant, or an argument.
type param struct{ name, value, arg string }

// genericPlan bounds what a generic tool may do.
type genericPlan struct {
	effect       policy.Effect
	methods      []string
	reserved     string // query parameter that carries the credential
	graphQL      []accessRule
	graphQLPaths []string
	queriesOnly  bool      // of GraphQL
	signs        Injection // of a record that signs
}

// Digest identifies what a person approves when they approve this tool: name,
// effect, request, schema, and where it goes (product.md rule 5).
func (t Tool) Digest() [32]byte {
	if t.plan == nil {
		return [32]byte{}
	}
	return t.plan.digest
}

func (r *Record) compileTools(l *linter) {
	if len(r.ToolSpecs) > maxTools {
		l.add("tools", "Split the provider.", "There are over %d tools.", maxTools)
		return
	}
	guard := slices.Clone(r.guard)
	var places []int // of r.tools in the text
	names := map[string]bool{}
	for _, g := range []string{"read", "write", "destroy"} {
		names[g] = true
	}
	for i := range r.ToolSpecs {
		spec := r.ToolSpecs[i]
		field := fmt.Sprintf("tools[%d]", i)
		before := len(l.problems)
		t := r.compileTool(l, field, spec)
		folded := strings.ToLower(spec.Name)
		if names[folded] {
			l.add(field+".name", "Choose another name; read, write and destroy belong to the generic tools.", "%s is taken.", quoted(spec.Name))
		}
		names[folded] = true
		if len(l.problems) > before {
			continue
		}
		if t.Effect == policy.Access && t.plan.classify == nil && t.plan.http() { // of one with a statement, the path says nothing
			guard = append(guard, accessRule{method: t.plan.method, path: t.plan.path.asRule()})
		}
		r.tools, places = append(r.tools, t), append(places, i)
	}
	r.guard = guard
	for i, t := range r.tools {
		t.plan.bases, t.plan.guard, t.plan.access = r.API.Base, guard, t.Effect == policy.Access
		if !t.plan.access && t.plan.http() && t.plan.meetsGuard() {
			l.add(fmt.Sprintf("tools[%d].effect", places[i]), "Set effect: access, or correct the access list.",
				"The request is one that makes access, but the effect is %s.", t.Effect)
		}
	}
	r.compileTargets(l, places)
	own := len(r.tools)
	r.addGeneric(l)
	if len(l.problems) > 0 { // such a record is used by nobody
		r.tools = nil
		return
	}
	for _, withTarget := range []bool{false, true} { // what looks a target up has none itself
		for i, t := range r.tools {
			var spec ToolSpec
			if i < own {
				spec = r.ToolSpecs[i]
			}
			if (t.Target != nil) == withTarget {
				t.plan.digest = r.digest(t, spec)
			}
		}
	}
}

// http reports whether the template of a request decides what a call does.
func (p *plan) http() bool { return p.sql == nil && p.mcp == nil }

// meetsGuard reports whether the tool's template is one that the guard refuses
// whatever the arguments. What depends on them, Build refuses.
func (p *plan) meetsGuard() bool {
	literal := make([]string, len(p.path.segments))
	for i, s := range p.path.segments {
		literal[i] = s.before + s.after
		if s.arg != "" {
			literal[i] = "{" + s.arg + "}" // meets only a placeholder of the rule
		}
	}
	return refused(p.guard, p.bases, p.method, p.base, literal)
}

func (r *Record) compileTool(l *linter, field string, s ToolSpec) Tool {
	var upstream Definition
	var unread error
	if s.MCP != nil {
		if upstream, unread = parseDefinition(s.MCP); unread == nil { // a record may say it in words of its own
			// The server's title is a sentence in the mouth of the page that asks for a yes.
			s.Title, s.Description = cmp.Or(s.Title, r.ID+"_"+s.Name), cmp.Or(s.Description, upstream.words())
		}
	}
	t := Tool{Name: r.ID + "_" + s.Name, Provider: r.ID, Title: s.Title, Description: s.Description, Effect: s.Effect, Scopes: s.Scopes, Output: s.Output, Slot: s.Slot, Tried: cmp.Or(s.Tried, r.About.Tried), sure: r.About.Confidence != ""}
	if s.Name == "" || len(t.Name) > maxToolName || strings.ContainsFunc(s.Name, func(c rune) bool { return c > 0x7f || !isAlnum(byte(c)) && c != '_' }) {
		l.add(field+".name", "Use A-Z, a-z, 0-9 and _.", "%s is not a tool name of at most %d characters with the provider's id.", quoted(s.Name), maxToolName)
	}
	l.text(field+".title", s.Title, 100, true, false)
	l.text(field+".description", s.Description, 2000, true, true)
	if _, err := policy.ParseEffect(string(s.Effect)); err != nil {
		l.add(field+".effect", "Use read, write, destructive or access.", "%s is not an effect.", quoted(string(s.Effect)))
	}
	for i, sc := range s.Scopes {
		l.scope(fmt.Sprintf("%s.scopes[%d]", field, i), sc)
	}
	if len(s.Scopes) > 0 && r.Auth == APIKey {
		l.add(field+".scopes", "Remove them.", "Only oauth2 providers have scopes.")
	}
	p := &plan{cut: r.cutNames(s.Output.Cut)}
	t.plan = p
	t.Output.MaxBytes = l.maxBytes(field+".output.max_bytes", s.Output.MaxBytes)
	in := s.Input
	if len(in) == 0 {
		in = document(`{"type":"object"}`)
	}
	if r.MCP == nil {
		t.Input = p.compileSchema(l, field+".input", in)
	}
	l.day(field+".tried", s.Tried)
	p.compileOutput(l, field+".output", s.Output)
	switch {
	case r.MCP != nil:
		t.Input = r.compileMCP(l, field, s, p, upstream, unread)
	case r.Auth == Database:
		r.compileStatement(l, field, s, p)
	default:
		r.compileRequest(l, field+".request", s.Request, p)
	}
	p.compilePoll(l, field+".poll", s.Poll)
	p.compileClassify(l, field+".classify", s.Classify)
	p.compileShow(l, field+".show", s)
	if s.Request.Method != "" && !effectFits(s.Effect, s.Request.Method) {
		l.add(field+".effect", "Declare what the method can do.", "%s is too mild for %s.", s.Effect, s.Request.Method)
	}
	return t
}

func (l *linter) maxBytes(field string, n int) int {
	if n < 0 || n > maxMaxBody {
		l.add(field, "Use at most 10485760.", "%d is out of range.", n)
	}
	if n == 0 {
		return defaultMaxBody
	}
	return n
}

func (r *Record) cutNames(more []string) map[string]bool {
	out := make(map[string]bool, len(r.Cut)+len(more))
	for _, n := range append(slices.Clone(r.Cut), more...) {
		out[strings.ToLower(n)] = true
	}
	return out
}

func (r *Record) compileRequest(l *linter, field string, s RequestSpec, p *plan) {
	if !slices.Contains(methods, s.Method) {
		l.add(field+".method", "Use GET, HEAD, POST, PUT, PATCH or DELETE.", "%s is not a method.", quoted(s.Method))
	}
	p.method = s.Method
	p.base = s.Base
	if p.base == "" {
		if len(r.API.Base) > 0 { // without one, that is told
			p.base = r.API.Base[0]
		}
	} else if !slices.Contains(r.API.Base, p.base) {
		l.add(field+".base", "Write it as in api.base.", "%s is not one of api.base.", quoted(s.Base))
	}
	used := map[string]bool{}
	path, problem := parsePath(s.Path, false)
	if problem != "" {
		l.add(field+".path", `Write it as "/issues/{number}".`, "The path %s", problem)
	}
	p.path = path
	for _, seg := range path.segments {
		if seg.arg == "" {
			continue
		}
		used[seg.arg] = true
		if p.names != nil && !slices.Contains(p.needs, seg.arg) {
			l.add(field+".path", "Add it to input.required.", "The path needs {%s}, which is not a required argument.", seg.arg)
		}
	}
	for _, k := range sortedKeys(s.Query) {
		v := param{name: k, value: s.Query[k]}
		at := field + ".query." + k
		if r.Injection.Query != "" && strings.EqualFold(k, r.Injection.Query) || overridesMethod(k) {
			l.add(at, "Remove it.", "This parameter cannot be set by a tool.")
		}
		l.text(at, k+v.value, 1000, true, false)
		v.arg = l.placeholder(at, v.value, p, used)
		p.query = append(p.query, v)
	}
	for _, k := range sortedKeys(s.Headers) {
		v := param{name: k, value: s.Headers[k]}
		at := field + ".headers." + k
		l.header(at, k, v.value, r.Injection)
		if v.arg = l.placeholder(at, v.value, p, used); v.arg != "" && !argumentHeader(k) {
			l.add(at, "Use a constant, or make it a query parameter.", "The value of this header cannot come from an argument.")
		}
		p.headers = append(p.headers, v)
	}
	r.compileBody(l, field, s, p, used)
	for _, name := range sortedKeys(p.names) {
		if !used[name] {
			l.add(field, "Use it in path, query, headers or body, or remove it from input.", "The argument %s goes nowhere.", quoted(name))
		}
	}
}

func (r *Record) compileBody(l *linter, field string, s RequestSpec, p *plan, used map[string]bool) {
	switch s.Encode {
	case "", "json":
	case "form":
		p.form = true
	case "multipart", "related", "raw":
		r.compileParts(l, field, s, p, used)
		if s.Method == "GET" || s.Method == "HEAD" {
			l.add(field+".parts", "Use query, or another method.", "%s takes no body.", s.Method)
		}
		return
	default:
		l.add(field+".encode", "Use json, form, multipart, related or raw.", "%s is not known.", quoted(s.Encode))
	}
	if len(s.Parts) > 0 {
		l.add(field+".parts", "Set encode: multipart, related or raw, or use body.", "Only those have parts.")
	}
	if len(s.Body) == 0 {
		if p.form {
			l.add(field+".encode", "Add a body, or remove encode.", "There is no body to encode.")
		}
		return
	}
	if s.Method == "GET" || s.Method == "HEAD" {
		l.add(field+".body", "Use query, or another method.", "%s takes no body.", s.Method)
	}
	body, problem := parseBody(s.Body)
	if problem != "" {
		l.add(field+".body", `A placeholder is a whole value: title: "{title}".`, "The body %s", problem)
		return
	}
	if p.form && body.kind != '{' {
		l.add(field+".body", "Write a mapping.", "A form is a mapping of names to values.")
	}
	p.body = body
	l.bodyArguments(field+".body", body, p, used)
}

func (l *linter) bodyArguments(field string, body *bodyTemplate, p *plan, used map[string]bool) {
	for _, arg := range body.args() {
		used[arg] = true
		if p.names != nil && !p.names[arg] {
			l.add(field, "Add it to input.properties.", "{%s} is not an argument.", arg)
		}
	}
}

// placeholder returns the argument that value stands for, if it is one.
func (l *linter) placeholder(field, value string, p *plan, used map[string]bool) string {
	if !strings.ContainsAny(value, "{}") {
		return ""
	}
	arg, ok := wholePlaceholder(value)
	switch {
	case !ok:
		l.add(field, `Write a constant or one placeholder: "{name}".`, "The value mixes text and braces.")
	case p.names != nil && !p.names[arg]:
		l.add(field, "Add it to input.properties.", "{%s} is not an argument.", arg)
	}
	used[arg] = true
	return arg
}

func wholePlaceholder(s string) (string, bool) {
	if len(s) > 2 && s[0] == '{' && s[len(s)-1] == '}' && validArg(s[1:len(s)-1]) {
		return s[1 : len(s)-1], true
	}
	return "", false
}

// digest covers all of a tool that decides what a call does and shows.
func (r *Record) digest(t Tool, spec ToolSpec) [32]byte {
	req := spec.Request
	shape := map[string]any{
		"name": t.Name, "effect": t.Effect, "generic": t.Generic, "input": t.Input, "bases": r.API.Base,
		"cut": sortedKeys(t.plan.cut), "max_bytes": t.Output.MaxBytes, "headers": r.DefaultHeaders,
	}
	if g := r.API.Git; g != nil && t.Generic {
		shape["git"] = map[string]any{"bases": g.Base, "repositories": g.Repositories}
	}
	if t.Generic && len(r.API.Open) > 0 {
		shape["open"] = r.API.Open
	}
	if t.Generic {
		shape["methods"], shape["access"], shape["graphql"] = t.plan.generic.methods, append(guardText(r), r.Generic.Refuse...), t.plan.generic.graphQLPaths
		if r.Generic.QueriesOnly {
			shape["queries_only"] = true
		}
	} else {
		shape["request"] = map[string]any{"method": req.Method, "base": t.plan.base, "path": req.Path, "query": req.Query,
			"headers": req.Headers, "encode": req.Encode, "body": json.RawMessage(orNull(req.Body)), "parts": req.Parts}
		if spec.SQL != nil {
			shape["sql"] = spec.SQL
		}
		if spec.MCP != nil { // the words of the server are part of what is approved
			shape["mcp"], shape["description"], shape["at"] = json.RawMessage(t.plan.mcp.def.text), t.Description, r.MCP.URL
		}
		if spec.Slot != "" {
			shape["slot"] = spec.Slot
		}
		if spec.Show != nil {
			shape["show"] = spec.Show
		}
		shape["poll"], shape["target"], shape["keep"], shape["decode"], shape["classify"] = spec.Poll, spec.Target, spec.Output.Keep, spec.Output.Decode, spec.Classify
	}
	if t.Target != nil && t.Target.plan != nil { // whoever approves the tool approves its look-up
		shape["look_up"] = t.Target.plan.digest
	}
	doc, err := strictjson.CanonicalOf(shape)
	if err != nil {
		panic("provider: a compiled tool has no canonical form: " + err.Error())
	}
	return sha256.Sum256(doc)
}

func orNull(d document) []byte {
	if len(d) == 0 {
		return []byte("null")
	}
	return d
}

// guardText lists what the generic tools refuse.
func guardText(r *Record) []string {
	out := slices.Clone(r.Access)
	for _, s := range r.ToolSpecs {
		if s.Effect == policy.Access {
			out = append(out, s.Request.Method+" "+s.Request.Path)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
