package outbound

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Library is what a client is for that a library of someone else's holds.
type Library struct {
	// Party is whose requests they are; see [Bound].
	Party  string
	Limits Limits
	// Metadata opens the metadata services of clouds, and nothing else besides, to
	// this one client: plain http to their own addresses, written as addresses.
	// They hand the machine's own credentials to whoever asks, so it is the
	// operator who says so, and never for a request that a tenant can shape.
	Metadata bool
	// Private accepts the authorities of [Policy].Private.
	Private bool
}

// maxLibraryBody bounds what a library may send at once, in bytes.
const maxLibraryBody = 1 << 20

// Library gives an http.Client for a library that takes nothing else, such as the
// SDK of a cloud. Each request goes through [Client.Do], bound to its own host:
// the library chooses whom it asks, and the addresses are judged as always.
// Redirects are answers.
func (c *Client) Library(l Library) *http.Client {
	if l.Private && c.private != nil {
		c = c.private
	}
	t := &trip{client: c, library: l}
	if l.Metadata {
		t.metadata = c.transport(nil)
		t.metadata.DisableKeepAlives = true
		t.metadata.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return c.counted(ctx, c.clouds, network, addr)
		}
	}
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// controlMetadata is the reverse of the other dialers' rule.
func controlMetadata(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || ap.Port() != 80 || !metadata(ap.Addr()) {
		return &deniedAddress{"not a metadata service"}
	}
	return nil
}

// trip carries the requests of one library.
type trip struct {
	client   *Client
	library  Library
	metadata *http.Transport // nil: not allowed
}

func (t *trip) RoundTrip(req *http.Request) (*http.Response, error) {
	out, err := replay(req)
	if err != nil {
		return nil, err
	}
	if t.metadata != nil && out.URL.Scheme == "http" && namesMetadata(out.URL.Hostname()) {
		return t.ask(out)
	}
	base := out.URL.Scheme + "://" + out.URL.Host
	got, err := t.client.Do(req.Context(), Bound{Bases: []string{base}, Party: t.library.Party}, out, t.library.Limits)
	if err != nil {
		return nil, err
	}
	return answer(req, got.Status, got.Header, got.Body), nil
}

// replay reads the body, so that a request can be sent again on a fresh
// connection when an idle one turns out to be dead.
func replay(req *http.Request) (*http.Request, error) {
	out := req.Clone(req.Context())
	if req.Body == nil || req.Body == http.NoBody {
		return out, nil
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, maxLibraryBody+1))
	_ = req.Body.Close()
	if err != nil {
		return nil, errors.New("the body of a request cannot be read")
	}
	if len(body) > maxLibraryBody {
		return nil, fault.New(fault.Invalid, "request_invalid", "The request's body is over the limit.")
	}
	out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	out.Body, _ = out.GetBody()
	out.ContentLength = int64(len(body))
	return out, nil
}

func namesMetadata(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && metadata(a)
}

// ask puts a question to a metadata service.
func (t *trip) ask(req *http.Request) (*http.Response, error) {
	limit := t.library.Limits.Timeout
	if limit <= 0 {
		limit = t.client.timeout
	}
	ctx, cancel := context.WithTimeout(req.Context(), limit)
	defer cancel()
	a := &attempt{host: req.URL.Host}
	resp, err := t.metadata.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, a.fail(req.Context(), ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := readBody(resp, maxLibraryBody)
	if err != nil {
		return nil, a.fail(req.Context(), ctx, err)
	}
	return answer(req, resp.StatusCode, resp.Header, body), nil
}

func answer(req *http.Request, status int, header http.Header, body []byte) *http.Response {
	return &http.Response{
		Status: http.StatusText(status), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: req,
	}
}
