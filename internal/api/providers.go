package api

import (
	"context"
	"net/http"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/provider"
)

// Provider is a third party that connections can be made with.
type Provider struct {
	ID               string         `json:"id"`
	Name             string         `json:"name"`
	Website          string         `json:"website"`
	Auth             string         `json:"auth" enum:"oauth2,api_key,client_credentials,jwt,jwt_bearer,github_app,aws_assume_role,database,none"`
	Builtin          bool           `json:"builtin"`
	Confidence       string         `json:"confidence,omitempty" enum:"high,medium,low" doc:"How sure the facts of the record are; absent when it does not say."`
	TriedLive        string         `json:"tried_live,omitempty" doc:"The day on which the record was tried with the provider itself; absent: not yet, or not said."`
	ClientID         string         `json:"client_id,omitempty" doc:"Of the OAuth client at the provider."`
	HasClientSecret  bool           `json:"has_client_secret"`
	CredentialFields []string       `json:"credential_fields,omitempty" nullable:"false" doc:"What connecting with a key takes."`
	Tenant           []TenantParam  `json:"tenant,omitempty" nullable:"false" doc:"What a person chooses of the provider's addresses when they connect."`
	Tools            []ProviderTool `json:"tools" nullable:"false"`
	YAML             string         `json:"yaml,omitempty" doc:"The record. Not in lists."`
	UpdatedAt        time.Time      `json:"updated_at,omitzero"`
	Version          int64          `json:"version" doc:"0: built in."`
}

// TenantParam is one part of a provider's addresses that differs by customer.
type TenantParam struct {
	Name    string   `json:"name"`
	Title   string   `json:"title"`
	Help    string   `json:"help,omitempty"`
	Pattern string   `json:"pattern,omitempty" doc:"A regular expression that all of the value matches."`
	Options []string `json:"options,omitempty" nullable:"false" doc:"Or the values that there are."`
	Default string   `json:"default,omitempty"`
	Example string   `json:"example,omitempty"`
}

// ProviderTool is one operation of a provider.
type ProviderTool struct {
	Name        string   `json:"name"`
	Title       string   `json:"title"`
	Description string   `json:"description"`
	Effect      string   `json:"effect" enum:"read,write,destructive,access"`
	Scopes      []string `json:"scopes,omitempty" nullable:"false"`
	Generic     bool     `json:"generic,omitempty"`
}

// CatalogEntry is a provider that the catalogue knows.
type CatalogEntry struct {
	ID         string          `json:"id" doc:"Fills in as a template of this id."`
	Name       string          `json:"name"`
	Slug       string          `json:"slug" doc:"On the wire of WorkOS' Pipes."`
	Category   string          `json:"category"`
	Website    string          `json:"website"`
	Auth       string          `json:"auth" enum:"oauth2,api_key,client_credentials,jwt,jwt_bearer,github_app,aws_assume_role,database,none"`
	Confidence string          `json:"confidence" enum:"high,medium,low" doc:"Of its facts."`
	Tried      string          `json:"tried" doc:"Whether it was tried with the provider itself, in words."`
	Hosts      []string        `json:"hosts" nullable:"false" doc:"Where what a connection holds goes, with the examples of its parameters."`
	Tools      int             `json:"tools"`
	Docs       []string        `json:"docs,omitempty" nullable:"false"`
	Notes      []string        `json:"notes,omitempty" nullable:"false"`
	Params     []TemplateParam `json:"params" nullable:"false"`
}

func catalogEntryOf(e provider.Entry) CatalogEntry {
	r := e.Shown
	return CatalogEntry{ID: e.ID, Name: e.Name, Slug: r.Wire(), Category: e.Category, Website: r.Website, Auth: string(r.Auth), Confidence: r.About.Confidence,
		Tried: e.Tried(), Hosts: r.Hosts(), Tools: len(r.Tools()), Docs: r.About.Docs, Notes: r.About.Notes, Params: templateOf(e.Template).Params}
}

// Template is a provider record with blanks.
type Template struct {
	ID          string          `json:"id"`
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Params      []TemplateParam `json:"params" nullable:"false"`
}

// TemplateParam is one blank of a template.
type TemplateParam struct {
	Name     string `json:"name"`
	Title    string `json:"title"`
	Help     string `json:"help"`
	Kind     string `json:"kind" enum:"text,slug,bool,words,lines"`
	Default  string `json:"default"`
	Required bool   `json:"required"`

	Pattern string   `json:"pattern,omitempty" doc:"A regular expression that all of the value matches."`
	Options []string `json:"options,omitempty" nullable:"false"`
	Example string   `json:"example,omitempty"`
}

// Lint is what a check of a record found.
type Lint struct {
	Valid    bool            `json:"valid"`
	ID       string          `json:"id,omitempty" doc:"Of the record, when it is valid."`
	Problems []RecordProblem `json:"problems" nullable:"false" doc:"All of them up to 100, in the order of the text."`
}

