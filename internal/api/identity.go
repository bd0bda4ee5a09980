package api

import (
	"context"
	"net/http"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/id"
)

// IdentityProvider is where the members of an organization may sign in.
type IdentityProvider struct {
	ID             string    `json:"id"`
	OrganizationID string    `json:"organization_id"`
	Name           string    `json:"name"`
	Issuer         string    `json:"issuer"`
	ClientID       string    `json:"client_id"`
	Admits         bool      `json:"admits" doc:"Whoever signs in there for the first time becomes a member."`
	SignInURL      string    `json:"sign_in_url" doc:"Where members begin."`
	RedirectURL    string    `json:"redirect_url" doc:"What the provider is told to send people back to."`
	CreatedAt      time.Time `json:"created_at"`
	Version        int64     `json:"version"`
}

func (a *API) identityProviderOf(i account.IdentityProvider) IdentityProvider {
	return IdentityProvider{ID: string(i.ID), OrganizationID: string(i.Organization), Name: i.Name, Issuer: i.Issuer, ClientID: i.ClientID, Admits: i.Admits,
		SignInURL: a.cfg.People.SignInAddress(i.ID), RedirectURL: a.cfg.People.ReturnAddress(i.ID), CreatedAt: i.CreatedAt, Version: i.Version}
}

type newIdentityProviderInput struct {
	Caller
	Organization string `path:"organization"`
	Body         struct {
		Name     string `json:"name" minLength:"1" maxLength:"200"`
		Issuer   string `json:"issuer" minLength:"1" maxLength:"500"`
		ClientID string `json:"client_id" minLength:"1" maxLength:"300"`
		Admits   bool   `json:"admits,omitempty" doc:"Whoever signs in there for the first time becomes a member."`
	}
}

type identityProviderInput struct {
	Caller
	IdentityProvider string `path:"identity_provider"`
}

func (a *API) identityRoutes() {
	handle(a, route{id: "list-identity-providers", method: http.MethodGet, path: "/v1/organizations/{organization}/identity-providers", tag: "organizations",
		summary: "List where the members of an organization may sign in", rules: rules{scopes: []account.Scope{account.ScopeUsersWrite}}}, a.identityProviders)
	handle(a, route{id: "create-identity-provider", method: http.MethodPost, path: "/v1/organizations/{organization}/identity-providers", tag: "organizations",
		summary: "Let members sign in at an OpenID provider", detail: "An owner does this in the browser: the answer names the page, with the form filled in but for the client secret.",
		status: http.StatusCreated, rules: rules{person: true}, conflicts: true}, a.createIdentityProvider)
	act(a, route{id: "delete-identity-provider", method: http.MethodDelete, path: "/v1/identity-providers/{identity_provider}", tag: "organizations",
		summary: "End sign-ins at an OpenID provider", detail: "Whoever signed in there is signed out.", rules: rules{person: true, ends: true}, conflicts: true}, a.deleteIdentityProvider)
}

func (a *API) identityProviders(ctx context.Context, by account.Actor, in *organizationInput) (Page[IdentityProvider], error) {
	org, err := a.organization(ctx, by, in.Organization)
	if err != nil {
		return Page[IdentityProvider]{}, err
	}
	list, err := a.cfg.People.IdentityProviders(ctx, by, org)
	return page(list, "", a.identityProviderOf), err
}

func (a *API) createIdentityProvider(ctx context.Context, by account.Actor, in *newIdentityProviderInput) (IdentityProvider, error) {
	org, err := a.organization(ctx, by, in.Organization)
	if err != nil {
		return IdentityProvider{}, err
	}
	b := in.Body
	i, err := a.cfg.People.AddIdentityProvider(ctx, by, org, account.NewIdentityProvider{Name: b.Name, Issuer: b.Issuer, ClientID: b.ClientID, Admits: b.Admits}, account.Asking())
	return a.identityProviderOf(i), err
}

func (a *API) deleteIdentityProvider(ctx context.Context, by account.Actor, in *identityProviderInput) error {
	var i id.IdentityProvider
	if err := parseID(&i, in.IdentityProvider); err != nil {
		return err
	}
	return a.cfg.People.RemoveIdentityProvider(ctx, by, i)
}
