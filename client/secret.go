package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"
)

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

// Secrets lists named secrets, last updated first, without their values.
func (c *Client) Secrets(ctx context.Context, f SecretFilter) (Page[Secret], error) {
	return read[Page[Secret]](ctx, c, "/v1/secrets", f.query())
}

// CreateSecret stores a new named secret.
func (c *Client) CreateSecret(ctx context.Context, n NewSecret) (Secret, error) {
	return send[Secret](ctx, c, http.MethodPost, "/v1/secrets", n, false)
}

// Secret describes one, without its value. organizationID says whose it is, for
// a person who does not run the whole environment; it may be empty.
func (c *Client) Secret(ctx context.Context, id, organizationID string) (Secret, error) {
	return read[Secret](ctx, c, "/v1/secrets/"+seg(id), ofOrganization(organizationID))
}

// UpdateSecret stores a new value. With a versionID it succeeds only if that is
// the current version.
func (c *Client) UpdateSecret(ctx context.Context, id, organizationID string, v SecretValue, versionID string) (Secret, error) {
	body := struct {
		SecretValue
		VersionID string `json:"version_id,omitempty"`
	}{v, versionID}
	var out Secret
	err := c.do(ctx, call{method: http.MethodPut, path: "/v1/secrets/" + seg(id), query: ofOrganization(organizationID), body: body}, &out)
	return out, err
}

// EditSecret changes what surrounds a value; no version is made.
func (c *Client) EditSecret(ctx context.Context, id, organizationID string, e SecretEdit) (Secret, error) {
	var out Secret
	err := c.do(ctx, call{method: http.MethodPatch, path: "/v1/secrets/" + seg(id), query: ofOrganization(organizationID), body: e, repeat: true}, &out)
	return out, err
}

// SecretVersions lists the kept versions of a secret, newest first.
func (c *Client) SecretVersions(ctx context.Context, id, organizationID string) (Page[SecretVersion], error) {
	return read[Page[SecretVersion]](ctx, c, "/v1/secrets/"+seg(id)+"/versions", ofOrganization(organizationID))
}

// RestoreSecretVersion makes the value of an old version the current one, as a new
// version.
func (c *Client) RestoreSecretVersion(ctx context.Context, id, organizationID, versionID string) (Secret, error) {
	var out Secret
	err := c.do(ctx, call{method: http.MethodPost, path: "/v1/secrets/" + seg(id) + "/versions/" + seg(versionID) + "/restore", query: ofOrganization(organizationID), body: struct{}{}}, &out)
	return out, err
}

// DeleteSecret deletes a secret with all its versions. For 30 days UndeleteSecret
// takes it back.
func (c *Client) DeleteSecret(ctx context.Context, id, organizationID string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/secrets/" + seg(id), query: ofOrganization(organizationID), repeat: true}, nil)
}

// UndeleteSecret takes a deleted secret back.
func (c *Client) UndeleteSecret(ctx context.Context, id, organizationID string) (Secret, error) {
	var out Secret
	err := c.do(ctx, call{method: http.MethodPost, path: "/v1/secrets/" + seg(id) + "/undelete", query: ofOrganization(organizationID), repeat: true}, &out)
	return out, err
}

// SecretValue reads a secret's value, of an old version if versionID is not empty.
// It takes an API key; for a command line's login the error's code is
// browser_required.
func (c *Client) SecretValue(ctx context.Context, id, organizationID, versionID string) (RevealedSecret, error) {
	q := ofOrganization(organizationID)
	set(q, "version", versionID)
	return read[RevealedSecret](ctx, c, "/v1/secrets/"+seg(id)+"/value", q)
}

// DecryptBlob decrypts what any SDK of WorkOS encrypted locally under a data key of
// this server. It takes an API key.
func (c *Client) DecryptBlob(ctx context.Context, organizationID, blob, associatedData string) (Decrypted, error) {
	var out Decrypted
	err := c.do(ctx, call{method: http.MethodPost, path: "/v1/secrets/decrypt", query: ofOrganization(organizationID),
		body: map[string]string{"blob": blob, "associated_data": associatedData}, repeat: true}, &out)
	return out, err
}
