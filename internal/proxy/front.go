package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/secret"
)

// caller is who opened a connection, and what they proved it with. Each request
// proves it anew.
type caller struct {
	token   secret.Value
	handle  string
	address string
}

// front answers what comes to the proxy's own port.
func (s *Server) front(w http.ResponseWriter, r *http.Request) {
	by, who, err := s.who(r)
	switch {
	case err != nil:
		s.refuse(w, r, err)
	case r.Method == http.MethodConnect:
		s.connect(w, r, by, who)
	case r.URL.Scheme == "http" && r.URL.Host != "":
		s.absolute(w, r, by, who)
	default:
		s.refuse(w, r, fault.New(fault.Invalid, "not_a_proxy_request", "This is a forward proxy, and the request is none for it.").
			WithHint("Name this address in HTTP_PROXY and HTTPS_PROXY; the web UI and the API are on another port."))
	}
}

func (s *Server) who(r *http.Request) (caller, agent.Identity, error) {
	token, handle, err := credentials(r.Header)
	if err != nil {
		return caller{}, agent.Identity{}, err
	}
	address, _, _ := net.SplitHostPort(r.RemoteAddr)
	who, err := s.agents.Authenticate(r.Context(), token)
	return caller{token, handle, address}, who, err
}

// absolute makes a call of a request in absolute form (RFC 9112 §3.2.2). What its
// Host field says does not count; a new one is made.
func (s *Server) absolute(w http.ResponseWriter, r *http.Request, by caller, who agent.Identity) {
	authority := r.URL.Host
	if r.URL.Port() == "" {
		authority = net.JoinHostPort(r.URL.Hostname(), "80")
	}
	host, port, err := parseTarget(authority)
	if err == nil && (r.URL.User != nil || r.URL.Fragment != "") {
		err = fault.New(fault.Invalid, "target_invalid", "The request's target holds a user name or a fragment.")
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.call(w, r, by, who, place{"http", host, port})
}

// place is where the requests of a connection go. It is fixed before the first one
// is read.
type place struct{ scheme, host, port string }

// connect opens a tunnel and stays in it until it is over.
func (s *Server) connect(w http.ResponseWriter, r *http.Request, by caller, who agent.Identity) {
	host, port, err := parseTarget(r.RequestURI)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	leave, err := s.enter(who, by)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer leave()
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	held, opened, err := s.gateway.Tunnel(ctx, gateway.Tunnel{Identity: who, Handle: by.handle, Host: host, Port: port, Address: by.address})
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	defer opened.Done()
	raw, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		if opened.Conn != nil {
			_ = opened.Conn.Close()
		}
		s.refuse(w, r, err)
		return
	}
	conn := early(raw, buffered)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(headTime))
	if _, err := io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	_ = conn.SetDeadline(time.Time{})
	if opened.Conn != nil {
		s.pass(held, conn, opened.Conn)
		return
	}
	to := place{"http", host, port}
	if opened.TLS {
		to.scheme = "https"
	}
	s.inside(held, conn, by, who.Environment(), to)
}

// enter takes a place for one tunnel.
func (s *Server) enter(who agent.Identity, by caller) (leave func(), err error) {
	if !s.begin() {
		return nil, fault.New(fault.Unavailable, "server_stopping", "This server stops.").WithHint("Try again in a moment.").WithRetry(time.Second)
	}
	key := string(who.Session())
	if key == "" {
		key = string(who.Agent()) + " " + by.handle
	}
	free, ok, full := s.tunnels.Enter(key)
	if ok {
		return func() { free(); s.open.Done() }, nil
	}
	s.open.Done()
	message := "This session has too many tunnels open."
	if full {
		message = "The proxy has too many tunnels open."
	}
	return nil, fault.New(fault.Limited, "too_many_tunnels", message).WithHint("Close some, then try again.").WithRetry(time.Second)
}

