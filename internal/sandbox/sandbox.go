// Package sandbox is a small third-party service: the foreign provider of
// `ambit dev`, of the demo and of tests. It has an OAuth 2 authorization server
// (code with PKCE S256, rotating refresh tokens, revocation, RFC 8414 metadata),
// two accounts without passwords, and an issues API whose operations read,
// write, destroy and hand out access. It knows nothing of Ambit and is reached
// like any other provider.
//
// It also does what providers do at their worst. /echo and /whoami-token give
// back the credential they were called with; POST /_fault makes any path slow,
// broken, lying or redirecting for a number of calls; GET /_stats counts what
// arrived. It signs anybody in, so it listens on loopback only, and everything
// lives in bounded memory.
package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/secret"
)

const (
	maxBody   = 64 << 10
	maxIssues = 1000
	maxKeys   = 100
	maxGrants = 1000
	maxCodes  = 1000
	maxFaults = 100
)

// Config describes one sandbox. The zero value has no OAuth client and no API
// key, and serves whoever obtains neither.
type Config struct {
	Now       func() time.Time // nil is time.Now
	AccessTTL time.Duration    // life of an access token; default 60 s
	Logger    *slog.Logger     // nil logs nothing

	ClientID     string
	ClientSecret secret.Value
	// RedirectURIs are compared exactly, except for the port of a loopback host
	// (RFC 8252 section 7.3).
	RedirectURIs []string
	// APIKey opens the API as mia with all scopes, in the header X-Api-Key.
	APIKey secret.Value
}

// Stats counts what arrived since the start.
type Stats struct {
	Codes        int `json:"codes"`        // authorization codes exchanged
	Refreshes    int `json:"refreshes"`    // refresh tokens exchanged
	Reuses       int `json:"reuses"`       // refresh tokens or codes presented again; each killed its grant
	Revocations  int `json:"revocations"`  // tokens revoked
	Calls        int `json:"calls"`        // requests to the API, refused ones included
	Unauthorized int `json:"unauthorized"` // of these, refused for lack of a valid credential
}

// Server is one sandbox. Make it with New.
type Server struct {
	cfg Config

	mu      sync.Mutex
	stats   Stats
	codes   map[[32]byte]*code
	grants  map[*grant]struct{}
	access  map[[32]byte]*accessToken
	refresh map[[32]byte]*grant // current and rotated ones
	keys    map[[32]byte]account
	issues  []*issue
	next    int
	faults  []*misbehaviour
}

type account struct {
	ID    string `json:"id"`
	Email string `json:"email"`
	Name  string `json:"name"`
}

var accounts = [...]account{
	{"acct_1001", "mia@sandbox.example", "Mia Okafor"},
	{"acct_1002", "noa@sandbox.example", "Noa Lindqvist"},
}

// New makes a sandbox with five issues in it.
func New(cfg Config) *Server {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.AccessTTL <= 0 {
		cfg.AccessTTL = time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg:   cfg,
		codes: map[[32]byte]*code{}, grants: map[*grant]struct{}{}, access: map[[32]byte]*accessToken{},
		refresh: map[[32]byte]*grant{}, keys: map[[32]byte]account{},
	}
	s.seed()
	return s
}

// Handler serves every route. The issuer is the host by which it is reached.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.home)
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", s.metadata)
	mux.HandleFunc("GET /oauth/authorize", s.authorizePage)
	mux.HandleFunc("POST /oauth/authorize", s.authorize)
	mux.HandleFunc("POST /oauth/token", s.token)
	mux.HandleFunc("POST /oauth/revoke", s.revoke)

	api := func(pattern, scope string, h func(http.ResponseWriter, *http.Request, account)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if who, ok := s.authenticate(w, r, scope); ok {
				h(w, r, who)
			}
		})
	}
	api("GET /me", "", s.me)
	api("GET /issues", "issues:read", s.listIssues)
	api("GET /issues/{number}", "issues:read", s.getIssue)
	api("POST /issues", "issues:write", s.createIssue)
	api("PATCH /issues/{number}", "issues:write", s.updateIssue)
	api("DELETE /issues/{number}", "issues:delete", s.deleteIssue)
	api("POST /keys", "keys:write", s.createKey)
	api("GET /echo", "", s.echo)
	api("POST /echo", "", s.echo)
	api("GET /whoami-token", "", s.whoamiToken)

	mux.HandleFunc("POST /_fault", s.addFault)
	mux.HandleFunc("DELETE /_fault", s.clearFaults)
	mux.HandleFunc("GET /_stats", s.showStats)
	return s.bounded(s.misbehaving(mux))
}

// Run serves on addr, a loopback host and port, until ctx ends. Port 0 picks
// one; ready is told the base URL once connections are accepted.
func (s *Server) Run(ctx context.Context, addr string, ready func(baseURL string)) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("reading the sandbox's address %q: %w", addr, err)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("the sandbox signs anybody in and listens on loopback only: give localhost or 127.0.0.1 instead of %q", host)
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("opening the sandbox's port: %w", err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	if ready != nil {
		ready("http://" + net.JoinHostPort(host, port))
	}
	select {
	case err := <-served:
		return fmt.Errorf("serving the sandbox: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		_ = srv.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the sandbox: %w", err)
	}
	return nil
}

// bounded reads the body before anything else: under its limit, and so that the
// server notices a client that went away while a handler waits.
func (s *Server) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if _, over := errors.AsType[*http.MaxBytesError](err); over {
			refuse(w, http.StatusRequestEntityTooLarge, "too_large", "The body is over 64 KiB.")
			return
		}
		if err != nil {
			refuse(w, http.StatusBadRequest, "bad_request", "The body could not be read.")
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.cfg.Logger.DebugContext(r.Context(), "sandbox request", "method", r.Method, "path", r.URL.Path)
		next.ServeHTTP(w, r)
	})
}

func (s *Server) showStats(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer(w, http.StatusOK, s.stats)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// refuse answers in one shape that suits OAuth and the API alike.
func refuse(w http.ResponseWriter, status int, code, message string) {
	answer(w, status, map[string]string{"error": code, "error_description": message})
}

// issuer is the base URL under which the client reached us.
func issuer(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}
