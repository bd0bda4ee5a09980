package web

import "time"

// AuditPage lists audit entries.
type AuditPage struct {
	Frame
	Filter AuditFilter
	Items  []AuditRow
	Next   string
	Own    bool // the person sees only what was done by or for them
	Whole  bool // they see the whole environment's entries
	Server bool // and the alarms about the server itself
}

func (*AuditPage) template() string { return "audit" }

// AuditFilter is the form above the list.
type AuditFilter struct {
	Action, About, Since string
	Decisions            []Option
	Set                  bool
}

// AuditRow is one entry.
type AuditRow struct {
	At                        time.Time
	Action, Tool, Who, Result string
	Why                       string // the result is unknown
	Facts                     []Fact
}

// Fact is a named value. ID marks one that is worth copying.
type Fact struct {
	Name, Value string
	ID          bool
}
