// Package azuretest plays Azure Key Vault, Managed HSM and the token endpoint of
// Entra for tests: the challenge first, keys with versions that really wrap
// (RSA-OAEP-256, A256KW) and sign. Keys are set up by the test.
package azuretest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
)

// The hosts of the two services.
const (
	Vault = "ambit-test.vault.azure.net"
	HSM   = "ambit-test.managedhsm.azure.net"
)

// Key is a key of a vault, or of Managed HSM, where it is an AES key.
type Key struct {
	URI string // as Open takes it

	host, name string
	mu         sync.Mutex
	versions   []string
	rsa        map[string]*rsa.PrivateKey
	aes        map[string][]byte
	disabled   bool
	deleted    bool
	denied     map[string]bool // by operation
	pool       []*rsa.PrivateKey
}

// Server is both services.
type Server struct {
	*keyringtest.Service
	entra
	// Challenges counts how often a token was asked for.
	Challenges int

	mu   sync.Mutex
	keys map[string]*Key
}

// rsaKeys are made once for all tests: each takes a while.
var rsaKeys = sync.OnceValue(func() (keys []*rsa.PrivateKey) {
	for range 4 {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys = append(keys, k)
	}
	return keys
})

// New starts the services with no keys.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{keys: map[string]*Key{}}
	s.Service = keyringtest.NewService(t, s, func(w http.ResponseWriter) {
		w.Header().Set("Retry-After", "4")
		fail(w, http.StatusTooManyRequests, "Throttled", "Request was not processed because too many requests were received")
	})
	return s
}

// RSA makes a key of the vault, and AES one of the HSM.
func (s *Server) RSA(name string) *Key { return s.add(Vault, name) }

// AES makes an AES key of Managed HSM.
func (s *Server) AES(name string) *Key { return s.add(HSM, name) }

func (s *Server) add(host, name string) *Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := &Key{URI: "azurekv://" + host + "/keys/" + name, host: host, name: name, rsa: map[string]*rsa.PrivateKey{}, aes: map[string][]byte{}, denied: map[string]bool{}}
	if host == Vault {
		// A second key of one server begins elsewhere in the pool.
		k.pool = append(rsaKeys()[2*len(s.keys)%4:], rsaKeys()...)
	}
	k.Rotate()
	s.keys[name] = k
	return k
}

// Options reach the services with a client secret.
func (s *Server) Options(t testing.TB) keyring.Options {
	o := keyringtest.HTTP(t, s.Service)
	s.Detour(&o, Vault, HSM, "login.microsoftonline.com", "login.microsoft.com", "169.254.169.254")
	o.Env = keyringtest.Settings(map[string]string{"AZURE_TENANT_ID": Tenant, "AZURE_CLIENT_ID": Client, "AZURE_CLIENT_SECRET": ClientSecret})
	return o
}

// Rotate makes a new version.
func (k *Key) Rotate() {
	k.mu.Lock()
	defer k.mu.Unlock()
	raw := make([]byte, 16)
	_, _ = rand.Read(raw)
	v := hex.EncodeToString(raw)
	k.versions = append(k.versions, v)
	if k.host == HSM {
		k.aes[v] = crypt.NewSeed().Reveal()
		return
	}
	k.rsa[v] = k.pool[(len(k.versions)-1)%len(k.pool)]
}

// Disable and Delete what they say; Deny takes away one operation: wrapkey,
// unwrapkey, sign.
func (k *Key) Disable(yes bool) { k.set(func() { k.disabled = yes }) }

// Delete takes the key away.
func (k *Key) Delete() { k.set(func() { k.deleted = true }) }

// Deny takes one operation away.
func (k *Key) Deny(operation string) { k.set(func() { k.denied[operation] = true }) }

func (k *Key) set(fn func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	fn()
}

// Public is what anybody may know who can read the key: its newest version and
// public half.
func (k *Key) Public() (version string, public *rsa.PublicKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	version = k.versions[len(k.versions)-1]
	return version, &k.rsa[version].PublicKey
}

