package web

import (
	"html/template"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider/openapi"
)

// ConnectionsPage lists accounts.
type ConnectionsPage struct {
	Frame
	Items      []ConnectionRow
	Next       string
	CanAdd     bool
	Ended      bool   // those that have ended are shown
	Live, Past string // where either list is
	Incident   string // where many are disconnected; empty: not by this person
}

func (*ConnectionsPage) template() string { return "connections" }

// ConnectionRow is one account.
type ConnectionRow struct {
	ID                id.Connection
	Provider, Account string
	Owner, Kind       string
	State, Reason     string
	By                time.Time    // when a person must have connected it again; zero: nobody said
	Lacking           string       // scopes that were not granted
	RemoveAt          template.URL // at the provider, what a person must still do
	Since             time.Time
	CanChange         bool
	CanStop           bool   // end the sessions that use it
	Reconnect         string // where to
	Tools             string // where those of an MCP server are compared; empty: it is none
}

// ConnectionNewPage lets a person pick a provider, then connect there.
type ConnectionNewPage struct {
	Frame
	Providers      []ProviderRow
	Search         string
	Searchable     bool // there are many
	Chosen         *ProviderForm
	Facts          []Fact // who is connected to what
	MayShare       bool
	Shared         bool // the organization's, as chosen
	Return         string
	Ticket         id.Ticket // in a window that a product opened
	Reconnect      id.Connection
	ReconnectLabel string
	Prove          bool // takes a proof
	TOTP           bool
	Nonce          string
}

func (*ConnectionNewPage) template() string { return "connection_new" }

// VouchPage is where a link on an application's word is followed.
type VouchPage struct{ Frame }

func (*VouchPage) template() string { return "vouch" }

// ProviderForm is what it takes to connect at one provider.
type ProviderForm struct {
	Slug, Name, Host string
	OAuth            bool
	Tenant           []ParamField  // which of the provider's addresses it is at
	Always           []ScopeChoice // asked for in any case
	Scopes           []ScopeChoice // to choose from
	Fields           []KeyField
}

// ScopeChoice is one scope of a provider.
type ScopeChoice struct {
	ID, Title, Risk string
	Chosen          bool
}

// KeyField is one part of a credential that a person types in.
type KeyField struct {
	Name, Label, Help       string
	Public, Lines, Optional bool
}

// LeavePage holds a link to another site. A form's answer may not redirect
// there under our form-action.
type LeavePage struct {
	Frame
	Sentence, Host string
	URL            template.URL
	Label, Back    string
}

func (*LeavePage) template() string { return "leave" }

// ResultPage says how something ended.
type ResultPage struct {
	Frame
	Word, Icon, Tone string
	Sentence         string
	Lines            []string
	Back, BackLabel  string
	Undo, UndoLabel  string // the form that takes it back; empty: there is none
}

func (*ResultPage) template() string { return "result" }

// ProvidersPage lists provider records.
type ProvidersPage struct {
	Frame
	Items     []ProviderRow
	CanAdd    bool
	CanStop   bool // end the organization's sessions with one
	CanClient bool // see and change its OAuth clients
}

func (*ProvidersPage) template() string { return "providers" }

// CatalogPage finds a provider that the catalogue knows.
type CatalogPage struct {
	Frame
	Search string
	Found  int // on all pages
	Items  []CatalogRow
	CanAdd bool
	Next   string
}

func (*CatalogPage) template() string { return "catalog" }

// CatalogRow is one entry of the catalogue.
type CatalogRow struct{ ID, Name, Category, Kind, Facts, Hosts, Href string }

// ProviderRow is one provider.
type ProviderRow struct {
	Slug, Name, Kind, Href string
	Tools                  int
	BuiltIn                bool
	Client                 bool // an OAuth client of ours signs people in
}

// ProviderNewPage edits a provider record.
type ProviderNewPage struct {
	Frame
	Editing   bool
	OAuth     bool // asks for our client at the provider
	Templates []Tab
	Template  string
	Help      string
	Params    []ParamField // of a template
	Switches  bool         // some of them are
	YAML      string       // or the record itself
	ClientID  string
	Callback  string
	Version   int64
	Draft     id.Draft        // what it was filled in with
	Problems  []RecordProblem // of the record, when it was refused
	Import    bool            // offers to draft it from a description
	Left      []openapi.Note  // of a description: what is not in the record
	Flagged   []openapi.Note  // and what was guessed
}

// ProviderClientPage is our OAuth clients at one provider: the environment's, for those
// who run it, and the organization's own.
type ProviderClientPage struct {
	Frame
	Slug, Name string
	Shared     *ClientForm // the environment's; nil: not this person's to change
	Own        ClientForm
	SharedUsed bool // the environment's signs this organization in, unless it has its own
}

func (*ProviderClientPage) template() string { return "provider_client" }

// ClientForm is one client as it is, to be changed.
type ClientForm struct {
	Of, Slug string // organization or environment; of the provider
	Here     id.Organization
	ID       string
	Set      bool
	State    string
	Until    time.Time // until when the secret before counts as well; zero: there is none
	Callback string
	For      []Option
	Risk     string // of the environment's, for all
}

// RecordProblem is one thing that is wrong with a record. Line is 0 for one made
// of a template, whose text nobody has seen.
type RecordProblem struct {
	Line         int
	Field        string
	Message, Fix string
}

func (*ProviderNewPage) template() string { return "provider_new" }

// ParamField is one blank of a template.
type ParamField struct {
	Name, Title, Help, Kind, Value string
	Options                        []string
	Required                       bool
}
