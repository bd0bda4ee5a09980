package web

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
)

func limitViews(list []policy.Limit) []LimitView {
	var out []LimitView
	for _, l := range list {
		out = append(out, LimitView{Argument: l.Argument, Condition: l.Condition(), Values: l.Values()})
	}
	return out
}

// limitForm is what a person filled in to limit one account further.
func limitForm(form url.Values, c id.Connection) LimitForm {
	field := func(name string) string { return strings.TrimSpace(form.Get("limit." + string(c) + "." + name)) }
	return LimitForm{Argument: field("argument"), Kind: field("kind"), Value: field("value")}
}

// limit is the limit that was filled in; ok is false if none was.
func (f LimitForm) limit() (l policy.Limit, ok bool, err error) {
	if f.Argument == "" && f.Value == "" {
		return policy.Limit{}, false, nil
	}
	bad := func(msg string) (policy.Limit, bool, error) {
		return policy.Limit{}, false, fault.New(fault.Invalid, "invalid_decision", msg).WithHint("Nothing was approved. Fill it in, or leave it empty.")
	}
	if f.Argument == "" || f.Value == "" {
		return bad("The limit that you began does not say of what, or to which value.")
	}
	l.Argument = f.Argument
	switch f.Kind {
	case "prefix":
		l.Prefix = f.Value
	case "max":
		n, err := strconv.ParseFloat(f.Value, 64)
		if err != nil {
			return bad("The most that something may be is a number.")
		}
		l.Max = &n
	case "one_of":
		for v := range strings.SplitSeq(f.Value, ",") {
			l.OneOf = append(l.OneOf, strings.TrimSpace(v))
		}
	default:
		l.Equals = f.Value
	}
	return l, true, l.Check()
}
