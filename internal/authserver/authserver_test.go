package authserver_test

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/authserver"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// server is a running authorization server and a client without cookies that
// follows nothing.
type server struct {
	*agenttest.World
	url    string
	client *http.Client
}

func each(t *testing.T, fn func(t *testing.T, s *server, alice *agenttest.Person)) {
	t.Helper()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := agenttest.New(t, db)
		fn(t, serve(t, w, authserver.Config{}), w.Person(t, "alice@example.com", account.RoleMember))
	})
}

func serve(t *testing.T, w *agenttest.World, cfg authserver.Config) *server {
	t.Helper()
	cfg.Agents, cfg.People, cfg.Now = w.Agents, w.Accounts, w.Clock.Now
	mux := http.NewServeMux()
	authserver.New(cfg).Mount(mux)
	ts := httptest.NewServer(mux)
	t.Cleanup(ts.Close)
	c := ts.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &server{World: w, url: ts.URL, client: c}
}

type answer struct {
	status int
	header http.Header
	body   string
	doc    map[string]any
}

func (a answer) text(name string) string { s, _ := a.doc[name].(string); return s }

func (s *server) do(t testing.TB, method, path, contentType, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: res.StatusCode, header: res.Header, body: string(raw)}
	_ = json.Unmarshal(raw, &a.doc)
	return a
}

const formType = "application/x-www-form-urlencoded"

func (s *server) post(t testing.TB, path string, v url.Values, header ...string) answer {
	t.Helper()
	return s.do(t, http.MethodPost, path, formType, v.Encode(), header...)
}

func (s *server) register(t testing.TB, doc string) answer {
	t.Helper()
	return s.do(t, http.MethodPost, "/oauth/register", "application/json", doc)
}

func (s *server) authorize(t testing.TB, v url.Values) answer {
	t.Helper()
	return s.do(t, http.MethodGet, "/oauth/authorize?"+v.Encode(), "", "")
}

const publicClient = `{"redirect_uris":["` + agenttest.Redirect + `"],"client_name":"Claude","grant_types":["authorization_code","refresh_token"],
	"response_types":["code"],"token_endpoint_auth_method":"none","application_type":"native"}`

func (s *server) public(t testing.TB) string {
	t.Helper()
	a := s.register(t, publicClient)
	if a.status != http.StatusCreated {
		t.Fatalf("registering: %d %s", a.status, a.body)
	}
	return a.text("client_id")
}

func request(client, challenge string) url.Values {
	return url.Values{"response_type": {"code"}, "client_id": {client}, "redirect_uri": {agenttest.Redirect}, "code_challenge": {challenge},
		"code_challenge_method": {"S256"}, "state": {"s1"}, "resource": {agenttest.PublicURL + "/mcp"}, "scope": {"ambit offline_access admin approvals:write"}}
}

// flow runs everything up to the code.
func (s *server) flow(t testing.TB, p *agenttest.Person, client string) (code, verifier string) {
	t.Helper()
	v, challenge := agenttest.PKCE()
	a := s.authorize(t, request(client, challenge))
	flow, ok := strings.CutPrefix(a.header.Get("Location"), "/ui/consent/")
	if a.status != http.StatusSeeOther || !ok {
		t.Fatalf("authorizing: %d %q %s", a.status, a.header.Get("Location"), a.body)
	}
	return s.Agree(t, p, id.Flow(flow), "my agent").Get("code"), string(v.Reveal())
}

func codeForm(client, code, verifier string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "client_id": {client}, "code": {code}, "code_verifier": {verifier},
		"redirect_uri": {agenttest.Redirect}, "resource": {agenttest.PublicURL + "/mcp"}}
}

