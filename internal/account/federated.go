package account

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"time"

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
// it asked, once, within ten minutes (threats.md O1, O2, W2).
//
// Who somebody is is the provider, the issuer and the subject. An e-mail address or
// a name links nobody to anything: whoever runs a provider writes those.

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
	return issuer.Ask{Nonce: derived("nonce", flow, provider, keep), Challenge: challengeOf(verifierOf(flow, provider, keep)), Fresh: strings.HasPrefix(what, forCode+" ")}
}

func verifierOf(flow string, provider id.IdentityProvider, keep secret.Value) string {
	return derived("verifier", flow, provider, keep)
}

func derived(what, flow string, provider id.IdentityProvider, keep secret.Value) string {
	hash := keep.Hash()
	sum := sha256.Sum256(crypt.Fields("ambit federated "+what+" 1", flow, string(provider), string(hash[:])))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func stateMAC(k challengeKey, flow string, provider id.IdentityProvider, keep secret.Value) string {
	hash := keep.Hash()
	mac := hmac.New(sha256.New, k.key)
	mac.Write(crypt.Fields("ambit federated state 1", flow, string(provider), string(hash[:])))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
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
		err = s.addFederated(ctx, p, id.Login(subject), is, e)
	case forCode:
		out.Code, err = s.codeFor(ctx, p, id.Login(subject), is, who, f, e)
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

func unknownIdentity() error {
	return fault.New(fault.Unauthenticated, "identity_unknown", "Nobody here is known by this sign-in.").
		WithHint("Ask an owner or admin for an invitation, and accept it with this sign-in. If you have a passkey, sign in with it and add this sign-in on your account page.")
}

// signInFederated signs in whoever is known by an identity. A provider that admits
// people makes a member of whoever is not. In a browser where somebody else is signed
// in it signs nobody in: the person might not notice whose account they work in
// (threats.md W2).
func (s *Service) signInFederated(ctx context.Context, p Person, is identity, who issuer.Identity, e audit.Entry) (login secret.Value, err error) {
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		i, err := s.held(ctx, tx, is.provider)
		if err != nil {
			return err
		}
		user, err := selectIdentity(ctx, tx, is)
		if err != nil {
			return err
		}
		if p.user != "" && p.user != user && (user != "" || i.Admits) {
			return fault.New(fault.Conflict, "signed_in_already", "You are signed in as somebody else than this sign-in is of.").
				WithHint("Nothing has changed. To change who you are here, sign out first, then sign in again.")
		}
		if user == "" {
			if user, err = s.admitMember(ctx, tx, i, is, who, e); err != nil {
				return err
			}
		}
		u, err := selectUser(ctx, tx, user)
		if err != nil {
			return err
		}
		if ok, err := lockUser(ctx, tx, user); err != nil || !ok {
			return orElse(err, unknownIdentity())
		}
		left := fault.New(fault.Denied, "not_a_member", "You are not a member of the organization any more.").WithHint("Ask an owner or admin of it.")
		if err := is.counts(ctx, tx, user, left); err != nil {
			return err
		}
		if ok, err := useIdentity(ctx, tx, is, user, s.now()); err != nil || !ok {
			return orElse(err, unknownIdentity()) // taken from them a moment ago
		}
		login, err = s.federatedLogin(ctx, tx, u, is, e)
		return err
	})
	return login, sqldb.Wrap("sign in", err)
}

// federatedLogin makes the login of somebody whom a provider has vouched for, and
// puts it on record.
func (s *Service) federatedLogin(ctx context.Context, tx *sqldb.Tx, u User, is identity, e audit.Entry) (secret.Value, error) {
	e.Environment, e.Actor, e.User, e.Object, e.Decision = u.Environment, audit.Actor{Kind: "user", ID: string(u.ID)}, u.ID, string(u.ID), "allow"
	s.audit.Append(tx, e)
	return s.newLogin(ctx, tx, loginRow{user: u.ID, method: MethodFederated, provider: is.provider, organization: is.organization, address: e.Address})
}

// admitMember makes a member of somebody whom nobody has invited, where the
// organization's provider says so. They get no e-mail address: a recovery finds
// people by it, and this one is only the provider's word.
func (s *Service) admitMember(ctx context.Context, tx *sqldb.Tx, i IdentityProvider, is identity, who issuer.Identity, e audit.Entry) (id.User, error) {
	if i.Organization == "" || !i.Admits {
		return "", unknownIdentity()
	}
	name := who.Name
	if checkName("A name", name) != nil {
		name = "New member"
	}
	by, now := System("sign-in"), s.now()
	u := User{ID: id.NewUser(), Environment: i.Environment, Name: name, CreatedAt: now, Version: 1}
	w, err := s.Weigh(ctx, tx, by, Raise{}, true, Agreement{}) // the owners agreed to it when they set the provider up
	if err != nil {
		return "", err
	}
	if _, err := s.addUser(ctx, tx, by, w, u, NewUser{Environment: i.Environment, Organization: i.Organization, Name: name, Role: RoleMember}, false); err != nil {
		return "", err
	}
	ok, err := insertIdentity(ctx, tx, is, u.ID, now)
	if err == nil && !ok {
		err = fault.New(fault.Conflict, "identity_taken", "Somebody signed in with this at the same moment.").WithHint("Sign in again.")
	}
	e.Action, e.Actor, e.User, e.Object, e.Decision = "identity.added", audit.Actor{Kind: "user", ID: string(u.ID)}, u.ID, string(u.ID), ""
	s.audit.Append(tx, e)
	return u.ID, err
}

