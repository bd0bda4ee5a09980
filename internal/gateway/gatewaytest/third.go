package gatewaytest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/sandbox"
)

// Arrival is one request as the third party received it.
type Arrival struct {
	At     time.Time // by the machine's clock
	Method string
	URI    string // the request target as it was written
	Path   string
	Query  url.Values
	Header http.Header
	Body   string
}

// traffic stands before the sandbox and writes down what arrives, and which
// tokens are handed out.
type traffic struct {
	next http.Handler

	mu       sync.Mutex
	arrivals []Arrival
	tokens   []string
	keys     []string
	held     map[string]*hold
	watch    func(Arrival)
	others   map[string]http.Handler
	unread   map[string]http.Handler
}

// hold keeps back one answer that the third party has made.
type hold struct{ made, release chan struct{} }

func (tr *traffic) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tr.mu.Lock()
	segment, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	unread := tr.unread[segment]
	tr.mu.Unlock()
	if unread != nil {
		unread.ServeHTTP(w, r)
		return
	}
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	r.Body = io.NopCloser(bytes.NewReader(body))
	if !strings.HasPrefix(r.URL.Path, "/_") {
		a := Arrival{At: time.Now(), Method: r.Method, URI: r.RequestURI, Path: r.URL.Path, Query: r.URL.Query(), Header: r.Header.Clone(), Body: string(body)}
		tr.mu.Lock()
		tr.arrivals = append(tr.arrivals, a)
		watch := tr.watch
		first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		other := tr.others[first]
		tr.mu.Unlock()
		if watch != nil {
			watch(a)
		}
		if other != nil {
			other.ServeHTTP(w, r)
			return
		}
	}
	if strings.HasPrefix(r.URL.Path, "/mirror/") {
		mirror(w, r)
		return
	}
	if r.URL.Path != "/oauth/token" && r.URL.Path != "/keys" {
		tr.next.ServeHTTP(w, r)
		return
	}
	answer := &tee{ResponseWriter: w}
	tr.mu.Lock()
	h := tr.held[r.URL.Path]
	delete(tr.held, r.URL.Path)
	tr.mu.Unlock()
	if h != nil {
		kept := httptest.NewRecorder()
		answer.ResponseWriter = kept
		defer func() {
			close(h.made)
			<-h.release
			for name, values := range kept.Header() {
				w.Header()[name] = values
			}
			w.WriteHeader(kept.Code)
			_, _ = w.Write(kept.Body.Bytes())
		}()
	}
	tr.next.ServeHTTP(answer, r)
	var doc struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		Key     string `json:"key"`
	}
	if json.Unmarshal(answer.copy.Bytes(), &doc) == nil && strings.HasPrefix(doc.Access, "sbx_") && doc.Refresh != "" {
		tr.mu.Lock()
		tr.tokens = append(tr.tokens, doc.Access, doc.Refresh)
		tr.mu.Unlock()
	}
	if doc.Key != "" {
		tr.mu.Lock()
		tr.keys = append(tr.keys, doc.Key)
		tr.mu.Unlock()
	}
}

// tee copies the body of an answer.
type tee struct {
	http.ResponseWriter
	copy bytes.Buffer
}

func (t *tee) Write(b []byte) (int, error) {
	if t.copy.Len() < 1<<16 {
		t.copy.Write(b)
	}
	return t.ResponseWriter.Write(b)
}

func (t *tee) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// HoldToken keeps back the next answer of the token endpoint: made is closed
// once the third party has done its work, and release lets the answer go.
func (w *World) HoldToken(t testing.TB) (made <-chan struct{}, release func()) {
	t.Helper()
	h := &hold{made: make(chan struct{}), release: make(chan struct{})}
	w.traffic.mu.Lock()
	defer w.traffic.mu.Unlock()
	w.traffic.held = map[string]*hold{"/oauth/token": h}
	release = sync.OnceFunc(func() { close(h.release) })
	t.Cleanup(release)
	return h.made, release
}

// Arrivals lists what reached the third party at path and below, oldest first.
func (w *World) Arrivals(path string) []Arrival {
	w.traffic.mu.Lock()
	defer w.traffic.mu.Unlock()
	var out []Arrival
	for _, a := range w.traffic.arrivals {
		if a.Path == path || strings.HasPrefix(a.Path, strings.TrimSuffix(path, "/")+"/") {
			out = append(out, a)
		}
	}
	return out
}

