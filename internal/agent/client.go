package agent

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

const (
	secretPrefix = "amb_cs_"
	// unusedClientTTL is how long a client that registered itself is kept
	// before a person has consented to it once.
	unusedClientTTL = 24 * time.Hour
)

// The ways in which a client proves at the token endpoint who it is.
const (
	AuthNone  = "none" // a public client: PKCE stands in
	AuthBasic = "client_secret_basic"
	AuthPost  = "client_secret_post"
)

// The grants that we know, of RFC 6749 where nothing else is said.
const (
	GrantCode              = "authorization_code"
	GrantRefresh           = "refresh_token"
	GrantClientCredentials = "client_credentials"
	GrantDevice            = "urn:ietf:params:oauth:grant-type:device_code" // RFC 8628
)

// Client is an OAuth client. Name is what it called itself: shown to operators,
// never in what a person decides on.
type Client struct {
	ID              id.Client
	Environment     id.Environment // empty unless an admin made it with an agent
	Organization    id.Organization
	Name            string
	RedirectURIs    []string
	Grants          []string
	AuthMethod      string
	ApplicationType string // web or native
	CreatedAt       time.Time
	ExpiresAt       time.Time // zero once somebody has consented
	Version         int64

	secretHash []byte
}

// Wire is the client's name in requests and answers.
func (c Client) Wire() string { return string(c.ID) }

// NewClient is a registration request (RFC 7591).
type NewClient struct {
	RedirectURIs    []string
	Name            string
	Grants          []string // empty: authorization_code
	AuthMethod      string   // empty: client_secret_basic
	ApplicationType string   // empty: native if a redirect stays on the person's machine
	Address         string
}

// RegisterClient stores a client that registers itself. The secret is empty for
// a public client. What we do not support of the request is left out of the
// answer, as RFC 7591 §2 allows.
func (s *Service) RegisterClient(ctx context.Context, n NewClient) (Client, secret.Value, error) {
	c := Client{ID: id.NewClient(), Name: cleanName(n.Name), RedirectURIs: slices.Clone(n.RedirectURIs),
		AuthMethod: n.AuthMethod, ApplicationType: n.ApplicationType, Version: 1}
	var err error
	if c.Grants, err = ownGrants(n.Grants); err != nil {
		return Client{}, secret.Value{}, err
	}
	if slices.Contains(c.Grants, GrantCode) == (len(c.RedirectURIs) == 0) || len(c.RedirectURIs) > maxRedirects {
		return Client{}, secret.Value{}, fault.New(fault.Invalid, "invalid_redirect_uri", fmt.Sprintf("A client registers 1 to %d redirect URIs for the code grant, and none without it.", maxRedirects))
	}
	local := false
	for _, uri := range c.RedirectURIs {
		kind, err := parseRedirect(uri)
		if err != nil {
			return Client{}, secret.Value{}, err
		}
		if kind == redirectWeb {
			continue
		}
		local = true
		if c.ApplicationType == "web" {
			return Client{}, secret.Value{}, fault.New(fault.Invalid, "invalid_redirect_uri", "A web client redirects to https only.").
				WithHint("Register with application_type native.")
		}
	}
	if c.ApplicationType == "" {
		c.ApplicationType = "web"
		if local {
			c.ApplicationType = "native"
		}
	}
	if c.ApplicationType != "web" && c.ApplicationType != "native" {
		return Client{}, secret.Value{}, badMetadata("application_type is web or native.")
	}
	var sec secret.Value
	switch c.AuthMethod {
	case "":
		c.AuthMethod = AuthBasic
		fallthrough
	case AuthBasic, AuthPost:
		sec = secret.Token(secretPrefix)
		h := sec.Hash()
		c.secretHash = h[:]
	case AuthNone:
	default:
		return Client{}, secret.Value{}, badMetadata("token_endpoint_auth_method is none, client_secret_basic or client_secret_post.")
	}
	now := s.now()
	c.CreatedAt, c.ExpiresAt = now, now.Add(unusedClientTTL)
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		return insertClient(ctx, tx, c, n.Address)
	})
	if err != nil {
		return Client{}, secret.Value{}, fmt.Errorf("storing a client registration: %w", err)
	}
	return c, sec, nil
}

func badMetadata(msg string) error { return fault.New(fault.Invalid, "invalid_client_metadata", msg) }

