package session

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Widening a session that runs is a request like any other: a pending session of its
// own, so that everything that holds requests holds it. Its grants are what the
// session would have on each account that changes, and say what it has there now. Who
// approves it says yes to both; then these grants take the place of those, the
// request's handles name the session, and the request is over. When the session ends
// stays as it was approved.

// Had is what a session that is to be widened has on an account already.
type Had struct {
	Effects []policy.Effect `json:"effects"`
	Tools   []ToolRef       `json:"tools"`
	Confirm policy.Confirm  `json:"confirm"`
	Limits  []policy.Limit  `json:"limits,omitempty"`
}

// New are the tools of a grant that the session cannot use yet, or not as widely: all
// of them where the limits are others.
func (g Grant) New() []ToolRef {
	if g.Had == nil || g.Relimited() {
		return g.Tools
	}
	return slices.DeleteFunc(slices.Clone(g.Tools), func(t ToolRef) bool { return g.Has(t) })
}

// Relimited reports whether the session's account would have other limits than it has.
func (g Grant) Relimited() bool {
	return g.Had != nil && !slices.EqualFunc(g.Limits, g.Had.Limits, func(a, b policy.Limit) bool { return reflect.DeepEqual(a, b) })
}

// Has reports whether the session has this very tool on the account already.
func (g Grant) Has(t ToolRef) bool {
	return g.Had != nil && slices.ContainsFunc(g.Had.Tools, func(h ToolRef) bool { return h.Name == t.Name && h.Digest == t.Digest })
}

// named reports whether the session has a tool of this name there, as it was defined
// then. nil: it has none.
func (h *Had) named(tool string) bool {
	return h != nil && slices.ContainsFunc(h.Tools, func(t ToolRef) bool { return t.Name == tool })
}

// widenable is the session that an agent asks to have widened.
func (s *Service) widenable(ctx context.Context, who agent.Identity, ask Ask) (Session, error) {
	if ask.Minutes != 0 || ask.Calls != 0 {
		return Session{}, fault.New(fault.Invalid, "invalid_arguments", "A session that is widened ends when it did, and has as many calls as it had.").
			WithHint("Leave minutes and calls out, or request another session.")
	}
	ses, err := s.ofAgent(ctx, who, ask.Widen)
	if err != nil {
		return Session{}, err
	}
	switch {
	case ses.State == Pending:
		return Session{}, fault.New(fault.Denied, "pending", "The request for this session still waits for a person's decision.").
			WithHint("Wait with check_session, or take it back with end_session and ask for all of it at once.")
	case ses.State != Active:
		return Session{}, s.Refusal(ses)
	case ses.Parent != "":
		return Session{}, fault.New(fault.Denied, "not_granted", "The session of a sub-agent is a part of another and is not widened.")
	}
	return ses, nil
}

// widened turns what is asked for into what the session would then have, and leaves
// out where nothing would be new. A limit that the session has stays, unless the agent
// asks for another in its place.
func widened(grants []Grant, ask Ask) ([]Grant, error) {
	var out []Grant
	for _, g := range grants {
		if g.Had != nil && len(g.Limits) == 0 && len(g.Had.Limits) > 0 {
			all := g.Tools
			g = g.within(g.Had.Limits)
			for _, t := range all {
				if slices.Contains(ask.Tools, t.Name) && !slices.Contains(g.Tools, t) {
					return nil, fault.New(fault.Invalid, "invalid_limit", "The session is limited on this account, and the tool "+quote(t.Name)+" does not take what it is limited by.").
						WithHint("Request another session for the tool.")
				}
			}
		}
		if len(g.New()) > 0 {
			out = append(out, g)
		}
	}
	if len(out) == 0 {
		return nil, fault.New(fault.Invalid, "nothing_new", "The session has all of this already.").WithHint("Use it as it is, or say what is missing.")
	}
	return out, nil
}

// grantOn finds the grant on an account; nil: there is none.
func grantOn(grants []Grant, c id.Connection) *Grant {
	i := slices.IndexFunc(grants, func(g Grant) bool { return g.Connection == c })
	if i < 0 {
		return nil
	}
	return &grants[i]
}

// had finds what a session has on an account.
func had(grants []Grant, c id.Connection) *Had {
	g := grantOn(grants, c)
	if g == nil {
		return nil
	}
	return &Had{Effects: g.Effects, Tools: g.Tools, Confirm: g.Confirm, Limits: g.Limits}
}

