package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

// Client is an OAuth client of ours at a provider.
type Client struct {
	ID     string
	Secret secret.Value // zero when client_auth is none
	// Old is the secret before, while both count: it is for a provider that does not
	// know the new one yet. Zero: there is none.
	Old secret.Value

	Environment  id.Environment
	Organization id.Organization // whose it is; empty: the environment's
	Provider     string
}

// ClientRef names the client that a grant was given to. The grant is renewed and
// given back with this client and no other, whatever is configured since; what its
// secret is now is looked up each time, so that a rotated one counts at once.
type ClientRef struct {
	Of id.Organization `json:"of,omitempty"` // whose it is; empty: the environment's
	ID string          `json:"id,omitempty"` // empty: of before this was kept, the environment's whatever its id
}

// Audience says which organizations are signed in with the environment's client: one,
// by its id, or one of the two below. It counts when somebody connects; connections
// that are there go on.
type Audience string

const (
	ForAll    Audience = "all"
	ForNobody Audience = "none" // each organization brings its own
)

// Includes reports whether the people of an organization are among them.
func (a Audience) Includes(org id.Organization) bool {
	return a == ForAll || org != "" && a == Audience(org)
}

// SharedClientRisk is what an operator accepts with ForAll (threats.md O2).
const SharedClientRisk = "One client for all organizations is one application to the provider: what it does against one organization, such as blocking it or counting its requests, it does to all; " +
	"a code or token that is stolen from one can be tried in another's name; and whoever gets the secret can use it with everybody's stolen tokens."

// DefaultOverlap is how long both secrets of a client count when one is replaced.
const DefaultOverlap = 24 * time.Hour

const maxOverlap = 30 * 24 * time.Hour

// ClientInfo is a client as those see it who manage it.
type ClientInfo struct {
	Organization   id.Organization // whose it is; empty: the environment's
	ID             string
	HasSecret      bool
	For            Audience // of the environment's
	OldSecretUntil time.Time
	Stale          bool // the provider's places have changed since it was stored: it must be given again
	UpdatedAt      time.Time
	Version        int64
}

// sealedClient is a client as stored: alike in the environment's row of a provider
// and in that of an organization.
type sealedClient struct {
	id         string
	envelope   []byte
	version    int64 // of the secret
	old        []byte
	oldVersion int64
	oldUntil   int64
}

const (
	clientColumns = `client_id, client_secret, client_secret_version, old_client_secret, old_client_secret_version, old_client_secret_until`
	clientSet     = `client_id = $4, client_secret = $5, client_secret_version = $6, old_client_secret = $7, old_client_secret_version = $8, old_client_secret_until = $9`
)

func (c *sealedClient) columns() []any {
	return []any{&c.id, &c.envelope, &c.version, &c.old, &c.oldVersion, &c.oldUntil}
}

func (c sealedClient) stored() []any {
	return []any{c.id, c.envelope, c.version, c.old, c.oldVersion, c.oldUntil}
}

// until is when the old secret ends; zero: it has, or there is none.
func (c sealedClient) until(now time.Time) time.Time {
	if c.old == nil || c.oldUntil <= sqldb.Micros(now) {
		return time.Time{}
	}
	return sqldb.Time(c.oldUntil)
}

func (c *sealedClient) forgetOld() { c.old, c.oldVersion, c.oldUntil = nil, 0, 0 }

func secretPlace(env id.Environment, org id.Organization, slug string, version int64) vault.Place {
	return vault.Place{Environment: env, Organization: org, Kind: "provider_client", Object: slug, Version: version, Provider: slug}
}

// clientsKept lists what is sealed of clients.
func clientsKept() []vault.Sealed {
	var out []vault.Sealed
	for _, table := range []struct{ name, org, key string }{{"provider", `''`, ""}, {"provider_client", `s.organization_id`, "organization_id"}} {
		for _, column := range []string{"client_secret", "old_client_secret"} {
			key := []string{"environment_id", "slug"}
			if table.key != "" {
				key = append(key, table.key)
			}
			out = append(out, vault.Sealed{
				Table: table.name, Column: column, Key: key, Fields: `s.environment_id, ` + table.org + `, s.slug, s.` + column + `_version`,
				Place: func(scan func(dest ...any) error) (vault.Place, error) {
					var env id.Environment
					var org id.Organization
					var slug string
					var version int64
					err := scan(&env, &org, &slug, &version)
					return secretPlace(env, org, slug, version), err
				},
			})
		}
	}
	return out
}

