package gateway

import (
	"context"
	"net"
	"net/url"
	"strings"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
)

// Elsewhere says what becomes of tunnels to hosts that a session was not granted.
type Elsewhere string

const (
	DenyElsewhere    Elsewhere = "deny"    // they are refused
	ObserveElsewhere Elsewhere = "observe" // they pass, and are on record as what would be refused
	PassElsewhere    Elsewhere = "pass"    // they pass
)

// Egress is what the operator lets tunnels do beside the accounts of a session.
// The zero Egress refuses everything.
type Egress struct {
	Elsewhere Elsewhere
	// Hosts are names that always pass, such as that of the service in which an
	// agent's own model runs. "*.example.com" is every name below example.com.
	Hosts []string
}

// passes reports whether a tunnel to host may pass, and by which rule.
func (e Egress) passes(host string) (rule string, ok bool) {
	switch {
	case outbound.Listed(e.Hosts, host):
		return "egress.host", true
	case e.Elsewhere == PassElsewhere:
		return "egress.pass", true
	case e.Elsewhere == ObserveElsewhere:
		return "egress.observe", true
	}
	return "egress.deny", false
}

// Tunnel is what an agent asks a forward proxy for: bytes to and from a host.
type Tunnel struct {
	Identity agent.Identity
	Handle   string // of the session; empty for a token bound to one
	Host     string // a lower-case name in ASCII, or an address
	Port     string
	Address  string // of the client
}

// Opened is a tunnel that may be. Done must be called when it is over.
type Opened struct {
	Done func()
	// Conn is the way to a host that is not the session's: what passes is not
	// read. Nil: the host is one of the session's accounts, and each request to it
	// is a call.
	Conn net.Conn
	TLS  bool // of a host of the session: whether it speaks TLS
}

// Tunnel decides what becomes of a tunnel. It gives no access by itself: to the
// accounts of the session each request in it is a call of its own, and what
// passes to elsewhere carries nothing of ours. held ends when the session does, and
// then nothing of the tunnel may stay open.
func (g *Gateway) Tunnel(ctx context.Context, t Tunnel) (held context.Context, o Opened, err error) {
	place := net.JoinHostPort(t.Host, t.Port)
	entry := entryOf(t.Identity, "proxy.tunnel", place, t.Address)
	if err := g.ready(); err != nil {
		return nil, Opened{}, g.refuse(ctx, entry, "node.ready", err)
	}
	live, err := g.admitted(ctx, &entry, t.Identity, t.Handle)
	if err != nil {
		return nil, Opened{}, err
	}
	inside, ok := reaches(live.Places(), place)
	rule, passes := g.egress.passes(t.Host)
	if !ok && rule != "egress.host" { // a host that is named may be that of a client's own sign-in, too
		inside, ok = reaches(tokenPlaces(live), place)
	}
	if ok {
		held, done := g.sessions.Hold(ctx, live)
		return held, Opened{Done: done, TLS: inside}, nil
	}
	if !passes {
		return nil, Opened{}, g.refuse(ctx, entry, rule, fault.New(fault.Denied, "destination_denied", "This session reaches no account at "+printable(place)+", and the proxy lets nothing else pass.").
			WithHint("Request a session for a provider that has this host, or ask the operator to let it pass (AMBIT_PROXY_PASS)."))
	}
	entry.Rule, entry.Decision = rule, string(policy.Allow)
	if rule == "egress.observe" {
		entry.Code = "destination_denied" // what it would be
	}
	if err := g.audit.Record(ctx, entry); err != nil {
		return nil, Opened{}, err
	}
	held, done := g.sessions.Hold(ctx, live)
	conn, err := g.outbound.Tunnel(held, t.Host, t.Port)
	if err != nil {
		done()
		return nil, Opened{}, g.refuse(ctx, entry, rule, err)
	}
	return held, Opened{Done: done, Conn: conn}, nil
}

// tokenPlaces are where clients of the session's accounts would refresh their
// placeholders, which is answered here; see [Gateway.standIn]. Nothing else passes
// to them.
func tokenPlaces(live session.Live) (out []string) {
	for _, c := range live.Reach("", "") {
		p := c.Pinned()
		out = append(out, p.Token, p.Refreshing(), p.Realm)
	}
	return out
}

// reaches reports whether place is that of one of the bases, and whether it speaks
// TLS there.
func reaches(bases []string, place string) (tls, ok bool) {
	for _, b := range bases {
		u, err := url.Parse(b)
		if err != nil {
			continue
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
		if net.JoinHostPort(strings.ToLower(u.Hostname()), port) == place {
			tls, ok = tls || u.Scheme == "https", true
		}
	}
	return tls, ok
}
