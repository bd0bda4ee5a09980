package app

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/api"
	"github.com/ambit-dev/ambit/internal/authserver"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/mcpserver"
	"github.com/ambit-dev/ambit/internal/relay"
	"github.com/ambit-dev/ambit/internal/throttle"
	"github.com/ambit-dev/ambit/internal/workos"
)

// server sets the limits that hold for every door (threats.md W5).
func (a *App) server(h http.Handler) (*http.Server, error) {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, WriteByteTimeout: throttle.WriteTime},
		ErrorLog:          nil, // set below: the default would print client addresses without structure
	}
	srv.ErrorLog = newErrorLog(a.log)
	return srv, nil
}

// listen opens the address. localhost means both loopback addresses, since
// browsers and clients differ in which one they try first.
func listen(addr string) ([]net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("reading the address to listen on: %w", err)
	}
	hosts := []string{host}
	if host == "localhost" {
		hosts = []string{"127.0.0.1", "::1"}
	}
	for range 20 { // a port that is free on one loopback address may be taken on the other
		var out []net.Listener
		use := port
		for _, h := range hosts {
			l, err := net.Listen("tcp", net.JoinHostPort(h, use))
			switch {
			case err == nil:
				out = append(out, l)
				_, use, _ = net.SplitHostPort(l.Addr().String())
			case h == "::1" && len(out) > 0 && !errors.Is(err, errAddrInUse):
				return out, nil // a machine without IPv6
			case port == "0" && len(out) > 0:
			default:
				closeAll(out)
				return nil, cannotListen(net.JoinHostPort(h, use), err)
			}
		}
		if len(out) == len(hosts) {
			return out, nil
		}
		closeAll(out)
	}
	return nil, fault.New(fault.Unavailable, "listen_failed", "No port is free on both loopback addresses.")
}

func cannotListen(address string, err error) error {
	f := fault.New(fault.Unavailable, "listen_failed", "Cannot listen on "+address+".")
	switch {
	case errors.Is(err, errAddrInUse):
		f = f.WithHint("Another program listens there, perhaps another server. Choose another port with --listen or AMBIT_LISTEN.")
	case errors.Is(err, fs.ErrPermission):
		f = f.WithHint("Ports below 1024 are not for every user. Choose another with --listen or AMBIT_LISTEN, or give the program the right: setcap cap_net_bind_service=+ep FILE")
	default:
		f = f.WithHint("This machine has no such address. Name one of its own with --listen or AMBIT_LISTEN; localhost is for this machine alone.")
	}
	return f.WithCause(err)
}

// atProxy says of an address that cannot be listened on that it is the proxy's.
func atProxy(err error) error {
	f := fault.Of(err)
	return f.WithHint(strings.NewReplacer("--listen", "--proxy-listen", "AMBIT_LISTEN", "AMBIT_PROXY_LISTEN").Replace(f.Hint) + " off runs no proxy.")
}

func closeAll(list []net.Listener) {
	for _, l := range list {
		_ = l.Close()
	}
}

// secure wraps a listener in TLS if certificates are configured.
func (a *App) secure(l net.Listener) net.Listener {
	if a.cfg.TLSCert == "" {
		return l
	}
	return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: a.certs.get})
}

// secureProxy is secure for the forward proxy, whose clients speak HTTP/1.1 to it.
func (a *App) secureProxy(l net.Listener) net.Listener {
	if a.cfg.TLSCert == "" {
		return l
	}
	return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: a.certs.get})
}

// certificates reads the files again when they change.
type certificates struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	stamp   time.Time
	checked time.Time
}

func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil && time.Since(c.checked) < 5*time.Second {
		return c.current, nil
	}
	c.checked = time.Now()
	info, err := os.Stat(c.cert)
	if err == nil && (c.current == nil || !info.ModTime().Equal(c.stamp)) {
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(c.cert, c.key); err == nil {
			c.current, c.stamp = &pair, info.ModTime()
		}
	}
	if c.current == nil {
		return nil, fault.New(fault.Invalid, "certificate_unusable", "The TLS certificate or its key cannot be used.").
			WithHint("Check the files that AMBIT_TLS_CERT and AMBIT_TLS_KEY name: " + err.Error())
	}
	if err != nil {
		c.log.Error("the TLS certificate cannot be read again; the one before stays in use", "error", err)
	}
	return c.current, nil // a broken new pair leaves the old one in use
}

