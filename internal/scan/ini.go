package scan

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"
)

// lineFile reads what is made of lines with a name and a value: dotenv, INI, TOML and
// Java's properties. It is lenient: a line that it does not understand is read as text.
type lineFile struct {
	b    []byte
	at   int
	line int
	top  *node
	in   *node // the section
	n    int   // nodes made
}

// parseLines reads INI, dotenv and properties, or TOML, whose sections nest and whose lists
// and tables go over lines. It returns nil where they are too many, or too deep.
func parseLines(b []byte, toml bool) *node {
	f := &lineFile{b: b, line: 1, top: &node{kind: object, line: 1}}
	f.in = f.top
	for f.at < len(f.b) {
		if f.one(toml); f.n > maxNodes {
			return nil
		}
	}
	return f.top
}

func (f *lineFile) rest() string {
	end := bytes.IndexByte(f.b[f.at:], '\n')
	if end < 0 {
		end = len(f.b) - f.at
	}
	return strings.TrimSuffix(string(f.b[f.at:f.at+end]), "\r")
}

func (f *lineFile) next() {
	if i := bytes.IndexByte(f.b[f.at:], '\n'); i >= 0 {
		f.at += i + 1
		f.line++
		return
	}
	f.at = len(f.b)
}

func (f *lineFile) one(toml bool) {
	raw := f.rest()
	text := strings.TrimSpace(raw)
	f.n++
	switch {
	case text == "":
	case text[0] == '#', text[0] == ';', strings.HasPrefix(text, "//"), strings.HasPrefix(text, "!"):
		f.in.inner = append(f.in.inner, &node{kind: comment, text: strings.TrimLeft(text, "#;/! "), line: f.line})
	case text[0] == '[' && strings.Contains(text, "]"):
		f.section(strings.Trim(text[:strings.LastIndexByte(text, ']')+1], "[]"), toml)
	default:
		if f.pair(raw, toml) {
			return
		}
	}
	f.next()
}

func (f *lineFile) section(name string, toml bool) {
	f.in = f.top
	parts := []string{strings.Trim(name, `" '`)}
	if toml {
		parts = splitKey(name)
	}
	if len(parts) > maxDepth {
		f.n = maxNodes + 1
		return
	}
	for _, p := range parts {
		f.n++
		n := &node{kind: object, key: p, line: f.line}
		f.in.inner = append(f.in.inner, n)
		f.in = n
	}
}

// splitKey parts a dotted key of TOML.
func splitKey(name string) (parts []string) {
	var b strings.Builder
	quote := byte(0)
	for i := range len(name) {
		switch c := name[i]; {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == 0 && c == '.':
			parts = append(parts, strings.TrimSpace(b.String()))
			b.Reset()
		default:
			b.WriteByte(c)
		}
	}
	return append(parts, strings.TrimSpace(b.String()))
}

// pair reads name = value. It reports true when it moved on by itself.
func (f *lineFile) pair(raw string, toml bool) bool {
	sep := strings.IndexAny(raw, "=:")
	// A name may hold a colon, as those of .npmrc do.
	if eq := strings.IndexByte(raw, '='); eq > sep && sep >= 0 && (strings.HasPrefix(strings.TrimSpace(raw), "//") || sep+1 < len(raw) && raw[sep+1] != ' ') {
		sep = eq
	}
	if sep <= 0 {
		f.in.inner = append(f.in.inner, &node{kind: comment, text: raw, line: f.line})
		return false
	}
	name := strings.TrimSpace(raw[:sep])
	for _, p := range []string{"export ", "set ", "declare -x ", "setx "} {
		name = strings.TrimPrefix(name, p)
	}
	name = strings.Trim(name, ` "'`)
	if strings.ContainsAny(name, " \t") {
		f.in.inner = append(f.in.inner, &node{kind: comment, text: raw, line: f.line})
		return false
	}
	start := f.line
	f.at += sep + 1
	var n *node
	if name == "Environment" && !toml { // of systemd: several, each in quotes of its own
		n = &node{kind: scalar, text: strings.TrimSpace(f.rest())}
	} else {
		n = f.value(toml)
	}
	n.line = max(n.line, start)
	parts := []string{name}
	if toml {
		parts = splitKey(name)
	}
	if len(parts) > maxDepth {
		f.n = maxNodes + 1
		return false
	}
	in := f.in
	for _, p := range parts[:len(parts)-1] {
		f.n++
		o := &node{kind: object, key: p, line: start}
		in.inner = append(in.inner, o)
		in = o
	}
	n.key = parts[len(parts)-1]
	in.inner = append(in.inner, n)
	f.next()
	return true
}

func (f *lineFile) blank() {
	for f.at < len(f.b) && (f.b[f.at] == ' ' || f.b[f.at] == '\t') {
		f.at++
	}
}