func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "message": message}})
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if parts[0] != "keys" {
		s.issue(w, r)
		return
	}
	quote := fmt.Sprint(" of ", r.Header)
	s.mu.Lock()
	k := s.keys[parts[1]]
	s.mu.Unlock()
	host := Vault
	if k != nil {
		host = k.host
	}
	audience := "https://" + host[strings.Index(host, ".")+1:]
	if !s.knows(r.Header.Get("Authorization"), audience) {
		s.mu.Lock()
		s.Challenges++
		s.mu.Unlock()
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer authorization="https://login.microsoftonline.com/%s", resource="%s"`, Tenant, audience))
		fail(w, http.StatusUnauthorized, "Unauthorized", "AKV10000: Request is missing a Bearer token"+quote)
		return
	}
	if k == nil {
		fail(w, http.StatusNotFound, "KeyNotFound", "no such key"+quote)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.serve(w, r, parts[2:], quote)
}

type message struct {
	Algorithm string `json:"alg,omitempty"`
	Value     string `json:"value"`
	KID       string `json:"kid,omitempty"`
}

func (k *Key) serve(w http.ResponseWriter, r *http.Request, rest []string, quote string) {
	version, operation := k.versions[len(k.versions)-1], ""
	switch len(rest) { // the newest version is an empty segment, or none
	case 2:
		operation = rest[1]
		if rest[0] != "" {
			version = rest[0]
		}
	case 1:
		if operation = rest[0]; r.Method == http.MethodGet {
			version, operation = rest[0], "get"
		}
	default:
		operation = "get"
	}
	kid := "https://" + k.host + "/keys/" + k.name + "/" + version
	switch {
	case k.deleted || k.rsa[version] == nil && k.aes[version] == nil:
		fail(w, http.StatusNotFound, "KeyNotFound", "A key with this name and version was not found"+quote)
		return
	case k.denied[operation]:
		fail(w, http.StatusForbidden, "Forbidden", "Caller is not authorized to perform action on resource"+quote)
		return
	case k.disabled && operation != "get":
		fail(w, http.StatusForbidden, "Forbidden", "Operation "+operation+" is not allowed on a disabled key"+quote)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if operation == "get" {
		_ = json.NewEncoder(w).Encode(map[string]any{"key": map[string]any{"kid": kid, "kty": "RSA"}, "attributes": map[string]any{"enabled": !k.disabled}})
		return
	}
	var in message
	err := json.NewDecoder(r.Body).Decode(&in)
	value, verr := base64.RawURLEncoding.DecodeString(in.Value)
	out, derr := k.do(version, operation, in.Algorithm, value)
	if err != nil || verr != nil || derr != nil {
		fail(w, http.StatusBadRequest, "BadParameter", "The parameter is incorrect"+quote)
		return
	}
	_ = json.NewEncoder(w).Encode(message{KID: kid, Value: base64.RawURLEncoding.EncodeToString(out)})
}

func (k *Key) do(version, operation, algorithm string, value []byte) ([]byte, error) {
	private, symmetric := k.rsa[version], k.aes[version]
	switch {
	case private != nil && algorithm == "RSA-OAEP-256" && operation == "wrapkey":
		return rsa.EncryptOAEP(sha256.New(), rand.Reader, &private.PublicKey, value, nil)
	case private != nil && algorithm == "RSA-OAEP-256" && operation == "unwrapkey":
		return rsa.DecryptOAEP(sha256.New(), nil, private, value, nil)
	case private != nil && algorithm == "RS256" && operation == "sign":
		return rsa.SignPKCS1v15(nil, private, crypto.SHA256, value)
	case symmetric != nil && algorithm == "A256KW" && operation == "wrapkey":
		return wrap(symmetric, value)
	case symmetric != nil && algorithm == "A256KW" && operation == "unwrapkey":
		return unwrap(symmetric, value)
	}
	return nil, fmt.Errorf("not for this key")
}
