// Package sqldbtest gives tests a migrated database of their own, on every
// engine the product runs on.
//
// SQLite lives in the test's temporary folder. PostgreSQL is named by
// AMBIT_TEST_DATABASE_URL; each test has a schema or a database of its own there,
// dropped at the end. Without the variable PostgreSQL tests are skipped, or fail when
// AMBIT_REQUIRE_POSTGRES=1.
package sqldbtest

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Engines are all engines, in the order in which Each runs them.
func Engines() []sqldb.Engine { return []sqldb.Engine{sqldb.SQLite, sqldb.PostgreSQL} }

// Each runs fn as parallel subtests named after the engines, each with an
// empty migrated database that is closed at the end.
func Each(t *testing.T, fn func(t *testing.T, db *sqldb.DB)) {
	t.Helper()
	for _, engine := range Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			fn(t, Open(t, engine))
		})
	}
}

// Open gives an empty migrated database that is closed at the end of t.
func Open(t testing.TB, engine sqldb.Engine) *sqldb.DB {
	t.Helper()
	return OpenConfig(t, Migrated(t, engine))
}

// OpenConfig opens and migrates cfg and closes it at the end of t. More than
// one handle on one PostgreSQL configuration stands for more than one node.
func OpenConfig(t testing.TB, cfg sqldb.Config) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("open the test database: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the test database: %v", err)
		}
	})
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatalf("migrate the test database: %v", err)
	}
	return db
}

// Config names a fresh place for a database: a folder not yet made, or a
// schema that is dropped at the end of t.
func Config(t testing.TB, engine sqldb.Engine) sqldb.Config {
	t.Helper()
	if engine == sqldb.SQLite {
		return sqldb.Config{DataDir: filepath.Join(t.TempDir(), "data")}
	}
	at := server(t)
	schema := fresh()
	admin(t, at, "create schema "+schema)
	t.Cleanup(func() { admin(t, at, "drop schema "+schema+" cascade") })
	return sqldb.Config{URL: at, Schema: schema, Connections: connections}
}

// connections are as many as a node of a test needs.
const connections = 8

func fresh() string { return "t_" + strings.ToLower(rand.Text()) }

// server is PostgreSQL's.
func server(t testing.TB) string {
	t.Helper()
	at := os.Getenv("AMBIT_TEST_DATABASE_URL")
	if at == "" {
		const why = "AMBIT_TEST_DATABASE_URL is not set"
		if os.Getenv("AMBIT_REQUIRE_POSTGRES") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	return at
}

// URL names PostgreSQL's place of cfg for those who get nothing but a URL.
func URL(t testing.TB, cfg sqldb.Config) string {
	t.Helper()
	u, err := url.Parse(cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("search_path", cfg.Schema)
	u.RawQuery = q.Encode()
	return u.String()
}

// Drop removes a role that a test made, with its rights in the test's schema.
func Drop(t testing.TB, cfg sqldb.Config, role string) {
	t.Helper()
	for _, statement := range []string{"drop owned by " + role, "drop role " + role} {
		admin(t, cfg.URL, statement)
	}
}

func admin(t testing.TB, server, statement string) {
	t.Helper()
	if err := run(context.Background(), server, statement); err != nil { // t.Context has ended when cleanups run
		t.Fatalf("%s: %v", statement, err)
	}
}