// nextClient is the client that follows was. The old secret stays beside a new one
// of the same client for a while: the provider may not know the new one yet.
func (s *Store) nextClient(ctx context.Context, place vault.Place, was sealedClient, rec Record, in Input) (sealedClient, error) {
	none := func(code, message, hint string) (sealedClient, error) {
		return sealedClient{}, fault.New(fault.Invalid, code, message).WithHint(hint)
	}
	if !rec.NeedsClient() {
		if in.ClientID != "" || !in.ClientSecret.IsZero() {
			return none("client_not_used", "A provider of the kind "+string(rec.Auth)+" has no client of ours.", "Leave client id and secret out.")
		}
		return sealedClient{}, nil
	}
	if in.ClientID == "" || len(in.ClientID) > 500 || strings.ContainsFunc(in.ClientID, unprintable) {
		return none("client_id_invalid", "The id of the OAuth client is missing or not plain text.", "Register an OAuth client at the provider and give its client id.")
	}
	overlap := DefaultOverlap
	if in.Overlap != nil {
		overlap = *in.Overlap
	}
	if overlap < 0 || overlap > maxOverlap {
		return none("overlap_invalid", "Both secrets count for 0 seconds to 30 days.", "Leave it out for a day.")
	}
	if rec.OAuth != nil && rec.OAuth.ClientAuth == "none" {
		if !in.ClientSecret.IsZero() {
			return none("client_not_used", "client_auth is none, so there is no client secret.", "Leave the secret out.")
		}
		return sealedClient{id: in.ClientID}, nil
	}
	n, now := was, s.cfg.Now()
	if was.id != in.ClientID || was.envelope == nil {
		if in.ClientSecret.IsZero() {
			return none("client_secret_missing", "The OAuth client's secret is missing. It is needed again when the client id, or the token or revocation URL changes.",
				"Give the client secret, or set client_auth: none.")
		}
		n = sealedClient{id: in.ClientID}
	}
	if n.until(now).IsZero() || in.Overlap != nil && overlap == 0 {
		n.forgetOld()
	}
	if in.ClientSecret.IsZero() {
		return n, nil
	}
	n.forgetOld()
	if n.envelope != nil && overlap > 0 {
		n.old, n.oldVersion, n.oldUntil = n.envelope, n.version, sqldb.Micros(now.Add(overlap))
	}
	n.version = place.Version
	var err error
	n.envelope, err = s.cfg.Vault.Seal(ctx, place, in.ClientSecret)
	return n, err
}

// audience is who is signed in with the environment's client from now on, as stored:
// nothing for all, which is also what clients of before this was asked have.
func (s *Store) audience(ctx context.Context, env id.Environment, was string, fresh bool, in Input) (string, error) {
	switch in.For {
	case "":
		if !fresh {
			return was, nil
		}
		e, err := s.cfg.People.Environment(ctx, env)
		return string(e.Operator), err
	case ForAll:
		if !in.AcceptShared && (fresh || was != "") {
			return "", fault.New(fault.Denied, "shared_client_unaccepted", "A client for all organizations must be wanted: "+SharedClientRisk).
				WithHint("Accept it (accept_shared_client, --accept-shared-client), name one organization, or have each bring its own.")
		}
		return "", nil
	case ForNobody:
		return string(ForNobody), nil
	}
	o, err := s.cfg.People.Organization(ctx, env, id.Organization(in.For))
	return string(o.ID), err
}

func audienceOf(stored string) Audience {
	if stored == "" {
		return ForAll
	}
	return Audience(stored)
}

// own is an organization's own client at a provider.
type own struct {
	organization id.Organization
	slug         string
	client       sealedClient
	places       string // those that its secret was given for
	updatedAt    int64
	version      int64
}

const (
	ownColumns = `organization_id, slug, ` + clientColumns + `, places, updated_at, version`
	ownSQL     = `select ` + ownColumns + ` from provider_client where environment_id = $1 and slug = $2 and organization_id = $3`
	ownsSQL    = `select ` + ownColumns + ` from provider_client where environment_id = $1 and slug = $2 order by organization_id`
	ownsOfSQL  = `select ` + ownColumns + ` from provider_client where environment_id = $1 and organization_id = $2 order by slug`
	addOwnSQL  = `insert into provider_client (environment_id, slug, organization_id, ` + clientColumns + `, places, updated_at, version) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 1)
		on conflict (environment_id, slug, organization_id) do nothing`
	setOwnSQL = `update provider_client set ` + clientSet + `, places = $10, updated_at = $11, version = $12
		where environment_id = $1 and slug = $2 and organization_id = $3 and version = $12 - 1`
	dropOwnSQL     = `delete from provider_client where environment_id = $1 and slug = $2 and organization_id = $3`
	dropClientsSQL = `delete from provider_client where environment_id = $1 and slug = $2`
	forgetOldSQL   = ` set old_client_secret = null, old_client_secret_version = 0, old_client_secret_until = 0 where old_client_secret_until > 0 and old_client_secret_until <= $1`
)

