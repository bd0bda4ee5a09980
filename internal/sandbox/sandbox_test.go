package sandbox_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/ambit-dev/ambit/internal/sandbox"
	"github.com/ambit-dev/ambit/internal/secret"
)

const (
	clientID     = "test-client"
	clientSecret = "test secret/with+odd:signs"
	apiKey       = "sbx_test_key"
	redirectURI  = "http://localhost:7420/oauth/callback"
	verifier     = "a-verifier-of-more-than-forty-three-characters-for-pkce"
	allScopes    = "issues:read issues:write issues:delete keys:write"
)

// place is a running sandbox, its clock, and a browser-like client that does
// not follow redirects.
type place struct {
	t    *testing.T
	url  string
	late atomic.Int64 // how far the clock was moved
	http *http.Client
}

func start(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, http: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	s := sandbox.New(sandbox.Config{
		Now:      func() time.Time { return time.Now().Add(time.Duration(p.late.Load())) },
		ClientID: clientID, ClientSecret: secret.FromString(clientSecret), APIKey: secret.FromString(apiKey),
		RedirectURIs: []string{"http://localhost/oauth/callback", "https://app.example/cb"},
	})
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	p.url = srv.URL
	return p
}

type reply struct {
	Status int
	Header http.Header
	Text   string
	JSON   map[string]any
}

func (r reply) str(name string) string { s, _ := r.JSON[name].(string); return s }

func (p *place) do(method, path string, header http.Header, body string) reply {
	p.t.Helper()
	req, err := http.NewRequest(method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header = header
	resp, err := p.http.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	out := reply{Status: resp.StatusCode, Header: resp.Header, Text: string(b)}
	_ = json.Unmarshal(b, &out.JSON)
	return out
}

func (p *place) form(path string, v url.Values, basic bool) reply {
	p.t.Helper()
	h := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	if basic {
		h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(clientID)+":"+url.QueryEscape(clientSecret))))
	}
	return p.do("POST", path, h, v.Encode())
}

func (p *place) api(token, method, path, body string) reply {
	p.t.Helper()
	return p.do(method, path, http.Header{"Authorization": {"Bearer " + token}}, body)
}

func (p *place) want(r reply, status int, code string) {
	p.t.Helper()
	if r.Status != status || (code != "" && r.str("error") != code) {
		p.t.Errorf("got %d %q (%s), want %d %q", r.Status, r.str("error"), strings.TrimSpace(r.Text), status, code)
	}
}

func (p *place) stats() sandbox.Stats {
	p.t.Helper()
	var s sandbox.Stats
	if err := json.Unmarshal([]byte(p.do("GET", "/_stats", nil, "").Text), &s); err != nil {
		p.t.Fatal(err)
	}
	return s
}

func authQuery(scope string) url.Values {
	sum := sha256.Sum256([]byte(verifier))
	return url.Values{"client_id": {clientID}, "redirect_uri": {redirectURI}, "response_type": {"code"}, "scope": {scope}, "state": {"st-1 &x"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}}
}

// formOf reads one account's form off the page as a browser would submit it.
func formOf(t *testing.T, page, email string) (action string, v url.Values) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	attr := func(n *html.Node, name string) string {
		for _, a := range n.Attr {
			if a.Key == name {
				return a.Val
			}
		}
		return ""
	}
	for form := range root.Descendants() {
		if form.Data != "form" {
			continue
		}
		v = url.Values{}
		for n := range form.Descendants() {
			if n.Data == "input" {
				v.Add(attr(n, "name"), attr(n, "value"))
			}
		}
		if v.Get("account") == email {
			v.Set("decision", "allow")
			return attr(form, "action"), v
		}
	}
	t.Fatalf("no form for %s on the page", email)
	return "", nil
}

// signIn walks the page and returns the parameters of the redirect back.
func (p *place) signIn(email, scope string, change func(url.Values)) url.Values {
	p.t.Helper()
	page := p.do("GET", "/oauth/authorize?"+authQuery(scope).Encode(), nil, "")
	p.want(page, 200, "")
	action, v := formOf(p.t, page.Text, email)
	if change != nil {
		change(v)
	}
	back := p.form(action, v, false)
	p.want(back, 302, "")
	to, err := url.Parse(back.Header.Get("Location"))
	if err != nil || !strings.HasPrefix(to.String(), redirectURI+"?") {
		p.t.Fatalf("redirected to %q", to)
	}
	q := to.Query()
	if q.Get("state") != "st-1 &x" || q.Get("iss") != p.url {
		p.t.Errorf("got state %q, iss %q; want what was sent and %q", q.Get("state"), q.Get("iss"), p.url)
	}
	return q
}

