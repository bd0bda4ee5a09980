package azuretest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// The identities and tokens that the services know.
const (
	Tenant       = "11111111-2222-3333-4444-555555555555"
	Client       = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
	ClientSecret = "canary-azure-client-secret"
	Federated    = "canary-azure-federated-token"
	token        = "canary-azure-token-for-"
)

// Token is what must be told to nobody.
const Token = token

// entra gives tokens: for a client secret, a federated token, and to the machine.
type entra struct {
	locked  sync.Mutex
	deleted bool
}

// DeleteIdentity makes the tenant know the client no more.
func (e *entra) DeleteIdentity() {
	e.locked.Lock()
	defer e.locked.Unlock()
	e.deleted = true
}

func (e *entra) knows(authorization, audience string) bool {
	return authorization == "Bearer "+token+audience
}

func (e *entra) issue(w http.ResponseWriter, r *http.Request) {
	const base = "https://login.microsoftonline.com/"
	switch {
	case strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration"):
		tenant := strings.Split(r.URL.Path, "/")[1]
		answer(w, map[string]any{"issuer": base + tenant + "/v2.0", "authorization_endpoint": base + tenant + "/oauth2/v2.0/authorize", "token_endpoint": base + tenant + "/oauth2/v2.0/token"})
	case r.URL.Path == "/common/discovery/instance":
		answer(w, map[string]any{"tenant_discovery_endpoint": base + Tenant + "/v2.0/.well-known/openid-configuration", "api-version": "1.1",
			"metadata": []any{map[string]any{"preferred_network": "login.microsoftonline.com", "preferred_cache": "login.windows.net", "aliases": []string{"login.microsoftonline.com"}}}})
	case strings.HasSuffix(r.URL.Path, "/oauth2/v2.0/token"):
		e.exchange(w, r)
	case r.URL.Path == "/metadata/identity/oauth2/token":
		if r.Header.Get("Metadata") != "true" {
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		answer(w, map[string]any{"access_token": token + r.URL.Query().Get("resource"), "expires_in": "3600", "resource": r.URL.Query().Get("resource"), "token_type": "Bearer"})
	default:
		http.NotFound(w, r)
	}
}

func (e *entra) exchange(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(body))
	e.locked.Lock()
	deleted := e.deleted
	e.locked.Unlock()
	code := ""
	switch {
	case deleted || form.Get("client_id") != Client || !strings.HasPrefix(r.URL.Path, "/"+Tenant+"/"):
		code = "unauthorized_client"
	case form.Get("client_secret") != ClientSecret && form.Get("client_assertion") != Federated:
		code = "invalid_client"
	}
	if code != "" {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]any{"error": code, "error_description": fmt.Sprint("AADSTS: ", string(body))})
		return
	}
	audience := ""
	for s := range strings.SplitSeq(form.Get("scope"), " ") {
		if a, ok := strings.CutSuffix(s, "/.default"); ok {
			audience = a
		}
	}
	answer(w, map[string]any{"access_token": token + audience, "expires_in": 3600, "ext_expires_in": 3600, "token_type": "Bearer"})
}

func answer(w http.ResponseWriter, doc any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(doc)
}
