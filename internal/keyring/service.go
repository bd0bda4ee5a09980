package keyring

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
)

// Ref makes the name of a root key out of the one spelling by which its service
// knows it: the scheme and a fingerprint, such as "awskms:3f9c0a4be1d27a55".
func Ref(scheme, name string) string {
	sum := sha256.Sum256(crypt.Fields("ambit root key name", scheme, name))
	return scheme + ":" + hex.EncodeToString(sum[:8])
}

// Digest is the fixed-size form of a context, labels included, for services that
// bind a blob to bytes.
func (c Context) Digest() []byte {
	sum := sha256.Sum256(crypt.Fields("ambit keeper context 1", string(c.AAD), c.Purpose, c.Environment, c.Organization))
	return sum[:]
}

// BadURI says what is wrong with the URI of a root key.
func BadURI(scheme, problem, form string) *fault.Error {
	return fault.New(fault.Invalid, "root_key_uri_invalid", "The URI of the root key is not one of "+scheme+": "+problem+".").
		WithHint("Write " + form + ". Credentials never stand in it.")
}

// ParseURI reads the URI of a root key. It takes the parameters that are named,
// each once, and nothing else: no user, password or fragment.
func ParseURI(uri, scheme, form string, params ...string) (*url.URL, map[string]string, error) {
	u, err := url.Parse(uri)
	switch {
	case err != nil: // whose text quotes the URI
		return nil, nil, BadURI(scheme, "it is not well-formed", form)
	case u.Scheme != scheme || u.Opaque != "":
		return nil, nil, BadURI(scheme, "it does not begin with "+scheme+"://", form)
	case u.User != nil:
		return nil, nil, BadURI(scheme, "it carries a user name or password", form)
	case u.Fragment != "":
		return nil, nil, BadURI(scheme, "it carries a fragment", form)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, nil, BadURI(scheme, "its parameters are not well-formed", form)
	}
	values := make(map[string]string, len(query))
	for name, v := range query {
		if !slices.Contains(params, name) || len(v) != 1 || v[0] == "" {
			return nil, nil, BadURI(scheme, "it takes the parameters "+strings.Join(params, ", ")+", each once", form)
		}
		values[name] = v[0]
	}
	return u, values, nil
}

// Endpoint reads the address that an operator set for a service in place of its
// own: https, or http to a loopback address. Empty: none is set.
func (o Options) Endpoint(names ...string) (string, error) {
	for _, name := range names {
		raw := o.Getenv(name)
		if raw == "" {
			continue
		}
		u, err := url.Parse(raw)
		if err == nil && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "" {
			if a, aerr := netip.ParseAddr(u.Hostname()); u.Scheme == "https" || u.Scheme == "http" && aerr == nil && a.IsLoopback() {
				return strings.TrimRight(raw, "/"), nil
			}
		}
		return "", fault.New(fault.Invalid, "setting_invalid", name+" is not the https address of a service.").
			WithHint("Plain http is taken on a loopback address only.")
	}
	return "", nil
}

// Refusal is what a service answered, as far as it can be logged: services quote
// requests, headers included, in what they say to people.
type Refusal struct {
	Operation string // that was asked for
	Status    int    // of HTTP; 0: unknown
	Code      string // of the service's own
	Request   string // the service's id of the request
}

func (r *Refusal) Error() string {
	text := r.Operation + " was answered with"
	if r.Status != 0 {
		text += fmt.Sprintf(" status %d", r.Status)
	}
	if r.Code != "" {
		text += " " + word(r.Code)
	}
	if r.Request != "" {
		text += ", request " + word(r.Request)
	}
	return text
}

// word keeps of a code only what codes are made of.
func word(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.:", r) {
			return r
		}
		return -1
	}, s)
	return s[:min(len(s), 64)]
}
