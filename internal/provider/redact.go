package provider

import (
	"bytes"
	"net/url"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/ambit-dev/ambit/internal/outbound"
)

const (
	// Redacted stands where something was taken out.
	Redacted = "[redacted]"
	// shortForm is the length below which a form is looked for only as a whole
	// value: inside other text it would hit by chance.
	shortForm = 8
)

// Redactor takes the rendered forms of a call's secrets out of what came back.
// It looks at the text as it is and as it reads after up to four rounds of
// unescaping (percent, JSON, HTML), without regard to ASCII case, line breaks
// and NUL bytes. What a hostile upstream disguises in other ways passes; it has
// the credential anyway.
type Redactor struct {
	forms func() *needles // behind a function, as in secret.Value: printing shows none
	least int             // length of the shortest form; no escape makes one shorter
	reach int             // how far back a form that is still being read can begin, in one view
}

// needles are forms of secrets, folded.
type needles struct {
	long  [][]byte // longest first
	probe [][]byte // those of long that hold no other: without them there is none
	short [][]byte
}

func newRedactor(f *formSet) *Redactor {
	n := &needles{}
	r := &Redactor{forms: func() *needles { return n }}
	for i := range f.spans {
		form := f.at(i)
		if r.least == 0 || len(form) < r.least {
			r.least = len(form)
		}
		if len(form) < shortForm {
			n.short = append(n.short, form)
		} else {
			n.long = append(n.long, form)
		}
	}
	slices.SortStableFunc(n.long, func(a, b []byte) int { return len(b) - len(a) })
	if len(n.long) > 0 {
		r.reach = len(n.long[0]) + viewLayers*maxEscape + maxEscape
	}
	for i, form := range n.long {
		if !slices.ContainsFunc(n.long[i+1:], func(o []byte) bool { return bytes.Contains(form, o) }) {
			n.probe = append(n.probe, form)
		}
	}
	return r
}

// Finds reports whether text holds a secret in some form.
func (r *Redactor) Finds(text []byte) bool { return r.marks(text, viewLayers) != nil }

// Text returns text without the secrets. It returns the same slice when there
// are none.
func (r *Redactor) Text(text []byte) []byte {
	found := r.marks(text, viewLayers)
	if found == nil {
		return text
	}
	out := make([]byte, 0, len(text)+len(Redacted))
	for i := 0; i < len(text); {
		from := i
		inside := found.has(i)
		for i++; i < len(text) && found.has(i) == inside; i++ {
		}
		if inside {
			out = append(out, Redacted...)
		} else {
			out = append(out, text[from:i]...)
		}
	}
	return out
}

const viewLayers = 4

// escapeAt reads the escape that s starts with. used is 0 when there is none;
// raw means that r is a byte, not a character.
func escapeAt(s []byte) (r rune, used int, raw bool) {
	number := func(from, to, base int) (rune, bool) {
		if to > len(s) || from >= to {
			return 0, false
		}
		n := 0
		for _, c := range s[from:to] {
			digit := outbound.Unhex(c)
			if digit < 0 || digit >= base {
				return 0, false
			}
			if n = n*base + digit; n > utf8.MaxRune {
				return 0, false
			}
		}
		return rune(n), true
	}
	switch {
	case s[0] == '%':
		if n, ok := number(1, 3, 16); ok {
			return n, 3, true
		}
	case s[0] == '\\' && len(s) > 1:
		switch s[1] {
		case 'u':
			n, ok := number(2, 6, 16)
			if !ok {
				return 0, 0, false
			}
			if len(s) >= 12 && s[6] == '\\' && s[7] == 'u' {
				if low, ok := number(8, 12, 16); ok {
					if r := utf16.DecodeRune(n, low); r != utf8.RuneError {
						return r, 12, false
					}
				}
			}
			return n, 6, false
		case 'x':
			if n, ok := number(2, 4, 16); ok {
				return n, 4, true
			}
		case 'n', 'r', 't', 'b', 'f':
			return '\n', 2, true
		case '"', '\\', '/', '\'':
			return rune(s[1]), 2, true
		}
	case s[0] == '&':
		end := bytes.IndexByte(s[:min(len(s), 12)], ';')
		if end < 0 {
			return 0, 0, false
		}
		switch name := string(s[1:end]); name {
		case "amp":
			return '&', end + 1, true
		case "lt":
			return '<', end + 1, true
		case "gt":
			return '>', end + 1, true
		case "quot":
			return '"', end + 1, true
		case "apos":
			return '\'', end + 1, true
		}
		if end > 2 && s[1] == '#' {
			if s[2] == 'x' {
				if n, ok := number(3, end, 16); ok {
					return n, end + 1, false
				}
			} else if n, ok := number(2, end, 10); ok {
				return n, end + 1, false
			}
		}
	}
	return 0, 0, false
}

