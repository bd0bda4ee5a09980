package provider

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/jsonschema-go/jsonschema"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// keywords are the parts of JSON Schema 2020-12 that an input may use. There are
// no references: one that leads back to itself would never end.
var keywords = strings.Fields(`type title description properties required additionalProperties items prefixItems enum const default examples
	format pattern minLength maxLength minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minItems maxItems uniqueItems contains
	minContains maxContains minProperties maxProperties propertyNames oneOf anyOf allOf not deprecated`)

// compileSchema checks the input schema, closes it, and returns its canonical
// form.
func (p *plan) compileSchema(l *linter, field string, doc []byte) json.RawMessage {
	var m map[string]any
	if err := json.Unmarshal(doc, &m); err != nil || m["type"] != "object" {
		l.add(field, "Write type: object and list the properties.", "The input is not the schema of an object.")
		return nil
	}
	before := len(l.problems)
	l.keywords(field, m)
	if extra, ok := m["additionalProperties"]; ok && extra != false {
		l.add(field+".additionalProperties", "Remove the line.", "A tool takes only the arguments that it lists.")
	}
	m["additionalProperties"] = false
	props, _ := m["properties"].(map[string]any)
	if props == nil {
		props = map[string]any{}
	}
	m["properties"] = props
	p.names = map[string]bool{}
	for _, name := range sortedKeys(props) {
		if !validArg(name) || name == "session" || name == "connection" {
			l.add(field+".properties."+name, "Rename it; session and connection are taken: the agent says with them which session and which account it means.", "%s cannot name an argument.", quoted(name))
		}
		p.names[name] = true
	}
	required, _ := m["required"].([]any)
	for _, v := range required {
		name, _ := v.(string)
		if !p.names[name] {
			l.add(field+".required", "Add it to properties.", "%s is required but not a property.", quoted(name))
		}
		p.needs = append(p.needs, name)
	}
	if len(l.problems) > before {
		return nil
	}
	canonical, err := strictjson.CanonicalOf(m)
	if err != nil {
		l.add(field, "Correct the schema.", "The schema has no canonical form.")
		return nil
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(canonical, &s); err != nil {
		l.add(field, "Correct the schema.", "The schema is not valid: %.200s", err)
		return nil
	}
	p.schema, err = s.Resolve(&jsonschema.ResolveOptions{ValidateDefaults: true})
	for _, name := range sortedKeys(props) {
		if of, ok := props[name].(map[string]any); ok && of["default"] != nil {
			value, err := strictjson.CanonicalOf(of["default"])
			if err != nil {
				l.add(field+".properties."+name+".default", "Correct it.", "The default has no JSON form.")
			}
			if p.defaults == nil {
				p.defaults = map[string]jsontext.Value{}
			}
			p.defaults[name] = value
		}
	}
	if err != nil {
		l.add(field, "Correct the schema.", "The schema is not valid: %.200s", err)
	}
	return canonical
}

// keywords names every keyword that is not taken.
func (l *linter) keywords(field string, schema any) {
	m, ok := schema.(map[string]any)
	if !ok {
		return
	}
	for _, k := range sortedKeys(m) {
		at := field + "." + k
		if !slices.Contains(keywords, k) {
			l.add(at, "Remove it.", "The keyword %s is not taken in a schema.", quoted(k))
			continue
		}
		switch v := m[k].(type) {
		case map[string]any:
			switch k {
			case "properties":
				for _, name := range sortedKeys(v) {
					l.keywords(at+"."+name, v[name])
				}
			case "items", "additionalProperties", "contains", "propertyNames", "not":
				l.keywords(at, v)
			}
		case []any:
			switch k {
			case "oneOf", "anyOf", "allOf", "prefixItems":
				for i, part := range v {
					l.keywords(fmt.Sprintf("%s[%d]", at, i), part)
				}
			}
		}
	}
}

// validate holds canonical arguments against the schema. The message names the
// argument, never its value. The schema of an upstream server is its own: it need not
// list every argument, and what is not understood here only that server checks.
func (p *plan) validate(args []byte) error {
	var m map[string]any
	if err := json.Unmarshal(args, &m); err != nil || m == nil {
		return badArguments("The arguments are not a JSON object.")
	}
	for _, name := range sortedKeys(m) {
		if p.mcp == nil && !p.names[name] {
			return badArguments(fmt.Sprintf("There is no argument %s.", quoted(name))).WithHint("The arguments are: " + strings.Join(sortedKeys(p.names), ", ") + ".")
		}
	}
	for _, name := range p.needs {
		if _, ok := m[name]; !ok {
			return badArguments(fmt.Sprintf("The argument %q is missing.", name))
		}
	}
	if p.mcp != nil && p.schema == nil {
		return nil
	}
	if err := p.schema.Validate(m); err != nil {
		return badArguments("The argument" + whichArgument(err.Error()) + " does not fit the tool's input schema.")
	}
	return nil
}

func badArguments(msg string) *fault.Error {
	return fault.New(fault.Invalid, "invalid_arguments", msg).WithHint("Read the tool's input schema and correct the arguments.")
}

// whichArgument takes the deepest schema path out of the validator's message.
func whichArgument(text string) string {
	i := strings.LastIndex(text, "/properties/")
	if i < 0 {
		return "s or their combination"
	}
	rest := text[i+len("/properties/"):]
	end := strings.IndexAny(rest, ": ")
	if end < 0 {
		end = len(rest)
	}
	keyword, _, _ := strings.Cut(strings.TrimPrefix(rest[end:], ": "), ":")
	if !slices.Contains(keywords, keyword) {
		return " " + quoted(rest[:end])
	}
	return " " + quoted(rest[:end]) + " (" + keyword + ")"
}
