package api

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
)

// Ceiling is the most that an agent may ever be granted.
type Ceiling struct {
	Providers []string        `json:"providers,omitempty" nullable:"false" maxItems:"200" doc:"Empty sets no limit."`
	Effects   []policy.Effect `json:"effects,omitempty" nullable:"false" maxItems:"4" enum:"read,write,destructive,access" doc:"Empty sets no limit."`
}

// Agent is a registered non-human identity.
type Agent struct {
	ID             string    `json:"id"`
	EnvironmentID  string    `json:"environment_id"`
	OrganizationID string    `json:"organization_id"`
	Name           string    `json:"name"`
	Label          string    `json:"label" doc:"What people decide on. A name that the agent gave itself is not in it."`
	Verified       bool      `json:"verified" doc:"Named by an admin, or by the person at consent."`
	Kind           string    `json:"kind" enum:"delegated,autonomous"`
	OwnerID        string    `json:"owner_id"`
	ClientID       string    `json:"client_id"`
	Ceiling        Ceiling   `json:"ceiling"`
	DisabledAt     time.Time `json:"disabled_at,omitzero"`
	MutedUntil     time.Time `json:"muted_until,omitzero" doc:"Nobody is asked for anything by it before. May be past."`
	LastSeenAt     time.Time `json:"last_seen_at,omitzero"`
	CreatedAt      time.Time `json:"created_at"`
	Version        int64     `json:"version"`
}

// MadeAgent is an agent with its fresh client secret.
type MadeAgent struct {
	Agent
	ClientSecret string `json:"client_secret,omitempty" doc:"Shown once. An agent with keys of its own has none."`
}

func agentOf(x agent.Agent) Agent {
	return Agent{ID: string(x.ID), EnvironmentID: string(x.Environment), OrganizationID: string(x.Organization), Name: x.Name, Label: x.Label(), Verified: x.Verified,
		Kind: string(x.Kind), OwnerID: string(x.Owner), ClientID: string(x.Client), Ceiling: Ceiling(x.Ceiling),
		DisabledAt: x.DisabledAt, MutedUntil: x.MutedUntil, LastSeenAt: x.LastSeenAt, CreatedAt: x.CreatedAt, Version: x.Version}
}

type agentsInput struct {
	Caller
	Paging
	OrganizationID string `query:"organization_id"`
	OwnerID        string `query:"owner_id"`
}

type newAgentInput struct {
	Caller
	Body struct {
		OrganizationID string   `json:"organization_id"`
		Name           string   `json:"name" minLength:"1" maxLength:"80"`
		Kind           string   `json:"kind" enum:"delegated,autonomous"`
		OwnerID        string   `json:"owner_id" doc:"A member of the organization."`
		Ceiling        Ceiling  `json:"ceiling,omitzero"`
		Keys           string   `json:"keys,omitempty" maxLength:"131072" doc:"A JWK Set of public keys, or the https address of one. The agent then signs assertions (private_key_jwt) and gets no secret."`
		Workload       Workload `json:"workload,omitzero" doc:"A platform whose tokens prove the agent, which then gets no secret. keys are then the platform's, where its issuer publishes none."`
	}
}

// Workload says whose tokens prove an agent.
type Workload struct {
	Issuer  string            `json:"issuer,omitempty" maxLength:"500" doc:"iss of the platform's tokens. Empty only for a SPIFFE id."`
	Subject string            `json:"subject,omitempty" maxLength:"500" doc:"sub of this workload's tokens, whole."`
	Claims  map[string]string `json:"claims,omitempty" doc:"Further claims that must be just so, ten at most."`
}

type rotateAgentInput struct {
	Caller
	Agent string `path:"agent"`
	Body  *struct {
		OverlapSeconds int64 `json:"overlap_seconds,omitempty" minimum:"0" maximum:"604800" doc:"How long the old secret counts beside the new one. Without it, the old one and the tokens that it got end at once."`
	}
}

type agentKeysInput struct {
	Caller
	Agent string `path:"agent"`
	Body  struct {
		Version  int64    `json:"version" doc:"The agent's version that this is based on."`
		Keys     string   `json:"keys,omitempty" maxLength:"131072" doc:"A JWK Set of public keys, or the https address of one: the agent's, or its platform's."`
		Workload Workload `json:"workload,omitzero" doc:"A platform whose tokens prove the agent."`
	}
}

type agentInput struct {
	Caller
	Agent string `path:"agent"`
}

type muteInput struct {
	Caller
	Agent string `path:"agent"`
	Body  struct {
		Seconds int64 `json:"seconds" minimum:"60" maximum:"2592000" doc:"For how long, from now."`
	}
}

type ceilingInput struct {
	Caller
	Agent string `path:"agent"`
	Body  struct {
		Version int64   `json:"version" doc:"The agent's version that this is based on."`
		Ceiling Ceiling `json:"ceiling"`
	}
}

