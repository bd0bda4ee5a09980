package credential

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/failpoint"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

// Start says what to connect.
type Start struct {
	Environment       id.Environment
	Organization      id.Organization
	Provider          string
	OrganizationOwned bool              // else the account belongs to the person
	Reconnect         id.Connection     // an existing connection to give new life
	Scopes            []string          // beyond the record's base; empty: its whole catalogue
	Chosen            map[string]string // the parameters of the provider's addresses; a reconnect without any keeps its own
	ReturnTo          string            // a path below /ui
	Elsewhere         map[string]string // parts of a key that stay in a source, and where; see ReadElsewhere
	Wanted            []string          // exactly these scopes, which those who run the environment chose; over Scopes

	// Whose makes who is to own the connection, once all that can be refused before
	// was: nobody is made for nothing. nil: they are there.
	Whose func(ctx context.Context) (id.Organization, id.User, error)

	// Ticket is the connect token that this was begun with, if any. It is told in the
	// transaction that stores the connection; see Config.OnTicket.
	Ticket id.Ticket

	// Also runs in the transaction that stores the connection, at its end; nil:
	// nothing.
	Also func(ctx context.Context, tx *sqldb.Tx, c connection.Connection) error
}

func (s *Service) also(ctx context.Context, tx *sqldb.Tx, st Start, c connection.Connection) error {
	if st.Ticket != "" {
		if err := s.onTicket(ctx, tx, st.Ticket, c); err != nil {
			return err
		}
	}
	if st.Also == nil {
		return nil
	}
	return st.Also(ctx, tx, c)
}

// FlowAge is how long a person may take at the provider (threats.md O4).
const FlowAge = 10 * time.Minute

// CallbackPath is where a provider sends the person back. It differs for each
// environment and provider, so that an answer of one cannot pass for another's
// (threats.md O2, O3).
func CallbackPath(env id.Environment, slug string) string {
	return "/ui/callback/" + url.PathEscape(string(env)) + "/" + url.PathEscape(slug)
}

// OwnCallbackPath is CallbackPath for an organization's own client.
func OwnCallbackPath(env id.Environment, slug string, org id.Organization) string {
	if org == "" {
		return CallbackPath(env, slug)
	}
	return CallbackPath(env, slug) + "/" + url.PathEscape(string(org))
}

