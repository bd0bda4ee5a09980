package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/issuer"
)

const (
	// AssertionSPIFFE is the type of a JWT-SVID as a client's assertion
	// (draft-ietf-oauth-spiffe-client-auth).
	AssertionSPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
	// GrantAssertion is the grant by which a workload brings its platform's token
	// (RFC 7523 §2.1).
	GrantAssertion = "urn:ietf:params:oauth:grant-type:jwt-bearer"

	spiffe        = "spiffe://"
	maxClaims     = 10
	maxClaim      = 500            // bytes of a claim's value, of a subject and of an issuer
	workloadFor   = 24 * time.Hour // the longest that a platform's token may still count
	workloadProof = "workload"     // how such a client proves itself; nobody may register so
)

// Workload is the word of a platform for what it runs: tokens that it signs about
// one subject prove an agent, which then holds no secret (workload identity: the
// service account tokens of Kubernetes, the OIDC tokens of GitHub Actions, the
// JWT-SVIDs of SPIFFE). One platform signs for many strangers, so what it says
// about this one is compared whole, and nothing of it is a pattern.
type Workload struct {
	Issuer  string            `json:"issuer,omitempty"`  // iss; may be empty for SPIFFE only, whose tokens need none
	Subject string            `json:"subject,omitempty"` // sub; may be empty if claims tell enough
	Claims  map[string]string `json:"claims,omitempty"`  // further ones, text, numbers or booleans, that must be just so
}

// IsZero reports whether no platform is named.
func (w Workload) IsZero() bool { return w.Issuer == "" && w.Subject == "" && len(w.Claims) == 0 }

// text is the one form of w in which it is stored, signed and compared.
func (w Workload) text() string {
	if w.IsZero() {
		return ""
	}
	out, err := json.Marshal(w) // maps come out sorted
	if err != nil {
		panic("agent: a workload of texts does not encode: " + err.Error())
	}
	return string(out)
}

func readWorkload(text string) (w Workload, err error) {
	if text == "" {
		return Workload{}, nil
	}
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		return Workload{}, fmt.Errorf("reading the workload of a client: %w", err)
	}
	return w, nil
}

// String says whose tokens prove the agent, for the person who agrees to it.
func (w Workload) String() string {
	parts := []string{"tokens of whoever has its trust domain's keys"}
	if w.Issuer != "" {
		parts[0] = "tokens of " + w.Issuer // a URL, so without spaces
	}
	if w.Subject != "" {
		parts = append(parts, "about "+strconv.Quote(w.Subject))
	}
	for _, name := range slices.Sorted(maps.Keys(w.Claims)) {
		parts = append(parts, "with "+name+" "+strconv.Quote(w.Claims[name]))
	}
	return strings.Join(parts, " ")
}

func badWorkload(msg string) *fault.Error { return fault.New(fault.Invalid, "invalid_workload", msg) }

// ownClaims are those that issuers for everybody give to one customer alone.
var ownClaims = [...]string{"repository_id", "repository_owner_id", "project_id", "namespace_id", "organization_id", "oid", "email", "azp", "tid"}

// shared reports whether an issuer signs for whoever signs up with it.
func shared(iss string) bool {
	u, err := url.Parse(iss)
	if err != nil {
		return true
	}
	host := u.Hostname()
	return slices.ContainsFunc([]string{"token.actions.githubusercontent.com", "gitlab.com", "accounts.google.com", "login.microsoftonline.com", "sts.windows.net", "oidc.circleci.com",
		"agent.buildkite.com", "app.terraform.io", "api.bitbucket.org", "oidc.vercel.com", "oidc.fly.io", "vstoken.dev.azure.com"}, func(h string) bool { return host == h || strings.HasSuffix(host, "."+h) })
}

