package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider/postgres"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

var errNotScalar = errors.New("not a scalar")

// Request is one upstream request before the credential is put in.
type Request struct {
	// Args are the arguments that it was built from, in the form that is digested
	// and approved.
	Args    []byte
	Method  string
	URL     *url.URL
	Header  http.Header
	Body    []byte
	Summary Summary
	// Effect is the tool's, or that of the statement which it carries, whichever is
	// the stronger; Why says what in the statement decided.
	Effect policy.Effect
	Why    string

	// Partial means that nobody has seen the whole body. Such a request cannot be
	// approved.
	Partial bool

	base string // of the record's, that URL lies below
	sql  *postgres.Statement
	mcp  *mcpCall
}

// Summary is a request as a person reads it before approving. Values are as the
// agent gave them; whoever shows them makes control and direction characters
// visible.
type Summary struct {
	Method string  `json:"method"`
	Host   string  `json:"host"`
	Path   string  `json:"path"`
	Query  []Field `json:"query,omitempty"`
	Header []Field `json:"header,omitempty"`
	Body   []Field `json:"body,omitempty"`
	Shown  *Shown  `json:"shown,omitempty"` // what the fields are; nil: fields
}

// Field is one name and value. Nested values have names such as a.b and c[0].
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// arguments are validated canonical arguments by name.
type arguments map[string]jsontext.Value

// CanonicalArgs puts the arguments of a call into the form that is digested and
// executed: RFC 8785. Absent arguments are an empty object. An integer that the
// form cannot hold exactly is refused, for two different calls would look alike.
func CanonicalArgs(args json.RawMessage) ([]byte, error) {
	if len(args) == 0 {
		return []byte("{}"), nil
	}
	if err := strictjson.Check(args, strictjson.Limits{}); err != nil {
		return nil, err
	}
	if jsontext.Value(args).Kind() != '{' {
		return nil, badArguments("The arguments are not a JSON object.")
	}
	if err := exactNumbers(args); err != nil {
		return nil, err
	}
	return strictjson.Canonical(args)
}

func exactNumbers(doc []byte) error {
	const exact = 15 // digits that every reader keeps
	run := 0
	for _, c := range doc {
		if c < '0' || c > '9' {
			run = 0
		} else if run++; run > exact {
			break
		}
	}
	if run <= exact {
		return nil
	}
	dec := jsontext.NewDecoder(bytes.NewReader(doc))
	for {
		kind := dec.PeekKind()
		if kind == 0 {
			return nil // Check has read it to its end
		}
		tok, err := dec.ReadToken()
		if err != nil {
			return badArguments("The arguments are not valid JSON.")
		}
		if kind != '0' {
			continue
		}
		text := tok.String()
		if len(text) < 16 || strings.ContainsAny(text, ".eE") {
			continue
		}
		n, ok := new(big.Int).SetString(text, 10)
		if !ok || n.BitLen() > 53 {
			return fault.New(fault.Invalid, "number_imprecise", "An argument holds an integer beyond 2^53, which JSON readers round.").
				WithHint("Give it as text if the tool's schema allows that.")
		}
	}
}

// Build makes the request of one call. api lists the bases that the connection
// pins; a tool whose base is not among them does not run. The arguments are put
// into canonical form first, so what is built follows from what is digested.
func (t Tool) Build(args json.RawMessage, api ...string) (*Request, error) {
	if t.plan == nil {
		return nil, fault.New(fault.NotFound, "not_found", "No such tool.")
	}
	canonical, err := CanonicalArgs(args)
	if err != nil {
		return nil, err
	}
	return t.build(canonical, true, api)
}

// build is Build of canonical arguments, with or without what the schema says of
// those that are left out.
func (t Tool) build(canonical []byte, defaults bool, api []string) (*Request, error) {
	p := t.plan
	if err := p.validate(canonical); err != nil {
		return nil, err
	}
	given := arguments{}
	if err := unmarshal(canonical, &given); err != nil {
		return nil, badArguments("The arguments are not a JSON object.")
	}
	for name, value := range p.defaults {
		if _, ok := given[name]; !ok && defaults {
			given[name] = value
		}
	}
	switch {
	case p.sql != nil:
		return p.buildSQL(t, canonical, given, api)
	case p.mcp != nil:
		return p.buildMCP(t, canonical, given, api)
	}
	draft := p.typed
	if p.generic != nil {
		draft = p.request
	}
	d, err := draft(given)
	if err != nil {
		return nil, err
	}
	if p.generic != nil && bundles(d.base, d.segments) && !p.takesGraphQL(d) {
		return nil, fault.New(fault.Denied, "access_refused", "This path takes other requests or queries inside a request, which nobody could approve one by one. This tool refuses it.").
			WithHint("Make the requests one by one.")
	}
	if !p.access && refused(p.guard, p.bases, d.method, d.base, d.segments) {
		return nil, fault.New(fault.Denied, "access_refused", "This request makes keys, members, webhooks or permissions, or is left to a tool of its own. This tool refuses it.").
			WithHint("Use the provider's own tool for it, which a person approves call by call.")
	}
	if !slices.Contains(api, d.base) {
		return nil, unbound()
	}
	req, err := d.request()
	if err != nil {
		return nil, err
	}
	req.Args, req.Effect = canonical, t.Effect
	req.Summary.Shown = p.shown
	v, ok := p.judge(given, d)
	if ok && p.generic != nil && p.generic.queriesOnly && v.Effect != policy.Read {
		return nil, queriesOnly()
	}
	if ok && policy.Worse(t.Effect, v.Effect) != t.Effect {
		req.Effect, req.Why = v.Effect, v.Why
	}
	if p.generic != nil && p.generic.signs.Sign == SignAWS {
		if err := p.generic.signs.awsBuilt(req); err != nil {
			return nil, err
		}
	}
	return req, nil
}

