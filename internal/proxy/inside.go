package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
)

// inside ends the TLS of a tunnel and serves what comes in it, until the client
// closes it, the session is over, or the server stops.
func (s *Server) inside(held context.Context, conn net.Conn, by caller, env id.Environment, to place) {
	l := &single{addr: conn.LocalAddr(), over: make(chan struct{})}
	whole := &ending{Conn: conn, end: sync.OnceFunc(func() { close(l.over) })}
	conn = whole
	defer whole.Close()
	t := &tunnel{server: s, by: by, to: to}
	srv := s.server(t)
	var watch sync.WaitGroup
	defer watch.Wait()
	watch.Go(func() {
		defer whole.Close()
		select {
		case <-held.Done():
			return
		case <-l.over:
			return
		case <-s.kill:
			return
		case <-s.stop:
		}
		ended := make(chan struct{})
		watch.Go(func() {
			defer close(ended)
			_ = srv.Shutdown(held)
		})
		select {
		case <-ended:
		case <-l.over:
		case <-s.kill: // closing the connection ends what Shutdown waits for
		}
	})
	if to.scheme == "https" {
		secured, err := s.handshake(held, conn, env, to.host)
		if err != nil {
			s.log.Debug("a client of the proxy made no TLS connection", "host", to.host, "error", err)
			return
		}
		conn = secured
	}
	l.conn = conn
	_ = srv.Serve(l) // until the connection is closed
	_ = srv.Close()
	t.running.Wait()
}

// handshake ends the client's TLS with a certificate for host. The name that the
// client asks for (SNI, RFC 6066 §3) must be the one that its CONNECT named.
func (s *Server) handshake(ctx context.Context, conn net.Conn, env id.Environment, host string) (net.Conn, error) {
	_, notName := netip.ParseAddr(host)
	secured := tls.Server(conn, &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if asked, _ := plainHost(hello.ServerName); asked != host && (notName != nil || hello.ServerName != "") {
				return nil, errOtherName
			}
			return s.authority.Leaf(hello.Context(), env, host)
		}})
	ctx, cancel := context.WithTimeout(ctx, headTime)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secured, nil
}

const codeMisdirected = "misdirected_request"

var errOtherName = errors.New("the name in the TLS handshake is not the one of the CONNECT")

// single is a listener of one connection, which is taken as it is: the server looks
// for the protocol that TLS agreed on. It ends when the connection does.
type single struct {
	conn net.Conn // until it was taken
	addr net.Addr
	over chan struct{} // closed with the connection
}

func (l *single) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.over
	return nil, io.EOF
}

func (l *single) Close() error   { return nil }
func (l *single) Addr() net.Addr { return l.addr }

// ending is a connection that says when it was closed.
type ending struct {
	net.Conn
	end func()
}

func (e *ending) Close() error {
	e.end()
	return e.Conn.Close()
}

// tunnel serves the requests of one connection. Whose they are and where they go
// was settled when it was opened; whether they may be made is asked for each.
type tunnel struct {
	server  *Server
	by      caller
	to      place
	running sync.WaitGroup
}

func (t *tunnel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t.running.Add(1)
	defer t.running.Done()
	s := t.server
	if r.Method == http.MethodConnect || r.URL.IsAbs() || r.URL.Host != "" && r.ProtoMajor == 1 || !agrees(r.Host, t.to.host, t.to.port, t.to.scheme) {
		s.refuse(w, r, fault.New(fault.Invalid, codeMisdirected, "The request names another host than the connection that it came on."))
		return
	}
	who, err := s.agents.Authenticate(r.Context(), t.by.token)
	if err != nil {
		s.refuse(w, r, fault.New(fault.Denied, "invalid_token", "The token of this connection no longer counts.").WithHint("The session is over, or the agent was disabled. Stop, and ask the person.").WithCause(err))
		return
	}
	s.call(w, r, t.by, who, t.to)
}
