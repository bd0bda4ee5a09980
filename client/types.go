package client

import (
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Page is a part of a list. Next is what to pass as After for the part that
// follows, and empty at the end.
type Page[T any] struct {
	Data []T    `json:"data"`
	Next string `json:"next"`
}

// Paging asks for a part of a list.
type Paging struct {
	Limit int // 0: the server's default
	After string
}

func (p Paging) add(q url.Values) url.Values {
	if p.Limit != 0 {
		q.Set("limit", strconv.Itoa(p.Limit))
	}
	set(q, "after", p.After)
	return q
}

func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

// Whoami is who the token belongs to.
type Whoami struct {
	Kind           string       `json:"kind"` // user or api_key
	ID             string       `json:"id"`
	Name           string       `json:"name"`
	Email          string       `json:"email"`
	EnvironmentID  string       `json:"environment_id"`
	OrganizationID string       `json:"organization_id"` // of a key that is confined to one
	Scopes         []string     `json:"scopes"`          // of a key
	LoginID        string       `json:"login_id"`        // of a person
	Memberships    []Membership `json:"memberships"`     // of a person
}

// Membership is a person's place in one organization.
type Membership struct {
	EnvironmentID    string `json:"environment_id"`
	EnvironmentName  string `json:"environment_name"`
	OrganizationID   string `json:"organization_id"`
	OrganizationName string `json:"organization_name"`
	Role             string `json:"role"`
}

// Environment is a hard namespace.
type Environment struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	OperatorID string    `json:"operator_organization_id"` // the organization that runs it
	CreatedAt  time.Time `json:"created_at"`
}

// Organization is a tenant.
type Organization struct {
	ID             string    `json:"id"`
	EnvironmentID  string    `json:"environment_id"`
	Name           string    `json:"name"`
	ExternalID     string    `json:"external_id"`
	RequirePasskey bool      `json:"require_passkey"`
	CreatedAt      time.Time `json:"created_at"`
	Version        int64     `json:"version"`
}

// NewOrganization says which organization to make.
type NewOrganization struct {
	Name       string `json:"name"`
	ExternalID string `json:"external_id,omitempty"`
}

// User is a person.
type User struct {
	ID            string    `json:"id"`
	EnvironmentID string    `json:"environment_id"`
	Email         string    `json:"email"`
	Name          string    `json:"name"`
	ExternalID    string    `json:"external_id"`
	DisabledAt    time.Time `json:"disabled_at,omitzero"`
	CreatedAt     time.Time `json:"created_at"`
	Version       int64     `json:"version"`
}

// NewUser says whom to make. They sign in by a link that an owner makes in the
// web UI.
type NewUser struct {
	Name           string `json:"name"`
	Email          string `json:"email,omitempty"`
	ExternalID     string `json:"external_id,omitempty"`
	OrganizationID string `json:"organization_id,omitempty"`
	Role           string `json:"role,omitempty"` // owner, admin, approver, member (default) or auditor
}

// Invited is a user and their sign-in link, shown once.
type Invited struct {
	User      User      `json:"user"`
	Link      string    `json:"link"` // whoever opens it first becomes the user
	ExpiresAt time.Time `json:"expires_at"`
}

// Member is a user's place in an organization.
type Member struct {
	User
	OrganizationID string `json:"organization_id"`
	Role           string `json:"role"`
}

// Ceiling is the most that an agent may ever be granted. An empty list sets no
// limit of its kind.
type Ceiling struct {
	Providers []string `json:"providers"`
	Effects   []string `json:"effects"`
}

// Agent is a registered non-human identity.
type Agent struct {
	ID             string    `json:"id"`
	EnvironmentID  string    `json:"environment_id"`
	OrganizationID string    `json:"organization_id"`
	Name           string    `json:"name"`
	Label          string    `json:"label"` // what people decide on
	Verified       bool      `json:"verified"`
	Kind           string    `json:"kind"` // delegated or autonomous
	OwnerID        string    `json:"owner_id"`
	ClientID       string    `json:"client_id"`
	Ceiling        Ceiling   `json:"ceiling"`
	DisabledAt     time.Time `json:"disabled_at,omitzero"`
	MutedUntil     time.Time `json:"muted_until,omitzero"` // nobody is asked for anything by it before
	LastSeenAt     time.Time `json:"last_seen_at,omitzero"`
	CreatedAt      time.Time `json:"created_at"`
	Version        int64     `json:"version"`
}

// NewAgent says which agent to register. It takes an API key: a person
// registers agents in the web UI.
type NewAgent struct {
	OrganizationID string   `json:"organization_id"`
	Name           string   `json:"name"`
	Kind           string   `json:"kind"`
	OwnerID        string   `json:"owner_id"`
	Ceiling        *Ceiling `json:"ceiling,omitempty"`
	Keys           string   `json:"keys,omitempty"` // a JWK Set of public keys, or its address: instead of a secret
}

