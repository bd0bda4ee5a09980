package crypt_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/secret"
)

// next is k's key in its next version.
func next(t *testing.T, version uint32) *crypt.KEK {
	t.Helper()
	k, err := crypt.DeriveKEK(crypt.NewSeed(), []byte("c"), [16]byte{1}, version)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Issue 4, rotation; K1: wrapped anew, a value opens in its own place under the other
// key only, its ciphertext is the same, and no bit of it can change.
func TestRewrap(t *testing.T) {
	t.Parallel()
	from, to := next(t, 1), next(t, 2)
	env, err := from.Seal([]byte("place"), secret.FromString("value"))
	if err != nil {
		t.Fatal(err)
	}
	moved, err := from.Rewrap(to, env)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := to.Open([]byte("place"), moved); err != nil || !got.Equal(secret.FromString("value")) {
		t.Errorf("got %v", err)
	}
	if rest := crypt.Overhead - 28; !bytes.Equal(env[rest:], moved[rest:]) || !bytes.Equal(moved[1:21], crypt.Prefix([16]byte{1}, 2)) {
		t.Error("the ciphertext changed, or the prefix is not that of the other key")
	}
	for name, open := range map[string]func() error{
		"the old key":    func() error { _, err := from.Open([]byte("place"), moved); return err },
		"another place":  func() error { _, err := to.Open([]byte("other"), moved); return err },
		"by another key": func() error { _, err := next(t, 1).Rewrap(to, env); return err },
	} {
		if err := open(); !errors.Is(err, crypt.ErrIntegrity) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for i := range moved {
		for bit := range 8 {
			bad := bytes.Clone(moved)
			bad[i] ^= 1 << bit
			if _, err := to.Open([]byte("place"), bad); !errors.Is(err, crypt.ErrIntegrity) {
				t.Fatalf("bit %d of byte %d flipped: got %v", bit, i, err)
			}
		}
	}
}

// K1: parts of two envelopes of one key do not make a third, whatever is exchanged.
func TestPartsOfEnvelopesCannotBeExchanged(t *testing.T) {
	t.Parallel()
	k := next(t, 1)
	seal := func(place, value string) []byte {
		env, err := k.Seal([]byte(place), secret.FromString(value))
		if err != nil {
			t.Fatal(err)
		}
		return env
	}
	a, b := seal("a", "value of a"), seal("b", "value of b")
	cuts := []int{0, 1, 21, 53, 113, len(a)} // suite, key, commitment, wrapped data key, ciphertext
	for i := range len(cuts) - 1 {
		for j := i + 1; j < len(cuts); j++ {
			mixed := bytes.Clone(a)
			copy(mixed[cuts[i]:cuts[j]], b[cuts[i]:cuts[j]])
			for _, place := range []string{"a", "b"} {
				got, err := k.Open([]byte(place), mixed)
				if err == nil && !(bytes.Equal(mixed, a) && place == "a") && !(bytes.Equal(mixed[1:], b[1:]) && place == "b") {
					t.Errorf("bytes %d to %d of another envelope: opened as %v in %q", cuts[i], cuts[j], got.Len(), place)
				}
			}
		}
	}
}

// What servers sealed in suite 1 opens as before, and is never wrapped anew.
func TestFirstSuiteOpens(t *testing.T) {
	t.Parallel()
	k := next(t, 1)
	env, err := k.SealFirst([]byte("place"), secret.FromString("value"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Open([]byte("place"), env); err != nil || !got.Equal(secret.FromString("value")) {
		t.Errorf("got %v", err)
	}
	if _, err := k.Open([]byte("other"), env); !errors.Is(err, crypt.ErrIntegrity) {
		t.Errorf("another place: got %v", err)
	}
	if _, err := k.Rewrap(next(t, 2), env); crypt.Rewrappable(env) || !errors.Is(err, crypt.ErrIntegrity) {
		t.Errorf("wrapped anew: got %v", err)
	}
	env[0] = 2 // called the other suite
	if _, err := k.Open([]byte("place"), env); !errors.Is(err, crypt.ErrIntegrity) {
		t.Errorf("as another suite: got %v", err)
	}
}