// before is what is left of a grant of what a session had there before a widening that
// asked for these. Of an account that was new then, nothing is.
func (g Grant) before(asked []Grant) Grant {
	of := grantOn(asked, g.Connection)
	if of == nil || of.Had == nil {
		g.Tools, g.Effects = nil, nil
		return g
	}
	had := of.Had
	then := Grant{Had: had}
	g.Tools = slices.DeleteFunc(slices.Clone(g.Tools), func(t ToolRef) bool { return !then.Has(t) })
	g.Effects = presentEffects(g.Tools)
	g.Limits = slices.Clone(g.Limits)
	for _, l := range had.Limits {
		if !slices.ContainsFunc(g.Limits, func(x policy.Limit) bool { return reflect.DeepEqual(x, l) }) {
			g.Limits = append(g.Limits, l)
		}
	}
	g.Confirm = stricter(g.Confirm, had.Confirm)
	return g
}

// defaultConfirm is when a person is asked again unless they choose otherwise: as often
// as on the account where they are asked most often, and before deletions at least where
// anything but reading is new, or an account is.
func defaultConfirm(grants []Grant) policy.Confirm {
	c := policy.ConfirmNone
	for _, g := range grants {
		if g.Had != nil {
			c = stricter(c, g.Had.Confirm)
		}
		if g.Had == nil || slices.ContainsFunc(g.New(), func(t ToolRef) bool { return t.Effect != policy.Read }) {
			c = stricter(c, policy.ConfirmDestructive)
		}
	}
	return c
}

// stricter is the one of two rules that asks a person more often.
func stricter(a, b policy.Confirm) policy.Confirm {
	for _, c := range []policy.Confirm{policy.ConfirmWrite, policy.ConfirmDestructive} {
		if a == c || b == c {
			return c
		}
	}
	return policy.ConfirmNone
}

const (
	insertWideningSQL = `insert into session_widening (session_id, widens, base) values ($1, $2, $3)`
	widenSQL          = `update session set version = version + 1, instructions = $4 where id = $1 and version = $2 and state = 'active' and expires_at > $3`
	wideningDoneSQL   = `update session set state = 'ended', reason = 'completed', cause = 'widened', user_id = $2, instructions = $3, approved_at = $4, expires_at = $4, ended_at = $4, version = version + 1
where id = $1 and state = 'pending' and pending_until > $4`
	dropGrantSQL  = `delete from session_grant where session_id = $1 and connection_id = $2`
	handHandleSQL = `update session_handle set session_id = $2 where session_id = $1`
)

func insertWidening(ctx context.Context, q sqldb.Querier, ses Session) error {
	_, err := q.ExecContext(ctx, insertWideningSQL, ses.ID, ses.Widens, ses.base)
	return err
}

// widen carries a widening out. The session must be just the one that was shown: if
// it has ended, or was widened otherwise meanwhile, nothing changes.
func (s *Service) widen(ctx context.Context, tx *sqldb.Tx, a Approval, p account.Person, v verdict, now time.Time) error {
	ses, note := a.Session, a.Widened.Instructions
	if v.note != "" {
		if note != "" {
			note += "\n"
		}
		note += v.note
	}
	res, err := tx.ExecContext(ctx, widenSQL, ses.Widens, ses.base, sqldb.Micros(now), note)
	if err := oneRow(res, err, "widen a session", widenStale()); err != nil {
		return err
	}
	for _, g := range v.grants {
		if _, err := tx.ExecContext(ctx, dropGrantSQL, ses.Widens, g.Connection); err != nil {
			return sqldb.Wrap("widen a session", err)
		}
	}
	for _, of := range []id.Session{ses.Widens, ses.ID} { // the request keeps what was granted by it
		if err := insertGrants(ctx, tx, of, v.grants); err != nil {
			return err
		}
	}
	res, err = tx.ExecContext(ctx, wideningDoneSQL, ses.ID, a.user(), v.note, sqldb.Micros(now))
	if err := oneRow(res, err, "widen a session", fault.New(fault.Conflict, "already_decided", "This request is no longer open.")); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, handHandleSQL, ses.ID, ses.Widens); err != nil {
		return sqldb.Wrap("widen a session", err)
	}
	s.audit.AppendEvent(tx, audit.Entry{
		Environment: ses.Environment, Organization: ses.Organization, Actor: audit.Actor{Kind: "user", ID: string(p.User())}, Agent: ses.Agent,
		User: cmp.Or(a.Widened.User, p.User()), Session: ses.Widens, Approval: a.ID, Action: "session.widened", Object: string(ses.Widens), Address: p.Address(),
	})
	return nil
}

func widenStale() *fault.Error {
	return fault.New(fault.Conflict, "approval_stale", "The session has ended, or was changed since the agent asked.").WithHint("Let the agent ask again.")
}
