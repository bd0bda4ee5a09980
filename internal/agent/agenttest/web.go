package agenttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Web is a place in the world that the server may fetch from: documents by path.
type Web struct {
	URL string

	host string
	mu   sync.Mutex
	docs map[string]string
	seen map[string]int
}

func newWeb(t testing.TB) *Web {
	w := &Web{docs: map[string]string{}, seen: map[string]int{}}
	ts := httptest.NewServer(w)
	t.Cleanup(ts.Close)
	w.URL, w.host = ts.URL, strings.TrimPrefix(ts.URL, "http://")
	return w
}

// ServeHTTP answers with a document that was put there. One that begins with an
// arrow is a redirect.
func (w *Web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	doc, ok := w.docs[r.URL.Path]
	w.seen[r.URL.Path]++
	w.mu.Unlock()
	if to, redirect := strings.CutPrefix(doc, "->"); redirect {
		http.Redirect(rw, r, to, http.StatusFound)
		return
	}
	if !ok {
		http.NotFound(rw, r)
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprint(rw, doc)
}

// Put puts a document at a path, with the address of this place for %s, and gives
// its address.
func (w *Web) Put(path, doc string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.docs[path] = strings.ReplaceAll(doc, "%s", w.URL)
	return w.URL + path
}

// Seen is how often a path was fetched.
func (w *Web) Seen(path string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[path]
}

// Signer is a key that signs JWTs.
type Signer struct {
	ID  string
	key *ecdsa.PrivateKey
}

// NewSigner makes a key.
func NewSigner(t testing.TB, name string) Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return Signer{name, k}
}

// Set is the JWK Set of the public keys of signers.
func Set(signers ...Signer) string {
	var set jose.JSONWebKeySet
	for _, s := range signers {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: s.key.Public(), KeyID: s.ID, Use: "sig", Algorithm: "ES256"})
	}
	out, _ := json.Marshal(set)
	return string(out)
}

// Private is the JWK Set of the signer's private key.
func (s Signer) Private() string {
	out, _ := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: s.key, KeyID: s.ID}}})
	return string(out)
}

// Sign makes a JWT of claims.
func (s Signer) Sign(t testing.TB, claims map[string]any) secret.Value {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: s.key, KeyID: s.ID}}, nil)
	must(t, err)
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	must(t, err)
	return secret.FromString(text)
}

// Assertion is the JWT by which a client proves itself, good for a minute; over
// changes claims, nil takes one away.
func (w *World) Assertion(t testing.TB, s Signer, client string, over map[string]any) agent.ClientAuth {
	t.Helper()
	now := w.Clock.Now()
	claims := map[string]any{"iss": client, "sub": client, "aud": PublicURL, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix()}
	for name, v := range over {
		if claims[name] = v; v == nil {
			delete(claims, name)
		}
	}
	return agent.ClientAuth{Assertion: s.Sign(t, claims)}
}
