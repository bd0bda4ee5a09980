package session

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Aim is what a revoke is about. Exactly one field is set; Organization beside
// another keeps that to one organization. Without it, an aim that lies in
// several, a User or a Provider, counts wherever the actor may revoke.
type Aim struct {
	Session      id.Session
	Agent        id.Agent
	User         id.User
	Connection   id.Connection
	Provider     string
	Organization id.Organization
}

// RunningCall is a call that had started before a revoke and was cut by it.
type RunningCall struct {
	Event   id.Event   `json:"event_id"`
	Session id.Session `json:"session_id"`
	Tool    string     `json:"tool"`
	Started time.Time  `json:"started_at"`
}

// RevokeResult says what a revoke ended.
type RevokeResult struct {
	Sessions []id.Session  `json:"sessions"`
	Running  []RunningCall `json:"running"`
}

// Revoke ends the sessions that the aim hits, and withdraws requests that still
// wait. When it returns, no further call of them starts anywhere, and calls
// that had started are cut: on this node already, on others within a second.
func (s *Service) Revoke(ctx context.Context, by account.Actor, aim Aim) (RevokeResult, error) {
	line, _ := by.Counted()
	w, err := s.aimed(ctx, s.db.UrgentReader(line), by, aim)
	if err != nil {
		return RevokeResult{}, err
	}
	urgently := func(ctx context.Context, fn func(context.Context, *sqldb.Tx) error) error {
		return s.db.Urgent(ctx, line, fn)
	}
	return s.end(ctx, urgently, w, ending{reason: Revoked}, by.Audit(), by.Address())
}

// aimed checks that the actor may revoke what it aims at. What the actor may
// not see does not exist for it.
func (s *Service) aimed(ctx context.Context, q sqldb.Querier, by account.Actor, a Aim) (endWhere, error) {
	set := 0
	for _, v := range []string{string(a.Session), string(a.Agent), string(a.User), string(a.Connection), a.Provider} {
		if v != "" {
			set++
		}
	}
	if set > 1 || set == 0 && a.Organization == "" {
		return endWhere{}, fault.New(fault.Invalid, "invalid_target", "Say what to revoke: one session, agent, user, connection, provider or organization.")
	}
	w := endWhere{environment: by.Environment(), session: a.Session, agent: a.Agent, user: a.User, connection: a.Connection, provider: a.Provider, organization: a.Organization}
	if by.IsSystem() {
		return w, nil
	}
	if a.Organization != "" {
		if by.May(a.Organization, account.Revoke) != nil {
			return endWhere{}, noTarget(a)
		}
		return w, nil
	}
	if p, person := by.Person(); person {
		// In every organization where they have the role. Without it, people may
		// still end what acts for themselves.
		w.reach = &reach{self: p.User()}
		for _, m := range p.Organizations() {
			switch {
			case m.Environment != by.Environment():
			case by.May(m.Organization, account.Revoke) == nil:
				w.reach.all = append(w.reach.all, m.Organization)
			case by.May(m.Organization, account.UseOwn) == nil:
				w.reach.own = append(w.reach.own, m.Organization)
			}
		}
	} else if w.organization = by.Organization(); by.May(w.organization, account.Revoke) != nil {
		return endWhere{}, noTarget(a)
	}
	found, err := anySession(ctx, q, w)
	if err != nil {
		return endWhere{}, sqldb.Wrap("find what to revoke", err)
	}
	if !found {
		return endWhere{}, noTarget(a)
	}
	return w, nil
}

func noTarget(a Aim) error {
	switch {
	case a.Session != "":
		return fault.New(fault.NotFound, "not_found", "No such session.")
	case a.Agent != "":
		return fault.New(fault.NotFound, "not_found", "No such agent.")
	case a.User != "":
		return fault.New(fault.NotFound, "not_found", "No such user.")
	case a.Connection != "":
		return fault.New(fault.NotFound, "not_found", "No such connection.")
	}
	return fault.New(fault.NotFound, "not_found", "No such organization.")
}

// transact runs fn in a transaction, as sqldb.DB's Update and Urgent do.
type transact = func(ctx context.Context, fn func(ctx context.Context, tx *sqldb.Tx) error) error

// end is the one way in which sessions end by somebody's will.
func (s *Service) end(ctx context.Context, in transact, w endWhere, how ending, by audit.Actor, address string) (RevokeResult, error) {
	var result RevokeResult
	err := in(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		result = RevokeResult{Sessions: []id.Session{}, Running: []RunningCall{}}
		ended, err := s.endIn(ctx, tx, w, how, by, address)
		if err != nil {
			return err
		}
		for _, e := range ended {
			result.Sessions = append(result.Sessions, e.id)
			if !e.wasActive {
				continue
			}
			// Every intent that could commit has: none can after this.
			running, err := s.audit.Unfinished(ctx, tx, e.id)
			if err != nil {
				return err
			}
			for _, r := range running {
				result.Running = append(result.Running, RunningCall{Event: r.ID, Session: e.id, Tool: r.Tool, Started: r.Time})
			}
		}
		return nil
	})
	if err != nil {
		return RevokeResult{}, err
	}
	s.running.settle(ctx, result.Sessions)
	return result, nil
}

