package vault

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Verb is one kind of thing that somebody may do with named secrets.
type Verb string

// The verbs. List also describes: names, versions, tags and dates, never values.
const (
	List   Verb = "list"
	Read   Verb = "read"   // values, and decrypting data keys
	Write  Verb = "write"  // make, change, restore, and making data keys
	Delete Verb = "delete" // and take back from deletion
)

// Verbs lists them all.
func Verbs() []Verb { return []Verb{List, Read, Write, Delete} }

// Rule lets a caller do some things with some secrets: those whose name begins
// with Prefix and whose key context has all of the items of Context. A data key
// has no name, so a rule with a prefix never covers one.
type Rule struct {
	Verbs   []Verb            `json:"verbs"`
	Prefix  string            `json:"prefix,omitempty"`
	Context map[string]string `json:"key_context,omitempty"`
}

func (r Rule) covers(name string, items map[string]string) bool {
	if !strings.HasPrefix(name, r.Prefix) {
		return false
	}
	for k, v := range r.Context {
		if got, ok := items[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// MaxRules bounds the rules of one caller.
const MaxRules = 20

// CanonicalRules gives rules in the one form in which they are compared with
// secrets, whose names and contexts are canonical too.
func CanonicalRules(rules []Rule) ([]Rule, error) {
	invalid := func(why string) error {
		return fault.New(fault.Invalid, "invalid_secret_rule", "A rule about secrets is not valid: "+why+".")
	}
	if len(rules) > MaxRules {
		return nil, invalid(fmt.Sprintf("there are over %d of them", MaxRules))
	}
	var out []Rule
	for _, r := range rules {
		c := Rule{}
		for _, v := range Verbs() {
			if slices.Contains(r.Verbs, v) {
				c.Verbs = append(c.Verbs, v)
			}
		}
		if len(c.Verbs) == 0 || slices.ContainsFunc(r.Verbs, func(v Verb) bool { return !slices.Contains(Verbs(), v) }) {
			return nil, invalid("it names one or more of list, read, write and delete")
		}
		var ok bool
		if c.Prefix, ok = spelled(r.Prefix); !ok || utf8.RuneCountInString(c.Prefix) > MaxName {
			return nil, invalid("its prefix cannot begin a name")
		}
		if c.Prefix = strings.TrimLeft(c.Prefix, " "); c.Prefix == "" && r.Prefix != "" {
			return nil, invalid("its prefix is only white space, which would be no bound")
		}
		if len(r.Context) > 0 {
			var err error
			if c.Context, err = canonicalContext(r.Context); err != nil {
				return nil, err
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// Reach is what a caller may do with the secrets that it could see. The zero
// Reach is nothing.
type Reach struct {
	all   bool
	rules []Rule
}

// Everything is the reach of somebody who may do all that the door which let
// them in allows.
func Everything() Reach { return Reach{all: true} }

// All reports whether it is everything.
func (r Reach) All() bool { return r.all }

// Within is the reach that rules give, of which one must cover a secret. The
// rules are canonical. No rules are no reach.
func Within(rules []Rule) Reach { return Reach{rules: rules} }

// may says whether one may do v with a secret of this name and context, and
// whether one may know that it is there.
func (r Reach) may(v Verb, name string, items map[string]string) (may, knows bool) {
	if r.all {
		return true, true
	}
	for _, rule := range r.rules {
		if rule.covers(name, items) {
			knows = true
			may = may || slices.Contains(rule.Verbs, v)
		}
	}
	return may, knows
}

// Lists says whether a secret of this name and context would be in a list.
func (r Reach) Lists(name string, items map[string]string) bool {
	may, _ := r.may(List, name, items)
	return may
}

// narrowed are the rules that let one see a list, or nil and true without bounds.
func (r Reach) narrowed() (rules []Rule, all bool) {
	for _, rule := range r.rules {
		if slices.Contains(rule.Verbs, List) {
			rules = append(rules, rule)
		}
	}
	return rules, r.all
}

// RulesJSON and RulesOf keep rules in a column.
func RulesJSON(rules []Rule) ([]byte, error) {
	if len(rules) == 0 {
		return []byte("[]"), nil
	}
	return json.Marshal(rules)
}

// RulesOf is the inverse of RulesJSON.
func RulesOf(doc []byte) (rules []Rule, err error) {
	if err := json.Unmarshal(doc, &rules); err != nil {
		return nil, fmt.Errorf("reading rules about secrets: %w", err)
	}
	if len(rules) == 0 {
		return nil, nil
	}
	return rules, nil
}