func unbound() error {
	return fault.New(fault.Denied, "destination_denied", "The tool goes to a place that this connection is not bound to.").
		WithHint("If the provider's record changed, reconnect.")
}

// draft is a request in parts.
type draft struct {
	method, base string
	segments     []string  // decoded
	path         []segment // of the record, as far as they are one by one
	slash        bool
	query        []param
	headers      []param
	body         []byte // JSON
	shown        []byte // the body as a person reads it, when that differs
	form         bool
	raw          *rawBody // instead of body
}

func (p *plan) typed(args arguments) (*draft, error) {
	d := &draft{method: p.method, base: p.base, path: p.path.segments, slash: p.path.slash, form: p.form}
	for _, seg := range p.path.segments {
		if seg.arg == "" {
			d.segments = append(d.segments, seg.before)
			continue
		}
		values, err := scalars(args[seg.arg])
		if err != nil || len(values) != 1 || args[seg.arg].Kind() == '[' {
			return nil, badArguments("The argument " + quoted(seg.arg) + " goes into the path: it must be text or a number.")
		}
		if seg.many {
			for part := range strings.SplitSeq(values[0], "/") {
				if _, err := encodeSegment(part); err != nil {
					return nil, err
				}
				d.segments = append(d.segments, part)
			}
			continue
		}
		if _, err := encodeSegment(values[0]); err != nil {
			return nil, err
		}
		d.segments = append(d.segments, seg.before+values[0]+seg.after)
	}
	var err error
	if d.query, err = fill(p.query, args); err != nil {
		return nil, err
	}
	if d.headers, err = fill(p.headers, args); err != nil {
		return nil, err
	}
	if p.body != nil {
		if d.body, err = p.body.render(args, false); err == nil && d.body != nil {
			err = bodyNames(d.body, 0)
		}
		if err == nil && p.body.made {
			d.shown, err = p.body.render(args, true)
		}
	}
	if err == nil && p.parts != nil {
		d.raw, err = p.raw(args)
	}
	return d, err
}

func fill(templates []param, args arguments) ([]param, error) {
	var out []param
	for _, t := range templates {
		if t.arg == "" {
			out = append(out, t)
			continue
		}
		v, ok := args[t.arg]
		if !ok {
			continue
		}
		values, err := scalars(v)
		if err != nil {
			return nil, badArguments("The argument " + quoted(t.arg) + " must be text, a number, true, false, or a list of those.")
		}
		for _, s := range values {
			out = append(out, param{name: t.name, value: s, arg: t.arg})
		}
	}
	return out, nil
}

func (p *plan) request(args arguments) (*draft, error) {
	text := func(name, otherwise string) string {
		if v, ok := args[name]; ok {
			if s, err := scalars(v); err == nil && len(s) == 1 {
				return s[0]
			}
		}
		return otherwise
	}
	d := &draft{method: text("method", p.generic.methods[0]), base: text("base", p.bases[0])}
	var err error
	if d.segments, d.slash, err = splitPath(text("path", "")); err != nil {
		return nil, err
	}
	if q, ok := args["query"]; ok {
		list, err := members(q)
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			if !plainName(m.name) || overridesMethod(m.name) || p.generic.reserved != "" && strings.EqualFold(m.name, p.generic.reserved) {
				return nil, badArguments("The query parameter " + quoted(m.name) + " cannot be given.")
			}
			values, err := scalars(m.value)
			if err != nil {
				return nil, badArguments("A query parameter is text, a number, true, false, or a list of those.")
			}
			for _, v := range values {
				d.query = append(d.query, param{name: m.name, value: v})
			}
		}
	}
	if d.body = args["body"]; d.body != nil {
		if err := bodyNames(d.body, 0); err != nil {
			return nil, err
		}
	}
	if p.generic.effect == policy.Read && d.body != nil != (d.method == "POST") {
		return nil, badArguments("A body goes with POST, and POST with a body.")
	}
	if p.generic.effect == policy.Read && d.method == "POST" && !p.takesGraphQL(d) {
		return nil, fault.New(fault.Invalid, "invalid_arguments", "This tool posts GraphQL only, to "+strings.Join(p.generic.graphQLPaths, ", ")+".").
			WithHint("Use GET, or the tool that writes.")
	}
	return d, nil
}

