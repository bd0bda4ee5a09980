package outbound_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
)

const canary = "canary-5b1d0f77c2"

// upstream is a TLS server on loopback, with a client that may reach it.
type upstream struct {
	*httptest.Server
	client *outbound.Client
	bound  outbound.Bound
}

func newUpstream(t *testing.T, h http.HandlerFunc, http2 bool) *upstream {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.EnableHTTP2 = http2
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	return &upstream{Server: srv, client: newClient(t, outbound.Policy{Allow: []string{srv.Listener.Addr().String()}, Roots: roots}),
		bound: outbound.Bound{Bases: []string{srv.URL}, Party: "test"}}
}

func newClient(t *testing.T, p outbound.Policy) *outbound.Client {
	t.Helper()
	c, err := outbound.New(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+canary)
	req.Header.Set("X-Api-Key", canary)
	return req
}

func (u *upstream) do(t *testing.T, method, path string, lim outbound.Limits) (*outbound.Response, error) {
	t.Helper()
	var body io.Reader
	if method == "POST" {
		body = strings.NewReader(`{"a":1}`)
	}
	return u.client.Do(t.Context(), u.bound, request(t, method, u.URL+path+"?token="+canary, body), lim)
}

// wantFault also checks that nothing secret is in the error's text.
func wantFault(t *testing.T, err error, code string, sent bool) {
	t.Helper()
	if err == nil {
		t.Fatalf("got no error, want %s", code)
	}
	if got := fault.Of(err).Code; got != code {
		t.Errorf("got code %q (%v), want %q", got, err, code)
	}
	if got := outbound.Sent(err); got != sent {
		t.Errorf("got Sent=%v for %v, want %v", got, err, sent)
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		if strings.Contains(fmt.Sprintf("%v %+v", e, e), canary) {
			t.Errorf("the error quotes the request: %v", e)
		}
	}
}

func TestAnswerComesBackWhole(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		u := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			if r.Header.Get("Authorization") != "Bearer "+canary || r.URL.Query().Get("token") != canary || r.Header.Get("Accept-Encoding") != "gzip" {
				w.WriteHeader(http.StatusTeapot)
			}
			w.Header().Set("X-Proto", r.Proto)
			w.Header().Set("Content-Encoding", "gzip")
			zw := gzip.NewWriter(w)
			fmt.Fprintf(zw, "%s %s", r.Method, b)
			_ = zw.Close()
		}, http2)
		resp, err := u.do(t, "POST", "/x", outbound.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(resp.Body), `POST {"a":1}`; resp.Status != 200 || got != want || !resp.Sent {
			t.Errorf("got %d %q sent=%v, want 200 %q sent=true", resp.Status, got, resp.Sent, want)
		}
		if resp.Header.Get("Content-Encoding") != "" || resp.Header.Get("Content-Length") != "" {
			t.Error("headers still describe the encoded body")
		}
		if got, want := resp.Header.Get("X-Proto"), map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[http2]; got != want {
			t.Errorf("got protocol %s, want %s", got, want)
		}
	}
}

// O10: a redirect is an answer; no credential and no request reaches its target.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	var reached atomic.Int64
	second := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(second.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		u := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", second.URL+"/steal")
			w.WriteHeader(status)
		}, false)
		for _, method := range []string{"GET", "POST"} {
			resp, err := u.do(t, method, "/", outbound.Limits{})
			if err != nil || resp.Status != status || resp.Header.Get("Location") != second.URL+"/steal" {
				t.Errorf("%s %d: got %+v, %v; want the redirect itself", method, status, resp, err)
			}
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the redirect's target was reached %d times, want 0", n)
	}
}