func (f *lineFile) value(toml bool) *node {
	f.blank()
	n := &node{kind: scalar, line: f.line}
	if f.at >= len(f.b) {
		return n
	}
	c := f.b[f.at]
	for _, q := range []string{`"""`, "'''"} {
		if bytes.HasPrefix(f.b[f.at:], []byte(q)) {
			f.at += 3
			end := bytes.Index(f.b[f.at:], []byte(q))
			if end < 0 {
				end = len(f.b) - f.at
			}
			return f.took(n, end, 3)
		}
	}
	switch {
	case c == '"' || c == '\'' || c == '`':
		if end := quoteEnd(f.b[f.at+1:], c); end >= 0 {
			f.at++
			return f.took(n, end, 1)
		}
	case toml && (c == '{' || c == '['):
		return f.inline(0)
	}
	text := f.rest()
	if i := strings.Index(text, " #"); i >= 0 {
		text = text[:i]
	}
	n.text = strings.TrimSpace(strings.TrimSuffix(text, ","))
	for strings.HasSuffix(n.text, `\`) && !toml && len(n.text) < maxQuoted { // properties go on in the next line
		f.next()
		if f.at >= len(f.b) {
			break
		}
		n.text = strings.TrimSuffix(n.text, `\`) + strings.TrimSpace(f.rest())
	}
	return n
}

func (f *lineFile) took(n *node, length, quotes int) *node {
	text := string(f.b[f.at : f.at+length])
	f.line += strings.Count(text, "\n")
	f.at = min(len(f.b), f.at+length+quotes)
	n.lines = !strings.Contains(text, `\`)
	if !n.lines {
		text = strings.NewReplacer(`\n`, "\n", `\"`, `"`, `\\`, `\`).Replace(text)
	}
	n.text = text
	return n
}

// maxQuoted bounds a quoted value that goes over lines: beyond, the quote was a sign.
const maxQuoted = 16 << 10

func quoteEnd(b []byte, q byte) int {
	for i := 0; i < len(b) && i < maxQuoted; i++ {
		switch b[i] {
		case '\\':
			if q == '"' {
				i++
			}
		case q:
			return i
		case '\n':
			// Only keys and certificates go over lines.
			if i < 400 && !bytes.Contains(b[:i], []byte("-----BEGIN")) && !bytes.Contains(b[:i], []byte("{")) {
				return -1
			}
		}
	}
	return -1
}

// inline reads the tables and lists of TOML that stand in a value.
func (f *lineFile) inline(depth int) *node {
	open := f.b[f.at]
	n := &node{kind: list, line: f.line}
	if depth > maxDepth {
		f.n, f.at = maxNodes+1, len(f.b)
		return n
	}
	closing := byte(']')
	if open == '{' {
		n.kind, closing = object, '}'
	}
	f.at++
	for f.at < len(f.b) && f.n <= maxNodes {
		switch c := f.b[f.at]; {
		case c == closing:
			f.at++
			return n
		case c == '\n':
			f.line++
			f.at++
		case c == ' ' || c == '\t' || c == ',' || c == '\r':
			f.at++
		case c == '#':
			f.at += len(f.rest())
		case n.kind == object:
			from := f.at
			for f.at < len(f.b) && f.b[f.at] != '=' && f.b[f.at] != '\n' && f.b[f.at] != closing {
				f.at++
			}
			if f.at >= len(f.b) || f.b[f.at] != '=' {
				return n
			}
			key := strings.Trim(string(f.b[from:f.at]), ` "'`)
			f.at++
			v := f.element(depth)
			v.key = key
			n.inner = append(n.inner, v)
		default:
			n.inner = append(n.inner, f.element(depth))
		}
	}
	return n
}

func (f *lineFile) element(depth int) *node {
	f.n++
	f.blank()
	n := &node{kind: scalar, line: f.line}
	if f.at >= len(f.b) {
		return n
	}
	switch c := f.b[f.at]; c {
	case '{', '[':
		return f.inline(depth + 1)
	case '"', '\'':
		if end := quoteEnd(f.b[f.at+1:], c); end >= 0 {
			f.at++
			return f.took(n, end, 1)
		}
	}
	from := f.at
	for f.at < len(f.b) && strings.IndexByte(",]}\n", f.b[f.at]) < 0 {
		f.at++
	}
	n.kind, n.text = other, strings.TrimSpace(string(f.b[from:f.at]))
	if f.at == from {
		f.at++
	}
	return n
}

// maxYAML bounds the values of a file that its reader makes, each of which takes a kilobyte.
const maxYAML = 50_000

