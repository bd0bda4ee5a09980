package app_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

// F12: a database of the first schema, with everything in it, becomes this
// one's and loses nothing: rows, sealed values, keys, the audit and its
// checkpoints.
func TestUpgradeFromTheFirstSchema(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			cfg, rec := recorded(t, engine)
			a, err := app.New(t.Context(), cfg)
			must(t, err)
			defer a.Close()
			ctx, env := t.Context(), id.Environment(rec.Facts.Environment)
			if _, err := a.People.AuthenticateKey(ctx, secret.FromString(rec.Facts.APIKey)); err != nil {
				t.Errorf("the API key: %v", err)
			}
			_, value, err := a.Vault.Get(ctx, vault.Caller{Reach: vault.Everything(), Actor: audit.Actor{Kind: "system", ID: "test"}, Environment: env}, id.Secret(rec.Facts.Secret))
			if err != nil || string(value.Reveal()) != rec.Facts.SecretValue {
				t.Errorf("the secret: %v", err)
			}
			system := account.System("test").In(env)
			list, _, err := a.Sessions.List(ctx, system, session.Filter{})
			if err != nil || len(list) != rec.Facts.Counts["session"] {
				t.Errorf("%d sessions, %v, want %d", len(list), err, rec.Facts.Counts["session"])
			}
			owners, err := a.People.Owners(ctx, env)
			if err != nil || owners.WithPasskey != 1 {
				t.Errorf("owners %+v, %v", owners, err)
			}
			report, err := a.VerifyAudit(ctx, nil)
			if err != nil || !report.Intact() || report.Entries <= int64(rec.Facts.Counts["audit_entry"]) {
				t.Errorf("the audit: %+v, %v", report, err)
			}
			page, err := a.Audit.List(ctx, audit.Filter{Environment: env, Action: "tool.call", Decision: "allow"})
			if err != nil || len(page.Records) != 3 || page.Records[0].Outcome == nil || page.Records[0].Outcome.Status != "ok" {
				t.Errorf("the calls on record: %+v, %v", page.Records, err)
			}
		})
	}
}

// Row by row: an upgrade takes nothing away.
func TestUpgradeKeepsEveryRow(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			db := sqldbtest.Config(t, engine)
			rec := sqldbtest.First(t, engine, db)
			now := sqldbtest.OpenConfig(t, db) // migrates
			for table, want := range rec.Facts.Counts {
				var n int
				must(t, now.Reader().QueryRowContext(t.Context(), `select count(*) from `+table).Scan(&n))
				if n < want {
					t.Errorf("%s has %d rows, had %d", table, n, want)
				}
			}
		})
	}
}

// Issue 3 item 1: another root key is refused before anything is done, the
// migration too.
func TestAnotherRootKeyMigratesNothing(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			cfg, _ := recorded(t, engine)
			for code, key := range map[string]string{"root_key_mismatch": recordedKey(t, engine), "root_key_missing": filepath.Join(t.TempDir(), "none")} {
				with := cfg
				with.RootKey = key
				if _, err := app.New(t.Context(), with); !fault.Is(err, code) {
					t.Errorf("got %v, want %s", err, code)
				}
			}
			steps, err := app.Migrate(t.Context(), cfg, true)
			if err != nil || len(steps) == 0 || !strings.HasPrefix(steps[0].String(), "0008_") {
				t.Errorf("pending %v, %v, want everything from step 8 on", steps, err)
			}
		})
	}
}

// recorded gives the settings of a server on the recorded database.
func recorded(t *testing.T, engine sqldb.Engine) (app.Config, sqldbtest.Recording) {
	t.Helper()
	cfg := app.Config{DataDir: filepath.Join(t.TempDir(), "data"), DatabaseURL: databaseURL(t, engine), Listen: "localhost:0", PublicURL: "http://" + publicHost}
	db := sqldb.Config{URL: cfg.DatabaseURL}
	if engine == sqldb.SQLite {
		db.DataDir = cfg.DataDir
	}
	rec := sqldbtest.First(t, engine, db)
	cfg.RootKey, cfg.CheckpointDir = rec.Key, rec.Checkpoints
	return cfg, rec
}

// recordedKey is the root key of the other engine's recording.
func recordedKey(t *testing.T, engine sqldb.Engine) string {
	t.Helper()
	other := sqldb.SQLite
	if engine == sqldb.SQLite {
		other = sqldb.PostgreSQL
	}
	_, rec := recorded(t, other)
	return rec.Key
}
