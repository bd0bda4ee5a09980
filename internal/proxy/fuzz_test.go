package proxy_test

import (
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/proxy"
)

// Issue 7, proofs: whatever a CONNECT names is refused or is one host and one port
// that every reader takes for the same, and only that authority agrees with it.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"api.github.com:443", "[::1]:443", "127.0.0.1:80", "0x7f.1:443", "a..b:1", "a:0", "a:00443", "[a]:1", "::1:1", "a%00b:1", "user@a:1", "a:1/x", "xn--a:1", "a.:1", "[::1%eth0]:1", "[::ffff:1.2.3.4]:1"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, target, other string) {
		host, port, err := proxy.ParseTarget(target)
		if err != nil {
			return
		}
		place := net.JoinHostPort(host, port)
		u, err := url.Parse("https://" + place + "/")
		if err != nil || u.Hostname() != host || u.Port() != port || u.User != nil {
			t.Fatalf("%q became %q, which others read as %v (%v)", target, place, u, err)
		}
		if !strings.EqualFold(target, place) {
			if a, err := netip.ParseAddr(host); err != nil || !strings.Contains(target, ":") || !a.Is6() {
				t.Fatalf("%q became %q", target, place)
			}
		}
		if h, p, err := proxy.ParseTarget(place); err != nil || h != host || p != port {
			t.Fatalf("%q is not read as itself: %q %q %v", place, h, p, err)
		}
		if !proxy.Agrees(place, host, port, "https") {
			t.Fatalf("%q does not agree with itself", place)
		}
		if proxy.Agrees(other, host, port, "https") {
			if v, err := url.Parse("https://" + other); err != nil || !strings.EqualFold(v.Hostname(), host) && !sameAddress(v.Hostname(), host) {
				t.Fatalf("%q agrees with %q", other, place)
			}
		}
	})
}

func sameAddress(a, b string) bool {
	x, err := netip.ParseAddr(a)
	y, yerr := netip.ParseAddr(b)
	return err == nil && yerr == nil && x == y
}

// Issue 7, proofs: credentials that are taken are those that the field says by RFC
// 7617 and RFC 6750, and nothing else of it counts.
func FuzzCredentials(f *testing.F) {
	for _, s := range []string{"Bearer x", "Basic dXNlcjpwYXNz", "basic  dXNlcjo=", "Basic dXNlcg==", "Basic", "", "Bearer", "Digest x", "Basic dXNlcjpwYXNz\n", "Basic c2hfYTpi"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, field string) {
		token, handle, err := proxy.Credentials(http.Header{"Proxy-Authorization": {field}})
		if err != nil {
			if !token.IsZero() || handle != "" {
				t.Fatalf("%q is refused and gives something", field)
			}
			return
		}
		scheme, rest, _ := strings.Cut(field, " ")
		rest = strings.TrimLeft(rest, " ")
		want, user := rest, ""
		if strings.EqualFold(scheme, "basic") {
			raw, err := base64.StdEncoding.DecodeString(rest)
			if err != nil {
				t.Fatalf("%q is taken", field)
			}
			user, want, _ = strings.Cut(string(raw), ":")
		}
		if string(token.Reveal()) != want || handle != "" && (handle != user || !strings.HasPrefix(user, "sh_")) {
			t.Fatalf("%q gives another token or handle", field)
		}
		if _, _, err := proxy.Credentials(http.Header{"Proxy-Authorization": {field, field}}); err == nil {
			t.Fatal("a field that comes twice is taken")
		}
	})
}
