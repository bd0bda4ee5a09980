package session

import (
	"slices"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
)

// EventAsked is the event by which applications are told that somebody is asked.
const EventAsked = "approval.requested"

// Asked is what is told of a new request to whoever is to bring it before a person.
// It carries no authority, and none of the agent's own words.
type Asked struct {
	ID           id.Event // of the audit entry
	At           time.Time
	Environment  id.Environment
	Organization id.Organization
	Kind         string // KindSession or KindCall
	Approval     id.Approval
	Session      id.Session
	Agent        id.Agent
	AgentLabel   string // from our records
	Verified     bool
	User         id.User
	Providers    []string
	Effects      []policy.Effect
	Tool         string // of a call
	Minutes      int    // of a session
	Until        time.Time
	URL          string    // where the person decides
	Users        []id.User // whose accounts are asked for, each of which is that person's to give
	Roles        []string  // who decide on the organization's accounts, if one is asked for
}

// Data is a's body for a webhook.
func (a Asked) Data() map[string]any {
	out := map[string]any{"object": "approval", "approval_id": a.Approval, "kind": a.Kind, "url": a.URL, "organization_id": a.Organization, "session_id": a.Session,
		"agent_id": a.Agent, "agent_label": a.AgentLabel, "agent_verified": a.Verified, "user_id": a.User, "providers": a.Providers, "effects": a.Effects,
		"expires_at": a.Until.UTC().Format(time.RFC3339)}
	if a.Kind == KindCall {
		out["tool"] = a.Tool
	} else {
		out["minutes"] = a.Minutes
	}
	return out
}

func (s *Service) askedForSession(event id.Event, ses Session, set policy.Settings) Asked {
	a := Asked{ID: event, At: ses.RequestedAt, Environment: ses.Environment, Organization: ses.Organization, Kind: KindSession, Approval: ses.Approval, Session: ses.ID,
		Agent: ses.Agent, AgentLabel: ses.AgentLabel, Verified: ses.AgentVerified, User: ses.User, Minutes: ses.Minutes, Until: ses.PendingUntil, URL: s.approvalURL(ses.Approval)}
	for _, g := range ses.Grants {
		a.Providers, a.Effects = append(a.Providers, g.Provider), append(a.Effects, g.Effects...)
		a.waitsFor(g.Owner, set)
	}
	slices.Sort(a.Providers)
	slices.Sort(a.Effects)
	a.Providers, a.Effects = slices.Compact(a.Providers), slices.Compact(a.Effects)
	return a
}

// waitsFor adds who decides on an account of this owner; empty is the organization.
func (a *Asked) waitsFor(owner id.User, set policy.Settings) {
	switch {
	case owner == "":
		a.Roles = set.Approvers
	case !slices.Contains(a.Users, owner):
		a.Users = append(a.Users, owner)
	}
}

func (s *Service) askedForCall(event id.Event, l Live, r approvalRow, c CallSubject, set policy.Settings) Asked {
	a := Asked{ID: event, At: r.createdAt, Environment: l.environment, Organization: l.organization, Kind: KindCall, Approval: r.id, Session: l.session, Agent: l.agent,
		AgentLabel: l.label, Verified: l.verified, User: l.user, Providers: []string{c.Provider}, Effects: []policy.Effect{c.Effect}, Tool: c.Tool, Until: r.expiresAt, URL: s.approvalURL(r.id)}
	a.waitsFor(r.connectionOwner, set)
	return a
}
