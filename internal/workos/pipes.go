package workos

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/integration"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
)

// pipes adds the routes of Pipes.
func (s *Server) pipes(mux *http.ServeMux) {
	read, write, vend, setup := account.ScopeConnectionsRead, account.ScopeConnectionsWrite, account.ScopeConnectionsVend, account.ScopeProvidersWrite
	for pattern, h := range map[string]http.Handler{
		"GET /data-integrations":                            s.product(s.listIntegrations, read),
		"POST /data-integrations":                           s.product(s.kept(s.createIntegration), setup),
		"GET /data-integrations/{slug}":                     s.product(s.getIntegration(integration.Users), read),
		"PUT /data-integrations/{slug}":                     s.product(s.updateIntegration(integration.Users), setup),
		"DELETE /data-integrations/{slug}":                  s.product(s.deleteIntegration(integration.Users), setup, read, write),
		"GET /data-integrations/{slug}/organization":        s.product(s.getIntegration(integration.Organizations), read),
		"PUT /data-integrations/{slug}/organization":        s.product(s.updateIntegration(integration.Organizations), setup),
		"DELETE /data-integrations/{slug}/organization":     s.product(s.deleteIntegration(integration.Organizations), setup, read, write),
		"POST /data-integrations/{slug}/authorize":          s.product(s.authorize, write),
		"POST /data-integrations/{slug}/token":              s.product(s.token, vend),
		"POST /data-integrations/{slug}/credentials":        s.product(s.credentials, vend),
		"POST /data-integrations/{slug}/api-key":            s.product(s.kept(s.putKey(true)), write),
		"PUT /data-integrations/{slug}/api-key":             s.product(s.putKey(false), write),
		"POST /data-integrations/{slug}/client-credentials": s.product(s.kept(s.putClientCredentials(true)), write),
		"PUT /data-integrations/{slug}/client-credentials":  s.product(s.putClientCredentials(false), write),

		"GET /user_management/users/{user}/connected_accounts/{slug}":    s.product(s.getAccount, read),
		"POST /user_management/users/{user}/connected_accounts/{slug}":   s.product(s.kept(s.importAccount), write),
		"PUT /user_management/users/{user}/connected_accounts/{slug}":    s.product(s.changeAccount, write),
		"DELETE /user_management/users/{user}/connected_accounts/{slug}": s.product(s.deleteAccount, write, read),
		"GET /user_management/users/{user}/data_providers":               s.product(s.listProviders, read),

		"GET /organizations/{organization}/connected_accounts/{slug}":    s.product(s.getAccount, read),
		"POST /organizations/{organization}/connected_accounts/{slug}":   s.product(s.kept(s.importAccount), write),
		"PUT /organizations/{organization}/connected_accounts/{slug}":    s.product(s.changeAccount, write),
		"DELETE /organizations/{organization}/connected_accounts/{slug}": s.product(s.deleteAccount, write, read),
		"GET /organizations/{organization}/data_providers":               s.product(s.listProviders, read),

		"GET /organizations/{organization}/data_integration_configurations":        s.product(s.listConfigurations, read),
		"PUT /organizations/{organization}/data_integration_configurations/{slug}": s.product(s.configure, setup),
	} {
		mux.Handle(pattern, h)
	}
	absent := func(w http.ResponseWriter, r *http.Request) {
		s.failPipes(w, r, fault.New(fault.NotFound, "not_found", "There is no such endpoint."))
	}
	for _, root := range []string{"/data-integrations/", "/user_management/", "/organizations/"} {
		mux.HandleFunc(root, absent)
	}
}

// productHandler does the work of one route of Pipes.
type productHandler func(ctx context.Context, by account.Actor, r *http.Request) (answer, error)

// product authenticates an application, checks its scopes, and writes what h
// answers.
func (s *Server) product(h productHandler, scopes ...account.Scope) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, err := s.application(w, r)
		if err == nil {
			err = s.scoped(r, key, "pipes.refused", scopes)
		}
		if err != nil {
			s.failPipes(w, r, err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxPipesBody)
		a, err := h(r.Context(), account.ByKey(key).From(s.address(r)), r)
		switch {
		case err != nil:
			s.failPipes(w, r, err)
		case a.status == http.StatusNoContent:
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(a.status)
		default:
			s.send(w, r, a)
		}
	})
}

