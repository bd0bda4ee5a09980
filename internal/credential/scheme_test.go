package credential_test

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// rsaKey makes a private key as a person would give it.
func rsaKey(t *testing.T) (string, *rsa.PublicKey) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	gatewaytest.Must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	gatewaytest.Must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), &key.PublicKey
}

// claims checks the signature of a JWT (RS256) by hand and reads what it says.
func claims(t *testing.T, token string, key *rsa.PublicKey) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Errorf("no JWT: %d parts", len(parts))
		return nil
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	gatewaytest.Must(t, err)
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig); err != nil {
		t.Errorf("the signature: %v", err)
	}
	var out map[string]any
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, json.Unmarshal(body, &out))
	return out
}

// Issue 5, credentials: each kind that is minted connects with what a person
// gives, its token goes into calls and is made anew at its end, and what was given
// goes to the pinned token endpoint only (rules 1 and 6).
func TestMintedKinds(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newInternet(t, newScene(t, db))
		t.Run("client credentials", n.clientCredentials)
		t.Run("Google service account", n.googleServiceAccount)
		t.Run("Salesforce JWT bearer", n.salesforceJWT)
		t.Run("Snowflake key pair", n.snowflakeKeyPair)
		t.Run("GitHub App installation", n.githubInstallation)
		t.Run("AWS role", n.awsRole)
		t.Run("AWS keys", n.awsKeys)
	})
}

// calls makes one call with an agent's session and gives what arrived.
func (n *internet) calls(t *testing.T, slug, tool string, args map[string]any) (said, error) {
	t.Helper()
	handle := n.Active(t, n.owner, n.bot, slug, policy.Read)
	_, err := n.Call(t, n.bot, handle, slug+"_"+tool, args)
	return n.asked[len(n.asked)-1], err
}

func (n *internet) clientCredentials(t *testing.T) {
	n.asked = nil
	n.provider(t, "databricks_m2m", map[string]string{})
	minted := 0
	n.answer = func(s said) reply {
		if s.Path == "/oidc/v1/token" {
			minted++
			if u, p, ok := basic(s); !ok || u != "principal" || p != "principal-secret" || s.Form.Get("grant_type") != "client_credentials" || s.Form.Get("scope") != "all-apis" {
				t.Errorf("asked by %s with %v", u, s.Form)
			}
			return reply{body: fmt.Sprintf(`{"access_token":"dapi-token-%d","token_type":"Bearer","expires_in":3600}`, minted)}
		}
		if s.Header.Get("Authorization") != fmt.Sprintf("Bearer dapi-token-%d", minted) {
			return reply{status: 401}
		}
		return reply{body: `{"id":"42","userName":"principal"}`}
	}
	given := map[string]string{"client_id": "principal", "client_secret": "principal-secret"}
	c, err := n.give(t, "databricks_m2m", map[string]string{"host": "dbc-1234"}, given)
	gatewaytest.Must(t, err)
	if c.AuthMethod != "client_credentials" || c.AccountID != "42" {
		t.Errorf("connected %+v", c)
	}
	if _, err := n.calls(t, "databricks_m2m", "read", map[string]any{"path": "/clusters/list"}); err != nil || minted != 1 {
		t.Errorf("the first token: %v, minted %d", err, minted)
	}
	n.Clock.Advance(time.Hour)
	if _, err := n.calls(t, "databricks_m2m", "read", map[string]any{"path": "/clusters/list"}); err != nil || minted != 2 {
		t.Errorf("after its end: %v, minted %d", err, minted)
	}
	for _, s := range n.asked {
		if s.Path != "/oidc/v1/token" && (strings.Contains(fmt.Sprint(s.Header)+s.Body, "principal-secret")) {
			t.Errorf("the secret went to %s", s.Path)
		}
	}
	// The provider's own console ends the client: only a person can mend it.
	n.Clock.Advance(time.Hour)
	n.answer = func(said) reply { return reply{status: 401, body: `{"error":"invalid_client"}`} }
	if _, err := n.calls(t, "databricks_m2m", "read", map[string]any{"path": "/clusters/list"}); code(err) != connection.CodeReconnect {
		t.Errorf("a client that is gone: %v", err)
	}
	if got, err := n.Connections.ByID(t.Context(), n.DB.Reader(), n.Environment, c.ID); err != nil || got.State != connection.NeedsReauth || got.Reason != "credential_rejected" {
		t.Errorf("afterwards %s %s, %v", got.State, got.Reason, err)
	}
	if _, err := n.give(t, "databricks_m2m", map[string]string{"host": "dbc-1234"}, given); code(err) != "credential_rejected" {
		t.Errorf("connecting it anew: %v", err)
	}
}

