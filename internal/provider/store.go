package provider

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

// maxProviders bounds the records that one environment adds.
const maxProviders = 500

// Config is what a Store needs.
type Config struct {
	DB       *sqldb.DB
	Vault    *vault.Vault
	Audit    *audit.Log
	People   *account.Service
	Outbound *outbound.Client
	// InUse counts the live connections of a provider; one in use is not
	// removed. Nil counts none.
	InUse func(ctx context.Context, tx *sqldb.Tx, env id.Environment, slug string) (int, error)
	Now   func() time.Time
}

// Store gives the providers of an environment: the built-in ones and its own.
type Store struct {
	cfg     Config
	catalog catalog
	library Library
}

// New reads the built-in catalogue.
func New(cfg Config) (*Store, error) {
	c, err := readCatalog(catalogFiles)
	if err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.InUse == nil {
		cfg.InUse = func(context.Context, *sqldb.Tx, id.Environment, string) (int, error) { return 0, nil }
	}
	if cfg.Vault != nil {
		cfg.Vault.Keeps(keeps()...)
	}
	return &Store{cfg: cfg, catalog: c}, nil
}

// Provider is a record with what an environment added to it.
type Provider struct {
	Record          Record
	Builtin         bool
	ClientID        string // of our OAuth client at the provider
	HasClientSecret bool
	Version         int64
	UpdatedAt       time.Time
}

// Input is what Put stores.
type Input struct {
	YAML         []byte
	ClientID     string       // where the record needs a client of ours
	ClientSecret secret.Value // zero keeps the stored one
	IfVersion    int64        // refuse unless this is the stored version; 0: whatever it is
	New          bool         // refuse if there is one of this id
	NoClient     bool         // without a ClientID it is a provider to which others bring their clients

	// Also runs in the transaction that stores the provider; nil: nothing.
	Also func(ctx context.Context, tx *sqldb.Tx, p Provider) error
}

// row is a stored provider.
type row struct {
	slug          string
	record        []byte
	clientID      string
	envelope      []byte
	secretVersion int64
	updatedAt     int64
	deletedAt     int64
	version       int64
}

const columns = `slug, record, client_id, client_secret, client_secret_version, updated_at, deleted_at, version`

func (r *row) scan(scan func(...any) error) error {
	return scan(&r.slug, &r.record, &r.clientID, &r.envelope, &r.secretVersion, &r.updatedAt, &r.deletedAt, &r.version)
}

// Templates lists the templates, by id.
func (s *Store) Templates() []Template { return s.catalog.list() }

// Template finds a template, or an entry of the catalogue.
func (s *Store) Template(name string) (Template, error) {
	if t, ok := s.catalog.templates[name]; ok {
		return t, nil
	}
	e, err := FindEntry(name)
	return e.Template, err
}

// Get finds a provider of env, built-in or its own.
func (s *Store) Get(ctx context.Context, env id.Environment, slug string) (Provider, error) {
	if r, ok := s.catalog.records[slug]; ok {
		return Provider{Record: r, Builtin: true}, nil
	}
	r, err := s.row(ctx, s.cfg.DB.Reader(), env, slug)
	if err != nil {
		return Provider{}, err
	}
	if r == nil || r.deletedAt != 0 {
		return Provider{}, notFound()
	}
	return s.provider(r)
}

func notFound() error {
	return fault.New(fault.NotFound, "not_found", "No such provider.").WithHint("List the providers of this environment.")
}

func (s *Store) row(ctx context.Context, q sqldb.Querier, env id.Environment, slug string) (*row, error) {
	const query = `select ` + columns + ` from provider where environment_id = $1 and slug = $2`
	var r row
	err := r.scan(q.QueryRowContext(ctx, query, env, slug).Scan)
	if sqldb.NoRows(err) {
		return nil, nil
	}
	return &r, sqldb.Wrap("read a provider", err)
}

