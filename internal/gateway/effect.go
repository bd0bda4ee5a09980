package gateway

import (
	"context"
	"slices"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
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
