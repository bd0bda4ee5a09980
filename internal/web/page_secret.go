package web

import (
	"time"

	"github.com/ambit-dev/ambit/internal/id"
)

// SecretsPage lists secrets, without their values.
type SecretsPage struct {
	Frame
	Tabs        []Tab
	Items       []SecretRow
	Next        string
	Search, Tag string
	Set         bool // something narrows the list
	Deleted     bool
	CanAdd      bool
}

func (*SecretsPage) template() string { return "secrets" }

// SecretRow is one secret in a list.
type SecretRow struct {
	ID      id.Secret
	Href    string
	Name    string
	Of      string // whose, where the list is of more than one organization
	Tags    []string
	Chip    Mark // what somebody should know at a glance
	Version int64
	Updated time.Time
	By      string
	Purge   time.Time
}

// Mark is a word with its weight: good, warn, bad or none.
type Mark struct{ Word, Kind string }

// SecretPage is one secret with its versions and what can be done with it.
type SecretPage struct {
	Frame
	SecretRow
	Facts       []Fact
	Description string
	TagText     string
	Expires     string // as a date, for the form
	Rotate      string
	Metadata    string // NAME=TEXT, a line each
	Version     string // id of the current version
	WriteOnly   bool
	Versions    []SecretVersionRow
	Reveal      string
	CanReveal   bool
	CanWrite    bool
	CanDelete   bool
}

func (*SecretPage) template() string { return "secret" }

// SecretVersionRow is one kept version.
type SecretVersionRow struct {
	ID      string
	Number  int64
	Current bool
	Holds   string
	At      time.Time
	By      string
	Reveal  string
	Save    string
}

// SecretNewPage is the form for a new secret.
type SecretNewPage struct {
	Frame
	Name, Description, TagText string
	Expires, Rotate            string
	MayWhole, Whole            bool
	WriteOnly                  bool
}

func (*SecretNewPage) template() string { return "secret_new" }

// SecretValuePage shows a value to the person who just proved presence for it.
type SecretValuePage struct {
	Frame
	Name    string
	Value   string
	Encoded bool // it is base64, since it is not text
	Holds   string
	Back    string
}

func (*SecretValuePage) template() string { return "secret_value" }
