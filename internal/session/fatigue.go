package session

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// likeness is the same for what is asked for again in other words, for another
// time or on another account: the providers, effects and tools decide.
func (a asked) likeness() string {
	var parts []string
	for _, g := range a.Grants {
		fresh := g.New()
		for _, e := range presentEffects(fresh) {
			parts = append(parts, "effect "+g.Provider+" "+string(e))
		}
		for _, t := range fresh {
			parts = append(parts, "tool "+g.Provider+" "+t.Name)
		}
	}
	slices.Sort(parts)
	return hexDigest([]byte(strings.Join(slices.Compact(parts), "\n")))
}

// denials are those in a row, within a day.
type denials struct {
	count int
	last  time.Time
}

// hold is for how long they hold the next request back, after the first free ones.
// It doubles from one minute to an hour with each.
func (d denials) hold(free int, now time.Time) time.Duration {
	n := d.count - free
	if n <= 0 {
		return 0
	}
	wait := min(time.Minute<<min(n-1, 6), time.Hour)
	return max(d.last.Add(wait).Sub(now), 0)
}

// How many denials in a row hold nothing back: of like requests of other agents
// of the same person too, of any requests for this person, of any calls of a
// session. One agent's own have none.
const (
	freeOfOthers = 1
	freeOfAny    = 4
	freeCalls    = 2
)

// withinLimits holds requests against fatigue (threats.md A8). Everything is
// counted per agent and per user and organization, so registering again as a
// new agent sheds nothing. A denial holds back what is like what was denied; many
// hold back everything, so that an agent which varies its requests gains little.
func (s *Service) withinLimits(ctx context.Context, tx *sqldb.Tx, who agent.Identity, what asked, most policy.Fatigue, now time.Time) error {
	if err := s.muted(ctx, tx, who.Agent(), now); err != nil {
		return err
	}
	c, err := countRequests(ctx, tx, who, what.likeness(), now)
	if err != nil {
		return sqldb.Wrap("count open requests", err)
	}
	limited := func(msg, hint string, wait time.Duration) error {
		return fault.New(fault.Limited, "rate_limited", msg).WithHint(hint).WithRetry(wait)
	}
	switch {
	case c.pendingByAgent >= most.OpenByAgent:
		return limited(fmt.Sprintf("This agent already has %d requests waiting for a decision.", c.pendingByAgent), "Wait for the person to decide, or let them expire.", time.Minute)
	case c.pendingByUser >= most.OpenByUser:
		return limited("Too many requests wait for this person.", "Wait until some are decided.", time.Minute)
	case c.hourByAgent >= most.HourlyByAgent:
		return limited("This agent has made too many requests within the hour.", "Ask less often, for what a whole task needs.", 10*time.Minute)
	case c.hourByUser >= most.HourlyByUser:
		return limited("Too many requests were made for this person within the hour.", "Ask less often.", 10*time.Minute)
	}
	const less = "Do not repeat what was denied, also not in other words. Ask the person in words what they would approve: another request, for less or for something else, can be made now, this one after the time in retry_after."
	if wait := c.likeByAgent.hold(0, now); wait > 0 {
		return limited("The person denied a request of this agent for the same providers, effects and tools, so it cannot be made again for a while.", less, wait)
	}
	if wait := c.likeByUser.hold(freeOfOthers, now); wait > 0 {
		return limited("Requests for the same providers, effects and tools were denied to agents of this person, so no agent can make them for a while.", less, wait)
	}
	if wait := c.anyByUser.hold(freeOfAny, now); wait > 0 {
		return limited("Several requests for this person were denied, so nobody can ask them for a while, also not for something else.",
			"Ask the person in words what they would approve, and request that after the time in retry_after.", wait)
	}
	return nil
}

// muted refuses what an agent asks for that a person has silenced.
func (s *Service) muted(ctx context.Context, tx *sqldb.Tx, who id.Agent, now time.Time) error {
	until, err := s.agents.Muted(ctx, tx, who)
	if err != nil || until.IsZero() {
		return err
	}
	return fault.New(fault.Limited, "rate_limited", "A person has muted this agent: nobody is asked for anything by it until "+until.UTC().Format(time.RFC3339)+".").
		WithHint("Do not ask again before the time in retry_after. Calls that need no approval go on.").WithRetry(until.Sub(now)).With("muted_until", until.UTC().Format(time.RFC3339))
}

// requests counts what the limits rest on.
type requests struct {
	pendingByAgent, pendingByUser, hourByAgent, hourByUser int
	likeByAgent, likeByUser, anyByUser                     denials
}

