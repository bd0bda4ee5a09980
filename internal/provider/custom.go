package provider

import (
	"cmp"
	"context"
	"net/url"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
)

// Custom is an OAuth 2 provider as an application describes one that the
// catalogue does not know: enough to sign people in and to vend their tokens. It
// has no tools and nothing that tells whose an account is.
type Custom struct {
	Slug, Name                           string
	AuthorizeURL, TokenURL, RefreshURL   string
	NoPKCE, NoSecret, SecretInBody, JSON bool
	Separator                            string // of scopes; empty: one space
	Params                               map[string]string
}

// ID is the id of the record that a slug of the WorkOS wire gets, which may hold
// what ours may not.
func (c Custom) ID() string { return IDOf(c.Slug) }

// IDOf is the id that belongs to a slug of the WorkOS wire.
func IDOf(slug string) string {
	return strings.NewReplacer("-", "_", ".", "_").Replace(strings.ToLower(slug))
}

// Record writes the record, whose text can be edited further.
func (c Custom) Record() (Record, error) {
	at, err := url.Parse(c.TokenURL)
	if err != nil || at.Host == "" {
		return Record{}, fault.New(fault.Invalid, "invalid_provider", "The token URL is not a URL.")
	}
	oauth := map[string]any{"authorize_url": c.AuthorizeURL, "token_url": c.TokenURL, "client_auth": c.clientAuth(), "pkce": !c.NoPKCE}
	if c.RefreshURL != "" && c.RefreshURL != c.TokenURL {
		oauth["refresh"] = map[string]any{"url": c.RefreshURL}
	}
	if c.Separator != "" && c.Separator != " " {
		oauth["scopes"] = map[string]any{"separator": c.Separator}
	}
	if len(c.Params) > 0 {
		oauth["authorize_params"] = c.Params
	}
	if c.JSON {
		oauth["token_body"] = "json"
	}
	doc := map[string]any{"id": c.ID(), "name": c.Name, "auth": string(OAuth2), "oauth2": oauth,
		"api":    map[string]any{"base": []string{at.Scheme + "://" + at.Host}}, // where nothing is called: there are no tools
		"inject": map[string]any{"header": "Authorization", "format": "Bearer {access_token}"}}
	if c.Slug != c.ID() {
		doc["pipes"] = c.Slug
	}
	text, err := yaml.Dump(doc)
	if err != nil {
		return Record{}, fault.New(fault.Internal, "record_unwritten", "The record could not be written.").WithCause(err)
	}
	return Parse(text)
}

func (c Custom) clientAuth() string {
	switch {
	case c.NoSecret:
		return "none"
	case c.SecretInBody:
		return "post"
	}
	return "basic"
}

// CustomOf reads back what a record says of a provider in those words.
func CustomOf(r Record) Custom {
	c := Custom{Slug: r.Wire(), Name: r.Name}
	o := r.OAuth
	if o == nil {
		return c
	}
	c.AuthorizeURL, c.TokenURL, c.RefreshURL = o.AuthorizeURL, o.TokenURL, o.Refresh.URL
	c.NoPKCE, c.NoSecret, c.SecretInBody, c.JSON = !o.UsesPKCE(), o.ClientAuth == "none", o.ClientAuth == "post", o.TokenBody == "json"
	c.Separator, c.Params = cmp.Or(o.Scopes.Separator, " "), o.AuthorizeParams
	return c
}

// ByWire finds a provider of env by its slug on the WorkOS wire, or by its id.
func (s *Store) ByWire(ctx context.Context, env id.Environment, slug string) (Provider, error) {
	p, err := s.Get(ctx, env, IDOf(slug))
	if err == nil && (p.Record.Wire() == slug || p.Record.ID == slug) {
		return p, nil
	}
	if err != nil && !fault.Is(err, "not_found") {
		return Provider{}, err
	}
	all, err := s.List(ctx, env)
	for _, p := range all {
		if p.Record.Wire() == slug || p.Record.ID == slug {
			return p, nil
		}
	}
	if err == nil {
		err = notFound()
	}
	return Provider{}, err
}
