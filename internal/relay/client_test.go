package relay_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi" //nolint:gosec // runs git's own server in a test
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/net/websocket"

	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/relay"
)

// A WebSocket goes through, what it says holds no credential, and a revoke ends it
// within a second (brokers.md §2.3).
func TestWebSocket(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	gone := make(chan struct{})
	s.Stream("socket", websocket.Handler(func(conn *websocket.Conn) {
		defer close(gone)
		key := conn.Request().Header.Get("X-Api-Key")
		for {
			var text string
			if websocket.Message.Receive(conn, &text) != nil {
				return
			}
			if websocket.Message.Send(conn, "you said "+text+" with "+key) != nil {
				return
			}
		}
	}))
	cfg, err := websocket.NewConfig(strings.Replace(s.door.URL, "http", "ws", 1)+"/relay/tracker/socket", "http://localhost")
	gatewaytest.Must(t, err)
	cfg.Header = http.Header{"Authorization": {"Bearer " + s.token}, relay.HeaderSession: {s.handle}}
	conn, err := cfg.DialContext(t.Context())
	gatewaytest.Must(t, err)
	defer conn.Close()
	for _, say := range []string{"a", strings.Repeat("long ", 30_000)} {
		var text string
		gatewaytest.Must(t, websocket.Message.Send(conn, say))
		gatewaytest.Must(t, websocket.Message.Receive(conn, &text))
		if want := "you said " + say + " with " + strings.Repeat("*", len(gatewaytest.SandboxKey)); text != want {
			t.Errorf("the answer is %.100q", text)
		}
	}
	s.revoke(t)
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	var text string
	if err := websocket.Message.Receive(conn, &text); err == nil || os.IsTimeout(err) {
		t.Errorf("after the revoke the socket says %q, %v", text, err)
	}
	<-gone
	if all := s.records(t); all[0].Outcome == nil || all[0].Outcome.Status != "cut" || all[0].Outcome.UpstreamStatus != 101 {
		t.Errorf("on record is %+v", all[0].Outcome)
	}
}

// Issue 7: a placeholder in the message that signs in over a WebSocket becomes the
// credential, and what the provider says of it does not show it, over its frames.
func TestWebSocketSignsIn(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.Stream("bots", websocket.Handler(func(conn *websocket.Conn) {
		var in struct {
			D struct{ Token string }
		}
		for websocket.JSON.Receive(conn, &in) == nil {
			fw, err := conn.NewFrameWriter(websocket.TextFrame)
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(fw, "known: %v, by %s", in.D.Token == gatewaytest.SandboxKey, in.D.Token)
			_ = fw.Close()
		}
	}))
	s.Put(t, fmt.Sprintf("id: bots\nname: Bots\nwebsite: %s\nauth: api_key\ninject: {header: X-Api-Key, format: \"{api_key}\", placeholder: {places: [\"socket:d.token\"]}}\napi: {base: [%q]}\ngeneric: {read: true, write: true}\n", s.Sandbox.URL, s.Sandbox.URL+"/bots"))
	s.Connect(t, s.owner, "bots", false)
	handle := s.Active(t, s.owner, s.bot, "bots", policy.Read, policy.Write)
	cfg, err := websocket.NewConfig(strings.Replace(s.door.URL, "http", "ws", 1)+"/relay/bots/", "http://localhost")
	gatewaytest.Must(t, err)
	cfg.Header = http.Header{"Authorization": {"Bearer " + s.token}, relay.HeaderSession: {handle}}
	conn, err := cfg.DialContext(t.Context())
	gatewaytest.Must(t, err)
	defer conn.Close()
	var text string
	gatewaytest.Must(t, websocket.Message.Send(conn, `{"op":2,"d":{"token":"ambit_placeholder"}}`))
	gatewaytest.Must(t, websocket.Message.Receive(conn, &text))
	if want := "known: true, by " + strings.Repeat("*", len(gatewaytest.SandboxKey)); text != want {
		t.Errorf("the provider says %q, want %q", text, want)
	}
}

// U1: what comes compressed, in whatever coding and pieces, shows no credential.
func TestCodedAnswersShowNoCredential(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.Stream("coded", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		coding := r.Header.Get("Accept-Encoding")
		w.Header().Set("Content-Encoding", coding)
		var out interface {
			io.WriteCloser
			Flush() error
		}
		switch coding {
		case "gzip":
			out = gzip.NewWriter(w)
		case "br":
			out = brotli.NewWriter(w)
		case "zstd":
			zw, err := zstd.NewWriter(w)
			if err != nil {
				t.Error(err)
				return
			}
			out = zw
		default:
			t.Errorf("asked for %q", coding)
			return
		}
		key := r.Header.Get("X-Api-Key")
		for _, piece := range []string{strings.Repeat("before ", 1000), key[:9], key[9:12], key[12:], strings.Repeat(" after", 1000)} {
			_, _ = io.WriteString(out, piece)
			_ = out.Flush()
			_ = http.NewResponseController(w).Flush()
		}
		_ = out.Close()
	}))
	for _, coding := range []string{"gzip", "br", "zstd"} {
		resp, text := s.do(t, "GET", "/relay/tracker/coded", "", "Accept-Encoding", coding)
		want := strings.Repeat("before ", 1000) + strings.Repeat("*", len(gatewaytest.SandboxKey)) + strings.Repeat(" after", 1000)
		if resp.StatusCode != 200 || resp.Header.Get("Content-Encoding") != "" || text != want {
			t.Errorf("%s: %d %v %.100q…", coding, resp.StatusCode, resp.Header, text[max(0, min(len(text)-100, 6990)):])
		}
	}
}

