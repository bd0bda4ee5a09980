//go:build cgo

package app_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest/hsmtest"
	"github.com/ambit-dev/ambit/internal/keyring/transit"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// elsewhere is a root key that is no file, and its owner's hand.
type elsewhere struct {
	uri             string
	env             func(string) string
	allow           []string
	disable, enable func()
	server          *keyringtest.Transit // of inTransit
}

func inTransit(t *testing.T) elsewhere {
	v := keyringtest.NewTransit(t)
	v.MakeKey("ambit")
	v.Token("tok-1", keyringtest.Policy("ambit"), 0, false)
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, v.Addr), 0o700))
	must(t, os.WriteFile(filepath.Join(root, v.Addr, "token"), []byte("tok-1"), 0o600))
	return elsewhere{
		uri: "transit+http://" + v.Addr + "/transit/keys/ambit", allow: []string{v.Addr},
		env:     func(name string) string { return map[string]string{transit.EnvCredentials: root}[name] },
		disable: func() { v.Token("tok-1", nil, 0, false) },
		enable:  func() { v.Token("tok-1", keyringtest.Policy("ambit"), 0, false) },
		server:  v,
	}
}

func inHSM(t *testing.T) elsewhere {
	h := hsmtest.New(t)
	h.NewKey("ambit")
	return elsewhere{uri: h.URI("ambit"), env: h.Env, disable: func() { h.Use("ambit", false) }, enable: func() { h.Use("ambit", true) }}
}

// K4, issue 4 (keepers): a server whose root key is in Vault's own transit engine, or
// in an HSM, serves; again after a restart; not while the owner forbids the key,
// as soon as it is asked; and by itself when the owner allows it again.
func TestK4RootKeyElsewhere(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*testing.T) elsewhere{"transit": inTransit, "pkcs11": inHSM} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := open(t)
			c := newCluster(t, sqldb.SQLite)
			c.cfg.RootKey, c.cfg.Env, c.cfg.OutboundAllow = key.uri, key.env, append(slices.Clone(c.cfg.OutboundAllow), key.allow...)
			n := c.add(nil)
			c.settle(n)
			handle := c.active(n, "read")
			code := func() string {
				t.Helper()
				return c.call(n, "sandbox_key_list_issues", map[string]any{"session": handle}).code
			}
			if got := code(); got != "" {
				t.Fatalf("with its root key elsewhere: %s", got)
			}
			n.stop()
			<-n.done
			n = c.add(nil)
			if got := code(); got != "" {
				t.Fatalf("after a restart: %s", got)
			}
			key.disable()
			n.DoubtRoot()
			until(t, "the key counts as forbidden", func() bool { return code() == keyring.CodeDenied })
			key.enable()
			until(t, "the key counts again", func() bool { return code() == "" })
		})
	}
}

// T7: the URI of an HSM's key names a library to load and a file to read, so no
// customer's is opened.
func TestT7CustomersNameNoLibraries(t *testing.T) {
	t.Parallel()
	client, err := outbound.New(outbound.Policy{})
	must(t, err)
	t.Cleanup(client.Close)
	for _, uri := range []string{"pkcs11:token=a;object=b?module-path=/tmp/evil.so&pin-source=file:/etc/passwd", "file:/etc/passwd"} {
		if _, err := app.OpenBrought(t.Context(), client, uri); !fault.Is(err, "root_key_scheme") {
			t.Errorf("%s for a customer: got %v", uri, err)
		}
	}
}
