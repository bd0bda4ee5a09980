package api

import (
	"context"
	"net/http"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
)

// Settings are what an organization has decided about sessions and approvals.
type Settings struct {
	Version        int64           `json:"version" minimum:"0" doc:"0: it has decided nothing, and these are the defaults. A change names the version that it replaces."`
	DefaultMinutes int             `json:"default_minutes" minimum:"1" maximum:"1440"`
	LongestMinutes int             `json:"longest_minutes" minimum:"1" maximum:"1440"`
	Approvals      ApprovalKinds   `json:"approvals" doc:"What approval the calls of each effect need at least."`
	Approvers      []string        `json:"approvers" nullable:"false" doc:"The roles that decide on accounts of the organization: owner, admin, approver."`
	SecondToStart  []policy.Effect `json:"second_to_start" nullable:"false" doc:"Effects with which a session needs a second person to start: neither the first nor the one for whom the agent acts."`
	QuietHours     *QuietHours     `json:"quiet_hours,omitempty" doc:"Nobody is asked anything in them. Absent: there are none."`
	Limits         FatigueLimits   `json:"limits"`
}

// ApprovalKinds are the kinds by effect: none beside the session's (grant), each
// call its own (call), or each call its own by two persons (second).
type ApprovalKinds struct {
	Read        string `json:"read" enum:"grant,call,second"`
	Write       string `json:"write" enum:"grant,call,second"`
	Destructive string `json:"destructive" enum:"grant,call,second"`
	Access      string `json:"access" enum:"call,second"`
}

// QuietHours are of each day; a to before from is of the next.
type QuietHours struct {
	From string `json:"from" pattern:"^[0-2][0-9]:[0-5][0-9]$"`
	To   string `json:"to" pattern:"^[0-2][0-9]:[0-5][0-9]$"`
	Zone string `json:"zone" maxLength:"64" doc:"Of the IANA database, such as Europe/Berlin."`
}

// FatigueLimits bound how much agents may ask of people.
type FatigueLimits struct {
	OpenByAgent   int `json:"open_by_agent" minimum:"1" maximum:"20"`
	OpenByUser    int `json:"open_by_user" minimum:"1" maximum:"200"`
	HourlyByAgent int `json:"hourly_by_agent" minimum:"1" maximum:"200"`
	HourlyByUser  int `json:"hourly_by_user" minimum:"1" maximum:"1000"`
}

// Policy are the policies of an organization.
type Policy struct {
	Version int64  `json:"version" minimum:"0" doc:"0: there are none. A change names the version that it replaces."`
	Policy  string `json:"policy" maxLength:"32768" doc:"Cedar, over the schema that ambit policy schema prints. Forbids refuse; where there are permits, one must hold; empty: grants decide alone."`
}

// PolicyTrial is what policies would have decided on calls of the past.
type PolicyTrial struct {
	Since   time.Time     `json:"since"`
	Calls   int           `json:"calls" doc:"How many were looked at, the newest first."`
	More    bool          `json:"more" doc:"There were more than are looked at."`
	Allowed int           `json:"allowed"`
	Denied  int           `json:"denied"`
	Unknown int           `json:"unknown" doc:"It depends on arguments, which are not on record."`
	Changed []ChangedCall `json:"changed" nullable:"false" doc:"Calls that would have ended otherwise, at most 100."`
}

// ChangedCall is a call of the past that policies would have decided otherwise.
type ChangedCall struct {
	EventID  string    `json:"event_id"`
	At       time.Time `json:"at"`
	AgentID  string    `json:"agent_id"`
	Provider string    `json:"provider"`
	Tool     string    `json:"tool"`
	Effect   string    `json:"effect"`
	Was      string    `json:"was" enum:"allow,deny"`
	Now      string    `json:"now" enum:"allow,deny"`
	Policy   string    `json:"policy,omitempty" doc:"What decides."`
}

func settingsOf(r session.Rules) Settings {
	s := r.Settings
	out := Settings{Version: r.SettingsVersion, DefaultMinutes: s.DefaultMinutes, LongestMinutes: s.LongestMinutes, Approvers: s.Approvers,
		SecondToStart: append([]policy.Effect{}, s.SecondToStart...), Limits: FatigueLimits(s.Limits),
		Approvals: ApprovalKinds{Read: string(s.Approvals.Read), Write: string(s.Approvals.Write), Destructive: string(s.Approvals.Destructive), Access: string(s.Approvals.Access)}}
	if s.Quiet != nil {
		out.QuietHours = &QuietHours{From: s.Quiet.From, To: s.Quiet.To, Zone: s.Quiet.Zone}
	}
	return out
}

func (s Settings) settings() policy.Settings {
	out := policy.Settings{DefaultMinutes: s.DefaultMinutes, LongestMinutes: s.LongestMinutes, Approvers: s.Approvers, SecondToStart: append([]policy.Effect{}, s.SecondToStart...),
		Limits: policy.Fatigue(s.Limits), Approvals: policy.Approvals{Read: policy.Kind(s.Approvals.Read), Write: policy.Kind(s.Approvals.Write),
			Destructive: policy.Kind(s.Approvals.Destructive), Access: policy.Kind(s.Approvals.Access)}}
	if q := s.QuietHours; q != nil {
		out.Quiet = &policy.Quiet{From: q.From, To: q.To, Zone: q.Zone}
	}
	return out
}

