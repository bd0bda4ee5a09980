// Package issuertest is a small issuer on loopback: an OpenID provider with one
// person at its keyboard, whose keys and tokens tests can bend.
package issuertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Client is how we are registered there.
const (
	ClientID = "ambit"
	Secret   = "a secret of the client / and + characters"
)

// Issuer is the provider.
type Issuer struct {
	URL  string
	Host string // host:port

	mu      sync.Mutex
	keys    []jose.JSONWebKey // the last one signs
	subject string
	codes   map[string]request
	bend    func(claims map[string]any)
	now     func() time.Time
	looks   map[string]int
	hidden  bool
}

type request struct {
	redirect, challenge, nonce, subject string
	at                                  time.Time
}

// New starts an issuer with one key, at whose keyboard somebody called subject sits.
func New(t testing.TB, subject string, now func() time.Time) *Issuer {
	t.Helper()
	i := &Issuer{subject: subject, codes: map[string]request{}, now: now, looks: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", i.metadata)
	mux.HandleFunc("GET /keys", i.publicKeys)
	mux.HandleFunc("GET /authorize", i.authorize)
	mux.HandleFunc("POST /token", i.token)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	i.URL = server.URL
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	i.Host = u.Host
	i.Rotate()
	return i
}

// Rotate has the issuer sign with a new key, and forget those from before.
func (i *Issuer) Rotate() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = []jose.JSONWebKey{{Key: key, KeyID: rand.Text(), Algorithm: string(jose.ES256), Use: "sig"}}
}

// Hide takes the keys from where the issuer says that they are.
func (i *Issuer) Hide() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.hidden = true
}

// Sit puts somebody else at the keyboard.
func (i *Issuer) Sit(subject string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.subject = subject
}

// Bend changes the claims of every ID token; nil: none.
func (i *Issuer) Bend(f func(claims map[string]any)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.bend = f
}

// Looks says how often a path was asked for.
func (i *Issuer) Looks(path string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.looks[path]
}

// Sign makes a JWT with the issuer's key.
func (i *Issuer) Sign(t testing.TB, claims map[string]any) string {
	t.Helper()
	out, err := i.sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (i *Issuer) sign(claims map[string]any) (string, error) {
	i.mu.Lock()
	key := i.keys[len(i.keys)-1]
	i.mu.Unlock()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(claims).Serialize()
}

func (i *Issuer) saw(r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.looks[r.URL.Path]++
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func (i *Issuer) metadata(w http.ResponseWriter, r *http.Request) {
	i.saw(r)
	answer(w, http.StatusOK, map[string]any{"issuer": i.URL, "authorization_endpoint": i.URL + "/authorize", "token_endpoint": i.URL + "/token", "jwks_uri": i.URL + "/keys",
		"authorization_response_iss_parameter_supported": true})
}

func (i *Issuer) publicKeys(w http.ResponseWriter, r *http.Request) {
	i.saw(r)
	var set jose.JSONWebKeySet
	i.mu.Lock()
	for _, k := range i.keys {
		set.Keys = append(set.Keys, k.Public())
	}
	hidden := i.hidden
	i.mu.Unlock()
	if hidden {
		http.NotFound(w, r)
		return
	}
	answer(w, http.StatusOK, set)
}

// authorize signs whoever sits there in at once.
func (i *Issuer) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("response_type") != "code" || q.Get("client_id") != ClientID || q.Get("code_challenge_method") != "S256" || q.Get("state") == "" || q.Get("nonce") == "" {
		http.Error(w, "invalid request", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	i.mu.Lock()
	i.codes[code] = request{redirect: q.Get("redirect_uri"), challenge: q.Get("code_challenge"), nonce: q.Get("nonce"), subject: i.subject, at: i.now()}
	i.mu.Unlock()
	back := url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {i.URL}}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusSeeOther)
}

// Answer is what a browser that was sent to address brings back.
func (i *Issuer) Answer(t testing.TB, address string) url.Values {
	t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	resp, err := client.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	back, err := resp.Location()
	if err != nil {
		t.Fatalf("the provider answered %d: %v", resp.StatusCode, err)
	}
	return back.Query()
}

func (i *Issuer) token(w http.ResponseWriter, r *http.Request) {
	i.saw(r)
	user, pass, _ := r.BasicAuth()
	if name, _ := url.QueryUnescape(user); name != ClientID {
		answer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
		return
	}
	if key, _ := url.QueryUnescape(pass); key != Secret {
		answer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
		return
	}
	code := r.PostFormValue("code")
	i.mu.Lock()
	req, ok := i.codes[code]
	delete(i.codes, code)
	bend := i.bend
	i.mu.Unlock()
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !ok || req.redirect != r.PostFormValue("redirect_uri") || base64.RawURLEncoding.EncodeToString(sum[:]) != req.challenge {
		answer(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant"})
		return
	}
	now := i.now()
	claims := map[string]any{"iss": i.URL, "aud": ClientID, "sub": req.subject, "nonce": req.nonce, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "auth_time": req.at.Unix(),
		"name": "Person " + req.subject, "email": "somebody@example.com", "email_verified": true}
	if bend != nil {
		claims = maps.Clone(claims)
		bend(claims)
	}
	signed, err := i.sign(claims)
	if err != nil {
		answer(w, http.StatusInternalServerError, map[string]string{"error": "server_error"})
		return
	}
	answer(w, http.StatusOK, map[string]any{"access_token": "opaque", "token_type": "Bearer", "id_token": signed})
}
