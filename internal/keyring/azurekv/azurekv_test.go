package azurekv_test

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/azurekv"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest/azuretest"
	"github.com/ambit-dev/ambit/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, s *azuretest.Server, uri string) keyring.Keeper {
	t.Helper()
	k, err := azurekv.Open(t.Context(), uri, s.Options(t))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Issue 4, keepers: the official SDK against a service that challenges first.
func TestContract(t *testing.T) {
	t.Parallel()
	for name, add := range map[string]func(*azuretest.Server, string) *azuretest.Key{"KeyVault": (*azuretest.Server).RSA, "ManagedHSM": (*azuretest.Server).AES} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keyringtest.Contract(t, func(t *testing.T) *keyringtest.Bench {
				s := azuretest.New(t)
				key, other := add(s, "ambit"), add(s, "other")
				return &keyringtest.Bench{
					Keeper: open(t, s, key.URI), Other: open(t, s, other.URI),
					Again:  func(t testing.TB) keyring.Keeper { return open(t, s, key.URI) },
					Rotate: key.Rotate, Disable: func() { key.Disable(true) }, Enable: func() { key.Disable(false) },
					Throttle: s.Throttle, Silence: s.Silence, Break: s.Break, Garble: s.Garble, Restore: s.Restore,
					Secrets: []secret.Value{secret.FromString(azuretest.ClientSecret), secret.FromString(azuretest.Token)},
				}
			})
		})
	}
}

var seedFor = keyring.Context{AAD: []byte("place"), Purpose: "kek", Environment: "env_1", Organization: "org_1"}

// K4: each way in which a key or our right to it goes is a refusal.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(*azuretest.Server, *azuretest.Key){
		"disabled": func(_ *azuretest.Server, k *azuretest.Key) { k.Disable(true) },
		"deleted":  func(_ *azuretest.Server, k *azuretest.Key) { k.Delete() },
		"no right": func(_ *azuretest.Server, k *azuretest.Key) { k.Deny("unwrapkey") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := azuretest.New(t)
			for _, key := range []*azuretest.Key{s.RSA("rsa"), s.AES("aes")} {
				k := open(t, s, key.URI)
				blob, err := k.Wrap(t.Context(), crypt.NewSeed(), seedFor)
				if err != nil {
					t.Fatal(err, errors.Unwrap(err))
				}
				do(s, key)
				if _, err := k.Unwrap(t.Context(), blob, seedFor); keyring.ClassOf(err) != keyring.Denied {
					t.Errorf("unwrap: got %v: %v", err, errors.Unwrap(err))
				}
			}
		})
	}
}

// A key that may not sign is told at set-up, and not when secrets are stored.
func TestRightToSign(t *testing.T) {
	t.Parallel()
	s := azuretest.New(t)
	key := s.RSA("ambit")
	key.Deny("sign")
	if r := keyring.Probe(t.Context(), open(t, s, key.URI), seedFor); !fault.Is(r.Err(), keyring.CodeDenied) {
		t.Errorf("got %v", r.Err())
	}
}

// Who can read the public half of the key and write to the database can wrap a key
// of his own, and still make no blob that opens.
func TestPublicHalfMakesNoSeed(t *testing.T) {
	t.Parallel()
	s := azuretest.New(t)
	key := s.RSA("ambit")
	version, public := key.Public()
	once := crypt.NewSeed()
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, once.Reveal(), nil)
	if err != nil {
		t.Fatal(err)
	}
	v, _ := hex.DecodeString(version)
	front := append([]byte{1, 1}, v...)
	front = binary.BigEndian.AppendUint16(front, uint16(len(wrapped)))
	front = append(front, wrapped...)
	k := open(t, s, key.URI)
	for _, known := range [][]byte{once.Reveal(), crypt.Fields(string(once.Reveal()), "")} { // all but the mark
		sealing, err := hkdf.Key(sha256.New, known, nil, "ambit azurekv seal 1", 32)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := crypt.WrapKey(secret.New(sealing), crypt.NewSeed(), crypt.Fields("ambit azurekv 1", string(front), string(seedFor.Digest())))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Unwrap(t.Context(), append(front[:len(front):len(front)], sealed...), seedFor); !errors.Is(err, crypt.ErrIntegrity) {
			t.Errorf("got %v", err)
		}
	}
	// The other way to make it pass would be to call it another algorithm.
	blob, err := k.Wrap(t.Context(), crypt.NewSeed(), seedFor)
	if err != nil {
		t.Fatal(err)
	}
	blob[1] = 2
	if _, err := k.Unwrap(t.Context(), blob, seedFor); !errors.Is(err, crypt.ErrIntegrity) {
		t.Errorf("got %v", err)
	}
}

// One challenge for each client, not one for each call; a service that asks for
// patience is given it.
func TestChallengeOnceAndRetryAfter(t *testing.T) {
	t.Parallel()
	s := azuretest.New(t)
	k := open(t, s, s.AES("ambit").URI)
	for range 5 {
		if _, err := k.Wrap(t.Context(), crypt.NewSeed(), seedFor); err != nil {
			t.Fatal(err, errors.Unwrap(err))
		}
	}
	if s.Challenges != 1 {
		t.Errorf("%d challenges for 5 calls", s.Challenges)
	}
	s.Throttle()
	before := s.Calls.Load()
	if _, err := k.Wrap(t.Context(), crypt.NewSeed(), seedFor); fault.Of(err).RetryAfter != 4*time.Second || s.Calls.Load() != before+1 {
		t.Errorf("got %v, %v after %d calls", err, fault.Of(err).RetryAfter, s.Calls.Load()-before)
	}
}

