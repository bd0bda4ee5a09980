package gateway

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
)

// ExchangeFor makes one raw request for an application, with the credential of a
// connection that its API key could have vended and need not be given. whom is the
// user for whom the application says that it asks. There is no session, and so
// nobody who approves and nothing that is narrower than the key; what an agent may
// not do this way (make access, bundle, replace the method), an application may
// not either. The rest is as with [Gateway.Exchange].
func (g *Gateway) ExchangeFor(ctx context.Context, by account.Actor, conn id.Connection, whom id.User, r Raw) (*Exchange, error) {
	entry := audit.Entry{Environment: by.Environment(), Organization: by.Organization(), Actor: by.Audit(), User: whom, Connection: conn, Action: "relay.call", Object: string(conn), Address: r.Address,
		Detail: map[string]string{"door": r.Door, "method": printable(r.Method), "key_name": by.Name()}}
	refuse := func(rule string, err error) (*Exchange, error) { return nil, g.refuse(ctx, entry, rule, err) }
	group, name := by.Counted()
	leave, ok, _ := g.running.Enter(group)
	if !ok {
		return nil, fault.New(fault.Limited, "overloaded", "Too many calls are under way.").WithHint("Nothing was sent. Wait, then call again.").WithRetry(time.Second)
	}
	defer leave()
	if err := g.ready(); err != nil {
		return refuse("node.ready", err)
	}
	if err := r.check(); err != nil {
		return refuse("request.shape", err)
	}
	if ok, wait := g.byUser.Allow(group + " " + name); !ok {
		return refuse("key.rate", fault.New(fault.Limited, "rate_limited", "This key makes too many requests.").WithHint("Slow down.").WithRetry(wait))
	}
	loan, err := g.credentials.Lend(ctx, by, conn)
	if err != nil {
		return refuse("key.connection", err)
	}
	c := loan.Connection()
	entry.Organization, entry.Provider = c.Organization, c.Provider
	place := placeIn(c.Pinned, r.URL)
	if place == nil {
		return refuse("connection.place", fault.New(fault.Denied, "destination_denied", "The account is not bound to this place.").WithHint("Use the hosts and paths of the provider's API."))
	}
	entry.Detail["host"] = printable(place.Host)
	first, err := readFirst(r)
	if err != nil {
		return refuse("request.body", err)
	}
	header := provider.ClientHeader(r.Header)
	readings, err := c.Record.Read(provider.Raw{Method: r.Method, URL: place, Header: header, Body: first.first, Whole: first.whole, Socket: r.Upgrade}, c.Pinned.Raw("")...)
	if err != nil {
		return refuse("request.tool", err)
	}
	tool, req := readings[0].Tool, readings[0].Request
	entry.Tool, entry.Effect, entry.Rule = tool.Name, string(policy.Worse(tool.Effect, req.Effect)), "key.scope"
	stay, ok, _ := g.streams.Enter(group)
	if !ok {
		return refuse("streams.full", tooManyAnswers())
	}
	intent, err := g.begin(ctx, entry, loan, "connection.fence")
	if err != nil {
		stay()
		return nil, err
	}
	running, done := context.WithCancel(ctx)
	return g.stream(&Exchange{Event: intent.Event, effect: req.Effect, ctx: running, intent: intent, release: []func(){done, stay}}, func() (*provider.Incoming, error) {
		cred, err := loan.Credential(running, tool)
		if err != nil {
			return nil, err
		}
		return provider.Forward(running, g.outbound, c.Pinned, c.Record, outgoing(r, tool, req, header, first), cred)
	})
}