func wantError(t *testing.T, what string, a answer, status int, code string) {
	t.Helper()
	if a.status != status || a.text("error") != code {
		t.Errorf("%s: got %d %s, want %d %s", what, a.status, a.body, status, code)
	}
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Access-Control-Allow-Origin") != "" || a.header.Get("Set-Cookie") != "" {
		t.Errorf("%s: got headers %v", what, a.header)
	}
	for _, c := range a.text("error_description") {
		if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			t.Errorf("%s: error_description %q has a character that RFC 6749 forbids", what, a.text("error_description"))
		}
	}
}

// S7: what a client asks for as its scope gives it nothing more: the token says "ambit".
func TestWholeFlow(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server, alice *agenttest.Person) {
		client := s.public(t)
		code, verifier := s.flow(t, alice, client)
		a := s.post(t, "/oauth/token", codeForm(client, code, verifier))
		if a.status != http.StatusOK || a.text("token_type") != "Bearer" || a.doc["expires_in"] != 3600.0 || a.text("scope") != "ambit" ||
			a.header.Get("Cache-Control") != "no-store" || a.header.Get("Pragma") != "no-cache" || a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Fatalf("got %d %s %v", a.status, a.body, a.header)
		}
		who, err := s.Agents.Authenticate(t.Context(), secret.FromString(a.text("access_token")))
		if err != nil || who.User() != alice.ID || who.Label() != "my agent" {
			t.Fatalf("got %+v, %v", who, err)
		}
		b := s.post(t, "/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {client}, "refresh_token": {a.text("refresh_token")}})
		if b.status != http.StatusOK || b.text("refresh_token") == a.text("refresh_token") || !strings.HasPrefix(b.text("refresh_token"), "amb_rt_") {
			t.Fatalf("got %d %s", b.status, b.body)
		}
		again := s.post(t, "/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {client}, "refresh_token": {a.text("refresh_token")}})
		if diff := cmp.Diff(b.doc, again.doc); diff != "" {
			t.Errorf("a retry got another answer: %s", diff)
		}
		if r := s.post(t, "/oauth/revoke", url.Values{"client_id": {client}, "token": {b.text("refresh_token")}, "token_type_hint": {"access_token"}}); r.status != http.StatusOK || r.body != "" {
			t.Errorf("revoking: %d %s", r.status, r.body)
		}
		if _, err := s.Agents.Authenticate(t.Context(), secret.FromString(b.text("access_token"))); err == nil {
			t.Error("a revoked family authenticates")
		}
		wantError(t, "a refresh after revocation", s.post(t, "/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {client},
			"refresh_token": {b.text("refresh_token")}}), 400, "invalid_grant")
		if r := s.post(t, "/oauth/revoke", url.Values{"client_id": {client}, "token": {"nonsense"}}); r.status != http.StatusOK {
			t.Errorf("revoking an unknown token: %d, want 200", r.status)
		}
	})
}

// S14, W7, and a bug: a program at a person's address, which on a laptop is that
// of every agent, began authorizations and had the person's own refused.
func TestStrangersLockNobodyOut(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server, alice *agenttest.Person) {
		client := s.public(t)
		for range 1000 {
			_, challenge := agenttest.PKCE()
			if a := s.authorize(t, request(client, challenge)); a.status != http.StatusSeeOther {
				t.Fatalf("got %d %s", a.status, a.body)
			}
		}
		code, verifier := s.flow(t, alice, client)
		if a := s.post(t, "/oauth/token", codeForm(client, code, verifier)); a.status != http.StatusOK {
			t.Errorf("got %d %s", a.status, a.body)
		}
	})
}

