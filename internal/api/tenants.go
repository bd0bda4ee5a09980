package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
)

// Environment is a hard namespace.
type Environment struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	OperatorID string    `json:"operator_organization_id" doc:"The organization whose owners and admins run the environment."`
	CreatedAt  time.Time `json:"created_at"`
}

// Organization is a tenant of an environment.
type Organization struct {
	ID             string    `json:"id"`
	EnvironmentID  string    `json:"environment_id"`
	Name           string    `json:"name"`
	ExternalID     string    `json:"external_id"`
	RequirePasskey bool      `json:"require_passkey"`
	CreatedAt      time.Time `json:"created_at"`
	Version        int64     `json:"version"`
}

// Member is a user's place in an organization.
type Member struct {
	User
	OrganizationID string `json:"organization_id"`
	Role           string `json:"role"`
}

func environmentOf(e account.Environment) Environment {
	return Environment{ID: string(e.ID), Name: e.Name, OperatorID: string(e.Operator), CreatedAt: e.CreatedAt}
}

func organizationOf(o account.Organization) Organization {
	return Organization{ID: string(o.ID), EnvironmentID: string(o.Environment), Name: o.Name, ExternalID: o.ExternalID, RequirePasskey: o.RequirePasskey,
		CreatedAt: o.CreatedAt, Version: o.Version}
}

func memberOf(m account.Member) Member {
	return Member{User: userOf(m.User), OrganizationID: string(m.Organization), Role: string(m.Role)}
}

type pagingInput struct {
	Caller
	Paging
}

type newEnvironmentInput struct {
	Caller
	Body struct {
		Name string `json:"name" minLength:"1" maxLength:"200"`
	}
}

type newOrganizationInput struct {
	Caller
	Body struct {
		Name       string `json:"name" minLength:"1" maxLength:"200"`
		ExternalID string `json:"external_id,omitempty" maxLength:"200" doc:"The product's own name for it."`
	}
}

type organizationInput struct {
	Caller
	Organization string `path:"organization"`
}

type membersInput struct {
	Caller
	Paging
	Organization string `path:"organization"`
}

type memberInput struct {
	Caller
	Organization string `path:"organization"`
	User         string `path:"user"`
}

// Invited is a user and their sign-in link.
type Invited struct {
	User      User      `json:"user"`
	Link      string    `json:"link" doc:"Shown once. Whoever opens it first becomes this user."`
	ExpiresAt time.Time `json:"expires_at"`
}

type firstOwnerInput struct {
	Caller
	Organization string `path:"organization"`
	Body         struct {
		Name       string `json:"name" minLength:"1" maxLength:"200"`
		Email      string `json:"email" minLength:"3" maxLength:"254"`
		ExternalID string `json:"external_id,omitempty" maxLength:"200" doc:"The product's own name for them."`
	}
}

type setMemberInput struct {
	Caller
	Organization string `path:"organization"`
	User         string `path:"user"`
	Body         struct {
		Role account.Role `json:"role" enum:"owner,admin,approver,member,auditor"`
	}
}

func (a *API) tenantRoutes() {
	handle(a, route{id: "list-environments", method: http.MethodGet, path: "/v1/environments", tag: "environments", summary: "List the environments that the caller has a part in"}, a.environments)
	handle(a, route{id: "create-environment", method: http.MethodPost, path: "/v1/environments", tag: "environments", summary: "Make an environment and the organization that runs it",
		status: http.StatusCreated, rules: rules{person: true}, conflicts: true}, a.createEnvironment)

	write := rules{scopes: []account.Scope{account.ScopeOrganizationsWrite}}
	handle(a, route{id: "list-organizations", method: http.MethodGet, path: "/v1/organizations", tag: "organizations", summary: "List the organizations that the caller sees",
		rules: rules{anyOf: []account.Scope{account.ScopeAgentsRead, account.ScopeOrganizationsWrite, account.ScopeUsersRead}}}, a.organizations)
	handle(a, route{id: "create-organization", method: http.MethodPost, path: "/v1/organizations", tag: "organizations", summary: "Make an organization",
		status: http.StatusCreated, rules: write, conflicts: true}, a.createOrganization)
	handle(a, route{id: "get-organization", method: http.MethodGet, path: "/v1/organizations/{organization}", tag: "organizations", summary: "Read an organization",
		rules: rules{anyOf: []account.Scope{account.ScopeAgentsRead, account.ScopeOrganizationsWrite, account.ScopeUsersRead}}}, a.getOrganization)

	handle(a, route{id: "list-members", method: http.MethodGet, path: "/v1/organizations/{organization}/members", tag: "organizations", summary: "List the members of an organization",
		rules: rules{scopes: []account.Scope{account.ScopeUsersRead}}}, a.members)
	manage := rules{scopes: []account.Scope{account.ScopeUsersWrite}}
	act(a, route{id: "set-member", method: http.MethodPut, path: "/v1/organizations/{organization}/members/{user}", tag: "organizations",
		summary: "Give a user a role in an organization", detail: "A user who is no member becomes one.", rules: manage, conflicts: true}, a.setMember)
	handle(a, route{id: "invite-first-owner", method: http.MethodPost, path: "/v1/organizations/{organization}/first-owner", tag: "organizations",
		summary: "Make the first owner of an organization, and their sign-in link",
		detail: "For the application that made the organization, with a key for the whole environment. Until the owner has signed in, the same e-mail gets a new link. " +
			"Those who run the environment are told.",
		status: http.StatusCreated, rules: rules{scopes: []account.Scope{account.ScopeOrganizationsWrite, account.ScopeUsersWrite}}, conflicts: true}, a.inviteFirstOwner)
	act(a, route{id: "remove-member", method: http.MethodDelete, path: "/v1/organizations/{organization}/members/{user}", tag: "organizations",
		summary: "Take a user out of an organization", detail: "It ends their logins and what acts for them there.", rules: rules{scopes: manage.scopes, ends: true}, conflicts: true}, a.removeMember)
}

