// Package workos answers the WorkOS wire: an application that uses a WorkOS SDK
// changes its base URL and goes on working. The shapes and quirks of that wire
// stay in this room; what they mean is done elsewhere. It speaks all of Vault and
// of Pipes, and tells of what happened, for an application's API key only. An
// agent's token is turned away whatever the route.
//
// An error of Vault has the body {"error", "message", "code"}: "error" is what
// Vault's SDKs read, the other two what the SDKs read everywhere else, and what
// an error of Pipes has. What is made twice under one Idempotency-Key is made once,
// since the SDKs retry on their own; a credential that is vended, and a link that
// signs somebody in, are kept for no repetition.
package workos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/integration"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/throttle"
	"github.com/ambit-dev/ambit/internal/vault"
)

// Config is what a Server needs. All but Address and Logger are required.
type Config struct {
	People       *account.Service
	Vault        *vault.Vault
	Audit        *audit.Log
	Integrations *integration.Service
	PublicURL    *url.URL
	Address      func(*http.Request) string // of the client; nil is the peer's
	Logger       *slog.Logger
}

// Server answers requests. It is safe for concurrent use.
type Server struct {
	people       *account.Service
	vault        *vault.Vault
	audit        *audit.Log
	integrations *integration.Service
	public       *url.URL
	address      func(*http.Request) string
	log          *slog.Logger
	once         singleflight.Group // requests under an Idempotency-Key
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
	return &Server{people: cfg.People, vault: cfg.Vault, audit: cfg.Audit, integrations: cfg.Integrations, public: cfg.PublicURL, address: cfg.Address, log: cfg.Logger}
}

// Mount adds the routes to mux.
func (s *Server) Mount(mux *http.ServeMux) {
	read, write, remove := account.ScopeVaultRead, account.ScopeVaultWrite, account.ScopeVaultDelete
	mux.Handle("POST /vault/v1/kv", s.route("secret.created", write, s.createObject))
	mux.Handle("GET /vault/v1/kv", s.route("secret.listed", read, s.listObjects))
	mux.Handle("GET /vault/v1/kv/{id}", s.route("secret.read", read, s.readObject))
	// Name, metadata and versions share a pattern: a secret may be called "metadata".
	mux.Handle("GET /vault/v1/kv/{first}/{second}", s.route("secret.read", read, s.readFurther))
	mux.Handle("PUT /vault/v1/kv/{id}", s.route("secret.updated", write, s.updateObject))
	mux.Handle("DELETE /vault/v1/kv/{id}", s.route("secret.deleted", remove, s.deleteObject))
	mux.Handle("POST /vault/v1/keys/data-key", s.route("data_key.created", write, s.createDataKey))
	mux.Handle("POST /vault/v1/keys/decrypt", s.route("data_key.decrypted", read, s.decryptDataKey))
	mux.Handle("POST /vault/v1/keys/rekey", s.route("data_key.rekeyed", write, s.rekeyDataKey, read))
	s.pipes(mux)
	mux.Handle("GET /events", s.route("audit.listed", account.ScopeAuditRead, s.listEvents))
	mux.HandleFunc("/vault/v1/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, fault.New(fault.NotFound, "not_found", "There is no such endpoint."))
	})
}

// answer is a status and what is sent as JSON.
type answer struct {
	status int
	body   any
}

// handler does the work of one route. Its request is authenticated.
type handler func(ctx context.Context, c vault.Caller, r *http.Request) (answer, error)

// route authenticates, checks the scopes, and writes what h answers.
func (s *Server) route(action string, scope account.Scope, h handler, more ...account.Scope) http.Handler {
	scopes := append([]account.Scope{scope}, more...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := s.caller(w, r, action, scopes)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		a, err := h(r.Context(), c, r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.send(w, r, a)
	})
}

// caller is the application whose key the request carries, as the vault takes it.
func (s *Server) caller(w http.ResponseWriter, r *http.Request, action string, scopes []account.Scope) (vault.Caller, error) {
	key, err := s.application(w, r)
	if err == nil {
		err = s.scoped(r, key, action, scopes)
	}
	if err != nil {
		return vault.Caller{}, err
	}
	return vault.Caller{Actor: audit.Actor{Kind: "api_key", ID: string(key.ID())}, Name: key.Name(), Environment: key.Environment(),
		Organization: key.Organization(), Reach: key.Reach(), Address: s.address(r)}, nil
}

// agents are the beginnings of what an agent may hold: its tokens, its secret, and
// a session's handle, which is no credential but shows who sends it.
func agents() []string { return []string{"amb_at_", "amb_rt_", "amb_cs_", session.HandlePrefix} }

