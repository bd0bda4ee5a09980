package throttle

import (
	"bufio"
	"net"
	"net/http"
	"sync"
	"time"
)

// WriteTime is how long a client may take for what is written to it, and a second
// more for each writeSpeed bytes.
const (
	WriteTime  = 30 * time.Second
	writeSpeed = 64 << 10
)

// Paced is the client's side of a request while its handler runs. Each write has a
// time of its own, so that a client that does not read holds nothing for long, while
// an answer that is large, or lasts, may take what it needs (threats.md W5). So has
// each on a connection that was hijacked from it. The deadlines of the handler's end
// with it: whoever still reads the body then, such as a request to somewhere else,
// must not touch what is another request's, or nobody's, and be the server's end.
type Paced struct {
	http.ResponseWriter
	rc    *http.ResponseController
	limit time.Duration

	mu   sync.Mutex
	last time.Time // no write is given longer; zero: nobody set it
	over bool
}

// Pace gives a client limit, usually WriteTime, for each write to w. The caller calls
// Over at the end.
func Pace(w http.ResponseWriter, limit time.Duration) *Paced {
	return &Paced{ResponseWriter: w, rc: http.NewResponseController(w), limit: limit}
}

// Over is to be called when the handler has returned.
func (p *Paced) Over() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
}

func (p *Paced) Write(b []byte) (int, error) {
	p.next(len(b))
	return p.ResponseWriter.Write(b)
}

// next gives the client time for n bytes.
func (p *Paced) next(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	until := byWhen(p.limit, n)
	if !p.last.IsZero() && p.last.Before(until) {
		until = p.last
	}
	_ = p.rc.SetWriteDeadline(until) // not every writer has one
}

func byWhen(limit time.Duration, n int) time.Time {
	return time.Now().Add(limit + time.Duration(n/writeSpeed)*time.Second)
}

// SetWriteDeadline ends all writing at t.
func (p *Paced) SetWriteDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return http.ErrHandlerTimeout
	}
	p.last = t
	return p.rc.SetWriteDeadline(t)
}

// SetReadDeadline ends reading the body at t.
func (p *Paced) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return http.ErrHandlerTimeout
	}
	return p.rc.SetReadDeadline(t)
}

// FlushError sends what is buffered.
func (p *Paced) FlushError() error {
	p.next(0)
	return p.rc.Flush()
}

// Flush is FlushError for those who do not look.
func (p *Paced) Flush() { _ = p.FlushError() }

// Hijack takes the connection over.
func (p *Paced) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := p.rc.Hijack()
	if err != nil {
		return nil, nil, err
	}
	return &pacedConn{conn, p.limit}, rw, nil
}

type pacedConn struct {
	net.Conn
	limit time.Duration
}

func (c *pacedConn) Write(b []byte) (int, error) {
	_ = c.SetWriteDeadline(byWhen(c.limit, len(b)))
	return c.Conn.Write(b)
}

// Unwrap lets a ResponseController through.
func (p *Paced) Unwrap() http.ResponseWriter { return p.ResponseWriter }
