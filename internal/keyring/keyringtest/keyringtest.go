// Package keyringtest is a keeper on the other side of a connection, for tests of
// what happens when that side misbehaves (threats.md F5, K4). The server holds a
// root key and answers wrap and unwrap over HTTP; the keeper asks it. Between
// them is a real socket, so down, slow, cut and garbage are what they would be.
package keyringtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/local"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Mode is how a server answers.
type Mode string

// The ways to answer.
const (
	Fine      Mode = "fine"
	Slow      Mode = "slow"      // after Delay
	Silent    Mode = "silent"    // never, until the caller gives up
	Denied    Mode = "denied"    // the key is disabled
	Throttled Mode = "throttled" // asked too often: wait 2 s
	Broken    Mode = "broken"    // 500
	Cut       Mode = "cut"       // the connection is reset in the middle
	Garbage   Mode = "garbage"   // 200 and nonsense
	Short     Mode = "short"     // 200 and a seed of the wrong length
	WrongKey  Mode = "wrong_key" // with another root key
)

// Server is the other side.
type Server struct {
	addr  string
	roots [2]secret.Value
	slow  atomic.Int64
	mode  atomic.Value
	// Wraps and Unwraps count what arrived.
	Wraps, Unwraps atomic.Int64

	mu  sync.Mutex
	srv *http.Server
}

// New starts a server that answers well, until the end of t.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{roots: [2]secret.Value{crypt.NewSeed(), crypt.NewSeed()}}
	s.Be(Fine)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	s.serve(l)
	t.Cleanup(s.Down)
	return s
}

func (s *Server) serve(l net.Listener) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /wrap", func(w http.ResponseWriter, r *http.Request) { s.Wraps.Add(1); s.answer(w, r, crypt.WrapKey) })
	mux.HandleFunc("POST /unwrap", func(w http.ResponseWriter, r *http.Request) {
		s.Unwraps.Add(1)
		s.answer(w, r, func(root, blob secret.Value, aad []byte) ([]byte, error) {
			seed, err := crypt.UnwrapKey(root, blob.Reveal(), aad)
			return seed.Reveal(), err
		})
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.srv = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func(srv *http.Server) { _ = srv.Serve(l) }(s.srv) // Down closes it
}

// Be changes how the server answers.
func (s *Server) Be(m Mode) { s.mode.Store(m) }

// Delay is how long a slow answer takes.
func (s *Server) Delay(d time.Duration) { s.slow.Store(int64(d)) }

// Down stops the server: connections are cut, new ones refused.
func (s *Server) Down() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.srv.Close()
}

// Up starts it again at the same address.
func (s *Server) Up(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	s.serve(l)
}

// Asked is how many calls arrived.
func (s *Server) Asked() int64 { return s.Wraps.Load() + s.Unwraps.Load() }

type message struct {
	In  []byte `json:"in,omitempty"`
	AAD []byte `json:"aad,omitempty"`
	Out []byte `json:"out,omitempty"`
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, do func(root, in secret.Value, aad []byte) ([]byte, error)) {
	var in message
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&in); err != nil {
		http.Error(w, "bad_request", http.StatusBadRequest)
		return
	}
	root := s.roots[0]
	switch s.mode.Load().(Mode) {
	case Slow:
		select {
		case <-time.After(time.Duration(s.slow.Load())):
		case <-r.Context().Done():
			return
		}
	case Silent:
		<-r.Context().Done()
		return
	case Denied:
		http.Error(w, "disabled", http.StatusForbidden)
		return
	case Throttled:
		w.Header().Set("Retry-After", "2")
		http.Error(w, "throttled", http.StatusTooManyRequests)
		return
	case Broken:
		http.Error(w, "broken", http.StatusInternalServerError)
		return
	case Cut:
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"out":"`)
		panic(http.ErrAbortHandler)
	case Garbage:
		_, _ = io.WriteString(w, "<html>Everything is fine</html>")
		return
	case Short:
		_ = json.NewEncoder(w).Encode(message{Out: []byte("short")})
		return
	case WrongKey:
		root = s.roots[1]
	}
	out, err := do(root, secret.New(in.In), in.AAD)
	if err != nil {
		http.Error(w, "integrity", http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(message{Out: out})
}

// Keeper gives a keeper that asks s.
func (s *Server) Keeper(t testing.TB) keyring.Keeper {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &keeper{client: &http.Client{Transport: transport}, base: "http://" + s.addr}
}

// Guard gives a guarded keeper that asks s. It is not started.
func (s *Server) Guard(t testing.TB, cfg keyring.Config) *keyring.Guard {
	t.Helper()
	g := keyring.NewGuard(s.Keeper(t), cfg)
	t.Cleanup(g.Stop)
	return g
}

type keeper struct {
	client *http.Client
	base   string
}

func (k *keeper) Describe() keyring.Description {
	return keyring.Description{Ref: "test:" + k.base, Location: k.base}
}

func (k *keeper) Wrap(ctx context.Context, seed secret.Value, c keyring.Context) ([]byte, error) {
	return k.ask(ctx, "/wrap", message{In: seed.Reveal(), AAD: bound(c)})
}

func (k *keeper) Unwrap(ctx context.Context, blob []byte, c keyring.Context) (secret.Value, error) {
	seed, err := k.ask(ctx, "/unwrap", message{In: blob, AAD: bound(c)})
	if err == nil && len(seed) != 32 {
		err = keyring.Failure(keyring.CodeUnavailable, fmt.Errorf("a seed of %d bytes", len(seed)))
	}
	if err != nil {
		return secret.Value{}, err
	}
	return secret.New(seed), nil
}

// bound holds the labels too, so that a room whose labels change is found out.
func bound(c keyring.Context) []byte {
	return crypt.Fields(string(c.AAD), c.Purpose, c.Environment, c.Organization)
}

// ask maps the other side's answers to our classes, as every back end must.
func (k *keeper) ask(ctx context.Context, path string, in message) ([]byte, error) {
	doc, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, k.base+path, bytes.NewReader(doc))
	if err != nil {
		return nil, err
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, keyring.Failure(keyring.CodeUnavailable, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return nil, keyring.Failure(keyring.CodeUnavailable, err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
		var out message
		if err := json.Unmarshal(text, &out); err != nil || len(out.Out) == 0 {
			return nil, keyring.Failure(keyring.CodeUnavailable, errors.New("an answer that is none"))
		}
		return out.Out, nil
	case http.StatusForbidden:
		return nil, keyring.Failure(keyring.CodeDenied, errors.New("status 403"))
	case http.StatusTooManyRequests:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return nil, keyring.Failure(keyring.CodeThrottled, errors.New("status 429")).WithRetry(time.Duration(seconds) * time.Second)
	case http.StatusBadRequest:
		return nil, crypt.ErrIntegrity
	}
	return nil, keyring.Failure(keyring.CodeUnavailable, fault.New(fault.Unavailable, "status", resp.Status))
}

// File makes a root key in a file and guards it, for tests of other things.
func File(t testing.TB, path string) *keyring.Guard {
	t.Helper()
	k, err := local.OpenOrCreate(path, true)
	if err != nil {
		t.Fatal(err)
	}
	return keyring.NewGuard(k, keyring.Config{})
}
