package api

import (
	"context"
	"net/http"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/vault"
)

// Secret describes a named secret, without its value.
type Secret struct {
	ID            string            `json:"id"`
	EnvironmentID string            `json:"environment_id"`
	Name          string            `json:"name"`
	Context       map[string]string `json:"key_context" doc:"What chooses the key that seals it."`
	KeyID         string            `json:"key_id"`
	VersionID     string            `json:"version_id"`
	Version       int64             `json:"version"`
	CreatedAt     time.Time         `json:"created_at"`
	UpdatedAt     time.Time         `json:"updated_at"`
	UpdatedBy     AuditActor        `json:"updated_by"`
	UpdatedByName string            `json:"updated_by_name"`
}

func secretOf(o vault.Object) Secret {
	context := o.Context
	if context == nil {
		context = map[string]string{}
	}
	return Secret{ID: string(o.ID), EnvironmentID: string(o.Environment), Name: o.Name, Context: context, KeyID: string(o.KEK), VersionID: o.VersionID,
		Version: o.Version, CreatedAt: o.CreatedAt, UpdatedAt: o.UpdatedAt, UpdatedBy: AuditActor(o.UpdatedBy), UpdatedByName: o.UpdatedByName}
}

type secretsInput struct {
	Caller
	Paging
	OrganizationID string `query:"organization_id"`
	Search         string `query:"search" maxLength:"200" doc:"Part of the name, in any case."`
}

type secretInput struct {
	Caller
	Secret         string `path:"secret"`
	OrganizationID string `query:"organization_id" doc:"Whose it is. Needed by a person who does not run the whole environment."`
}

type newSecretInput struct {
	Caller
	Body struct {
		Name    string            `json:"name" minLength:"1" maxLength:"800"`
		Value   Hidden            `json:"value"`
		Context map[string]string `json:"key_context,omitempty" doc:"With organization_id in it, the secret is that organization's."`
	}
}

type updateSecretInput struct {
	Caller
	Secret         string `path:"secret"`
	OrganizationID string `query:"organization_id" doc:"As in get-secret."`
	Body           struct {
		Value     Hidden `json:"value"`
		VersionID string `json:"version_id,omitempty" maxLength:"64" doc:"Refuse unless this is the current version."`
	}
}

func (a *API) secretRoutes() {
	read := rules{scopes: []account.Scope{account.ScopeVaultRead}}
	write := rules{scopes: []account.Scope{account.ScopeVaultWrite}}
	handle(a, route{id: "list-secrets", method: http.MethodGet, path: "/v1/secrets", tag: "secrets", summary: "List secrets, last updated first, without their values",
		detail: "A page has at most 100.", rules: read}, a.secrets)
	handle(a, route{id: "create-secret", method: http.MethodPost, path: "/v1/secrets", tag: "secrets", summary: "Store a secret", status: http.StatusCreated, rules: write, conflicts: true}, a.createSecret)
	handle(a, route{id: "get-secret", method: http.MethodGet, path: "/v1/secrets/{secret}", tag: "secrets", summary: "Describe a secret, without its value", rules: read}, a.secret)
	handle(a, route{id: "update-secret", method: http.MethodPut, path: "/v1/secrets/{secret}", tag: "secrets", summary: "Store a new value",
		detail: "The versions before it are kept.", rules: write, conflicts: true}, a.updateSecret)
	act(a, route{id: "delete-secret", method: http.MethodDelete, path: "/v1/secrets/{secret}", tag: "secrets", summary: "Remove a secret with all its versions",
		rules: rules{scopes: []account.Scope{account.ScopeVaultDelete}}, conflicts: true}, a.deleteSecret)
}

// vaultCaller is the actor as the vault knows callers, confined to org unless
// that is empty. The vault does not know who may do what: this says it.
func (a *API) vaultCaller(ctx context.Context, by account.Actor, rawOrg string, p account.Permission) (vault.Caller, error) {
	org, err := a.organization(ctx, by, rawOrg)
	if err != nil {
		return vault.Caller{}, err
	}
	err = by.May(org, p)
	if _, person := by.Person(); person && err != nil {
		switch {
		case fault.Is(err, "not_found") && by.May("", p) == nil:
			err = nil // who runs the environment runs its tenants
		case org == "":
			err = fault.Of(err).WithHint("Name an organization of yours as organization_id.")
		}
	}
	if err != nil {
		return vault.Caller{}, err
	}
	return vault.Caller{Actor: by.Audit(), Name: by.Name(), Environment: by.Environment(), Organization: org, Reach: by.Reach(), Address: by.Address()}, nil
}

func (a *API) secretAs(ctx context.Context, by account.Actor, in *secretInput, p account.Permission) (vault.Caller, id.Secret, error) {
	c, err := a.vaultCaller(ctx, by, in.OrganizationID, p)
	if err != nil {
		return c, "", err
	}
	var s id.Secret
	err = parseID(&s, in.Secret)
	return c, s, err
}

func (a *API) secrets(ctx context.Context, by account.Actor, in *secretsInput) (Page[Secret], error) {
	c, err := a.vaultCaller(ctx, by, in.OrganizationID, account.ViewSecrets)
	if err != nil {
		return Page[Secret]{}, err
	}
	p, err := a.cfg.Vault.List(ctx, c, vault.ListOptions{Limit: min(in.limit(), 100), After: in.After, Search: in.Search})
	return page(p.Objects, p.After, secretOf), err
}

func (a *API) createSecret(ctx context.Context, by account.Actor, in *newSecretInput) (Secret, error) {
	c, err := a.vaultCaller(ctx, by, in.Body.Context["organization_id"], account.WriteSecrets)
	if err != nil {
		return Secret{}, err
	}
	o, err := a.cfg.Vault.Create(ctx, c, vault.NewObject{Name: in.Body.Name, Context: in.Body.Context, Value: vault.Value{Secret: in.Body.Value.Value}})
	return secretOf(o), err
}

func (a *API) secret(ctx context.Context, by account.Actor, in *secretInput) (Secret, error) {
	c, s, err := a.secretAs(ctx, by, in, account.ViewSecrets)
	if err != nil {
		return Secret{}, err
	}
	o, err := a.cfg.Vault.Describe(ctx, c, s)
	return secretOf(o), err
}

func (a *API) updateSecret(ctx context.Context, by account.Actor, in *updateSecretInput) (Secret, error) {
	c, s, err := a.secretAs(ctx, by, &secretInput{Secret: in.Secret, OrganizationID: in.OrganizationID}, account.WriteSecrets)
	if err != nil {
		return Secret{}, err
	}
	o, err := a.cfg.Vault.Update(ctx, c, s, vault.Value{Secret: in.Body.Value.Value}, in.Body.VersionID)
	return secretOf(o), err
}

func (a *API) deleteSecret(ctx context.Context, by account.Actor, in *secretInput) error {
	c, s, err := a.secretAs(ctx, by, in, account.DeleteSecrets)
	if err != nil {
		return err
	}
	_, err = a.cfg.Vault.Delete(ctx, c, s, "")
	return err
}
