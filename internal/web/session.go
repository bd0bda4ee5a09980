package web

import (
	"cmp"
	"fmt"
	"net/url"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
)

// query makes the address of a page in the organization of v.
func (v *visit) query(path string, more ...string) string {
	q := url.Values{}
	if list := v.person.Organizations(); len(list) > 1 && list[0].Organization != v.here.Organization {
		q.Set("org", string(v.here.Organization))
	}
	for i := 0; i+1 < len(more); i += 2 {
		if more[i+1] != "" {
			q.Set(more[i], more[i+1])
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

func (s *Server) sessionList(v *visit) (answer, error) {
	state := v.form("state")
	if state != session.Pending && state != session.Ended {
		state = session.Active
	}
	list, next, err := s.sessions.List(v.ctx(), v.actor(), session.Filter{Organization: v.here.Organization, State: state, After: v.form("after")})
	if err != nil {
		return nil, err
	}
	p := &SessionsPage{Frame: Frame{Title: "Sessions", Section: "sessions"}, Items: sessionRows(list)}
	for _, t := range []struct{ state, label string }{{session.Active, "Active"}, {session.Pending, "Waiting"}, {session.Ended, "Ended"}} {
		p.Tabs = append(p.Tabs, Tab{Label: t.label, Href: v.query("/ui/sessions", "state", t.state), Chosen: t.state == state})
	}
	if next != "" {
		p.Next = v.query("/ui/sessions", "state", state, "after", next)
	}
	return show(p.whenEmpty(state)), nil
}

func (p *SessionsPage) whenEmpty(state string) *SessionsPage {
	switch state {
	case session.Active:
		p.EmptyTitle, p.EmptyText, p.Command = "No agent has access right now", "When you approve a request, its session appears here, with the time it has left.", "ambit session list"
	case session.Pending:
		p.EmptyTitle, p.EmptyText = "No request is waiting", "What agents ask for waits here and in the inbox until somebody answers."
	default:
		p.EmptyTitle, p.EmptyText = "No session has ended yet", "Ended sessions stay here, with what was done in them."
	}
	return p
}

func sessionRows(list []session.Session) []SessionRow {
	var out []SessionRow
	for _, ses := range list {
		out = append(out, SessionRow{ID: ses.ID, Agent: agentMark(ses), Effects: grantedEffects(ses.Grants), Accounts: accounts(ses.Grants), State: ses.State,
			Reason: ses.Reason, Asked: ses.RequestedAt, Expires: ses.ExpiresAt, Ended: ses.EndedAt})
	}
	return out
}

func (s *Server) findSession(v *visit) (session.Session, error) {
	sid, err := parseID(id.Session(v.r.PathValue("id")))
	if err != nil {
		return session.Session{}, err
	}
	var ses session.Session
	err = v.anywhere(func(by account.Actor) (id.Organization, error) {
		var err error
		ses, err = s.sessions.Get(v.ctx(), by, sid)
		return ses.Organization, err
	})
	return ses, err
}

func (s *Server) session(v *visit) (answer, error) {
	ses, err := s.findSession(v)
	if err != nil {
		return nil, err
	}
	p := &SessionPage{Frame: Frame{Title: "Session", Section: "sessions", Narrow: true}, ID: ses.ID, Agent: agentMark(ses), AgentID: ses.Agent, Verbs: verbs(grantedEffects(ses.Grants)),
		Accounts: accounts(ses.Grants), Minutes: ses.Minutes, State: ses.State, Shown: ses.State, Granted: !ses.ApprovedAt.IsZero(), Asked: ses.RequestedAt, Approved: ses.ApprovedAt,
		Expires: ses.ExpiresAt, Ended: ses.EndedAt, Approval: ses.Approval, Instructions: ses.Instructions, DenyReason: ses.DenyReason, Parent: ses.Parent, Widens: ses.Widens, Words: ses.Purpose, NoCalls: "No call yet."}
	if ses.State == session.Ended {
		p.Shown, p.NoCalls = ses.Reason, "It made no call."
		if ses.Cause != "" {
			p.Why = withdrawn(ses)
		}
	}
	if ses.Calls > 0 {
		p.Made = fmt.Sprintf("%s of at most %s made", thousands(ses.Used), plural(ses.Calls, "call"))
	}
	if ses.User != "" {
		p.User = s.names(v, ses.Environment).user(ses.User)
	}
	for _, g := range ses.Grants {
		p.Grants = append(p.Grants, grantView(g))
	}
	if err := s.singleCalls(v, ses, p); err != nil {
		return nil, err
	}
	if err := s.widenings(v, ses, p); err != nil {
		return nil, err
	}
	return show(p), s.calls(v, ses, p)
}

// singleCalls adds the calls that needed an approval of their own, with what
// their approvers told the agent.
func (s *Server) singleCalls(v *visit, ses session.Session, p *SessionPage) error {
	list, err := s.sessions.CallRequests(v.ctx(), v.actorIn(ses.Environment), ses.ID)
	for _, r := range list {
		row := CallAskRow{Tool: oneLine(r.Tool), State: r.State, Note: r.Note, At: r.CreatedAt}
		if !r.DecidedAt.IsZero() {
			row.At = r.DecidedAt
		}
		p.SingleCalls = append(p.SingleCalls, row)
	}
	return err
}

// widenings adds how the session came to have more: who was asked for what, and what
// they said.
func (s *Server) widenings(v *visit, ses session.Session, p *SessionPage) error {
	list, err := s.sessions.Widenings(v.ctx(), v.actorIn(ses.Environment), ses.ID)
	who := s.names(v, ses.Environment)
	for _, w := range list {
		row := WideningRow{State: w.Outcome(), At: w.RequestedAt, Session: w.ID, Note: cmp.Or(w.Instructions, w.DenyReason)}
		if !w.DecidedAt.IsZero() {
			row.At = w.DecidedAt
		}
		if w.DecidedBy != "" {
			row.By = who.user(w.DecidedBy)
		}
		for _, g := range w.Grants {
			more := WideningGrant{Provider: g.ProviderName, Account: g.AccountLabel, New: g.Had == nil, Relimited: g.Relimited(), Limits: limitViews(g.Limits)}
			for _, t := range g.Tools {
				if !g.Has(t) {
					more.Tools = append(more.Tools, ToolChoice{Name: t.Name, Title: t.Title, Effect: t.Effect})
				}
			}
			row.Grants = append(row.Grants, more)
		}
		p.Widenings = append(p.Widenings, row)
	}
	return err
}

// calls adds what the audit knows of a session.
func (s *Server) calls(v *visit, ses session.Session, p *SessionPage) error {
	const most = 50
	list, err := s.audit.List(v.ctx(), audit.Filter{Environment: ses.Environment, Session: ses.ID, Action: "tool.*", Limit: most})
	if err != nil {
		return err
	}
	for _, r := range list.Records {
		c := CallRow{At: r.Time, Tool: oneLine(r.Tool), Result: r.Decision, Code: r.Code}
		if r.Outcome != nil || r.Kind == audit.KindIntent {
			c.Result, c.Why = stateOf(r.Outcome)
		}
		if o := r.Outcome; o != nil {
			c.Code, c.Took = o.Code, o.Duration
		}
		p.Calls = append(p.Calls, c)
	}
	if len(p.Calls) > 0 {
		p.CallsMore = v.query("/ui/audit", "about", string(ses.ID))
	}
	return nil
}

func grantView(g session.Grant) GrantView {
	out := GrantView{Provider: g.ProviderName, Account: g.AccountLabel, Shared: g.Owner == "", Effects: g.Effects, Limits: limitViews(g.Limits), Lost: lostWords(g)}
	switch g.Confirm {
	case policy.ConfirmWrite:
		out.Confirm = "Each change needs an approval of its own."
	case policy.ConfirmDestructive:
		out.Confirm = "Each deletion needs an approval of its own."
	default:
		out.Confirm = "Only keys and permissions need an approval of their own."
	}
	for _, t := range g.Tools {
		out.Tools = append(out.Tools, ToolChoice{Name: t.Name, Title: t.Title, Effect: t.Effect})
	}
	return out
}

func (s *Server) revokeSession(v *visit) (answer, error) {
	sid, err := parseID(id.Session(v.r.PathValue("id")))
	if err != nil {
		return nil, err
	}
	return s.revoke(v, session.Aim{Session: sid}, "/ui/sessions/"+string(sid), func() (string, error) {
		ses, err := s.findSession(v)
		return ses.AgentLabel, err
	})
}

// revoke ends what aim hits, wherever the person may, and says what that was.
// Nothing is read before it that does not decide it.
func (s *Server) revoke(v *visit, aim session.Aim, back string, name func() (string, error)) (answer, error) {
	var done session.RevokeResult
	end := func(by account.Actor) (id.Organization, error) {
		var err error
		done, err = s.sessions.Revoke(v.ctx(), by, aim)
		return v.here.Organization, err
	}
	var err error
	if aim.Organization != "" { // which says where
		_, err = end(v.actor())
	} else {
		err = v.anywhere(end)
	}
	if err != nil {
		return nil, err
	}
	p := &RevokedPage{Frame: Frame{Title: "Ended", Section: "sessions", Narrow: true}, What: "what you chose", Sessions: len(done.Sessions), Back: back}
	v.briefly(func() {
		if what, err := name(); err == nil {
			p.What = what
		}
	})
	for _, r := range done.Running {
		p.Running = append(p.Running, RunningRow{Tool: oneLine(r.Tool), Started: r.Started, Event: r.Event})
	}
	return show(p), nil
}
