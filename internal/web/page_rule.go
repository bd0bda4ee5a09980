package web

import "time"

// RulesPage shows what an organization has decided about sessions and approvals.
type RulesPage struct {
	Frame
	CanChange                      bool
	SettingsVersion, PolicyVersion int64
	DefaultMinutes, LongestMinutes string
	Kinds                          []KindChoice
	Approvers, Second              []Option
	QuietFrom, QuietTo, QuietZone  string
	OpenByAgent, OpenByUser        string
	HourlyByAgent, HourlyByUser    string
	Policy                         string
	Tried                          *TriedPolicy
}

func (*RulesPage) template() string { return "rules" }

// KindChoice is what approval the calls of one effect need.
type KindChoice struct {
	Effect  string
	Title   string
	Options []Option
}

// TriedPolicy is what policies would have decided on calls of the past.
type TriedPolicy struct {
	Since                           time.Time
	Calls, Allowed, Denied, Unknown int
	More                            bool
	Changed                         []TriedCall
}

// TriedCall is a call that policies would have decided otherwise.
type TriedCall struct {
	At                    time.Time
	Agent, Tool, Was, Now string
	Policy                string
}
