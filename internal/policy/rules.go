package policy

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Schema is what an organization's policies may speak of, in Cedar's own form.
//
//go:embed ambit.cedarschema
var Schema string

// The limits of an organization's policies. Cedar has no loops, so that with them
// what one evaluation costs is bounded.
const (
	MaxPolicies     = 200
	MaxPolicyText   = 32 << 10 // bytes
	maxPolicyDepth  = 50       // of brackets
	maxArgumentText = 16 << 10 // bytes of one argument that policies are told
	maxArguments    = 500
)

// Rules are an organization's policies, compiled. A nil *Rules has no say. They
// are judged on top of a grant: a forbid that holds refuses; where there are
// permits, one of them must hold; where there are none, the grant decides. A
// policy that fails refuses the call, whatever the others say.
type Rules struct {
	version  int64
	policies cedar.PolicyMap
	permits  bool // there is one
	reading  reading
}

// validator holds policies against the schema. It is made once: the schema is
// part of the program.
var validator = sync.OnceValues(func() (*validate.Validator, error) {
	var s schema.Schema
	if err := s.UnmarshalCedar([]byte(Schema)); err != nil {
		return nil, fmt.Errorf("reading the schema of policies: %w", err)
	}
	resolved, err := s.Resolve()
	if err != nil {
		return nil, fmt.Errorf("reading the schema of policies: %w", err)
	}
	return validate.New(resolved), nil
})

