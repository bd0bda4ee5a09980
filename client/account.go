package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"
)

// Whoami is who the token belongs to.
type Whoami struct {
	Kind           string       `json:"kind"` // user or api_key
	ID             string       `json:"id"`
	Name           string       `json:"name"`
	Email          string       `json:"email"`
	EnvironmentID  string       `json:"environment_id"`
	OrganizationID string       `json:"organization_id"` // of a key that is confined to one
	Scopes         []string     `json:"scopes"`          // of a key
	LoginID        string       `json:"login_id"`        // of a person
	Memberships    []Membership `json:"memberships"`     // of a person
}

// Membership is a person's place in one organization.
type Membership struct {
	EnvironmentID    string `json:"environment_id"`
	EnvironmentName  string `json:"environment_name"`
	OrganizationID   string `json:"organization_id"`
	OrganizationName string `json:"organization_name"`
	Role             string `json:"role"`
}

// Environment is a hard namespace.
type Environment struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	OperatorID string    `json:"operator_organization_id"` // the organization that runs it
	CreatedAt  time.Time `json:"created_at"`
}

// Organization is a tenant.
type Organization struct {
	ID             string    `json:"id"`
	EnvironmentID  string    `json:"environment_id"`
	Name           string    `json:"name"`
	ExternalID     string    `json:"external_id"`
	RequirePasskey bool      `json:"require_passkey"`
	CreatedAt      time.Time `json:"created_at"`
	Version        int64     `json:"version"`
}

// NewOrganization says which organization to make.
type NewOrganization struct {
	Name       string `json:"name"`
	ExternalID string `json:"external_id,omitempty"`
}

// User is a person.
type User struct {
	ID            string    `json:"id"`
	EnvironmentID string    `json:"environment_id"`
	Email         string    `json:"email"`
	Name          string    `json:"name"`
	ExternalID    string    `json:"external_id"`
	DisabledAt    time.Time `json:"disabled_at,omitzero"`
	CreatedAt     time.Time `json:"created_at"`
	Version       int64     `json:"version"`
}

// NewUser says whom to make. They sign in by a link that an owner makes in the
// web UI.
type NewUser struct {
	Name           string `json:"name"`
	Email          string `json:"email,omitempty"`
	ExternalID     string `json:"external_id,omitempty"`
	OrganizationID string `json:"organization_id,omitempty"`
	Role           string `json:"role,omitempty"` // owner, admin, approver, member (default) or auditor
}

// Invited is a user and their sign-in link, shown once.
type Invited struct {
	User      User      `json:"user"`
	Link      string    `json:"link"` // whoever opens it first becomes the user
	ExpiresAt time.Time `json:"expires_at"`
}

// Member is a user's place in an organization.
type Member struct {
	User
	OrganizationID string `json:"organization_id"`
	Role           string `json:"role"`
}

// IdentityProvider is where the members of an organization may sign in.
type IdentityProvider struct {
	ID             string    `json:"id"`
	OrganizationID string    `json:"organization_id"`
	Name           string    `json:"name"`
	Issuer         string    `json:"issuer"`
	ClientID       string    `json:"client_id"`
	Admits         bool      `json:"admits"`       // whoever signs in there for the first time becomes a member
	SignInURL      string    `json:"sign_in_url"`  // where members begin
	RedirectURL    string    `json:"redirect_url"` // what the provider sends people back to
	CreatedAt      time.Time `json:"created_at"`
	Version        int64     `json:"version"`
}

// NewIdentityProvider says where members may sign in.
type NewIdentityProvider struct {
	Name     string `json:"name"`
	Issuer   string `json:"issuer"`
	ClientID string `json:"client_id"`
	Admits   bool   `json:"admits,omitempty"`
}

// APIKey is an application's key, without its token.
type APIKey struct {
	ID             string       `json:"id"`
	EnvironmentID  string       `json:"environment_id"`
	OrganizationID string       `json:"organization_id"`
	Name           string       `json:"name"`
	Scopes         []string     `json:"scopes"`
	SecretRules    []SecretRule `json:"secret_rules,omitempty"` // empty: all that it can see
	CreatedBy      string       `json:"created_by"`
	CreatedAt      time.Time    `json:"created_at"`
	ExpiresAt      time.Time    `json:"expires_at,omitzero"`
	LastUsedAt     time.Time    `json:"last_used_at,omitzero"`
	RevokedAt      time.Time    `json:"revoked_at,omitzero"`
}

// SecretRule lets an API key do some things (list, read, write, delete) with some
// secrets: those whose name begins with Prefix and whose key context has the items.
type SecretRule struct {
	Verbs   []string          `json:"verbs"`
	Prefix  string            `json:"prefix,omitempty"`
	Context map[string]string `json:"key_context,omitempty"`
}

// CLILogin is a command line that waits to be confirmed by a person.
type CLILogin struct {
	UserCode  string    `json:"user_code"` // to be compared by the person
	URL       string    `json:"url"`       // to be opened by the person
	Poll      string    `json:"poll"`      // secret; for PollLogin
	ExpiresAt time.Time `json:"expires_at"`
	Interval  int       `json:"interval"` // seconds between polls
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
