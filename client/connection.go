package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

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

// Connections lists those that the caller sees, newest first.
func (c *Client) Connections(ctx context.Context, f ConnectionFilter) (Page[Connection], error) {
	return read[Page[Connection]](ctx, c, "/v1/connections", f.query())
}

// Connection reads one.
func (c *Client) Connection(ctx context.Context, id string) (Connection, error) {
	return read[Connection](ctx, c, "/v1/connections/"+seg(id), nil)
}

// Connect makes a connection, or says where a person must.
func (c *Client) Connect(ctx context.Context, n NewConnection) (Connected, error) {
	return send[Connected](ctx, c, http.MethodPost, "/v1/connections", n, false)
}

// Disconnect ends a connection for good, here and at the provider.
func (c *Client) Disconnect(ctx context.Context, id string) (Disconnected, error) {
	return send[Disconnected](ctx, c, http.MethodDelete, "/v1/connections/"+seg(id), nil, true)
}

// RevokeConnections disconnects many at once, a thousand at most in one call.
func (c *Client) RevokeConnections(ctx context.Context, aim ConnectionAim) (RevokedConnections, error) {
	return send[RevokedConnections](ctx, c, http.MethodPost, "/v1/connection-revocations", aim, true)
}

// Vend fetches a connection's credential for an application whose key has the
// scope connections:vend. Servers refuse it unless it was switched on.
func (c *Client) Vend(ctx context.Context, id string) (Credential, error) {
	return send[Credential](ctx, c, http.MethodPost, "/v1/connections/"+seg(id)+"/credential", nil, false)
}
