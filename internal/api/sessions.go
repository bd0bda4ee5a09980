package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
)

// Session is one agent's access, asked for or granted.
type Session struct {
	ID             string    `json:"id"`
	EnvironmentID  string    `json:"environment_id"`
	OrganizationID string    `json:"organization_id"`
	AgentID        string    `json:"agent_id"`
	AgentLabel     string    `json:"agent_label"`
	AgentVerified  bool      `json:"agent_verified"`
	UserID         string    `json:"user_id,omitempty"`
	WidensID       string    `json:"widens_id,omitempty" doc:"Of a request to add to a session that runs: that session."`
	ParentID       string    `json:"parent_id,omitempty" doc:"Of a sub-agent's: the session that it is a part of, and with which it ends."`
	Purpose        string    `json:"purpose" doc:"The agent's own words."`
	State          string    `json:"state" enum:"pending,active,ended"`
	Reason         string    `json:"reason,omitempty" doc:"Why it ended: expired, revoked, completed, denied or withdrawn."`
	Cause          string    `json:"cause,omitempty" doc:"What it rested on that ended, if that ended it: agent_disabled, user_left, account_disconnected, first_left or parent_ended. widened: it is a request that was granted, and so a part of the session in widens_id."`
	Minutes        int       `json:"minutes"`
	Calls          int       `json:"calls,omitempty" doc:"The most calls that may start; absent: no limit."`
	CallsUsed      int       `json:"calls_used,omitempty"`
	Grants         []Grant   `json:"grants" nullable:"false" doc:"What is asked for while it is pending; what was granted after."`
	ApprovalID     string    `json:"approval_id,omitempty"`
	ApprovalURL    string    `json:"approval_url,omitempty" doc:"Of a pending one that is read by itself: where the person decides. The link gives no authority."`
	Instructions   string    `json:"instructions,omitempty" doc:"The approver's words to the agent."`
	DenyReason     string    `json:"deny_reason,omitempty"`
	RequestedAt    time.Time `json:"requested_at"`
	PendingUntil   time.Time `json:"pending_until,omitzero"`
	ApprovedAt     time.Time `json:"approved_at,omitzero"`
	ExpiresAt      time.Time `json:"expires_at,omitzero"`
	EndedAt        time.Time `json:"ended_at,omitzero"`
	Version        int64     `json:"version"`

	CallApprovals []CallApproval `json:"call_approvals,omitempty" doc:"Single calls that needed an approval of their own, newest first. Only where one session is read."`
	Widenings     []Widening     `json:"widenings,omitempty" doc:"Requests for more in this session, newest first. Only where one session is read."`
}

// Widening is a request for more in a session that runs, and what became of it.
type Widening struct {
	SessionID   string    `json:"session_id" doc:"Of the request, which is a session of its own until it is granted."`
	ApprovalID  string    `json:"approval_id"`
	State       string    `json:"state" enum:"pending,granted,denied,expired,withdrawn"`
	Purpose     string    `json:"purpose" doc:"The agent's own words."`
	Grants      []Grant   `json:"grants" nullable:"false" doc:"What each account would have, or came to have; had says what it had."`
	RequestedAt time.Time `json:"requested_at"`
	DecidedAt   time.Time `json:"decided_at,omitzero"`
	DecidedBy   string    `json:"decided_by,omitempty"`
}

// CallApproval is the request for the approval of one call.
type CallApproval struct {
	ApprovalID  string    `json:"approval_id"`
	Tool        string    `json:"tool"`
	State       string    `json:"state" enum:"pending,approved,denied,expired,withdrawn,used"`
	Note        string    `json:"note,omitempty" doc:"What the person told the agent, or why it was denied."`
	RequestedAt time.Time `json:"requested_at"`
	ExpiresAt   time.Time `json:"expires_at"`
	DecidedAt   time.Time `json:"decided_at,omitzero"`
	DecidedBy   string    `json:"decided_by,omitempty"`
}

