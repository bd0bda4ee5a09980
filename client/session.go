package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Session is one agent's access, asked for or granted.
type Session struct {
	ID             string    `json:"id"`
	EnvironmentID  string    `json:"environment_id"`
	OrganizationID string    `json:"organization_id"`
	AgentID        string    `json:"agent_id"`
	AgentLabel     string    `json:"agent_label"`
	AgentVerified  bool      `json:"agent_verified"`
	UserID         string    `json:"user_id"`
	WidensID       string    `json:"widens_id,omitempty"` // of a request to add to a session that runs: that session
	ParentID       string    `json:"parent_id,omitempty"` // of a sub-agent's: the session that it is a part of
	Purpose        string    `json:"purpose"`             // the agent's own words
	State          string    `json:"state"`               // pending, active or ended
	Reason         string    `json:"reason"`              // why it ended
	Cause          string    `json:"cause"`               // what it rested on that ended, if that ended it
	Minutes        int       `json:"minutes"`
	Calls          int       `json:"calls"` // the most that may start; 0: no limit
	CallsUsed      int       `json:"calls_used"`
	Grants         []Grant   `json:"grants"`
	ApprovalID     string    `json:"approval_id"`
	ApprovalURL    string    `json:"approval_url"` // where a pending one is decided; only where one session is read
	Instructions   string    `json:"instructions"`
	DenyReason     string    `json:"deny_reason"`
	RequestedAt    time.Time `json:"requested_at"`
	PendingUntil   time.Time `json:"pending_until,omitzero"`
	ApprovedAt     time.Time `json:"approved_at,omitzero"`
	ExpiresAt      time.Time `json:"expires_at,omitzero"`
	EndedAt        time.Time `json:"ended_at,omitzero"`
	Version        int64     `json:"version"`

	CallApprovals []CallApproval `json:"call_approvals"`      // only where one session is read
	Widenings     []Widening     `json:"widenings,omitempty"` // likewise
}

// Widening is a request for more in a session that runs, and what became of it.
type Widening struct {
	SessionID   string    `json:"session_id"` // of the request
	ApprovalID  string    `json:"approval_id"`
	State       string    `json:"state"`   // pending, granted, denied, expired or withdrawn
	Purpose     string    `json:"purpose"` // the agent's own words
	Grants      []Grant   `json:"grants"`  // what each account would have, or came to have; Had says what it had
	RequestedAt time.Time `json:"requested_at"`
	DecidedAt   time.Time `json:"decided_at,omitzero"`
	DecidedBy   string    `json:"decided_by"`
}

// CallApproval is the request for the approval of one call in a session.
type CallApproval struct {
	ApprovalID  string    `json:"approval_id"`
	Tool        string    `json:"tool"`
	State       string    `json:"state"` // pending, approved, denied, expired, withdrawn or used
	Note        string    `json:"note"`  // what the person told the agent, or why it was denied
	RequestedAt time.Time `json:"requested_at"`
	ExpiresAt   time.Time `json:"expires_at"`
	DecidedAt   time.Time `json:"decided_at,omitzero"`
	DecidedBy   string    `json:"decided_by"`
}

// Grant is access to one connection.
type Grant struct {
	ConnectionID string      `json:"connection_id"`
	Provider     string      `json:"provider"`
	ProviderName string      `json:"provider_name"`
	AccountLabel string      `json:"account"`
	OwnerID      string      `json:"owner_id"`
	Effects      []string    `json:"effects"`
	Tools        []GrantTool `json:"tools"`
	Confirm      string      `json:"confirm"` // which calls need their own approval
	Limits       []Limit     `json:"limits"`  // what arguments may be; all must hold
	Had          *GrantHad   `json:"had"`     // of a request to add to a session that runs: what that has here already
	Lost         string      `json:"lost"`    // of a pending session: why this can no longer be granted
}

// GrantHad is what a session that is to be widened has on an account.
type GrantHad struct {
	Effects []string `json:"effects"`
	Tools   []string `json:"tools"` // names of those that it has just as they are asked for now
	Confirm string   `json:"confirm"`
	Limits  []Limit  `json:"limits"`
}

// Limit is what one argument of a granted tool may be. One of the conditions is
// set.
type Limit struct {
	Argument string   `json:"argument"`
	Equals   string   `json:"equals"`
	OneOf    []string `json:"one_of"`
	Prefix   string   `json:"prefix"`
	Max      *float64 `json:"max"`
}

// String says the limit in words.
func (l Limit) String() string {
	switch {
	case len(l.OneOf) > 0:
		return l.Argument + " is one of " + strings.Join(l.OneOf, ", ")
	case l.Prefix != "":
		return l.Argument + " starts with " + l.Prefix
	case l.Max != nil:
		return l.Argument + " is at most " + strconv.FormatFloat(*l.Max, 'f', -1, 64)
	}
	return l.Argument + " is " + l.Equals
}

