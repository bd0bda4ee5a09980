package gateway

import (
	"context"
	"maps"
	"net/http"
	"time"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/telemetry"
)

// The steps of a call that are the same whatever it is: of a tool, of a raw request,
// or a tunnel.

// entryOf begins what goes on record of an agent's call.
func entryOf(who agent.Identity, action, object, address string) audit.Entry {
	return audit.Entry{Environment: who.Environment(), Organization: who.Organization(), Actor: audit.Actor{Kind: "agent", ID: string(who.Agent())},
		Agent: who.Agent(), User: who.User(), Action: action, Object: printable(object), Address: address}
}

// admitted finds the session of a call, which must be active, now, for this agent,
// and have calls left in its budgets. A refusal is on record.
func (g *Gateway) admitted(ctx context.Context, entry *audit.Entry, who agent.Identity, handle string) (session.Live, error) {
	live, err := g.sessions.Live(ctx, who, handle)
	if entry.Session = live.Session(); live.User() != "" {
		entry.User = live.User()
	}
	if err != nil {
		return session.Live{}, g.refuse(ctx, *entry, "session.live", err)
	}
	if err := g.within(live); err != nil {
		return session.Live{}, g.refuse(ctx, *entry, "session.rate", err)
	}
	return live, nil
}

// permitted decides on exactly this request by grant and policy. A refusal is on
// record; when a person was asked, what the request is about is looked up for them.
func (g *Gateway) permitted(ctx context.Context, seen *telemetry.Call, entry *audit.Entry, live session.Live, target session.Target, req *provider.Request) (session.Permit, error) {
	permit, decided, err := g.sessions.Permit(ctx, live, target, req)
	entry.ArgumentDigest, entry.Rule, entry.Approval = decided.ArgumentDigest, decided.Policy.Rule, decided.Approval
	if entry.Detail == nil {
		entry.Detail = decided.Detail()
	} else {
		maps.Copy(entry.Detail, decided.Detail())
	}
	if err == nil {
		return permit, nil
	}
	err = g.refuse(ctx, *entry, decided.Policy.Rule, err)
	if decided.Asked {
		g.lookUp(ctx, seen, live, target, req, *entry)
	}
	return session.Permit{}, err
}

// settle puts the outcome of a call on record.
func (g *Gateway) settle(ctx context.Context, intent *audit.Intent, started time.Time, a provider.Answer, err error) audit.Outcome {
	o := outcomeOf(ctx, a, err)
	o.Duration = g.now().Sub(started)
	g.audit.Finish(intent, o)
	return o
}

// stream sends a raw request whose intent is durable, and gives its answer while it
// arrives. What x holds is given back when it ends, and now if nothing comes.
func (g *Gateway) stream(x *Exchange, forward func() (*provider.Incoming, error)) (*Exchange, error) {
	x.gateway, x.started = g, g.now()
	in, err := forward()
	if err != nil {
		o := g.settle(x.ctx, x.intent, x.started, provider.Answer{}, err)
		x.giveBack()
		return nil, g.explain(x.ctx, err, x.effect, o)
	}
	x.answered(in)
	return x, nil
}

// attempt is one way of sending a request.
type attempt[A any] struct {
	send    func(provider.Credential) (A, error)
	refused func(A) bool // the provider does not take the credential
	giveUp  func(A)      // an answer that nobody gets
	again   bool         // it can be sent twice
}

// credentialed makes a request with the credential of a permitted call. When the
// provider refuses the credential, it is refreshed once and the request repeated,
// which cannot do anything twice: the provider refused it unread. What it refuses
// after that is the credential, or else this request, and then its 401 is the answer.
func credentialed[A any](ctx context.Context, g *Gateway, seen *telemetry.Call, p session.Permit, a attempt[A]) (none A, err error) {
	seen.Enter(telemetry.Credential)
	cred, version, err := g.credentials.Token(ctx, p)
	if err != nil {
		return none, err
	}
	seen.Enter(telemetry.Upstream)
	answer, err := a.send(cred)
	if fault.Is(err, provider.CodeRefused) { // where it was to buy what the request carries
		if g.credentials.Rejected(ctx, p, version) {
			return none, g.rejected(p)
		}
		return none, fault.New(fault.Unavailable, "upstream_error", "The provider did not take the credential just now.").WithHint("Nothing was sent. Try again later.").WithCause(err)
	}
	if err != nil || !a.refused(answer) {
		return answer, err
	}
	if a.again && g.credentials.Refreshable(ctx, p) {
		a.giveUp(answer)
		seen.Enter(telemetry.Credential)
		if cred, version, err = g.credentials.Refresh(ctx, p, version); err != nil {
			return none, err
		}
		seen.Enter(telemetry.Upstream)
		if answer, err = a.send(cred); err != nil || !a.refused(answer) {
			return answer, err
		}
	}
	if g.credentials.Rejected(ctx, p, version) {
		a.giveUp(answer)
		return none, g.rejected(p)
	}
	return answer, nil
}

func (g *Gateway) rejected(p session.Permit) error {
	return g.connections.MustReconnect(p.Connection(), "The provider no longer accepts the account's credential.")
}

// send makes the request of a tool call.
func (g *Gateway) send(ctx context.Context, seen *telemetry.Call, p session.Permit, t provider.Tool, req *provider.Request) (provider.Answer, error) {
	return credentialed(ctx, g, seen, p, attempt[provider.Answer]{
		send: func(c provider.Credential) (provider.Answer, error) {
			return provider.Call(ctx, g.outbound, p.Pinned(), p.Record(), t, req, c)
		},
		refused: func(a provider.Answer) bool { return a.AuthFailed },
		giveUp:  func(provider.Answer) {},
		again:   true,
	})
}

// forward sends a raw request. A body that was not read whole cannot be sent again.
func (g *Gateway) forward(ctx context.Context, seen *telemetry.Call, p session.Permit, o provider.Outgoing) (*provider.Incoming, error) {
	return credentialed(ctx, g, seen, p, attempt[*provider.Incoming]{
		send: func(c provider.Credential) (*provider.Incoming, error) {
			return provider.Forward(ctx, g.outbound, p.Pinned(), p.Record(), o, c)
		},
		refused: func(in *provider.Incoming) bool { return in.Status == http.StatusUnauthorized },
		giveUp:  func(in *provider.Incoming) { _ = in.Close() },
		again:   o.Whole != nil,
	})
}

// begin makes the intent of a call durable. fence is what a revoke is held against; a
// refusal is on record under rule.
func (g *Gateway) begin(ctx context.Context, entry audit.Entry, fence audit.Fence, rule string) (*audit.Intent, error) {
	entry.Decision = string(policy.Allow)
	intent, err := g.audit.Begin(ctx, entry, fence)
	if err != nil {
		if p, ok := fence.(session.Permit); ok {
			err = unsureApproval(err, p)
		}
		entry.Decision = ""
		return nil, g.refuse(ctx, entry, rule, err)
	}
	return intent, nil
}