// Grant is access to one connection.
type Grant struct {
	ConnectionID string          `json:"connection_id"`
	Provider     string          `json:"provider"`
	ProviderName string          `json:"provider_name"`
	AccountLabel string          `json:"account"`
	OwnerID      string          `json:"owner_id,omitempty"`
	Effects      []policy.Effect `json:"effects" nullable:"false"`
	Tools        []GrantTool     `json:"tools" nullable:"false"`
	Confirm      string          `json:"confirm" doc:"Which calls need their own approval: none, destructive or write."`
	Limits       []GrantLimit    `json:"limits,omitempty" doc:"What arguments may be; all must hold."`
	Had          *GrantHad       `json:"had,omitempty" doc:"Of a request to add to a session that runs: what that has on this account already."`
	Lost         string          `json:"lost,omitempty" doc:"Of a pending session: why this can no longer be granted: disconnected, needs_reauthorization or changed."`
}

// GrantHad is what a session that is to be widened has on an account.
type GrantHad struct {
	Effects []policy.Effect `json:"effects" nullable:"false"`
	Tools   []string        `json:"tools" nullable:"false" doc:"Names of those that it has just as they are asked for now."`
	Confirm string          `json:"confirm"`
	Limits  []GrantLimit    `json:"limits,omitempty"`
}

// GrantLimit is what one argument of a granted tool may be. One of the conditions
// is set.
type GrantLimit struct {
	Argument string   `json:"argument"`
	Equals   string   `json:"equals,omitempty"`
	OneOf    []string `json:"one_of,omitempty"`
	Prefix   string   `json:"prefix,omitempty"`
	Max      *float64 `json:"max,omitempty"`
}

// GrantTool is a tool that a grant covers.
type GrantTool struct {
	Name   string `json:"name"`
	Title  string `json:"title"`
	Effect string `json:"effect"`
	Digest string `json:"digest" doc:"Of the tool's definition as it was approved."`
}

// Revoked says what a revocation ended.
type Revoked struct {
	Sessions []string      `json:"sessions" nullable:"false"`
	Running  []RunningCall `json:"running" nullable:"false" doc:"Calls that had started, and were cut."`
}

// RunningCall is a call that a revocation cut.
type RunningCall struct {
	EventID   string    `json:"event_id"`
	SessionID string    `json:"session_id"`
	Tool      string    `json:"tool"`
	StartedAt time.Time `json:"started_at"`
}

func sessionOf(s session.Session) Session {
	out := Session{ID: string(s.ID), EnvironmentID: string(s.Environment), OrganizationID: string(s.Organization), AgentID: string(s.Agent), AgentLabel: s.AgentLabel,
		AgentVerified: s.AgentVerified, UserID: string(s.User), ParentID: string(s.Parent), WidensID: string(s.Widens), Purpose: s.Purpose, State: s.State, Reason: s.Reason, Cause: s.Cause, Minutes: s.Minutes, Calls: s.Calls, CallsUsed: s.Used, Grants: []Grant{},
		ApprovalID: string(s.Approval), Instructions: s.Instructions, DenyReason: s.DenyReason, RequestedAt: s.RequestedAt, PendingUntil: s.PendingUntil,
		ApprovedAt: s.ApprovedAt, ExpiresAt: s.ExpiresAt, EndedAt: s.EndedAt, Version: s.Version}
	for _, g := range s.Grants {
		v := Grant{ConnectionID: string(g.Connection), Provider: g.Provider, ProviderName: g.ProviderName, AccountLabel: g.AccountLabel, OwnerID: string(g.Owner),
			Effects: append([]policy.Effect{}, g.Effects...), Tools: []GrantTool{}, Confirm: string(g.Confirm), Lost: g.Lost}
		v.Limits = limitsOf(g.Limits)
		if g.Had != nil {
			v.Had = &GrantHad{Effects: append([]policy.Effect{}, g.Had.Effects...), Tools: []string{}, Confirm: string(g.Had.Confirm), Limits: limitsOf(g.Had.Limits)}
		}
		for _, t := range g.Tools {
			v.Tools = append(v.Tools, GrantTool{Name: t.Name, Title: t.Title, Effect: string(t.Effect), Digest: t.Digest})
			if g.Has(t) {
				v.Had.Tools = append(v.Had.Tools, t.Name)
			}
		}
		out.Grants = append(out.Grants, v)
	}
	return out
}

