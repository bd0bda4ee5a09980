package provider

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"maps"
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
	ClientID        string // of the environment's OAuth client at the provider
	HasClientSecret bool
	For             Audience  // who is signed in with it
	OldSecretUntil  time.Time // until when a secret that was replaced counts as well; zero: there is none
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

	// Whose client it is; empty: the environment's own, and then For says who is
	// signed in with it. Of an organization's own client nothing else is stored.
	Organization id.Organization
	For          Audience       // empty: as it was, and at first the operator's organization
	AcceptShared bool           // the operator knows [SharedClientRisk]; only with ForAll
	Overlap      *time.Duration // how long a secret that is replaced counts as well; nil: [DefaultOverlap]

	// Also runs in the transaction that stores the provider; nil: nothing.
	Also func(ctx context.Context, tx *sqldb.Tx, p Provider) error
}

// row is a stored provider.
type row struct {
	slug      string
	record    []byte
	client    sealedClient
	clientFor string // as stored; see Audience
	updatedAt int64
	deletedAt int64
	version   int64
}

const columns = `slug, record, ` + clientColumns + `, client_for, updated_at, deleted_at, version`

func (r *row) scan(scan func(...any) error) error {
	return scan(append(append([]any{&r.slug, &r.record}, r.client.columns()...), &r.clientFor, &r.updatedAt, &r.deletedAt, &r.version)...)
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
	return Provider{Record: rec, ClientID: r.client.id, HasClientSecret: r.client.envelope != nil, For: audienceOf(r.clientFor), OldSecretUntil: r.client.until(s.cfg.Now()),
		Version: r.version, UpdatedAt: sqldb.Time(r.updatedAt)}, err
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
	if in.Organization != "" {
		return s.putOwn(ctx, by, in, ag, also)
	}
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
		detail := map[string]string{"record_digest": r.To}
		if next.client.id != "" {
			maps.Copy(detail, s.clientDetail(next.client, r.Facts))
			detail["client_for"] = r.Facts["client_for"]
		}
		s.audit(tx, by, r.Action, rec.ID, w.Evidence(), detail)
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
	r := account.Raise{Action: "provider.created", Environment: env, Object: rec.ID, To: hex.EncodeToString(digest[:]), Facts: map[string]string{"client_id": next.client.id}}
	if next.client.id != "" {
		r.Facts["client_for"] = string(audienceOf(next.clientFor))
	}
	if old != nil {
		r.Version, r.Action = old.version, "provider.updated"
	}
	if next.client.envelope != nil && next.client.version == next.version {
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
	n := &row{slug: rec.ID, record: in.YAML, version: 1, updatedAt: sqldb.Micros(s.cfg.Now())}
	was, fresh := sealedClient{}, true
	if old != nil {
		n.version = old.version + 1
		if in.IfVersion != 0 && (in.IfVersion != old.version || old.deletedAt != 0) {
			return nil, moved()
		}
		if in.New && old.deletedAt == 0 {
			return nil, fault.New(fault.Conflict, "provider_exists", "There is a provider "+rec.ID+" already.").WithHint("Choose another id.")
		}
		if old.deletedAt == 0 {
			was, n.clientFor, fresh = old.client, old.clientFor, old.client.id == ""
		}
	} else if in.IfVersion != 0 {
		return nil, moved()
	}
	if rec.NeedsClient() && in.ClientID == "" && in.NoClient {
		if !in.ClientSecret.IsZero() {
			return nil, fault.New(fault.Invalid, "client_id_invalid", "A client secret belongs to a client id.")
		}
		return n, nil
	}
	// Whoever may edit a record need not know the secret; they must not be able to
	// have it sent to a place of theirs.
	if was.envelope != nil {
		before, err := s.library.Parse(old.record)
		if err != nil || !sameClient(before, rec) {
			was = sealedClient{}
		}
	}
	var err error
	if n.client, err = s.nextClient(ctx, secretPlace(env, "", rec.ID, n.version), was, rec, in); err != nil || n.client.id == "" {
		return n, err
	}
	n.clientFor, err = s.audience(ctx, env, n.clientFor, fresh, in)
	return n, err
}

// sameClient reports whether both records send the client secret to the same
// places.
func sameClient(was, now Record) bool { return placesOf(was) == placesOf(now) }

// keeps lists what this room has sealed.
func keeps() []vault.Sealed {
	return append(clientsKept(), []vault.Sealed{
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
	}...)
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
		const query = `insert into provider (environment_id, slug, record, ` + clientColumns + `, client_for, created_at, updated_at, deleted_at, version)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, 0, 1) on conflict (environment_id, slug) do nothing`
		return one(tx.ExecContext(ctx, query, append(append([]any{env, r.slug, r.record}, r.client.stored()...), r.clientFor, r.updatedAt)...))
	}
	const query = `update provider set record = $3, ` + clientSet + `, client_for = $10, updated_at = $11, deleted_at = 0, version = $12
		where environment_id = $1 and slug = $2 and version = $12 - 1`
	return one(tx.ExecContext(ctx, query, append(append([]any{env, r.slug, r.record}, r.client.stored()...), r.clientFor, r.updatedAt, r.version)...))
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
		const query = `update provider set client_secret = null, client_secret_version = 0, old_client_secret = null, old_client_secret_version = 0, old_client_secret_until = 0, deleted_at = $3, updated_at = $3, version = version + 1
			where environment_id = $1 and slug = $2 and version = $4`
		if err := one(tx.ExecContext(ctx, query, env, slug, sqldb.Micros(s.cfg.Now()), r.version)); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, dropHookSQL, env, slug); err != nil {
			return sqldb.Wrap("remove a signing secret", err)
		}
		if _, err := tx.ExecContext(ctx, dropClientsSQL, env, slug); err != nil {
			return sqldb.Wrap("remove the clients of organizations", err)
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
