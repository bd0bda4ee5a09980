package session

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// firstDecision is what the first of two persons allowed: what the second is
// shown, and says yes to or not.
type firstDecision struct {
	Grants  []Grant `json:"grants"`
	Minutes int     `json:"minutes"`
	Calls   int     `json:"calls"`
	HandOn  bool    `json:"hand_on,omitempty"`
	Note    string  `json:"note"`
}

func (r approvalRow) first() (firstDecision, error) {
	var f firstDecision
	if err := json.Unmarshal(r.firstDecision, &f); err != nil {
		return f, fmt.Errorf("reading what the first person allowed: %w", err)
	}
	return f, nil
}

// showFirst puts what the first person allowed in the place of what was asked.
func (a *Approval) showFirst() error {
	f, err := a.row.first()
	if err != nil {
		return err
	}
	a.Note = f.Note
	if a.Kind != KindSession || a.State != ApprovalPending {
		return nil
	}
	for i, g := range f.Grants { // as their connections stand now
		if of := grantOn(a.Session.Grants, g.Connection); of != nil {
			f.Grants[i].Lost = of.Lost
		}
	}
	a.Session.Grants, a.Session.Minutes, a.Session.Calls, a.handOn = f.Grants, f.Minutes, f.Calls, f.HandOn
	return nil
}

// needsSecond reports whether the organization demands a second person for this:
// a call of an effect that needs two, or a session with one of those that a session
// does not start with otherwise.
func (a Approval) needsSecond(grants []Grant) bool {
	if a.Call != nil {
		return a.rules.Settings.Approvals.Of(a.Call.Effect) == policy.BySecond
	}
	return slices.ContainsFunc(grants, func(g Grant) bool {
		return slices.ContainsFunc(g.Effects, func(e policy.Effect) bool { return slices.Contains(a.rules.Settings.SecondToStart, e) })
	})
}

// approveFirst keeps the yes of the first person, and gives the second as long to
// answer as the first had. Nothing is granted.
func (s *Service) approveFirst(ctx context.Context, tx *sqldb.Tx, p account.Person, a Approval, v verdict, evidence json.RawMessage, now time.Time) error {
	doc, err := json.Marshal(firstDecision{Grants: v.grants, Minutes: v.length, Calls: v.calls, HandOn: v.handOn, Note: v.note})
	if err != nil {
		return fmt.Errorf("encoding a decision: %w", err)
	}
	r := a.row
	r.firstBy, r.firstAt, r.firstDigest, r.firstDecision = p.User(), now, hex.EncodeToString(v.digest[:]), doc
	r.expiresAt = now.Add(pendingFor)
	if a.Kind == KindCall {
		r.expiresAt = notAfter(now.Add(callPendingFor), a.Session.ExpiresAt)
	}
	if a.Widened != nil {
		r.expiresAt = notAfter(r.expiresAt, a.Widened.ExpiresAt)
	}
	if err := decideFirst(ctx, tx, r, now); err != nil {
		return err
	}
	if a.Kind == KindSession {
		if _, err := tx.ExecContext(ctx, waitLongerSQL, a.Session.ID, sqldb.Micros(r.expiresAt), sqldb.Micros(now)); err != nil {
			return sqldb.Wrap("keep a request open", err)
		}
	}
	s.audit.AppendEvent(tx, s.decisionEntry(p, a, "approved_first", r.firstDigest, evidence))
	changed(tx, a.Session.Organization)
	return nil
}

// firstStands refuses a second yes when who gave the first could not give it any
// more, and keeps that so to the end of the transaction.
func (s *Service) firstStands(ctx context.Context, tx *sqldb.Tx, a Approval, grants []Grant) error {
	if a.First.By == "" {
		return nil
	}
	role, err := s.people.HoldRole(ctx, tx, a.Session.Organization, a.First.By)
	if err != nil {
		return err
	}
	decides := role.May(account.ApproveSessions) && slices.Contains(a.rules.Settings.Approvers, string(role))
	may := func(owner id.User) bool {
		if owner != "" {
			return role != "" && owner == a.First.By && owner == a.Session.User
		}
		return decides
	}
	stands := !slices.ContainsFunc(grants, func(g Grant) bool { return !may(g.Owner) })
	if a.Kind == KindCall {
		stands = may(a.row.connectionOwner)
	}
	if !stands {
		return fault.New(fault.Conflict, "approval_stale", "The person who approved first may no longer decide this.").WithHint("Let the agent ask again.")
	}
	return nil
}

// firstLeft withdraws what waits for a second person after a first who left.
func (s *Service) firstLeft(ctx context.Context, tx *sqldb.Tx, env id.Environment, org id.Organization, user id.User) error {
	left, err := withdrawFirst(ctx, tx, env, org, user, s.now())
	if err != nil {
		return err
	}
	for _, r := range left {
		if r.kind == KindSession {
			if _, err := s.endIn(ctx, tx, endWhere{environment: env, session: r.session}, ending{reason: Withdrawn, cause: CauseFirst}, system, ""); err != nil {
				return err
			}
			continue
		}
		s.audit.AppendEvent(tx, audit.Entry{
			Environment: env, Organization: r.organization, Actor: system, Agent: r.agent, User: r.user, Session: r.session, Approval: r.id,
			Connection: r.connection, Action: "call.withdrawn", Object: r.tool, Tool: r.tool,
		})
		changed(tx, r.organization)
	}
	return nil
}

const withdrawFirstSQL = `update approval set state = 'withdrawn', decided_at = $4, version = version + 1
where state = 'pending' and first_by = $1 and environment_id = $2 and ($3 = '' or organization_id = $3)
returning id, kind, organization_id, session_id, agent_id, user_id, connection_id, tool`

func withdrawFirst(ctx context.Context, tx *sqldb.Tx, env id.Environment, org id.Organization, user id.User, now time.Time) ([]approvalRow, error) {
	some, err := sqldb.Collect(func(row sqldb.Scanner) (approvalRow, error) {
		var r approvalRow
		err := row.Scan(&r.id, &r.kind, &r.organization, &r.session, &r.agent, &r.user, &r.connection, &r.tool)
		return r, err
	})(tx.QueryContext(ctx, withdrawFirstSQL, user, env, org, sqldb.Micros(now)))
	return some, sqldb.Wrap("withdraw what a first person approved", err)
}

const (
	decideFirstSQL = `update approval set first_by = $2, first_at = $3, first_digest = $4, first_decision = $5, expires_at = $6, version = version + 1
where id = $1 and state = 'pending' and first_by = '' and version = $7 and expires_at > $3`
	waitLongerSQL = `update session set pending_until = $2, version = version + 1 where id = $1 and state = 'pending' and pending_until > $3`
)

// decideFirst is a compare-and-swap: of several first decisions one wins.
func decideFirst(ctx context.Context, q sqldb.Querier, r approvalRow, now time.Time) error {
	res, err := q.ExecContext(ctx, decideFirstSQL, r.id, r.firstBy, sqldb.Micros(now), r.firstDigest, r.firstDecision, sqldb.Micros(r.expiresAt), r.version)
	return oneRow(res, err, "decide a request", fault.New(fault.Conflict, "already_decided", "This request has already been decided, or has expired."))
}