func (s *Store) provider(r *row) (Provider, error) {
	rec, err := s.library.Parse(r.record)
	return Provider{Record: rec, ClientID: r.clientID, HasClientSecret: r.envelope != nil, Version: r.version, UpdatedAt: sqldb.Time(r.updatedAt)}, err
}

// List gives the providers of env, by id.
func (s *Store) List(ctx context.Context, env id.Environment) ([]Provider, error) {
	rows, err := s.rows(ctx, s.cfg.DB.Reader(), env)
	if err != nil {
		return nil, err
	}
	var out []Provider
	for _, k := range sortedKeys(s.catalog.records) {
		out = append(out, Provider{Record: s.catalog.records[k], Builtin: true})
	}
	for i := range rows {
		if rows[i].deletedAt != 0 {
			continue
		}
		p, err := s.provider(&rows[i])
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Provider) int { return strings.Compare(a.Record.ID, b.Record.ID) })
	return out, nil
}

func (s *Store) rows(ctx context.Context, q sqldb.Querier, env id.Environment) ([]row, error) {
	const query = `select ` + columns + ` from provider where environment_id = $1 order by slug`
	rows, err := q.QueryContext(ctx, query, env)
	if err != nil {
		return nil, sqldb.Wrap("list providers", err)
	}
	defer rows.Close()
	var out []row
	for rows.Next() {
		var r row
		if err := r.scan(rows.Scan); err != nil {
			return nil, sqldb.Wrap("list providers", err)
		}
		out = append(out, r)
	}
	return out, sqldb.Wrap("list providers", rows.Err())
}

// Put adds or replaces a provider of the actor's environment. Connections that
// exist keep the record they were made with. A record decides where credentials
// go that are connected from then on, and what a tool is said to do, so that a
// person agrees to exactly what it becomes; see Draft.
func (s *Store) Put(ctx context.Context, by account.Actor, in Input, ag account.Agreement) (Provider, error) {
	return s.put(ctx, by, in, ag, func(context.Context, *sqldb.Tx) error { return nil })
}

// put runs also in its transaction.
func (s *Store) put(ctx context.Context, by account.Actor, in Input, ag account.Agreement, also func(context.Context, *sqldb.Tx) error) (Provider, error) {
	rec, old, next, err := s.check(ctx, by, in)
	if err != nil {
		return Provider{}, err
	}
	err = s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := s.namesFree(ctx, tx, by.Environment(), rec); err != nil {
			return err
		}
		r := raise(by.Environment(), old, next, rec)
		w, err := s.cfg.People.Weigh(ctx, tx, by, r, true, ag)
		if err != nil {
			return err
		}
		if err := s.write(ctx, tx, w, by.Environment(), next); err != nil {
			return err
		}
		s.audit(tx, by, r.Action, rec.ID, w.Evidence(), map[string]string{"record_digest": r.To})
		if in.Also != nil {
			p, err := s.provider(next)
			if err == nil {
				err = in.Also(ctx, tx, p)
			}
			if err != nil {
				return err
			}
		}
		return also(ctx, tx)
	})
	if err != nil {
		return Provider{}, err
	}
	return s.provider(next)
}

// check holds what by wants to put against every rule but the one of names,
// and gives the record, the row that it replaces, and the row that it becomes.
func (s *Store) check(ctx context.Context, by account.Actor, in Input) (Record, *row, *row, error) {
	env := by.Environment()
	if err := by.May("", account.ManageProviders); err != nil {
		return Record{}, nil, nil, err
	}
	rec, err := s.library.Parse(in.YAML)
	if err != nil {
		return Record{}, nil, nil, err
	}
	if s.catalog.taken(rec.ID) {
		return Record{}, nil, nil, fault.New(fault.Conflict, "provider_reserved", "The id "+rec.ID+" belongs to the built-in catalogue.").WithHint("Choose another id.")
	}
	if err := s.reachable(ctx, rec); err != nil {
		return Record{}, nil, nil, err
	}
	old, err := s.row(ctx, s.cfg.DB.Reader(), env, rec.ID)
	if err != nil {
		return Record{}, nil, nil, err
	}
	next, err := s.next(ctx, env, old, rec, in)
	return rec, old, next, err
}

