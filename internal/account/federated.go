package account

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/issuer"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/throttle"
)

// A sign-in at an identity provider (OpenID Connect Core §3.1) leaves nothing here
// while it is under way, as one by passkey (see challenge.go). The browser keeps a
// random key and what the sign-in is for, in a cookie; nonce and PKCE verifier are
// hashes of that key, and the state is the flow with its HMAC over all of it. So an
// answer counts in the browser that asked, for what it asked, at the provider that
// it asked, once, within ten minutes (threats.md O1, O2, W2). What an answer leads to,
// once it is believed, is in arrived.go.

const keepPrefix = "amb_signin_"

// What a sign-in at a provider is for.
const (
	forSignIn = "signin"
	forEnroll = "enroll" // of a link, which the browser has shown us
	forAdd    = "add"    // one more way in, of a login that has proved presence for it
	forCode   = "code"   // the person proves anew that they are there; see fresh.go
)

// Leaving is a browser on its way to an identity provider.
type Leaving struct {
	Address string       // at the provider
	Keep    secret.Value // for a cookie, until the answer comes
}

// Arrival is the answer of an identity provider, as the browser brings it.
type Arrival struct {
	State, Code, Issuer string
	Error               string // what the provider says instead of a code
	Keep                secret.Value
	Address             string // of the browser
}

// Arrived is what an answer led to.
type Arrived struct {
	Login secret.Value // a new one, unless the browser keeps its own
	Next  string
	Code  string // for a form, of a fresh sign-in
}

// leave begins a sign-in at a provider.
func (s *Service) leave(ctx context.Context, provider id.IdentityProvider, what, next string) (Leaving, error) {
	if strings.ContainsAny(what+next, "|\r\n") {
		return Leaving{}, fault.New(fault.Invalid, "invalid_next", "The address to come back to is malformed.")
	}
	i, err := s.provider(ctx, s.db.Reader(), provider)
	if err != nil {
		return Leaving{}, err
	}
	m, err := s.issuers.Discover(ctx, i.Issuer)
	if err != nil {
		return Leaving{}, providerAway(err)
	}
	k, err := s.challengeKey(ctx)
	if err != nil {
		return Leaving{}, err
	}
	keep := joined(secret.Token(keepPrefix), "|"+what+"|"+next)
	f := s.newFlow(k)
	a := asking(f, i.ID, keep, what)
	a.State = f + "." + stateMAC(k, f, i.ID, keep)
	address, err := s.party(i).AuthorizationURL(m, a)
	return Leaving{Address: address, Keep: keep}, err
}

func providerAway(err error) error {
	switch fault.KindOf(err) {
	case fault.Internal, fault.Limited:
		return err
	}
	return fault.New(fault.Unavailable, "identity_provider_away", "The identity provider cannot be reached, or is not set up well.").
		WithHint("Try again in a moment, or use a passkey.").WithCause(err)
}

// asking is the request of a flow: what only this browser and we can know of it.
func asking(flow string, provider id.IdentityProvider, keep secret.Value, what string) issuer.Ask {
	challenge := sha256.Sum256([]byte(verifierOf(flow, provider, keep)))
	return issuer.Ask{Nonce: derived("nonce", flow, provider, keep), Challenge: b64(challenge[:]), Fresh: strings.HasPrefix(what, forCode+" ")}
}

func verifierOf(flow string, provider id.IdentityProvider, keep secret.Value) string {
	return derived("verifier", flow, provider, keep)
}

func derived(what, flow string, provider id.IdentityProvider, keep secret.Value) string {
	hash := keep.Hash()
	sum := sha256.Sum256(crypt.Fields("ambit federated "+what+" 1", flow, string(provider), string(hash[:])))
	return b64(sum[:])
}

func stateMAC(k challengeKey, flow string, provider id.IdentityProvider, keep secret.Value) string {
	hash := keep.Hash()
	mac := hmac.New(sha256.New, k.key)
	mac.Write(crypt.Fields("ambit federated state 1", flow, string(provider), string(hash[:])))
	return b64(mac.Sum(nil))
}

// LeaveToSignIn sends somebody to a provider to sign in, and to next after that.
func (s *Service) LeaveToSignIn(ctx context.Context, provider id.IdentityProvider, next string) (Leaving, error) {
	return s.leave(ctx, provider, forSignIn, next)
}

