package web

import (
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
)

// AgentMark is an agent as a person decides on it: by our records, and marked
// when nobody vouched for the name (threats.md A1).
type AgentMark struct {
	Label    string
	Verified bool
}

// Account is a connection as people speak of it.
type Account struct {
	Provider string
	Label    string
}

// Ask is the one sentence that a request comes down to.
type Ask struct {
	Agent    AgentMark
	Verbs    string
	Accounts []Account
	Minutes  int
	Calls    int    // the most that may start; 0: no limit
	Widens   bool   // it is to be added to a session that runs
	Call     string // the tool's title when the request is for one call
	Past     bool   // the request is decided
	Granted  bool   // and these are what was granted, which may be less than was asked for
}

// ApprovalPage shows one request, open or decided.
type ApprovalPage struct {
	Frame
	ID           id.Approval
	Session      id.Session
	Organization string
	Ask          Ask
	Asked        time.Time
	Expires      time.Time
	Risks        []string
	Consent      id.Flow // the person's sign-in of a program that it answers too; empty: none
	Call         *CallView
	Cards        []GrantCard
	Minutes      []Option
	Calls        int    // the most that the agent asks for; 0: no limit
	MostCalls    string // as the person filled it in
	Confirm      []Option
	MostLike     int      // of a call: how many more like it can be allowed at once; 0: none
	Like         string   // as the person filled it in
	Differ       []Option // in what those may be different
	HandOn       bool     // it may be handed on to sub-agents
	Instructions string
	Words        string        // the agent's own, at most as long as is shown at once
	AllWords     string        // if that is not all, all
	WordsMark    string        // of AllWords: to be ticked before a yes
	WordsRead    bool          // it was
	Past         *Past         // of the agent
	RunsIn       *RunsIn       // of a call: its session
	Parent       id.Session    // of a sub-agent's: whose part it was given
	For          string        // for whom the agent asks
	First        string        // who approved already; the decision is then theirs, to agree to or not
	FirstNote    string        // what they told the agent
	Waits        bool          // for a second person, who is not this one
	Granted      []GrantView   // what the first allowed
	Nothing      bool          // there is nothing that this person could grant
	Reconnect    id.Connection // what a call needs first
	TOTP         bool
	Decided      *Verdict
}

func (*ApprovalPage) template() string { return "approval" }

// GrantCard lets a person narrow what is asked on one connection.
type GrantCard struct {
	Connection id.Connection
	Provider   string
	Account    string
	Shared     bool
	Locked     bool // not this person's to grant, or nobody's any more
	Reconnect  bool // this person may connect it again
	Hint       string
	Widens     bool // it is to be added to a session that runs,
	New        bool // which does not have the account yet,
	Relimited  bool // or has it with HadLimits in the place of Limits
	HadLimits  []LimitView
	Limits     []LimitView
	Arguments  []string  // what more could be limited
	Narrowed   LimitForm // as the person filled it in
	Effects    []EffectChoice
}

// LimitView is a limit to read. The values are whoever's who asked for it.
type LimitView struct {
	Argument, Condition string
	Values              []string
}

// LimitForm is a limit that a person adds to one account.
type LimitForm struct{ Argument, Kind, Value string }

// EffectChoice is one effect of a card with the tools that have it.
type EffectChoice struct {
	Effect policy.Effect
	Chosen bool
	Had    bool // the session has some of it already
	Tools  []ToolChoice
}

// ToolChoice is one tool of a card.
type ToolChoice struct {
	Name   string
	Title  string
	Effect policy.Effect
	Chosen bool
	New    bool // beside what the session has
	// Untried says that nobody has tried the tool with the provider itself.
	Untried bool
}

// Option is one entry of a select or a row of checkboxes.
type Option struct {
	Value  string
	Label  string
	Chosen bool
}

// CallView is the exact call that a person allows once.
type CallView struct {
	Method, Host, Path string
	Effect             policy.Effect
	As                 string     // mail, sql or graphql: what Parts are; empty: fields are all there is
	Parts              []CallPart // a mail's head and text, or a statement
	Fields             []CallField
	Compared           bool   // some fields are shown beside what stands there now
	More               []Fact // what is not shown in full, in full
	Unread             string // the mark of More: to be ticked before a yes
	Read               bool   // it was
	// Target is what the provider says that the call is about: its text, which may
	// say anything. Unnamed says why there is none, for a call that needs one.
	Target, Unnamed string
}

// Code reports that the parts are written for a machine.
func (c CallView) Code() bool { return c.As == "sql" || c.As == "graphql" }

// CallPart is one part of a mail, or a statement.
type CallPart struct {
	Label  string
	Values []string
	Block  bool // a text of its own
	Cut    bool
}

// CallField is one value of a call, and what stands there now if that is known.
type CallField struct {
	Name, Value string
	Full        string
	Was         string
	FullWas     string
	Same        bool // what stands there is just that
	Gone        bool // the entry of a list that would be no more
	Cut, WasCut bool
}

// Past is what is on record of an agent, counted by the server.
type Past struct {
	New                    bool // nobody has decided anything about it yet
	Approved, Denied       int  // sessions, within 90 days
	Last                   time.Time
	Like, LikeDenied       int // for the same
	LastDenied             time.Time
	Calls                  string
	Call                   bool
	InSession              string // calls
	Singles, SinglesDenied int    // single calls in the session
	This, ThisDenied       int    // of the same tool on the same account
}

// RunsIn is the session that a call is to be made in, or that is to be widened.
type RunsIn struct {
	ID           id.Session
	Verbs        string
	Accounts     []Account
	Started      time.Time
	Ends         time.Time
	Instructions string
}

// Verdict is what became of a request.
type Verdict struct {
	Word, Icon, Tone string
	Sentence         string
	At               time.Time
	NoteTitle, Note  string
	Next             string
}

// InboxPage lists the open requests that the person may decide.
type InboxPage struct {
	Frame
	Items      []InboxItem
	Seen       string // names the state shown, so that a live update can tell whether it is news
	Shown      int
	More       bool
	FirstSteps string // a command for somebody who has no agent yet
}

func (*InboxPage) template() string { return "inbox" }

// InboxItem is one open request.
type InboxItem struct {
	ID      id.Approval
	Ask     Ask
	Target  string // what tells it from others like it
	Asked   time.Time
	Expires time.Time
	Risk    string // in two words
}