func TestCodeExchangeRefusals(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server, alice *agenttest.Person) {
		client := s.public(t)
		code, verifier := s.flow(t, alice, client)
		with := func(name string, values ...string) url.Values {
			v := codeForm(client, code, verifier)
			v[name] = values
			return v
		}
		wantError(t, "wrong verifier", s.post(t, "/oauth/token", with("code_verifier", strings.Repeat("x", 43))), 400, "invalid_grant")
		wantError(t, "no verifier", s.post(t, "/oauth/token", with("code_verifier")), 400, "invalid_request")
		wantError(t, "empty verifier", s.post(t, "/oauth/token", with("code_verifier", "")), 400, "invalid_request")
		wantError(t, "wrong resource", s.post(t, "/oauth/token", with("resource", "https://evil.example/mcp")), 400, "invalid_target")
		wantError(t, "two resources", s.post(t, "/oauth/token", with("resource", agenttest.PublicURL, agenttest.PublicURL)), 400, "invalid_request")
		wantError(t, "two codes", s.post(t, "/oauth/token", with("code", code, code)), 400, "invalid_request")
		wantError(t, "wrong redirect", s.post(t, "/oauth/token", with("redirect_uri", "http://localhost:1/callback")), 400, "invalid_grant")
		wantError(t, "no grant type", s.post(t, "/oauth/token", with("grant_type")), 400, "invalid_request")
		wantError(t, "password", s.post(t, "/oauth/token", with("grant_type", "password")), 400, "unsupported_grant_type")
		wantError(t, "no client", s.post(t, "/oauth/token", with("client_id")), 400, "invalid_request")
		wantError(t, "secret of a public client", s.post(t, "/oauth/token", with("client_secret", "x")), 401, "invalid_client")
		s.Clock.Advance(30 * time.Second)
		if a := s.post(t, "/oauth/token", codeForm(client, code, verifier)); a.status != http.StatusOK {
			t.Fatalf("a refused attempt spent the code: %d %s", a.status, a.body)
		}
		wantError(t, "the code again", s.post(t, "/oauth/token", codeForm(client, code, verifier)), 400, "invalid_grant")
	})
}

// The token endpoint reads forms only, and each parameter once.
func TestTokenRequestsAreReadStrictly(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server, alice *agenttest.Person) {
		_, auth := s.Service(t, agent.Autonomous, alice.ID)
		good := url.Values{"grant_type": {"client_credentials"}, "client_id": {auth.ID}, "client_secret": {string(auth.Secret.Reveal())}}.Encode()
		post := func(path, contentType, body string, header ...string) answer {
			s.Clock.Advance(10 * time.Second) // away from the limits
			return s.do(t, http.MethodPost, path, contentType, body, header...)
		}
		if a := post("/oauth/token", formType+"; charset=utf-8", good); a.status != http.StatusOK || a.text("refresh_token") != "" {
			t.Fatalf("got %d %s", a.status, a.body)
		}
		wantError(t, "in the URL", post("/oauth/token?"+good, formType, ""), 400, "invalid_request")
		wantError(t, "partly in the URL", post("/oauth/token?resource=x", formType, good), 400, "invalid_request")
		wantError(t, "as JSON", post("/oauth/token", "application/json", `{"grant_type":"client_credentials"}`), 400, "invalid_request")
		wantError(t, "without a type", post("/oauth/token", "", good), 400, "invalid_request")
		wantError(t, "multipart", post("/oauth/token", "multipart/form-data; boundary=x", good), 400, "invalid_request")
		wantError(t, "a repeated parameter", post("/oauth/token", formType, good+"&grant_type=client_credentials"), 400, "invalid_request")
		wantError(t, "a bad escape", post("/oauth/token", formType, good+"&x=%zz"), 400, "invalid_request")
		wantError(t, "a semicolon", post("/oauth/token", formType, good+";x=1"), 400, "invalid_request")
		wantError(t, "no text", post("/oauth/token", formType, good+"&x=%ff"), 400, "invalid_request")
		wantError(t, "a NUL", post("/oauth/token", formType, good+"&x=%00"), 400, "invalid_request")
		wantError(t, "too many", post("/oauth/token", formType, good+strings.Repeat("&a=1", 50)), 400, "invalid_request")
		wantError(t, "too long", post("/oauth/token", formType, good+"&x="+strings.Repeat("y", 20<<10)), 413, "invalid_request")

		secretText := string(auth.Secret.Reveal())
		noSecret := url.Values{"grant_type": {"client_credentials"}}.Encode()
		basic := func(user, pass string) string {
			r, _ := http.NewRequest(http.MethodGet, "/", nil)
			r.SetBasicAuth(user, pass)
			return r.Header.Get("Authorization")
		}
		if a := post("/oauth/token", formType, noSecret, "Authorization", basic(auth.ID, secretText)); a.status != http.StatusOK {
			t.Errorf("basic: got %d %s", a.status, a.body)
		}
		wantError(t, "basic and post", post("/oauth/token", formType, good, "Authorization", basic(auth.ID, secretText)), 400, "invalid_request")
		wantError(t, "two headers", post("/oauth/token", formType, noSecret, "Authorization", basic(auth.ID, secretText), "Authorization", basic(auth.ID, secretText)), 401, "invalid_client")
		wantError(t, "another client in the form", post("/oauth/token", formType, noSecret+"&client_id=x", "Authorization", basic(auth.ID, secretText)), 400, "invalid_request")
		wantError(t, "a bearer", post("/oauth/token", formType, noSecret, "Authorization", "Bearer "+secretText), 401, "invalid_client")
		wrong := post("/oauth/token", formType, noSecret, "Authorization", basic(auth.ID, secretText+"x"))
		wantError(t, "a wrong secret", wrong, 401, "invalid_client")
		if wrong.header.Get("WWW-Authenticate") == "" {
			t.Error("401 to a Basic client without WWW-Authenticate")
		}
		unknown := post("/oauth/token", formType, noSecret, "Authorization", basic(string(id.NewClient()), secretText))
		if diff := cmp.Diff(wrong.body, unknown.body); diff != "" {
			t.Errorf("a wrong secret and an unknown client answer differently: %s", diff)
		}
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodOptions} {
			if a := s.do(t, method, "/oauth/token", "", ""); a.status != http.StatusMethodNotAllowed || a.header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s: got %d", method, a.status)
			}
		}
	})
}