// Authorize begins an authorization and gives the URL at the provider where it
// goes on. The flow can be finished only by the same login.
func (s *Service) Authorize(ctx context.Context, p account.Person, st Start) (string, error) {
	if err := p.ConnectsAt(st.Provider); err != nil {
		return "", err
	}
	by := account.ByPerson(p).In(st.Environment)
	owner := p.User()
	if st.OrganizationOwned {
		owner = ""
	}
	if err := connection.MayConnect(by, st.Organization, owner); err != nil {
		return "", err
	}
	prov, err := s.providers.Get(ctx, st.Environment, st.Provider)
	if err != nil {
		return "", err
	}
	if prov.Record.OAuth == nil {
		return "", fault.New(fault.Invalid, "not_oauth", prov.Record.Name+" is connected with a key, not by signing in there.").WithHint("Give the key instead.")
	}
	was, err := s.reconnected(ctx, st, owner)
	if err != nil {
		return "", err
	}
	rec, err := chosen(st, prov.Record, was)
	if err != nil {
		return "", err
	}
	o := rec.OAuth
	scopes, err := requested(o.Scopes, st.Scopes)
	if len(st.Wanted) > 0 {
		scopes, err = st.Wanted, nil
	}
	if err != nil {
		return "", err
	}
	scopes = withGranted(was, o.Scopes, scopes)
	pinned := rec.Pinned()
	if err := s.outbound.Check(ctx, pinned.Token); err != nil {
		return "", err
	}
	client, err := s.providers.ClientFor(ctx, st.Environment, st.Organization, st.Provider)
	if err != nil {
		return "", err
	}
	state, verifier := secret.Token(""), secret.Token("")
	if o.Signs() {
		if state, verifier, err = s.temporary(ctx, st, rec, client); err != nil {
			return "", err
		}
	}
	f := flow{
		id: id.NewFlow(), state: state.Hash(), environment: st.Environment, organization: st.Organization, owner: owner, startedBy: p.User(), login: p.Login(),
		provider: st.Provider, redirectURI: s.public.JoinPath(OwnCallbackPath(st.Environment, st.Provider, client.Of)).String(), issuer: o.Issuer, scopes: scopes,
		reconnect: st.Reconnect, ticket: st.Ticket, returnTo: st.ReturnTo, chosen: pinned.Values, client: client, expires: s.now().Add(FlowAge), created: s.now(),
	}
	if f.envelope, err = s.vault.Seal(ctx, f.place(), verifier); err != nil {
		return "", err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if f.digest, err = connection.SaveSnapshot(ctx, tx, st.Environment, prov.Record, sqldb.Micros(f.created)); err != nil {
			return err
		}
		if err := insertFlow(ctx, tx, f); sqldb.IsUnique(err) {
			return fault.New(fault.Unavailable, "exchange_failed", "The provider gave the same token twice.").WithHint("Start connecting again.")
		} else if err != nil {
			return sqldb.Wrap("store an authorization", err)
		}
		s.audit.AppendEvent(tx, audit.Entry{
			Environment: st.Environment, Organization: st.Organization, Actor: by.Audit(), User: p.User(), Connection: st.Reconnect,
			Action: "connection.authorizing", Object: st.Provider, Provider: st.Provider, Address: p.Address(),
		})
		return nil
	})
	if err != nil {
		return "", err
	}
	return rec.AuthorizationURL(provider.Authorization{ClientID: client.ID, RedirectURI: f.redirectURI, State: state, Verifier: verifier, Scopes: scopes})
}

// reconnected is the connection that is to get new life; the zero one when it is
// to be a new one. Whoever it does not belong to learns nothing of it.
func (s *Service) reconnected(ctx context.Context, st Start, owner id.User) (connection.Connection, error) {
	if st.Reconnect == "" {
		return connection.Connection{}, nil
	}
	c, err := s.connections.ByID(ctx, s.db.Reader(), st.Environment, st.Reconnect)
	if err == nil && (c.Organization != st.Organization || c.Owner != owner || c.Provider != st.Provider) {
		err = fault.New(fault.NotFound, "not_found", "No such connection.")
	}
	return c, err
}

// chosen fills in what a person chooses of a record's addresses. A reconnect
// goes to the tenant where the connection is, unless another is chosen.
func chosen(st Start, rec provider.Record, was connection.Connection) (provider.Record, error) {
	choice := st.Chosen
	if len(choice) == 0 {
		choice = map[string]string{}
		for _, p := range rec.Tenant {
			if v, ok := was.Pinned.Values[p.Name]; ok {
				choice[p.Name] = v
			}
		}
	}
	return rec.Choose(choice)
}

