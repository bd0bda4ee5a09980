package vault_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

func TestMain(m *testing.M) {
	if doc := os.Getenv(killPlace); doc != "" {
		if err := killChild(doc); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if dir := failpointsDir.Load(); dir != nil {
			_ = os.RemoveAll(*dir)
		}
		os.Exit(code)
	}))
}

func newKeeper(t *testing.T) *keyring.Guard {
	t.Helper()
	return keyringtest.File(t, filepath.Join(t.TempDir(), "root.key"))
}

// node is what one server process holds.
type node struct {
	*vault.Vault
	db     *sqldb.DB
	log    *audit.Log
	keeper *keyring.Guard
}

func newNode(t *testing.T, db *sqldb.DB, keeper *keyring.Guard) node {
	t.Helper()
	log, err := audit.New(t.Context(), audit.Config{DB: db, Keeper: keeper, CheckpointDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return node{vault.New(vault.Config{DB: db, Keeper: keeper, Audit: log}), db, log, keeper}
}

// restarted is the same node with nothing in memory.
func (n node) restarted() node {
	n.Vault = vault.New(vault.Config{DB: n.db, Keeper: n.keeper, Audit: n.log})
	return n
}

// exec changes the database behind the vault's back.
func exec(t *testing.T, db *sqldb.DB, statements ...any) {
	t.Helper()
	err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
		for _, s := range statements {
			var err error
			switch s := s.(type) {
			case string:
				_, err = tx.ExecContext(ctx, s)
			case []any:
				_, err = tx.ExecContext(ctx, s[0].(string), s[1:]...)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, db *sqldb.DB, query string, args ...any) (n int) {
	t.Helper()
	if err := db.Reader().QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
