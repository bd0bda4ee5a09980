// Package providertest is a third party that misbehaves, on raw sockets: each
// [Row] is one way in which a provider lies, breaks, stalls or floods, with what
// Ambit must make of it (threats.md F6, U2, O16). Bytes go out as they are
// written here; no HTTP library stands between that would mend them.
package providertest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// AuthHeader is where a record of ours puts the credential.
const AuthHeader = "X-Row-Auth"

// Row is one misbehaviour and what must come of it.
type Row struct {
	Name string // also the path's first segment
	At   Place  // which listener it lives at; default Plain
	// Play answers a request that was read whole, and reports whether the
	// connection goes on. Rows of other listeners than Plain may have none.
	Play func(c *Conn) bool
	// Play2 is Play for HTTP2.
	Play2 func(s *Stream) bool
	Post  bool // it needs a request that writes

	Code    string // the stable code that the agent gets; empty: an answer
	Status  int    // of the answer
	Refused int    // status of an answer that was refused; Code then is upstream_answer_refused
	Outcome string // on record: ok, error or unknown
	Has     string // the answer holds this, or says why it is withheld
	Slow    bool   // it ends by the time limit of calls
	Large   bool   // it moves many megabytes
}

// Place is a listener.
type Place string

// The listeners. All but Plain, TLS and HTTP2 are broken as a whole.
const (
	Plain    Place = ""          // http
	TLS      Place = "tls"       // https, HTTP/1.1
	HTTP2    Place = "h2"        // https, HTTP/2
	Refused  Place = "refused"   // nobody listens
	Mute     Place = "mute"      // accepts and says nothing
	Hangup   Place = "hangup"    // resets at the first byte
	MuteTLS  Place = "mute-tls"  // accepts, says nothing, to a client that wants TLS
	HalfTLS  Place = "half-tls"  // breaks off within the handshake
	NoTLS    Place = "no-tls"    // plain HTTP to a client that wants TLS
	OldTLS   Place = "old-tls"   // TLS 1.1 at most
	WrongTLS Place = "wrong-tls" // a certificate for another name
	PastTLS  Place = "past-tls"  // a certificate that has expired
	OwnTLS   Place = "own-tls"   // a certificate that nobody vouches for
	NoName   Place = "no-name"   // a name that does not exist
)

// Conn is a connection on which a request has arrived.
type Conn struct {
	net.Conn
	Request *http.Request
	Body    []byte
	Auth    string // the credential as it came
	server  *Server
}

// Say writes, and reports whether that was possible.
func (c *Conn) Say(parts ...string) bool {
	_, err := io.WriteString(c.Conn, strings.Join(parts, ""))
	return err == nil
}

// Reset closes the connection with a reset.
func (c *Conn) Reset() {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// Wait gives the other side time, until it leaves or the server stops; it reports
// whether to go on.
func (c *Conn) Wait(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-c.server.stop:
		return false
	}
}

// Server plays all rows.
type Server struct {
	Roots *x509.CertPool // that a client must trust

	at       map[Place]string // addresses
	rows     map[string]Row
	stop     chan struct{}
	wg       sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]bool
	listens  []net.Listener
	seen     map[string]int // requests by row
	lured    int            // connections to where a redirect points
	lureAddr string
}

