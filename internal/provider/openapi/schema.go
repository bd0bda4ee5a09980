package openapi

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/getkin/kin-openapi/openapi3"
)

const (
	maxLevels = 6   // of an argument's schema; what lies deeper is not described
	maxParts  = 400 // of one tool's schemas
	maxEnum   = 200
	maxNote   = 300 // bytes of an argument's description
)

// shaper writes the schemas of one tool.
type shaper struct {
	parts   int
	loose   bool // something was left undescribed
	forbids bool // some schema takes nothing at all
}

// schema writes s in the keywords that a record takes. What those cannot say is
// left out: it makes the tool take more, and the provider still checks.
func (c *shaper) schema(ref *openapi3.SchemaRef, level int) map[string]any {
	out := map[string]any{}
	if ref == nil || ref.Value == nil {
		return out
	}
	s := ref.Value
	if c.parts++; level > maxLevels || c.parts > maxParts {
		c.loose = true
		return out
	}
	if s.Always != nil {
		c.forbids = c.forbids || !*s.Always
		return out
	}
	if types := typesOf(s); len(types) == 1 {
		out["type"] = types[0]
	} else if len(types) > 1 {
		out["type"] = types
	}
	if d := oneLine(s.Description, maxNote); d != "" {
		out["description"] = d
	}
	c.values(s, out)
	bounds(s, out)
	c.inside(s, out, level)
	for keyword, list := range map[string]openapi3.SchemaRefs{"allOf": s.AllOf, "anyOf": s.AnyOf, "oneOf": s.OneOf} {
		var parts []any
		for _, part := range list {
			parts = append(parts, c.schema(part, level+1))
		}
		if len(parts) > 0 {
			// One branch that is not described takes everything, so that of several
			// more than one could fit.
			if keyword == "oneOf" {
				keyword = "anyOf"
				if had, ok := out["anyOf"].([]any); ok {
					parts = append(had, parts...)
				}
			}
			out[keyword] = parts
		}
	}
	return out
}

// typesOf gives the types, null among them when 3.0 calls it nullable.
func typesOf(s *openapi3.Schema) []string {
	var types []string
	if s.Type != nil {
		for _, t := range *s.Type {
			if slices.Contains([]string{"null", "boolean", "object", "array", "number", "string", "integer"}, t) && !slices.Contains(types, t) {
				types = append(types, t)
			}
		}
	}
	if s.Nullable && len(types) > 0 && !slices.Contains(types, "null") {
		types = append(types, "null")
	}
	return types
}

func (c *shaper) values(s *openapi3.Schema, out map[string]any) {
	if n := len(s.Enum); n > 0 && n <= maxEnum && !slices.ContainsFunc(s.Enum, func(v any) bool { return !plainScalar(v) }) {
		out["enum"] = s.Enum
		if s.Nullable && !slices.Contains(s.Enum, nil) {
			out["enum"] = append(slices.Clone(s.Enum), nil)
		}
	}
	if s.Const != nil && plainScalar(s.Const) {
		out["const"] = s.Const
	}
	if f := s.Format; f != "" && len(f) < 40 && oneLine(f, 40) == f {
		out["format"] = f
	}
	if s.Pattern != "" && len(s.Pattern) < 500 && oneLine(s.Pattern, 500) == s.Pattern {
		if _, err := regexp.Compile(s.Pattern); err == nil {
			out["pattern"] = s.Pattern
		}
	}
}

// plainScalar reports whether a value of an enumeration is one that people read
// as it is.
func plainScalar(v any) bool {
	switch v := v.(type) {
	case string:
		return len(v) <= 200 && !strings.ContainsFunc(v, func(r rune) bool { return !printable(r) })
	case nil, bool, float64, int, int64, uint64, json.Number:
		return true
	}
	return false
}

func printable(r rune) bool { return unicode.IsPrint(r) && r != unicode.ReplacementChar }

