package session

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Consent is the authorization request that an approval of a session answers: the token
// goes to whoever made that, and to nobody else.
type Consent struct {
	Flow  id.Flow
	Host  string // where the answer goes, as a person should read it
	Local bool   // to a program on the machine of whoever has the page

	digest string
}

const (
	insertConsentSQL = `insert into session_consent (session_id, flow_id, digest, host, local) values ($1, $2, $3, $4, $5) on conflict (flow_id) do nothing`
	consentOfSQL     = `select flow_id, digest, host, local from session_consent where session_id = $1`
	atConsentSQL     = `select ` + sessionColumns + ` from session_consent k join session s on s.id = k.session_id where k.flow_id = $1 and s.user_id = $2`
)

// RequestAtConsent makes the request for the session that a client asks for with its
// authorization request. who is the agent that a person has just let it be.
func (s *Service) RequestAtConsent(ctx context.Context, who agent.Identity, r agent.AuthRequest, address string) (Requested, error) {
	if r.Asks == nil {
		return Requested{}, fault.New(fault.Invalid, "invalid_request", "This client asks for no session.")
	}
	return s.request(ctx, who, Ask{Providers: r.Asks.Providers, Tools: r.Asks.Tools, Effects: r.Asks.Effects, Purpose: r.Asks.Purpose, Minutes: r.Asks.Minutes,
		consent: &Consent{Flow: r.ID, Host: r.Host(), Local: r.Local(), digest: r.Digest()}}, address)
}

// to is to whom the answer goes, as a digest; empty: nobody.
func (c *Consent) to() string {
	if c == nil {
		return ""
	}
	return c.digest
}

// bindConsent ties a session to its authorization request: one for each.
func (s *Service) bindConsent(ctx context.Context, tx *sqldb.Tx, ses Session, c Consent) error {
	res, err := tx.ExecContext(ctx, insertConsentSQL, ses.ID, c.Flow, c.digest, c.Host, c.Local)
	if err := oneRow(res, err, "store a session request", fault.New(fault.Conflict, "already_decided", "This sign-in has asked for a session already.").
		WithHint("Start again from the program.")); err != nil {
		return err
	}
	return s.agents.Await(ctx, tx, c.Flow, ses.PendingUntil)
}

// consentOf is the authorization request that a session was asked for with; nil: none.
func consentOf(ctx context.Context, q sqldb.Querier, sid id.Session) (*Consent, error) {
	var c Consent
	err := q.QueryRowContext(ctx, consentOfSQL, sid).Scan(&c.Flow, &c.digest, &c.Host, &c.Local)
	if sqldb.NoRows(err) {
		return nil, nil
	}
	return &c, sqldb.Wrap("find the sign-in that a session was asked for with", err)
}

// AtConsent is the session that was asked for with an authorization request, for the
// person for whom its agent acts. For anyone else there is none.
func (s *Service) AtConsent(ctx context.Context, p account.Person, flow id.Flow) (Session, error) {
	if p.User() == "" {
		return Session{}, notFound()
	}
	ses, err := scanSession(s.db.Reader().QueryRowContext(ctx, atConsentSQL, flow, p.User()))
	if err == nil {
		ses, err = withGrants(ctx, s.db.Reader(), ses)
	}
	if sqldb.NoRows(err) {
		return Session{}, notFound()
	}
	if err != nil {
		return Session{}, sqldb.Wrap("load a session", err)
	}
	if _, ok := p.Role(ses.Organization); !ok { // this login counts elsewhere only
		return Session{}, notFound()
	}
	return s.seen(ctx, ses)
}

// Answer gives the redirect that brings the decision on the session that was asked for
// with r to its client: with a code while the session runs, with access_denied when it
// never did or has ended. It is for the browser of the person for whom the agent acts.
func (s *Service) Answer(ctx context.Context, p account.Person, r agent.AuthRequest) (redirect string, ses Session, err error) {
	if ses, err = s.AtConsent(ctx, p, r.ID); err != nil {
		return "", ses, err
	}
	switch ses.State {
	case Pending:
		return "", ses, fault.New(fault.Denied, "pending", "The request still waits for a person's decision.")
	case Active:
	default:
		redirect, err = s.agents.DenyConsent(ctx, p, r.ID)
		return redirect, ses, err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := requireActive(ctx, tx, []id.Session{ses.ID}, s.now())[0]; err != nil {
			return err
		}
		approved, err := consentOf(ctx, tx, ses.ID)
		if err != nil {
			return err
		}
		if approved.to() != r.Digest() { // the approval proved to whom the code goes
			return fault.New(fault.Conflict, "approval_stale", "This sign-in is not the one that was approved.").WithHint("Start again from the program.")
		}
		redirect, err = s.agents.CodeForSession(ctx, tx, p, r,
			agent.SessionGrant{Agent: ses.Agent, Session: ses.ID, User: ses.User, Expires: ses.ExpiresAt}, granted(ses))
		return err
	})
	return redirect, ses, err
}

// granted is what a session gives, as its client is told.
func granted(ses Session) []agent.Granted {
	var out []agent.Granted
	for _, g := range ses.Grants {
		of := agent.Granted{Asks: agent.Asks{Type: agent.AsksType, Providers: []string{g.Provider}, Effects: g.Effects, Minutes: ses.Minutes}, Expires: ses.ExpiresAt.UTC().Truncate(time.Second)}
		for _, t := range g.Tools {
			of.Tools = append(of.Tools, t.Name)
		}
		out = append(out, of)
	}
	return out
}
