package transit

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
)

// The ways to get a token, as URIs name them.
const (
	authToken      = "token"
	authAppRole    = "approle"
	authKubernetes = "kubernetes"
)

// place is what a URI says.
type place struct {
	origin    string // scheme://host[:port]
	host      string // host[:port], as written
	namespace string
	mount     string // of the transit engine
	key       string
	auth      string
	authMount string
	as        string // which of the credentials for the host
}

var (
	name     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
)

func bad(what string) *fault.Error {
	return fault.New(fault.Invalid, "root_key_uri", "The address of the transit key is not one: "+what+".").
		WithHint("For example transit+https://vault.example.com:8200/transit/keys/ambit?namespace=team&auth=approle")
}

// parse reads transit+https://HOST[:PORT]/MOUNT/keys/NAME. It takes one spelling
// only: no escapes, nothing in capitals, nothing that is not known.
func parse(uri string) (p place, err error) {
	rest, ok := strings.CutPrefix(uri, "transit+")
	u, err := url.Parse(rest)
	switch {
	case !ok || err != nil || len(uri) > 1024:
		return p, bad("it does not begin with transit+https://")
	case u.Scheme != "https" && u.Scheme != "http" || !strings.HasPrefix(rest, u.Scheme+"://"): // which Parse has in small letters
		return p, bad("it does not begin with transit+https://")
	case u.User != nil:
		return p, bad("it holds a user or password, which belong into files")
	case strings.ContainsAny(rest, "%#") || u.Opaque != "":
		return p, bad("it has escapes or a fragment")
	}
	if p.host, err = checkHost(u); err != nil {
		return p, err
	}
	p.origin = u.Scheme + "://" + p.host
	parts := strings.Split(strings.TrimPrefix(u.Path, "/"), "/")
	if len(parts) < 3 || parts[len(parts)-2] != "keys" || !allNames(parts) {
		return p, bad("its path is not /MOUNT/keys/NAME")
	}
	p.mount, p.key = strings.Join(parts[:len(parts)-2], "/"), parts[len(parts)-1]
	return p, p.query(u.RawQuery)
}

func checkHost(u *url.URL) (string, error) {
	host, port := u.Hostname(), u.Port()
	addr, err := netip.ParseAddr(host)
	if err != nil && !hostName.MatchString(host) || err == nil && (addr.String() != host || addr.Zone() != "") {
		return "", bad("its host is not written in the usual way")
	}
	if n, err := strconv.ParseUint(port, 10, 16); strings.HasSuffix(u.Host, ":") || port != "" && (err != nil || strconv.FormatUint(n, 10) != port || n == 0) {
		return "", bad("its port is not written in the usual way")
	}
	if u.Scheme == "http" && host != "localhost" && (err != nil || !addr.IsLoopback()) {
		return "", bad("without TLS only loopback is asked")
	}
	if port != "" {
		return net.JoinHostPort(host, port), nil
	}
	return u.Host, nil
}

func allNames(parts []string) bool {
	return !slices.ContainsFunc(parts, func(s string) bool { return !name.MatchString(s) })
}

func (p *place) query(raw string) error {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return bad("what follows the question mark cannot be read")
	}
	for param, values := range q {
		into := map[string]*string{"namespace": &p.namespace, "auth": &p.auth, "auth-mount": &p.authMount, "as": &p.as}[param]
		if into == nil || len(values) != 1 || !allNames(strings.Split(values[0], "/")) {
			return bad("it may say namespace, auth, auth-mount and as, each once")
		}
		*into = values[0]
	}
	switch p.auth {
	case "":
		p.auth = authToken
	case authToken, authAppRole, authKubernetes:
	default:
		return bad("auth is token, approle or kubernetes")
	}
	if p.authMount == "" {
		p.authMount = p.auth
	}
	if strings.Contains(p.as, "/") {
		return bad("as is one name")
	}
	return nil
}

// identity names the key and not the way to it: whose token is shown may change.
func (p place) identity() (ref, location string) {
	location = p.origin + "/" + p.mount + "/keys/" + p.key
	if p.namespace != "" {
		location += " in the namespace " + p.namespace
	}
	sum := sha256.Sum256([]byte(p.origin + "\n" + p.namespace + "\n" + p.mount + "\n" + p.key))
	short := p.key
	if len(short) > 40 {
		short = short[:40]
	}
	return "transit:" + short + ":" + hex.EncodeToString(sum[:8]), location
}
