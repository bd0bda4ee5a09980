// Package awstest plays AWS KMS and STS for tests: the JSON 1.1 and query
// protocols, SigV4 verified, keys that really encrypt and are bound to their
// encryption context. Keys are set up by the test.
package awstest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Region is the only one there is.
const Region = "eu-central-1"

// The credentials that the service knows.
const (
	AccessKey = "AKIAAMBITTESTKEY0001"
	SecretKey = "canary/aws+secret+access+key/0123456789"
	// RoleSecret and RoleToken are those of an assumed role.
	RoleSecret = "canary/aws+role+secret+key/9876543210"
	RoleToken  = "canary-aws-session-token"
	// WebIdentity is the token of an issuer that is trusted.
	WebIdentity = "canary-web-identity-token"
	roleAccess  = "ASIAAMBITTESTROLE001"
)

// Key is a key of KMS.
type Key struct {
	ARN string

	mu       sync.Mutex
	roots    []secret.Value // by version; the last one wraps
	state    string
	contexts []map[string]string // that were asked with
	allows   []map[string]string // of the encryption context, one of them; none: whatever
}

// Server is the service.
type Server struct {
	*keyringtest.Service
	mu    sync.Mutex
	keys  map[string]*Key // by ARN, id and alias
	roles map[string]string
	creds map[string]string // secret by access key

	stored []StoredSecret // of Secrets Manager
}

// New starts the service with no keys.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{keys: map[string]*Key{}, roles: map[string]string{}, creds: map[string]string{AccessKey: SecretKey, roleAccess: RoleSecret}}
	s.Service = keyringtest.NewService(t, s, func(w http.ResponseWriter) {
		fail(w, http.StatusBadRequest, "ThrottlingException", "Rate exceeded")
	})
	return s
}

// Key makes a key. aliases are further names of it.
func (s *Server) Key(aliases ...string) *Key {
	raw := make([]byte, 16)
	_, _ = rand.Read(raw)
	id := fmt.Sprintf("%x-%x-%x-%x-%x", raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:])
	k := &Key{ARN: "arn:aws:kms:" + Region + ":111122223333:key/" + id, state: "Enabled"}
	k.Rotate()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range append(aliases, id, k.ARN) {
		s.keys[name] = k
	}
	return k
}

// Role lets the caller assume a role with an external id.
func (s *Server) Role(arn, external string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[arn] = external
}

// Forget deletes the caller's access key.
func (s *Server) Forget(access string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.creds, access)
}

// Options reach the service with the caller's credentials.
func (s *Server) Options(t testing.TB) keyring.Options {
	o := keyringtest.HTTP(t, s.Service)
	o.Env = keyringtest.Settings(map[string]string{
		"AWS_ACCESS_KEY_ID": AccessKey, "AWS_SECRET_ACCESS_KEY": SecretKey, "AWS_ENDPOINT_URL": s.URL, "AWS_REGION": Region,
	})
	return o
}

// Rotate gives the key new material; the old stays for what it encrypted.
func (k *Key) Rotate() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.roots = append(k.roots, crypt.NewSeed())
}

// Be sets the state: Enabled, Disabled, PendingDeletion or Denied (by policy).
func (k *Key) Be(state string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = state
}

// Allow is a policy of the key: it takes calls whose encryption context has the items
// of one of the statements.
func (k *Key) Allow(statements ...map[string]string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.allows = statements
}

func (k *Key) allowed(context map[string]string) bool {
	return len(k.allows) == 0 || slices.ContainsFunc(k.allows, func(statement map[string]string) bool {
		for name, v := range statement {
			if context[name] != v {
				return false
			}
		}
		return true
	})
}

// Contexts are the encryption contexts that were asked with, as CloudTrail shows
// them.
func (k *Key) Contexts() []map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.contexts)
}

func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-RequestId", "11112222-3333-4444-5555-666677778888")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
}

type request struct {
	KeyID             string            `json:"KeyId"`
	Plaintext         []byte            `json:"Plaintext"`
	CiphertextBlob    []byte            `json:"CiphertextBlob"`
	EncryptionContext map[string]string `json:"EncryptionContext"`
}

