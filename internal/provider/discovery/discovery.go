// Package discovery finds out how an MCP server is spoken to and how accounts are
// connected there, and drafts its provider record: RFC 9728 says which
// authorization server looks after it, RFC 8414 or OpenID Connect Discovery how
// that is used, and a client id metadata document or RFC 7591 makes us a client
// there. What it makes is a record for a person to agree to; nothing is stored.
//
// All of it is said by the server, so nothing of it is believed beyond that: each
// document is fetched from where the one before says it must be, names itself, and
// is of bounded size; no redirect is followed; and where credentials will go is
// shown to the person before any goes there.
package discovery

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/oauthex"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

const (
	maxDocument = 256 << 10
	timeout     = 10 * time.Second
	maxServers  = 5 // authorization servers of one resource
	maxScopes   = 50
)

// Config is what a Finder needs.
type Config struct {
	Outbound *outbound.Client
	// Public is where this server is. Below it are the Path where a provider sends
	// people back, and the DocumentPath of our client's metadata document.
	Public             *url.URL
	Path, DocumentPath func(env id.Environment, slug string) string
}

func (f *Finder) callback(env id.Environment, slug string) string {
	return f.cfg.Public.JoinPath(f.cfg.Path(env, slug)).String()
}

// Finder is safe for concurrent use.
type Finder struct{ cfg Config }

// New makes one.
func New(cfg Config) *Finder { return &Finder{cfg} }

// Ask says which server.
type Ask struct {
	URL  string
	ID   string // of the record; empty: made of the host
	Name string // empty: the host
	// Header carries a key that people give, such as X-Api-Key; empty: it is found
	// out. Format is how it is written there; default {api_key}, or in Authorization
	// "Bearer {api_key}".
	Header, Format string
	// ClientID is of a client that was registered beforehand.
	ClientID     string
	ClientSecret secret.Value
}

// Found is a record with our client.
type Found struct {
	Record       provider.Record
	ClientID     string
	ClientSecret secret.Value
	How          string // in a sentence, how accounts are connected
}

// Find asks the server and drafts the record. It takes the permission to manage
// providers, since this server makes the requests.
func (f *Finder) Find(ctx context.Context, by account.Actor, ask Ask) (Found, error) {
	if err := by.May("", account.ManageProviders); err != nil {
		return Found{}, err
	}
	at, err := url.Parse(ask.URL)
	if err != nil || at.Host == "" || at.RawQuery != "" || at.Fragment != "" || at.User != nil {
		return Found{}, fault.New(fault.Invalid, "url_invalid", "The address of the MCP server is not well-formed.").WithHint("Write it in full, such as https://mcp.example.com/mcp.")
	}
	if err := f.cfg.Outbound.Check(ctx, ask.URL); err != nil {
		return Found{}, err
	}
	s := provider.MCPServer{ID: cmp.Or(ask.ID, slugOf(at.Hostname())), Name: cmp.Or(ask.Name, at.Hostname()), URL: ask.URL}
	if ask.Header != "" {
		s.Auth, s.Header, s.Format = provider.APIKey, ask.Header, ask.Format
		if s.Format == "" {
			s.Format = "{api_key}"
			if strings.EqualFold(s.Header, "Authorization") {
				s.Format = "Bearer {api_key}"
			}
		}
		rec, err := s.Record()
		return Found{Record: rec, How: "Accounts are connected with a key, which goes into the header " + s.Header + "."}, err
	}
	probe, err := provider.ProbeMCP(ctx, f.cfg.Outbound, ask.URL)
	if err != nil {
		return Found{}, err
	}
	if !probe.Refused {
		s.Auth, s.Revision = provider.None, probe.Listing.Revision
		rec, err := s.Record()
		return Found{Record: rec, How: "The server is open to everybody: nothing is sent along."}, err
	}
	return f.authorized(ctx, by.Environment(), ask, s, at, probe.Challenge)
}