func limitsOf(list []policy.Limit) (out []GrantLimit) {
	for _, l := range list {
		out = append(out, GrantLimit(l))
	}
	return out
}

type sessionsInput struct {
	Caller
	Paging
	OrganizationID string `query:"organization_id"`
	AgentID        string `query:"agent_id"`
	UserID         string `query:"user_id"`
	State          string `query:"state" enum:"pending,active,ended"`
}

type sessionInput struct {
	Caller
	Session string `path:"session"`
}

type revokeInput struct {
	Caller
	Body struct {
		SessionID      string `json:"session_id,omitempty"`
		AgentID        string `json:"agent_id,omitempty"`
		UserID         string `json:"user_id,omitempty"`
		ConnectionID   string `json:"connection_id,omitempty"`
		Provider       string `json:"provider,omitempty" maxLength:"64" doc:"Alone, or together with organization_id."`
		OrganizationID string `json:"organization_id,omitempty"`
	}
}

const revocationsPath = "/v1/revocations"

func (a *API) sessionRoutes() {
	read := rules{scopes: []account.Scope{account.ScopeSessionsRead}}
	handle(a, route{id: "list-sessions", method: http.MethodGet, path: "/v1/sessions", tag: "sessions", summary: "List sessions, newest first", rules: read}, a.sessions)
	handle(a, route{id: "get-session", method: http.MethodGet, path: "/v1/sessions/{session}", tag: "sessions", summary: "Read a session", rules: read}, a.session)
	handle(a, route{id: "revoke", method: http.MethodPost, path: revocationsPath, tag: "sessions", summary: "End sessions at once",
		detail: "Aim at one session, agent, user, connection, provider or organization. organization_id beside a user or a provider keeps it to that organization; without, it counts wherever the caller may revoke. When it answers, no further call starts, and calls that had started are cut.",
		rules:  rules{scopes: []account.Scope{account.ScopeSessionsRevoke}, urgent: true}}, a.revoke)
}

func (a *API) sessions(ctx context.Context, by account.Actor, in *sessionsInput) (Page[Session], error) {
	org, err := a.organization(ctx, by, in.OrganizationID)
	if err != nil {
		return Page[Session]{}, err
	}
	f := session.Filter{Organization: org, State: in.State, After: in.After, Limit: in.limit()}
	if err := optionalID(&f.Agent, in.AgentID); err != nil {
		return Page[Session]{}, err
	}
	if err := optionalID(&f.User, in.UserID); err != nil {
		return Page[Session]{}, err
	}
	rows, next, err := a.cfg.Sessions.List(ctx, by, f)
	return page(rows, next, sessionOf), err
}

func (a *API) session(ctx context.Context, by account.Actor, in *sessionInput) (Session, error) {
	var ses id.Session
	if err := parseID(&ses, in.Session); err != nil {
		return Session{}, err
	}
	s, err := a.cfg.Sessions.Get(ctx, by, ses)
	if err != nil {
		return Session{}, err
	}
	out := sessionOf(s)
	if s.State == session.Pending {
		out.ApprovalURL = a.base + "/ui/approvals/" + out.ApprovalID
	}
	calls, err := a.cfg.Sessions.CallRequests(ctx, by, ses)
	for _, r := range calls {
		out.CallApprovals = append(out.CallApprovals, CallApproval{ApprovalID: string(r.ID), Tool: r.Tool, State: r.State, Note: r.Note,
			RequestedAt: r.CreatedAt, ExpiresAt: r.ExpiresAt, DecidedAt: r.DecidedAt, DecidedBy: string(r.DecidedBy)})
	}
	if err != nil {
		return out, err
	}
	more, err := a.cfg.Sessions.Widenings(ctx, by, ses)
	for _, w := range more {
		out.Widenings = append(out.Widenings, Widening{SessionID: string(w.ID), ApprovalID: string(w.Approval), State: w.Outcome(), Purpose: w.Purpose,
			Grants: sessionOf(w.Session).Grants, RequestedAt: w.RequestedAt, DecidedAt: w.DecidedAt, DecidedBy: string(w.DecidedBy)})
	}
	return out, err
}

