package sqldb

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
)

// migrations holds one folder an engine; a step has the same number and name
// in both and leaves the same tables and columns behind.
//
//go:embed migrate
var migrations embed.FS

const migrateLimit = 10 * time.Minute

type step struct {
	version              int
	name, text, checksum string
}

func steps(engine Engine) ([]step, error) {
	dir := path.Join("migrate", engine.String())
	entries, err := fs.ReadDir(migrations, dir) // sorted by name
	if err != nil {
		return nil, err
	}
	var all []step
	for _, e := range entries {
		number, name, ok := strings.Cut(strings.TrimSuffix(e.Name(), ".sql"), "_")
		version, err := strconv.Atoi(number)
		if !ok || err != nil || version < 1 || len(all) > 0 && version <= all[len(all)-1].version {
			return nil, fmt.Errorf("migration %s/%s has no number of its own", dir, e.Name())
		}
		text, err := fs.ReadFile(migrations, path.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(text)
		all = append(all, step{version, name, string(text), hex.EncodeToString(sum[:])})
	}
	return all, nil
}

// Migrate brings the database to this binary's schema, each step in its own
// transaction. Any number of processes may call it at once. It refuses a
// database that a newer binary has migrated and one whose past steps differ
// from ours.
func (db *DB) Migrate(ctx context.Context) error {
	all, err := steps(db.engine)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if err := db.enter(); err != nil {
		return err
	}
	defer db.inflight.Done()
	for {
		var applied *step
		err := db.attempts(ctx, migrateLimit, func(ctx context.Context, tx *Tx) (err error) {
			applied, err = tx.migrateNext(ctx, all)
			return err
		})
		if err != nil {
			return Wrap("migrate the database", err)
		}
		if applied == nil {
			return nil
		}
		db.log.InfoContext(ctx, "database migrated", "version", applied.version, "name", applied.name)
	}
}

// migrateNext applies the first step that is missing, or none. Every look at
// the schema happens under a lock that all processes share: on SQLite the
// write transaction itself is one.
func (tx *Tx) migrateNext(ctx context.Context, all []step) (*step, error) {
	const (
		tableSQLite   = `create table if not exists schema_version (version integer primary key, name text not null, checksum text not null, applied_at integer not null) strict`
		tablePostgres = `create table if not exists schema_version (version bigint primary key, name text not null, checksum text not null, applied_at bigint not null)`
		record        = `insert into schema_version (version, name, checksum, applied_at) values ($1, $2, $3, $4)`
	)
	if err := tx.Serialize(ctx, "migrate"); err != nil {
		return nil, err
	}
	table := tableSQLite
	if tx.db.engine == PostgreSQL {
		table = tablePostgres
	}
	if _, err := tx.ExecContext(ctx, table); err != nil {
		return nil, err
	}
	have, err := checkApplied(ctx, tx, all)
	if err != nil || have == len(all) {
		return nil, err
	}
	next := all[have]
	tx.Named("migration", next.name)
	if _, err := tx.ExecContext(ctx, next.text); err != nil {
		return nil, fmt.Errorf("step %04d_%s: %w", next.version, next.name, err)
	}
	_, err = tx.ExecContext(ctx, record, next.version, next.name, next.checksum, Micros(tx.db.now()))
	return &next, err
}

// checkApplied counts the recorded steps, which must be the first of ours: a
// step that appears before one already applied is a change of history.
func checkApplied(ctx context.Context, q Querier, all []step) (int, error) {
	const query = `select version, name, checksum from schema_version order by version`
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	have := 0
	for rows.Next() {
		var s step
		if err := rows.Scan(&s.version, &s.name, &s.checksum); err != nil {
			return 0, err
		}
		switch last := all[len(all)-1].version; {
		case s.version > last:
			return 0, fault.New(fault.Conflict, "schema_newer",
				fmt.Sprintf("The database was migrated by a newer ambit (step %04d_%s; this binary knows up to %04d).", s.version, s.name, last)).
				WithHint("Start the newer binary, or restore the backup made before the upgrade.")
		case s.version != all[have].version || s.name != all[have].name || s.checksum != all[have].checksum:
			return 0, fault.New(fault.Conflict, "schema_differs",
				fmt.Sprintf("The database was migrated with another version of step %04d_%s.", s.version, s.name)).
				WithHint("Start the binary that made this database; a database of a development build must be made anew.")
		}
		have++
	}
	return have, rows.Err()
}