// application finds whose key the request carries, and counts the request as theirs.
func (s *Server) application(w http.ResponseWriter, r *http.Request) (account.Key, error) {
	unauthenticated := fault.New(fault.Unauthenticated, "unauthorized", "The request carries no API key.").
		WithHint("Send Authorization: Bearer followed by your API key.")
	values := r.Header.Values("Authorization")
	for _, v := range values {
		_, token, _ := strings.Cut(strings.TrimSpace(v), " ")
		for _, prefix := range agents() {
			if strings.HasPrefix(strings.TrimSpace(token), prefix) {
				return account.Key{}, fault.New(fault.Denied, "agent_not_allowed", "Agents cannot use this.").
					WithHint("An agent works through /mcp, in a session that a person approved.")
			}
		}
	}
	if len(values) != 1 {
		return account.Key{}, unauthenticated
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "bearer") || token == "" {
		return account.Key{}, unauthenticated
	}
	key, err := s.people.AuthenticateKey(r.Context(), secret.FromString(token))
	if err != nil {
		return account.Key{}, err
	}
	group, name := account.ByKey(key).Counted()
	return key, throttle.Known(w, group, name)
}

// scoped refuses a key that lacks one of scopes, and records that.
func (s *Server) scoped(r *http.Request, key account.Key, action string, scopes []account.Scope) error {
	lacking := slices.IndexFunc(scopes, func(scope account.Scope) bool { return !key.Has(scope) })
	if lacking < 0 {
		return nil
	}
	denied := fault.New(fault.Denied, "insufficient_scope", "This API key lacks the scope "+scopes[lacking]+".").
		WithHint("Use a key that has it.")
	err := s.audit.Record(r.Context(), audit.Entry{Environment: key.Environment(), Organization: key.Organization(),
		Actor: audit.Actor{Kind: "api_key", ID: string(key.ID())}, Action: action, Decision: "deny", Code: denied.Code, Address: s.address(r)})
	if err != nil {
		return fault.New(fault.Unavailable, "audit_unavailable", "The audit log cannot be written.").WithCause(err)
	}
	return denied
}

// maxBody lets a value of the greatest size through in any JSON spelling.
const maxBody = 6*vault.MaxValue + 256<<10

// body reads the whole body.
func body(r *http.Request) ([]byte, error) {
	doc, err := io.ReadAll(r.Body)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, fault.New(fault.TooLarge, "body_too_large", "The request body is too large.")
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "invalid_body", "The request body could not be read.").WithCause(err)
	}
	return doc, nil
}

func (s *Server) send(w http.ResponseWriter, r *http.Request, a answer) {
	var doc bytes.Buffer
	enc := json.NewEncoder(&doc)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(a.body); err != nil {
		s.fail(w, r, err)
		return
	}
	write(w, a.status, doc.Bytes())
}

// unprocessable marks an Invalid fault that this wire answers with 422.
type unprocessable struct{ error }

func (u unprocessable) Unwrap() error { return u.error }

// fail writes an error of Vault.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	Refuse(w, s.statusOf(w, r, err), fault.Of(err))
}

// statusOf is the one place where faults become statuses. What nobody foresaw is
// logged.
func (s *Server) statusOf(w http.ResponseWriter, r *http.Request, err error) int {
	f := fault.Of(err)
	status := map[fault.Kind]int{
		fault.Invalid: http.StatusBadRequest, fault.Unauthenticated: http.StatusUnauthorized, fault.Denied: http.StatusForbidden,
		fault.NotFound: http.StatusNotFound, fault.Conflict: http.StatusConflict, fault.Expired: http.StatusGone,
		fault.Limited: http.StatusTooManyRequests, fault.Unavailable: http.StatusServiceUnavailable, fault.TooLarge: http.StatusRequestEntityTooLarge,
	}[f.Kind]
	if _, ok := errors.AsType[unprocessable](err); ok && f.Kind == fault.Invalid {
		status = http.StatusUnprocessableEntity
	}
	switch {
	case status == 0:
		status = http.StatusInternalServerError
		s.log.ErrorContext(r.Context(), "a request failed", "method", r.Method, "route", r.Pattern, "error", err)
	case status == http.StatusServiceUnavailable:
		s.log.WarnContext(r.Context(), "a request could not be served", "method", r.Method, "route", r.Pattern, "error", err)
	case status == http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	return status
}

// Refuse writes an error in the form of Vault; the edge uses it for what is
// turned away before a route sees it.
func Refuse(w http.ResponseWriter, status int, f *fault.Error) {
	refuse(w, status, f, map[string]string{"error": f.Message})
}

// RefusePipes is Refuse in the form of Pipes.
func RefusePipes(w http.ResponseWriter, status int, f *fault.Error) {
	refuse(w, status, f, map[string]string{})
}

func refuse(w http.ResponseWriter, status int, f *fault.Error, body map[string]string) {
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
	}
	body["message"], body["code"] = f.Message, f.Code
	if f.Hint != "" {
		body["message"] += " " + f.Hint
	}
	doc, jerr := json.Marshal(body)
	if jerr != nil {
		doc = []byte("{}") // strings always encode
	}
	write(w, status, doc)
}

func write(w http.ResponseWriter, status int, doc []byte) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(doc) // a client that left is no error of ours
}

// stamp is a time as the SDKs parse it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