// The server's own identity: a client secret, a federated token, the machine; in
// its own tenant or one that is named. An identity that is gone is a refusal.
func TestCredentials(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(azuretest.Federated), 0o600); err != nil {
		t.Fatal(err)
	}
	const params = "?tenant=" + azuretest.Tenant + "&client_id=" + azuretest.Client
	for _, row := range []struct {
		name, params string
		env          map[string]string
		do           func(*azuretest.Server)
		want         keyring.Class
	}{
		{"named in the URI", params, map[string]string{"AZURE_CLIENT_SECRET": azuretest.ClientSecret}, nil, keyring.Fine},
		{"federated token", params, map[string]string{"AZURE_FEDERATED_TOKEN_FILE": file}, nil, keyring.Fine},
		{"machine", "", nil, nil, keyring.Fine},
		{"wrong secret", params, map[string]string{"AZURE_CLIENT_SECRET": "canary-wrong"}, nil, keyring.Denied},
		{"identity deleted", params, map[string]string{"AZURE_CLIENT_SECRET": azuretest.ClientSecret}, (*azuretest.Server).DeleteIdentity, keyring.Denied},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := azuretest.New(t)
			o := s.Options(t)
			o.Env = keyringtest.Settings(row.env)
			if row.do != nil {
				row.do(s)
			}
			k, err := azurekv.Open(t.Context(), s.AES("ambit").URI+row.params, o)
			if err != nil {
				t.Fatal(err, errors.Unwrap(err))
			}
			_, err = k.Wrap(t.Context(), crypt.NewSeed(), seedFor)
			if keyring.ClassOf(err) != row.want || row.want == keyring.Fine && err != nil {
				t.Errorf("got %v: %v", err, errors.Unwrap(err))
			}
			if text := fmt.Sprint(err, errors.Unwrap(err)); strings.Contains(text, "canary") {
				t.Errorf("a secret was told: %s", text)
			}
		})
	}
	s := azuretest.New(t)
	o := s.Options(t)
	o.Env = keyringtest.Settings(map[string]string{"AZURE_CLIENT_SECRET": azuretest.ClientSecret})
	if _, err := azurekv.Open(t.Context(), s.AES("ambit").URI, o); keyring.ClassOf(err) != keyring.Unavailable || strings.Contains(fmt.Sprint(err, errors.Unwrap(err)), "canary") {
		t.Errorf("without a tenant: %v", err)
	}
	bare := keyringtest.HTTP(t, s.Service)
	s.Detour(&bare, azuretest.HSM)
	k, err := azurekv.Open(t.Context(), s.AES("ambit").URI, bare)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Wrap(t.Context(), crypt.NewSeed(), seedFor); keyring.ClassOf(err) != keyring.Unavailable {
		t.Errorf("a machine that may not be asked: %v", err)
	}
}

// A URI names a vault of Azure's and nothing that could be given a token instead.
func TestURI(t *testing.T) {
	t.Parallel()
	s := azuretest.New(t)
	for _, uri := range []string{
		"azurekv://evil.test/keys/k", "azurekv://vault.azure.net/keys/k", "azurekv://a.vault.azure.net.evil.test/keys/k", "azurekv://abc.vault.azure.net:444/keys/k",
		"azurekv://abc.vault.azure.net/keys/k/0123456789abcdef0123456789abcdef", "azurekv://abc.vault.azure.net/secrets/k", "azurekv://abc.vault.azure.net/keys/",
		"azurekv://abc.vault.azure.net/keys/k?client_secret=canary", "azurekv://u:canary@abc.vault.azure.net/keys/k", "azurekv:///keys/k", "azurekv://a.b.vault.azure.net/keys/k",
		"azurekv://abc.vault.azure.net/keys/k?algorithm=RSA1_5", "azurekv://abc.vault.azure.net/keys/k?tenant=a/b", "azurekv://abc.vault.azure.net/keys/k?client_id=x",
		"azurekv://abc.vault.azure.net/keys/%6b", "https://abc.vault.azure.net/keys/k",
	} {
		if _, err := azurekv.Open(t.Context(), uri, s.Options(t)); !fault.Is(err, "root_key_uri_invalid") || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: got %v", uri, err)
		}
	}
	if _, err := azurekv.Open(t.Context(), "azurekv://abc.vault.azure.net/keys/k", keyring.Options{}); err == nil {
		t.Error("opened without a way out")
	}
}

func BenchmarkWrapAndUnwrap(b *testing.B) {
	s := azuretest.New(b)
	b.Run("rsa", func(b *testing.B) { keyringtest.Benchmark(b, open(b, s, s.RSA("rsa").URI)) })
	b.Run("aes", func(b *testing.B) { keyringtest.Benchmark(b, open(b, s, s.AES("aes").URI)) })
}