// requested gives the scopes to ask for: the base always, and of the catalogue
// what was chosen, or all of it.
func requested(known provider.Scopes, chosen []string) ([]string, error) {
	out := slices.Clone(known.Base)
	for _, c := range known.Catalog {
		if len(chosen) == 0 && !slices.Contains(out, c.ID) {
			out = append(out, c.ID)
		}
	}
	for _, c := range chosen {
		inCatalog := slices.ContainsFunc(known.Catalog, func(s provider.Scope) bool { return s.ID == c })
		if !inCatalog && !slices.Contains(known.Base, c) {
			return nil, fault.New(fault.Invalid, "unknown_scope", "The provider's record has no such scope.").WithHint("Choose from the scopes that are listed.")
		}
		if !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out, nil
}

// withGranted adds to what is asked for what the connection to be reconnected has
// already, as far as the record still knows it: asking for more takes nothing away.
func withGranted(was connection.Connection, known provider.Scopes, asked []string) []string {
	for _, have := range was.Scopes {
		if _, err := requested(known, []string{have}); err == nil && !slices.Contains(asked, have) {
			asked = append(asked, have)
		}
	}
	return asked
}

// withUnlisted adds to an answer's scopes those that the provider grants without
// listing them. Without a list everything that was asked for is granted anyway.
func withUnlisted(listed []string, known provider.Scopes, asked []string) []string {
	if listed == nil {
		return nil
	}
	for _, s := range known.Unlisted {
		if slices.Contains(asked, s) && !slices.Contains(listed, s) {
			listed = append(listed, s)
		}
	}
	return listed
}

// Connected is a finished authorization.
type Connected struct {
	Connection connection.Connection
	ReturnTo   string
	Ticket     id.Ticket // that it was begun with; told with an error, too
	Missing    []string  // scopes that were asked for and not granted
	// Instead is the account that was to be reconnected, where the person signed in
	// with another one: that has a connection of its own, and Instead stays as it was.
	Instead string
}

// Callback finishes an authorization with what the provider sent back. The
// state is used up before anything else happens, and counts only for the login
// that began (threats.md O1, O4).
func (s *Service) Callback(ctx context.Context, p account.Person, env id.Environment, slug string, q url.Values) (done Connected, err error) {
	return s.CallbackOf(ctx, p, env, slug, "", q)
}

// CallbackOf is Callback at the address of an organization's own client.
func (s *Service) CallbackOf(ctx context.Context, p account.Person, env id.Environment, slug string, of id.Organization, q url.Values) (done Connected, err error) {
	again := "Start connecting again."
	q, signed := answered1(q)
	if len(q["state"]) != 1 || len(q["code"]) > 1 || len(q["iss"]) > 1 || len(q["error"]) > 1 {
		return Connected{}, fault.New(fault.Invalid, "invalid_callback", "The provider's answer is incomplete or repeats a part.").WithHint(again)
	}
	f, err := s.takeFlow(ctx, p, env, slug, of, secret.FromString(q.Get("state")), q.Get("code") != "")
	if err != nil {
		return Connected{}, err
	}
	var rec provider.Record
	var m material // what the provider has given
	defer func() {
		done.Ticket = f.ticket
		if err != nil {
			s.refused(ctx, account.ByPerson(p), p.User(), f, "provider.answer", err)
			err = s.abandoned(ctx, f, rec, m, err)
		}
	}()
	if rec, err = s.connections.Bound(ctx, env, f.digest, provider.Pinned{Values: f.chosen}); err != nil {
		return Connected{}, err
	}
	if rec.OAuth.Signs() != signed {
		return Connected{}, fault.New(fault.Invalid, "invalid_callback", "The provider's answer is not of the kind that was asked for.").WithHint(again)
	}
	unsaid := rec.OAuth.IssuerOptional && len(q["iss"]) == 0
	if f.issuer != "" && !unsaid && subtle.ConstantTimeCompare([]byte(q.Get("iss")), []byte(f.issuer)) != 1 {
		return Connected{}, fault.New(fault.Denied, "issuer_mismatch", "The answer does not come from the provider that was asked.").WithHint(again)
	}
	if code := q.Get("error"); code != "" {
		if code == "access_denied" {
			return Connected{}, fault.New(fault.Denied, "access_denied", "The provider says that access was declined.").WithHint(again)
		}
		return Connected{}, fault.New(fault.Denied, "provider_refused", "The provider refused the authorization.").WithHint("An admin should check the provider's set-up. " + again)
	}
	if q.Get("code") == "" {
		return Connected{}, fault.New(fault.Invalid, "invalid_callback", "The provider's answer holds no code.").WithHint(again)
	}
	var g grant
	if signed {
		m, g, err = s.exchange1(ctx, f, rec, secret.FromString(q.Get("state")), q.Get("code"))
	} else {
		m, g, err = s.exchange(ctx, f, rec, secret.FromString(q.Get("code")))
	}
	if err != nil {
		return Connected{}, err
	}
	made, err := told(rec, q, g)
	if err != nil {
		return Connected{}, err
	}
	g.scopes = withUnlisted(g.scopes, rec.OAuth.Scopes, f.scopes)
	granted := g.scopes
	if granted == nil {
		granted = f.scopes // RFC 6749 §5.1: absent means as requested
	}
	granted = append(slices.Clone(granted), g.also...)
	by := account.ByPerson(p).In(env)
	c, err := s.connect(ctx, by, connection.Fresh{Environment: env, Organization: f.organization, Owner: f.owner, Record: made, AuthMethod: string(provider.OAuth2), Scopes: granted, Asked: f.scopes, Client: f.client},
		Start{Reconnect: f.reconnect, Ticket: f.ticket, Also: func(ctx context.Context, tx *sqldb.Tx, _ connection.Connection) error {
			return endExchange(ctx, tx, f.id)
		}}, m, g, account.Agreement{})
	if err != nil {
		return Connected{}, err
	}
	done = Connected{Connection: c, ReturnTo: f.returnTo, Missing: c.Missing(f.scopes)}
	if f.reconnect != "" && c.ID != f.reconnect {
		if was, err := s.connections.ByID(ctx, s.db.Reader(), env, f.reconnect); err == nil && was.Live() {
			done.Instead = was.AccountLabel
		}
	}
	return done, nil
}

// told fills in what the provider's answers say of its addresses, before the
// token goes to any of them.
func told(rec provider.Record, q url.Values, g grant) (provider.Record, error) {
	all, err := rec.Captured("callback", func(name string) (string, bool) { return q.Get(name), len(q[name]) == 1 })
	if err != nil {
		return provider.Record{}, err
	}
	more, err := rec.Captured("token", g.member)
	if err != nil {
		return provider.Record{}, err
	}
	maps.Copy(all, more)
	return rec.Bind(all)
}

// takeFlow uses up the state. Whoever is not the person who began gets the same
// answer as for a state that does not exist; what was begun is void all the same.
// If a code came with it, it is noted that an exchange begins.
func (s *Service) takeFlow(ctx context.Context, p account.Person, env id.Environment, slug string, of id.Organization, state secret.Value, code bool) (flow, error) {
	gone := fault.New(fault.Expired, "flow_expired", "This sign-in at the provider is no longer open.").WithHint("Start connecting again.")
	if p.User() == "" {
		return flow{}, gone
	}
	hash := state.Hash()
	var f flow
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		var err error
		if f, err = deleteFlow(ctx, tx, hash[:]); err != nil || !code || !s.fits(f, p, env, slug, of) {
			return err
		}
		return beginExchange(ctx, tx, f, s.now())
	})
	if sqldb.NoRows(err) {
		return flow{}, gone
	}
	if err != nil {
		return flow{}, sqldb.Wrap("finish an authorization", err)
	}
	if !s.fits(f, p, env, slug, of) {
		f.reconnect = ""
		s.refused(ctx, account.ByPerson(p), p.User(), f, "flow.person", fault.New(fault.Denied, "flow_mismatch", "Somebody else began this."))
		return flow{}, gone
	}
	return f, nil
}

