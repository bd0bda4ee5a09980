package issuer

import (
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

// This file is the only one in the room that looks at a secret.

// parse reads a JWT by which somebody proves something; its parser takes text.
// Errors of the parser may quote it and go nowhere.
func parse(v secret.Value) (*jwt.JSONWebToken, error) {
	return jwt.ParseSigned(string(v.Reveal()), algorithms())
}

// exchange is the request that redeems a code (RFC 6749 §4.1.3, RFC 7636 §4.5), to
// the token endpoint that the issuer named.
func (p Party) exchange(m Metadata, code, verifier secret.Value) (*http.Request, error) {
	u, err := url.Parse(m.Token)
	if err != nil || u.Host == "" {
		return nil, fault.New(fault.Unavailable, "issuer_unusable", "The identity provider does not say where codes are redeemed.")
	}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {string(code.Reveal())}, "redirect_uri": {p.Redirect}, "code_verifier": {string(verifier.Reveal())}}
	req := &http.Request{Method: http.MethodPost, URL: u, Header: http.Header{"Accept": {"application/json"}, "Content-Type": {"application/x-www-form-urlencoded"}}}
	switch key := string(p.Secret.Reveal()); {
	case key == "":
		form.Set("client_id", p.ClientID)
	case len(m.Methods) > 0 && !slices.Contains(m.Methods, "client_secret_basic") && slices.Contains(m.Methods, "client_secret_post"):
		form.Set("client_id", p.ClientID)
		form.Set("client_secret", key)
	default:
		req.SetBasicAuth(url.QueryEscape(p.ClientID), url.QueryEscape(key)) // form-encoded first: RFC 6749 §2.3.1
	}
	body := form.Encode()
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	return req, nil
}
