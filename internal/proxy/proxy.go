// Package proxy is the door for agents that speak to the real hosts of providers:
// a forward proxy (RFC 9110 §7.3.2). A program that is pointed at it by HTTP_PROXY
// and HTTPS_PROXY needs no change; what it sends as its key is a placeholder.
//
// The caller proves who it is with each connection's Proxy-Authorization: a token
// bound to a session as password of Basic or as Bearer, or an agent's own token
// with a session handle as user name. CONNECT to a host of an account that the
// session was granted ends its TLS here, under the environment's own authority
// (package authority), and each request inside is a call of the gateway: the door
// decides nothing, and remembers nothing that the next request could rest on. A
// tunnel to any other host is refused, or passes unread, as the operator said.
//
//	agent ──CONNECT──▶ front: who asks?           (agent)
//	                    └▶ gateway.Tunnel         may this be open?
//	                        └▶ TLS, HTTP/1.1 or HTTP/2
//	                            └▶ gateway        each request, stream, socket
//
// A tunnel ends with its session: what is revoked is cut with everything in it.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/authority"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/throttle"
)

// The limits of this door (threats.md W5).
const (
	maxConns      = 6144 // open to clients
	maxTunnels    = 4096
	maxOfSession  = 256 // of them
	maxStreams    = 250 // at once in one HTTP/2 tunnel
	maxHeader     = 64 << 10
	headTime      = 10 * time.Second // for a head, and for a handshake
	idleTime      = 2 * time.Minute  // of a connection in which no request runs
	idleElsewhere = 15 * time.Minute // of a tunnel that is not read
)

// Config is what a Server needs. All but Logger are required.
type Config struct {
	People    *account.Service
	Agents    *agent.Service
	Sessions  *session.Service
	Gateway   *gateway.Gateway
	Authority *authority.Service
	// URL is where agents reach the proxy, such as http://localhost:7421.
	URL    string
	Logger *slog.Logger
}

// Server is the door. Serve it, then Shutdown and Close it.
type Server struct {
	people    *account.Service
	agents    *agent.Service
	sessions  *session.Service
	gateway   *gateway.Gateway
	authority *authority.Service
	url       string
	log       *slog.Logger
	writeTime time.Duration    // for a client to take what is written
	tunnels   *throttle.Shares // by session
	http      *http.Server

	mu       sync.Mutex
	stopping bool
	open     sync.WaitGroup // tunnels
	stop     chan struct{}  // closed when nothing new may begin
	kill     chan struct{}  // closed when everything must end
	conns    chan struct{}  // places
}

// New makes a Server.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{people: cfg.People, agents: cfg.Agents, sessions: cfg.Sessions, gateway: cfg.Gateway, authority: cfg.Authority, url: cfg.URL, log: cfg.Logger, writeTime: throttle.WriteTime,
		tunnels: throttle.NewShares(maxTunnels, maxOfSession), stop: make(chan struct{}), kill: make(chan struct{}), conns: make(chan struct{}, maxConns)}
	s.http = s.server(http.HandlerFunc(s.front))
	s.http.Protocols = new(http.Protocols)
	s.http.Protocols.SetHTTP1(true)
	return s
}

// server is an http.Server with the limits of this door.
func (s *Server) server(h http.Handler) *http.Server {
	return &http.Server{Handler: s.paced(h), ReadHeaderTimeout: headTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams, WriteByteTimeout: s.writeTime}, DisableGeneralOptionsHandler: true,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
}

// paced lets no client keep an answer waiting. In a tunnel the limits are its own.
func (s *Server) paced(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			line := throttle.Pace(w, s.writeTime)
			defer line.Over()
			w = line
		}
		h.ServeHTTP(w, r)
	})
}

// Serve takes connections from l until Shutdown or Close.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(&bounded{Listener: l, places: s.conns})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown takes no more connections, tunnels and requests, and waits until those
// that run have ended, or ctx has. It is called once, before Close.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	close(s.stop)
	err := s.http.Shutdown(ctx)
	ended := make(chan struct{})
	go func() { s.open.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
		err = errors.Join(err, ctx.Err())
	}
	return err
}

// Close cuts what Shutdown left, and waits for it.
func (s *Server) Close() {
	close(s.kill)
	_ = s.http.Close()
	s.open.Wait()
}

// begin counts a tunnel in, unless the server stops.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopping {
		s.open.Add(1)
	}
	return !s.stopping
}

// bounded closes connections for which there is no place.
type bounded struct {
	net.Listener
	places chan struct{}
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.places <- struct{}{}:
			return &placed{Conn: c, leave: sync.OnceFunc(func() { <-b.places })}, nil
		default:
			_ = c.Close()
		}
	}
}

type placed struct {
	net.Conn
	leave func()
}

func (p *placed) Close() error {
	p.leave()
	return p.Conn.Close()
}

// CloseWrite ends what the client is sent, and leaves what it sends.
func (p *placed) CloseWrite() error {
	if c, ok := p.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
