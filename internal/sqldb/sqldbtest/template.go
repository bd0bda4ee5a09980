package sqldbtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Migrated names a fresh place whose schema is this binary's already: a copy of a
// template, which takes a fraction of the time that all migrations take. On PostgreSQL it
// is a database of its own.
//
// A process makes the template of SQLite once. That of PostgreSQL is a database named
// ambit_template_ and what its steps hash to; it stays on the server for the next process.
func Migrated(t testing.TB, engine sqldb.Engine) sqldb.Config {
	t.Helper()
	if engine == sqldb.SQLite {
		cfg := Config(t, engine)
		if err := MigratedFolder(cfg.DataDir); err != nil {
			t.Fatalf("copy the migrated database: %v", err)
		}
		return cfg
	}
	at, name := server(t), fresh()
	if err := fromTemplate(t.Context(), at, name); err != nil {
		t.Fatalf("copy the migrated database: %v", err)
	}
	t.Cleanup(func() { admin(t, at, "drop database "+name+" with (force)") })
	return sqldb.Config{URL: inDatabase(at, name), Schema: "public", Connections: connections}
}

// fileTemplate is a migrated SQLite database that nobody has open.
var fileTemplate = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "ambit-template")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cfg := sqldb.Config{DataDir: filepath.Join(dir, "data")}
	if err := migrate(context.Background(), cfg); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(cfg.DataDir, databaseFile))
})

const databaseFile = "ambit.db"

// MigratedFolder makes a data folder, which is not there yet, with such a copy for SQLite.
func MigratedFolder(dir string) error {
	template, err := fileTemplate()
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, databaseFile), template, 0o600)
}

func migrate(ctx context.Context, cfg sqldb.Config) error {
	db, err := sqldb.Open(ctx, cfg)
	if err != nil {
		return err
	}
	return errors.Join(db.Migrate(ctx), db.Close())
}

// fromTemplate makes the database name a copy of the template, which it makes
// where there is none, or one that somebody did not finish.
func fromTemplate(ctx context.Context, server, name string) error {
	template, err := templateName()
	if err != nil {
		return err
	}
	create := "create database " + name + " template " + template
	if err = run(ctx, server, create); err == nil || !isCode(err, "3D000") {
		return err
	}
	// Under a lock of the server, which ends with the connection: one of all processes
	// makes it, and takes its name last.
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "select pg_advisory_lock(hashtext($1))", template); err != nil {
		return err
	}
	var there bool
	if err := conn.QueryRow(ctx, "select exists (select from pg_database where datname = $1)", template).Scan(&there); err != nil {
		return err
	}
	if !there {
		making := template + "_making"
		if _, err := conn.Exec(ctx, "drop database if exists "+making+" with (force)"); err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, "create database "+making); err != nil {
			return err
		}
		if err := migrate(ctx, sqldb.Config{URL: inDatabase(server, making), Connections: 2}); err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, "alter database "+making+" rename to "+template); err != nil {
			return err
		}
	}
	_, err = conn.Exec(ctx, create)
	return err
}

// templateName names the template of this binary's steps.
var templateName = sync.OnceValues(func() (string, error) {
	steps, err := sqldb.AllSteps(sqldb.PostgreSQL)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, s := range steps {
		fmt.Fprintln(sum, s, s.Checksum)
	}
	return "ambit_template_" + hex.EncodeToString(sum.Sum(nil)[:8]), nil
})

func run(ctx context.Context, server, statement string) error {
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	return err
}

func isCode(err error, code string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == code
}

// inDatabase is the address of another database of a server.
func inDatabase(server, name string) string {
	u, err := url.Parse(server)
	if err != nil {
		panic(err) // Config has used it
	}
	u.Path = "/" + name
	return u.String()
}