func (a *API) agentRoutes() {
	read := rules{scopes: []account.Scope{account.ScopeAgentsRead}}
	write := rules{scopes: []account.Scope{account.ScopeAgentsWrite}}
	change := rules{scopes: []account.Scope{account.ScopeAgentsRead, account.ScopeAgentsWrite}}
	handle(a, route{id: "list-agents", method: http.MethodGet, path: "/v1/agents", tag: "agents", summary: "List agents, newest first", rules: read}, a.agents)
	handle(a, route{id: "create-agent", method: http.MethodPost, path: "/v1/agents", tag: "agents", summary: "Register an agent with client credentials",
		detail: "For applications; a person registers agents in the browser.", status: http.StatusCreated, rules: write, conflicts: true}, a.createAgent)
	handle(a, route{id: "get-agent", method: http.MethodGet, path: "/v1/agents/{agent}", tag: "agents", summary: "Read an agent", rules: read}, a.agent)
	handle(a, route{id: "set-agent-ceiling", method: http.MethodPut, path: "/v1/agents/{agent}/ceiling", tag: "agents", summary: "Replace the most that an agent may be granted",
		rules: change, conflicts: true}, a.setCeiling)
	handle(a, route{id: "disable-agent", method: http.MethodPost, path: "/v1/agents/{agent}/disable", tag: "agents", summary: "End an agent's tokens and sessions at once", rules: rules{scopes: change.scopes, ends: true}}, a.disableAgent)
	handle(a, route{id: "enable-agent", method: http.MethodPost, path: "/v1/agents/{agent}/enable", tag: "agents", summary: "Let a disabled agent get tokens again", rules: change}, a.enableAgent)
	handle(a, route{id: "mute-agent", method: http.MethodPost, path: "/v1/agents/{agent}/mute", tag: "agents", summary: "Silence an agent's requests for a time",
		detail: "Nobody is asked for anything by it until then. Sessions that it has go on.", rules: change}, a.muteAgent)
	handle(a, route{id: "unmute-agent", method: http.MethodPost, path: "/v1/agents/{agent}/unmute", tag: "agents", summary: "Let a muted agent ask again", rules: change}, a.unmuteAgent)
	handle(a, route{id: "rotate-agent-secret", method: http.MethodPost, path: "/v1/agents/{agent}/rotate", tag: "agents", summary: "Replace an agent's client secret",
		detail: "Without an overlap it ends the tokens that the old one got. For applications; a person does it in the browser.", rules: change, conflicts: true}, a.rotateAgent)
	handle(a, route{id: "set-agent-keys", method: http.MethodPut, path: "/v1/agents/{agent}/keys", tag: "agents", summary: "Replace what an agent proves itself with: keys, or a platform's tokens",
		detail: "An agent with a secret changes over and loses it. It ends the tokens that the old credentials got. To change over without a gap, send a set with the old key and the new one.", rules: change, conflicts: true}, a.setAgentKeys)
}

func (a *API) agents(ctx context.Context, by account.Actor, in *agentsInput) (Page[Agent], error) {
	// The room gives rows without saying whether there are more.
	ask := min(in.limit()+1, 200)
	f := agent.Filter{Environment: by.Environment(), Limit: ask}
	org, err := a.organization(ctx, by, in.OrganizationID)
	if err != nil {
		return Page[Agent]{}, err
	}
	f.Organization = org
	if err := optionalID(&f.Owner, in.OwnerID); err != nil {
		return Page[Agent]{}, err
	}
	if err := cursor(&f.Before, in.After); err != nil {
		return Page[Agent]{}, err
	}
	rows, err := a.cfg.Agents.List(ctx, by, f)
	if err != nil {
		return Page[Agent]{}, err
	}
	next := ""
	if len(rows) == ask {
		rows = rows[:min(len(rows), in.limit())]
		next = string(rows[len(rows)-1].ID)
	}
	return page(rows, next, agentOf), nil
}

// registration fills in the page on which a person registers the agent.
func registration(org id.Organization, name, kind string, c Ceiling, w Workload) url.Values {
	q := url.Values{"org": {string(org)}, "name": {name}, "kind": {kind}}
	if len(c.Providers) > 0 {
		q.Set("providers", strings.Join(c.Providers, ","))
	}
	effects := c.Effects
	if len(effects) == 0 && len(c.Providers) > 0 {
		effects = policy.Effects()
	}
	for _, e := range effects {
		q.Add("effect", string(e))
	}
	if !agent.Workload(w).IsZero() {
		q.Set("issuer", w.Issuer)
		q.Set("subject", w.Subject)
		for _, name := range slices.Sorted(maps.Keys(w.Claims)) {
			q.Add("claims", name+"="+w.Claims[name])
		}
	}
	return q
}

