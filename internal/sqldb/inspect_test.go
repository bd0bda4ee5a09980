package sqldb_test

import (
	"context"
	"crypto/rand"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// A look changes nothing, and sees what is there.
func TestInspect(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			cfg := sqldbtest.Config(t, engine)
			before, err := sqldb.Inspect(t.Context(), cfg)
			if engine == sqldb.SQLite && !sqldb.Missing(err) {
				t.Fatalf("a folder that is not there: got %v, want that it is missing", err)
			}
			if engine == sqldb.PostgreSQL && (err != nil || before.Applied != 0 || before.Known == 0 || !before.Postgres.CanCreate) {
				t.Fatalf("an empty schema: got %+v, %v", before, err)
			}
			db, err := sqldb.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			for name, ttl := range map[string]time.Duration{"running": time.Hour, "left": 0} {
				if _, ok, err := db.Acquire(t.Context(), name, ttl); !ok || err != nil {
					t.Fatalf("acquire %s: %v, %v", name, ok, err)
				}
			}
			if _, err := sqldb.Inspect(t.Context(), cfg); engine == sqldb.SQLite && !fault.Is(err, "data_folder_locked") {
				t.Errorf("beside a server: got %v, want data_folder_locked", err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			got, err := sqldb.Inspect(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if got.Engine != engine || got.Version == "" || got.Applied != got.Known || got.Schema != nil || got.Damage != "" {
				t.Errorf("got %+v", got)
			}
			if l := got.Leases; len(l) != 2 || l[0].Name != "left" || !l[0].Over || l[1].Name != "running" || l[1].Over {
				t.Errorf("got leases %+v, want one that is over and one that runs", l)
			}
			if engine == sqldb.SQLite {
				return
			}
			p := got.Postgres
			if p.Hears != nil || p.Standby || !p.CanCreate || len(p.Lacking) > 0 || p.Namespace != cfg.Schema || p.Limit <= p.Reserved || p.Pool != cfg.Connections ||
				p.RoundTrip <= 0 || p.Skew.Abs() > time.Minute || p.Settings["server_encoding"] != "UTF8" || got.Number < 100000 {
				t.Errorf("got %+v", p)
			}
		})
	}
}

// A database that a newer binary has migrated is told, not refused.
func TestInspectNewerSchema(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			cfg := sqldbtest.Config(t, engine)
			db, err := sqldb.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
				if _, err := tx.ExecContext(ctx, `insert into schema_version (version, name, checksum, applied_at) values (9999, 'later', 'x', 0)`); err != nil {
					return err
				}
				_, err := tx.ExecContext(ctx, `insert into schema_floor (version, oldest) values (9999, 9999)`)
				return err
			})
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if got, err := sqldb.Inspect(t.Context(), cfg); err != nil || !fault.Is(got.Schema, "schema_newer") {
				t.Errorf("got %v, %v, want schema_newer", got.Schema, err)
			}
		})
	}
}

// What Open refuses or only feels later, a look names: a user without rights,
// acknowledgement before a commit is durable, a server that passes no notices on.
func TestInspectBadPostgres(t *testing.T) {
	t.Parallel()
	cfg := sqldbtest.Config(t, sqldb.PostgreSQL)
	db := sqldbtest.OpenConfig(t, cfg)
	role := "r_" + strings.ToLower(rand.Text())
	run := func(statement string) {
		t.Helper()
		update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := tx.ExecContext(ctx, statement)
			return err
		})
	}
	for _, statement := range []string{
		"create role " + role + " login connection limit 9",
		"alter role " + role + " set synchronous_commit = off",
		"grant usage on schema " + cfg.Schema + " to " + role,
		"grant select, insert, update, delete on all tables in schema " + cfg.Schema + " to " + role,
		"revoke delete on lease from " + role,
	} {
		run(statement)
	}
	as := cfg
	t.Cleanup(func() { sqldbtest.Drop(t, as, role) })
	u, err := url.Parse(cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(role)
	cfg.URL = u.String()
	deaf, proxy := sqldbtest.Through(t, cfg)
	proxy.FreezeNotices()
	got, err := sqldb.Inspect(t.Context(), deaf)
	if err != nil {
		t.Fatal(err)
	}
	p := got.Postgres
	if p.Hears == nil || p.Settings["synchronous_commit"] != "off" || p.CanCreate || p.Superuser || p.Limit != 9 || !slices.Contains(p.Lacking, "lease") || p.User != role {
		t.Errorf("got %+v", p)
	}
	proxy.Thaw()
	if got, err := sqldb.Inspect(t.Context(), deaf); err != nil || got.Postgres.Hears != nil {
		t.Errorf("got %v, %v, want that it hears again", got.Postgres.Hears, err)
	}
	gone := cfg
	gone.URL = "postgres://nobody@127.0.0.1:1/none?sslmode=disable"
	if _, err := sqldb.Inspect(t.Context(), gone); !fault.Is(err, "database_unavailable") {
		t.Errorf("got %v, want database_unavailable", err)
	}
}

// A bug: with one role that migrates and one that serves, as docs/operations.md has
// it, the doctor was red for ever, and a server whose search_path was not set ended
// with an error that nobody had written.
func TestTwoRoles(t *testing.T) {
	t.Parallel()
	cfg := sqldbtest.Config(t, sqldb.PostgreSQL)
	empty := sqldbtest.Config(t, sqldb.PostgreSQL) // where a wrong search_path leads
	db := sqldbtest.OpenConfig(t, cfg)
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	role := "r_" + strings.ToLower(rand.Text())
	for _, statement := range []string{
		"create role " + role + " login", "grant usage on schema " + cfg.Schema + ", " + empty.Schema + " to " + role,
		"grant select, insert, update, delete on all tables in schema " + cfg.Schema + " to " + role,
	} {
		update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := tx.ExecContext(ctx, statement)
			return err
		})
	}
	t.Cleanup(func() { sqldbtest.Drop(t, cfg, role) })
	serving := func(cfg sqldb.Config) sqldb.Config {
		u, err := url.Parse(cfg.URL)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.User(role)
		cfg.URL = u.String()
		return cfg
	}
	got, err := sqldb.Inspect(t.Context(), serving(cfg))
	if err != nil || !got.Postgres.Serves() {
		t.Errorf("a role that serves: %+v, %v", got.Postgres, err)
	}
	if err := sqldbtest.OpenConfig(t, serving(cfg)).Migrate(t.Context()); err != nil {
		t.Errorf("a role that serves, with nothing to migrate: %v", err)
	}
	elsewhere, err := sqldb.Open(t.Context(), serving(empty))
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	err = elsewhere.Migrate(t.Context())
	if f := fault.Of(err); f == nil || f.Code != "database_rights" || f.Kind != fault.Denied || !strings.Contains(f.Hint, "search_path") || !strings.Contains(f.Hint, "ambit migrate") {
		t.Errorf("a role that looks in another schema: %v", err)
	}
}