// New starts the listeners until the end of t.
func New(t testing.TB, rows []Row) *Server {
	t.Helper()
	s := &Server{Roots: x509.NewCertPool(), at: map[Place]string{}, rows: map[string]Row{}, stop: make(chan struct{}), open: map[net.Conn]bool{}, seen: map[string]int{}}
	for _, r := range rows {
		if _, twice := s.rows[r.Name]; twice {
			t.Fatalf("two rows are called %s", r.Name)
		}
		s.rows[r.Name] = r
	}
	now := time.Now()
	good := certificate(t, "localhost", now.Add(-time.Hour), now.Add(time.Hour))
	past := certificate(t, "localhost", now.Add(-2*time.Hour), now.Add(-time.Hour))
	wrong := certificate(t, "elsewhere.example", now.Add(-time.Hour), now.Add(time.Hour))
	for _, c := range []tls.Certificate{good, past, wrong} {
		s.Roots.AddCert(c.Leaf)
	}
	secured := func(c tls.Certificate, change func(*tls.Config)) func(net.Conn) net.Conn {
		cfg := &tls.Config{Certificates: []tls.Certificate{c}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}
		if change != nil {
			change(cfg)
		}
		return func(raw net.Conn) net.Conn { return tls.Server(raw, cfg) }
	}
	bare := func(raw net.Conn) net.Conn { return raw }
	s.listen(t, Plain, bare, s.http1)
	s.listen(t, TLS, secured(good, nil), s.http1)
	s.listen(t, HTTP2, secured(good, func(c *tls.Config) { c.NextProtos = []string{"h2"} }), s.http2)
	s.listen(t, Mute, bare, s.mute)
	s.listen(t, MuteTLS, bare, s.mute)
	s.listen(t, Hangup, bare, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		(&Conn{Conn: c}).Reset()
	})
	s.listen(t, HalfTLS, bare, s.half)
	s.listen(t, NoTLS, bare, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 512))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
	})
	s.listen(t, OldTLS, secured(good, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }), s.http1)
	s.listen(t, WrongTLS, secured(wrong, nil), s.http1)
	s.listen(t, PastTLS, secured(past, nil), s.http1)
	s.listen(t, OwnTLS, secured(certificate(t, "localhost", now.Add(-time.Hour), now.Add(time.Hour)), nil), s.http1)
	s.listen(t, "lure", bare, func(net.Conn) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lured++
	})
	s.lureAddr = s.at["lure"]
	s.at[NoName] = "no-such-name.invalid:443"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.at[Refused] = l.Addr().String()
	_ = l.Close()
	t.Cleanup(s.close)
	return s
}

func (s *Server) listen(t testing.TB, at Place, wrap func(net.Conn) net.Conn, serve func(net.Conn)) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.at[at] = l.Addr().String()
	s.listens = append(s.listens, l)
	s.wg.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.open[raw] = true
			s.mu.Unlock()
			s.wg.Go(func() {
				defer func() {
					_ = raw.Close()
					s.mu.Lock()
					delete(s.open, raw)
					s.mu.Unlock()
				}()
				serve(wrap(raw))
			})
		}
	})
}

func (s *Server) close() {
	close(s.stop)
	for _, l := range s.listens {
		_ = l.Close()
	}
	s.mu.Lock()
	for c := range s.open {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// URL is the base of a listener, with the scheme that a record must name.
func (s *Server) URL(at Place) string {
	addr, scheme := s.at[at], "http"
	switch at {
	case Plain, Refused, Mute, Hangup:
	default:
		scheme = "https"
	}
	if _, port, _ := net.SplitHostPort(addr); strings.HasPrefix(addr, "127.0.0.1:") {
		addr = "localhost:" + port
	}
	return scheme + "://" + addr
}

// Allow lists what an outbound policy must let through.
func (s *Server) Allow() []string {
	var out []string
	for at := range s.at {
		out = append(out, strings.SplitN(s.URL(at), "://", 2)[1])
	}
	return out
}

// Lured is how many connections came to where redirects point.
func (s *Server) Lured() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lured
}

// Seen is how many requests for a row arrived.
func (s *Server) Seen(row string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[row]
}

// Good is the path at which every working listener answers well.
const Good = "/good"

const goodBody = `{"good":true}`

func (s *Server) row(path string) (Row, bool) {
	name, err := url.PathUnescape(strings.TrimPrefix(path, "/"))
	if err != nil {
		return Row{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[name]++
	r, ok := s.rows[name]
	return r, ok
}

// http1 reads requests and plays their rows.
func (s *Server) http1(raw net.Conn) {
	in := bufio.NewReader(raw)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		c := &Conn{Conn: raw, Request: r, Auth: r.Header.Get(AuthHeader), server: s}
		if c.Body, err = io.ReadAll(r.Body); err != nil {
			return
		}
		row, ok := s.row(r.URL.EscapedPath())
		if !ok || row.Play == nil {
			if !c.Say("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ", fmt.Sprint(len(goodBody)), "\r\n\r\n", goodBody) {
				return
			}
			continue
		}
		if !row.Play(c) {
			return
		}
	}
}

func (s *Server) mute(c net.Conn) {
	_, _ = io.Copy(io.Discard, c)
}

// half answers a TLS hello with the beginning of a record.
func (s *Server) half(c net.Conn) {
	_, _ = c.Read(make([]byte, 512))
	_, _ = c.Write([]byte{0x16, 0x03, 0x03, 0x00, 0x7a, 0x02, 0x00})
}

func certificate(t testing.TB, name string, from, until time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	serial, serr := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err = errors.Join(err, serr); err != nil {
		t.Fatal(err)
	}
	doc := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: from, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, doc, doc, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
