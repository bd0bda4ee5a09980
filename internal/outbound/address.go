package outbound

import (
	"context"
	"net/netip"
	"syscall"

	"code.dny.dev/ssrf"
)

// metadata lists the addresses at which clouds hand credentials to whoever asks
// from the machine. No configuration opens them.
func metadata(a netip.Addr) bool {
	switch a.String() {
	case "169.254.169.254", // AWS, Azure, GCP, OpenStack and most others
		"169.254.169.253", "fd00:ec2::253", // AWS resolver
		"169.254.170.2", "169.254.170.23", "fd00:ec2::23", // AWS containers
		"fd00:ec2::254",   // AWS
		"fd20:ce::254",    // GCP
		"168.63.129.16",   // Azure host
		"100.100.100.200", // Alibaba
		"192.0.0.192",     // Oracle
		"169.254.42.42",   // Scaleway
		"169.254.0.23":    // Tencent
		return true
	}
	return false
}

// deniedAddress says that the socket was about to connect where it must not.
type deniedAddress struct{ reason string }

func (d *deniedAddress) Error() string { return "address refused: " + d.reason }

type control = func(context.Context, string, string, syscall.RawConn) error

// controlPublic lets only addresses of the public internet through. Any port is
// fine: the Bound pins it.
func controlPublic() control {
	guard := ssrf.New(ssrf.WithAnyPort(), ssrf.WithDeniedV4Prefixes(netip.MustParsePrefix("168.63.129.16/32")))
	return func(_ context.Context, network, address string, raw syscall.RawConn) error {
		if err := guard.Safe(network, address, raw); err != nil {
			return &deniedAddress{"not on the public internet"}
		}
		return refuseMetadata(address)
	}
}

func controlListed(_ context.Context, network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return &deniedAddress{"not TCP"}
	}
	return refuseMetadata(address)
}

func refuseMetadata(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return &deniedAddress{"not an IP address"}
	}
	if reachesMetadata(ap.Addr()) {
		return &deniedAddress{"a metadata service"}
	}
	return nil
}

func reachesMetadata(a netip.Addr) bool {
	a = a.WithZone("").Unmap()
	if metadata(a) {
		return true
	}
	for _, inner := range embedded(a) {
		if metadata(inner) {
			return true
		}
	}
	return false
}

// embedded lists the IPv4 addresses that a translator or tunnel on the way would
// take out of an IPv6 address.
func embedded(a netip.Addr) []netip.Addr {
	if !a.Is6() {
		return nil
	}
	b := a.As16()
	v4 := func(w, x, y, z byte) netip.Addr { return netip.AddrFrom4([4]byte{w, x, y, z}) }
	// The last four bytes serve mapped (::ffff:0:0/96), compatible (::/96),
	// translated (::ffff:0:0:0/96), NAT64 (64:ff9b::/96, and /96 within the
	// local-use 64:ff9b:1::/48) and ISATAP. Reading them in any other address too
	// costs nothing: no honest host ends in a metadata address.
	found := []netip.Addr{v4(b[12], b[13], b[14], b[15])}
	switch {
	case b[0] == 0x20 && b[1] == 0x02: // 6to4
		found = append(found, v4(b[2], b[3], b[4], b[5]))
	case b[0] == 0x20 && b[1] == 0x01 && b[2] == 0 && b[3] == 0: // Teredo: server, client
		found = append(found, v4(b[4], b[5], b[6], b[7]), v4(^b[12], ^b[13], ^b[14], ^b[15]))
	case b[0] == 0 && b[1] == 0x64 && b[2] == 0xff && b[3] == 0x9b: // NAT64 prefixes of /48, /56, /64 skip byte 8
		found = append(found, v4(b[6], b[7], b[9], b[10]), v4(b[7], b[9], b[10], b[11]), v4(b[9], b[10], b[11], b[12]))
	}
	return found
}

// checkLiteral applies the dial's rules early to a host that is an address, so
// that a wrong configuration is told at once.
func checkLiteral(host string, listed bool) error {
	a, err := netip.ParseAddr(host)
	if err != nil {
		return nil
	}
	network := "tcp4"
	if a.Is6() {
		network = "tcp6"
	}
	judge := controlListed
	if !listed {
		judge = controlPublic()
	}
	if err := judge(context.Background(), network, netip.AddrPortFrom(a, 443).String(), nil); err != nil {
		return deniedPlace().WithCause(err)
	}
	return nil
}
