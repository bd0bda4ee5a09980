package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// ContextKey describes the key of one key context.
type ContextKey struct {
	ID            string            `json:"id"`
	EnvironmentID string            `json:"environment_id"`
	Context       map[string]string `json:"key_context"`
	Version       int64             `json:"version"` // that seals; 0 of a key that was shredded
	Root          string            `json:"root"`    // the root key that wraps it
	RootState     string            `json:"root_state"`
	Uses          int64             `json:"uses"` // counted ahead
	MaxUses       int64             `json:"max_uses"`
	Values        int64             `json:"values"` // under all its versions; lists count no more than 10,000 of a kind
	Moving        int64             `json:"moving"` // older versions under which there may be values
	CreatedAt     time.Time         `json:"created_at"`
	RotatedAt     time.Time         `json:"rotated_at,omitzero"`
	DueAt         time.Time         `json:"due_at,omitzero"` // when its age alone replaces it
	ShreddedAt    time.Time         `json:"shredded_at,omitzero"`
	Older         []OlderKey        `json:"older"` // empty in lists
}

// OlderKey is a version of a key that no longer seals and still opens.
type OlderKey struct {
	Version int64  `json:"version"`
	Root    string `json:"root"`
	Values  int64  `json:"values"`
	Kept    bool   `json:"kept"` // applications hold data keys under it
}

// RootKey describes a root key and what it wraps.
type RootKey struct {
	Ref      string    `json:"ref"`
	Location string    `json:"location"`
	Own      bool      `json:"own"`     // of the server; else a customer brought it
	Primary  bool      `json:"primary"` // wraps new keys that no binding is for
	State    string    `json:"state"`   // fine, unavailable, throttled, denied, mismatch or missing
	Usable   bool      `json:"usable"`
	Since    time.Time `json:"since,omitzero"`
	Keys     int64     `json:"keys"`
	Audit    int64     `json:"audit"`
}

// KeyStatus is where root keys, keys and values stand.
type KeyStatus struct {
	Roots           []RootKey `json:"roots"`
	Keys            int64     `json:"keys"`
	Shredded        int64     `json:"shredded"`
	WaitingSeeds    int64     `json:"waiting_seeds"`
	WaitingVersions int64     `json:"waiting_versions"`
	WaitingValues   int64     `json:"waiting_values"`
}

// RootBinding is a customer's root key for an environment, an organization or a
// user in one.
type RootBinding struct {
	ID             string    `json:"id"`
	EnvironmentID  string    `json:"environment_id"`
	OrganizationID string    `json:"organization_id,omitempty"`
	UserID         string    `json:"user_id,omitempty"`
	Mode           string    `json:"mode"` // required or preferred
	Root           string    `json:"root"`
	URI            string    `json:"uri"`
	State          string    `json:"state"`
	Usable         bool      `json:"usable"`
	Keys           int64     `json:"keys"`    // of the scope
	Under          int64     `json:"under"`   // of them under this root key
	Waiting        int64     `json:"waiting"` // older versions that other root keys still wrap
	CreatedAt      time.Time `json:"created_at"`
	UpdatedAt      time.Time `json:"updated_at"`
	Version        int64     `json:"version"`
}

// NewRootBinding is what BindRoot makes. Without an organization it is for the
// whole environment.
type NewRootBinding struct {
	OrganizationID string `json:"organization_id,omitempty"`
	UserID         string `json:"user_id,omitempty"`
	URI            string `json:"uri"`            // holds no secret
	Mode           string `json:"mode,omitempty"` // default required
}

// Probe is what was found out about a root key.
type Probe struct {
	OK    bool        `json:"ok"`
	Root  string      `json:"root"`
	Steps []ProbeStep `json:"steps"`
}

// ProbeStep is one of its steps.
type ProbeStep struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`
}

// Shred says which keys are destroyed: one by its id, or all that name the
// organization, the user, or both.
type Shred struct {
	KeyID          string `json:"key_id,omitempty"`
	OrganizationID string `json:"organization_id,omitempty"`
	UserID         string `json:"user_id,omitempty"`
}

// KeyStatus says where everything stands, of the whole server.
func (c *Client) KeyStatus(ctx context.Context) (KeyStatus, error) {
	return read[KeyStatus](ctx, c, "/v1/keys/status", nil)
}

// ContextKeys lists the keys of contexts that name an organization and a user, where
// they are given.
func (c *Client) ContextKeys(ctx context.Context, organizationID, userID string, p Paging) (Page[ContextKey], error) {
	q := p.add(url.Values{})
	set(q, "organization_id", organizationID)
	set(q, "user_id", userID)
	return read[Page[ContextKey]](ctx, c, "/v1/keys/contexts", q)
}

// ContextKey describes one. organizationID is as for Secret.
func (c *Client) ContextKey(ctx context.Context, id, organizationID string) (ContextKey, error) {
	return read[ContextKey](ctx, c, "/v1/keys/contexts/"+seg(id), ofOrganization(organizationID))
}

// RotateContextKey gives a key another version. With reencrypt its values are
// encrypted anew, and not only their data keys wrapped anew.
func (c *Client) RotateContextKey(ctx context.Context, id, organizationID string, reencrypt bool) (out ContextKey, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/keys/contexts/" + seg(id) + "/rotate", query: ofOrganization(organizationID),
		body: map[string]bool{"reencrypt": reencrypt}}, &out)
	return out, err
}

// ShredKeys destroys keys for good, and says how many.
func (c *Client) ShredKeys(ctx context.Context, s Shred) (keys int, err error) {
	out, err := send[struct {
		Keys int `json:"keys"`
	}](ctx, c, http.MethodPost, "/v1/keys/shred", s, false)
	return out.Keys, err
}

// ProbeRoot tries a root key and changes nothing.
func (c *Client) ProbeRoot(ctx context.Context, n NewRootBinding) (Probe, error) {
	return send[Probe](ctx, c, http.MethodPost, "/v1/keys/probe", n, true)
}

// RootBindings lists customers' root keys and what they are bound to.
func (c *Client) RootBindings(ctx context.Context, organizationID string) (Page[RootBinding], error) {
	return read[Page[RootBinding]](ctx, c, "/v1/keys/bindings", ofOrganization(organizationID))
}

// RootBinding describes one, and how far it is carried out.
func (c *Client) RootBinding(ctx context.Context, id string) (RootBinding, error) {
	return read[RootBinding](ctx, c, "/v1/keys/bindings/"+seg(id), nil)
}

// BindRoot binds a customer's root key, or changes what is bound.
func (c *Client) BindRoot(ctx context.Context, n NewRootBinding) (RootBinding, error) {
	return send[RootBinding](ctx, c, http.MethodPost, "/v1/keys/bindings", n, true)
}

// UnbindRoot takes a customer's root key out again.
func (c *Client) UnbindRoot(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/keys/bindings/" + seg(id), repeat: true}, nil)
}

// MigrateBinding has what is not under the root key yet moved now.
func (c *Client) MigrateBinding(ctx context.Context, id string) (RootBinding, error) {
	return send[RootBinding](ctx, c, http.MethodPost, "/v1/keys/bindings/"+seg(id)+"/migrate", nil, true)
}

// DoubtBinding makes the server forget what the root key unwrapped, until its keeper
// says yes again.
func (c *Client) DoubtBinding(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodPost, path: "/v1/keys/bindings/" + seg(id) + "/doubt", repeat: true}, nil)
}
