package account

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/issuer"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

// IdentityProvider is an OpenID provider at which people sign in: the operator's,
// for everybody, or one organization's, for its members. A sign-in through the
// latter counts in that organization and nowhere else, since whoever runs the
// provider can say that anybody is there.
type IdentityProvider struct {
	ID           id.IdentityProvider
	Environment  id.Environment  // empty: the operator's
	Organization id.Organization // empty: the operator's
	Name         string
	Issuer       string
	ClientID     string
	// Admits makes whoever signs in there for the first time, and is known to
	// nobody, a member of the organization.
	Admits    bool
	CreatedAt time.Time
	Version   int64

	key      secret.Value // of the operator's
	envelope []byte
	sealed   int64 // version of its vault.Place
}

// OperatorProvider is the id of the one that the operator configured.
const OperatorProvider id.IdentityProvider = "operator"

// Host is what people are told of where they sign in.
func (i IdentityProvider) Host() string {
	u, err := url.Parse(i.Issuer)
	if err != nil {
		return ""
	}
	return u.Host
}

func (i IdentityProvider) place(version int64) vault.Place {
	return vault.Place{Environment: i.Environment, Organization: i.Organization, Kind: "identity_provider", Object: string(i.ID), Version: version}
}

// OperatorSignIn is the identity provider that the operator sets up for everybody.
type OperatorSignIn struct {
	Name, Issuer, ClientID string
	Secret                 secret.Value // empty: a public client
}

func (o OperatorSignIn) provider() (IdentityProvider, bool) {
	return IdentityProvider{ID: OperatorProvider, Name: o.Name, Issuer: o.Issuer, ClientID: o.ClientID, key: o.Secret}, o.Issuer != ""
}

// NewIdentityProvider says which one to add.
type NewIdentityProvider struct {
	Name, Issuer, ClientID string
	Secret                 secret.Value
	Admits                 bool
}

const maxProviders = 20

func (n NewIdentityProvider) check() error {
	if err := checkName("An identity provider's name", n.Name); err != nil {
		return err
	}
	if n.ClientID == "" || len(n.ClientID) > 300 || !printable(n.ClientID) {
		return fault.New(fault.Invalid, "invalid_client_id", "A client id is 1 to 300 printable characters.").WithHint("It is what the identity provider gave you for this server.")
	}
	if n.Secret.Len() > 2000 {
		return fault.New(fault.Invalid, "invalid_client_secret", "A client secret has 2,000 bytes at most.")
	}
	return nil
}

// Admitting is how a Raise says that a provider admits whoever signs in there.
const Admitting = "everybody there"

func admits(b bool) string {
	if b {
		return Admitting
	}
	return "those who are invited"
}

// AddIdentityProvider lets the members of an organization sign in at a provider.
// Whoever runs it can be any of them who do, so it takes an owner, who agrees to it.
func (s *Service) AddIdentityProvider(ctx context.Context, by Actor, org id.Organization, n NewIdentityProvider, ag Agreement) (IdentityProvider, error) {
	none := func(err error) (IdentityProvider, error) { return IdentityProvider{}, err }
	o, by, err := ownsSignIn(ctx, s.db.Reader(), by, org)
	if err != nil {
		return none(err)
	}
	if err := n.check(); err != nil {
		return none(err)
	}
	if err := s.issuers.CheckIssuer(ctx, n.Issuer); err != nil {
		return none(err)
	}
	i := IdentityProvider{ID: id.NewIdentityProvider(), Environment: o.Environment, Organization: o.ID, Name: n.Name, Issuer: n.Issuer, ClientID: n.ClientID, Admits: n.Admits, CreatedAt: s.now(), Version: 1, sealed: 1}
	if !ag.asks {
		m, err := s.issuers.Discover(ctx, n.Issuer) // before anybody is sent there
		if err == nil {
			_, err = s.party(i).AuthorizationURL(m, issuer.Ask{})
		}
		if err == nil {
			i.envelope, err = s.vault.Seal(ctx, i.place(1), n.Secret)
		}
		if err != nil {
			return none(err)
		}
	}
	r := Raise{Action: "identity_provider.added", Environment: o.Environment, Organization: o.ID, To: n.Issuer,
		Facts: map[string]string{"name": n.Name, "client_id": n.ClientID, "admits": admits(n.Admits)}}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := lockOrganization(ctx, tx, org); err != nil { // of two at once one counts the other
			return err
		}
		if n, err := countProviders(ctx, tx, org); err != nil || n >= maxProviders {
			return orElse(err, fault.New(fault.Limited, "too_many_providers", "An organization has at most 20 identity providers."))
		}
		w, err := s.Weigh(ctx, tx, by, r, true, ag)
		if err != nil {
			return err
		}
		if err := insertProvider(ctx, tx, w.made(string(i.ID)), i); err != nil {
			return err
		}
		e := w.enter(entry(by, o.Environment, o.ID, r.Action, string(i.ID)))
		e.Detail = map[string]string{"name": n.Name, "issuer": n.Issuer, "client_id": n.ClientID, "admits": admits(n.Admits)}
		s.audit.Append(tx, e)
		return nil
	})
	if err != nil {
		return none(sqldb.Wrap("add an identity provider", err))
	}
	return i, nil
}

