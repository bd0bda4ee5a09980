package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"
)

func read[T any](ctx context.Context, c *Client, path string, query url.Values) (out T, err error) {
	err = c.do(ctx, get(path, query), &out)
	return out, err
}

// send makes a change; repeat says whether making it twice is making it once.
func send[T any](ctx context.Context, c *Client, method, path string, body any, repeat bool) (out T, err error) {
	err = c.do(ctx, call{method: method, path: path, body: body, repeat: repeat}, &out)
	return out, err
}

// All reads every page of a list. list reads the one that starts after a cursor.
func All[T any](ctx context.Context, list func(ctx context.Context, after string) (Page[T], error)) ([]T, error) {
	var out []T
	for after := ""; ; {
		p, err := list(ctx, after)
		if err != nil {
			return nil, err
		}
		out = append(out, p.Data...)
		if p.Next == "" || p.Next == after {
			return out, nil
		}
		after = p.Next
	}
}

// Whoami tells whose token this is.
func (c *Client) Whoami(ctx context.Context) (Whoami, error) {
	return read[Whoami](ctx, c, "/v1/whoami", nil)
}

// StartLogin begins the sign-in of a command line. It needs no token.
func (c *Client) StartLogin(ctx context.Context) (CLILogin, error) {
	return send[CLILogin](ctx, c, http.MethodPost, "/v1/cli/login", struct{}{}, false)
}

// PollLogin fetches the login's token once the person has confirmed it. Until
// then the error's code is authorization_pending.
func (c *Client) PollLogin(ctx context.Context, poll string) (token string, err error) {
	var out struct {
		Token string `json:"token"`
	}
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/cli/token", body: map[string]string{"poll": poll}}, &out)
	return out.Token, err
}

// AwaitLogin polls until the person has confirmed the sign-in, or it is over.
func (c *Client) AwaitLogin(ctx context.Context, l CLILogin) (token string, err error) {
	pause := max(time.Duration(l.Interval)*time.Second, time.Second)
	for {
		token, err := c.PollLogin(ctx, l.Poll)
		var e *Error
		if err == nil || !errors.As(err, &e) || e.Code != "authorization_pending" && e.Status != http.StatusTooManyRequests && e.Status != http.StatusServiceUnavailable {
			return token, err
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(max(pause, e.RetryAfter)):
		}
	}
}

// Logout ends the login whose token the client holds.
func (c *Client) Logout(ctx context.Context) error {
	return c.do(ctx, call{method: http.MethodPost, path: "/v1/cli/logout", body: struct{}{}, repeat: true}, nil)
}

// Environments lists those that the caller has a part in.
func (c *Client) Environments(ctx context.Context) (Page[Environment], error) {
	return read[Page[Environment]](ctx, c, "/v1/environments", nil)
}

// CreateEnvironment makes an environment and the organization that runs it.
func (c *Client) CreateEnvironment(ctx context.Context, name string) (Environment, error) {
	return send[Environment](ctx, c, http.MethodPost, "/v1/environments", map[string]string{"name": name}, false)
}

// Organizations lists those that the caller sees.
func (c *Client) Organizations(ctx context.Context, p Paging) (Page[Organization], error) {
	return read[Page[Organization]](ctx, c, "/v1/organizations", p.add(url.Values{}))
}

// CreateOrganization makes a tenant.
func (c *Client) CreateOrganization(ctx context.Context, n NewOrganization) (Organization, error) {
	return send[Organization](ctx, c, http.MethodPost, "/v1/organizations", n, false)
}

// Organization reads one.
func (c *Client) Organization(ctx context.Context, id string) (Organization, error) {
	return read[Organization](ctx, c, "/v1/organizations/"+seg(id), nil)
}

// Members lists who is in an organization.
func (c *Client) Members(ctx context.Context, organizationID string, p Paging) (Page[Member], error) {
	return read[Page[Member]](ctx, c, "/v1/organizations/"+seg(organizationID)+"/members", p.add(url.Values{}))
}

// InviteFirstOwner makes the first owner of an organization and their sign-in
// link. n takes Name, Email and ExternalID. Until they have signed in, the same
// e-mail gets a new link.
func (c *Client) InviteFirstOwner(ctx context.Context, organizationID string, n NewUser) (Invited, error) {
	body := NewUser{Name: n.Name, Email: n.Email, ExternalID: n.ExternalID}
	return send[Invited](ctx, c, http.MethodPost, "/v1/organizations/"+seg(organizationID)+"/first-owner", body, false)
}