// refused puts on record that an account was not connected: who tried, at which
// provider, and why, as a code. What they showed, and what the provider said, stay
// out. A refusal that cannot be recorded is still one.
func (s *Service) refused(ctx context.Context, by account.Actor, user id.User, f flow, rule string, err error) {
	told := fault.Of(err)
	if told.Kind == fault.Internal {
		return // nobody refused anything: the log has it
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if rerr := s.audit.Record(ctx, audit.Entry{
		Environment: f.environment, Organization: f.organization, Actor: by.Audit(), User: user, Connection: f.reconnect,
		Action: "connection.refused", Object: f.provider, Provider: f.provider, Decision: "deny", Code: told.Code, Rule: rule, Address: by.Address(),
	}); rerr != nil {
		s.log.Error("a refused connection could not be recorded", "provider", f.provider, "code", told.Code, "error", rerr)
	}
}

// fits reports whether an answer may finish a flow: the login that began it, and no
// other of the same person, which may count elsewhere. An organization's identity
// provider can make logins of its members that count there only, and what such a
// one begins must not end with an account that the person has outside (O1).
func (s *Service) fits(f flow, p account.Person, env id.Environment, slug string, of id.Organization) bool {
	return f.startedBy == p.User() && f.login == p.Login() && f.environment == env && f.provider == slug && f.client.Of == of && s.now().Before(f.expires)
}

// resume gives what a flow goes on with: the secret that it kept, and our client.
func (s *Service) resume(ctx context.Context, f flow, pinned provider.Pinned) (kept secret.Value, client provider.Client, err error) {
	if kept, err = s.vault.Open(ctx, f.place(), f.envelope); err != nil {
		return kept, client, err
	}
	pinned.Client = f.client
	client, err = s.providers.Client(ctx, f.environment, f.provider, pinned)
	return kept, client, err
}

// notExchanged is what a person hears when what they came back with got no token.
func (s *Service) notExchanged(f flow, err error) error {
	s.log.Warn("a sign-in could not be exchanged for a token", "provider", f.provider, "error", err)
	return fault.New(fault.Unavailable, "exchange_failed", "The provider did not give a token for this sign-in.").
		WithHint("Start connecting again. If it stays, an admin should check the provider's client id and secret.").WithCause(err)
}

func (s *Service) exchange(ctx context.Context, f flow, rec provider.Record, code secret.Value) (material, grant, error) {
	pinned := rec.Pinned()
	verifier, client, err := s.resume(ctx, f, pinned)
	if err != nil {
		return material{}, grant{}, err
	}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {string(code.Reveal())}, "redirect_uri": {f.redirectURI}}
	for k, v := range rec.OAuth.TokenParams {
		form.Set(k, v)
	}
	if rec.OAuth.UsesPKCE() {
		form.Set("code_verifier", string(verifier.Reveal()))
	}
	if slices.ContainsFunc(rec.OAuth.Slots, func(s provider.Slot) bool { return s.At == "" }) { // one code, one API: the others are asked for with the refresh token
		form.Set("scope", strings.Join(f.scopes, rec.OAuth.Scopes.Separator))
	}
	g, err := s.ask(ctx, pinned.Token, rec.OAuth, client, form)
	if err != nil {
		return material{}, grant{}, s.notExchanged(f, err)
	}
	m := material{values: map[string]secret.Value{provider.FieldAccessToken: g.access, fieldRefreshToken: g.refresh}}
	if how := rec.OAuth.Longer; how != nil {
		longer, err := s.swap(ctx, pinned.Longer, how, client, g.access)
		if err != nil {
			return m, g, fault.New(fault.Unavailable, "exchange_failed", "The provider did not give a token that lives long enough.").WithHint("Start connecting again.").WithCause(err)
		}
		g.access, g.lifetime = longer.access, longer.lifetime
		m.values[provider.FieldAccessToken] = g.access
	}
	slots := material{values: map[string]secret.Value{}}
	g.also = g.first(rec.OAuth, slots, s.now())
	g.parts = slots.values
	maps.Copy(m.values, slots.values)
	if err := failpoint.Hit("exchange: answered"); err != nil {
		return m, g, err
	}
	return m, g, usable(rec, m)
}

