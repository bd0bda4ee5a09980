package keyringtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Transit is a process with HashiCorp Vault's own transit engine, from the module
// beside this package.
type Transit struct {
	Addr   string // host:port on loopback, plain http
	t      testing.TB
	client *http.Client
}

// engineDir is where it was built; nil: it was not.
var engineDir atomic.Pointer[string]

// engineBuilt builds the engine once a test binary. ./check has done it before,
// so that it comes from the build cache.
var engineBuilt = sync.OnceValues(func() (string, error) {
	_, file, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(file), "vaulttransit")
	if _, err := os.Stat(dir); err != nil {
		dir = filepath.Join(repository(), "internal/keyring/keyringtest/vaulttransit") // built with -trimpath
	}
	out, err := os.MkdirTemp("", "vaulttransit")
	if err != nil {
		return "", err
	}
	engineDir.Store(&out)
	bin := filepath.Join(out, "vaulttransit")
	build := exec.Command("go", "build", "-o", bin, ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	if text, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the transit engine: %w\n%s", err, text)
	}
	return bin, nil
})

// repository is the folder of go.mod, above where the test runs.
func repository() string {
	dir, _ := os.Getwd()
	for dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "internal/keyring/keyringtest/vaulttransit")); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

// RemoveTransit removes what was built, at the end of a test binary.
func RemoveTransit() {
	if dir := engineDir.Load(); dir != nil {
		_ = os.RemoveAll(*dir)
	}
}

// NewTransit starts an engine without keys, until the end of t.
func NewTransit(t testing.TB) *Transit {
	t.Helper()
	bin, err := engineBuilt()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin)
	cmd.Stderr = os.Stderr
	// The engine is foreign and old: under FIPS 140 only it seals nothing.
	cmd.Env = append(os.Environ(), "GODEBUG=")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the transit engine did not say where it is: %v", err)
	}
	v := &Transit{Addr: strings.TrimSpace(line), t: t, client: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(func() {
		v.client.CloseIdleConnections()
		_ = in.Close() // upon which it ends
		_ = cmd.Wait()
	})
	return v
}

// Do makes a request as the engine's administrator, or of the test's own controls.
func (v *Transit) Do(method, path string, in any) map[string]any {
	v.t.Helper()
	doc, err := json.Marshal(in)
	if err != nil {
		v.t.Fatal(err)
	}
	req, err := http.NewRequest(method, "http://"+v.Addr+path, bytes.NewReader(doc))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", "admin")
	ns, rest, ok := strings.Cut(strings.TrimPrefix(path, "/ns/"), "/")
	if ok && strings.HasPrefix(path, "/ns/") { // /ns/NAMESPACE/v1/…
		req.Header.Set("X-Vault-Namespace", ns)
		req.URL.Path = "/" + rest
	}
	resp, err := v.client.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		v.t.Fatalf("%s %s: %d %s (%v)", method, path, resp.StatusCode, text, err)
	}
	out := map[string]any{}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &out); err != nil {
			v.t.Fatal(err)
		}
	}
	return out
}

// MakeKey makes a key that may be deleted.
func (v *Transit) MakeKey(name string) {
	v.t.Helper()
	v.Do("POST", "/v1/transit/keys/"+name, map[string]any{})
	v.Do("POST", "/v1/transit/keys/"+name+"/config", map[string]any{"deletion_allowed": true})
}

// Be changes how the server behaves before a request reaches the engine: "sealed",
// "throttle", "silent", "broken", "proxy404", "redirect", "garble", "html", or "".
func (v *Transit) Be(mode string) { v.t.Helper(); v.Do("POST", "/control/mode/"+mode, nil) }

// Policy is what docs/keys.md gives a token for a key: nothing that makes one.
func Policy(key string) map[string][]string {
	return map[string][]string{"encrypt/" + key: {"update"}, "decrypt/" + key: {"update"}, "keys/" + key: {"read"}}
}

// Token makes a token that may do what policy says. ttl is in nanoseconds; 0 does
// not end.
func (v *Transit) Token(name string, policy map[string][]string, ttl int64, renewable bool) {
	v.t.Helper()
	v.Do("POST", "/control/token/"+name, map[string]any{"Policy": policy, "TTL": ttl, "Renewable": renewable})
}

// Revoke ends a token, or with an empty name all.
func (v *Transit) Revoke(name string) { v.t.Helper(); v.Do("POST", "/control/revoke/"+name, nil) }

// Role lets whoever shows the secret log in; name is "approle/ROLE_ID" or
// "kubernetes/ROLE".
func (v *Transit) Role(name, secret string, policy map[string][]string, ttl int64) {
	v.t.Helper()
	v.Do("POST", "/control/role/"+name, map[string]any{"Secret": secret, "Policy": policy, "TTL": ttl})
}

// Seen is how often something was asked of the server by others.
func (v *Transit) Seen(what string) int {
	v.t.Helper()
	n, _ := v.Do("GET", "/control/seen", nil)[what].(float64)
	return int(n)
}

// Header is one of the last request by others.
func (v *Transit) Header(name string) string {
	v.t.Helper()
	h, _ := v.Do("GET", "/control/seen", nil)["headers"].(map[string]any)
	values, _ := h[name].([]any)
	if len(values) == 0 {
		return ""
	}
	return fmt.Sprint(values[0])
}
