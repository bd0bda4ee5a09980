package agent

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Introspection is what a token stands for, as the database has it now
// (RFC 7662). It is a name for whoever may ask, and no authority: what an agent
// may do is decided for each call.
type Introspection struct {
	Active       bool // nothing else is set where it is false
	Refresh      bool // a refresh token, which no resource takes
	Client       string
	Scope        string
	Audience     string
	Agent        id.Agent
	User         id.User // empty for an agent that acts for itself
	Session      id.Session
	Environment  id.Environment
	Organization id.Organization
	IssuedAt     time.Time
	ExpiresAt    time.Time
}

// Introspect tells a confidential client about a token that was issued to it.
// Every other token, and one that counts no more, is just not active.
func (s *Service) Introspect(ctx context.Context, by Caller, v secret.Value) (Introspection, error) {
	switch {
	case by.client.ID == "":
		return Introspection{}, invalidClient()
	case by.Public():
		return Introspection{}, fault.New(fault.Denied, "unauthorized_client", "A client without a secret cannot ask about tokens: its name proves nothing.")
	}
	return s.introspect(ctx, v, func(t token) bool { return t.family.client == by.client.ID })
}

// IntrospectFor tells whoever may see the agents of an organization about
// their tokens: a resource server with an API key, for one.
func (s *Service) IntrospectFor(ctx context.Context, by account.Actor, v secret.Value) (Introspection, error) {
	return s.introspect(ctx, v, func(t token) bool {
		own, err := mayView(by, t.family.environment, t.family.organization)
		return err == nil && (own == "" || own == t.agent.Owner)
	})
}

func (s *Service) introspect(ctx context.Context, v secret.Value, mayKnow func(token) bool) (Introspection, error) {
	t, err := s.token(ctx, v, accessPrefix, kindAccess)
	if err == nil && t.hash == nil {
		t, err = s.token(ctx, v, refreshPrefix, kindRefresh)
	}
	if err != nil || !s.counts(t) || !mayKnow(t) {
		return Introspection{}, err
	}
	c, err := s.Client(ctx, t.family.client)
	if err != nil {
		return Introspection{}, err
	}
	f := t.family
	return Introspection{Active: true, Refresh: t.kind == kindRefresh, Client: c.Wire(), Scope: f.scope, Audience: f.audience, Agent: f.agent, User: f.user,
		Session: f.session, Environment: f.environment, Organization: f.organization, IssuedAt: t.created, ExpiresAt: earlier(t.expires, f.expires)}, nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