// G1, G10: until client and redirect are matched, an error is a page.
func TestAuthorizeNeverRedirectsUntrusted(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server, _ *agenttest.Person) {
		client := s.public(t)
		_, challenge := agenttest.PKCE()
		for name, change := range map[string]func(url.Values){
			"no client":             func(v url.Values) { v.Del("client_id") },
			"unknown client":        func(v url.Values) { v.Set("client_id", string(id.NewClient())) },
			"malformed client":      func(v url.Values) { v.Set("client_id", "<script>alert(1)</script>") },
			"two clients":           func(v url.Values) { v.Add("client_id", client) },
			"no redirect":           func(v url.Values) { v.Del("redirect_uri") },
			"two redirects":         func(v url.Values) { v.Add("redirect_uri", "https://evil.example") },
			"another redirect":      func(v url.Values) { v.Set("redirect_uri", "https://evil.example/cb") },
			"userinfo":              func(v url.Values) { v.Set("redirect_uri", "http://localhost:3000@evil.example/callback") },
			"another path":          func(v url.Values) { v.Set("redirect_uri", agenttest.Redirect+"/..") },
			"a fragment":            func(v url.Values) { v.Set("redirect_uri", agenttest.Redirect+"#x") },
			"protocol relative":     func(v url.Values) { v.Set("redirect_uri", "//evil.example/callback") },
			"a script":              func(v url.Values) { v.Set("redirect_uri", "javascript:alert(1)") },
			"a NUL somewhere":       func(v url.Values) { v.Set("state", "a\x00b") },
			"too many parameters":   func(v url.Values) { v["x"] = make([]string, 60) },
			"a name that is markup": func(v url.Values) { v.Set("client_id", "\"><img src=x>") },
		} {
			s.Clock.Advance(2 * time.Second)
			v := request(client, challenge)
			change(v)
			a := s.authorize(t, v)
			if a.status < 400 || a.header.Get("Location") != "" || !strings.Contains(a.header.Get("Content-Security-Policy"), "default-src 'none'") ||
				strings.Contains(a.body, "evil") || strings.Contains(a.body, "alert") || strings.Contains(a.body, "<img") {
				t.Errorf("%s: got %d, Location %q, %s", name, a.status, a.header.Get("Location"), a.body)
			}
		}
	})
}