func basic(s said) (user, pass string, ok bool) {
	return (&http.Request{Header: s.Header}).BasicAuth()
}

func (n *internet) googleServiceAccount(t *testing.T) {
	n.asked = nil
	n.provider(t, "google_service_account", nil)
	key, public := rsaKey(t)
	// What the file says of endpoints counts for nothing: they are the record's.
	file, err := json.Marshal(map[string]string{"type": "service_account", "client_email": "bot@acme.iam.gserviceaccount.com", "private_key_id": "kid-1", "private_key": key,
		"token_uri": "https://evil.example/token"})
	gatewaytest.Must(t, err)
	subject := any(nil)
	n.answer = func(s said) reply {
		switch s.Host {
		case "oauth2.googleapis.com":
			c := claims(t, s.Form.Get("assertion"), public)
			// O6: the audience is one text.
			if c["aud"] != n.here("https://oauth2.googleapis.com/token") && c["aud"] != "https://oauth2.googleapis.com/token" || c["iss"] != "bot@acme.iam.gserviceaccount.com" || c["sub"] != subject ||
				s.Form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" || !strings.Contains(fmt.Sprint(c["scope"]), "drive.readonly") {
				t.Errorf("the assertion says %v", c)
			}
			if life := c["exp"].(float64) - c["iat"].(float64); life > 3660 {
				t.Errorf("it lives %v s", life)
			}
			return reply{body: `{"access_token":"ya29.service-token","expires_in":3599,"token_type":"Bearer"}`}
		case "openidconnect.googleapis.com":
			return reply{body: `{"sub":"1234","email":"bot@acme.iam.gserviceaccount.com"}`}
		}
		return reply{body: `{"files":[]}`}
	}
	c, err := n.give(t, "google_service_account", nil, map[string]string{"key_file": string(file)})
	gatewaytest.Must(t, err)
	if c.AccountLabel != "bot@acme.iam.gserviceaccount.com" || len(c.Scopes) != 2 {
		t.Errorf("connected %+v", c)
	}
	got, err := n.calls(t, "google_service_account", "read", map[string]any{"path": "/drive/v3/files", "base": n.here("https://www.googleapis.com")})
	if err != nil || got.Header.Get("Authorization") != "Bearer ya29.service-token" {
		t.Errorf("a call: %v, %v", got.Header, err)
	}
	subject = "mia@acme.example"
	if _, err := n.give(t, "google_service_account", nil, map[string]string{"key_file": string(file), "subject": "mia@acme.example"}); err != nil {
		t.Errorf("as a person: %v", err)
	}
	for name, file := range map[string]string{"no JSON": "-----BEGIN", "half of it": `{"client_email":"x@example.com"}`, "twice": `{"private_key":"a","private_key":"b","client_email":"c","private_key_id":"d"}`} {
		if _, err := n.give(t, "google_service_account", nil, map[string]string{"key_file": file}); code(err) != "invalid_credential" {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := strings.Replace(string(file), `\n`, "", 3)
	if _, err := n.give(t, "google_service_account", nil, map[string]string{"key_file": broken}); code(err) != "credential_unusable" || strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("a key that is none: %v", err)
	}
}

