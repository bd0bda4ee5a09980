package session

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// maxChildren bounds how often one session is handed on.
const maxChildren = 20

// HandOn is what an agent hands on to a sub-agent of its own: at most what its
// session has. Empty fields leave what the session has.
type HandOn struct {
	Providers []string
	Effects   []policy.Effect
	Minutes   int // at most what is left
}

// HandOn starts a session for a sub-agent inside a session of who, and gives the
// token for it (threats.md S16). The child has a part of its parent's grants, ends no
// later, ends in the transaction that ends its parent, and hands on nothing itself.
// It is the same agent: its ceiling, and whoever disables it, hold for both. Nobody
// is asked, so the approval of the parent must have said that it may.
func (s *Service) HandOn(ctx context.Context, who agent.Identity, handle string, ask HandOn, address string) (agent.Tokens, Session, error) {
	tokens, child, err := s.handOn(ctx, who, handle, ask, address)
	if err != nil && fault.KindOf(err) != fault.Internal {
		s.recordDenial(ctx, who, "session.hand_on_refused", fault.Of(err).Code, address)
	}
	return tokens, child, err
}

func (s *Service) handOn(ctx context.Context, who agent.Identity, handle string, ask HandOn, address string) (agent.Tokens, Session, error) {
	none := func(err error) (agent.Tokens, Session, error) { return agent.Tokens{}, Session{}, err }
	parent, err := s.ofAgent(ctx, who, handle)
	if err != nil {
		return none(err)
	}
	switch {
	case parent.State == Pending:
		return none(fault.New(fault.Denied, "pending", "The request still waits for a person's decision."))
	case parent.State != Active:
		return none(s.Refusal(parent))
	case parent.Calls > 0:
		return none(fault.New(fault.Denied, "not_granted", "A session with a limited number of calls is not handed on."))
	}
	if parent.Grants, err = s.firstApproved(ctx, parent); err != nil {
		return none(err)
	}
	child, v, err := s.child(parent, ask)
	if err != nil {
		return none(err)
	}
	var tokens agent.Tokens
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		// From here to the commit the parent does not end, so that whoever ends it
		// after finds this child.
		now := s.now()
		if err := requireActive(ctx, tx, []id.Session{parent.ID}, now)[0]; err != nil {
			return err
		}
		v := v
		v.length = min(v.length, wholeMinutes(parent, now)) // time has passed since it was read
		if v.length < 1 {
			return tooLate()
		}
		if err := mayHandOn(ctx, tx, parent.ID); err != nil {
			return err
		}
		if err := insertSession(ctx, tx, child, ""); err != nil {
			return sqldb.Wrap("store a session", err)
		}
		if err := insertChild(ctx, tx, child.ID, parent.ID); err != nil {
			return err
		}
		if err := activateSession(ctx, tx, child.ID, parent.User, v, now); err != nil {
			return err
		}
		if err := insertGrants(ctx, tx, child.ID, v.grants); err != nil {
			return err
		}
		s.audit.AppendEvent(tx, audit.Entry{
			Environment: child.Environment, Organization: child.Organization, Actor: audit.Actor{Kind: "agent", ID: string(child.Agent)},
			Agent: child.Agent, User: parent.User, Session: child.ID, Approval: parent.Approval, Action: "session.handed_on", Object: string(child.ID),
			Detail: map[string]string{"parent": string(parent.ID), "minutes": fmt.Sprint(v.length)}, Address: address,
		})
		changed(tx, child.Organization)
		tokens, err = s.agents.IssueForSession(ctx, tx, agent.SessionGrant{Agent: child.Agent, Session: child.ID, User: parent.User,
			Expires: now.Add(time.Duration(v.length) * time.Minute)})
		return err
	})
	return tokens, child, err
}

// wideningsSQL reads what a session had before each time that it was widened, the
// first time first. It is read after the session's grants: what is added in between is
// not among those.
const wideningsSQL = `select r.asked, g.connection_id from session_widening w join session r on r.id = w.session_id join session_grant g on g.session_id = r.id
where w.widens = $1 and r.cause = 'widened' order by w.base`

// firstApproved are the grants of a session as far as the approval that it may be handed
// on was given for them: without what widened it since, and with no less asking and no
// fewer limits than then or now.
func (s *Service) firstApproved(ctx context.Context, parent Session) ([]Grant, error) {
	type change struct {
		asked      asked
		connection id.Connection
	}
	changes, err := sqldb.Collect(func(row sqldb.Scanner) (change, error) {
		var c change
		var doc []byte
		if err := row.Scan(&doc, &c.connection); err != nil {
			return c, err
		}
		if err := json.Unmarshal(doc, &c.asked); err != nil {
			return c, fmt.Errorf("reading a request: %w", err)
		}
		return c, nil
	})(s.db.Reader().QueryContext(ctx, wideningsSQL, parent.ID))
	if err != nil {
		return nil, sqldb.Wrap("look how a session was widened", err)
	}
	var out []Grant
	for _, g := range parent.Grants {
		if i := slices.IndexFunc(changes, func(c change) bool { return c.connection == g.Connection }); i >= 0 {
			g = g.before(changes[i].asked.Grants)
		}
		if len(g.Tools) > 0 {
			out = append(out, g)
		}
	}
	return out, nil
}

