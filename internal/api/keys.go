package api

import (
	"context"
	"net/http"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/id"
)

// APIKey is an application's key, without its token.
type APIKey struct {
	ID             string          `json:"id"`
	EnvironmentID  string          `json:"environment_id"`
	OrganizationID string          `json:"organization_id,omitempty" doc:"Absent: the whole environment."`
	Name           string          `json:"name"`
	Scopes         []account.Scope `json:"scopes" nullable:"false"`
	Secrets        []SecretRule    `json:"secret_rules,omitempty" doc:"Which secrets the scopes of the vault are for; absent: all that it can see."`
	CreatedBy      string          `json:"created_by"`
	CreatedAt      time.Time       `json:"created_at"`
	ExpiresAt      time.Time       `json:"expires_at,omitzero"`
	LastUsedAt     time.Time       `json:"last_used_at,omitzero" doc:"To the minute."`
	RevokedAt      time.Time       `json:"revoked_at,omitzero"`
}

// SecretRule lets an API key do some things with some secrets.
type SecretRule struct {
	Verbs   []string          `json:"verbs" enum:"list,read,write,delete"`
	Prefix  string            `json:"prefix,omitempty" doc:"Of the secret's name."`
	Context map[string]string `json:"key_context,omitempty" doc:"Items that its key context has."`
}

func keyOf(k account.APIKey) APIKey {
	var rules []SecretRule
	for _, r := range k.Secrets {
		rule := SecretRule{Prefix: r.Prefix, Context: r.Context}
		for _, v := range r.Verbs {
			rule.Verbs = append(rule.Verbs, string(v))
		}
		rules = append(rules, rule)
	}
	return APIKey{Secrets: rules, ID: string(k.ID), EnvironmentID: string(k.Environment), OrganizationID: string(k.Organization), Name: k.Name,
		Scopes: append([]account.Scope{}, k.Scopes...), CreatedBy: k.CreatedBy, CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt, LastUsedAt: k.LastUsedAt, RevokedAt: k.RevokedAt}
}

type keysInput struct {
	Caller
	Paging
	OrganizationID string `query:"organization_id" doc:"Left out: keys of the whole environment."`
}

type keyInput struct {
	Caller
	Key string `path:"key"`
}

func (a *API) keyRoutes() {
	handle(a, route{id: "list-keys", method: http.MethodGet, path: "/v1/keys", tag: "keys", summary: "List API keys, newest first", rules: rules{person: true}}, a.keys)
	act(a, route{id: "create-key", method: http.MethodPost, path: "/v1/keys", tag: "keys", summary: "Always refused: keys are made in the browser",
		detail: "Answers 403 browser_required with the page as url."}, a.createKey)
	act(a, route{id: "delete-key", method: http.MethodDelete, path: "/v1/keys/{key}", tag: "keys", summary: "Revoke an API key at once", rules: rules{person: true, ends: true}}, a.revokeKey)
}

func (a *API) keys(ctx context.Context, by account.Actor, in *keysInput) (Page[APIKey], error) {
	org, err := a.organization(ctx, by, in.OrganizationID)
	if err != nil {
		return Page[APIKey]{}, err
	}
	if err := cursor(new(id.Key), in.After); err != nil {
		return Page[APIKey]{}, err
	}
	rows, next, err := a.cfg.People.Keys(ctx, by, org, account.List{After: in.After, Limit: in.limit()})
	return page(rows, next, keyOf), err
}

func (a *API) createKey(context.Context, account.Actor, *callerInput) error {
	return a.browserRequired("/ui/apikeys/new", "API keys are made by a person, with their passkey.")
}

func (a *API) revokeKey(ctx context.Context, by account.Actor, in *keyInput) error {
	var key id.Key
	if err := parseID(&key, in.Key); err != nil {
		return err
	}
	return a.cfg.People.RevokeKey(ctx, by, key)
}
