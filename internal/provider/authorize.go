package provider

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/secret"
)

// Authorization is what one authorization request holds besides the record.
type Authorization struct {
	ClientID    string
	RedirectURI string
	State       secret.Value // with OAuth 1.0 the token that was asked for
	Verifier    secret.Value // of RFC 7636; only its S256 challenge is sent
	Scopes      []string
}

// AuthorizationURL is where a person signs in at the provider (RFC 6749 §4.1.1).
// What the flow sets counts over what the record adds.
func (r Record) AuthorizationURL(a Authorization) (string, error) {
	o := r.OAuth
	u, err := url.Parse(o.AuthorizeURL)
	if err != nil {
		return "", fmt.Errorf("reading an authorization URL: %w", err)
	}
	q := u.Query()
	for k, v := range o.AuthorizeParams {
		q.Set(k, v)
	}
	if o.Signs() { // RFC 5849 §2.2: the rest was told when the token was asked for
		q.Set("oauth_token", string(a.State.Reveal()))
		if len(a.Scopes) > 0 {
			q.Set(cmp.Or(o.Scopes.Param, "scope"), strings.Join(a.Scopes, cmp.Or(o.Scopes.Separator, " ")))
		}
		u.RawQuery = q.Encode()
		return u.String(), nil
	}
	q.Set("response_type", "code")
	q.Set(cmp.Or(o.ClientIDParam, "client_id"), a.ClientID)
	q.Set("redirect_uri", a.RedirectURI)
	q.Set("state", string(a.State.Reveal()))
	scopes, separator := slices.Clone(a.Scopes), cmp.Or(o.Scopes.Separator, " ")
	for _, s := range o.Slots {
		if s.Param != "" {
			q.Set(s.Param, strings.Join(s.Scopes, separator))
			continue
		}
		for _, scope := range s.Scopes {
			if !slices.Contains(scopes, scope) {
				scopes = append(scopes, scope)
			}
		}
	}
	if len(scopes) > 0 {
		q.Set(cmp.Or(o.Scopes.Param, "scope"), strings.Join(scopes, separator))
	}
	if o.UsesPKCE() {
		sum := sha256.Sum256(a.Verifier.Reveal())
		q.Set("code_challenge", base64.RawURLEncoding.EncodeToString(sum[:]))
		q.Set("code_challenge_method", "S256")
	}
	for _, name := range o.AuthorizeDrop {
		q.Del(name)
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// SignInHost is where a person signs in, without a port. In a record that is
// still to be filled in, names stand in braces.
func (r Record) SignInHost() string {
	if r.OAuth == nil {
		return ""
	}
	_, rest, _ := strings.Cut(r.OAuth.AuthorizeURL, "://")
	host, _, _ := strings.Cut(rest, "/")
	host, _, _ = strings.Cut(host, ":")
	return host
}