const maxPipesBody = 256 << 10

// unprocessables are the faults that Pipes answers with 422 for what was sent.
func unprocessables() []string {
	return []string{"auth_method_mismatch", "invalid_token_combination", "scope_not_allowed", "invalid_credential", "account_unknown", "credential_unusable", "invalid_return_to", "template_param_unknown", "tenant_invalid"}
}

// failPipes writes an error in the form of Pipes: message and code. With an
// "error" beside them the SDKs would take a 400 or 403 for one of OAuth's.
func (s *Server) failPipes(w http.ResponseWriter, r *http.Request, err error) {
	f := fault.Of(err)
	if f.Kind == fault.Invalid && slices.Contains(unprocessables(), f.Code) {
		err = unprocessable{err}
	}
	status := s.statusOf(w, r, err)
	RefusePipes(w, status, f)
}

// optional is a member of a request that may be absent, null, or there.
type optional[T any] struct {
	given bool
	value *T // nil: null
}

func (o *optional[T]) UnmarshalJSON(doc []byte) error {
	o.given = true
	return json.Unmarshal(doc, &o.value)
}

// credentialsIn are an OAuth client, as one is given.
type credentialsIn struct {
	Type   string `json:"type"`
	ID     string `json:"client_id"`
	Secret text   `json:"client_secret"`
}

func (c *credentialsIn) client() (*integration.Client, error) {
	if c == nil {
		return nil, nil
	}
	switch c.Type {
	case "", integration.ClientCustom:
		return &integration.Client{Kind: integration.ClientCustom, ID: c.ID, Secret: c.Secret.value}, nil
	case integration.ClientOrganization:
		if c.ID != "" || c.Secret.given {
			return nil, invalid("credentials", "Each organization gives its own client.")
		}
		return &integration.Client{Kind: integration.ClientOrganization}, nil
	}
	return nil, invalid("credentials.type", "It is custom or organization.")
}

func invalid(field, hint string) error {
	return unprocessable{fault.New(fault.Invalid, "invalid_field", field+" is not valid.").WithHint(hint)}
}

// customIn is a provider as one is described; what is absent stays as it is.
type customIn struct {
	Name             *string            `json:"name"`
	AuthorizationURL *string            `json:"authorization_url"`
	TokenURL         *string            `json:"token_url"`
	RefreshURL       optional[string]   `json:"refresh_token_url"`
	PKCE             *bool              `json:"pkce_enabled"`
	Separator        *string            `json:"request_scope_separator"`
	ScopesRequired   *bool              `json:"scopes_required"`
	SecretRequired   *bool              `json:"client_secret_required"`
	Params           *map[string]string `json:"additional_authorization_parameters"`
	ContentType      *string            `json:"token_body_content_type"`
	Via              *string            `json:"authenticate_via"`
}

func (in customIn) onto(c provider.Custom) provider.Custom {
	set := func(dst *string, v *string) {
		if v != nil {
			*dst = *v
		}
	}
	set(&c.Name, in.Name)
	set(&c.AuthorizeURL, in.AuthorizationURL)
	set(&c.TokenURL, in.TokenURL)
	if in.RefreshURL.given {
		c.RefreshURL = ""
		set(&c.RefreshURL, in.RefreshURL.value)
	}
	set(&c.Separator, in.Separator)
	if in.PKCE != nil {
		c.NoPKCE = !*in.PKCE
	}
	if in.SecretRequired != nil {
		c.NoSecret = !*in.SecretRequired
	}
	if in.Params != nil {
		c.Params = maps.Clone(*in.Params)
	}
	if in.ContentType != nil {
		c.JSON = *in.ContentType == "application/json"
	}
	if in.Via != nil {
		c.SecretInBody = *in.Via != "basic_auth_header"
	}
	return c
}