func (o *own) scan(from sqldb.Scanner) error {
	return from.Scan(append(append([]any{&o.organization, &o.slug}, o.client.columns()...), &o.places, &o.updatedAt, &o.version)...)
}

func (s *Store) own(ctx context.Context, q sqldb.Querier, env id.Environment, slug string, org id.Organization) (*own, error) {
	var o own
	err := o.scan(q.QueryRowContext(ctx, ownSQL, env, slug, org))
	if sqldb.NoRows(err) {
		return nil, nil
	}
	return &o, sqldb.Wrap("read a client", err)
}

// places names in short form where a record sends the secret of a client.
func placesOf(r Record) string {
	p := r.Pinned()
	sum := sha256.Sum256([]byte(strings.Join([]string{p.Token, p.Longer, p.Revoke, p.Refreshing()}, "\n")))
	return hex.EncodeToString(sum[:])
}

// checkOwn holds what by wants to make of an organization's own client against every
// rule, and gives the record that the provider has, the row that is there, and the
// one that it becomes.
func (s *Store) checkOwn(ctx context.Context, by account.Actor, in Input) (Record, *own, *own, error) {
	fail := func(err error) (Record, *own, *own, error) { return Record{}, nil, nil, err }
	env := by.Environment()
	if err := by.May(in.Organization, account.ManageProviders); err != nil {
		return fail(err)
	}
	if _, err := s.cfg.People.Organization(ctx, env, in.Organization); err != nil {
		return fail(err)
	}
	rec, err := s.library.Parse(in.YAML)
	if err != nil {
		return fail(err)
	}
	p, err := s.Get(ctx, env, rec.ID)
	if err != nil {
		return fail(err)
	}
	if p.Record.TextDigest() != rec.TextDigest() {
		return fail(moved()) // the secret would go to places that nobody looked at
	}
	if rec.Auth != OAuth2 {
		return fail(fault.New(fault.Invalid, "client_not_used", "An organization has no client of its own at a provider of the kind "+string(rec.Auth)+"."))
	}
	if in.For != "" {
		return fail(fault.New(fault.Invalid, "client_for_invalid", "An organization's own client is for that organization."))
	}
	old, err := s.own(ctx, s.cfg.DB.Reader(), env, rec.ID, in.Organization)
	if err != nil {
		return fail(err)
	}
	n := &own{organization: in.Organization, slug: rec.ID, places: placesOf(rec), updatedAt: sqldb.Micros(s.cfg.Now()), version: 1}
	was, at := sealedClient{}, n.updatedAt // of the secret: never that of one before, also where the row was removed since
	if old != nil {
		at = max(at, old.client.version+1)
		if n.version = old.version + 1; old.places == n.places {
			was = old.client
		}
	}
	if in.IfVersion != 0 && in.IfVersion != n.version-1 {
		return fail(moved())
	}
	n.client, err = s.nextClient(ctx, secretPlace(env, in.Organization, rec.ID, at), was, rec, in)
	return rec, old, n, err
}

// putOwn gives an organization a client of its own, or another one, or another secret.
func (s *Store) putOwn(ctx context.Context, by account.Actor, in Input, ag account.Agreement, also func(context.Context, *sqldb.Tx) error) (Provider, error) {
	rec, old, next, err := s.checkOwn(ctx, by, in)
	if err != nil {
		return Provider{}, err
	}
	env := by.Environment()
	digest := rec.Digest()
	r := account.Raise{Action: "provider.client_set", Environment: env, Organization: in.Organization, Object: rec.ID, To: next.client.id,
		Facts: map[string]string{"record_digest": hex.EncodeToString(digest[:])}}
	if old != nil {
		r.Version, r.From = old.version, old.client.id
	}
	if next.client.envelope != nil && (old == nil || next.client.version != old.client.version) {
		r.Facts["client_secret"] = "new"
	}
	err = s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		w, err := s.cfg.People.Weigh(ctx, tx, by, r, true, ag)
		if err != nil {
			return err
		}
		if err := w.For(rec.ID); err != nil {
			return err
		}
		args := append(append([]any{env, next.slug, next.organization}, next.client.stored()...), next.places, next.updatedAt)
		if next.version == 1 {
			err = one(tx.ExecContext(ctx, addOwnSQL, args...))
		} else {
			err = one(tx.ExecContext(ctx, setOwnSQL, append(args, next.version)...))
		}
		if err != nil {
			return err
		}
		s.cfg.Audit.AppendEvent(tx, audit.Entry{Environment: env, Organization: in.Organization, Actor: by.Audit(), User: by.User(), Action: r.Action, Object: rec.ID, Provider: rec.ID,
			Evidence: w.Evidence(), Detail: s.clientDetail(next.client, r.Facts), Address: by.Address()})
		if in.Also != nil {
			if err := in.Also(ctx, tx, Provider{Record: rec}); err != nil {
				return err
			}
		}
		return also(ctx, tx)
	})
	if err != nil {
		return Provider{}, err
	}
	return s.Get(ctx, env, rec.ID)
}

