package outbound_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
)

// nameServer is a real DNS server on loopback. answer gives the addresses for a
// name; n counts the look-ups of that name and type, from 0.
func nameServer(t *testing.T, answer func(name string, n int) []netip.Addr) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	go func() {
		counts := map[dnsmessage.Question]int{}
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			reply := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, Questions: m.Questions}
			for _, a := range answer(strings.TrimSuffix(q.Name.String(), "."), counts[q]) {
				h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type}
				if a.Is4() && q.Type == dnsmessage.TypeA {
					reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
				}
				if a.Is6() && q.Type == dnsmessage.TypeAAAA {
					reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
				}
			}
			counts[q]++
			if out, err := reply.Pack(); err == nil {
				_, _ = pc.WriteTo(out, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

var forbidden = strings.Fields(`127.0.0.1 10.1.1.1 169.254.169.254 100.64.0.1 192.0.0.8 198.18.0.1 0.0.0.0 240.0.0.1
	255.255.255.255 ::1 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 64:ff9b:1::a9fe:a9fe 2002:a9fe:a9fe::1 fec0::1
	fd00:ec2::254 fe80::1 2001:db8::1 2001::1 ::169.254.169.254 ff02::1 168.63.129.16`)

var metadata = strings.Fields(`169.254.169.254 168.63.129.16 fd00:ec2::254 169.254.170.2 100.100.100.200
	::ffff:169.254.169.254 ::169.254.169.254 ::ffff:0:169.254.169.254 64:ff9b::a9fe:a9fe 64:ff9b:1::a9fe:a9fe
	64:ff9b:1:a9fe:a9:fe00:: 2002:a9fe:a9fe::1 2002:a83f:8110::1 2001:0:a9fe:a9fe::1 2001::5601:5601
	::ffff:168.63.129.16 64:ff9b::a83f:8110 fe80::5efe:169.254.169.254`)

// recorder stops every connection that passed the check, so that tests never
// touch a real network.
type recorder struct {
	mu   sync.Mutex
	seen []string
}

var errStopped = errors.New("stopped by the test")

func (r *recorder) connect(address string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, address)
	return errStopped
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.seen
	r.seen = nil
	return out
}

// O7: none of the 22 addresses of threats.md 4.6 is dialled, neither as a
// literal nor behind a name.
func TestForbiddenAddresses(t *testing.T) {
	t.Parallel()
	if len(forbidden) != 22 {
		t.Fatalf("the list has %d addresses, want 22", len(forbidden))
	}
	var rec recorder
	c := newClient(t, outbound.Policy{})
	c.SetConnect(rec.connect)
	for _, text := range forbidden {
		a := netip.MustParseAddr(text)
		literal := "https://" + net.JoinHostPort(text, "443")
		if err := c.Check(t.Context(), literal); fault.KindOf(err) != fault.Denied {
			t.Errorf("Check(%s): got %v, want denied", literal, err)
		}
		c.SetResolver(nameServer(t, func(string, int) []netip.Addr { return []netip.Addr{a} }))
		for _, base := range []string{literal, "https://name.test"} {
			_, err := c.Do(t.Context(), outbound.Bound{Bases: []string{base}}, request(t, "GET", base+"/", nil), outbound.Limits{})
			wantFault(t, err, "destination_denied", false)
		}
	}
	if seen := rec.take(); len(seen) > 0 {
		t.Errorf("connections to %v, want none", seen)
	}
	c.SetResolver(nameServer(t, func(string, int) []netip.Addr { return []netip.Addr{netip.MustParseAddr("8.8.8.8")} }))
	_, err := c.Do(t.Context(), outbound.Bound{Bases: []string{"https://name.test"}}, request(t, "GET", "https://name.test/", nil), outbound.Limits{})
	wantFault(t, err, "upstream_unreachable", false)
	if seen := rec.take(); len(seen) != 1 || seen[0] != "8.8.8.8:443" {
		t.Errorf("got connections %v, want one to a public address", seen)
	}
}

// O7: the operator's list never opens a metadata service, in no notation.
func TestMetadataIsNeverAllowed(t *testing.T) {
	t.Parallel()
	var rec recorder
	for _, text := range metadata {
		a := netip.MustParseAddr(text)
		hostPort := net.JoinHostPort(text, "80")
		c := newClient(t, outbound.Policy{Allow: []string{hostPort, "name.test:80"}})
		c.SetConnect(rec.connect)
		c.SetResolver(nameServer(t, func(string, int) []netip.Addr { return []netip.Addr{a} }))
		if err := c.Check(t.Context(), "http://"+hostPort); fault.KindOf(err) != fault.Denied {
			t.Errorf("Check(%s): got %v, want denied", text, err)
		}
		for _, base := range []string{"http://" + hostPort, "http://name.test"} {
			_, err := c.Do(t.Context(), outbound.Bound{Bases: []string{base}}, request(t, "GET", base+"/latest/meta-data", nil), outbound.Limits{})
			wantFault(t, err, "destination_denied", false)
		}
	}
	if seen := rec.take(); len(seen) > 0 {
		t.Errorf("connections to %v, want none", seen)
	}
}

// O8: whatever a name answers, and when, only a checked address is dialled.
func TestRebinding(t *testing.T) {
	t.Parallel()
	var hits atomic.Int64
	private := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	t.Cleanup(private.Close)
	_, port, _ := net.SplitHostPort(private.Listener.Addr().String())
	public, loopback := netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("127.0.0.1")
	for name, answer := range map[string]func(string, int) []netip.Addr{
		"public then private":  func(_ string, n int) []netip.Addr { return []netip.Addr{[]netip.Addr{public, loopback}[min(n, 1)]} },
		"private only":         func(string, int) []netip.Addr { return []netip.Addr{loopback} },
		"public and private":   func(string, int) []netip.Addr { return []netip.Addr{public, loopback} },
		"private and public":   func(string, int) []netip.Addr { return []netip.Addr{loopback, public} },
		"mapped and NAT64":     func(string, int) []netip.Addr { return []netip.Addr{netip.MustParseAddr("64:ff9b::7f00:1")} },
		"alternates each time": func(_ string, n int) []netip.Addr { return []netip.Addr{[]netip.Addr{public, loopback}[n%2]} },
	} {
		t.Run(name, func(t *testing.T) {
			var rec recorder
			// The private server is allowed under another name only.
			c := newClient(t, outbound.Policy{Allow: []string{"friend.test:" + port, "rebind.test:1"}})
			c.SetConnect(rec.connect)
			c.SetResolver(nameServer(t, answer))
			base := "https://rebind.test:" + port
			if err := c.Check(t.Context(), base); err != nil {
				t.Fatal(err)
			}
			for range 4 {
				_, err := c.Do(t.Context(), outbound.Bound{Bases: []string{base}}, request(t, "GET", base, nil), outbound.Limits{})
				if err == nil || outbound.Sent(err) {
					t.Errorf("got %v, want an error before sending", err)
				}
			}
			for _, address := range rec.take() {
				if address != "8.8.8.8:"+port {
					t.Errorf("connected to %s", address)
				}
			}
		})
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("the private server was reached %d times, want 0", n)
	}
}

// U8: an entry opens its own host and port, nothing beside it.
func TestAllowedPrivateDestination(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(srv.Close)
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	resolver := nameServer(t, func(string, int) []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} })
	c := newClient(t, outbound.Policy{Allow: []string{"Friend.test:" + port, "tls.test:443", "plain.test:80"}})
	c.SetResolver(resolver)
	try := func(base string) error {
		_, err := c.Do(t.Context(), outbound.Bound{Bases: []string{base}}, request(t, "GET", base, nil), outbound.Limits{})
		return err
	}
	for _, base := range []string{"http://friend.test:" + port, "http://FRIEND.test:" + port} {
		if err := try(base); err != nil {
			t.Errorf("%s: got %v, want it allowed", base, err)
		}
	}
	for _, base := range []string{"http://127.0.0.1:" + port, "http://other.test:" + port, "https://other.test:" + port,
		"https://friend.test", "http://friend.test.:" + port, "http://sub.friend.test:" + port, "http://tls.test"} {
		wantFault(t, try(base), "destination_denied", false)
	}
	for base, ok := range map[string]bool{"https://tls.test": true, "https://tls.test:443/x": true, "http://plain.test": true, "http://tls.test:443": true,
		"http://plain.test:8080": false, "http://tls.test": false, "https://anything.test": true} {
		if err := c.Check(t.Context(), base); (err == nil) != ok {
			t.Errorf("Check(%s): got %v, want allowed=%v", base, err, ok)
		}
	}
}

func TestPolicyEntries(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"localhost:9123", "10.0.0.5:443", "[::1]:80", "[FD00::5]:443", " spaced.test:1 ", "a_b.test:65535"} {
		if _, err := outbound.New(outbound.Policy{Allow: []string{good}}); err != nil {
			t.Errorf("%q: got %v, want it taken", good, err)
		}
	}
	for _, bad := range []string{"", "localhost", "localhost:", ":80", "*:80", "*.test:443", "http://a.test:80", "a.test:80/x", "a.test:0",
		"a.test:65536", "a.test:080", "a.test:http", "::1:80", "[fe80::1%eth0]:80", "bücher.test:443", "u@a.test:80", "10.0.0.0/8:80"} {
		_, err := outbound.New(outbound.Policy{Allow: []string{bad}})
		if !fault.Is(err, "outbound_entry_invalid") {
			t.Errorf("%q: got %v, want outbound_entry_invalid", bad, err)
		}
	}
}
