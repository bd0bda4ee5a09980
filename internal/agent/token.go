package agent

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

const (
	accessPrefix  = "amb_at_"
	refreshPrefix = "amb_rt_"
	accessTTL     = time.Hour
	refreshTTL    = 30 * 24 * time.Hour // from the consent; rotation does not lengthen it
	retryGrace    = 120 * time.Second
)

// Tokens is the answer of the token endpoint. Refresh is empty where there is
// none: client credentials and tokens bound to a session.
type Tokens struct {
	Access    secret.Value
	Refresh   secret.Value
	ExpiresIn time.Duration
	Scope     string
	Details   string // what a session gives that was asked for at consent (RFC 9396), as JSON
}

// issued is a set of tokens before it is stored.
type issued struct {
	access, refresh             secret.Value
	accessHash, refreshHash     [32]byte
	accessExpires               time.Time
	sealedAccess, sealedRefresh []byte
}

func freshTokens(withRefresh bool, now, limit time.Time) issued {
	n := issued{access: secret.Token(accessPrefix), accessExpires: now.Add(accessTTL)}
	n.accessHash = n.access.Hash()
	if limit.Before(n.accessExpires) {
		n.accessExpires = limit
	}
	if withRefresh {
		n.refresh = secret.Token(refreshPrefix)
		n.refreshHash = n.refresh.Hash()
	}
	return n
}

// boundToken is an access token that lasts as long as its session, which nothing refreshes.
func boundToken(ends time.Time) issued {
	n := issued{access: secret.Token(accessPrefix), accessExpires: ends}
	n.accessHash = n.access.Hash()
	return n
}

func (n issued) tokens(now time.Time, scope string) Tokens {
	return Tokens{Access: n.access, Refresh: n.refresh, ExpiresIn: n.accessExpires.Sub(now), Scope: scope}
}

// store adds n to the family f, whose row the caller holds or has just made.
func (n issued) store(ctx context.Context, tx *sqldb.Tx, f family, now time.Time) error {
	if err := insertToken(ctx, tx, f.id, n.accessHash[:], kindAccess, now, n.accessExpires); err != nil {
		return err
	}
	if n.refresh.IsZero() {
		return nil
	}
	return insertToken(ctx, tx, f.id, n.refreshHash[:], kindRefresh, now, f.expires)
}

func newFamily(a Agent, scope string, now time.Time, ttl time.Duration) family {
	f := family{id: newFamilyID(), agent: a.ID, client: a.Client, environment: a.Environment, organization: a.Organization,
		scope: scope, created: now, expires: now.Add(ttl)}
	if a.Kind == Delegated {
		f.user = a.Owner
	}
	return f
}

func newFamilyID() string { return "fam_" + rand.Text() }

// live checks, in the transaction that issues, that the agent may have tokens:
// it is enabled, and stays so until the commit.
func (s *Service) live(ctx context.Context, tx *sqldb.Tx, agent id.Agent) (Agent, error) {
	a, err := selectAgent(ctx, tx, agent, tx.ShareLock())
	if sqldb.NoRows(err) || err == nil && !a.DisabledAt.IsZero() {
		return Agent{}, invalidGrant("The agent is disabled or gone.")
	}
	return a, err
}

func invalidGrant(msg string) error {
	return fault.New(fault.Invalid, "invalid_grant", msg).WithHint("Start the authorization again.")
}

// CodeGrant is what a client sends to turn a code into tokens.
type CodeGrant struct {
	Code        secret.Value
	RedirectURI string
	Verifier    secret.Value
	Resource    string
}

