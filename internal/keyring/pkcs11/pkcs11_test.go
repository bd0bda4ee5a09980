//go:build cgo

package pkcs11_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest/hsmtest"
	"github.com/ambit-dev/ambit/internal/keyring/pkcs11"
	"github.com/ambit-dev/ambit/internal/secret"
)

func TestMain(m *testing.M) {
	hsmtest.Main()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) { hsmtest.Remove(); os.Exit(code) }))
}

func open(t testing.TB, h *hsmtest.HSM, uri string) *pkcs11.Keeper {
	t.Helper()
	k, err := pkcs11.Open(context.Background(), uri, keyring.Options{Env: h.Env})
	if err != nil {
		t.Fatal(err)
	}
	keeper := k.(*pkcs11.Keeper)
	t.Cleanup(func() { _ = keeper.Close() })
	return keeper
}

var here = keyring.Context{AAD: crypt.Fields("here"), Purpose: "kek"}

func wrap(t *testing.T, k keyring.Keeper) []byte {
	t.Helper()
	blob, err := k.Wrap(t.Context(), crypt.NewSeed(), here)
	if err != nil {
		t.Fatalf("%v: %v", err, errors.Unwrap(err))
	}
	return blob
}

// becomes asks until the answer has the class: a helper that died is started again
// after a pause.
func becomes(t *testing.T, k keyring.Keeper, blob []byte, want keyring.Class) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err = k.Unwrap(ctx, blob, here)
		cancel()
		if keyring.ClassOf(err) == want && (want != keyring.Fine || err == nil) {
			return
		}
	}
	t.Fatalf("got %v (%v: %v), want %v", keyring.ClassOf(err), err, errors.Unwrap(err), want)
}

// Issue 4, keepers: the contract, held against SoftHSM2 through the real helper.
func TestContract(t *testing.T) {
	keyringtest.Contract(t, func(t *testing.T) *keyringtest.Bench {
		h := hsmtest.New(t)
		h.NewKey("root")
		h.NewKey("other")
		k := open(t, h, h.URI("root"))
		return &keyringtest.Bench{
			Keeper: k, Other: open(t, h, h.URI("other")),
			Again:   func(t testing.TB) keyring.Keeper { return open(t, h, h.URI("root")) },
			Rotate:  func() { h.NewKey("root") },
			Disable: func() { h.Use("root", false) }, Enable: func() { h.Use("root", true) },
			Silence: func() { pkcs11.Stop(k) }, Restore: func() { pkcs11.Continue(k) },
			Secrets: []secret.Value{secret.FromString(hsmtest.Pin)},
		}
	})
}

// K4, F5: what happens to a token and its key, what it means, and that it ends by
// itself.
func TestK4WhatHappensToTheToken(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name       string
		be, mended func(h *hsmtest.HSM)
		want       keyring.Class
	}{
		{"token taken out", (*hsmtest.HSM).Away, (*hsmtest.HSM).Back, keyring.Unavailable},
		{"key disabled", func(h *hsmtest.HSM) { h.Use("root", false) }, func(h *hsmtest.HSM) { h.Use("root", true) }, keyring.Denied},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := hsmtest.New(t)
			h.NewKey("root")
			k := open(t, h, h.URI("root"))
			blob := wrap(t, k)
			row.be(h)
			becomes(t, k, blob, row.want)
			if _, err := k.Wrap(t.Context(), crypt.NewSeed(), here); keyring.ClassOf(err) != row.want {
				t.Errorf("wrapping: got %v: %v", err, errors.Unwrap(err))
			}
			row.mended(h)
			becomes(t, k, blob, keyring.Fine)
		})
	}
}

// K4: a key that was destroyed is a refusal; of a version, it is about the blob.
func TestK4DestroyedKey(t *testing.T) {
	t.Parallel()
	h := hsmtest.New(t)
	h.NewKey("root")
	k := open(t, h, h.URI("root"))
	old := wrap(t, k)
	h.NewKey("root")
	now := wrap(t, k)
	h.Destroy("root", 1)
	_, err := k.Unwrap(t.Context(), old, here)
	if !errors.Is(err, crypt.ErrIntegrity) || !errors.Is(err, keyring.ErrVersionRetired) {
		t.Errorf("a destroyed version: got %v", err)
	}
	becomes(t, k, now, keyring.Fine)
	h.Destroy("root")
	becomes(t, k, now, keyring.Denied)
	if _, err := k.Wrap(t.Context(), crypt.NewSeed(), here); keyring.ClassOf(err) != keyring.Denied {
		t.Errorf("wrapping: got %v", err)
	}
}

// K4: a PIN that is refused is a refusal, and it is tried once only: tokens lock
// themselves. Another PIN in the file ends it.
func TestK4WrongPIN(t *testing.T) {
	t.Parallel()
	h := hsmtest.New(t)
	h.NewKey("root")
	blob := wrap(t, open(t, h, h.URI("root")))
	h.SetPIN("wrong-pin")
	k := open(t, h, h.URI("root"))
	for range 3 {
		becomes(t, k, blob, keyring.Denied)
	}
	pkcs11.Kill(k) // another helper would try again
	becomes(t, k, blob, keyring.Denied)
	if n := pkcs11.Started(k); n != 1 {
		t.Errorf("a helper was started %d times with a PIN that was refused", n)
	}
	h.SetPIN(hsmtest.Pin)
	becomes(t, k, blob, keyring.Fine)
	if err := os.Chmod(h.PIN, 0o640); err != nil {
		t.Fatal(err)
	}
	becomes(t, open(t, h, h.URI("root")), blob, keyring.Unavailable)
}

