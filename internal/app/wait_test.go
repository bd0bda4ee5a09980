package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

// waiting is a server that starts without its root key.
type waiting struct {
	t      *testing.T
	cfg    app.Config
	sealed chan struct{} // closed when it serves sealed
	opened chan struct{} // closed when New has returned
	app    *app.App
	err    error
	stop   context.CancelFunc
	http   *http.Client
}

// starting begins New with cfg, and waits until it serves sealed.
func starting(t *testing.T, cfg app.Config) *waiting {
	t.Helper()
	w := begin(t, cfg)
	select {
	case <-w.sealed:
	case <-w.opened:
		t.Fatalf("the server did not wait: %v", w.err)
	}
	return w
}

func begin(t *testing.T, cfg app.Config) *waiting {
	t.Helper()
	w := &waiting{t: t, cfg: cfg, sealed: make(chan struct{}), opened: make(chan struct{})}
	w.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	first := true
	w.cfg.Sealed = func(*url.URL, *fault.Error) {
		if first {
			close(w.sealed)
		}
		first = false
	}
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.Background())
	go func() {
		defer close(w.opened)
		w.app, w.err = app.New(ctx, w.cfg)
	}()
	t.Cleanup(func() {
		w.stop()
		<-w.opened
		w.http.CloseIdleConnections()
		if w.app != nil {
			w.app.Close()
		}
	})
	return w
}

