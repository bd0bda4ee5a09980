package outbound_test

import (
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
)

// Rule 6 of product.md: scheme, host, port and path prefix.
func TestBoundContains(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		base, url string
		want      bool
	}{
		{"https://api.example.com", "https://api.example.com", true},
		{"https://api.example.com", "https://api.example.com/a/b?c=d", true},
		{"https://api.example.com/", "https://api.example.com/a", true},
		{"https://api.example.com:443", "https://API.Example.com/a", true},
		{"https://api.example.com", "https://api.example.com:443/a", true},
		{"http://localhost:80", "http://localhost/a", true},
		{"https://[::1]:8443", "https://[0:0::1]:8443/", true},
		{"https://api.example.com", "http://api.example.com/a", false},
		{"https://api.example.com", "https://api.example.com:8443/a", false},
		{"https://api.example.com", "https://api.example.com./a", false},
		{"https://api.example.com", "https://api.example.com.evil.example/a", false},
		{"https://api.example.com", "https://evil.example/api.example.com", false},
		{"https://api.example.com", "https://api.example.com@evil.example/", false},
		{"https://api.example.com", "https://evil.example\\@api.example.com/", false},
		{"https://api.example.com", "https://evil.example#@api.example.com/", false},
		{"https://api.example.com", "https://user:pass@api.example.com/a", false},
		{"https://api.example.com", "https:///a", false},
		{"https://api.example.com", "//api.example.com/a", false},
		{"https://api.example.com", "/a", false},
		{"https://api.example.com", "https:api.example.com/a", false},

		{"https://a.test/v1", "https://a.test/v1", true},
		{"https://a.test/v1", "https://a.test/v1/", true},
		{"https://a.test/v1/", "https://a.test/v1", true},
		{"https://a.test/v1", "https://a.test/v1/issues/1", true},
		{"https://a.test/v1", "https://a.test/v1/group%2Fproject", true},
		{"https://a.test/v1", "https://a.test/v1/100%25", true},
		{"https://a.test/v1", "https://a.test/v1/a..b/...", true},
		{"https://a.test/v1", "https://a.test/v1/x?path=../..\\", true},
		{"https://a.test/v1", "https://a.test/", false},
		{"https://a.test/v1", "https://a.test/v10", false},
		{"https://a.test/v1", "https://a.test/v1x/y", false},
		{"https://a.test/v1", "https://a.test/V1/y", false},
		{"https://a.test/v1", "https://a.test/v1%2fx", false},
		{"https://a.test/v1", "https://a.test//v1/x", false},
		{"https://a.test/v1", "https://a.test/%76%31/x", false},
		{"https://a.test/v1", "https://a.test/v1/../admin", false},
		{"https://a.test/v1", "https://a.test/v1/./x", false},
		{"https://a.test/v1", "https://a.test/v1/%2e%2e/admin", false},
		{"https://a.test/v1", "https://a.test/v1/.%2E/admin", false},
		{"https://a.test/v1", "https://a.test/v1/%252e%252e/admin", false},
		{"https://a.test/v1", "https://a.test/v1/%25252e%25252e/admin", false},
		{"https://a.test/v1", "https://a.test/v1/..%2fadmin", false},
		{"https://a.test/v1", "https://a.test/v1/x%2f..%2f..%2fadmin", false},
		{"https://a.test/v1", "https://a.test/v1/..;a=b/admin", false},
		{"https://a.test/v1", "https://a.test/v1/..%3b/admin", false},
		{"https://a.test/v1", "https://a.test/v1/..%5cadmin", false},
		{"https://a.test/v1", "https://a.test/v1/a%5cb", false},
		{"https://a.test/v1", "https://a.test/v1/a%00b", false},
		{"https://a.test/v1", "https://a.test/v1/a%0d%0ab", false},
		{"https://a.test/v1", "https://a.test/v1/a#b", false},

		{"", "https://a.test/", false},
		{"https://", "https://a.test/", false},
		{"https://a.test?x", "https://a.test/", false},
		{"https://u@a.test", "https://a.test/", false},
		{"a.test", "https://a.test/", false},
		{"ftp://a.test", "ftp://a.test/", false},
		{"https://a.test/v1/../", "https://a.test/", false},
	} {
		u, err := url.Parse(c.url)
		got := err == nil && outbound.Bound{Bases: []string{c.base}}.Contains(u)
		if got != c.want {
			t.Errorf("base %q, URL %q: got %v, want %v", c.base, c.url, got, c.want)
		}
	}
	two := outbound.Bound{Bases: []string{"https://a.test/x", "https://b.test"}}
	u, _ := url.Parse("https://b.test/y")
	if !two.Contains(u) || (outbound.Bound{}).Contains(u) {
		t.Error("any base suffices, and no base contains nothing")
	}
}

func TestCheckNamesTheFault(t *testing.T) {
	t.Parallel()
	c := newClient(t, outbound.Policy{})
	for _, bad := range []string{"", "x", "ftp://a.test", "https://", "https://u:" + canary + "@a.test", "https://a.test/#f", "https://a.test:0",
		"https://a.test:", "https://a.test:99999", "https://bücher.test", "https://a..test", "https://[fe80::1%25eth0]/", "https://a.test/..", "https://a.test/ x?a b"} {
		err := c.Check(t.Context(), bad)
		if !fault.Is(err, "url_invalid") || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: got %v, want url_invalid", bad, err)
		}
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("the error quotes the URL: %v", err)
		}
	}
	if err := c.Check(t.Context(), "https://a.test/oauth?tenant=1"); err != nil {
		t.Errorf("got %v, want an ordinary URL taken", err)
	}
}

// FuzzBound holds that a URL within the bound goes to the base's authority, by
// a reading of the text that shares nothing with the code, and stays below the
// base's path however often a server decodes and cleans it.
func FuzzBound(f *testing.F) {
	for _, seed := range []string{"https://a.test/v1/x", "https://a.test/v1/%2e%2e/x", "https://a.test/v1/..;/x", "https://a.test\\@evil/v1", "https://a.test/v1/%252e./",
		"https://a.test:443/v1?x#y", "HTTPS://A.TEST/v1//x", "https://a.test/v1/\u2025/x", "https://a.test@evil/v1/", "https://a.test/v1/a%2f%2e%2e%2f%2e%2e"} {
		f.Add(seed)
	}
	bound := outbound.Bound{Bases: []string{"https://a.test/v1"}}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.Parse(raw)
		if err != nil || !bound.Contains(u) {
			return
		}
		text := strings.ToLower(u.String())
		rest, ok := strings.CutPrefix(text, "https://")
		if !ok {
			t.Fatalf("%q: not https", text)
		}
		authority := rest
		if i := strings.IndexAny(rest, "/\\?#"); i >= 0 {
			authority = rest[:i]
		}
		if authority != "a.test" && authority != "a.test:443" {
			t.Fatalf("%q goes to %q", text, authority)
		}
		target := u.EscapedPath()
		for range 10 {
			cleaned := path.Clean("/" + strings.ReplaceAll(target, "\\", "/"))
			if cleaned != "/v1" && !strings.HasPrefix(cleaned, "/v1/") {
				t.Fatalf("%q climbs to %q", raw, cleaned)
			}
			if target, err = url.PathUnescape(target); err != nil {
				return
			}
		}
	})
}