// AddKey connects an account with an API key or a name and password. owner is
// empty for an account of the organization. A new connection is nothing until a
// person approves its use, and shows whose account it is; a reconnect with a key
// of another account than it had is refused (threats.md O15). Where the provider does not tell whose account a key
// opens and agents have tools there, a person who reconnects agrees to it: sessions that are open would go
// on with the account of whoever gave the key.
func (s *Service) AddKey(ctx context.Context, by account.Actor, st Start, owner id.User, fields map[string]secret.Value, ag account.Agreement) (connection.Connection, error) {
	rec, err := s.place(ctx, by, st, owner)
	if err != nil {
		return connection.Connection{}, err
	}
	if rec.Auth == provider.OAuth2 {
		return connection.Connection{}, fault.New(fault.Invalid, "not_key", rec.Name+" is connected by signing in there.").WithHint("Use Connect.")
	}
	if err := provider.Reachable(ctx, s.outbound, rec.API.Base[0]); err != nil && len(rec.Open()) == 0 {
		return connection.Connection{}, err
	}
	values, err := rec.Take(fields)
	if err != nil {
		return connection.Connection{}, err
	}
	m, kind := material{values: values}, rec.Auth
	var g grant
	var client provider.ClientRef
	if kind == provider.AWSAssumeRole && st.Whose != nil { // the role is told for which organization
		if st.Organization, owner, err = st.Whose(ctx); err != nil {
			return connection.Connection{}, err
		}
	}
	if kind.Minted() {
		if client, err = s.clientFor(ctx, st, rec); err == nil {
			g, err = s.mint(ctx, st, rec, client, m)
		}
		if err != nil {
			s.refused(ctx, by, owner, flow{environment: st.Environment, organization: st.Organization, provider: st.Provider, reconnect: st.Reconnect}, "provider.mint", err)
			return connection.Connection{}, err
		}
		if rec, err = told(rec, nil, g); err != nil {
			return connection.Connection{}, err
		}
		m = g.onto(m)
	}
	if err := usable(rec, m); err != nil {
		return connection.Connection{}, err
	}
	return s.connect(ctx, by, connection.Fresh{Environment: st.Environment, Organization: st.Organization, Owner: owner, Record: rec, AuthMethod: string(kind), Scopes: g.scopes, Client: client},
		st, m, g, ag)
}