func policyOf(r session.Rules) Policy { return Policy{Version: r.PolicyVersion, Policy: r.Policy} }

type settingsInput struct {
	Caller
	Organization string `path:"organization"`
	Body         Settings
}

type policyInput struct {
	Caller
	Organization string `path:"organization"`
	Body         Policy
}

type policyTrialInput struct {
	Caller
	Organization string `path:"organization"`
	Body         struct {
		Policy string    `json:"policy" maxLength:"32768"`
		Since  time.Time `json:"since,omitzero" doc:"Default: a day ago."`
	}
}

func (a *API) ruleRoutes() {
	read, write := rules{scopes: []account.Scope{account.ScopeSessionsRead}}, rules{scopes: []account.Scope{account.ScopeOrganizationsWrite}}
	const settings, policies = "/v1/organizations/{organization}/settings", "/v1/organizations/{organization}/policy"
	handle(a, route{id: "get-settings", method: http.MethodGet, path: settings, tag: "organizations", summary: "Read what an organization has decided about sessions and approvals", rules: read}, a.settings)
	handle(a, route{id: "set-settings", method: http.MethodPut, path: settings, tag: "organizations", summary: "Replace an organization's settings",
		detail: "Of a person, what allows more takes their passkey, in the browser.", rules: write, conflicts: true}, a.setSettings)
	handle(a, route{id: "get-policy", method: http.MethodGet, path: policies, tag: "organizations", summary: "Read an organization's policies", rules: read}, a.policy)
	handle(a, route{id: "set-policy", method: http.MethodPut, path: policies, tag: "organizations", summary: "Replace an organization's policies",
		detail: "They count from the next call on. Of a person, each change takes their passkey, in the browser.", rules: write, conflicts: true}, a.setPolicy)
	handle(a, route{id: "try-policy", method: http.MethodPost, path: policies + "/trials", tag: "organizations", summary: "Say what policies would have decided on calls of the past",
		detail: "Changes nothing. At most 10,000 calls are looked at.", rules: rules{scopes: []account.Scope{account.ScopeAuditRead}}}, a.tryPolicy)
}

func (a *API) settings(ctx context.Context, by account.Actor, in *organizationInput) (Settings, error) {
	var org id.Organization
	if err := parseID(&org, in.Organization); err != nil {
		return Settings{}, err
	}
	r, err := a.cfg.Sessions.Rules(ctx, by, org)
	return settingsOf(r), err
}

func (a *API) setSettings(ctx context.Context, by account.Actor, in *settingsInput) (Settings, error) {
	var org id.Organization
	if err := parseID(&org, in.Organization); err != nil {
		return Settings{}, err
	}
	r, err := a.cfg.Sessions.SetSettings(ctx, by, org, in.Body.Version, in.Body.settings(), account.Agreement{})
	return settingsOf(r), a.confirmation(err)
}

func (a *API) policy(ctx context.Context, by account.Actor, in *organizationInput) (Policy, error) {
	var org id.Organization
	if err := parseID(&org, in.Organization); err != nil {
		return Policy{}, err
	}
	r, err := a.cfg.Sessions.Rules(ctx, by, org)
	return policyOf(r), err
}

func (a *API) setPolicy(ctx context.Context, by account.Actor, in *policyInput) (Policy, error) {
	var org id.Organization
	if err := parseID(&org, in.Organization); err != nil {
		return Policy{}, err
	}
	r, err := a.cfg.Sessions.SetPolicy(ctx, by, org, in.Body.Version, in.Body.Policy, account.Agreement{})
	return policyOf(r), a.confirmation(err)
}

func (a *API) tryPolicy(ctx context.Context, by account.Actor, in *policyTrialInput) (PolicyTrial, error) {
	var org id.Organization
	if err := parseID(&org, in.Organization); err != nil {
		return PolicyTrial{}, err
	}
	since := in.Body.Since
	if since.IsZero() {
		since = a.cfg.Now().Add(-24 * time.Hour)
	}
	got, err := a.cfg.Sessions.TryPolicy(ctx, by, org, in.Body.Policy, since)
	if err != nil {
		return PolicyTrial{}, err
	}
	out := PolicyTrial{Since: got.Since, Calls: got.Calls, More: got.More, Allowed: got.Allowed, Denied: got.Denied, Unknown: got.Unknown, Changed: []ChangedCall{}}
	for _, c := range got.Changed {
		out.Changed = append(out.Changed, ChangedCall{EventID: string(c.Event), At: c.At, AgentID: string(c.Agent), Provider: c.Provider, Tool: c.Tool, Effect: string(c.Effect),
			Was: string(c.Was), Now: string(c.Now), Policy: c.Policy})
	}
	return out, nil
}
