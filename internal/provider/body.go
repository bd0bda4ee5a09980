package provider

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/ambit-dev/ambit/internal/fault"
)

// bodyTemplate is JSON in which some strings stand for arguments.
type bodyTemplate struct {
	kind    byte // '{', '[', or 0 for a scalar
	raw     []byte
	arg     string
	members []bodyMember
	items   []*bodyTemplate
}

type bodyMember struct {
	name  string
	value *bodyTemplate
}

func parseBody(doc []byte) (*bodyTemplate, string) {
	var v any
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, "is not JSON."
	}
	return bodyOf(v)
}

func bodyOf(v any) (*bodyTemplate, string) {
	switch v := v.(type) {
	case map[string]any:
		t := &bodyTemplate{kind: '{'}
		for _, k := range sortedKeys(v) {
			if strings.ContainsAny(k, "{}") || overridesMethod(k) {
				return nil, "has a name that cannot be used."
			}
			part, problem := bodyOf(v[k])
			if problem != "" {
				return nil, problem
			}
			t.members = append(t.members, bodyMember{k, part})
		}
		return t, ""
	case []any:
		t := &bodyTemplate{kind: '['}
		for _, item := range v {
			part, problem := bodyOf(item)
			if problem != "" {
				return nil, problem
			}
			t.items = append(t.items, part)
		}
		return t, ""
	case string:
		if arg, ok := wholePlaceholder(v); ok {
			return &bodyTemplate{arg: arg}, ""
		}
		if strings.Contains(v, "{") && strings.Contains(v, "}") {
			return nil, "has a string that mixes text and braces."
		}
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, "is not JSON."
	}
	return &bodyTemplate{raw: raw}, ""
}

// args lists the arguments in the template.
func (t *bodyTemplate) args() []string {
	var out []string
	if t.arg != "" {
		out = append(out, t.arg)
	}
	for _, m := range t.members {
		out = append(out, m.value.args()...)
	}
	for _, i := range t.items {
		out = append(out, i.args()...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// render fills the template. What stands for an absent argument is left out,
// with its name. It returns nil when the whole body is absent.
func (t *bodyTemplate) render(args arguments) []byte {
	switch {
	case t.arg != "":
		return args[t.arg]
	case t.kind == '{':
		out := []byte{'{'}
		for _, m := range t.members {
			v := m.value.render(args)
			if v == nil {
				continue
			}
			if len(out) > 1 {
				out = append(out, ',')
			}
			out, _ = jsontext.AppendQuote(out, m.name)
			out = append(append(out, ':'), v...)
		}
		return append(out, '}')
	case t.kind == '[':
		out := []byte{'['}
		for _, i := range t.items {
			v := i.render(args)
			if v == nil {
				continue
			}
			if len(out) > 1 {
				out = append(out, ',')
			}
			out = append(out, v...)
		}
		return append(out, ']')
	}
	return t.raw
}

// formBody writes a rendered object as application/x-www-form-urlencoded.
func formBody(doc []byte) ([]byte, error) {
	members, err := members(doc)
	if err != nil {
		return nil, err
	}
	form := url.Values{}
	for _, m := range members {
		values, err := scalars(m.value)
		if err != nil {
			return nil, fault.New(fault.Invalid, "invalid_arguments", "The value of "+quoted(m.name)+" cannot be sent in a form.").
				WithHint("Give text, a number, true, false, or a list of those.")
		}
		form[m.name] = values
	}
	return []byte(form.Encode()), nil
}

type jsonMember struct {
	name  string
	value jsontext.Value
}

// members lists the members of an object in their order.
func members(doc []byte) ([]jsonMember, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(doc))
	tok, err := dec.ReadToken()
	if err != nil || tok.Kind() != '{' {
		return nil, badArguments("The value is not a JSON object.")
	}
	var out []jsonMember
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, badArguments("The value is not valid JSON.")
		}
		m := jsonMember{name: name.String()}
		v, err := dec.ReadValue()
		if err != nil {
			return nil, badArguments("The value is not valid JSON.")
		}
		m.value = v.Clone()
		out = append(out, m)
	}
	return out, nil
}

// scalars reads a scalar, or a list of them, as text. null is no value.
func scalars(v jsontext.Value) ([]string, error) {
	switch v.Kind() {
	case 'n':
		return nil, nil
	case '[':
		var list []jsontext.Value
		if err := unmarshal(v, &list); err != nil {
			return nil, err
		}
		var out []string
		for _, item := range list {
			if item.Kind() == '[' || item.Kind() == 'n' {
				return nil, errNotScalar
			}
			s, err := scalars(item)
			if err != nil {
				return nil, err
			}
			out = append(out, s...)
		}
		return out, nil
	case '{':
		return nil, errNotScalar
	case '"':
		var s string
		err := unmarshal(v, &s)
		return []string{s}, err
	}
	return []string{string(v)}, nil
}
