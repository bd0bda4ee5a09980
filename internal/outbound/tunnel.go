package outbound

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Tunnel connects to a host and port for bytes that pass unread: to port 443 of
// the public internet, or to a place in [Policy].Allow whose host is in
// [Policy].Tunnels too. That the server may reach a private place for its accounts
// opens it to no agent. The address is judged on the socket, as for a request. The
// caller closes the connection.
func (c *Client) Tunnel(ctx context.Context, host, port string) (net.Conn, error) {
	name, ok := canonicalHost(host)
	if !ok || !validPort(port) {
		return nil, badURL("This is no host and port.")
	}
	place := net.JoinHostPort(name, port)
	listed, dialer := c.allowed[place] && c.tunnels[name], c.public
	if listed {
		dialer = c.listed
	}
	if port != "443" && !listed {
		return nil, deniedTunnel()
	}
	if err := checkLiteral(name, listed); err != nil {
		return nil, deniedTunnel().WithCause(err)
	}
	conn, err := c.counted(ctx, dialer, "tcp", place)
	if isType[*deniedAddress](err) {
		return nil, deniedTunnel()
	}
	if err != nil {
		return nil, dialFailed(err)
	}
	return conn, nil
}

func deniedTunnel() *fault.Error {
	return fault.New(fault.Denied, "destination_denied", "No tunnel may go to this address and port.").
		WithHint("Tunnels go to port 443 of public addresses. Any other place needs its host in the operator's AMBIT_PROXY_PASS, by its full name, and host:port in AMBIT_OUTBOUND_ALLOW.")
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