// Exchange turns an authorization code into tokens. Everything is compared
// before the code is spent; a code that comes a second time ends what the first
// use began (threats.md G2).
func (s *Service) Exchange(ctx context.Context, by Caller, g CodeGrant) (Tokens, error) {
	if err := by.may(GrantCode); err != nil {
		return Tokens{}, err
	}
	h := g.Code.Hash()
	c, err := selectCode(ctx, s.db.Reader(), h[:])
	if sqldb.NoRows(err) {
		return Tokens{}, invalidGrant("The code is unknown or too old.")
	}
	if err != nil {
		return Tokens{}, sqldb.Wrap("read an authorization code", err)
	}
	if !c.used.IsZero() {
		return Tokens{}, s.codeReplayed(ctx, c)
	}
	audience, err := s.audience(g.Resource)
	if err != nil {
		return Tokens{}, err
	}
	now := s.now()
	switch {
	case c.client != by.Client():
		return Tokens{}, invalidGrant("The code was issued to another client.")
	case c.redirectURI != g.RedirectURI:
		return Tokens{}, invalidGrant("redirect_uri differs from the authorization request.")
	case !verifies(g.Verifier, c.challenge):
		return Tokens{}, invalidGrant("code_verifier does not fit the code_challenge.")
	case audience != c.audience:
		return Tokens{}, fault.New(fault.Invalid, "invalid_target", "resource differs from the authorization request.")
	case !now.Before(c.expires):
		return Tokens{}, invalidGrant("The code is too old.")
	case c.session != "" && !now.Before(c.sessionEnds):
		return Tokens{}, invalidGrant("The session has ended.")
	}
	ends := now.Add(refreshTTL)
	next := freshTokens(by.may(GrantRefresh) == nil, now, ends)
	if c.session != "" {
		ends, next = c.sessionEnds, boundToken(c.sessionEnds)
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := s.stillProven(ctx, tx, by); err != nil {
			return err
		}
		a, err := s.live(ctx, tx, c.agent)
		if err != nil {
			return err
		}
		if err := consumeCode(ctx, tx, c.hash, now); err != nil {
			return err
		}
		f := newFamily(a, c.scope, now, 0)
		f.id, f.audience, f.session, f.expires = c.family, c.audience, c.session, ends
		if err := insertFamily(ctx, tx, f); err != nil {
			return err
		}
		if err := next.store(ctx, tx, f, now); err != nil {
			return err
		}
		e := entry(a, "token.issued", GrantCode)
		e.Session = c.session
		s.audit.Append(tx, e)
		return nil
	})
	if errors.Is(err, errStale) { // the same code was spent between our read and our write, or its session ended
		return Tokens{}, s.codeReplayed(ctx, c)
	}
	if err != nil {
		return Tokens{}, sqldb.Wrap("exchange an authorization code", err)
	}
	t := next.tokens(now, c.scope)
	t.Details = c.details
	return t, nil
}

// verifies is PKCE with S256: the challenge is the verifier's hash.
func verifies(verifier secret.Value, challenge string) bool {
	if verifier.Len() < 43 || verifier.Len() > 128 {
		return false
	}
	h := verifier.Hash()
	return subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(h[:])), []byte(challenge)) == 1
}

func (s *Service) codeReplayed(ctx context.Context, c code) error {
	if err := s.endFamily(ctx, c.family, c.agent, "token.code_replayed"); err != nil {
		return err
	}
	return invalidGrant("The code was used before, and what it gave is revoked; or its session has ended.")
}

// endFamily revokes a family and records why, if nobody did before.
func (s *Service) endFamily(ctx context.Context, familyID string, agent id.Agent, action string) error {
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		a, err := selectAgent(ctx, tx, agent, "")
		if err != nil {
			return err
		}
		did, err := revokeFamily(ctx, tx, familyID, s.now())
		if err != nil || !did {
			return err
		}
		e := entry(a, action, familyID)
		e.Decision, e.Code = "deny", "invalid_grant"
		s.audit.Append(tx, e)
		return nil
	})
	return sqldb.Wrap("revoke a family of tokens", err)
}

// RefreshGrant is what a client sends to go on.
type RefreshGrant struct {
	Refresh  secret.Value
	Resource string
}

