package api

import (
	"context"
	"net/http"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
)

// User is a person.
type User struct {
	ID            string    `json:"id"`
	EnvironmentID string    `json:"environment_id" doc:"Where the user was made."`
	Email         string    `json:"email"`
	Name          string    `json:"name"`
	ExternalID    string    `json:"external_id"`
	DisabledAt    time.Time `json:"disabled_at,omitzero"`
	CreatedAt     time.Time `json:"created_at"`
	Version       int64     `json:"version"`
}

func userOf(u account.User) User {
	return User{ID: string(u.ID), EnvironmentID: string(u.Environment), Email: u.Email, Name: u.Name, ExternalID: u.ExternalID,
		DisabledAt: u.DisabledAt, CreatedAt: u.CreatedAt, Version: u.Version}
}

type newUserInput struct {
	Caller
	Body struct {
		Name           string       `json:"name" minLength:"1" maxLength:"200"`
		Email          string       `json:"email,omitempty" maxLength:"254"`
		ExternalID     string       `json:"external_id,omitempty" maxLength:"200" doc:"The product's own name for them."`
		OrganizationID string       `json:"organization_id,omitempty"`
		Role           account.Role `json:"role,omitempty" enum:"owner,admin,approver,member,auditor" doc:"In the organization; default member."`
	}
}

type userInput struct {
	Caller
	User string `path:"user"`
}

func (a *API) userRoutes() {
	read := rules{scopes: []account.Scope{account.ScopeUsersRead}}
	write := rules{scopes: []account.Scope{account.ScopeUsersWrite}}
	handle(a, route{id: "list-users", method: http.MethodGet, path: "/v1/users", tag: "users", summary: "List the users of the environment",
		detail: "For those who run it; others list the members of an organization.", rules: read}, a.users)
	handle(a, route{id: "create-user", method: http.MethodPost, path: "/v1/users", tag: "users", summary: "Make a user",
		detail: "They sign in by a link that an owner or admin makes in the browser. A person who gives a role does all of it there.", status: http.StatusCreated, rules: write, conflicts: true}, a.createUser)
	handle(a, route{id: "get-user", method: http.MethodGet, path: "/v1/users/{user}", tag: "users", summary: "Read a user", rules: read}, a.user)
	act(a, route{id: "disable-user", method: http.MethodPost, path: "/v1/users/{user}/disable", tag: "users", summary: "Shut a user out everywhere",
		detail: "It ends their logins and what acts for them.", rules: rules{scopes: write.scopes, ends: true}, conflicts: true}, a.disableUser)
	act(a, route{id: "enable-user", method: http.MethodPost, path: "/v1/users/{user}/enable", tag: "users", summary: "Let a disabled user sign in again", rules: write}, a.enableUser)
}

func (a *API) users(ctx context.Context, by account.Actor, in *pagingInput) (Page[User], error) {
	if err := cursor(new(id.User), in.After); err != nil {
		return Page[User]{}, err
	}
	rows, next, err := a.cfg.People.Users(ctx, by, by.Environment(), account.List{After: in.After, Limit: in.limit()})
	return page(rows, next, userOf), err
}

func (a *API) createUser(ctx context.Context, by account.Actor, in *newUserInput) (User, error) {
	b := in.Body
	org, err := a.organization(ctx, by, b.OrganizationID)
	if err != nil {
		return User{}, err
	}
	u, err := a.cfg.People.CreateUser(ctx, by, account.NewUser{Environment: by.Environment(), Email: b.Email, Name: b.Name, ExternalID: b.ExternalID, Organization: org, Role: b.Role}, account.Agreement{})
	return userOf(u), err
}

// user shows a user to those who see all of the environment, to those who see
// the members of an organization that the user is in, and to the user.
func (a *API) user(ctx context.Context, by account.Actor, in *userInput) (User, error) {
	user, err := a.seenUser(ctx, by, in.User)
	if err != nil {
		return User{}, err
	}
	u, err := a.cfg.People.User(ctx, by.Environment(), user)
	return userOf(u), err
}

func (a *API) seenUser(ctx context.Context, by account.Actor, raw string) (user id.User, err error) {
	if err := parseID(&user, raw); err != nil {
		return "", err
	}
	if user == by.User() || by.May("", account.ViewMembers) == nil {
		return user, nil
	}
	places := []id.Organization{by.Organization()}
	if p, person := by.Person(); person {
		places = nil
		for _, m := range p.Organizations() {
			places = append(places, m.Organization)
		}
	}
	for _, org := range places {
		if org == "" || by.May(org, account.ViewMembers) != nil {
			continue
		}
		in, err := a.cfg.People.Active(ctx, by.Environment(), org, user)
		if err != nil {
			return "", err
		}
		if in {
			return user, nil
		}
	}
	return "", fault.New(fault.NotFound, "not_found", "No such user.")
}

// here reads the id of a user who is seen from the environment in which the
// actor acts.
func (a *API) here(ctx context.Context, by account.Actor, raw string) (user id.User, err error) {
	if err := parseID(&user, raw); err != nil {
		return "", err
	}
	_, err = a.cfg.People.User(ctx, by.Environment(), user)
	return user, err
}

func (a *API) disableUser(ctx context.Context, by account.Actor, in *userInput) error {
	var user id.User
	if err := parseID(&user, in.User); err != nil {
		return err
	}
	if _, err := a.cfg.People.Urgently().User(ctx, by, user); err != nil {
		return err
	}
	return a.cfg.People.DisableUser(ctx, by, user, account.Agreement{})
}

func (a *API) enableUser(ctx context.Context, by account.Actor, in *userInput) error {
	user, err := a.here(ctx, by, in.User)
	if err != nil {
		return err
	}
	return a.cfg.People.EnableUser(ctx, by, user, account.Agreement{})
}
