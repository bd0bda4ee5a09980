// Package authserver is the HTTP side of our authorization server: discovery
// (RFC 8414, RFC 9728), dynamic registration (RFC 7591), the authorization code
// flow with PKCE S256 (OAuth 2.1, RFC 8707, RFC 9207), the device grant (RFC 8628),
// the token endpoint, revocation (RFC 7009) and introspection (RFC 7662). It decodes strictly, calls package agent, which holds
// every rule and all state, and encodes the answer. Nothing here uses cookies,
// and only the metadata may be read across origins.
//
// An authorization request ends in a 303 to /ui/consent/{flow}, where a person
// signs in and decides. Before client and redirect URI are matched exactly,
// errors are shown as a page and never redirected (RFC 9700 §4.11). After
// that, until a person has decided, the page links to the redirect URI and says
// where it leads: anybody may register, and we are no open redirector (§4.11.2).
package authserver

import (
	"encoding/json"
	"html/template"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/throttle"
)

// Config is what a Server needs. Agents and People are required.
type Config struct {
	Agents *agent.Service
	People *account.Service
	// Sessions hands sessions on to sub-agents (RFC 8693). Nil offers no exchange.
	Sessions *session.Service
	// Address gives the caller's address. Only the wiring knows which proxies
	// may say it in a header; nil means the peer of the connection.
	Address        func(*http.Request) string
	NoRegistration bool // clients may not register themselves
	Now            func() time.Time
	Logger         *slog.Logger
}

// Server answers under /oauth/ and /.well-known/.
type Server struct {
	agents         *agent.Service
	people         *account.Service
	sessions       *session.Service
	address        func(*http.Request) string
	noRegistration bool
	log            *slog.Logger

	registrations *throttle.Limiter // by address
	failures      *throttle.Limiter // at token and revocation endpoint, by address and by public client at an address
	flood         *throttle.Limiter // of requests by address, before anybody is known: for the database's sake only
	issuances     *throttle.Limiter // by client
}

// New makes a Server.
func New(cfg Config) *Server {
	if cfg.Address == nil {
		cfg.Address = func(r *http.Request) string { return r.RemoteAddr }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	const keys = 20_000
	return &Server{
		agents: cfg.Agents, people: cfg.People, sessions: cfg.Sessions, address: cfg.Address, noRegistration: cfg.NoRegistration, log: cfg.Logger,
		registrations: throttle.New(1.0/30, 10, keys, cfg.Now),
		failures:      throttle.New(0.5, 20, keys, cfg.Now),
		flood:         throttle.New(500, 2000, keys, cfg.Now),
		issuances:     throttle.New(1, 60, keys, cfg.Now),
	}
}

// Mount adds all routes of the room to mux.
func (s *Server) Mount(mux *http.ServeMux) {
	server, resource := s.public(s.serverMetadata()), s.public(s.resourceMetadata())
	for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"} {
		mux.Handle(path, server)
		mux.Handle(path+"/mcp", server)
	}
	mux.Handle("/.well-known/oauth-protected-resource", resource)
	mux.Handle("/.well-known/oauth-protected-resource/mcp", resource)
	mux.HandleFunc("GET /oauth/authorize", s.authorize)
	mux.HandleFunc("POST /oauth/token", s.token)
	mux.HandleFunc("POST /oauth/revoke", s.revoke)
	mux.HandleFunc("POST /oauth/introspect", s.introspect)
	mux.HandleFunc("POST /oauth/device_authorization", s.device)
	if !s.noRegistration {
		mux.HandleFunc("POST /oauth/register", s.register)
	}
}

// caller is the one key of a request's address.
func (s *Server) caller(r *http.Request) string { return throttle.Address(s.address(r)) }

func tooMany(wait time.Duration) error {
	return fault.New(fault.Limited, "temporarily_unavailable", "Too many requests.").WithHint("Wait before trying again.").WithRetry(wait)
}

