//go:build e2e

package fire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/e2e/world"
)

// foreign is a certified provider whose refresh tokens rotate and whose grant
// dies when one is used twice, behind a gate that counts what is sent to its
// token endpoint, says how long a token lives, and may kill the node that asked.
type foreign struct {
	w      *world.World
	issuer string
	gate   *httptest.Server

	mu      sync.Mutex
	life    float64                                       // seconds, of the tokens that follow
	sent    map[string]int                                // how often each refresh token came
	granted map[string]int                                // refreshes that succeeded, by slug
	refused map[string]int                                // those that did not
	after   map[string]func(n *world.Node, answer func()) // by slug, once: instead of just answering
}

const foreignSecret = "foreign-client-secret-0123456789"

// newForeign starts the provider, a world of nodes that may reach it, and
// connects an account of the owner under each slug, with tokens of such a life.
func newForeign(t *testing.T, engine string, nodes int, life time.Duration, slugs ...string) *foreign {
	t.Helper()
	database := ""
	if engine == postgres {
		database = newDatabase(t, setting(t, "AMBIT_TEST_DATABASE_URL"))
	}
	return newForeignOn(t, database, nodes, life, slugs...)
}

// newForeignOn is newForeign on a database that the test has made; none is SQLite.
func newForeignOn(t *testing.T, database string, nodes int, life time.Duration, slugs ...string) *foreign {
	t.Helper()
	port, err := world.FreePort()
	must(t, err)
	f := &foreign{issuer: "http://127.0.0.1:" + port, life: life.Seconds(), sent: map[string]int{}, granted: map[string]int{}, refused: map[string]int{},
		after: map[string]func(*world.Node, func()){}}
	f.gate = httptest.NewServer(http.HandlerFunc(f.pass))
	t.Cleanup(f.gate.Close)
	f.w = newWorldWith(t, world.Config{Database: database, Nodes: nodes, Allow: []string{"127.0.0.1:" + port, f.gate.Listener.Addr().String()}})
	var back []string
	for _, slug := range slugs {
		back = append(back, f.w.URL+"/ui/callback/"+f.w.EnvironmentID+"/"+slug)
	}
	stop, err := world.Script{Node: setting(t, "AMBIT_NODE"), Modules: setting(t, "AMBIT_NODE_MODULES"), Source: filepath.Join("..", "node", "oidc-provider.mjs"), Dir: t.TempDir(),
		Argument: map[string]any{"port": json.RawMessage(port), "client_id": "ambit", "client_secret": foreignSecret, "ttl": 3600, "redirect_uris": back}}.Start(&struct{ Issuer string }{})
	must(t, err)
	t.Cleanup(stop)
	for _, slug := range slugs {
		_, err := f.w.API.PutProvider(t.Context(), slug, client.PutProvider{YAML: f.w.Third.OAuthRecordVia(slug, f.issuer, f.gate.URL+"/"+slug), ClientID: "ambit", ClientSecret: foreignSecret})
		must(t, err)
		f.signIn(t, slug)
	}
	return f
}

func (f *foreign) signIn(t *testing.T, slug string) {
	t.Helper()
	_, err := f.w.Owner.SignInAt(t.Context(), slug, slug)
	must(t, err)
}

// live sets how long the tokens live that come next.
func (f *foreign) live(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.life = d.Seconds()
}

// once has fn called instead of the next answer to a refresh of slug, when the
// provider has made it.
func (f *foreign) once(slug string, fn func(n *world.Node, answer func())) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after[slug] = fn
}

func (f *foreign) count(slug string) (granted, refused int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.granted[slug], f.refused[slug]
}

// pass hands a token request on and its answer back.
func (f *foreign) pass(w http.ResponseWriter, r *http.Request) {
	slug := strings.TrimPrefix(r.URL.Path, "/")
	body, _ := io.ReadAll(r.Body)
	req, err := http.NewRequestWithContext(r.Context(), r.Method, f.issuer+"/token", bytes.NewReader(body))
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	req.Header = r.Header.Clone()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	form, _ := url.ParseQuery(string(body))
	f.mu.Lock()
	var doc map[string]any
	if resp.StatusCode == http.StatusOK && json.Unmarshal(answer, &doc) == nil {
		doc["expires_in"] = f.life
		answer, _ = json.Marshal(doc)
	}
	var after func(*world.Node, func())
	if form.Get("grant_type") == "refresh_token" {
		f.sent[form.Get("refresh_token")]++
		if resp.StatusCode == http.StatusOK {
			f.granted[slug]++
		} else {
			f.refused[slug]++
		}
		after = f.after[slug]
		delete(f.after, slug)
	}
	f.mu.Unlock()
	send := func() {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(answer))) // whole before this returns
		w.WriteHeader(resp.StatusCode)
		_, _ = w.Write(answer)
		_ = http.NewResponseController(w).Flush()
	}
	if after == nil {
		send()
		return
	}
	node, err := f.w.NodeAt(r.RemoteAddr)
	if err != nil {
		fmt.Println("finding who refreshes:", err)
		send()
		return
	}
	after(node, send)
}

// twice lists the refresh tokens that came more than once.
func (f *foreign) twice() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, times := range f.sent {
		if times > 1 {
			n++
		}
	}
	return n
}

// stored reads what the database holds of an account.
func (f *foreign) stored(t *testing.T, slug string) (version int, state, reason string) {
	t.Helper()
	db, err := f.w.OpenDatabase()
	must(t, err)
	defer db.Close()
	must(t, db.QueryRowContext(t.Context(), `select r.version, c.state, c.reason from connection c join credential r on r.connection_id = c.id where c.provider = $1 and c.state <> 'disconnected'`, slug).
		Scan(&version, &state, &reason))
	return version, state, reason
}

// provider gives the slug of a connection.
func (f *foreign) provider(t *testing.T, connection string) (slug string) {
	t.Helper()
	db, err := f.w.OpenDatabase()
	must(t, err)
	defer db.Close()
	must(t, db.QueryRowContext(t.Context(), `select provider from connection where id = $1`, connection).Scan(&slug))
	return slug
}

// bearers refuses tokens at the API, which is how a provider shows that it ended
// them early.
type bearers struct {
	mu            sync.Mutex
	seen, refused map[string]bool
}

func (b *bearers) judge(r *http.Request) int {
	token := r.Header.Get("Authorization")
	b.mu.Lock()
	defer b.mu.Unlock()
	if token == "" || b.refused[token] {
		return http.StatusUnauthorized
	}
	b.seen[token] = true
	return 0
}

// end refuses from now on what has worked so far.
func (b *bearers) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for token := range b.seen {
		b.refused[token] = true
	}
}
