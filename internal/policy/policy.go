// Package policy decides: may this tool call run, must a person approve it, or
// is it refused. It is pure. Everything that the decision rests on comes in as
// an argument, so the same inputs give the same answer and the answer can be
// replayed from an audit entry.
//
// The order is fixed: what is off stays off, then the agent's ceiling, then the
// grant (effects, tools, limits of arguments), then the organization's policies,
// then the approval that the effect calls for. Whatever no rule allows is denied.
package policy

import (
	"encoding/json"
	"slices"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Effect classes a tool by what a call can change. A provider record declares
// it; hints that an upstream or a client gives never lower it (threats.md A10).
type Effect string

const (
	Read        Effect = "read"
	Write       Effect = "write"
	Destructive Effect = "destructive"
	// Access makes credentials, keys, webhooks, invitations or permissions:
	// what would outlive the session.
	Access Effect = "access"
)

// Effects lists all effects, mildest first.
func Effects() []Effect { return []Effect{Read, Write, Destructive, Access} }

// Worse is the stronger of two effects.
func Worse(a, b Effect) Effect {
	if slices.Index(Effects(), b) > slices.Index(Effects(), a) {
		return b
	}
	return a
}

// ParseEffect reads an effect's name.
func ParseEffect(s string) (Effect, error) {
	if e := Effect(s); slices.Contains(Effects(), e) {
		return e, nil
	}
	return "", fault.New(fault.Invalid, "invalid_effect", "An effect is one of read, write, destructive, access.")
}

// Confirm says which calls of a grant need their own approval. Access calls
// always do, whatever the grant says.
type Confirm string

const (
	ConfirmNone        Confirm = "none"        // no call but access calls
	ConfirmDestructive Confirm = "destructive" // destructive and access calls
	ConfirmWrite       Confirm = "write"       // write, destructive and access calls
)

// ParseConfirm reads a confirm rule's name; empty is ConfirmDestructive.
func ParseConfirm(s string) (Confirm, error) {
	switch c := Confirm(s); c {
	case "":
		return ConfirmDestructive, nil
	case ConfirmNone, ConfirmDestructive, ConfirmWrite:
		return c, nil
	}
	return "", fault.New(fault.Invalid, "invalid_confirm", "Which calls need their own approval is one of none, destructive, write.")
}

// Ceiling is the most that an agent may ever be granted. An empty list of
// providers or effects sets no limit of that kind.
type Ceiling struct {
	Providers []string `json:"providers,omitempty"`
	Effects   []Effect `json:"effects,omitempty"`
}

// Allows reports whether the ceiling leaves room for effect on provider.
func (c Ceiling) Allows(provider string, effect Effect) bool {
	return (len(c.Providers) == 0 || slices.Contains(c.Providers, provider)) &&
		(len(c.Effects) == 0 || slices.Contains(c.Effects, effect))
}

// Within reports whether everything that c allows, other allows too.
func (c Ceiling) Within(other Ceiling) bool {
	return within(c.Providers, other.Providers) && within(c.Effects, other.Effects)
}

// within compares two lists of which an empty one sets no limit.
func within[T comparable](list, other []T) bool {
	if len(other) == 0 || len(list) == 0 {
		return len(other) == 0
	}
	return !slices.ContainsFunc(list, func(v T) bool { return !slices.Contains(other, v) })
}

// Grant is what a person approved for one connection.
type Grant struct {
	Provider string   `json:"provider"`
	Effects  []Effect `json:"effects"`
	Tools    []string `json:"tools,omitempty"` // empty: every tool with a granted effect
	Confirm  Confirm  `json:"confirm"`
	Limits   []Limit  `json:"limits,omitempty"` // of arguments; all must hold
}

// Request is one call, as the caller of Decide found it for this very call.
type Request struct {
	Ceiling  Ceiling
	Grant    Grant
	Provider string
	Tool     string
	Effect   Effect
	Generic  bool // a generic request tool, whose target only the arguments tell
	// Arguments are those of the call, a JSON object in canonical form.
	Arguments json.RawMessage
	// ToolApproved is false when the tool's definition is no longer the one
	// that was approved (product.md rule 5).
	ToolApproved bool
	// Approvals are the kinds of approval that the organization demands.
	Approvals Approvals
	// Rules are the organization's policies, and Facts what they are told.
	Rules *Rules
	Facts Facts
	// CallApproved is true when a person approved exactly this call and the
	// approval is unused.
	CallApproved bool
}

// Verdict is the outcome class of a decision.
type Verdict string

const (
	Allow        Verdict = "allow"
	NeedApproval Verdict = "approval"
	Deny         Verdict = "deny"
)

// Decision says what happens, which rule decided, and the stable code that the
// agent sees when the verdict is not Allow.
type Decision struct {
	Verdict Verdict
	Rule    string
	Code    string
	Policy  string // the organization's policy that had a say, with its version
	Outside *Limit // the limit that the call is not within, where that decided
}

// Decide is the whole policy.
func Decide(r Request) Decision {
	switch {
	case r.Provider != r.Grant.Provider:
		return deny("grant.provider", "not_granted")
	case !r.Ceiling.Allows(r.Provider, r.Effect):
		return deny("agent.ceiling", "not_granted")
	case r.Effect == Access && r.Generic:
		return deny("effect.access_generic", "access_refused")
	case !slices.Contains(r.Grant.Effects, r.Effect):
		return deny("grant.effects", "not_granted")
	case len(r.Grant.Tools) > 0 && !slices.Contains(r.Grant.Tools, r.Tool):
		return deny("grant.tools", "not_granted")
	case !r.ToolApproved:
		return deny("tool.digest", "approval_stale")
	}
	if l, ok := r.Grant.outside(r.Arguments); ok {
		return Decision{Verdict: Deny, Rule: "grant.limits", Code: "not_granted", Outside: &l}
	}
	said := r.Rules.Judge(r.Facts)
	d := Decision{Verdict: Allow, Rule: "grant", Policy: said.Policy}
	switch {
	case said.Failed:
		d.Verdict, d.Rule, d.Code = Deny, "policy.failed", "policy_denied"
	case !said.Allowed:
		d.Verdict, d.Rule, d.Code = Deny, "policy", "policy_denied"
	case needsApproval(r) && r.CallApproved:
		d.Rule = "approval.call"
	case needsApproval(r):
		d.Verdict, d.Rule, d.Code = NeedApproval, "confirm."+string(r.Effect), "approval_required"
	}
	return d
}

func needsApproval(r Request) bool {
	if r.Approvals.Of(r.Effect) != ByGrant {
		return true
	}
	switch r.Effect {
	case Read:
		return false
	case Write:
		return r.Grant.Confirm == ConfirmWrite
	case Destructive:
		return r.Grant.Confirm != ConfirmNone
	}
	return true
}

func deny(rule, code string) Decision { return Decision{Verdict: Deny, Rule: rule, Code: code} }