// authorized drafts the record of a server that wants a token.
func (f *Finder) authorized(ctx context.Context, env id.Environment, ask Ask, s provider.MCPServer, at *url.URL, challenge []string) (Found, error) {
	resource, wanted, err := f.resource(ctx, at, challenge)
	if err != nil {
		return Found{}, err
	}
	issuers := resource.AuthorizationServers
	if resource.Resource == "" { // before RFC 9728, the server's own host was it
		issuers = []string{at.Scheme + "://" + at.Host}
	}
	var server metadata
	for _, issuer := range first(issuers, maxServers) {
		if server, err = f.server(ctx, issuer); err == nil {
			break
		}
	}
	if err != nil {
		return Found{}, err
	}
	s.Auth, s.Resource = provider.OAuth2, cmp.Or(resource.Resource, at.String())
	s.AuthorizeURL, s.TokenURL, s.RevokeURL = server.Authorize, server.Token, server.Revoke
	s.Issuer, s.IssuerOptional = server.Issuer, !server.SendsIssuer
	s.Scopes = wanted
	if slices.Contains(server.Scopes, "offline_access") && !slices.Contains(s.Scopes, "offline_access") {
		s.Scopes = append(s.Scopes, "offline_access")
	}
	c, err := f.client(ctx, env, s.ID, ask, server, s.Scopes)
	if err != nil {
		return Found{}, err
	}
	s.ClientAuth = c.auth
	rec, err := s.Record()
	return Found{Record: rec, ClientID: c.id, ClientSecret: c.secret, How: "Accounts are connected by signing in at " + hostOf(server.Authorize) + ", " + c.how + "."}, err
}

// resource is what the server says of itself as a protected resource, and which
// scopes it wants. The zero one: it says nothing.
func (f *Finder) resource(ctx context.Context, at *url.URL, challenge []string) (oauthex.ProtectedResourceMetadata, []string, error) {
	var told, wanted string
	if list, err := oauthex.ParseWWWAuthenticate(challenge); err == nil {
		for _, c := range list {
			if c.Scheme == "bearer" {
				told, wanted = cmp.Or(told, c.Params["resource_metadata"]), cmp.Or(wanted, c.Params["scope"])
			}
		}
	}
	root := at.Scheme + "://" + at.Host
	places := []string{root + "/.well-known/oauth-protected-resource" + strings.TrimRight(at.EscapedPath(), "/"), root + "/.well-known/oauth-protected-resource"}
	if told != "" {
		u, err := url.Parse(told)
		if err != nil || u.Scheme != at.Scheme || u.Host != at.Host {
			return oauthex.ProtectedResourceMetadata{}, nil, fault.New(fault.Invalid, "mcp_resource_differs", "The MCP server names another host for what it says of itself.").
				WithHint("Ask whoever runs it. Nothing was sent there.")
		}
		places = []string{told}
	}
	for _, place := range slices.Compact(places) {
		doc, ok, err := f.get(ctx, place)
		if err != nil {
			return oauthex.ProtectedResourceMetadata{}, nil, err
		}
		if !ok {
			continue
		}
		var m oauthex.ProtectedResourceMetadata
		if json.Unmarshal(doc, &m) != nil || len(m.AuthorizationServers) == 0 {
			return m, nil, fault.New(fault.Unavailable, "mcp_discovery_failed", "What the MCP server says of its authorization cannot be read.").WithHint("Ask whoever runs it, or connect it with a key: give the header that carries it.")
		}
		if !covers(m.Resource, at) {
			return m, nil, fault.New(fault.Invalid, "mcp_resource_differs", "The MCP server's description of itself is of another resource.").
				WithHint("A token for that would not be for this server. Give the address that the description names, or ask whoever runs it.")
		}
		scopes := strings.Fields(wanted)
		if wanted == "" {
			scopes = m.ScopesSupported
		}
		return m, first(scopes, maxScopes), nil
	}
	return oauthex.ProtectedResourceMetadata{}, first(strings.Fields(wanted), maxScopes), nil
}

// covers reports whether a resource is the server at an address, or what it lies
// below at the same host (RFC 9728 §3.3, MCP authorization).
func covers(resource string, at *url.URL) bool {
	r, err := url.Parse(resource)
	if err != nil || r.Scheme != at.Scheme || !strings.EqualFold(r.Host, at.Host) || r.RawQuery != "" || r.Fragment != "" || r.User != nil {
		return false
	}
	have, want := strings.TrimRight(at.EscapedPath(), "/"), strings.TrimRight(r.EscapedPath(), "/")
	return have == want || strings.HasPrefix(have, want+"/")
}