// raise is what a person agrees to. Of the client secret it says whether there
// is a new one.
func raise(env id.Environment, old, next *row, rec Record) account.Raise {
	digest := rec.Digest()
	r := account.Raise{Action: "provider.created", Environment: env, Object: rec.ID, To: hex.EncodeToString(digest[:]), Facts: map[string]string{"client_id": next.clientID}}
	if old != nil {
		r.Version, r.Action = old.version, "provider.updated"
	}
	if next.envelope != nil && next.secretVersion == next.version {
		r.Facts["client_secret"] = "new"
	}
	return r
}

// reachable holds every URL of a record against the operator's rules, so that a
// wrong one is told now and not at the first call (threats.md O7, O9).
func (s *Store) reachable(ctx context.Context, rec Record) error {
	shown := rec.withExamples()
	pinned := shown.Pinned()
	for _, place := range pinned.Places() {
		if err := Reachable(ctx, s.cfg.Outbound, place); err != nil {
			return fault.Of(err).With("destination", place)
		}
	}
	return nil
}

// next is the row that follows old.
func (s *Store) next(ctx context.Context, env id.Environment, old *row, rec Record, in Input) (*row, error) {
	n := &row{slug: rec.ID, record: in.YAML, clientID: in.ClientID, version: 1, updatedAt: sqldb.Micros(s.cfg.Now())}
	if old != nil {
		n.version = old.version + 1
		if in.IfVersion != 0 && (in.IfVersion != old.version || old.deletedAt != 0) {
			return nil, moved()
		}
		if in.New && old.deletedAt == 0 {
			return nil, fault.New(fault.Conflict, "provider_exists", "There is a provider "+rec.ID+" already.").WithHint("Choose another id.")
		}
		if old.deletedAt == 0 {
			n.envelope, n.secretVersion = old.envelope, old.secretVersion
		}
	} else if in.IfVersion != 0 {
		return nil, moved()
	}
	if !rec.NeedsClient() {
		if in.ClientID != "" || !in.ClientSecret.IsZero() {
			return nil, fault.New(fault.Invalid, "client_not_used", "A provider of the kind "+string(rec.Auth)+" has no client of ours.").WithHint("Leave client id and secret out.")
		}
		n.envelope, n.secretVersion = nil, 0
		return n, nil
	}
	if in.ClientID == "" && in.NoClient {
		if !in.ClientSecret.IsZero() {
			return nil, fault.New(fault.Invalid, "client_id_invalid", "A client secret belongs to a client id.")
		}
		n.envelope, n.secretVersion = nil, 0
		return n, nil
	}
	if in.ClientID == "" || len(in.ClientID) > 500 || strings.ContainsFunc(in.ClientID, unprintable) {
		return nil, fault.New(fault.Invalid, "client_id_invalid", "The id of the OAuth client is missing or not plain text.").
			WithHint("Register an OAuth client at the provider and give its client id.")
	}
	if rec.OAuth != nil && rec.OAuth.ClientAuth == "none" {
		if !in.ClientSecret.IsZero() {
			return nil, fault.New(fault.Invalid, "client_not_used", "client_auth is none, so there is no client secret.")
		}
		n.envelope, n.secretVersion = nil, 0
		return n, nil
	}
	return n, s.sealSecret(ctx, env, old, n, rec, in)
}

