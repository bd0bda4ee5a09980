package provider

import (
	"bytes"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/ambit-dev/ambit/internal/secret"
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
	long  []secret.Value // folded, longest first
	short []secret.Value // folded
}

// NewRedactor takes what [Record.Inject] returned.
func NewRedactor(rendered []secret.Value) *Redactor {
	r := &Redactor{}
	seen := map[string]bool{}
	for _, v := range rendered {
		f := fold(v.Reveal())
		f = bytes.TrimSpace(f)
		if len(f) == 0 || seen[string(f)] {
			continue
		}
		seen[string(f)] = true
		if len(f) < shortForm {
			r.short = append(r.short, secret.New(f))
		} else {
			r.long = append(r.long, secret.New(f))
		}
	}
	slices.SortStableFunc(r.long, func(a, b secret.Value) int { return b.Len() - a.Len() })
	return r
}

// Finds reports whether text holds a secret in some form.
func (r *Redactor) Finds(text []byte) bool { return len(r.spans(text)) > 0 }

// Text returns text without the secrets. It returns the same slice when there
// are none.
func (r *Redactor) Text(text []byte) []byte {
	spans := r.spans(text)
	if len(spans) == 0 {
		return text
	}
	slices.SortFunc(spans, func(a, b span) int { return a.from - b.from })
	out := make([]byte, 0, len(text))
	at := 0
	for i := 0; i < len(spans); {
		from, to := spans[i].from, spans[i].to
		for i++; i < len(spans) && spans[i].from <= to; i++ {
			to = max(to, spans[i].to)
		}
		out = append(append(out, text[at:from]...), Redacted...)
		at = to
	}
	return append(out, text[at:]...)
}

// span is a range of the original text.
type span struct{ from, to int }

const viewLayers = 4

func (r *Redactor) spans(text []byte) []span {
	if len(r.long) == 0 && len(r.short) == 0 || len(text) == 0 {
		return nil
	}
	var found []span
	v := view{text: fold(text)}
	for layer := 0; ; layer++ {
		whole := bytes.Trim(v.text, " \t\r\n\"'")
		for _, s := range r.short {
			if bytes.Equal(whole, s.Reveal()) {
				return []span{{0, len(text)}}
			}
		}
		for _, s := range r.long {
			found = v.search(s.Reveal(), found)
		}
		next, changed := v.unescape()
		if !changed || layer == viewLayers {
			return found
		}
		v = next
	}
}

// view is one reading of the text; at maps each of its bytes, and its end, to
// the original. A nil at is the identity.
type view struct {
	text []byte
	at   []int32
}

func (v view) origin(i int) int {
	if v.at == nil {
		return i
	}
	return int(v.at[i])
}

func (v view) search(needle []byte, found []span) []span {
	for from := 0; ; {
		i := bytes.Index(v.text[from:], needle)
		if i < 0 {
			return found
		}
		start := from + i
		found = append(found, span{v.origin(start), v.origin(start + len(needle))})
		from = start + len(needle)
	}
}

// unescape reads the view once more: escapes undone, line breaks and NUL gone.
func (v view) unescape() (view, bool) {
	if bytes.IndexAny(v.text, "%\\&\r\n\x00") < 0 {
		return v, false
	}
	out := view{text: make([]byte, 0, len(v.text)), at: make([]int32, 0, len(v.text)+1)}
	for i := 0; i < len(v.text); {
		n, decoded, size := 1, [utf8.UTFMax]byte{v.text[i]}, 1
		switch v.text[i] {
		case 0, '\r', '\n':
			size = 0
		case '%', '\\', '&':
			if r, used, raw := escapeAt(v.text[i:]); used > 0 {
				n = used
				if raw {
					decoded[0] = byte(r)
				} else {
					size = utf8.EncodeRune(decoded[:], r)
				}
			}
		}
		for _, b := range decoded[:size] {
			out.text = append(out.text, foldByte(b))
			out.at = append(out.at, int32(v.origin(i)))
		}
		i += n
	}
	out.at = append(out.at, int32(v.origin(len(v.text))))
	return out, true
}

// escapeAt reads the escape that s starts with. used is 0 when there is none;
// raw means that r is a byte, not a character.
func escapeAt(s []byte) (r rune, used int, raw bool) {
	number := func(from, to, base int) (rune, bool) {
		if to > len(s) || from >= to {
			return 0, false
		}
		n, err := strconv.ParseUint(string(s[from:to]), base, 32)
		return rune(n), err == nil && n <= utf8.MaxRune
	}
	switch {
	case s[0] == '%':
		if n, ok := number(1, 3, 16); ok {
			return n, 3, true
		}
	case s[0] == '\\' && len(s) > 1:
		switch s[1] {
		case 'u':
			if n, ok := number(2, 6, 16); ok {
				return n, 6, false
			}
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
	dec := jsontext.NewDecoder(bytes.NewReader(text), lenient...)
	var buf bytes.Buffer
	buf.Grow(len(text))
	enc := jsontext.NewEncoder(&buf, lenient...)
	values := 0
	for {
		switch kind := dec.PeekKind(); kind {
		case '"', '0':
			name := kind == '"' && isName(dec)
			v, err := dec.ReadValue()
			if err != nil {
				return nil, false
			}
			if kind == '"' {
				s, err := jsontext.AppendUnquote(nil, v)
				if err != nil && !utf8.Valid(v) {
					s = bytes.ToValidUTF8(s, []byte("\uFFFD"))
				}
				if name && cut[strings.ToLower(string(s))] {
					if dec.SkipValue() != nil {
						return nil, false
					}
					continue
				}
				if clean := r.Text(s); !bytes.Equal(clean, s) {
					v, _ = jsontext.AppendQuote(nil, clean)
				}
			} else if r.Finds(v) {
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
	var kept []string
	for part := range strings.SplitSeq(string(text), "&") {
		name, _, _ := strings.Cut(part, "=")
		if decoded, err := url.QueryUnescape(name); err == nil && cut[strings.ToLower(decoded)] {
			continue
		}
		kept = append(kept, part)
	}
	return r.Text([]byte(strings.Join(kept, "&")))
}
