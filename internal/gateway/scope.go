package gateway

import (
	"context"
	"net/http"
	"slices"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/session"
)

// within refuses a call that could do more than its caller said.
func (c Call) within(effect policy.Effect) error {
	if c.AtMost == "" || policy.Worse(c.AtMost, effect) == c.AtMost {
		return nil
	}
	return fault.New(fault.Denied, "effect_mismatch", "This call is "+string(effect)+", which is more than the tool that you called it with makes.").
		WithHint("Call it by its own name, or with call_write or call_destructive.").With("effect", string(effect))
}

// withinDeclared is within for what a tool declares, before anybody is asked for a
// session. A tool that is not there is somebody else's to refuse.
func (g *Gateway) withinDeclared(ctx context.Context, who agent.Identity, c Call) error {
	if c.AtMost == "" {
		return nil
	}
	tools, err := g.Tools(ctx, who)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(tools, func(t provider.Tool) bool { return t.Name == c.Tool })
	if i < 0 {
		return nil
	}
	return c.within(tools[i].Effect)
}

// lacking says which scopes of the tool the account was not granted, after its
// provider has refused a call. Before that nobody could tell: many a scope
// includes others.
func (g *Gateway) lacking(ctx context.Context, p session.Permit, t provider.Tool, r Result) Result {
	if r.Status != http.StatusForbidden || len(t.Scopes) == 0 {
		return r
	}
	usable, err := g.connections.Usable(ctx, p.Environment(), p.Organization(), p.User(), []string{p.Provider()})
	if err != nil {
		return r // the provider's refusal stands as it is
	}
	i := slices.IndexFunc(usable, func(c connection.Connection) bool { return c.ID == p.Connection() })
	if i < 0 {
		return r
	}
	if r.Lacking = usable[i].Missing(t.Scopes); len(r.Lacking) > 0 {
		r.ConnectURL = g.connections.ReconnectURL(p.Connection())
	}
	return r
}