// ownGrants keeps of the requested grants those that a client which registered
// itself may have. Client credentials are an admin's to give.
func ownGrants(asked []string) ([]string, error) {
	if len(asked) == 0 {
		return []string{GrantCode}, nil
	}
	var out []string
	for _, g := range []string{GrantCode, GrantDevice, GrantRefresh} {
		if slices.Contains(asked, g) {
			out = append(out, g)
		}
	}
	if !slices.Contains(out, GrantCode) && !slices.Contains(out, GrantDevice) {
		return nil, badMetadata("grant_types includes authorization_code or " + GrantDevice + ".")
	}
	return out, nil
}

// cleanName keeps what is printable of a name that nobody vouches for.
func cleanName(name string) string {
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, name)
	runes := []rune(strings.TrimSpace(name))
	return strings.TrimSpace(string(runes[:min(len(runes), maxNameLen)]))
}

// Client looks up a live registration. It is not authentication.
func (s *Service) Client(ctx context.Context, client id.Client) (Client, error) {
	c, err := selectClient(ctx, s.db.Reader(), client, "")
	if sqldb.NoRows(err) || err == nil && s.gone(c) {
		return Client{}, fault.New(fault.NotFound, "not_found", "No such client.").
			WithHint("Register the client again; unused registrations are dropped after a day.")
	}
	return c, sqldb.Wrap("read a client", err)
}

func parseClientID(s string) (c id.Client, err error) {
	err = parse(&c, s)
	return c, err
}

// parse is id.Parse for the kind that dst has.
func parse[K id.Kind](dst *id.ID[K], s string) (err error) {
	*dst, err = id.Parse[K](s)
	return err
}

func (s *Service) gone(c Client) bool { return !c.ExpiresAt.IsZero() && !s.now().Before(c.ExpiresAt) }

// ClientAuth is what a client sent to prove who it is.
type ClientAuth struct {
	ID     string
	Secret secret.Value // empty for a public client
}

// Caller is an authenticated client; only AuthenticateClient makes one.
type Caller struct{ client Client }

// Client is the id of the caller.
func (c Caller) Client() id.Client { return c.client.ID }

// Public reports whether the caller has no secret: its name alone proves nothing.
func (c Caller) Public() bool { return c.client.AuthMethod == AuthNone }

// AuthenticateClient checks a client at the token endpoint. Unknown, expired
// and wrongly authenticated clients get the same answer. A confidential client
// may send its secret in either way; a public one must send none.
func (s *Service) AuthenticateClient(ctx context.Context, a ClientAuth) (Caller, error) {
	clientID, err := parseClientID(a.ID)
	if err != nil {
		return Caller{}, invalidClient()
	}
	c, err := s.Client(ctx, clientID)
	switch {
	case fault.Is(err, "not_found"):
		return Caller{}, invalidClient()
	case err != nil:
		return Caller{}, err
	case !c.proves(a.Secret):
		return Caller{}, invalidClient()
	}
	return Caller{client: c}, nil
}

func (c Client) proves(given secret.Value) bool {
	if c.AuthMethod == AuthNone {
		return given.IsZero() && len(c.secretHash) == 0
	}
	got := given.Hash()
	return len(c.secretHash) == sha256.Size && !given.IsZero() && subtle.ConstantTimeCompare(got[:], c.secretHash) == 1
}

// stillProven locks the client's row and checks that what authenticated caller
// still does: a rotated secret or a removed client issues nothing more.
func (s *Service) stillProven(ctx context.Context, tx *sqldb.Tx, caller Caller) error {
	c, err := selectClient(ctx, tx, caller.client.ID, tx.ShareLock())
	if sqldb.NoRows(err) {
		return invalidClient()
	}
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(c.secretHash, caller.client.secretHash) != 1 {
		return invalidClient()
	}
	return nil
}

func (c Caller) may(grant string) error {
	if c.client.ID == "" {
		return invalidClient()
	}
	if !slices.Contains(c.client.Grants, grant) {
		return fault.New(fault.Denied, "unauthorized_client", "This client may not use "+grant+".").
			WithHint("Register the client with that grant, or use another one.")
	}
	return nil
}

func invalidClient() error {
	return fault.New(fault.Unauthenticated, "invalid_client", "The client is unknown or did not prove who it is.").
		WithHint("Check client_id and secret; register the client again if it was never used for a day.")
}
