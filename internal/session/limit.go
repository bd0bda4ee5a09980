package session

import (
	"context"
	"fmt"
	"slices"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// argumentsOf gives what each of the tools takes.
func argumentsOf(rec provider.Record, tools []ToolRef) map[string][]string {
	out := make(map[string][]string, len(tools))
	for _, ref := range tools {
		if t, ok := rec.Tool(ref.Name); ok {
			out[ref.Name] = t.Arguments()
		}
	}
	return out
}

// Arguments lists what can be limited in a pending grant: the arguments of its
// tools, each once, those of the most tools first.
func (g Grant) Arguments() []string {
	count := map[string]int{}
	var out []string
	for _, t := range g.Tools {
		for _, name := range g.arguments[t.Name] {
			if count[name]++; count[name] == 1 {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	slices.SortStableFunc(out, func(a, b string) int { return count[b] - count[a] })
	return out
}

// within adds limits to a grant. A tool that does not take a limited argument
// cannot be held to the limit, so the grant no longer covers it.
func (g Grant) within(limits []policy.Limit) Grant {
	if len(limits) == 0 {
		return g
	}
	g.Limits = append(slices.Clone(g.Limits), limits...)
	g.Tools = slices.DeleteFunc(slices.Clone(g.Tools), func(t ToolRef) bool {
		return slices.ContainsFunc(limits, func(l policy.Limit) bool { return !slices.Contains(g.arguments[t.Name], l.Argument) })
	})
	g.Effects = presentEffects(g.Tools)
	return g
}

// limited narrows what was asked for by the limits that the agent asks for
// itself.
func limited(grants []Grant, ask Ask) ([]Grant, error) {
	if len(ask.Limits) == 0 {
		return grants, nil
	}
	several := slices.ContainsFunc(grants, func(g Grant) bool { return g.Provider != grants[0].Provider })
	of := map[string][]policy.Limit{}
	for _, l := range ask.Limits {
		if l.Provider == "" && !several {
			l.Provider = grants[0].Provider
		}
		if !slices.ContainsFunc(grants, func(g Grant) bool { return g.Provider == l.Provider }) {
			return nil, fault.New(fault.Invalid, "invalid_limit", "The limit of "+quote(l.Argument)+" does not say at which of the requested providers it counts.").
				WithHint("Name the provider in the limit.")
		}
		of[l.Provider] = append(of[l.Provider], l.Limit)
	}
	var out []Grant
	for _, g := range grants {
		left := g.within(of[g.Provider])
		for _, t := range g.Tools {
			if slices.Contains(ask.Tools, t.Name) && !slices.Contains(left.Tools, t) {
				return nil, fault.New(fault.Invalid, "invalid_limit", "The tool "+quote(t.Name)+" does not take every argument that is limited.").
					WithHint("describe_tool shows what it takes. Leave the tool or the limit out.")
			}
		}
		if len(left.Tools) > 0 {
			out = append(out, left)
		}
	}
	if len(out) == 0 {
		return nil, fault.New(fault.Invalid, "invalid_limit", "None of the tools takes every argument that is limited.").
			WithHint("describe_tool shows what a tool takes.")
	}
	return out, nil
}

// callsLeft refuses a call of a session whose calls are used up. Only the fence
// decides; this says so before a person is asked about a call that cannot be made.
func (s *Service) callsLeft(ctx context.Context, l Live) error {
	if l.calls == 0 {
		return nil
	}
	used, err := usedCalls(ctx, s.db.Reader(), l.session)
	if err != nil {
		return sqldb.Wrap("count the calls of a session", err)
	}
	if used >= l.calls {
		return callsUsed(l.calls)
	}
	return nil
}

func callsUsed(most int) error {
	return fault.New(fault.Denied, "not_granted", fmt.Sprintf("The %d calls that were approved for this session are used up.", most)).
		WithHint("Request a new session if the task needs more calls, and tell the person why.").With("calls", fmt.Sprint(most))
}

const (
	openCallsSQL   = `insert into session_calls (session_id, used) values ($1, 0)`
	usedCallsSQL   = `select used from session_calls where session_id = $1`
	countCallSQL   = `update session_calls set used = used + 1 where session_id = $1 and used < $2`
	uncountCallSQL = `update session_calls set used = used - 1 where session_id = $1`
)

func openCalls(ctx context.Context, q sqldb.Querier, s id.Session) error {
	_, err := q.ExecContext(ctx, openCallsSQL, s)
	return sqldb.Wrap("count the calls of a session", err)
}

func usedCalls(ctx context.Context, q sqldb.Querier, s id.Session) (used int, err error) {
	err = q.QueryRowContext(ctx, usedCallsSQL, s).Scan(&used)
	return used, err
}

// countCall takes one of the calls of a session. The counter is a row of its own:
// the fence holds the session's row shared, and two calls that both wanted it for
// themselves would wait for each other.
func countCall(ctx context.Context, q sqldb.Querier, s id.Session, most int) error {
	res, err := q.ExecContext(ctx, countCallSQL, s, most)
	return oneRow(res, err, "count a call", callsUsed(most))
}

// uncountCall gives back what countCall took in the same transaction.
func uncountCall(ctx context.Context, q sqldb.Querier, s id.Session) error {
	_, err := q.ExecContext(ctx, uncountCallSQL, s)
	return sqldb.Wrap("count a call", err)
}