// child is the part of a session that is handed on.
func (s *Service) child(parent Session, ask HandOn) (Session, verdict, error) {
	now := s.now()
	length := wholeMinutes(parent, now)
	if ask.Minutes > 0 {
		length = min(length, ask.Minutes)
	}
	if length < 1 {
		return Session{}, verdict{}, tooLate()
	}
	var grants []Grant
	for _, g := range parent.Grants {
		if len(ask.Providers) > 0 && !slices.Contains(ask.Providers, g.Provider) {
			continue
		}
		g.Tools = slices.DeleteFunc(slices.Clone(g.Tools), func(t ToolRef) bool { return len(ask.Effects) > 0 && !slices.Contains(ask.Effects, t.Effect) })
		if len(g.Tools) > 0 {
			g.Effects = presentEffects(g.Tools)
			grants = append(grants, g)
		}
	}
	for _, p := range ask.Providers {
		if !slices.ContainsFunc(grants, func(g Grant) bool { return g.Provider == p }) {
			return Session{}, verdict{}, fault.New(fault.Denied, "not_granted", "The session has nothing of "+quote(p)+" to hand on.")
		}
	}
	if len(grants) == 0 {
		return Session{}, verdict{}, fault.New(fault.Denied, "not_granted", "The session has nothing of that to hand on.")
	}
	child := parent
	child.Parent = parent.ID
	child.ID, child.State, child.Minutes, child.Purpose = id.NewSession(), Pending, length, "Handed on to a sub-agent. "+parent.Purpose
	child.RequestedAt, child.PendingUntil, child.asked, child.Grants = now, now.Add(time.Minute), asked{Grants: grants}, grants
	return child, verdict{grants: grants, length: length, note: parent.Instructions}, nil
}

// wholeMinutes are those that are left of a session.
func wholeMinutes(ses Session, now time.Time) int { return int(ses.ExpiresAt.Sub(now) / time.Minute) }

func tooLate() error {
	return fault.New(fault.Expired, "expired", "The session ends within a minute.")
}

// Parent is the session that a session of a sub-agent is a part of, or "".
func (s *Service) Parent(ctx context.Context, sid id.Session) (id.Session, error) {
	const query = `select parent_id from session_child where session_id = $1`
	var parent id.Session
	err := s.db.Reader().QueryRowContext(ctx, query, sid).Scan(&parent)
	if sqldb.NoRows(err) {
		return "", nil
	}
	return parent, sqldb.Wrap("find the parent of a session", err)
}

// allowHandOn stores that an approval said so.
func allowHandOn(ctx context.Context, tx *sqldb.Tx, sid id.Session) error {
	const query = `insert into session_hand_on (session_id) values ($1)`
	_, err := tx.ExecContext(ctx, query, sid)
	return sqldb.Wrap("let a session be handed on", err)
}

// mayHandOn takes the session's mark for this transaction, so that children are
// counted one after another.
func mayHandOn(ctx context.Context, tx *sqldb.Tx, sid id.Session) error {
	const (
		hold  = `update session_hand_on set session_id = session_id where session_id = $1`
		count = `select count(*) from session_child where parent_id = $1`
	)
	res, err := tx.ExecContext(ctx, hold, sid)
	refused := fault.New(fault.Denied, "not_granted", "The person who approved this session did not say that it may be handed on.").
		WithHint("Do it yourself, or request a session and ask the person to tick that it may be handed on to sub-agents.")
	if err := oneRow(res, err, "look whether a session may be handed on", refused); err != nil {
		return err
	}
	var n int
	if err := tx.QueryRowContext(ctx, count, sid).Scan(&n); err != nil {
		return sqldb.Wrap("count a session's sub-agents", err)
	}
	if n >= maxChildren {
		return fault.New(fault.Denied, "not_granted", fmt.Sprintf("A session is handed on %d times at most.", maxChildren)).
			WithHint("Do it yourself, or request another session.")
	}
	return nil
}

func insertChild(ctx context.Context, tx *sqldb.Tx, child, parent id.Session) error {
	const query = `insert into session_child (session_id, parent_id) values ($1, $2)`
	_, err := tx.ExecContext(ctx, query, child, parent)
	return sqldb.Wrap("store a session", err)
}

// endChildren ends what came of sessions that have ended, and takes back the requests to widen them, a few hundred parents at a
// time: a database takes so many parameters of a statement and no more.
func endChildren(ctx context.Context, q sqldb.Querier, parents []endedSession, how ending, now time.Time) ([]endedSession, error) {
	const query = `update session set state = 'ended', reason = case when state = 'pending' then 'withdrawn' else $%d end, cause = $%d, ended_at = $%d, version = version + 1
where state <> 'ended' and id in (select session_id from session_child where parent_id in (%[4]s) union all select session_id from session_widening where widens in (%[4]s))
returning id, environment_id, organization_id, agent_id, user_id, approved_at`
	var out []endedSession
	for some := range slices.Chunk(parents, 512) {
		ids := make([]id.Session, len(some))
		for i, p := range some {
			ids[i] = p.id
		}
		marks, args := sqldb.In(ids)
		n := len(args)
		ended, err := scanEnded(q.QueryContext(ctx, fmt.Sprintf(query, n+1, n+2, n+3, marks), append(args, how.reason, CauseParent, sqldb.Micros(now))...))
		if err != nil {
			return nil, sqldb.Wrap("end the sessions of sub-agents", err)
		}
		out = append(out, ended...)
	}
	return out, nil
}
