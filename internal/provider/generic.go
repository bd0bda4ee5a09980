package provider

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/policy"
)

// genericTool is one of the three request tools that every provider can have.
type genericTool struct {
	suffix, title, verb string
	effect              policy.Effect
	methods             []string
	body                bool
}

func (r *Record) addGeneric(l *linter) {
	for i, path := range r.Generic.GraphQL {
		l.fixedPath(fmt.Sprintf("generic.graphql[%d]", i), path)
	}
	r.git = l.repositories("generic.git", r.Generic.Git)
	for _, t := range r.tools { // what reads statements is not passed by
		if c := t.plan.classify; c != nil && (c.Language == "sql" || len(r.Generic.GraphQL) == 0) {
			r.refuse = append(r.refuse, accessRule{method: t.plan.method, path: t.plan.path.asRule()})
		}
	}
	for _, g := range []struct {
		on   bool
		tool genericTool
	}{
		{r.Generic.Read, genericTool{"read", "Read anything", "Reads from", policy.Read, []string{"GET", "HEAD"}, false}},
		{r.Generic.Write, genericTool{"write", "Create or change anything", "Creates or changes something at", policy.Write, []string{"POST", "PUT", "PATCH"}, true}},
		{r.Generic.Destructive, genericTool{"destroy", "Change or delete anything", "Changes or deletes something at", policy.Destructive,
			[]string{"DELETE", "POST", "PUT", "PATCH"}, true}},
	} {
		if g.on {
			if len(r.Generic.GraphQL) > 0 && g.tool.effect == policy.Read {
				g.tool.methods, g.tool.body = append(g.tool.methods, "POST"), true
			}
			r.tools = append(r.tools, r.genericTool(l, g.tool))
		}
	}
}

func (r *Record) genericTool(l *linter, g genericTool) Tool {
	t := Tool{
		Name: r.ID + "_" + g.suffix, Provider: r.ID, Title: g.title, Effect: g.effect, Generic: true,
		Output: Output{MaxBytes: defaultMaxBody},
		Description: fmt.Sprintf("%s %s by one HTTP request (%s) to its API at %s. Give the path below that address. "+
			"What makes keys, members, webhooks or permissions is refused here.", g.verb, r.Name, strings.Join(g.methods, ", "), strings.Join(r.API.Base, ", ")),
	}
	p := &plan{cut: r.cutNames(nil), bases: r.API.Base, guard: slices.Concat(r.guard, r.refuse), generic: &genericPlan{effect: g.effect, methods: g.methods, reserved: r.Injection.Query, graphQLPaths: r.Generic.GraphQL, queriesOnly: r.Generic.QueriesOnly, signs: r.Injection}}
	for _, path := range r.Generic.GraphQL {
		if template, problem := parsePath(path, false); problem == "" {
			p.generic.graphQL = append(p.generic.graphQL, accessRule{method: "*", path: template})
		}
	}
	if len(r.Generic.GraphQL) > 0 {
		t.Title += ", also by GraphQL" // which a rule or grant by path does not tell apart
		t.Description += " GraphQL goes to " + strings.Join(r.Generic.GraphQL, ", ") + " as POST: what its query or mutation can change decides."
		if r.Generic.QueriesOnly {
			t.Description += " Only queries pass."
		}
	}
	t.plan = p
	props := map[string]any{
		"method": map[string]any{"type": "string", "enum": g.methods},
		"path":   map[string]any{"type": "string", "maxLength": 8192, "description": `Such as "/items/42"; percent-encode special characters, no query here.`},
		"query": map[string]any{"type": "object", "description": "Query parameters; a list repeats its parameter.", "maxProperties": 100,
			"additionalProperties": map[string]any{
				"type": []string{"string", "number", "boolean", "array"}, "items": map[string]any{"type": []string{"string", "number", "boolean"}},
			}},
	}
	required := []string{"method", "path"}
	if g.effect == policy.Read {
		required = []string{"path"} // GET when not said
	}
	if g.body {
		props["body"] = map[string]any{"type": []string{"object", "array"}, "description": "Sent as JSON."}
	}
	if len(r.API.Base) > 1 {
		props["base"] = map[string]any{"type": "string", "enum": r.API.Base, "description": "Default: " + r.API.Base[0]}
	}
	doc, err := json.Marshal(map[string]any{"type": "object", "properties": props, "required": required})
	if err != nil {
		l.add("generic", "Report this.", "The input schema has no JSON form.")
		return t
	}
	t.Input = p.compileSchema(l, "generic", doc)
	return t
}
