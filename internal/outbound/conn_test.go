package outbound_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
)

// F6, S14: an upstream that sends more than one answer for a request gets its
// surplus into no call of anybody else, and what comes with the answer or is there
// when the connection is taken again not even into the same party's next call. The
// transport alone let some of both through.
func TestF6SurplusReachesNobody(t *testing.T) {
	t.Parallel()
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	t.Cleanup(cert.Close)
	roots := x509.NewCertPool()
	roots.AddCert(cert.Certificate())
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"
	for name, surplus := range map[string]func(c net.Conn, answer string){
		"at once": func(c net.Conn, answer string) { _, _ = io.WriteString(c, answer+evil) },
		"behind":  func(c net.Conn, answer string) { _, _ = io.WriteString(c, answer); _, _ = io.WriteString(c, evil) },
		"in part": func(c net.Conn, answer string) {
			_, _ = io.WriteString(c, answer+evil[:20])
			_, _ = io.WriteString(c, evil[20:])
		},
		"a byte":    func(c net.Conn, answer string) { _, _ = io.WriteString(c, answer+"\n") },
		"sometimes": func(c net.Conn, answer string) { _, _ = io.WriteString(c, answer+evil[:len(evil)*(len(answer)%2)]) },
	} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %v", name, secure), func(t *testing.T) {
				t.Parallel()
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = l.Close() })
				scheme := "http"
				if secure {
					scheme = "https"
					l = tls.NewListener(l, &tls.Config{Certificates: cert.TLS.Certificates, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12})
				}
				go func() {
					for {
						c, err := l.Accept()
						if err != nil {
							return
						}
						go func() {
							defer c.Close()
							in := bufio.NewReader(c)
							for {
								r, err := http.ReadRequest(in)
								if err != nil {
									return
								}
								_, _ = io.Copy(io.Discard, r.Body)
								surplus(c, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(r.URL.Path), r.URL.Path))
							}
						}()
					}
				}()
				client := newClient(t, outbound.Policy{Allow: []string{l.Addr().String()}, Roots: roots})
				base := scheme + "://" + l.Addr().String()
				var wrong, foreign, failed atomic.Int64
				var wg sync.WaitGroup
				calls := 400
				if secure {
					calls = 100 // each costs a handshake
				}
				for worker := range 4 {
					wg.Go(func() {
						for i := range calls {
							party := fmt.Sprintf("party-%d", worker)
							want := fmt.Sprintf("/%s-%d", party, i)
							req, _ := http.NewRequest("POST", base+want, strings.NewReader("x"))
							resp, err := client.Do(t.Context(), outbound.Bound{Bases: []string{base}, Party: party}, req, outbound.Limits{})
							switch {
							case err != nil:
								failed.Add(1)
							case strings.Contains(string(resp.Body), "party") && !strings.Contains(string(resp.Body), party):
								foreign.Add(1)
							case string(resp.Body) != want:
								wrong.Add(1)
							}
						}
					})
				}
				wg.Wait()
				if foreign.Load() > 0 {
					t.Errorf("%d calls got another party's answer", foreign.Load())
				}
				// What arrives after the next request was sent looks like its answer.
				if wrong.Load() > 0 && name != "behind" && name != "in part" {
					t.Errorf("%d calls got what was no answer of theirs", wrong.Load())
				}
				if failed.Load() > int64(calls/10) {
					t.Errorf("%d of %d calls failed; the next one must find another connection", failed.Load(), 4*calls)
				}
			})
		}
	}
}

// counting serves over TLS and counts the connections.
func counting(t *testing.T, http2 bool) (srv *httptest.Server, conns *atomic.Int64) {
	t.Helper()
	conns = &atomic.Int64{}
	srv = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.EnableHTTP2 = http2
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv, conns
}

// S14: parties share no HTTP/1 connection; each keeps its own. Without a party
// nothing is kept. Over HTTP/2, where frames name their request, all share one.
func TestWhoSharesConnections(t *testing.T) {
	t.Parallel()
	for _, framed := range []bool{false, true} {
		srv, conns := counting(t, framed)
		roots := x509.NewCertPool()
		roots.AddCert(srv.Certificate())
		client := newClient(t, outbound.Policy{Allow: []string{srv.Listener.Addr().String()}, Roots: roots})
		do := func(party string) {
			t.Helper()
			req := request(t, "POST", srv.URL+"/x", strings.NewReader("x"))
			resp, err := client.Do(t.Context(), outbound.Bound{Bases: []string{srv.URL}, Party: party}, req, outbound.Limits{})
			if err != nil || (string(resp.Body) == "HTTP/2.0") != framed {
				t.Fatalf("%v, %s", err, resp.Body)
			}
		}
		for range 50 {
			do("a")
			do("b")
			do("c")
		}
		want := int64(3)
		if framed {
			want = 2 // the first taught us
		}
		if n := conns.Load(); n != want {
			t.Errorf("HTTP/2 %v: 150 calls of three parties took %d connections, want %d", framed, n, want)
		}
		before := conns.Load()
		for range 3 {
			do("")
		}
		if n := conns.Load() - before; n != 3 {
			t.Errorf("HTTP/2 %v: 3 calls of nobody took %d connections", framed, n)
		}
	}
}