// Issue 7: git clones and pushes against a real git server, with Basic in its URL.
// A push writes; one that is forced, or deletes, is destructive. git's own server
// sees the account's credential, and git never does.
func TestGit(t *testing.T) {
	t.Parallel()
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed")
	}
	s := newScene(t)
	dir := t.TempDir()
	run := func(ok bool, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, git, args...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com"}
		out, err := cmd.CombinedOutput()
		if (err == nil) != ok {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		if strings.Contains(string(out), gatewaytest.SandboxKey) {
			t.Fatalf("git %v shows the credential", args)
		}
		return string(out)
	}
	run(true, "init", "-q", "--bare", "-b", "main", "host/project.git")
	run(true, "-C", "host/project.git", "config", "http.receivepack", "true")
	backend := &cgi.Handler{Path: git, Args: []string{"http-backend"}, Env: []string{"GIT_PROJECT_ROOT=" + filepath.Join(dir, "host"), "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=mia", "HOME=" + dir}, Root: "/git"}
	s.Stream("git", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, ok := r.BasicAuth(); !ok || password != gatewaytest.SandboxKey {
			w.Header().Set("Www-Authenticate", `Basic realm="host"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.ContentLength < 0 { // CGI takes no body without a length
			body, _ := io.ReadAll(r.Body)
			r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		}
		backend.ServeHTTP(w, r)
	}))
	s.Put(t, fmt.Sprintf("id: host\nname: Host\nwebsite: %s\nauth: api_key\ninject: {basic: {username: x, password: \"{api_key}\"}}\napi: {base: [%q]}\ngeneric: {read: true, write: true, destructive: true, git: [\"/**\"]}\n", s.Sandbox.URL, s.Sandbox.URL+"/git"))
	s.Connect(t, s.owner, "host", false)
	handle := s.Active(t, s.owner, s.bot, "host", policy.Read, policy.Write, policy.Destructive)
	u, err := url.Parse(s.door.URL + "/relay/host/project.git")
	gatewaytest.Must(t, err)
	u.User = url.UserPassword(handle, s.token)

	commit := func(text string) {
		gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, "work", "file"), []byte(text), 0o600))
		run(true, "-C", "work", "add", ".")
		run(true, "-C", "work", "commit", "-qm", text)
	}
	run(true, "clone", "-q", u.String(), "work")
	commit("one")
	run(true, "-C", "work", "push", "-q", "origin", "HEAD:main")
	commit("two")
	commit("three")
	run(true, "-C", "work", "push", "-q", "origin", "HEAD:main")
	gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, "work", "large"), noise(3<<20), 0o600)) // over what is read first, in pieces
	commit("large")
	run(true, "-C", "work", "push", "-q", "origin", "HEAD:main")
	run(true, "clone", "-q", u.String(), "again")
	if got, err := os.ReadFile(filepath.Join(dir, "again", "large")); err != nil || string(got) != string(noise(3<<20)) {
		t.Errorf("what was pushed does not come back: %v", err)
	}
	run(true, "-C", "work", "reset", "-q", "--hard", "HEAD~2")
	commit("other")
	run(false, "-C", "work", "push", "-q", "--force", "origin", "HEAD:main")
	run(false, "-C", "work", "push", "-q", "origin", ":main")
	effects := map[string]int{}
	for _, r := range s.records(t) {
		if r.Detail["method"] == "POST" {
			effects[r.Effect+" "+r.Decision]++
		}
	}
	if effects["destructive deny"] != 2 || effects["destructive allow"] != 0 || effects["read allow"] < 1 || effects["write allow"] < 3 {
		t.Errorf("on record are %v", effects)
	}
}

// noise does not compress.
func noise(n int) []byte {
	out, x := make([]byte, n), uint32(1)
	for i := range out {
		x = x*1664525 + 1013904223
		out[i] = byte(x >> 24)
	}
	return out
}

// brokers.md §2.3 (agent-vault, iron-proxy: 2,143 new connections for 3,050
// requests): connections to the provider are used again.
func TestUpstreamConnectionsAreReused(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var mu sync.Mutex
	opened := map[string]bool{}
	s.Stream("thing", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		opened[r.RemoteAddr] = true
		mu.Unlock()
		_, _ = io.WriteString(w, strings.Repeat("x", 1024))
	}))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 200 {
				resp, err := client.Do(s.request(t, "GET", "/relay/tracker/thing", nil))
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != 200 {
					t.Errorf("status %d", resp.StatusCode)
					return
				}
			}
		})
	}
	wg.Wait()
	if len(opened) > 32 {
		t.Errorf("%d connections were opened for 3,200 requests of 16 workers, want at most 32", len(opened))
	}
}