// Refresh rotates a refresh token: one successor, however many ask at once. The
// agent, its owner's membership and the family are checked anew each time
// (threats.md G3).
func (s *Service) Refresh(ctx context.Context, by Caller, g RefreshGrant) (Tokens, error) {
	if err := by.may(GrantRefresh); err != nil {
		return Tokens{}, err
	}
	if _, err := s.audience(g.Resource); err != nil {
		return Tokens{}, err
	}
	t, err := s.refreshToken(ctx, by, g.Refresh)
	if err != nil {
		return Tokens{}, err
	}
	if err := s.checkOwner(ctx, t.agent); err != nil {
		return Tokens{}, err
	}
	if !t.replaced.IsZero() {
		return s.refreshAgain(ctx, by, g, t)
	}
	now := s.now()
	next := freshTokens(true, now, t.family.expires)
	// Sealed before the transaction: the vault may have to make a key.
	if next.sealedAccess, err = s.vault.Seal(ctx, t.place(kindAccess), next.access); err != nil {
		return Tokens{}, err
	}
	if next.sealedRefresh, err = s.vault.Seal(ctx, t.place(kindRefresh), next.refresh); err != nil {
		return Tokens{}, err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := s.stillProven(ctx, tx, by); err != nil {
			return err
		}
		if _, err := s.live(ctx, tx, t.agent.ID); err != nil {
			return err
		}
		if err := holdFamily(ctx, tx, t.family.id, now); err != nil {
			return err
		}
		if err := replaceToken(ctx, tx, t.hash, next, now); err != nil {
			return err
		}
		return next.store(ctx, tx, t.family, now)
	})
	if errors.Is(err, errStale) { // another request was quicker, or the family ended
		if t, err = s.refreshToken(ctx, by, g.Refresh); err != nil {
			return Tokens{}, err
		}
		return s.refreshAgain(ctx, by, g, t)
	}
	if err != nil {
		return Tokens{}, sqldb.Wrap("rotate a refresh token", err)
	}
	return next.tokens(now, t.family.scope), nil
}

// refreshToken reads a refresh token that by may present, spent or not.
func (s *Service) refreshToken(ctx context.Context, by Caller, v secret.Value) (token, error) {
	t, err := s.token(ctx, v, refreshPrefix, kindRefresh)
	if err != nil {
		return token{}, err
	}
	now := s.now()
	switch {
	case t.hash == nil, t.family.client != by.Client(), !t.revoked.IsZero(), !t.family.revoked.IsZero(),
		!now.Before(t.expires), !now.Before(t.family.expires):
		return token{}, invalidGrant("The refresh token is unknown, revoked or too old.")
	case !t.agent.DisabledAt.IsZero():
		return token{}, invalidGrant("The agent is disabled.")
	}
	return t, nil
}

// refreshAgain answers for a token that was spent before. Within the grace,
// while nobody has used the successor, it is a retry of a request whose answer
// was lost. Else two parties hold the same token, and both lose it.
func (s *Service) refreshAgain(ctx context.Context, by Caller, g RefreshGrant, t token) (Tokens, error) {
	now := s.now()
	if t.replaced.IsZero() {
		return Tokens{}, invalidGrant("The refresh token is revoked.")
	}
	if now.Sub(t.replaced) >= retryGrace || !t.successorOK || t.successorUsed || len(t.sealedAccess) == 0 || len(t.sealedNext) == 0 {
		if err := s.endFamily(ctx, t.family.id, t.agent.ID, "token.refresh_reused"); err != nil {
			return Tokens{}, err
		}
		return Tokens{}, invalidGrant("The refresh token was used before; its whole family is revoked.")
	}
	access, err := s.vault.Open(ctx, t.place(kindAccess), t.sealedAccess)
	if err != nil {
		return Tokens{}, err
	}
	refresh, err := s.vault.Open(ctx, t.place(kindRefresh), t.sealedNext)
	if err != nil {
		return Tokens{}, err
	}
	return Tokens{Access: access, Refresh: refresh, ExpiresIn: t.successorExpires.Sub(now), Scope: t.family.scope}, nil
}