// SetMember gives a user a role in an organization, as a new or an existing member.
func (c *Client) SetMember(ctx context.Context, organizationID, userID, role string) error {
	return c.do(ctx, call{method: http.MethodPut, path: "/v1/organizations/" + seg(organizationID) + "/members/" + seg(userID), body: map[string]string{"role": role}, repeat: true}, nil)
}

// RemoveMember takes a user out of an organization, and ends what they have
// running there.
func (c *Client) RemoveMember(ctx context.Context, organizationID, userID string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/organizations/" + seg(organizationID) + "/members/" + seg(userID), repeat: true}, nil)
}

// IdentityProviders lists where the members of an organization may sign in.
func (c *Client) IdentityProviders(ctx context.Context, organizationID string) (Page[IdentityProvider], error) {
	return read[Page[IdentityProvider]](ctx, c, "/v1/organizations/"+seg(organizationID)+"/identity-providers", nil)
}

// CreateIdentityProvider lets members sign in at an OpenID provider. An owner does it
// in the browser: the error has the code browser_required and the page in url.
func (c *Client) CreateIdentityProvider(ctx context.Context, organizationID string, n NewIdentityProvider) (IdentityProvider, error) {
	return send[IdentityProvider](ctx, c, http.MethodPost, "/v1/organizations/"+seg(organizationID)+"/identity-providers", n, false)
}

// DeleteIdentityProvider ends sign-ins at an OpenID provider.
func (c *Client) DeleteIdentityProvider(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/identity-providers/" + seg(id), repeat: true}, nil)
}

// Users lists the users of the environment, for those who run it.
func (c *Client) Users(ctx context.Context, p Paging) (Page[User], error) {
	return read[Page[User]](ctx, c, "/v1/users", p.add(url.Values{}))
}

// CreateUser makes a user.
func (c *Client) CreateUser(ctx context.Context, n NewUser) (User, error) {
	return send[User](ctx, c, http.MethodPost, "/v1/users", n, false)
}

// User reads one.
func (c *Client) User(ctx context.Context, id string) (User, error) {
	return read[User](ctx, c, "/v1/users/"+seg(id), nil)
}

// DisableUser shuts a user out everywhere and ends what they have running.
func (c *Client) DisableUser(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodPost, path: "/v1/users/" + seg(id) + "/disable", repeat: true}, nil)
}

// EnableUser lets a disabled user sign in again.
func (c *Client) EnableUser(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodPost, path: "/v1/users/" + seg(id) + "/enable", repeat: true}, nil)
}

// Agents lists agents, newest first.
func (c *Client) Agents(ctx context.Context, f AgentFilter) (Page[Agent], error) {
	return read[Page[Agent]](ctx, c, "/v1/agents", f.query())
}

// CreateAgent registers an agent with client credentials.
func (c *Client) CreateAgent(ctx context.Context, n NewAgent) (MadeAgent, error) {
	return send[MadeAgent](ctx, c, http.MethodPost, "/v1/agents", n, false)
}

// Agent reads one.
func (c *Client) Agent(ctx context.Context, id string) (Agent, error) {
	return read[Agent](ctx, c, "/v1/agents/"+seg(id), nil)
}

// SetCeiling replaces the most that an agent may be granted, if it is still at
// version.
func (c *Client) SetCeiling(ctx context.Context, id string, version int64, ceiling Ceiling) (Agent, error) {
	body := map[string]any{"version": version, "ceiling": map[string]any{"providers": list(ceiling.Providers), "effects": list(ceiling.Effects)}}
	return send[Agent](ctx, c, http.MethodPut, "/v1/agents/"+seg(id)+"/ceiling", body, false)
}

// list is s, never null.
func list(s []string) []string { return append([]string{}, s...) }

// DisableAgent ends an agent's tokens and sessions at once.
func (c *Client) DisableAgent(ctx context.Context, id string) (Agent, error) {
	return send[Agent](ctx, c, http.MethodPost, "/v1/agents/"+seg(id)+"/disable", nil, true)
}

// MuteAgent silences an agent's requests from now on for a time, in whole seconds
// from a minute to 30 days.
func (c *Client) MuteAgent(ctx context.Context, id string, length time.Duration) (Agent, error) {
	return send[Agent](ctx, c, http.MethodPost, "/v1/agents/"+seg(id)+"/mute", map[string]int64{"seconds": int64(length / time.Second)}, true)
}

// UnmuteAgent lets a muted agent ask again.
func (c *Client) UnmuteAgent(ctx context.Context, id string) (Agent, error) {
	return send[Agent](ctx, c, http.MethodPost, "/v1/agents/"+seg(id)+"/unmute", nil, true)
}