// refusal reads the link of an error page to the client's redirect URI.
func refusal(t *testing.T, a answer) (url.Values, bool) {
	t.Helper()
	_, rest, _ := strings.Cut(a.body, `<a href="`)
	href, _, found := strings.Cut(rest, `"`)
	href = html.UnescapeString(href)
	host := strings.TrimPrefix(strings.TrimSuffix(agenttest.Redirect, "/callback"), "http://")
	if !found || a.status < 400 || a.header.Get("Location") != "" || !strings.HasPrefix(href, agenttest.Redirect+"?") || !strings.Contains(a.body, "<strong>"+host+"</strong>") ||
		a.header.Get("Content-Security-Policy") == "" {
		t.Errorf("got %d, Location %q, %s", a.status, a.header.Get("Location"), a.body)
		return nil, false
	}
	u, err := url.Parse(href)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query(), true
}

// Anybody may register, so an error that is known before a person has decided
// redirects nobody: a page shows where the link leads (RFC 9700 §4.11.2, G10).
// The link carries issuer and state (RFC 9207).
func TestAuthorizeErrorsRedirectNobody(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server, _ *agenttest.Person) {
		client := s.public(t)
		_, challenge := agenttest.PKCE()
		for _, row := range []struct {
			name, code string
			change     func(url.Values)
		}{
			{"no response type", "invalid_request", func(v url.Values) { v.Del("response_type") }},
			{"implicit", "unsupported_response_type", func(v url.Values) { v.Set("response_type", "token") }},
			{"hybrid", "unsupported_response_type", func(v url.Values) { v.Set("response_type", "code token") }},
			{"no challenge", "invalid_request", func(v url.Values) { v.Del("code_challenge") }},
			{"plain", "invalid_request", func(v url.Values) { v.Set("code_challenge_method", "plain") }},
			{"no method", "invalid_request", func(v url.Values) { v.Del("code_challenge_method") }},
			{"method in lower case", "invalid_request", func(v url.Values) { v.Set("code_challenge_method", "s256") }},
			{"a short challenge", "invalid_request", func(v url.Values) { v.Set("code_challenge", challenge[:40]) }},
			{"two challenges", "invalid_request", func(v url.Values) { v.Add("code_challenge", challenge) }},
			{"another resource", "invalid_target", func(v url.Values) { v.Set("resource", "https://evil.example/mcp") }},
			{"two resources", "invalid_target", func(v url.Values) { v.Add("resource", agenttest.PublicURL) }},
			{"fragment mode", "invalid_request", func(v url.Values) { v.Set("response_mode", "fragment") }},
			{"a request object", "request_not_supported", func(v url.Values) { v.Set("request", "x.y.z") }},
			{"a request URI", "request_uri_not_supported", func(v url.Values) { v.Set("request_uri", "https://evil.example/r") }},
		} {
			v := request(client, challenge)
			row.change(v)
			q, ok := refusal(t, s.authorize(t, v))
			if !ok || q.Get("error") != row.code || q.Get("iss") != agenttest.PublicURL || q.Get("state") != "s1" || q.Has("code") {
				t.Errorf("%s: got %v, want %s", row.name, q, row.code)
			}
		}
		// A parameter sent twice is refused even if nobody would read it, and a
		// state that is not one is not sent back.
		for _, name := range []string{"state", "scope", "x"} {
			v := request(client, challenge)
			v[name] = []string{"a", "b"}
			q, ok := refusal(t, s.authorize(t, v))
			if !ok || q.Get("error") != "invalid_request" || q.Get("iss") != agenttest.PublicURL || q.Has("state") != (name != "state") {
				t.Errorf("two of %s: got %v", name, q)
			}
		}
		// Another port of a loopback redirect is the client's own.
		v := request(client, challenge)
		v.Set("redirect_uri", "http://localhost:51234/callback")
		if a := s.authorize(t, v); a.status != http.StatusSeeOther || !strings.HasPrefix(a.header.Get("Location"), "/ui/consent/flow_") {
			t.Errorf("another loopback port: got %d %q", a.status, a.header.Get("Location"))
		}
		v = request(client, challenge)
		for _, name := range []string{"state", "resource", "scope"} {
			v.Del(name)
		}
		if a := s.authorize(t, v); a.status != http.StatusSeeOther || !strings.HasPrefix(a.header.Get("Location"), "/ui/consent/flow_") {
			t.Errorf("the least request: got %d %q", a.status, a.header.Get("Location"))
		}
	})
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server, _ *agenttest.Person) {
		get := func(path string) answer {
			a := s.do(t, http.MethodGet, path, "", "", "Origin", "https://inspector.example")
			if a.status != http.StatusOK || a.header.Get("Access-Control-Allow-Origin") != "*" || a.header.Get("Access-Control-Allow-Credentials") != "" ||
				a.header.Get("Content-Type") != "application/json" {
				t.Errorf("%s: got %d %v", path, a.status, a.header)
			}
			if pre := s.do(t, http.MethodOptions, path, "", "", "Origin", "https://inspector.example", "Access-Control-Request-Headers", "mcp-protocol-version"); pre.status != http.StatusNoContent ||
				!strings.Contains(strings.ToLower(pre.header.Get("Access-Control-Allow-Headers")), "mcp-protocol-version") {
				t.Errorf("%s: preflight got %d %v", path, pre.status, pre.header)
			}
			if a := s.do(t, http.MethodPost, path, "", ""); a.status != http.StatusMethodNotAllowed {
				t.Errorf("POST %s: got %d", path, a.status)
			}
			return a
		}
		var first string
		for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/oauth-authorization-server/mcp",
			"/.well-known/openid-configuration", "/.well-known/openid-configuration/mcp"} {
			a := get(path)
			if first == "" {
				first = a.body
			}
			if a.body != first {
				t.Errorf("%s differs from the first document", path)
			}
			want := map[string]any{"issuer": agenttest.PublicURL, "code_challenge_methods_supported": []any{"S256"},
				"authorization_response_iss_parameter_supported": true, "token_endpoint": agenttest.PublicURL + "/oauth/token",
				"authorization_endpoint": agenttest.PublicURL + "/oauth/authorize", "registration_endpoint": agenttest.PublicURL + "/oauth/register",
				"revocation_endpoint": agenttest.PublicURL + "/oauth/revoke", "scopes_supported": []any{"ambit"}, "authorization_details_types_supported": []any{"ambit_session"},
				"token_endpoint_auth_methods_supported": []any{"none", "client_secret_basic", "client_secret_post", "private_key_jwt"}, "client_id_metadata_document_supported": true,
				"grant_types_supported":         []any{"authorization_code", "refresh_token", "client_credentials", agent.GrantAssertion, agent.GrantDevice},
				"introspection_endpoint":        agenttest.PublicURL + "/oauth/introspect",
				"device_authorization_endpoint": agenttest.PublicURL + "/oauth/device_authorization",
				"response_types_supported":      []any{"code"}}
			for name, v := range want {
				if diff := cmp.Diff(v, a.doc[name]); diff != "" {
					t.Errorf("%s: %s: %s", path, name, diff)
				}
			}
		}
		for _, path := range []string{"/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"} {
			a := get(path)
			if a.text("resource") != agenttest.PublicURL+"/mcp" || !cmp.Equal(a.doc["authorization_servers"], any([]any{agenttest.PublicURL})) {
				t.Errorf("%s: got %s", path, a.body)
			}
		}
		if c := s.Agents.Challenge("invalid_token"); !strings.Contains(c, agenttest.PublicURL+"/.well-known/oauth-protected-resource/mcp") {
			t.Errorf("the challenge does not point to the metadata: %s", c)
		}
	})
}

