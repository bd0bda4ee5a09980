package policy

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/fault"
)

// The most that a grant's limits may say.
const (
	MaxLimits      = 20  // of one grant
	maxLimitValues = 50  // of one limit
	maxLimitValue  = 200 // bytes
	maxArgument    = 100 // bytes
)

// Limit narrows a grant to calls in which one argument of the tool has certain
// values: a repository, a project, an amount. Exactly one of the four conditions
// is set. Several limits must all hold. A call that lacks the argument, or gives
// it as an object, is not within any limit; of a list, every element must be.
type Limit struct {
	Argument string   `json:"argument"`         // its name in the tool's input schema
	Equals   string   `json:"equals,omitempty"` // as text; numbers and booleans as JSON writes them
	OneOf    []string `json:"one_of,omitempty"`
	Prefix   string   `json:"prefix,omitempty"` // see [Limit.Allows] on paths
	Max      *float64 `json:"max,omitempty"`    // for numbers, from 0
}

// Check refuses limits that say nothing, more than one thing, or what a person
// could not read.
func (l Limit) Check() error {
	bad := func(msg string) error {
		return fault.New(fault.Invalid, "invalid_limit", msg).
			WithHint("A limit names an argument of the tools and one of equals, one_of, prefix or max.")
	}
	if !plainText(l.Argument, maxArgument) {
		return bad("A limit names no argument, or a name that is too long.")
	}
	said := 0
	for _, set := range []bool{l.Equals != "", len(l.OneOf) > 0, l.Prefix != "", l.Max != nil} {
		if set {
			said++
		}
	}
	if said != 1 {
		return bad("The limit of " + strconv.Quote(l.Argument) + " must say exactly one thing.")
	}
	if len(l.OneOf) > maxLimitValues {
		return bad(fmt.Sprintf("A limit has at most %d values.", maxLimitValues))
	}
	if l.Max == nil {
		for _, v := range l.Values() {
			if !plainText(v, maxLimitValue) {
				return bad("A value of the limit of " + strconv.Quote(l.Argument) + " is empty, too long, or has letters that nobody can see.")
			}
		}
	}
	if l.Max != nil && (math.IsNaN(*l.Max) || math.IsInf(*l.Max, 0) || *l.Max < 0) {
		return bad("The most that " + strconv.Quote(l.Argument) + " may be is a number from 0.")
	}
	return nil
}

// plainText is text of 1 to most bytes that shows as what it is: a person
// decides by it (threats.md A2).
func plainText(s string, most int) bool {
	return s != "" && len(s) <= most && utf8.ValidString(s) && strings.TrimSpace(s) == s && !strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsPrint(r) || unicode.In(r, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
	})
}

// Allows reports whether a call with these arguments, a JSON object in canonical
// form, is within the limit. A value held against a prefix must not name its
// place in a roundabout way (., .., empty parts, backslashes, percent signs):
// what it begins with would not be where it leads.
func (l Limit) Allows(args map[string]json.RawMessage) bool {
	value, ok := args[l.Argument]
	return ok && l.allows(value, true)
}

func (l Limit) allows(value json.RawMessage, lists bool) bool {
	var list []json.RawMessage
	if lists && json.Unmarshal(value, &list) == nil && list != nil {
		return len(list) > 0 && !slices.ContainsFunc(list, func(v json.RawMessage) bool { return !l.allows(v, false) })
	}
	var v any
	if json.Unmarshal(value, &v) != nil {
		return false
	}
	if l.Max != nil {
		n, ok := number(v)
		return ok && n >= 0 && n <= *l.Max
	}
	text, ok := v.(string)
	if !ok {
		switch v.(type) {
		case float64, bool:
			text = string(value)
		default:
			return false
		}
	}
	switch {
	case l.Equals != "":
		return text == l.Equals
	case len(l.OneOf) > 0:
		return slices.Contains(l.OneOf, text)
	case l.Prefix != "":
		return strings.HasPrefix(text, l.Prefix) && direct(text)
	}
	return false
}

// decimal is a number as text, for tools that take amounts so.
var decimal = regexp.MustCompile(`^[0-9]{1,15}(\.[0-9]{1,15})?$`)

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case string:
		if decimal.MatchString(v) {
			n, err := strconv.ParseFloat(v, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// direct reports whether text names its place in one way only.
func direct(text string) bool {
	if strings.ContainsAny(text, `\%`) || strings.ContainsFunc(text, unicode.IsControl) {
		return false
	}
	parts := strings.Split(text, "/")
	for i, p := range parts {
		if p == "." || p == ".." || p == "" && i > 0 && i < len(parts)-1 {
			return false
		}
	}
	return true
}

// Condition says in words what the limit demands of its argument, before the
// values that Values gives: "is", "is one of", "starts with", "is at most".
func (l Limit) Condition() string {
	switch {
	case len(l.OneOf) > 1:
		return "is one of"
	case l.Prefix != "":
		return "starts with"
	case l.Max != nil:
		return "is at most"
	}
	return "is"
}

// Values are those of the condition, as text.
func (l Limit) Values() []string {
	switch {
	case len(l.OneOf) > 0:
		return l.OneOf
	case l.Prefix != "":
		return []string{l.Prefix}
	case l.Max != nil:
		return []string{strconv.FormatFloat(*l.Max, 'f', -1, 64)}
	}
	return []string{l.Equals}
}

// outside is the first limit that a call with these arguments is not within.
func (g Grant) outside(args json.RawMessage) (Limit, bool) {
	if len(g.Limits) == 0 {
		return Limit{}, false
	}
	var given map[string]json.RawMessage
	if json.Unmarshal(args, &given) != nil {
		given = nil
	}
	for _, l := range g.Limits {
		if !l.Allows(given) {
			return l, true
		}
	}
	return Limit{}, false
}
