package vault_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

// T2: every way to a secret decides alike, by verb, name and key context; without
// a rule there is nothing (issue 4, default deny).
func TestReach(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		whole := newCaller()
		objects := map[string]vault.Object{}
		for name, items := range map[string]map[string]string{"prod/db": {"region": "eu"}, "prod/api": nil, "test/db": {"region": "eu", "tier": "1"}, "other": {"region": "us"}} {
			objects[name] = mustCreate(t, n, whole, name, items, "v")
		}
		eu := map[string]string{"region": "eu"}
		for what, x := range map[string]struct {
			rules []vault.Rule
			want  string // what it lists
		}{
			"nothing":   {nil, ""},
			"all":       {[]vault.Rule{{Verbs: vault.Verbs()}}, "other prod/api prod/db test/db"},
			"prefix":    {[]vault.Rule{{Verbs: vault.Verbs(), Prefix: "prod/"}}, "prod/api prod/db"},
			"context":   {[]vault.Rule{{Verbs: vault.Verbs(), Context: eu}}, "prod/db test/db"},
			"both":      {[]vault.Rule{{Verbs: vault.Verbs(), Prefix: "prod/", Context: eu}}, "prod/db"},
			"either":    {[]vault.Rule{{Verbs: vault.Verbs(), Prefix: "oth"}, {Verbs: vault.Verbs(), Prefix: "test/", Context: map[string]string{"tier": "1", "region": "eu"}}}, "other test/db"},
			"read only": {[]vault.Rule{{Verbs: []vault.Verb{vault.Read}, Prefix: "prod/"}}, ""},
			"list only": {[]vault.Rule{{Verbs: []vault.Verb{vault.List}, Prefix: "prod/"}}, "prod/api prod/db"},
		} {
			c := whole
			c.Reach = vault.Within(x.rules)
			page, err := n.List(t.Context(), c, vault.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, o := range page.Objects {
				names = append(names, o.Name)
			}
			slices.Sort(names)
			if got := strings.Join(names, " "); got != x.want {
				t.Errorf("%s: lists %q, want %q", what, got, x.want)
			}
			for name, o := range objects {
				verbs := map[vault.Verb]bool{}
				knows := false
				for _, r := range x.rules {
					if strings.HasPrefix(name, r.Prefix) && covers(r.Context, o.Context) {
						knows = true
						for _, v := range r.Verbs {
							verbs[v] = true
						}
					}
				}
				for how, try := range map[string]struct {
					verb vault.Verb
					err  error
				}{
					"get": {vault.Read, third(n.Get(t.Context(), c, o.ID))}, "by name": {vault.Read, third(n.GetByName(t.Context(), c, name))},
					"version":  {vault.Read, third(n.GetVersion(t.Context(), c, o.ID, o.VersionID))},
					"describe": {vault.List, second(n.Describe(t.Context(), c, o.ID))}, "describe by name": {vault.List, second(n.DescribeByName(t.Context(), c, name))},
					"versions": {vault.List, second(n.Versions(t.Context(), c, o.ID))}, "any": {vault.List, second(n.DescribeAny(t.Context(), c, o.ID))},
					"update": {vault.Write, second(n.Update(t.Context(), c, o.ID, text("w"), ""))}, "change": {vault.Write, second(n.Change(t.Context(), c, o.ID, vault.Edit{Description: ptr("d")}))},
					"restore":  {vault.Write, second(n.Restore(t.Context(), c, o.ID, o.VersionID, ""))},
					"delete":   {vault.Delete, second(n.Delete(t.Context(), c, o.ID, "no such version"))},
					"undelete": {vault.Delete, second(n.Undelete(t.Context(), c, o.ID))},
				} {
					switch {
					case verbs[try.verb] && try.err != nil && !fault.Is(try.err, "version_mismatch"):
						t.Errorf("%s: %s of %s: got %v", what, how, name, try.err)
					case !verbs[try.verb] && knows && !fault.Is(try.err, "not_allowed"):
						t.Errorf("%s: %s of %s: got %v, want not_allowed", what, how, name, try.err)
					case !knows && fault.KindOf(try.err) != fault.NotFound:
						t.Errorf("%s: %s of %s: got %v, want not found", what, how, name, try.err)
					}
				}
			}
		}
		c := whole
		c.Reach = vault.Within([]vault.Rule{{Verbs: []vault.Verb{vault.Write}, Prefix: "prod/", Context: eu}})
		for name, items := range map[string]map[string]string{"test/new": eu, "prod/new": nil, "prod/new2": {"region": "us"}} {
			if _, err := n.Create(t.Context(), c, vault.NewObject{Name: name, Context: items, Value: text("v")}); !fault.Is(err, "not_allowed") {
				t.Errorf("create %s with %v: got %v", name, items, err)
			}
		}
		mustCreate(t, n, c, "prod/new", map[string]string{"region": "eu", "more": "x"}, "v")
	})
}

func covers(want, have map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// G8: two spellings of a rule are one rule.
func TestRulesHaveOneForm(t *testing.T) {
	t.Parallel()
	got, err := vault.CanonicalRules([]vault.Rule{{Verbs: []vault.Verb{vault.Delete, vault.Read, vault.Read}, Prefix: "  cafe\u0301/\ufb01", Context: map[string]string{"e\u0301": "x"}}})
	want := []vault.Rule{{Verbs: []vault.Verb{vault.Read, vault.Delete}, Prefix: "caf\u00e9/fi", Context: map[string]string{"\u00e9": "x"}}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	doc, err := vault.RulesJSON(got)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := vault.RulesOf(doc); err != nil || !cmp.Equal(back, want) {
		t.Errorf("%s: %v %v", doc, back, err)
	}
	for what, r := range map[string]vault.Rule{"no verb": {}, "unknown verb": {Verbs: []vault.Verb{vault.Read, "admin"}}, "invisible": {Verbs: vault.Verbs(), Prefix: "a\u200b"},
		"long": {Verbs: vault.Verbs(), Prefix: strings.Repeat("x", 201)}, "context": {Verbs: vault.Verbs(), Context: map[string]string{"": "x"}},
		// A bug: nothing was left of it, and the key could read everything.
		"white space": {Verbs: vault.Verbs(), Prefix: " \u00a0"}} {
		if _, err := vault.CanonicalRules([]vault.Rule{r}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if _, err := vault.CanonicalRules(make([]vault.Rule, vault.MaxRules+1)); fault.KindOf(err) != fault.Invalid {
		t.Errorf("too many: got %v", err)
	}
}