// clientFor is the client of ours that a kind of credential is minted with.
func (s *Service) clientFor(ctx context.Context, st Start, rec provider.Record) (provider.ClientRef, error) {
	if !rec.NeedsClient() {
		return provider.ClientRef{}, nil
	}
	return s.providers.ClientFor(ctx, st.Environment, st.Organization, rec.ID)
}

// mint makes of what a person gave, for the first time, what a call carries.
func (s *Service) mint(ctx context.Context, st Start, rec provider.Record, client provider.ClientRef, m material) (grant, error) {
	o := order{organization: st.Organization, record: rec, pinned: rec.Pinned(), have: m}
	o.pinned.Client = client
	var err error
	if rec.NeedsClient() {
		if o.client, err = s.providers.Client(ctx, st.Environment, rec.ID, o.pinned); err != nil {
			return grant{}, err
		}
	}
	g, err := s.renew(ctx, o)
	te := (*tokenError)(nil)
	switch {
	case !errors.As(err, &te):
		return g, err
	case te.class() == classGrant:
		return g, fault.New(fault.Invalid, codeRejected, rec.Name+" did not accept what was given ("+te.code+").").
			WithHint("Check that it is complete, still valid, and allowed to do this.").WithCause(err)
	case te.class() == classClient:
		return g, fault.New(fault.Unavailable, "upstream_unreachable", "The provider refuses Ambit's own registration.").
			WithHint("An admin must check the provider's client id and secret.").WithCause(err)
	}
	return g, fault.New(fault.Unavailable, "exchange_failed", rec.Name+" gave no token ("+te.code+").").WithHint("Try again in a moment.").WithRetry(te.retry).WithCause(err)
}

