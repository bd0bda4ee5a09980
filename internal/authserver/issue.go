package authserver

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/secret"
)

// This file is the only one in the room that writes a secret: tokens and client
// secrets of our own, to the client that they were made for.

// writeTokens is the successful answer of RFC 6749 §5.1, and of an exchange that of
// RFC 8693 §2.2.1.
func writeTokens(w http.ResponseWriter, t agent.Tokens, exchanged bool) {
	doc := map[string]any{
		"access_token": string(t.Access.Reveal()),
		"token_type":   "Bearer",
		"expires_in":   max(int64(t.ExpiresIn/time.Second), 0),
		"scope":        t.Scope,
	}
	if exchanged {
		doc["issued_token_type"] = accessTokenType
	}
	if t.Details != "" {
		doc["authorization_details"] = json.RawMessage(t.Details)
	}
	if !t.Refresh.IsZero() {
		doc["refresh_token"] = string(t.Refresh.Reveal())
	}
	writeJSON(w, http.StatusOK, doc)
}

// writeDevice is the successful answer of RFC 8628 §3.2.
func (s *Server) writeDevice(w http.ResponseWriter, d agent.Device) {
	page := s.agents.Issuer() + "/ui/device"
	writeJSON(w, http.StatusOK, map[string]any{
		"device_code":               string(d.Code.Reveal()),
		"user_code":                 d.UserCode,
		"verification_uri":          page,
		"verification_uri_complete": page + "?code=" + d.UserCode,
		"expires_in":                int64(d.ExpiresIn / time.Second),
		"interval":                  int64(d.Interval / time.Second),
	})
}

// writeClient is the successful answer of RFC 7591 §3.2.1.
func writeClient(w http.ResponseWriter, c agent.Client, sec secret.Value) {
	doc := map[string]any{
		"client_id":                  c.ID,
		"client_id_issued_at":        c.CreatedAt.Unix(),
		"redirect_uris":              c.RedirectURIs,
		"grant_types":                c.Grants,
		"response_types":             []string{"code"},
		"token_endpoint_auth_method": c.AuthMethod,
		"application_type":           c.ApplicationType,
		"scope":                      agent.Scope,
	}
	if keys, address := c.Keys(); address != "" {
		doc["jwks_uri"] = address
	} else if len(keys) > 0 {
		doc["jwks"] = keys
	}
	if c.Name != "" {
		doc["client_name"] = c.Name
	}
	if !sec.IsZero() {
		doc["client_secret"] = string(sec.Reveal())
		doc["client_secret_expires_at"] = 0
	}
	writeJSON(w, http.StatusCreated, doc)
}
