package sqldb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Inspection is what [Inspect] saw of a database: facts, without a judgement.
type Inspection struct {
	Engine  Engine
	Version string // of the engine, such as 15.6
	Number  int    // PostgreSQL: the same as one number, 150006

	Applied, Known int   // migrations that the database has, and that this binary knows
	Schema         error // why this binary cannot use the schema; nil: it can, once what is missing is applied
	Leases         []HeldLease
	Damage         string // SQLite: what its own check found; empty is nothing

	Postgres *Postgres // nil on SQLite
}

// HeldLease is a row of the table of leases.
type HeldLease struct {
	Name  string
	Until time.Time
	Over  bool // by the database's clock: its holder went without giving it back
}

// Postgres is what only PostgreSQL has.
type Postgres struct {
	Database, User, Namespace string
	RoundTrip                 time.Duration
	Skew                      time.Duration // how far our clock is ahead of the database's
	Settings                  map[string]string
	Standby                   bool // read-only: a replica that was not promoted
	Standbys                  int  // replicas of it
	Encrypted, Verified       bool // the connection; verified: the server's certificate is checked
	Local                     bool // the connection does not leave the machine

	CanCreate bool     // tables, which migrations do
	Superuser bool     // may do anything, which nothing here needs
	Lacking   []string // tables that our user cannot read and write
	Foreign   []string // tables that it can, and does not own
	Own       int      // tables that it owns
	Hears     error    // why a notice did not arrive; nil: it did

	Limit, Reserved int // most connections, and how many of them are for superusers
	Others, Ours    int // connections now: of others, and of ambit
	Pool            int // connections that each node may take
}

// Serves reports that our user reads and writes the tables of another and changes
// none, as where one role migrates and one serves.
func (p *Postgres) Serves() bool {
	return !p.CanCreate && p.Own == 0 && len(p.Foreign) > 0 && len(p.Lacking) == 0
}

