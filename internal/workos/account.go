package workos

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/integration"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
)

// installationOut is a connected account, as an integration shows it.
type installationOut struct {
	ID           string  `json:"id"`
	Role         string  `json:"connection_role"`
	Identifier   *string `json:"account_identifier"`
	DisplayName  *string `json:"account_display_name"`
	User         *string `json:"user_id"`
	Organization *string `json:"organization_id"`
	KeyLast4     *string `json:"api_key_last_4"`
}

func installationOf(a integration.Account) *installationOut {
	role := "compatibility"
	if a.Standard {
		role = "standard"
	}
	out := &installationOut{ID: string(a.ID), Role: role, Identifier: cursorOf(a.AccountID), DisplayName: cursorOf(a.AccountLabel), User: cursorOf(string(a.Owner)),
		Organization: cursorOf(string(a.Organization))}
	return out
}

// accountOut is a connected account of the wire.
type accountOut struct {
	Object string `json:"object"`
	installationOut
	Scopes      []string          `json:"scopes"`
	Method      string            `json:"auth_method"`
	Client      *string           `json:"client_id"`
	SecretLast4 *string           `json:"client_secret_last_4"`
	Config      map[string]string `json:"config"`
	State       string            `json:"state"`
	Created     string            `json:"created_at"`
	Updated     string            `json:"updated_at"`
}

func accountOf(a integration.Account) accountOut {
	out := accountOut{Object: "connected_account", installationOut: *installationOf(a), Scopes: append([]string{}, a.Scopes...), Method: methodOf(provider.Auth(a.AuthMethod)),
		Config: a.Record.Values(), State: string(a.State), Created: stamp(a.CreatedAt), Updated: stamp(a.UpdatedAt)}
	if out.Config == nil {
		out.Config = map[string]string{}
	}
	return out
}

// aimIn is whom a request of Pipes is about, as a body says it.
type aimIn struct {
	User         string `json:"user_id"`
	Organization string `json:"organization_id"`
	Account      string `json:"connected_account_id"`
	Owner        string `json:"connection_owner"`
	Plural       bool   `json:"supports_multiple_connections"`
	Intent       string `json:"connection_intent"`
}

func (in aimIn) aim(r *http.Request) (integration.Aim, error) {
	if in.User == "" {
		return integration.Aim{}, invalid("user_id", "It is required.")
	}
	o, err := ownership(in.Owner, integration.Users)
	return integration.Aim{Slug: r.PathValue("slug"), Ownership: o, Names: integration.Names{User: in.User, Organization: in.Organization},
		Connection: in.Account, Plural: in.Plural}, err
}

// intent reads what a new credential is for; otherwise is what it means to say
// nothing.
func intent(s string, otherwise integration.Intent) (integration.Intent, error) {
	switch s {
	case "":
		return otherwise, nil
	case "add":
		return integration.Add, nil
	case "reauthorize":
		return integration.Renew, nil
	}
	return "", invalid("connection_intent", "It is add or reauthorize.")
}

func (s *Server) putKey(create bool) productHandler {
	return func(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
		var in struct {
			aimIn
			Secret text `json:"secret"`
		}
		if _, err := decode(r, &in); err != nil {
			return answer{}, err
		}
		if in.Secret.value.Len() == 0 {
			return answer{}, invalid("secret", "It is required.")
		}
		return s.put(ctx, by, r, in.aimIn, create, provider.APIKey, map[string]secret.Value{provider.FieldAPIKey: in.Secret.value}, nil)
	}
}

func (s *Server) putClientCredentials(create bool) productHandler {
	return func(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
		var in struct {
			aimIn
			ID     text              `json:"client_id"`
			Secret text              `json:"client_secret"`
			Config map[string]string `json:"config"`
		}
		if _, err := decode(r, &in); err != nil {
			return answer{}, err
		}
		if in.ID.value.Len() == 0 || in.Secret.value.Len() == 0 {
			return answer{}, invalid("client_id and client_secret", "Both are required.")
		}
		fields := map[string]secret.Value{provider.FieldClientID: in.ID.value, provider.FieldClientSecret: in.Secret.value}
		return s.put(ctx, by, r, in.aimIn, create, provider.ClientCredentials, fields, in.Config)
	}
}