// RecordProblem is one thing that is wrong with a record.
type RecordProblem struct {
	Field   string `json:"field,omitempty" doc:"Such as tools[2].request.path; absent for the text as a whole."`
	Line    int    `json:"line,omitempty" doc:"From 1."`
	Column  int    `json:"column,omitempty" doc:"From 1."`
	Message string `json:"message"`
	Fix     string `json:"fix" doc:"What to do."`
}

// RecordText is a provider record.
type RecordText struct {
	YAML string `json:"yaml"`
}

func providerOf(p provider.Provider) Provider {
	out := Provider{ID: p.Record.ID, Name: p.Record.Name, Website: p.Record.Website, Auth: string(p.Record.Auth), Builtin: p.Builtin, ClientID: p.ClientID,
		Confidence: p.Record.About.Confidence, TriedLive: p.Record.About.Tried, HasClientSecret: p.HasClientSecret, Tools: []ProviderTool{}, UpdatedAt: p.UpdatedAt, Version: p.Version}
	if p.Record.Auth != provider.OAuth2 {
		out.CredentialFields = p.Record.CredentialFields()
	}
	for _, t := range p.Record.Tenant {
		out.Tenant = append(out.Tenant, TenantParam(t))
	}
	for _, t := range p.Record.Tools() {
		out.Tools = append(out.Tools, ProviderTool{Name: t.Name, Title: t.Title, Description: t.Description, Effect: string(t.Effect), Scopes: t.Scopes, Generic: t.Generic})
	}
	return out
}

func wholeProvider(p provider.Provider) Provider {
	out := providerOf(p)
	out.YAML = string(p.Record.Source())
	return out
}

func templateOf(t provider.Template) Template {
	out := Template{ID: t.ID, Name: t.Name, Description: t.Description, Params: []TemplateParam{}}
	for _, p := range t.Params {
		out.Params = append(out.Params, TemplateParam(p))
	}
	return out
}

type providerInput struct {
	Caller
	Provider string `path:"provider"`
}

type putProviderInput struct {
	Caller
	Provider string `path:"provider"`
	Body     struct {
		YAML         string `json:"yaml" maxLength:"262144" doc:"The record. Its id is the one in the path."`
		ClientID     string `json:"client_id,omitempty" maxLength:"500" doc:"Of the OAuth client at the provider."`
		ClientSecret Hidden `json:"client_secret,omitzero" doc:"Left out, the stored one stays."`
		ClientFor    string `json:"client_for,omitempty" doc:"Whom to sign in with it: an organization's id, all, or none. Left out: as it is, and at first the operator's organization."`
		AcceptShared bool   `json:"accept_shared_client,omitempty" doc:"With client_for: all. You know what one client for all organizations means (docs/connect.md)."`
		IfVersion    int64  `json:"if_version,omitempty" doc:"Refuse unless this is the stored version."`
	}
}

type lintInput struct {
	Caller
	Body struct {
		YAML string `json:"yaml" maxLength:"262144"`
	}
}

type fillInput struct {
	Caller
	Template string `path:"template"`
	Body     struct {
		Params map[string]string `json:"params"`
	}
}

func (a *API) providerRoutes() {
	read := rules{anyOf: []account.Scope{account.ScopeConnectionsRead, account.ScopeAgentsRead, account.ScopeProvidersWrite}}
	write := rules{scopes: []account.Scope{account.ScopeProvidersWrite}}
	handle(a, route{id: "list-providers", method: http.MethodGet, path: "/v1/providers", tag: "providers", summary: "List the providers of the environment", rules: read}, a.providers)
	handle(a, route{id: "get-provider", method: http.MethodGet, path: "/v1/providers/{provider}", tag: "providers", summary: "Read a provider with its record", rules: read}, a.provider)
	handle(a, route{id: "put-provider", method: http.MethodPut, path: "/v1/providers/{provider}", tag: "providers", summary: "Add or replace a provider",
		detail: "Connections that exist keep the record they were made with. A person hands the record in; it counts once they confirm it in the browser, at the page that the refusal names.",
		rules:  write, conflicts: true}, a.putProvider)
	act(a, route{id: "delete-provider", method: http.MethodDelete, path: "/v1/providers/{provider}", tag: "providers", summary: "Remove a provider without live connections",
		rules: write, conflicts: true}, a.deleteProvider)
	handle(a, route{id: "lint-provider", method: http.MethodPost, path: "/v1/providers/lint", tag: "providers", summary: "Check a record and store nothing", rules: read}, a.lintProvider)
	a.importRoutes()
	a.mcpRoutes()
	a.hookRoutes()
	a.clientRoutes()
	handle(a, route{id: "list-provider-templates", method: http.MethodGet, path: "/v1/provider-templates", tag: "providers", summary: "List records with blanks", rules: read}, a.templates)
	handle(a, route{id: "list-provider-catalog", method: http.MethodGet, path: "/v1/provider-catalog", tag: "providers", summary: "Search the providers that Ambit knows", rules: read}, a.catalog)
	handle(a, route{id: "fill-provider-template", method: http.MethodPost, path: "/v1/provider-templates/{template}/fill", tag: "providers", summary: "Make a record of a template",
		detail: "Takes entries of the catalogue, too. It is given back and not stored.", rules: read}, a.fillTemplate)
}

