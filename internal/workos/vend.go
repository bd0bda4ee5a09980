package workos

import (
	"context"
	"encoding/base64"
	"maps"
	"net/http"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/integration"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/vault"
)

// This file is the one place of this room where secrets leave: to the application
// whose key was allowed to have them, with that already on record.

// vend answers with a value.
func vend(o vault.Object, value secret.Value) (answer, error) {
	raw := value.Reveal()
	if !utf8.Valid(raw) {
		return answer{}, fault.New(fault.Invalid, "value_not_text", "The value is binary, and this interface carries text only.")
	}
	return answer{http.StatusOK, struct {
		object
		Value string `json:"value"`
	}{objectOf(o), string(raw)}}, nil
}

// vendDataKey answers with a data key; whole adds what the application keeps
// beside its data.
func vendDataKey(k vault.DataKey, whole bool) answer {
	type plain struct {
		ID  id.DataKey `json:"id"`
		Key string     `json:"data_key"`
	}
	out := plain{k.ID, base64.StdEncoding.EncodeToString(k.Key.Reveal())}
	if !whole {
		return answer{http.StatusOK, out}
	}
	items := k.Context
	if items == nil {
		items = map[string]string{}
	}
	return answer{http.StatusOK, struct {
		plain
		Keys    string            `json:"encrypted_keys"`
		Context map[string]string `json:"context"`
	}{out, base64.StdEncoding.EncodeToString(k.Wrapped), items}}
}

// token answers with an access token, to an application that may have it.
func (s *Server) token(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
	v, why, err := s.vended(ctx, by, r, provider.OAuth2, provider.ClientCredentials)
	if err != nil || why != "" {
		return inactive(why), err
	}
	type accessToken struct {
		Object  string   `json:"object"`
		Token   string   `json:"access_token"`
		Expires *string  `json:"expires_at"`
		Scopes  []string `json:"scopes"`
		Missing []string `json:"missing_scopes"`
	}
	return answer{http.StatusOK, struct {
		Active bool        `json:"active"`
		Token  accessToken `json:"access_token"`
	}{true, accessToken{"access_token", string(v.Credential.Values[provider.FieldAccessToken].Reveal()), expiry(v), listed(v.Connection.Scopes), listed(v.Missing)}}}, nil
}

// credentials answers with a credential of any kind that this wire knows, to an
// application that may have it.
func (s *Server) credentials(ctx context.Context, by account.Actor, r *http.Request) (answer, error) {
	v, why, err := s.vended(ctx, by, r, provider.OAuth2, provider.APIKey, provider.ClientCredentials)
	if err != nil || why != "" {
		return inactive(why), err
	}
	config := v.Connection.Record.Values()
	if config == nil {
		config = map[string]string{}
	}
	method := methodOf(v.Credential.Kind)
	out := map[string]any{"object": "credential", "auth_method": method, "config": config}
	if method == "api_key" {
		out["value"] = string(v.Credential.Values[keyField(v.Credential)].Reveal())
		if name := v.Credential.Values[provider.FieldUsername]; !name.IsZero() {
			config[provider.FieldUsername] = string(name.Reveal())
		}
	} else {
		out["value"], out["expires_at"] = string(v.Credential.Values[provider.FieldAccessToken].Reveal()), expiry(v)
		out["scopes"], out["missing_scopes"] = listed(v.Connection.Scopes), listed(v.Missing)
	}
	if method == string(provider.ClientCredentials) {
		out["metadata"] = maps.Clone(config) // what the provider told with the token
	}
	return answer{http.StatusOK, map[string]any{"active": true, "credential": out}}, nil
}

// keyField is the part that is the secret of a key.
func keyField(c provider.Credential) string {
	if _, ok := c.Values[provider.FieldAPIKey]; ok {
		return provider.FieldAPIKey
	}
	return provider.FieldPassword
}

// inactive says, with status 200, that there is nothing to vend.
func inactive(why string) answer {
	return answer{http.StatusOK, map[string]any{"active": false, "error": why}}
}

func (s *Server) vended(ctx context.Context, by account.Actor, r *http.Request, kinds ...provider.Auth) (integration.Vended, string, error) {
	var in aimIn
	if _, err := decode(r, &in); err != nil {
		return integration.Vended{}, "", err
	}
	aim, err := in.aim(r)
	if err != nil {
		return integration.Vended{}, "", err
	}
	return s.integrations.Vend(ctx, by, aim, kinds...)
}

func expiry(v integration.Vended) *string {
	if v.ExpiresAt.IsZero() {
		return nil
	}
	at := stamp(v.ExpiresAt)
	return &at
}

func listed(list []string) []string { return append([]string{}, list...) }
