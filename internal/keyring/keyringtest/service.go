package keyringtest

import (
	"bytes"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/outbound"
)

// Service is a TLS server on loopback that plays the service of a cloud, with the
// levers that every service has.
type Service struct {
	URL   string // https
	Addr  string // host:port
	Roots *x509.CertPool
	// Calls counts the requests that arrived.
	Calls atomic.Int64

	refuse func(http.ResponseWriter)
	mode   atomic.Value
	held   chan struct{}
}

// NewService serves h until the end of t. throttled answers as this service does
// when it is asked too often.
func NewService(t testing.TB, h http.Handler, throttled func(http.ResponseWriter)) *Service {
	t.Helper()
	s := &Service{refuse: throttled, held: make(chan struct{}), Roots: x509.NewCertPool()}
	s.Restore()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, h) }))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(func() { close(s.held); srv.Close() })
	s.URL, s.Addr = srv.URL, srv.Listener.Addr().String()
	s.Roots.AddCert(srv.Certificate())
	return s
}

func (s *Service) serve(w http.ResponseWriter, r *http.Request, h http.Handler) {
	s.Calls.Add(1)
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	switch s.mode.Load().(Mode) {
	case Throttled:
		s.refuse(w)
	case Silent:
		select {
		case <-r.Context().Done():
		case <-s.held:
		}
	case Broken:
		http.Error(w, "broken", http.StatusInternalServerError)
	case Garbage:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "<html>Everything is fine</html>")
	default:
		h.ServeHTTP(w, r)
	}
}

// The levers.
func (s *Service) Throttle() { s.mode.Store(Throttled) }
func (s *Service) Silence()  { s.mode.Store(Silent) }
func (s *Service) Break()    { s.mode.Store(Broken) }
func (s *Service) Garble()   { s.mode.Store(Garbage) }
func (s *Service) Restore()  { s.mode.Store(Fine) }

// HTTP is a client of outbound that reaches the services.
func HTTP(t testing.TB, services ...*Service) keyring.Options {
	t.Helper()
	p := outbound.Policy{Roots: x509.NewCertPool()}
	for _, s := range services {
		p.Allow = append(p.Allow, s.Addr)
		p.Roots = s.Roots // httptest's servers share one certificate
	}
	c, err := outbound.New(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return keyring.Options{HTTP: c.Library(outbound.Library{Party: "keeper"})}
}

// Detour leads what o sends to these hosts to the service instead.
func (s *Service) Detour(o *keyring.Options, hosts ...string) {
	o.HTTP.Transport = detour{o.HTTP.Transport, s.Addr, hosts}
}

type detour struct {
	next  http.RoundTripper
	addr  string
	hosts []string
}

func (d detour) RoundTrip(r *http.Request) (*http.Response, error) {
	if slices.Contains(d.hosts, r.URL.Hostname()) {
		r = r.Clone(r.Context())
		r.URL.Scheme, r.URL.Host, r.Host = "https", d.addr, d.addr
	}
	return d.next.RoundTrip(r)
}

// Settings is an environment that holds only these.
func Settings(pairs map[string]string) func(string) string {
	return func(name string) string { return pairs[name] }
}
