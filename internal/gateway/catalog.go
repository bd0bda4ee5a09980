package gateway

import (
	"cmp"
	"context"
	"net/url"
	"slices"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
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
	out := make([]ProviderInfo, 0, len(byID))
	for _, p := range byID {
		if c := who.Ceiling(); len(c.Providers) == 0 || slices.Contains(c.Providers, p.ID) {
			out = append(out, *p)
		}
	}
	slices.SortFunc(out, func(a, b ProviderInfo) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// ConnectURL is where a person connects an account at a provider.
func ConnectURL(public *url.URL, providerID string) string {
	u := public.JoinPath("ui", "connections", "new")
	u.RawQuery = url.Values{"provider": {providerID}}.Encode()
	return u.String()
}
