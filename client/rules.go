package client

import (
	"context"
	"net/http"
	"time"
)

// Settings are what an organization has decided about sessions and approvals.
// Version 0 says that it has decided nothing; a change names the version that it
// replaces.
type Settings struct {
	Version        int64         `json:"version"`
	DefaultMinutes int           `json:"default_minutes"`
	LongestMinutes int           `json:"longest_minutes"`
	Approvals      ApprovalKinds `json:"approvals"`
	Approvers      []string      `json:"approvers"`
	SecondToStart  []string      `json:"second_to_start"`
	QuietHours     *QuietHours   `json:"quiet_hours,omitempty"`
	Limits         FatigueLimits `json:"limits"`
}

// ApprovalKinds are grant, call or second, by effect.
type ApprovalKinds struct {
	Read        string `json:"read"`
	Write       string `json:"write"`
	Destructive string `json:"destructive"`
	Access      string `json:"access"`
}

// QuietHours are of each day, such as 22:00 to 06:00 in Europe/Berlin.
type QuietHours struct {
	From string `json:"from"`
	To   string `json:"to"`
	Zone string `json:"zone"`
}

// FatigueLimits bound how much agents may ask of people.
type FatigueLimits struct {
	OpenByAgent   int `json:"open_by_agent"`
	OpenByUser    int `json:"open_by_user"`
	HourlyByAgent int `json:"hourly_by_agent"`
	HourlyByUser  int `json:"hourly_by_user"`
}

// Policy are the policies of an organization, in Cedar.
type Policy struct {
	Version int64  `json:"version"`
	Policy  string `json:"policy"`
}

// PolicyTrial is what policies would have decided on calls of the past.
type PolicyTrial struct {
	Since   time.Time     `json:"since"`
	Calls   int           `json:"calls"`
	More    bool          `json:"more"` // there were more than are looked at
	Allowed int           `json:"allowed"`
	Denied  int           `json:"denied"`
	Unknown int           `json:"unknown"` // it depends on arguments, which are not on record
	Changed []ChangedCall `json:"changed"` // those that would have ended otherwise, at most 100
}

// ChangedCall is a call of the past that policies would have decided otherwise.
type ChangedCall struct {
	EventID  string    `json:"event_id"`
	At       time.Time `json:"at"`
	AgentID  string    `json:"agent_id"`
	Provider string    `json:"provider"`
	Tool     string    `json:"tool"`
	Effect   string    `json:"effect"`
	Was      string    `json:"was"` // allow or deny
	Now      string    `json:"now"`
	Policy   string    `json:"policy"` // what decides
}

func rulesPath(org, of string) string { return "/v1/organizations/" + seg(org) + "/" + of }

// Settings reads an organization's settings.
func (c *Client) Settings(ctx context.Context, org string) (Settings, error) {
	return read[Settings](ctx, c, rulesPath(org, "settings"), nil)
}

// SetSettings replaces the settings that are at s.Version.
func (c *Client) SetSettings(ctx context.Context, org string, s Settings) (Settings, error) {
	return send[Settings](ctx, c, http.MethodPut, rulesPath(org, "settings"), s, false)
}

// Policy reads an organization's policies.
func (c *Client) Policy(ctx context.Context, org string) (Policy, error) {
	return read[Policy](ctx, c, rulesPath(org, "policy"), nil)
}

// SetPolicy replaces the policies that are at p.Version.
func (c *Client) SetPolicy(ctx context.Context, org string, p Policy) (Policy, error) {
	return send[Policy](ctx, c, http.MethodPut, rulesPath(org, "policy"), p, false)
}

// TryPolicy says what policies would have decided since a moment; zero is a day
// ago. It changes nothing.
func (c *Client) TryPolicy(ctx context.Context, org, policy string, since time.Time) (PolicyTrial, error) {
	body := struct {
		Policy string    `json:"policy"`
		Since  time.Time `json:"since,omitzero"`
	}{policy, since}
	return send[PolicyTrial](ctx, c, http.MethodPost, rulesPath(org, "policy/trials"), body, true)
}
