package agent

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
)

const (
	maxRedirects   = 10
	maxRedirectLen = 512
)

// loopbackHosts are the spellings under which a program listens on its own
// machine. A redirect to one of them may use any port (RFC 8252 §7.3).
func loopbackHosts() []string { return []string{"127.0.0.1", "[::1]", "localhost"} }

// plainSchemes are private-use schemes without a dot that are in wide use. RFC
// 8252 §7.1 asks for a dot; each name here is an editor that ignores that.
func plainSchemes() []string { return []string{"cursor"} }

// MatchRedirect reports whether got is one of the registered redirect URIs:
// byte for byte, except that the port of a loopback redirect is free. It cuts
// strings and parses nothing, so no two parsers can disagree about it
// (threats.md G1).
func MatchRedirect(registered []string, got string) bool {
	return slices.ContainsFunc(registered, func(uri string) bool {
		if uri == got {
			return true
		}
		for _, host := range loopbackHosts() {
			prefix := "http://" + host
			want, ok := afterPort(uri, prefix)
			if !ok {
				continue
			}
			rest, ok := afterPort(got, prefix)
			return ok && rest == want
		}
		return false
	})
}

// afterPort cuts prefix and an optional valid port off uri.
func afterPort(uri, prefix string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(uri, prefix)
	if !ok {
		return "", false
	}
	if port, found := strings.CutPrefix(rest, ":"); found {
		n := 0
		for n < len(port) && port[n] >= '0' && port[n] <= '9' {
			n++
		}
		if !validPort(port[:n]) {
			return "", false
		}
		rest = port[n:]
	}
	return rest, rest == "" || rest[0] == '/' || rest[0] == '?'
}

func validPort(s string) bool {
	if len(s) == 0 || len(s) > 5 || s[0] == '0' {
		return false
	}
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n <= 65535
}

// redirectKind tells where a redirect goes.
type redirectKind int

const (
	redirectWeb      redirectKind = iota + 1 // https
	redirectLoopback                         // http on this machine
	redirectPrivate                          // a scheme that an app on this machine claims
)

// parseRedirect checks a redirect URI at registration. Only one spelling of
// each place passes: what a browser would rewrite before following is refused.
func parseRedirect(raw string) (redirectKind, error) {
	bad := func(why string) (redirectKind, error) {
		return 0, fault.New(fault.Invalid, "invalid_redirect_uri", "A redirect URI "+why+".").
			WithHint("Register an https URL, an http URL on localhost, 127.0.0.1 or [::1], or a private scheme with a dot such as com.example.app:/callback.")
	}
	if raw == "" || len(raw) > maxRedirectLen {
		return bad(fmt.Sprintf("has 1 to %d characters", maxRedirectLen))
	}
	for i := range len(raw) {
		// Backslash is a slash to browsers; the rest never stands bare in a URI.
		if c := raw[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\\\"<>^`{|}#", c) >= 0 {
			return bad("is plain ASCII without spaces, backslashes or fragment")
		}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return bad("is a valid absolute URI")
	}
	scheme, rest, _ := strings.Cut(raw, ":")
	switch {
	case u.Scheme == "" || scheme != u.Scheme:
		return bad("starts with its scheme, in lower case")
	case u.User != nil || u.Host != "" && strings.Contains(u.Host, "@"):
		return bad("holds no user name")
	case u.Fragment != "" || u.RawFragment != "":
		return bad("has no fragment")
	}
	for _, seg := range strings.Split(u.Path, "/") {
		if seg == "." || seg == ".." {
			return bad("has no . or .. in its path")
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return bad("has a well-formed query")
	}
	for _, own := range []string{"code", "state", "iss", "error", "error_description", "error_uri"} {
		if query.Has(own) {
			return bad("does not itself carry " + own)
		}
	}
	switch {
	case u.Scheme == "https", u.Scheme == "http":
		return parseWebRedirect(u, rest, bad)
	case slices.Contains(plainSchemes(), u.Scheme), strings.Contains(u.Scheme, "."):
		if !strings.HasPrefix(rest, "/") {
			return bad("of a private scheme goes on with a slash")
		}
		return redirectPrivate, nil
	}
	return bad("uses https, http on this machine, or a private scheme with a dot")
}

func parseWebRedirect(u *url.URL, rest string, bad func(string) (redirectKind, error)) (redirectKind, error) {
	authority, ok := strings.CutPrefix(rest, "//")
	if !ok || u.Opaque != "" {
		return bad("names a host")
	}
	if i := strings.IndexAny(authority, "/?"); i >= 0 {
		authority = authority[:i]
	}
	host, port := authority, ""
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && !strings.HasSuffix(authority, "]") {
		host, port = authority[:i], authority[i+1:]
		if !validPort(port) {
			return bad("has a port from 1 to 65535")
		}
	}
	if authority != u.Host || !plainHost(host) {
		return bad("has a plain lower-case host name")
	}
	if u.Scheme == "https" {
		return redirectWeb, nil
	}
	if !slices.Contains(loopbackHosts(), host) {
		return bad("uses http only on localhost, 127.0.0.1 or [::1]")
	}
	return redirectLoopback, nil
}

// plainHost accepts lower-case DNS names and addresses in their usual form.
func plainHost(host string) bool {
	if v6, ok := strings.CutPrefix(host, "["); ok {
		ip, err := netip.ParseAddr(strings.TrimSuffix(v6, "]"))
		return err == nil && "["+ip.String()+"]" == host && ip.Zone() == ""
	}
	if host == "" || len(host) > 253 {
		return false
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	// A last label of digits, or 0x…, makes a browser read the host as an IPv4
	// address in one of many spellings; only the dotted one passes.
	if last := labels[len(labels)-1]; last[0] >= '0' && last[0] <= '9' {
		ip, err := netip.ParseAddr(host)
		return err == nil && ip.String() == host
	}
	return true
}

// RedirectHost is what a person is shown of a redirect URI: the host it goes
// to, or that it stays on their own machine (threats.md G4).
func RedirectHost(uri string) string {
	u, err := url.Parse(uri)
	switch {
	case err != nil:
		return "an unreadable address"
	case u.Scheme == "http":
		return "this computer (" + u.Hostname() + ")"
	case u.Scheme == "https":
		return u.Host
	}
	return "an app on this computer (" + u.Scheme + ")"
}

// answerRedirect adds the parameters of an authorization response to uri.
func answerRedirect(uri string, params url.Values) string {
	sep := "?"
	if strings.Contains(uri, "?") {
		sep = "&"
	}
	return uri + sep + params.Encode()
}