// place is where the answer for a spent token is sealed.
func (t token) place(kind string) vault.Place {
	return vault.Place{Environment: t.family.environment, Organization: t.family.organization, User: t.family.user,
		Kind: "agent_token_" + kind, Object: hex.EncodeToString(t.hash)}
}

// keeps is a column of sealed answers.
func keeps(kind string) vault.Sealed {
	return vault.Sealed{
		Table: "agent_token", Column: "sealed_" + kind, Key: []string{"hash"}, Join: `join token_family f on f.id = s.family_id`,
		Fields: `s.hash, f.environment_id, f.organization_id, f.user_id`,
		Place: func(scan func(dest ...any) error) (vault.Place, error) {
			var t token
			err := scan(&t.hash, &t.family.environment, &t.family.organization, &t.family.user)
			return t.place(kind), err
		},
	}
}

// ClientCredentials gives an agent that an admin registered an access token: in
// its owner's name if it is delegated, in nobody's if it is autonomous.
func (s *Service) ClientCredentials(ctx context.Context, by Caller, resource string) (Tokens, error) {
	if err := by.may(GrantClientCredentials); err != nil {
		return Tokens{}, err
	}
	audience, err := s.audience(resource)
	if err != nil {
		return Tokens{}, err
	}
	now := s.now()
	var a Agent
	// The membership is read outside the transaction that issues; a person who
	// leaves in between is caught by the hook that ends their tokens.
	if a, err = agentOfClient(ctx, s.db.Reader(), by.Client(), ""); err != nil {
		if sqldb.NoRows(err) {
			return Tokens{}, invalidClient()
		}
		return Tokens{}, sqldb.Wrap("read the agent of a client", err)
	}
	if err := s.checkOwner(ctx, a); err != nil {
		return Tokens{}, err
	}
	next := freshTokens(false, now, now.Add(accessTTL))
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := s.stillProven(ctx, tx, by); err != nil {
			return err
		}
		a, err := s.live(ctx, tx, a.ID)
		if err != nil {
			return err
		}
		f := newFamily(a, Scope, now, accessTTL)
		f.audience = audience
		if err := insertFamily(ctx, tx, f); err != nil {
			return err
		}
		s.audit.Append(tx, entry(a, "token.issued", GrantClientCredentials))
		return next.store(ctx, tx, f, now)
	})
	if err != nil {
		return Tokens{}, sqldb.Wrap("issue a token for client credentials", err)
	}
	return next.tokens(now, Scope), nil
}

// SessionGrant says for which session a bound token is.
type SessionGrant struct {
	Agent   id.Agent
	Session id.Session
	User    id.User // of the session
	Expires time.Time
}

// IssueForSession gives a token that is bound to one session and ends with it.
// There is no refresh: going on takes a new approval. It runs in the
// transaction that starts the session.
func (s *Service) IssueForSession(ctx context.Context, tx *sqldb.Tx, g SessionGrant) (Tokens, error) {
	now := s.now()
	if g.Session == "" || !now.Before(g.Expires) {
		return Tokens{}, fault.New(fault.Expired, "session_ended", "The session has ended.")
	}
	a, err := s.live(ctx, tx, g.Agent)
	if err != nil {
		return Tokens{}, err
	}
	if a.Kind == Delegated && g.User != a.Owner {
		return Tokens{}, fault.New(fault.Denied, "not_owner", "A delegated agent acts for its owner only.")
	}
	next := boundToken(g.Expires)
	f := newFamily(a, Scope, now, 0)
	f.user, f.session, f.expires, f.audience = g.User, g.Session, g.Expires, s.Resource()
	if err := insertFamily(ctx, tx, f); err != nil {
		return Tokens{}, err
	}
	if err := next.store(ctx, tx, f, now); err != nil {
		return Tokens{}, err
	}
	e := entry(a, "token.issued", "session")
	e.Session, e.User = g.Session, g.User
	s.audit.Append(tx, e)
	return next.tokens(now, Scope), nil
}

