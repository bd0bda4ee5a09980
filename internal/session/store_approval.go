package session

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// approvalRow is an approval as stored. The subject of a call is sealed.
type approvalRow struct {
	id              id.Approval
	kind            string
	environment     id.Environment
	organization    id.Organization
	session         id.Session
	agent           id.Agent
	user            id.User
	connection      id.Connection
	connectionOwner id.User
	tool            string
	subjectDigest   string
	subject         []byte
	state           string
	createdAt       time.Time
	expiresAt       time.Time
	decidedAt       time.Time
	decidedBy       id.User
	note            string
	firstBy         id.User
	firstAt         time.Time
	firstDigest     string
	firstDecision   []byte
	version         int64
}

const approvalColumns = `id, kind, environment_id, organization_id, session_id, agent_id, user_id, connection_id, connection_owner, tool,
	subject_digest, subject, state, created_at, expires_at, decided_at, decided_by, note, version, first_by, first_at, first_digest, first_decision`

const callRequestColumns = `id, session_id, tool, state, note, created_at, expires_at, decided_at, decided_by`

const (
	insertApprovalSQL = `insert into approval (` + approvalColumns + `)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 0, '', '', 1, '', 0, '', $16)`
	approvalByIDSQL     = `select ` + approvalColumns + ` from approval where id = $1`
	pendingApprovalsSQL = `select ` + approvalColumns + ` from approval where organization_id = $1 and state = 'pending' and expires_at > $2 order by created_at limit 1000`
	decideApprovalSQL   = `update approval set state = $2, expires_at = $3, decided_at = $4, decided_by = $5, note = $6, version = version + 1
where id = $1 and state = 'pending' and version = $7 and expires_at > $4`
	callRequestSQL = `select ` + callRequestColumns + ` from approval
where id = $1 and kind = 'call' and agent_id = $2 and environment_id = $3 and organization_id = $4 and ($5 = '' or user_id = $5) and ($6 = '' or session_id = $6)`
	callRequestsSQL = `select ` + callRequestColumns + ` from approval where session_id = $1 and kind = 'call' order by created_at desc, id desc limit 100`
	pendingCallSQL  = `select id from approval where session_id = $1 and subject_digest = $2 and kind = 'call' and state = 'pending' and expires_at > $3 order by created_at limit 1`
	approvedCallSQL = `select id, note from approval where session_id = $1 and subject_digest = $2 and kind = 'call' and state = 'approved' and expires_at > $3 order by created_at limit 1`
	deniedCallSQL   = `select note, decided_at from approval where session_id ` + inFamily + ` and subject_digest = $2 and kind = 'call' and state = 'denied' order by decided_at desc limit 1`
	lastDecisionSQL = `select state from approval where session_id ` + inFamily + ` and subject_digest = $2 and kind = 'call' and state in ('denied', 'approved', 'used') order by decided_at desc, id desc limit 1`
	useApprovalSQL  = `update approval set state = 'used', version = version + 1 where id = $1 and state = 'approved' and expires_at > $2`
)

func insertApproval(ctx context.Context, q sqldb.Querier, r approvalRow) error {
	if r.subject == nil {
		r.subject = []byte{}
	}
	_, err := q.ExecContext(ctx, insertApprovalSQL, r.id, r.kind, r.environment, r.organization, r.session, r.agent, r.user, r.connection,
		r.connectionOwner, r.tool, r.subjectDigest, r.subject, r.state, sqldb.Micros(r.createdAt), sqldb.Micros(r.expiresAt), []byte{})
	return err
}

func scanApproval(row scanner) (approvalRow, error) {
	var r approvalRow
	var created, expires, decided, first int64
	err := row.Scan(&r.id, &r.kind, &r.environment, &r.organization, &r.session, &r.agent, &r.user, &r.connection, &r.connectionOwner, &r.tool,
		&r.subjectDigest, &r.subject, &r.state, &created, &expires, &decided, &r.decidedBy, &r.note, &r.version, &r.firstBy, &first, &r.firstDigest, &r.firstDecision)
	r.firstAt = sqldb.Time(first)
	r.createdAt, r.expiresAt, r.decidedAt = sqldb.Time(created), sqldb.Time(expires), sqldb.Time(decided)
	return r, err
}

