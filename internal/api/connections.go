package api

import (
	"context"
	"net/http"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Connection is one owner's account at one provider. It holds no secret.
type Connection struct {
	ID             string            `json:"id"`
	EnvironmentID  string            `json:"environment_id"`
	OrganizationID string            `json:"organization_id"`
	OwnerID        string            `json:"owner_id,omitempty" doc:"Absent: the organization's own."`
	Provider       string            `json:"provider"`
	ProviderName   string            `json:"provider_name"`
	State          string            `json:"state" enum:"connected,needs_reauthorization,disconnected"`
	Reason         string            `json:"reason,omitempty" doc:"Why the state is not connected."`
	ConnectURL     string            `json:"connect_url,omitempty" doc:"Where a person connects the account again, when it needs that."`
	AccountID      string            `json:"account_id"`
	AccountLabel   string            `json:"account_label"`
	AuthMethod     string            `json:"auth_method"`
	Tenant         map[string]string `json:"tenant,omitempty" doc:"Which of the provider's addresses the account is at."`
	Scopes         []string          `json:"scopes" nullable:"false" doc:"As the provider granted them."`
	MissingScopes  []string          `json:"missing_scopes" nullable:"false" doc:"Asked for and not granted. What needs them fails; the rest works."`
	ReauthorizeBy  time.Time         `json:"reauthorize_by,omitzero" doc:"By when a person must have connected it again, where the provider ends every access after a time."`
	CreatedAt      time.Time         `json:"created_at"`
	UpdatedAt      time.Time         `json:"updated_at"`
	Upstream       string            `json:"upstream,omitempty" enum:"revoked,pending,failed,unsupported" doc:"Of one that has ended: what became of the credential at the provider. pending is tried again for a week."`
	Note           string            `json:"note,omitempty" doc:"Of one that has ended: what a person still has to do."`
	EndedAt        time.Time         `json:"ended_at,omitzero"`
	Version        int64             `json:"version"`
}

// Connected is a connection that was made, or the page where a person must make it.
type Connected struct {
	Connection *Connection `json:"connection,omitempty"`
	ConnectURL string      `json:"connect_url,omitempty" doc:"For providers that are connected by signing in there."`
}

func (c Connected) status() int {
	if c.Connection == nil {
		return http.StatusAccepted
	}
	return http.StatusCreated
}

// Disconnected says what became of a connection.
type Disconnected struct {
	Connection Connection `json:"connection"`
	Upstream   string     `json:"upstream" enum:"revoked,pending,failed,unsupported" doc:"What became of the credential at the provider."`
	Note       string     `json:"note,omitempty" doc:"What the person still has to do."`
}

func (a *API) connectionOf(c connection.Connection) Connection {
	out := Connection{ID: string(c.ID), EnvironmentID: string(c.Environment), OrganizationID: string(c.Organization), OwnerID: string(c.Owner),
		Provider: c.Provider, ProviderName: c.Record.Name, State: string(c.State), Reason: c.Reason, AccountID: c.AccountID, AccountLabel: c.AccountLabel,
		AuthMethod: c.AuthMethod, Scopes: append([]string{}, c.Scopes...), MissingScopes: append([]string{}, c.Lacking()...), Tenant: c.Pinned.Values, ReauthorizeBy: c.ReauthorizeBy, CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt, EndedAt: c.EndedAt, Version: c.Version}
	if c.State == connection.NeedsReauth {
		out.ConnectURL = a.cfg.Connections.ReconnectURL(c.ID)
	}
	return out
}

type connectionsInput struct {
	Caller
	Paging
	OrganizationID string `query:"organization_id"`
	OwnerID        string `query:"owner_id"`
	Provider       string `query:"provider" maxLength:"64"`
	State          string `query:"state" enum:"connected,needs_reauthorization,disconnected"`
}

type connectionInput struct {
	Caller
	Connection string `path:"connection"`
}

type connectInput struct {
	Caller
	Body struct {
		OrganizationID string            `json:"organization_id"`
		Provider       string            `json:"provider" minLength:"1" maxLength:"64"`
		OwnerID        string            `json:"owner_id,omitempty" doc:"A member of the organization; \"me\" is the person who calls. Left out, the connection is the organization's."`
		ReconnectID    string            `json:"reconnect_id,omitempty" doc:"A connection to give a new credential."`
		Fields         map[string]Hidden `json:"fields,omitempty" doc:"The parts of the credential, such as api_key. For a provider where a person signs in, access_token and refresh_token of another system that has the same OAuth client; from then on only Ambit may refresh."`
		ExpiresAt      *time.Time        `json:"expires_at,omitempty" doc:"When the access_token ends."`
		Scopes         []string          `json:"scopes,omitempty" maxItems:"100" doc:"What was granted to it."`
		Told           map[string]string `json:"captured,omitempty" doc:"What the provider's record captures when a person signs in, such as instance, for tokens of another system."`
		Tenant         map[string]string `json:"tenant,omitempty" doc:"Parts of the provider's addresses, as its tenant lists them. A person who signs in at the provider chooses them on the page."`
		Sources        map[string]string `json:"sources,omitempty" doc:"Parts that stay in a source of the operator's (Vault, AWS), as SOURCE/PATH or SOURCE/PATH#FIELD. For an API key that has vault:read too. They are read at each use."`
		Secrets        map[string]string `json:"secrets,omitempty" doc:"Parts that a secret of the organization holds, by its id or name; also a write-only one. For an API key that has vault:read too. The value is taken once: reconnect to take a newer one."`
	}
}

func (a *API) connectionRoutes() {
	read := rules{scopes: []account.Scope{account.ScopeConnectionsRead}}
	handle(a, route{id: "list-connections", method: http.MethodGet, path: "/v1/connections", tag: "connections", summary: "List connections, newest first", rules: read}, a.connections)
	handle(a, route{id: "get-connection", method: http.MethodGet, path: "/v1/connections/{connection}", tag: "connections", summary: "Read a connection", rules: read}, a.connection)
	handle(a, route{id: "create-connection", method: http.MethodPost, path: "/v1/connections", tag: "connections", summary: "Connect an account with a key",
		detail: "201 with the connection. For a provider where a person signs in, 202 with the page that starts it.", status: http.StatusCreated,
		also:  map[int]any{http.StatusAccepted: Connected{}},
		rules: rules{scopes: []account.Scope{account.ScopeConnectionsWrite}}, conflicts: true}, a.connect)
	handle(a, route{id: "delete-connection", method: http.MethodDelete, path: "/v1/connections/{connection}", tag: "connections", summary: "Disconnect for good, here and at the provider",
		detail: "It ends every session that uses the connection.", rules: rules{scopes: []account.Scope{account.ScopeConnectionsRead, account.ScopeConnectionsWrite}, ends: true}}, a.disconnect)
	handle(a, route{id: "revoke-connections", method: http.MethodPost, path: "/v1/connection-revocations", tag: "connections", summary: "Disconnect many at once, after an incident",
		detail: "By provider, organization, owner and the time in which they were made; at least one of these. dry_run lists them and ends none. A thousand at most in one request: repeat it while more is true. Each is ended here before the answer; the providers are told right after.",
		rules:  rules{scopes: []account.Scope{account.ScopeConnectionsRead, account.ScopeConnectionsWrite}, ends: true}}, a.revokeConnections)
}

type aimInput struct {
	Caller
	Body struct {
		OrganizationID string    `json:"organization_id,omitempty" doc:"Left out, the whole environment, for who manages that."`
		OwnerID        string    `json:"owner_id,omitempty"`
		Provider       string    `json:"provider,omitempty" maxLength:"64"`
		From           time.Time `json:"from,omitzero" doc:"Made at this time or later."`
		To             time.Time `json:"to,omitzero" doc:"Made before this time."`
		DryRun         bool      `json:"dry_run,omitempty" doc:"Only list what it would end."`
	}
}

// RevokedConnections is what an aim has ended, or would.
type RevokedConnections struct {
	DryRun      bool         `json:"dry_run"`
	Connections []Connection `json:"connections" nullable:"false"`
	More        bool         `json:"more" doc:"There are more: repeat the request."`
}

func (a *API) revokeConnections(ctx context.Context, by account.Actor, in *aimInput) (RevokedConnections, error) {
	b := in.Body
	aim := connection.Aim{Provider: b.Provider, From: b.From, To: b.To}
	if err := optionalID(&aim.Owner, b.OwnerID); err != nil {
		return RevokedConnections{}, err
	}
	if b.OrganizationID != "" {
		if err := parseID(&aim.Organization, b.OrganizationID); err != nil {
			return RevokedConnections{}, err
		}
		if _, err := a.cfg.People.Urgently().Organization(ctx, by.Environment(), aim.Organization); err != nil {
			return RevokedConnections{}, err
		}
	}
	act := a.cfg.Credentials.DisconnectAimed
	if b.DryRun {
		act = a.cfg.Connections.Aimed
	}
	found, err := act(ctx, by, aim)
	if err != nil {
		return RevokedConnections{}, err
	}
	out := RevokedConnections{DryRun: b.DryRun, More: found.More, Connections: []Connection{}}
	for _, c := range found.Connections {
		out.Connections = append(out.Connections, a.connectionOf(c))
	}
	return out, nil
}

func (a *API) connections(ctx context.Context, by account.Actor, in *connectionsInput) (Page[Connection], error) {
	org, err := a.organization(ctx, by, in.OrganizationID)
	if err != nil {
		return Page[Connection]{}, err
	}
	f := connection.Filter{Organization: org, Provider: in.Provider, State: connection.State(in.State), After: in.After, Limit: in.limit()}
	if err := optionalID(&f.Owner, in.OwnerID); err != nil {
		return Page[Connection]{}, err
	}
	p, err := a.cfg.Connections.List(ctx, by, f)
	if err != nil {
		return Page[Connection]{}, err
	}
	upstream, err := a.cfg.Credentials.Upstream(ctx, p.Connections)
	return page(p.Connections, p.Next, func(c connection.Connection) Connection { return a.endedOf(c, upstream) }), err
}

// endedOf is connectionOf, with what became of the credential at the provider.
func (a *API) endedOf(c connection.Connection, upstream map[id.Connection]string) Connection {
	out := a.connectionOf(c)
	out.Upstream = upstream[c.ID]
	out.Note = credential.Note(c, out.Upstream)
	return out
}

func (a *API) connection(ctx context.Context, by account.Actor, in *connectionInput) (Connection, error) {
	var conn id.Connection
	if err := parseID(&conn, in.Connection); err != nil {
		return Connection{}, err
	}
	c, err := a.cfg.Connections.Get(ctx, by, conn)
	if err != nil {
		return Connection{}, err
	}
	upstream, err := a.cfg.Credentials.Upstream(ctx, []connection.Connection{c})
	return a.endedOf(c, upstream), err
}

func (a *API) connect(ctx context.Context, by account.Actor, in *connectInput) (Connected, error) {
	b := in.Body
	org, err := a.organization(ctx, by, b.OrganizationID)
	if err != nil {
		return Connected{}, err
	}
	owner, err := a.connectionOwner(ctx, by, org, b.OwnerID)
	if err != nil {
		return Connected{}, err
	}
	if err := connection.MayConnect(by, org, owner); err != nil {
		return Connected{}, err
	}
	prov, err := a.cfg.Providers.Get(ctx, by.Environment(), b.Provider)
	if err != nil {
		return Connected{}, err
	}
	st := credential.Start{Environment: by.Environment(), Organization: org, Provider: b.Provider, OrganizationOwned: owner == "", Chosen: b.Tenant}
	if err := optionalID(&st.Reconnect, b.ReconnectID); err != nil {
		return Connected{}, err
	}
	if prov.Record.Auth == provider.OAuth2 && len(b.Fields)+len(b.Secrets)+len(b.Sources) == 0 {
		return a.connectPage(ctx, by, org, prov, st.Reconnect)
	}
	fields := map[string]secret.Value{}
	for name, v := range b.Fields {
		fields[name] = v.Value
	}
	for name, ref := range b.Secrets {
		if _, twice := fields[name]; twice {
			return Connected{}, fault.New(fault.Invalid, "invalid_credential", "The part "+name+" is given twice.")
		}
		c, err := a.vaultCaller(ctx, by, string(org), account.RevealSecrets)
		if err != nil {
			return Connected{}, err
		}
		if fields[name], err = a.cfg.Vault.Use(ctx, c, ref, prov.Record.ID); err != nil {
			return Connected{}, err
		}
	}
	for name, place := range b.Sources {
		if _, twice := fields[name]; twice {
			return Connected{}, fault.New(fault.Invalid, "invalid_credential", "The part "+name+" is given twice.")
		}
		if fields[name], err = a.elsewhere(ctx, by, org, prov.Record, name, place); err != nil {
			return Connected{}, err
		}
	}
	st.Elsewhere = b.Sources
	var c connection.Connection
	if prov.Record.Auth == provider.OAuth2 {
		c, err = a.importTokens(ctx, by, in, st, owner, fields)
	} else {
		c, err = a.cfg.Credentials.AddKey(ctx, by, st, owner, fields, account.Agreement{})
	}
	if err != nil {
		return Connected{}, err
	}
	made := a.connectionOf(c)
	return Connected{Connection: &made}, nil
}

// elsewhere reads what a connection leaves in a source. As for a secret of the vault, only
// an application that may read names one.
func (a *API) elsewhere(ctx context.Context, by account.Actor, org id.Organization, prov provider.Record, part, place string) (secret.Value, error) {
	if by.Audit().Kind != "api_key" {
		return secret.Value{}, fault.New(fault.Denied, "api_key_required", "A place in a source is named by API keys only.").
			WithHint("Set AMBIT_API_KEY to one with the scopes connections:write and vault:read, or give the value itself.")
	}
	c, err := a.vaultCaller(ctx, by, string(org), account.RevealSecrets)
	if err != nil {
		return secret.Value{}, err
	}
	if !c.Reach.All() {
		return secret.Value{}, fault.New(fault.Denied, "secret_rules", "This key is for some secrets only, and a source's places are none of them.").
			WithHint("Use a key with vault:read and no rules of secrets, or give the value itself.")
	}
	return a.cfg.Credentials.ReadElsewhere(ctx, by, org, prov, part, place)
}

// importTokens takes over tokens that another system has.
func (a *API) importTokens(ctx context.Context, by account.Actor, in *connectInput, st credential.Start, owner id.User, fields map[string]secret.Value) (connection.Connection, error) {
	took := credential.Held{Access: fields["access_token"], Refresh: fields["refresh_token"], Scopes: in.Body.Scopes, Told: in.Body.Told}
	if in.Body.ExpiresAt != nil {
		took.ExpiresAt = *in.Body.ExpiresAt
	}
	for name := range fields {
		if name != "access_token" && name != "refresh_token" {
			return connection.Connection{}, fault.New(fault.Invalid, "not_key", "People sign in at this provider.").
				WithHint("Leave fields out, and the answer names the page. To take over tokens of another system, give access_token and refresh_token.")
		}
	}
	return a.cfg.Credentials.TakeOver(ctx, by, st, owner, took, account.Agreement{})
}

// connectPage names the page where a person signs in at the provider: for a new
// connection, or for the one that is to be renewed.
func (a *API) connectPage(ctx context.Context, by account.Actor, org id.Organization, prov provider.Provider, again id.Connection) (Connected, error) {
	if again == "" {
		return Connected{ConnectURL: a.cfg.Connections.ConnectURL(org, prov.Record.ID)}, nil
	}
	c, err := a.cfg.Connections.Get(ctx, by, again)
	if err == nil && (c.Provider != prov.Record.ID || c.Organization != org) {
		err = fault.New(fault.NotFound, "not_found", "No such connection.")
	}
	if err != nil {
		return Connected{}, err
	}
	return Connected{ConnectURL: a.cfg.Connections.ReconnectURL(c.ID)}, nil
}

// connectionOwner reads whose a connection is to be: nobody's but a member's,
// since an account of somebody else would be out of everybody's sight.
func (a *API) connectionOwner(ctx context.Context, by account.Actor, org id.Organization, raw string) (owner id.User, err error) {
	if raw == "" {
		return "", nil
	}
	if raw == "me" && by.User() != "" {
		return by.User(), nil
	}
	if err := parseID(&owner, raw); err != nil {
		return "", err
	}
	member, err := a.cfg.People.Active(ctx, by.Environment(), org, owner)
	if err == nil && !member {
		err = fault.New(fault.NotFound, "not_found", "No such user.")
	}
	return owner, err
}

func (a *API) disconnect(ctx context.Context, by account.Actor, in *connectionInput) (Disconnected, error) {
	var conn id.Connection
	if err := parseID(&conn, in.Connection); err != nil {
		return Disconnected{}, err
	}
	d, err := a.cfg.Credentials.Disconnect(ctx, by, conn)
	if err != nil {
		return Disconnected{}, err
	}
	return Disconnected{Connection: a.connectionOf(d.Connection), Upstream: d.Upstream, Note: d.Note}, nil
}