// EnableAgent lets a disabled agent get tokens again.
func (c *Client) EnableAgent(ctx context.Context, id string) (Agent, error) {
	return send[Agent](ctx, c, http.MethodPost, "/v1/agents/"+seg(id)+"/enable", nil, true)
}

// RotateAgentSecret replaces an agent's client secret, which is shown this once.
// For overlap, of seven days at most, the old one counts as well.
func (c *Client) RotateAgentSecret(ctx context.Context, id string, overlap time.Duration) (MadeAgent, error) {
	return send[MadeAgent](ctx, c, http.MethodPost, "/v1/agents/"+seg(id)+"/rotate", map[string]int64{"overlap_seconds": int64(overlap / time.Second)}, false)
}

// SetAgentKeys replaces the public keys that an agent signs with: keys is a JWK
// Set or the address of one. It starts from the version that was read.
func (c *Client) SetAgentKeys(ctx context.Context, id string, version int64, keys string) (Agent, error) {
	body := struct {
		Version int64  `json:"version"`
		Keys    string `json:"keys"`
	}{version, keys}
	return send[Agent](ctx, c, http.MethodPut, "/v1/agents/"+seg(id)+"/keys", body, false)
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
	var out struct {
		Data []ProviderClient `json:"data"`
	}
	err := c.do(ctx, call{method: http.MethodGet, path: "/v1/providers/" + seg(id) + "/clients", repeat: true}, &out)
	return out.Data, err
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
	return send[ListedTools](ctx, c, http.MethodPost, "/v1/connections/"+url.PathEscape(connection)+"/tools/look", struct{}{}, true)
}

// TakeTools takes tools that an MCP server listed last into its provider's record,
// each with its effect and the pin that it was shown with, by the server's names.
func (c *Client) TakeTools(ctx context.Context, connection string, effects, pins map[string]string) (Provider, error) {
	return send[Provider](ctx, c, http.MethodPut, "/v1/connections/"+url.PathEscape(connection)+"/tools", map[string]any{"effects": effects, "pins": pins}, true)
}

// AdoptTools gives a connection to an MCP server the tools that its provider has now.
func (c *Client) AdoptTools(ctx context.Context, connection string) (Connection, error) {
	return send[Connection](ctx, c, http.MethodPost, "/v1/connections/"+url.PathEscape(connection)+"/tools/adopt", struct{}{}, true)
}

// ProviderTemplates lists the records with blanks.
func (c *Client) ProviderTemplates(ctx context.Context) (Page[Template], error) {
	return read[Page[Template]](ctx, c, "/v1/provider-templates", nil)
}