// U2: no answer costs more than its limit.
func TestLimitsOnAnswers(t *testing.T) {
	t.Parallel()
	bomb := func() []byte {
		var b bytes.Buffer
		zw := gzip.NewWriter(&b)
		zeros := make([]byte, 1<<20)
		for range 64 {
			_, _ = zw.Write(zeros)
		}
		_ = zw.Close()
		return b.Bytes()
	}()
	released := make(chan struct{})
	t.Cleanup(func() { close(released) })
	handler := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the server notices a lost client only after the body
		switch r.URL.Path {
		case "/bomb":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb)
		case "/gigabyte", "/gigabyte-claimed":
			if r.URL.Path == "/gigabyte-claimed" {
				w.Header().Set("Content-Length", fmt.Sprint(1<<30))
			}
			chunk := make([]byte, 1<<20)
			for range 1 << 10 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		case "/slow":
			w.WriteHeader(200)
			for {
				select {
				case <-released:
					return
				case <-r.Context().Done():
					return
				case <-time.After(20 * time.Millisecond):
					_, _ = w.Write([]byte("."))
					_ = http.NewResponseController(w).Flush()
				}
			}
		case "/silent":
			select {
			case <-released:
			case <-r.Context().Done():
			}
		case "/headers-wide":
			for i := range 14 {
				w.Header().Set(fmt.Sprintf("X-Wide-%d", i), strings.Repeat("w", 5<<10))
			}
		case "/header-huge":
			w.Header().Set("X-Huge", strings.Repeat("w", 1<<20))
		case "/headers-many":
			for i := range 150 {
				w.Header().Set(fmt.Sprintf("X-Many-%d", i), "m")
			}
		case "/truncated":
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte(canary))
		case "/gzip-truncated":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb[:len(bomb)/1000])
		case "/gzip-lie":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte("this is not gzip, " + canary))
		case "/nested":
			w.Header().Set("Content-Encoding", "gzip, gzip")
			_, _ = w.Write(bomb)
		case "/brotli":
			w.Header().Set("Content-Encoding", "br")
			_, _ = w.Write([]byte("x"))
		case "/cut":
			panic(http.ErrAbortHandler)
		}
	}
	for _, http2 := range []bool{false, true} {
		u := newUpstream(t, handler, http2)
		for _, c := range []struct {
			path, code string
			lim        outbound.Limits
		}{
			{"/bomb", "upstream_too_large", outbound.Limits{Body: 1 << 30}},
			{"/bomb", "upstream_too_large", outbound.Limits{Body: 1 << 10}},
			{"/gigabyte", "upstream_too_large", outbound.Limits{}},
			{"/gigabyte-claimed", "upstream_too_large", outbound.Limits{}},
			{"/slow", "upstream_timeout", outbound.Limits{Timeout: 200 * time.Millisecond}},
			{"/silent", "upstream_timeout", outbound.Limits{Timeout: 200 * time.Millisecond}},
			{"/headers-wide", "upstream_too_large", outbound.Limits{}},
			{"/header-huge", map[bool]string{false: "upstream_too_large", true: "upstream_broken"}[http2], outbound.Limits{}},
			{"/headers-many", "upstream_too_large", outbound.Limits{}},
			{"/truncated", "upstream_broken", outbound.Limits{}},
			{"/gzip-truncated", "upstream_broken", outbound.Limits{}},
			{"/gzip-lie", "upstream_broken", outbound.Limits{}},
			{"/nested", "upstream_broken", outbound.Limits{}},
			{"/brotli", "upstream_broken", outbound.Limits{}},
			{"/cut", "upstream_broken", outbound.Limits{}},
		} {
			t.Run(fmt.Sprintf("http2=%v%s", http2, c.path), func(t *testing.T) {
				start := time.Now()
				_, err := u.do(t, "POST", c.path, c.lim)
				wantFault(t, err, c.code, true)
				if fault.KindOf(err) != fault.Unavailable {
					t.Errorf("got kind %v, want unavailable", fault.KindOf(err))
				}
				if d := time.Since(start); d > 30*time.Second {
					t.Errorf("took %v", d)
				}
			})
		}
	}
}

func TestBodyOfExactlyTheLimitPasses(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		out := io.Writer(w)
		if r.URL.Path == "/gzip" {
			w.Header().Set("Content-Encoding", "gzip")
			zw := gzip.NewWriter(w)
			defer func() { _ = zw.Close() }()
			out = zw
		}
		_, _ = out.Write(make([]byte, 1000))
	}, false)
	for _, path := range []string{"/plain", "/gzip"} {
		if resp, err := u.do(t, "GET", path, outbound.Limits{Body: 1000}); err != nil || len(resp.Body) != 1000 {
			t.Errorf("%s: got %v, want 1000 bytes", path, err)
		}
		_, err := u.do(t, "GET", path, outbound.Limits{Body: 999})
		wantFault(t, err, "upstream_too_large", true)
	}
	if resp, err := u.do(t, "HEAD", "/gzip", outbound.Limits{Body: 10}); err != nil || len(resp.Body) != 0 {
		t.Errorf("HEAD: got %v, want an empty body", err)
	}
}

