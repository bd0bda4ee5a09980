package provider

import (
	"reflect"
	"strings"
)

// Schema is the JSON Schema (2020-12) of records, made from the types that read
// them. It knows names, kinds and choices, for editors to complete; what it
// cannot say, [Parse] does.
func Schema() map[string]any {
	s := schemaOf(reflect.TypeFor[Record](), "")
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "Ambit provider record"
	s["required"] = []string{"id", "name", "auth"}
	s["anyOf"] = []map[string]any{{"required": []string{"api"}}, {"required": []string{"mcp"}}} // whose address is its API
	return s
}

func schemaOf(t reflect.Type, enum string) map[string]any {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == reflect.TypeFor[document]() {
		return map[string]any{}
	}
	switch t.Kind() {
	case reflect.Struct:
		props := map[string]any{}
		for f := range t.Fields() {
			if name := f.Tag.Get("yaml"); name != "" {
				props[name] = schemaOf(f.Type, f.Tag.Get("enum"))
			}
		}
		return map[string]any{"type": "object", "properties": props, "additionalProperties": false}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem(), "")}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem(), "")}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	}
	if enum != "" {
		return map[string]any{"type": "string", "enum": strings.Split(enum, ",")}
	}
	return map[string]any{"type": []string{"string", "number", "boolean"}} // YAML reads a bare 1800 as a number, and a text takes it
}
