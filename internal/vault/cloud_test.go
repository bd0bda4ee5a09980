package vault_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/awskms"
	"github.com/ambit-dev/ambit/internal/keyring/azurekv"
	"github.com/ambit-dev/ambit/internal/keyring/gcpkms"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest/awstest"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest/azuretest"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest/gcptest"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// cloud is a root key of a service, with what its owner can do to it.
type cloud struct {
	keeper          keyring.Keeper
	disable, enable func()
	rotate          func()
	calls           *atomic.Int64
}

func clouds() map[string]func(*testing.T) cloud {
	opened := func(t *testing.T, k keyring.Keeper, err error) keyring.Keeper {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	azure := func(add func(*azuretest.Server, string) *azuretest.Key) func(*testing.T) cloud {
		return func(t *testing.T) cloud {
			s := azuretest.New(t)
			key := add(s, "ambit")
			k, err := azurekv.Open(t.Context(), key.URI, s.Options(t))
			return cloud{opened(t, k, err), func() { key.Disable(true) }, func() { key.Disable(false) }, key.Rotate, &s.Calls}
		}
	}
	return map[string]func(*testing.T) cloud{
		"AWS": func(t *testing.T) cloud {
			s := awstest.New(t)
			key := s.Key()
			k, err := awskms.Open(t.Context(), "awskms:///"+key.ARN, s.Options(t))
			return cloud{opened(t, k, err), func() { key.Be("Disabled") }, func() { key.Be("Enabled") }, key.Rotate, &s.Calls}
		},
		"GCP": func(t *testing.T) cloud {
			s := gcptest.New(t)
			key := s.Key("ambit")
			k, err := gcpkms.Open(t.Context(), "gcpkms://"+key.Name, s.Options(t))
			return cloud{opened(t, k, err), func() { key.Be("DISABLED") }, func() { key.Be("ENABLED") }, key.Rotate, &s.Calls}
		},
		"KeyVault":   azure((*azuretest.Server).RSA),
		"ManagedHSM": azure((*azuretest.Server).AES),
	}
}

// K4, issue 4 (keepers): with the root key in a cloud, a value opens, also after the
// key got a new version there; opening it again asks nobody; a key that its owner
// disables takes what is held with it, and what it gives back opens again.
func TestK4RootKeyInACloud(t *testing.T) {
	t.Parallel()
	for name, open := range clouds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
				c, clk := open(t), &offset{}
				g := keyring.NewGuard(c.keeper, keyring.Config{Now: clk.Now})
				t.Cleanup(g.Stop)
				n := newNode(t, db, g)
				p := neighbours()[0]
				envelope, err := n.Seal(t.Context(), p, secret.FromString("canary"))
				if err != nil {
					t.Fatal(err)
				}
				c.rotate()
				opens := func(when string) {
					t.Helper()
					if v, err := n.Open(t.Context(), p, envelope); err != nil || !v.Equal(secret.FromString("canary")) {
						t.Errorf("%s: %v", when, err)
					}
				}
				n = n.restarted()
				opens("after a rotation")
				before := c.calls.Load()
				for range 20 {
					opens("again")
				}
				if more := c.calls.Load() - before; more != 0 {
					t.Errorf("a key that is held was asked for %d times", more)
				}
				if err := g.Prove(t.Context()); err != nil {
					t.Fatal(err)
				}
				c.disable()
				if err := g.Prove(t.Context()); !fault.Is(err, keyring.CodeDenied) {
					t.Errorf("disabled: the guard found %v", err)
				}
				if _, err := n.Open(t.Context(), p, envelope); !fault.Is(err, keyring.CodeDenied) || n.Held() != 0 {
					t.Errorf("disabled: got %v with %d keys held", err, n.Held())
				}
				c.enable()
				clk.Advance(2 * time.Second)
				opens("enabled again")
			})
		})
	}
}
