package transit_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/keyring/transit"
	"github.com/ambit-dev/ambit/internal/secret"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) { keyringtest.RemoveTransit(); os.Exit(code) }))
}

// world is an engine and the folder with our credentials for it.
type world struct {
	*keyringtest.Transit
	t      *testing.T
	folder string
	env    map[string]string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	v := keyringtest.NewTransit(t)
	root := t.TempDir()
	w := &world{Transit: v, t: t, folder: filepath.Join(root, v.Addr), env: map[string]string{transit.EnvCredentials: root}}
	w.MakeKey("ambit")
	return w
}

func (w *world) put(file, content string) {
	w.t.Helper()
	path := filepath.Join(w.folder, file)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) open(key, query string) keyring.Keeper {
	w.t.Helper()
	transport := &http.Transport{}
	w.t.Cleanup(transport.CloseIdleConnections)
	k, err := transit.Open(w.t.Context(), "transit+http://"+w.Addr+"/transit/keys/"+key+query,
		keyring.Options{HTTP: &http.Client{Transport: transport}, Env: func(n string) string { return w.env[n] }})
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

func (w *world) withToken() *world {
	w.t.Helper()
	w.Token("tok-1", keyringtest.Policy("ambit"), 0, false)
	w.put("token", "tok-1\n")
	return w
}

var here = keyring.Context{AAD: crypt.Fields("here"), Purpose: "kek", Environment: "env_1", Organization: "org_1"}

func wrap(t *testing.T, k keyring.Keeper) []byte {
	t.Helper()
	blob, err := k.Wrap(t.Context(), crypt.NewSeed(), here)
	if err != nil {
		t.Fatalf("%v: %v", err, errors.Unwrap(err))
	}
	return blob
}

func class(t *testing.T, k keyring.Keeper, blob []byte, want keyring.Class) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := k.Unwrap(ctx, blob, here)
	if got := keyring.ClassOf(err); got != want || want == keyring.Fine && err != nil {
		t.Errorf("got %v (%v: %v), want %v", got, err, errors.Unwrap(err), want)
	}
}

// Issue 4, keepers: the contract, held against the real engine.
func TestContract(t *testing.T) {
	keyringtest.Contract(t, func(t *testing.T) *keyringtest.Bench {
		w := newWorld(t)
		w.MakeKey("other")
		policy := keyringtest.Policy("ambit")
		for path, may := range keyringtest.Policy("other") {
			policy[path] = may
		}
		w.Token("tok-shared", policy, 0, false)
		w.put("token", "tok-shared")
		return &keyringtest.Bench{
			Keeper: w.open("ambit", ""), Other: w.open("other", ""),
			Again:    func(testing.TB) keyring.Keeper { return w.open("ambit", "") },
			Rotate:   func() { w.Do("POST", "/v1/transit/keys/ambit/rotate", nil) },
			Disable:  func() { w.Token("tok-shared", nil, 0, false) },
			Enable:   func() { w.Token("tok-shared", policy, 0, false) },
			Throttle: func() { w.Be("throttle") }, Silence: func() { w.Be("silent") }, Break: func() { w.Be("broken") },
			Garble: func() { w.Be("garble") }, Restore: func() { w.Be("") },
			Secrets: []secret.Value{secret.FromString("tok-shared")},
		}
	})
}

// K4: what Vault says before and in the engine, and what it means for the keys
// that were unwrapped.
func TestK4WhatVaultAnswers(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		be   func(w *world)
		want keyring.Class
	}{
		{"sealed", func(w *world) { w.Be("sealed") }, keyring.Unavailable},
		{"a proxy's 404", func(w *world) { w.Be("proxy404") }, keyring.Unavailable},
		{"a redirect", func(w *world) { w.Be("redirect") }, keyring.Unavailable},
		{"no JSON", func(w *world) { w.Be("html") }, keyring.Unavailable},
		{"quota", func(w *world) { w.Be("throttle") }, keyring.Throttled},
		{"token revoked", func(w *world) { w.Revoke("tok-1") }, keyring.Denied},
		{"policy taken", func(w *world) { w.Token("tok-1", map[string][]string{"keys/ambit": {"read"}}, 0, false) }, keyring.Denied},
		{"key deleted", func(w *world) { w.Do("DELETE", "/v1/transit/keys/ambit", nil) }, keyring.Denied},
		{"no token file", func(w *world) { _ = os.Remove(filepath.Join(w.folder, "token")) }, keyring.Unavailable},
		{"token file open to all", func(w *world) { _ = os.Chmod(filepath.Join(w.folder, "token"), 0o644) }, keyring.Unavailable},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t).withToken()
			k := w.open("ambit", "")
			blob := wrap(t, k)
			row.be(w)
			class(t, k, blob, row.want)
			if _, err := k.Wrap(t.Context(), crypt.NewSeed(), here); keyring.ClassOf(err) != row.want && row.name != "policy taken" {
				t.Errorf("wrapping: got %v, want %v", err, row.want)
			}
		})
	}
}

