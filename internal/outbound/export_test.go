package outbound

import (
	"context"
	"net"
	"syscall"
	"time"
)

// SetResolver makes the client ask a test's own DNS server.
func (c *Client) SetResolver(r *net.Resolver) {
	c.public.Resolver = r
	c.listed.Resolver = r
}

// SetConnect calls fn with each address that passed the check, right before the
// socket connects; fn's error stops it.
func (c *Client) SetConnect(fn func(address string) error) {
	for _, d := range []*net.Dialer{c.public, c.listed, c.clouds} {
		check := d.ControlContext
		d.ControlContext = func(ctx context.Context, network, address string, raw syscall.RawConn) error {
			if err := check(ctx, network, address, raw); err != nil {
				return err
			}
			return fn(address)
		}
	}
}

// Connections is how many are open.
func (c *Client) Connections() int { return int(c.conns.Load()) }

// KeepParties bounds how many parties keep connections.
func (c *Client) KeepParties(n int) { c.pool.parties = n }

// Parties are how many are remembered, and Later lets time pass for them.
func (c *Client) Parties() int { return len(c.pool.own) }

func (c *Client) Later(d time.Duration) {
	c.pool.now = func() time.Time { return time.Now().Add(d) }
}
