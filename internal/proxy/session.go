package proxy

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/strictjson"
	"github.com/ambit-dev/ambit/internal/throttle"
)

// The paths of this door on the server's own port.
const (
	SessionPath = "/proxy/session" // POST: an agent's token for one of its sessions
	BundlePath  = "/proxy/ca.pem"  // GET: what a client of the proxy must trust
)

// Mount adds this door's paths to the server's own.
func (s *Server) Mount(mux *http.ServeMux) {
	mux.HandleFunc("POST "+SessionPath, s.session)
	mux.HandleFunc("GET "+BundlePath, s.bundle)
}

// Access is what a program needs to work through the proxy.
type Access struct {
	SessionID string    `json:"session_id"`
	ExpiresAt time.Time `json:"expires_at"`
	// Token is bound to the session and ends with it. It is the password of the
	// proxy's Basic credentials.
	Token    string `json:"token"`
	ProxyURL string `json:"proxy_url"`
	CAPEM    string `json:"ca_pem"`
	// Hosts are those of the session's accounts, as host or host:port.
	Hosts []string `json:"hosts"`
	// Providers are those of the session's accounts, and Variables the names in
	// which programs look for their keys, with placeholders.
	Providers []string          `json:"providers"`
	Variables map[string]string `json:"variables"`
}

const maxBody = 4 << 10

// session gives the agent that a session belongs to a token that is good for this
// session alone, so that the program that works in it need not hold the agent's
// own.
func (s *Server) session(w http.ResponseWriter, r *http.Request) {
	var token secret.Value
	if values := r.Header.Values("Authorization"); len(values) == 1 {
		if scheme, rest, _ := strings.Cut(values[0], " "); strings.EqualFold(scheme, "Bearer") {
			token = secret.FromString(strings.TrimSpace(rest))
		}
	}
	who, err := s.agents.Authenticate(r.Context(), token)
	if err == nil {
		err = throttle.Known(w, string(who.Organization()), string(who.Agent()))
	}
	if err != nil {
		s.answer(w, err, nil)
		return
	}
	var in struct {
		Session string `json:"session"`
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		err = strictjson.Unmarshal(body, &in, strictjson.Limits{})
	}
	if err != nil || in.Session == "" {
		s.answer(w, fault.New(fault.Invalid, "invalid_arguments", "The body is {\"session\": …}, a session handle or id.").WithCause(err), nil)
		return
	}
	out, err := s.access(r, who, in.Session)
	s.answer(w, err, out)
}

func (s *Server) access(r *http.Request, who agent.Identity, named string) (*Access, error) {
	ctx := r.Context()
	live, err := s.sessions.LiveNamed(ctx, who, named)
	if err != nil {
		return nil, err
	}
	token, err := s.agents.TokenForSession(ctx, who, agent.SessionGrant{Agent: live.Agent(), Session: live.Session(), User: live.User(), Expires: live.Until()})
	if err != nil {
		return nil, err
	}
	bundle, err := s.authority.Bundle(ctx, who.Environment())
	if err != nil {
		return nil, err
	}
	return &Access{SessionID: string(live.Session()), ExpiresAt: live.Until(), Token: reveal(token.Access), ProxyURL: s.url, CAPEM: string(bundle),
		Hosts: hostsOf(live.Places()), Providers: live.Providers(), Variables: live.Variables()}, nil
}

// hostsOf lists the hosts of places as a client names them.
func hostsOf(places []string) []string {
	out, seen := []string{}, map[string]bool{}
	for _, p := range places {
		_, rest, _ := strings.Cut(p, "://")
		host, _, _ := strings.Cut(rest, "/")
		if !seen[host] {
			seen[host] = true
			out = append(out, host)
		}
	}
	return out
}

// bundle serves the authority's certificates, which are public: of the environment
// that is named, or of the first one.
func (s *Server) bundle(w http.ResponseWriter, r *http.Request) {
	all, err := s.people.Environments(r.Context(), account.System("proxy"))
	if err != nil {
		s.answer(w, err, nil)
		return
	}
	named := r.URL.Query().Get("environment")
	for _, e := range all {
		if named != "" && named != string(e.ID) {
			continue
		}
		pem, err := s.authority.Bundle(r.Context(), e.ID)
		if err != nil {
			s.answer(w, err, nil)
			return
		}
		w.Header().Set("Content-Type", "application/x-pem-file")
		w.Header().Set("Content-Disposition", `attachment; filename="ambit-proxy.pem"`)
		_, _ = w.Write(pem)
		return
	}
	s.answer(w, fault.New(fault.NotFound, "not_found", "No such environment."), nil)
}

// answer writes JSON, or a refusal.
func (s *Server) answer(w http.ResponseWriter, err error, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if err == nil {
		_ = json.NewEncoder(w).Encode(v)
		return
	}
	f, body := s.problem(w, err)
	status, ok := map[fault.Kind]int{fault.Invalid: 400, fault.Unauthenticated: 401, fault.Denied: 403, fault.Expired: 403, fault.NotFound: 404, fault.Conflict: 409, fault.TooLarge: 413, fault.Limited: 429, fault.Unavailable: 503}[f.Kind]
	if !ok {
		status = http.StatusInternalServerError
	}
	if f.Kind == fault.Unauthenticated {
		w.Header().Set("WWW-Authenticate", s.agents.Challenge(""))
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