func fold(b []byte) []byte {
	out := make([]byte, len(b))
	for i, c := range b {
		out[i] = foldByte(c)
	}
	return out
}

func foldByte(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// JSON takes the secrets out of a sequence of JSON values, and the members whose
// folded name is in cut, at any depth. ok is false when text is not JSON; then
// nothing is returned.
func (r *Redactor) JSON(text []byte, cut map[string]bool) (out []byte, ok bool) {
	lenient := []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}
	dec := jsontext.NewDecoder(bytes.NewBuffer(text), lenient...) // a Buffer is read in place
	var buf bytes.Buffer
	buf.Grow(len(text))
	enc := jsontext.NewEncoder(&buf, lenient...)
	// One search over the whole, one layer deeper for the quoting of JSON, spares
	// the common clean answer the search in each of its strings.
	dirty := len(r.forms().short) > 0 || r.marks(text, viewLayers+1) != nil
	values := 0
	for {
		switch kind := dec.PeekKind(); kind {
		case '"', '0':
			name := kind == '"' && isName(dec)
			v, err := dec.ReadValue()
			if err != nil {
				return nil, false
			}
			switch {
			case kind == '"' && (name || dirty):
				s, err := jsontext.AppendUnquote(make([]byte, 0, len(v)), v)
				if err != nil && !utf8.Valid(v) {
					s = bytes.ToValidUTF8(s, []byte("\uFFFD"))
				}
				if name && cut[strings.ToLower(string(s))] {
					if dec.SkipValue() != nil {
						return nil, false
					}
					continue
				}
				if !dirty {
					break
				}
				if clean := r.Text(s); !bytes.Equal(clean, s) {
					v, _ = jsontext.AppendQuote(make([]byte, 0, len(v)), clean)
				}
			case dirty && r.Finds(v):
				v, _ = jsontext.AppendQuote(nil, Redacted)
			}
			if enc.WriteValue(v) != nil {
				return nil, false
			}
		case 0:
			if _, err := dec.ReadToken(); err == nil || dec.StackDepth() > 0 || values == 0 || !atEnd(err) {
				return nil, false
			}
			return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), true
		default:
			tok, err := dec.ReadToken()
			if err != nil || enc.WriteToken(tok) != nil {
				return nil, false
			}
		}
		if dec.StackDepth() == 0 {
			values++
		}
	}
}

// isName reports whether the string that comes next is a member's name.
func isName(dec *jsontext.Decoder) bool {
	kind, length := dec.StackIndex(dec.StackDepth())
	return kind == '{' && length%2 == 0
}

// form does for application/x-www-form-urlencoded what JSON does.
func (r *Redactor) form(text []byte, cut map[string]bool) []byte {
	out := make([]byte, 0, len(text))
	for first := true; len(text) > 0 || first; {
		part, rest, more := bytes.Cut(text, []byte("&"))
		name, _, _ := bytes.Cut(part, []byte("="))
		if decoded, err := url.QueryUnescape(string(name)); err != nil || !cut[strings.ToLower(decoded)] {
			if !first {
				out = append(out, '&')
			}
			out, first = append(out, part...), false
		}
		if text = rest; !more {
			break
		}
	}
	return r.Text(out)
}
