package provider

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/statement"
)

func (p *plan) compileClassify(l *linter, field string, s *ClassifySpec) {
	if s == nil {
		return
	}
	p.classify = s
	if s.Language != "sql" && s.Language != "graphql" {
		l.add(field+".language", "Use sql or graphql.", "%s is not known.", quoted(s.Language))
	}
	switch known := slices.Contains(statement.Dialects(), statement.Dialect(s.Dialect)); {
	case s.Language == "sql" && s.Dialect == "":
		l.add(field+".dialect", "Use postgres or snowflake. The SQL of others cannot be told apart: leave classify out, and let the tool be destructive.", "The dialect of the SQL is missing.")
	case s.Language == "sql" && !known:
		l.add(field+".dialect", "Use postgres or snowflake.", "%s is no dialect of this language.", quoted(s.Dialect))
	case s.Language != "sql" && s.Dialect != "":
		l.add(field+".dialect", "Leave it out.", "%s is no dialect of this language.", quoted(s.Dialect))
	}
	if p.names != nil && !slices.Contains(p.needs, s.Argument) {
		l.add(field+".argument", "Name a required argument.", "%s is not a required argument.", quoted(s.Argument))
	}
}

// judge tells what the statement of a call can change. ok is false for a call
// that carries none.
func (p *plan) judge(args arguments, d *draft) (v statement.Verdict, ok bool) {
	if p.generic != nil {
		if !p.takesGraphQL(d) {
			return statement.Verdict{}, false
		}
		return graphQL(d), true
	}
	if p.classify == nil {
		return statement.Verdict{}, false
	}
	text, err := argumentText(p.classify.Argument, args)
	switch {
	case err != nil:
		return unreadable(), true
	case p.classify.Language == "sql":
		return statement.SQL(text, statement.Dialect(p.classify.Dialect)), true
	}
	return statement.GraphQL(text), true
}

func queriesOnly() error {
	return accessRefused("Only queries pass at this place, since a mutation could make keys or permissions.")
}

func unreadable() statement.Verdict {
	return statement.Verdict{Effect: policy.Destructive, Why: "the statement cannot be read"}
}

// takesGraphQL reports whether a server could route the request to a path that
// takes GraphQL.
func (p *plan) takesGraphQL(d *draft) bool {
	return refused(p.generic.graphQL, p.bases, d.method, d.base, d.segments)
}

// graphQL judges a generic request by all documents that it may carry: in the
// body, alone or in a batch, and in the query string. One by reference is not
// known.
func graphQL(d *draft) statement.Verdict {
	out, found := statement.Verdict{Effect: policy.Read}, false
	add := func(v statement.Verdict) {
		found = true
		if policy.Worse(out.Effect, v.Effect) != out.Effect {
			out = v
		}
	}
	for _, q := range d.query {
		switch strings.ToLower(q.name) {
		case "query":
			add(statement.GraphQL(q.value))
		case "operationname", "variables":
		default:
			add(unreadable())
		}
	}
	if d.body != nil {
		operations := []jsontext.Value{d.body}
		if operations[0].Kind() == '[' {
			if err := unmarshal(d.body, &operations); err != nil || len(operations) == 0 {
				return unreadable()
			}
		}
		for _, o := range operations {
			add(operation(o))
		}
	}
	if !found {
		return unreadable()
	}
	return out
}

func operation(doc []byte) statement.Verdict {
	list, err := members(doc)
	if err != nil {
		return unreadable()
	}
	out := unreadable()
	for _, m := range list {
		switch m.name {
		case "query":
			var text string
			if unmarshal(m.value, &text) != nil {
				return unreadable()
			}
			out = statement.GraphQL(text)
		case "variables", "operationName":
		default:
			return unreadable()
		}
	}
	return out
}
