// Package account knows environments, organizations and people: who they are,
// how they sign in, what their roles allow, and the API keys of applications.
// There are no passwords. A person enrols through a single-use link, signs in
// with a passkey that verified them, with a code of a registered
// authenticator app, or at an identity provider that the operator or their
// organization has set up, and everything that must not be done by whoever holds the
// cookie asks for a [Proof]: a fresh passkey assertion whose challenge is the
// digest of exactly that thing. What raises somebody's authority is a [Raise],
// which [Service.Weigh] holds against a person's [Agreement] in the transaction
// that makes the change.
//
// Authority is the [Actor] that each management method takes; a [Person] and a
// [Key] can only be made here, from a token, read from the database at every
// request. Tokens are random, prefixed and stored as SHA-256:
//
//	amb_login_…  a browser's cookie or a command line's stored login
//	amb_link_…   enrolment, in a URL fragment, 15 minutes, once
//	amb_vouch_…  sign-in on an application's word, in a URL fragment, 5 minutes, once
//	amb_poll_…   a command line that waits to be confirmed
//	amb_signin_… a browser that has left for an identity provider, in a cookie, 10 minutes
//	sk_…         an API key
package account

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-webauthn/webauthn/webauthn"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/issuer"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/throttle"
	"github.com/ambit-dev/ambit/internal/vault"
)

const (
	loginPrefix = "amb_login_"
	linkPrefix  = "amb_link_"
	vouchPrefix = "amb_vouch_"
	pollPrefix  = "amb_poll_"
	keyPrefix   = "sk_"
)

// How long things last.
const (
	LoginIdle  = 12 * time.Hour     // a browser that is not used
	LoginAge   = 7 * 24 * time.Hour // a browser, used or not
	CLIAge     = 30 * 24 * time.Hour
	LinkAge    = 15 * time.Minute
	VouchAge   = 5 * time.Minute  // a link on an application's word
	VouchedAge = 30 * time.Minute // a browser that followed one
	// FederatedAge is a browser that an identity provider let in, so that whoever is
	// shut out there is out here the next day; a command line that such a browser let
	// in has LoginAge.
	FederatedAge = 24 * time.Hour
	FlowAge      = 10 * time.Minute // a ceremony, a waiting command line
)

// Environment is a hard namespace. The owners and admins of its Operator
// organization run it as a whole.
type Environment struct {
	ID        id.Environment
	Name      string
	Operator  id.Organization
	CreatedAt time.Time
	Version   int64
}

// Organization is a tenant of an environment.
type Organization struct {
	ID             id.Organization
	Environment    id.Environment
	Name           string
	ExternalID     string // a product's own name for it; unique in the environment
	RequirePasskey bool   // codes of an authenticator app prove nothing here
	NoVending      bool   // no credential of its connections is handed to an application: no standing access
	CreatedAt      time.Time
	Version        int64
}

// User is a person as stored.
type User struct {
	ID          id.User
	Environment id.Environment // where the user was made
	Email       string         // canonical; may be empty
	Name        string
	ExternalID  string
	DisabledAt  time.Time
	CreatedAt   time.Time
	Version     int64
}

// Member is a user's place in an organization.
type Member struct {
	User
	Organization id.Organization
	Role         Role
}

// Config is what a Service needs. DB, Vault, Audit and PublicURL are required.
type Config struct {
	DB    *sqldb.DB
	Vault *vault.Vault
	Audit *audit.Log
	// PublicURL is where people reach the server. Its host is the WebAuthn
	// relying party, its origin the only one from which passkeys are accepted.
	PublicURL *url.URL
	// OnUserLeft ends what a user has running in an organization, or everywhere
	// if org is empty, in the transaction that takes them out.
	OnUserLeft func(ctx context.Context, tx *sqldb.Tx, env id.Environment, org id.Organization, user id.User) error
	// Outbound reaches identity providers; nil reaches none.
	Outbound *outbound.Client
	// SignIn is the identity provider of the operator, for everybody; zero: none.
	SignIn OperatorSignIn
	Now    func() time.Time
	Logger *slog.Logger
}

// Service is the room's door. It is safe for concurrent use.
type Service struct {
	db     *sqldb.DB
	vault  *vault.Vault
	audit  *audit.Log
	base   string // public URL without a slash at its end
	origin string
	rp     *webauthn.WebAuthn
	onLeft func(ctx context.Context, tx *sqldb.Tx, env id.Environment, org id.Organization, user id.User) error
	now    func() time.Time
	log    *slog.Logger

	issuers  *issuer.Reader
	operator OperatorSignIn
	local    bool              // the public URL is loopback
	arrivals *throttle.Limiter // of answers of identity providers, by provider and address
	// admissions are of people whom a provider makes members: a company's first morning
	// passes, a provider that makes up people is slow at it.
	admissions *throttle.Limiter

	strangers  *strangers
	challenges challenges
}

