package agent_test

import (
	"net/netip"
	"net/url"
	"testing"

	"github.com/ambit-dev/ambit/internal/agent"
)

// G1: the corpus of redirects that are not the registered one.
func TestRedirectMatchesExactly(t *testing.T) {
	t.Parallel()
	const web = "https://app.example.com/cb?tenant=1"
	const loop = "http://localhost:3000/callback"
	registered := []string{web, loop, "http://127.0.0.1/cb", "http://[::1]:8080/cb", "com.example.app:/cb", "http://localhost"}
	for _, ok := range []string{
		web, loop, "com.example.app:/cb",
		"http://localhost/callback", "http://localhost:1/callback", "http://localhost:65535/callback",
		"http://127.0.0.1:49152/cb", "http://[::1]/cb", "http://[::1]:9/cb", "http://localhost:5000",
	} {
		if !agent.MatchRedirect(registered, ok) {
			t.Errorf("%q refused, want accepted", ok)
		}
	}
	for _, bad := range []string{
		"",
		"https://app.example.com/cb",
		"https://app.example.com/cb?tenant=2",
		"https://app.example.com/cb?tenant=1&x=1",
		"https://app.example.com/cb?tenant=1#",
		"https://app.example.com/cb?tenant=1#frag",
		"https://app.example.com:443/cb?tenant=1",
		"https://app.example.com:8443/cb?tenant=1",
		"https://app.example.com/cb/?tenant=1",
		"https://app.example.com/cb/../cb?tenant=1",
		"https://app.example.com//cb?tenant=1",
		"https://app.example.com/%63b?tenant=1",
		"https://app.example.com/CB?tenant=1",
		"https://APP.example.com/cb?tenant=1",
		"HTTPS://app.example.com/cb?tenant=1",
		"http://app.example.com/cb?tenant=1",
		"https://app.example.com./cb?tenant=1",
		"https://app.example.com.evil.example/cb?tenant=1",
		"https://evil.example/app.example.com/cb?tenant=1",
		"https://app.example.com@evil.example/cb?tenant=1",
		"https://user:pw@app.example.com/cb?tenant=1",
		"https://evil.example\\@app.example.com/cb?tenant=1",
		"https://app.example.com\\@evil.example/cb?tenant=1",
		"https://app.example.com%2f@evil.example/cb?tenant=1",
		"//app.example.com/cb?tenant=1",
		"/cb?tenant=1",
		" https://app.example.com/cb?tenant=1",
		"https://app.example.com/cb?tenant=1 ",
		"https://app.example.com/cb?tenant=1\n",
		"https://app.example.com/cb?tenant=1\x00",
		"https:/app.example.com/cb?tenant=1",
		"https://app.example.com/cb;@evil.example?tenant=1",
		"http://localhost:3000/callback/",
		"http://localhost:3000/callback?x=1",
		"http://localhost:3000/callback#x",
		"http://localhost:3000@evil.example/callback",
		"http://localhost:/callback",
		"http://localhost:0/callback",
		"http://localhost:00080/callback",
		"http://localhost:65536/callback",
		"http://localhost:+80/callback",
		"http://localhost:80:80/callback",
		"http://localhost:80evil/callback",
		"http://localhost.evil.example:3000/callback",
		"http://localhost@evil.example/callback",
		"https://localhost:3000/callback",
		"http://LOCALHOST:3000/callback",
		"http://127.0.0.1:3000/callback", // registered as localhost
		"http://localhost:3000/cb",       // registered on 127.0.0.1
		"http://127.1/cb",
		"http://0x7f000001/cb",
		"http://127.0.0.2/cb",
		"http://[::ffff:127.0.0.1]/cb",
		"http://[0:0:0:0:0:0:0:1]/cb",
		"http://[::1%25lo]/cb",
		"http://0.0.0.0/cb",
		"http://localhost:5000/",
		"com.example.app://cb",
		"com.example.app:/cb/",
		"com.example.app.evil:/cb",
		"javascript:alert(1)",
		"data:text/html,x",
	} {
		if agent.MatchRedirect(registered, bad) {
			t.Errorf("%q accepted, want refused", bad)
		}
	}
}

// FuzzMatchRedirect's oracle: what is accepted leads a standard parser to the
// same place, but for the port of a loopback address.
func FuzzMatchRedirect(f *testing.F) {
	f.Add("https://app.example.com/cb", "https://app.example.com/cb")
	f.Add("http://localhost:1/cb", "http://localhost:2/cb")
	f.Add("http://[::1]/cb?x=1", "http://[::1]:80/cb?x=1")
	f.Add("http://127.0.0.1/cb", "http://127.0.0.1:80@evil.example/cb")
	f.Add("http://127.0.0.1/cb", ":80")
	f.Add("http://localhost:8/cb", "@evil.example/")
	f.Fuzz(func(t *testing.T, registered, got string) {
		if agent.CheckRedirect(registered) != nil {
			return
		}
		checkMatch(t, registered, got)
		for i := range registered { // the same text pushed into every place
			checkMatch(t, registered, registered[:i]+got+registered[i:])
		}
	})
}

