// Package strictjson refuses JSON that two readers could understand in two ways.
//
// Go's encoding/json matches names without regard to case and lets the last of
// several equal names win; a policy that looked at one value would then guard a
// call that runs with another. Check rejects such input before any decoder sees
// it: duplicate names, names that differ only by case folding, invalid UTF-8,
// NUL, and documents over the stated size, depth or element count (threats.md
// S13, W6; RFC 8259 §4, RFC 7493).
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Limits bound the work that one document may cause.
type Limits struct {
	Bytes int // size of the document; default 1 MiB
	Depth int // nesting of objects and arrays; default 64
	Items int // names and values together; default 100,000
}

// Default limits, for bodies that come from outside.
var defaults = Limits{Bytes: 1 << 20, Depth: 64, Items: 100_000}

func (l Limits) withDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = defaults.Bytes
	}
	if l.Depth == 0 {
		l.Depth = defaults.Depth
	}
	if l.Items == 0 {
		l.Items = defaults.Items
	}
	return l
}

// Check reads one JSON document and reports why it must not be decoded, as an
// Invalid or TooLarge fault. The document itself is never part of the message.
func Check(doc []byte, limits Limits) error {
	limits = limits.withDefaults()
	if len(doc) > limits.Bytes {
		return fault.New(fault.TooLarge, "body_too_large", fmt.Sprintf("The JSON document is over %d bytes.", limits.Bytes))
	}
	r := readers.Get().(*reader)
	defer r.done()
	return r.check(doc, limits)
}

// reader is a decoder and the names of the objects that are open in it, kept for
// the next document: every message passes here.
type reader struct {
	dec    *jsontext.Decoder // refuses duplicate names and invalid UTF-8
	folded []folds           // one an open object or array
}

// folds are the folded names of one object so far. Most objects have few, which
// are compared one by one.
type folds struct {
	object bool
	few    []string
	many   map[string]struct{}
}

const fewNames = 16

// add reports whether a name was there.
func (n *folds) add(folded string) (dup bool) {
	if n.many == nil && len(n.few) == fewNames {
		n.many = make(map[string]struct{}, 2*fewNames)
		for _, have := range n.few {
			n.many[have] = struct{}{}
		}
	}
	if n.many != nil {
		_, dup = n.many[folded]
		n.many[folded] = struct{}{}
		return dup
	}
	for _, have := range n.few {
		dup = dup || have == folded
	}
	n.few = append(n.few, folded)
	return dup
}

var readers = sync.Pool{New: func() any { return &reader{dec: jsontext.NewDecoder(new(bytes.Buffer))} }}

// done lets the document go.
func (r *reader) done() {
	r.dec.Reset(new(bytes.Buffer))
	for i := range r.folded[:cap(r.folded)] {
		n := &r.folded[:cap(r.folded)][i]
		clear(n.few[:cap(n.few)])
		n.few, n.many = n.few[:0], nil
	}
	r.folded = r.folded[:0]
	readers.Put(r)
}

// open begins an object or an array.
func (r *reader) open(object bool) {
	n := len(r.folded)
	if n == cap(r.folded) {
		r.folded = append(r.folded, folds{})
	}
	r.folded = r.folded[:n+1]
	in := &r.folded[n]
	in.object, in.few, in.many = object, in.few[:0], nil
}

func (r *reader) check(doc []byte, limits Limits) error {
	dec := r.dec
	dec.Reset(bytes.NewBuffer(doc)) // which is read in place
	items := 0
	for {
		kind := dec.PeekKind()
		var text []byte
		var err error
		if kind == '"' {
			text, err = dec.ReadValue()
		} else {
			_, err = dec.ReadToken()
		}
		if errors.Is(err, io.EOF) && items > 0 {
			return nil
		}
		if err != nil {
			return invalid("The body is not valid JSON, or it repeats a name.", err)
		}
		if items++; items > limits.Items {
			return fault.New(fault.TooLarge, "body_too_complex", fmt.Sprintf("The JSON document has over %d elements.", limits.Items))
		}
		switch kind {
		case '{', '[':
			r.open(kind == '{')
		case '}', ']':
			r.folded = r.folded[:len(r.folded)-1]
		case '"':
			if err := r.text(text); err != nil {
				return err
			}
		}
		if len(r.folded) > limits.Depth {
			return fault.New(fault.TooLarge, "body_too_deep", fmt.Sprintf("The JSON document is nested over %d levels.", limits.Depth))
		}
		if len(r.folded) == 0 && dec.StackDepth() == 0 {
			if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
				return invalid("There is something after the JSON document.", err)
			}
			return nil
		}
	}
}