func (s *Server) put(ctx context.Context, by account.Actor, r *http.Request, in aimIn, create bool, kind provider.Auth, fields map[string]secret.Value, config map[string]string) (answer, error) {
	aim, err := in.aim(r)
	if err != nil {
		return answer{}, err
	}
	otherwise := integration.Replace
	if create {
		otherwise = integration.Create
	}
	want, err := intent(in.Intent, otherwise)
	if err != nil {
		return answer{}, err
	}
	_, c, err := s.integrations.PutKey(ctx, by, aim, want, kind, fields, config)
	if err != nil {
		return answer{}, err
	}
	status := http.StatusOK
	if create {
		status = http.StatusCreated
	}
	return answer{status, accountOf(c)}, nil
}

// aimOf is whom a request is about, as its path and query say it.
func aimOf(r *http.Request) (integration.Aim, url.Values, error) {
	q := r.URL.Query()
	plural, err := flagIn(q, "supports_multiple_connections")
	if err != nil {
		return integration.Aim{}, nil, err
	}
	aim := integration.Aim{Slug: r.PathValue("slug"), Connection: q.Get("connected_account_id"), Plural: plural}
	if org := r.PathValue("organization"); org != "" {
		aim.Ownership, aim.Names = integration.Organizations, integration.Names{Organization: org}
	} else {
		aim.Ownership, aim.Names = integration.Users, integration.Names{User: r.PathValue("user"), Organization: q.Get("organization_id")}
	}
	return aim, q, nil
}

func (s *Server) getAccount(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
	aim, _, err := aimOf(r)
	if err != nil {
		return answer{}, err
	}
	_, c, err := s.integrations.Account(ctx, by, aim)
	if err != nil {
		return answer{}, err
	}
	return answer{http.StatusOK, accountOf(c)}, nil
}

// tokensIn are an account's tokens and state, as an application knows them.
type tokensIn struct {
	Access  text               `json:"access_token"`
	Refresh text               `json:"refresh_token"`
	Expires *time.Time         `json:"expires_at"`
	Scopes  optional[[]string] `json:"scopes"`
	State   string             `json:"state"`
	User    string             `json:"user_id"` // who acts for an organization
	Intent  string             `json:"connection_intent"`
}

func (in tokensIn) imported() (integration.Imported, error) {
	out := integration.Imported{Tokens: credential.Tokens{Access: in.Access.value, Refresh: in.Refresh.value}}
	if in.Expires != nil {
		out.Expires = *in.Expires
	}
	if in.Scopes.value != nil {
		out.Scopes = append([]string{}, *in.Scopes.value...)
	}
	switch s := connection.State(in.State); s {
	case "", connection.Connected, connection.NeedsReauth:
		out.State = s
		return out, nil
	}
	return out, invalid("state", "It is connected or needs_reauthorization.")
}

func (s *Server) tokens(r *http.Request) (integration.Aim, integration.Imported, string, error) {
	aim, q, err := aimOf(r)
	if err != nil {
		return aim, integration.Imported{}, "", err
	}
	var in tokensIn
	if _, err := decode(r, &in); err != nil {
		return aim, integration.Imported{}, "", err
	}
	aim.User = cmp.Or(aim.User, in.User)
	out, err := in.imported()
	return aim, out, cmp.Or(in.Intent, q.Get("connection_intent")), err
}

func (s *Server) importAccount(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
	aim, in, said, err := s.tokens(r)
	if err != nil {
		return answer{}, err
	}
	want, err := intent(said, integration.Create)
	if err != nil {
		return answer{}, err
	}
	_, c, err := s.integrations.Import(ctx, by, aim, want, in)
	if err != nil {
		return answer{}, err
	}
	return answer{http.StatusCreated, accountOf(c)}, nil
}

