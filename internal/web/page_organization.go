package web

import (
	"time"

	"github.com/ambit-dev/ambit/internal/id"
)

// OrganizationPage shows members and settings.
type OrganizationPage struct {
	Frame
	Role           string
	Runs           bool // looked at from outside, by who runs the environment
	Members        []MemberRow
	Next           string
	Name, Email    string // of the person to add, as typed
	Roles          []Option
	Operates       bool
	Tenants        []Place // of the environment; Environment holds the external id
	MoreTenants    string
	CanManage      bool
	CanSet         bool
	CanStop        bool
	Version        int64
	RequirePasskey bool
	NoVending      bool // no credential is handed to an application
}

func (*OrganizationPage) template() string { return "organization" }

// MemberRow is one member.
type MemberRow struct {
	ID            id.User
	Name, Email   string
	Role          string
	Roles         []Option
	You, Disabled bool
}

// APIKeysPage lists API keys.
type APIKeysPage struct {
	Frame
	Items  []APIKeyRow
	Next   string
	CanAdd bool
}

func (*APIKeysPage) template() string { return "apikeys" }

// APIKeyRow is one API key.
type APIKeyRow struct {
	ID               id.Key
	Name, Reach      string
	Scopes           []string
	Secrets          []string // which ones, if not all that it can see
	Created, Expires time.Time
	Ended            string
}

// APIKeyNewPage makes an API key.
type APIKeyNewPage struct {
	Frame
	Name     string
	MayWhole bool
	Whole    bool
	Scopes   []Option
	Days     []Option
	TOTP     bool

	SecretPrefix, SecretContext string // for some secrets only
}

func (*APIKeyNewPage) template() string { return "apikey_new" }
