// Package gcptest plays Google Cloud KMS, its token endpoint and IAM Credentials
// for tests: JSON over REST, CRC32C checked and given, keys with versions that
// really encrypt. Keys are set up by the test.
package gcptest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Key is a key of Cloud KMS.
type Key struct {
	Name string

	mu      sync.Mutex
	roots   []secret.Value // by version; the last one is primary
	states  []string
	denied  bool
	corrupt bool
}

// Server is the service.
type Server struct {
	*keyringtest.Service
	issuer

	mu   sync.Mutex
	keys map[string]*Key
}

// New starts the service with no keys and one service account.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{keys: map[string]*Key{}}
	s.Service = keyringtest.NewService(t, s, func(w http.ResponseWriter) {
		w.Header().Set("Retry-After", "3")
		fail(w, http.StatusTooManyRequests, "RESOURCE_EXHAUSTED", "Quota exceeded")
	})
	s.start(t, s.URL)
	return s
}

// Key makes a key.
func (s *Server) Key(name string) *Key {
	k := &Key{Name: "projects/customer/locations/europe-west3/keyRings/ring/cryptoKeys/" + name}
	k.Rotate()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[k.Name] = k
	return k
}

// Options reach the service with the file of the service account.
func (s *Server) Options(t testing.TB) keyring.Options {
	o := keyringtest.HTTP(t, s.Service)
	s.Detour(&o, "iamcredentials.googleapis.com", "169.254.169.254")
	o.Env = keyringtest.Settings(map[string]string{
		"GOOGLE_APPLICATION_CREDENTIALS": s.file, "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS": s.URL,
	})
	return o
}

// Rotate makes a new primary version.
func (k *Key) Rotate() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.roots, k.states = append(k.roots, crypt.NewSeed()), append(k.states, "ENABLED")
}

// Be sets the state of all versions: ENABLED, DISABLED, DESTROYED.
func (k *Key) Be(state string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.states {
		k.states[i] = state
	}
}

// BeVersion sets the state of one, counted from 1.
func (k *Key) BeVersion(version int, state string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.states[version-1] = state
}

// Deny takes away the caller's right to the key.
func (k *Key) Deny(yes bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.denied = yes
}

// Corrupt flips a bit of each answer after its checksum was made.
func (k *Key) Corrupt(yes bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.corrupt = yes
}

func fail(w http.ResponseWriter, code int, status, message string) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "status": status, "message": message}})
}

type message struct {
	Name      string `json:"name"`
	Plain     []byte `json:"plaintext"`
	Cipher    []byte `json:"ciphertext"`
	AAD       []byte `json:"additionalAuthenticatedData"`
	PlainSum  string `json:"plaintextCrc32c"`
	CipherSum string `json:"ciphertextCrc32c"`
	AADSum    string `json:"additionalAuthenticatedDataCrc32c"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sum(b []byte) string {
	return strconv.FormatUint(uint64(crc32.Checksum(b, castagnoli)), 10)
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.issue(w, r) {
		return
	}
	quote := fmt.Sprint(" of ", r.Header)
	if !s.knows(r.Header.Get("Authorization")) {
		fail(w, http.StatusUnauthorized, "UNAUTHENTICATED", "Invalid credentials"+quote)
		return
	}
	name, verb, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/"), ":")
	var in message
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Name != name || r.Header.Get("X-Goog-Request-Params") == "" {
		fail(w, http.StatusBadRequest, "INVALID_ARGUMENT", "not understood"+quote)
		return
	}
	s.mu.Lock()
	k := s.keys[name]
	s.mu.Unlock()
	if k == nil {
		fail(w, http.StatusNotFound, "NOT_FOUND", "CryptoKey not found"+quote)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.denied {
		fail(w, http.StatusForbidden, "PERMISSION_DENIED", "Permission denied"+quote)
		return
	}
	var out map[string]any
	var status, text string
	switch verb {
	case "encrypt":
		out, status, text = k.encrypt(in)
	case "decrypt":
		out, status, text = k.decrypt(in)
	default:
		status, text = "INVALID_ARGUMENT", "no such method"
	}
	if status != "" {
		fail(w, http.StatusBadRequest, status, text+quote)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	_ = json.NewEncoder(w).Encode(out)
}

const badSum = "The checksum in a field did not match the data"

// A blob is the digest of its key's name, the version and the sealed plaintext.
const headLen = sha256.Size + 4

func (k *Key) encrypt(in message) (map[string]any, string, string) {
	version := len(k.roots)
	switch {
	case in.PlainSum != sum(in.Plain) || in.AADSum != sum(in.AAD):
		return nil, "INVALID_ARGUMENT", badSum
	case k.states[version-1] != "ENABLED":
		return nil, "FAILED_PRECONDITION", "The primary version is " + k.states[version-1]
	}
	head := sha256.Sum256([]byte(k.Name))
	blob := binary.BigEndian.AppendUint32(head[:], uint32(version))
	sealed, err := crypt.WrapKey(k.roots[version-1], secret.New(in.Plain), crypt.Fields(string(blob), string(in.AAD)))
	if err != nil {
		return nil, "INTERNAL", "broken"
	}
	blob = append(blob, sealed...)
	out := map[string]any{"name": fmt.Sprintf("%s/cryptoKeyVersions/%d", k.Name, version), "ciphertextCrc32c": sum(blob),
		"verifiedPlaintextCrc32c": true, "verifiedAdditionalAuthenticatedDataCrc32c": true, "protectionLevel": 1}
	out["ciphertext"] = k.flip(blob)
	return out, "", ""
}

func (k *Key) decrypt(in message) (map[string]any, string, string) {
	const no = "Decryption failed: verify that 'name' refers to the correct CryptoKey."
	if in.CipherSum != sum(in.Cipher) || in.AADSum != sum(in.AAD) {
		return nil, "INVALID_ARGUMENT", badSum
	}
	own := sha256.Sum256([]byte(k.Name))
	if len(in.Cipher) <= headLen || string(in.Cipher[:sha256.Size]) != string(own[:]) {
		return nil, "INVALID_ARGUMENT", no
	}
	head, sealed := in.Cipher[:headLen], in.Cipher[headLen:]
	version := int(binary.BigEndian.Uint32(head[sha256.Size:]))
	if version < 1 || version > len(k.roots) {
		return nil, "INVALID_ARGUMENT", no
	}
	if state := k.states[version-1]; state != "ENABLED" {
		return nil, "FAILED_PRECONDITION", "The version is " + state
	}
	plain, err := crypt.UnwrapKey(k.roots[version-1], sealed, crypt.Fields(string(head), string(in.AAD)))
	if err != nil {
		return nil, "INVALID_ARGUMENT", no
	}
	return map[string]any{"plaintext": k.flip(plain.Reveal()), "plaintextCrc32c": sum(plain.Reveal()), "usedPrimary": version == len(k.roots), "protectionLevel": 1}, "", ""
}

func (k *Key) flip(b []byte) []byte {
	b = append([]byte(nil), b...)
	if k.corrupt {
		b[0] ^= 1
	}
	return b
}