// ownsSignIn says whether by may change how the members of org sign in.
func ownsSignIn(ctx context.Context, q sqldb.Querier, by Actor, org id.Organization) (Organization, Actor, error) {
	if by.kind == "api_key" {
		return Organization{}, Actor{}, fault.New(fault.Denied, "person_required", "API keys cannot change how people sign in; an owner must.").WithHint("An owner does this in the web UI.")
	}
	o, by, err := reachIn(ctx, q, by, org, ManageMembers)
	if err == nil && !by.ownerOf(o) {
		err = fault.New(fault.Denied, "not_allowed", "Only an owner changes how people sign in.")
	}
	return o, by, err
}

// IdentityProviders lists those of an organization, for those who manage its members.
func (s *Service) IdentityProviders(ctx context.Context, by Actor, org id.Organization) ([]IdentityProvider, error) {
	if _, _, err := s.reach(ctx, by, org, ManageMembers); err != nil {
		return nil, err
	}
	list, err := selectProviders(ctx, s.db.Reader(), org)
	return list, sqldb.Wrap("list identity providers", err)
}

// IdentityProviderChange says what to change; nil leaves a thing as it is. Another
// issuer or client is another provider.
type IdentityProviderChange struct {
	Secret *secret.Value
	Admits *bool
}

// ChangeIdentityProvider changes a provider that is still at version. That it admits
// whoever signs in there takes an owner's agreement.
func (s *Service) ChangeIdentityProvider(ctx context.Context, by Actor, provider id.IdentityProvider, version int64, c IdentityProviderChange, ag Agreement) (IdentityProvider, error) {
	none := func(err error) (IdentityProvider, error) { return IdentityProvider{}, err }
	i, by, err := ownedProvider(ctx, s.db.Reader(), by, provider)
	if err != nil {
		return none(err)
	}
	moved := fault.New(fault.Conflict, "version_conflict", "The identity provider was changed meanwhile.").WithHint("Read it again.")
	if i.Version != version {
		return none(moved)
	}
	was := i
	detail := map[string]string{}
	if c.Admits != nil && *c.Admits != i.Admits {
		i.Admits = *c.Admits
		detail["admits"] = admits(i.Admits)
	}
	if c.Secret != nil {
		if err := (NewIdentityProvider{Name: i.Name, ClientID: i.ClientID, Secret: *c.Secret}).check(); err != nil {
			return none(err)
		}
		i.sealed++
		if i.envelope, err = s.vault.Seal(ctx, i.place(i.sealed), *c.Secret); err != nil {
			return none(err)
		}
		detail["client_secret"] = "changed"
	}
	r := Raise{Action: "identity_provider.changed", Environment: i.Environment, Organization: i.Organization, Object: string(i.ID), Version: version,
		From: admits(was.Admits), To: admits(i.Admits), Facts: map[string]string{"name": i.Name, "issuer": i.Issuer}}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		w, err := s.Weigh(ctx, tx, by, r, i.Admits && !was.Admits, ag)
		if err != nil {
			return err
		}
		if ok, err := updateProvider(ctx, tx, w, i); err != nil || !ok {
			return orElse(err, moved)
		}
		e := w.enter(entry(by, i.Environment, i.Organization, r.Action, string(i.ID)))
		e.Detail = detail
		s.audit.Append(tx, e)
		return nil
	})
	i.Version++
	return i, sqldb.Wrap("change an identity provider", err)
}

func ownedProvider(ctx context.Context, q sqldb.Querier, by Actor, provider id.IdentityProvider) (IdentityProvider, Actor, error) {
	i, err := selectProvider(ctx, q, provider)
	if sqldb.NoRows(err) {
		return IdentityProvider{}, Actor{}, notFound("identity provider")
	}
	if err != nil {
		return IdentityProvider{}, Actor{}, sqldb.Wrap("read an identity provider", err)
	}
	_, by, err = ownsSignIn(ctx, q, by, i.Organization)
	if fault.KindOf(err) == fault.NotFound {
		err = notFound("identity provider")
	}
	return i, by, err
}