// MadeAgent is an agent with its client secret, which is shown this once. An agent
// with keys of its own has none.
type MadeAgent struct {
	Agent
	ClientSecret string `json:"client_secret,omitempty"`
}

// AgentFilter selects agents.
type AgentFilter struct {
	OrganizationID string
	OwnerID        string
	Limit          int
	After          string
}

func (f AgentFilter) query() url.Values {
	q := Paging{f.Limit, f.After}.add(url.Values{})
	set(q, "organization_id", f.OrganizationID)
	set(q, "owner_id", f.OwnerID)
	return q
}

// Provider is a third party that connections can be made with.
type Provider struct {
	ID               string         `json:"id"`
	Name             string         `json:"name"`
	Website          string         `json:"website"`
	Auth             string         `json:"auth"` // oauth2 or api_key
	Builtin          bool           `json:"builtin"`
	Confidence       string         `json:"confidence,omitempty"` // of the record's facts: high, medium, low; empty: not said
	TriedLive        string         `json:"tried_live,omitempty"` // the day; empty: not yet, or not said
	ClientID         string         `json:"client_id"`
	HasClientSecret  bool           `json:"has_client_secret"`
	CredentialFields []string       `json:"credential_fields"` // what connecting with a key takes
	Tenant           []TenantParam  `json:"tenant"`            // what a person chooses of its addresses
	Tools            []ProviderTool `json:"tools"`
	YAML             string         `json:"yaml"` // only of one provider, not in lists
	UpdatedAt        time.Time      `json:"updated_at,omitzero"`
	Version          int64          `json:"version"`
}

// TenantParam is one part of a provider's addresses that differs by customer.
type TenantParam struct {
	Name    string   `json:"name"`
	Title   string   `json:"title"`
	Help    string   `json:"help"`
	Pattern string   `json:"pattern"` // a regular expression that all of the value matches
	Options []string `json:"options"` // or the values that there are
	Default string   `json:"default"`
	Example string   `json:"example"`
}

// ProviderTool is one operation of a provider.
type ProviderTool struct {
	Name        string   `json:"name"`
	Title       string   `json:"title"`
	Description string   `json:"description"`
	Effect      string   `json:"effect"`
	Scopes      []string `json:"scopes"`
	Generic     bool     `json:"generic"`
}

// ProviderHook is where a provider sends its notices.
type ProviderHook struct {
	URL string `json:"url"`
}

// PutProvider is a record to store.
type PutProvider struct {
	YAML         string `json:"yaml"`
	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret,omitempty"`        // empty keeps the stored one
	ClientFor    string `json:"client_for,omitempty"`           // an organization's id, all or none; empty: as it is, at first the operator's
	AcceptShared bool   `json:"accept_shared_client,omitempty"` // with all: you know what it means
	IfVersion    int64  `json:"if_version,omitempty"`           // refuse unless this is the stored version
}

// ProviderClient is an OAuth client at a provider.
type ProviderClient struct {
	OrganizationID string    `json:"organization_id,omitempty"` // empty: the environment's
	ClientID       string    `json:"client_id"`
	HasSecret      bool      `json:"has_client_secret"`
	For            string    `json:"for"` // an organization's id, all or none
	OldSecretUntil time.Time `json:"old_secret_until,omitzero"`
	Stale          bool      `json:"stale"` // the provider's addresses have changed since it was stored
	RedirectURI    string    `json:"redirect_uri"`
	UpdatedAt      time.Time `json:"updated_at"`
	Version        int64     `json:"version"`
}

// PutProviderClient is a client to store, or another secret of one.
type PutProviderClient struct {
	OrganizationID string `json:"organization_id,omitempty"` // whose own; empty: the environment's
	ClientID       string `json:"client_id,omitempty"`       // empty: the one that is there
	ClientSecret   string `json:"client_secret,omitempty"`   // empty keeps the stored one
	For            string `json:"for,omitempty"`             // of the environment's: an organization's id, all or none
	AcceptShared   bool   `json:"accept_shared_client,omitempty"`
	OverlapSeconds *int64 `json:"overlap_seconds,omitempty"` // how long the secret before counts as well; nil: a day
	IfVersion      int64  `json:"if_version,omitempty"`
}

// Template is a provider record with blanks.
type Template struct {
	ID          string          `json:"id"`
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Params      []TemplateParam `json:"params"`
}