// policyName is what @id may say: it goes into the audit.
var policyName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// ParseRules compiles the policies of one version of an organization's text. Each
// is named by its annotation @id, or policy1, policy2 and so on by its place.
// Empty text has no say.
func ParseRules(version int64, text string) (*Rules, error) {
	bad := func(format string, args ...any) (*Rules, error) {
		return nil, fault.New(fault.Invalid, "invalid_policy", fmt.Sprintf(format, args...)).
			WithHint("Nothing was changed. ambit policy schema shows what policies may speak of.")
	}
	if len(text) > MaxPolicyText {
		return bad("The policies are over %d bytes.", MaxPolicyText)
	}
	if depth(text) > maxPolicyDepth {
		return bad("The policies nest more than %d brackets.", maxPolicyDepth)
	}
	list, err := cedar.NewPolicyListFromBytes("policy", []byte(text))
	if err != nil {
		return bad("The policies are not Cedar: %s.", strings.TrimPrefix(err.Error(), "parser error: "))
	}
	if len(list) > MaxPolicies {
		return bad("There are more than %d policies.", MaxPolicies)
	}
	v, err := validator()
	if err != nil {
		return nil, err
	}
	r := &Rules{version: version, policies: cedar.PolicyMap{}, reading: newReading()}
	for i, p := range list {
		name := "policy" + strconv.Itoa(i+1)
		if given, ok := p.Annotations()["id"]; ok {
			name = string(given)
		}
		line := p.Position().Line
		if !policyName.MatchString(name) {
			return bad("Line %d: @id is 1 to 64 letters, digits, dots, dashes and underscores.", line)
		}
		if r.policies[cedar.PolicyID(name)] != nil {
			return bad("Line %d: two policies are named %s.", line, name)
		}
		tree := (*ast.Policy)(p.AST())
		if err := v.Policy(name, tree); err != nil {
			return bad("Line %d: %s does not fit the schema: %s.", line, name, strings.TrimSuffix(err.Error(), "."))
		}
		r.policies[cedar.PolicyID(name)] = p
		r.permits = r.permits || p.Effect() == cedar.Permit
		if err := r.reading.add(cedar.PolicyID(name), tree); err != nil {
			return bad("Line %d: %s cannot be taken: %s.", line, name, err)
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	return r, nil
}

// depth is how deep brackets nest, read without regard to what quotes them.
func depth(text string) int {
	now, most := 0, 0
	for _, c := range []byte(text) {
		switch c {
		case '(', '[', '{':
			now++
			most = max(most, now)
		case ')', ']', '}':
			now--
		}
	}
	return most
}

// Facts are what policies are told about one call.
type Facts struct {
	Agent      string
	AgentLabel string
	Verified   bool
	User       string // for whom the agent acts; empty: nobody
	Connection string
	Provider   string
	Account    string
	Shared     bool
	Tool       string
	Effect     Effect
	Generic    bool
	Arguments  json.RawMessage // a JSON object in canonical form
	// Hidden says that Arguments are not all that the call sends. A generic call
	// whose body is told by its hash alone is so without it.
	Hidden bool
	Time   time.Time
}

// Ruling is what an organization's policies say of one call.
type Ruling struct {
	Allowed bool
	// Policy says which policy decided, and in which version: "3:no-deletes". Where
	// none did by name it is the version alone; empty: there are none.
	Policy string
	Failed bool // a policy could not be evaluated
}

// Judge decides one call.
func (r *Rules) Judge(f Facts) Ruling {
	if r == nil {
		return Ruling{Allowed: true}
	}
	return r.judge(f, r.policies)
}

func (r *Rules) judge(f Facts, among cedar.PolicyMap) Ruling {
	named := func(p cedar.PolicyID) string { return strconv.FormatInt(r.version, 10) + ":" + string(p) }
	entities, req, ok := r.request(f)
	if !ok {
		return Ruling{Policy: strconv.FormatInt(r.version, 10), Failed: true}
	}
	decision, why := cedar.Authorize(among, entities, req)
	slices.SortFunc(why.Reasons, func(a, b cedar.DiagnosticReason) int { return strings.Compare(string(a.PolicyID), string(b.PolicyID)) })
	switch {
	case len(why.Errors) > 0:
		return Ruling{Policy: named(why.Errors[0].PolicyID), Failed: true}
	case len(why.Reasons) > 0:
		return Ruling{Allowed: decision == cedar.Allow, Policy: named(why.Reasons[0].PolicyID)}
	}
	return Ruling{Allowed: !r.permits, Policy: strconv.FormatInt(r.version, 10)}
}

// Verdict of a call whose arguments nobody knows any more.
type Recall string

const (
	RecallAllow   Recall = "allow"
	RecallDeny    Recall = "deny"
	RecallUnknown Recall = "unknown" // it depends on the arguments
)

// Recall judges a call of the past, of which the arguments are not on record.
func (r *Rules) Recall(f Facts) (Recall, string) {
	if r == nil {
		return RecallAllow, ""
	}
	sure := cedar.PolicyMap{}
	var forbids, permits bool // among those that read arguments
	for name, p := range r.policies {
		if r.reading.scopes[name] == nil {
			sure[name] = p
			continue
		}
		forbids, permits = forbids || p.Effect() == cedar.Forbid, permits || p.Effect() == cedar.Permit
	}
	f.Arguments = nil
	got := r.judge(f, sure)
	held := strings.Contains(got.Policy, ":")
	switch {
	case got.Failed, !got.Allowed && held:
		return RecallDeny, got.Policy
	case forbids, permits && !held:
		return RecallUnknown, ""
	case got.Allowed:
		return RecallAllow, got.Policy
	}
	return RecallDeny, got.Policy
}

// request puts a call into Cedar's words. ok is false when policies that may have
// a say read arguments, and those are more, or of another kind, than they can be
// told: what a policy looks for could be hidden there.
func (r *Rules) request(f Facts) (_ cedar.EntityMap, _ cedar.Request, ok bool) {
	str := func(s string) types.Value { return types.String(s) }
	texts, numbers := types.RecordMap{}, types.RecordMap{}
	agent, conn := cedar.NewEntityUID("Agent", types.String(f.Agent)), cedar.NewEntityUID("Connection", types.String(f.Connection))
	prov := cedar.NewEntityUID("Provider", types.String(f.Provider))
	args, nums := cedar.NewEntityUID("Arguments", "call"), cedar.NewEntityUID("Numbers", "call")
	action, call := cedar.NewEntityUID("Action", types.String(f.Effect)), cedar.NewEntityUID("Action", "call")
	at := f.Time.UTC()
	context := types.RecordMap{
		"tool": str(f.Tool), "effect": str(string(f.Effect)), "generic": types.Boolean(f.Generic), "arguments": args, "numbers": nums,
		"now": types.NewDatetime(at), "hour": types.Long(at.Hour()), "weekday": types.Long((int(at.Weekday())+6)%7 + 1),
	}
	entities := cedar.EntityMap{
		agent:  {UID: agent, Attributes: types.NewRecord(types.RecordMap{"label": str(f.AgentLabel), "verified": types.Boolean(f.Verified)})},
		prov:   {UID: prov},
		action: {UID: action, Parents: cedar.NewEntityUIDSet(call)},
		call:   {UID: call},
		conn: {UID: conn, Parents: cedar.NewEntityUIDSet(prov),
			Attributes: types.NewRecord(types.RecordMap{"provider": str(f.Provider), "account": str(f.Account), "shared": types.Boolean(f.Shared)})},
	}
	if f.User != "" {
		user := cedar.NewEntityUID("User", types.String(f.User))
		entities[user], context["user"] = types.Entity{UID: user}, user
	}
	req := cedar.Request{Principal: agent, Action: action, Resource: conn, Context: types.NewRecord(context)}
	if may, _ := cedar.Authorize(r.reading.scopes, entities, req); may {
		if f.Hidden || !flatten(f.Arguments, texts, numbers) || !r.reading.sees(texts, numbers) {
			return nil, cedar.Request{}, false
		}
		if _, hashed := texts[hashedBody]; hashed && f.Generic {
			return nil, cedar.Request{}, false
		}
	}
	entities[args], entities[nums] = types.Entity{UID: args, Tags: types.NewRecord(texts)}, types.Entity{UID: nums, Tags: types.NewRecord(numbers)}
	return entities, req, true
}

// hashedBody is the argument by which a generic call names a body that is not
// told: a form, text, anything but JSON.
const hashedBody = "body_sha256"

// flatten adds the scalars of the arguments by their paths. It reports whether
// all of them found room, each under a path of its own.
func flatten(args json.RawMessage, texts, numbers types.RecordMap) bool {
	if len(args) == 0 {
		return true
	}
	var v any
	if json.Unmarshal(args, &v) != nil {
		return false
	}
	var walk func(path string, v any) bool
	walk = func(path string, v any) bool {
		if len(texts) >= maxArguments {
			return false
		}
		put := func(text string) bool {
			_, twice := texts[types.String(path)]
			texts[types.String(path)] = types.String(text)
			return !twice
		}
		switch v := v.(type) {
		case map[string]any:
			for name, inner := range v {
				if !walk(strings.TrimPrefix(path+"."+name, "."), inner) {
					return false
				}
			}
		case []any:
			for i, inner := range v {
				if !walk(path+"["+strconv.Itoa(i)+"]", inner) {
					return false
				}
			}
		case string:
			if whole := wholeText.FindStringSubmatch(v); whole != nil {
				n, _ := strconv.ParseInt(whole[1], 10, 64) // at most 15 digits: cannot fail
				numbers[types.String(path)] = types.Long(n)
			}
			return put(v)
		case float64:
			if n := int64(v); float64(n) == v && math.Abs(v) <= 1<<53 {
				numbers[types.String(path)] = types.Long(n)
			}
			return put(strconv.FormatFloat(v, 'f', -1, 64))
		case bool:
			return put(strconv.FormatBool(v))
		}
		return true
	}
	return walk("", v)
}
