// Package statement tells what a statement of SQL or GraphQL can change, from
// its text alone. It errs on the strict side: what it cannot read, does not know,
// or finds written so that two readers could understand two things, is
// destructive. Its answer raises the effect that a tool declares and never lowers
// it.
//
// What the text does not show, nobody can tell from it: a view may call a
// function, a column's type may have a cast of its own, a trigger may do anything.
// Whoever must be sure that nothing is written also runs the statement where
// nothing can be, as the PostgreSQL provider does.
package statement

import "github.com/ambit-dev/ambit/internal/policy"

// Verdict is the effect of a statement and, for people, what decided it.
type Verdict struct {
	Effect policy.Effect
	Why    string // such as "DELETE removes rows"; empty for what only reads
}

func (v Verdict) worse(o Verdict) Verdict {
	if policy.Worse(v.Effect, o.Effect) != v.Effect {
		return o
	}
	return v
}

func destructive(why string) Verdict { return Verdict{policy.Destructive, why} }

const maxText = 1 << 20
