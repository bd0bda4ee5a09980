// Command vaulttransit serves HashiCorp Vault's own engines over HTTP on loopback,
// for tests of what speaks to them: transit, and below secret/ and kv/ the key-value
// engine in its versions 2 and 1. Keys, ciphertexts, versions and every word about
// them are the engines'; what Vault does before a request reaches an engine (tokens,
// policies, namespaces, sealing, quotas) is played here.
//
// It prints its address as the first line and ends when its standard input does.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(l.Addr())
	s := &server{engines: map[string]*engine{}, tokens: map[string]*token{}, roles: map[string]role{}}
	go func() { _ = http.Serve(l, s) }()
	_, _ = io.Copy(io.Discard, bufio.NewReader(os.Stdin))
}

// admin is the token of the test itself.
const admin = "admin"

// policy says what a token may do: path prefixes with the capabilities read,
// update and create.
type policy map[string][]string

type token struct {
	Policy    policy
	TTL       time.Duration // 0: does not expire
	Renewable bool
	expires   time.Time
}

// role is what an AppRole login ("approle/ROLE_ID") or one by Kubernetes JWT
// ("kubernetes/ROLE") must show, and what it gets.
type role struct {
	Secret string
	Policy policy
	TTL    time.Duration
}

type server struct {
	mu      sync.Mutex
	engines map[string]*engine // by namespace
	tokens  map[string]*token
	roles   map[string]role
	mode    string
	logins  int
	renews  int
	calls   int
	headers http.Header // of the last request that was no control
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	if path, ok := strings.CutPrefix(r.URL.Path, "/control/"); ok {
		s.control(w, path, body)
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v1/")
	if !ok {
		fail(w, http.StatusNotFound, "no handler for route")
		return
	}
	caller := r.Header.Get("X-Vault-Token")
	if caller != admin && !s.outward(w, r) {
		return
	}
	data := map[string]any{}
	if len(body) > 0 {
		d := json.NewDecoder(strings.NewReader(string(body)))
		d.UseNumber()
		if err := d.Decode(&data); err != nil {
			fail(w, http.StatusBadRequest, "failed to parse JSON input")
			return
		}
	}
	switch {
	case strings.HasPrefix(path, "auth/") && strings.HasSuffix(path, "/login"):
		s.login(w, strings.TrimSuffix(strings.TrimPrefix(path, "auth/"), "/login"), data)
	case path == "auth/token/renew-self":
		s.renew(w, caller)
	case mounts[mount(path)] != nil:
		s.engineCall(w, r, caller, path, data)
	case strings.HasPrefix(path, "sys/internal/ui/mounts/"):
		mounted(w, strings.TrimPrefix(path, "sys/internal/ui/mounts/"))
	default:
		fail(w, http.StatusNotFound, "no handler for route \""+path+"\". route entry not found.")
	}
}

// outward plays what lies between a caller and the engine. It reports whether the
// request goes on.
func (s *server) outward(w http.ResponseWriter, r *http.Request) bool {
	s.mu.Lock()
	s.calls++
	s.headers = r.Header.Clone()
	mode := s.mode
	s.mu.Unlock()
	switch mode {
	case "sealed":
		fail(w, http.StatusServiceUnavailable, "Vault is sealed")
	case "throttle":
		w.Header().Set("Retry-After", "3")
		fail(w, http.StatusTooManyRequests, "request path \"transit\": rate limit quota exceeded")
	case "silent":
		<-r.Context().Done()
	case "broken":
		fail(w, http.StatusInternalServerError, "internal error")
	case "proxy404":
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "<html>nothing here</html>")
	case "redirect":
		w.Header().Set("Location", "http://127.0.0.1:9/v1/")
		w.WriteHeader(http.StatusTemporaryRedirect)
	case "garble":
		_, _ = io.WriteString(w, `{"data":{"plaintext":"AAAA","ciphertext":"vault:v1:"}}`)
	case "html":
		_, _ = io.WriteString(w, "<html>Everything is fine</html>")
	default:
		return true
	}
	return false
}