// clientDetail is what the audit says of a client.
func (s *Store) clientDetail(c sealedClient, facts map[string]string) map[string]string {
	d := map[string]string{"client_id": c.id}
	if facts["client_secret"] != "" {
		d["client_secret"] = "new"
	}
	if at := c.until(s.cfg.Now()); !at.IsZero() {
		d["old_secret_until"] = at.UTC().Format(time.RFC3339)
	}
	return d
}

// RemoveOwn takes an organization's own client away. Accounts that were connected
// with it cannot be renewed any more; who connects then is signed in with the
// environment's, where that is for them.
func (s *Store) RemoveOwn(ctx context.Context, by account.Actor, slug string, org id.Organization) error {
	env := by.Environment()
	if err := by.May(org, account.ManageProviders); err != nil {
		return err
	}
	return s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		o, err := s.own(ctx, tx, env, slug, org)
		if err != nil {
			return err
		}
		if o == nil {
			return fault.New(fault.NotFound, "not_found", "The organization has no client of its own at this provider.").WithHint("List the provider's clients.")
		}
		if _, err := tx.ExecContext(ctx, dropOwnSQL, env, slug, org); err != nil {
			return sqldb.Wrap("remove a client", err)
		}
		s.cfg.Audit.AppendEvent(tx, audit.Entry{Environment: env, Organization: org, Actor: by.Audit(), User: by.User(), Action: "provider.client_removed", Object: slug, Provider: slug,
			Detail: map[string]string{"client_id": o.client.id}, Address: by.Address()})
		return nil
	})
}

// Clients lists the clients at a provider: the environment's first, then those of the
// organizations whose providers the actor manages.
func (s *Store) Clients(ctx context.Context, by account.Actor, slug string) ([]ClientInfo, error) {
	env := by.Environment()
	p, err := s.Get(ctx, env, slug)
	if err != nil {
		return nil, err
	}
	var out []ClientInfo
	if p.ClientID != "" {
		whose := p.For
		if whose != ForAll && by.May(id.Organization(whose), account.ManageProviders) != nil {
			whose = ForNobody // of theirs; whom it is for is not their affair
		}
		out = append(out, ClientInfo{ID: p.ClientID, HasSecret: p.HasClientSecret, For: whose, OldSecretUntil: p.OldSecretUntil, UpdatedAt: p.UpdatedAt, Version: p.Version})
	}
	rows, err := s.owns(ctx, ownsSQL, env, slug)
	if err != nil {
		return nil, err
	}
	for _, o := range rows {
		if by.May(o.organization, account.ManageProviders) == nil {
			c := o.info(s.cfg.Now())
			c.Stale = o.places != placesOf(p.Record)
			out = append(out, c)
		}
	}
	return out, nil
}

func (o own) info(now time.Time) ClientInfo {
	return ClientInfo{Organization: o.organization, ID: o.client.id, HasSecret: o.client.envelope != nil, For: Audience(o.organization), OldSecretUntil: o.client.until(now),
		UpdatedAt: sqldb.Time(o.updatedAt), Version: o.version}
}

// OwnClients gives an organization's own clients by the ids of the providers.
func (s *Store) OwnClients(ctx context.Context, env id.Environment, org id.Organization) (map[string]ClientInfo, error) {
	rows, err := s.owns(ctx, ownsOfSQL, env, org)
	out := map[string]ClientInfo{}
	for _, o := range rows {
		out[o.slug] = o.info(s.cfg.Now())
	}
	return out, err
}

func (s *Store) owns(ctx context.Context, query string, args ...any) ([]own, error) {
	rows, err := sqldb.Collect(func(from sqldb.Scanner) (o own, err error) { return o, o.scan(from) })(s.cfg.DB.Reader().QueryContext(ctx, query, args...))
	return rows, sqldb.Wrap("list clients", err)
}