func (s *Server) changeAccount(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
	aim, in, said, err := s.tokens(r)
	if err != nil {
		return answer{}, err
	}
	if _, err := intent(said, integration.Renew); err != nil || said == "add" {
		return answer{}, invalid("connection_intent", "It is reauthorize.")
	}
	_, c, err := s.integrations.Change(ctx, by, aim, in)
	if err != nil {
		return answer{}, err
	}
	return answer{http.StatusOK, accountOf(c)}, nil
}

func (s *Server) deleteAccount(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
	aim, _, err := aimOf(r)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusNoContent}, s.integrations.Disconnect(ctx, by, aim)
}

// providerOut is a data provider of the wire, with the second names that old
// clients know.
type providerOut struct {
	Object         string      `json:"object"`
	ID             string      `json:"id"`
	Name           string      `json:"name"`
	Description    *string     `json:"description"`
	Slug           string      `json:"slug"`
	Type           string      `json:"integration_type"`
	Credentials    string      `json:"credentials_type"`
	Scopes         []string    `json:"scopes"`
	AuthMethods    []string    `json:"auth_methods"`
	Owner          string      `json:"connection_owner"`
	Ownership      string      `json:"ownership"`
	Created        string      `json:"created_at"`
	Updated        string      `json:"updated_at"`
	Account        *ownedOut   `json:"connected_account"`
	Accounts       *[]ownedOut `json:"connected_accounts,omitempty"`
	OldType        string      `json:"integrationType"`
	OldCredentials string      `json:"credentialsType"`
	OldCreated     string      `json:"createdAt"`
	OldUpdated     string      `json:"updatedAt"`
}

type ownedOut struct {
	accountOut
	OldUser         *string `json:"userlandUserId"`
	UserlandUser    *string `json:"userland_user_id"`
	OldOrganization *string `json:"organizationId"`
	OldCreated      string  `json:"createdAt"`
	OldUpdated      string  `json:"updatedAt"`
}

func ownedOf(a integration.Account) ownedOut {
	out := accountOf(a)
	return ownedOut{out, out.User, out.User, out.Organization, out.Created, out.Updated}
}

func (s *Server) listProviders(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
	aim, _, err := aimOf(r)
	if err != nil {
		return answer{}, err
	}
	all, err := s.integrations.Providers(ctx, by, aim.Names, aim.Ownership)
	if err != nil {
		return answer{}, err
	}
	out := listOf[providerOut](len(all))
	for _, o := range all {
		r := o.Provider.Record
		p := providerOut{Object: "data_provider", ID: wireID(o.Integration), Name: r.Name, Description: cursorOf(o.Description), Slug: o.Slug(), Type: o.Slug(), Credentials: o.Clients,
			Scopes: o.Asks(), AuthMethods: []string{methodOf(r.Auth)}, Owner: string(o.Ownership), Ownership: "userland_user", Created: stamp(o.CreatedAt), Updated: stamp(o.UpdatedAt)}
		if o.Ownership == integration.Organizations {
			p.Ownership = "organization"
		}
		p.OldType, p.OldCredentials, p.OldCreated, p.OldUpdated = p.Type, p.Credentials, p.Created, p.Updated
		several := []ownedOut{}
		for _, a := range o.Accounts {
			w := ownedOf(a)
			if several = append(several, w); !a.Standard {
				p.Account = &w
			}
		}
		if aim.Plural {
			p.Accounts = &several
		}
		out.Data = append(out.Data, p)
	}
	return answer{http.StatusOK, out}, nil
}

// configurationOut is what an organization makes of an integration.
type configurationOut struct {
	Object       string            `json:"object"`
	ID           string            `json:"id"`
	Organization string            `json:"organization_id"`
	Slug         string            `json:"slug"`
	Name         string            `json:"name"`
	Enabled      bool              `json:"enabled"`
	Scopes       []string          `json:"scopes"`
	Config       map[string]string `json:"config"`
	Created      string            `json:"created_at"`
	Updated      string            `json:"updated_at"`
	Credentials  *configuredOut    `json:"credentials,omitempty"`
}