// oauthError is the error of RFC 6749 §5.2 and its status for a fault. Faults
// whose code is no OAuth error are told by kind.
func oauthError(f *fault.Error) (code string, status int) {
	switch f.Code {
	case "invalid_client":
		return f.Code, http.StatusUnauthorized
	case "invalid_request", "invalid_grant", "invalid_scope", "invalid_target", "unauthorized_client", "unsupported_grant_type",
		"unsupported_response_type", "invalid_redirect_uri", "invalid_client_metadata", "access_denied",
		"request_not_supported", "request_uri_not_supported", "invalid_authorization_details",
		"authorization_pending", "slow_down", "expired_token":
		return f.Code, http.StatusBadRequest
	}
	if f.Code == "insufficient_scope" {
		return f.Code, http.StatusForbidden
	}
	switch f.Kind {
	case fault.Unauthenticated: // an API key at the introspection endpoint
		return "invalid_token", http.StatusUnauthorized
	case fault.Limited:
		return "temporarily_unavailable", http.StatusTooManyRequests
	case fault.Unavailable:
		return "temporarily_unavailable", http.StatusServiceUnavailable
	case fault.TooLarge:
		return "invalid_request", http.StatusRequestEntityTooLarge
	case fault.Internal:
		return "server_error", http.StatusInternalServerError
	}
	return "invalid_request", http.StatusBadRequest
}

func describe(f *fault.Error) string {
	if f.Hint == "" {
		return f.Message
	}
	return f.Message + " " + f.Hint
}

// fail writes err as the JSON of RFC 6749 §5.2.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := fault.Of(err)
	code, status := oauthError(f)
	s.logFault(r, f)
	retryAfter(w, f)
	if code == "invalid_client" && r.Header.Get("Authorization") != "" {
		w.Header().Set("WWW-Authenticate", `Basic realm="ambit"`)
	}
	writeJSON(w, status, map[string]string{"error": code, "error_description": describe(f)})
}

// Refuse writes an error that was found before an endpoint saw the request, as the
// JSON of RFC 6749 §5.2.
func Refuse(w http.ResponseWriter, status int, f *fault.Error) {
	code := "invalid_request"
	switch {
	case status == http.StatusServiceUnavailable:
		code = "temporarily_unavailable"
	case status >= http.StatusInternalServerError:
		code = "server_error"
	}
	retryAfter(w, f)
	writeJSON(w, status, map[string]string{"error": code, "error_description": describe(f)})
}

func (s *Server) logFault(r *http.Request, f *fault.Error) {
	level := slog.LevelDebug
	if f.Kind == fault.Internal || f.Kind == fault.Unavailable {
		level = slog.LevelError
	}
	s.log.Log(r.Context(), level, "authorization server refused a request", "path", r.URL.Path, "code", f.Code, "error", f)
}

func retryAfter(w http.ResponseWriter, f *fault.Error) {
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(min(f.RetryAfter, time.Hour).Seconds()))))
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	noStore(w)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func noStore(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
}

// showError is the page for an error that must not be redirected. It holds no
// byte of the request.
func (s *Server) showError(w http.ResponseWriter, r *http.Request, err error) {
	s.showErrorWith(w, r, err, wayBack{})
}

// wayBack is where the error would have been sent. Its host is shown, so that
// whoever follows the link knows where it leads.
type wayBack struct {
	Host string
	URL  template.URL
}

// backTo makes a wayBack of a redirect to an address that was matched against
// the client's.
func backTo(location string) wayBack {
	u, err := url.Parse(location)
	if err != nil {
		return wayBack{}
	}
	host := u.Host
	if host == "" {
		host = u.Scheme + ": (a program on this machine)"
	}
	return wayBack{Host: host, URL: template.URL(location)} //nolint:gosec // registered addresses carry no script
}

func (s *Server) showErrorWith(w http.ResponseWriter, r *http.Request, err error, back wayBack) {
	f := fault.Of(err)
	_, status := oauthError(f)
	s.logFault(r, f)
	retryAfter(w, f)
	noStore(w)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	_ = errorPage().Execute(w, struct {
		Message, Hint string
		Back          wayBack
	}{f.Message, f.Hint, back})
}

func errorPage() *template.Template {
	return template.Must(template.New("error").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>This agent cannot sign in</title>
<h1>This agent cannot sign in</h1>
<p>{{.Message}}</p>
{{with .Hint}}<p>{{.}}</p>{{end}}
{{with .Back}}{{if .URL}}<p>The agent registered itself here, and nobody has confirmed who it is. It can be told of this at
<strong>{{.Host}}</strong>: <a href="{{.URL}}" rel="noreferrer nofollow">go there</a> only if you started it.</p>{{end}}{{end}}
</html>
`))
}