// ClientFor says with which client the accounts of an organization are connected from
// now on: its own, or else the environment's where that is for it.
func (s *Store) ClientFor(ctx context.Context, env id.Environment, org id.Organization, slug string) (ClientRef, error) {
	r, err := s.row(ctx, s.cfg.DB.Reader(), env, slug)
	if err != nil {
		return ClientRef{}, err
	}
	if r == nil || r.deletedAt != 0 {
		return ClientRef{}, noClient(slug) // a built-in provider has none
	}
	o, err := s.own(ctx, s.cfg.DB.Reader(), env, slug, org)
	switch {
	case err != nil:
		return ClientRef{}, err
	case o != nil:
		return ClientRef{Of: org, ID: o.client.id}, nil
	case r.client.id == "":
		return ClientRef{}, noClient(slug)
	case !audienceOf(r.clientFor).Includes(org):
		return ClientRef{}, fault.New(fault.Conflict, "client_not_shared", "The OAuth client of this provider is not for this organization.").
			WithHint("Whoever runs the environment can share it, with ambit provider client set " + slug + " --for. Or give the organization a client of its own, with --org.")
	}
	return ClientRef{ID: r.client.id}, nil
}

// Client opens the client that is pinned, for use at the pinned places. When the
// record has moved to other places since, or there is another client now, its secret
// is not for the grants of the old one: the connection must be made anew.
func (s *Store) Client(ctx context.Context, env id.Environment, slug string, pinned Pinned) (Client, error) {
	r, err := s.row(ctx, s.cfg.DB.Reader(), env, slug)
	if err != nil {
		return Client{}, err
	}
	if r == nil || r.deletedAt != 0 {
		return Client{}, notFound()
	}
	p, err := s.provider(r)
	if err != nil {
		return Client{}, err
	}
	rec, err := s.library.Bind(p.Record, pinned.Values)
	if err != nil { // it takes other parameters now
		return Client{}, changed().WithCause(err)
	}
	now := rec.Pinned()
	if now.Token != pinned.Token || now.Longer != pinned.Longer || now.Refreshing() != pinned.Refreshing() || pinned.Revoke != "" && now.Revoke != pinned.Revoke {
		return Client{}, changed()
	}
	sealed := r.client
	if of := pinned.Client.Of; of != "" {
		o, err := s.own(ctx, s.cfg.DB.Reader(), env, slug, of)
		if err != nil {
			return Client{}, err
		}
		if o == nil {
			return Client{}, anotherClient()
		}
		if o.places != placesOf(p.Record) {
			return Client{}, changed()
		}
		sealed = o.client
	}
	if sealed.id == "" {
		return Client{}, noClient(slug)
	}
	if pinned.Client.ID != "" && pinned.Client.ID != sealed.id {
		return Client{}, anotherClient()
	}
	return s.open(ctx, env, slug, pinned.Client.Of, sealed)
}

func (s *Store) open(ctx context.Context, env id.Environment, slug string, of id.Organization, sealed sealedClient) (c Client, err error) {
	c = Client{ID: sealed.id, Environment: env, Organization: of, Provider: slug}
	if sealed.envelope == nil {
		return c, nil
	}
	if c.Secret, err = s.cfg.Vault.Open(ctx, secretPlace(env, of, slug, sealed.version), sealed.envelope); err != nil || sealed.until(s.cfg.Now()).IsZero() {
		return c, err
	}
	c.Old, err = s.cfg.Vault.Open(ctx, secretPlace(env, of, slug, sealed.oldVersion), sealed.old)
	return c, err
}

// ForgetOldSecrets destroys what does not count any more.
func (s *Store) ForgetOldSecrets(ctx context.Context, tx *sqldb.Tx) error {
	for _, table := range []string{"provider", "provider_client"} {
		if _, err := tx.ExecContext(ctx, `update `+table+forgetOldSQL, sqldb.Micros(s.cfg.Now())); err != nil {
			return sqldb.Wrap("forget old client secrets", err)
		}
	}
	return nil
}

func changed() *fault.Error {
	return fault.New(fault.Conflict, "provider_changed", "The provider's endpoints have changed since this connection was made.").WithHint("Reconnect.")
}

func anotherClient() *fault.Error {
	return fault.New(fault.Conflict, "client_changed", "The OAuth client that this account was connected with is not there any more.").WithHint("Reconnect.")
}

func noClient(slug string) error {
	return fault.New(fault.Conflict, "no_client", "No OAuth client is configured for this provider.").
		WithHint("Register one at the provider and give its client id and secret: ambit provider client set " + slug + ".")
}