// connect asks the provider whose account this is, seals the credential and
// stores both: as a new connection, or as a new version of the one that has
// this account already. Of st only Reconnect, Ticket, Whose and Also count.
func (s *Service) connect(ctx context.Context, by account.Actor, f connection.Fresh, st Start, m material, g grant, ag account.Agreement) (connection.Connection, error) {
	again := st.Reconnect
	kind := provider.Auth(f.AuthMethod)
	use := provider.Credential{Kind: kind, Values: schemeOf(kind).carries(m)}
	var err error
	if m.signs() {
		conn := connection.Connection{Environment: f.Environment, Provider: f.Record.ID, Record: f.Record, Pinned: f.Record.Pinned()}
		conn.Pinned.Client = f.Client
		if use.Values, err = s.signing(ctx, conn, m); err != nil {
			return connection.Connection{}, err
		}
	}
	if g.unasked { // nothing works that could be asked with
	} else if f.Account, err = provider.Identify(ctx, s.outbound, f.Record.Pinned(), f.Record, use); err != nil {
		if kind != provider.OAuth2 || g.given { // else the whole answer of the provider is looked at
			s.refused(ctx, by, f.Owner, flow{environment: f.Environment, organization: f.Organization, provider: f.Record.ID}, "provider.identity", err)
		}
		return connection.Connection{}, err
	}
	if f.Record, err = f.Record.Bind(f.Account.Values); err != nil {
		return connection.Connection{}, err
	}
	if number := m.values[provider.FieldInstallationID]; kind == provider.GitHubApp && f.Account.ID == "" && !number.IsZero() {
		f.Account.ID = string(number.Reveal()) // public, and what the provider's notices say
		f.Account.Label = "installation " + f.Account.ID
	}
	if f.Account.Label == "" {
		f.Account.Label = f.Record.Name
	}
	if err := failpoint.Hit("connect: identified"); err != nil {
		return connection.Connection{}, err
	}
	if st.Whose != nil {
		if f.Organization, f.Owner, err = st.Whose(ctx); err != nil {
			return connection.Connection{}, err
		}
		if err = connection.MayConnect(by, f.Organization, f.Owner); err != nil {
			return connection.Connection{}, err
		}
	}
	if kind == provider.OAuth2 && f.Record.MCP != nil && f.Account.ID == "" {
		again = "" // whoever signed in now could be somebody else: a connection of its own (threats.md O15)
	}
	target, found, err := s.connections.Target(ctx, f, again)
	if err != nil {
		return connection.Connection{}, err
	}
	if (kind != provider.OAuth2 || g.given) && again != "" && target.ID != again {
		if err := s.sameAccount(ctx, f, again); err != nil {
			s.refused(ctx, by, f.Owner, flow{environment: f.Environment, organization: f.Organization, provider: f.Record.ID, reconnect: again}, "connection.account", err)
			return connection.Connection{}, err
		}
	}
	r := row{environment: f.Environment, organization: f.Organization, user: f.Owner, provider: f.Record.ID, kind: kind, version: 1, scopes: f.Scopes, obtainedAt: s.now()}
	var old material
	f.ID = id.NewConnection()
	if found {
		f.ID = target.ID
		was, err := s.load(ctx, target.ID)
		if err != nil {
			return connection.Connection{}, err
		}
		r.version = was.version + 1
		if old, err = s.material(ctx, was); err != nil {
			old = material{} // unreadable or removed: nothing to give back
		}
	}
	r.connection = f.ID
	switch {
	case kind == provider.OAuth2:
		r, m = g.apply(f.Record, r, material{}, s.now())
	case kind.Minted():
		r, m = g.apply(f.Record, r, m, s.now())
	}
	r.keepAt, r.checkAt = keepAt(f.Record, r, s.now()), checkAt(f.Record, r, s.now())
	f.CredentialVersion = r.version
	if r.envelope, err = s.seal(ctx, r, m.leaving(st.Elsewhere)); err != nil {
		return connection.Connection{}, err
	}
	var c connection.Connection
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		w, err := s.people.Weigh(ctx, tx, by, replaces(target), found && target.AccountID == "" && len(target.Record.Tools()) > 0, ag)
		if err != nil {
			return err
		}
		if found {
			if c, err = s.connections.Reconnect(ctx, tx, by, w, target, f); err == nil {
				err = s.providers.ForgetLook(ctx, tx, c.ID) // it was of another credential, and maybe at another place
			}
		} else {
			c, err = s.connections.Create(ctx, tx, by, f)
		}
		if err != nil {
			return err
		}
		stored, err := insertRow(ctx, tx, r)
		if err != nil {
			return sqldb.Wrap("store a credential", err)
		}
		if !stored {
			return fault.New(fault.Conflict, "version_conflict", "The connection was refreshed in the meantime.").WithHint("Start connecting again.")
		}
		return s.also(ctx, tx, st, c)
	})
	if err != nil {
		return connection.Connection{}, err
	}
	s.sealed.drop(c.ID)
	s.replaced(ctx, target, old, m)
	return c, nil
}

