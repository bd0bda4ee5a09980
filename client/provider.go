package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

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

// Providers lists the providers of the environment.
func (c *Client) Providers(ctx context.Context, p Paging) (Page[Provider], error) {
	return read[Page[Provider]](ctx, c, "/v1/providers", p.add(url.Values{}))
}

// Provider reads one, with its record.
func (c *Client) Provider(ctx context.Context, id string) (Provider, error) {
	return read[Provider](ctx, c, "/v1/providers/"+seg(id), nil)
}

// PutProvider adds or replaces a provider. The record's own id must be id.
func (c *Client) PutProvider(ctx context.Context, id string, p PutProvider) (Provider, error) {
	return send[Provider](ctx, c, http.MethodPut, "/v1/providers/"+seg(id), p, p.IfVersion == 0)
}

// DeleteProvider removes a provider without live connections.
func (c *Client) DeleteProvider(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/providers/" + seg(id), repeat: true}, nil)
}

// SetProviderHook has notices of a provider taken, which it signs with secret, and
// gives the URL to enter there.
func (c *Client) SetProviderHook(ctx context.Context, id, secret string) (ProviderHook, error) {
	return send[ProviderHook](ctx, c, http.MethodPut, "/v1/providers/"+seg(id)+"/hook", map[string]string{"secret": secret}, true)
}

// DeleteProviderHook has no notices of a provider taken any more.
func (c *Client) DeleteProviderHook(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/providers/" + seg(id) + "/hook", repeat: true}, nil)
}

// ProviderClients lists the OAuth clients at a provider.
func (c *Client) ProviderClients(ctx context.Context, id string) ([]ProviderClient, error) {
	page, err := read[Page[ProviderClient]](ctx, c, "/v1/providers/"+seg(id)+"/clients", nil)
	return page.Data, err
}

// PutProviderClient sets an OAuth client at a provider, or rotates its secret.
func (c *Client) PutProviderClient(ctx context.Context, id string, in PutProviderClient) (ProviderClient, error) {
	return send[ProviderClient](ctx, c, http.MethodPut, "/v1/providers/"+seg(id)+"/client", in, true)
}

// DeleteProviderClient removes an organization's own client.
func (c *Client) DeleteProviderClient(ctx context.Context, id, organization string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/providers/" + seg(id) + "/client", query: url.Values{"organization_id": {organization}}, repeat: true}, nil)
}

// LintProvider checks a record and stores nothing.
func (c *Client) LintProvider(ctx context.Context, yaml string) (Lint, error) {
	return send[Lint](ctx, c, http.MethodPost, "/v1/providers/lint", map[string]string{"yaml": yaml}, true)
}

// ImportProvider drafts a record from an OpenAPI description and stores nothing.
func (c *Client) ImportProvider(ctx context.Context, p ImportProvider) (ImportedRecord, error) {
	return send[ImportedRecord](ctx, c, http.MethodPost, "/v1/providers/import", p, true)
}

// AddMCPServer finds out how an MCP server is authorized and adds it as a provider.
func (c *Client) AddMCPServer(ctx context.Context, m AddMCPServer) (Provider, error) {
	return send[Provider](ctx, c, http.MethodPost, "/v1/mcp-servers", m, true)
}

// LookAtTools asks the MCP server of a connection for its tools.
func (c *Client) LookAtTools(ctx context.Context, connection string) (ListedTools, error) {
	return send[ListedTools](ctx, c, http.MethodPost, "/v1/connections/"+seg(connection)+"/tools/look", struct{}{}, true)
}

// TakeTools takes tools that an MCP server listed last into its provider's record,
// each with its effect and the pin that it was shown with, by the server's names.
func (c *Client) TakeTools(ctx context.Context, connection string, effects, pins map[string]string) (Provider, error) {
	return send[Provider](ctx, c, http.MethodPut, "/v1/connections/"+seg(connection)+"/tools", map[string]any{"effects": effects, "pins": pins}, true)
}

// AdoptTools gives a connection to an MCP server the tools that its provider has now.
func (c *Client) AdoptTools(ctx context.Context, connection string) (Connection, error) {
	return send[Connection](ctx, c, http.MethodPost, "/v1/connections/"+seg(connection)+"/tools/adopt", struct{}{}, true)
}

// ProviderTemplates lists the records with blanks.
func (c *Client) ProviderTemplates(ctx context.Context) (Page[Template], error) {
	return read[Page[Template]](ctx, c, "/v1/provider-templates", nil)
}

// ProviderCatalog searches the providers that the server knows, a page at a time.
func (c *Client) ProviderCatalog(ctx context.Context, search string, p Paging) (Page[CatalogEntry], error) {
	q := p.add(url.Values{})
	set(q, "search", search)
	return read[Page[CatalogEntry]](ctx, c, "/v1/provider-catalog", q)
}

// FillTemplate makes a record of a template or of an entry of the catalogue, as YAML.
func (c *Client) FillTemplate(ctx context.Context, id string, params map[string]string) (yaml string, err error) {
	var out struct {
		YAML string `json:"yaml"`
	}
	if params == nil {
		params = map[string]string{}
	}
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/provider-templates/" + seg(id) + "/fill", body: map[string]any{"params": params}, repeat: true}, &out)
	return out.YAML, err
}