// rawServer answers each connection with what fn writes.
func rawServer(t *testing.T, fn func(net.Conn)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer func() { _ = conn.Close() }(); fn(conn) }()
		}
	}()
	return ln.Addr().String()
}

// The caller tells from Sent whether a failed write may be tried again.
func TestSentClassification(t *testing.T) {
	t.Parallel()
	reply := func(text string) func(net.Conn) {
		return func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = conn.Write([]byte(text))
		}
	}
	closed := func() string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ln.Close() }()
		return ln.Addr().String()
	}()
	for name, c := range map[string]struct {
		addr, scheme, code string
		sent               bool
	}{
		"refused":           {closed, "http", "upstream_unreachable", false},
		"not tls":           {rawServer(t, reply("HTTP/1.1 200 OK\r\n\r\n")), "https", "upstream_unreachable", false},
		"hangs up in tls":   {rawServer(t, reply("")), "https", "upstream_unreachable", false},
		"hangs up":          {rawServer(t, reply("")), "http", "upstream_broken", true},
		"garbage":           {rawServer(t, reply(canary+" Bearer "+canary+"\r\n\r\n")), "http", "upstream_broken", true},
		"echo in a header":  {rawServer(t, reply("HTTP/1.1 200 OK\r\nAuthorization Bearer "+canary+"\r\n\r\n")), "http", "upstream_broken", true},
		"protocol switch":   {rawServer(t, reply("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")), "http", "upstream_broken", true},
		"two lengths":       {rawServer(t, reply("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")), "http", "upstream_broken", true},
		"broken chunk size": {rawServer(t, reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+canary+"\r\n")), "http", "upstream_broken", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := newClient(t, outbound.Policy{Allow: []string{c.addr}})
			base := c.scheme + "://" + c.addr
			_, err := client.Do(t.Context(), outbound.Bound{Bases: []string{base}},
				request(t, "POST", base+"/?token="+canary, strings.NewReader(canary)), outbound.Limits{})
			wantFault(t, err, c.code, c.sent)
		})
	}
	if outbound.Sent(nil) || outbound.Sent(io.EOF) {
		t.Error("an error of other origin counts as sent")
	}
}

// A cancelled call ends at once and says that its outcome is open.
func TestCancelMidCall(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	u := newUpstream(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	}, true)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	_, err := u.client.Do(ctx, u.bound, request(t, "GET", u.URL, nil), outbound.Limits{})
	wantFault(t, err, "upstream_cancelled", true)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it to wrap context.Canceled", err)
	}
}

// A pooled connection that the upstream closed meanwhile is replaced without
// the caller noticing, also for a POST, since nothing was written on it.
func TestStaleConnection(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(http.ResponseWriter, *http.Request) {}, false)
	for range 5 {
		if _, err := u.do(t, "POST", "/", outbound.Limits{}); err != nil {
			t.Fatal(err)
		}
		u.CloseClientConnections()
		time.Sleep(10 * time.Millisecond)
	}
}

// S15: nothing below TLS 1.2, no certificate of another name or issuer.
func TestTLS(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(http.ResponseWriter, *http.Request) {}, false)
	addr := u.Listener.Addr().String()
	stranger := newClient(t, outbound.Policy{Allow: []string{addr}})
	_, err := stranger.Do(t.Context(), u.bound, request(t, "POST", u.URL, nil), outbound.Limits{})
	wantFault(t, err, "upstream_unreachable", false)

	old := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	old.Config.ErrorLog = log.New(io.Discard, "", 0)
	old.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	old.StartTLS()
	t.Cleanup(old.Close)
	roots := x509.NewCertPool()
	roots.AddCert(old.Certificate())
	c := newClient(t, outbound.Policy{Allow: []string{old.Listener.Addr().String()}, Roots: roots})
	_, err = c.Do(t.Context(), outbound.Bound{Bases: []string{old.URL}, Party: "test"}, request(t, "POST", old.URL, nil), outbound.Limits{})
	wantFault(t, err, "upstream_unreachable", false)
}