// TemplateParam is one blank of a template.
type TemplateParam struct {
	Name     string `json:"name"`
	Title    string `json:"title"`
	Help     string `json:"help"`
	Kind     string `json:"kind"` // text, slug, bool, words or lines
	Default  string `json:"default"`
	Required bool   `json:"required"`

	Pattern string   `json:"pattern,omitempty"`
	Options []string `json:"options,omitempty"`
	Example string   `json:"example,omitempty"`
}

// CatalogEntry is a provider that the catalogue knows.
type CatalogEntry struct {
	ID         string          `json:"id"` // for FillTemplate
	Name       string          `json:"name"`
	Slug       string          `json:"slug"` // on the WorkOS wire
	Category   string          `json:"category"`
	Website    string          `json:"website"`
	Auth       string          `json:"auth"`
	Confidence string          `json:"confidence"` // of its facts: high, medium or low
	Tried      string          `json:"tried"`      // in words
	Hosts      []string        `json:"hosts"`      // with the examples of its parameters
	Tools      int             `json:"tools"`
	Docs       []string        `json:"docs,omitempty"`
	Notes      []string        `json:"notes,omitempty"`
	Params     []TemplateParam `json:"params"`
}

// ImportProvider names an OpenAPI description: its URL, or the document itself.
type ImportProvider struct {
	URL      string   `json:"url,omitempty"` // where the server reads it
	Document string   `json:"document,omitempty"`
	ID       string   `json:"id,omitempty"`     // of the record; empty: made of the title
	Server   string   `json:"server,omitempty"` // where calls go; empty: the first of the description
	Only     []string `json:"only,omitempty"`   // beginnings of the paths to take; empty: all
}

// AddMCPServer says which MCP server to add.
type AddMCPServer struct {
	URL          string `json:"url"`
	ID           string `json:"id,omitempty"`     // of the provider; made of the host when it is left out
	Name         string `json:"name,omitempty"`   // the host when it is left out
	Header       string `json:"header,omitempty"` // which carries a key; left out, the server is asked how it is authorized
	Format       string `json:"format,omitempty"` // of the key, such as Token {api_key}
	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret,omitempty"`
}

// ListedTools is what an MCP server lists under a connection.
type ListedTools struct {
	ConnectionID string       `json:"connection_id"`
	Provider     string       `json:"provider"`
	Revision     string       `json:"revision"`
	Tools        []ListedTool `json:"tools"`
	Adoptable    bool         `json:"adoptable"` // the provider's record is newer than the connection's
}

// ListedTool is one tool of an MCP server, held against what was agreed to.
type ListedTool struct {
	Name   string          `json:"name"` // as the server says it
	Tool   string          `json:"tool,omitempty"`
	State  string          `json:"state"` // unchanged, changed, new, gone
	Effect string          `json:"effect"`
	Hint   bool            `json:"read_only_hint"` // the server says that it only reads: its word alone
	Pin    string          `json:"pin,omitempty"`  // of the definition as the server lists it now
	Was    json.RawMessage `json:"was,omitempty"`
	Now    json.RawMessage `json:"now,omitempty"`
}

// ImportedRecord is a record to be reviewed, then put.
type ImportedRecord struct {
	YAML    string       `json:"yaml"`
	ID      string       `json:"id"`
	Tools   int          `json:"tools"`
	Left    []ImportNote `json:"left_out"` // what of the description is not in the record
	Flagged []ImportNote `json:"flagged"`  // what a person should look at, for it was guessed
}

// ImportNote says one thing about one place of a description.
type ImportNote struct {
	Where string `json:"where"` // such as DELETE /pets/{id}
	Text  string `json:"text"`
}

// Lint is what a check of a provider record found.
type Lint struct {
	Valid    bool            `json:"valid"`
	ID       string          `json:"id,omitempty"` // of the record, when it is valid
	Problems []RecordProblem `json:"problems"`     // in the order of the text
}

// RecordProblem is one thing that is wrong with a provider record.
type RecordProblem struct {
	Field   string `json:"field,omitempty"`  // such as tools[2].request.path; empty for the text as a whole
	Line    int    `json:"line,omitempty"`   // from 1; 0 is nowhere
	Column  int    `json:"column,omitempty"` // from 1
	Message string `json:"message"`
	Fix     string `json:"fix"`
}