// G4, W7: registration is limited by address, in size and in shape.
func TestRegistration(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server, _ *agenttest.Person) {
		a := s.register(t, `{"redirect_uris":["https://app.example.com/cb"],"client_name":"<b>x</b>","unknown":true}`)
		if a.status != http.StatusCreated || !strings.HasPrefix(a.text("client_secret"), "amb_cs_") || a.doc["client_secret_expires_at"] != 0.0 ||
			a.text("token_endpoint_auth_method") != "client_secret_basic" || a.header.Get("Cache-Control") != "no-store" || a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("got %d %s %v", a.status, a.body, a.header)
		}
		if a := s.register(t, publicClient); a.text("client_secret") != "" || a.text("client_id") == "" {
			t.Errorf("a public client got %s", a.body)
		}
		next := func() { s.Clock.Advance(time.Minute) }
		for _, row := range []struct {
			name, doc, code string
			status          int
		}{
			{"no redirect", `{}`, "invalid_redirect_uri", 400},
			{"a bad redirect", `{"redirect_uris":["http://app.example.com/cb"]}`, "invalid_redirect_uri", 400},
			{"a bad method", `{"redirect_uris":["https://a.example/cb"],"token_endpoint_auth_method":"private_key_jwt"}`, "invalid_client_metadata", 400},
			{"a repeated name", `{"redirect_uris":["https://a.example/cb"],"redirect_uris":["https://b.example/cb"]}`, "invalid_client_metadata", 400},
			{"names that differ by case", `{"redirect_uris":["https://a.example/cb"],"Redirect_URIs":["https://b.example/cb"]}`, "invalid_client_metadata", 400},
			{"no JSON", `redirect_uris=x`, "invalid_client_metadata", 400},
			{"too large", `{"client_name":"` + strings.Repeat("x", 20<<10) + `"}`, "invalid_request", 413},
		} {
			next()
			wantError(t, row.name, s.register(t, row.doc), row.status, row.code)
		}
		next()
		wantError(t, "as a form", s.do(t, http.MethodPost, "/oauth/register", formType, publicClient), 400, "invalid_client_metadata")

		s.Clock.Advance(time.Hour)
		for i := range 10 {
			if a := s.register(t, publicClient); a.status != http.StatusCreated {
				t.Fatalf("registration %d of the burst: %d %s", i+1, a.status, a.body)
			}
		}
		limited := s.do(t, http.MethodPost, "/oauth/register", "application/json", publicClient, "X-Forwarded-For", "203.0.113.9", "Forwarded", "for=203.0.113.9")
		wantError(t, "the eleventh", limited, 429, "temporarily_unavailable") // S17: no header makes a new caller
		if limited.header.Get("Retry-After") != "30" {
			t.Errorf("got Retry-After %q, want 30", limited.header.Get("Retry-After"))
		}
		s.Clock.Advance(30 * time.Second)
		if a := s.register(t, publicClient); a.status != http.StatusCreated {
			t.Errorf("after waiting as told: %d %s", a.status, a.body)
		}

		closed := serve(t, s.World, authserver.Config{NoRegistration: true})
		if a := closed.register(t, publicClient); a.status != http.StatusNotFound {
			t.Errorf("switched off: got %d", a.status)
		}
		if a := closed.do(t, http.MethodGet, "/.well-known/oauth-authorization-server", "", ""); a.text("registration_endpoint") != "" {
			t.Error("the metadata names a registration endpoint that is switched off")
		}
	})
}

