package sqldb

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ambit-dev/ambit/internal/fault"
)

// migrations holds one folder an engine; a step has the same number and name
// in both and leaves the same tables and columns behind.
//
// While nodes are replaced one by one, a binary of the release before runs on a
// schema that the next one has migrated. So a step only adds: whatever the
// older binary reads and writes goes on to mean the same. A step that cannot
// keep to this begins with the line
//
//	-- oldest: 0012
//
// and says with it that a binary must know the step 0012 to run beside it. Such
// a step is not applied while a node lives that does not, and afterwards a
// binary that does not is refused. See docs/decisions/0007-several-nodes.md.
//
//go:embed migrate
var migrations embed.FS

const (
	migrateLimit = 10 * time.Minute
	oldestMark   = "-- oldest: "
	// lockPatience is how long a step waits for a table that a running call
	// uses. Whoever comes later waits behind it, so it gives way and comes back.
	lockPatience = 2 * time.Second
)

// Step is one migration.
type Step struct {
	Version int
	Name    string
	// Oldest is the last step that a binary must know to run beside this one;
	// 0 means any.
	Oldest int
	// Checksum is of its text, in hexadecimal.
	Checksum string
}

func (s Step) String() string { return fmt.Sprintf("%04d_%s", s.Version, s.Name) }

type step struct {
	Step
	text string
}

func steps(engine Engine) ([]step, error) {
	dir := path.Join("migrate", engine.String())
	entries, err := fs.ReadDir(migrations, dir) // sorted by name
	if err != nil {
		return nil, err
	}
	var all []step
	for _, e := range entries {
		text, err := fs.ReadFile(migrations, path.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		s, err := parseStep(e.Name(), string(text))
		if err != nil || len(all) > 0 && s.Version <= all[len(all)-1].Version {
			return nil, fmt.Errorf("migration %s/%s has no number of its own, or one out of order", dir, e.Name())
		}
		all = append(all, s)
	}
	return all, nil
}

func parseStep(file, text string) (step, error) {
	number, name, ok := strings.Cut(strings.TrimSuffix(file, ".sql"), "_")
	version, err := strconv.Atoi(number)
	if !ok || err != nil || version < 1 {
		return step{}, fmt.Errorf("%s has no number", file)
	}
	oldest := 0
	if line, marked := strings.CutPrefix(text, oldestMark); marked {
		line, _, _ = strings.Cut(line, "\n")
		if oldest, err = strconv.Atoi(strings.TrimSpace(line)); err != nil || oldest < 1 || oldest > version {
			return step{}, fmt.Errorf("%s names no step before it as the oldest", file)
		}
	}
	sum := sha256.Sum256([]byte(text))
	return step{Step{version, name, oldest, hex.EncodeToString(sum[:])}, text}, nil
}

// Migrate brings the database to this binary's schema, each step in its own
// transaction; nodes that serve meanwhile go on. Any number of processes may
// call it at once. It refuses a database that a newer binary has migrated beyond
// what this one can run beside, one whose past steps differ from ours, and a
// step that nodes which run now could not go on beside. A database that is up to
// date is only read, so that a server needs no right to change the schema.
func (db *DB) Migrate(ctx context.Context) error {
	all, err := steps(db.engine)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	return db.migrate(ctx, all)
}

func (db *DB) migrate(ctx context.Context, all []step) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.inflight.Done()
	if have, err := db.applied(ctx, all); err != nil || have == len(all) {
		return Wrap("look at the schema", err)
	}
	for end := time.Now().Add(migrateLimit); ; {
		var applied *step
		err := db.attempts(ctx, migrateLimit, false, func(ctx context.Context, tx *Tx) (err error) {
			applied, err = tx.migrateNext(ctx, all)
			return err
		})
		switch {
		case err != nil && classify(err) == classBusy && db.engine == PostgreSQL && time.Now().Before(end):
			db.log.InfoContext(ctx, "a migration waits for running calls", "error", err)
			select {
			case <-ctx.Done():
				return Wrap("migrate the database", err)
			case <-time.After(lockPatience / 4):
			}
		case err != nil:
			return Wrap("migrate the database", db.forbidden(err))
		case applied == nil:
			return nil
		default:
			db.log.InfoContext(ctx, "database migrated", "version", applied.Version, "name", applied.Name)
		}
	}
}

// forbidden says of a user that may not change the schema what to do: it is the
// wrong one, or looks in the wrong schema, or another role has to migrate.
func (db *DB) forbidden(err error) error {
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "42501" {
		return err
	}
	return fault.New(fault.Denied, "database_rights", "The user of the database may not change the schema "+db.schema+", which this program has to.").
		WithHint("If another role owns the tables, run ambit migrate with its URL first. If they are in another schema, set it for this user: alter role USER in database NAME set search_path = SCHEMA").WithCause(err)
}

// Pending lists the steps that Migrate would apply.
func (db *DB) Pending(ctx context.Context) ([]Step, error) {
	all, err := steps(db.engine)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	have, err := db.applied(ctx, all)
	if err != nil {
		return nil, Wrap("look at the schema", err)
	}
	return plainSteps(all[have:]), nil
}

// AllSteps lists all that this binary knows of an engine: what Migrate applies to a
// database that is new.
func AllSteps(engine Engine) ([]Step, error) {
	all, err := steps(engine)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return plainSteps(all), nil
}