// Connection is one owner's account at one provider.
type Connection struct {
	ID             string            `json:"id"`
	EnvironmentID  string            `json:"environment_id"`
	OrganizationID string            `json:"organization_id"`
	OwnerID        string            `json:"owner_id"` // empty: the organization's own
	Provider       string            `json:"provider"`
	ProviderName   string            `json:"provider_name"`
	State          string            `json:"state"` // connected, needs_reauthorization or disconnected
	Reason         string            `json:"reason"`
	ConnectURL     string            `json:"connect_url"` // where a person connects it again, when it needs that
	AccountID      string            `json:"account_id"`
	AccountLabel   string            `json:"account_label"`
	AuthMethod     string            `json:"auth_method"`
	Tenant         map[string]string `json:"tenant"` // which of the provider's addresses the account is at
	Scopes         []string          `json:"scopes"`
	MissingScopes  []string          `json:"missing_scopes"`          // asked for and not granted
	ReauthorizeBy  time.Time         `json:"reauthorize_by,omitzero"` // by when a person must have connected it again; zero: nobody said
	CreatedAt      time.Time         `json:"created_at"`
	UpdatedAt      time.Time         `json:"updated_at"`
	EndedAt        time.Time         `json:"ended_at,omitzero"`
	Upstream       string            `json:"upstream"` // of one that has ended: revoked, pending, failed or unsupported
	Note           string            `json:"note"`     // of one that has ended: what a person still has to do
	Version        int64             `json:"version"`
}

// ConnectionAim says which connections are disconnected together. At least one
// field is set.
type ConnectionAim struct {
	OrganizationID string    `json:"organization_id,omitempty"`
	OwnerID        string    `json:"owner_id,omitempty"`
	Provider       string    `json:"provider,omitempty"`
	From           time.Time `json:"from,omitzero"` // made at this time or later
	To             time.Time `json:"to,omitzero"`   // made before this time
	DryRun         bool      `json:"dry_run,omitempty"`
}

// RevokedConnections is what a ConnectionAim has ended, or would.
type RevokedConnections struct {
	DryRun      bool         `json:"dry_run"`
	Connections []Connection `json:"connections"`
	More        bool         `json:"more"` // repeat the request
}

// IdentityProvider is where the members of an organization may sign in.
type IdentityProvider struct {
	ID             string    `json:"id"`
	OrganizationID string    `json:"organization_id"`
	Name           string    `json:"name"`
	Issuer         string    `json:"issuer"`
	ClientID       string    `json:"client_id"`
	Admits         bool      `json:"admits"`       // whoever signs in there for the first time becomes a member
	SignInURL      string    `json:"sign_in_url"`  // where members begin
	RedirectURL    string    `json:"redirect_url"` // what the provider sends people back to
	CreatedAt      time.Time `json:"created_at"`
	Version        int64     `json:"version"`
}

// NewIdentityProvider says where members may sign in.
type NewIdentityProvider struct {
	Name     string `json:"name"`
	Issuer   string `json:"issuer"`
	ClientID string `json:"client_id"`
	Admits   bool   `json:"admits,omitempty"`
}

// Webhook is where an application is told of what happens.
type Webhook struct {
	ID             string    `json:"id"`
	EnvironmentID  string    `json:"environment_id"`
	OrganizationID string    `json:"organization_id"` // empty: the whole environment
	URL            string    `json:"url"`
	Description    string    `json:"description"`
	Events         []string  `json:"events"` // empty: all
	State          string    `json:"state"`  // enabled or disabled
	Reason         string    `json:"reason"` // why it is disabled: switched_off, failing or gone
	FailingSince   time.Time `json:"failing_since,omitzero"`
	OldSecretUntil time.Time `json:"old_secret_until,omitzero"` // until when a replaced secret signs as well
	CreatedAt      time.Time `json:"created_at"`
	UpdatedAt      time.Time `json:"updated_at"`
	Version        int64     `json:"version"`
}

// MadeWebhook is a webhook with its secret, which is shown once.
type MadeWebhook struct {
	Webhook
	Secret string `json:"secret"`
}

// WebhookInput is what is said of a webhook.
type WebhookInput struct {
	OrganizationID string   `json:"organization_id,omitempty"` // of a new one only
	URL            string   `json:"url"`
	Description    string   `json:"description,omitempty"`
	Events         []string `json:"events,omitempty"`
}

