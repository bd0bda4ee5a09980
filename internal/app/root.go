package app

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"maps"
	"os"
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
	"github.com/ambit-dev/ambit/internal/source"
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

// privateCA are the schemes of services that people run themselves. The clouds' have
// certificates that the public can check, and no other is taken for them.
var privateCA = []string{"transit+https"}

// newOutbound makes the way out.
func (c Config) newOutbound() (*outbound.Client, error) {
	p := outbound.Policy{Allow: c.OutboundAllow, Tunnels: c.Egress.Hosts}
	if c.TransitCA != "" {
		var err error
		if p.Private, _, err = ReadCA(c.TransitCA); err != nil {
			return nil, err
		}
	}
	return outbound.New(p)
}

// ReadCA reads the certificates of authorities, in PEM, beside those that the system
// trusts.
func ReadCA(path string) (*x509.CertPool, []*x509.Certificate, error) {
	raw, err := os.ReadFile(path)
	var certs []*x509.Certificate
	for block, rest := pem.Decode(raw); block != nil && err == nil; block, rest = pem.Decode(rest) {
		var c *x509.Certificate
		if block.Type != "CERTIFICATE" {
			err = errors.New("it holds a " + strings.ToLower(block.Type))
		} else if c, err = x509.ParseCertificate(block.Bytes); err == nil && !c.IsCA {
			err = errors.New("the certificate of " + c.Subject.String() + " is no authority's")
		}
		certs = append(certs, c)
	}
	if err == nil && len(certs) == 0 {
		err = errors.New("it holds no certificate")
	}
	if err != nil {
		return nil, nil, fault.New(fault.Invalid, "transit_ca_invalid", "The certificates in "+path+" cannot be used.").
			WithHint("AMBIT_TRANSIT_CA names a PEM file with the certificates of authorities, and nothing else.").WithCause(err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool, certs, nil
}

// options are what a back end may use. The machine's own identity in its cloud is
// for the operator's keys, and for customers' where the operator says so.
func (c Config) options(client *outbound.Client, scheme string, ours bool) keyring.Options {
	metadata := (ours || c.MachineIdentity) && slices.Contains(clouds, scheme)
	private := slices.Contains(privateCA, scheme)
	return keyring.Options{HTTP: client.Library(outbound.Library{Party: keyParty, Metadata: metadata, Private: private}), Env: c.Env, Logger: c.Logger}
}

// sources opens what the operator's file names. A Vault may have a certificate of the
// authorities that servers of transit keys may have theirs from; the clouds' have none but
// those that the public can check.
func (c Config) sources(ctx context.Context, client *outbound.Client) (*source.Sources, error) {
	if c.Sources == "" {
		return nil, nil
	}
	return source.Open(ctx, c.Sources, source.Options{Vault: client.Library(outbound.Library{Party: "source", Private: true}), AWS: client.Library(outbound.Library{Party: "source", Metadata: true})})
}

// roots opens the server's own root keys. The first is the one in RootKey; which
// one is primary, the database says.
func roots(ctx context.Context, cfg Config, client *outbound.Client, mayCreate bool) (*keyring.Ring, error) {
	ring := newRing(cfg, client)
	for i, setting := range append([]string{cfg.RootKey}, cfg.RootKeysOther...) {
		k, err := openRoot(ctx, cfg, client, setting, mayCreate && i == 0)
		if err != nil && i > 0 && cfg.Sealed != nil && KeyAway(err) {
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
		Admit: func(uri, owner string) error {
			if strings.HasPrefix(uri, "awskms:") {
				return awskms.Admit(uri, owner)
			}
			return nil
		},
		Guard: keyring.Config{Grace: theirs, Theirs: true, Logger: cfg.Logger},
	})
}

// insideData reports whether a root key's file lies in the data folder.
func insideData(dataDir, path string) bool {
	p, err := filepath.Abs(path)
	return path != "" && err == nil && (p == dataDir || strings.HasPrefix(p, dataDir+string(filepath.Separator)))
}
