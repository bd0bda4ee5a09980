package provider_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sandbox"
)

// upstream serves h and gives a client that may reach it.
func upstream(t testing.TB, h http.HandlerFunc) (base string, client *outbound.Client) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	client, err := outbound.New(outbound.Policy{Allow: []string{strings.TrimPrefix(srv.URL, "http://")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return srv.URL, client
}

// key is a record with its credential, against a running upstream.
type key struct {
	client *outbound.Client
	rec    provider.Record
	cred   provider.Credential
	base   string
}

const apiKey = "sk_canary_0123456789/+abcdef"

func keyed(t testing.TB, h http.HandlerFunc) key {
	t.Helper()
	base, client := upstream(t, h)
	return key{client, parse(t, sandbox.KeyRecord(base)), credential(provider.APIKey, "api_key", apiKey), base}
}

func (k key) call(t testing.TB, name, args string) (provider.Answer, error) {
	t.Helper()
	tl := tool(t, k.rec, "sandbox_key_"+name)
	req, err := tl.Build(json.RawMessage(args), k.rec.Pinned().API...)
	if err != nil {
		t.Fatal(err)
	}
	return provider.Call(context.Background(), k.client, k.rec.Pinned(), k.rec, tl, req, k.cred)
}

func TestCallSendsTheRequestWithTheCredential(t *testing.T) {
	t.Parallel()
	k := keyed(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got := fmt.Sprintf("%s %s %s %s %s %s", r.Method, r.URL, r.Header.Get("X-Api-Key"), r.Header.Get("Content-Type"), r.Header.Get("Accept"), body)
		if want := "POST /issues " + apiKey + ` application/json application/json {"labels":["a"],"title":"x"}`; got != want {
			t.Errorf("upstream got %s", got)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"number": 7, "title": "x"}`)
	})
	a, err := k.call(t, "create_issue", `{"title":"x","labels":["a"]}`)
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != 201 || !a.JSON || string(a.Body) != `{"number":7,"title":"x"}` || a.AuthFailed || a.Truncated {
		t.Errorf("got %+v %s", a, a.Body)
	}
}

// Rule 1, U1: an upstream that puts the credential wherever it can.
func TestCallReturnsNoCredential(t *testing.T) {
	t.Parallel()
	k := keyed(t, func(w http.ResponseWriter, r *http.Request) {
		auth := "Bearer " + r.Header.Get("X-Api-Key")
		for _, h := range []string{"Set-Cookie", "X-Echo", "ETag", "X-Request-Id", "X-RateLimit-Note", "WWW-Authenticate", "Content-Disposition"} {
			w.Header().Set(h, "x="+auth)
		}
		w.Header().Set("Link", "</next?key="+url.QueryEscape(apiKey)+`>; rel="next"`)
		w.Header().Set("X-RateLimit-"+hex.EncodeToString([]byte(apiKey)), "1")
		w.Header().Set("Trailer", "X-Late")
		status := 200
		if s := r.URL.Query().Get("status"); s != "" {
			_, _ = fmt.Sscan(s, &status)
		}
		w.Header().Set("Location", "/"+url.PathEscape(apiKey))
		switch r.URL.Query().Get("as") {
		case "html":
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(status)
			fmt.Fprintf(w, "<p>%s</p>", auth)
		case "broken":
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"a": %q`, auth)
		case "form":
			w.Header().Set("Content-Type", "application/x-www-form-urlencoded")
			w.WriteHeader(status)
			fmt.Fprintf(w, "a=1&api_key=%s&b=%s", "other-secret", url.QueryEscape(auth))
		default:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string]any{"headers": r.Header, "nested": []any{map[string]any{"api_key": "other-secret", "Key": "other-secret"}}, apiKey: 1})
		}
		w.Header().Set("X-Late", auth)
	})
	for _, as := range []string{"json", "html", "broken", "form"} {
		for _, status := range []int{200, 201, 302, 304, 400, 401, 403, 404, 500} {
			a, err := k.call(t, "read", fmt.Sprintf(`{"path":"/echo","query":{"as":%q,"status":%d}}`, as, status))
			if err != nil {
				t.Fatalf("%s %d: %v", as, status, err)
			}
			seen := fmt.Sprintf("%v %s %+v", a.Header, a.Body, a)
			if holds(seen, apiKey) || strings.Contains(seen, "sk_canary") || strings.Contains(seen, "other-secret") {
				t.Errorf("%s %d: the answer holds a secret: %s", as, status, seen)
			}
			for _, h := range []string{"Set-Cookie", "X-Echo", "Www-Authenticate", "X-Late", "Trailer"} {
				if a.Header.Get(h) != "" {
					t.Errorf("%s %d: header %s came through", as, status, h)
				}
			}
			if a.Status != status || a.AuthFailed != (status == 401) {
				t.Errorf("%s %d: got %d, %v", as, status, a.Status, a.AuthFailed)
			}
			if status == 401 && len(a.Body) != 0 {
				t.Errorf("an authentication error came through: %s", a.Body)
			}
		}
	}
}