func (s *Store) sealSecret(ctx context.Context, env id.Environment, old, n *row, rec Record, in Input) error {
	if in.ClientSecret.IsZero() {
		if n.envelope == nil {
			return fault.New(fault.Invalid, "client_secret_missing", "The OAuth client's secret is missing.").
				WithHint("Give the client secret, or set client_auth: none.")
		}
		// Whoever may edit a record need not know the secret; they must not be
		// able to have it sent to a place of theirs.
		was, err := s.library.Parse(old.record)
		if err != nil || !sameClient(was, rec) || old.clientID != in.ClientID {
			return fault.New(fault.Invalid, "client_secret_missing", "The token or revocation URL or the client id changes, so the client secret is needed again.").
				WithHint("Give the client secret.")
		}
		return nil
	}
	n.secretVersion = n.version
	var err error
	n.envelope, err = s.cfg.Vault.Seal(ctx, secretPlace(env, n), in.ClientSecret)
	return err
}

// sameClient reports whether both records send the client secret to the same
// places.
func sameClient(was, now Record) bool {
	a, b := was.Pinned(), now.Pinned()
	return a.Token == b.Token && a.Longer == b.Longer && a.Revoke == b.Revoke && a.Refreshing() == b.Refreshing()
}

func secretPlace(env id.Environment, r *row) vault.Place {
	return vault.Place{Environment: env, Kind: "provider_client", Object: r.slug, Version: r.secretVersion, Provider: r.slug}
}

// keeps lists what this room has sealed.
func keeps() []vault.Sealed {
	return []vault.Sealed{
		{
			Table: "provider", Column: "client_secret", Key: []string{"environment_id", "slug"}, Fields: `s.environment_id, s.slug, s.client_secret_version`,
			Place: func(scan func(dest ...any) error) (vault.Place, error) {
				var env id.Environment
				var r row
				err := scan(&env, &r.slug, &r.secretVersion)
				return secretPlace(env, &r), err
			},
		},
		{
			Table: "provider_hook", Column: "envelope", Key: []string{"environment_id", "slug"}, Fields: `s.environment_id, s.slug, s.version`,
			Place: func(scan func(dest ...any) error) (vault.Place, error) {
				var env id.Environment
				var h hookRow
				err := scan(&env, &h.slug, &h.version)
				return h.place(env), err
			},
		},
		{
			Table: "provider_draft", Column: "client_secret", Key: []string{"id"}, Fields: `s.environment_id, s.user_id, s.id, s.slug`,
			Place: func(scan func(dest ...any) error) (vault.Place, error) {
				var env id.Environment
				var user id.User
				var r draftRow
				err := scan(&env, &user, &r.id, &r.slug)
				return draftPlace(env, user, r), err
			},
		},
	}
}

func moved() error {
	return fault.New(fault.Conflict, "version_conflict", "The provider was changed in the meantime.").WithHint("Read it again and repeat the change.")
}

// namesFree refuses a record whose tools would be named like those of another
// provider, present or past (threats.md U6).
func (s *Store) namesFree(ctx context.Context, tx *sqldb.Tx, env id.Environment, rec Record) error {
	rows, err := s.rows(ctx, tx, env)
	if err != nil {
		return err
	}
	if len(rows) >= maxProviders && !slices.ContainsFunc(rows, func(r row) bool { return r.slug == rec.ID }) {
		return fault.New(fault.TooLarge, "too_many_providers", "The environment has as many providers as it can.").WithHint("Replace one that is not used any more.")
	}
	others := make([]Record, 0, len(rows)+len(s.catalog.records))
	for _, k := range sortedKeys(s.catalog.records) {
		others = append(others, s.catalog.records[k])
	}
	for i := range rows {
		if rows[i].slug == rec.ID {
			continue
		}
		p, err := s.provider(&rows[i])
		if err != nil {
			return err
		}
		others = append(others, p.Record)
	}
	for _, other := range others {
		for _, t := range rec.tools {
			if slices.ContainsFunc(other.tools, func(o Tool) bool { return strings.EqualFold(o.Name, t.Name) }) {
				return fault.New(fault.Conflict, "tool_name_taken", "The provider "+other.ID+" has or had a tool named "+t.Name+" already.").
					WithHint("Rename the tool or the provider.")
			}
		}
	}
	return nil
}

