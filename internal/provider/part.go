package provider

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"mime"
	"strings"
	"unicode"
)

// partTemplate is one part of a body that is no JSON, compiled.
type partTemplate struct {
	name, filename, media param
	text, base64          string // the argument, or a constant text
	textIsArg             bool
	json                  *bodyTemplate
	uses                  []string
}

// rawBody is a body that is no JSON, written out.
type rawBody struct {
	content []byte
	media   string
	shown   []Field
}

const maxParts = 20

func (r *Record) compileParts(l *linter, field string, s RequestSpec, p *plan, used map[string]bool) {
	if len(s.Body) > 0 {
		l.add(field+".body", "Move it into parts.", "encode: %s takes parts, not a body.", s.Encode)
	}
	if len(s.Parts) == 0 || len(s.Parts) > maxParts {
		l.add(field+".parts", "List what is sent.", "encode: %s needs 1 to %d parts.", s.Encode, maxParts)
	}
	p.encode = s.Encode
	for i, spec := range s.Parts {
		at := fmt.Sprintf("%s.parts[%d]", field, i)
		t := partTemplate{}
		constant := func(name, value string) param {
			v := param{name: name, value: value}
			l.text(at+"."+name, value, 300, false, false)
			if v.arg = l.placeholder(at+"."+name, value, p, used); v.arg != "" {
				t.uses = append(t.uses, v.arg)
			}
			return v
		}
		t.name, t.filename, t.media = constant("name", spec.Name), constant("filename", spec.Filename), constant("type", spec.Type)
		if (s.Encode == "multipart") != (spec.Name != "") || t.name.arg != "" {
			l.add(at+".name", "Name each part of multipart with a constant, and no other.", "The part's name is missing or has no place.")
		}
		if spec.Filename != "" && s.Encode != "multipart" {
			l.add(at+".filename", "Remove it.", "Only a part of multipart has a file name.")
		}
		if t.media.arg == "" && spec.Type != "" && !validMedia(spec.Type) {
			l.add(at+".type", "Write it as text/plain.", "%s is not a media type.", quoted(spec.Type))
		}
		content := 0
		for _, set := range []bool{spec.Text != "", spec.Base64 != "", len(spec.JSON) > 0} {
			if set {
				content++
			}
		}
		if content != 1 {
			l.add(at, "Give one of text, base64 and json.", "The part has no content, or several.")
		}
		t.uses = nil // only content decides whether a part is there
		if spec.Text != "" {
			arg := l.placeholder(at+".text", spec.Text, p, used)
			if t.text, t.textIsArg = arg, arg != ""; arg == "" {
				t.text = spec.Text
			} else {
				t.uses = []string{arg}
			}
		}
		if spec.Base64 != "" {
			if t.base64 = l.placeholder(at+".base64", spec.Base64, p, used); t.base64 == "" {
				l.add(at+".base64", `Write "{content}".`, "The content is not an argument.")
			}
			t.uses = []string{t.base64}
		}
		if len(spec.JSON) > 0 {
			body, problem := parseBody(spec.JSON)
			if problem != "" {
				l.add(at+".json", `A placeholder is a whole value: title: "{title}".`, "The part %s", problem)
				continue
			}
			l.bodyArguments(at+".json", body, p, used)
			t.json, t.uses = body, body.args()
		}
		p.parts = append(p.parts, t)
	}
}