func (a *API) revoke(ctx context.Context, by account.Actor, in *revokeInput) (Revoked, error) {
	b := in.Body
	aim := session.Aim{Provider: b.Provider}
	for _, err := range []error{optionalID(&aim.Session, b.SessionID), optionalID(&aim.Agent, b.AgentID), optionalID(&aim.User, b.UserID), optionalID(&aim.Connection, b.ConnectionID)} {
		if err != nil {
			return Revoked{}, err
		}
	}
	if b.OrganizationID != "" {
		if err := parseID(&aim.Organization, b.OrganizationID); err != nil {
			return Revoked{}, err
		}
		if _, err := a.cfg.People.Urgently().Organization(ctx, by.Environment(), aim.Organization); err != nil {
			return Revoked{}, err
		}
	}
	res, err := a.cfg.Sessions.Revoke(ctx, by, aim)
	if err != nil {
		return Revoked{}, err
	}
	out := Revoked{Sessions: []string{}, Running: []RunningCall{}}
	for _, s := range res.Sessions {
		out.Sessions = append(out.Sessions, string(s))
	}
	for _, r := range res.Running {
		out.Running = append(out.Running, RunningCall{EventID: string(r.Event), SessionID: string(r.Session), Tool: r.Tool, StartedAt: r.Started})
	}
	return out, nil
}

// Approval is a request that waits for the person. It is decided at URL, in a
// browser, and nowhere else.
type Approval struct {
	ID        string        `json:"id"`
	Kind      string        `json:"kind" enum:"session,call"`
	State     string        `json:"state"`
	URL       string        `json:"url" doc:"Where the person decides."`
	Session   Session       `json:"session"`
	Call      *ApprovalCall `json:"call,omitempty" doc:"When one call is to be approved."`
	Risk      []string      `json:"risk" nullable:"false"`
	CreatedAt time.Time     `json:"created_at"`
	ExpiresAt time.Time     `json:"expires_at"`
	Note      string        `json:"note,omitempty" doc:"What the person told the agent, or why it was denied."`
	DecidedAt time.Time     `json:"decided_at,omitzero"`
	DecidedBy string        `json:"decided_by,omitempty"`
	FirstBy   string        `json:"first_by,omitempty" doc:"Who approved first, where a second person must."`
	SignIn    string        `json:"sign_in,omitempty" doc:"Of a session that a program asked for with its sign-in: where the answer goes."`
}

// ApprovalCall is the one call that an approval is about.
type ApprovalCall struct {
	Tool         string          `json:"tool"`
	Title        string          `json:"title"`
	Effect       string          `json:"effect"`
	ConnectionID string          `json:"connection_id"`
	Provider     string          `json:"provider"`
	ProviderName string          `json:"provider_name"`
	AccountLabel string          `json:"account"`
	Method       string          `json:"method"`
	URL          string          `json:"url"`
	Fields       []ApprovalField `json:"fields" nullable:"false" doc:"What would be sent, in order."`
	Why          string          `json:"why,omitempty" doc:"What in its statement makes it worse than its tool."`
	Shown        *ApprovalShown  `json:"shown,omitempty" doc:"What the fields are to be read as, as the tool's record says."`
	Stands       []ApprovalField `json:"stands,omitempty" doc:"Of a call that changes something: what stood there when the agent asked, as the provider says, by the fields' names."`
	Unnamed      string          `json:"unnamed,omitempty" doc:"Why nothing names what the call is about."`
	Target       string          `json:"target,omitempty" doc:"What the call is about, in the provider's words, which nobody checked. Absent: nothing names it."`
}

