package provider

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/ambit-dev/ambit/internal/fault"
)

// bodyTemplate is JSON in which some strings stand for arguments, and some
// mappings for a text that is made of them.
type bodyTemplate struct {
	kind    byte // '{', '[', 'm' for a message, or 0 for a scalar
	raw     []byte
	arg     string
	members []bodyMember
	items   []*bodyTemplate
	uses    []string // the arguments in it
	made    bool     // it holds what a person reads otherwise than it is sent
}

type bodyMember struct {
	name  string
	value *bodyTemplate
}

// The two mappings that are not sent as they stand.
const (
	makeLiteral = "$literal" // text as it is, braces and all
	makeMessage = "$message" // an e-mail, as base64url of RFC 5322
)

func parseBody(doc []byte) (*bodyTemplate, string) {
	var v any
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, "is not JSON."
	}
	return bodyOf(v)
}

func bodyOf(v any) (t *bodyTemplate, problem string) {
	switch v := v.(type) {
	case map[string]any:
		if made, problem := madeOf(v); made != nil || problem != "" {
			return made, problem
		}
		t = &bodyTemplate{kind: '{'}
		for _, k := range sortedKeys(v) {
			if strings.ContainsAny(k, "{}") || overridesMethod(k) {
				return nil, "has a name that cannot be used."
			}
			part, problem := bodyOf(v[k])
			if problem != "" {
				return nil, problem
			}
			t.members = append(t.members, bodyMember{k, part})
			t.holds(part)
		}
		return t, ""
	case []any:
		t = &bodyTemplate{kind: '['}
		for _, item := range v {
			part, problem := bodyOf(item)
			if problem != "" {
				return nil, problem
			}
			t.items = append(t.items, part)
			t.holds(part)
		}
		return t, ""
	case string:
		if arg, ok := wholePlaceholder(v); ok {
			return &bodyTemplate{arg: arg, uses: []string{arg}}, ""
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

// madeOf reads a mapping that stands for a text.
func madeOf(m map[string]any) (*bodyTemplate, string) {
	literal, isLiteral := m[makeLiteral]
	message, isMessage := m[makeMessage]
	switch {
	case !isLiteral && !isMessage:
		return nil, ""
	case len(m) != 1:
		return nil, "has $literal or $message beside other names."
	case isLiteral:
		text, ok := literal.(string)
		raw, err := json.Marshal(text)
		if !ok || err != nil {
			return nil, "has a $literal that is no text."
		}
		return &bodyTemplate{raw: raw}, ""
	}
	fields, ok := message.(map[string]any)
	if !ok {
		return nil, "has a $message that is no mapping."
	}
	for name := range fields {
		if !slices.Contains(strings.Split(messageFields, ", "), name) {
			return nil, "has a $message with a field that is none of " + messageFields + "."
		}
	}
	t, problem := bodyOf(fields)
	if problem == "" {
		t.kind, t.made = 'm', true
	}
	return t, problem
}

func (t *bodyTemplate) holds(part *bodyTemplate) {
	t.uses = slices.Compact(slices.Sorted(slices.Values(append(t.uses, part.uses...))))
	t.made = t.made || part.made
}

// args lists the arguments in the template.
func (t *bodyTemplate) args() []string { return t.uses }

// absent reports that the template names arguments and none of them is given.
func absent(uses []string, args arguments) bool {
	return len(uses) > 0 && !slices.ContainsFunc(uses, func(name string) bool { return args[name] != nil })
}

// render fills the template. What stands for an absent argument is left out,
// with its name, and so is a mapping inside it that names arguments of which none
// is given, and a list of nothing but such. It returns nil when the whole body is
// absent. shown is as a person reads it.
func (t *bodyTemplate) render(args arguments, shown bool) ([]byte, error) {
	part := func(of *bodyTemplate) ([]byte, error) {
		constant := of.kind == '[' && slices.ContainsFunc(of.items, func(i *bodyTemplate) bool { return len(i.uses) == 0 })
		if absent(of.uses, args) && !constant {
			return nil, nil
		}
		return of.render(args, shown)
	}
	switch {
	case t.arg != "":
		return args[t.arg], nil
	case t.kind == 'm' && !shown:
		return t.message(args)
	case t.kind == '[':
		out := []byte{'['}
		for _, i := range t.items {
			v, err := part(i)
			if err != nil {
				return nil, err
			}
			if v == nil {
				continue
			}
			if len(out) > 1 {
				out = append(out, ',')
			}
			out = append(out, v...)
		}
		return append(out, ']'), nil
	case t.kind != 0:
		out := []byte{'{'}
		for _, m := range t.members {
			v, err := part(m.value)
			if err != nil {
				return nil, err
			}
			if v == nil {
				continue
			}
			if len(out) > 1 {
				out = append(out, ',')
			}
			out, _ = jsontext.AppendQuote(out, m.name)
			out = append(append(out, ':'), v...)
		}
		return append(out, '}'), nil
	}
	return t.raw, nil
}

// formBody writes a rendered object as application/x-www-form-urlencoded. A list
// repeats its name; what is nested is named a[b] and a[0][b].
func formBody(doc []byte) ([]byte, error) {
	list, err := members(doc)
	if err != nil {
		return nil, err
	}
	form := url.Values{}
	for _, m := range list {
		if err := formField(form, m.name, m.value); err != nil {
			return nil, err
		}
	}
	return []byte(form.Encode()), nil
}

func formField(form url.Values, name string, v jsontext.Value) error {
	if values, err := scalars(v); err == nil {
		form[name] = append(form[name], values...)
		return nil
	}
	var inner []jsonMember
	if v.Kind() == '[' {
		var items []jsontext.Value
		if err := unmarshal(v, &items); err != nil {
			return badArguments("The value of " + quoted(name) + " is not valid JSON.")
		}
		for i, item := range items {
			inner = append(inner, jsonMember{strconv.Itoa(i), item})
		}
	} else {
		var err error
		if inner, err = members(v); err != nil {
			return err
		}
	}
	for _, m := range inner {
		if strings.ContainsAny(m.name, "[]&=") || m.name == "" || len(name) > 200 {
			return fault.New(fault.Invalid, "invalid_arguments", "The value of "+quoted(name)+" cannot be sent in a form.").
				WithHint("Use names of letters and digits in it.")
		}
		if err := formField(form, name+"["+m.name+"]", m.value); err != nil {
			return err
		}
	}
	return nil
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
