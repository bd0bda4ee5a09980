package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/strictjson"
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
	if err := strictjson.Unmarshal(doc, &s, strictjson.Limits{Bytes: maxBody}); err != nil {
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
	Kind    string            `json:"kind" enum:"oauth2,api_key"`
	Values  map[string]string `json:"values" doc:"Such as access_token."`
	Version int64             `json:"version"`
}

// SecretValue is a secret in clear.
type SecretValue struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Value     string `json:"value"`
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
		rules:   rules{scopes: []account.Scope{account.ScopeVaultRead}}}, a.secretValue)
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
	v, err := a.cfg.Credentials.Vend(ctx, by, conn)
	if err != nil {
		return Credential{}, err
	}
	out := Credential{Kind: string(v.Credential.Kind), Values: map[string]string{}, Version: v.Version}
	for name, value := range v.Credential.Values {
		out.Values[name] = once(value)
	}
	return out, nil
}

func (a *API) secretValue(ctx context.Context, by account.Actor, in *secretInput) (SecretValue, error) {
	if _, person := by.Person(); person {
		return SecretValue{}, a.browserRequired("/ui/", "A command line's stored login does not read secrets.")
	}
	c, s, err := a.secretAs(ctx, by, in, account.RevealSecrets)
	if err != nil {
		return SecretValue{}, err
	}
	o, value, err := a.cfg.Vault.Get(ctx, c, s)
	if err != nil {
		return SecretValue{}, err
	}
	return SecretValue{ID: string(o.ID), Name: o.Name, Value: once(value), VersionID: o.VersionID}, nil
}