// metadata is an authorization server (RFC 8414), as far as it is used.
type metadata struct {
	Issuer      string   `json:"issuer"`
	Authorize   string   `json:"authorization_endpoint"`
	Token       string   `json:"token_endpoint"`
	Revoke      string   `json:"revocation_endpoint"`
	Register    string   `json:"registration_endpoint"`
	Scopes      []string `json:"scopes_supported"`
	Auth        []string `json:"token_endpoint_auth_methods_supported"`
	Challenges  []string `json:"code_challenge_methods_supported"`
	SendsIssuer bool     `json:"authorization_response_iss_parameter_supported"`
	TakesURL    bool     `json:"client_id_metadata_document_supported"`
}

// server reads the metadata of the authorization server that is issuer.
func (f *Finder) server(ctx context.Context, issuer string) (metadata, error) {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return metadata{}, fault.New(fault.Invalid, "mcp_discovery_failed", "The MCP server's authorization server has no well-formed address.")
	}
	root, path := u.Scheme+"://"+u.Host, strings.TrimRight(u.EscapedPath(), "/")
	places := []string{root + "/.well-known/oauth-authorization-server" + path, root + "/.well-known/openid-configuration" + path}
	if path != "" {
		places = append(places, root+path+"/.well-known/openid-configuration")
	}
	for _, place := range places {
		doc, ok, err := f.get(ctx, place)
		if err != nil {
			return metadata{}, err
		}
		var m metadata
		if !ok || json.Unmarshal(doc, &m) != nil {
			continue
		}
		if m.Issuer != issuer {
			return metadata{}, fault.New(fault.Denied, "issuer_mismatch", "The authorization server of the MCP server says that it is another one.").WithHint("Ask whoever runs it. No account can be connected there (RFC 8414 §3.3).")
		}
		if !slices.Contains(m.Challenges, "S256") {
			return metadata{}, fault.New(fault.Invalid, "mcp_discovery_failed", "The authorization server of the MCP server does not say that it takes PKCE with S256.").WithHint("Without it no account is connected. Ask whoever runs it.")
		}
		for _, endpoint := range []string{m.Authorize, m.Token, m.Revoke, m.Register} {
			if endpoint != "" {
				if err := f.cfg.Outbound.Check(ctx, endpoint); err != nil {
					return metadata{}, err
				}
			}
		}
		if m.Authorize == "" || m.Token == "" {
			continue
		}
		return m, nil
	}
	return metadata{}, fault.New(fault.Unavailable, "mcp_discovery_failed", "The MCP server wants a token, and no authorization server can be found that gives one.").
		WithHint("If it takes a key, give the header that carries it. Otherwise describe the provider yourself: docs/upstream-mcp.md.")
}

// registered is our client at an authorization server.
type registered struct {
	id     string
	secret secret.Value
	auth   string
	how    string
}

// client makes us a client: the one that was registered beforehand, or our
// metadata document where the server can read it, or one that it registers now.
func (f *Finder) client(ctx context.Context, env id.Environment, slug string, ask Ask, m metadata, scopes []string) (registered, error) {
	if ask.ClientID != "" {
		c := registered{id: ask.ClientID, secret: ask.ClientSecret, auth: "none", how: "as the client that you registered"}
		if !c.secret.IsZero() {
			c.auth = authOf(cmp.Or(m.takes("client_secret_basic", "client_secret_post"), "client_secret_basic"))
		}
		return c, nil
	}
	if m.TakesURL && f.cfg.Public.Scheme == "https" && (len(m.Auth) == 0 || slices.Contains(m.Auth, "none")) {
		return registered{id: f.cfg.Public.JoinPath(f.cfg.DocumentPath(env, slug)).String(), auth: "none", how: "where this server's address is the name of the client"}, nil
	}
	if m.Register == "" {
		return registered{}, fault.New(fault.Invalid, "mcp_client_missing", "The authorization server registers no clients by itself.").
			WithHint("Register one there, with the callback "+f.callback(env, slug)+", and give its client id.").With("callback", f.callback(env, slug))
	}
	kind := "web"
	if host := f.cfg.Public.Hostname(); host == "localhost" || strings.HasPrefix(host, "127.") {
		kind = "native"
	}
	method := m.takes("none", "client_secret_basic", "client_secret_post")
	switch {
	case len(m.Auth) == 0:
		method = "client_secret_basic"
	case method == "":
		return registered{}, fault.New(fault.Invalid, "mcp_client_missing", "The authorization server takes no kind of client that this server can be.").WithHint("It takes none, client_secret_basic and client_secret_post.")
	}
	body, err := json.Marshal(map[string]any{
		"client_name": "Ambit", "client_uri": f.cfg.Public.String(), "redirect_uris": []string{f.callback(env, slug)}, "application_type": kind,
		"grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"}, "token_endpoint_auth_method": method, "scope": strings.Join(scopes, " "),
	})
	if err != nil {
		return registered{}, err
	}
	return f.register(ctx, m.Register, body, method)
}

