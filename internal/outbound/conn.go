package outbound

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a connection to an upstream that can tell whether it is at rest: all
// that came was read, and belonged to the answers before. An HTTP/1 upstream that
// sends more than one answer for one request would otherwise have its surplus
// taken for the answer to the next request, which may be another tenant's. The
// transport looks for that too, but late: what it has buffered already, it looks
// at only after the connection may have been given to somebody else.
type conn struct {
	net.Conn
	left func() // gives back the place of this connection

	closing sync.Once
	closed  atomic.Bool
	waiting atomic.Bool // somebody waits in Read, so nothing is buffered above
	resting atomic.Bool // a request is about to be written, and nothing must come before
	secure  atomic.Bool // TLS: the first byte written was a record's
	wrote   bool

	// The records of TLS that came, of which those above may hold a part. Written
	// by the one who reads.
	head [5]byte
	have int          // bytes of head
	more int          // bytes of the record that are still to come
	part atomic.Bool  // a record has begun and not ended
	h2   atomic.Int32 // 0: not known, 1: no, 2: yes
}

func (c *conn) Read(p []byte) (int, error) {
	c.waiting.Store(true)
	n, err := c.Conn.Read(p)
	c.waiting.Store(false)
	if c.resting.Load() && n > 0 {
		_ = c.Close()
		return 0, errSurplus
	}
	if c.secure.Load() && n > 0 {
		c.records(p[:n])
	}
	return n, err
}

// records follows the lengths of TLS records (RFC 8446 §5.1).
func (c *conn) records(p []byte) {
	for len(p) > 0 {
		if c.more > 0 {
			n := min(c.more, len(p))
			c.more -= n
			p = p[n:]
			continue
		}
		n := copy(c.head[c.have:], p)
		c.have += n
		p = p[n:]
		if c.have == len(c.head) {
			c.have, c.more = 0, int(c.head[3])<<8|int(c.head[4])
		}
	}
	c.part.Store(c.have > 0 || c.more > 0)
}

func (c *conn) Write(p []byte) (int, error) {
	if !c.wrote && len(p) > 0 { // whoever dials writes first, before it shares the connection
		c.wrote = true
		c.secure.Store(p[0] == 0x16)
	}
	if c.resting.Load() {
		if !c.waiting.Load() || pending(c.Conn) {
			_ = c.Close()
			return 0, errSurplus
		}
		c.resting.Store(false)
	}
	return c.Conn.Write(p)
}

func (c *conn) Close() error {
	c.closed.Store(true)
	c.closing.Do(c.left)
	return c.Conn.Close()
}

// restLimit is how long a connection that is to be used again may take to come to
// rest. Its reader is at most a moment behind.
const restLimit = 250 * time.Millisecond

// atRest makes sure that used may take another request, or closes it, upon which
// the transport takes another one: nothing was written yet.
func atRest(ctx context.Context, used net.Conn) {
	raw := used
	t, secure := used.(*tls.Conn)
	if secure {
		raw = t.NetConn()
	}
	c, ok := raw.(*conn)
	if !ok {
		return
	}
	if c.h2.Load() == 0 {
		if secure && t.ConnectionState().NegotiatedProtocol == "h2" {
			c.h2.Store(2)
		} else {
			c.h2.Store(1)
		}
	}
	if c.h2.Load() == 2 {
		return // frames say whose they are
	}
	for began, tries := time.Now(), 0; !c.waiting.Load(); tries++ {
		if c.closed.Load() {
			return
		}
		if ctx.Err() != nil || time.Since(began) > restLimit {
			_ = c.Close()
			return
		}
		if tries < 100 {
			runtime.Gosched()
		} else {
			time.Sleep(50 * time.Microsecond)
		}
	}
	if c.part.Load() || pending(c.Conn) {
		_ = c.Close()
		return
	}
	c.resting.Store(true)
}

// errSurplus ends a connection on which something came that no request asked for.
var errSurplus = errors.New("an answer that nobody asked for")

var errConns = errors.New("too many connections to upstreams")

// admit counts a connection in. When there is no room, idle ones go first.
func (c *Client) admit() error {
	if c.conns.Add(1) <= c.maxConns {
		return nil
	}
	c.pool.closeIdle()
	if c.conns.Load() <= c.maxConns {
		return nil
	}
	c.conns.Add(-1)
	return errConns
}

// counted dials with d and wraps what it gives.
func (c *Client) counted(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error) {
	if err := c.admit(); err != nil {
		return nil, err
	}
	raw, err := d.DialContext(ctx, network, addr)
	if err != nil {
		c.conns.Add(-1)
		return nil, err
	}
	return &conn{Conn: raw, left: func() { c.conns.Add(-1) }}, nil
}