// F5: a helper that is killed is started again, with a pause, and nobody waits for
// the dead.
func TestF5HelperKilled(t *testing.T) {
	t.Parallel()
	h := hsmtest.New(t)
	h.NewKey("root")
	k := open(t, h, h.URI("root"))
	blob := wrap(t, k)
	for range 3 {
		pkcs11.Kill(k)
		becomes(t, k, blob, keyring.Fine)
	}
	// In the middle of a question.
	pkcs11.Stop(k)
	answer := make(chan error, 1)
	go func() { _, err := k.Unwrap(context.WithoutCancel(t.Context()), blob, here); answer <- err }()
	for pkcs11.Pending(k) == 0 {
		time.Sleep(time.Millisecond)
	}
	pkcs11.Kill(k)
	if err := <-answer; keyring.ClassOf(err) != keyring.Unavailable {
		t.Errorf("got %v", err)
	}
	becomes(t, k, blob, keyring.Fine)
}

// F5: a helper whose library hangs is ended, so that another one can answer.
func TestF5HelperStuck(t *testing.T) {
	t.Parallel()
	h := hsmtest.New(t)
	h.NewKey("root")
	k := open(t, h, h.URI("root"))
	blob := wrap(t, k)
	pkcs11.Stop(k)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := k.Unwrap(ctx, blob, here); keyring.ClassOf(err) != keyring.Unavailable {
		t.Errorf("got %v", err)
	}
	pkcs11.StuckNow(k)
	becomes(t, k, blob, keyring.Fine)
	if pkcs11.Started(k) < 2 {
		t.Error("the helper that hung is still the one")
	}
}

// The helper has no argument and no variable that says anything, and is gone when
// its keeper is closed: when its standard input ends, as it also does with the server.
func TestHelperKnowsNothingAndEndsWithItsKeeper(t *testing.T) {
	t.Parallel()
	h := hsmtest.New(t)
	h.NewKey("root")
	k, err := pkcs11.Open(t.Context(), h.URI("root"), keyring.Options{Env: func(n string) string {
		if v := h.Env(n); v != "" {
			return v
		}
		return "must not get there"
	}})
	if err != nil {
		t.Fatal(err)
	}
	keeper := k.(*pkcs11.Keeper)
	wrap(t, k)
	for _, file := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(pkcs11.Proc(keeper, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{hsmtest.Pin, h.PIN, h.Token, "AMBIT"} {
			if file == "cmdline" && word == "AMBIT" {
				continue
			}
			if bytes.Contains(text, []byte(word)) {
				t.Errorf("%s holds %q: %q", file, word, text)
			}
		}
	}
	proc := pkcs11.Proc(keeper, "stat")
	if err := keeper.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(proc); err == nil {
		t.Error("the helper outlives its keeper")
	}
	if _, err := k.Wrap(t.Context(), crypt.NewSeed(), here); keyring.ClassOf(err) != keyring.Unavailable {
		t.Errorf("after Close: got %v", err)
	}
}

// A key that could leave the token, or is weaker than it should be, is not taken;
// nor are two that go by one name.
func TestKeysThatAreNotTaken(t *testing.T) {
	t.Parallel()
	h := hsmtest.New(t)
	h.Make("extractable", 256, true, 1)
	h.Make("short", 128, false, 1)
	h.Make("twice", 256, false, 1)
	h.Make("twice", 256, false, 1)
	for _, object := range []string{"extractable", "short", "twice", "missing"} {
		if _, err := open(t, h, h.URI(object)).Wrap(t.Context(), crypt.NewSeed(), here); err == nil {
			t.Errorf("%s is taken", object)
		}
	}
}

// Ids are numbers: the version after 09 is 0a, after ff 0100, and the newest wraps.
func TestNewestVersion(t *testing.T) {
	t.Parallel()
	h := hsmtest.New(t)
	h.Make("root", 256, false, 0xff)
	h.NewKey("root")
	h.Make("root", 256, false, 0x0a)
	if blob := wrap(t, open(t, h, h.URI("root"))); blob[1] != 2 || blob[2] != 1 || blob[3] != 0 {
		t.Errorf("wrapped by the version %x, want 0100", blob[2:2+blob[1]])
	}
	pinned := "pkcs11:token=" + h.Token + ";object=root;id=%0A?module-path=" + h.Module + "&pin-source=file:" + h.PIN
	k := open(t, h, pinned)
	if blob := wrap(t, k); blob[1] != 1 || blob[2] != 0x0a {
		t.Errorf("wrapped by the version %x, want 0a", blob[2:2+blob[1]])
	}
	becomes(t, k, wrap(t, open(t, h, h.URI("root"))), keyring.Fine)
}
