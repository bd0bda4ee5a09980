// Package relay is the door at which a provider's own API stands behind our host:
// /relay/{provider}/{path}, or /relay with the whole URL in X-Relay-URL. A client
// that speaks the provider's HTTP changes its base URL and its key: in place of
// the key goes an agent's token, with the handle of a session that a person
// approved. It is the wire of WorkOS' Relay, whose clients work.
//
// The door decides nothing and knows no rule: each request goes through
// [gateway.Gateway.Exchange]. An answer of the provider's is marked with
// X-Relay-Upstream-Status; without it, an answer is ours and has the body
// {"code", "message"}.
package relay

import (
	"encoding/base64"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/integration"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/throttle"
)

// Path is where the door is.
const Path = "/relay"

// The headers of this wire.
const (
	HeaderURL          = "X-Relay-Url"
	HeaderProvider     = "X-Relay-Provider"
	HeaderConnection   = "X-Relay-Connection" // which account, where several could serve
	HeaderSession      = "X-Ambit-Session"    // the handle
	HeaderUser         = "X-Relay-User"       // of an application's request, with HeaderOrganization where the account is its
	HeaderOrganization = "X-Relay-Organization"
	HeaderStatus       = "X-Relay-Upstream-Status"
	HeaderEvent        = "X-Relay-Event" // the audit entry of the request
)

// Config is what a Server needs. Address, Logger and Now have defaults.
type Config struct {
	Agents       *agent.Service
	People       *account.Service
	Integrations *integration.Service
	Gateway      *gateway.Gateway
	Address      func(*http.Request) string // of the client; nil is the peer's
	Logger       *slog.Logger
	Now          func() time.Time
}

// Server answers clients of providers. It is safe for concurrent use and needs no
// closing.
type Server struct {
	agents       *agent.Service
	people       *account.Service
	integrations *integration.Service
	gateway      *gateway.Gateway
	address      func(*http.Request) string
	log          *slog.Logger
	failures     *throttle.Limiter
}

