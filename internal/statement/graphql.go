package statement

import (
	"strings"
	"unicode"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"

	"github.com/ambit-dev/ambit/internal/policy"
)

const maxGraphQLTokens = 20_000

// GraphQL tells what a GraphQL document can change: a query reads, a mutation
// writes, unless the name of one of its fields says that it deletes or gives
// access. A subscription, and what cannot be parsed, is destructive. All
// operations of the document count, whichever of them is to run.
func GraphQL(document string) Verdict {
	if len(document) > maxText {
		return destructive("the document cannot be read")
	}
	doc, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: document}, maxGraphQLTokens)
	if err != nil || len(doc.Operations) == 0 {
		return destructive("the document cannot be read")
	}
	out := Verdict{Effect: policy.Read}
	for _, o := range doc.Operations {
		switch o.Operation {
		case ast.Query:
		case ast.Mutation:
			out = out.worse(mutation(doc, o.SelectionSet, map[string]bool{}))
		default:
			out = out.worse(destructive("a " + string(o.Operation) + " does not end"))
		}
	}
	return out
}

// mutation judges the fields at the root of a mutation, through fragments.
func mutation(doc *ast.QueryDocument, set ast.SelectionSet, seen map[string]bool) Verdict {
	out := Verdict{policy.Write, "a mutation changes something"}
	for _, s := range set {
		switch s := s.(type) {
		case *ast.Field:
			out = out.worse(field(s.Name))
		case *ast.InlineFragment:
			out = out.worse(mutation(doc, s.SelectionSet, seen))
		case *ast.FragmentSpread:
			f := doc.Fragments.ForName(s.Name)
			if f == nil {
				return destructive("the document cannot be read")
			}
			if !seen[s.Name] {
				seen[s.Name] = true
				out = out.worse(mutation(doc, f.SelectionSet, seen))
			}
		}
	}
	return out
}

// field judges a mutation by the words of its name. They only make it worse.
func field(name string) Verdict {
	out := Verdict{policy.Write, "the mutation " + name + " changes something"}
	for _, w := range words(name) {
		switch w {
		case "delete", "remove", "destroy", "purge", "erase", "drop", "truncate", "wipe", "bulk":
			out = out.worse(destructive("the mutation " + name + " removes something"))
		case "token", "tokens", "key", "keys", "secret", "secrets", "webhook", "webhooks", "invite", "invites", "invitation", "invitations", "permission", "permissions", "role",
			"roles", "password", "credential", "credentials", "oauth", "collaborator", "collaborators", "member", "members", "membership", "grant", "share", "access", "integration":
			out = out.worse(Verdict{policy.Access, "the mutation " + name + " changes who may do what"})
		}
	}
	return out
}

// words takes apart apiKeyCreate, API_KEY_create and APIKey.
func words(name string) []string {
	var out []string
	var now []rune
	runes := []rune(name)
	end := func() {
		if len(now) > 0 {
			out = append(out, strings.ToLower(string(now)))
		}
		now = nil
	}
	for i, r := range runes {
		if r == '_' {
			end()
			continue
		}
		if unicode.IsUpper(r) && (i > 0 && !unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			end()
		}
		now = append(now, r)
	}
	end()
	return out
}