// ServeHTTP answers one request. What it says to people quotes the request, as
// AWS does: nothing of it may reach a log.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	quote := fmt.Sprint(r.Header) + string(body)
	s.mu.Lock()
	creds := maps.Clone(s.creds)
	s.mu.Unlock()
	if strings.Contains(string(body), "Action=AssumeRoleWithWebIdentity") {
		s.assume(w, string(body), quote)
		return
	}
	access, code := verify(r, body, creds, time.Now())
	if code == "" && access == roleAccess && r.Header.Get("X-Amz-Security-Token") != RoleToken {
		code = "UnrecognizedClientException"
	}
	if code != "" {
		fail(w, http.StatusBadRequest, code, "The canonical request was "+quote)
		return
	}
	if operation, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "secretsmanager."); ok {
		s.secretsManager(w, operation, body, quote)
		return
	}
	target, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	if !ok {
		s.assume(w, string(body), quote)
		return
	}
	var in request
	if r.Header.Get("Content-Type") != "application/x-amz-json-1.1" || json.Unmarshal(body, &in) != nil {
		fail(w, http.StatusBadRequest, "SerializationException", quote)
		return
	}
	s.mu.Lock()
	k := s.keys[in.KeyID]
	s.mu.Unlock()
	if k == nil {
		fail(w, http.StatusBadRequest, "NotFoundException", quote)
		return
	}
	out, code := k.do(target, in)
	if code != "" {
		fail(w, http.StatusBadRequest, code, quote)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(out)
}

func (k *Key) do(target string, in request) (out map[string]any, code string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch k.state {
	case "Disabled":
		return nil, "DisabledException"
	case "PendingDeletion":
		return nil, "KMSInvalidStateException"
	case "Denied":
		return nil, "AccessDeniedException"
	}
	if !k.allowed(in.EncryptionContext) {
		return nil, "AccessDeniedException"
	}
	k.contexts = append(k.contexts, in.EncryptionContext)
	switch target {
	case "Encrypt":
		return k.encrypt(in)
	case "Decrypt":
		return k.decrypt(in)
	case "DescribeKey":
		return map[string]any{"KeyMetadata": map[string]any{"KeyId": k.ARN[strings.LastIndex(k.ARN, "/")+1:], "Arn": k.ARN, "KeyState": k.state,
			"Enabled": true, "KeyUsage": "ENCRYPT_DECRYPT", "KeySpec": "SYMMETRIC_DEFAULT"}}, ""
	}
	return nil, "UnknownOperationException"
}

// A blob is the digest of its key's ARN, the version and the sealed plaintext.
const headLen = sha256.Size + 4

func (k *Key) encrypt(in request) (map[string]any, string) {
	if len(in.Plaintext) == 0 || len(in.Plaintext) > 4096 {
		return nil, "ValidationException"
	}
	head := sha256.Sum256([]byte(k.ARN))
	blob := binary.BigEndian.AppendUint32(head[:], uint32(len(k.roots)-1))
	sealed, err := crypt.WrapKey(k.roots[len(k.roots)-1], secret.New(in.Plaintext), canonicalContext(blob, in.EncryptionContext))
	if err != nil {
		return nil, "KMSInternalException"
	}
	return map[string]any{"KeyId": k.ARN, "CiphertextBlob": append(blob, sealed...), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}, ""
}

func (k *Key) decrypt(in request) (map[string]any, string) {
	if len(in.CiphertextBlob) <= headLen {
		return nil, "InvalidCiphertextException"
	}
	head, sealed := in.CiphertextBlob[:headLen], in.CiphertextBlob[headLen:]
	if own := sha256.Sum256([]byte(k.ARN)); string(own[:]) != string(head[:sha256.Size]) {
		return nil, "IncorrectKeyException"
	}
	version := binary.BigEndian.Uint32(head[sha256.Size:])
	if int(version) >= len(k.roots) {
		return nil, "InvalidCiphertextException"
	}
	plain, err := crypt.UnwrapKey(k.roots[version], sealed, canonicalContext(head, in.EncryptionContext))
	if err != nil {
		return nil, "InvalidCiphertextException"
	}
	return map[string]any{"KeyId": k.ARN, "Plaintext": plain.Reveal(), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}, ""
}

func canonicalContext(head []byte, items map[string]string) []byte {
	parts := []string{hex.EncodeToString(head)}
	for _, name := range slices.Sorted(maps.Keys(items)) {
		parts = append(parts, name, items[name])
	}
	return crypt.Fields(parts...)
}