// do makes a request and gives the status, the header and the body.
func (w *waiting) do(method, path string, form url.Values, header ...string) (int, http.Header, string) {
	w.t.Helper()
	req, err := http.NewRequest(method, w.cfg.PublicURL+path, strings.NewReader(form.Encode()))
	must(w.t, err)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", w.cfg.PublicURL)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := w.http.Do(req)
	must(w.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(w.t, err)
	return resp.StatusCode, resp.Header, string(body)
}

// consoleDo asks the server's console.
func (w *waiting) consoleDo(method, path string, form url.Values) (int, string) {
	w.t.Helper()
	hc := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(w.cfg.DataDir, app.ConsoleSocket))
	}}}
	defer hc.CloseIdleConnections()
	req, err := http.NewRequestWithContext(w.t.Context(), method, "http://console"+path, strings.NewReader(form.Encode()))
	must(w.t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := hc.Do(req)
	must(w.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(w.t, err)
	return resp.StatusCode, string(body)
}

// answered begins a sign-in and gives what the browser posts to end it.
func (w *waiting) answered(key *accounttest.Authenticator) url.Values {
	w.t.Helper()
	_, _, begun := w.do("POST", "/ui/signin/begin", url.Values{}, "Accept", "application/json")
	var flow struct {
		Flow    string          `json:"flow"`
		Options json.RawMessage `json:"options"`
	}
	must(w.t, json.Unmarshal([]byte(begun), &flow))
	answer, err := key.Assert(flow.Options)
	must(w.t, err)
	return url.Values{"flow": {flow.Flow}, "credential": {string(answer)}}
}

// signIn signs the owner in as her browser does, and gives the cookie.
func (w *waiting) signIn(owner *accounttest.Human) *http.Cookie {
	w.t.Helper()
	return w.post(w.answered(owner.Authenticator))
}

func (w *waiting) post(answer url.Values) *http.Cookie {
	w.t.Helper()
	status, header, body := w.do("POST", "/ui/signin/passkey", answer)
	if status != http.StatusSeeOther {
		w.t.Fatalf("signing in: %d %s", status, body)
	}
	cookie, err := http.ParseSetCookie(header.Get("Set-Cookie"))
	must(w.t, err)
	return cookie
}

// onPort gives settings with a port of their own, which passkeys are bound to.
func onPort(t *testing.T, engine sqldb.Engine) app.Config {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	must(t, err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	must(t, errors.Join(err, l.Close()))
	dir := t.TempDir()
	return app.Config{DataDir: filepath.Join(dir, "data"), RootKey: filepath.Join(dir, "elsewhere", "root.key"), CheckpointDir: filepath.Join(dir, "checkpoints"),
		DatabaseURL: databaseURL(t, engine), Listen: "localhost:" + port, PublicURL: "http://localhost:" + port}
}

// lived gives a server with cfg a past: an owner and a sealed value.
func lived(t *testing.T, cfg app.Config) (owner *accounttest.Human, reads func(*app.App) error) {
	t.Helper()
	a, err := app.New(t.Context(), cfg)
	must(t, err)
	defer a.Close()
	owner = accounttest.Owner(t, a.People)
	place := vault.Place{Environment: owner.Organizations()[0].Environment, Kind: "test", Object: "thing"}
	envelope, err := a.Vault.Seal(t.Context(), place, secret.FromString("canary"))
	must(t, err)
	return owner, func(a *app.App) error {
		got, err := a.Vault.Open(context.Background(), place, envelope)
		if err == nil && !got.Equal(secret.FromString("canary")) {
			err = errors.New("it is another value")
		}
		return err
	}
}

// Issue 4, sealed state: with the root key's file away at the start the server
// answers health and sign-in and refuses everything else with one code; a person's
// sign-in opens nothing yet; and when the key is back the server goes on by itself,
// on the same address, and the sign-in counts and is on record.
func TestSealedUntilTheKeyReturns(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			cfg := onPort(t, engine)
			owner, reads := lived(t, cfg)
			away := cfg.RootKey + ".away"
			must(t, os.Rename(cfg.RootKey, away))
			before := events(t, cfg)
			w := starting(t, cfg)
			if status, _, body := w.do("GET", "/healthz", nil); status != http.StatusOK {
				t.Errorf("/healthz: %d %s", status, body)
			}
			if status, _, body := w.do("GET", "/readyz", nil); status != http.StatusServiceUnavailable || !strings.Contains(body, `"status":"sealed"`) || !strings.Contains(body, "root_key_missing") {
				t.Errorf("/readyz: %d %s", status, body)
			}
			for _, path := range []string{"POST /mcp", "GET /v1/secrets", "POST /vault/v1/kv", "POST /oauth/token", "GET /.well-known/oauth-authorization-server", "GET /ui/", "GET /ui/secrets", "POST /ui/secrets", "GET /ui/enroll", "GET /events", "GET /nothing"} {
				method, path, _ := strings.Cut(path, " ")
				status, header, body := w.do(method, path, nil)
				if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" || !strings.Contains(body, "sealed") {
					t.Errorf("%s %s: %d %v %s", method, path, status, header, body)
				}
				if strings.Contains(body, filepath.Dir(cfg.RootKey)) {
					t.Errorf("%s %s tells where the key lies: %s", method, path, body)
				}
			}
			if _, _, body := w.do("GET", "/v1/secrets", nil); !strings.Contains(body, `"server_sealed"`) {
				t.Errorf("/v1 has no code: %s", body)
			}
			if status, _, body := w.do("GET", "/ui/signin", nil); status != http.StatusOK || !strings.Contains(body, "This server is sealed") {
				t.Errorf("the sign-in page: %d %s", status, body)
			}
			if status, _, _ := w.do("POST", "/ui/signin", url.Values{"email": {"a@example.com"}, "code": {"123456"}}); status != http.StatusServiceUnavailable {
				t.Errorf("a code was looked at: %d", status)
			}
			// Bugs: `ambit backup` was refused, and `ambit doctor` did not know.
			copied := filepath.Join(t.TempDir(), "copy.db")
			if sqlite := engine == sqldb.SQLite; sqlite {
				if status, body := w.consoleDo("POST", "/backup", url.Values{"path": {copied}}); status != http.StatusOK {
					t.Errorf("a backup while sealed: %d %s", status, body)
				}
				_, err := os.Stat(copied)
				must(t, err)
			}
			var about app.About
			_, body := w.consoleDo("GET", "/about", nil)
			must(t, json.Unmarshal([]byte(body), &about))
			if about.Sealed != "root_key_missing" {
				t.Errorf("about: %+v", about)
			}
			if status, body := w.consoleDo("GET", "/people", nil); status != http.StatusBadRequest || !strings.Contains(body, `"server_sealed"`) {
				t.Errorf("people: %d %s", status, body)
			}

			cookie := w.signIn(owner)
			if status, _, _ := w.do("GET", "/ui/account", nil, "Cookie", cookie.Name+"="+cookie.Value); status != http.StatusServiceUnavailable {
				t.Errorf("a sign-in opened something while the server is sealed: %d", status)
			}

			must(t, os.WriteFile(cfg.RootKey, []byte("half of"), 0o600)) // somebody is copying it
			until(t, "the half file is noticed", func() bool {
				_, _, body := w.do("GET", "/readyz", nil)
				return strings.Contains(body, "root_key_unavailable")
			})
			must(t, os.Rename(away, cfg.RootKey))
			<-w.opened
			must(t, w.err)
			must(t, reads(w.app))
			ctx, stop := context.WithCancel(t.Context())
			ready, done := make(chan struct{}), make(chan error, 1)
			go func() { done <- w.app.Run(ctx, func() { close(ready) }) }()
			<-ready
			if status, _, body := w.do("GET", "/ui/account", nil, "Cookie", cookie.Name+"="+cookie.Value); status != http.StatusOK {
				t.Errorf("the sign-in does not count: %d %s", status, body)
			}
			if status, _, body := w.do("GET", "/readyz", nil); status != http.StatusOK {
				t.Errorf("/readyz afterwards: %d %s", status, body)
			}
			report, err := w.app.VerifyAudit(t.Context(), nil)
			must(t, err)
			if !report.Intact() {
				t.Errorf("the audit: %v", report.Problems)
			}
			stop()
			must(t, <-done)
			w.app = nil
			var signed, copies int
			for _, action := range events(t, cfg)[len(before):] {
				switch action {
				case "signin.passkey":
					signed++
				case "server.backed_up":
					copies++
				}
			}
			if want := map[bool]int{true: 1}[engine == sqldb.SQLite]; copies != want {
				t.Errorf("%d backups are on record, want %d", copies, want)
			}
			if signed != 1 {
				t.Errorf("%d sign-ins are on record, want the one that was made while it was sealed", signed)
			}
		})
	}
}

