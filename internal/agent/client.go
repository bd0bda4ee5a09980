package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/issuer"
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
	AuthKeys  = "private_key_jwt" // RFC 7523, with keys of the client's own
)

// The grants that we know, of RFC 6749 where nothing else is said.
const (
	GrantCode              = "authorization_code"
	GrantRefresh           = "refresh_token"
	GrantClientCredentials = "client_credentials"
	GrantDevice            = "urn:ietf:params:oauth:grant-type:device_code"    // RFC 8628
	GrantExchange          = "urn:ietf:params:oauth:grant-type:token-exchange" // RFC 8693; of every client, about its own tokens
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

	secretHash, oldSecretHash []byte
	oldSecretUntil            time.Time
	keys, keysURL             string // a JWK Set, or where one lies
	workload                  string // whose tokens prove it (Workload.text); the keys are then the platform's
	url                       string // of the document that describes it
	freshUntil                time.Time
}

// Wire is the client's name in requests and answers.
func (c Client) Wire() string { return cmp.Or(c.url, string(c.ID)) }

// Keys is what a client said about the keys that it signs with.
func (c Client) Keys() (set json.RawMessage, address string) {
	return json.RawMessage(c.keys), c.keysURL
}

// DocumentHost is where the document lies that describes the client, and so who
// answers for it; empty for one that registered.
func (c Client) DocumentHost() string {
	u, err := url.Parse(c.url)
	if err != nil {
		return ""
	}
	return u.Host
}

// RegisterClient stores a client that registers itself. The secret is empty for
// a public client. What we do not support of the request is left out of the
// answer, as RFC 7591 §2 allows.
func (s *Service) RegisterClient(ctx context.Context, n NewClient) (Client, secret.Value, error) {
	c, err := n.client()
	if err != nil {
		return Client{}, secret.Value{}, err
	}
	if c.keysURL != "" {
		if s.keys.Check(ctx, c.keysURL) != nil {
			return Client{}, secret.Value{}, badMetadata("jwks_uri is an https URL in the public internet.")
		}
	}
	c.ID = id.NewClient()
	var sec secret.Value
	if c.AuthMethod == AuthBasic || c.AuthMethod == AuthPost {
		sec = secret.Token(secretPrefix)
		h := sec.Hash()
		c.secretHash = h[:]
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
		return Client{}, noClient()
	}
	return c, sqldb.Wrap("read a client", err)
}

func noClient() error {
	return fault.New(fault.NotFound, "not_found", "No such client.").
		WithHint("Register the client again; unused registrations are dropped after a day.")
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
	ID        string
	Secret    secret.Value // empty for a public client
	Assertion secret.Value // a JWT (RFC 7523) instead of a secret; ID may then be empty, unless a platform signed it
	Platform  bool         // it can only be a platform's
}

// Caller is an authenticated client; only AuthenticateClient makes one.
type Caller struct{ client Client }

// Client is the id of the caller.
func (c Caller) Client() id.Client { return c.client.ID }

// Public reports whether the caller proved nothing: its name is no secret.
func (c Caller) Public() bool { return c.client.AuthMethod == AuthNone }

// AuthenticateClient checks a client at the token endpoint. Unknown, expired
// and wrongly authenticated clients get the same answer. A confidential client
// may send its secret in either way; a public one must send none.
func (s *Service) AuthenticateClient(ctx context.Context, a ClientAuth) (Caller, error) {
	var signed issuer.Token
	if !a.Assertion.IsZero() {
		var err error
		if signed, err = readAssertion(a.Assertion); err != nil {
			return Caller{}, err
		}
		a.ID = cmp.Or(a.ID, signed.Said.Subject)
	}
	c, err := s.namedClient(ctx, a.ID)
	switch {
	case fault.Is(err, "not_found"):
		return Caller{}, invalidClient()
	case err != nil:
		return Caller{}, err
	case !signed.IsZero() && c.AuthMethod == AuthKeys && a.Secret.IsZero() && !a.Platform:
		err = s.proveByAssertion(ctx, c, signed)
	case !signed.IsZero() && c.AuthMethod == workloadProof && a.Secret.IsZero():
		err = s.proveByPlatform(ctx, c, signed)
	case !signed.IsZero() || !c.proves(a.Secret, s.now()):
		err = invalidClient()
	}
	if err != nil {
		return Caller{}, err
	}
	return Caller{client: c}, nil
}

func (c Client) proves(given secret.Value, now time.Time) bool {
	switch c.AuthMethod {
	case AuthNone:
		return given.IsZero() && len(c.secretHash) == 0
	case AuthKeys, workloadProof:
		return false
	}
	return isHashOf(c.secretHash, given) || now.Before(c.oldSecretUntil) && isHashOf(c.oldSecretHash, given)
}

func isHashOf(hash []byte, given secret.Value) bool {
	got := given.Hash()
	return len(hash) == sha256.Size && !given.IsZero() && subtle.ConstantTimeCompare(got[:], hash) == 1
}

// stillProven locks the client's row and checks that what authenticated caller
// still does: a replaced secret or key and a removed client issue nothing more.
func (s *Service) stillProven(ctx context.Context, tx *sqldb.Tx, caller Caller) error {
	c, err := selectClient(ctx, tx, caller.client.ID, tx.ShareLock())
	if sqldb.NoRows(err) {
		return invalidClient()
	}
	if err != nil {
		return err
	}
	was := caller.client
	if subtle.ConstantTimeCompare(c.secretHash, was.secretHash) != 1 || c.keys != was.keys || c.keysURL != was.keysURL || c.workload != was.workload {
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

func invalidClient() *fault.Error {
	return fault.New(fault.Unauthenticated, "invalid_client", "The client is unknown or did not prove who it is.").
		WithHint("Check client_id and secret; register the client again if it was never used for a day.")
}
