package outbound_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/ambit-dev/ambit/internal/outbound"
)

// An attack that went through: a place that the operator listed for accounts was open
// to tunnels of everybody. Only a host that is named for tunnels leads there; what is
// not leads to port 443 of public addresses.
func TestATunnelLeadsToNoListedPlaceByItself(t *testing.T) {
	t.Parallel()
	c := newClient(t, outbound.Policy{
		Allow:   []string{"crm.test:443", "crm.test:8443", "own.test:8443", "10.0.0.7:443", "web.test:8080"},
		Tunnels: []string{"Own.test", "*.test", "public.test"},
	})
	var seen []string
	c.SetConnect(func(address string) error {
		seen = append(seen, address)
		return errors.New("not in a test")
	})
	c.SetResolver(nameServer(t, func(name string, _ int) []netip.Addr {
		if name == "public.test" || name == "web.test" {
			return []netip.Addr{netip.MustParseAddr("93.184.216.34")}
		}
		return []netip.Addr{netip.MustParseAddr("10.0.0.7")}
	}))
	for _, place := range [][2]string{{"crm.test", "443"}, {"crm.test", "8443"}, {"10.0.0.7", "443"}, {"web.test", "8080"}, {"public.test", "8443"}, {"own.test", "443"}} {
		_, err := c.Tunnel(t.Context(), place[0], place[1])
		wantFault(t, err, "destination_denied", false)
	}
	if len(seen) != 0 {
		t.Errorf("connected to %v", seen)
	}
	for _, place := range [][2]string{{"own.test", "8443"}, {"web.test", "443"}} {
		_, err := c.Tunnel(t.Context(), place[0], place[1])
		wantFault(t, err, "upstream_unreachable", false)
	}
	if want := []string{"10.0.0.7:8443", "93.184.216.34:443"}; !slices.Equal(seen, want) {
		t.Errorf("connected to %v, want %v", seen, want)
	}
}
