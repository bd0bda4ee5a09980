package main

import (
	"context"
	"os"

	"github.com/ambit-dev/ambit/e2e/world"
)

// broker is one server and an agent with a session on it.
type broker struct {
	*world.World
	agent   *world.Agent
	session *world.Session
	body    []byte // of the measured call
	who     []byte // of one that calls nobody
}

// newBroker sets one up. Stop it, also after an error.
func newBroker(ctx context.Context, cfg world.Config) (*broker, error) {
	b := &broker{World: &world.World{}}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return b, err
	}
	var err error
	if b.World, err = world.New(ctx, cfg); err != nil {
		return b, err
	}
	if b.agent, err = b.Owner.NewAgent(ctx, "bench"); err != nil {
		return b, err
	}
	b.session, err = b.agent.Session(ctx, world.Ask{Providers: []string{"third"}, Effects: []string{"read"}})
	if err != nil {
		return b, err
	}
	if b.who, err = world.ToolCall("whoami", map[string]any{}); err != nil {
		return b, err
	}
	b.body, err = world.ToolCall("third_list", map[string]any{"session": b.session.Handle})
	return b, err
}

func (b *broker) pid() int { return b.Nodes[0].PID() }

// call is the measured call.
func (b *broker) call(ctx context.Context) error { return b.send(ctx, b.body) }

// relayed is the same request as a client of the provider's own sends it.
func (b *broker) relayed(ctx context.Context) error {
	return b.agent.Relays(ctx, b.Nodes[0], "/third/items", b.session.Handle)
}

func (b *broker) send(ctx context.Context, body []byte) error {
	return b.agent.Succeeds(ctx, b.Nodes[0], "third_list", body)
}

// whoami is a call that reaches no third party and writes nothing: what serving MCP
// itself costs.
func (b *broker) whoami(ctx context.Context) error {
	return b.agent.Succeeds(ctx, b.Nodes[0], "whoami", b.who)
}