func plainSteps(all []step) []Step {
	out := []Step{}
	for _, s := range all {
		out = append(out, s.Step)
	}
	return out
}

// HasTable reports whether the schema has a table of this name.
func (db *DB) HasTable(ctx context.Context, name string) (bool, error) {
	return hasTable(ctx, db.Reader(), db.engine, name)
}

func hasTable(ctx context.Context, q Querier, engine Engine, name string) (bool, error) {
	const (
		lite     = `select count(*) from sqlite_schema where type = 'table' and name = $1`
		postgres = `select count(*) from pg_tables where schemaname = current_schema() and tablename = $1`
	)
	query := lite
	if engine == PostgreSQL {
		query = postgres
	}
	var n int
	err := q.QueryRowContext(ctx, query, name).Scan(&n)
	return n > 0, Wrap("look for a table", err)
}

// applied counts those of our steps that the database has.
func (db *DB) applied(ctx context.Context, all []step) (int, error) {
	if known, err := db.HasTable(ctx, "schema_version"); err != nil || !known {
		return 0, err
	}
	return checkApplied(ctx, db.Reader(), db.engine, all)
}

// migrateNext applies the first step that is missing, or none. Every look at
// the schema happens under a lock that all processes share: on SQLite the
// write transaction itself is one.
func (tx *Tx) migrateNext(ctx context.Context, all []step) (*step, error) {
	const (
		tableSQLite   = `create table if not exists schema_version (version integer primary key, name text not null, checksum text not null, applied_at integer not null) strict`
		tablePostgres = `create table if not exists schema_version (version bigint primary key, name text not null, checksum text not null, applied_at bigint not null)`
		record        = `insert into schema_version (version, name, checksum, applied_at) values ($1, $2, $3, $4)`
		floor         = `insert into schema_floor (version, oldest) values ($1, $2)`
	)
	table := tableSQLite
	if err := tx.Serialize(ctx, migrateLock); err != nil {
		return nil, err
	}
	if tx.db.engine == PostgreSQL {
		table = tablePostgres
		if _, err := tx.ExecContext(ctx, fmt.Sprintf("set local lock_timeout = %d", lockPatience.Milliseconds())); err != nil {
			return nil, err
		}
	}
	if _, err := tx.ExecContext(ctx, table); err != nil {
		return nil, err
	}
	have, err := checkApplied(ctx, tx, tx.db.engine, all)
	if err != nil || have == len(all) {
		return nil, err
	}
	next := all[have]
	tx.Named("migration", next.Name)
	if next.Oldest > 0 {
		if err := tx.nobodyBefore(ctx, next.Step); err != nil {
			return nil, err
		}
	}
	if _, err := tx.ExecContext(ctx, next.text); err != nil {
		return nil, fmt.Errorf("step %s: %w", next.Step, err)
	}
	if next.Oldest > 0 {
		if _, err := tx.ExecContext(ctx, floor, next.Version, next.Oldest); err != nil {
			return nil, err
		}
	}
	_, err = tx.ExecContext(ctx, record, next.Version, next.Name, next.Checksum, Micros(tx.db.now()))
	return &next, err
}

// migrateLock is what migrations and nodes that join wait for each other on.
const migrateLock = "migrate"

// checkApplied counts those of our steps that are recorded. They must be the
// first of ours: a step that appears before one already applied is a change of
// history. Steps of a newer binary may follow them if this one can run beside.
func checkApplied(ctx context.Context, q Querier, engine Engine, all []step) (int, error) {
	const query = `select version, name, checksum from schema_version order by version`
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	have, last := 0, all[len(all)-1].Version
	var newer []Step
	for rows.Next() {
		var s step
		if err := rows.Scan(&s.Version, &s.Name, &s.Checksum); err != nil {
			return 0, err
		}
		switch {
		case s.Version > last:
			newer = append(newer, s.Step)
			continue
		case s.Version != all[have].Version || s.Name != all[have].Name || s.Checksum != all[have].Checksum:
			return 0, fault.New(fault.Conflict, "schema_differs",
				fmt.Sprintf("The database was migrated with another version of step %s.", s.Step)).
				WithHint("Start the binary that made this database; a database of a development build must be made anew.")
		}
		have++
	}
	if err := rows.Err(); err != nil || len(newer) == 0 {
		return have, err
	}
	rows.Close()
	return have, mayRunBeside(ctx, q, engine, newer, last)
}

// mayRunBeside reports whether a binary that knows the steps up to last may run
// on a database that has the steps newer too.
func mayRunBeside(ctx context.Context, q Querier, engine Engine, newer []Step, last int) error {
	const query = `select coalesce(max(oldest), 0) from schema_floor`
	var floor int
	kept, err := hasTable(ctx, q, engine, "schema_floor")
	if err == nil && kept {
		err = q.QueryRowContext(ctx, query).Scan(&floor)
	}
	if err != nil || kept && floor <= last {
		return err
	}
	return fault.New(fault.Conflict, "schema_newer",
		fmt.Sprintf("The database was migrated by a newer ambit (step %s), and this one (step %04d) cannot run on it.", newer[len(newer)-1], last)).
		WithHint("Start the newer binary, or restore the backup made before the upgrade.")
}
