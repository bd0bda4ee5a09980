package provider

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// kept is a tree of the fields that an answer keeps. Lists are passed through:
// files.id names the id of each file. A nil tree keeps everything.
type kept struct{ below map[string]*kept }

func (p *plan) compileOutput(l *linter, field string, o Output) {
	for i, path := range o.Keep {
		if !validFieldPath(path) {
			l.add(fmt.Sprintf("%s.keep[%d]", field, i), "Name the field, such as id or files.id.", "%s is not a field path.", quoted(path))
			continue
		}
		if p.keep == nil {
			p.keep = &kept{below: map[string]*kept{}}
		}
		at := p.keep
		for part := range strings.SplitSeq(path, ".") {
			if at.below == nil {
				break // a field around it is kept whole
			}
			next, ok := at.below[part]
			if !ok {
				next = &kept{below: map[string]*kept{}}
				at.below[part] = next
			}
			at = next
		}
		at.below = nil
	}
	for i, name := range o.Decode {
		l.text(fmt.Sprintf("%s.decode[%d]", field, i), name, 200, true, false)
		if p.decode == nil {
			p.decode = map[string]bool{}
		}
		p.decode[strings.ToLower(name)] = true
	}
}

// of drops what is not kept. What is not one JSON value is returned as it is:
// it names no fields.
func (k *kept) of(text []byte) []byte {
	if k == nil {
		return text
	}
	out, ok := rewrite(text, func(path []*kept, name string) (*kept, bool) {
		in := path[len(path)-1]
		if in == nil || in.below == nil {
			return nil, true
		}
		next, ok := in.below[name]
		return next, ok
	}, k, nil)
	if !ok {
		return text
	}
	return out
}

// decodeFields shows the base64 text (RFC 4648, both alphabets) of the named
// fields decoded, when it is text at all.
func decodeFields(text []byte, names map[string]bool) []byte {
	out, ok := rewrite(text, func([]*kept, string) (*kept, bool) { return nil, true }, nil, func(name, value string) (string, bool) {
		if !names[strings.ToLower(name)] {
			return "", false
		}
		value = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/", "\r", "", "\n", "").Replace(value), "=")
		plain, err := base64.RawStdEncoding.DecodeString(value)
		if err != nil || len(plain) == 0 || !utf8.Valid(plain) || bytes.IndexByte(plain, 0) >= 0 {
			return "", false
		}
		return string(plain), true
	})
	if !ok {
		return text
	}
	return out
}

// rewrite copies one JSON value without the members that keep refuses, and with
// what change says of the text members. ok is false when text is not one value.
func rewrite(text []byte, keep func(path []*kept, name string) (*kept, bool), root *kept, change func(name, value string) (string, bool)) (out []byte, ok bool) {
	lenient := []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}
	dec := jsontext.NewDecoder(bytes.NewBuffer(text), lenient...)
	var buf bytes.Buffer
	enc := jsontext.NewEncoder(&buf, lenient...)
	path := []*kept{root} // of the containers that are open, and of the value that comes next
	name := ""
	for {
		kind := dec.PeekKind()
		switch {
		case kind == '"' && isName(dec):
			tok, err := dec.ReadToken()
			if err != nil {
				return nil, false
			}
			name = tok.String()
			next, keeps := keep(path[:dec.StackDepth()+1], name)
			if !keeps {
				if dec.SkipValue() != nil {
					return nil, false
				}
				continue
			}
			path = append(path[:dec.StackDepth()+1], next)
			if enc.WriteToken(jsontext.String(name)) != nil {
				return nil, false
			}
		case kind == '{' || kind == '[':
			// What it holds belongs to its own place in the tree; so does each
			// item of a list.
			depth := dec.StackDepth()
			in := path[min(depth+1, len(path)-1)]
			if parent, _ := dec.StackIndex(depth); parent == '[' || depth == 0 {
				in = path[depth]
			}
			tok, err := dec.ReadToken()
			if err != nil || enc.WriteToken(tok) != nil {
				return nil, false
			}
			path = append(path[:depth+1], in)
		case kind == '"' && change != nil:
			tok, err := dec.ReadToken()
			if err != nil {
				return nil, false
			}
			value := tok.String()
			if parent, _ := dec.StackIndex(dec.StackDepth()); parent == '{' {
				if other, ok := change(name, value); ok {
					value = other
				}
			}
			if enc.WriteToken(jsontext.String(value)) != nil {
				return nil, false
			}
		case kind == 0:
			if _, err := dec.ReadToken(); !atEnd(err) || buf.Len() == 0 {
				return nil, false
			}
			return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), true
		default:
			v, err := dec.ReadToken()
			if err != nil || enc.WriteToken(v) != nil {
				return nil, false
			}
		}
	}
}
