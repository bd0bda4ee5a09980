package session

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
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
		if at := slices.IndexFunc(a.Session.Grants, func(x Grant) bool { return x.Connection == g.Connection }); at >= 0 {
			f.Grants[i].Lost = a.Session.Grants[at].Lost
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
