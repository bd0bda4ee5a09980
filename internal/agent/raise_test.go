package agent_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/policy"
)

// A9, rule 4: who holds an admin's cookie narrows and disables an agent at once,
// and neither widens nor enables it: that takes a proof over exactly this, once.
func TestWideningAnAgentTakesAProof(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		admin, second := w.Person(t, "admin@example.com", account.RoleAdmin), w.Person(t, "second@example.com", account.RoleAdmin)
		by := account.ByPerson(admin.Signed(t))
		a, _ := w.Service(t, agent.Autonomous, alice.ID)
		read := policy.Ceiling{Effects: []policy.Effect{policy.Read}}
		write := policy.Ceiling{Effects: []policy.Effect{policy.Read, policy.Write}}

		a, err := w.Agents.SetCeiling(ctx, by, a.ID, a.Version, read, account.Agreement{})
		if err != nil {
			t.Fatalf("narrowing: %v", err)
		}
		for name, c := range map[string]policy.Ceiling{"an effect more": write, "no limit": {}, "another effect": {Effects: []policy.Effect{policy.Access}}} {
			_, err := w.Agents.SetCeiling(ctx, by, a.ID, a.Version, c, account.Agreement{})
			refused(t, name, err, "proof_required")
		}
		_, err = w.Agents.SetCeiling(ctx, by, a.ID, a.Version, policy.Ceiling{}, account.Asking())
		need, ok := errors.AsType[*account.Unproven](err)
		if !ok || need.Raise.Organization != w.Organization || need.Raise.Object != string(a.ID) || need.Raise.Version != a.Version {
			t.Fatalf("asked, it says %+v, %v", need, err)
		}
		agreed, err := admin.Agree(t, need.Raise)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Agents.SetCeiling(ctx, by, a.ID, a.Version, write, agreed)
		refused(t, "an agreement to another ceiling", err, "changed_meanwhile")
		_, err = w.Agents.SetCeiling(ctx, account.ByPerson(second.Signed(t)), a.ID, a.Version, policy.Ceiling{}, agreed)
		refused(t, "another's agreement", err, "changed_meanwhile")
		other, _ := w.Service(t, agent.Autonomous, alice.ID)
		_, err = w.Agents.SetCeiling(ctx, by, other.ID, other.Version, read, account.Agreement{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Agents.SetCeiling(ctx, by, other.ID, other.Version+1, policy.Ceiling{}, agreed)
		refused(t, "an agreement for another agent", err, "changed_meanwhile")

		wide, err := w.Agents.SetCeiling(ctx, by, a.ID, a.Version, policy.Ceiling{}, agreed)
		if err != nil || !wide.Ceiling.Allows("any", policy.Access) {
			t.Fatalf("what was agreed to: %+v, %v", wide, err)
		}
		narrow, err := w.Agents.SetCeiling(ctx, by, a.ID, wide.Version, read, account.Agreement{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Agents.SetCeiling(ctx, by, a.ID, a.Version, policy.Ceiling{}, agreed)
		refused(t, "the version that it was agreed for", err, "conflict")
		_, err = w.Agents.SetCeiling(ctx, by, a.ID, narrow.Version, policy.Ceiling{}, agreed)
		refused(t, "the agreement once more", err, "changed_meanwhile")

		off, err := w.Agents.Disable(ctx, by, a.ID)
		if err != nil {
			t.Fatalf("disabling: %v", err)
		}
		_, err = w.Agents.Enable(ctx, by, a.ID, account.Agreement{})
		refused(t, "enabling with the cookie alone", err, "proof_required")
		_, err = w.Agents.Enable(ctx, by, a.ID, agreed)
		refused(t, "enabling with an agreement to something else", err, "changed_meanwhile")
		if err := admin.Do(t, func(ag account.Agreement) error { _, err := w.Agents.Enable(ctx, by, a.ID, ag); return err }); err != nil {
			t.Fatal(err)
		}
		on, err := w.Agents.Get(ctx, by, a.ID)
		if err != nil || off.DisabledAt.IsZero() || !on.DisabledAt.IsZero() {
			t.Errorf("got %+v, %v", on, err)
		}

		// An organization that demands passkeys takes no code for it, whoever asks.
		if _, err := w.Agents.Disable(ctx, by, a.ID); err != nil {
			t.Fatal(err)
		}
		_, err = w.Agents.Enable(ctx, by, a.ID, account.Asking())
		if need, ok = errors.AsType[*account.Unproven](err); !ok {
			t.Fatal(err)
		}
		byCode, err := admin.AgreeByCode(t, w.Clock, need.Raise)
		if err != nil {
			t.Fatal(err)
		}
		o, err := w.Accounts.Organization(ctx, w.Environment, w.Organization)
		if err != nil {
			t.Fatal(err)
		}
		demand := true
		if _, err := w.Accounts.UpdateOrganization(ctx, w.System, o.ID, o.Version, account.OrganizationChange{RequirePasskey: &demand}, account.Agreement{}); err != nil {
			t.Fatal(err)
		}
		_, err = w.Agents.Enable(ctx, by, a.ID, byCode)
		refused(t, "a code from before the demand", err, "passkey_required")

		// Applications and the server itself are not what a stolen cookie is.
		for _, by := range []account.Actor{w.System, account.ByKey(w.Key(t, account.ScopeAgentsRead, account.ScopeAgentsWrite))} {
			b, _ := w.Service(t, agent.Autonomous, alice.ID)
			b, err := w.Agents.SetCeiling(ctx, by, b.ID, b.Version, read, account.Agreement{})
			if err == nil {
				b, err = w.Agents.SetCeiling(ctx, by, b.ID, b.Version, policy.Ceiling{}, account.Agreement{})
			}
			if err == nil {
				_, err = w.Agents.Disable(ctx, by, b.ID)
			}
			if err == nil {
				_, err = w.Agents.Enable(ctx, by, b.ID, account.Agreement{})
			}
			if err != nil {
				t.Errorf("%s: %v", by.Audit().Kind, err)
			}
		}
		if got := w.Actions(t); !slices.Contains(got, "agent.enabled") || !slices.Contains(got, "agent.ceiling_changed") {
			t.Errorf("the audit has %v", got)
		}
	})
}
