package agent

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/throttle"
)

// A client may be named by the address of a document about itself, instead of
// registering (OAuth Client ID Metadata Document). Whoever can put a document
// there is the client, so its host is shown to the person who decides.

const (
	documentAtLeast = 5 * time.Minute // a document counts without another look
	documentAtMost  = 24 * time.Hour
	documentStale   = 24 * time.Hour // and while its place does not answer
)

// FindClient gives the client of an authorization request by its name on the
// wire. A document that is not known, or not fresh, is fetched; address is whose
// request that is.
func (s *Service) FindClient(ctx context.Context, name, address string) (Client, error) {
	if !isDocument(name) {
		return s.namedClient(ctx, name)
	}
	if err := checkDocumentURL(name); err != nil {
		return Client{}, err
	}
	if !s.allowed.have(name) {
		return Client{}, fault.New(fault.Invalid, "invalid_client", "Clients that are named by a document at this host are not allowed here.").
			WithHint("The operator says at which hosts they may lie (AMBIT_CLIENT_DOCUMENTS). A client can be registered instead.")
	}
	have, err := clientByURL(ctx, s.db.Reader(), name)
	known := err == nil && !s.gone(have)
	if err != nil && !sqldb.NoRows(err) {
		return Client{}, sqldb.Wrap("read a client", err)
	}
	now := s.now()
	if known && now.Before(have.freshUntil) {
		return have, nil
	}
	c, err := s.fetchDocument(ctx, name, address)
	if kind := fault.KindOf(err); err != nil && known && (kind == fault.Unavailable || kind == fault.Limited) && now.Before(have.freshUntil.Add(documentStale)) {
		return have, nil
	}
	if err != nil {
		return Client{}, err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) (err error) {
		c, err = saveDocument(ctx, tx, c, throttle.Address(address))
		return err
	})
	return c, sqldb.Wrap("store a client's document", err)
}

// namedClient looks a client up by its name on the wire and fetches nothing.
func (s *Service) namedClient(ctx context.Context, name string) (Client, error) {
	if !isDocument(name) {
		clientID, err := parseClientID(name)
		if err != nil {
			return Client{}, noClient()
		}
		return s.Client(ctx, clientID)
	}
	if !s.allowed.have(name) { // it may have been, when it got its tokens
		return Client{}, noClient()
	}
	c, err := clientByURL(ctx, s.db.Reader(), name)
	if sqldb.NoRows(err) || err == nil && s.gone(c) {
		return Client{}, noClient()
	}
	return c, sqldb.Wrap("read a client", err)
}

// Hosts are those at which documents of clients may lie: example.com, with a port
// where it has one, or *.example.com for all below it. None is empty and not nil.
type Hosts []string

// ParseHosts reads a setting: hosts, none, or nothing for every host.
func ParseHosts(list []string) (Hosts, error) {
	if len(list) == 0 {
		return nil, nil
	}
	if len(list) == 1 && list[0] == "none" {
		return Hosts{}, nil
	}
	var out Hosts
	for _, h := range list {
		h = strings.ToLower(h)
		bare := strings.TrimPrefix(h, "*.")
		u, err := url.Parse("https://" + bare + "/x")
		if err != nil || u.Host != bare || !plainHost(u.Hostname()) || strings.HasSuffix(bare, ":") || strings.Contains(bare, "*") {
			return nil, fault.New(fault.Invalid, "client_documents_invalid", "A host of client documents is none.").WithHint("AMBIT_CLIENT_DOCUMENTS lists hosts such as example.com or *.example.com, or is none.")
		}
		out = append(out, h)
	}
	return out, nil
}

// NoDocuments reports whether no document of a client counts.
func (s *Service) NoDocuments() bool { return s.allowed != nil && len(s.allowed) == 0 }

func (h Hosts) have(address string) bool {
	if h == nil {
		return true
	}
	u, err := url.Parse(address)
	return err == nil && outbound.Listed(h, strings.ToLower(u.Host))
}