func exchange(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirectURI}, "code_verifier": {verifier}}
}

func refreshing(token string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
}

func (p *place) tokens(email, scope string) reply {
	p.t.Helper()
	r := p.form("/oauth/token", exchange(p.signIn(email, scope, nil).Get("code")), true)
	p.want(r, 200, "")
	return r
}

func TestCodeFlow(t *testing.T) {
	t.Parallel()
	p := start(t)
	meta := p.do("GET", "/.well-known/oauth-authorization-server", nil, "")
	if meta.str("issuer") != p.url || meta.str("token_endpoint") != p.url+"/oauth/token" {
		t.Errorf("got metadata %s", meta.Text)
	}
	for email, name := range map[string]string{"mia@sandbox.example": "Mia Okafor", "noa@sandbox.example": "Noa Lindqvist"} {
		tok := p.tokens(email, allScopes)
		if tok.str("token_type") != "Bearer" || tok.JSON["expires_in"] != 60.0 || tok.str("scope") != allScopes || tok.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("got token answer %s", tok.Text)
		}
		me := p.api(tok.str("access_token"), "GET", "/me", "")
		if me.str("email") != email || me.str("name") != name || me.str("id") == "" {
			t.Errorf("got /me %s, want %s", me.Text, email)
		}
	}
	// client_secret_post
	v := exchange(p.signIn("mia@sandbox.example", "", nil).Get("code"))
	v.Set("client_id", clientID)
	v.Set("client_secret", clientSecret)
	r := p.form("/oauth/token", v, false)
	p.want(r, 200, "")
	if r.str("scope") != "issues:read" {
		t.Errorf("got default scope %q, want issues:read", r.str("scope"))
	}
	p.want(p.form("/oauth/token", v, true), 400, "invalid_request")
	v.Set("client_secret", "wrong")
	p.want(p.form("/oauth/token", v, false), 401, "invalid_client")
	v.Del("client_secret")
	p.want(p.form("/oauth/token", v, false), 401, "invalid_client")

	p.late.Store(int64(time.Minute))
	p.want(p.api(r.str("access_token"), "GET", "/me", ""), 401, "invalid_token")
}

func TestAuthorizeRefusals(t *testing.T) {
	t.Parallel()
	p := start(t)
	for name, c := range map[string]struct {
		change func(url.Values)
		status int
		code   string // in the redirect
	}{
		"client":         {func(v url.Values) { v.Set("client_id", "x") }, 400, ""},
		"redirect path":  {func(v url.Values) { v.Set("redirect_uri", "http://localhost:7420/other") }, 400, ""},
		"redirect host":  {func(v url.Values) { v.Set("redirect_uri", "http://127.0.0.1:7420/oauth/callback") }, 400, ""},
		"redirect port":  {func(v url.Values) { v.Set("redirect_uri", "https://app.example:444/cb") }, 400, ""},
		"redirect user":  {func(v url.Values) { v.Set("redirect_uri", "http://x@localhost:7420/oauth/callback") }, 400, ""},
		"no PKCE":        {func(v url.Values) { v.Del("code_challenge") }, 302, "invalid_request"},
		"plain PKCE":     {func(v url.Values) { v.Set("code_challenge_method", "plain") }, 302, "invalid_request"},
		"response type":  {func(v url.Values) { v.Set("response_type", "token") }, 302, "unsupported_response_type"},
		"unknown scope":  {func(v url.Values) { v.Set("scope", "admin") }, 302, "invalid_scope"},
		"other loopback": {func(v url.Values) { v.Set("redirect_uri", "http://localhost:1/oauth/callback") }, 200, ""},
	} {
		v := authQuery(allScopes)
		c.change(v)
		r := p.do("GET", "/oauth/authorize?"+v.Encode(), nil, "")
		to, _ := url.Parse(r.Header.Get("Location"))
		if r.Status != c.status || to.Query().Get("error") != c.code {
			t.Errorf("%s: got %d to %q, want %d %q", name, r.Status, to, c.status, c.code)
		}
	}
	for name, change := range map[string]func(url.Values){
		"deny":        func(v url.Values) { v.Set("decision", "deny") },
		"nothing":     func(v url.Values) { v.Del("grant") },
		"stranger":    func(v url.Values) { v.Set("account", "eve@sandbox.example") },
		"more scopes": func(v url.Values) { v["scope"] = []string{"issues:read"}; v["grant"] = []string{"keys:write"} },
	} {
		if got := p.signIn("mia@sandbox.example", allScopes, change).Get("error"); got != "access_denied" {
			t.Errorf("%s: got %q, want access_denied", name, got)
		}
	}
}