func (in customIn) check() error {
	switch {
	case in.ContentType != nil && !slices.Contains([]string{"application/json", "application/x-www-form-urlencoded"}, *in.ContentType):
		return invalid("token_body_content_type", "It is application/x-www-form-urlencoded or application/json.")
	case in.Via != nil && !slices.Contains([]string{"request_body", "basic_auth_header"}, *in.Via):
		return invalid("authenticate_via", "It is request_body or basic_auth_header.")
	}
	return nil
}

// authOf is our kind of credential by the name that this wire has for it.
func authOf(method string) (provider.Auth, error) {
	switch method {
	case "oauth":
		return provider.OAuth2, nil
	case "api_key":
		return provider.APIKey, nil
	case "client_credentials":
		return provider.ClientCredentials, nil
	}
	return "", invalid("auth_methods", "It is oauth, api_key or client_credentials.")
}

func methodOf(a provider.Auth) string {
	switch a {
	case provider.OAuth2:
		return "oauth"
	case provider.APIKey:
		return "api_key"
	}
	return string(a)
}

func ownership(s string, otherwise integration.Ownership) (integration.Ownership, error) {
	switch s {
	case "":
		return otherwise, nil
	case "user":
		return integration.Users, nil
	case "organization":
		return integration.Organizations, nil
	}
	return "", invalid("ownership", "It is user or organization.")
}

func (s *Server) createIntegration(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
	var in struct {
		Provider    string             `json:"provider"`
		Ownership   string             `json:"ownership"`
		AuthMethods []string           `json:"auth_methods"`
		Config      map[string]string  `json:"config"`
		APIKey      *keyIn             `json:"api_key"`
		Description optional[string]   `json:"description"`
		Enabled     bool               `json:"enabled"`
		Scopes      optional[[]string] `json:"scopes"`
		Credentials *credentialsIn     `json:"credentials"`
		Custom      *customIn          `json:"custom_provider"`
	}
	if _, err := decode(r, &in); err != nil {
		return answer{}, err
	}
	if in.Provider == "" || len(in.Provider) > 60 {
		return answer{}, invalid("provider", "It is the slug of a provider.")
	}
	offer := integration.Offer{Slug: in.Provider, Enabled: in.Enabled, Config: in.Config}
	var err error
	if offer.Ownership, err = ownership(in.Ownership, integration.Users); err != nil {
		return answer{}, err
	}
	if len(in.AuthMethods) > 1 {
		return answer{}, invalid("auth_methods", "A provider has one of them.")
	}
	if len(in.AuthMethods) == 1 {
		if offer.Auth, err = authOf(in.AuthMethods[0]); err != nil {
			return answer{}, err
		}
	}
	if offer.Client, err = in.Credentials.client(); err != nil {
		return answer{}, err
	}
	if in.Description.value != nil {
		offer.Description = *in.Description.value
	}
	if in.Scopes.value != nil {
		offer.Scopes = *in.Scopes.value
	}
	if in.Custom != nil {
		if err := in.Custom.check(); err != nil {
			return answer{}, err
		}
		c := in.Custom.onto(provider.Custom{Slug: in.Provider, SecretInBody: true})
		offer.Custom, offer.ScopesRequired = &c, in.Custom.ScopesRequired != nil && *in.Custom.ScopesRequired
	}
	i, err := s.integrations.Create(ctx, by, offer)
	if err != nil {
		return answer{}, unprocessable{err}
	}
	return s.withKey(ctx, by, http.StatusCreated, i, in.APIKey)
}

func (s *Server) getIntegration(o integration.Ownership) productHandler {
	return func(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
		i, err := s.integrations.Get(ctx, by, r.PathValue("slug"), o)
		return answer{http.StatusOK, s.integrationOf(i)}, err
	}
}

