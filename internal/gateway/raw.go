package gateway

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/session"
)

// Raw is one HTTP request of an agent's own client, as a door received it: a
// request of the relay, one inside a tunnel, a stream of HTTP/2.
type Raw struct {
	Identity   agent.Identity
	Handle     string        // of the session; empty for a token bound to one
	Connection id.Connection // which account, where several could serve; may be empty
	Provider   string        // its id, if the caller names it

	Method string
	// URL is where the request is to go, absolute. Without a host it is a path and
	// query below the API of Provider, which must be named then. What is in it
	// chooses among the places that the session's accounts are bound to; it leads
	// nowhere else.
	URL *url.URL
	// Header is as it came. What belongs to the client's connection with the door,
	// says who the client is, or carries a cookie, goes no further.
	Header http.Header
	// Body is read while it is sent, after the first MiB of it was read to decide;
	// nil: none. It is not closed. Length is its size in bytes; -1: not known.
	Body   io.Reader
	Length int64
	// Trailer is filled by the time that Body ends; its names are there before.
	Trailer http.Header
	// Upgrade asks for a switch to WebSocket (RFC 6455 §4.1), whose other headers are
	// in Header: the answer has [Exchange.Socket] when the provider agrees. It takes
	// no extension, so that frames can be read.
	Upgrade bool

	Door        string // relay or proxy, for the record
	Address     string // of the client
	Traceparent string // see [Call]
}

// candidate is a granted connection that a raw request is within the places of.
type candidate struct {
	reached session.Reached
	url     *url.URL
}

// places finds the granted connections that a request can be for.
func places(live session.Live, r Raw) ([]candidate, error) {
	var out []candidate
	reach := live.Reach(r.Provider, r.Connection)
	for _, c := range reach {
		if u := placeIn(c.Pinned(), r.URL); u != nil {
			out = append(out, candidate{c, u})
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case len(reach) == 0 && r.Provider != "":
		return nil, fault.New(fault.Denied, "not_granted", "This session has no account of this provider.").
			WithHint("Request a session that names the provider, and tell the person why.")
	}
	return nil, fault.New(fault.Denied, "destination_denied", "This session has no account that is bound to this place.").
		WithHint("Use the hosts and paths of the session's accounts, or request a session for another provider.")
}

// placeIn gives the URL of a request at one of an account's places; nil when it is at
// none.
func placeIn(pinned provider.Pinned, u *url.URL) *url.URL {
	bases := pinned.Raw(u.Path)
	bound := outbound.Bound{Bases: bases}
	if u.Host != "" {
		if bound.Contains(u) {
			return u
		}
		return nil
	}
	// A path may be written below the base, or whole, as clients do that were told
	// another host.
	path := "/" + strings.TrimLeft(u.EscapedPath(), "/")
	for _, whole := range []bool{true, false} {
		for _, raw := range bases {
			base, err := url.Parse(raw)
			if err != nil {
				continue
			}
			text := strings.TrimRight(raw, "/") + path
			if prefix := strings.TrimRight(base.EscapedPath(), "/"); whole {
				if prefix == "" || path != prefix && !strings.HasPrefix(path, prefix+"/") {
					continue
				}
				text = base.Scheme + "://" + base.Host + path
			}
			at, err := url.Parse(text)
			if err != nil {
				continue
			}
			if at.RawQuery = u.RawQuery; bound.Contains(at) {
				return at
			}
		}
	}
	return nil
}

// aim finds the account and the tool that a request is a call of.
func aim(found []candidate, r Raw, seen provider.Raw) (session.Target, *provider.Request, error) {
	var targets []session.Target
	var requests []*provider.Request
	var serving []session.Reached
	var refused error
	var first session.Target
	for _, c := range found {
		seen.URL = c.url
		readings, err := c.reached.Record().Read(seen, c.reached.Pinned().Raw("")...)
		if err != nil {
			refused = cmp.Or(refused, err)
			continue
		}
		t, req, ok := c.reached.Choose(readings)
		if first.Tool.Name == "" {
			first = t
		}
		if ok {
			targets, requests, serving = append(targets, t), append(requests, req), append(serving, c.reached)
		}
	}
	switch {
	case len(targets) == 1:
		return targets[0], requests[0], nil
	case len(targets) > 1:
		return session.Target{}, nil, session.Ambiguous(serving)
	case refused != nil:
		return first, nil, refused
	}
	return first, nil, fault.New(fault.Denied, "not_granted", "This session does not include "+first.Tool.Name+", which this request is a call of.").
		WithHint("Request a session that names the tool, and tell the person why.").With("tool", first.Tool.Name)
}

// body is the body of a raw request while it is read.
type body struct {
	first []byte // what was read to decide
	whole bool
	rest  io.Reader // all of it, when it is not whole
}

// readFirst reads the beginning of a body, unless it is one side of a talk: then
// the client may wait for an answer before it goes on.
func readFirst(r Raw) (body, error) {
	if r.Body == nil || r.Length == 0 {
		return body{whole: true, first: []byte{}}, nil
	}
	if Talks(r.Method, r.Header) {
		return body{rest: r.Body}, nil
	}
	first, err := io.ReadAll(io.LimitReader(r.Body, provider.MaxRead+1))
	if err != nil {
		return body{}, fault.New(fault.Invalid, "body_incomplete", "The body of the request did not arrive whole.").WithCause(err)
	}
	if len(first) <= provider.MaxRead && len(r.Trailer) == 0 {
		return body{first: first, whole: true}, nil
	}
	return body{first: first[:min(len(first), provider.MaxRead)], whole: false, rest: io.MultiReader(bytes.NewReader(first), r.Body)}, nil
}

// Talks reports whether a body may be one side of a talk, as in gRPC.
func Talks(method string, h http.Header) bool {
	media, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return method == http.MethodPost && (strings.HasPrefix(media, "application/grpc") || media == "application/connect+proto")
}

// check refuses a request that no client of good will sends, before any work.
func (r Raw) check() error {
	if r.URL == nil || r.URL.Host == "" && r.Provider == "" {
		return fault.New(fault.Invalid, "url_invalid", "The request names no place.")
	}
	if r.Method == http.MethodTrace || r.Method == "TRACK" || r.Method == http.MethodConnect {
		return fault.New(fault.Denied, "method_refused", "The method "+printable(r.Method)+" is refused: it would show what was sent.")
	}
	if r.Upgrade && (r.Method != http.MethodGet || r.Body != nil && r.Length != 0) {
		return fault.New(fault.Denied, "socket_refused", "A WebSocket is opened by a GET without a body (RFC 6455 §4.1).")
	}
	for name, values := range r.Header {
		if name == "Authorization" || name == "Proxy-Authorization" {
			continue
		}
		if slices.ContainsFunc(values, holdsOurs) {
			return ownCredential("The header " + name)
		}
	}
	if holdsOurs(r.URL.RawQuery) || holdsOurs(r.URL.Path) {
		return ownCredential("The URL")
	}
	return nil
}

// holdsOurs reports whether text holds a credential of ours, which must not go on
// (threats.md S1). A session's handle is none.
func holdsOurs(text string) bool {
	return slices.ContainsFunc([]string{"amb_at_", "amb_rt_", "amb_cs_"}, func(p string) bool { return strings.Contains(text, p) })
}

func ownCredential(where string) error {
	return fault.New(fault.Denied, "own_credential", where+" holds an Ambit token, which would go to the provider.").
		WithHint("Send the token only where the door takes it.")
}

var errGiven = errors.New("given up by the client")