func checkMatch(t *testing.T, registered, got string) {
	t.Helper()
	if registered == got || !agent.MatchRedirect([]string{registered}, got) {
		return
	}
	want, err := url.Parse(registered)
	if err != nil {
		t.Fatalf("%q was registered and does not parse: %v", registered, err)
	}
	have, err := url.Parse(got)
	if err != nil {
		t.Fatalf("%q was accepted for %q and does not parse: %v", got, registered, err)
	}
	if have.Scheme != want.Scheme || have.Hostname() != want.Hostname() || have.EscapedPath() != want.EscapedPath() ||
		have.RawQuery != want.RawQuery || have.User != nil || have.Fragment != "" {
		t.Errorf("%q was accepted for %q", got, registered)
	}
	ip, err := netip.ParseAddr(want.Hostname())
	if want.Scheme != "http" || want.Hostname() != "localhost" && (err != nil || !ip.IsLoopback()) {
		t.Errorf("%q differs from %q, which is no loopback redirect", got, registered)
	}
}

func TestRedirectsThatCanBeRegistered(t *testing.T) {
	t.Parallel()
	for _, ok := range []string{
		"https://app.example.com/cb", "https://app.example.com", "https://app.example.com:8443/cb?a=b", "https://192.0.2.1/cb",
		"https://[2001:db8::1]/cb", "http://localhost:3000/cb", "http://localhost/cb", "http://127.0.0.1:1/cb", "http://[::1]:65535/",
		"com.example.app:/cb", "com.example.app://oauth/cb", "cursor://anysphere.cursor-mcp/oauth/callback",
		"https://app.example.com/a%20b", "https://vscode.dev/redirect",
	} {
		if err := agent.CheckRedirect(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{
		"", "https://", "https:", "https:///cb", "https:app.example.com", "//app.example.com/cb", "/cb", "app.example.com/cb",
		"http://app.example.com/cb", "http://192.168.1.1/cb", "http://127.0.0.2/cb", "http://localhost.example.com/cb", "http://0.0.0.0/cb",
		"https://app.example.com/cb#", "https://app.example.com/cb#x", "https://u@app.example.com/cb", "https://u:p@app.example.com/cb",
		"https://@app.example.com/cb", "https://app.example.com\\@evil.example", "https://app.example.com/a\\b", "https://app.example.com/a b",
		"https://app.example.com/\x00", "https://app.example.com/ü", "https://APP.example.com/cb", "HTTPS://app.example.com/cb",
		"https://app.example.com:0/cb", "https://app.example.com:/cb", "https://app.example.com:99999/cb", "https://app.example.com:080/cb",
		"https://app.example.com./cb", "https://app..example.com/cb", "https://-a.example.com/cb", "https://*.example.com/cb",
		"https://app.example.com/../cb", "https://app.example.com/%2e%2e/cb", "https://app.example.com/./cb",
		"https://app%2eexample.com/cb", "https://127.1/cb", "https://0x7f.1/cb", "https://[::1%25lo]/cb", "https://[0:0::1]/cb", "https://2130706433/cb",
		"https://app.example.com/cb?code=1", "https://app.example.com/cb?a=1&state=x", "https://app.example.com/cb?iss=x", "https://app.example.com/cb?%zz",
		"javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "myapp:/cb", "myapp://cb", "ftp://example.com/", "com.example.app:cb",
		"vbscript:x", "about:blank", "blob:https://app.example.com/x", "https://app.example.com/{x}", "https://app.example.com/<x>",
	} {
		if err := agent.CheckRedirect(bad); err == nil {
			t.Errorf("%q was registered, want refused", bad)
		}
	}
}

func FuzzCheckRedirect(f *testing.F) {
	f.Add("https://app.example.com:8443/cb?a=b")
	f.Add("com.example.app:/cb")
	f.Add("http://[::1]:1/")
	f.Fuzz(func(t *testing.T, s string) {
		if agent.CheckRedirect(s) != nil {
			return
		}
		u, err := url.Parse(s)
		if err != nil || !u.IsAbs() || u.User != nil || u.Fragment != "" || u.Scheme == "javascript" || u.Scheme == "data" {
			t.Errorf("%q was accepted: %+v %v", s, u, err)
		}
		if !agent.MatchRedirect([]string{s}, s) {
			t.Errorf("%q does not match itself", s)
		}
		if host := agent.RedirectHost(s); host == "" {
			t.Errorf("%q shows no host", s)
		}
	})
}
