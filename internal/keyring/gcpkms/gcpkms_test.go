package gcpkms_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/gcpkms"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest/gcptest"
	"github.com/ambit-dev/ambit/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, s *gcptest.Server, k *gcptest.Key, params string) keyring.Keeper {
	t.Helper()
	keeper, err := gcpkms.Open(t.Context(), "gcpkms://"+k.Name+params, s.Options(t))
	if err != nil {
		t.Fatal(err)
	}
	return keeper
}

// Issue 4, keepers: the official SDK against a service that checks CRC32C.
func TestContract(t *testing.T) {
	t.Parallel()
	keyringtest.Contract(t, func(t *testing.T) *keyringtest.Bench {
		s := gcptest.New(t)
		key, other := s.Key("ambit"), s.Key("other")
		b := &keyringtest.Bench{
			Keeper: open(t, s, key, ""), Other: open(t, s, other, ""),
			Again:  func(t testing.TB) keyring.Keeper { return open(t, s, key, "") },
			Rotate: key.Rotate, Disable: func() { key.Be("DISABLED") }, Enable: func() { key.Be("ENABLED") },
			Throttle: s.Throttle, Silence: s.Silence, Break: s.Break, Garble: s.Garble, Restore: s.Restore,
		}
		for _, token := range gcptest.Tokens {
			b.Secrets = append(b.Secrets, secret.FromString(token))
		}
		return b
	})
}

var seedFor = keyring.Context{AAD: []byte("place"), Purpose: "kek", Environment: "env_1", Organization: "org_1"}

// K4: each way in which a key or our right to it goes is a refusal. A version that
// is disabled closes what it wrapped and nothing else.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		do   func(*gcptest.Server, *gcptest.Key)
		want keyring.Class
	}{
		{"disabled", func(_ *gcptest.Server, k *gcptest.Key) { k.Be("DISABLED") }, keyring.Denied},
		{"destroyed", func(_ *gcptest.Server, k *gcptest.Key) { k.Be("DESTROYED") }, keyring.Denied},
		{"permission", func(_ *gcptest.Server, k *gcptest.Key) { k.Deny(true) }, keyring.Denied},
		{"its own version disabled", func(_ *gcptest.Server, k *gcptest.Key) { k.Rotate(); k.BeVersion(1, "DISABLED") }, keyring.Denied},
		{"another version disabled", func(_ *gcptest.Server, k *gcptest.Key) { k.Rotate(); k.BeVersion(2, "DISABLED") }, keyring.Fine},
		{"corrupted on the way", func(_ *gcptest.Server, k *gcptest.Key) { k.Corrupt(true) }, keyring.Unavailable},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := gcptest.New(t)
			key := s.Key("ambit")
			k := open(t, s, key, "")
			blob, err := k.Wrap(t.Context(), crypt.NewSeed(), seedFor)
			if err != nil {
				t.Fatal(err, errors.Unwrap(err))
			}
			row.do(s, key)
			if _, err := k.Unwrap(t.Context(), blob, seedFor); keyring.ClassOf(err) != row.want || row.want == keyring.Fine && err != nil {
				t.Errorf("unwrap: got %v: %v", err, errors.Unwrap(err))
			}
		})
	}
}

// A ciphertext that changed on its way back would be stored and never open.
func TestChecksumOfWhatIsStored(t *testing.T) {
	t.Parallel()
	s := gcptest.New(t)
	key := s.Key("ambit")
	key.Corrupt(true)
	if _, err := open(t, s, key, "").Wrap(t.Context(), crypt.NewSeed(), seedFor); keyring.ClassOf(err) != keyring.Unavailable || !strings.Contains(errors.Unwrap(err).Error(), "checksum") {
		t.Errorf("got %v: %v", err, errors.Unwrap(err))
	}
}

// A service that asks for patience is given it.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	s := gcptest.New(t)
	k := open(t, s, s.Key("ambit"), "")
	if _, err := k.Wrap(t.Context(), crypt.NewSeed(), seedFor); err != nil {
		t.Fatal(err)
	}
	s.Throttle()
	if _, err := k.Wrap(t.Context(), crypt.NewSeed(), seedFor); fault.Of(err).RetryAfter != 3*time.Second {
		t.Errorf("got %v, %v", err, fault.Of(err).RetryAfter)
	}
}