// control is the test's: what tokens and roles there are, and how to behave.
func (s *server) control(w http.ResponseWriter, path string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	kind, name, _ := strings.Cut(path, "/")
	switch kind {
	case "mode":
		s.mode = name
	case "token":
		t := &token{}
		if err = json.Unmarshal(body, t); err == nil {
			s.tokens[name] = t
			t.renew()
		}
	case "revoke":
		if delete(s.tokens, name); name == "" {
			clear(s.tokens)
		}
	case "role":
		var r role
		err = json.Unmarshal(body, &r)
		s.roles[name] = r
	case "seen":
		err = json.NewEncoder(w).Encode(map[string]any{"calls": s.calls, "logins": s.logins, "renews": s.renews, "headers": s.headers})
	default:
		err = errors.New("unknown control")
	}
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
	}
}

func (t *token) renew() {
	if t.TTL > 0 {
		t.expires = time.Now().Add(t.TTL)
	}
}

func (s *server) login(w http.ResponseWriter, mount string, data map[string]any) {
	text := func(name string) string { v, _ := data[name].(string); return v }
	name, shown := mount+"/"+text("role_id"), text("secret_id")
	if data["jwt"] != nil {
		name, shown = mount+"/"+text("role"), text("jwt")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins++
	r, ok := s.roles[name]
	if !ok || r.Secret != shown {
		fail(w, http.StatusBadRequest, "invalid role or secret ID")
		return
	}
	id := "hvs." + rand.Text()
	t := &token{Policy: r.Policy, TTL: r.TTL, Renewable: true}
	t.renew()
	s.tokens[id] = t
	granted(w, id, t)
}

func (s *server) renew(w http.ResponseWriter, caller string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renews++
	t := s.live(caller)
	switch {
	case t == nil:
		fail(w, http.StatusForbidden, "permission denied")
	case !t.Renewable:
		fail(w, http.StatusBadRequest, "lease is not renewable")
	default:
		t.renew()
		granted(w, caller, t)
	}
}

func granted(w http.ResponseWriter, id string, t *token) {
	_ = json.NewEncoder(w).Encode(map[string]any{"auth": map[string]any{
		"client_token": id, "lease_duration": int(t.TTL.Seconds()), "renewable": t.Renewable,
	}})
}

func (s *server) live(id string) *token {
	t := s.tokens[id]
	if t == nil || t.TTL > 0 && time.Now().After(t.expires) {
		return nil
	}
	return t
}

func (s *server) may(caller, path, capability string) bool {
	if caller == admin {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.live(caller)
	return t != nil && slices.Contains(t.Policy[path], capability)
}

// mounts are the engines, by where they are.
var mounts = map[string]func(ctx context.Context, cfg *logical.BackendConfig) (logical.Backend, error){
	"transit": func(ctx context.Context, cfg *logical.BackendConfig) (logical.Backend, error) {
		b, err := transit.Backend(ctx, cfg)
		if err != nil {
			return nil, err
		}
		// The published sdk is stricter than the commit that this engine was built with.
		for _, p := range b.Paths {
			if p.ExistenceCheck == nil {
				p.ExistenceCheck = func(context.Context, *logical.Request, *framework.FieldData) (bool, error) { return true, nil }
			}
		}
		return b, b.Setup(ctx, cfg)
	},
	"secret": func(ctx context.Context, cfg *logical.BackendConfig) (logical.Backend, error) {
		cfg.Config = map[string]string{"version": "2"}
		return kv.Factory(ctx, cfg)
	},
	"kv": func(ctx context.Context, cfg *logical.BackendConfig) (logical.Backend, error) {
		cfg.Config = map[string]string{"version": "1"}
		return kv.Factory(ctx, cfg)
	},
}

func mount(path string) string {
	at, _, _ := strings.Cut(path, "/")
	return at
}

// mounted answers which engine is where, as Vault tells its own command.
func mounted(w http.ResponseWriter, at string) {
	about := map[string]any{"type": "kv", "path": mount(at) + "/", "options": map[string]any{"version": map[string]string{"secret": "2", "kv": "1"}[mount(at)]}}
	switch {
	case mounts[mount(at)] == nil:
		fail(w, http.StatusForbidden, "preflight capability check returned 403, please ensure client's policies grant access to path")
		return
	case mount(at) == "transit":
		about["type"] = "transit"
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"data": about})
}

type engine struct {
	logical.Backend
	storage logical.Storage
}

func (s *server) engine(r *http.Request, at string) (*engine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.Trim(r.Header.Get("X-Vault-Namespace"), "/") + " " + at
	if e := s.engines[name]; e != nil {
		return e, nil
	}
	storage := &logical.InmemStorage{}
	cfg := &logical.BackendConfig{Logger: hclog.NewNullLogger(), StorageView: storage, System: logical.TestSystemView(), BackendUUID: "00000000-0000-4000-8000-000000000001"}
	ctx := context.WithoutCancel(r.Context())
	b, err := mounts[at](ctx, cfg)
	if err == nil {
		err = b.Initialize(ctx, &logical.InitializationRequest{Storage: storage})
	}
	if err != nil {
		return nil, err
	}
	s.engines[name] = &engine{b, storage}
	return s.engines[name], nil
}

// engineCall hands a request to an engine as Vault's core does.
func (s *server) engineCall(w http.ResponseWriter, r *http.Request, caller, path string, data map[string]any) {
	at := mount(path)
	path = strings.TrimPrefix(strings.TrimPrefix(path, at), "/")
	b, err := s.engine(r, at)
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	req := &logical.Request{Path: path, Data: data, Storage: b.storage}
	capability := "read"
	for name, values := range r.URL.Query() {
		data[name] = values[0]
	}
	switch list := data["list"] == "true"; {
	case r.Method == "LIST" || list:
		req.Operation, capability = logical.ListOperation, "list"
		delete(data, "list")
		if req.Path != "" && !strings.HasSuffix(req.Path, "/") {
			req.Path += "/"
		}
	case r.Method == http.MethodGet:
		req.Operation = logical.ReadOperation
	case r.Method == http.MethodDelete:
		req.Operation, capability = logical.DeleteOperation, "delete"
	default:
		req.Operation, capability = logical.UpdateOperation, "update"
		if checked, exists, err := b.HandleExistenceCheck(r.Context(), req); err == nil && checked && !exists {
			req.Operation, capability = logical.CreateOperation, "create"
		}
	}
	if !s.may(caller, map[bool]string{true: path, false: at + "/" + path}[at == "transit"], capability) {
		fail(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
		return
	}
	resp, err := b.HandleRequest(r.Context(), req)
	switch code, out := logical.RespondErrorCommon(req, resp, err); {
	case out != nil:
		fail(w, code, out.Error())
	case resp == nil && (r.Method == http.MethodGet || r.Method == "LIST"):
		fail(w, http.StatusNotFound)
	case resp == nil:
		w.WriteHeader(http.StatusNoContent)
	case resp.Data[logical.HTTPStatusCode] != nil: // as of a version that was deleted
		status, _ := resp.Data[logical.HTTPStatusCode].(int)
		w.WriteHeader(status)
		switch body := resp.Data[logical.HTTPRawBody].(type) {
		case string:
			_, _ = io.WriteString(w, body)
		case []byte:
			_, _ = w.Write(body)
		}
	default:
		_ = json.NewEncoder(w).Encode(map[string]any{"data": resp.Data})
	}
}

func fail(w http.ResponseWriter, code int, texts ...string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if texts == nil {
		texts = []string{}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": texts})
}