// edge is in front of every door: a request id, the one Host, and no panic that
// takes anything else with it.
func (a *App) edge(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := requestID()
		line := throttle.Pace(w, throttle.WriteTime)
		defer line.Over()
		w = line
		w.Header().Set("X-Request-ID", id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if a.public.Scheme == "https" {
			w.Header().Set("Strict-Transport-Security", "max-age=31536000")
		}
		body := boundBody(line, r) // first: of what is refused the server still reads some
		// Probes come by address and learn nothing without a token; everything else must use
		// the one name, or a page elsewhere could rebind its own (S10).
		probe := r.URL.Path == "/healthz" || r.URL.Path == "/readyz" || r.URL.Path == "/metrics"
		if !probe && !strings.EqualFold(r.Host, a.public.Host) {
			turnAway(w, r, http.StatusMisdirectedRequest, fault.New(fault.Invalid, "misdirected_request", "This server is "+a.public.Host+".").
				WithHint("Use exactly "+a.public.String()+". A proxy in front must pass the Host header on."))
			return
		}
		if a.health.draining.Load() {
			w.Header().Set("Connection", "close") // so that the next request goes to another node
		}
		if !a.requests.begin() {
			turnAway(w, r, http.StatusServiceUnavailable, fault.New(fault.Unavailable, "server_stopping", "This server stops.").WithHint(tryAgain).WithRetry(time.Second))
			return
		}
		defer a.requests.end()
		client := a.client(r)
		var mine *place
		if !probe {
			var ok bool
			if mine, ok = a.load.enter(r, client); !ok {
				turnAway(w, r, http.StatusServiceUnavailable, fault.New(fault.Unavailable, "overloaded", overloaded).WithHint(tryAgain).WithRetry(time.Second))
				return
			}
			defer mine.over()
			body.counts(mine)
		}
		if encoded(r) && door(r.URL.Path) != "relay" { // whose bodies are the provider's to read
			turnAway(w, r, http.StatusUnsupportedMediaType, fault.New(fault.Invalid, "unsupported_media_type", "Content-Encoding is not taken.").WithHint("Send the body as it is."))
			return
		}
		// From here on the peer is the client, for whoever asks.
		r.RemoteAddr = net.JoinHostPort(client, "0")
		for name := range r.Header {
			if strings.Contains(name, "_") { // proxies and frameworks disagree on these (W4)
				r.Header.Del(name)
			}
		}
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler { //nolint:errorlint // the documented sentinel
					panic(p)
				}
				a.log.Error("a request failed", "request_id", id, "method", r.Method, "panic", fmt.Sprintf("%T", p))
				turnAway(w, r, http.StatusInternalServerError, fault.New(fault.Internal, "internal", "Something went wrong on our side.").WithHint("Request id: "+id))
			}
		}()
		next.ServeHTTP(&counted{Paced: line, place: mine}, r)
	})
}

// turnAway answers for the door that r would have gone to, in the form in which
// that door refuses: a client that parses what it gets should not meet plain text.
// Pages get text.
func turnAway(w http.ResponseWriter, r *http.Request, status int, f *fault.Error) {
	switch door(r.URL.Path) {
	case "mcp":
		mcpserver.Refuse(w, status, f)
	case "v1":
		api.Refuse(w, status, f)
	case "vault":
		workos.Refuse(w, status, f)
	case "pipes":
		workos.RefusePipes(w, status, f)
	case "relay":
		relay.Refuse(w, f)
	case "oauth", "discovery":
		authserver.Refuse(w, status, f)
	default:
		if f.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
		}
		http.Error(w, f.Message+" "+f.Hint+" ("+f.Code+")", status)
	}
}

func requestID() string {
	var b [9]byte
	_, _ = rand.Read(b[:])
	return "req_" + hex.EncodeToString(b[:])
}

// How long a request's body may take to arrive. What ends access is small and has
// few places, so that nobody may hold one for long.
const (
	bodyTime   = 30 * time.Second
	urgentTime = 2 * time.Second
	urgentBody = 16 << 10
)

// boundBody gives the body a deadline that ends with it. A deadline of the whole
// server would also cut answers that take long on purpose, such as event streams.
// The result is nil when there is no body.
func boundBody(line *throttle.Paced, r *http.Request) *timedBody {
	if r.ContentLength == 0 {
		return nil
	}
	limit := bodyTime
	if urgent(r) {
		limit = urgentTime
		r.Body = http.MaxBytesReader(line.ResponseWriter, r.Body, urgentBody) // the server's own, which closes the connection then
	}
	b := &timedBody{ReadCloser: r.Body, line: line}
	if line.SetReadDeadline(time.Now().Add(limit)) != nil {
		return nil
	}
	r.Body = b
	return b
}

// timedBody is a body with a deadline, which waits for its client in the lobby.
type timedBody struct {
	io.ReadCloser
	line  *throttle.Paced
	place *place // nil: not counted
	done  func() // nil before the first read
}

func (b *timedBody) counts(p *place) {
	if b != nil {
		b.place = p
	}
}

func (b *timedBody) Read(p []byte) (int, error) {
	if b.place != nil && b.done == nil {
		b.done = b.place.waits(func() { _ = b.line.SetReadDeadline(time.Unix(1, 0)) })
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil && b.done != nil {
		b.done()
	}
	if err == io.EOF { //nolint:errorlint // the documented form
		_ = b.line.SetReadDeadline(time.Time{})
	}
	return n, err
}

// address is the client's, as the edge found it.
func (a *App) address(r *http.Request) string {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return host
}

// client is the peer, or what a trusted proxy says it is.
func (a *App) client(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	addr := peer.Addr().Unmap()
	if !a.trusted(addr) {
		return addr.String()
	}
	// The rightmost address that is not one of ours: what is left of it was
	// written by somebody we do not know.
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		if addr = hop.Unmap(); !a.trusted(addr) {
			break
		}
	}
	return addr.String()
}

func (a *App) trusted(addr netip.Addr) bool {
	for _, p := range a.cfg.TrustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