func isDocument(name string) bool { return strings.Contains(name, "://") }

// checkDocumentURL accepts the one spelling of an address that can name a client:
// with a path, and without query, fragment, user or dot segments.
func checkDocumentURL(raw string) error {
	bad := fault.New(fault.Invalid, "invalid_request", "The client's name is no address of a client document.").
		WithHint("It is an https URL in its plain form, with a path and without query, fragment, user name or dot segments.")
	u, err := url.Parse(raw)
	if err != nil || len(raw) > maxRedirectLen || u.String() != raw || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.ForceQuery ||
		u.Path == "" || u.Path == "/" || strings.Contains(raw, "#") || !plainHost(u.Hostname()) || strings.HasSuffix(u.Host, ":") {
		return bad
	}
	for _, seg := range strings.Split(u.Path, "/") {
		if seg == "." || seg == ".." {
			return bad
		}
	}
	return nil
}

// fetchDocument gets the document that name is the address of. The looks that
// strangers cause are limited by who asks and by where they lead (threats.md W5).
func (s *Service) fetchDocument(ctx context.Context, name, address string) (Client, error) {
	u, _ := url.Parse(name) // checked before
	for _, key := range []string{"from " + throttle.Address(address), "to " + u.Host} {
		if ok, wait := s.fetches.Allow(key); !ok {
			return Client{}, fault.New(fault.Limited, "temporarily_unavailable", "Too many client documents are looked at.").WithRetry(wait)
		}
	}
	got, err, _ := s.documents.Do(name, func() (any, error) {
		resp, err := s.keys.Fetch(context.WithoutCancel(ctx), name, MaxMetadata)
		if err != nil {
			return nil, err
		}
		n, err := ReadClient(resp.Body)
		if err != nil {
			return nil, err
		}
		c, err := s.described(ctx, n, name)
		c.freshUntil = s.now().Add(maxAge(resp.Header, documentAtLeast, documentAtMost))
		return c, err
	})
	if err != nil {
		return Client{}, badDocument(err)
	}
	return got.(Client), nil
}

// described is the client that a document describes: itself, in so many words,
// and without a secret, which everybody could read there.
func (s *Service) described(ctx context.Context, n NewClient, name string) (Client, error) {
	switch {
	case n.ID != name:
		return Client{}, badMetadata("client_id in the document is another one.")
	case n.HasSecret || n.AuthMethod == AuthBasic || n.AuthMethod == AuthPost:
		return Client{}, badMetadata("A client document holds no secret: everybody can read it.")
	case n.AuthMethod == "":
		n.AuthMethod = AuthNone
	}
	c, err := n.client()
	if err == nil && c.keysURL != "" {
		err = s.keys.Check(ctx, c.keysURL)
	}
	now := s.now()
	c.ID, c.url, c.CreatedAt, c.ExpiresAt = id.NewClient(), name, now, now.Add(unusedClientTTL)
	return c, err
}

// badDocument says in words for a person why a document is not taken. What the
// place answered is no part of it.
func badDocument(err error) error {
	f := fault.Of(err)
	switch {
	case f.Kind == fault.Limited, f.Kind == fault.Internal:
		return err
	case f.Kind == fault.Unavailable && f.Code != "upstream_too_large":
		return fault.New(fault.Unavailable, "temporarily_unavailable", "The agent's client document cannot be read now.").WithHint("Try again in a moment.").WithCause(err)
	}
	return fault.New(fault.Invalid, "invalid_request", "The agent's client document cannot be used: "+f.Message).WithHint(f.Hint).WithCause(err)
}

// maxAge reads how long an answer may be kept, within bounds.
func maxAge(h http.Header, atLeast, atMost time.Duration) time.Duration {
	for _, part := range strings.Split(h.Get("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if strings.EqualFold(name, "max-age") {
			if d, err := time.ParseDuration(value + "s"); err == nil {
				return min(max(d, atLeast), atMost)
			}
		}
	}
	return atLeast
}
