package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
)

// Event is one audit entry.
type Event struct {
	ID             string            `json:"id"`
	Time           time.Time         `json:"time"`
	Kind           string            `json:"kind" enum:"event,intent,outcome" doc:"An intent is a call. An outcome comes in streams only; lists put it into its intent."`
	Ref            string            `json:"ref,omitempty" doc:"Of an outcome: its intent."`
	EnvironmentID  string            `json:"environment_id"`
	OrganizationID string            `json:"organization_id,omitempty"`
	Actor          AuditActor        `json:"actor"`
	AgentID        string            `json:"agent_id,omitempty"`
	UserID         string            `json:"user_id,omitempty"`
	SessionID      string            `json:"session_id,omitempty"`
	ApprovalID     string            `json:"approval_id,omitempty"`
	ConnectionID   string            `json:"connection_id,omitempty"`
	Action         string            `json:"action" doc:"noun.verb, such as tool.call."`
	Object         string            `json:"object,omitempty" doc:"What was accessed or changed."`
	Provider       string            `json:"provider,omitempty"`
	Tool           string            `json:"tool,omitempty"`
	Effect         string            `json:"effect,omitempty"`
	ArgumentDigest string            `json:"argument_digest,omitempty" doc:"SHA-256 of the canonical arguments."`
	Decision       string            `json:"decision,omitempty" doc:"allow or deny."`
	Rule           string            `json:"rule,omitempty" doc:"What decided."`
	Code           string            `json:"code,omitempty"`
	Evidence       any               `json:"evidence,omitempty" doc:"Of an approval: the signed assertion."`
	Detail         map[string]string `json:"detail,omitempty"`
	Address        string            `json:"address,omitempty"`
	Outcome        Outcome           `json:"outcome,omitzero" doc:"Absent of a call that runs."`
	Chain          string            `json:"chain"`
	Seq            int64             `json:"seq"`
}

// AuditActor is who did something.
type AuditActor struct {
	Kind string `json:"kind" enum:"agent,user,api_key,system"`
	ID   string `json:"id"`
}

// Outcome is how a call ended.
type Outcome struct {
	Status         string `json:"status" enum:"ok,error,unknown,cut"`
	Code           string `json:"code,omitempty"`
	UpstreamStatus int    `json:"upstream_status,omitempty"`
	DurationMillis int64  `json:"duration_ms"`
	SettledBy      string `json:"settled_by,omitempty" doc:"The node that recorded that nobody knows how the call ended: its own server stopped while it ran."`
}

// AuditReport is what a verification found.
type AuditReport struct {
	Intact      bool           `json:"intact"`
	Chains      int            `json:"chains"`
	Entries     int64          `json:"entries"`
	Checkpoints int            `json:"checkpoints"`
	Problems    []AuditProblem `json:"problems" nullable:"false"`
	Unwitnessed []AuditTail    `json:"unwitnessed" nullable:"false" doc:"Ends of chains that no checkpoint has witnessed yet."`
}

// AuditProblem is one finding.
type AuditProblem struct {
	Chain string `json:"chain,omitempty"`
	Seq   int64  `json:"seq,omitempty"`
	What  string `json:"what"`
}

// AuditTail is the unwitnessed end of a chain.
type AuditTail struct {
	Chain     string `json:"chain"`
	From      int64  `json:"from"`
	Entries   int64  `json:"entries"`
	Node      string `json:"node" doc:"Whose chain it is."`
	Elsewhere bool   `json:"elsewhere" doc:"No checkpoint of that node was read: it keeps its own in another folder."`
}

func eventOf(r audit.Record) Event {
	e := Event{ID: string(r.ID), Time: r.Time, Kind: r.Kind, Ref: string(r.Ref), EnvironmentID: string(r.Environment), OrganizationID: string(r.Organization),
		Actor: AuditActor(r.Actor), AgentID: string(r.Agent), UserID: string(r.User), SessionID: string(r.Session), ApprovalID: string(r.Approval),
		ConnectionID: string(r.Connection), Action: r.Action, Object: r.Object, Provider: r.Provider, Tool: r.Tool, Effect: r.Effect, ArgumentDigest: r.ArgumentDigest,
		Decision: r.Decision, Rule: r.Rule, Code: r.Code, Detail: r.Detail, Address: r.Address, Chain: r.Chain, Seq: r.Seq}
	if len(r.Evidence) > 0 {
		e.Evidence = json.RawMessage(r.Evidence)
	}
	if o := r.Outcome; o != nil {
		e.Outcome = Outcome{Status: o.Status, Code: o.Code, UpstreamStatus: o.UpstreamStatus, DurationMillis: o.Duration.Milliseconds(), SettledBy: o.SettledBy}
	}
	return e
}

