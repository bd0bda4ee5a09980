package agent

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/throttle"
)

const (
	requestTTL  = 10 * time.Minute
	codeTTL     = time.Minute
	codePrefix  = "amb_ac_"
	maxStateLen = 2048
	// maxRequests bounds what unauthenticated callers can leave in the database.
	// Over it the oldest of the address that has most make way, a tenth at once.
	// Those that a person has opened stay, the last maxOpened of each person.
	maxRequests = 10_000
	maxOpened   = 10
)

// AuthRequest is an authorization request that waits for a person.
type AuthRequest struct {
	ID          id.Flow
	Client      Client
	RedirectURI string
	State       string
	Challenge   string // PKCE, S256
	Resource    string // always Service.Resource once stored
	Scope       string
	Asks        *Asks  // what it asks for at once, for one session; nil: an identity
	UserCode    string // of a device, which shows it; no redirect leads there
	Address     string // of the browser or device that brought it
	ExpiresAt   time.Time

	openedBy id.User
}

// Host is where an answer to the request goes, as a person should read it.
func (r AuthRequest) Host() string {
	if r.UserCode != "" {
		return "a device that shows a code"
	}
	return RedirectHost(r.RedirectURI)
}

// Local reports that the answer stays on the machine of whoever consents: any
// program there may be the one that listens (threats.md G4).
func (r AuthRequest) Local() bool {
	kind, err := parseRedirect(r.RedirectURI)
	return err == nil && kind != redirectWeb
}

// BeginAuthorize stores a request whose client and redirect the caller has
// matched already; both are checked again here. Client needs only its ID.
func (s *Service) BeginAuthorize(ctx context.Context, r AuthRequest) (id.Flow, error) {
	c, err := s.Client(ctx, r.Client.ID)
	if err != nil {
		return "", err
	}
	switch {
	case !MatchRedirect(c.RedirectURIs, r.RedirectURI):
		return "", fault.New(fault.Invalid, "invalid_redirect_uri", "The redirect URI is not registered for this client.")
	case !slices.Contains(c.Grants, GrantCode):
		return "", fault.New(fault.Denied, "unauthorized_client", "This client may not use the authorization code grant.")
	case len(r.State) > maxStateLen:
		return "", fault.New(fault.Invalid, "invalid_request", "state is too long.")
	case r.Asks != nil && r.Asks.check() != nil:
		return "", r.Asks.check()
	case !isChallenge(r.Challenge):
		return "", fault.New(fault.Invalid, "invalid_request", "code_challenge is the SHA-256 of the verifier in base64url.")
	}
	if r.Resource, err = s.audience(r.Resource); err != nil {
		return "", err
	}
	now := s.now()
	r.ID, r.Scope, r.Address, r.ExpiresAt = id.NewFlow(), Scope, throttle.Address(r.Address), now.Add(requestTTL)
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error { return s.storeRequest(ctx, tx, r, now) })
	return r.ID, sqldb.Wrap("store an authorization request", err)
}

func (s *Service) storeRequest(ctx context.Context, tx *sqldb.Tx, r AuthRequest, now time.Time) error {
	full, err := thinRequests(ctx, tx, now)
	if err != nil {
		return err
	}
	if full {
		return fault.New(fault.Limited, "temporarily_unavailable", "Too many sign-ins of agents wait for an answer.").WithRetry(time.Minute)
	}
	return insertRequest(ctx, tx, r, now)
}

// isChallenge accepts what S256 gives: 32 bytes in base64url without padding.
func isChallenge(s string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(s) == 43 && len(b) == sha256.Size
}