type configuredOut struct {
	Type        string  `json:"credentials_type"`
	Has         bool    `json:"has_credentials"`
	ID          *string `json:"client_id"`
	SecretLast4 *string `json:"client_secret_last_four"`
	RedirectURI string  `json:"redirect_uri"`
}

func (s *Server) configurationOf(c integration.Configured, named string) configurationOut {
	org := cmp.Or(string(c.Organization), named)
	out := configurationOut{Object: "data_integration_configuration", ID: wireID(c.Integration) + "/" + org, Organization: org, Slug: c.Slug(), Name: c.Provider.Record.Name,
		Enabled: c.Offered(), Scopes: c.Setting.Scopes, Config: map[string]string{}, Created: stamp(c.CreatedAt), Updated: stamp(c.UpdatedAt)}
	if c.Setting.Version > 0 {
		out.Updated = stamp(c.Setting.UpdatedAt)
	}
	if c.Provider.Record.Auth == provider.OAuth2 {
		of := c.Organization
		if c.Own == nil && c.Clients != integration.ClientOrganization {
			of = ""
		}
		out.Credentials = &configuredOut{Type: c.Clients, Has: c.Usable(), RedirectURI: s.redirectURI(c.Environment, c.Provider.Record.ID, of)}
		if c.Own != nil {
			out.Credentials.ID = cursorOf(c.Own.ID)
		}
	}
	return out
}

func (s *Server) listConfigurations(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
	org := r.PathValue("organization")
	all, err := s.integrations.Settings(ctx, by, org)
	if err != nil {
		return answer{}, err
	}
	out := listOf[configurationOut](len(all))
	for _, c := range all {
		out.Data = append(out.Data, s.configurationOf(c, org))
	}
	return answer{http.StatusOK, out}, nil
}

func (s *Server) configure(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
	var in struct {
		Enabled *bool              `json:"enabled"`
		Scopes  optional[[]string] `json:"scopes"`
		ID      string             `json:"client_id"`
		Secret  text               `json:"client_secret"`
		Config  map[string]string  `json:"config"`
	}
	if _, err := decode(r, &in); err != nil {
		return answer{}, err
	}
	if len(in.Config) > 0 {
		return answer{}, invalid("config", "What differs by account is chosen when it is connected; authorize takes it.")
	}
	c := integration.SettingChange{Enabled: in.Enabled}
	if in.Scopes.given {
		var list []string
		if in.Scopes.value != nil {
			list = append([]string{}, *in.Scopes.value...)
		}
		c.Scopes = &list
	}
	if in.ID != "" || in.Secret.given {
		c.Client = &integration.Client{Kind: integration.ClientOrganization, ID: in.ID, Secret: in.Secret.value}
	}
	if c.Enabled == nil && c.Scopes == nil && c.Client == nil {
		return answer{}, invalid("body", "Send at least one of enabled, scopes and client_id with client_secret.")
	}
	org := r.PathValue("organization")
	out, err := s.integrations.Configure(ctx, by, org, r.PathValue("slug"), c)
	if err != nil {
		return answer{}, err
	}
	return answer{http.StatusOK, s.configurationOf(out, org)}, nil
}

func (s *Server) authorize(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
	var in struct {
		aimIn
		ReturnTo string            `json:"return_to"`
		Config   map[string]string `json:"config"`
	}
	if _, err := decode(r, &in); err != nil {
		return answer{}, err
	}
	aim, err := in.aim(r)
	if err != nil {
		return answer{}, err
	}
	to, err := s.integrations.Authorize(ctx, by, aim, in.ReturnTo, in.Config)
	if err != nil {
		return answer{}, err
	}
	return answer{http.StatusOK, map[string]string{"url": to}}, nil
}