// Selection is what audit entries are chosen by.
type Selection struct {
	OrganizationID string    `query:"organization_id"`
	AgentID        string    `query:"agent_id"`
	UserID         string    `query:"user_id"`
	SessionID      string    `query:"session_id"`
	ConnectionID   string    `query:"connection_id"`
	Action         string    `query:"action" maxLength:"100" doc:"Exact, or a noun followed by .* for all its verbs."`
	Decision       string    `query:"decision" enum:"allow,deny"`
	Since          time.Time `query:"since"`
}

type auditInput struct {
	Caller
	Paging
	Selection
	Until time.Time `query:"until"`
}

type streamInput struct {
	Caller
	Selection
}

func (a *API) auditRoutes() {
	read := rules{scopes: []account.Scope{account.ScopeAuditRead}}
	handle(a, route{id: "list-audit", method: http.MethodGet, path: "/v1/audit", tag: "audit", summary: "List audit entries, newest first", rules: read}, a.listAudit)
	write(a, route{id: "stream-audit", method: http.MethodGet, path: "/v1/audit/stream", tag: "audit", summary: "Follow the audit log",
		detail: "One JSON entry a line, as it becomes visible, from since on or from now. Empty lines are signs of life. A last line {\"error\": …} says why the server ended the stream.",
		rules:  read}, "application/x-ndjson", a.schemaOf(Event{}), a.streamAudit)
	handle(a, route{id: "verify-audit", method: http.MethodPost, path: "/v1/audit/verify", tag: "audit", summary: "Hold the whole audit log against its chains and checkpoints",
		detail: "For those who read the audit of the whole environment. It takes time with the size of the log; one runs at a time.", rules: read}, a.verifyAudit)
}

// selected makes a filter of what the actor may read: an organization's
// entries, or those of the whole environment.
func (a *API) selected(ctx context.Context, by account.Actor, s Selection) (audit.Filter, error) {
	f := audit.Filter{Environment: by.Environment(), Action: s.Action, Decision: s.Decision, Since: s.Since}
	var err error
	if f.Organization, err = a.organization(ctx, by, s.OrganizationID); err != nil {
		return f, err
	}
	for _, err := range []error{optionalID(&f.Agent, s.AgentID), optionalID(&f.User, s.UserID), optionalID(&f.Session, s.SessionID), optionalID(&f.Connection, s.ConnectionID)} {
		if err != nil {
			return f, err
		}
	}
	f.Server = f.Organization == "" && seesServer(by)
	return f, a.mayReadAudit(by, f)
}

// seesServer reports whether by is told what happened to the server itself: an
// owner of the organization that runs the environment, and keys of all of it.
func seesServer(by account.Actor) bool {
	p, person := by.Person()
	if !person {
		return by.May("", account.ReadAudit) == nil
	}
	return slices.ContainsFunc(p.Organizations(), func(m account.Membership) bool {
		return m.Environment == by.Environment() && m.Operates() && m.Role == account.RoleOwner
	})
}

func (a *API) mayReadAudit(by account.Actor, f audit.Filter) error {
	err := by.May(f.Organization, account.ReadAudit)
	if _, person := by.Person(); person && fault.Is(err, "not_found") && by.May("", account.ReadAudit) == nil {
		return nil // who runs the environment reads its tenants' too
	}
	if _, person := by.Person(); person && f.Organization == "" && err != nil {
		return fault.Of(err).WithHint("Name an organization of yours with organization_id.")
	}
	return err
}

func (a *API) listAudit(ctx context.Context, by account.Actor, in *auditInput) (Page[Event], error) {
	f, err := a.selected(ctx, by, in.Selection)
	if err != nil {
		return Page[Event]{}, err
	}
	f.Until, f.After, f.Limit = in.Until, in.After, in.limit()
	p, err := a.cfg.Audit.List(ctx, f)
	return page(p.Records, p.Next, eventOf), err
}

func (a *API) verifyAudit(ctx context.Context, by account.Actor, _ *callerInput) (AuditReport, error) {
	if err := by.May("", account.ReadAudit); err != nil {
		return AuditReport{}, err
	}
	if !a.verifying.TryLock() {
		return AuditReport{}, fault.New(fault.Limited, "verification_running", "The audit log is being verified already.").
			WithHint("Try again when it is done.").WithRetry(5 * time.Second)
	}
	defer a.verifying.Unlock()
	r, err := a.cfg.Verify(ctx, nil)
	if err != nil {
		return AuditReport{}, err
	}
	out := AuditReport{Intact: r.Intact(), Chains: r.Chains, Entries: r.Entries, Checkpoints: r.Checkpoints, Problems: []AuditProblem{}, Unwitnessed: []AuditTail{}}
	for _, p := range r.Problems {
		out.Problems = append(out.Problems, AuditProblem(p))
	}
	for _, t := range r.Unwitnessed {
		out.Unwitnessed = append(out.Unwitnessed, AuditTail(t))
	}
	return out, nil
}
