package session

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

const sessionColumns = `s.id, s.environment_id, s.organization_id, s.agent_id, s.agent_label, s.agent_verified, s.user_id, s.purpose, s.asked,
	s.needs_user, s.needs_approver, s.state, s.reason, s.cause, s.minutes, s.calls,
	coalesce((select used from session_calls u where u.session_id = s.id), 0), s.requested_at, s.pending_until, s.approved_at, s.expires_at, s.ended_at,
	s.instructions, s.deny_reason, s.approval_id, s.version, coalesce((select k.parent_id from session_child k where k.session_id = s.id), ''),
	coalesce((select w.widens from session_widening w where w.session_id = s.id), ''), coalesce((select w.base from session_widening w where w.session_id = s.id), 0)`

const (
	insertSessionSQL = `insert into session (id, environment_id, organization_id, agent_id, agent_label, agent_verified, user_id, purpose, asked,
	asked_digest, needs_user, needs_approver, state, reason, minutes, requested_at, pending_until, approved_at, expires_at, ended_at,
	instructions, deny_reason, approval_id, version, calls, likeness)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'pending', '', $13, $14, $15, 0, 0, 0, '', '', $16, 1, $17, $18)`
	insertAskedSQL  = `insert into session_asked (session_id, connection_id, provider) values ($1, $2, $3)`
	insertHandleSQL = `insert into session_handle (hash, session_id, made_at) values ($1, $2, $3)`
	// thinHandlesSQL keeps the $2 newest handles of a session.
	thinHandlesSQL = `delete from session_handle where session_id = $1 and hash not in (
	select hash from session_handle where session_id = $1 order by made_at desc, hash limit $2)`
	pendingSameSQL = `select id, approval_id, pending_until from session
where agent_id = $1 and user_id = $2 and asked_digest = $3 and state = 'pending' and pending_until > $4 order by requested_at limit 1`
	sessionByIDSQL     = `select ` + sessionColumns + ` from session s where s.id = $1`
	sessionByHandleSQL = `select ` + sessionColumns + ` from session_handle h join session s on s.id = h.session_id
where h.hash = $1 and s.agent_id = $2 and s.environment_id = $3 and s.organization_id = $4 and ($5 = '' or s.user_id = $5)`
	sessionByRequestSQL = `select ` + sessionColumns + ` from approval a join session s on s.id = a.session_id
where a.id = $1 and a.kind = 'session' and s.agent_id = $2 and s.environment_id = $3 and s.organization_id = $4 and ($5 = '' or s.user_id = $5) and ($6 = '' or s.id = $6)`
	grantsSQL = `select g.connection_id, g.provider, g.provider_name, g.effects, g.confirm, g.tools, g.limits, c.account_label, c.user_id
from session_grant g left join connection c on c.id = g.connection_id where g.session_id = $1 order by g.provider, g.connection_id`
	insertGrantSQL = `insert into session_grant (session_id, connection_id, provider, effects, confirm, tools, limits, provider_name) values ($1, $2, $3, $4, $5, $6, $7, $8)`
	activateSQL    = `update session set state = 'active', user_id = $2, minutes = $3, instructions = $4, approved_at = $5, expires_at = $6, calls = $7, version = version + 1
where id = $1 and state = 'pending' and pending_until > $5`
)

func insertSession(ctx context.Context, q sqldb.Querier, s Session, digest string) error {
	doc, err := json.Marshal(s.asked)
	if err != nil {
		return fmt.Errorf("encoding a request: %w", err)
	}
	_, err = q.ExecContext(ctx, insertSessionSQL, s.ID, s.Environment, s.Organization, s.Agent, s.AgentLabel, s.AgentVerified, s.User, s.Purpose, doc,
		digest, s.needsUser, s.needsApprover, s.Minutes, sqldb.Micros(s.RequestedAt), sqldb.Micros(s.PendingUntil), s.Approval, s.Calls, s.asked.likeness())
	for _, g := range s.asked.Grants {
		if err == nil {
			_, err = q.ExecContext(ctx, insertAskedSQL, s.ID, g.Connection, g.Provider)
		}
	}
	return err
}

// insertHandle adds a handle to a session. Of its others the oldest go, so that
// an agent which repeats its request adds no rows without end.
func insertHandle(ctx context.Context, q sqldb.Querier, hash string, s id.Session, now time.Time) error {
	_, err := q.ExecContext(ctx, thinHandlesSQL, s, maxHandles-1)
	if err == nil {
		_, err = q.ExecContext(ctx, insertHandleSQL, hash, s, sqldb.Micros(now))
	}
	return err
}

