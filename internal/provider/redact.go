package provider

import (
	"bytes"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
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
	probe []secret.Value // those of long that hold no other: without them there is none
	short []secret.Value // folded
	least int            // length of the shortest form; no escape makes one shorter
}

// NewRedactor takes what [Record.Inject] returned.
func NewRedactor(rendered []secret.Value) *Redactor {
	r := &Redactor{}
	seen := map[string]bool{}
	add := func(f []byte) {
		f = bytes.TrimSpace(f)
		if len(f) == 0 || seen[string(f)] {
			return
		}
		seen[string(f)] = true
		if r.least == 0 || len(f) < r.least {
			r.least = len(f)
		}
		if len(f) < shortForm {
			r.short = append(r.short, secret.New(f))
		} else {
			r.long = append(r.long, secret.New(f))
		}
	}
	for _, form := range rendered {
		// A secret that itself holds what looks like an escape reads differently
		// in each view of the text, so it is looked for in all its readings.
		v := &view{text: fold(form.Reveal())}
		for layer := 0; v != nil && layer <= viewLayers+1; layer++ {
			add(v.text)
			v = v.unescape()
		}
	}
	slices.SortStableFunc(r.long, func(a, b secret.Value) int { return b.Len() - a.Len() })
	for i, v := range r.long {
		holds := func(o secret.Value) bool { return bytes.Contains(v.Reveal(), o.Reveal()) }
		if !slices.ContainsFunc(r.long[i+1:], holds) {
			r.probe = append(r.probe, v)
		}
	}
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

func (r *Redactor) spans(text []byte) []span { return r.spansTo(text, viewLayers) }

func (r *Redactor) spansTo(text []byte, layers int) []span {
	if r.least == 0 || len(text) < r.least {
		return nil
	}
	var found []span
	v := &view{text: fold(text)}
	for layer := 0; ; layer++ {
		whole := bytes.Trim(v.text, " \t\r\n\"'")
		for _, s := range r.short {
			if bytes.Equal(whole, s.Reveal()) {
				return []span{{0, len(text)}}
			}
		}
		if slices.ContainsFunc(r.probe, func(s secret.Value) bool { return bytes.Contains(v.text, s.Reveal()) }) {
			for _, s := range r.long {
				found = v.search(s.Reveal(), found)
			}
		}
		if layer == layers {
			return found
		}
		if v = v.unescape(); v == nil {
			return found
		}
	}
}

// view is one reading of the text: that of from, unescaped. Between two breaks
// it is a plain copy.
type view struct {
	text   []byte
	from   *view // nil: the original
	breaks []pair
}

// pair says that the bytes from here on are those of the view before from there
// on.
type pair struct{ here, there int }

// origin maps a place in the view to the original.
func (v *view) origin(i int) int {
	for ; v.from != nil; v = v.from {
		n, _ := slices.BinarySearchFunc(v.breaks, i+1, func(p pair, i int) int { return p.here - i })
		p := v.breaks[n-1]
		i = p.there + i - p.here
	}
	return i
}

func (v *view) search(needle []byte, found []span) []span {
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

const escapes = "%\\&\r\n\x00"

// unescape reads the view once more: escapes undone, line breaks and NUL gone.
// It returns nil when that changes nothing.
func (v *view) unescape() *view {
	if !bytes.ContainsAny(v.text, escapes) {
		return nil
	}
	out := &view{text: make([]byte, 0, len(v.text)), from: v}
	mark := func(there int) {
		here := len(out.text)
		if n := len(out.breaks); n > 0 && out.breaks[n-1].here == here {
			out.breaks[n-1].there = there // nothing came of the one before
			return
		}
		out.breaks = append(out.breaks, pair{here, there})
	}
	mark(0)
	changed := false
	for i := 0; i < len(v.text); {
		plain := bytes.IndexAny(v.text[i:], escapes)
		if plain < 0 {
			plain = len(v.text) - i
		}
		out.text = append(out.text, v.text[i:i+plain]...)
		if i += plain; i == len(v.text) {
			break
		}
		switch v.text[i] {
		case 0, '\r', '\n':
			i++
		default:
			r, used, raw := escapeAt(v.text[i:])
			if used == 0 {
				out.text = append(out.text, v.text[i])
				i++
				continue
			}
			mark(i)
			if raw || r < utf8.RuneSelf {
				out.text = append(out.text, foldByte(byte(r)))
			} else {
				out.text = utf8.AppendRune(out.text, r)
			}
			i += used
		}
		changed = true
		mark(i)
	}
	if !changed {
		return nil
	}
	return out
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
	dec := jsontext.NewDecoder(bytes.NewReader(text), lenient...)
	var buf bytes.Buffer
	buf.Grow(len(text))
	enc := jsontext.NewEncoder(&buf, lenient...)
	// One search over the whole, one layer deeper for the quoting of JSON, spares
	// the common clean answer the search in each of its strings.
	dirty := len(r.short) > 0 || len(r.spansTo(text, viewLayers+1)) > 0
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
				if !dirty {
					break
				}
				if clean := r.Text(s); !bytes.Equal(clean, s) {
					v, _ = jsontext.AppendQuote(nil, clean)
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