// W7: failures are limited by address and by client at an address; nobody can
// lock another out.
func TestFailuresAreLimited(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server, alice *agenttest.Person) {
		_, auth := s.Service(t, agent.Autonomous, alice.ID)
		var mu sync.Mutex
		address := "192.0.2.1:1000"
		from := func(a string) { mu.Lock(); defer mu.Unlock(); address = a }
		limited := serve(t, s.World, authserver.Config{Address: func(*http.Request) string { mu.Lock(); defer mu.Unlock(); return address }})
		try := func(sec string) answer {
			return limited.post(t, "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {auth.ID}, "client_secret": {sec}})
		}
		for i := range 20 {
			from(fmt.Sprintf("192.0.2.1:%d", 1000+i)) // another port is no other caller
			if a := try("wrong"); a.status != http.StatusUnauthorized {
				t.Fatalf("failure %d: got %d %s", i+1, a.status, a.body)
			}
		}
		for range 20 {
			wantError(t, "after 20 failures", try("wrong"), 429, "temporarily_unavailable")
		}
		if a := try(string(auth.Secret.Reveal())); a.status != http.StatusOK {
			t.Errorf("the right secret beside a flood of wrong ones: %d %s", a.status, a.body)
		}
		s.Clock.Advance(2 * time.Second)
		wantError(t, "a wrong secret after waiting", try("wrong"), 401, "invalid_client")
		// One address that tries many clients is one caller.
		from("192.0.2.99:1")
		for i := range 20 {
			a := limited.post(t, "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {string(id.NewClient())}, "client_secret": {"x"}})
			if a.status != http.StatusUnauthorized {
				t.Fatalf("client %d: got %d %s", i+1, a.status, a.body)
			}
		}
		wantError(t, "the 21st client", limited.post(t, "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {string(id.NewClient())},
			"client_secret": {"x"}}), 429, "temporarily_unavailable")
		_, verbose := s.Service(t, agent.Autonomous, alice.ID)
		from("203.0.113.5:1")
		refused := 0
		for range 70 {
			a := limited.post(t, "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {verbose.ID}, "client_secret": {string(verbose.Secret.Reveal())}})
			if a.status == http.StatusTooManyRequests {
				refused++
			}
		}
		if refused != 10 {
			t.Errorf("%d of 70 tokens at once refused, want those over the burst of 60", refused)
		}
	})
}

