package vault_test

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/local"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// listener is a root key that hears what it is asked for.
type listener struct {
	keyring.Keeper
	mu            sync.Mutex
	wrap, unwraps []keyring.Context
}

func (l *listener) Wrap(ctx context.Context, seed secret.Value, c keyring.Context) ([]byte, error) {
	l.mu.Lock()
	l.wrap = append(l.wrap, c)
	l.mu.Unlock()
	return l.Keeper.Wrap(ctx, seed, c)
}

func (l *listener) Unwrap(ctx context.Context, blob []byte, c keyring.Context) (secret.Value, error) {
	l.mu.Lock()
	l.unwraps = append(l.unwraps, c)
	l.mu.Unlock()
	return l.Keeper.Unwrap(ctx, blob, c)
}

// Issue 4, keepers: the owner of a root key sees in its log whose key is asked
// for, and can make conditions of it.
func TestKeeperIsToldWhoseKeyItIs(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		file, err := local.OpenOrCreate(filepath.Join(t.TempDir(), "root.key"), true)
		if err != nil {
			t.Fatal(err)
		}
		ear := &listener{Keeper: file}
		n := newNode(t, db, keyring.NewGuard(ear, keyring.Config{}))
		for _, p := range neighbours() {
			ear.wrap, ear.unwraps = nil, nil
			envelope, err := n.Seal(t.Context(), p, secret.FromString("canary"))
			if err == nil {
				_, err = n.restarted().Open(t.Context(), p, envelope)
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range slices.Concat(ear.wrap, ear.unwraps) {
				if c.Purpose == "kek" && (c.Environment != string(p.Environment) || c.Organization != string(p.Organization)) {
					t.Errorf("the key of %+v is asked for as %q of %q", p, c.Organization, c.Environment)
				}
			}
			if !slices.ContainsFunc(ear.unwraps, func(c keyring.Context) bool { return c.Purpose == "kek" }) {
				t.Errorf("%+v was opened without its root key", p)
			}
		}
	})
}
