package web

import (
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
)

// Tab is a link to one of several views of a list.
type Tab struct {
	Label, Href string
	Chosen      bool
}

// SessionsPage lists sessions by state.
type SessionsPage struct {
	Frame
	Tabs                           []Tab
	Items                          []SessionRow
	Next                           string
	EmptyTitle, EmptyText, Command string
}

func (*SessionsPage) template() string { return "sessions" }

// SessionRow is one session in a list.
type SessionRow struct {
	ID                    id.Session
	Agent                 AgentMark
	Effects               []policy.Effect
	Accounts              []Account
	State, Reason         string
	Asked, Expires, Ended time.Time
}

// SessionPage shows one session, its grants and its calls.
type SessionPage struct {
	Frame
	ID                              id.Session
	Widens                          id.Session // of a request to widen a session: which
	Parent                          id.Session // whose part a sub-agent was given; empty: it is none
	Agent                           AgentMark
	AgentID                         id.Agent
	User                            string
	Verbs                           string
	Accounts                        []Account
	Minutes                         int
	Made                            string // calls: how many of how many, where that is limited
	State, Shown                    string
	Why                             string // what ended it, when nobody did by name
	Granted                         bool
	Asked, Approved, Expires, Ended time.Time
	Approval                        id.Approval
	Grants                          []GrantView
	Calls                           []CallRow
	CallsMore, NoCalls              string
	SingleCalls                     []CallAskRow
	Widenings                       []WideningRow
	Instructions, DenyReason, Words string
}

func (*SessionPage) template() string { return "session" }

// GrantView is a grant to read.
type GrantView struct {
	Provider, Account string
	Shared            bool
	Effects           []policy.Effect
	Confirm           string
	Lost              string // why it can no longer be granted
	Limits            []LimitView
	Tools             []ToolChoice
}

// CallRow is one call in a list.
type CallRow struct {
	At           time.Time
	Tool         string
	Result, Code string
	Why          string // the result is unknown
	Took         time.Duration
}

// CallAskRow is a single call that a person was asked about.
type CallAskRow struct {
	Tool, State, Note string
	At                time.Time
}

// WideningRow is a request for more in a session: what it had not, and who said what.
type WideningRow struct {
	Session         id.Session // of the request
	State, By, Note string
	At              time.Time
	Grants          []WideningGrant
}

// WideningGrant is the difference on one account.
type WideningGrant struct {
	Provider, Account string
	New               bool // the session had nothing there
	Tools             []ToolChoice
	Relimited         bool
	Limits            []LimitView
}

// RevokedPage says what a revoke ended.
type RevokedPage struct {
	Frame
	What     string
	Sessions int
	Running  []RunningRow
	Back     string
}

func (*RevokedPage) template() string { return "revoked" }

// RunningRow is a call that a revoke cut.
type RunningRow struct {
	Tool    string
	Started time.Time
	Event   id.Event
}