// ProviderCatalog searches the providers that the server knows, a page at a time.
func (c *Client) ProviderCatalog(ctx context.Context, search string, p Paging) (Page[CatalogEntry], error) {
	q := p.add(url.Values{})
	if search != "" {
		q.Set("search", search)
	}
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

// Webhooks lists those of an organization, or with none of the whole environment.
func (c *Client) Webhooks(ctx context.Context, organization string) (Page[Webhook], error) {
	q := url.Values{}
	if organization != "" {
		q.Set("organization_id", organization)
	}
	return read[Page[Webhook]](ctx, c, "/v1/webhooks", q)
}

// CreateWebhook has an application told of what happens to connections.
func (c *Client) CreateWebhook(ctx context.Context, in WebhookInput) (MadeWebhook, error) {
	return send[MadeWebhook](ctx, c, http.MethodPost, "/v1/webhooks", in, false)
}

// Webhook reads one.
func (c *Client) Webhook(ctx context.Context, id string) (Webhook, error) {
	return read[Webhook](ctx, c, "/v1/webhooks/"+seg(id), nil)
}

// UpdateWebhook replaces a webhook's address, description and events.
func (c *Client) UpdateWebhook(ctx context.Context, id string, in WebhookInput) (Webhook, error) {
	in.OrganizationID = ""
	return send[Webhook](ctx, c, http.MethodPut, "/v1/webhooks/"+seg(id), in, true)
}

// DeleteWebhook removes a webhook and what was still to be told.
func (c *Client) DeleteWebhook(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/webhooks/" + seg(id), repeat: true}, nil)
}

// EnableWebhook enables a webhook; ReplayWebhook sends what it missed.
func (c *Client) EnableWebhook(ctx context.Context, id string) (Webhook, error) {
	return send[Webhook](ctx, c, http.MethodPost, "/v1/webhooks/"+seg(id)+"/enable", nil, true)
}

// DisableWebhook disables a webhook; what happens is held for a month.
func (c *Client) DisableWebhook(ctx context.Context, id string) (Webhook, error) {
	return send[Webhook](ctx, c, http.MethodPost, "/v1/webhooks/"+seg(id)+"/disable", nil, true)
}

// RotateWebhook replaces a webhook's secret. For overlap the old one signs as well.
func (c *Client) RotateWebhook(ctx context.Context, id string, overlap time.Duration) (MadeWebhook, error) {
	return send[MadeWebhook](ctx, c, http.MethodPost, "/v1/webhooks/"+seg(id)+"/rotate", map[string]int64{"overlap_seconds": int64(overlap / time.Second)}, false)
}

// TestWebhook sends a webhook an event that says nothing.
func (c *Client) TestWebhook(ctx context.Context, id string) (WebhookDelivery, error) {
	return send[WebhookDelivery](ctx, c, http.MethodPost, "/v1/webhooks/"+seg(id)+"/test", nil, false)
}

// WebhookDeliveries lists what was told, newest first; an empty state is any.
func (c *Client) WebhookDeliveries(ctx context.Context, id, state string, p Paging) (Page[WebhookDelivery], error) {
	q := p.add(url.Values{})
	if state != "" {
		q.Set("state", state)
	}
	return read[Page[WebhookDelivery]](ctx, c, "/v1/webhooks/"+seg(id)+"/deliveries", q)
}

// ReplayWebhook sends again, and gives how many deliveries that are.
func (c *Client) ReplayWebhook(ctx context.Context, id string, r WebhookReplay) (int64, error) {
	out, err := send[struct {
		Deliveries int64 `json:"deliveries"`
	}](ctx, c, http.MethodPost, "/v1/webhooks/"+seg(id)+"/replay", r, true)
	return out.Deliveries, err
}

// Vend fetches a connection's credential for an application whose key has the
// scope connections:vend. Servers refuse it unless it was switched on.
func (c *Client) Vend(ctx context.Context, id string) (Credential, error) {
	return send[Credential](ctx, c, http.MethodPost, "/v1/connections/"+seg(id)+"/credential", nil, false)
}

// Sessions lists sessions, newest first.
func (c *Client) Sessions(ctx context.Context, f SessionFilter) (Page[Session], error) {
	return read[Page[Session]](ctx, c, "/v1/sessions", f.query())
}

// Session reads one.
func (c *Client) Session(ctx context.Context, id string) (Session, error) {
	return read[Session](ctx, c, "/v1/sessions/"+seg(id), nil)
}

// Revoke ends sessions. When it returns, no further call of them starts.
func (c *Client) Revoke(ctx context.Context, r Revocation) (Revoked, error) {
	return send[Revoked](ctx, c, http.MethodPost, "/v1/revocations", r, true)
}

// Approvals lists the requests that wait for the person whose login this is.
func (c *Client) Approvals(ctx context.Context, p Paging) (Page[Approval], error) {
	return read[Page[Approval]](ctx, c, "/v1/approvals", p.add(url.Values{}))
}

// Approval reads one. It is decided at its URL.
func (c *Client) Approval(ctx context.Context, id string) (Approval, error) {
	return read[Approval](ctx, c, "/v1/approvals/"+seg(id), nil)
}

// Audit lists entries, newest first.
func (c *Client) Audit(ctx context.Context, f AuditFilter) (Page[Event], error) {
	return read[Page[Event]](ctx, c, "/v1/audit", f.query())
}

// VerifyAudit holds the whole audit log against its chains and checkpoints.
func (c *Client) VerifyAudit(ctx context.Context) (AuditReport, error) {
	return send[AuditReport](ctx, c, http.MethodPost, "/v1/audit/verify", nil, true)
}

// Keys lists API keys of an organization, or, if that is empty, of the whole
// environment.
func (c *Client) Keys(ctx context.Context, organizationID string, p Paging) (Page[APIKey], error) {
	q := p.add(url.Values{})
	set(q, "organization_id", organizationID)
	return read[Page[APIKey]](ctx, c, "/v1/keys", q)
}

// CreateKey always fails with the code browser_required: the error's field url
// is the page where a person makes keys.
func (c *Client) CreateKey(ctx context.Context) error {
	return c.do(ctx, call{method: http.MethodPost, path: "/v1/keys"}, nil)
}

// RevokeKey ends an API key at once.
func (c *Client) RevokeKey(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/keys/" + seg(id), repeat: true}, nil)
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

func ofOrganization(id string) url.Values {
	q := url.Values{}
	set(q, "organization_id", id)
	return q
}
