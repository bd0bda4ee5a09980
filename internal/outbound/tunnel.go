package outbound

import (
	"context"
	"errors"
	"net"
	"net/url"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Tunnel connects to a host and port for bytes that pass unread: to port 443 of
// the public internet, or to a place that the operator listed. The address is
// judged on the socket, as for a request. The caller closes the connection.
func (c *Client) Tunnel(ctx context.Context, host, port string) (net.Conn, error) {
	name, ok := canonicalHost(host)
	if !ok || !validPort(port) {
		return nil, badURL("This is no host and port.")
	}
	place := net.JoinHostPort(name, port)
	if port != "443" && !c.allowed[place] {
		return nil, deniedPlace()
	}
	if err := c.permit(&url.URL{Scheme: "https", Host: place}); err != nil {
		return nil, err
	}
	conn, err := c.dial(ctx, "tcp", place)
	if err != nil {
		return nil, dialFailed(err)
	}
	return conn, nil
}

func dialFailed(err error) error {
	switch {
	case isType[*deniedAddress](err):
		return deniedPlace()
	case errors.Is(err, errConns):
		return fault.New(fault.Unavailable, "overloaded", "The server has too many connections open.").WithHint("Try again shortly.").WithRetry(time.Second)
	}
	return fault.New(fault.Unavailable, "upstream_unreachable", "The host could not be reached.").WithHint("Nothing was sent. Try again later.").WithCause(err)
}
