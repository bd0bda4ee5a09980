package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Ceiling is the most that an agent may ever be granted. An empty list sets no
// limit of its kind.
type Ceiling struct {
	Providers []string `json:"providers"`
	Effects   []string `json:"effects"`
}

// Agent is a registered non-human identity.
type Agent struct {
	ID             string    `json:"id"`
	EnvironmentID  string    `json:"environment_id"`
	OrganizationID string    `json:"organization_id"`
	Name           string    `json:"name"`
	Label          string    `json:"label"` // what people decide on
	Verified       bool      `json:"verified"`
	Kind           string    `json:"kind"` // delegated or autonomous
	OwnerID        string    `json:"owner_id"`
	ClientID       string    `json:"client_id"`
	Ceiling        Ceiling   `json:"ceiling"`
	DisabledAt     time.Time `json:"disabled_at,omitzero"`
	MutedUntil     time.Time `json:"muted_until,omitzero"` // nobody is asked for anything by it before
	LastSeenAt     time.Time `json:"last_seen_at,omitzero"`
	CreatedAt      time.Time `json:"created_at"`
	Version        int64     `json:"version"`
}

// NewAgent says which agent to register. It takes an API key: a person
// registers agents in the web UI.
type NewAgent struct {
	OrganizationID string   `json:"organization_id"`
	Name           string   `json:"name"`
	Kind           string   `json:"kind"`
	OwnerID        string   `json:"owner_id"`
	Ceiling        *Ceiling `json:"ceiling,omitempty"`
	Keys           string   `json:"keys,omitempty"` // a JWK Set of public keys, or its address: instead of a secret
	// Workload lets a platform's tokens prove the agent, instead of a secret. Keys are
	// then the platform's, where its issuer does not publish them.
	Workload *Workload `json:"workload,omitempty"`
}

// Workload says whose tokens prove an agent: those that a platform's issuer (iss)
// signs about one subject (sub), or with claims that only this workload's have.
type Workload struct {
	Issuer  string            `json:"issuer,omitempty"` // empty for SPIFFE only
	Subject string            `json:"subject,omitempty"`
	Claims  map[string]string `json:"claims,omitempty"`
}

// MadeAgent is an agent with its client secret, which is shown this once. An agent
// with keys of its own has none.
type MadeAgent struct {
	Agent
	ClientSecret string `json:"client_secret,omitempty"`
}

// AgentFilter selects agents.
type AgentFilter struct {
	OrganizationID string
	OwnerID        string
	Limit          int
	After          string
}

func (f AgentFilter) query() url.Values {
	q := Paging{f.Limit, f.After}.add(url.Values{})
	set(q, "organization_id", f.OrganizationID)
	set(q, "owner_id", f.OwnerID)
	return q
}

// Agents lists agents, newest first.
func (c *Client) Agents(ctx context.Context, f AgentFilter) (Page[Agent], error) {
	return read[Page[Agent]](ctx, c, "/v1/agents", f.query())
}

// CreateAgent registers an agent with client credentials.
func (c *Client) CreateAgent(ctx context.Context, n NewAgent) (MadeAgent, error) {
	return send[MadeAgent](ctx, c, http.MethodPost, "/v1/agents", n, false)
}

// Agent reads one.
func (c *Client) Agent(ctx context.Context, id string) (Agent, error) {
	return read[Agent](ctx, c, "/v1/agents/"+seg(id), nil)
}

// SetCeiling replaces the most that an agent may be granted, if it is still at
// version.
func (c *Client) SetCeiling(ctx context.Context, id string, version int64, ceiling Ceiling) (Agent, error) {
	body := map[string]any{"version": version, "ceiling": map[string]any{"providers": list(ceiling.Providers), "effects": list(ceiling.Effects)}}
	return send[Agent](ctx, c, http.MethodPut, "/v1/agents/"+seg(id)+"/ceiling", body, false)
}

// list is s, never null.
func list(s []string) []string { return append([]string{}, s...) }

// DisableAgent ends an agent's tokens and sessions at once.
func (c *Client) DisableAgent(ctx context.Context, id string) (Agent, error) {
	return send[Agent](ctx, c, http.MethodPost, "/v1/agents/"+seg(id)+"/disable", nil, true)
}

// MuteAgent silences an agent's requests from now on for a time, in whole seconds
// from a minute to 30 days.
func (c *Client) MuteAgent(ctx context.Context, id string, length time.Duration) (Agent, error) {
	return send[Agent](ctx, c, http.MethodPost, "/v1/agents/"+seg(id)+"/mute", map[string]int64{"seconds": int64(length / time.Second)}, true)
}

// UnmuteAgent lets a muted agent ask again.
func (c *Client) UnmuteAgent(ctx context.Context, id string) (Agent, error) {
	return send[Agent](ctx, c, http.MethodPost, "/v1/agents/"+seg(id)+"/unmute", nil, true)
}

// EnableAgent lets a disabled agent get tokens again.
func (c *Client) EnableAgent(ctx context.Context, id string) (Agent, error) {
	return send[Agent](ctx, c, http.MethodPost, "/v1/agents/"+seg(id)+"/enable", nil, true)
}

// RotateAgentSecret replaces an agent's client secret, which is shown this once.
// For overlap, of seven days at most, the old one counts as well.
func (c *Client) RotateAgentSecret(ctx context.Context, id string, overlap time.Duration) (MadeAgent, error) {
	return send[MadeAgent](ctx, c, http.MethodPost, "/v1/agents/"+seg(id)+"/rotate", map[string]int64{"overlap_seconds": int64(overlap / time.Second)}, false)
}

// SetAgentKeys replaces the public keys that an agent signs with: keys is a JWK
// Set or the address of one. With a workload, its platform's tokens prove the agent,
// and keys are the platform's or empty. It starts from the version that was read.
func (c *Client) SetAgentKeys(ctx context.Context, id string, version int64, keys string, w *Workload) (Agent, error) {
	body := struct {
		Version  int64     `json:"version"`
		Keys     string    `json:"keys,omitempty"`
		Workload *Workload `json:"workload,omitempty"`
	}{version, keys, w}
	return send[Agent](ctx, c, http.MethodPut, "/v1/agents/"+seg(id)+"/keys", body, false)
}