// bodyNames refuses the names by which a body could replace the method: in the
// document itself and in the objects that it directly holds, and anywhere a
// name that does not read the same everywhere.
func bodyNames(v jsontext.Value, depth int) error {
	switch v.Kind() {
	case '{':
		list, err := members(v)
		if err != nil {
			return err
		}
		for _, m := range list {
			if !plainName(m.name) || depth < 2 && overridesMethod(m.name) {
				return badArguments("The body field " + quoted(m.name) + " cannot be given.")
			}
			if err := bodyNames(m.value, depth+1); err != nil {
				return err
			}
		}
	case '[':
		var list []jsontext.Value
		if err := unmarshal(v, &list); err != nil {
			return badArguments("The value is not valid JSON.")
		}
		for _, item := range list {
			if err := bodyNames(item, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *draft) request() (*Request, error) {
	base, err := url.Parse(d.base)
	if err != nil {
		return nil, fault.New(fault.Internal, "record_invalid", "The provider record's API base is not a URL.").WithCause(err)
	}
	var path strings.Builder
	for i, s := range d.segments {
		enc, err := encodeSegment(s)
		if err != nil {
			return nil, err
		}
		if i < len(d.path) && !d.path[i].many {
			enc = d.path[i].written(s, enc)
		}
		path.WriteString("/" + enc)
	}
	if d.slash {
		path.WriteString("/")
	}
	req := &Request{Method: d.method, Header: http.Header{}, base: d.base}
	req.Summary = Summary{Method: d.method, Host: base.Host}
	raw := strings.TrimRight(d.base, "/") + path.String()
	var query []string
	for _, q := range d.query {
		query = append(query, url.QueryEscape(q.name)+"="+url.QueryEscape(q.value))
		req.Summary.Query = append(req.Summary.Query, Field{label("query ", q.name), q.value})
	}
	if len(query) > 0 {
		raw += "?" + strings.Join(query, "&")
	}
	if req.URL, err = url.Parse(raw); err != nil {
		return nil, fault.New(fault.Internal, "request_invalid", "The request has no valid URL.").WithCause(errors.New("building a URL from encoded parts"))
	}
	req.Summary.Path = req.URL.EscapedPath()
	for _, h := range d.headers {
		if strings.ContainsFunc(h.value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) || len(h.value) > 4096 {
			return nil, badArguments("The value of the header " + h.name + " holds a control character or is over 4 KiB.")
		}
		req.Header.Set(h.name, h.value)
		req.Summary.Header = append(req.Summary.Header, Field{"header " + h.name, h.value})
	}
	return req, d.writeBody(req)
}

func (d *draft) writeBody(req *Request) error {
	if d.raw != nil {
		req.Body, req.Summary.Body = d.raw.content, d.raw.shown
		req.Header.Set("Content-Type", d.raw.media)
		return nil
	}
	if d.body == nil {
		return nil
	}
	shown := d.body
	if d.shown != nil {
		shown = d.shown
	}
	for _, f := range flatten(nil, "", shown) {
		req.Summary.Body = append(req.Summary.Body, Field{strings.TrimSuffix("body "+f.Name, " "), f.Value})
	}
	if !d.form {
		req.Body = d.body
		setDefault(req.Header, "Content-Type", "application/json")
		return nil
	}
	body, err := formBody(d.body)
	if err != nil {
		return err
	}
	req.Body = body
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return nil
}

func setDefault(h http.Header, name, value string) {
	if h.Get(name) == "" {
		h.Set(name, value)
	}
}

// label names a parameter so that no name can pass for the place or type of
// another: one that is not plain is quoted.
func label(place, name string) string { return place + plainLabel(name) }

func plainLabel(name string) string {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(".[]()\"", r) }) {
		quoted, _ := jsontext.AppendQuote(nil, name)
		return string(quoted)
	}
	return name
}

// flatten lists the leaves of a document in its order. What is not text has its
// type behind the name, so that true and "true" look different.
func flatten(out []Field, name string, v jsontext.Value) []Field {
	join := func(part string) string {
		if name == "" || part[0] == '[' {
			return name + part
		}
		return name + "." + part
	}
	kind := ""
	switch v.Kind() {
	case '{':
		list, _ := members(v)
		for _, m := range list {
			out = flatten(out, join(plainLabel(m.name)), m.value)
		}
		if len(list) > 0 {
			return out
		}
		kind = "(object)"
	case '[':
		var list []jsontext.Value
		_ = unmarshal(v, &list)
		for i, item := range list {
			out = flatten(out, join("["+strconv.Itoa(i)+"]"), item)
		}
		if len(list) > 0 {
			return out
		}
		kind = "(list)"
	case '"':
		var s string
		_ = unmarshal(v, &s)
		return append(out, Field{name, s})
	case '0':
		kind = "(number)"
	case 't', 'f':
		kind = "(boolean)"
	case 'n':
		kind = "(null)"
	}
	return append(out, Field{strings.TrimPrefix(name+" "+kind, " "), string(v)})
}

func unmarshal(doc []byte, v any) error { return jsonv2.Unmarshal(doc, v) }