func validMedia(s string) bool {
	media, _, err := mime.ParseMediaType(s)
	kind, sub, ok := strings.Cut(media, "/")
	return err == nil && ok && kind != "" && sub != "" && len(s) <= 200 && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// raw writes the parts that are given.
func (p *plan) raw(args arguments) (*rawBody, error) {
	type part struct {
		header  string
		media   string
		content []byte
	}
	var parts []part
	out := &rawBody{}
	for i, t := range p.parts {
		if absent(t.uses, args) {
			continue
		}
		content, media, shown, err := t.content(args)
		if err != nil {
			return nil, err
		}
		if given, err := oneLine(t.media, args); err != nil {
			return nil, err
		} else if given != "" {
			if !validMedia(given) {
				return nil, badArguments("The argument " + quoted(t.media.arg) + " is not a media type such as text/plain.")
			}
			media = given
		}
		filename, err := oneLine(t.filename, args)
		if err != nil {
			return nil, err
		}
		label := "body"
		if p.encode != "raw" {
			label = fmt.Sprintf("part %d", i+1)
			if t.name.value != "" {
				label = "part " + plainLabel(t.name.value)
			}
		}
		out.shown = append(out.shown, Field{label + " (type)", media})
		if filename != "" {
			out.shown = append(out.shown, Field{label + " (file name)", filename})
		}
		for _, f := range shown {
			out.shown = append(out.shown, Field{strings.TrimSuffix(label+" "+f.Name, " "), f.Value})
		}
		header := ""
		if p.encode == "multipart" {
			header = `Content-Disposition: form-data; name="` + quoteParam(t.name.value) + `"`
			if filename != "" {
				header += `; filename="` + quoteParam(filename) + `"`
			}
			header += "\r\n"
		}
		parts = append(parts, part{header, media, content})
	}
	if p.encode == "raw" {
		if len(parts) != 1 {
			return nil, badArguments("The content is missing, or there is more than one.")
		}
		out.content, out.media = parts[0].content, parts[0].media
		return out, nil
	}
	contents := make([][]byte, len(parts))
	for i, part := range parts {
		contents[i] = part.content
	}
	mark := boundary(contents...)
	var b bytes.Buffer
	for _, part := range parts {
		b.WriteString("--" + mark + "\r\n" + part.header + "Content-Type: " + part.media + "\r\n\r\n")
		b.Write(part.content)
		b.WriteString("\r\n")
	}
	b.WriteString("--" + mark + "--\r\n")
	out.content, out.media = b.Bytes(), "multipart/related; boundary="+mark
	if p.encode == "multipart" {
		out.media = "multipart/form-data; boundary=" + mark
	}
	return out, nil
}

func (t partTemplate) content(args arguments) (content []byte, media string, shown []Field, err error) {
	switch {
	case t.json != nil:
		if content, err = t.json.render(args, false); err != nil {
			return nil, "", nil, err
		}
		if err := bodyNames(content, 0); err != nil {
			return nil, "", nil, err
		}
		readable, err := t.json.render(args, true)
		return content, "application/json; charset=utf-8", flatten(nil, "", readable), err
	case t.base64 != "":
		text, err := argumentText(t.base64, args)
		if err != nil {
			return nil, "", nil, err
		}
		if content, err = base64.StdEncoding.DecodeString(text); err != nil {
			return nil, "", nil, badArguments("The argument " + quoted(t.base64) + " is not base64 (RFC 4648).")
		}
		return content, "application/octet-stream", []Field{{fmt.Sprintf("(base64 of %d bytes)", len(content)), text}}, nil
	case t.textIsArg:
		text, err := argumentText(t.text, args)
		return []byte(text), "text/plain; charset=utf-8", []Field{{"", text}}, err
	}
	return []byte(t.text), "text/plain; charset=utf-8", []Field{{"", t.text}}, nil
}

func argumentText(name string, args arguments) (string, error) {
	values, err := scalars(args[name])
	if err != nil || len(values) != 1 {
		return "", badArguments("The argument " + quoted(name) + " must be text.")
	}
	return values[0], nil
}

// oneLine is a constant, or an argument that holds no line break.
func oneLine(v param, args arguments) (string, error) {
	if v.arg == "" {
		return v.value, nil
	}
	if args[v.arg] == nil {
		return "", nil
	}
	text, err := argumentText(v.arg, args)
	if err == nil && (strings.ContainsFunc(text, unicode.IsControl) || len(text) > 300) {
		err = badArguments("The argument " + quoted(v.arg) + " holds a control character or is over 300 bytes.")
	}
	return text, err
}

// quoteParam writes a name of RFC 7578 as browsers do.
func quoteParam(s string) string {
	return strings.NewReplacer(`"`, "%22", "\r", "%0D", "\n", "%0A", `\`, "%5C").Replace(s)
}

// boundary is one that the contents do not hold: they would have to hold their
// own digest. The same contents have the same, so that a call can be repeated.
func boundary(contents ...[]byte) string {
	h := sha256.New()
	for _, c := range contents {
		fmt.Fprintf(h, "%d:", len(c))
		h.Write(c)
	}
	return "part-" + hex.EncodeToString(h.Sum(nil)[:20])
}