// A host that stops speaking HTTP/2 is spoken to with what it speaks; the request
// in between is sent once.
func TestHostThatGivesUpHTTP2(t *testing.T) {
	t.Parallel()
	var arrived atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { arrived.Add(1); _, _ = io.WriteString(w, r.Proto) })
	srv := httptest.NewUnstartedServer(handler)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	addr := srv.Listener.Addr().String()
	client := newClient(t, outbound.Policy{Allow: []string{addr}, Roots: roots})
	do := func() string {
		t.Helper()
		req := request(t, "POST", "https://"+addr+"/x", strings.NewReader("x"))
		resp, err := client.Do(t.Context(), outbound.Bound{Bases: []string{"https://" + addr}, Party: "a"}, req, outbound.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		return string(resp.Body)
	}
	if got := do() + " " + do(); got != "HTTP/2.0 HTTP/2.0" {
		t.Fatalf("got %s", got)
	}
	srv.Close()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	older := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler}, TLS: &tls.Config{Certificates: srv.TLS.Certificates}}
	older.StartTLS()
	t.Cleanup(older.Close)
	client.Close()
	before := arrived.Load()
	if got := do() + " " + do(); got != "HTTP/1.1 HTTP/1.1" {
		t.Errorf("got %s", got)
	}
	if n := arrived.Load() - before; n != 2 {
		t.Errorf("2 requests arrived %d times", n)
	}
}

// Parties are bounded: the one that asked least recently loses its connections.
func TestPartiesAreBounded(t *testing.T) {
	t.Parallel()
	srv, conns := counting(t, false)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	client := newClient(t, outbound.Policy{Allow: []string{srv.Listener.Addr().String()}, Roots: roots})
	client.KeepParties(2)
	for _, party := range []string{"a", "b", "a", "c", "a", "b"} { // c drives b out
		req := request(t, "GET", srv.URL+"/x", nil)
		if _, err := client.Do(t.Context(), outbound.Bound{Bases: []string{srv.URL}, Party: party}, req, outbound.Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := conns.Load(); n != 4 {
		t.Errorf("%d connections, want 4", n)
	}
	eventually(t, func() bool { return client.Connections() == 2 })
}

// Parties that have long sent nothing are forgotten as others come, so that a
// server keeps what the accounts in use need, not what all have ever needed.
func TestIdlePartiesAreForgotten(t *testing.T) {
	t.Parallel()
	srv, _ := counting(t, false)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	client := newClient(t, outbound.Policy{Allow: []string{srv.Listener.Addr().String()}, Roots: roots})
	send := func(party string) {
		req := request(t, "GET", srv.URL+"/x", nil)
		if _, err := client.Do(t.Context(), outbound.Bound{Bases: []string{srv.URL}, Party: party}, req, outbound.Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		send(fmt.Sprint("old", i))
	}
	if got := client.Parties(); got != 10 {
		t.Fatalf("%d parties, want 10", got)
	}
	client.Later(time.Hour)
	for i := range 10 {
		send(fmt.Sprint("new", i))
	}
	if got := client.Parties(); got != 10 {
		t.Errorf("%d parties after an hour, want the 10 of now", got)
	}
}

// Connections to upstreams are bounded: at the bound idle ones go first, then
// requests are refused before anything is sent.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			<-release
		}
	})
	var servers []*httptest.Server
	var allow []string
	for range 3 {
		s := httptest.NewServer(handler)
		t.Cleanup(s.Close)
		servers = append(servers, s)
		allow = append(allow, s.Listener.Addr().String())
	}
	client := newClient(t, outbound.Policy{Allow: allow, Connections: 2})
	do := func(s *httptest.Server, path string) error {
		req := request(t, "GET", s.URL+path, nil)
		_, err := client.Do(t.Context(), outbound.Bound{Bases: []string{s.URL}, Party: "a"}, req, outbound.Limits{})
		return err
	}
	for _, s := range servers { // the third takes the place of an idle one
		if err := do(s, "/"); err != nil {
			t.Errorf("idle connections hold the place: %v", err)
		}
	}
	var wg sync.WaitGroup
	for _, s := range servers[:2] {
		wg.Go(func() {
			if err := do(s, "/hold"); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, func() bool { return client.Connections() == 2 && do(servers[2], "/") != nil })
	if err := do(servers[2], "/"); !fault.Is(err, "overloaded") || outbound.Sent(err) || fault.Of(err).RetryAfter <= 0 {
		t.Errorf("over the bound: got %v", err)
	}
	close(release)
	wg.Wait()
	if err := do(servers[2], "/"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("never")
		}
	}
}
