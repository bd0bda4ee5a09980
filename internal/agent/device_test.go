package agent_test

import (
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
)

// device registers a client for devices and begins its grant.
func device(t *testing.T, w *agenttest.World) (agent.Caller, agent.Device) {
	t.Helper()
	c, _, err := w.Agents.RegisterClient(t.Context(), agent.NewClient{Name: "Screen", Grants: []string{agent.GrantDevice, agent.GrantRefresh}, AuthMethod: agent.AuthNone})
	if err != nil {
		t.Fatal(err)
	}
	by := w.Caller(t, agent.ClientAuth{ID: string(c.ID)})
	d, err := w.Agents.BeginDevice(t.Context(), by, "", "203.0.113.9")
	if err != nil {
		t.Fatal(err)
	}
	return by, d
}

func agreeDevice(t *testing.T, w *agenttest.World, p *agenttest.Person, flow id.Flow) {
	t.Helper()
	r, err := w.Agents.PendingAuthorize(t.Context(), flow)
	if err != nil {
		t.Fatal(err)
	}
	c := agent.Consent{Organization: w.Organization, Label: "kitchen screen"}
	me := p.Signed(t)
	to, err := w.Agents.Consent(t.Context(), me, flow, c, p.Prove(t, w.Agents.ConsentDigest(me.User(), r, c), w.Organization))
	if err != nil || to != "" {
		t.Fatalf("agreeing: redirect %q, %v", to, err)
	}
}

// A12: a device gets its tokens when the person who typed its code has agreed,
// once, and is told to wait until then.
func TestDevice(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		by, d := device(t, w)
		poll := func() (agent.Tokens, error) { return w.Agents.ExchangeDevice(ctx, by, d.Code, "") }
		_, err := poll()
		refused(t, "before the person decided", err, "authorization_pending")
		_, err = poll()
		refused(t, "at once again", err, "slow_down")
		w.Clock.Advance(d.Interval)
		_, err = poll()
		refused(t, "after the first interval, which slow_down made longer", err, "slow_down")
		w.Clock.Advance(15 * time.Second)
		_, err = poll()
		refused(t, "slowly", err, "authorization_pending")

		flow, err := w.Agents.FindDevice(ctx, alice.Signed(t), d.UserCode)
		if err != nil {
			t.Fatal(err)
		}
		r, err := w.Agents.OpenAuthorize(ctx, alice.Signed(t), flow)
		if err != nil || account.ShowUserCode(r.UserCode) != d.UserCode || r.Local() {
			t.Fatalf("the page shows %q, want the code %q of the device: %v", r.UserCode, d.UserCode, err)
		}
		agreeDevice(t, w, alice, flow)
		_, err = w.Agents.FindDevice(ctx, alice.Signed(t), d.UserCode)
		refused(t, "a code that was answered", err, "not_found")

		w.Clock.Advance(15 * time.Second)
		other, _ := device(t, w)
		_, err = w.Agents.ExchangeDevice(ctx, other, d.Code, "")
		refused(t, "another client", err, "invalid_grant")
		tokens, err := poll()
		if err != nil || tokens.Refresh.IsZero() {
			t.Fatalf("after the person agreed: %+v, %v", tokens, err)
		}
		who, err := w.Agents.Authenticate(ctx, tokens.Access)
		if err != nil || who.User() != alice.ID || who.Label() != "kitchen screen" {
			t.Errorf("got %+v, %v", who, err)
		}
		_, err = poll()
		refused(t, "the code again", err, "invalid_grant")
		if alive(t, w, tokens.Access) {
			t.Error("a device code that was used twice left its tokens alive")
		}
	})
}

// A12: of many polls at once one gets tokens.
func TestDevicePollsRace(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		by, d := device(t, w)
		flow, err := w.Agents.FindDevice(t.Context(), alice.Signed(t), d.UserCode)
		if err != nil {
			t.Fatal(err)
		}
		agreeDevice(t, w, alice, flow)
		var mu sync.Mutex
		won := 0
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := w.Agents.ExchangeDevice(t.Context(), by, d.Code, ""); err == nil {
					mu.Lock()
					won++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if won != 1 {
			t.Errorf("%d of 8 polls got tokens, want 1", won)
		}
	})
}

// A12: a refusal and the end of the time reach the device; a code lives ten
// minutes, and nobody tries many.
func TestDeviceEnds(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		by, d := device(t, w)
		flow, err := w.Agents.FindDevice(ctx, alice.Signed(t), d.UserCode)
		if err != nil {
			t.Fatal(err)
		}
		if to, err := w.Agents.DenyConsent(ctx, alice.Signed(t), flow); err != nil || to != "" {
			t.Fatalf("denying: %q, %v", to, err)
		}
		_, err = w.Agents.ExchangeDevice(ctx, by, d.Code, "")
		refused(t, "after a refusal", err, "access_denied")

		late, second := device(t, w)
		w.Clock.Advance(10 * time.Minute)
		_, err = w.Agents.ExchangeDevice(ctx, late, second.Code, "")
		refused(t, "after ten minutes", err, "expired_token")
		_, err = w.Agents.FindDevice(ctx, alice.Signed(t), second.UserCode)
		refused(t, "its code", err, "not_found")

		_, third := device(t, w)
		for range 4 {
			_, err = w.Agents.FindDevice(ctx, alice.Signed(t), "BBBB-BBBB")
			refused(t, "a wrong code", err, "not_found")
		}
		_, err = w.Agents.FindDevice(ctx, alice.Signed(t), third.UserCode)
		refused(t, "the right code after five wrong ones", err, "too_many_attempts")

		_, err = w.Agents.BeginDevice(ctx, w.Caller(t, w.Client(t, agent.AuthNone)), "", "")
		refused(t, "a client without the grant", err, "unauthorized_client")
		_, err = w.Agents.ExchangeDevice(ctx, by, secret.FromString("amb_dc_nonsense"), "")
		refused(t, "nonsense", err, "invalid_grant")
		if err := w.Agents.Sweep(ctx); err != nil {
			t.Error(err)
		}
	})
}

// A12, and a bug: a device code that was agreed to before its agent was disabled
// gave tokens once the agent was enabled again.
func TestDisableEndsDeviceCodes(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		by, d := device(t, w)
		flow, err := w.Agents.FindDevice(ctx, alice.Signed(t), d.UserCode)
		if err != nil {
			t.Fatal(err)
		}
		agreeDevice(t, w, alice, flow)
		list, err := w.Agents.List(ctx, w.System, agent.Filter{Environment: w.Environment, Organization: w.Organization, Limit: 1})
		if err != nil || len(list) != 1 {
			t.Fatalf("got %v, %v", list, err)
		}
		if _, err := w.Agents.Disable(ctx, w.System, list[0].ID); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Agents.Enable(ctx, w.System, list[0].ID, account.Agreement{}); err != nil {
			t.Fatal(err)
		}
		_, err = w.Agents.ExchangeDevice(ctx, by, d.Code, "")
		refused(t, "a code from before the agent was disabled", err, "access_denied")
	})
}
