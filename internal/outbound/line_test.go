package outbound_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/ambit-dev/ambit/internal/outbound"
)

// Threats O7, O8: what is no HTTP is dialled through the same gates, and all that
// belongs to one line goes to the address that its first connection reached,
// whatever the name answers later.
func TestLine(t *testing.T) {
	t.Parallel()
	here, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = here.Close() }()
	_, port, _ := net.SplitHostPort(here.Addr().String())
	var seen []string // dialled one after the other
	c := newClient(t, outbound.Policy{Allow: []string{"db.test:" + port, "meta.test:" + port}})
	c.SetConnect(func(address string) error {
		seen = append(seen, address)
		return nil
	})
	answers := map[string][]string{"db.test": {"127.0.0.1", "127.0.0.2"}, "meta.test": {"169.254.169.254"}, "other.test": {"127.0.0.1"}}
	c.SetResolver(nameServer(t, func(name string, n int) []netip.Addr {
		list := answers[name]
		return []netip.Addr{netip.MustParseAddr(list[min(n, len(list)-1)])}
	}))

	line, err := c.Line("db.test:"+port, false)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		conn, err := line.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	if len(seen) != 3 || seen[0] != "127.0.0.1:"+port || seen[2] != seen[0] {
		t.Errorf("connected to %v, want three times the first address", seen)
	}
	if n := c.Connections(); n != 3 {
		t.Errorf("%d connections count, want 3", n)
	}
	line.Close()
	if n := c.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	if _, err := line.Dial(t.Context()); err == nil {
		t.Error("a closed line dials")
	}

	for place, encrypted := range map[string]bool{"meta.test:" + port: false, "other.test:" + port: true} {
		l, err := c.Line(place, encrypted)
		if err != nil {
			t.Fatal(err)
		}
		_, err = l.Dial(t.Context())
		wantFault(t, l.Fail(t.Context(), t.Context(), false, err), "destination_denied", false)
		l.Close()
	}
	if len(seen) != 3 {
		t.Errorf("connected to %v, want nowhere else", seen)
	}
	_, err = c.Line("other.test:"+port, false)
	wantFault(t, err, "destination_denied", false)
	for _, place := range []string{"/run/postgresql:5432", "db.test", "db.test:0", "db.test:99999", "a b:1", "[fe80::1%25eth0]:5432", ":5432", "127.0.0.1:5432", "169.254.169.254:5432"} {
		if c.CheckLine(place, true) == nil {
			t.Errorf("%s may be dialled", place)
		}
	}
}
