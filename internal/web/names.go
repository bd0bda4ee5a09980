package web

import (
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/id"
)

// names says ids as people know them, each looked up once for a page. What
// cannot be found keeps its id.
type names struct {
	s      *Server
	v      *visit
	env    id.Environment
	agents map[id.Agent]string
	users  map[id.User]string

	organizations map[id.Organization]string
}

func (s *Server) names(v *visit, env id.Environment) *names {
	return &names{s: s, v: v, env: env, agents: map[id.Agent]string{}, users: map[id.User]string{}, organizations: map[id.Organization]string{}}
}

func (n *names) agent(a id.Agent) string {
	name, ok := n.agents[a]
	if !ok {
		name = string(a)
		if found, err := n.s.agents.Lookup(n.v.ctx(), n.env, a); err == nil {
			name = oneLine(found.Label())
		}
		n.agents[a] = name
	}
	return name
}

func (n *names) user(u id.User) string {
	name, ok := n.users[u]
	if !ok {
		name = string(u)
		if found, err := n.s.people.User(n.v.ctx(), n.env, u); err == nil {
			name = oneLine(found.Name)
		}
		n.users[u] = name
	}
	return name
}

// actor says who did what an entry records.
func (n *names) actor(e audit.Entry) string {
	switch e.Actor.Kind {
	case "agent":
		if e.User != "" {
			return n.agent(e.Agent) + " for " + n.user(e.User)
		}
		return n.agent(id.Agent(e.Actor.ID))
	case "user":
		return n.user(id.User(e.Actor.ID))
	case "api_key":
		return "API key " + e.Actor.ID
	}
	return "Server (" + e.Actor.ID + ")"
}
