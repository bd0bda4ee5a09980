package cli

import (
	"net"
	"net/url"
	"strings"

	"github.com/ambit-dev/ambit/internal/qr"
)

// forPhone gives the QR code of an address to a person at a terminal that is
// width columns wide: nothing where a phone could not open the address, or where
// the code has no room.
func forPhone(address string, colour bool, width int) string {
	if !reachesPhone(address) {
		return ""
	}
	code, err := qr.Encode(address)
	if err != nil || code.Side() > width {
		return ""
	}
	return code.Text(colour)
}

// reachesPhone reports whether another device could open the address: not if it
// names this machine to itself.
func reachesPhone(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return false
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return false
	}
	ip := net.ParseIP(host)
	return ip == nil || !ip.IsLoopback() && !ip.IsUnspecified()
}

// showPhone prints the QR code of an address, on a terminal only.
func (c *command) showPhone(address string) {
	if code := forPhone(address, c.colour(), c.room()); code != "" {
		c.say("\nOr scan this with a phone:\n\n%s", code)
	}
}
