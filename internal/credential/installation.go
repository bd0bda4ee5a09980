package credential

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// installationGrant reads GitHub's answer to an app that asks for a token.
func installationGrant(resp *outbound.Response, now time.Time) (grant, error) {
	failed := &tokenError{code: "unreadable", status: resp.Status, retry: retryAfter(resp.Header)}
	limited := resp.Header.Get("X-RateLimit-Remaining") == "0" || failed.retry > 0
	switch {
	case resp.Status >= 500 || resp.Status == http.StatusTooManyRequests || resp.Status == http.StatusForbidden && limited:
		failed.code = "unavailable"
		return grant{}, failed
	case resp.Status == http.StatusUnauthorized || resp.Status == http.StatusForbidden || resp.Status == http.StatusNotFound:
		failed.code = codeRejected // the key was deleted, or the installation removed or suspended
		return grant{}, failed
	}
	var said struct {
		Token       string            `json:"token"`
		ExpiresAt   string            `json:"expires_at"`
		Permissions map[string]string `json:"permissions"`
	}
	if strictjson.Check(resp.Body, strictjson.Limits{}) != nil || json.Unmarshal(resp.Body, &said) != nil || said.Token == "" || resp.Status != http.StatusCreated {
		return grant{}, failed
	}
	g := grant{access: secret.FromString(said.Token), lifetime: until(said.ExpiresAt, now)}
	for name, level := range said.Permissions {
		g.scopes = append(g.scopes, name+":"+level)
	}
	slices.Sort(g.scopes)
	return g, nil
}
