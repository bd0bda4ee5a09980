package gateway

import (
	"cmp"
	"context"
	"slices"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/session"
)

// ProviderInfo is a provider as an agent may know it.
type ProviderInfo struct {
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Connected bool            `json:"connected"`
	Accounts  []Account       `json:"accounts,omitempty"`
	Effects   []policy.Effect `json:"effects,omitempty"`
}

// Account is one connected account, by the label that people know it by.
type Account struct {
	Connection string `json:"connection"`
	Label      string `json:"label"`
	State      string `json:"state"`
}

// Tools lists the tools of the accounts that this identity could be granted,
// within its ceiling, sorted by name. It depends on the authorization only.
func (g *Gateway) Tools(ctx context.Context, who agent.Identity) ([]provider.Tool, error) {
	usable, err := g.connections.Usable(ctx, who.Environment(), who.Organization(), who.User(), nil)
	if err != nil {
		return nil, err
	}
	byName := map[string]provider.Tool{}
	for _, c := range usable {
		for _, t := range c.Record.Tools() {
			if who.Ceiling().Allows(c.Provider, t.Effect) {
				byName[t.Name] = t
			}
		}
	}
	out := make([]provider.Tool, 0, len(byName))
	for _, t := range byName {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b provider.Tool) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// Providers lists what could be used, connected or not.
func (g *Gateway) Providers(ctx context.Context, who agent.Identity) ([]ProviderInfo, error) {
	usable, err := g.connections.Usable(ctx, who.Environment(), who.Organization(), who.User(), nil)
	if err != nil {
		return nil, err
	}
	byID := map[string]*ProviderInfo{}
	records, err := g.providers.List(ctx, who.Environment())
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		byID[r.Record.ID] = &ProviderInfo{ID: r.Record.ID, Name: r.Record.Name}
	}
	for _, c := range usable {
		p := byID[c.Provider]
		if p == nil {
			p = &ProviderInfo{ID: c.Provider, Name: c.Record.Name}
			byID[c.Provider] = p
		}
		p.Connected = true
		p.Accounts = append(p.Accounts, Account{Connection: string(c.ID), Label: c.AccountLabel, State: string(c.State)})
		for _, t := range c.Record.Tools() {
			if who.Ceiling().Allows(c.Provider, t.Effect) && !slices.Contains(p.Effects, t.Effect) {
				p.Effects = append(p.Effects, t.Effect)
			}
		}
	}
	if err := g.addBroken(ctx, who, byID); err != nil {
		return nil, err
	}
	out := make([]ProviderInfo, 0, len(byID))
	for _, p := range byID {
		if c := who.Ceiling(); len(c.Providers) == 0 || slices.Contains(c.Providers, p.ID) {
			out = append(out, *p)
		}
	}
	slices.SortFunc(out, func(a, b ProviderInfo) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// addBroken adds the accounts that must be connected again, so that an agent can
// tell one from none.
func (g *Gateway) addBroken(ctx context.Context, who agent.Identity, byID map[string]*ProviderInfo) error {
	broken, err := g.connections.Broken(ctx, who.Environment(), who.Organization(), who.User())
	if err != nil {
		return err
	}
	for _, c := range broken {
		p := byID[c.Provider]
		if p == nil {
			p = &ProviderInfo{ID: c.Provider, Name: c.Record.Name}
			byID[c.Provider] = p
		}
		p.Accounts = append(p.Accounts, Account{Connection: string(c.ID), Label: c.AccountLabel, State: string(c.State)})
	}
	return nil
}

// Connect gives a provider and the page where a person connects an account
// there, or gives the one that does not work a new credential.
func (g *Gateway) Connect(ctx context.Context, who agent.Identity, providerID string) (ProviderInfo, string, error) {
	list, err := g.Providers(ctx, who)
	if err != nil {
		return ProviderInfo{}, "", err
	}
	i := slices.IndexFunc(list, func(p ProviderInfo) bool { return p.ID == providerID })
	if i < 0 {
		return ProviderInfo{}, "", noProvider()
	}
	if p := list[i]; !p.Connected && len(p.Accounts) > 0 {
		return p, g.connections.ReconnectURL(id.Connection(p.Accounts[0].Connection)), nil
	}
	return list[i], g.connections.ConnectURL(who.Organization(), providerID), nil
}

func noProvider() error {
	return fault.New(fault.NotFound, "not_found", "There is no such provider.").WithHint("list_providers shows the ids.")
}

// Request makes a request for a session. What fails for want of an account is
// answered with the page where a person connects one.
func (g *Gateway) Request(ctx context.Context, who agent.Identity, ask session.Ask, address string) (session.Requested, error) {
	asked, err := g.sessions.Request(ctx, who, ask, address)
	switch f := fault.Of(err); {
	case err == nil:
	case f.Code == "tool_not_found":
		err = cmp.Or(g.offered(ctx, who, f.Fields["tool"]), err)
	case f.Code == connection.CodeConnect:
		// A page for what is not there for this agent would help nobody.
		known, kerr := g.Providers(ctx, who)
		if kerr == nil && !slices.ContainsFunc(known, func(p ProviderInfo) bool { return p.ID == f.Fields["provider"] }) {
			err = noProvider()
		}
	}
	return asked, err
}

// offered refuses with the page to connect at when a provider without an
// account has this tool, and the agent could be granted it. It is nil for any
// other tool.
func (g *Gateway) offered(ctx context.Context, who agent.Identity, tool string) error {
	known, err := g.Providers(ctx, who)
	if err != nil {
		return err
	}
	records, err := g.providers.List(ctx, who.Environment())
	if err != nil {
		return err
	}
	for _, r := range records {
		t, ok := r.Record.Tool(tool)
		if ok && who.Ceiling().Allows(r.Record.ID, t.Effect) && slices.ContainsFunc(known, func(p ProviderInfo) bool { return p.ID == r.Record.ID && len(p.Accounts) == 0 }) {
			return g.connections.MustConnect(who.Organization(), r.Record.ID)
		}
	}
	return nil
}

// NoTool is the refusal of a tool that no account that works offers.
func (g *Gateway) NoTool(ctx context.Context, who agent.Identity, tool string) error {
	return cmp.Or(g.offered(ctx, who, tool), g.sessions.NoTool(ctx, who, tool))
}
