package policy_test

import (
	"testing"

	"github.com/ambit-dev/ambit/internal/policy"
)

func base() policy.Request {
	return policy.Request{
		Grant:    policy.Grant{Provider: "tracker", Effects: []policy.Effect{policy.Read, policy.Write}, Confirm: policy.ConfirmDestructive},
		Provider: "tracker", Tool: "tracker_list", Effect: policy.Read, ToolApproved: true,
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name   string
		change func(*policy.Request)
		want   policy.Verdict
		code   string
	}{
		{"granted read", func(*policy.Request) {}, policy.Allow, ""},
		{"granted write", func(r *policy.Request) { r.Effect = policy.Write }, policy.Allow, ""},
		{"write that must be confirmed", func(r *policy.Request) { r.Effect, r.Grant.Confirm = policy.Write, policy.ConfirmWrite }, policy.NeedApproval, "approval_required"},
		{"effect not granted", func(r *policy.Request) { r.Effect = policy.Destructive }, policy.Deny, "not_granted"},
		{"other provider", func(r *policy.Request) { r.Provider = "bank" }, policy.Deny, "not_granted"},
		{"tool outside the list", func(r *policy.Request) { r.Grant.Tools = []string{"tracker_get"} }, policy.Deny, "not_granted"},
		{"tool changed since approval", func(r *policy.Request) { r.ToolApproved = false }, policy.Deny, "approval_stale"},
		{"above the agent's ceiling", func(r *policy.Request) { r.Ceiling.Providers = []string{"bank"} }, policy.Deny, "not_granted"},
		{"destructive", func(r *policy.Request) { grant(r, policy.Destructive) }, policy.NeedApproval, "approval_required"},
		{"destructive, approved", func(r *policy.Request) { grant(r, policy.Destructive); r.CallApproved = true }, policy.Allow, ""},
		{"destructive, no confirmation asked", func(r *policy.Request) { grant(r, policy.Destructive); r.Grant.Confirm = policy.ConfirmNone }, policy.Allow, ""},
		{"access, no confirmation asked", func(r *policy.Request) { grant(r, policy.Access); r.Grant.Confirm = policy.ConfirmNone }, policy.NeedApproval, "approval_required"},
		{"access through a generic tool", func(r *policy.Request) { grant(r, policy.Access); r.Generic, r.CallApproved = true, true }, policy.Deny, "access_refused"},
		{"zero request", func(r *policy.Request) { *r = policy.Request{} }, policy.Deny, "not_granted"},
	}
	for _, row := range rows {
		r := base()
		row.change(&r)
		if got := policy.Decide(r); got.Verdict != row.want || got.Code != row.code || got.Rule == "" {
			t.Errorf("%s: got %+v, want %s %q", row.name, got, row.want, row.code)
		}
	}
}

func grant(r *policy.Request, e policy.Effect) {
	r.Effect = e
	r.Grant.Effects = append(r.Grant.Effects, e)
}

// Taking something away from a request never turns a refusal into a call.
func FuzzDecideIsMonotone(f *testing.F) {
	f.Add(uint16(0), uint8(0))
	f.Fuzz(func(t *testing.T, bits uint16, drop uint8) {
		r := base()
		r.Effect = policy.Effects()[bits&3]
		r.Grant.Effects = nil
		for i, e := range policy.Effects() {
			if bits>>(2+i)&1 == 1 {
				r.Grant.Effects = append(r.Grant.Effects, e)
			}
		}
		r.Grant.Confirm = []policy.Confirm{policy.ConfirmNone, policy.ConfirmDestructive, policy.ConfirmWrite, ""}[bits>>6&3]
		r.Generic, r.CallApproved, r.ToolApproved = bits>>8&1 == 1, bits>>9&1 == 1, bits>>10&1 == 1
		if bits>>11&1 == 1 {
			r.Ceiling.Effects = []policy.Effect{policy.Read}
		}
		before := policy.Decide(r)
		switch drop & 3 {
		case 0:
			r.CallApproved = false
		case 1:
			r.ToolApproved = false
		case 2:
			if n := len(r.Grant.Effects); n > 0 {
				r.Grant.Effects = r.Grant.Effects[:n-1]
			}
		case 3:
			r.Ceiling = policy.Ceiling{Providers: []string{"elsewhere"}}
		}
		if after := policy.Decide(r); before.Verdict != policy.Allow && after.Verdict == policy.Allow {
			t.Errorf("less authority allowed more: %+v then %+v", before, after)
		}
	})
}

// A ceiling is within another exactly if it allows nothing that the other does
// not, over every pair of small ceilings.
func TestCeilingWithin(t *testing.T) {
	t.Parallel()
	providers := []string{"a", "b", "elsewhere"}
	var all []policy.Ceiling
	for p := range 4 {
		for e := range 16 {
			var c policy.Ceiling
			for i, name := range providers[:2] {
				if p&(1<<i) != 0 {
					c.Providers = append(c.Providers, name)
				}
			}
			for i, effect := range policy.Effects() {
				if e&(1<<i) != 0 {
					c.Effects = append(c.Effects, effect)
				}
			}
			all = append(all, c)
		}
	}
	unknown := policy.Effect("of a later version")
	for _, c := range all {
		for _, other := range all {
			want := true
			for _, p := range providers {
				for _, e := range append(policy.Effects(), unknown) {
					want = want && (!c.Allows(p, e) || other.Allows(p, e))
				}
			}
			if got := c.Within(other); got != want {
				t.Errorf("%v within %v: got %v, want %v", c, other, got, want)
			}
		}
	}
}