// PendingAuthorize reads a request that is neither decided nor too old. It says
// nothing about who may decide it: anybody signed in may, for themselves.
func (s *Service) PendingAuthorize(ctx context.Context, flow id.Flow) (AuthRequest, error) {
	r, err := selectRequest(ctx, s.db.Reader(), flow, s.now())
	if sqldb.NoRows(err) {
		return AuthRequest{}, requestGone()
	}
	if err != nil {
		return AuthRequest{}, sqldb.Wrap("read an authorization request", err)
	}
	r.Client, err = s.Client(ctx, r.Client.ID)
	if fault.Is(err, "not_found") {
		return AuthRequest{}, requestGone()
	}
	return r, err
}

func requestGone() error {
	return fault.New(fault.NotFound, "not_found", "This request is answered or too old.").
		WithHint("Start again from the agent.")
}

// OpenAuthorize is PendingAuthorize for the person who has the request before
// them. It then stays until it is too old, however many others begin (threats.md
// W7).
func (s *Service) OpenAuthorize(ctx context.Context, person account.Person, flow id.Flow) (AuthRequest, error) {
	r, err := s.PendingAuthorize(ctx, flow)
	if err != nil || person.User() == "" || r.openedBy == person.User() {
		return r, err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error { return openRequest(ctx, tx, flow, person.User()) })
	return r, sqldb.Wrap("note who opened an authorization request", err)
}

// Consent is what a person decides about a request.
type Consent struct {
	Organization id.Organization
	Label        string // the person's own name for the agent; may be empty
}

// ConsentDigest is what a person's proof of presence signs: this request, this
// person, this organization, this label, and nothing else.
func (s *Service) ConsentDigest(user id.User, r AuthRequest, c Consent) [32]byte {
	return sha256.Sum256(crypt.Fields("ambit consent 3", s.issuer, string(user), string(r.ID), string(r.Client.ID), r.RedirectURI,
		r.State, r.Challenge, r.Resource, r.Scope, r.UserCode, r.Asks.document(), string(c.Organization), c.Label))
}

// Consent makes (or finds) the agent that this client is for person in the
// chosen organization, and returns the redirect that carries the code. evidence
// must be the person's proof over ConsentDigest; it goes into the audit. The
// redirect is for the person's browser only, and empty where a device waits.
func (s *Service) Consent(ctx context.Context, person account.Person, flow id.Flow, c Consent, evidence account.Evidence) (redirect string, err error) {
	r, err := s.PendingAuthorize(ctx, flow)
	if err == nil && r.Asks != nil {
		err = requestGone() // its code is for a session, which is not approved by this
	}
	if err != nil {
		return "", err
	}
	_, redirect, err = s.consent(ctx, person, r, c, evidence)
	return redirect, err
}

// ConsentToAsk is Consent for a request that asks for a session at once. The agent has
// no token yet: what it gives can ask for just that session, whose approval answers
// the client ([Service.CodeForSession]).
func (s *Service) ConsentToAsk(ctx context.Context, person account.Person, flow id.Flow, c Consent, evidence account.Evidence) (Identity, AuthRequest, error) {
	r, err := s.PendingAuthorize(ctx, flow)
	if err == nil && r.Asks == nil {
		err = requestGone()
	}
	if err != nil {
		return Identity{}, AuthRequest{}, err
	}
	a, _, err := s.consent(ctx, person, r, c, evidence)
	if err != nil {
		return Identity{}, AuthRequest{}, err
	}
	return Identity{agent: a, user: a.Owner}, r, nil
}