func TestCodeIsBoundAndSingleUse(t *testing.T) {
	t.Parallel()
	p := start(t)
	code := p.signIn("mia@sandbox.example", allScopes, nil).Get("code")
	for name, change := range map[string]func(url.Values){
		"verifier":     func(v url.Values) { v.Set("code_verifier", verifier+"x") },
		"no verifier":  func(v url.Values) { v.Del("code_verifier") },
		"redirect_uri": func(v url.Values) { v.Set("redirect_uri", "http://localhost:1/oauth/callback") },
		"code":         func(v url.Values) { v.Set("code", "x") },
	} {
		v := exchange(code)
		change(v)
		if r := p.form("/oauth/token", v, true); r.str("error") != "invalid_grant" {
			t.Errorf("wrong %s: got %s, want invalid_grant", name, r.Text)
		}
	}
	tok := p.form("/oauth/token", exchange(code), true)
	p.want(tok, 200, "")
	p.want(p.form("/oauth/token", exchange(code), true), 400, "invalid_grant")
	p.want(p.api(tok.str("access_token"), "GET", "/me", ""), 401, "invalid_token")

	late := p.signIn("mia@sandbox.example", allScopes, nil).Get("code")
	p.late.Store(int64(2 * time.Minute))
	p.want(p.form("/oauth/token", exchange(late), true), 400, "invalid_grant")
	p.want(p.form("/oauth/token", url.Values{"grant_type": {"password"}}, true), 400, "unsupported_grant_type")
}

// A refresh token works once; the second use of one kills the whole grant, and
// only that grant.
func TestRotationAndReuse(t *testing.T) {
	t.Parallel()
	p := start(t)
	other := p.tokens("noa@sandbox.example", allScopes)
	first := p.tokens("mia@sandbox.example", allScopes)
	second := p.form("/oauth/token", refreshing(first.str("refresh_token")), true)
	p.want(second, 200, "")
	if second.str("refresh_token") == first.str("refresh_token") || second.str("access_token") == first.str("access_token") {
		t.Error("the refresh did not rotate")
	}
	p.want(p.api(second.str("access_token"), "GET", "/me", ""), 200, "")
	narrow := refreshing(second.str("refresh_token"))
	narrow.Set("scope", "admin")
	p.want(p.form("/oauth/token", narrow, true), 400, "invalid_scope")

	p.want(p.form("/oauth/token", refreshing(first.str("refresh_token")), true), 400, "invalid_grant")
	p.want(p.form("/oauth/token", refreshing(second.str("refresh_token")), true), 400, "invalid_grant")
	p.want(p.api(second.str("access_token"), "GET", "/me", ""), 401, "invalid_token")
	p.want(p.api(other.str("access_token"), "GET", "/me", ""), 200, "")
	want := sandbox.Stats{Codes: 2, Refreshes: 1, Reuses: 1, Calls: 3, Unauthorized: 1}
	if got := p.stats(); got != want {
		t.Errorf("got stats %+v, want %+v", got, want)
	}
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	p := start(t)
	tok := p.tokens("mia@sandbox.example", allScopes)
	access, refresh := tok.str("access_token"), tok.str("refresh_token")
	p.want(p.form("/oauth/revoke", url.Values{"token": {access}}, false), 401, "invalid_client")
	p.want(p.api(access, "GET", "/me", ""), 200, "")
	p.want(p.form("/oauth/revoke", url.Values{"token": {access}}, true), 200, "")
	p.want(p.api(access, "GET", "/me", ""), 401, "invalid_token")
	next := p.form("/oauth/token", refreshing(refresh), true)
	p.want(next, 200, "")
	p.want(p.form("/oauth/revoke", url.Values{"token": {next.str("refresh_token")}, "token_type_hint": {"refresh_token"}}, true), 200, "")
	p.want(p.api(next.str("access_token"), "GET", "/me", ""), 401, "invalid_token")
	p.want(p.form("/oauth/token", refreshing(next.str("refresh_token")), true), 400, "invalid_grant")
	p.want(p.form("/oauth/revoke", url.Values{"token": {"unknown"}}, true), 200, "")
	p.want(p.form("/oauth/revoke", url.Values{}, true), 400, "invalid_request")
	if got := p.stats().Revocations; got != 2 {
		t.Errorf("got %d revocations, want 2", got)
	}
}