// RemoveIdentityProvider forgets a provider and who is who there, and ends the
// logins that it made. Whoever has no other way in needs a new link.
func (s *Service) RemoveIdentityProvider(ctx context.Context, by Actor, provider id.IdentityProvider) error {
	i, by, err := ownedProvider(ctx, s.before(by), by, provider)
	if err != nil {
		return err
	}
	return sqldb.Wrap("remove an identity provider", s.ending(ctx, by, func(ctx context.Context, tx *sqldb.Tx) error {
		ok, people, err := deleteProvider(ctx, tx, i.ID, s.now())
		if err != nil || !ok {
			return orElse(err, notFound("identity provider"))
		}
		n, err := revokeProviderLogins(ctx, tx, i.ID, s.now())
		if err != nil {
			return err
		}
		e := entry(by, i.Environment, i.Organization, "identity_provider.removed", string(i.ID))
		e.Detail = map[string]string{"name": i.Name, "issuer": i.Issuer, "people": strconv.FormatInt(people, 10), "logins": strconv.FormatInt(n, 10)}
		s.audit.Append(tx, e)
		return nil
	}))
}

// OperatorProviders are those that the sign-in page offers to everybody.
func (s *Service) OperatorProviders() []IdentityProvider {
	if i, ok := s.operator.provider(); ok {
		return []IdentityProvider{i}
	}
	return nil
}

// EndFormerSignIns signs out whoever came through an identity provider of the operator
// that is not configured any more. A server does it when it begins to serve.
func (s *Service) EndFormerSignIns(ctx context.Context) error {
	envs, err := selectEnvironments(ctx, s.db.Reader())
	if err != nil || len(envs) == 0 {
		return sqldb.Wrap("list environments", err)
	}
	return sqldb.Wrap("end sign-ins of a former provider", s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		n, err := endFormer(ctx, tx, s.operator.Issuer, s.now())
		if err != nil || n == 0 {
			return err
		}
		e := entry(System("server"), envs[0].ID, "", "login.former_provider", string(OperatorProvider))
		e.Detail = map[string]string{"issuer": s.operator.Issuer, "logins": strconv.FormatInt(n, 10)}
		s.audit.Append(tx, e)
		return nil
	}))
}

// provider gives one that people may sign in at now.
func (s *Service) provider(ctx context.Context, q sqldb.Querier, provider id.IdentityProvider) (IdentityProvider, error) {
	if i, ok := s.operator.provider(); ok && provider == OperatorProvider {
		return i, nil
	}
	i, err := selectProvider(ctx, q, provider)
	if sqldb.NoRows(err) {
		return IdentityProvider{}, notFound("identity provider").WithHint("Ask your organization for its sign-in address.")
	}
	return i, sqldb.Wrap("read an identity provider", err)
}

// held gives a provider as it is now and keeps it so to the end of the transaction,
// which makes or extends somebody's access by its word: between its answer and now it
// may have been removed, or told to admit nobody.
func (s *Service) held(ctx context.Context, tx *sqldb.Tx, provider id.IdentityProvider) (IdentityProvider, error) {
	if provider == OperatorProvider {
		return s.provider(ctx, tx, provider)
	}
	i, err := holdProvider(ctx, tx, provider)
	if sqldb.NoRows(err) {
		err = notFound("identity provider").WithHint("Ask your organization for its sign-in address.")
	}
	return i, err
}

// providersFor are those at which a user may begin to sign in: the operator's, and
// those of the organizations that they are a member of.
func (s *Service) providersFor(ctx context.Context, user id.User) ([]IdentityProvider, error) {
	list, err := selectProvidersOf(ctx, s.db.Reader(), user)
	if err != nil {
		return nil, sqldb.Wrap("list identity providers", err)
	}
	return append(s.OperatorProviders(), list...), nil
}

// party is us at a provider. Each has a redirect address of its own, so that no
// provider's answer passes for another's (threats.md O2).
func (s *Service) party(i IdentityProvider) issuer.Party {
	return issuer.Party{Issuer: i.Issuer, ClientID: i.ClientID, Secret: i.key, Redirect: s.ReturnAddress(i.ID)}
}

// ReturnAddress is what a provider is told to send people back to.
func (s *Service) ReturnAddress(provider id.IdentityProvider) string {
	return s.base + "/ui/signin/from/" + string(provider)
}

// SignInAddress is where the members of an organization begin.
func (s *Service) SignInAddress(provider id.IdentityProvider) string {
	return s.base + "/ui/signin/with/" + string(provider)
}

// keyed is i with its client secret.
func (s *Service) keyed(ctx context.Context, i IdentityProvider) (IdentityProvider, error) {
	if i.ID == OperatorProvider {
		return i, nil
	}
	var err error
	i.key, err = s.vault.Open(ctx, i.place(i.sealed), i.envelope)
	return i, err
}
