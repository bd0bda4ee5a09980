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
	dec := jsontext.NewDecoder(bytes.NewReader(doc)) // refuses duplicate names and invalid UTF-8
	var folded []map[string]struct{}                 // one set of folded names per open object; nil for arrays
	items := 0
	for {
		kind := dec.PeekKind()
		tok, err := dec.ReadToken()
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
		case '{':
			folded = append(folded, map[string]struct{}{})
		case '[':
			folded = append(folded, nil)
		case '}', ']':
			folded = folded[:len(folded)-1]
		case '"':
			s := tok.String()
			if strings.ContainsRune(s, 0) {
				return invalid("The JSON document holds a NUL character.", nil)
			}
			// After a name the decoder's length for this level is odd.
			if n := len(folded); n > 0 && folded[n-1] != nil {
				if _, length := dec.StackIndex(dec.StackDepth()); length%2 == 1 {
					f := fold(s)
					if _, dup := folded[n-1][f]; dup {
						return invalid("The JSON document has two names that differ only by case.", nil)
					}
					folded[n-1][f] = struct{}{}
				}
			}
		}
		if len(folded) > limits.Depth {
			return fault.New(fault.TooLarge, "body_too_deep", fmt.Sprintf("The JSON document is nested over %d levels.", limits.Depth))
		}
		if len(folded) == 0 && dec.StackDepth() == 0 {
			if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
				return invalid("There is something after the JSON document.", err)
			}
			return nil
		}
	}
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
