package provider

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/jsonschema-go/jsonschema"

	"github.com/ambit-dev/ambit/internal/strictjson"
)

// built gives the request of a raw one by the way of the tool: from the arguments
// that the tool would have made exactly this request of, and with what the tool's
// defaults add. ok is false when there are none. A tool that shows only part of
// an answer, or asks again for it, makes no raw requests: whoever approved it
// approved that.
func (t Tool) built(d *dissected, api []string) (*Request, bool) {
	p := t.plan
	// What nobody has read, and what anything can be said over, is no tool's.
	if !d.raw.Whole || d.raw.Socket || p.parts != nil || p.keep != nil || p.poll != nil || d.opaque != "" || len(d.raw.Body) > 0 && d.text == nil {
		return nil, false
	}
	args, ok := p.unbuild(d)
	if !ok {
		return nil, false
	}
	doc, err := strictjson.CanonicalOf(args)
	if err != nil {
		return nil, false
	}
	exact, err := t.build(doc, false, api)
	if err != nil || !d.same(exact) {
		return nil, false
	}
	req, err := t.build(doc, true, api)
	return req, err == nil
}

// unbuild finds the arguments that a template's places hold.
func (p *plan) unbuild(d *dissected) (map[string]json.RawMessage, bool) {
	args := map[string]json.RawMessage{}
	put := func(name string, values ...string) bool {
		v, ok := p.valueOf(name, values)
		if have, twice := args[name]; twice && string(have) != string(v) {
			return false
		}
		args[name] = v
		return ok
	}
	for i, seg := range p.path.segments {
		switch {
		case seg.many:
			if !put(seg.arg, strings.Join(d.one[i:], "/")) {
				return nil, false
			}
		case seg.arg != "":
			if !put(seg.arg, strings.TrimSuffix(strings.TrimPrefix(d.one[i], seg.before), seg.after)) {
				return nil, false
			}
		}
	}
	for _, q := range p.query {
		var values []string
		for _, have := range d.query {
			if have.name == q.name {
				values = append(values, have.value)
			}
		}
		if q.arg != "" && len(values) > 0 && !put(q.arg, values...) {
			return nil, false
		}
	}
	for _, h := range p.headers {
		if v := d.raw.Header.Values(h.name); h.arg != "" && len(v) == 1 && !put(h.arg, v[0]) {
			return nil, false
		}
	}
	switch {
	case p.body == nil:
		return args, true
	case d.json != nil && !p.form:
		return args, p.body.unrender(d.json, args)
	case p.form && d.form != nil:
		return args, p.unform(d, put)
	}
	return args, len(d.raw.Body) == 0
}

// unrender takes what stands for arguments out of a body.
func (t *bodyTemplate) unrender(v jsontext.Value, args map[string]json.RawMessage) bool {
	switch {
	case t.arg != "":
		have, twice := args[t.arg]
		args[t.arg] = json.RawMessage(v)
		return !twice || string(have) == string(v)
	case t.kind == '{' && v.Kind() == '{':
		list, err := members(v)
		if err != nil {
			return false
		}
		for _, m := range list {
			i := slices.IndexFunc(t.members, func(of bodyMember) bool { return of.name == m.name })
			if i < 0 || !t.members[i].value.unrender(m.value, args) {
				return false
			}
		}
		return true
	case t.kind == '[' && v.Kind() == '[':
		var list []jsontext.Value
		if unmarshal(v, &list) != nil || len(list) != len(t.items) {
			return false
		}
		for i, item := range list {
			if !t.items[i].unrender(item, args) {
				return false
			}
		}
		return true
	}
	return t.kind == 0 // a constant, which is compared in the end
}

// unform takes the arguments of a form that holds no nested names.
func (p *plan) unform(d *dissected, put func(name string, values ...string) bool) bool {
	for _, m := range p.body.members {
		var values []string
		for _, f := range d.form {
			if f.name == m.name {
				values = append(values, f.value)
			}
		}
		if m.value.arg != "" && len(values) > 0 && !put(m.value.arg, values...) {
			return false
		}
	}
	return true
}

// valueOf writes text as the JSON that an argument's schema asks for.
func (p *plan) valueOf(name string, values []string) (json.RawMessage, bool) {
	s := p.schema.Schema().Properties[name]
	one := func(of *jsonschema.Schema, text string) json.RawMessage {
		if of != nil && slices.ContainsFunc(append(of.Types, of.Type), func(kind string) bool { return kind == "integer" || kind == "number" || kind == "boolean" }) {
			if v := jsontext.Value(text); v.IsValid() && (v.Kind() == '0' || v.Kind() == 't' || v.Kind() == 'f') {
				return json.RawMessage(text)
			}
		}
		quoted, _ := jsontext.AppendQuote(nil, text)
		return quoted
	}
	if s != nil && (s.Type == "array" || slices.Contains(s.Types, "array") && len(values) > 1) {
		out := []byte{'['}
		for i, v := range values {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(out, one(s.Items, v)...)
		}
		return append(out, ']'), true
	}
	if len(values) != 1 {
		return nil, false
	}
	return one(s, values[0]), true
}

// same reports whether a request that a tool built is the raw one.
func (d *dissected) same(req *Request) bool {
	if req.Method != d.method {
		return false
	}
	a, aerr := url.PathUnescape(strings.TrimRight(req.URL.EscapedPath(), "/"))
	b, berr := url.PathUnescape(strings.TrimRight(d.raw.URL.EscapedPath(), "/"))
	if aerr != nil || berr != nil || a != b || strings.HasSuffix(req.URL.EscapedPath(), "/") != strings.HasSuffix(d.raw.URL.EscapedPath(), "/") {
		return false
	}
	query := req.URL.Query()
	for _, q := range d.query {
		i := slices.Index(query[q.name], q.value)
		if i < 0 {
			return false
		}
		query[q.name] = slices.Delete(query[q.name], i, i+1)
	}
	for _, left := range query {
		if len(left) > 0 {
			return false
		}
	}
	return d.sameBody(req) && d.sameHeaders(req.Header)
}

func (d *dissected) sameBody(req *Request) bool {
	switch {
	case len(req.Body) == 0 || len(d.raw.Body) == 0:
		return len(req.Body) == len(d.raw.Body)
	case d.form != nil:
		form, err := url.ParseQuery(string(req.Body))
		mine, merr := url.ParseQuery(string(d.text))
		return err == nil && merr == nil && form.Encode() == mine.Encode()
	case d.json == nil:
		return false
	}
	a, aerr := strictjson.Canonical(req.Body)
	b, berr := strictjson.Canonical(d.json)
	return aerr == nil && berr == nil && string(a) == string(b)
}

// sameHeaders lets the raw request lack what the tool adds, but not say something
// else, nor anything more that may decide what the request does.
func (d *dissected) sameHeaders(built http.Header) bool {
	for name := range d.telling() {
		if built.Get(name) == "" {
			return false
		}
	}
	for name, values := range built {
		if have := d.raw.Header.Values(name); name != "Content-Type" && name != "Accept" && len(have) > 0 && !slices.Equal(have, values) {
			return false
		}
	}
	return true
}
