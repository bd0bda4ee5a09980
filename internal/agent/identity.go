package agent

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Identity is an agent that has proved who it is, for one request. Only
// Authenticate makes one, and ConsentToAsk of a person's proof; the zero Identity is
// nobody.
type Identity struct {
	agent   Agent
	user    id.User
	session id.Session
	token   string
	expires time.Time
}

func (i Identity) Agent() id.Agent               { return i.agent.ID }
func (i Identity) Label() string                 { return i.agent.Label() }
func (i Identity) Verified() bool                { return i.agent.Verified } // a person or an admin gave the label
func (i Identity) Environment() id.Environment   { return i.agent.Environment }
func (i Identity) Organization() id.Organization { return i.agent.Organization }

// User is the person in whose name the agent acts; empty for an autonomous
// agent that is not bound to a session.
func (i Identity) User() id.User           { return i.user }
func (i Identity) Client() id.Client       { return i.agent.Client }
func (i Identity) Kind() Kind              { return i.agent.Kind }
func (i Identity) Ceiling() policy.Ceiling { return i.agent.Ceiling }

// Session is set when the token is bound to one session.
func (i Identity) Session() id.Session { return i.session }

// Token names the token for rate limits; it cannot be used as one.
func (i Identity) Token() string      { return i.token }
func (i Identity) Expires() time.Time { return i.expires }

// Authenticate turns a bearer token into an identity, from the database and in
// one read. Whatever is wrong with the token, the answer is the same.
func (s *Service) Authenticate(ctx context.Context, bearer secret.Value) (Identity, error) {
	t, err := s.token(ctx, bearer, accessPrefix, kindAccess)
	if err != nil {
		return Identity{}, err
	}
	f := t.family
	if !s.counts(t) {
		return Identity{}, fault.New(fault.Unauthenticated, "invalid_token", "The access token is unknown, expired or revoked.").
			WithHint("Get a new access token from the authorization server.")
	}
	s.seen(t.agent.ID, t.agent.LastSeenAt, s.now())
	return Identity{agent: t.agent, user: f.user, session: f.session, token: fingerprint(t.hash), expires: t.expires}, nil
}

// SubjectOf is Authenticate for a token that a client sends about itself (RFC 8693).
// A token of another client is no subject.
func (s *Service) SubjectOf(ctx context.Context, by Caller, token secret.Value, resource string) (Identity, error) {
	if by.Client() == "" {
		return Identity{}, invalidClient()
	}
	if _, err := s.audience(resource); err != nil {
		return Identity{}, err
	}
	who, err := s.Authenticate(ctx, token)
	if fault.KindOf(err) == fault.Unauthenticated || err == nil && who.Client() != by.Client() {
		return Identity{}, invalidGrant("The subject token is unknown, too old, or another client's.")
	}
	return who, err
}

// counts reports whether a token is there and says now who somebody is.
func (s *Service) counts(t token) bool {
	now, f := s.now(), t.family
	return t.hash != nil && t.revoked.IsZero() && t.replaced.IsZero() && f.revoked.IsZero() && now.Before(t.expires) && now.Before(f.expires) &&
		t.agent.DisabledAt.IsZero() && f.audience == s.Resource() &&
		f.environment == t.agent.Environment && f.organization == t.agent.Organization
}
