package gcptest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// The accounts and tokens that the service knows.
const (
	Account      = "ambit@operator.iam.gserviceaccount.com"
	Impersonated = "ambit@customer.iam.gserviceaccount.com"
	ownToken     = "canary-gcp-own-token"
	otherToken   = "canary-gcp-impersonated-token"
	instanceTok  = "canary-gcp-instance-token"
)

// Tokens are what must be told to nobody.
var Tokens = []string{ownToken, otherToken, instanceTok}

// issuer gives tokens: to who signs with the account's key (RFC 7523), to who may
// act as another account, and to the instance.
type issuer struct {
	key  *rsa.PrivateKey
	file string
	aud  string

	mu      sync.Mutex
	deleted bool
}

func (i *issuer) start(t testing.TB, base string) {
	t.Helper()
	var err error
	if i.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		t.Fatal(err)
	}
	i.aud, i.file = base+"/token", filepath.Join(t.TempDir(), "account.json")
	doc, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "operator", "private_key_id": "k1", "client_email": Account, "client_id": "1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": i.aud,
	})
	if err == nil {
		err = os.WriteFile(i.file, doc, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// DeleteAccount makes the issuer know the account no more.
func (i *issuer) DeleteAccount() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.deleted = true
}

func (i *issuer) knows(authorization string) bool {
	token, ok := strings.CutPrefix(authorization, "Bearer ")
	return ok && (token == ownToken || token == otherToken || token == instanceTok)
}

// issue answers requests for tokens, and says whether this was one.
func (i *issuer) issue(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case r.URL.Path == "/token":
		i.exchange(w, r)
	case strings.HasSuffix(r.URL.Path, ":generateAccessToken"):
		want := "/v1/projects/-/serviceAccounts/" + Impersonated + ":generateAccessToken"
		if r.Header.Get("Authorization") != "Bearer "+ownToken || r.URL.Path != want {
			fail(w, http.StatusForbidden, "PERMISSION_DENIED", fmt.Sprint("not allowed with ", r.Header))
			break
		}
		answer(w, map[string]any{"accessToken": otherToken, "expireTime": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)})
	case strings.HasPrefix(r.URL.Path, "/computeMetadata/v1/instance/service-accounts/default/token"):
		if r.Header.Get("Metadata-Flavor") != "Google" {
			http.Error(w, "no", http.StatusForbidden)
			break
		}
		w.Header().Set("Metadata-Flavor", "Google")
		answer(w, map[string]any{"access_token": instanceTok, "expires_in": 3600, "token_type": "Bearer"})
	default:
		return false
	}
	return true
}

func (i *issuer) exchange(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(body))
	i.mu.Lock()
	deleted := i.deleted
	i.mu.Unlock()
	if form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" || !i.signed(form.Get("assertion")) || deleted {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant", "error_description": "account not found: " + string(body)})
		return
	}
	answer(w, map[string]any{"access_token": ownToken, "expires_in": 3600, "token_type": "Bearer"})
}

// signed checks an assertion (RFC 7519, RS256).
func (i *issuer) signed(assertion string) bool {
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		return false
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err != nil || rsa.VerifyPKCS1v15(&i.key.PublicKey, crypto.SHA256, digest[:], sig) != nil {
		return false
	}
	doc, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Iss, Aud, Scope string
		Exp             int64
	}
	return err == nil && json.Unmarshal(doc, &claims) == nil && claims.Iss == Account && claims.Aud == i.aud &&
		strings.HasPrefix(claims.Scope, "https://www.googleapis.com/auth/cloud") && time.Unix(claims.Exp, 0).After(time.Now())
}

func answer(w http.ResponseWriter, doc any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(doc)
}
