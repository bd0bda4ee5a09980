package proxy

import (
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
)

// parseTarget reads the target of a CONNECT (RFC 9112 §3.2.3): exactly one host and
// one port, each in its one spelling.
func parseTarget(target string) (host, port string, err error) {
	bad := fault.New(fault.Invalid, "target_invalid", "The target of CONNECT is not host:port.").WithHint("Write the host in ASCII, and a port from 1 to 65535.")
	host, port, err = net.SplitHostPort(target)
	if err != nil {
		return "", "", bad
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return "", "", bad
	}
	name, ok := plainHost(host)
	if !ok || strings.HasPrefix(target, "[") != strings.Contains(name, ":") {
		return "", "", bad
	}
	return name, port, nil
}

// plainHost is the one spelling of a host: lower-case letters, digits, hyphens and
// underscores between dots, or an address without a zone.
func plainHost(host string) (string, bool) {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.String(), a.Zone() == "" && !a.Is4In6()
	}
	host = strings.ToLower(host)
	if host == "" || len(host) > 253 {
		return "", false
	}
	digits := true
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", false
		}
		digits = true
		for i := range len(label) {
			b := label[i]
			switch {
			case b >= '0' && b <= '9':
			case b >= 'a' && b <= 'z', b == '-', b == '_':
				digits = false
			default:
				return "", false
			}
		}
	}
	return host, !digits // what ends in a number is an address in a spelling that others read otherwise
}

// agrees reports whether the authority that a request names is that of its tunnel.
// The port may be left out where it is the scheme's own.
func agrees(authority, host, port, scheme string) bool {
	name, given, err := net.SplitHostPort(authority)
	if err != nil {
		name, given = authority, map[string]string{"http": "80", "https": "443"}[scheme]
		if strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]") {
			name = name[1 : len(name)-1]
		}
	}
	plain, ok := plainHost(name)
	return ok && plain == host && given == port
}

// credentials are what a caller of the proxy shows: a token, and with an agent's
// own token the handle of a session.
func credentials(h http.Header) (token secret.Value, handle string, err error) {
	values := h.Values("Proxy-Authorization")
	if len(values) != 1 {
		return secret.Value{}, "", noCredentials()
	}
	scheme, rest, ok := strings.Cut(values[0], " ")
	rest = strings.TrimLeft(rest, " ")
	switch {
	case ok && strings.EqualFold(scheme, "Bearer"):
		return secret.FromString(rest), "", nil
	case ok && strings.EqualFold(scheme, "Basic"):
		raw, err := base64.StdEncoding.Strict().DecodeString(rest)
		if err != nil {
			return secret.Value{}, "", noCredentials()
		}
		user, password, ok := strings.Cut(string(raw), ":")
		if !ok {
			return secret.Value{}, "", noCredentials()
		}
		if strings.HasPrefix(user, session.HandlePrefix) {
			handle = user
		}
		return secret.FromString(password), handle, nil
	}
	return secret.Value{}, "", noCredentials()
}

func noCredentials() error {
	return fault.New(fault.Unauthenticated, "proxy_credentials_missing", "The proxy wants a session's token.").
		WithHint("Start the program with `ambit run`, or put the token into the proxy's URL: http://session:TOKEN@host:port.")
}