// K4: encrypting for a key that is gone makes a new one wherever the policy lets
// it, and would then go on under a key that nobody chose. It must not.
func TestK4ADeletedKeyIsNotMadeAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	policy := keyringtest.Policy("ambit")
	policy["encrypt/ambit"] = []string{"create", "update"} // careless
	w.Token("tok-1", policy, 0, false)
	w.put("token", "tok-1")
	k := w.open("ambit", "")
	wrap(t, k)
	w.Do("DELETE", "/v1/transit/keys/ambit", nil)
	if _, err := k.Wrap(t.Context(), crypt.NewSeed(), here); !fault.Is(err, keyring.CodeDenied) {
		t.Errorf("got %v, want %s", err, keyring.CodeDenied)
	}
	w.Token("look", map[string][]string{"keys/ambit": {"read"}}, 0, false)
	w.put("token", "look")
	if _, err := k.Wrap(t.Context(), crypt.NewSeed(), here); err == nil || !strings.Contains(errors.Unwrap(err).Error(), "404") {
		t.Errorf("the key is back: %v", err)
	}
}

// A key that cannot bind what it encrypts is not taken.
func TestKeysOfOtherTypes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Do("POST", "/v1/transit/keys/rsa", map[string]any{"type": "rsa-2048"})
	w.Do("POST", "/v1/transit/keys/derived", map[string]any{"derived": true})
	w.Do("POST", "/v1/transit/keys/sign", map[string]any{"type": "ed25519"})
	w.put("token", "admin")
	for _, key := range []string{"rsa", "derived", "sign"} {
		r := keyring.Probe(t.Context(), w.open(key, ""), here)
		if r.Err() == nil {
			t.Errorf("%s is taken", key)
		}
	}
}

// K3, K4: an owner who retires old versions takes what they wrapped away; what the
// newest wrapped goes on, and so does a guard that had a probe under an old one.
func TestRetiredVersions(t *testing.T) {
	t.Parallel()
	w := newWorld(t).withToken()
	k := w.open("ambit", "")
	g := keyring.NewGuard(k, keyring.Config{})
	t.Cleanup(g.Stop)
	if err := g.Prove(t.Context()); err != nil {
		t.Fatal(err)
	}
	old := wrap(t, k)
	w.Do("POST", "/v1/transit/keys/ambit/rotate", nil)
	now := wrap(t, k)
	w.Do("POST", "/v1/transit/keys/ambit/config", map[string]any{"min_decryption_version": 2})
	var lost bool
	g.Watch(func(is keyring.State) { lost = lost || !is.Usable })
	_, err := k.Unwrap(t.Context(), old, here)
	if !errors.Is(err, crypt.ErrIntegrity) || !errors.Is(err, keyring.ErrVersionRetired) {
		t.Errorf("a retired version: got %v", err)
	}
	class(t, k, now, keyring.Fine)
	if err := g.Prove(t.Context()); err != nil || g.Usable() != nil || g.Ready() != nil {
		t.Errorf("the guard gives up a good key: %v, %+v", err, g.State())
	}
	if !lost {
		t.Error("what the retired version had unwrapped was not given up")
	}
}

// A token in a file is read again, renewed when half of it is over, and one that
// was put in its place is used at once.
func TestTokenFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Token("short", keyringtest.Policy("ambit"), int64(2*time.Second), true)
	w.put("token", "short\n")
	k := w.open("ambit", "")
	blob := wrap(t, k)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		_, _ = k.Unwrap(t.Context(), blob, here)
	}
	if n := w.Seen("renews"); n < 3 || n > 12 {
		t.Errorf("renewed %d times in 5 s, with 2 s each", n)
	}
	w.Token("second", keyringtest.Policy("ambit"), 0, false)
	w.Revoke("short")
	class(t, k, blob, keyring.Denied)
	w.put("token", "second\n")
	class(t, k, blob, keyring.Fine)
	if w.Header("X-Vault-Token") != "second" || w.Header("X-Vault-Request") != "true" {
		t.Error("the token in the file is not the one that is shown")
	}
}

