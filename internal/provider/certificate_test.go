package provider_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/provider"
)

// clientPair makes a certificate and its key, as a person would give them.
func clientPair(t *testing.T, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, about, about, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// Issue 5, mTLS: a client certificate is shown in the handshake of its own
// connection's calls, and on no connection that somebody else uses (S14).
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	var conns atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			who = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"who":"` + who + `","key":"` + r.Header.Get("X-Key") + `"}`))
	}))
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	client, err := outbound.New(outbound.Policy{Allow: []string{strings.TrimPrefix(srv.URL, "https://")}, Roots: roots})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	rec := parse(t, "id: bank\nname: Bank\nauth: api_key\napi: {base: [\""+srv.URL+"\"]}\ngeneric: {read: true}\n"+
		"fields:\n  - {name: certificate, title: Certificate, public: true, lines: true}\n  - {name: private_key, title: Key, lines: true}\n  - {name: token, title: Token}\n"+
		"inject: {client_certificate: true, headers: {X-Key: \"{token}\"}}\n")
	tool, _ := rec.Tool("bank_read")
	req, err := tool.Build([]byte(`{"path":"/me"}`), rec.API.Base...)
	if err != nil {
		t.Fatal(err)
	}
	call := func(cert, key string) (provider.Answer, error) {
		c := credential(provider.APIKey, "certificate", cert, "private_key", key, "token", "s3cret-token")
		c.Party = "one"
		return provider.Call(t.Context(), client, rec.Pinned(), rec, tool, req, c)
	}
	ann, annKey := clientPair(t, "ann")
	bob, bobKey := clientPair(t, "bob")
	for _, c := range []struct{ cert, key, want string }{{ann, annKey, "ann"}, {bob, bobKey, "bob"}, {ann, annKey, "ann"}} {
		a, err := call(c.cert, c.key)
		if err != nil || !strings.Contains(string(a.Body), `"who":"`+c.want+`"`) || strings.Contains(string(a.Body), "s3cret-token") {
			t.Errorf("as %s: %s, %v", c.want, a.Body, err)
		}
	}
	if n := conns.Load(); n != 3 {
		t.Errorf("%d connections for three calls: one with a certificate was used again", n)
	}
	if _, err := call(ann, bobKey); !fault.Is(err, "credential_unusable") {
		t.Errorf("a key of another certificate: %v", err)
	}
}
