package openapi

import (
	"maps"
	"mime"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/ambit-dev/ambit/internal/provider"
)

const overrides = "A server may take it for the request's method."

// builder makes the input and the request of one tool.
type builder struct {
	draft   *draft
	where   string
	method  string
	shape   shaper
	names   map[string]bool // of arguments that are taken
	input   map[string]any
	needs   []any
	route   string
	holes   map[string]string // name in the path -> argument
	query   map[string]string
	headers map[string]string
	content any
	encode  string
}

// argument takes a name for what the description calls name.
func (b *builder) argument(name, place string) string {
	arg := strings.Trim(strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_') {
			return r
		}
		return '_'
	}, name), "_")
	if arg == "" || arg[0] >= '0' && arg[0] <= '9' || b.names[arg] {
		arg = strings.TrimRight(place+"_"+arg, "_")
	}
	if arg = arg[:min(len(arg), 60)]; b.names[arg] {
		return ""
	}
	b.names[arg] = true
	return arg
}

func (b *builder) take(arg string, schema map[string]any, description string, required bool) {
	if d := oneLine(description, maxNote); d != "" {
		schema["description"] = d
	}
	b.input[arg] = schema
	if required {
		b.needs = append(b.needs, arg)
	}
}

// path names the arguments of the path. Its literal parts stay as they are; what
// a record does not take there, its linter says.
func (b *builder) path(path string) (why string) {
	b.holes = map[string]string{}
	var out strings.Builder
	rest := path
	for {
		before, after, ok := strings.Cut(rest, "{")
		out.WriteString(before)
		if !ok {
			break
		}
		name, tail, ok := strings.Cut(after, "}")
		if !ok || name == "" {
			return "Its path has braces that do not fit."
		}
		if _, twice := b.holes[name]; twice {
			return "Its path names a parameter twice."
		}
		arg := b.argument(name, "path")
		if arg == "" {
			return "Two of its parameters would have one name."
		}
		b.holes[name] = arg
		out.WriteString("{" + arg + "}")
		rest = tail
	}
	b.route = out.String()
	for part := range strings.SplitSeq(b.route, "/") {
		if strings.Count(part, "{") > 1 {
			return "Its path has two parameters in one segment."
		}
	}
	return ""
}

// parameters adds those of the operation and those of its path that it does not
// describe itself.
func (b *builder) parameters(shared, own openapi3.Parameters) (why string) {
	var list []*openapi3.Parameter
	for _, from := range []openapi3.Parameters{own, shared} {
		for _, ref := range from {
			if ref == nil || ref.Value == nil {
				continue
			}
			p := ref.Value
			if !slices.ContainsFunc(list, func(o *openapi3.Parameter) bool { return o.Name == p.Name && o.In == p.In }) {
				list = append(list, p)
			}
		}
	}
	filled := map[string]bool{}
	for _, p := range list {
		if why := b.parameter(p, filled); why != "" {
			if p.Required || p.In == "path" {
				return "Its parameter " + quoted(p.Name) + ": " + why
			}
			b.draft.left(b.where+", "+oneLine(p.In, 20)+" parameter "+oneLine(p.Name, 60), why)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.holes)) {
		if !filled[name] {
			b.take(b.holes[name], map[string]any{"type": "string"}, "", true)
			b.draft.flag(b.where, "Its path takes "+quoted(name)+", which the description does not describe.")
		}
	}
	return ""
}

func (b *builder) parameter(p *openapi3.Parameter, filled map[string]bool) (why string) {
	if p.Schema == nil && len(p.Content) > 0 {
		return "It is a document inside a parameter."
	}
	switch p.In {
	case "path":
		arg, ok := b.holes[p.Name]
		switch {
		case !ok:
			return "The path does not name it."
		case !scalar(p.Schema):
			return "It is no single value."
		case p.Style != "" && p.Style != "simple":
			return "It is written in a way that a record does not know."
		}
		filled[p.Name] = true
		b.take(arg, b.shape.schema(p.Schema, 0), p.Description, true)
	case "query":
		return b.inQuery(p)
	case "header":
		return b.inHeader(p)
	default:
		return "A tool sends no cookies."
	}
	return ""
}

func (b *builder) inQuery(p *openapi3.Parameter) (why string) {
	schema := b.shape.schema(p.Schema, 0)
	if !scalar(p.Schema) {
		inner := p.Schema.Value
		if types := typesOf(inner); len(types) == 0 || types[0] != "array" || !scalar(inner.Items) {
			return "It is no single value and no list of values."
		}
		if p.Style != "" && p.Style != "form" || p.Explode != nil && !*p.Explode {
			separator := map[string]string{"spaceDelimited": "blanks", "pipeDelimited": "the sign |"}[p.Style]
			if separator == "" {
				separator = "commas"
			}
			schema = map[string]any{"type": "string", "description": "Several values, separated by " + separator + "."}
		}
	}
	if p.Name == "" || len(p.Name) > 100 || oneLine(p.Name, 200) != p.Name {
		return "Its name is no plain name."
	}
	if provider.OverridesMethod(p.Name) {
		return overrides
	}
	if b.draft.out.Inject != nil && strings.EqualFold(p.Name, b.draft.out.Inject.Query) {
		return "The credential goes there."
	}
	arg := b.argument(p.Name, "query")
	if arg == "" {
		return "Another of its parameters has the same name."
	}
	if b.query == nil {
		b.query = map[string]string{}
	}
	b.query[p.Name] = "{" + arg + "}"
	note := oneLine(p.Description, maxNote)
	if said, ok := schema["description"].(string); ok && note != "" && said != note {
		note = oneLine(note+" "+said, maxNote)
	}
	b.take(arg, schema, note, p.Required)
	return ""
}