func TestCallShowsWhatIsUseful(t *testing.T) {
	t.Parallel()
	k := keyed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("ETag", `"7"`)
		w.Header().Set("X-RateLimit-Remaining", "9")
		w.Header().Set("Retry-After", "3")
		w.Header().Set("X-Request-Id", "abc")
		w.Header().Add("Link", `</a?page=2>; rel="next", <http://`+r.Host+`/b>; rel="last"; title="x, y"`)
		w.Header().Add("Link", `</a>; rel="a", <https://evil.example/b>; rel="b"`)
		_, _ = io.WriteString(w, strings.Repeat("é", 200<<10))
	})
	a, err := k.call(t, "read", `{"path":"/big"}`)
	if err != nil {
		t.Fatal(err)
	}
	if !a.Truncated || a.JSON || a.Binary || len(a.Body) > 256<<10 || !strings.HasSuffix(string(a.Body), "é") {
		t.Errorf("truncated %v, JSON %v, binary %v, %d bytes", a.Truncated, a.JSON, a.Binary, len(a.Body))
	}
	want := http.Header{"Content-Type": {"text/plain"}, "Etag": {`"7"`}, "X-Ratelimit-Remaining": {"9"}, "Retry-After": {"3"}, "X-Request-Id": {"abc"},
		"Link": {`</a?page=2>; rel="next", <` + k.base + `/b>; rel="last"; title="x, y"`}}
	if d := cmp.Diff(want, a.Header); d != "" {
		t.Error(d)
	}
}

func TestCallAnswersARedirect(t *testing.T) {
	t.Parallel()
	var target string
	k := keyed(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/from" {
			t.Errorf("the redirect was followed to %s", r.URL)
		}
		w.Header().Set("Location", target)
		w.WriteHeader(http.StatusFound)
		_, _ = io.WriteString(w, "moved")
	})
	for _, row := range [][2]string{
		{"/to?page=2", "/to?page=2"}, {k.base + "/to", k.base + "/to"}, {"https://evil.example/?t=1", "[redacted]"}, {"//evil.example/", "[redacted]"},
		{"http://x@" + strings.TrimPrefix(k.base, "http://") + "/", "[redacted]"}, {`/\evil.example`, "[redacted]"},
	} {
		target = row[0]
		a, err := k.call(t, "read", `{"path":"/from"}`)
		if err != nil || a.Status != 302 || a.Header.Get("Location") != row[1] || len(a.Body) != 0 {
			t.Errorf("to %s: got %d %q %q, %v, want %s", row[0], a.Status, a.Header.Get("Location"), a.Body, err, row[1])
		}
	}
}

// Rule 6: the credential goes to the pinned API only.
func TestCallIsBoundToThePinnedPlaces(t *testing.T) {
	t.Parallel()
	called := false
	k := keyed(t, func(http.ResponseWriter, *http.Request) { called = true })
	tl := tool(t, k.rec, "sandbox_key_echo")
	req, err := tl.Build(nil, k.rec.Pinned().API...)
	if err != nil {
		t.Fatal(err)
	}
	for _, api := range [][]string{nil, {"https://other.example"}, {k.base + "/prefix"}} {
		_, err := provider.Call(context.Background(), k.client, provider.Pinned{API: api}, k.rec, tl, req, k.cred)
		if !fault.Is(err, "destination_denied") || outbound.Sent(err) {
			t.Errorf("pinned to %v: got %v", api, err)
		}
	}
	if called {
		t.Error("the upstream was called")
	}
}

func TestCallWithoutCompleteCredentialSendsNothing(t *testing.T) {
	t.Parallel()
	k := keyed(t, func(http.ResponseWriter, *http.Request) { t.Error("the upstream was called") })
	k.cred = provider.Credential{}
	if _, err := k.call(t, "echo", ""); !fault.Is(err, "credential_incomplete") {
		t.Errorf("got %v", err)
	}
}