// TokenForSession is IssueForSession for the agent that the session belongs to,
// in a transaction of its own: who gives away one session, and not what it is.
func (s *Service) TokenForSession(ctx context.Context, who Identity, g SessionGrant) (tokens Tokens, err error) {
	if who.Agent() == "" || who.Agent() != g.Agent || who.Session() != "" && who.Session() != g.Session {
		return Tokens{}, notFound()
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		tokens, err = s.IssueForSession(ctx, tx, g)
		return err
	})
	return tokens, sqldb.Wrap("issue a token for a session", err)
}

// RevokeToken ends a token of the calling client (RFC 7009): a refresh token
// with everything it began, an access token alone. A token that is unknown, or
// another's, is no error and nothing happens.
func (s *Service) RevokeToken(ctx context.Context, by Caller, v secret.Value) error {
	if by.Client() == "" {
		return invalidClient()
	}
	t, err := s.token(ctx, v, accessPrefix, kindAccess)
	if err == nil && t.hash == nil {
		t, err = s.token(ctx, v, refreshPrefix, kindRefresh)
	}
	if err != nil || t.hash == nil || t.family.client != by.Client() {
		return err
	}
	now := s.now()
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if t.kind == kindAccess {
			if err := revokeToken(ctx, tx, t.hash, now); err != nil {
				return err
			}
		} else if did, err := revokeFamily(ctx, tx, t.family.id, now); err != nil || !did {
			return err
		}
		s.audit.Append(tx, entry(t.agent, "token.revoked", t.kind))
		return nil
	})
	return sqldb.Wrap("revoke a token", err)
}

// RevokeUser ends all tokens that act for a person in an organization, or in
// all of them if org is empty: for account's OnUserLeft.
func (s *Service) RevokeUser(ctx context.Context, tx *sqldb.Tx, _ id.Environment, org id.Organization, user id.User) error {
	if user == "" {
		return nil
	}
	_, err := revokeFamiliesOfUser(ctx, tx, user, org, s.now())
	return err
}

// RevokeSession ends the tokens and codes that are bound to a session, in the
// transaction that ends it.
func (s *Service) RevokeSession(ctx context.Context, tx *sqldb.Tx, session id.Session) error {
	if session == "" {
		return nil
	}
	if err := dropCodes(ctx, tx, session, s.now()); err != nil {
		return err
	}
	_, err := revokeFamiliesOfSession(ctx, tx, session, s.now())
	return err
}

// token looks a presented token up. A token that is not there has no hash.
func (s *Service) token(ctx context.Context, v secret.Value, prefix, kind string) (token, error) {
	if !secret.IsToken(v, prefix) {
		return token{}, nil
	}
	h := v.Hash()
	t, err := selectToken(ctx, s.db.Near(), h[:])
	if sqldb.NoRows(err) || err == nil && t.kind != kind {
		return token{}, nil
	}
	return t, sqldb.Wrap("read a token", err)
}

// entry is an audit entry about what agent a did or what happened to it.
func entry(a Agent, action, object string) audit.Entry {
	e := audit.Entry{Environment: a.Environment, Organization: a.Organization, Actor: audit.Actor{Kind: "agent", ID: string(a.ID)},
		Agent: a.ID, Action: action, Object: object}
	if a.Kind == Delegated {
		e.User = a.Owner
	}
	return e
}

// fingerprint names a token for rate limits without being usable as one.
func fingerprint(hash []byte) string {
	sum := sha256.Sum256(hash)
	return hex.EncodeToString(sum[:8])
}