// The server's own account, another one that it may act as, and the instance. An
// account that is gone, or one that it may not act as, is a refusal.
func TestCredentials(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, params string
		do           func(*gcptest.Server, *keyring.Options)
		want         keyring.Class
	}{
		{"file", "", func(*gcptest.Server, *keyring.Options) {}, keyring.Fine},
		{"account deleted", "", func(s *gcptest.Server, _ *keyring.Options) { s.DeleteAccount() }, keyring.Denied},
		{"impersonation", "?impersonate=" + gcptest.Impersonated, func(*gcptest.Server, *keyring.Options) {}, keyring.Fine},
		{"impersonation of a stranger", "?impersonate=x@y.iam.gserviceaccount.com", func(*gcptest.Server, *keyring.Options) {}, keyring.Denied},
		{"instance", "", func(s *gcptest.Server, o *keyring.Options) {
			o.Env = keyringtest.Settings(map[string]string{"CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS": s.URL})
		}, keyring.Fine},
		{"instance that is not allowed", "", func(s *gcptest.Server, o *keyring.Options) {
			o.HTTP = keyringtest.HTTP(t, s.Service).HTTP
			o.Env = keyringtest.Settings(map[string]string{"CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS": s.URL})
		}, keyring.Unavailable},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := gcptest.New(t)
			o := s.Options(t)
			row.do(s, &o)
			k, err := gcpkms.Open(t.Context(), "gcpkms://"+s.Key("ambit").Name+row.params, o)
			if err != nil {
				t.Fatal(err, errors.Unwrap(err))
			}
			_, err = k.Wrap(t.Context(), crypt.NewSeed(), seedFor)
			if keyring.ClassOf(err) != row.want || row.want == keyring.Fine && err != nil {
				t.Errorf("got %v: %v", err, errors.Unwrap(err))
			}
			if text := fmt.Sprint(err, errors.Unwrap(err)); strings.Contains(text, "canary") || strings.Contains(text, "assertion") {
				t.Errorf("a secret was told: %s", text)
			}
		})
	}
	o := gcptest.New(t).Options(t)
	o.Env = keyringtest.Settings(map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": t.TempDir()})
	if _, err := gcpkms.Open(t.Context(), "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k", o); keyring.ClassOf(err) != keyring.Unavailable {
		t.Errorf("a file that is none: %v", err)
	}
}

// A URI names a key and not its version, and holds no secret.
func TestURI(t *testing.T) {
	t.Parallel()
	s := gcptest.New(t)
	for _, uri := range []string{
		"gcpkms:///projects/p/locations/l/keyRings/r/cryptoKeys/k", "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
		"gcpkms://projects/p/locations/l/keyRings/r", "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k?credentials=canary",
		"gcpkms://canary@projects/p/locations/l/keyRings/r/cryptoKeys/k", "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/..",
		"gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k?impersonate=me@example.com", "gcp://projects/p/locations/l/keyRings/r/cryptoKeys/k",
		"gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k%2fx",
	} {
		if _, err := gcpkms.Open(t.Context(), uri, s.Options(t)); !fault.Is(err, "root_key_uri_invalid") || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: got %v", uri, err)
		}
	}
	o := s.Options(t)
	o.Env = keyringtest.Settings(map[string]string{"CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS": "http://kms.internal"})
	if _, err := gcpkms.Open(t.Context(), "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k", o); !fault.Is(err, "setting_invalid") {
		t.Errorf("plain http: %v", err)
	}
	if _, err := gcpkms.Open(t.Context(), "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k", keyring.Options{}); err == nil {
		t.Error("opened without a way out")
	}
}

func BenchmarkWrapAndUnwrap(b *testing.B) {
	s := gcptest.New(b)
	keyringtest.Benchmark(b, open(b, s, s.Key("ambit"), ""))
}
