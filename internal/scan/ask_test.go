package scan

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/secret"
)

// providers is a server that speaks as several providers do, each below its own host's
// name in the path, and remembers what it was sent.
type providers struct {
	*httptest.Server
	mu        sync.Mutex
	asked     []string // host and path
	live      map[string]bool
	elsewhere *httptest.Server // where a redirect leads
}

const canaryTail = "canaryQ7w9E2r4T6y8U1i3O5p7A9s1D3f5"

func newProviders(t *testing.T, live ...string) *providers {
	t.Helper()
	p := &providers{live: map[string]bool{}}
	for _, v := range live {
		p.live[v] = true
	}
	p.elsewhere = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	p.Server = httptest.NewServer(p)
	t.Cleanup(func() { p.Server.Close(); p.elsewhere.Close() })
	return p
}

// at is where the fake stands for a provider's address.
func (p *providers) at(address string) string {
	u, _ := url.Parse(address)
	return p.URL + "/" + u.Host + u.Path
}

func (p *providers) client(t *testing.T) *outbound.Client {
	t.Helper()
	u, _ := url.Parse(p.URL)
	e, _ := url.Parse(p.elsewhere.URL)
	c, err := outbound.New(outbound.Policy{Allow: []string{u.Host, e.Host}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (p *providers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	call := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/")
	p.asked = append(p.asked, call)
	key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	works := func(v string) bool { return p.live[v] }
	answer := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	byKey := func(v string, ok int) {
		if works(v) {
			delete(p.live, v)
			answer(ok, map[string]any{})
			return
		}
		answer(401, map[string]any{"error": "unauthorized"})
	}
	switch call {
	case "GET api.github.com/user", "GET api.openai.com/v1/models":
		switch {
		case works(key):
			answer(200, map[string]any{"login": "mia"})
		case strings.HasSuffix(key, "moved"):
			http.Redirect(w, r, p.elsewhere.URL, http.StatusFound)
		case strings.HasSuffix(key, "limited"):
			answer(429, map[string]any{})
		default:
			answer(401, map[string]any{"message": "Bad credentials"})
		}
	case "GET api.anthropic.com/v1/models":
		if v := r.Header.Get("X-Api-Key"); works(v) && r.Header.Get("Anthropic-Version") != "" && key == "" {
			answer(200, map[string]any{})
			return
		}
		answer(401, map[string]any{})
	case "POST slack.com/api/auth.test":
		answer(200, map[string]any{"ok": works(key), "error": "invalid_auth"})
	case "POST slack.com/api/auth.revoke":
		ok := works(key)
		delete(p.live, key)
		answer(200, map[string]any{"ok": ok, "revoked": ok, "error": "invalid_auth"})
	case "POST api.github.com/credentials/revoke":
		var in struct{ Credentials []string }
		switch {
		case r.Header.Get("Authorization") != "":
			answer(403, map[string]any{})
		case json.Unmarshal(body, &in) != nil || len(in.Credentials) == 0:
			answer(422, map[string]any{})
		default:
			for _, v := range in.Credentials {
				delete(p.live, v)
			}
			answer(202, map[string]any{})
		}
	case "DELETE gitlab.com/api/v4/personal_access_tokens/self":
		byKey(r.Header.Get("Private-Token"), 204)
	case "POST oauth2.googleapis.com/revoke":
		form, _ := url.ParseQuery(string(body))
		if !works(form.Get("token")) {
			answer(400, map[string]any{"error": "invalid_token"})
			return
		}
		byKey(form.Get("token"), 200)
	case "POST api.doppler.com/v3/auth/revoke":
		var in struct{ Token string }
		_ = json.Unmarshal(body, &in)
		byKey(in.Token, 200)
	case "DELETE api.buildkite.com/v2/access-token", "POST api.dropboxapi.com/2/auth/token/revoke":
		byKey(key, 200)
	case "POST api.perplexity.ai/revoke_auth_token":
		var in struct {
			Token string `json:"auth_token"`
		}
		if _ = json.Unmarshal(body, &in); in.Token == key {
			http.Redirect(w, r, p.elsewhere.URL, http.StatusTemporaryRedirect)
		}
	default:
		answer(404, map[string]any{})
	}
}

func keyed(provider, kind, value string) Finding {
	return Finding{Provider: provider, Kind: kind, Title: kind, File: "f", Value: secret.FromString(value), base: 70}
}

// Issue 8: --verify sends a key to its provider alone, once, follows no redirect, and
// tells what the provider said; nothing of the key is in the report. threats.md P2, S1.
func TestVerifyAsksEachProvider(t *testing.T) {
	t.Parallel()
	live := map[string]string{"gh": "ghp_live" + canaryTail, "an": "sk-ant-" + canaryTail, "sl": "xoxb-" + canaryTail}
	p := newProviders(t, live["gh"], live["an"], live["sl"])
	enterprise := keyed("github", "github-pat", live["gh"]+"2")
	enterprise.Key = "GITHUB_ENTERPRISE_TOKEN"
	list := []Finding{
		keyed("github", "github-pat", live["gh"]), keyed("github", "github-pat", live["gh"]), keyed("github", "github-pat", "ghp_dead"+canaryTail),
		keyed("github", "github-pat", "ghp_moved"+canaryTail+"moved"), keyed("openai", "openai-key", "sk-proj-"+canaryTail+"limited"),
		keyed("anthropic", "anthropic-key", live["an"]), keyed("slack", "slack-token", live["sl"]), keyed("slack", "slack-token", "xoxb-dead"+canaryTail),
		keyed("github", "password", "hunter2"+canaryTail), keyed("linear", "linear-key", "lin_api_"+canaryTail),
		// A bug: what only a name says is the provider's may be another's, and was sent there.
		keyed("openai", "openai-key", "sk-0123456789abcdef0123456789abcdef"), keyed("openai", "api-key", "0123456789"+canaryTail), keyed("github", "token", "0123456789"+canaryTail), enterprise,
	}
	r := &Report{Findings: list}
	fingerprint(r.Findings, []byte("k"))
	verify(t.Context(), p.client(t), r, time.Now(), p.at)
	var got []string
	for _, f := range r.Findings {
		got = append(got, f.Live)
	}
	if want := []string{"live", "live", "dead", "unknown", "unknown", "live", "live", "dead", "", "", "", "", "", ""}; !cmp.Equal(got, want) {
		t.Error(cmp.Diff(want, got))
	}
	slices.Sort(p.asked)
	want := []string{"GET api.anthropic.com/v1/models", "GET api.github.com/user", "GET api.github.com/user", "GET api.github.com/user", "GET api.openai.com/v1/models", "POST slack.com/api/auth.test", "POST slack.com/api/auth.test"}
	if !cmp.Equal(p.asked, want) {
		t.Error(cmp.Diff(want, p.asked))
	}
	if doc, err := json.Marshal(r); err != nil || strings.Contains(string(doc), "canary") {
		t.Errorf("%v: %s", err, doc)
	}
}

// Each address is one of https, and an address that is not public is not asked, whoever
// answers for its name. threats.md S1, S2.
func TestAskedPlaces(t *testing.T) {
	t.Parallel()
	for _, q := range questions {
		if !strings.HasPrefix(q.url, "https://") {
			t.Error(q.url)
		}
	}
	for _, r := range revokers {
		if u, err := url.Parse(r.url); err != nil || u.Scheme != "https" || !Belongs(r.provider, u.Host) && r.provider != "google" && r.provider != "dropbox" {
			t.Errorf("%s revokes at %s", r.provider, r.url)
		}
	}
	p := newProviders(t, "ghp_"+canaryTail)
	out, err := outbound.New(outbound.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	r := &Report{Findings: []Finding{keyed("github", "github-pat", "ghp_"+canaryTail)}}
	fingerprint(r.Findings, []byte("k"))
	verify(t.Context(), out, r, time.Now(), p.at)
	said := revoke(t.Context(), out, r.Findings, p.at)
	if r.Findings[0].Live != "unknown" || said[r.Findings[0].Fingerprint] != Kept || len(p.asked) > 0 {
		t.Errorf("%q, %v, asked %v", r.Findings[0].Live, said, p.asked)
	}
}

// Issue 8: what a provider takes back by the key alone is taken back there, and nowhere
// else; what became of it is told by what the provider said.
func TestRevokeAtEachProvider(t *testing.T) {
	t.Parallel()
	keys := map[string]string{"github": "ghp_", "slack": "xoxb-", "gitlab": "glpat-", "google": "ya29.", "doppler": "dp.pt.", "dropbox": "sl.", "buildkite": "bkua_", "perplexity": "pplx-"}
	var live []string
	var list []Finding
	for provider, prefix := range keys {
		live = append(live, prefix+canaryTail)
		list = append(list, keyed(provider, "key", prefix+canaryTail), keyed(provider, "key", prefix+"old"+canaryTail))
	}
	list = append(list, list[0], keyed("stripe", "stripe-key", "sk_live_"+canaryTail), keyed("slack", "slack-app-token", "xapp-"+canaryTail))
	p := newProviders(t, live...)
	fingerprint(list, []byte("k"))
	said := revoke(t.Context(), p.client(t), list, p.at)
	for _, f := range list {
		old := strings.Contains(string(f.Value.Reveal()), "old")
		want := map[bool]string{true: Dead, false: Revoked}[old]
		switch f.Provider {
		case "github":
			want = Accepted
		case "perplexity": // which redirects here
			want = Kept
		case "stripe":
			want = ""
		}
		if f.Kind == "slack-app-token" {
			want = ""
		}
		if got := said[f.Fingerprint]; got != want {
			t.Errorf("%s (old %v): got %q, want %q", f.Provider, old, got, want)
		}
		if (RevokedAt(f) == "") != (want == "") {
			t.Errorf("%s is revoked at %q", f.Provider, RevokedAt(f))
		}
	}
	delete(p.live, "pplx-"+canaryTail)
	if len(p.live) > 0 {
		t.Errorf("still live: %d", len(p.live))
	}
	n := 0
	for _, call := range p.asked {
		if strings.HasPrefix(call, "POST api.github.com") {
			n++
		}
	}
	if n != 1 || len(p.asked) != 15 {
		t.Errorf("github was asked %d times, all %d", n, len(p.asked))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if said := revoke(ctx, p.client(t), list[:2], p.at); said[list[0].Fingerprint] != Kept {
		t.Errorf("without a way there: %v", said)
	}
}
