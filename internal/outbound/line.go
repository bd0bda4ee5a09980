package outbound

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Line is the way to one place that speaks something else than HTTP, such as a
// database. Each of its connections passes the gates of [Client.Do]: the address is
// judged on the socket about to connect, and counts against the same bound. The
// address that the first one reached is the line's from then on, so that what
// belongs together (a statement, and the message that cancels it) never reaches two
// hosts.
type Line struct {
	client  *Client
	place   string // host:port, as asked for
	listed  bool
	mu      sync.Mutex
	address string // of the first connection
	open    map[net.Conn]struct{}
	closed  bool
}

// CheckLine judges a place "host:port" when it is configured, as [Client.Check]
// judges a URL. What is not encrypted goes to places that the operator listed.
func (c *Client) CheckLine(place string, encrypted bool) error {
	_, err := c.line(place, encrypted)
	return err
}

// Line prepares the way to a place "host:port". Nothing is dialled yet.
func (c *Client) Line(place string, encrypted bool) (*Line, error) {
	return c.line(place, encrypted)
}

func (c *Client) line(place string, encrypted bool) (*Line, error) {
	host, port, err := net.SplitHostPort(place)
	if err != nil || !validPort(port) {
		return nil, badURL("The place is not a host and a port.")
	}
	host, ok := canonicalHost(host)
	if !ok {
		return nil, badURL("The host is not a plain host name or address.").
			WithHint("Write the host in ASCII letters (xn-- form for other scripts), without a zone.")
	}
	l := &Line{client: c, place: net.JoinHostPort(host, port), open: map[net.Conn]struct{}{}}
	l.listed = c.allowed[l.place]
	if !encrypted && !l.listed {
		return nil, fault.New(fault.Denied, "destination_denied", "A connection without TLS is not allowed to this host.").
			WithHint("Use TLS, or ask the operator to add this host and port to AMBIT_OUTBOUND_ALLOW.")
	}
	return l, checkLiteral(host, l.listed)
}

var errLineClosed = errors.New("the line was closed")

// Dial opens one connection. Close closes it with the line, unless its caller did.
func (l *Line) Dial(ctx context.Context) (net.Conn, error) {
	l.mu.Lock()
	address, closed := l.address, l.closed
	l.mu.Unlock()
	if closed {
		return nil, errLineClosed
	}
	if address == "" {
		address = l.place
	}
	d := l.client.public
	if l.listed {
		d = l.client.listed
	}
	c, err := l.client.counted(ctx, d, "tcp", address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close()
		return nil, errLineClosed
	}
	l.address = c.RemoteAddr().String()
	l.open[c] = struct{}{}
	return c, nil
}

// Close closes every connection of the line and refuses further ones.
func (l *Line) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for c := range l.open {
		_ = c.Close()
	}
}

// Fail turns what went wrong on a line into a fault, which [Sent] and [RetryAfter]
// read as those of [Client.Do]. parent is the caller's context, limited the one with
// the timeout; sent says whether what was to be done may have arrived.
func (l *Line) Fail(parent, limited context.Context, sent bool, err error) error {
	a := &attempt{host: l.place}
	a.sent.Store(sent)
	return a.fail(parent, limited, err)
}

// Timeout is how long a request may take that sets no limit of its own.
func (c *Client) Timeout() time.Duration { return c.timeout }