// Beginnings are the providers at which the user of a link may accept it. They are
// for somebody who has no way to sign in yet, as an authenticator app is.
func (s *Service) Beginnings(ctx context.Context, token secret.Value) (Enrollment, []IdentityProvider, error) {
	e, err := s.Link(ctx, token)
	if err != nil {
		return Enrollment{}, nil, err
	}
	if !e.First {
		return Enrollment{}, nil, passkeyFirst()
	}
	list, err := s.providersFor(ctx, e.User)
	return e, list, err
}

// LeaveToEnroll sends the user of a link to one of its Beginnings.
func (s *Service) LeaveToEnroll(ctx context.Context, token secret.Value, provider id.IdentityProvider) (Leaving, error) {
	l, err := s.firstLink(ctx, token)
	if err != nil {
		return Leaving{}, err
	}
	if err := s.offered(ctx, l.user, provider); err != nil {
		return Leaving{}, err
	}
	return s.leave(ctx, provider, forEnroll+" "+l.id, "")
}

func (s *Service) offered(ctx context.Context, user id.User, provider id.IdentityProvider) error {
	list, err := s.providersFor(ctx, user)
	return among(list, provider, err)
}

// among refuses a provider that is not in a list, which could be had if err is nil.
func among(list []IdentityProvider, provider id.IdentityProvider, err error) error {
	if err == nil && !slices.ContainsFunc(list, func(i IdentityProvider) bool { return i.ID == provider }) {
		err = notFound("identity provider")
	}
	return err
}

// Addable are the providers at which a person may sign in from now on: not one of
// an organization in which this very login does not count.
func (s *Service) Addable(ctx context.Context, p Person) ([]IdentityProvider, error) {
	if err := p.browser(); err != nil || p.confined != "" {
		return nil, err
	}
	return s.providersFor(ctx, p.user)
}

// LeaveToAdd sends a person to a provider who holds a grant for one more way to sign
// in (see Unlock), and uses the grant up.
func (s *Service) LeaveToAdd(ctx context.Context, p Person, grant secret.Value, provider id.IdentityProvider) (Leaving, error) {
	if err := s.granted(ctx, s.db.Reader(), p, grant); err != nil {
		return Leaving{}, err
	}
	if p.confined != "" {
		return Leaving{}, confinedLogin()
	}
	if err := s.offered(ctx, p.user, provider); err != nil {
		return Leaving{}, err
	}
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error { return s.takeGrant(ctx, tx, p, grant) })
	if err != nil {
		return Leaving{}, sqldb.Wrap("use a grant", err)
	}
	return s.leave(ctx, provider, forAdd+" "+string(p.login), "")
}

func confinedLogin() *fault.Error {
	return fault.New(fault.Denied, "sign_in_confined", "Your organization's sign-in counts in that organization only, which is not enough for this.").
		WithHint("Sign in with a passkey of your own.")
}

// Arrive takes the answer of a provider. p is whoever is signed in in the browser.
func (s *Service) Arrive(ctx context.Context, p Person, provider id.IdentityProvider, a Arrival) (Arrived, error) {
	// Each answer is a row here and a request there, and anybody can make one.
	if ok, wait := s.arrivals.Allow(string(provider) + " " + throttle.Address(a.Address)); !ok {
		return Arrived{}, fault.New(fault.Limited, tooManyAttempts, "Too many sign-ins came from your network.").WithHint("Wait a few seconds and try again, or use a passkey.").WithRetry(wait)
	}
	what, next, f, err := s.arriving(ctx, provider, a)
	if err != nil {
		return Arrived{}, err
	}
	i, err := s.provider(ctx, s.db.Reader(), provider)
	if err != nil {
		return Arrived{}, err
	}
	e := audit.Entry{Environment: i.Environment, Organization: i.Organization, Actor: audit.Actor{Kind: "system", ID: "sign-in"}, Action: "signin.federated", Object: string(i.ID), Address: a.Address,
		Detail: map[string]string{"provider": string(i.ID), "issuer": i.Issuer}}
	kind, subject, _ := strings.Cut(what, " ")
	if (kind == forAdd || kind == forCode) && p.user != "" && p.login == id.Login(subject) {
		if e.Environment == "" {
			e.Environment = p.home
		}
		e.Actor, e.User, e.Object = ByPerson(p).Audit(), p.user, string(p.user) // a refusal is theirs
	}
	who, err := s.said(ctx, i, f, what, a)
	if err != nil {
		return Arrived{}, s.refuseFederated(ctx, e, err)
	}
	is := identity{provider: i.ID, issuer: who.Issuer, subject: who.Subject, organization: i.Organization}
	e.Detail = is.detail()
	out := Arrived{Next: next}
	switch kind {
	case forSignIn:
		out.Login, err = s.signInFederated(ctx, p, is, who, e)
	case forEnroll:
		out.Login, err = s.enrollFederated(ctx, subject, is, e)
	case forAdd:
		err = s.addFederated(ctx, p, id.Login(subject), is)
	case forCode:
		out.Code, err = s.codeFor(ctx, p, id.Login(subject), is, who, f)
	default:
		err = flowGone()
	}
	if err != nil {
		return Arrived{}, s.refuseFederated(ctx, e, err)
	}
	return out, nil
}