// enrollFederated makes an identity the first way in of the user of a link, and uses
// the link up.
func (s *Service) enrollFederated(ctx context.Context, linkID string, is identity, e audit.Entry) (login secret.Value, err error) {
	l, ok, err := selectLinkByID(ctx, s.db.Reader(), linkID, s.now())
	if err != nil {
		return secret.Value{}, sqldb.Wrap("read a link", err)
	}
	if !ok {
		return secret.Value{}, linkGone()
	}
	u, err := selectUser(ctx, s.db.Reader(), l.user)
	if err != nil {
		return secret.Value{}, sqldb.Wrap("read a user", err)
	}
	added := e
	added.Environment, added.Actor, added.User, added.Action, added.Object = u.Environment, audit.Actor{Kind: "user", ID: string(u.ID)}, u.ID, "identity.added", string(u.ID)
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if _, err := s.held(ctx, tx, is.provider); err != nil {
			return err
		}
		return s.enrolling(ctx, tx, l, added, func(ctx context.Context, tx *sqldb.Tx, first bool) error {
			if !first {
				return passkeyFirst()
			}
			if err := is.counts(ctx, tx, u.ID, linkGone()); err != nil {
				return err
			}
			if ok, err := insertIdentity(ctx, tx, is, u.ID, s.now()); err != nil || !ok {
				return orElse(err, identityTaken())
			}
			login, err = s.federatedLogin(ctx, tx, u, is, e)
			return err
		})
	})
	return login, sqldb.Wrap("enrol a user", err)
}

func identityTaken() error {
	return fault.New(fault.Conflict, "identity_taken", "This sign-in is somebody's already.").WithHint("Sign out at the identity provider, and sign in there as yourself.")
}

// addFederated makes an identity one more way in of the login that left for it.
func (s *Service) addFederated(ctx context.Context, p Person, login id.Login, is identity, e audit.Entry) error {
	if p.user == "" || p.login != login {
		return flowGone()
	}
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if _, err := s.held(ctx, tx, is.provider); err != nil {
			return err
		}
		if ok, err := lockUser(ctx, tx, p.user); err != nil || !ok {
			return orElse(err, unauthenticated())
		}
		if err := is.counts(ctx, tx, p.user, notFound("identity provider")); err != nil {
			return err
		}
		if ok, err := insertIdentity(ctx, tx, is, p.user, s.now()); err != nil || !ok {
			return orElse(err, identityTaken())
		}
		done := personEntry(p, "identity.added", string(p.user))
		done.Detail = is.detail()
		s.audit.Append(tx, done)
		return nil
	})
	return sqldb.Wrap("add a way to sign in", err)
}

// Identity is one of a person's ways in at an identity provider.
type Identity struct {
	Provider        IdentityProvider
	Issuer, Subject string
	CreatedAt, Used time.Time
}

// Identities lists them. A provider that is no longer there has only its id.
func (s *Service) Identities(ctx context.Context, p Person) ([]Identity, error) {
	if p.user == "" {
		return nil, unauthenticated()
	}
	rows, err := selectIdentities(ctx, s.db.Reader(), p.user)
	if err != nil {
		return nil, sqldb.Wrap("list identities", err)
	}
	var out []Identity
	for _, r := range rows {
		if p.confined != "" && r.organization != p.confined {
			continue
		}
		i, err := s.provider(ctx, s.db.Reader(), r.provider)
		if err != nil && fault.KindOf(err) != fault.NotFound {
			return nil, err
		}
		if err != nil {
			i = IdentityProvider{ID: r.provider, Issuer: r.issuer, Name: "A provider that is not set up any more"}
		}
		out = append(out, Identity{Provider: i, Issuer: r.issuer, Subject: r.subject, CreatedAt: r.created, Used: r.used})
	}
	return out, nil
}

// ForgetIdentity takes a sign-in at a provider from a person, and ends the logins
// that the provider made for them. It lowers what they can do, so it takes no proof;
// a person keeps a way in.
func (s *Service) ForgetIdentity(ctx context.Context, p Person, provider id.IdentityProvider, at, subject string) error {
	if err := p.browser(); err != nil {
		return err
	}
	if p.confined != "" {
		return confinedLogin()
	}
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if ok, err := lockUser(ctx, tx, p.user); err != nil || !ok {
			return orElse(err, unauthenticated())
		}
		is := identity{provider: provider, issuer: at, subject: subject}
		ok, err := deleteIdentity(ctx, tx, p.user, is)
		if err != nil || !ok {
			return orElse(err, notFound("sign-in"))
		}
		n, err := s.factors(ctx, tx, p.user)
		if err != nil {
			return err
		}
		if !n.any() {
			return fault.New(fault.Conflict, "last_factor", "This is your only way to sign in.").WithHint("Register a passkey first.")
		}
		if err := endLoginsAt(ctx, tx, p.user, provider, s.now()); err != nil {
			return err
		}
		e := personEntry(p, "identity.removed", string(p.user))
		e.Detail = is.detail()
		s.audit.Append(tx, e)
		return nil
	})
	return sqldb.Wrap("remove a way to sign in", err)
}