// inHeader takes the few headers that an argument may set, and those that have
// one value only.
func (b *builder) inHeader(p *openapi3.Parameter) (why string) {
	name := strings.ToLower(p.Name)
	if slices.Contains([]string{"accept", "content-type", "authorization"}, name) {
		return "" // OpenAPI says that these are told elsewhere
	}
	if b.headers == nil {
		b.headers = map[string]string{}
	}
	if slices.Contains([]string{"accept-language", "idempotency-key", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "prefer", "range"}, name) && scalar(p.Schema) {
		arg := b.argument(p.Name, "header")
		if arg == "" {
			return "Another of its parameters has the same name."
		}
		b.headers[p.Name] = "{" + arg + "}"
		b.take(arg, b.shape.schema(p.Schema, 0), p.Description, p.Required)
		return ""
	}
	if p.Schema != nil && p.Schema.Value != nil {
		s := p.Schema.Value
		only := s.Const
		if only == nil && len(s.Enum) == 1 {
			only = s.Enum[0]
		}
		if only == nil && p.Required {
			only = s.Default
		}
		if text, ok := only.(string); ok && text != "" && !strings.ContainsAny(text, "{}") && plainName(p.Name) && oneLine(text, 500) == text {
			b.headers[p.Name] = text
			return ""
		}
	}
	return "An argument cannot set this header."
}

// body adds the members of the request body as arguments, or the body as one.
func (b *builder) body(ref *openapi3.RequestBodyRef) (why string) {
	if ref == nil || ref.Value == nil || len(ref.Value.Content) == 0 {
		return ""
	}
	if b.method == "GET" {
		if ref.Value.Required {
			return "It is a GET with a body."
		}
		b.draft.left(b.where+", body", "A GET has none.")
		return ""
	}
	media, encode := mediaOf(ref.Value.Content)
	if media == nil {
		if ref.Value.Required || len(ref.Value.Content) > 0 && b.method == "POST" && len(b.input) == 0 {
			return "Its body is neither JSON nor a form."
		}
		b.draft.left(b.where+", body", "It is neither JSON nor a form.")
		return ""
	}
	b.encode = encode
	props, needs, ok := flat(media.Schema, 0)
	if !ok {
		return b.wholeBody(media, ref.Value)
	}
	content := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(props)) {
		p := props[name]
		required := slices.Contains(needs, name) && ref.Value.Required
		why := ""
		switch {
		case p == nil || p.Value == nil:
			why = "It is not described."
		case p.Value.ReadOnly:
			continue
		case name == "" || len(name) > 100 || oneLine(name, 200) != name || strings.ContainsAny(name, "{}$"):
			why = "Its name is no plain name."
		case provider.OverridesMethod(name):
			why = overrides
		case encode == "form" && !formValue(p):
			why = "A form does not hold it."
		}
		arg := ""
		if why == "" {
			if arg = b.argument(name, "body"); arg == "" {
				why = "Another of its parameters has the same name."
			}
		}
		if why != "" {
			if required {
				return "The field " + quoted(name) + " of its body: " + why
			}
			b.draft.left(b.where+", field "+oneLine(name, 60), why)
			continue
		}
		content[name] = "{" + arg + "}"
		b.take(arg, b.shape.schema(p, 0), "", required)
	}
	if len(content) == 0 {
		b.encode = ""
		return ""
	}
	b.content = content
	return ""
}

func (b *builder) wholeBody(media *openapi3.MediaType, body *openapi3.RequestBody) (why string) {
	if b.encode == "form" {
		return "Its form has no fields that are named."
	}
	arg := b.argument("body", "request")
	if arg == "" {
		return "Another of its parameters is called body."
	}
	b.content = "{" + arg + "}"
	b.take(arg, b.shape.schema(media.Schema, 0), body.Description, body.Required)
	return ""
}

// mediaOf picks what a record can send: JSON before a form.
func mediaOf(content openapi3.Content) (m *openapi3.MediaType, encode string) {
	for _, want := range []string{"json", "form"} {
		for _, name := range slices.Sorted(maps.Keys(content)) {
			media, _, _ := mime.ParseMediaType(name)
			isJSON := media == "application/json" || media == "*/*"
			if content[name] != nil && (want == "json" && isJSON || want == "form" && media == "application/x-www-form-urlencoded") {
				if want == "json" {
					want = ""
				}
				return content[name], want
			}
		}
	}
	return nil, ""
}

// formValue reports whether a form holds values of p: single ones, or a list.
func formValue(p *openapi3.SchemaRef) bool {
	if scalar(p) {
		return true
	}
	types := typesOf(p.Value)
	return len(types) > 0 && types[0] == "array" && scalar(p.Value.Items)
}