func approvalByID(ctx context.Context, q sqldb.Querier, a id.Approval) (approvalRow, error) {
	return scanApproval(q.QueryRowContext(ctx, approvalByIDSQL, a))
}

func pendingApprovals(ctx context.Context, q sqldb.Querier, org id.Organization, now time.Time) ([]approvalRow, error) {
	rows, err := q.QueryContext(ctx, pendingApprovalsSQL, org, sqldb.Micros(now))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []approvalRow
	for rows.Next() {
		r, err := scanApproval(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// decideApproval is a compare-and-swap: of several decisions one wins.
func decideApproval(ctx context.Context, q sqldb.Querier, r approvalRow, now time.Time) error {
	res, err := q.ExecContext(ctx, decideApprovalSQL, r.id, r.state, sqldb.Micros(r.expiresAt), sqldb.Micros(now), r.decidedBy, r.note, r.version)
	return oneRow(res, err, "decide a request", fault.New(fault.Conflict, "already_decided", "This request has already been decided, or has expired."))
}

func callRequest(ctx context.Context, q sqldb.Querier, who agent.Identity, a id.Approval) (CallRequest, error) {
	return scanCallRequest(q.QueryRowContext(ctx, callRequestSQL, a, who.Agent(), who.Environment(), who.Organization(), who.User(), who.Session()))
}

func callRequests(ctx context.Context, q sqldb.Querier, s id.Session) ([]CallRequest, error) {
	rows, err := q.QueryContext(ctx, callRequestsSQL, s)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []CallRequest
	for rows.Next() {
		r, err := scanCallRequest(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

func scanCallRequest(row scanner) (CallRequest, error) {
	var r CallRequest
	var created, expires, decided int64
	err := row.Scan(&r.ID, &r.Session, &r.Tool, &r.State, &r.Note, &created, &expires, &decided, &r.DecidedBy)
	r.CreatedAt, r.ExpiresAt, r.DecidedAt = sqldb.Time(created), sqldb.Time(expires), sqldb.Time(decided)
	return r, err
}

func pendingCall(ctx context.Context, q sqldb.Querier, s id.Session, key string, now time.Time) (id.Approval, error) {
	var a id.Approval
	err := q.QueryRowContext(ctx, pendingCallSQL, s, key, sqldb.Micros(now)).Scan(&a)
	return a, err
}

func approvedCall(ctx context.Context, q sqldb.Querier, s id.Session, key string, now time.Time) (a id.Approval, note string, err error) {
	err = q.QueryRowContext(ctx, approvedCallSQL, s, key, sqldb.Micros(now)).Scan(&a, &note)
	return a, note, err
}

func deniedCall(ctx context.Context, q sqldb.Querier, s id.Session, key string) (note string, at time.Time, err error) {
	var micros int64
	err = q.QueryRowContext(ctx, deniedCallSQL, s, key).Scan(&note, &micros)
	return note, sqldb.Time(micros), err
}

// lastDecision is the state of the request for a call that a person decided last.
func lastDecision(ctx context.Context, q sqldb.Querier, s id.Session, key string) (state string, err error) {
	err = q.QueryRowContext(ctx, lastDecisionSQL, s, key).Scan(&state)
	return state, err
}

// useApproval uses up the approval of a call. Who comes second is refused.
func useApproval(ctx context.Context, q sqldb.Querier, a id.Approval, now time.Time) error {
	res, err := q.ExecContext(ctx, useApprovalSQL, a, sqldb.Micros(now))
	return oneRow(res, err, "use the approval of a call",
		fault.New(fault.Denied, "approval_stale", "The approval of this call was already used, or is too old.").WithHint("Make the call again to ask for a new approval."))
}
