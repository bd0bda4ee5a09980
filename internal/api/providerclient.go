package api

import (
	"context"
	"net/http"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/provider"
)

// ProviderClient is an OAuth client of ours at a provider.
type ProviderClient struct {
	OrganizationID string    `json:"organization_id,omitempty" doc:"Whose own it is. Absent: the environment's."`
	ClientID       string    `json:"client_id"`
	HasSecret      bool      `json:"has_client_secret"`
	For            string    `json:"for" doc:"Who is signed in with it: an organization's id, all, or none."`
	OldSecretUntil time.Time `json:"old_secret_until,omitzero" doc:"Until when the secret that was replaced counts as well."`
	Stale          bool      `json:"stale" doc:"The provider's addresses have changed since it was stored. It is not sent there; give it again."`
	RedirectURI    string    `json:"redirect_uri" doc:"To register at the provider."`
	UpdatedAt      time.Time `json:"updated_at"`
	Version        int64     `json:"version"`
}

// ProviderClients are those at one provider.
type ProviderClients struct {
	Data []ProviderClient `json:"data" nullable:"false"`
}

type putClientInput struct {
	Caller
	Provider string `path:"provider"`
	Body     struct {
		OrganizationID string `json:"organization_id,omitempty" doc:"Whose own client. Left out: the environment's, or that of the organization of an API key that has one."`
		ClientID       string `json:"client_id,omitempty" maxLength:"500" doc:"Left out: the one that is there."`
		ClientSecret   Hidden `json:"client_secret,omitzero" doc:"Left out, the stored one stays. Of the same client the one before counts as well for a while."`
		For            string `json:"for,omitempty" doc:"Of the environment's client: whom to sign in with it from now on. An organization's id, all, or none. Left out: as it is, and at first the operator's organization."`
		AcceptShared   bool   `json:"accept_shared_client,omitempty" doc:"With for: all. You know what one client for all organizations means (docs/connect.md)."`
		Overlap        *int64 `json:"overlap_seconds,omitempty" minimum:"0" maximum:"2592000" doc:"How long the replaced secret counts as well; default a day. 0 ends it at once."`
		IfVersion      int64  `json:"if_version,omitempty" doc:"Refuse unless this is the stored version."`
	}
}

type dropClientInput struct {
	Caller
	Provider       string `path:"provider"`
	OrganizationID string `query:"organization_id" doc:"Whose own client. Left out: that of the organization of the API key."`
}

func (a *API) clientRoutes() {
	write := rules{scopes: []account.Scope{account.ScopeProvidersWrite}}
	handle(a, route{id: "list-provider-clients", method: http.MethodGet, path: "/v1/providers/{provider}/clients", tag: "providers", summary: "List our OAuth clients at a provider", rules: write}, a.providerClients)
	handle(a, route{id: "put-provider-client", method: http.MethodPut, path: "/v1/providers/{provider}/client", tag: "providers", summary: "Set an OAuth client, or rotate its secret",
		detail: "A new secret counts at once, for all that is connected; another client counts for who connects from then on. A person confirms it in the browser, at the page that the refusal names.",
		rules:  write, conflicts: true}, a.putProviderClient)
	act(a, route{id: "delete-provider-client", method: http.MethodDelete, path: "/v1/providers/{provider}/client", tag: "providers", summary: "Remove an organization's own OAuth client",
		detail: "What was connected with it cannot be renewed any more.", rules: write}, a.deleteProviderClient)
}

func (a *API) clientsOf(ctx context.Context, by account.Actor, slug string) ([]ProviderClient, error) {
	list, err := a.cfg.Providers.Clients(ctx, by, slug)
	out := []ProviderClient{}
	for _, c := range list {
		out = append(out, ProviderClient{OrganizationID: string(c.Organization), ClientID: c.ID, HasSecret: c.HasSecret, For: string(c.For), OldSecretUntil: c.OldSecretUntil, Stale: c.Stale,
			RedirectURI: a.cfg.PublicURL.JoinPath(credential.OwnCallbackPath(by.Environment(), slug, c.Organization)).String(), UpdatedAt: c.UpdatedAt, Version: c.Version})
	}
	return out, err
}

func (a *API) providerClients(ctx context.Context, by account.Actor, in *providerInput) (ProviderClients, error) {
	list, err := a.clientsOf(ctx, by, in.Provider)
	return ProviderClients{Data: list}, err
}

func (a *API) putProviderClient(ctx context.Context, by account.Actor, in *putClientInput) (ProviderClient, error) {
	org := by.Organization()
	if in.Body.OrganizationID != "" {
		if err := parseID(&org, in.Body.OrganizationID); err != nil {
			return ProviderClient{}, err
		}
	}
	if err := by.May(org, account.ManageProviders); err != nil { // before a look-up could tell more
		return ProviderClient{}, err
	}
	p, err := a.cfg.Providers.Get(ctx, by.Environment(), in.Provider)
	if err != nil {
		return ProviderClient{}, err
	}
	put := provider.Input{YAML: p.Record.Source(), ClientID: in.Body.ClientID, ClientSecret: in.Body.ClientSecret.Value, Organization: org, For: provider.Audience(in.Body.For),
		AcceptShared: in.Body.AcceptShared, IfVersion: in.Body.IfVersion}
	if in.Body.Overlap != nil {
		d := time.Duration(*in.Body.Overlap) * time.Second
		put.Overlap = &d
	}
	if put.ClientID == "" {
		list, err := a.cfg.Providers.Clients(ctx, by, in.Provider)
		if err != nil {
			return ProviderClient{}, err
		}
		for _, c := range list {
			if c.Organization == org {
				put.ClientID = c.ID
			}
		}
	}
	if _, err := a.handIn(ctx, by, put, "The client is handed in. It counts once you confirm it with your passkey."); err != nil {
		return ProviderClient{}, err
	}
	list, err := a.clientsOf(ctx, by, in.Provider)
	for _, c := range list {
		if c.OrganizationID == string(org) {
			return c, err
		}
	}
	return ProviderClient{}, err
}

func (a *API) deleteProviderClient(ctx context.Context, by account.Actor, in *dropClientInput) error {
	org := by.Organization()
	if in.OrganizationID != "" {
		if err := parseID(&org, in.OrganizationID); err != nil {
			return err
		}
	}
	if org == "" {
		return fault.New(fault.Invalid, "organization_required", "organization_id is missing.").WithHint("The environment's own client goes with its provider; for: none has nobody signed in with it.")
	}
	return a.cfg.Providers.RemoveOwn(ctx, by, in.Provider, org)
}