func (n *internet) salesforceJWT(t *testing.T) {
	n.asked = nil
	n.provider(t, "salesforce_jwt", nil)
	n.serve("acme.my.salesforce.com")
	n.serve("test.salesforce.com")
	key, public := rsaKey(t)
	minted := 0
	n.answer = func(s said) reply {
		if s.Path == "/services/oauth2/token" {
			minted++
			if c := claims(t, s.Form.Get("assertion"), public); s.Host != "test.salesforce.com" || c["iss"] != "3MVG9" || c["sub"] != "ops@acme.example" ||
				!strings.HasSuffix(fmt.Sprint(c["aud"]), "test.salesforce.com") || c["exp"].(float64)-c["iat"].(float64) > 240 {
				t.Errorf("at %s: %v", s.Host, c)
			}
			return reply{body: `{"access_token":"00Dxx0000001gPL!token","instance_url":"https://acme.my.salesforce.com","token_type":"Bearer"}`} // no expires_in
		}
		if minted == 1 && strings.HasPrefix(s.Path, "/services/data") {
			return reply{status: 401, body: `[{"errorCode":"INVALID_SESSION_ID"}]`}
		}
		return reply{body: `{"user_id":"005","preferred_username":"ops@acme.example"}`}
	}
	c, err := n.give(t, "salesforce_jwt", map[string]string{"login": "test"}, map[string]string{"client_id": "3MVG9", "username": "ops@acme.example", "private_key": key})
	gatewaytest.Must(t, err)
	if got := c.Pinned.API[0]; got != n.here("https://acme.my.salesforce.com/services/data") {
		t.Errorf("pinned %s", got)
	}
	got, err := n.calls(t, "salesforce_jwt", "read", map[string]any{"path": "/v60.0/limits"})
	if err != nil || minted != 2 || got.Host != "acme.my.salesforce.com" {
		t.Errorf("a session that ended without saying so: %v, minted %d, at %s", err, minted, got.Host)
	}
}

func (n *internet) snowflakeKeyPair(t *testing.T) {
	n.asked = nil
	n.provider(t, "snowflake_key_pair", nil)
	key, public := rsaKey(t)
	der, err := x509.MarshalPKIXPublicKey(public)
	gatewaytest.Must(t, err)
	sum := sha256.Sum256(der)
	print := "SHA256:" + base64.StdEncoding.EncodeToString(sum[:])
	seen := map[string]bool{}
	n.answer = func(s said) reply {
		token := strings.TrimPrefix(s.Header.Get("Authorization"), "Bearer ")
		c := claims(t, token, public)
		if c["iss"] != "MYORG-MYACCOUNT.OPS."+print || c["sub"] != "MYORG-MYACCOUNT.OPS" || s.Header.Get("X-Snowflake-Authorization-Token-Type") != "KEYPAIR_JWT" {
			t.Errorf("the token says %v", c)
		}
		if life := c["exp"].(float64) - float64(n.Clock.Now().Unix()); life > 3600 || life < 0 {
			t.Errorf("it lives %v s more", life)
		}
		seen[token] = true
		return reply{body: `{"data":[["OPS"]]}`}
	}
	c, err := n.give(t, "snowflake_key_pair", map[string]string{"account_host": "myorg-myaccount"}, map[string]string{"account": "myorg-myaccount", "username": "ops", "private_key": key})
	gatewaytest.Must(t, err)
	if c.AccountID != "OPS" {
		t.Errorf("connected %+v", c)
	}
	n.Clock.Advance(2 * time.Hour)
	again, err := n.give(t, "snowflake_key_pair", map[string]string{"account_host": "myorg-myaccount"}, map[string]string{"account": "myorg-myaccount", "username": "ops", "private_key": key})
	if err != nil || again.ID != c.ID || len(seen) != 2 {
		t.Errorf("the same account once more: %s and %s, %d tokens, %v", c.ID, again.ID, len(seen), err)
	}
}