// sameAccount refuses a key that opens another account than the connection has
// which it was given for. It can be given again, for a connection of its own.
func (s *Service) sameAccount(ctx context.Context, f connection.Fresh, again id.Connection) error {
	was, err := s.connections.ByID(ctx, s.db.Reader(), f.Environment, again)
	if err != nil || !was.Live() {
		return err
	}
	return fault.New(fault.Conflict, "account_differs", "This key opens "+f.Account.Label+", and the connection is of "+was.AccountLabel+". Nothing was changed.").
		WithHint("Give a key of " + was.AccountLabel + ", or connect " + f.Account.Label + " as a new connection, without naming one to reconnect.")
}

// replaces is a reconnect of a connection, as a person agrees to it.
func replaces(c connection.Connection) account.Raise {
	return account.Raise{Action: "connection.reconnected", Environment: c.Environment, Organization: c.Organization, Object: string(c.ID), Version: c.CredentialVersion,
		From: c.AccountLabel, To: "another credential", Facts: map[string]string{"provider": c.Provider}}
}

// flow is one authorization in progress. The PKCE verifier is sealed.
type flow struct {
	id           id.Flow
	state        [32]byte
	environment  id.Environment
	organization id.Organization
	owner        id.User
	startedBy    id.User
	login        id.Login
	provider     string
	envelope     []byte
	redirectURI  string
	issuer       string
	digest       [32]byte
	scopes       []string
	reconnect    id.Connection
	ticket       id.Ticket
	client       provider.ClientRef
	returnTo     string
	chosen       map[string]string
	expires      time.Time
	created      time.Time
}

func (f flow) place() vault.Place {
	return vault.Place{Environment: f.environment, Organization: f.organization, User: f.startedBy, Kind: "oauth_flow", Object: string(f.id), Version: 1, Provider: f.provider}
}

const flowColumns = `id, environment_id, organization_id, user_id, started_by, login_id, provider, envelope, redirect_uri, expected_issuer,
	record_digest, scopes, connection_id, return_to, expires_at, created_at, chosen, ticket_id, client_of, client_id`

const (
	insertFlowSQL = `insert into oauth_flow (state_hash, ` + flowColumns + `) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)`
	deleteFlowSQL = `delete from oauth_flow where state_hash = $1 returning ` + flowColumns
	sweepFlowsSQL = `delete from oauth_flow where expires_at < $1`
)

func insertFlow(ctx context.Context, q sqldb.Querier, f flow) error {
	chosen, err := json.Marshal(f.chosen)
	if err != nil {
		return err
	}
	_, err = q.ExecContext(ctx, insertFlowSQL, f.state[:], f.id, f.environment, f.organization, f.owner, f.startedBy, f.login, f.provider, f.envelope,
		f.redirectURI, f.issuer, f.digest[:], strings.Join(f.scopes, " "), f.reconnect, f.returnTo, sqldb.Micros(f.expires), sqldb.Micros(f.created), string(chosen), f.ticket, f.client.Of, f.client.ID)
	return err
}

// deleteFlow reads and removes in one statement: a state counts once.
func deleteFlow(ctx context.Context, q sqldb.Querier, state []byte) (flow, error) {
	var f flow
	var digest []byte
	var scopes, chosen string
	var expires, created int64
	err := q.QueryRowContext(ctx, deleteFlowSQL, state).Scan(&f.id, &f.environment, &f.organization, &f.owner, &f.startedBy, &f.login, &f.provider, &f.envelope,
		&f.redirectURI, &f.issuer, &digest, &scopes, &f.reconnect, &f.returnTo, &expires, &created, &chosen, &f.ticket, &f.client.Of, &f.client.ID)
	if err == nil {
		err = json.Unmarshal([]byte(chosen), &f.chosen)
	}
	copy(f.digest[:], digest)
	f.scopes, f.expires, f.created = strings.Fields(scopes), sqldb.Time(expires), sqldb.Time(created)
	return f, err
}