// Rule 4, and a bug (F4): a sealed server took one passkey's answer as often as it
// was sent, and when it went on only the last cookie opened something, and an answer
// that a later one had displaced signed in once more. And another: whoever asked for
// closed pages wrote an error to its log for each.
func TestRule4SealedServerTakesAnAnswerOnce(t *testing.T) {
	t.Parallel()
	cfg := onPort(t, sqldb.SQLite)
	a, err := app.New(t.Context(), cfg)
	must(t, err)
	key := accounttest.New(a.People.Origin())
	key.Synced = true // its counter stays at zero
	owner := accounttest.Owner(t, a.People)
	grant := owner.Unlock(t)
	flow, options, err := a.People.BeginAddPasskey(t.Context(), owner.Person, grant)
	must(t, err)
	made, err := key.Register(options)
	must(t, err)
	_, err = a.People.FinishAddPasskey(t.Context(), owner.Person, grant, flow, made, "synced")
	must(t, err)
	a.Close()

	away := cfg.RootKey + ".away"
	must(t, os.Rename(cfg.RootKey, away))
	log := &lines{}
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	w := starting(t, cfg)
	refused := func(when string, answer url.Values) {
		t.Helper()
		if status, header, body := w.do("POST", "/ui/signin/passkey", answer); status != http.StatusGone || header.Get("Set-Cookie") != "" || !strings.Contains(body, "answered already") {
			t.Errorf("%s: an answer that was sent again: %d %v", when, status, header)
		}
	}
	one, two := w.answered(key), w.answered(key)
	first := w.post(one)
	refused("sealed", one)
	second := w.post(two)
	refused("sealed, after another", one)
	for _, path := range []string{"/", "/ui/", "/ui/account", "/ui/agents", "/ui/nothing"} {
		if status, _, _ := w.do("GET", path, nil); status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d", path, status)
		}
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 || strings.Contains(log.String(), "a page failed") {
		t.Errorf("the log has %d errors, want the one that the server is sealed:\n%s", n, log)
	}

	must(t, os.Rename(away, cfg.RootKey))
	<-w.opened
	must(t, w.err)
	ctx, stop := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- w.app.Run(ctx, func() { close(ready) }) }()
	<-ready
	for what, cookie := range map[string]*http.Cookie{"first": first, "second": second} {
		if status, _, body := w.do("GET", "/ui/account", nil, "Cookie", cookie.Name+"="+cookie.Value); status != http.StatusOK {
			t.Errorf("the %s sign-in does not count: %d %s", what, status, body)
		}
	}
	refused("running", one)
	refused("running, the last", two)
	stop()
	must(t, <-done)
	w.app = nil
}