func bounds(s *openapi3.Schema, out map[string]any) {
	number := func(name string, v *float64) {
		if v != nil {
			out[name] = *v
		}
	}
	count := func(name string, v uint64) {
		if v > 0 && v < 1<<31 {
			out[name] = v
		}
	}
	most := func(name string, v *uint64) {
		if v != nil && *v < 1<<31 {
			out[name] = *v
		}
	}
	number("minimum", s.Min)
	number("maximum", s.Max)
	if s.MultipleOf != nil && *s.MultipleOf > 0 {
		out["multipleOf"] = *s.MultipleOf
	}
	for _, b := range []struct {
		bound openapi3.ExclusiveBound
		name  string
		plain string
	}{{s.ExclusiveMin, "exclusiveMinimum", "minimum"}, {s.ExclusiveMax, "exclusiveMaximum", "maximum"}} {
		switch limit, ok := out[b.plain]; {
		case b.bound.Value != nil:
			out[b.name] = *b.bound.Value
		case b.bound.Bool != nil && *b.bound.Bool && ok: // as 3.0 says it
			out[b.name] = limit
			delete(out, b.plain)
		}
	}
	count("minLength", s.MinLength)
	most("maxLength", s.MaxLength)
	count("minItems", s.MinItems)
	most("maxItems", s.MaxItems)
	count("minProperties", s.MinProps)
	most("maxProperties", s.MaxProps)
	if s.UniqueItems {
		out["uniqueItems"] = true
	}
}

func (c *shaper) inside(s *openapi3.Schema, out map[string]any, level int) {
	if s.Items != nil {
		out["items"] = c.schema(s.Items, level+1)
	}
	if len(s.Properties) > 0 {
		props := map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			p := s.Properties[name]
			if p == nil || p.Value == nil || p.Value.ReadOnly || len(name) > 200 || oneLine(name, 300) != name {
				continue
			}
			props[name] = c.schema(p, level+1)
		}
		out["properties"] = props
		var needs []any
		for _, name := range s.Required {
			if _, ok := props[name]; ok && !slices.Contains(needs, any(name)) {
				needs = append(needs, name)
			}
		}
		if len(needs) > 0 {
			out["required"] = needs
		}
	}
	switch extra := s.AdditionalProperties; {
	case extra.Has != nil && !*extra.Has:
		out["additionalProperties"] = false
	case extra.Schema != nil:
		out["additionalProperties"] = c.schema(extra.Schema, level+1)
	}
}

// flat merges the objects that s is all of. ok is false when s is not plainly an
// object of named members.
func flat(ref *openapi3.SchemaRef, level int) (props map[string]*openapi3.SchemaRef, needs []string, ok bool) {
	if ref == nil || ref.Value == nil || level > maxLevels {
		return nil, nil, false
	}
	s := ref.Value
	if s.Always != nil || len(s.AnyOf) > 0 || len(s.OneOf) > 0 {
		return nil, nil, false
	}
	if types := typesOf(s); len(types) > 0 && types[0] != "object" {
		return nil, nil, false
	}
	props = map[string]*openapi3.SchemaRef{}
	maps.Copy(props, s.Properties)
	needs = slices.Clone(s.Required)
	for _, part := range s.AllOf {
		more, moreNeeds, ok := flat(part, level+1)
		if !ok {
			return nil, nil, false
		}
		for name, p := range more {
			if _, taken := props[name]; !taken {
				props[name] = p
			}
		}
		needs = append(needs, moreNeeds...)
	}
	return props, needs, len(props) > 0
}

// scalar reports whether a value of s fits into a path or a query as one text.
func scalar(ref *openapi3.SchemaRef) bool {
	if ref == nil || ref.Value == nil {
		return true
	}
	for _, list := range []openapi3.SchemaRefs{ref.Value.AllOf, ref.Value.AnyOf, ref.Value.OneOf} {
		if slices.ContainsFunc(list, func(r *openapi3.SchemaRef) bool { return !shallowScalar(r) }) {
			return false
		}
	}
	return shallowScalar(ref)
}

func shallowScalar(ref *openapi3.SchemaRef) bool {
	if ref == nil || ref.Value == nil {
		return true
	}
	for _, t := range typesOf(ref.Value) {
		if t == "array" || t == "object" {
			return false
		}
	}
	return len(ref.Value.Properties) == 0
}