func (s *Server) updateIntegration(o integration.Ownership) productHandler {
	return func(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
		var in struct {
			Description optional[string]   `json:"description"`
			Enabled     *bool              `json:"enabled"`
			Scopes      optional[[]string] `json:"scopes"`
			APIKey      *keyIn             `json:"api_key"`
			Credentials *credentialsIn     `json:"credentials"`
			Custom      *customIn          `json:"custom_provider"`
		}
		if _, err := decode(r, &in); err != nil {
			return answer{}, err
		}
		c := integration.Change{Enabled: in.Enabled}
		if in.Description.given {
			text := ""
			if in.Description.value != nil {
				text = *in.Description.value
			}
			c.Description = &text
		}
		if in.Scopes.given {
			var list []string
			if in.Scopes.value != nil {
				list = append([]string{}, *in.Scopes.value...)
			}
			c.Scopes = &list
		}
		var err error
		if c.Client, err = in.Credentials.client(); err != nil {
			return answer{}, err
		}
		if in.Custom != nil {
			if err := in.Custom.check(); err != nil {
				return answer{}, err
			}
			c.Custom, c.Required = in.Custom.onto, in.Custom.ScopesRequired
		}
		i, err := s.integrations.Update(ctx, by, r.PathValue("slug"), o, c)
		if err != nil {
			return answer{}, unprocessable{err}
		}
		return s.withKey(ctx, by, http.StatusOK, i, in.APIKey)
	}
}

func (s *Server) deleteIntegration(o integration.Ownership) productHandler {
	return func(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
		return answer{status: http.StatusNoContent}, s.integrations.Delete(ctx, by, r.PathValue("slug"), o)
	}
}

func (s *Server) listIntegrations(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
	q := r.URL.Query()
	f := integration.Filter{After: q.Get("after"), Before: q.Get("before"), Limit: 10}
	var err error
	if f.Ownership, err = ownership(q.Get("ownership"), ""); err != nil {
		return answer{}, err
	}
	switch q.Get("order") {
	case "", "normal", "desc":
	case "asc":
		f.Oldest = true
	default:
		return answer{}, invalid("order", "It is normal, asc or desc.")
	}
	if v := q.Get("limit"); v != "" {
		if f.Limit, err = strconv.Atoi(v); err != nil || f.Limit < 1 || f.Limit > 100 {
			return answer{}, invalid("limit", "It is 1 to 100.")
		}
	}
	page, err := s.integrations.List(ctx, by, f)
	if err != nil {
		return answer{}, unprocessable{err}
	}
	out := listOf[integrationOut](len(page.Integrations))
	for _, i := range page.Integrations {
		out.Data = append(out.Data, s.integrationOf(i))
	}
	out.Metadata = &listMetadata{cursorOf(page.Before), cursorOf(page.Next)}
	return answer{http.StatusOK, out}, nil
}

// list is a list of the wire.
type list[T any] struct {
	Object   string        `json:"object"`
	Data     []T           `json:"data"`
	Metadata *listMetadata `json:"list_metadata,omitempty"`
}

func listOf[T any](n int) list[T] { return list[T]{Object: "list", Data: make([]T, 0, n)} }

// integrationOut is a data integration of the wire. No part of a secret is ever
// shown, so that what would be its last characters is null.
type integrationOut struct {
	Object       string            `json:"object"`
	ID           string            `json:"id"`
	Slug         string            `json:"slug"`
	Type         string            `json:"integration_type"`
	Ownership    string            `json:"ownership"`
	Description  *string           `json:"description"`
	Enabled      bool              `json:"enabled"`
	State        string            `json:"state"`
	Scopes       []string          `json:"scopes"`
	RedirectURI  string            `json:"redirect_uri"`
	AuthMethods  []string          `json:"auth_methods"`
	Credentials  *clientOut        `json:"credentials"`
	Installation *installationOut  `json:"installation"`
	Config       map[string]string `json:"config"`
	Custom       *customOut        `json:"custom_provider"`
	Created      string            `json:"created_at"`
	Updated      string            `json:"updated_at"`
}

type clientOut struct {
	Type   string  `json:"type"`
	ID     *string `json:"client_id"`
	Secret *string `json:"redacted_client_secret"`
}