// New makes a Server.
func New(cfg Config) *Server {
	if cfg.Address == nil {
		cfg.Address = func(r *http.Request) string {
			host, _, _ := net.SplitHostPort(r.RemoteAddr)
			return host
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Server{agents: cfg.Agents, people: cfg.People, integrations: cfg.Integrations, gateway: cfg.Gateway, address: cfg.Address, log: cfg.Logger, failures: throttle.New(5, 50, 50_000, cfg.Now)}
}

// Before sends what is for this door here and everything else to next. It stands
// before any router: one that tidies paths would send clients elsewhere.
func (s *Server) Before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == Path || strings.HasPrefix(r.URL.Path, Path+"/") {
			s.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ServeHTTP takes one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	guard(w.Header())
	if err := refuseBrowsers(r); err != nil {
		s.refuse(w, err)
		return
	}
	raw, err := s.read(r)
	if err != nil {
		s.refuse(w, err)
		return
	}
	token, user, err := credentialOf(r.Header)
	if err != nil {
		s.refuse(w, s.failed(r, err))
		return
	}
	raw.Header = r.Header.Clone()
	if raw.Header.Del("Authorization"); len(r.Header["Authorization"]) == 0 {
		raw.Header.Del("X-Api-Key")
	}
	exchange := func(raw gateway.Raw) (*gateway.Exchange, error) { return s.gateway.Exchange(r.Context(), raw) }
	if strings.HasPrefix(token, keyPrefix) {
		exchange = func(raw gateway.Raw) (*gateway.Exchange, error) {
			return s.application(w, r, secret.FromString(token), raw)
		}
	} else if err := s.agent(w, r, secret.FromString(token), user, &raw); err != nil {
		s.refuse(w, err)
		return
	}
	s.pass(w, r, raw, exchange)
}

// guard sets what keeps an answer, which is somebody else's content on our origin,
// from being a page of ours.
func guard(h http.Header) {
	h.Set("Content-Security-Policy", "sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// refuseBrowsers turns away what a page or an address bar sends: this door has no
// ambient authority and no pages. A client's own fetch may send Sec-Fetch-Mode.
func refuseBrowsers(r *http.Request) error {
	h := r.Header
	switch {
	case len(h["Cookie"]) > 0:
		return fault.New(fault.Denied, "relay_cookie_refused", "Requests with cookies are refused.").WithHint("Send no Cookie header.")
	case len(h["Sec-Fetch-Site"]) > 0 || len(h["Sec-Fetch-Dest"]) > 0 || strings.EqualFold(h.Get("Sec-Fetch-Mode"), "navigate"):
		return fault.New(fault.Denied, "relay_browser_refused", "Requests of web browsers are refused.").WithHint("Call from a program.")
	}
	return nil
}

// read finds out where a request is to go, which the gateway then holds against
// what the session may reach.
func (s *Server) read(r *http.Request) (gateway.Raw, error) {
	raw := gateway.Raw{Method: r.Method, Header: r.Header, Length: r.ContentLength, Trailer: r.Trailer, Door: "relay", Address: s.address(r),
		Traceparent: r.Header.Get("Traceparent"), Handle: r.Header.Get(HeaderSession)}
	if text := r.Header.Get(HeaderConnection); text != "" {
		if err := parse(&raw.Connection, text); err != nil {
			return raw, fault.New(fault.Invalid, "relay_connection_invalid", HeaderConnection+" is not a connection id.")
		}
	}
	rest := strings.TrimPrefix(strings.TrimPrefix(r.URL.EscapedPath(), Path), "/")
	whole, named := r.Header[HeaderURL], r.Header.Get(HeaderProvider)
	switch {
	case len(whole) > 1:
		return raw, fault.New(fault.Invalid, "relay_invalid_url", "There is more than one "+HeaderURL+".")
	case len(whole) == 1 && rest != "":
		return raw, fault.New(fault.Invalid, "relay_provider_conflict", "Both the path and "+HeaderURL+" say where the request is to go.").WithHint("With the header, send to " + Path + ".")
	case len(whole) == 1:
		u, err := url.Parse(whole[0])
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" {
			return raw, fault.New(fault.Invalid, "relay_invalid_url", HeaderURL+" is not the URL of a place at a provider.").WithHint("Write it whole, such as https://api.example.com/v1/me.")
		}
		raw.URL, raw.Provider = u, named
		return raw, nil
	case rest == "":
		return raw, fault.New(fault.Invalid, "relay_missing_url", "The request says neither in its path nor in "+HeaderURL+" where it is to go.")
	}
	slug, path, _ := strings.Cut(rest, "/")
	if named != "" && named != slug {
		return raw, fault.New(fault.Invalid, "relay_provider_conflict", HeaderProvider+" names another provider than the path.")
	}
	u, err := url.Parse("/" + path)
	if err != nil {
		return raw, fault.New(fault.Invalid, "relay_invalid_url", "The path is not well-formed.")
	}
	u.RawQuery = r.URL.RawQuery
	raw.URL, raw.Provider = u, slug
	return raw, nil
}

// parse is id.Parse for the kind that dst has.
func parse[K id.Kind](dst *id.ID[K], text string) (err error) {
	*dst, err = id.Parse[K](text)
	return err
}

// agent finds whose request it is. With Basic, the user name may be the session's
// handle, as in a URL of git. A token that is bound to a session may name it by its
// id as well.
func (s *Server) agent(w http.ResponseWriter, r *http.Request, token secret.Value, user string, raw *gateway.Raw) error {
	if raw.Handle == "" && strings.HasPrefix(user, session.HandlePrefix) {
		raw.Handle = user
	}
	who, err := s.agents.Authenticate(r.Context(), token)
	if err != nil {
		return s.failed(r, err)
	}
	raw.Identity = who
	if bound := string(who.Session()); bound != "" && raw.Handle == bound {
		raw.Handle = "" // what `ambit run` names to its program; the token says it already
	}
	return throttle.Known(w, string(who.Organization()), string(who.Agent()))
}

// failed counts what did not authenticate, by address.
func (s *Server) failed(r *http.Request, err error) error {
	if fault.KindOf(err) != fault.Unauthenticated {
		return err
	}
	if ok, wait := s.failures.Allow(throttle.Address(r.RemoteAddr)); !ok {
		return fault.New(fault.Limited, "rate_limited", "Too many requests without a valid token come from this address.").WithRetry(wait)
	}
	return err
}

// credentialOf finds the token in the one place that clients have for a key:
// Authorization, as Bearer, token or the password of Basic, or X-Api-Key.
func credentialOf(h http.Header) (token, user string, err error) {
	none := fault.New(fault.Unauthenticated, "unauthorized", "The request carries no access token.").
		WithHint("Send Authorization: Bearer followed by the agent's token, and " + HeaderSession + " with the handle of the session.")
	values, key := h["Authorization"], h["X-Api-Key"]
	switch {
	case len(values) == 0 && len(key) == 1:
		return key[0], "", nil
	case len(values) != 1:
		return "", "", none
	}
	scheme, text, _ := strings.Cut(values[0], " ")
	switch strings.ToLower(scheme) {
	case "bearer", "token":
		return text, "", nil
	case "basic":
		pair, err := base64.StdEncoding.DecodeString(text)
		name, password, ok := strings.Cut(string(pair), ":")
		if err != nil || !ok {
			return "", "", none
		}
		if password == "" || password == "x-oauth-basic" { // a token in place of the name
			return name, "", nil
		}
		return password, name, nil
	}
	return "", "", none
}