// A denial counts until something like it is approved.
// What an agent hands on to a sub-agent nobody was asked for: it counts as nothing.
const countRequestsSQL = `select
	coalesce(sum(case when agent_id = $1 and state = 'pending' and pending_until > $4 then 1 else 0 end), 0),
	coalesce(sum(case when state = 'pending' and pending_until > $4 then 1 else 0 end), 0),
	coalesce(sum(case when agent_id = $1 and requested_at > $5 then 1 else 0 end), 0),
	coalesce(sum(case when requested_at > $5 then 1 else 0 end), 0),
	coalesce(sum(case when agent_id = $1 and likeness = $7 and reason = 'denied' and ended_at > (select coalesce(max(b.approved_at), 0) from session b
		where b.agent_id = $1 and b.organization_id = $3 and b.likeness = $7 and b.requested_at > $6 and not exists (select 1 from session_child k where k.session_id = b.id)) then 1 else 0 end), 0),
	coalesce(max(case when agent_id = $1 and likeness = $7 and reason = 'denied' then ended_at else 0 end), 0),
	coalesce(sum(case when likeness = $7 and reason = 'denied' and ended_at > (select coalesce(max(b.approved_at), 0) from session b
		where b.user_id = $2 and b.organization_id = $3 and b.likeness = $7 and b.requested_at > $6 and not exists (select 1 from session_child k where k.session_id = b.id)) then 1 else 0 end), 0),
	coalesce(max(case when likeness = $7 and reason = 'denied' then ended_at else 0 end), 0),
	coalesce(sum(case when reason = 'denied' and ended_at > (select coalesce(max(b.approved_at), 0) from session b
		where b.user_id = $2 and b.organization_id = $3 and b.requested_at > $6 and not exists (select 1 from session_child k where k.session_id = b.id)) then 1 else 0 end), 0),
	coalesce(max(case when reason = 'denied' then ended_at else 0 end), 0)
from session where organization_id = $3 and (agent_id = $1 or user_id = $2) and requested_at > $6
	and not exists (select 1 from session_child k where k.session_id = session.id)`

func countRequests(ctx context.Context, q sqldb.Querier, who agent.Identity, likeness string, now time.Time) (requests, error) {
	var r requests
	var byAgent, byUser, any int64
	err := q.QueryRowContext(ctx, countRequestsSQL, who.Agent(), who.User(), who.Organization(), sqldb.Micros(now), sqldb.Micros(now.Add(-time.Hour)),
		sqldb.Micros(now.Add(-24*time.Hour)), likeness).Scan(&r.pendingByAgent, &r.pendingByUser, &r.hourByAgent, &r.hourByUser,
		&r.likeByAgent.count, &byAgent, &r.likeByUser.count, &byUser, &r.anyByUser.count, &any)
	r.likeByAgent.last, r.likeByUser.last, r.anyByUser.last = sqldb.Time(byAgent), sqldb.Time(byUser), sqldb.Time(any)
	return r, err
}

// callsWithin is withinLimits for the calls that need a decision of their own, of
// root and all that was handed on of it. Calls of the same tool on the same account are alike.
func (s *Service) callsWithin(ctx context.Context, tx *sqldb.Tx, l Live, root id.Session, c CallSubject, most policy.Fatigue, now time.Time) error {
	if err := s.muted(ctx, tx, l.agent, now); err != nil {
		return err
	}
	n, err := countCalls(ctx, tx, root, c, now)
	if err != nil {
		return sqldb.Wrap("count open requests", err)
	}
	limited := func(msg, hint string, wait time.Duration) error {
		return fault.New(fault.Limited, "rate_limited", msg).WithHint(hint).WithRetry(wait)
	}
	if n.pending >= most.OpenByAgent {
		return limited("Too many calls of this session wait for a decision.", "Wait for the person to decide.", time.Minute)
	}
	if wait := n.like.hold(0, now); wait > 0 {
		return limited("The person denied a call of this tool, so no other call of it can be asked for for a while.",
			"Calls of other tools go on. Ask the person in words what they would approve, and make that call after the time in retry_after.", wait)
	}
	if wait := n.any.hold(freeCalls, now); wait > 0 {
		return limited("The person denied several calls of this session, so no other call can be asked for for a while.",
			"Calls that need no approval go on. Ask the person in words what they would approve, and make that call after the time in retry_after.", wait)
	}
	return nil
}

type callCounts struct {
	pending   int
	like, any denials
}

// inFamily selects the session $1 and all that was handed on of it.
const inFamily = `in (select s.id from session s where s.id = $1 union all select k.session_id from session_child k where k.parent_id = $1)`

const countCallsSQL = `select
	coalesce(sum(case when state = 'pending' and expires_at > $2 then 1 else 0 end), 0),
	coalesce(sum(case when tool = $3 and connection_id = $4 and state = 'denied' and decided_at > (select coalesce(max(b.decided_at), 0) from approval b
		where b.session_id ` + inFamily + ` and b.kind = 'call' and b.tool = $3 and b.connection_id = $4 and b.state in ('approved', 'used')) then 1 else 0 end), 0),
	coalesce(max(case when tool = $3 and connection_id = $4 and state = 'denied' then decided_at else 0 end), 0),
	coalesce(sum(case when state = 'denied' and decided_at > (select coalesce(max(b.decided_at), 0) from approval b
		where b.session_id ` + inFamily + ` and b.kind = 'call' and b.state in ('approved', 'used')) then 1 else 0 end), 0),
	coalesce(max(case when state = 'denied' then decided_at else 0 end), 0)
from approval where session_id ` + inFamily + ` and kind = 'call'`

func countCalls(ctx context.Context, q sqldb.Querier, s id.Session, c CallSubject, now time.Time) (callCounts, error) {
	var n callCounts
	var like, any int64
	err := q.QueryRowContext(ctx, countCallsSQL, s, sqldb.Micros(now), c.Tool, c.Connection).Scan(&n.pending, &n.like.count, &like, &n.any.count, &any)
	n.like.last, n.any.last = sqldb.Time(like), sqldb.Time(any)
	return n, err
}