type customOut struct {
	Name             string            `json:"name"`
	AuthorizationURL string            `json:"authorization_url"`
	TokenURL         string            `json:"token_url"`
	RefreshURL       *string           `json:"refresh_token_url"`
	PKCE             bool              `json:"pkce_enabled"`
	Separator        string            `json:"request_scope_separator"`
	ScopesRequired   bool              `json:"scopes_required"`
	SecretRequired   bool              `json:"client_secret_required"`
	Params           map[string]string `json:"additional_authorization_parameters"`
	ContentType      string            `json:"token_body_content_type"`
	Via              string            `json:"authenticate_via"`
}

func wireID(i integration.Integration) string {
	if i.ID != "" {
		return string(i.ID)
	}
	return string(i.Environment) + "/" + i.Provider.Record.ID
}

func (s *Server) integrationOf(i integration.Integration) integrationOut {
	r := i.Provider.Record
	out := integrationOut{Object: "data_integration", ID: wireID(i), Slug: i.Slug(), Type: i.Slug(), Ownership: string(i.Ownership), Description: cursorOf(i.Description),
		Enabled: i.Enabled, State: "valid", Scopes: i.Scopes, RedirectURI: s.redirectURI(i.Environment, r.ID, ""), AuthMethods: []string{methodOf(r.Auth)},
		Config: map[string]string{}, Created: stamp(i.CreatedAt), Updated: stamp(i.UpdatedAt)}
	if !i.Usable() {
		out.State = "invalid"
	}
	if r.Auth == provider.OAuth2 {
		out.Credentials = &clientOut{Type: i.Clients, ID: cursorOf(i.Provider.ClientID)}
	}
	if _, err := provider.FindEntry(i.Slug()); err != nil && r.Auth == provider.OAuth2 && !i.Provider.Builtin {
		out.Custom = customOf(i)
	}
	return out
}

func customOf(i integration.Integration) *customOut {
	c := provider.CustomOf(i.Provider.Record)
	out := &customOut{Name: c.Name, AuthorizationURL: c.AuthorizeURL, TokenURL: c.TokenURL, RefreshURL: cursorOf(c.RefreshURL), PKCE: !c.NoPKCE, Separator: c.Separator,
		ScopesRequired: i.ScopesRequired, SecretRequired: !c.NoSecret, Params: c.Params, ContentType: "application/x-www-form-urlencoded", Via: "basic_auth_header"}
	if c.JSON {
		out.ContentType = "application/json"
	}
	if c.SecretInBody || c.NoSecret {
		out.Via = "request_body"
	}
	if out.Params == nil {
		out.Params = map[string]string{}
	}
	return out
}

// redirectURI is what the developer registers at the provider, or an organization for
// a client of its own.
func (s *Server) redirectURI(env id.Environment, slug string, of id.Organization) string {
	return s.public.JoinPath(credential.OwnCallbackPath(env, slug, of)).String()
}

// keyIn is an API key for somebody, as one is given with an integration.
type keyIn struct {
	Secret       text   `json:"secret"`
	User         string `json:"user_id"`
	Organization string `json:"organization_id"`
}

const minKey = 5

// withKey answers with an integration, after its own key is installed if one came.
func (s *Server) withKey(ctx context.Context, by account.Actor, status int, i integration.Integration, key *keyIn) (answer, error) {
	out := s.integrationOf(i)
	if key != nil {
		var err error
		if out.Installation, err = s.installKey(ctx, by, i, *key); err != nil {
			return answer{}, err
		}
	}
	return answer{status, out}, nil
}

func (s *Server) installKey(ctx context.Context, by account.Actor, i integration.Integration, in keyIn) (*installationOut, error) {
	if in.Secret.value.Len() < minKey {
		return nil, invalid("api_key.secret", "It has at least 5 characters.")
	}
	aim := integration.Aim{Slug: i.Slug(), Ownership: i.Ownership, Names: integration.Names{User: in.User, Organization: in.Organization}}
	_, c, err := s.integrations.PutKey(ctx, by, aim, integration.Replace, provider.APIKey, map[string]secret.Value{provider.FieldAPIKey: in.Secret.value}, nil)
	if err != nil {
		return nil, err
	}
	return installationOf(c), nil
}

// flagIn reads a boolean of a query.
func flagIn(q url.Values, name string) (bool, error) {
	switch q.Get(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, invalid(name, "It is true or false.")
}