// parseYAML returns the tree of all documents of a file, or nil when it is none, and when
// it has too many values. Aliases are not followed: what they name is read where it stands.
func parseYAML(b []byte) *node {
	values := bytes.Count(b, []byte("\n")) // each of these begins one at most
	for _, sign := range []string{",", "[", "{", "- ", "? "} {
		values += bytes.Count(b, []byte(sign))
	}
	if values > maxYAML {
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	top := &node{kind: object, line: 1}
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil
		}
		n, ok := fromYAML(&doc, 0)
		if !ok {
			return nil
		}
		if n != nil {
			top.inner = append(top.inner, n)
		}
	}
	at := 0
	for line := range bytes.Lines(b) {
		at++
		if t := bytes.TrimSpace(line); bytes.HasPrefix(t, []byte("#")) {
			top.inner = append(top.inner, &node{kind: comment, text: strings.TrimLeft(string(t), "# "), line: at})
		}
	}
	if len(top.inner) == 1 {
		return top.inner[0]
	}
	return top
}

// fromYAML reports false where values stand too deep.
func fromYAML(y *yaml.Node, depth int) (n *node, ok bool) {
	if depth > maxDepth {
		return nil, false
	}
	n = &node{line: max(1, y.Line)}
	switch y.Kind {
	case yaml.DocumentNode:
		if len(y.Content) == 0 {
			return nil, true
		}
		return fromYAML(y.Content[0], depth+1)
	case yaml.MappingNode:
		n.kind = object
		for i := 0; i+1 < len(y.Content); i += 2 {
			v, ok := fromYAML(y.Content[i+1], depth+1)
			if !ok {
				return nil, false
			}
			if v != nil {
				v.key = y.Content[i].Value
				n.inner = append(n.inner, v)
			}
		}
	case yaml.SequenceNode:
		n.kind = list
		for _, c := range y.Content {
			v, ok := fromYAML(c, depth+1)
			if !ok {
				return nil, false
			}
			if v != nil {
				n.inner = append(n.inner, v)
			}
		}
	case yaml.ScalarNode:
		n.text = y.Value
		switch {
		case strings.HasPrefix(y.Tag, "!") && !strings.HasPrefix(y.Tag, "!!"):
			n.text = y.Tag + " " + y.Value // !vault, !Ref, !secret
			if strings.HasPrefix(y.Tag, "!vault") || strings.HasPrefix(y.Tag, "!encrypted") {
				n.text = ""
			}
		case y.Tag != "!!str":
			n.kind = other
		}
		if y.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
			n.line++
			n.lines = y.Style&yaml.LiteralStyle != 0
		}
	default:
		return nil, true
	}
	return n, true
}

// parseXML returns the tree: elements and attributes by name. A file with a fault gives
// what stands before it, and nil when that is nothing, too much or too deep.
func parseXML(b []byte) *node {
	dec := xml.NewDecoder(bytes.NewReader(b))
	dec.Strict = false
	dec.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	top := &node{kind: object, line: 1}
	stack := []*node{top}
	line, at, made := 1, int64(0), 0
	for {
		tok, err := dec.Token()
		if err != nil {
			break
		}
		if made++; made > maxNodes {
			return nil
		}
		now := min(dec.InputOffset(), int64(len(b)))
		begin := line
		line += bytes.Count(b[at:now], []byte{'\n'})
		at = now
		in := stack[len(stack)-1]
		switch t := tok.(type) {
		case xml.StartElement:
			n := &node{kind: object, key: t.Name.Local, line: line}
			made += len(t.Attr)
			for _, a := range t.Attr {
				n.inner = append(n.inner, &node{kind: scalar, key: a.Name.Local, text: a.Value, line: line})
			}
			in.inner = append(in.inner, n)
			if len(stack) > maxDepth {
				return nil
			}
			stack = append(stack, n)
		case xml.EndElement:
			if len(stack) > 1 {
				if in.key == "dict" {
					nameByKeys(in)
				}
				stack = stack[:len(stack)-1]
			}
		case xml.CharData:
			if text := strings.TrimSpace(string(t)); text != "" {
				lead := bytes.Count(t[:len(t)-len(bytes.TrimLeft(t, " \t\r\n"))], []byte{'\n'})
				in.inner = append(in.inner, &node{kind: scalar, key: "#text", text: text, line: begin + lead, lines: true})
			}
		case xml.Comment:
			in.inner = append(in.inner, &node{kind: comment, text: string(t), line: begin})
		}
	}
	if len(top.inner) == 0 {
		return nil
	}
	return top
}

// nameByKeys gives what stands in a dictionary of a property list the names before them.
func nameByKeys(dict *node) {
	var named []*node
	for i := 0; i < len(dict.inner); i++ {
		n := dict.inner[i]
		if n.key == "key" && i+1 < len(dict.inner) && len(n.inner) == 1 {
			i++
			dict.inner[i].key = n.inner[0].text
			n = dict.inner[i]
		}
		named = append(named, n)
	}
	dict.inner = named
}