func pendingSame(ctx context.Context, q sqldb.Querier, a id.Agent, u id.User, digest string, now time.Time) (Session, error) {
	var s Session
	var until int64
	err := q.QueryRowContext(ctx, pendingSameSQL, a, u, digest, sqldb.Micros(now)).Scan(&s.ID, &s.Approval, &until)
	s.PendingUntil = sqldb.Time(until)
	return s, err
}

// askingSQL reads the connections' states after the one that ended was marked.
const askingSQL = `select a.session_id, exists (
	select 1 from session_asked b join connection c on c.id = b.connection_id where b.session_id = a.session_id and c.state <> 'disconnected')
from session_asked a join session s on s.id = a.session_id
where a.connection_id = $1 and s.environment_id = $2 and s.state = 'pending' order by a.session_id`

// waitingFor is a request that asks for a connection.
type waitingFor struct {
	session id.Session
	left    bool // it asks for others that have not ended
}

func asking(ctx context.Context, q sqldb.Querier, c connection.Connection) ([]waitingFor, error) {
	rows, err := q.QueryContext(ctx, askingSQL, c.ID, c.Environment)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []waitingFor
	for rows.Next() {
		var w waitingFor
		if err := rows.Scan(&w.session, &w.left); err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	return out, rows.Err()
}

type scanner interface{ Scan(dest ...any) error }

func scanSession(row scanner, more ...any) (Session, error) {
	var s Session
	var doc []byte
	var requested, pending, approved, expires, ended int64
	err := row.Scan(append([]any{&s.ID, &s.Environment, &s.Organization, &s.Agent, &s.AgentLabel, &s.AgentVerified, &s.User, &s.Purpose, &doc,
		&s.needsUser, &s.needsApprover, &s.State, &s.Reason, &s.Cause, &s.Minutes, &s.Calls, &s.Used, &requested, &pending, &approved, &expires, &ended,
		&s.Instructions, &s.DenyReason, &s.Approval, &s.Version, &s.Parent, &s.Widens, &s.base}, more...)...)
	if err != nil {
		return Session{}, err
	}
	if err := json.Unmarshal(doc, &s.asked); err != nil {
		return Session{}, fmt.Errorf("reading a request: %w", err)
	}
	s.RequestedAt, s.PendingUntil, s.ApprovedAt = sqldb.Time(requested), sqldb.Time(pending), sqldb.Time(approved)
	s.ExpiresAt, s.EndedAt = sqldb.Time(expires), sqldb.Time(ended)
	s.Grants = s.asked.Grants
	return s, nil
}

func sessionByID(ctx context.Context, q sqldb.Querier, sid id.Session) (Session, error) {
	s, err := scanSession(q.QueryRowContext(ctx, sessionByIDSQL, sid))
	if err != nil {
		return Session{}, err
	}
	return withGrants(ctx, q, s)
}

func sessionByHandle(ctx context.Context, q sqldb.Querier, hash string, who agent.Identity) (Session, error) {
	s, err := scanSession(q.QueryRowContext(ctx, sessionByHandleSQL, hash, who.Agent(), who.Environment(), who.Organization(), who.User()))
	if err != nil {
		return Session{}, err
	}
	return withGrants(ctx, q, s)
}

func sessionByRequest(ctx context.Context, q sqldb.Querier, a id.Approval, who agent.Identity) (Session, error) {
	s, err := scanSession(q.QueryRowContext(ctx, sessionByRequestSQL, a, who.Agent(), who.Environment(), who.Organization(), who.User(), who.Session()))
	if err != nil {
		return Session{}, err
	}
	return withGrants(ctx, q, s)
}

// withGrants replaces what was asked by what was granted, once it was.
func withGrants(ctx context.Context, q sqldb.Querier, s Session) (Session, error) {
	if s.ApprovedAt.IsZero() {
		return s, nil
	}
	rows, err := q.QueryContext(ctx, grantsSQL, s.ID)
	if err != nil {
		return Session{}, err
	}
	defer rows.Close()
	s.Grants = nil
	for rows.Next() {
		var g Grant
		var effects string
		var tools, limits []byte
		var label, owner sql.NullString
		if err := rows.Scan(&g.Connection, &g.Provider, &g.ProviderName, &effects, &g.Confirm, &tools, &limits, &label, &owner); err != nil {
			return Session{}, err
		}
		g.Effects, g.AccountLabel, g.Owner = splitEffects(effects), label.String, id.User(owner.String)
		if err := json.Unmarshal(tools, &g.Tools); err != nil {
			return Session{}, fmt.Errorf("reading a grant: %w", err)
		}
		if g.Limits, err = readLimits(limits); err != nil {
			return Session{}, err
		}
		for _, a := range s.asked.Grants {
			if a.Connection == g.Connection && g.ProviderName == "" { // of before it was stored
				g.ProviderName = a.ProviderName
			}
		}
		g.ProviderName = cmp.Or(g.ProviderName, g.Provider)
		s.Grants = append(s.Grants, g)
	}
	return s, rows.Err()
}

// activeBatch is how many sessions activeSQL asks about.
const (
	activeBatch = 16
	activeSQL   = `select id from session where state = 'active' and id in ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`
)

// activeOf says which of at most activeBatch sessions are active.
func activeOf(ctx context.Context, q sqldb.Querier, some []id.Session) (map[id.Session]bool, error) {
	args := make([]any, activeBatch)
	for i := range args {
		args[i] = some[min(i, len(some)-1)]
	}
	rows, err := q.QueryContext(ctx, activeSQL, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	active := map[id.Session]bool{}
	for rows.Next() {
		var s id.Session
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		active[s] = true
	}
	return active, rows.Err()
}

func joinEffects(list []policy.Effect) string {
	parts := make([]string, len(list))
	for i, e := range list {
		parts[i] = string(e)
	}
	return strings.Join(parts, ",")
}

func splitEffects(s string) []policy.Effect {
	var out []policy.Effect
	for p := range strings.SplitSeq(s, ",") {
		if p != "" {
			out = append(out, policy.Effect(p))
		}
	}
	return out
}

func insertGrant(ctx context.Context, q sqldb.Querier, s id.Session, g Grant) error {
	tools, err := json.Marshal(g.Tools)
	if err != nil {
		return fmt.Errorf("encoding a grant: %w", err)
	}
	limits := []byte{} // none
	if len(g.Limits) > 0 {
		if limits, err = json.Marshal(g.Limits); err != nil {
			return fmt.Errorf("encoding a grant: %w", err)
		}
	}
	_, err = q.ExecContext(ctx, insertGrantSQL, s, g.Connection, g.Provider, joinEffects(g.Effects), g.Confirm, tools, limits, g.ProviderName)
	return err
}

func insertGrants(ctx context.Context, q sqldb.Querier, s id.Session, grants []Grant) error {
	for _, g := range grants {
		if err := insertGrant(ctx, q, s, g); err != nil {
			return sqldb.Wrap("store a grant", err)
		}
	}
	return nil
}

// readLimits reads the limits of a grant. What cannot be read is an error: it
// must not count as no limit.
func readLimits(doc []byte) ([]policy.Limit, error) {
	if len(doc) == 0 {
		return nil, nil
	}
	var limits []policy.Limit
	if err := json.Unmarshal(doc, &limits); err != nil || len(limits) == 0 {
		return nil, fmt.Errorf("reading the limits of a grant: %w", cmp.Or(err, errors.New("there are none")))
	}
	return limits, nil
}

func activateSession(ctx context.Context, q sqldb.Querier, s id.Session, u id.User, v verdict, now time.Time) error {
	expires := now.Add(time.Duration(v.length) * time.Minute)
	res, err := q.ExecContext(ctx, activateSQL, s, u, v.length, v.note, sqldb.Micros(now), sqldb.Micros(expires), v.calls)
	return oneRow(res, err, "start a session", fault.New(fault.Conflict, "already_decided", "This request is no longer open."))
}

// oneRow turns "no row matched" into otherwise.
func oneRow(res sqldb.Result, err error, op string, otherwise error) error {
	if err != nil {
		return sqldb.Wrap(op, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		if err != nil {
			return sqldb.Wrap(op, err)
		}
		return otherwise
	}
	return nil
}

// endWhere selects sessions. Empty fields do not narrow; at least one is set.
type endWhere struct {
	environment  id.Environment
	organization id.Organization
	session      id.Session
	agent        id.Agent
	user         id.User
	connection   id.Connection
	provider     string
	state        string // empty: any
	reach        *reach // of a person who named no organization; nil does not narrow
}

// reach is whose sessions a person may end: everybody's in the organizations of
// all, their own in those of own.
type reach struct {
	self     id.User
	all, own []id.Organization
}

func (w endWhere) sql(first int) (string, []any) {
	var conds []string
	var args []any
	add := func(cond string, v string) {
		if v != "" {
			args = append(args, v)
			conds = append(conds, fmt.Sprintf(cond, first+len(args)-1))
		}
	}
	add("environment_id = $%d", string(w.environment))
	add("organization_id = $%d", string(w.organization))
	add("id = $%d", string(w.session))
	add("agent_id = $%d", string(w.agent))
	add("user_id = $%d", string(w.user))
	add("state = $%d", w.state)
	// What was asked for and not granted says nothing about a session that runs.
	const uses = "(id in (select session_id from session_grant where %[1]s = $%%[1]d) or state = 'pending' and id in (select session_id from session_asked where %[1]s = $%%[1]d))"
	add(fmt.Sprintf(uses, "connection_id"), string(w.connection))
	add(fmt.Sprintf(uses, "provider"), w.provider)
	if r := w.reach; r != nil {
		among := func(orgs []id.Organization) string {
			marks := []string{"''"} // no organization's id
			for _, o := range orgs {
				args = append(args, o)
				marks = append(marks, fmt.Sprintf("$%d", first+len(args)-1))
			}
			return "organization_id in (" + strings.Join(marks, ", ") + ")"
		}
		args = append(args, r.self)
		self := fmt.Sprintf("user_id = $%d", first+len(args)-1)
		conds = append(conds, "("+among(r.all)+" or "+self+" and "+among(r.own)+")")
	}
	return strings.Join(conds, " and "), args
}

// endedSession is one that an update ended.
type endedSession struct {
	id           id.Session
	environment  id.Environment
	organization id.Organization
	agent        id.Agent
	user         id.User
	wasActive    bool
}

const withdrawApprovalsSQL = `update approval set state = 'withdrawn', decided_at = $2, version = version + 1 where session_id = $1 and state in ('pending', 'approved')`

// ending is how sessions end.
type ending struct {
	reason, cause, denyReason string
}

// endSessions ends every session that w selects and that has not ended, and
// withdraws what still waited for a decision on them.
func endSessions(ctx context.Context, q sqldb.Querier, w endWhere, how ending, now time.Time) ([]endedSession, error) {
	cond, args := w.sql(5)
	if cond == "" {
		return nil, fmt.Errorf("ending sessions without saying which")
	}
	looks := 1
	if w.connection != "" || w.provider != "" {
		looks = 2 // the first may have waited for an approval whose grants it could not see
	}
	var ended []endedSession
	for range looks {
		some, err := scanEnded(q.QueryContext(ctx, `update session set state = 'ended', reason = $1, cause = $2, deny_reason = $3, ended_at = $4, version = version + 1
where state <> 'ended' and `+cond+` returning id, environment_id, organization_id, agent_id, user_id, approved_at`,
			append([]any{how.reason, how.cause, how.denyReason, sqldb.Micros(now)}, args...)...))
		if err != nil {
			return nil, sqldb.Wrap("end sessions", err)
		}
		ended = append(ended, some...)
	}
	children, err := endChildren(ctx, q, ended, how, now)
	if err != nil {
		return nil, err
	}
	ended = append(ended, children...)
	for _, e := range ended {
		if how.reason == Denied {
			continue // the decision itself says so
		}
		if _, err := q.ExecContext(ctx, withdrawApprovalsSQL, e.id, sqldb.Micros(now)); err != nil {
			return nil, sqldb.Wrap("withdraw open requests", err)
		}
	}
	return ended, nil
}

func scanEnded(rows sqldb.Rows, err error) ([]endedSession, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []endedSession
	for rows.Next() {
		var e endedSession
		var approved int64
		if err := rows.Scan(&e.id, &e.environment, &e.organization, &e.agent, &e.user, &approved); err != nil {
			return nil, err
		}
		e.wasActive = approved > 0
		out = append(out, e)
	}
	return out, rows.Err()
}

const (
	anyDueSQL = `select exists (select 1 from session where state = 'active' and expires_at <= $1)
	or exists (select 1 from session where state = 'pending' and pending_until <= $1)
	or exists (select 1 from approval where state = 'pending' and expires_at <= $1)
	or exists (select 1 from session_handle where made_at <= $2)`
	forgetHandlesSQL = `delete from session_handle where hash in (select h.hash from session_handle h join session s on s.id = h.session_id
	where h.made_at <= $1 and s.state = 'ended' order by h.made_at limit 500)`
	expireSessionsSQL = `update session set state = 'ended', reason = 'expired', ended_at = $1, version = version + 1
where state = 'active' and expires_at <= $1 or state = 'pending' and pending_until <= $1
returning id, environment_id, organization_id, agent_id, user_id, approved_at`
	expireApprovalsSQL = `update approval set state = 'expired', version = version + 1 where state = 'pending' and expires_at <= $1 returning organization_id`
)

func anyDue(ctx context.Context, q sqldb.Querier, now time.Time) (bool, error) {
	var due bool
	err := q.QueryRowContext(ctx, anyDueSQL, sqldb.Micros(now), sqldb.Micros(now.Add(-handleFor))).Scan(&due)
	return due, err
}

// forgetHandles takes the handles of sessions that ended days ago: whoever still
// has one asks for a session that is not there.
func forgetHandles(ctx context.Context, q sqldb.Querier, now time.Time) error {
	_, err := q.ExecContext(ctx, forgetHandlesSQL, sqldb.Micros(now.Add(-handleFor)))
	return sqldb.Wrap("forget handles", err)
}

func expireSessions(ctx context.Context, q sqldb.Querier, now time.Time) ([]endedSession, error) {
	ended, err := scanEnded(q.QueryContext(ctx, expireSessionsSQL, sqldb.Micros(now)))
	if err != nil {
		return nil, sqldb.Wrap("mark expired sessions", err)
	}
	for _, e := range ended {
		if _, err := q.ExecContext(ctx, `update approval set state = 'expired', version = version + 1 where session_id = $1 and state in ('pending', 'approved')`, e.id); err != nil {
			return nil, sqldb.Wrap("mark expired requests", err)
		}
	}
	return ended, nil
}

func expireApprovals(ctx context.Context, q sqldb.Querier, now time.Time) ([]id.Organization, error) {
	rows, err := q.QueryContext(ctx, expireApprovalsSQL, sqldb.Micros(now))
	if err != nil {
		return nil, sqldb.Wrap("mark expired requests", err)
	}
	defer rows.Close()
	var out []id.Organization
	for rows.Next() {
		var o id.Organization
		if err := rows.Scan(&o); err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, rows.Err()
}

const fenceSQL = `select id, state, expires_at, reason from session where id in (%s) order by id`

// requireActive is the fence between calls and a revoke: the share lock makes the
// database order this transaction against the one that ends a session. It says of
// each session, in their order, why it permits nothing.
func requireActive(ctx context.Context, tx *sqldb.Tx, sessions []id.Session, now time.Time) []error {
	refused := make([]error, len(sessions))
	all := func(err error) []error {
		for i := range refused {
			refused[i] = sqldb.Wrap("check the session of a call", err)
		}
		return refused
	}
	marks, args := sqldb.In(sessions)
	rows, err := tx.QueryContext(ctx, fmt.Sprintf(fenceSQL, marks)+tx.ShareLock(), args...)
	if err != nil {
		return all(err)
	}
	defer rows.Close()
	all(sql.ErrNoRows)
	for rows.Next() {
		var ses Session
		var expires int64
		if err := rows.Scan(&ses.ID, &ses.State, &expires, &ses.Reason); err != nil {
			return all(err)
		}
		var why error
		if ses.State == Active && !now.Before(sqldb.Time(expires)) {
			ses.State, ses.Reason = Ended, Expired
		}
		if ses.State != Active {
			why = endedFault(ses)
		}
		for i := range sessions {
			if sessions[i] == ses.ID {
				refused[i] = why
			}
		}
	}
	if err := rows.Err(); err != nil {
		return all(err)
	}
	return refused
}

const anySessionSQL = `select exists (select 1 from session where %s)`

// anySession reports whether w selects anything, ended or not.
func anySession(ctx context.Context, q sqldb.Querier, w endWhere) (bool, error) {
	cond, args := w.sql(1)
	var found bool
	err := q.QueryRowContext(ctx, fmt.Sprintf(anySessionSQL, cond), args...).Scan(&found)
	return found, err
}
