package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/strictjson"
	"github.com/ambit-dev/ambit/internal/vault"
)

// All that leaves this room in clear leaves through this file: credentials and
// secrets for applications, and what was made just now and is shown once. What
// comes in to be kept secret enters through it, as [Hidden].

// once gives a fresh secret the form in which its owner gets it, this one time.
func once(v secret.Value) string { return string(v.Reveal()) }

// Hidden is a secret in a request. It decodes from a JSON string and encodes to
// nothing that anybody could use.
type Hidden struct{ secret.Value }

// UnmarshalJSON reads a string.
func (h *Hidden) UnmarshalJSON(doc []byte) error {
	var s string
	if err := strictjson.Unmarshal(doc, &s, strictjson.Limits{Bytes: maxValueBody}); err != nil {
		return err
	}
	h.Value = secret.FromString(s)
	return nil
}

// Schema tells the document that it is text to be kept from sight.
func (Hidden) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "password", Extensions: map[string]any{"writeOnly": true}}
}

var _ json.Unmarshaler = (*Hidden)(nil)

// Credential is what an application is vended: the parts that a request to the
// provider is made with, never a refresh token.
type Credential struct {
	Kind    string            `json:"kind" enum:"oauth2,api_key,client_credentials,jwt,jwt_bearer,github_app,aws_assume_role"`
	Values  map[string]string `json:"values" doc:"Such as access_token."`
	Version int64             `json:"version"`
}

// SecretValue is a secret in clear.
type SecretValue struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Value     string `json:"value"`
	Bytes     string `json:"value_base64,omitempty" doc:"Instead of value, for what is not text."`
	Content   string `json:"content" enum:"text,binary,certificate"`
	VersionID string `json:"version_id"`
}

func (a *API) vendRoutes() {
	handle(a, route{id: "vend-credential", method: http.MethodPost, path: "/v1/connections/{connection}/credential", tag: "connections",
		summary: "Fetch a connection's credential for an application",
		detail:  "Off unless the operator switched it on. Each use is in the audit before the credential leaves.",
		rules:   rules{scopes: []account.Scope{account.ScopeConnectionsVend}}, conflicts: true}, a.vend)
	handle(a, route{id: "get-secret-value", method: http.MethodGet, path: "/v1/secrets/{secret}/value", tag: "secrets",
		summary: "Read a secret's value",
		detail:  "For applications; a person reads values in the browser. Each read is in the audit before the value leaves.",
		rules:   rules{scopes: []account.Scope{account.ScopeVaultRead}}, expires: true}, a.secretValue)
	handle(a, route{id: "decrypt-blob", method: http.MethodPost, path: "/v1/secrets/decrypt", tag: "secrets",
		summary: "Decrypt what a WorkOS SDK encrypted locally",
		detail:  "Of whichever SDK and version: the order of its parts is recognised. For applications.",
		rules:   rules{scopes: []account.Scope{account.ScopeVaultRead}, value: true}}, a.decryptBlob)
}

func (a *API) vend(ctx context.Context, by account.Actor, in *connectionInput) (Credential, error) {
	if !a.cfg.AllowVend {
		return Credential{}, fault.New(fault.Denied, "vend_disabled", "This server hands out no credentials.").
			WithHint("The operator can allow it with AMBIT_ALLOW_VEND; a tool call in a session needs no such thing.")
	}
	if _, person := by.Person(); person {
		return Credential{}, fault.New(fault.Denied, "api_key_required", "Credentials are vended to API keys only.").WithHint("A command line's login never gets one.")
	}
	var conn id.Connection
	if err := parseID(&conn, in.Connection); err != nil {
		return Credential{}, err
	}
	v, err := a.cfg.Credentials.Vend(ctx, by, conn, "")
	if err != nil {
		return Credential{}, err
	}
	out := Credential{Kind: string(v.Credential.Kind), Values: map[string]string{}, Version: v.Version}
	for name, value := range v.Credential.Values {
		out.Values[name] = once(value)
	}
	return out, nil
}