// ApprovalShown is what a call is, for people.
type ApprovalShown struct {
	As    string            `json:"as" enum:"mail,sql,graphql"`
	Parts map[string]string `json:"parts" doc:"The fields' names by what they are: to, subject, text, statement and so on."`
}

// ApprovalField is one readable part of a call.
type ApprovalField struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (a *API) approvalOf(x session.Approval) Approval {
	out := Approval{ID: string(x.ID), Kind: x.Kind, State: x.State, URL: a.base + "/ui/approvals/" + string(x.ID), Session: sessionOf(x.Session),
		Risk: append([]string{}, x.Risk...), CreatedAt: x.CreatedAt, ExpiresAt: x.ExpiresAt,
		Note: x.Note, DecidedAt: x.DecidedAt, DecidedBy: string(x.DecidedBy), FirstBy: string(x.First.By)}
	if x.Consent != nil {
		out.SignIn = x.Consent.Host
	}
	if c := x.Call; c != nil {
		out.Call = &ApprovalCall{Tool: c.Tool, Title: c.Title, Effect: string(c.Effect), ConnectionID: string(c.Connection), Provider: c.Provider,
			ProviderName: c.ProviderName, AccountLabel: c.AccountLabel, Method: c.Method, URL: c.URL, Fields: append([]ApprovalField{}, fieldsOf(c.Fields)...),
			Why: c.Why, Stands: fieldsOf(x.Stands), Unnamed: c.Unnamed, Target: x.Target}
		if c.Shown != nil {
			out.Call.Shown = &ApprovalShown{As: c.Shown.As, Parts: c.Shown.Parts}
		}
	}
	return out
}

func fieldsOf(list []session.Field) (out []ApprovalField) {
	for _, f := range list {
		out = append(out, ApprovalField{Name: f.Name, Value: f.Value})
	}
	return out
}

type approvalInput struct {
	Caller
	Approval string `path:"approval"`
}

// approvalRoutes only show. A decision needs the person's presence in the
// browser, and there is no route that could stand in for it (threats.md S6).
func (a *API) approvalRoutes() {
	handle(a, route{id: "list-approvals", method: http.MethodGet, path: "/v1/approvals", tag: "approvals", summary: "List the requests that wait for the person who calls",
		rules: rules{person: true}}, a.approvals)
	handle(a, route{id: "get-approval", method: http.MethodGet, path: "/v1/approvals/{approval}", tag: "approvals", summary: "Read a request",
		detail: "It is decided in the browser.", rules: rules{person: true}}, a.approval)
}

func (a *API) approvals(ctx context.Context, by account.Actor, in *pagingInput) (Page[Approval], error) {
	p, _ := by.Person()
	all, err := a.cfg.Sessions.Inbox(ctx, p)
	if err != nil {
		return Page[Approval]{}, err
	}
	key := func(x session.Approval) string { return string(x.ID) }
	slices.SortFunc(all, func(x, y session.Approval) int { return strings.Compare(key(x), key(y)) })
	return window(all, in.Paging, key, a.approvalOf), nil
}

func (a *API) approval(ctx context.Context, by account.Actor, in *approvalInput) (Approval, error) {
	var apr id.Approval
	if err := parseID(&apr, in.Approval); err != nil {
		return Approval{}, err
	}
	p, _ := by.Person()
	x, err := a.cfg.Sessions.Approval(ctx, p, apr)
	if err != nil {
		return Approval{}, err
	}
	return a.approvalOf(x), nil
}
