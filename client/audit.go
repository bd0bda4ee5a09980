package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// Event is one audit entry.
type Event struct {
	ID             string            `json:"id"`
	Time           time.Time         `json:"time"`
	Kind           string            `json:"kind"` // event, intent (of a call) or, in a stream, outcome
	Ref            string            `json:"ref"`  // of an outcome: its intent
	EnvironmentID  string            `json:"environment_id"`
	OrganizationID string            `json:"organization_id"`
	Actor          Actor             `json:"actor"`
	AgentID        string            `json:"agent_id"`
	UserID         string            `json:"user_id"`
	SessionID      string            `json:"session_id"`
	ApprovalID     string            `json:"approval_id"`
	ConnectionID   string            `json:"connection_id"`
	Action         string            `json:"action"`
	Object         string            `json:"object"`
	Provider       string            `json:"provider"`
	Tool           string            `json:"tool"`
	Effect         string            `json:"effect"`
	ArgumentDigest string            `json:"argument_digest"`
	Decision       string            `json:"decision"` // allow, deny or empty
	Rule           string            `json:"rule"`
	Code           string            `json:"code"`
	Evidence       json.RawMessage   `json:"evidence"`
	Detail         map[string]string `json:"detail"`
	Address        string            `json:"address"`
	Outcome        Outcome           `json:"outcome,omitzero"`
	Chain          string            `json:"chain"`
	Seq            int64             `json:"seq"`
}

// Actor is who did something.
type Actor struct {
	Kind string `json:"kind"` // agent, user, api_key or system
	ID   string `json:"id"`
}

// Outcome is how a call ended. Its Status is empty while that is not known.
type Outcome struct {
	Status         string `json:"status"` // ok, error, unknown or cut
	Code           string `json:"code"`
	UpstreamStatus int    `json:"upstream_status"`
	DurationMillis int64  `json:"duration_ms"`
	SettledBy      string `json:"settled_by"` // the node that recorded that the call's own server stopped while it ran
}

// AuditFilter selects audit entries.
type AuditFilter struct {
	OrganizationID string
	AgentID        string
	UserID         string
	SessionID      string
	ConnectionID   string
	Action         string // exact, or a noun followed by ".*"
	Decision       string
	Since, Until   time.Time
	Limit          int
	After          string
}

func (f AuditFilter) query() url.Values {
	q := Paging{f.Limit, f.After}.add(url.Values{})
	set(q, "organization_id", f.OrganizationID)
	set(q, "agent_id", f.AgentID)
	set(q, "user_id", f.UserID)
	set(q, "session_id", f.SessionID)
	set(q, "connection_id", f.ConnectionID)
	set(q, "action", f.Action)
	set(q, "decision", f.Decision)
	if !f.Since.IsZero() {
		set(q, "since", f.Since.UTC().Format(time.RFC3339Nano))
	}
	if !f.Until.IsZero() {
		set(q, "until", f.Until.UTC().Format(time.RFC3339Nano))
	}
	return q
}

// AuditReport is what a verification of the audit log found.
type AuditReport struct {
	Intact      bool           `json:"intact"`
	Chains      int            `json:"chains"`
	Entries     int64          `json:"entries"`
	Checkpoints int            `json:"checkpoints"`
	Problems    []AuditProblem `json:"problems"`
	Unwitnessed []AuditTail    `json:"unwitnessed"`
}

// AuditProblem is one finding of a verification.
type AuditProblem struct {
	Chain string `json:"chain"`
	Seq   int64  `json:"seq"`
	What  string `json:"what"`
}

// AuditTail is the end of a chain that no checkpoint has witnessed yet.
type AuditTail struct {
	Chain     string `json:"chain"`
	From      int64  `json:"from"`
	Entries   int64  `json:"entries"`
	Node      string `json:"node"`      // whose chain it is
	Elsewhere bool   `json:"elsewhere"` // no checkpoint of that node was read: it keeps its own in another folder
}

// Audit lists entries, newest first.
func (c *Client) Audit(ctx context.Context, f AuditFilter) (Page[Event], error) {
	return read[Page[Event]](ctx, c, "/v1/audit", f.query())
}

// VerifyAudit holds the whole audit log against its chains and checkpoints.
func (c *Client) VerifyAudit(ctx context.Context) (AuditReport, error) {
	return send[AuditReport](ctx, c, http.MethodPost, "/v1/audit/verify", nil, true)
}