func TestIdentify(t *testing.T) {
	t.Parallel()
	status, answer := 200, ""
	k := keyed(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/me" || r.Header.Get("X-Api-Key") != apiKey {
			t.Errorf("asked %s with %q", r.URL, r.Header.Get("X-Api-Key"))
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	})
	for _, row := range []struct {
		status   int
		answer   string
		id, name string
		code     string
	}{
		{200, `{"id":"u1","email":"ann@example.com"}`, "u1", "ann@example.com", ""},
		{200, `{"id":12345678901234567890}`, "12345678901234567890", "12345678901234567890", ""},
		{200, `{"email":"ann@example.com"}`, "", "", "identity_unreadable"},
		{200, `{"ok":false}`, "", "", "identity_unreadable"},
		{200, `{"id":{"x":1}}`, "", "", "identity_unreadable"},
		{200, `{"id":""}`, "", "", "identity_unreadable"},
		{200, `{"id":"a\u202eb"}`, "", "", "identity_unreadable"},
		{200, `<html>`, "", "", "identity_unreadable"},
		{200, `{"id":"` + apiKey + `"}`, "", "", "identity_unreadable"},
		{200, `{"id":"u1","email":"` + apiKey + `"}`, "", "", "identity_unreadable"},
		{401, `{"id":"u1"}`, "", "", "credential_rejected"},
		{302, ``, "", "", "upstream_error"},
		{500, apiKey, "", "", "upstream_error"},
	} {
		status, answer = row.status, row.answer
		got, err := provider.Identify(context.Background(), k.client, k.rec.Pinned(), k.rec, k.cred)
		if row.code == "" && (err != nil || got.ID != row.id || got.Label != row.name) || row.code != "" && !fault.Is(err, row.code) {
			t.Errorf("%d %s: got %+v, %v", row.status, row.answer, got, err)
		}
		if err != nil && strings.Contains(err.Error(), apiKey) {
			t.Errorf("the error holds the key: %v", err)
		}
		health := provider.CheckHealth(context.Background(), k.client, k.rec.Pinned(), k.rec, k.cred)
		if (health == nil) != (row.status == 200) {
			t.Errorf("health with %d: got %v", row.status, health)
		}
	}
}

func BenchmarkCleanAnswer(b *testing.B) {
	red := inject(b, keyRecord(b, `{header: X-Key, format: "Bearer {api_key}"}`), request(b, "https://api.example.com/"), credential(provider.APIKey, "api_key", apiKey))
	item := `{"id":12345,"title":"An issue with a title","body":"line one\nline two","url":"https:\/\/api.example.com\/issues\/1","labels":["a","b"],"open":true},`
	doc := []byte("[" + strings.Repeat(item, 20) + "null]")
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		if out, ok := red.JSON(doc, map[string]bool{"token": true}); !ok || red.Finds(out) {
			b.Fatal("not clean")
		}
	}
}

// deskAt is the record of engine_test.go against a running upstream.
func deskAt(t testing.TB, h http.HandlerFunc) func(name, args string) provider.Answer {
	t.Helper()
	base, client := upstream(t, h)
	rec := parse(t, strings.Replace(string(desk(t).Source()), "https://api.desk.example/v1", base, 1))
	return func(name, args string) provider.Answer {
		t.Helper()
		tl := tool(t, rec, "desk_"+name)
		req, err := tl.Build(json.RawMessage(args), rec.Pinned().API...)
		check(t, err)
		a, err := provider.Call(t.Context(), client, rec.Pinned(), rec, tl, req, credential(provider.APIKey, "api_key", apiKey))
		check(t, err)
		return a
	}
}

// Issue 5, rule 1: an answer keeps the fields that the tool names, shows decoded
// what it says is base64, and the credential comes through neither.
func TestCallKeepsAndDecodes(t *testing.T) {
	t.Parallel()
	text := func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) }
	status := 200
	call := deskAt(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"id":"7","secret":{"id":1},"owner":{"name":"Ada","mail":"x"},"parts":[{"title":["a",{"id":2}],"body":{"data":%q,"size":9}},{"body":{"data":%q}},{"body":{"data":"?"}}],"token":"t"}`,
			text("grüße\n"), text("the key is "+apiKey))
	})
	a := call("get_page", `{"path":"x"}`)
	want := `{"id":"7","owner":{"name":"Ada"},"parts":[{"title":["a",{"id":2}],"body":{"data":"grüße\n"}},{"body":{"data":"the key is [redacted]"}},{"body":{"data":"?"}}]}`
	if !a.JSON || string(a.Body) != want {
		t.Errorf("got  %s\nwant %s", a.Body, want)
	}
	status = 404 // what went wrong is told whole
	if a := call("get_page", `{"path":"x"}`); !strings.Contains(string(a.Body), `"secret"`) || strings.Contains(string(a.Body), `"token"`) {
		t.Errorf("got %s", a.Body)
	}
}

// Issue 5: an answer that says "not yet" is followed up below the same base,
// with the credential; what the provider says cannot lead elsewhere.
func TestCallFollowsUp(t *testing.T) {
	t.Parallel()
	var seen []string
	job, answers := "j 1", 1
	call := deskAt(t, func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Method+" "+r.RequestURI+" "+r.Header.Get("Authorization"))
		w.Header().Set("Content-Type", "application/json")
		if answers--; answers >= 0 {
			w.WriteHeader(http.StatusAccepted)
		}
		fmt.Fprintf(w, `{"job":%q,"left":%d}`, job, answers)
	})
	if a := call("run", `{}`); a.Status != 200 || string(a.Body) != `{"job":"j 1","left":-1}` {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
	if d := cmp.Diff([]string{"POST /jobs Bearer " + apiKey, "GET /jobs/j%201 Bearer " + apiKey}, seen); d != "" {
		t.Error(d)
	}
	seen, job, answers = nil, "../keys", 1
	if a := call("run", `{}`); a.Status != 202 || len(seen) != 1 {
		t.Errorf("got %d, asked %q", a.Status, seen)
	}
}