// arriving checks that an answer is to a request of this browser, and uses the
// request up before anything is done with the answer.
func (s *Service) arriving(ctx context.Context, provider id.IdentityProvider, a Arrival) (what, next, flow string, err error) {
	token, rest, ok := cut(a.Keep, "|")
	at := strings.LastIndexByte(a.State, '.')
	if !ok || at < 0 || len(a.State) > 200 || !secret.IsToken(token, keepPrefix) {
		return "", "", "", flowGone()
	}
	flow = a.State[:at]
	k, err := s.flowKey(ctx, flow)
	if err != nil {
		return "", "", "", err
	}
	if !hmac.Equal([]byte(a.State[at+1:]), []byte(stateMAC(k, flow, provider, a.Keep))) {
		return "", "", "", flowGone()
	}
	digest := sha256.Sum256(crypt.Fields("ambit federated spent 1", flow))
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error { return s.Spend(ctx, tx, digest) })
	if fault.Is(err, codeProofUsed) {
		err = flowGone()
	}
	what, next, _ = strings.Cut(rest, "|")
	return what, next, flow, sqldb.Wrap("begin to take a sign-in", err)
}

// said asks the provider who it was.
func (s *Service) said(ctx context.Context, i IdentityProvider, flow, what string, a Arrival) (issuer.Identity, error) {
	switch {
	case a.Error != "":
		return issuer.Identity{}, fault.New(fault.Denied, "identity_provider_refused", "The identity provider did not sign you in.").
			WithHint("Start again there, or use a passkey.").WithCause(issuer.Refusal(plainCode(a.Error)))
	case a.Issuer != "" && a.Issuer != i.Issuer:
		return issuer.Identity{}, fault.New(fault.Denied, "id_token_refused", "The answer is another identity provider's.").WithHint("Start the sign-in again.").WithCause(issuer.Refusal("answer's issuer"))
	case a.Code == "" || len(a.Code) > 4096:
		return issuer.Identity{}, flowGone()
	}
	m, err := s.issuers.Discover(ctx, i.Issuer)
	if err != nil {
		return issuer.Identity{}, providerAway(err)
	}
	if m.NamesItself && a.Issuer == "" {
		return issuer.Identity{}, fault.New(fault.Denied, "id_token_refused", "The answer does not say whose it is.").WithHint("Start the sign-in again.").WithCause(issuer.Refusal("answer's issuer"))
	}
	if i, err = s.keyed(ctx, i); err != nil {
		return issuer.Identity{}, err
	}
	verifier := secret.FromString(verifierOf(flow, i.ID, a.Keep))
	return s.issuers.Redeem(ctx, s.party(i), m, secret.FromString(a.Code), verifier, asking(flow, i.ID, a.Keep, what))
}

// plainCode keeps of an error code what RFC 6749 §4.1.2.1 lets be in one.
func plainCode(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r == '_' {
			return r
		}
		return -1
	}, s[:min(len(s), 60)])
}

// refuseFederated records that a sign-in at a provider failed. What the person sees
// is what was wrong, in words that say nothing of who else there is.
func (s *Service) refuseFederated(ctx context.Context, e audit.Entry, err error) error {
	switch fault.KindOf(err) {
	case fault.Internal, fault.Unavailable, fault.Limited:
		return err
	}
	var why issuer.Refusal
	if errors.As(err, &why) {
		e.Detail["reason"] = string(why)
	}
	s.turnedAway(ctx, e, fault.Of(err).Code)
	return err
}