func TestPartialGrant(t *testing.T) {
	t.Parallel()
	p := start(t)
	q := p.signIn("mia@sandbox.example", allScopes, func(v url.Values) { v["grant"] = []string{"issues:read", "keys:write"} })
	tok := p.form("/oauth/token", exchange(q.Get("code")), true)
	if got := tok.str("scope"); got != "issues:read keys:write" {
		t.Errorf("got scope %q, want the two that were ticked", got)
	}
	p.want(p.api(tok.str("access_token"), "GET", "/issues", ""), 200, "")
	p.want(p.api(tok.str("access_token"), "POST", "/issues", `{"title":"x"}`), 403, "insufficient_scope")
	if r := p.form("/oauth/token", refreshing(tok.str("refresh_token")), true); r.str("scope") != "issues:read keys:write" {
		t.Errorf("got scope %q after a refresh", r.str("scope"))
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	p := start(t)
	for _, c := range []struct {
		scope, method, path, body string
		status                    int
	}{
		{"issues:read", "GET", "/issues", "", 200},
		{"issues:read", "GET", "/issues/1", "", 200},
		{"issues:write", "POST", "/issues", `{"title":"t"}`, 201},
		{"issues:write", "PATCH", "/issues/1", `{"state":"closed"}`, 200},
		{"issues:delete", "DELETE", "/issues/2", "", 204},
		{"keys:write", "POST", "/keys", `{"name":"ci"}`, 201},
	} {
		for _, scope := range strings.Fields(allScopes) {
			token := p.tokens("mia@sandbox.example", scope).str("access_token")
			r := p.api(token, c.method, c.path, c.body)
			want := 403
			if scope == c.scope {
				want = c.status
			}
			if r.Status != want {
				t.Errorf("%s %s with %s: got %d, want %d", c.method, c.path, scope, r.Status, want)
			}
		}
		p.want(p.do(c.method, c.path, nil, c.body), 401, "invalid_token")
		p.want(p.do(c.method, c.path, http.Header{"X-Api-Key": {"wrong"}}, c.body), 401, "invalid_token")
	}
}

func TestIssues(t *testing.T) {
	t.Parallel()
	p := start(t)
	key := http.Header{"X-Api-Key": {apiKey}}
	list := func(query string) (numbers []float64, r reply) {
		r = p.do("GET", "/issues"+query, key, "")
		for _, i := range r.JSON["issues"].([]any) {
			numbers = append(numbers, i.(map[string]any)["number"].(float64))
		}
		return numbers, r
	}
	if n, r := list(""); fmt.Sprint(n) != "[5 4 3 2 1]" || r.JSON["total"] != 5.0 || r.JSON["next_page"] != nil {
		t.Errorf("got %v, want the five seeded issues", n)
	}
	if n, r := list("?state=open&per_page=3"); fmt.Sprint(n) != "[5 3 2]" || r.JSON["next_page"] != 2.0 {
		t.Errorf("got %v", n)
	}
	if n, r := list("?state=open&per_page=3&page=2"); fmt.Sprint(n) != "[1]" || r.JSON["next_page"] != nil {
		t.Errorf("got %v", n)
	}
	if n, _ := list("?page=900"); len(n) != 0 {
		t.Errorf("got %v, want an empty page", n)
	}
	for _, bad := range []string{"?state=x", "?page=0", "?per_page=101", "?page=a"} {
		p.want(p.do("GET", "/issues"+bad, key, ""), 422, "invalid_query")
	}
	made := p.do("POST", "/issues", key, `{"title":"Dark mode","body":"Please."}`)
	if made.Status != 201 || made.JSON["number"] != 6.0 || made.str("author") != "mia@sandbox.example" || made.str("state") != "open" || made.Header.Get("Location") != "/issues/6" {
		t.Errorf("got %d %s", made.Status, made.Text)
	}
	changed := p.do("PATCH", "/issues/6", key, `{"state":"closed"}`)
	if changed.str("state") != "closed" || changed.str("title") != "Dark mode" {
		t.Errorf("got %s", changed.Text)
	}
	for body, code := range map[string]string{`{`: "invalid_json", `[]`: "invalid_json", `{}`: "invalid_title", `{"title":" "}`: "invalid_title", `{"title":"t","state":"x"}`: "invalid_state"} {
		if r := p.do("POST", "/issues", key, body); r.str("error") != code {
			t.Errorf("%s: got %s, want %s", body, r.Text, code)
		}
	}
	p.want(p.do("POST", "/issues", key, `{"title":"`+strings.Repeat("x", 64<<10)+`"}`), 413, "too_large")
	p.want(p.do("DELETE", "/issues/6", key, ""), 204, "")
	for _, path := range []string{"/issues/6", "/issues/x", "/issues/-1"} {
		p.want(p.do("GET", path, key, ""), 404, "not_found")
	}
	for range 995 {
		p.want(p.do("POST", "/issues", key, `{"title":"t"}`), 201, "")
	}
	p.want(p.do("POST", "/issues", key, `{"title":"t"}`), 422, "limit_reached")
}

func TestKeysOpenTheAPI(t *testing.T) {
	t.Parallel()
	p := start(t)
	token := p.tokens("noa@sandbox.example", "keys:write").str("access_token")
	made := p.api(token, "POST", "/keys", `{"name":"ci"}`)
	p.want(made, 201, "")
	me := p.do("GET", "/me", http.Header{"X-Api-Key": {made.str("key")}}, "")
	if me.str("email") != "noa@sandbox.example" {
		t.Errorf("got %s, want the key to act as its maker", me.Text)
	}
	p.want(p.api(token, "POST", "/keys", `{}`), 422, "invalid_name")
}

func TestSurfacesThatGiveTheCredentialBack(t *testing.T) {
	t.Parallel()
	p := start(t)
	token := p.tokens("mia@sandbox.example", "issues:read").str("access_token")
	echo := p.api(token, "POST", "/echo?a=b", `{"x":1}`)
	got, _ := echo.JSON["headers"].(map[string]any)["Authorization"].([]any)
	if echo.str("method") != "POST" || echo.str("path") != "/echo" || echo.str("body") != `{"x":1}` || fmt.Sprint(got) != "[Bearer "+token+"]" {
		t.Errorf("got echo %s", echo.Text)
	}
	who := p.api(token, "GET", "/whoami-token", "")
	for name, form := range map[string]string{
		"authorization": "Bearer " + token, "authorization_bare": token,
		"authorization_base64":     base64.StdEncoding.EncodeToString([]byte("Bearer " + token)),
		"authorization_urlencoded": url.QueryEscape("Bearer " + token),
	} {
		if who.str(name) != form {
			t.Errorf("%s: got %q, want %q", name, who.str(name), form)
		}
	}
	if who.Header.Get("X-Seen-Authorization") != "Bearer "+token || !strings.Contains(who.Header.Get("Set-Cookie"), token) {
		t.Errorf("got headers %v", who.Header)
	}
	p.want(p.do("GET", "/echo", nil, ""), 401, "invalid_token")
}

func TestFaults(t *testing.T) {
	t.Parallel()
	p := start(t)
	key := http.Header{"X-Api-Key": {apiKey}}
	set := func(body string) { t.Helper(); p.want(p.do("POST", "/_fault", nil, body), 204, "") }
	get := func(path string) reply { t.Helper(); return p.do("GET", path, key, "") }

	set(`{"path":"/issues","times":2,"status":503,"headers":{"Retry-After":"7"},"body":{"error":"down"}}`)
	p.want(get("/me"), 200, "")
	if r := get("/issues"); r.Status != 503 || r.Header.Get("Retry-After") != "7" || r.str("error") != "down" {
		t.Errorf("got %d %s", r.Status, r.Text)
	}
	p.want(get("/issues/1"), 503, "down")
	p.want(get("/issues"), 200, "")

	set(`{"path":"/issues","redirect":"http://elsewhere.test/x","status":307}`)
	if r := get("/issues"); r.Status != 307 || r.Header.Get("Location") != "http://elsewhere.test/x" {
		t.Errorf("got %d %v", r.Status, r.Header)
	}
	set(`{"path":"/issues","delay_ms":80}`)
	begin := time.Now()
	p.want(get("/issues"), 200, "")
	if d := time.Since(begin); d < 80*time.Millisecond {
		t.Errorf("answered after %v, want a delay of 80 ms", d)
	}
	set(`{"path":"/issues","body":"<html>not json"}`)
	if r := get("/issues"); r.Status != 200 || r.Text != "<html>not json" {
		t.Errorf("got %d %q", r.Status, r.Text)
	}
	set(`{"path":"/issues","fill_bytes":1000001}`)
	if r := get("/issues"); len(r.Text) != 1000001 {
		t.Errorf("got %d bytes", len(r.Text))
	}
	for _, cut := range []string{`{"path":"/issues","cut":true}`, `{"path":"/issues","cut":true,"body":"half of this"}`} {
		set(cut)
		// Not a GET: the transport quietly sends those again.
		req, _ := http.NewRequest("POST", p.url+"/issues", strings.NewReader("{}"))
		resp, err := p.http.Do(req)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: got a whole answer", cut)
		}
	}
	// A lost answer: the work is done all the same.
	set(`{"method":"POST","path":"/issues","after":true,"status":502}`)
	p.want(get("/issues"), 200, "")
	p.want(p.do("POST", "/issues", key, `{"title":"lost"}`), 502, "")
	if r := get("/issues"); r.JSON["total"] != 6.0 {
		t.Errorf("got %v issues, want the lost one among 6", r.JSON["total"])
	}
	set(`{"path":"/","status":500,"times":5}`)
	p.want(get("/me"), 500, "")
	p.want(p.do("DELETE", "/_fault", nil, ""), 204, "")
	p.want(get("/me"), 200, "")

	for _, bad := range []string{`{`, `{"path":"x"}`, `{"path":"/x","times":0}`, `{"path":"/x","delay_ms":60001}`, `{"path":"/x","status":99}`, `{"path":"/x","typo":1}`, `{"path":"/x","fill_bytes":99999999}`} {
		if r := p.do("POST", "/_fault", nil, bad); r.str("error") != "invalid_fault" {
			t.Errorf("%s: got %d %s, want invalid_fault", bad, r.Status, r.Text)
		}
	}
}

func TestRunServesUntilTheContextEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	base, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- sandbox.New(sandbox.Config{}).Run(ctx, "localhost:0", func(u string) { base <- u })
	}()
	var u string
	select {
	case u = <-base:
	case err := <-done:
		t.Fatal(err)
	}
	if !strings.HasPrefix(u, "http://localhost:") || strings.HasSuffix(u, ":0") {
		t.Errorf("got base URL %q", u)
	}
	// One connection each: on one that was used before, the client would send a call
	// that was cut again, and the server may still be there to answer it.
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(u + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	// A call that hangs does not hold the stop up.
	resp, err = c.Post(u+"/_fault", "application/json", strings.NewReader(`{"path":"/me","delay_ms":60000}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	hung := make(chan error, 1)
	go func() {
		resp, err := c.Get(u + "/me")
		if err == nil {
			_ = resp.Body.Close()
		}
		hung <- err
	}()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		var stats sandbox.Stats
		resp, err := c.Get(u + "/_stats")
		if err != nil {
			t.Fatal(err)
		}
		err = json.NewDecoder(resp.Body).Decode(&stats)
		_ = resp.Body.Close()
		if err != nil || time.Now().After(end) {
			t.Fatalf("the call did not arrive: %v", err)
		}
		if stats.Calls > 0 {
			break
		}
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("got %v, want a quiet stop", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run did not stop")
	}
	if err := <-hung; err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the hanging call cut", err)
	}
	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "localhost"} {
		if err := sandbox.New(sandbox.Config{}).Run(t.Context(), addr, nil); err == nil {
			t.Errorf("Run(%q): got nil, want a refusal", addr)
		}
	}
}
