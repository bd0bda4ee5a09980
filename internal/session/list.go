package session

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Filter selects sessions of one organization.
type Filter struct {
	Organization id.Organization
	Agent        id.Agent
	User         id.User
	State        string
	After        string // cursor of the page before
	Limit        int    // 1 to 200; default 50
}

// List gives sessions, newest first, and the cursor of the next page. People
// without the role for it see those that act for themselves.
func (s *Service) List(ctx context.Context, by account.Actor, f Filter) ([]Session, string, error) {
	if f.Limit == 0 {
		f.Limit = 50
	}
	if f.Limit < 1 || f.Limit > 200 {
		return nil, "", fault.New(fault.Invalid, "invalid_limit", "A page has 1 to 200 sessions.")
	}
	if f.Organization == "" {
		f.Organization = by.Organization()
	}
	if err := by.May(f.Organization, account.ViewSessions); err != nil {
		if by.User() == "" || by.May(f.Organization, account.UseOwn) != nil {
			return nil, "", err
		}
		f.User = by.User()
	}
	conds, args := []string{"s.environment_id = $1"}, []any{by.Environment()}
	add := func(cond string, v any) {
		args = append(args, v)
		conds = append(conds, fmt.Sprintf(cond, len(args)))
	}
	for cond, v := range map[string]string{"s.organization_id = $%d": string(f.Organization), "s.agent_id = $%d": string(f.Agent), "s.user_id = $%d": string(f.User), "s.state = $%d": f.State} {
		if v != "" {
			add(cond, v)
		}
	}
	if f.After != "" {
		at, last, err := sqldb.ParseCursor(f.After)
		if err != nil {
			return nil, "", err
		}
		args = append(args, at, last)
		conds = append(conds, fmt.Sprintf("(s.requested_at, s.id) < ($%d, $%d)", len(args)-1, len(args)))
	}
	args = append(args, f.Limit+1)
	rows, err := s.db.Lists(cmp.Or(string(f.Organization), string(by.Environment()))).QueryContext(ctx, `select `+sessionColumns+` from session s where `+strings.Join(conds, " and ")+
		fmt.Sprintf(" order by s.requested_at desc, s.id desc limit $%d", len(args)), args...)
	if err != nil {
		return nil, "", sqldb.Wrap("list sessions", err)
	}
	defer rows.Close()
	var out []Session
	for rows.Next() {
		ses, err := scanSession(rows)
		if err != nil {
			return nil, "", sqldb.Wrap("list sessions", err)
		}
		out = append(out, ses)
	}
	if err := rows.Err(); err != nil {
		return nil, "", sqldb.Wrap("list sessions", err)
	}
	rows.Close()
	next := ""
	if len(out) > f.Limit {
		out = out[:f.Limit]
		last := out[len(out)-1]
		next = sqldb.Cursor(sqldb.Micros(last.RequestedAt), string(last.ID))
	}
	for i := range out {
		if out[i], err = withGrants(ctx, s.db.Reader(), out[i]); err != nil {
			return nil, "", sqldb.Wrap("list sessions", err)
		}
		if out[i], err = s.seen(ctx, out[i]); err != nil {
			return nil, "", err
		}
	}
	return out, next, nil
}

// Get gives one session to an actor who may see it.
func (s *Service) Get(ctx context.Context, by account.Actor, sid id.Session) (Session, error) {
	ses, err := sessionByID(ctx, s.db.Reader(), sid)
	if sqldb.NoRows(err) {
		return Session{}, absent()
	}
	if err != nil {
		return Session{}, sqldb.Wrap("load a session", err)
	}
	own := by.User() != "" && by.User() == ses.User && by.May(ses.Organization, account.UseOwn) == nil
	if ses.Environment != by.Environment() || !own && by.May(ses.Organization, account.ViewSessions) != nil {
		return Session{}, absent()
	}
	return s.seen(ctx, ses)
}

// absent is [notFound] for people and applications, who know sessions by id.
func absent() error {
	return fault.New(fault.NotFound, "session_not_found", "No such session.").WithHint("It may belong to somebody else, or its id is incomplete.")
}

// Widening is a request for more in a session, and what became of it. Its session's
// grants say what was asked for, or was granted, and what the session had.
type Widening struct {
	Session
	DecidedBy id.User
	DecidedAt time.Time
}

// Outcome is pending, granted, denied, expired or withdrawn.
func (w Widening) Outcome() string {
	switch {
	case w.State == Pending:
		return Pending
	case w.Cause == CauseWidened:
		return "granted"
	case w.Reason == Denied || w.Reason == Expired:
		return w.Reason
	}
	return Withdrawn
}

// Widenings lists the requests for more in a session that the actor may see, newest
// first, at most 50.
func (s *Service) Widenings(ctx context.Context, by account.Actor, sid id.Session) ([]Widening, error) {
	const query = `select ` + sessionColumns + `, coalesce(a.decided_by, ''), coalesce(a.decided_at, 0) from session_widening k
join session s on s.id = k.session_id left join approval a on a.id = s.approval_id where k.widens = $1 order by s.requested_at desc, s.id desc limit 50`
	if _, err := s.Get(ctx, by, sid); err != nil {
		return nil, err
	}
	list, err := sqldb.Collect(func(row sqldb.Scanner) (Widening, error) {
		var w Widening
		var at int64
		var err error
		w.Session, err = scanSession(row, &w.DecidedBy, &at)
		w.DecidedAt = sqldb.Time(at)
		return w, err
	})(s.db.Reader().QueryContext(ctx, query, sid))
	for i := 0; err == nil && i < len(list); i++ {
		w := &list[i]
		w.Session, err = withGrants(ctx, s.db.Reader(), w.Session)
		w.Session = s.aged(w.Session)
		for j, g := range w.Grants { // what was granted does not say what there was
			if of := grantOn(w.asked.Grants, g.Connection); of != nil {
				w.Grants[j].Had = of.Had
			}
		}
	}
	return list, sqldb.Wrap("list what a session was widened by", err)
}