// U3: what a caller puts into a request stays in its place.
func TestRequestIsJudgedBeforeItLeaves(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	var seen atomic.Pointer[http.Header]
	u := newUpstream(t, func(_ http.ResponseWriter, r *http.Request) { calls.Add(1); h := r.Header.Clone(); seen.Store(&h) }, false)
	base := outbound.Bound{Bases: []string{u.URL + "/api"}, Party: "test"}
	for name, c := range map[string]struct {
		code   string
		change func(*http.Request)
	}{
		"header value with line break": {"request_invalid", func(r *http.Request) { r.Header["X-A"] = []string{"a\r\nX-B: " + canary} }},
		"header value with NUL":        {"request_invalid", func(r *http.Request) { r.Header["X-A"] = []string{"a\x00"} }},
		"header name with colon":       {"request_invalid", func(r *http.Request) { r.Header["X-A: b"] = []string{"c"} }},
		"other host header":            {"destination_denied", func(r *http.Request) { r.Host = "evil.example" }},
		"userinfo":                     {"url_invalid", func(r *http.Request) { r.URL, _ = r.URL.Parse("https://u:" + canary + "@" + r.URL.Host + "/api") }},
		"opaque":                       {"url_invalid", func(r *http.Request) { r.URL.Opaque = "//evil.example/api" }},
		"path outside":                 {"destination_denied", func(r *http.Request) { r.URL.Path = "/apix" }},
		"path climbs":                  {"url_invalid", func(r *http.Request) { r.URL.Path = "/api/../admin" }},
		"raw path climbs":              {"url_invalid", func(r *http.Request) { r.URL.Path = "/api/../admin"; r.URL.RawPath = "/api/%2e%2e/admin" }},
		"query with blank":             {"url_invalid", func(r *http.Request) { r.URL.RawQuery = "a= HTTP/1.1" }},
		"query with fragment":          {"url_invalid", func(r *http.Request) { r.URL.RawQuery = "a#b" }},
		"plain http elsewhere":         {"destination_denied", func(r *http.Request) { r.URL.Scheme = "http"; r.URL.Host = "api.example.com" }},
		"connect":                      {"request_invalid", func(r *http.Request) { r.Method = "CONNECT" }},
		"trace":                        {"request_invalid", func(r *http.Request) { r.Method = "TRACE" }},
		"no URL":                       {"url_invalid", func(r *http.Request) { r.URL = nil }},
	} {
		req := request(t, "POST", u.URL+"/api/x", strings.NewReader("b"))
		c.change(req)
		_, err := u.client.Do(t.Context(), base, req, outbound.Limits{})
		t.Run(name, func(t *testing.T) { wantFault(t, err, c.code, false) })
	}
	_, err := u.client.Do(t.Context(), outbound.Bound{}, request(t, "GET", u.URL, nil), outbound.Limits{})
	wantFault(t, err, "destination_denied", false)
	if n := calls.Load(); n != 0 {
		t.Fatalf("%d refused requests left, want 0", n)
	}

	req := request(t, "GET", u.URL+"/api/x", nil)
	for _, name := range []string{"Connection", "Upgrade", "Proxy-Authorization", "Te", "Expect"} {
		req.Header.Set(name, "x")
	}
	if _, err := u.client.Do(t.Context(), base, req, outbound.Limits{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Connection", "Upgrade", "Proxy-Authorization", "Te", "Expect"} {
		if got := seen.Load().Get(name); got != "" {
			t.Errorf("hop-by-hop header %s reached the upstream as %q", name, got)
		}
	}
}

// The environment's proxy would see every plain request and every host.
func TestNoProxyFromTheEnvironment(t *testing.T) {
	var proxied atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { proxied.Add(1) }))
	t.Cleanup(proxy.Close)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"} {
		t.Setenv(name, proxy.URL)
	}
	c := newClient(t, outbound.Policy{Allow: []string{"proxied.test:80"}})
	c.SetResolver(&net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no DNS") }})
	_, err := c.Do(t.Context(), outbound.Bound{Bases: []string{"http://proxied.test"}}, request(t, "GET", "http://proxied.test/", nil), outbound.Limits{})
	wantFault(t, err, "upstream_unreachable", false)
	if n := proxied.Load(); n != 0 {
		t.Errorf("%d requests went to the proxy, want 0", n)
	}
}

func BenchmarkDo(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"ok":true}`)) }))
	defer srv.Close()
	c, err := outbound.New(outbound.Policy{Allow: []string{srv.Listener.Addr().String()}})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	bound := outbound.Bound{Bases: []string{srv.URL}, Party: "test"}
	b.ReportAllocs()
	for b.Loop() {
		req, _ := http.NewRequest("GET", srv.URL+"/x", nil)
		if _, err := c.Do(b.Context(), bound, req, outbound.Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