func (a *API) providers(ctx context.Context, by account.Actor, in *pagingInput) (Page[Provider], error) {
	all, err := a.cfg.Providers.List(ctx, by.Environment())
	if err != nil {
		return Page[Provider]{}, err
	}
	return window(all, in.Paging, func(p provider.Provider) string { return p.Record.ID }, providerOf), nil
}

func (a *API) provider(ctx context.Context, by account.Actor, in *providerInput) (Provider, error) {
	p, err := a.cfg.Providers.Get(ctx, by.Environment(), in.Provider)
	if err != nil {
		return Provider{}, err
	}
	return wholeProvider(p), nil
}

func (a *API) putProvider(ctx context.Context, by account.Actor, in *putProviderInput) (Provider, error) {
	rec, err := provider.Parse([]byte(in.Body.YAML))
	if err != nil {
		return Provider{}, err
	}
	if rec.ID != in.Provider {
		return Provider{}, fault.New(fault.Invalid, "id_differs", "The record's id is not the one in the path.").WithHint("Put it at /v1/providers/" + rec.ID + ".")
	}
	put := provider.Input{YAML: []byte(in.Body.YAML), ClientID: in.Body.ClientID, ClientSecret: in.Body.ClientSecret.Value, IfVersion: in.Body.IfVersion,
		For: provider.Audience(in.Body.ClientFor), AcceptShared: in.Body.AcceptShared}
	return a.put(ctx, by, put, "The record is handed in. It counts once you confirm it with your passkey.")
}

// put hands a record in, of a person, or puts it.
func (a *API) put(ctx context.Context, by account.Actor, in provider.Input, why string) (Provider, error) {
	p, err := a.handIn(ctx, by, in, why)
	if err != nil {
		return Provider{}, err
	}
	return wholeProvider(p), nil
}

// handIn keeps what a person would change of a provider, which they confirm in the
// browser, and changes it for an application.
func (a *API) handIn(ctx context.Context, by account.Actor, in provider.Input, why string) (provider.Provider, error) {
	if _, person := by.Person(); !person {
		return a.cfg.Providers.Put(ctx, by, in, account.Agreement{})
	}
	d, err := a.cfg.Providers.Draft(ctx, by, in, "")
	if err != nil {
		return provider.Provider{}, err
	}
	return provider.Provider{}, a.browserRequired("/ui/drafts/"+string(d.ID), why)
}

func (a *API) deleteProvider(ctx context.Context, by account.Actor, in *providerInput) error {
	return a.cfg.Providers.Delete(ctx, by, in.Provider)
}

func (a *API) lintProvider(_ context.Context, _ account.Actor, in *lintInput) (Lint, error) {
	rec, err := provider.Parse([]byte(in.Body.YAML))
	if err == nil {
		return Lint{Valid: true, ID: rec.ID, Problems: []RecordProblem{}}, nil
	}
	if kind := fault.KindOf(err); kind != fault.Invalid && kind != fault.TooLarge {
		return Lint{}, err
	}
	var found []RecordProblem
	for _, p := range provider.Problems(err) {
		found = append(found, RecordProblem{Field: p.Field, Line: p.Line, Column: p.Column, Message: p.Message, Fix: p.Fix})
	}
	return Lint{Problems: found}, nil
}

func (a *API) templates(_ context.Context, _ account.Actor, in *pagingInput) (Page[Template], error) {
	return window(a.cfg.Providers.Templates(), in.Paging, func(t provider.Template) string { return t.ID }, templateOf), nil
}

type catalogInput struct {
	Caller
	Paging
	Search string `query:"search" maxLength:"100" doc:"Words that are all in the name, the id or the category."`
}

func (a *API) catalog(_ context.Context, _ account.Actor, in *catalogInput) (Page[CatalogEntry], error) {
	found, err := provider.Search(in.Search)
	if err != nil {
		return Page[CatalogEntry]{}, err
	}
	return window(found, in.Paging, func(e provider.Entry) string { return e.ID }, catalogEntryOf), nil
}

func (a *API) fillTemplate(_ context.Context, _ account.Actor, in *fillInput) (RecordText, error) {
	t, err := a.cfg.Providers.Template(in.Template)
	if err != nil {
		return RecordText{}, err
	}
	rec, err := t.Record(in.Body.Params)
	if err != nil {
		return RecordText{}, err
	}
	return RecordText{YAML: string(rec.Source())}, nil
}
