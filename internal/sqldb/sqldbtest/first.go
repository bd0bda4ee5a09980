package sqldbtest

import (
	"context"
	"embed"
	"encoding/json"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// first holds, for each engine, a database as the binary of schema step 7 left
// it after an owner, an agent, a secret and some calls: tables, rows, the root
// key (of nothing else) and the checkpoint folder. It is never made anew: it is
// what upgrades must keep whole.
//
//go:embed first
var first embed.FS

// Recording is what goes with the rows that First loaded.
type Recording struct {
	Key         string // file of the root key
	Checkpoints string // folder
	Facts       Facts
}

// Facts are what was in the database.
type Facts struct {
	Environment string         `json:"environment"`
	User        string         `json:"user"`
	APIKey      string         `json:"api_key"`
	AgentToken  string         `json:"agent_token"`
	Login       string         `json:"login"`
	Session     string         `json:"session"` // handle of an active session
	Pending     string         `json:"pending"` // handle of one that waited for approval
	Secret      string         `json:"secret"`
	SecretValue string         `json:"secret_value"`
	Counts      map[string]int `json:"counts"` // rows of each table
}

// First loads the recorded database into the empty place that cfg names.
func First(t testing.TB, engine sqldb.Engine, cfg sqldb.Config) Recording {
	t.Helper()
	dir := path.Join("first", engine.String())
	read := func(name string) []byte {
		b, err := first.ReadFile(path.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	db, err := sqldb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("open the place of a recorded database: %v", err)
	}
	err = db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, string(read("schema.sql"))+string(read("rows.sql")))
		return err
	})
	if err != nil {
		t.Fatalf("load a recorded database: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	r := Recording{Key: filepath.Join(out, "root.key"), Checkpoints: filepath.Join(out, "checkpoints")}
	if err := json.Unmarshal(read("facts.json"), &r.Facts); err != nil {
		t.Fatal(err)
	}
	err = fs.WalkDir(first, dir, func(name string, e fs.DirEntry, err error) error {
		rel := strings.TrimPrefix(name, dir+"/")
		if err != nil || e.IsDir() || rel != "root.key" && !strings.HasPrefix(rel, "checkpoints/") {
			return err
		}
		to := filepath.Join(out, rel)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		return os.WriteFile(to, read(rel), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}