// Tokens lists every access and refresh token that the third party handed out.
func (w *World) Tokens() []string {
	w.traffic.mu.Lock()
	defer w.traffic.mu.Unlock()
	return append([]string(nil), w.traffic.tokens...)
}

// Keys lists every API key that the third party made and answered with.
func (w *World) Keys() []string {
	w.traffic.mu.Lock()
	defer w.traffic.mu.Unlock()
	return append([]string(nil), w.traffic.keys...)
}

// Watch calls fn for each request that reaches the third party, before it is
// answered.
func (w *World) Watch(fn func(Arrival)) {
	w.traffic.mu.Lock()
	defer w.traffic.mu.Unlock()
	w.traffic.watch = fn
}

// Serve has h answer at the third party whatever begins with this path segment.
func (w *World) Serve(segment string, h http.Handler) {
	w.traffic.mu.Lock()
	defer w.traffic.mu.Unlock()
	if w.traffic.others == nil {
		w.traffic.others = map[string]http.Handler{}
	}
	w.traffic.others[segment] = h
}

// Stream is Serve for what reads its body while it arrives, or takes the
// connection over; such requests are not among the arrivals.
func (w *World) Stream(segment string, h http.Handler) {
	w.traffic.mu.Lock()
	defer w.traffic.mu.Unlock()
	if w.traffic.unread == nil {
		w.traffic.unread = map[string]http.Handler{}
	}
	w.traffic.unread[segment] = h
}

// Fault makes the third party misbehave; see package sandbox.
func (w *World) Fault(t testing.TB, fault map[string]any) {
	t.Helper()
	doc, err := json.Marshal(fault)
	Must(t, err)
	w.sandbox(t, http.MethodPost, "/_fault", string(doc))
}

// Mend ends all misbehaviour.
func (w *World) Mend(t testing.TB) { t.Helper(); w.sandbox(t, http.MethodDelete, "/_fault", "") }

// Stats is what the third party counted.
func (w *World) Stats(t testing.TB) sandbox.Stats {
	t.Helper()
	var s sandbox.Stats
	Must(t, json.Unmarshal(w.sandbox(t, http.MethodGet, "/_stats", ""), &s))
	return s
}

func (w *World) sandbox(t testing.TB, method, path, body string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.Sandbox.URL+path, strings.NewReader(body))
	Must(t, err)
	resp, err := w.Sandbox.Client().Do(req)
	Must(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	Must(t, err)
	if resp.StatusCode > 299 {
		t.Fatalf("sandbox %s %s: %s: %s", method, path, resp.Status, answer)
	}
	return answer
}

// The accounts at the sandbox.
const (
	Mia = "mia@sandbox.example"
	Noa = "noa@sandbox.example"
)

// Begin starts to connect at provider "sandbox" and gives the URL there.
func (w *World) Begin(t testing.TB, p *agenttest.Person, change func(*credential.Start)) string {
	t.Helper()
	st := credential.Start{Environment: w.Environment, Organization: w.Organization, Provider: "sandbox"}
	if change != nil {
		change(&st)
	}
	at, err := w.Credentials.Authorize(t.Context(), p.Signed(t), st)
	Must(t, err)
	return at
}

// Consent signs in at the sandbox as account and grants scopes, or all that are
// asked for. It gives what the browser would carry back.
func (w *World) Consent(t testing.TB, authorizeURL, account string, scopes ...string) url.Values {
	t.Helper()
	u, err := url.Parse(authorizeURL)
	Must(t, err)
	form := u.Query()
	form.Set("account", account)
	form.Set("decision", "allow")
	if scopes == nil {
		scopes = strings.Fields(form.Get("scope"))
	}
	form["grant"] = scopes
	browser := *w.Sandbox.Client()
	browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	u.RawQuery = ""
	resp, err := browser.PostForm(u.String(), form)
	Must(t, err)
	defer resp.Body.Close()
	back, err := resp.Location()
	if err != nil {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("the sandbox sends nobody back: %s: %s", resp.Status, text)
	}
	return back.Query()
}

// ConnectOAuth connects p's account at the sandbox by OAuth.
func (w *World) ConnectOAuth(t testing.TB, p *agenttest.Person, account string, change func(*credential.Start)) connection.Connection {
	t.Helper()
	done, err := w.Credentials.Callback(t.Context(), p.Signed(t), w.Environment, "sandbox", w.Consent(t, w.Begin(t, p, change), account))
	Must(t, err)
	return done.Connection
}
