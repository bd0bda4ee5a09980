package outbound

import (
	"crypto/tls"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Bound is the set of places that one request may go to. Each base is
// "scheme://host[:port][/path]"; a URL lies within it when scheme, host and port
// are equal and its path is the base's path or continues it by whole segments.
// Paths are compared in their encoded form. An empty Bound contains nothing, and
// so does a base that is not well-formed.
type Bound struct {
	Bases []string
	// Party is whose request it is, such as the connection whose credential it
	// carries. Only requests of one party share an HTTP/1 connection; without a
	// party each takes one of its own.
	Party string
	// Certificate is presented to a server that asks for one. Such a request has a
	// connection of its own, which nobody uses after it.
	Certificate *tls.Certificate
}

// urlRef is a URL that passed parse or reparse: absolute, http or https, without
// userinfo and fragment, host in lower-case ASCII or a canonical literal, path
// without dot segments in any encoding.
type urlRef = url.URL

// Contains reports whether u lies within one of the bases.
func (b Bound) Contains(u *url.URL) bool {
	ref, err := reparse(u)
	if err != nil {
		return false
	}
	for _, raw := range b.Bases {
		base, err := parse(raw)
		if err != nil || base.RawQuery != "" || base.ForceQuery {
			continue
		}
		if base.Scheme != ref.Scheme || hostPort(base) != hostPort(ref) {
			continue
		}
		prefix := strings.TrimRight(base.EscapedPath(), "/")
		path := ref.EscapedPath()
		if prefix == "" || path == prefix || strings.HasPrefix(path, prefix+"/") {
			return true
		}
	}
	return false
}

func badURL(message string) *fault.Error {
	return fault.New(fault.Invalid, "url_invalid", message)
}

// reparse judges u in the form in which it would be sent. Fields of a url.URL
// set by hand can contradict each other; a URL that does not survive being
// written and read is refused.
func reparse(u *url.URL) (*urlRef, error) {
	if u.Opaque != "" {
		return nil, badURL("The URL is not a hierarchical one.")
	}
	ref, err := parse(u.String())
	if err != nil {
		return nil, err
	}
	if host, ok := canonicalHost(u.Hostname()); !ok || host != ref.Hostname() || u.Port() != ref.Port() || u.RawQuery != ref.RawQuery {
		return nil, badURL("The URL is ambiguous: its parts do not survive being written as text.")
	}
	return ref, nil
}

func parse(raw string) (*urlRef, error) {
	if head, _, _ := strings.Cut(raw, "?"); strings.ContainsRune(head, '\\') {
		return nil, badURL("The URL holds a backslash.")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, badURL("The URL is not well-formed.")
	}
	u.Scheme = strings.ToLower(u.Scheme)
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, badURL("The URL's scheme is neither https nor http.")
	case u.Opaque != "" || u.Host == "":
		return nil, badURL("The URL names no host.")
	case u.User != nil:
		return nil, badURL("The URL carries a user name or password.").WithHint("Remove the part before the @.")
	case u.Fragment != "" || strings.HasSuffix(raw, "#"):
		return nil, badURL("The URL carries a fragment.")
	}
	host, ok := canonicalHost(u.Hostname())
	if !ok {
		return nil, badURL("The URL's host is not a plain host name or address.").
			WithHint("Write the host in ASCII letters (xn-- form for other scripts), without a zone.")
	}
	if port := u.Port(); port != "" {
		if !validPort(port) {
			return nil, badURL("The URL's port is not a number between 1 and 65535.")
		}
		u.Host = net.JoinHostPort(host, port)
	} else if strings.HasSuffix(u.Host, ":") {
		return nil, badURL("The URL's port is empty.")
	} else if strings.Contains(host, ":") {
		u.Host = "[" + host + "]"
	} else {
		u.Host = host
	}
	for _, target := range []string{u.EscapedPath(), u.RawQuery} {
		for i := range len(target) {
			if b := target[i]; b <= ' ' || b >= 0x7f || b == '#' {
				return nil, badURL("The URL holds a blank, a control character or an unencoded letter.")
			}
		}
	}
	if !plainPath(u.EscapedPath()) {
		return nil, badURL("The URL's path holds a dot segment, a backslash or a control character, possibly encoded.")
	}
	return u, nil
}

// plainPath refuses what a server may read as a step upwards, in whatever
// encoding. Decoding goes on until nothing changes, since servers and the
// proxies before them each decode once; five layers have no honest use. A server
// that cuts path parameters sees "..;x" as "..", so the part before the
// semicolon counts.
func plainPath(path string) bool {
	for range 5 {
		for i := range len(path) {
			if b := path[i]; b < ' ' || b == 0x7f || b == '\\' {
				return false
			}
		}
		for segment := range strings.SplitSeq(path, "/") {
			name, _, _ := strings.Cut(segment, ";")
			if name == "." || name == ".." {
				return false
			}
		}
		decoded := DecodeOnce(path)
		if decoded == path {
			return true
		}
		path = decoded
	}
	return false
}

// hostPort is the canonical "host:port" of u with the scheme's default port.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "80"
		if u.Scheme == "https" {
			port = "443"
		}
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// canonicalHost returns the one spelling of a host by which it is compared.
func canonicalHost(host string) (string, bool) {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.String(), a.Zone() == ""
	}
	if host == "" || len(host) > 253 || strings.HasPrefix(host, ".") || strings.Contains(host, "..") {
		return "", false
	}
	for i := range len(host) {
		b := host[i] | 0x20
		if (b < 'a' || b > 'z') && (host[i] < '0' || host[i] > '9') && host[i] != '-' && host[i] != '.' && host[i] != '_' {
			return "", false
		}
	}
	return strings.ToLower(host), true
}

func validPort(port string) bool {
	if port == "" || len(port) > 5 || port[0] == '0' {
		return false
	}
	n := 0
	for i := range len(port) {
		if port[i] < '0' || port[i] > '9' {
			return false
		}
		n = n*10 + int(port[i]-'0')
	}
	return n <= 65535
}

// Listed reports whether an operator's list of hosts has host: as it is written, or by
// *.example.com, which is every name below example.com and not that name. Both sides are
// lower-case, and with a port or without one alike.
func Listed(list []string, host string) bool {
	return slices.ContainsFunc(list, func(h string) bool {
		below, wild := strings.CutPrefix(h, "*")
		return !wild && h == host || wild && strings.HasSuffix(host, below) && len(host) > len(below)
	})
}

// allowKey is the canonical form of one entry of Policy.Allow.
func allowKey(entry string) (string, error) {
	bad := fault.New(fault.Invalid, "outbound_entry_invalid", "The outbound list has an entry that is not host:port.").With("entry", entry).
		WithHint(`Write one host and port an entry, such as "gitlab.internal:443", "10.0.0.5:8443" or "[fd00::5]:443". Wildcards, schemes and paths are not taken.`)
	host, port, err := net.SplitHostPort(strings.TrimSpace(entry))
	if err != nil || !validPort(port) {
		return "", bad.WithCause(err)
	}
	host, ok := canonicalHost(host)
	if !ok {
		return "", bad
	}
	return net.JoinHostPort(host, port), nil
}
