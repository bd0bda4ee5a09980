package session

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// historyFor is how far back a person reads what an agent did.
const historyFor = 90 * 24 * time.Hour

// maxHistoryCalls bounds what is counted for a page.
const maxHistoryCalls = 1000

// History is what is on record of the agent of a request, in the organization and
// for the person it asks for, within 90 days: facts that the agent cannot write.
type History struct {
	Approved     int // its sessions that were approved, those handed on aside
	Denied       int
	LastApproved time.Time
	Like         int // of the approved, those for the same providers, effects and tools
	LikeDenied   int
	LastDenied   time.Time // of the like
	Calls        int       // that were let through, in the newest 20 of those sessions
	MoreCalls    bool      // there were more than are counted

	// Of the session that a call is made in.
	SessionCalls   int
	SingleApproved int // calls with an approval of their own
	SingleDenied   int
	ThisApproved   int // of them, of the same tool on the same account
	ThisDenied     int
	MoreInSession  bool
}

// New reports that nobody has decided anything about the agent yet.
func (h History) New() bool { return h.Approved+h.Denied == 0 }

// History reads the past of the agent of a request, for whoever may decide it.
func (s *Service) History(ctx context.Context, a Approval) (History, error) {
	var h History
	var approved, denied int64
	q := s.db.Reader()
	ses, now := a.Session, s.now()
	err := q.QueryRowContext(ctx, historySQL, ses.Agent, ses.Organization, a.row.user, ses.ID, sqldb.Micros(now.Add(-historyFor)), ses.asked.likeness()).
		Scan(&h.Approved, &h.Denied, &approved, &h.Like, &h.LikeDenied, &denied)
	if err != nil {
		return h, sqldb.Wrap("look up what an agent did", err)
	}
	h.LastApproved, h.LastDenied = sqldb.Time(approved), sqldb.Time(denied)
	sessions, err := sqldb.Collect(func(row sqldb.Scanner) (id.Session, error) {
		var s id.Session
		err := row.Scan(&s)
		return s, err
	})(q.QueryContext(ctx, approvedSessionsSQL, ses.Agent, ses.Organization, a.row.user, ses.ID, sqldb.Micros(now.Add(-historyFor))))
	if err != nil {
		return h, sqldb.Wrap("look up what an agent did", err)
	}
	if h.Calls, h.MoreCalls, err = s.audit.Calls(ctx, sessions, maxHistoryCalls); err != nil || a.Call == nil {
		return h, err
	}
	if h.SessionCalls, h.MoreInSession, err = s.audit.Calls(ctx, []id.Session{ses.ID}, maxHistoryCalls); err != nil {
		return h, err
	}
	err = q.QueryRowContext(ctx, singleSQL, ses.ID, a.Call.Tool, a.Call.Connection).Scan(&h.SingleApproved, &h.SingleDenied, &h.ThisApproved, &h.ThisDenied)
	return h, sqldb.Wrap("look up what an agent did", err)
}

const (
	ofAgentSince = `agent_id = $1 and organization_id = $2 and ($3 = '' or user_id = $3) and id <> $4 and requested_at > $5
	and not exists (select 1 from session_child k where k.session_id = session.id)`
	historySQL = `select coalesce(sum(case when approved_at > 0 then 1 else 0 end), 0), coalesce(sum(case when reason = 'denied' then 1 else 0 end), 0), coalesce(max(approved_at), 0),
	coalesce(sum(case when approved_at > 0 and likeness = $6 then 1 else 0 end), 0), coalesce(sum(case when reason = 'denied' and likeness = $6 then 1 else 0 end), 0),
	coalesce(max(case when reason = 'denied' and likeness = $6 then ended_at else 0 end), 0)
from session where ` + ofAgentSince
	approvedSessionsSQL = `select id from session where approved_at > 0 and ` + ofAgentSince + ` order by requested_at desc limit 20`
	singleSQL           = `select coalesce(sum(case when state in ('approved', 'used') then 1 else 0 end), 0), coalesce(sum(case when state = 'denied' then 1 else 0 end), 0),
	coalesce(sum(case when state in ('approved', 'used') and tool = $2 and connection_id = $3 then 1 else 0 end), 0),
	coalesce(sum(case when state = 'denied' and tool = $2 and connection_id = $3 then 1 else 0 end), 0)
from approval where session_id ` + inFamily + ` and kind = 'call'`
)