type secretValueInput struct {
	Caller
	Secret         string `path:"secret"`
	OrganizationID string `query:"organization_id" doc:"As in get-secret."`
	Version        string `query:"version" maxLength:"64" doc:"The id of an old version; default the current one."`
}

func (a *API) secretValue(ctx context.Context, by account.Actor, in *secretValueInput) (SecretValue, error) {
	if _, person := by.Person(); person {
		return SecretValue{}, a.browserRequired("/ui/secrets/"+url.PathEscape(in.Secret), "A command line's stored login does not read secrets.")
	}
	c, s, err := a.secretAs(ctx, by, in.Secret, in.OrganizationID, account.RevealSecrets)
	if err != nil {
		return SecretValue{}, err
	}
	var o vault.Object
	var value secret.Value
	if in.Version == "" {
		o, value, err = a.cfg.Vault.Get(ctx, c, s)
	} else {
		o, value, err = a.cfg.Vault.GetVersion(ctx, c, s, in.Version)
	}
	if err != nil {
		return SecretValue{}, err
	}
	out := SecretValue{ID: string(o.ID), Name: o.Name, VersionID: o.VersionID, Content: string(o.Content)}
	out.Value, out.Bytes = either(value)
	return out, nil
}

// either gives a value as text if it is text, and else in base64.
func either(v secret.Value) (text, encoded string) {
	raw := v.Reveal()
	if utf8.Valid(raw) {
		return string(raw), ""
	}
	return "", base64.StdEncoding.EncodeToString(raw)
}

// valueOf reads a value from the one of two fields that has it.
func valueOf(text, encoded Hidden, content string) (vault.Value, error) {
	v := vault.Value{Secret: text.Value, Content: vault.Content(content)}
	switch {
	case text.IsZero() == encoded.IsZero():
		return v, fault.New(fault.Invalid, "invalid_value", "Send the value as value or as value_base64, and not as both.")
	case text.IsZero():
		raw, err := base64.StdEncoding.DecodeString(string(encoded.Reveal()))
		if err != nil {
			return v, fault.New(fault.Invalid, "invalid_value", "value_base64 is not base64.")
		}
		v.Secret = secret.New(raw)
		if content == "" {
			v.Content = vault.Binary
		}
	}
	return v, nil
}

// Decrypted is what an SDK had encrypted locally, in clear.
type Decrypted struct {
	Layout string `json:"layout" enum:"node,go,legacy" doc:"Whose order of parts it has; Python's is Node's."`
	Value  string `json:"value"`
	Bytes  string `json:"value_base64,omitempty" doc:"Instead of value, for what is not text."`
}

type decryptInput struct {
	Caller
	OrganizationID string `query:"organization_id"`
	Body           struct {
		Blob string `json:"blob" doc:"What the SDK's encrypt returned: base64."`
		Data string `json:"associated_data,omitempty" doc:"What it was encrypted with."`
	}
}

func (a *API) decryptBlob(ctx context.Context, by account.Actor, in *decryptInput) (Decrypted, error) {
	if _, person := by.Person(); person {
		return Decrypted{}, fault.New(fault.Denied, "api_key_required", "Blobs are decrypted for API keys only.").WithHint("Set AMBIT_API_KEY to one with the scope vault:read.")
	}
	c, err := a.vaultCaller(ctx, by, in.OrganizationID, account.RevealSecrets)
	if err != nil {
		return Decrypted{}, err
	}
	layout, value, err := a.cfg.Vault.DecryptBlob(ctx, c, in.Body.Blob, []byte(in.Body.Data))
	if err != nil {
		return Decrypted{}, err
	}
	out := Decrypted{Layout: layout}
	out.Value, out.Bytes = either(value)
	return out, nil
}

// webhookSecret shows a webhook's fresh secret to whoever made it, once.
func webhookSecret(v secret.Value) string { return string(v.Reveal()) }