// WebhookDelivery is one event on its way to one webhook.
type WebhookDelivery struct {
	ID        string    `json:"id"`
	WebhookID string    `json:"webhook_id"`
	EventID   string    `json:"event_id"`
	Event     string    `json:"event"`
	State     string    `json:"state"` // pending, delivered, failed or held
	Attempts  int       `json:"attempts"`
	NextAt    time.Time `json:"next_at,omitzero"`
	Status    int       `json:"status"` // that the receiver answered last
	Error     string    `json:"error"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// WebhookReplay says what is sent again: one delivery, or what was not delivered
// in a time.
type WebhookReplay struct {
	DeliveryID string    `json:"delivery_id,omitempty"`
	From       time.Time `json:"from,omitzero"`
	To         time.Time `json:"to,omitzero"`
	Delivered  bool      `json:"delivered,omitempty"` // also what was
}

// ConnectionFilter selects connections.
type ConnectionFilter struct {
	OrganizationID string
	OwnerID        string
	Provider       string
	State          string
	Limit          int
	After          string
}

func (f ConnectionFilter) query() url.Values {
	q := Paging{f.Limit, f.After}.add(url.Values{})
	set(q, "organization_id", f.OrganizationID)
	set(q, "owner_id", f.OwnerID)
	set(q, "provider", f.Provider)
	set(q, "state", f.State)
	return q
}

// NewConnection says what to connect. Without an owner the connection is the
// organization's. Fields are the parts of the credential, such as api_key; they
// are left out for a provider that is connected by signing in there.
type NewConnection struct {
	OrganizationID string            `json:"organization_id"`
	Provider       string            `json:"provider"`
	OwnerID        string            `json:"owner_id,omitempty"`
	ReconnectID    string            `json:"reconnect_id,omitempty"`
	Fields         map[string]string `json:"fields,omitempty"`
	ExpiresAt      *time.Time        `json:"expires_at,omitempty"` // of an access_token among Fields
	Scopes         []string          `json:"scopes,omitempty"`     // as granted to it
	Captured       map[string]string `json:"captured,omitempty"`   // what the record captures when a person signs in
	Tenant         map[string]string `json:"tenant,omitempty"`     // parts of the provider's addresses
	Secrets        map[string]string `json:"secrets,omitempty"`    // parts that a secret of the vault holds, by its id or name
	Sources        map[string]string `json:"sources,omitempty"`    // parts that stay in a source of the operator's, as SOURCE/PATH#FIELD
}

// Connected is the answer to NewConnection: the connection, or the page where a
// person must finish it.
type Connected struct {
	Connection *Connection `json:"connection"`
	ConnectURL string      `json:"connect_url"`
}

// Disconnected says what became of a connection.
type Disconnected struct {
	Connection Connection `json:"connection"`
	Upstream   string     `json:"upstream"` // revoked, pending, failed or unsupported
	Note       string     `json:"note"`     // what the person still has to do
}

// Credential is what an application was vended.
type Credential struct {
	Kind    string            `json:"kind"`
	Values  map[string]string `json:"values"`
	Version int64             `json:"version"`
}

// Session is one agent's access, asked for or granted.
type Session struct {
	ID             string    `json:"id"`
	EnvironmentID  string    `json:"environment_id"`
	OrganizationID string    `json:"organization_id"`
	AgentID        string    `json:"agent_id"`
	AgentLabel     string    `json:"agent_label"`
	AgentVerified  bool      `json:"agent_verified"`
	UserID         string    `json:"user_id"`
	ParentID       string    `json:"parent_id,omitempty"` // of a sub-agent's: the session that it is a part of
	Purpose        string    `json:"purpose"`             // the agent's own words
	State          string    `json:"state"`               // pending, active or ended
	Reason         string    `json:"reason"`              // why it ended
	Cause          string    `json:"cause"`               // what it rested on that ended, if that ended it
	Minutes        int       `json:"minutes"`
	Calls          int       `json:"calls"` // the most that may start; 0: no limit
	CallsUsed      int       `json:"calls_used"`
	Grants         []Grant   `json:"grants"`
	ApprovalID     string    `json:"approval_id"`
	ApprovalURL    string    `json:"approval_url"` // where a pending one is decided; only where one session is read
	Instructions   string    `json:"instructions"`
	DenyReason     string    `json:"deny_reason"`
	RequestedAt    time.Time `json:"requested_at"`
	PendingUntil   time.Time `json:"pending_until,omitzero"`
	ApprovedAt     time.Time `json:"approved_at,omitzero"`
	ExpiresAt      time.Time `json:"expires_at,omitzero"`
	EndedAt        time.Time `json:"ended_at,omitzero"`
	Version        int64     `json:"version"`

	CallApprovals []CallApproval `json:"call_approvals"` // only where one session is read
}

// CallApproval is the request for the approval of one call in a session.
type CallApproval struct {
	ApprovalID  string    `json:"approval_id"`
	Tool        string    `json:"tool"`
	State       string    `json:"state"` // pending, approved, denied, expired, withdrawn or used
	Note        string    `json:"note"`  // what the person told the agent, or why it was denied
	RequestedAt time.Time `json:"requested_at"`
	ExpiresAt   time.Time `json:"expires_at"`
	DecidedAt   time.Time `json:"decided_at,omitzero"`
	DecidedBy   string    `json:"decided_by"`
}

// Grant is access to one connection.
type Grant struct {
	ConnectionID string      `json:"connection_id"`
	Provider     string      `json:"provider"`
	ProviderName string      `json:"provider_name"`
	AccountLabel string      `json:"account"`
	OwnerID      string      `json:"owner_id"`
	Effects      []string    `json:"effects"`
	Tools        []GrantTool `json:"tools"`
	Confirm      string      `json:"confirm"` // which calls need their own approval
	Limits       []Limit     `json:"limits"`  // what arguments may be; all must hold
	Lost         string      `json:"lost"`    // of a pending session: why this can no longer be granted
}

// Limit is what one argument of a granted tool may be. One of the conditions is
// set.
type Limit struct {
	Argument string   `json:"argument"`
	Equals   string   `json:"equals"`
	OneOf    []string `json:"one_of"`
	Prefix   string   `json:"prefix"`
	Max      *float64 `json:"max"`
}

// String says the limit in words.
func (l Limit) String() string {
	switch {
	case len(l.OneOf) > 0:
		return l.Argument + " is one of " + strings.Join(l.OneOf, ", ")
	case l.Prefix != "":
		return l.Argument + " starts with " + l.Prefix
	case l.Max != nil:
		return l.Argument + " is at most " + strconv.FormatFloat(*l.Max, 'f', -1, 64)
	}
	return l.Argument + " is " + l.Equals
}

// GrantTool is a tool that a grant covers.
type GrantTool struct {
	Name   string `json:"name"`
	Title  string `json:"title"`
	Effect string `json:"effect"`
	Digest string `json:"digest"`
}

// SessionFilter selects sessions.
type SessionFilter struct {
	OrganizationID string
	AgentID        string
	UserID         string
	State          string
	Limit          int
	After          string
}

func (f SessionFilter) query() url.Values {
	q := Paging{f.Limit, f.After}.add(url.Values{})
	set(q, "organization_id", f.OrganizationID)
	set(q, "agent_id", f.AgentID)
	set(q, "user_id", f.UserID)
	set(q, "state", f.State)
	return q
}

// Revocation says what to revoke: one of these. OrganizationID beside a user or a
// provider keeps it to that organization; without, it counts wherever the caller
// may revoke.
type Revocation struct {
	SessionID      string `json:"session_id,omitempty"`
	AgentID        string `json:"agent_id,omitempty"`
	UserID         string `json:"user_id,omitempty"`
	ConnectionID   string `json:"connection_id,omitempty"`
	Provider       string `json:"provider,omitempty"`
	OrganizationID string `json:"organization_id,omitempty"`
}

// Revoked says what a revocation ended.
type Revoked struct {
	Sessions []string      `json:"sessions"`
	Running  []RunningCall `json:"running"` // calls that had started, and were cut
}

// RunningCall is a call that a revocation cut.
type RunningCall struct {
	EventID   string    `json:"event_id"`
	SessionID string    `json:"session_id"`
	Tool      string    `json:"tool"`
	StartedAt time.Time `json:"started_at"`
}

// Approval is a request that waits for the person. It is decided at URL, in a
// browser, and nowhere else.
type Approval struct {
	ID        string        `json:"id"`
	Kind      string        `json:"kind"` // session or call
	State     string        `json:"state"`
	URL       string        `json:"url"`
	Session   Session       `json:"session"`
	Call      *ApprovalCall `json:"call"`
	Risk      []string      `json:"risk"`
	CreatedAt time.Time     `json:"created_at"`
	ExpiresAt time.Time     `json:"expires_at"`
	Note      string        `json:"note"` // what the person told the agent, or why it was denied
	DecidedAt time.Time     `json:"decided_at,omitzero"`
	DecidedBy string        `json:"decided_by"`
}

// ApprovalCall is the one call that an approval is about.
type ApprovalCall struct {
	Tool         string          `json:"tool"`
	Title        string          `json:"title"`
	Effect       string          `json:"effect"`
	ConnectionID string          `json:"connection_id"`
	Provider     string          `json:"provider"`
	ProviderName string          `json:"provider_name"`
	AccountLabel string          `json:"account"`
	Method       string          `json:"method"`
	URL          string          `json:"url"`
	Fields       []ApprovalField `json:"fields"`
	Target       string          `json:"target"` // what the call is about, in the provider's words; empty: nothing names it
}

// ApprovalField is one readable part of a call.
type ApprovalField struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Event is one audit entry.
type Event struct {
	ID             string            `json:"id"`
	Time           time.Time         `json:"time"`
	Kind           string            `json:"kind"` // event, intent (of a call) or, in a stream, outcome
	Ref            string            `json:"ref"`  // of an outcome: its intent
	EnvironmentID  string            `json:"environment_id"`
	OrganizationID string            `json:"organization_id"`
	Actor          Actor             `json:"actor"`
	AgentID        string            `json:"agent_id"`
	UserID         string            `json:"user_id"`
	SessionID      string            `json:"session_id"`
	ApprovalID     string            `json:"approval_id"`
	ConnectionID   string            `json:"connection_id"`
	Action         string            `json:"action"`
	Object         string            `json:"object"`
	Provider       string            `json:"provider"`
	Tool           string            `json:"tool"`
	Effect         string            `json:"effect"`
	ArgumentDigest string            `json:"argument_digest"`
	Decision       string            `json:"decision"` // allow, deny or empty
	Rule           string            `json:"rule"`
	Code           string            `json:"code"`
	Evidence       json.RawMessage   `json:"evidence"`
	Detail         map[string]string `json:"detail"`
	Address        string            `json:"address"`
	Outcome        Outcome           `json:"outcome,omitzero"`
	Chain          string            `json:"chain"`
	Seq            int64             `json:"seq"`
}

// Actor is who did something.
type Actor struct {
	Kind string `json:"kind"` // agent, user, api_key or system
	ID   string `json:"id"`
}

// Outcome is how a call ended. Its Status is empty while that is not known.
type Outcome struct {
	Status         string `json:"status"` // ok, error, unknown or cut
	Code           string `json:"code"`
	UpstreamStatus int    `json:"upstream_status"`
	DurationMillis int64  `json:"duration_ms"`
	SettledBy      string `json:"settled_by"` // the node that recorded that the call's own server stopped while it ran
}

// AuditFilter selects audit entries.
type AuditFilter struct {
	OrganizationID string
	AgentID        string
	UserID         string
	SessionID      string
	ConnectionID   string
	Action         string // exact, or a noun followed by ".*"
	Decision       string
	Since, Until   time.Time
	Limit          int
	After          string
}

func (f AuditFilter) query() url.Values {
	q := Paging{f.Limit, f.After}.add(url.Values{})
	set(q, "organization_id", f.OrganizationID)
	set(q, "agent_id", f.AgentID)
	set(q, "user_id", f.UserID)
	set(q, "session_id", f.SessionID)
	set(q, "connection_id", f.ConnectionID)
	set(q, "action", f.Action)
	set(q, "decision", f.Decision)
	if !f.Since.IsZero() {
		set(q, "since", f.Since.UTC().Format(time.RFC3339Nano))
	}
	if !f.Until.IsZero() {
		set(q, "until", f.Until.UTC().Format(time.RFC3339Nano))
	}
	return q
}

// AuditReport is what a verification of the audit log found.
type AuditReport struct {
	Intact      bool           `json:"intact"`
	Chains      int            `json:"chains"`
	Entries     int64          `json:"entries"`
	Checkpoints int            `json:"checkpoints"`
	Problems    []AuditProblem `json:"problems"`
	Unwitnessed []AuditTail    `json:"unwitnessed"`
}

// AuditProblem is one finding of a verification.
type AuditProblem struct {
	Chain string `json:"chain"`
	Seq   int64  `json:"seq"`
	What  string `json:"what"`
}

// AuditTail is the end of a chain that no checkpoint has witnessed yet.
type AuditTail struct {
	Chain     string `json:"chain"`
	From      int64  `json:"from"`
	Entries   int64  `json:"entries"`
	Node      string `json:"node"`      // whose chain it is
	Elsewhere bool   `json:"elsewhere"` // no checkpoint of that node was read: it keeps its own in another folder
}

// APIKey is an application's key, without its token.
type APIKey struct {
	ID             string       `json:"id"`
	EnvironmentID  string       `json:"environment_id"`
	OrganizationID string       `json:"organization_id"`
	Name           string       `json:"name"`
	Scopes         []string     `json:"scopes"`
	SecretRules    []SecretRule `json:"secret_rules,omitempty"` // empty: all that it can see
	CreatedBy      string       `json:"created_by"`
	CreatedAt      time.Time    `json:"created_at"`
	ExpiresAt      time.Time    `json:"expires_at,omitzero"`
	LastUsedAt     time.Time    `json:"last_used_at,omitzero"`
	RevokedAt      time.Time    `json:"revoked_at,omitzero"`
}

// SecretRule lets an API key do some things (list, read, write, delete) with some
// secrets: those whose name begins with Prefix and whose key context has the items.
type SecretRule struct {
	Verbs   []string          `json:"verbs"`
	Prefix  string            `json:"prefix,omitempty"`
	Context map[string]string `json:"key_context,omitempty"`
}

// Secret describes a named secret, without its value.
type Secret struct {
	ID            string            `json:"id"`
	EnvironmentID string            `json:"environment_id"`
	Name          string            `json:"name"`
	Context       map[string]string `json:"key_context"`
	Description   string            `json:"description,omitempty"`
	Tags          []string          `json:"tags"`
	Metadata      map[string]string `json:"metadata"`
	WriteOnly     bool              `json:"write_only"` // nobody reads its value
	Content       string            `json:"content"`    // text, binary or certificate
	Size          int64             `json:"size"`       // of the value, in bytes
	ExpiresAt     time.Time         `json:"expires_at,omitzero"`
	RotateBy      time.Time         `json:"rotate_by,omitzero"`
	DeletedAt     time.Time         `json:"deleted_at,omitzero"`
	PurgeAt       time.Time         `json:"purge_at,omitzero"` // until when it can be taken back
	KeyID         string            `json:"key_id"`
	VersionID     string            `json:"version_id"`
	Version       int64             `json:"version"`
	CreatedAt     time.Time         `json:"created_at"`
	UpdatedAt     time.Time         `json:"updated_at"`
	UpdatedBy     Actor             `json:"updated_by"`
	UpdatedByName string            `json:"updated_by_name"`
}

// SecretFilter selects secrets.
type SecretFilter struct {
	OrganizationID string
	Name           string // exactly; then at most one is found
	Search         string // part of the name or the description
	Prefix         string // of the name
	Tags           []string
	Context        map[string]string // items of the key context
	Deleted        bool              // those that can be taken back, and no others
	Limit          int               // at most 100
	After          string
}

func (f SecretFilter) query() url.Values {
	q := Paging{f.Limit, f.After}.add(url.Values{})
	set(q, "organization_id", f.OrganizationID)
	set(q, "name", f.Name)
	set(q, "search", f.Search)
	set(q, "prefix", f.Prefix)
	set(q, "tags", strings.Join(f.Tags, ","))
	if len(f.Context) > 0 {
		doc, _ := json.Marshal(f.Context) // a map of strings always encodes
		set(q, "key_context", string(doc))
	}
	if f.Deleted {
		set(q, "deleted", "true")
	}
	return q
}

// SecretValue is a value to store: text in Value, or Bytes. A certificate is PEM
// and may have its key with it.
type SecretValue struct {
	Value     string    `json:"value,omitempty"`
	Bytes     []byte    `json:"value_base64,omitempty"` // base64 on the wire
	Content   string    `json:"content,omitempty"`      // text, binary or certificate; default by which of the two is set
	ExpiresAt time.Time `json:"expires_at,omitzero"`    // from when the value is not handed out
	RotateBy  time.Time `json:"rotate_by,omitzero"`     // when somebody should have stored a newer one
}

// NewSecret is a secret to store. Context chooses the key that seals it; with
// organization_id in it, it is that organization's.
type NewSecret struct {
	Name string `json:"name"`
	SecretValue
	Context     map[string]string `json:"key_context,omitempty"`
	Description string            `json:"description,omitempty"`
	Tags        []string          `json:"tags,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	WriteOnly   bool              `json:"write_only,omitempty"` // for good
}