// settings are those whose value says whether what is acknowledged is kept, and
// those that get in our way.
var settings = []string{"fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names", "data_checksums", "server_encoding",
	"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "default_transaction_isolation", "default_transaction_read_only"}

// Inspect looks at a database without changing it: nothing is migrated, and a
// SQLite database that does not exist is fs.ErrNotExist. A folder that a server
// uses gives the fault data_folder_locked. It checks no setting: it is for
// telling what is wrong with a database that [Open] would refuse.
func Inspect(ctx context.Context, cfg Config) (Inspection, error) {
	if cfg.URL != "" {
		return inspectPostgres(ctx, cfg)
	}
	path := filepath.Join(cfg.DataDir, "ambit.db")
	if _, err := os.Stat(path); err != nil {
		return Inspection{}, fmt.Errorf("look for the database: %w", err)
	}
	db, err := Open(ctx, cfg)
	if err != nil {
		return Inspection{}, err
	}
	found, err := db.inspectSQLite(ctx)
	return found, errors.Join(err, db.Close())
}

func (db *DB) inspectSQLite(ctx context.Context) (Inspection, error) {
	const (
		version = `select sqlite_version()`
		whole   = `pragma quick_check(1)`
	)
	found := Inspection{Engine: SQLite}
	for query, into := range map[string]*string{version: &found.Version, whole: &found.Damage} {
		if err := db.Reader().QueryRowContext(ctx, query).Scan(into); err != nil {
			return found, Wrap("inspect the database", err)
		}
	}
	if found.Damage == "ok" {
		found.Damage = ""
	}
	return found, found.tables(ctx, db.Reader(), SQLite, Micros(db.now()))
}

// tables reads our own two tables, where they are there.
func (i *Inspection) tables(ctx context.Context, q Querier, engine Engine, now int64) error {
	const (
		thereSQLite   = `select count(*) from sqlite_master where name in ('schema_version', 'lease')`
		therePostgres = `select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = current_schema() and c.relname in ('schema_version', 'lease')`
		leases        = `select name, until from lease order by name limit 100`
	)
	all, err := steps(engine)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	i.Known = len(all)
	there, n := thereSQLite, 0
	if engine == PostgreSQL {
		there = therePostgres
	}
	if err := q.QueryRowContext(ctx, there).Scan(&n); err != nil || n < 2 {
		return Wrap("inspect the database", err)
	}
	if i.Applied, err = checkApplied(ctx, q, engine, all); err != nil {
		if _, ok := errors.AsType[*fault.Error](err); !ok {
			return Wrap("inspect the schema", err)
		}
		i.Schema = err
	}
	rows, err := q.QueryContext(ctx, leases)
	if err != nil {
		return Wrap("inspect the leases", err)
	}
	defer rows.Close()
	for rows.Next() {
		var l HeldLease
		var until int64
		if err := rows.Scan(&l.Name, &until); err != nil {
			return Wrap("inspect the leases", err)
		}
		l.Until, l.Over = Time(until), until <= now
		i.Leases = append(i.Leases, l)
	}
	return Wrap("inspect the leases", rows.Err())
}

func inspectPostgres(ctx context.Context, cfg Config) (Inspection, error) {
	config, err := postgresConfig(cfg)
	if err != nil {
		return Inspection{}, err
	}
	db := &DB{engine: PostgreSQL}
	pool, err := db.openPool(ctx, cfg.URL, config, 1)
	if err != nil {
		return Inspection{}, err
	}
	db.store = pool
	defer pool.close()
	q := db.Reader()
	found := Inspection{Engine: PostgreSQL, Postgres: &Postgres{
		Settings: map[string]string{}, Pool: poolSize(cfg),
		Encrypted: config.TLSConfig != nil, Verified: config.TLSConfig != nil && !config.TLSConfig.InsecureSkipVerify, Local: isLocal(config.Host),
	}}
	p := found.Postgres
	for _, look := range []func(context.Context, Querier) error{found.server, p.settings, p.connections, p.rights} {
		if err := look(ctx, q); err != nil {
			return found, cannotConnect(config, "inspect the database", err)
		}
	}
	now, err := p.clock(ctx, q)
	if err == nil {
		err = found.tables(ctx, q, PostgreSQL, now)
	}
	if err != nil {
		return found, Wrap("inspect the database", err)
	}
	p.Hears = hears(ctx, config, q, pgChannel(p.Namespace))
	return found, nil
}

func (i *Inspection) server(ctx context.Context, q Querier) error {
	const query = `
select current_setting('server_version'), current_setting('server_version_num'), current_database(), current_user, coalesce(current_schema(), ''),
	pg_is_in_recovery(), (select count(*) from pg_stat_replication)`
	p := i.Postgres
	var number string
	if err := q.QueryRowContext(ctx, query).Scan(&i.Version, &number, &p.Database, &p.User, &p.Namespace, &p.Standby, &p.Standbys); err != nil {
		return err
	}
	var err error
	i.Number, err = strconv.Atoi(number)
	return err
}

func (p *Postgres) settings(ctx context.Context, q Querier) error {
	const query = `select coalesce(current_setting($1, true), '')`
	for _, name := range settings {
		var value string
		if err := q.QueryRowContext(ctx, query, name).Scan(&value); err != nil {
			return err
		}
		p.Settings[name] = value
	}
	return nil
}

func (p *Postgres) connections(ctx context.Context, q Querier) error {
	const query = `
select least(current_setting('max_connections')::int,
		(select case when datconnlimit < 0 then 1000000 else datconnlimit end from pg_database where datname = current_database()),
		(select case when rolconnlimit < 0 then 1000000 else rolconnlimit end from pg_roles where rolname = current_user)),
	current_setting('superuser_reserved_connections')::int,
	count(*) filter (where application_name <> $1), count(*) filter (where application_name = $1 and pid <> pg_backend_pid())
from pg_stat_activity where datid is not null`
	return q.QueryRowContext(ctx, query, applicationName).Scan(&p.Limit, &p.Reserved, &p.Others, &p.Ours)
}

func (p *Postgres) rights(ctx context.Context, q Querier) error {
	const (
		mine = `
select coalesce(has_schema_privilege(current_schema(), 'create'), false), (select rolsuper from pg_roles where rolname = current_user)`
		tables = `
select c.relname, has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'insert')
	and has_table_privilege(c.oid, 'update') and has_table_privilege(c.oid, 'delete'), pg_has_role(c.relowner, 'usage')
from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = current_schema() and c.relkind in ('r', 'p') order by c.relname`
	)
	if err := q.QueryRowContext(ctx, mine).Scan(&p.CanCreate, &p.Superuser); err != nil {
		return err
	}
	rows, err := q.QueryContext(ctx, tables)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var table string
		var uses, owns bool
		if err := rows.Scan(&table, &uses, &owns); err != nil {
			return err
		}
		switch {
		case !uses:
			p.Lacking = append(p.Lacking, table)
		case !owns:
			p.Foreign = append(p.Foreign, table)
		default:
			p.Own++
		}
	}
	return rows.Err()
}

// clock compares clocks over the quickest of three round trips.
func (p *Postgres) clock(ctx context.Context, q Querier) (now int64, err error) {
	for range 3 {
		sent := time.Now()
		if err := q.QueryRowContext(ctx, databaseClock).Scan(&now); err != nil {
			return 0, err
		}
		took := time.Since(sent)
		if p.RoundTrip == 0 || took < p.RoundTrip {
			p.RoundTrip, p.Skew = took, sent.Add(took/2).Sub(Time(now))
		}
	}
	return now, nil
}

// hears sends a notice from one connection to another, on a channel beside that
// of the running nodes.
func hears(ctx context.Context, config *pgx.ConnConfig, q Querier, channel string) error {
	const notify = `select pg_notify($1, 'hello')`
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	channel += "_check"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return Wrap("connect to listen", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "listen "+channel); err != nil {
		return Wrap("listen", err)
	}
	var void any
	if err := q.QueryRowContext(ctx, notify, channel).Scan(&void); err != nil {
		return Wrap("notify", err)
	}
	if _, err := conn.WaitForNotification(ctx); err != nil {
		return Wrap("wait for a notice", err)
	}
	return nil
}

// Missing reports whether err says that there is no database yet.
func Missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
