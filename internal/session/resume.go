package session

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

const (
	resumePrefix = "rs_"
	maxResumes   = 8 // of a request; the oldest goes
)

const (
	insertResumeSQL = `insert into session_resume (hash, environment_id, organization_id, agent_id, user_id, session_id, approval_id, subject, until) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
on conflict (hash) do update set session_id = excluded.session_id, approval_id = excluded.approval_id, until = excluded.until`
	waitsSQL       = `select count(*) from session_resume where hash = $1`
	thinResumesSQL = `delete from session_resume where until <= $2 or approval_id = $1 and hash not in (
	select hash from session_resume where approval_id = $1 order by until desc, hash limit $3)`
	takeResumeSQL = `delete from session_resume where hash = $1 and environment_id = $2 and organization_id = $3 and agent_id = $4 and user_id = $5 and subject = $6
returning session_id, approval_id, until`
	// sessionNowSQL gives the session of a request: of one that widened a session, that.
	sessionNowSQL = `select coalesce((select w.widens from session_widening w where w.session_id = s.id and s.cause = 'widened'), s.id) from session s where s.id = $1`
)

// NewState is the name of one call that waits, for a client that hands it back (MRTR's
// requestState).
func NewState() string { return randomName(resumePrefix) }

// Suspend keeps a call that a client makes again once a person was asked, under a name
// that nobody guesses. It is kept as a hash, and good once: for this agent and user, this
// request and this subject, which is a digest of the call. It gives no access: what the
// call may do is decided anew.
func (s *Service) Suspend(ctx context.Context, who agent.Identity, request id.Approval, state, subject string) error {
	now := s.now()
	return s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		r, err := approvalByID(ctx, tx, request)
		if sqldb.NoRows(err) || err == nil && (r.agent != who.Agent() || r.environment != who.Environment() || r.organization != who.Organization()) {
			return noRequest()
		}
		if err == nil {
			_, err = tx.ExecContext(ctx, thinResumesSQL, request, sqldb.Micros(now), maxResumes-1)
		}
		if err == nil {
			_, err = tx.ExecContext(ctx, insertResumeSQL, handleHash(state), who.Environment(), who.Organization(), who.Agent(), who.User(), r.session, request, subject,
				sqldb.Micros(now.Add(pendingFor)))
		}
		return sqldb.Wrap("keep a call that waits", err)
	})
}

// Waits reports whether a call was kept under this name, for a client that does not say
// that it makes one again.
func (s *Service) Waits(ctx context.Context, state string) (bool, error) {
	var n int
	err := s.db.Reader().QueryRowContext(ctx, waitsSQL, handleHash(state)).Scan(&n)
	return n > 0, sqldb.Wrap("look for a call that waits", err)
}

// Resumed is a call that is made again.
type Resumed struct {
	Request id.Approval
	Handle  string // a new one of the request's session
}

// Resume takes what Suspend gave. Another agent, another call and a second time get
// the same answer as for what was never given.
func (s *Service) Resume(ctx context.Context, who agent.Identity, state, subject string) (Resumed, error) {
	var out Resumed
	now := s.now()
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		var ses id.Session
		var until int64
		err := tx.QueryRowContext(ctx, takeResumeSQL, handleHash(state), who.Environment(), who.Organization(), who.Agent(), who.User(), subject).Scan(&ses, &out.Request, &until)
		if sqldb.NoRows(err) || err == nil && !now.Before(sqldb.Time(until)) {
			return fault.New(fault.Invalid, "state_unknown", "This requestState is not of this call, was used already, or is too old.").WithHint("Make the call again without it.")
		}
		if err == nil {
			err = tx.QueryRowContext(ctx, sessionNowSQL, ses).Scan(&ses)
		}
		if err == nil && who.Session() == "" {
			out.Handle = newHandle()
			err = insertHandle(ctx, tx, handleHash(out.Handle), ses, now)
		}
		return sqldb.Wrap("go on with a call that waited", err)
	})
	return out, err
}

// AwaitDecision waits up to wait (at most [MaxWait]) while nobody has decided on a
// request of the agent's, for a session or for a call.
func (s *Service) AwaitDecision(ctx context.Context, who agent.Identity, request id.Approval, wait time.Duration) error {
	_, err := s.CheckCall(ctx, who, "", request, wait)
	if fault.Is(err, "request_not_found") {
		_, err = s.CheckRequest(ctx, who, request, wait)
	}
	return err
}
