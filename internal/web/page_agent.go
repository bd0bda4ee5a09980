package web

import (
	"time"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
)

// AgentsPage lists agents.
type AgentsPage struct {
	Frame
	Items   []AgentRow
	Next    string
	CanAdd  bool
	Command string
}

func (*AgentsPage) template() string { return "agents" }

// AgentRow is one agent in a list.
type AgentRow struct {
	ID                       id.Agent
	Label, Kind, Owner, Host string
	Verified, Disabled       bool
	LastSeen                 time.Time
	Muted                    time.Time // until when it may not ask; zero: it may
}

// AgentPage shows one agent and what stops it.
type AgentPage struct {
	Frame
	AgentRow
	Client    id.Client
	Created   time.Time
	Ceiling   CeilingForm
	Sessions  []SessionRow
	Version   int64
	CanChange bool
	CanStop   bool
	CanMute   bool
	Rotatable bool           // it has a secret of ours
	Workload  agent.Workload // of a form that came back
	SignsWith string         // what an agent without a browser proves itself with; empty: its client signs in
}

func (*AgentPage) template() string { return "agent" }

// CeilingForm edits the most that an agent may be granted.
type CeilingForm struct {
	Effects   []CeilingEffect
	Providers string
}

// CeilingEffect is one effect of a ceiling.
type CeilingEffect struct {
	Effect policy.Effect
	Chosen bool
}

// AgentNewPage registers a headless agent.
type AgentNewPage struct {
	Frame
	Name       string
	Autonomous bool
	Ceiling    CeilingForm
	Keys       string // instead of a secret
	Workload   agent.Workload
	TOTP       bool
	Nonce      string
}

func (*AgentNewPage) template() string { return "agent_new" }

// OncePage shows values that are never shown again.
type OncePage struct {
	Frame
	Word, Sentence string
	Values         []Fact
	Sealed         bool // it is kept, and shown to nobody
	Steps          []Option
	Back           string
}

func (*OncePage) template() string { return "once" }

// ConsentPage asks whether an OAuth client may become the person's agent.
type ConsentPage struct {
	Frame
	Flow       id.Flow
	Document   string // the host that answers for the program; empty: nobody does
	UserCode   string // of a device, which shows the same
	Address    string // from which the device asked
	Host       string
	Local      bool
	Label      string
	Places     []Option
	ClientName string // its own words
	Asks       string // what it asks for at once, for one session
	Done       string // what became of that; empty: it was not asked for yet
	TOTP       bool
}

func (*ConsentPage) template() string { return "consent" }