// New makes a Service.
func New(cfg Config) (*Service, error) {
	if cfg.DB == nil || cfg.Vault == nil || cfg.Audit == nil || cfg.PublicURL == nil {
		return nil, errors.New("account: the configuration is incomplete")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.OnUserLeft == nil {
		cfg.OnUserLeft = func(context.Context, *sqldb.Tx, id.Environment, id.Organization, id.User) error { return nil }
	}
	origin, err := originOf(cfg.PublicURL)
	if err != nil {
		return nil, err
	}
	rp, err := relyingParty(cfg.PublicURL.Hostname(), origin)
	if err != nil {
		return nil, err
	}
	cfg.Vault.Keeps(keeps()...)
	return &Service{
		db: cfg.DB, vault: cfg.Vault, audit: cfg.Audit, base: strings.TrimRight(cfg.PublicURL.String(), "/"), origin: origin, rp: rp,
		onLeft: cfg.OnUserLeft, now: func() time.Time { return cfg.Now().UTC().Truncate(time.Microsecond) }, log: cfg.Logger,
		issuers: issuer.NewConfigured(cfg.Outbound, cfg.Now), operator: cfg.SignIn, local: loopback(cfg.PublicURL.Hostname()),
		strangers: newStrangers(), arrivals: throttle.New(1, 60, maxStrangers, cfg.Now),
		admissions: throttle.New(1.0/6, 100, maxStrangers, cfg.Now),
	}, nil
}

// Origin is the only origin whose passkey assertions are accepted.
func (s *Service) Origin() string { return s.origin }

// RelyingParty is the WebAuthn RP ID.
func (s *Service) RelyingParty() string { return s.rp.Config.RPID }

// originOf gives the origin as a browser writes it: lower case, no default port.
func originOf(u *url.URL) (string, error) {
	scheme, host, port := strings.ToLower(u.Scheme), strings.ToLower(u.Hostname()), u.Port()
	if scheme != "http" && scheme != "https" || host == "" {
		return "", errors.New("account: the public URL must be an http or https URL with a host")
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port == "" || scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		return scheme + "://" + host, nil
	}
	return scheme + "://" + host + ":" + port, nil
}

// entry starts an audit entry about something that by did.
func entry(by Actor, env id.Environment, org id.Organization, action, object string) audit.Entry {
	e := audit.Entry{Environment: env, Organization: org, Actor: by.Audit(), Action: action, Object: object, Address: by.Address()}
	e.User = by.User()
	return e
}

// personEntry starts an audit entry about something that a person did to
// themselves.
func personEntry(p Person, action, object string) audit.Entry {
	return entry(ByPerson(p), p.home, "", action, object)
}

const (
	maxName     = 200
	maxExternal = 200
	maxEmail    = 254
)

// checkName accepts what a person will read on one line: printable, without the
// marks that reorder or hide text.
func checkName(noun, name string) error {
	if name == "" || !printable(name) || utf8.RuneCountInString(name) > maxName {
		return fault.New(fault.Invalid, "invalid_name", noun+" is 1 to 200 printable characters on one line, without space around it.")
	}
	return nil
}

func checkExternalID(s string) error {
	if len(s) > maxExternal || !printable(s) {
		return fault.New(fault.Invalid, "invalid_external_id", "An external id is at most 200 printable characters.")
	}
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && strings.TrimSpace(s) == s && len(s) <= 4*maxName && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// CanonicalEmail gives the one form in which an e-mail address is stored and
// looked up, so that two spellings are never two people (threats.md G8). It
// does not say that the address exists.
func CanonicalEmail(s string) (string, error) {
	bad := fault.New(fault.Invalid, "invalid_email", "This is not an e-mail address.")
	if len(s) > 4*maxEmail || !utf8.ValidString(s) {
		return "", bad
	}
	fold := cases.Fold()
	c := s
	// Folding can undo normalization and the other way round; what has not
	// settled after a few rounds is nobody's address.
	for range 4 {
		next := strings.TrimSpace(norm.NFKC.String(fold.String(norm.NFKC.String(c))))
		if next == c {
			break
		}
		c = next
	}
	if settled := strings.TrimSpace(norm.NFKC.String(fold.String(norm.NFKC.String(c)))); settled != c {
		return "", bad
	}
	local, domain, ok := strings.Cut(c, "@")
	if !ok || local == "" || domain == "" || strings.Contains(domain, "@") || len(c) > maxEmail ||
		strings.ContainsFunc(c, func(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) }) {
		return "", bad
	}
	return c, nil
}

// List asks for one page of a list.
type List struct {
	After string // the id after which the page starts; empty is the beginning
	Limit int    // 0 means 50; at most 200
}

func (l List) limit() int {
	switch {
	case l.Limit <= 0:
		return 50
	case l.Limit > 200:
		return 200
	}
	return l.Limit
}

// page cuts what was read, one row over the limit, to the page and the id after
// which the next one starts.
func page[T any](rows []T, limit int, key func(T) string) ([]T, string) {
	if len(rows) <= limit {
		return slices.Clip(rows), ""
	}
	rows = rows[:limit:limit]
	return rows, key(rows[limit-1])
}
