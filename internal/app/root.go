package app

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/awskms"
	"github.com/ambit-dev/ambit/internal/keyring/azurekv"
	"github.com/ambit-dev/ambit/internal/keyring/gcpkms"
	"github.com/ambit-dev/ambit/internal/keyring/local"
	"github.com/ambit-dev/ambit/internal/keyring/pkcs11"
	"github.com/ambit-dev/ambit/internal/keyring/transit"
	"github.com/ambit-dev/ambit/internal/outbound"
)

// backEnds open root keys that are somewhere else, by the scheme of their URI.
var backEnds = map[string]func(ctx context.Context, uri string, o keyring.Options) (keyring.Keeper, error){
	"awskms":        awskms.Open,
	"azurekv":       azurekv.Open,
	"gcpkms":        gcpkms.Open,
	"transit+https": transit.Open,
	"transit+http":  transit.Open, // to loopback, which it decides itself
}

// ownBackEnds are for the operator's root keys only: their URIs name files and
// libraries of this machine.
var ownBackEnds = map[string]func(ctx context.Context, uri string, o keyring.Options) (keyring.Keeper, error){
	"pkcs11": pkcs11.Open,
}

func schemes() []string { return slices.Sorted(maps.Keys(backEnds)) }

// keyParty is whose requests to keepers are.
const keyParty = "root keys"

// maxCustomerGrace bounds how late a customer's disabled key takes effect.
const maxCustomerGrace = 5 * time.Minute

// RootFile is the file that a setting names as root key, or empty for a key
// somewhere else.
func RootFile(setting string) string {
	if path, ok := strings.CutPrefix(setting, "file:"); ok {
		return path
	}
	if scheme, _, ok := strings.Cut(setting, ":"); ok && (backEnds[scheme] != nil || ownBackEnds[scheme] != nil) {
		return ""
	}
	return setting
}

// openRoot opens a root key that the operator names. Only a file can be made.
func openRoot(ctx context.Context, cfg Config, client *outbound.Client, setting string, mayCreate bool) (keyring.Keeper, error) {
	if path := RootFile(setting); path != "" {
		return local.OpenOrCreate(path, mayCreate)
	}
	scheme, _, _ := strings.Cut(setting, ":")
	open := backEnds[scheme]
	if open == nil {
		open = ownBackEnds[scheme]
	}
	return open(ctx, setting, cfg.options(client, scheme, true))
}

// openBrought opens a root key that a customer names: never a file or a library of
// this machine (threats.md T7).
func openBrought(ctx context.Context, cfg Config, client *outbound.Client, uri string) (keyring.Keeper, error) {
	scheme, _, _ := strings.Cut(uri, ":")
	open := backEnds[scheme]
	if open == nil {
		return nil, fault.New(fault.Invalid, "root_key_scheme", "That is not the URI of a root key that this server can use.").
			WithHint("It begins with one of: " + strings.Join(schemes(), ", ") + ".")
	}
	return open(ctx, uri, cfg.options(client, scheme, false))
}

// clouds are the schemes whose back ends ask the cloud for the machine's identity.
// The hosts that they ask are their own, whatever a URI says.
var clouds = []string{"awskms", "azurekv", "gcpkms"}

// options are what a back end may use. The machine's own identity in its cloud is
// for the operator's keys, and for customers' where the operator says so.
func (c Config) options(client *outbound.Client, scheme string, ours bool) keyring.Options {
	metadata := (ours || c.MachineIdentity) && slices.Contains(clouds, scheme)
	return keyring.Options{HTTP: client.Library(outbound.Library{Party: keyParty, Metadata: metadata}), Env: c.Env, Logger: c.Logger}
}

// roots opens the server's own root keys. The first is the one in RootKey; which
// one is primary, the database says.
func roots(ctx context.Context, cfg Config, client *outbound.Client, mayCreate bool) (*keyring.Ring, error) {
	ring := newRing(cfg, client)
	for i, setting := range append([]string{cfg.RootKey}, cfg.RootKeysOther...) {
		k, err := openRoot(ctx, cfg, client, setting, mayCreate && i == 0)
		if err != nil && i > 0 && cfg.Sealed != nil && maySeal(err) {
			// Only what it wrapped has to wait for it.
			k, err = later(cfg, client, setting), nil
			cfg.Logger.Error("a root key cannot be opened; the server starts without it and tries again", "key", setting)
		}
		if err != nil {
			return nil, err
		}
		ring.Add(keyring.NewGuard(k, keyring.Config{Grace: cfg.KeyGrace, Logger: cfg.Logger}))
	}
	return ring, nil
}

// rootsLater is roots for a server that waits for its keys: each is opened when it
// is there.
func rootsLater(ctx context.Context, cfg Config, client *outbound.Client) (*keyring.Ring, error) {
	ring := newRing(cfg, client)
	for _, setting := range append([]string{cfg.RootKey}, cfg.RootKeysOther...) {
		k, err := openRoot(ctx, cfg, client, setting, false)
		if err != nil {
			k = later(cfg, client, setting)
		}
		ring.Add(keyring.NewGuard(k, keyring.Config{Grace: cfg.KeyGrace, Logger: cfg.Logger}))
	}
	return ring, ctx.Err()
}

// later is a root key of the operator's that cannot be opened now.
func later(cfg Config, client *outbound.Client, setting string) keyring.Keeper {
	return keyring.Lazy("", setting, func(ctx context.Context) (keyring.Keeper, error) {
		return openRoot(ctx, cfg, client, setting, false)
	})
}

func newRing(cfg Config, client *outbound.Client) *keyring.Ring {
	theirs := min(cfg.KeyGrace, maxCustomerGrace)
	if cfg.KeyGrace == 0 {
		theirs = maxCustomerGrace
	}
	return keyring.NewRing(keyring.RingConfig{
		Open: func(ctx context.Context, uri string) (keyring.Keeper, error) {
			return openBrought(ctx, cfg, client, uri)
		},
		Guard: keyring.Config{Grace: theirs, Logger: cfg.Logger},
	})
}

// insideData reports whether a root key's file lies in the data folder.
func insideData(dataDir, path string) bool {
	p, err := filepath.Abs(path)
	return path != "" && err == nil && (p == dataDir || strings.HasPrefix(p, dataDir+string(filepath.Separator)))
}