func (f *Finder) register(ctx context.Context, place string, body []byte, method string) (registered, error) {
	failed := func(why string) (registered, error) {
		return registered{}, fault.New(fault.Unavailable, "mcp_registration_failed", "The authorization server did not register a client: "+why+".").
			WithHint("Register one there by hand, and give its client id.")
	}
	resp, err := f.do(ctx, http.MethodPost, place, body)
	if err != nil {
		return registered{}, err
	}
	if resp.Status != http.StatusCreated && resp.Status != http.StatusOK {
		return failed("it answers with status " + strconv.Itoa(resp.Status))
	}
	var got struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
		Method string `json:"token_endpoint_auth_method"`
	}
	if strictjson.Check(resp.Body, strictjson.Limits{}) != nil || json.Unmarshal(resp.Body, &got) != nil || got.ID == "" {
		return failed("its answer cannot be read")
	}
	c := registered{id: got.ID, auth: authOf(cmp.Or(got.Method, method)), how: "where a client was registered just now"}
	switch c.auth {
	case "none":
	case "":
		return failed("it wants another kind of client than was asked for")
	default:
		if got.Secret == "" {
			return failed("it gave no secret")
		}
		c.secret = secret.FromString(got.Secret)
	}
	return c, nil
}

// takes is the first of some methods that the server takes; empty: none of them, as
// far as it says.
func (m metadata) takes(methods ...string) string {
	for _, method := range methods {
		if slices.Contains(m.Auth, method) {
			return method
		}
	}
	return ""
}

// authOf is a method of RFC 8414 as a record names it; empty: it has none.
func authOf(method string) string {
	switch method {
	case "none":
		return "none"
	case "client_secret_basic":
		return "basic"
	case "client_secret_post":
		return "post"
	}
	return ""
}

// get reads a document. ok is false when there is none.
func (f *Finder) get(ctx context.Context, place string) (doc []byte, ok bool, err error) {
	resp, err := f.do(ctx, http.MethodGet, place, nil)
	if err != nil {
		return nil, false, err
	}
	if resp.Status != http.StatusOK || strictjson.Check(resp.Body, strictjson.Limits{Bytes: maxDocument}) != nil {
		return nil, false, nil
	}
	return resp.Body, true, nil
}

func (f *Finder) do(ctx context.Context, method, place string, body []byte) (*outbound.Response, error) {
	u, err := url.Parse(place)
	if err != nil {
		return nil, fault.New(fault.Invalid, "url_invalid", "An address that the MCP server names is not well-formed.")
	}
	req := &http.Request{Method: method, URL: u, Header: http.Header{"Accept": {"application/json"}, "Mcp-Protocol-Version": {provider.RevisionHandshake}}}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	return f.cfg.Outbound.Do(ctx, outbound.Bound{Bases: []string{u.Scheme + "://" + u.Host}}, req, outbound.Limits{Body: maxDocument, Timeout: timeout})
}

func first(list []string, n int) []string { return list[:min(len(list), n)] }

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.Host
}

// slugOf makes a short name of a host: mcp.linear.app is linear.
func slugOf(host string) string {
	labels := strings.Split(strings.ToLower(host), ".")
	labels = slices.DeleteFunc(labels, func(l string) bool { return l == "mcp" || l == "www" || l == "api" })
	name := "mcp"
	if len(labels) > 1 {
		name = labels[len(labels)-2]
	} else if len(labels) == 1 {
		name = labels[0]
	}
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, name)
	if name == "" || name[0] < 'a' {
		name = "mcp_" + name
	}
	return name[:min(len(name), 40)]
}
