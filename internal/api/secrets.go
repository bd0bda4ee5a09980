package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/strictjson"
	"github.com/ambit-dev/ambit/internal/vault"
)

// Secret describes a named secret, without its value.
type Secret struct {
	ID            string            `json:"id"`
	EnvironmentID string            `json:"environment_id"`
	Name          string            `json:"name"`
	Context       map[string]string `json:"key_context" doc:"What chooses the key that seals it."`
	Description   string            `json:"description,omitempty"`
	Tags          []string          `json:"tags" nullable:"false"`
	Metadata      map[string]string `json:"metadata"`
	WriteOnly     bool              `json:"write_only" doc:"For connections; nobody reads its value."`
	KeyID         string            `json:"key_id"`
	VersionID     string            `json:"version_id"`
	Version       int64             `json:"version"`
	Content       string            `json:"content" enum:"text,binary,certificate"`
	Size          int64             `json:"size" doc:"Of the value, in bytes."`
	ExpiresAt     time.Time         `json:"expires_at,omitzero" doc:"From when the value is not handed out."`
	RotateBy      time.Time         `json:"rotate_by,omitzero" doc:"When somebody should have stored a newer value."`
	CreatedAt     time.Time         `json:"created_at"`
	UpdatedAt     time.Time         `json:"updated_at"`
	UpdatedBy     AuditActor        `json:"updated_by"`
	UpdatedByName string            `json:"updated_by_name"`
	DeletedAt     time.Time         `json:"deleted_at,omitzero"`
	PurgeAt       time.Time         `json:"purge_at,omitzero" doc:"Until when it can be taken back."`
}

func secretOf(o vault.Object) Secret {
	return Secret{ID: string(o.ID), EnvironmentID: string(o.Environment), Name: o.Name, Context: notNil(o.Context), Description: o.Description, Tags: append([]string{}, o.Tags...),
		Metadata: notNil(o.Metadata), WriteOnly: o.WriteOnly, KeyID: string(o.KEK), VersionID: o.VersionID, Version: o.Version, Content: string(o.Content), Size: o.Size,
		ExpiresAt: o.ExpiresAt, RotateBy: o.RotateBy, CreatedAt: o.CreatedAt, UpdatedAt: o.UpdatedAt, UpdatedBy: AuditActor(o.UpdatedBy), UpdatedByName: o.UpdatedByName,
		DeletedAt: o.DeletedAt, PurgeAt: o.PurgeAt}
}