func (a *API) environments(ctx context.Context, by account.Actor, in *pagingInput) (Page[Environment], error) {
	all, err := a.cfg.People.Environments(ctx, by)
	if err != nil {
		return Page[Environment]{}, err
	}
	key := func(e account.Environment) string { return string(e.ID) }
	slices.SortFunc(all, func(x, y account.Environment) int { return strings.Compare(key(x), key(y)) })
	return window(all, in.Paging, key, environmentOf), nil
}

func (a *API) createEnvironment(ctx context.Context, by account.Actor, in *newEnvironmentInput) (Environment, error) {
	e, err := a.cfg.People.CreateEnvironment(ctx, by, in.Body.Name, account.Agreement{})
	return environmentOf(e), err
}

func (a *API) organizations(ctx context.Context, by account.Actor, in *pagingInput) (Page[Organization], error) {
	if err := cursor(new(id.Organization), in.After); err != nil {
		return Page[Organization]{}, err
	}
	rows, next, err := a.cfg.People.Organizations(ctx, by, by.Environment(), account.List{After: in.After, Limit: in.limit()})
	return page(rows, next, organizationOf), err
}

func (a *API) createOrganization(ctx context.Context, by account.Actor, in *newOrganizationInput) (Organization, error) {
	o, err := a.cfg.People.CreateOrganization(ctx, by, by.Environment(), in.Body.Name, in.Body.ExternalID)
	return organizationOf(o), err
}

func (a *API) getOrganization(ctx context.Context, by account.Actor, in *organizationInput) (Organization, error) {
	var org id.Organization
	if err := parseID(&org, in.Organization); err != nil {
		return Organization{}, err
	}
	o, err := a.cfg.People.Organization(ctx, by.Environment(), org)
	if err != nil {
		return Organization{}, err
	}
	if err := a.seesOrganization(by, org); err != nil {
		return Organization{}, err
	}
	return organizationOf(o), nil
}

// seesOrganization says whether by has a part in org or runs its environment.
// The scopes of a key were held against the route.
func (a *API) seesOrganization(by account.Actor, org id.Organization) error {
	absent := fault.New(fault.NotFound, "not_found", "No such organization.")
	if _, person := by.Person(); !person {
		if by.Organization() != "" && by.Organization() != org {
			return absent
		}
		return nil
	}
	if by.May(org, account.View) != nil && by.May("", account.View) != nil {
		return absent
	}
	return nil
}

func (a *API) members(ctx context.Context, by account.Actor, in *membersInput) (Page[Member], error) {
	org, err := a.organization(ctx, by, in.Organization)
	if err != nil {
		return Page[Member]{}, err
	}
	if err := cursor(new(id.User), in.After); err != nil {
		return Page[Member]{}, err
	}
	rows, next, err := a.cfg.People.Members(ctx, by, org, account.List{After: in.After, Limit: in.limit()})
	return page(rows, next, memberOf), err
}

func (a *API) setMember(ctx context.Context, by account.Actor, in *setMemberInput) error {
	org, user, err := a.member(ctx, by, in.Organization, in.User)
	if err != nil {
		return err
	}
	err = a.cfg.People.SetRole(ctx, by, org, user, in.Body.Role, account.Agreement{})
	if fault.Is(err, "not_found") {
		err = a.cfg.People.AddMember(ctx, by, org, user, in.Body.Role, account.Agreement{})
	}
	return err
}

func (a *API) inviteFirstOwner(ctx context.Context, by account.Actor, in *firstOwnerInput) (Invited, error) {
	org, err := a.organization(ctx, by, in.Organization)
	if err != nil {
		return Invited{}, err
	}
	n := account.NewUser{Environment: by.Environment(), Organization: org, Role: account.RoleOwner, Name: in.Body.Name, Email: in.Body.Email, ExternalID: in.Body.ExternalID}
	if _, person := by.Person(); person {
		_, err := a.cfg.People.CreateUser(ctx, by, n, account.Agreement{}) // which needs their agreement
		return Invited{}, err
	}
	u, link, err := a.cfg.People.InviteFirstOwner(ctx, by, org, n)
	if err != nil {
		return Invited{}, err
	}
	return Invited{User: userOf(u), Link: once(link), ExpiresAt: a.now().Add(account.LinkAge).UTC().Truncate(time.Second)}, nil
}

func (a *API) removeMember(ctx context.Context, by account.Actor, in *memberInput) error {
	var org id.Organization
	var user id.User
	if err := parseID(&org, in.Organization); err != nil {
		return err
	}
	if err := parseID(&user, in.User); err != nil {
		return err
	}
	if _, err := a.cfg.People.Urgently().Organization(ctx, by.Environment(), org); err != nil {
		return err
	}
	return a.cfg.People.RemoveMember(ctx, by, org, user, account.Agreement{})
}

func (a *API) member(ctx context.Context, by account.Actor, organization, member string) (org id.Organization, user id.User, err error) {
	if org, err = a.organization(ctx, by, organization); err != nil {
		return "", "", err
	}
	err = parseID(&user, member)
	return org, user, err
}