// endIn ends sessions inside a caller's transaction; their running calls are
// cut when it commits.
func (s *Service) endIn(ctx context.Context, tx *sqldb.Tx, w endWhere, how ending, by audit.Actor, address string) ([]endedSession, error) {
	ended, err := endSessions(ctx, tx, w, how, s.now())
	if err != nil {
		return nil, err
	}
	for _, e := range ended {
		s.audit.AppendEvent(tx, audit.Entry{
			Environment: e.environment, Organization: e.organization, Actor: by, Agent: e.agent, User: e.user, Session: e.id,
			Action: "session." + how.reason, Object: string(e.id), Address: address, Detail: w.detail(),
		})
		if err := s.agents.RevokeSession(ctx, tx, e.id); err != nil {
			return nil, err
		}
		tx.Notify(endedChannel, string(e.id))
		changed(tx, e.organization)
	}
	tx.Done(func(committed bool) {
		if committed {
			for _, e := range ended {
				s.running.cut(e.id, errEnded)
			}
		}
	})
	return ended, nil
}

// The hooks below end sessions in the transaction in which what they rest on
// ends.

// OnUserLeft ends what acted for a user who left an organization, or all
// organizations when org is empty, and withdraws what they approved as the first
// of two.
func (s *Service) OnUserLeft(ctx context.Context, tx *sqldb.Tx, env id.Environment, org id.Organization, user id.User) error {
	if _, err := s.endIn(ctx, tx, endWhere{environment: env, organization: org, user: user}, ending{reason: Revoked, cause: CauseUser}, system, ""); err != nil {
		return err
	}
	return s.firstLeft(ctx, tx, env, org, user)
}

// OnAgentEnded ends the sessions of an agent that was disabled.
func (s *Service) OnAgentEnded(ctx context.Context, tx *sqldb.Tx, env id.Environment, agent id.Agent) error {
	_, err := s.endIn(ctx, tx, endWhere{environment: env, agent: agent}, ending{reason: Revoked, cause: CauseAgent}, system, "")
	return err
}

// OnConnectionEnded ends the sessions with a grant on a connection that ended,
// and withdraws the requests that asked for nothing else. A request with other
// accounts left goes on, and cannot give this one any more.
func (s *Service) OnConnectionEnded(ctx context.Context, tx *sqldb.Tx, c connection.Connection) error {
	w := endWhere{environment: c.Environment, connection: c.ID, state: Active}
	if _, err := s.endIn(ctx, tx, w, ending{reason: Revoked, cause: CauseAccount}, system, ""); err != nil {
		return err
	}
	waiting, err := asking(ctx, tx, c)
	if err != nil {
		return sqldb.Wrap("find the requests for a connection", err)
	}
	for _, r := range waiting {
		if r.left {
			changed(tx, c.Organization)
			continue
		}
		w := endWhere{environment: c.Environment, connection: c.ID, session: r.session}
		if _, err := s.endIn(ctx, tx, w, ending{reason: Withdrawn, cause: CauseAccount}, system, ""); err != nil {
			return err
		}
	}
	return nil
}

var system = audit.Actor{Kind: "system", ID: "server"}

// detail says what an end aimed at, for the audit.
func (w endWhere) detail() map[string]string {
	out := map[string]string{}
	for name, v := range map[string]string{"agent": string(w.agent), "user": string(w.user), "connection": string(w.connection), "provider": w.provider} {
		if v != "" {
			out["by_"+name] = v
		}
	}
	return out
}

// Sweep marks sessions and approvals whose time is over, and forgets the handles of
// sessions that ended days ago.
func (s *Service) Sweep(ctx context.Context) error {
	now := s.now()
	due, err := anyDue(ctx, s.db.Reader(), now)
	if err != nil || !due {
		return err
	}
	return s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := forgetHandles(ctx, tx, now); err != nil {
			return err
		}
		ended, err := expireSessions(ctx, tx, now)
		if err != nil {
			return err
		}
		for _, e := range ended {
			s.audit.AppendEvent(tx, audit.Entry{
				Environment: e.environment, Organization: e.organization, Actor: system, Agent: e.agent, User: e.user, Session: e.id,
				Action: "session.expired", Object: string(e.id),
			})
			tx.Notify(endedChannel, string(e.id))
			changed(tx, e.organization)
		}
		orgs, err := expireApprovals(ctx, tx, now)
		for _, o := range orgs {
			changed(tx, o)
		}
		return err
	})
}