// GrantTool is a tool that a grant covers.
type GrantTool struct {
	Name   string `json:"name"`
	Title  string `json:"title"`
	Effect string `json:"effect"`
	Digest string `json:"digest"`
}

// SessionFilter selects sessions.
type SessionFilter struct {
	OrganizationID string
	AgentID        string
	UserID         string
	State          string
	Limit          int
	After          string
}

func (f SessionFilter) query() url.Values {
	q := Paging{f.Limit, f.After}.add(url.Values{})
	set(q, "organization_id", f.OrganizationID)
	set(q, "agent_id", f.AgentID)
	set(q, "user_id", f.UserID)
	set(q, "state", f.State)
	return q
}

// Revocation says what to revoke: one of these. OrganizationID beside a user or a
// provider keeps it to that organization; without, it counts wherever the caller
// may revoke.
type Revocation struct {
	SessionID      string `json:"session_id,omitempty"`
	AgentID        string `json:"agent_id,omitempty"`
	UserID         string `json:"user_id,omitempty"`
	ConnectionID   string `json:"connection_id,omitempty"`
	Provider       string `json:"provider,omitempty"`
	OrganizationID string `json:"organization_id,omitempty"`
}

// Revoked says what a revocation ended.
type Revoked struct {
	Sessions []string      `json:"sessions"`
	Running  []RunningCall `json:"running"` // calls that had started, and were cut
}

// RunningCall is a call that a revocation cut.
type RunningCall struct {
	EventID   string    `json:"event_id"`
	SessionID string    `json:"session_id"`
	Tool      string    `json:"tool"`
	StartedAt time.Time `json:"started_at"`
}

// Approval is a request that waits for the person. It is decided at URL, in a
// browser, and nowhere else.
type Approval struct {
	ID        string        `json:"id"`
	Kind      string        `json:"kind"` // session or call
	State     string        `json:"state"`
	URL       string        `json:"url"`
	Session   Session       `json:"session"`
	Call      *ApprovalCall `json:"call"`
	Risk      []string      `json:"risk"`
	CreatedAt time.Time     `json:"created_at"`
	ExpiresAt time.Time     `json:"expires_at"`
	Note      string        `json:"note"` // what the person told the agent, or why it was denied
	DecidedAt time.Time     `json:"decided_at,omitzero"`
	DecidedBy string        `json:"decided_by"`
	FirstBy   string        `json:"first_by"` // who approved first, where a second person must
	SignIn    string        `json:"sign_in"`  // of a session that a program asked for with its sign-in: where the answer goes
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
	Fields       []ApprovalField `json:"fields"`  // what would be sent, in order
	Why          string          `json:"why"`     // what in its statement makes it worse than its tool
	Shown        *ApprovalShown  `json:"shown"`   // what the fields are to be read as
	Stands       []ApprovalField `json:"stands"`  // what stood there when the agent asked, as the provider says
	Unnamed      string          `json:"unnamed"` // why nothing names what the call is about
	Target       string          `json:"target"`  // what the call is about, in the provider's words; empty: nothing names it
}

// ApprovalShown is what a call is, for people.
type ApprovalShown struct {
	As    string            `json:"as"`    // mail, sql or graphql
	Parts map[string]string `json:"parts"` // the fields' names by what they are
}

// ApprovalField is one readable part of a call.
type ApprovalField struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Sessions lists sessions, newest first.
func (c *Client) Sessions(ctx context.Context, f SessionFilter) (Page[Session], error) {
	return read[Page[Session]](ctx, c, "/v1/sessions", f.query())
}

// Session reads one.
func (c *Client) Session(ctx context.Context, id string) (Session, error) {
	return read[Session](ctx, c, "/v1/sessions/"+seg(id), nil)
}

// Revoke ends sessions. When it returns, no further call of them starts.
func (c *Client) Revoke(ctx context.Context, r Revocation) (Revoked, error) {
	return send[Revoked](ctx, c, http.MethodPost, "/v1/revocations", r, true)
}

// Approvals lists the requests that wait for the person whose login this is.
func (c *Client) Approvals(ctx context.Context, p Paging) (Page[Approval], error) {
	return read[Page[Approval]](ctx, c, "/v1/approvals", p.add(url.Values{}))
}

// Approval reads one. It is decided at its URL.
func (c *Client) Approval(ctx context.Context, id string) (Approval, error) {
	return read[Approval](ctx, c, "/v1/approvals/"+seg(id), nil)
}