func (a *API) createAgent(ctx context.Context, by account.Actor, in *newAgentInput) (MadeAgent, error) {
	b := in.Body
	org, err := a.organization(ctx, by, b.OrganizationID)
	if err != nil {
		return MadeAgent{}, err
	}
	if _, person := by.Person(); person {
		return MadeAgent{}, a.browserRequired("/ui/agents/new?"+registration(org, b.Name, b.Kind, b.Ceiling, b.Workload).Encode(), "A command line's stored login does not make credentials.")
	}
	n := agent.NewAgent{Environment: by.Environment(), Organization: org, Name: b.Name, Kind: agent.Kind(b.Kind), Ceiling: policy.Ceiling(b.Ceiling), Keys: b.Keys, Workload: agent.Workload(b.Workload)}
	if err := optionalID(&n.Owner, b.OwnerID); err != nil {
		return MadeAgent{}, err
	}
	x, _, s, err := a.cfg.Agents.Register(ctx, by, n)
	if err != nil {
		return MadeAgent{}, err
	}
	out := MadeAgent{Agent: agentOf(x)}
	if !s.IsZero() {
		out.ClientSecret = once(s)
	}
	return out, nil
}

// named reads the id of an agent in the environment in which the actor acts. A
// person may have a part in others; what they name here must be here.
func (a *API) named(ctx context.Context, by account.Actor, raw string) (x id.Agent, err error) {
	if err := parseID(&x, raw); err != nil {
		return "", err
	}
	_, err = a.cfg.Agents.Lookup(ctx, by.Environment(), x)
	return x, err
}

func (a *API) agent(ctx context.Context, by account.Actor, in *agentInput) (Agent, error) {
	x, err := a.named(ctx, by, in.Agent)
	if err != nil {
		return Agent{}, err
	}
	out, err := a.cfg.Agents.Get(ctx, by, x)
	return agentOf(out), err
}

func (a *API) setCeiling(ctx context.Context, by account.Actor, in *ceilingInput) (Agent, error) {
	x, err := a.named(ctx, by, in.Agent)
	if err != nil {
		return Agent{}, err
	}
	out, err := a.cfg.Agents.SetCeiling(ctx, by, x, in.Body.Version, policy.Ceiling(in.Body.Ceiling), account.Agreement{})
	return agentOf(out), err
}

func (a *API) disableAgent(ctx context.Context, by account.Actor, in *agentInput) (Agent, error) {
	var x id.Agent
	if err := parseID(&x, in.Agent); err != nil {
		return Agent{}, err
	}
	if _, err := a.cfg.Agents.LookupUrgently(ctx, by, x); err != nil {
		return Agent{}, err
	}
	out, err := a.cfg.Agents.Disable(ctx, by, x)
	return agentOf(out), err
}

func (a *API) enableAgent(ctx context.Context, by account.Actor, in *agentInput) (Agent, error) {
	x, err := a.named(ctx, by, in.Agent)
	if err != nil {
		return Agent{}, err
	}
	out, err := a.cfg.Agents.Enable(ctx, by, x, account.Agreement{})
	return agentOf(out), err
}

func (a *API) muteAgent(ctx context.Context, by account.Actor, in *muteInput) (Agent, error) {
	x, err := a.named(ctx, by, in.Agent)
	if err != nil {
		return Agent{}, err
	}
	out, err := a.cfg.Agents.Mute(ctx, by, x, time.Duration(in.Body.Seconds)*time.Second)
	return agentOf(out), err
}

func (a *API) unmuteAgent(ctx context.Context, by account.Actor, in *agentInput) (Agent, error) {
	x, err := a.named(ctx, by, in.Agent)
	if err != nil {
		return Agent{}, err
	}
	out, err := a.cfg.Agents.Unmute(ctx, by, x)
	return agentOf(out), err
}

func (a *API) rotateAgent(ctx context.Context, by account.Actor, in *rotateAgentInput) (MadeAgent, error) {
	x, err := a.named(ctx, by, in.Agent)
	if err != nil {
		return MadeAgent{}, err
	}
	if _, err := a.cfg.Agents.Get(ctx, by, x); err != nil {
		return MadeAgent{}, err
	}
	if _, person := by.Person(); person {
		return MadeAgent{}, a.browserRequired("/ui/agents/"+string(x)+"/secret", "A command line's stored login does not make credentials.")
	}
	var overlap time.Duration
	if in.Body != nil {
		overlap = time.Duration(in.Body.OverlapSeconds) * time.Second
	}
	s, err := a.cfg.Agents.RotateSecret(ctx, by, x, overlap, account.Evidence{})
	if err != nil {
		return MadeAgent{}, err
	}
	out, err := a.cfg.Agents.Get(ctx, by, x)
	if err != nil {
		return MadeAgent{}, err
	}
	return MadeAgent{Agent: agentOf(out), ClientSecret: once(s)}, nil
}

func (a *API) setAgentKeys(ctx context.Context, by account.Actor, in *agentKeysInput) (Agent, error) {
	x, err := a.named(ctx, by, in.Agent)
	if err != nil {
		return Agent{}, err
	}
	out, err := a.cfg.Agents.SetKeys(ctx, by, x, in.Body.Version, in.Body.Keys, agent.Workload(in.Body.Workload), account.Agreement{})
	return agentOf(out), err
}