func (n *internet) githubInstallation(t *testing.T) {
	n.asked = nil
	n.provider(t, "github_app_installation", nil)
	key, public := rsaKey(t)
	minted, revoked := 0, ""
	n.answer = func(s said) reply {
		switch {
		case s.Path == "/app/installations/987/access_tokens":
			minted++
			if c := claims(t, strings.TrimPrefix(s.Header.Get("Authorization"), "Bearer "), public); c["iss"] != "4242" || c["exp"].(float64)-c["iat"].(float64) > 660 {
				t.Errorf("the app says %v", c)
			}
			return reply{status: 201, body: fmt.Sprintf(`{"token":"ghs_installation-%d","expires_at":%q,"permissions":{"contents":"read"}}`, minted, n.Clock.Now().Add(time.Hour).Format(time.RFC3339))}
		case s.Method == http.MethodDelete:
			revoked = s.Path + " " + s.Header.Get("Authorization")
			return reply{status: 204}
		case s.Header.Get("Authorization") != fmt.Sprintf("Bearer ghs_installation-%d", minted):
			return reply{status: 401}
		}
		return reply{body: `{"total_count":1}`}
	}
	c, err := n.give(t, "github_app_installation", nil, map[string]string{"app_id": "4242", "installation_id": "987", "private_key": key})
	gatewaytest.Must(t, err)
	if len(c.Scopes) != 1 || c.Scopes[0] != "contents:read" {
		t.Errorf("connected %+v", c)
	}
	n.Clock.Advance(time.Hour)
	if _, err := n.calls(t, "github_app_installation", "read", map[string]any{"path": "/installation/repositories"}); err != nil || minted != 2 {
		t.Errorf("after an hour: %v, minted %d", err, minted)
	}
	d, err := n.Credentials.Disconnect(t.Context(), n.me(t), c.ID)
	if err != nil || d.Upstream != "revoked" || revoked != "/installation/token Bearer ghs_installation-2" {
		t.Errorf("disconnected %+v, %v; revoked %s", d, err, revoked)
	}
	for name, bad := range map[string]string{"a path": "987/../1", "a word": "mine"} {
		if _, err := n.give(t, "github_app_installation", nil, map[string]string{"app_id": "4242", "installation_id": bad, "private_key": key}); code(err) != "invalid_credential" {
			t.Errorf("%s for the installation: %v", name, err)
		}
	}
	n.answer = func(said) reply { return reply{status: 404, body: `{"message":"Not Found"}`} }
	if _, err := n.give(t, "github_app_installation", nil, map[string]string{"app_id": "4242", "installation_id": "987", "private_key": key}); code(err) != "credential_rejected" {
		t.Errorf("an installation that is gone: %v", err)
	}
}

// sigV4 recomputes a signature as AWS's guide describes it, by hand.
func sigV4(t *testing.T, s said, uri, host, secretKey, region, service string) bool {
	t.Helper()
	auth := s.Header.Get("Authorization")
	part := func(name string) string {
		_, rest, _ := strings.Cut(auth, name+"=")
		v, _, _ := strings.Cut(rest, ",")
		return v
	}
	date := s.Header.Get("X-Amz-Date")
	if len(date) < 8 {
		return false
	}
	var headers strings.Builder
	for _, h := range strings.Split(part("SignedHeaders"), ";") {
		v := s.Header.Get(h)
		switch h {
		case "host":
			v = host
		case "content-length":
			v = fmt.Sprint(len(s.Body))
		}
		headers.WriteString(h + ":" + strings.TrimSpace(v) + "\n")
	}
	body := sha256.Sum256([]byte(s.Body))
	query := strings.ReplaceAll(s.Query.Encode(), "+", "%20")
	canonical := strings.Join([]string{s.Method, uri, query, headers.String(), part("SignedHeaders"), hex.EncodeToString(body[:])}, "\n")
	sum := sha256.Sum256([]byte(canonical))
	scope := date[:8] + "/" + region + "/" + service + "/aws4_request"
	key := []byte("AWS4" + secretKey)
	for _, p := range []string{date[:8], region, service, "aws4_request", "AWS4-HMAC-SHA256\n" + date + "\n" + scope + "\n" + hex.EncodeToString(sum[:])} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(p))
		key = mac.Sum(nil)
	}
	return part("Signature") == hex.EncodeToString(key) && strings.Contains(auth, scope)
}

// onLoopback says what a signature is for, which the host on loopback does not.
func (n *internet) onLoopback(t *testing.T, entry string) {
	e := strings.Replace(n.entry(t, entry), "sign: aws_sigv4", "sign: aws_sigv4\n  service: sts\n  region: us-east-1", 1)
	n.put(t, n.here(e))
}