func notNil(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// SecretVersion describes one kept value of a secret.
type SecretVersion struct {
	ID            string     `json:"id"`
	Version       int64      `json:"version"`
	Current       bool       `json:"current"`
	Content       string     `json:"content" enum:"text,binary,certificate"`
	Size          int64      `json:"size"`
	CreatedAt     time.Time  `json:"created_at"`
	CreatedBy     AuditActor `json:"created_by"`
	CreatedByName string     `json:"created_by_name"`
}

func secretVersionOf(v vault.VersionInfo) SecretVersion {
	return SecretVersion{ID: v.ID, Version: v.Version, Current: v.Current, Content: string(v.Content), Size: v.Size, CreatedAt: v.CreatedAt,
		CreatedBy: AuditActor(v.CreatedBy), CreatedByName: v.CreatedByName}
}

type secretsInput struct {
	Caller
	Paging
	OrganizationID string `query:"organization_id"`
	Name           string `query:"name" maxLength:"800" doc:"Exactly this name; then the page has at most this one."`
	Search         string `query:"search" maxLength:"200" doc:"Part of the name or the description, in any case."`
	Prefix         string `query:"prefix" maxLength:"200" doc:"Beginning of the name, exactly."`
	Tags           string `query:"tags" maxLength:"2000" doc:"All of these tags, with commas between."`
	Context        string `query:"key_context" maxLength:"8000" doc:"All of these items of the key context, as a JSON object."`
	Deleted        bool   `query:"deleted" doc:"Those that are deleted and can be taken back."`
}

type secretInput struct {
	Caller
	Secret         string `path:"secret"`
	OrganizationID string `query:"organization_id" doc:"Whose it is. Needed by a person who does not run the whole environment."`
}

type newSecretInput struct {
	Caller
	Body struct {
		Name        string            `json:"name" minLength:"1" maxLength:"800"`
		Value       Hidden            `json:"value,omitempty" doc:"Text. This or value_base64."`
		Bytes       Hidden            `json:"value_base64,omitempty" doc:"Bytes, in base64."`
		Content     string            `json:"content,omitempty" enum:"text,binary,certificate" doc:"Default: text, or binary with value_base64. A certificate is PEM, and its key may stand with it; its end is read from it."`
		Context     map[string]string `json:"key_context,omitempty" doc:"With organization_id in it, the secret is that organization's."`
		Description string            `json:"description,omitempty" maxLength:"2000"`
		Tags        []string          `json:"tags,omitempty"`
		Metadata    map[string]string `json:"metadata,omitempty"`
		ExpiresAt   time.Time         `json:"expires_at,omitempty"`
		RotateBy    time.Time         `json:"rotate_by,omitempty"`
		WriteOnly   bool              `json:"write_only,omitempty" doc:"For good: nobody reads its value, and connections use it."`
	}
}

type updateSecretInput struct {
	Caller
	Secret         string `path:"secret"`
	OrganizationID string `query:"organization_id" doc:"As in get-secret."`
	Body           struct {
		Value     Hidden    `json:"value,omitempty" doc:"Text. This or value_base64."`
		Bytes     Hidden    `json:"value_base64,omitempty" doc:"Bytes, in base64."`
		Content   string    `json:"content,omitempty" enum:"text,binary,certificate" doc:"As in create-secret."`
		ExpiresAt time.Time `json:"expires_at,omitempty" doc:"Of the new value."`
		RotateBy  time.Time `json:"rotate_by,omitempty"`
		VersionID string    `json:"version_id,omitempty" maxLength:"64" doc:"Refuse unless this is the current version."`
	}
}

type editSecretInput struct {
	Caller
	Secret         string `path:"secret"`
	OrganizationID string `query:"organization_id" doc:"As in get-secret."`
	Body           struct {
		Description *string            `json:"description,omitempty" maxLength:"2000"`
		Tags        *[]string          `json:"tags,omitempty"`
		Metadata    *map[string]string `json:"metadata,omitempty"`
		ExpiresAt   *string            `json:"expires_at,omitempty" doc:"A time, or nothing between the quotes for never."`
		RotateBy    *string            `json:"rotate_by,omitempty" doc:"As expires_at."`
		WriteOnly   bool               `json:"write_only,omitempty" doc:"True makes it write-only, for good."`
	}
}

type restoreSecretInput struct {
	Caller
	Secret         string `path:"secret"`
	Version        string `path:"version" maxLength:"64" doc:"The id of the version."`
	OrganizationID string `query:"organization_id" doc:"As in get-secret."`
	Body           struct {
		VersionID string `json:"version_id,omitempty" maxLength:"64" doc:"Refuse unless this is the current version."`
	}
}

func (a *API) secretRoutes() {
	read := rules{scopes: []account.Scope{account.ScopeVaultRead}}
	write := rules{scopes: []account.Scope{account.ScopeVaultWrite}}
	remove := rules{scopes: []account.Scope{account.ScopeVaultDelete}}
	value := write
	value.value = true
	handle(a, route{id: "list-secrets", method: http.MethodGet, path: "/v1/secrets", tag: "secrets", summary: "List secrets, last updated first, without their values",
		detail: "A page has at most 100.", rules: read}, a.secrets)
	handle(a, route{id: "create-secret", method: http.MethodPost, path: "/v1/secrets", tag: "secrets", summary: "Store a secret", status: http.StatusCreated, rules: value, conflicts: true}, a.createSecret)
	handle(a, route{id: "get-secret", method: http.MethodGet, path: "/v1/secrets/{secret}", tag: "secrets", summary: "Describe a secret, without its value",
		detail: "Also one that is deleted and can be taken back.", rules: read}, a.secret)
	handle(a, route{id: "update-secret", method: http.MethodPut, path: "/v1/secrets/{secret}", tag: "secrets", summary: "Store a new value",
		detail: "The versions before it are kept.", rules: value, conflicts: true}, a.updateSecret)
	handle(a, route{id: "edit-secret", method: http.MethodPatch, path: "/v1/secrets/{secret}", tag: "secrets", summary: "Change description, tags, metadata and dates",
		detail: "No new version is made. What is left out stays.", rules: write, conflicts: true}, a.editSecret)
	handle(a, route{id: "list-secret-versions", method: http.MethodGet, path: "/v1/secrets/{secret}/versions", tag: "secrets", summary: "List the kept versions of a secret, newest first",
		detail: "At most 1,000.", rules: read}, a.secretVersions)
	handle(a, route{id: "restore-secret-version", method: http.MethodPost, path: "/v1/secrets/{secret}/versions/{version}/restore", tag: "secrets",
		summary: "Make the value of an old version the current one", detail: "As a new version, which is not shown.", rules: write, conflicts: true}, a.restoreVersion)
	act(a, route{id: "delete-secret", method: http.MethodDelete, path: "/v1/secrets/{secret}", tag: "secrets", summary: "Delete a secret with all its versions",
		detail: "Its name is free at once. For 30 days undelete-secret takes it back; then it is purged.", rules: remove, conflicts: true}, a.deleteSecret)
	handle(a, route{id: "undelete-secret", method: http.MethodPost, path: "/v1/secrets/{secret}/undelete", tag: "secrets", summary: "Take back a deleted secret",
		rules: remove, conflicts: true}, a.undeleteSecret)
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

func (a *API) secretAs(ctx context.Context, by account.Actor, raw, org string, p account.Permission) (vault.Caller, id.Secret, error) {
	c, err := a.vaultCaller(ctx, by, org, p)
	if err != nil {
		return c, "", err
	}
	var s id.Secret
	err = parseID(&s, raw)
	return c, s, err
}

func (a *API) secrets(ctx context.Context, by account.Actor, in *secretsInput) (Page[Secret], error) {
	c, err := a.vaultCaller(ctx, by, in.OrganizationID, account.ViewSecrets)
	if err != nil {
		return Page[Secret]{}, err
	}
	if in.Name != "" {
		o, err := a.cfg.Vault.DescribeByName(ctx, c, in.Name)
		if fault.KindOf(err) == fault.NotFound {
			return page[vault.Object](nil, "", secretOf), nil
		}
		return page([]vault.Object{o}, "", secretOf), err
	}
	o := vault.ListOptions{Limit: min(in.limit(), 100), After: in.After, Search: in.Search, Prefix: in.Prefix, Deleted: in.Deleted}
	if in.Tags != "" {
		o.Tags = strings.Split(in.Tags, ",")
	}
	if in.Context != "" {
		if err := strictjson.Unmarshal([]byte(in.Context), &o.Context, strictjson.Limits{Bytes: 8000, Depth: 2}); err != nil {
			return Page[Secret]{}, fault.New(fault.Invalid, "invalid_key_context", "key_context is not a JSON object of texts.").WithCause(err)
		}
	}
	p, err := a.cfg.Vault.List(ctx, c, o)
	return page(p.Objects, p.After, secretOf), err
}

func (a *API) createSecret(ctx context.Context, by account.Actor, in *newSecretInput) (Secret, error) {
	b := in.Body
	c, err := a.vaultCaller(ctx, by, b.Context["organization_id"], account.WriteSecrets)
	if err != nil {
		return Secret{}, err
	}
	value, err := valueOf(b.Value, b.Bytes, b.Content)
	if err != nil {
		return Secret{}, err
	}
	value.ExpiresAt, value.RotateBy = b.ExpiresAt, b.RotateBy
	o, err := a.cfg.Vault.Create(ctx, c, vault.NewObject{Name: b.Name, Context: b.Context, Value: value, WriteOnly: b.WriteOnly,
		Facts: vault.Facts{Description: b.Description, Tags: b.Tags, Metadata: b.Metadata}})
	return secretOf(o), err
}

func (a *API) secret(ctx context.Context, by account.Actor, in *secretInput) (Secret, error) {
	c, s, err := a.secretAs(ctx, by, in.Secret, in.OrganizationID, account.ViewSecrets)
	if err != nil {
		return Secret{}, err
	}
	o, err := a.cfg.Vault.DescribeAny(ctx, c, s)
	return secretOf(o), err
}

func (a *API) secretVersions(ctx context.Context, by account.Actor, in *secretInput) (Page[SecretVersion], error) {
	c, s, err := a.secretAs(ctx, by, in.Secret, in.OrganizationID, account.ViewSecrets)
	if err != nil {
		return Page[SecretVersion]{}, err
	}
	versions, err := a.cfg.Vault.Versions(ctx, c, s)
	return page(versions, "", secretVersionOf), err
}

func (a *API) updateSecret(ctx context.Context, by account.Actor, in *updateSecretInput) (Secret, error) {
	c, s, err := a.secretAs(ctx, by, in.Secret, in.OrganizationID, account.WriteSecrets)
	if err != nil {
		return Secret{}, err
	}
	value, err := valueOf(in.Body.Value, in.Body.Bytes, in.Body.Content)
	if err != nil {
		return Secret{}, err
	}
	value.ExpiresAt, value.RotateBy = in.Body.ExpiresAt, in.Body.RotateBy
	o, err := a.cfg.Vault.Update(ctx, c, s, value, in.Body.VersionID)
	return secretOf(o), err
}

func (a *API) editSecret(ctx context.Context, by account.Actor, in *editSecretInput) (Secret, error) {
	c, s, err := a.secretAs(ctx, by, in.Secret, in.OrganizationID, account.WriteSecrets)
	if err != nil {
		return Secret{}, err
	}
	edit := vault.Edit{Description: in.Body.Description, Tags: in.Body.Tags, Metadata: in.Body.Metadata, WriteOnly: in.Body.WriteOnly}
	if edit.ExpiresAt, err = dateOf("expires_at", in.Body.ExpiresAt); err != nil {
		return Secret{}, err
	}
	if edit.RotateBy, err = dateOf("rotate_by", in.Body.RotateBy); err != nil {
		return Secret{}, err
	}
	o, err := a.cfg.Vault.Change(ctx, c, s, edit)
	return secretOf(o), err
}

func dateOf(name string, s *string) (*time.Time, error) {
	if s == nil || *s == "" {
		if s == nil {
			return nil, nil
		}
		return &time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, *s)
	if err != nil {
		return nil, fault.New(fault.Invalid, "invalid_time", name+" is not a time as in RFC 3339.")
	}
	return &t, nil
}

func (a *API) restoreVersion(ctx context.Context, by account.Actor, in *restoreSecretInput) (Secret, error) {
	c, s, err := a.secretAs(ctx, by, in.Secret, in.OrganizationID, account.WriteSecrets)
	if err != nil {
		return Secret{}, err
	}
	o, err := a.cfg.Vault.Restore(ctx, c, s, in.Version, in.Body.VersionID)
	return secretOf(o), err
}

func (a *API) deleteSecret(ctx context.Context, by account.Actor, in *secretInput) error {
	c, s, err := a.secretAs(ctx, by, in.Secret, in.OrganizationID, account.DeleteSecrets)
	if err != nil {
		return err
	}
	_, err = a.cfg.Vault.Delete(ctx, c, s, "")
	return err
}

func (a *API) undeleteSecret(ctx context.Context, by account.Actor, in *secretInput) (Secret, error) {
	c, s, err := a.secretAs(ctx, by, in.Secret, in.OrganizationID, account.DeleteSecrets)
	if err != nil {
		return Secret{}, err
	}
	o, err := a.cfg.Vault.Undelete(ctx, c, s)
	return secretOf(o), err
}