// W7: a public client has no secret, so anybody can fail in its name. That costs
// neither its tokens nor those of others behind the same address.
func TestNobodyFailsForAPublicClient(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server, alice *agenttest.Person) {
		client := s.public(t)
		code, verifier := s.flow(t, alice, client)
		last := answer{}
		for range 100 {
			last = s.post(t, "/oauth/token", codeForm(client, "amb_ac_nonsense", verifier))
		}
		wantError(t, "a hundred made-up codes", last, 429, "temporarily_unavailable")
		if a := s.post(t, "/oauth/token", codeForm(client, code, verifier)); a.status != http.StatusOK {
			t.Errorf("the client's own code: got %d %s", a.status, a.body)
		}
		_, auth := s.Service(t, agent.Autonomous, alice.ID)
		wantError(t, "another client's first failure", s.post(t, "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {auth.ID}, "client_secret": {"x"}}), 401, "invalid_client")
	})
}

// G3 over HTTP: twenty processes that share a credential get one successor.
func TestRacingRefreshesOverHTTP(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server, alice *agenttest.Person) {
		client := s.public(t)
		code, verifier := s.flow(t, alice, client)
		first := s.post(t, "/oauth/token", codeForm(client, code, verifier))
		var mu sync.Mutex
		seen := map[string]int{}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				a := s.post(t, "/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {client}, "refresh_token": {first.text("refresh_token")}})
				mu.Lock()
				defer mu.Unlock()
				seen[a.text("refresh_token")]++
			})
		}
		wg.Wait()
		if len(seen) != 1 || seen[""] != 0 {
			t.Errorf("got %d different successors of one token, %d without", len(seen), seen[""])
		}
	})
}
