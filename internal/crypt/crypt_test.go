package crypt_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/secret"
)

func kek(t testing.TB, seed secret.Value, context string) *crypt.KEK {
	t.Helper()
	k, err := crypt.DeriveKEK(seed, []byte(context), [16]byte{1}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealThenOpen(t *testing.T) {
	t.Parallel()
	k := kek(t, crypt.NewSeed(), "org_a")
	for _, size := range []int{0, 1, 31, 4096, 1 << 20} {
		want := bytes.Repeat([]byte{'x'}, size)
		env, err := k.Seal([]byte("place"), secret.New(want))
		if err != nil {
			t.Fatal(err)
		}
		if len(env) != size+crypt.Overhead {
			t.Errorf("envelope of %d bytes is %d long, want %d", size, len(env), size+crypt.Overhead)
		}
		got, err := k.Open([]byte("place"), env)
		if err != nil || !bytes.Equal(got.Reveal(), want) {
			t.Errorf("size %d: got %d bytes, %v", size, got.Len(), err)
		}
	}
}

// K1: an envelope opens in its own place under its own key only, and no bit of
// it can change.
func TestOpensNowhereElse(t *testing.T) {
	t.Parallel()
	seed := crypt.NewSeed()
	k := kek(t, seed, "org_a")
	v := secret.FromString("sk-live-canary")
	env, err := k.Seal(crypt.Fields("a", "bc"), v)
	if err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]*crypt.KEK{"context": kek(t, seed, "org_b"), "seed": kek(t, crypt.NewSeed(), "org_a")} {
		if _, err := other.Open(crypt.Fields("a", "bc"), env); !errors.Is(err, crypt.ErrIntegrity) {
			t.Errorf("other %s: got %v, want ErrIntegrity", name, err)
		}
	}
	if _, err := k.Open(crypt.Fields("ab", "c"), env); !errors.Is(err, crypt.ErrIntegrity) {
		t.Errorf("other place: got %v, want ErrIntegrity", err)
	}
	for i := range env {
		for bit := range 8 {
			bad := bytes.Clone(env)
			bad[i] ^= 1 << bit
			if _, err := k.Open(crypt.Fields("a", "bc"), bad); !errors.Is(err, crypt.ErrIntegrity) {
				t.Fatalf("bit %d of byte %d flipped: got %v, want ErrIntegrity", bit, i, err)
			}
		}
	}
	for n := range env {
		if _, err := k.Open(crypt.Fields("a", "bc"), env[:n]); !errors.Is(err, crypt.ErrIntegrity) {
			t.Fatalf("cut to %d bytes: got %v, want ErrIntegrity", n, err)
		}
	}
	if bytes.Contains(env, v.Reveal()) {
		t.Error("the envelope holds the plaintext")
	}
}

// K2: every sealing has its own data key and nonces.
func TestNothingRepeats(t *testing.T) {
	t.Parallel()
	k := kek(t, crypt.NewSeed(), "c")
	seen := map[string]bool{}
	for range 500 {
		env, err := k.Seal(nil, secret.FromString("same"))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range [][]byte{env[21:53], env[53:65], env[len(env)-32 : len(env)-20]} {
			if seen[string(part)] {
				t.Fatal("a commitment or nonce repeats")
			}
			seen[string(part)] = true
		}
	}
}

func TestWrapKeyBindsItsContext(t *testing.T) {
	t.Parallel()
	root, seed := crypt.NewSeed(), crypt.NewSeed()
	blob, err := crypt.WrapKey(root, seed, []byte("ctx"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := crypt.UnwrapKey(root, blob, []byte("ctx"))
	if err != nil || !got.Equal(seed) {
		t.Fatalf("got %v", err)
	}
	if _, err := crypt.UnwrapKey(root, blob, []byte("other")); !errors.Is(err, crypt.ErrIntegrity) {
		t.Errorf("other context: got %v", err)
	}
	if _, err := crypt.UnwrapKey(crypt.NewSeed(), blob, []byte("ctx")); !errors.Is(err, crypt.ErrIntegrity) {
		t.Errorf("other root: got %v", err)
	}
}

// Fields is injective: different lists never share an encoding.
func FuzzFields(f *testing.F) {
	f.Add("a", "bc", "ab", "c")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		same := a == c && b == d
		if bytes.Equal(crypt.Fields(a, b), crypt.Fields(c, d)) != same {
			t.Errorf("%q,%q and %q,%q", a, b, c, d)
		}
		if back, ok := crypt.Parts(crypt.Fields(a, b, c)); !ok || !slices.Equal(back, []string{a, b, c}) {
			t.Errorf("%q, %q, %q came back as %q", a, b, c, back)
		}
		if parts, ok := crypt.Parts([]byte(d)); ok && string(crypt.Fields(parts...)) != d {
			t.Errorf("%q was read, and Fields never gives it", d)
		}
	})
}

func FuzzOpen(f *testing.F) {
	seed := crypt.NewSeed()
	k := kek(f, seed, "c")
	env, _ := k.Seal([]byte("p"), secret.FromString("v"))
	f.Add(env)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, err := k.Open([]byte("p"), in); err == nil && !bytes.Equal(in, env) {
			t.Error("opened an envelope that nobody sealed")
		}
	})
}

func ExampleKEK_Seal() {
	k, _ := crypt.DeriveKEK(crypt.NewSeed(), crypt.Fields("env_1", "org_1", ""), [16]byte{7}, 1)
	place := crypt.Fields("secret_1", "1")
	env, _ := k.Seal(place, secret.FromString("hello"))
	v, _ := k.Open(place, env)
	fmt.Println(v, string(v.Reveal()))
	// Output: [redacted] hello
}
