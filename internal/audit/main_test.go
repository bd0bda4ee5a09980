package audit_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Stop leaves no goroutine behind.
func TestMain(m *testing.M) {
	if doc := os.Getenv(dying); doc != "" {
		beKilled(doc)
		return
	}
	goleak.VerifyTestMain(m)
}

// world is a database with its root key and its folder of checkpoints.
type world struct {
	db     *sqldb.DB
	keeper *keyring.Guard
	dir    string
	env    id.Environment
}

func newWorld(t testing.TB, db *sqldb.DB) world {
	t.Helper()
	keeper := keyringtest.File(t, filepath.Join(t.TempDir(), "root.key"))
	return world{db, keeper, filepath.Join(t.TempDir(), "checkpoints"), id.NewEnvironment()}
}

// start runs a log that writes a checkpoint at its end only.
func (w world) start(t testing.TB) *audit.Log {
	t.Helper()
	return w.startOn(t, w.db)
}

func (w world) startOn(t testing.TB, db *sqldb.DB) *audit.Log {
	t.Helper()
	l, err := audit.New(t.Context(), audit.Config{DB: db, Keeper: w.keeper, CheckpointDir: w.dir, Node: "node", Every: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	l.Start()
	t.Cleanup(l.Stop)
	return l
}

func (w world) verify(t testing.TB) audit.Report {
	t.Helper()
	r, err := audit.Verify(t.Context(), audit.VerifyConfig{DB: w.db, Keeper: w.keeper, Checkpoints: []string{w.dir}})
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	return r
}

func (w world) wantIntact(t testing.TB) audit.Report {
	t.Helper()
	r := w.verify(t)
	if !r.Intact() {
		t.Errorf("verify found %+v, want nothing", r.Problems)
	}
	return r
}

// entry is a call by an agent, with every field set.
func (w world) entry(action string) audit.Entry {
	agent, user := id.NewAgent(), id.NewUser()
	return audit.Entry{
		Environment: w.env, Organization: id.NewOrganization(), Actor: audit.Actor{Kind: "agent", ID: string(agent)}, Agent: agent, User: user,
		Session: id.NewSession(), Approval: id.NewApproval(), Connection: id.NewConnection(), Action: action, Object: "sandbox_list_issues",
		Provider: "sandbox", Tool: "sandbox_list_issues", Effect: "read", ArgumentDigest: "00ff", Decision: "allow", Rule: "grant", Code: "ok",
		Evidence: []byte(`{"method":"passkey"}`), Detail: map[string]string{"k": "v"}, Address: "192.0.2.1",
	}
}

func (w world) record(t testing.TB, l *audit.Log, n int) {
	t.Helper()
	for range n {
		if err := l.Record(t.Context(), w.entry("session.requested")); err != nil {
			t.Errorf("record: %v", err) // also called from other goroutines
		}
	}
}

func exec(t testing.TB, db *sqldb.DB, statements ...string) {
	t.Helper()
	err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
		for _, s := range statements {
			if _, err := tx.ExecContext(ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%q: %v", statements, err)
	}
}

func scan[T any](t testing.TB, db *sqldb.DB, query string, args ...any) (v T) {
	t.Helper()
	if err := db.Reader().QueryRowContext(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func each(t *testing.T, fn func(t *testing.T, w world)) {
	t.Helper()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) { fn(t, newWorld(t, db)) })
}