// events are the actions on record, in their order.
func events(t *testing.T, cfg app.Config) (all []string) {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{DataDir: cfg.DataDir, URL: cfg.DatabaseURL})
	must(t, err)
	defer db.Close()
	rows, err := db.Reader().QueryContext(t.Context(), `select e.action from audit_entry e join audit_chain c on c.id = e.chain_id order by c.started_at, e.seq`)
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var action string
		must(t, rows.Scan(&action))
		all = append(all, action)
	}
	must(t, rows.Err())
	return all
}

// Issue 4, sealed state: what a sealed server has written is nothing, however it
// ends: told to stop, or shown the root key of other data, which it refuses at once.
func TestSealedServerLeavesNoTrace(t *testing.T) {
	t.Parallel()
	cfg := onPort(t, sqldb.SQLite)
	owner, _ := lived(t, cfg)
	other := onPort(t, sqldb.SQLite)
	lived(t, other)
	away := cfg.RootKey + ".away"
	must(t, os.Rename(cfg.RootKey, away))
	before := events(t, cfg)
	for name, end := range map[string]func(*waiting){
		"stopped": func(w *waiting) { w.stop() },
		"another key": func(w *waiting) {
			key, err := os.ReadFile(other.RootKey)
			must(t, err)
			must(t, os.WriteFile(cfg.RootKey, key, 0o600))
		},
	} {
		_ = os.Remove(cfg.RootKey)
		w := starting(t, cfg)
		w.signIn(owner)
		end(w)
		<-w.opened
		if want := map[bool]string{true: "root_key_mismatch", false: ""}[name == "another key"]; w.err == nil || want != "" && !fault.Is(w.err, want) || want == "" && !errors.Is(w.err, context.Canceled) {
			t.Errorf("%s: it ended with %v", name, w.err)
		}
		if after := events(t, cfg); !slices.Equal(after, before) {
			t.Errorf("%s: the audit grew by %v", name, after[len(before):])
		}
	}
	// And at once, where the other key is there from the start.
	key, err := os.ReadFile(other.RootKey)
	must(t, err)
	must(t, os.WriteFile(cfg.RootKey, key, 0o600))
	w := begin(t, cfg)
	<-w.opened
	if !fault.Is(w.err, "root_key_mismatch") {
		t.Errorf("with another key it started: %v", w.err)
	}
}

// Issue 4, sealed state: a key that is elsewhere and does not answer, or refuses,
// when the server starts. It goes on when the keeper does.
func TestSealedUntilTheKeeperAnswers(t *testing.T) {
	t.Parallel()
	key := inTransit(t)
	cfg := onPort(t, sqldb.SQLite)
	cfg.RootKey, cfg.Env, cfg.OutboundAllow = key.uri, key.env, key.allow
	_, reads := lived(t, cfg)
	key.server.Be("broken")
	w := starting(t, cfg)
	if _, _, body := w.do("GET", "/readyz", nil); !strings.Contains(body, "root_key_unavailable") {
		t.Errorf("/readyz: %s", body)
	}
	key.disable()
	key.server.Be("")
	until(t, "the refusal is told", func() bool {
		_, _, body := w.do("GET", "/readyz", nil)
		return strings.Contains(body, "root_key_denied")
	})
	key.enable()
	<-w.opened
	must(t, w.err)
	must(t, reads(w.app))
}

// Issue 4, sealed state: a root key beside the primary one that is away seals
// nothing; what it wrapped waits for it alone.
func TestAnotherRootKeyMayBeAway(t *testing.T) {
	t.Parallel()
	cfg := onPort(t, sqldb.SQLite)
	_, reads := lived(t, cfg)
	cfg.RootKeysOther = []string{cfg.RootKey + ".other"}
	w := begin(t, cfg)
	<-w.opened
	must(t, w.err)
	must(t, reads(w.app))
}
