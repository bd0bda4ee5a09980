package agent

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/issuer"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// MaxMetadata bounds what a client says about itself, in bytes.
const MaxMetadata = 16 << 10

// NewClient is what a client says about itself: in a registration (RFC 7591) or
// in the document that its name is the address of.
type NewClient struct {
	ID              string // its name; only in a document
	RedirectURIs    []string
	Name            string
	Grants          []string // empty: authorization_code
	AuthMethod      string   // empty: client_secret_basic; none in a document
	ApplicationType string   // empty: native if a redirect stays on the person's machine
	Keys            string   // JWK Set, for private_key_jwt
	KeysURL         string   // where one lies
	Address         string   // of who registers; not in the metadata

	HasSecret bool // the metadata holds a secret, which a document must not
}

// ReadClient reads client metadata. Members that we do not know are ignored, as
// RFC 7591 §2 asks; names count only in their exact spelling, which a map gives
// and a struct would not.
func ReadClient(body []byte) (NewClient, error) {
	bad := func(msg string) (NewClient, error) { return NewClient{}, badMetadata(msg) }
	if err := strictjson.Check(body, strictjson.Limits{Bytes: MaxMetadata, Depth: 8, Items: 500}); err != nil {
		return bad(fault.Of(err).Message)
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(body, &doc); err != nil || doc == nil {
		return bad("The metadata is a JSON object.")
	}
	var n NewClient
	var responses []string
	for name, dst := range map[string]any{
		"client_id": &n.ID, "redirect_uris": &n.RedirectURIs, "client_name": &n.Name, "grant_types": &n.Grants, "response_types": &responses,
		"token_endpoint_auth_method": &n.AuthMethod, "application_type": &n.ApplicationType, "jwks_uri": &n.KeysURL,
	} {
		raw, ok := doc[name]
		if !ok || string(raw) == "null" {
			continue
		}
		if err := json.Unmarshal(raw, dst); err != nil {
			return bad(name + " has the wrong type.")
		}
	}
	for _, t := range responses {
		if t != "code" {
			return bad("response_types is code.")
		}
	}
	if keys, ok := doc["jwks"]; ok && string(keys) != "null" {
		n.Keys = string(keys)
	}
	_, n.HasSecret = doc["client_secret"]
	return n, nil
}

// client checks what a client says about itself and gives the client that it
// would be, without id and secret.
func (n NewClient) client() (Client, error) {
	none := func(err error) (Client, error) { return Client{}, err }
	c := Client{Name: cleanName(n.Name), RedirectURIs: slices.Clone(n.RedirectURIs), AuthMethod: n.AuthMethod, ApplicationType: n.ApplicationType, Version: 1}
	var err error
	if c.Grants, err = ownGrants(n.Grants); err != nil {
		return none(err)
	}
	if slices.Contains(c.Grants, GrantCode) == (len(c.RedirectURIs) == 0) || len(c.RedirectURIs) > maxRedirects {
		return none(fault.New(fault.Invalid, "invalid_redirect_uri", fmt.Sprintf("A client has 1 to %d redirect URIs for the code grant, and none without it.", maxRedirects)))
	}
	local := false
	for _, uri := range c.RedirectURIs {
		kind, err := parseRedirect(uri)
		if err != nil {
			return none(err)
		}
		if kind == redirectWeb {
			continue
		}
		local = true
		if c.ApplicationType == "web" {
			return none(fault.New(fault.Invalid, "invalid_redirect_uri", "A web client redirects to https only.").
				WithHint("Register with application_type native."))
		}
	}
	if c.ApplicationType == "" {
		c.ApplicationType = "web"
		if local {
			c.ApplicationType = "native"
		}
	}
	if c.ApplicationType != "web" && c.ApplicationType != "native" {
		return none(badMetadata("application_type is web or native."))
	}
	if c.AuthMethod == "" {
		c.AuthMethod = AuthBasic
	}
	switch c.AuthMethod {
	case AuthBasic, AuthPost, AuthNone:
		return c, nil
	case AuthKeys:
		if (n.Keys == "") == (n.KeysURL == "") {
			return none(badMetadata("A client that signs with keys of its own has jwks or jwks_uri."))
		}
		if c.keysURL = n.KeysURL; n.Keys != "" {
			c.keys, err = issuer.CanonicalKeys(n.Keys)
		}
		return c, err
	}
	return none(badMetadata("token_endpoint_auth_method is none, client_secret_basic, client_secret_post or private_key_jwt."))
}