func (s *Service) consent(ctx context.Context, person account.Person, r AuthRequest, c Consent, evidence account.Evidence) (agent Agent, redirect string, err error) {
	none := func(err error) (Agent, string, error) { return Agent{}, "", err }
	flow := r.ID
	if c.Label != "" {
		if err := checkName(c.Label); err != nil {
			return none(err)
		}
	}
	env, err := consents(person, c.Organization)
	if err != nil {
		return none(err)
	}
	proof, err := s.proven(ctx, person, env, c.Organization, evidence, s.ConsentDigest(person.User(), r, c))
	if err != nil {
		return none(err)
	}
	a := Agent{ID: id.NewAgent(), Environment: env, Organization: c.Organization, Name: c.Label, Verified: c.Label != "", Kind: Delegated,
		Owner: person.User(), Client: r.Client.ID, ClientHost: r.Host(), CreatedAt: s.now()}
	if !a.Verified {
		a.Name = r.Client.Name
	}
	now := s.now()
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if r.Asks == nil { // else the approval of the session is what decides
			if err := decideRequest(ctx, tx, flow, now); err != nil {
				return err
			}
		}
		if err := keepClient(ctx, tx, r.Client.ID); err != nil {
			return err
		}
		a, err := consentAgent(ctx, tx, a)
		if err != nil {
			return err
		}
		if !a.DisabledAt.IsZero() {
			return fault.New(fault.Denied, "agent_disabled", "This agent is disabled in the chosen organization.").
				WithHint("An admin can enable it again under Agents.")
		}
		switch {
		case r.Asks != nil: // its code is made once the session runs
		case r.UserCode != "":
			err = agreeDevice(ctx, tx, flow, a.ID)
		default:
			redirect, err = s.newCode(ctx, tx, r, code{agent: a.ID, scope: r.Scope}, now)
		}
		if err != nil {
			return err
		}
		agent = a
		e := entry(a, "agent.consented", string(a.ID))
		e.Actor, e.Address, e.Evidence = account.ByPerson(person).Audit(), person.Address(), proof
		e.Detail = map[string]string{"client": string(r.Client.ID), "redirects_to": r.Host(), "label": a.Label(), "flow": string(flow)}
		s.audit.Append(tx, e)
		return nil
	})
	if errors.Is(err, errStale) {
		return none(requestGone())
	}
	if err != nil {
		return none(sqldb.Wrap("record a consent", err))
	}
	return agent, redirect, nil
}

// newCode makes a code for c's agent, and gives the redirect that carries it.
func (s *Service) newCode(ctx context.Context, tx *sqldb.Tx, r AuthRequest, c code, now time.Time) (redirect string, err error) {
	text := codePrefix + rand.Text()
	hash := secret.FromString(text).Hash()
	c.hash, c.family, c.flow, c.client, c.redirectURI, c.challenge, c.audience = hash[:], newFamilyID(), r.ID, r.Client.ID, r.RedirectURI, r.Challenge, r.Resource
	c.created, c.expires = now, now.Add(codeTTL)
	return s.answer(r, url.Values{"code": {text}}), insertCode(ctx, tx, c)
}

// DenyConsent closes a request and returns the redirect that tells the client,
// which is empty where a device waits. Saying no takes no proof.
func (s *Service) DenyConsent(ctx context.Context, person account.Person, flow id.Flow) (redirect string, err error) {
	r, err := s.PendingAuthorize(ctx, flow)
	if err != nil {
		return "", err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := decideRequest(ctx, tx, flow, s.now()); err != nil || r.UserCode == "" {
			return err
		}
		return refuseDevice(ctx, tx, flow, s.now())
	})
	if errors.Is(err, errStale) {
		return "", requestGone()
	}
	if err != nil {
		return "", sqldb.Wrap("record a refused consent", err)
	}
	s.log.InfoContext(ctx, "consent refused", "flow", flow, "client", r.Client.ID, "user", person.User())
	if r.UserCode != "" {
		return "", nil
	}
	return s.Refusal(r, "access_denied", "The request was refused."), nil
}

// Refusal is the redirect that carries an error to a client whose redirect URI
// has been matched. Success and error both name the issuer (RFC 9207).
func (s *Service) Refusal(r AuthRequest, code, description string) string {
	return s.answer(r, url.Values{"error": {code}, "error_description": {description}})
}

func (s *Service) answer(r AuthRequest, params url.Values) string {
	params.Set("iss", s.issuer)
	if r.State != "" {
		params.Set("state", r.State)
	}
	return answerRedirect(r.RedirectURI, params)
}