// SecretEdit changes what surrounds a value. What is nil stays.
type SecretEdit struct {
	Description *string            `json:"description,omitempty"`
	Tags        *[]string          `json:"tags,omitempty"`
	Metadata    *map[string]string `json:"metadata,omitempty"`
	ExpiresAt   *string            `json:"expires_at,omitempty"` // RFC 3339; empty: never
	RotateBy    *string            `json:"rotate_by,omitempty"`
	WriteOnly   bool               `json:"write_only,omitempty"` // true: for good
}

// SecretVersion describes one kept value of a secret.
type SecretVersion struct {
	ID            string    `json:"id"`
	Version       int64     `json:"version"`
	Current       bool      `json:"current"`
	Content       string    `json:"content"`
	Size          int64     `json:"size"`
	CreatedAt     time.Time `json:"created_at"`
	CreatedBy     Actor     `json:"created_by"`
	CreatedByName string    `json:"created_by_name"`
}

// RevealedSecret is a value in clear: in Value, or what is not text in Bytes.
type RevealedSecret struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Value     string `json:"value"`
	Bytes     []byte `json:"value_base64,omitempty"`
	Content   string `json:"content"`
	VersionID string `json:"version_id"`
}

// Decrypted is what an SDK had encrypted locally, in clear as in RevealedSecret.
type Decrypted struct {
	Layout string `json:"layout"` // node, go or legacy
	Value  string `json:"value"`
	Bytes  []byte `json:"value_base64,omitempty"`
}

// CLILogin is a command line that waits to be confirmed by a person.
type CLILogin struct {
	UserCode  string    `json:"user_code"` // to be compared by the person
	URL       string    `json:"url"`       // to be opened by the person
	Poll      string    `json:"poll"`      // secret; for PollLogin
	ExpiresAt time.Time `json:"expires_at"`
	Interval  int       `json:"interval"` // seconds between polls
}
