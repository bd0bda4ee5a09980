package client

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"
)

// ProductAccount names a connected account as a product does that keeps the accounts of
// its users here: by the product's own ids of users and organizations, on the wire of
// WorkOS' Pipes. Users and organizations that are not there yet are made.
type ProductAccount struct {
	Provider     string
	User         string // empty if Shared
	Organization string // may be empty, unless Shared
	Shared       bool   // it is the organization's
}

func (a ProductAccount) path() string {
	if a.Shared {
		return "/organizations/" + url.PathEscape(a.Organization) + "/connected_accounts/" + url.PathEscape(a.Provider)
	}
	return "/user_management/users/" + url.PathEscape(a.User) + "/connected_accounts/" + url.PathEscape(a.Provider)
}

func (a ProductAccount) query() url.Values {
	if a.Shared || a.Organization == "" {
		return nil
	}
	return url.Values{"organization_id": {a.Organization}}
}

// ProductAccountState says whether an account is connected or needs_reauthorization; empty
// if there is none. A provider that is not there is an error.
func (c *Client) ProductAccountState(ctx context.Context, a ProductAccount) (string, error) {
	var out struct {
		State string `json:"state"`
	}
	err := c.do(ctx, get(a.path(), a.query()), &out)
	if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusNotFound && e.Code != "provider_not_found" {
		return "", nil
	}
	return out.State, err
}

// ProductTokens are the tokens of an account that was connected elsewhere.
type ProductTokens struct {
	Access  string
	Refresh string     // may be empty
	Expires *time.Time // nil: not known
	Scopes  []string
	Again   bool // in place of those of an account that is there
}

// ImportProductTokens connects an account with tokens that another system has got. by is
// the user who acts for an organization.
func (c *Client) ImportProductTokens(ctx context.Context, a ProductAccount, by string, t ProductTokens) error {
	body := map[string]any{"access_token": t.Access}
	for name, v := range map[string]string{"refresh_token": t.Refresh, "user_id": by} {
		if v != "" {
			body[name] = v
		}
	}
	if t.Expires != nil {
		body["expires_at"] = t.Expires
	}
	if t.Scopes != nil {
		body["scopes"] = t.Scopes
	}
	method := http.MethodPost
	if t.Again {
		method = http.MethodPut
	}
	return c.do(ctx, call{method: method, path: a.path(), query: a.query(), body: body}, nil)
}

// SetProductKey connects an account with an API key, or gives it another one.
func (c *Client) SetProductKey(ctx context.Context, a ProductAccount, by, key string) error {
	owner := "user"
	if a.Shared {
		owner = "organization"
	}
	body := map[string]any{"user_id": cmp.Or(a.User, by), "connection_owner": owner, "secret": key}
	if a.Organization != "" {
		body["organization_id"] = a.Organization
	}
	return c.do(ctx, call{method: http.MethodPut, path: "/data-integrations/" + url.PathEscape(a.Provider) + "/api-key", body: body, repeat: true}, nil)
}