func (n *internet) awsRole(t *testing.T) {
	n.asked = nil
	n.onLoopback(t, "aws_role")
	at := strings.TrimPrefix(n.Sandbox.URL, "http://")
	external, minted := "", 0
	n.answer = func(s said) reply {
		path := "/" + s.Host + s.Path
		if s.Form.Get("Action") == "AssumeRole" {
			minted++
			external = s.Form.Get("ExternalId")
			if !sigV4(t, s, strings.TrimSuffix(path, "/"), at, "our-client-secret", "us-east-1", "sts") || s.Form.Get("RoleArn") != "arn:aws:iam::123456789012:role/agents" {
				t.Errorf("we asked %v with %v", s.Form, s.Header)
			}
			return reply{media: "text/xml", body: fmt.Sprintf(`<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIAEXAMPLEKEY%02d</AccessKeyId><SecretAccessKey>temporary-secret-%d</SecretAccessKey>
				<SessionToken>session-token-%d</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`, minted, minted, minted, n.Clock.Now().Add(time.Hour).Format(time.RFC3339))}
		}
		if !sigV4(t, s, path, at, fmt.Sprintf("temporary-secret-%d", minted), "us-east-1", "sts") || s.Header.Get("X-Amz-Security-Token") != fmt.Sprintf("session-token-%d", minted) {
			t.Errorf("%s %s is not signed with the role's keys: %v", s.Method, path, s.Header)
		}
		return reply{body: `{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{"Account":"123456789012","Arn":"arn:aws:sts::123456789012:assumed-role/agents/ambit"}}}`}
	}
	c, err := n.give(t, "aws_role", nil, map[string]string{"role_arn": "arn:aws:iam::123456789012:role/agents"})
	gatewaytest.Must(t, err)
	if external != string(n.Organization) {
		t.Errorf("the external id is %q, want the organization's id: a role is assumed for no other", external)
	}
	n.Clock.Advance(time.Hour)
	if _, err := n.calls(t, "aws_role", "who_am_i", nil); err != nil || minted != 2 {
		t.Errorf("a call: %v, minted %d", err, minted)
	}
	for _, s := range n.asked {
		if strings.Contains(fmt.Sprint(s.Header, s.Query)+s.Body, "temporary-secret") || strings.Contains(fmt.Sprint(s.Header, s.Query)+s.Body, "our-client-secret") {
			t.Errorf("a secret key was sent to %s", s.Path)
		}
	}
	n.Clock.Advance(2 * time.Hour)
	n.answer = func(said) reply {
		return reply{status: 403, media: "text/xml", body: `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code></Error></ErrorResponse>`}
	}
	if _, err := n.calls(t, "aws_role", "who_am_i", nil); code(err) != connection.CodeReconnect {
		t.Errorf("a role that trusts us no more: %v", err)
	}
	if got, err := n.Connections.ByID(t.Context(), n.DB.Reader(), n.Environment, c.ID); err != nil || got.State != connection.NeedsReauth {
		t.Errorf("afterwards %s, %v", got.State, err)
	}
}

func (n *internet) awsKeys(t *testing.T) {
	n.asked = nil
	n.onLoopback(t, "aws")
	at := strings.TrimPrefix(n.Sandbox.URL, "http://")
	n.answer = func(s said) reply {
		if !sigV4(t, s, "/"+s.Host+s.Path, at, "a-secret-access-key", "us-east-1", "sts") || s.Header.Get("X-Amz-Security-Token") != "" {
			t.Errorf("%s is not signed: %v", s.Path, s.Header)
		}
		// U1: a signature and a key that come back are cut.
		return reply{body: `{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{"Arn":"arn:aws:iam::123456789012:user/ops"}},"echo":` + fmt.Sprintf("%q", s.Header.Get("Authorization")) + `,"key":"a-secret-access-key"}`}
	}
	if _, err := n.give(t, "aws", map[string]string{"region": "us-east-1"}, map[string]string{"access_key_id": "AKIAEXAMPLEEXAMPLE", "secret_access_key": "a-secret-access-key"}); err != nil {
		t.Fatal(err)
	}
	handle := n.Active(t, n.owner, n.bot, "aws", policy.Read)
	got, err := n.Call(t, n.bot, handle, "aws_list_objects", map[string]any{"bucket": "acme-logs", "prefix": "a b/ü+c"})
	if err != nil || strings.Contains(string(got.Answer.Body), "a-secret-access-key") || strings.Contains(string(got.Answer.Body), "Signature=") {
		t.Errorf("the answer: %s, %v", got.Answer.Body, err)
	}
}