// text looks at a string as it stands in the document, in its quotes.
func (r *reader) text(quoted []byte) error {
	text := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(text, '\\') >= 0 {
		text, _ = jsontext.AppendUnquote(nil, quoted)
	}
	if bytes.IndexByte(text, 0) >= 0 {
		return invalid("The JSON document holds a NUL character.", nil)
	}
	// After a name the decoder's length for this level is odd.
	if n := len(r.folded); n > 0 && r.folded[n-1].object {
		if _, length := r.dec.StackIndex(r.dec.StackDepth()); length%2 == 1 && r.folded[n-1].add(fold(string(text))) {
			return invalid("The JSON document has two names that differ only by case.", nil)
		}
	}
	return nil
}

// Members are the members of an object by their exact names, each as it stands
// in doc, whose bytes they share. doc is a document that [Check] accepts, or a
// part of one. ok is false when it is no object.
func Members(doc []byte) (members map[string]json.RawMessage, ok bool) {
	r := readers.Get().(*reader)
	defer r.done()
	r.dec.Reset(bytes.NewBuffer(doc))
	if r.dec.PeekKind() != '{' {
		return nil, false
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return nil, false
	}
	members = map[string]json.RawMessage{}
	for r.dec.PeekKind() == '"' {
		name, err := r.dec.ReadToken()
		if err != nil {
			return nil, false
		}
		key := name.String()
		value, err := r.dec.ReadValue()
		if err != nil {
			return nil, false
		}
		members[key] = json.RawMessage(value)
	}
	end, err := r.dec.ReadToken()
	return members, err == nil && end.Kind() == '}'
}

// Unmarshal checks doc and decodes it into v. Unknown names and names whose
// case differs from the field's are errors.
func Unmarshal(doc []byte, v any, limits Limits) error {
	if err := Check(doc, limits); err != nil {
		return err
	}
	if err := unmarshalStrict(doc, v); err != nil {
		f := invalid("The JSON document does not have the expected fields, or one of them has another type.", err)
		if known := names(v); known != "" {
			f = f.WithHint("The fields are " + known + ".")
		}
		return f
	}
	return nil
}

// names lists the fields that v takes. They are ours: what the document says is
// not repeated.
func names(v any) string {
	t := reflect.TypeOf(v)
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		return ""
	}
	var list []string
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			list = append(list, name)
		}
	}
	return strings.Join(list, ", ")
}

// Canonical rewrites a document that Check accepts so that equal values have
// equal bytes (RFC 8785: sorted names, no white space, one form per number).
func Canonical(doc []byte) ([]byte, error) {
	v := jsontext.Value(bytes.Clone(doc))
	if err := v.Canonicalize(); err != nil {
		return nil, invalid("The JSON document cannot be put into canonical form.", err)
	}
	return v, nil
}

// CanonicalOf is Canonical of v's JSON.
func CanonicalOf(v any) ([]byte, error) {
	doc, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding for a canonical form: %w", err)
	}
	return Canonical(doc)
}

// fold maps a name to what encoding/json would treat as the same name.
func fold(s string) string {
	return strings.ToLower(strings.Map(func(r rune) rune {
		switch r {
		case 'ſ': // U+017F folds to s
			return 's'
		case 'K': // U+212A, the Kelvin sign, folds to k
			return 'k'
		}
		return r
	}, s))
}

func invalid(msg string, cause error) *fault.Error {
	f := fault.New(fault.Invalid, "invalid_json", msg)
	if cause != nil {
		// The decoder's own text may quote the input, so only its type is kept.
		return f.WithCause(fmt.Errorf("%T", cause))
	}
	return f
}
