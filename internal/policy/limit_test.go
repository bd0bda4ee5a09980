package policy_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/policy"
)

func most(n float64) *float64 { return &n }

// Issue 6, argument limits: what is not plainly within a limit is outside of it.
func TestLimits(t *testing.T) {
	t.Parallel()
	equals := policy.Limit{Argument: "repo", Equals: "acme/site"}
	oneOf := policy.Limit{Argument: "repo", OneOf: []string{"acme/site", "7"}}
	prefix := policy.Limit{Argument: "path", Prefix: "docs/"}
	atMost := policy.Limit{Argument: "amount", Max: most(100)}
	for _, row := range []struct {
		limit policy.Limit
		args  string
		want  bool
	}{
		{equals, `{"repo":"acme/site"}`, true},
		{equals, `{"repo":"acme/site2"}`, false},
		{equals, `{"repo":"Acme/site"}`, false},
		{equals, `{"Repo":"acme/site"}`, false},
		{equals, `{}`, false},
		{equals, `{"repo":null}`, false},
		{equals, `{"repo":{"x":"acme/site"}}`, false},
		{equals, `{"repo":["acme/site"]}`, true},
		{equals, `{"repo":["acme/site","other"]}`, false},
		{equals, `{"repo":[["acme/site"]]}`, false},
		{equals, `{"repo":[]}`, false},
		{oneOf, `{"repo":7}`, true},
		{oneOf, `{"repo":"acme"}`, false},
		{policy.Limit{Argument: "draft", Equals: "true"}, `{"draft":true}`, true},
		{policy.Limit{Argument: "draft", Equals: "true"}, `{"draft":false}`, false},
		{prefix, `{"path":"docs/a/b.md"}`, true},
		{prefix, `{"path":"docs/"}`, true},
		{prefix, `{"path":"doc"}`, false},
		{prefix, `{"path":"docs/../secrets"}`, false},
		{prefix, `{"path":"docs/./a"}`, false},
		{prefix, `{"path":"docs//a"}`, false},
		{prefix, `{"path":"docs/%2e%2e/secrets"}`, false},
		{prefix, `{"path":"docs/..\\secrets"}`, false},
		{atMost, `{"amount":100}`, true},
		{atMost, `{"amount":0}`, true},
		{atMost, `{"amount":100.01}`, false},
		{atMost, `{"amount":1e3}`, false},
		{atMost, `{"amount":-5}`, false}, // what it pays back, nobody said
		{atMost, `{"amount":"99.5"}`, true},
		{atMost, `{"amount":"1e1"}`, false},
		{atMost, `{"amount":"0x10"}`, false},
		{atMost, `{"amount":" 5"}`, false},
		{atMost, `{"amount":[5,500]}`, false},
		{policy.Limit{Argument: "repo"}, `{"repo":"x"}`, false},
	} {
		r := base()
		r.Grant.Limits, r.Arguments = []policy.Limit{row.limit}, json.RawMessage(row.args)
		got := policy.Decide(r)
		if (got.Verdict == policy.Allow) != row.want {
			t.Errorf("%+v with %s: got %+v", row.limit, row.args, got)
		}
		if !row.want && (got.Rule != "grant.limits" || got.Outside == nil) {
			t.Errorf("%+v with %s: the refusal does not name the limit: %+v", row.limit, row.args, got)
		}
	}
	r := base()
	r.Grant.Limits = []policy.Limit{equals, prefix}
	if r.Arguments = json.RawMessage(`{"repo":"acme/site"}`); policy.Decide(r).Verdict != policy.Deny {
		t.Error("one of two limits was enough")
	}
	if r.Arguments = nil; policy.Decide(r).Verdict != policy.Deny {
		t.Error("a call without arguments is within limits")
	}
}

// A2: a limit is what a person decides by, so it holds only what they can read,
// and says one thing.
func TestLimitsThatNobodyCouldRead(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]policy.Limit{
		"nothing":         {Argument: "repo"},
		"no argument":     {Equals: "x"},
		"two things":      {Argument: "repo", Equals: "x", Prefix: "y"},
		"bidi":            {Argument: "repo", Equals: "a\u202eb"},
		"zero width":      {Argument: "repo", Prefix: "a\u200b"},
		"control":         {Argument: "repo", OneOf: []string{"ok", "a\nb"}},
		"tag":             {Argument: "repo\U000E0041", Equals: "x"},
		"empty value":     {Argument: "repo", OneOf: []string{""}},
		"spaces around":   {Argument: "repo", Equals: "x "},
		"too long":        {Argument: "repo", Equals: strings.Repeat("x", 201)},
		"negative":        {Argument: "amount", Max: most(-1)},
		"too many values": {Argument: "repo", OneOf: strings.Split(strings.Repeat("x,", 51)+"x", ",")},
	} {
		if l.Check() == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, l := range []policy.Limit{{Argument: "repo", Equals: "acme/site"}, {Argument: "n", Max: most(0)}, {Argument: "titel", OneOf: []string{"größer", "日本"}}} {
		if err := l.Check(); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
}
