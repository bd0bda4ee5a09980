package web

import (
	"time"

	"github.com/ambit-dev/ambit/internal/id"
)

// KeysPage says under which keys everything is sealed, and how far work on them is.
type KeysPage struct {
	Frame
	Whole    string // name of the environment whose keys these are; empty: the organization's
	Roots    []RootRow
	Moving   *Progress // of the whole server
	Bindings []BindingRow
	Items    []KeyRow
	Next     string
	CanRule  bool
	Bind     string
	Shred    string
}

func (*KeysPage) template() string { return "keys" }

// Health says how a root key's keeper is, and since when.
type Health struct {
	Mark  Mark
	Text  string // what it means
	Since time.Time
}

// RootRow is one root key of the server.
type RootRow struct {
	Ref, Where, Whose string
	Keys, Audit       int
	Health            Health
	Command           string // that makes it primary
}

// BindingRow is one customer's root key and how far it is carried out.
type BindingRow struct {
	ID      id.Binding
	Href    string
	For     string
	Root    string // where it is
	Mode    string
	Under   int
	Keys    int
	Health  Health
	Changed time.Time
}

// KeyRow is the key of one context.
type KeyRow struct {
	ID      id.KEK
	Href    string
	Of      string // whose, in words
	Root    string
	Version int64
	Values  string
	Changed time.Time
	Due     time.Time
	Chip    Mark
}

// Progress is how far something is that goes on by itself.
type Progress struct {
	Href       string // gives it again, as JSON; empty: nothing goes on
	Value, Max int64
	Text       string
}

// KeyPage is the key of one context with its versions.
type KeyPage struct {
	Frame
	KeyRow
	Facts     []Fact
	Health    Health
	Uses      string
	Used, Max int64 // of the nonce budget
	Versions  []KeyVersionRow
	Progress  *Progress
	CanRule   bool
	Shred     string
}

func (*KeyPage) template() string { return "key" }

// KeyVersionRow is one version that opens something.
type KeyVersionRow struct {
	Number  int64
	Current bool
	Root    string
	Values  int
	Kept    bool
}

// BindingPage is one customer's root key.
type BindingPage struct {
	Frame
	BindingRow
	Facts    []Fact
	Progress *Progress
	Required bool
	Take     []string // how its owner takes it back
	CanRule  bool
	End      string
}

func (*BindingPage) template() string { return "binding" }

// ShredPage asks for the end of keys, and says what goes with them.
type ShredPage struct {
	Frame
	What     string // whose keys
	Keys     int
	Lost     []string
	Accounts bool // connections are among it
	More     bool
	Type     string // what the person types
	Typed    string
	Fields   []Fact
	Nonce    string
	TOTP     bool
	Back     string
}

func (*ShredPage) template() string { return "shred" }

// BindPage leads to a customer's own root key: the service, the key, what to allow
// there, a try, and then the binding.
type BindPage struct {
	Frame
	Services    []Choice
	Service     string // id; empty: none is chosen
	ServiceName string
	Fields      []ServiceField
	Reach       string // organization, user or environment
	MayWhole    bool
	User        string
	Users       []Option
	Mode        string
	URI         string // empty: not everything is filled in yet
	Allow       []Statement
	Take        []string
	Carried     []Fact // what is filled in, for the next form

	Tried, Passed bool
	Root          string
	Lines         []ProbeLine
}

func (*BindPage) template() string { return "bind" }

// Choice is one of several ways on.
type Choice struct {
	Name, About, Href string
	Chosen            bool
}

// ServiceField is a field of a service as it is filled in.
type ServiceField struct {
	keyField
	Value   string
	Choices []Option
}

// ProbeLine is one step of trying a root key.
type ProbeLine struct {
	Name, Text string
	Tried, OK  bool
}
