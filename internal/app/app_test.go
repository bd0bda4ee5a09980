package app_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest/hsmtest"
)

func TestMain(m *testing.M) {
	hsmtest.Main()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		hsmtest.Remove()
		keyringtest.RemoveTransit()
		os.Exit(code)
	}))
}

// run serves cfg until the test ends.
func run(t testing.TB, cfg app.Config) *app.App {
	t.Helper()
	return serve(t, open(t, cfg))
}

func open(t testing.TB, cfg app.Config) *app.App {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = filepath.Join(t.TempDir(), "data")
	}
	if cfg.Listen == "" {
		cfg.Listen = "localhost:0"
	}
	a, err := app.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func serve(t testing.TB, a *app.App) *app.App {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- a.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server stopped with %v", err)
		}
	})
	return a
}

func get(t *testing.T, c *http.Client, target, host string, header http.Header) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		req.Host = host
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func plainClient(t *testing.T) *http.Client {
	tr := &http.Transport{DisableKeepAlives: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// S10: the server answers to its one name, on both loopback addresses.
func TestOneHost(t *testing.T) {
	t.Parallel()
	a := run(t, app.Config{})
	c, port := plainClient(t), a.PublicURL().Port()
	for _, ip := range []string{"127.0.0.1", "[::1]"} {
		base := "http://" + ip + ":" + port
		for host, want := range map[string]int{
			"localhost:" + port: 303, "LOCALHOST:" + port: 303, "127.0.0.1:" + port: 421, "evil.example": 421, "localhost": 421, "localhost.evil.example:" + port: 421,
		} {
			if resp, _ := get(t, c, base+"/", host, nil); resp.StatusCode != want {
				t.Errorf("%s as %q: got %d, want %d", ip, host, resp.StatusCode, want)
			} else if resp.Header.Get("X-Request-Id") == "" {
				t.Errorf("%s as %q: no request id", ip, host)
			}
		}
		if resp, body := get(t, c, base+"/healthz", "whatever", nil); resp.StatusCode != 200 || body != "{\"status\":\"alive\"}\n" {
			t.Errorf("a probe by address: %d %q", resp.StatusCode, body)
		}
	}
	if resp, body := get(t, c, a.PublicURL().String()+"/readyz", "", nil); resp.StatusCode != 200 {
		t.Errorf("not ready: %s", body)
	}
}

// The folder belongs to one server at a time, and a second one says so.
func TestSecondServerIsRefused(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	run(t, app.Config{DataDir: dir})
	_, err := app.New(t.Context(), app.Config{DataDir: dir, Listen: "localhost:0"})
	if f := fault.Of(err); f == nil || f.Hint == "" || f.Kind == fault.Internal {
		t.Errorf("got %v, want a refusal that says what to do", err)
	}
}

// A root key that is lost is not replaced by a new one.
func TestLostRootKey(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	cfg := app.Config{DataDir: dir, Listen: "localhost:0"}
	a, err := app.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	if err := os.Remove(dir + ".key"); err != nil {
		t.Fatal(err)
	}
	if _, err := app.New(t.Context(), cfg); !fault.Is(err, "root_key_missing") {
		t.Errorf("got %v, want root_key_missing", err)
	}
	if _, err := os.Stat(dir + ".key"); err == nil {
		t.Error("a new key was made over a database that it cannot read")
	}
}

// A stop writes the last checkpoint, and the log verifies afterwards.
func TestStopLeavesAWitnessedLog(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	a, err := app.New(t.Context(), app.Config{DataDir: dir, Listen: "localhost:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := a.Run(ctx, cancel); err != nil {
		t.Fatal(err)
	}
	again, err := app.New(t.Context(), app.Config{DataDir: dir, Listen: "localhost:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	report, err := again.VerifyAudit(t.Context(), nil)
	if err != nil || !report.Intact() || report.Checkpoints == 0 {
		t.Errorf("got %+v, %v", report, err)
	}
	for _, tail := range report.Unwitnessed {
		if tail.From > 1 {
			t.Errorf("the stopped chain has an unwitnessed tail: %+v", tail)
		}
	}
}

// An open audit stream is told that the server stops, and does not hold it until
// the drain ends.
func TestStreamsDoNotHoldAShutdown(t *testing.T) {
	t.Parallel()
	const drain = 30 * time.Second
	a, err := app.New(t.Context(), app.Config{DataDir: filepath.Join(t.TempDir(), "data"), Listen: "localhost:0", Drain: drain})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- a.Run(ctx, func() { close(ready) }) }()
	<-ready
	_, key, err := a.People.IssueKey(t.Context(), account.NewKey{Environment: accounttest.Owner(t, a.People).Environment(), Name: "reader", Scopes: []account.Scope{account.ScopeAuditRead}})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.PublicURL().String()+"/v1/audit/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+string(key.Reveal()))
	resp, err := plainClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := resp.Body.Read(make([]byte, 1)); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("opening the stream: %d, %v", resp.StatusCode, err)
	}
	start := time.Now()
	cancel()
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(rest), "stream_ended") {
		t.Errorf("the stream ended with %q, %v", rest, err)
	}
	if err := <-done; err != nil {
		t.Errorf("the server stopped with %v", err)
	}
	if took := time.Since(start); took > drain/2 {
		t.Errorf("the shutdown took %v", took)
	}
}

// S17: only a configured proxy says where a client is.
func TestForwardedForIsBelievedFromProxiesOnly(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		trusted []netip.Prefix
		want    string
	}{
		"nobody is trusted": {nil, "127.0.0.1"},
		"the peer is":       {[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}, "198.51.100.7"},
	} {
		a, err := app.New(t.Context(), app.Config{DataDir: filepath.Join(t.TempDir(), "data"), Listen: "localhost:0", TrustedProxies: row.trusted})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = "127.0.0.1:5555"
		r.Header.Set("X-Forwarded-For", "203.0.113.9, 198.51.100.7, 10.1.2.3")
		if got := a.Client(r); got != row.want {
			t.Errorf("%s: the client is %q, want %q", name, got, row.want)
		}
	}
}

// Certificates are read again when they change, without a restart.
func TestCertificatesReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePair(t, cert, key, "first.example")
	a := run(t, app.Config{TLSCert: cert, TLSKey: key, PublicURL: "https://localhost"})
	name := func() string {
		conn, err := tls.Dial("tcp", a.Addresses()[0], &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := name(); got != "first.example" {
		t.Fatalf("serves %q", got)
	}
	writePair(t, cert, key, "second.example")
	later := time.Now().Add(time.Minute)
	if err := os.Chtimes(cert, later, later); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); name() != "second.example"; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("still serves the old certificate")
		}
	}
	if err := os.WriteFile(cert, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := name(); got != "second.example" {
		t.Errorf("a broken file took the certificate away: %q", got)
	}
	if _, err := tls.Dial("tcp", a.Addresses()[0], &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is accepted")
	}
}

func writePair(t *testing.T, cert, key, name string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// W5: half a header does not hold a connection for long.
func TestSlowHeadersAreCut(t *testing.T) {
	t.Parallel()
	a := run(t, app.Config{})
	conn, err := net.Dial("tcp", a.Addresses()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nX-Half:", a.PublicURL().Host)
	if err := conn.SetReadDeadline(time.Now().Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err = io.ReadAll(conn)
	if err != nil {
		t.Fatalf("the connection stayed open for %v: %v", time.Since(start), err)
	}
}
