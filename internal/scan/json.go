package scan

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonReader reads JSON as programs write it and people edit it: with comments,
// trailing commas, single quotes and names without quotes. encoding/json knows
// no lines and no comments, and gives up at the first fault.
type jsonReader struct {
	b    []byte
	at   int
	line int
	bad  bool
	n    int // nodes made
}

// maxNodes bounds the tree of one file: what has more is read as text.
const maxNodes = 200_000

// parseJSON returns the tree, or nil when the text is something else.
func parseJSON(b []byte, line int) *node {
	r := &jsonReader{b: b, line: line}
	top := &node{kind: list, line: line}
	for {
		r.space(top)
		if r.bad {
			return nil
		}
		if r.at >= len(r.b) {
			break
		}
		c := r.b[r.at]
		if c != '{' && c != '[' {
			return nil
		}
		n := r.value(0)
		if r.bad || n == nil {
			return nil
		}
		top.inner = append(top.inner, n)
	}
	values := 0
	for _, n := range top.inner {
		if n.kind != comment {
			values++
		}
	}
	if values == 0 {
		return nil
	}
	if values == 1 && len(top.inner) == 1 {
		return top.inner[0]
	}
	// Several documents, or comments around one: each is a node of its own without a key,
	// so that pairs of different ones do not mix.
	return &node{kind: object, line: line, inner: top.inner}
}

func (r *jsonReader) space(into *node) {
	for r.at < len(r.b) {
		switch c := r.b[r.at]; {
		case c == '\n':
			r.line++
			r.at++
		case c == ' ' || c == '\t' || c == '\r' || c == 0xef || c == 0xbb || c == 0xbf:
			r.at++
		case c == '/' && r.at+1 < len(r.b) && r.b[r.at+1] == '/', c == '#':
			end := bytes.IndexByte(r.b[r.at:], '\n')
			if end < 0 {
				end = len(r.b) - r.at
			}
			text := strings.Trim(string(r.b[r.at:r.at+end]), "/# \r")
			r.at += end
			r.note(into, text)
		case c == '/' && r.at+1 < len(r.b) && r.b[r.at+1] == '*':
			end := bytes.Index(r.b[r.at:], []byte("*/"))
			if end < 0 {
				r.bad = true
				r.at = len(r.b)
				return
			}
			text := string(r.b[r.at+2 : r.at+end])
			r.at += end + 2
			r.note(into, text)
			r.line += strings.Count(text, "\n")
		default:
			return
		}
	}
}

// note keeps a comment.
func (r *jsonReader) note(into *node, text string) {
	if r.n++; r.n > maxNodes {
		r.bad, r.at = true, len(r.b)
		return
	}
	into.inner = append(into.inner, &node{kind: comment, text: text, line: r.line})
}

func (r *jsonReader) value(depth int) *node {
	if r.n++; depth > maxDepth || r.n > maxNodes || r.at >= len(r.b) {
		r.bad = true
		return nil
	}
	switch c := r.b[r.at]; c {
	case '{':
		return r.members(depth)
	case '[':
		return r.elements(depth)
	case '"', '\'':
		line := r.line
		return &node{kind: scalar, text: r.str(c), line: line}
	default:
		from := r.at
		for r.at < len(r.b) && strings.IndexByte(",]}\n\r\t /:", r.b[r.at]) < 0 {
			r.at++
		}
		if r.at == from {
			r.bad = true
			return nil
		}
		return &node{kind: other, text: string(r.b[from:r.at]), line: r.line}
	}
}

func (r *jsonReader) members(depth int) *node {
	n := &node{kind: object, line: r.line}
	r.at++
	for {
		r.space(n)
		if r.bad || r.at >= len(r.b) {
			r.bad = true
			return n
		}
		var key string
		switch c := r.b[r.at]; {
		case c == '}':
			r.at++
			return n
		case c == ',':
			r.at++
			continue
		case c == '"' || c == '\'':
			key = r.str(c)
		case wordByte(c) || c == '$':
			from := r.at
			for r.at < len(r.b) && (nameByte(r.b[r.at]) || r.b[r.at] == '$') {
				r.at++
			}
			key = string(r.b[from:r.at])
		default:
			r.bad = true
			return n
		}
		r.space(n)
		if r.at >= len(r.b) || r.b[r.at] != ':' {
			r.bad = true
			return n
		}
		r.at++
		r.space(n)
		v := r.value(depth + 1)
		if r.bad || v == nil {
			r.bad = true
			return n
		}
		v.key = key
		n.inner = append(n.inner, v)
	}
}

func (r *jsonReader) elements(depth int) *node {
	n := &node{kind: list, line: r.line}
	r.at++
	for {
		r.space(n)
		if r.bad || r.at >= len(r.b) {
			r.bad = true
			return n
		}
		switch r.b[r.at] {
		case ']':
			r.at++
			return n
		case ',':
			r.at++
			continue
		}
		v := r.value(depth + 1)
		if r.bad || v == nil {
			r.bad = true
			return n
		}
		n.inner = append(n.inner, v)
	}
}

// str reads a string and undoes its escapes.
func (r *jsonReader) str(quote byte) string {
	r.at++
	from := r.at
	for i := from; i < len(r.b); i++ {
		switch r.b[i] {
		case quote:
			r.at = i + 1
			return string(r.b[from:i])
		case '\\', '\n':
			return r.escaped(from, i, quote)
		}
	}
	r.bad = true
	r.at = len(r.b)
	return ""
}

func (r *jsonReader) escaped(from, i int, quote byte) string {
	out := append([]byte(nil), r.b[from:i]...)
	for i < len(r.b) {
		c := r.b[i]
		switch {
		case c == quote:
			r.at = i + 1
			return string(out)
		case c == '\n':
			r.line++
			out = append(out, c)
			i++
		case c == '\\' && i+1 < len(r.b):
			e := r.b[i+1]
			i += 2
			switch e {
			case 'n':
				out = append(out, '\n')
			case 't':
				out = append(out, '\t')
			case 'r':
				out = append(out, '\r')
			case 'b', 'f':
				out = append(out, ' ')
			case 'u':
				c, n := hex4(r.b[i:])
				i += n
				if utf16.IsSurrogate(c) && i+2 < len(r.b) && r.b[i] == '\\' && r.b[i+1] == 'u' {
					low, n := hex4(r.b[i+2:])
					c = utf16.DecodeRune(c, low)
					i += 2 + n
				}
				out = utf8.AppendRune(out, c)
			case '\n':
				r.line++
			default:
				out = append(out, e)
			}
		default:
			out = append(out, c)
			i++
		}
	}
	r.bad = true
	r.at = len(r.b)
	return ""
}

func hex4(b []byte) (rune, int) {
	if len(b) < 4 {
		return utf8.RuneError, 0
	}
	n, err := strconv.ParseUint(string(b[:4]), 16, 32)
	if err != nil {
		return utf8.RuneError, 0
	}
	return rune(n), 4
}