// AppRole and Kubernetes log in when needed: at the start, and after the token
// was taken; a secret that is wrong is a refusal.
func TestLogins(t *testing.T) {
	t.Parallel()
	for auth, files := range map[string][2]string{"approle": {"role-id", "secret-id"}, "kubernetes": {"role", "jwt"}} {
		t.Run(auth, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.Role(auth+"/ambit-server", "s3cret-word", keyringtest.Policy("ambit"), int64(time.Hour))
			w.put(files[0], "ambit-server\n")
			w.put(files[1], "s3cret-word\n")
			k := w.open("ambit", "?auth="+auth)
			blob := wrap(t, k)
			class(t, k, blob, keyring.Fine)
			if n := w.Seen("logins"); n != 1 {
				t.Errorf("%d logins, want 1", n)
			}
			w.Revoke("")
			class(t, k, blob, keyring.Fine)
			if n := w.Seen("logins"); n != 2 {
				t.Errorf("%d logins after the token was taken, want 2", n)
			}
			w.put(files[1], "another")
			w.Revoke("")
			class(t, k, blob, keyring.Denied)
			w.put(files[1], "s3cret-word")
			class(t, k, blob, keyring.Fine)
		})
	}
}

// A login that cannot be reached is no refusal.
func TestLoginWhileSealed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Role("other/ambit-server", "s3cret-word", keyringtest.Policy("ambit"), int64(time.Hour))
	w.put("role-id", "ambit-server")
	w.put("secret-id", "s3cret-word")
	k := w.open("ambit", "?auth=approle&auth-mount=other")
	w.Be("sealed")
	if _, err := k.Wrap(t.Context(), crypt.NewSeed(), here); keyring.ClassOf(err) != keyring.Unavailable {
		t.Errorf("got %v", err)
	}
	w.Be("")
	class(t, k, wrap(t, k), keyring.Fine)
}

// A namespace is part of which key it is.
func TestNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t).withToken()
	w.Do("POST", "/ns/team/v1/transit/keys/ambit", map[string]any{})
	a, b := w.open("ambit", ""), w.open("ambit", "?namespace=team")
	if a.Describe().Ref == b.Describe().Ref {
		t.Error("two namespaces share a name")
	}
	blob := wrap(t, b)
	if w.Header("X-Vault-Namespace") != "team" {
		t.Error("the namespace is not sent")
	}
	if _, err := a.Unwrap(t.Context(), blob, here); !errors.Is(err, crypt.ErrIntegrity) {
		t.Errorf("got %v", err)
	}
}

// Whoever writes a URI chooses the host, and must not thereby get a token that is
// meant for another one.
func TestCredentialsAreBoundToTheirHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t).withToken()
	_, port, _ := strings.Cut(w.Addr, ":")
	w.env["VAULT_ADDR"], w.env["VAULT_TOKEN"] = "http://"+w.Addr+"/", "tok-1"
	options := keyring.Options{HTTP: http.DefaultClient, Env: func(n string) string { return w.env[n] }}
	for _, uri := range []string{
		"transit+http://localhost:" + port + "/transit/keys/ambit",
		"transit+https://" + w.Addr + ".example.com/transit/keys/ambit",
		"transit+https://vault.example.com/transit/keys/ambit",
		"transit+http://" + w.Addr + "/transit/keys/ambit?as=other",
	} {
		if _, err := transit.Open(t.Context(), uri, options); err == nil {
			t.Errorf("%s has credentials", uri)
		}
	}
	// The environment's token goes where VAULT_ADDR says.
	if err := os.RemoveAll(w.folder); err != nil {
		t.Fatal(err)
	}
	class(t, w.open("ambit", ""), wrap(t, w.open("ambit", "")), keyring.Fine)
	w.put("team-a/token", "tok-1")
	class(t, w.open("ambit", "?as=team-a"), wrap(t, w.open("ambit", "?as=team-a")), keyring.Fine)
}