// check reports what keeps a workload from being compared safely.
func (w Workload) check() error {
	ours := []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"}
	plain := func(s string) bool {
		return len(s) <= maxClaim && strings.TrimSpace(s) == s && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar })
	}
	switch {
	case w.Issuer == "" && !strings.HasPrefix(w.Subject, spiffe):
		return badWorkload("The issuer of the platform's tokens is missing.").WithHint("It is the iss of its tokens. Only a SPIFFE id as subject needs none.")
	case w.Subject == "" && len(w.Claims) == 0:
		return badWorkload("A platform signs for many: say about whom.").WithHint("Name the sub of this workload's tokens, or claims that only they have.")
	case w.Issuer != "" && !issuer.WellFormed(w.Issuer):
		return badWorkload("An issuer is an https URL without query, fragment or user name.").WithHint("It is the iss of the platform's tokens, as they have it.")
	case w.Subject == "" && shared(w.Issuer) && !slices.ContainsFunc(ownClaims[:], func(name string) bool { return w.Claims[name] != "" }):
		return badWorkload("Everybody can have tokens of this issuer with such claims.").WithHint("Name the subject, or one of " + strings.Join(ownClaims[:], ", ") + ".")
	case !plain(w.Subject):
		return badWorkload("Issuer and subject are at most 500 printable characters, as the tokens have them.")
	case strings.Contains(w.Subject, "*"):
		return badWorkload("A subject is compared whole; * stands for nothing.").WithHint("Leave the subject out and name claims that only this workload's tokens have, such as repository_id.")
	case len(w.Claims) > maxClaims:
		return badWorkload("At most ten claims are compared.")
	}
	for name, v := range w.Claims {
		if name == "" || v == "" || !plain(name) || !plain(v) || slices.Contains(ours, name) {
			return badWorkload("A claim has a name of its own, not " + strings.Join(ours, ", ") + ", and a value of at most 500 printable characters.").WithHint("The subject is named by itself; times and audience are always checked.")
		}
	}
	return nil
}

// trusting is c as a client that a platform's tokens prove. Keys are the JWK Set of
// the platform, or its address; without them, the issuer's metadata names it.
func (s *Service) trusting(ctx context.Context, c Client, w Workload, keys string) (Client, error) {
	if err := w.check(); err != nil {
		return Client{}, err
	}
	switch {
	case keys != "":
		var err error
		if c, err = withKeys(ctx, s.platforms, c, keys); err != nil {
			return Client{}, err
		}
	case w.Issuer == "":
		return Client{}, badWorkload("Without an issuer, the platform's keys are missing.").WithHint("Give the JWT keys of the trust domain's bundle, or the https address of the bundle.")
	default:
		m, err := s.platforms.Discover(ctx, w.Issuer)
		if err == nil {
			_, err = s.platforms.Keys(ctx, m.Keys, false)
		}
		if err != nil {
			return Client{}, badWorkload("The issuer's keys cannot be had: " + fault.Of(err).Message).
				WithHint("It publishes OpenID Connect metadata at a public https address. One that does not, such as a cluster of your own, is named together with its keys.").WithCause(err)
		}
		c.keys, c.keysURL = "", ""
	}
	c.AuthMethod, c.workload = workloadProof, w.text()
	return c, nil
}

// proveByPlatform checks the token by which a platform says that its bearer is a
// workload of c. It may come again while it counts: platforms hand the same one
// out for as long as it lives, to a file (RFC 7521 §4.2 asks for no single use).
func (s *Service) proveByPlatform(ctx context.Context, c Client, t issuer.Token) error {
	w, err := readWorkload(c.workload)
	if err != nil {
		return err
	}
	if w.IsZero() {
		return invalidClient()
	}
	away := func(err error) error {
		return fault.New(fault.Unavailable, "temporarily_unavailable", "The keys of the platform cannot be had now.").WithHint("Try again in a minute.").WithCause(err)
	}
	address := c.keysURL
	if address == "" && c.keys == "" {
		m, err := s.platforms.Discover(ctx, w.Issuer)
		if err != nil {
			return away(err)
		}
		address = m.Keys
	}
	var said map[string]any
	claims, ok, err := signedBy(ctx, s.platforms, address, c.keys, t, &said)
	if err != nil {
		return away(err)
	}
	now := s.now()
	no := func(what string) error {
		return invalidClient().WithHint("The platform's token was not accepted: " + what + ".")
	}
	switch {
	case !ok:
		return no("none of the platform's keys signed it")
	case w.Issuer != "" && claims.Issuer != w.Issuer:
		return no("its iss is another")
	case w.Subject != "" && claims.Subject != w.Subject:
		return no("its sub is another")
	case len(claims.Audience) != 1 || !s.isUs(claims.Audience[0]): // whoever else it is for could use it here
		return no("its aud is to be " + s.issuer + " and nothing else")
	case !issuer.Current(claims, now):
		return no("it is over, or not yet good")
	case claims.Expiry.Time().After(now.Add(workloadFor)):
		return no("it lives longer than a day")
	}
	for name, want := range w.Claims {
		if got, ok := claimText(said[name]); !ok || got != want {
			return no("its " + name + " is another")
		}
	}
	return nil
}

// claimText is a claim as text. What is in lists and objects is never equal to it.
func claimText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case float64:
		// Larger ones are not exact, and two of them could be the same.
		if v == float64(int64(v)) && v < 1<<53 && v > -(1<<53) {
			return strconv.FormatInt(int64(v), 10), true
		}
	}
	return "", false
}