func (s *Store) write(ctx context.Context, tx *sqldb.Tx, w account.Weighed, env id.Environment, r *row) error {
	if err := w.For(r.slug); err != nil {
		return err
	}
	if r.version == 1 {
		const query = `insert into provider (environment_id, slug, record, client_id, client_secret, client_secret_version, created_at, updated_at, deleted_at, version)
			values ($1, $2, $3, $4, $5, $6, $7, $7, 0, 1) on conflict (environment_id, slug) do nothing`
		return one(tx.ExecContext(ctx, query, env, r.slug, r.record, r.clientID, r.envelope, r.secretVersion, r.updatedAt))
	}
	const query = `update provider set record = $3, client_id = $4, client_secret = $5, client_secret_version = $6, updated_at = $7, deleted_at = 0, version = $8
		where environment_id = $1 and slug = $2 and version = $8 - 1`
	return one(tx.ExecContext(ctx, query, env, r.slug, r.record, r.clientID, r.envelope, r.secretVersion, r.updatedAt, r.version))
}

// one says that a change which met no row came too late.
func one(res sqldb.Result, err error) error {
	if err != nil {
		return sqldb.Wrap("write a provider", err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return moved()
	}
	return nil
}

// Delete removes a provider that has no live connections, and destroys its
// client secret. Its id can be used again; the names of its tools stay its own.
func (s *Store) Delete(ctx context.Context, by account.Actor, slug string) error {
	env := by.Environment()
	if err := by.May("", account.ManageProviders); err != nil {
		return err
	}
	if s.catalog.taken(slug) {
		return fault.New(fault.Denied, "provider_reserved", "A built-in provider cannot be removed.")
	}
	return s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		r, err := s.row(ctx, tx, env, slug)
		if err != nil {
			return err
		}
		if r == nil || r.deletedAt != 0 {
			return notFound()
		}
		n, err := s.cfg.InUse(ctx, tx, env, slug)
		if err != nil {
			return err
		}
		if n > 0 {
			return fault.New(fault.Conflict, "provider_in_use", "The provider has live connections.").WithHint("Disconnect them first.")
		}
		const query = `update provider set client_secret = null, client_secret_version = 0, deleted_at = $3, updated_at = $3, version = version + 1
			where environment_id = $1 and slug = $2 and version = $4`
		if err := one(tx.ExecContext(ctx, query, env, slug, sqldb.Micros(s.cfg.Now()), r.version)); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, dropHookSQL, env, slug); err != nil {
			return sqldb.Wrap("remove a signing secret", err)
		}
		s.audit(tx, by, "provider.removed", slug, nil, nil)
		return nil
	})
}

func (s *Store) audit(tx *sqldb.Tx, by account.Actor, action, slug string, evidence json.RawMessage, detail map[string]string) {
	s.cfg.Audit.AppendEvent(tx, audit.Entry{
		Environment: by.Environment(), Actor: by.Audit(), User: by.User(), Action: action, Object: slug, Provider: slug, Evidence: evidence, Detail: detail, Address: by.Address(),
	})
}

// Client is our OAuth client at a provider.
type Client struct {
	ID     string
	Secret secret.Value // zero when client_auth is none
}

// Client opens the OAuth client for use at the pinned places. When the record
// has moved to other places since, the secret is not for the old ones: the
// connection must be made anew.
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
	if r.clientID == "" {
		return Client{}, noClient()
	}
	c := Client{ID: r.clientID}
	if r.envelope != nil {
		c.Secret, err = s.cfg.Vault.Open(ctx, secretPlace(env, r), r.envelope)
	}
	return c, err
}

func changed() *fault.Error {
	return fault.New(fault.Conflict, "provider_changed", "The provider's endpoints have changed since this connection was made.").WithHint("Reconnect.")
}

func noClient() error {
	return fault.New(fault.Conflict, "no_client", "No OAuth client is configured for this provider.").
		WithHint("Register one at the provider and give its client id and secret.")
}
