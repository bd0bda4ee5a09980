package gateway

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/telemetry"
)

// lookUpFor is how long a look-up may take. The request that it is for is open
// already; only the agent waits.
const lookUpFor = 3 * time.Second

// lookUp asks the provider what a call is about that waits for a person's
// approval. It is on record like any call. What fails is logged: the person is
// then told that nobody could name it.
func (g *Gateway) lookUp(ctx context.Context, seen *telemetry.Call, live session.Live, target session.Target, req *provider.Request, asked audit.Entry) {
	ctx, cancel := context.WithTimeout(ctx, lookUpFor)
	defer cancel()
	permit, tool, look, err := g.sessions.LookUp(live, target, req)
	if err != nil || look == nil {
		g.lookUpFailed(asked, err)
		return
	}
	e := audit.Entry{Environment: asked.Environment, Organization: asked.Organization, Actor: audit.Actor{Kind: "system", ID: "gateway"}, Agent: asked.Agent, User: asked.User,
		Session: asked.Session, Approval: asked.Approval, Connection: asked.Connection, Provider: asked.Provider, Action: "tool.look_up", Object: asked.Tool, Tool: tool.Name,
		Effect: string(policy.Read), ArgumentDigest: permit.ArgumentDigest(), Decision: string(policy.Allow), Rule: "tool.target"}
	running, done := permit.Track(ctx)
	defer done()
	intent, err := g.audit.Begin(ctx, e, permit)
	if err != nil {
		g.lookUpFailed(asked, err)
		return
	}
	started := g.now()
	answer, err := g.send(running, seen, permit, tool, look)
	g.settle(running, intent, started, answer, err)
	if err == nil {
		name, ok := target.Tool.Target.Named(answer)
		if stands := target.Tool.Target.Stands(req, answer); ok || len(stands) > 0 {
			err = g.sessions.Named(ctx, asked.Approval, name, stands)
		}
	}
	g.lookUpFailed(asked, err)
}

func (g *Gateway) lookUpFailed(asked audit.Entry, err error) {
	if err != nil {
		g.log.Warn("the target of a call could not be looked up", "approval", asked.Approval, "tool", asked.Tool, "error", err)
	}
}