// early is a connection of which some was read already.
func early(c net.Conn, b *bufio.ReadWriter) net.Conn {
	if b == nil || b.Reader.Buffered() == 0 {
		return c
	}
	head, _ := b.Reader.Peek(b.Reader.Buffered())
	return &begun{Conn: c, head: append([]byte(nil), head...)}
}

type begun struct {
	net.Conn
	head []byte
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.head) > 0 {
		n := copy(p, b.head)
		b.head = b.head[n:]
		return n, nil
	}
	return b.Conn.Read(p)
}

// refuse answers a request that goes nowhere. The text is for the person or model
// that reads what its tool printed; the header is for programs, which of a refused
// CONNECT see nothing else.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	f, body := s.problem(w, err)
	status := http.StatusForbidden
	h := w.Header()
	switch f.Kind {
	case fault.Unauthenticated:
		status = http.StatusProxyAuthRequired
		h.Add("Proxy-Authenticate", `Basic realm="ambit", charset="UTF-8"`)
		h.Add("Proxy-Authenticate", `Bearer realm="ambit"`)
	case fault.Invalid:
		if status = http.StatusBadRequest; f.Code == codeMisdirected {
			status = http.StatusMisdirectedRequest
		}
	case fault.TooLarge:
		status = http.StatusRequestEntityTooLarge
	case fault.Limited:
		status = http.StatusTooManyRequests
	case fault.Unavailable:
		status = http.StatusBadGateway
	case fault.Internal:
		status = http.StatusInternalServerError
	}
	h.Set("X-Ambit-Code", f.Code)
	h.Set("Proxy-Status", `ambit; error=http_request_denied; details="`+f.Code+`"`) // RFC 9209
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// problem is what anybody is told of an error, as JSON, with the headers that belong
// to it. What is our own fault is for the log alone.
func (s *Server) problem(w http.ResponseWriter, err error) (*fault.Error, []byte) {
	f := fault.Of(err)
	if f.Kind == fault.Internal {
		s.log.Error("a request to the proxy failed", "error", err)
		f = fault.New(fault.Internal, "internal", "Something went wrong on our side.")
	}
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
	}
	doc := map[string]string{}
	for name, value := range f.Fields {
		doc[name] = value
	}
	doc["code"], doc["message"] = f.Code, f.Message
	if f.Hint != "" {
		doc["hint"] = f.Hint
	}
	body, _ := json.Marshal(doc)
	w.Header().Set("Content-Type", "application/json")
	return f, append(body, '\n')
}

// pass copies both ways, unread, until one side is done, the session is over, or
// nothing comes for too long.
func (s *Server) pass(held context.Context, client, other net.Conn) {
	defer other.Close()
	ended := make(chan struct{}, 2)
	half := func(to, from net.Conn) {
		defer func() { ended <- struct{}{} }()
		_, _ = io.Copy(to, &patient{from, client, other})
		if c, ok := to.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
		} else {
			_ = to.Close()
		}
	}
	go half(other, client)
	go half(client, other)
	for range 2 {
		select {
		case <-ended:
			continue
		case <-held.Done():
		case <-s.kill:
		}
		_ = client.Close()
		_ = other.Close()
		<-ended
	}
}

// patient reads, and gives both sides of its tunnel more time when something came.
type patient struct {
	net.Conn
	one, two net.Conn
}

func (p *patient) Read(b []byte) (int, error) {
	until := time.Now().Add(idleElsewhere)
	_ = p.one.SetDeadline(until)
	_ = p.two.SetDeadline(until)
	return p.Conn.Read(b)
}

// dropHop takes out the fields that are between a client and its proxy (RFC 9110 §7.6.1).
func dropHop(h http.Header) {
	for _, line := range h.Values("Connection") {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name != "" && !strings.EqualFold(name, "upgrade") {
				h.Del(name)
			}
		}
	}
	for _, name := range []string{"Proxy-Authorization", "Proxy-Connection", "Keep-Alive"} {
		h.Del(name)
	}
	for name := range h {
		if strings.Contains(name, "_") { // servers disagree on these (threats.md W4)
			h.Del(name)
		}
	}
}
