// Package outbound makes every HTTP request that leaves for a place a tenant
// chose. A request passes three gates: its URL must lie within the [Bound] that
// the caller pinned; its scheme must be https unless the operator listed the
// host; and the resolved address of every dial must be public unless the
// operator listed exactly that host and port. Addresses of cloud metadata
// services pass never. The address is judged on the socket about to connect, so
// a name that changes its answer after a look-up gains nothing.
//
// The client speaks to the transport directly, without http.Client: redirects
// are answers like any other, there is no cookie jar, no proxy from the
// environment, and no error that quotes a URL. What comes back is whole, decoded
// and bounded, or an error. [Sent] tells whether that error leaves open what the
// upstream did.
package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/sync/semaphore"

	"github.com/ambit-dev/ambit/internal/fault"
)

const (
	defaultBody    = 10 << 20
	defaultTimeout = 30 * time.Second
	defaultConns   = 2048
	maxHeaderBytes = 64 << 10
	maxHeaderLines = 100
	connectTimeout = 10 * time.Second
)

// Policy is what the operator decides about egress.
type Policy struct {
	// Allow lists private destinations that may be reached, each "host:port".
	// The port is required. A name is matched as written, never by what it
	// resolves to: "localhost:9123" does not open 127.0.0.1:9123.
	Allow []string
	// Tunnels are the hosts, by their full names, to whose places in Allow a
	// [Client.Tunnel] may lead. Patterns among them open nothing here.
	Tunnels []string
	// Roots are the accepted certificate authorities; nil is the system's.
	Roots *x509.CertPool
	// Private are the authorities that clients with [Library].Private accept; nil is
	// Roots. They vouch for nobody else.
	Private *x509.CertPool
	// Timeout is how long a request may take that sets no limit of its own, from
	// dial to last body byte; default 30 s.
	Timeout time.Duration
	// Connections bounds those open to all upstreams together; default 2048. At
	// the bound idle ones are closed first, then requests are refused.
	Connections int
}

// Limits bound one request. Zero fields take the defaults.
type Limits struct {
	Body    int64         // bytes of answer body after decoding; default 10 MiB
	Timeout time.Duration // from dial to last body byte; default the policy's
}

// Response is a whole answer. Body is decoded: Header has no Content-Encoding
// or Content-Length.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
	Sent   bool // always true: an answer proves that the request arrived
}

// Client is safe for concurrent use and keeps connections.
type Client struct {
	allowed  map[string]bool // canonical host:port
	tunnels  map[string]bool // canonical host
	public   *net.Dialer     // refuses what is not on the public internet
	listed   *net.Dialer     // for allowed host:port; refuses metadata only
	clouds   *net.Dialer     // for metadata services, and nothing else
	pool     *pool
	roots    *x509.CertPool
	private  *Client // with other authorities; nil: none
	timeout  time.Duration
	maxConns int64
	conns    atomic.Int64        // open, to all upstreams
	working  *semaphore.Weighted // bytes of answers that callers work on
}

// maxWorking bounds the answers that are worked on at once, in bytes.
const maxWorking = 16 << 20

// Hold waits until the process has room to work on an answer of n bytes. done
// gives the room back.
func (c *Client) Hold(ctx context.Context, n int) (done func(), err error) {
	weight := int64(min(n, maxWorking))
	if err := c.working.Acquire(ctx, weight); err != nil {
		return nil, fault.New(fault.Unavailable, "busy", "The server works on too many large answers.").WithHint("Try again in a moment.").WithCause(err)
	}
	return func() { c.working.Release(weight) }, nil
}

// New makes a client, or says which entry of the policy is wrong.
func New(p Policy) (*Client, error) {
	c := &Client{
		allowed: make(map[string]bool, len(p.Allow)), tunnels: make(map[string]bool, len(p.Tunnels)), timeout: p.Timeout, maxConns: int64(p.Connections),
		working: semaphore.NewWeighted(maxWorking),
		public:  &net.Dialer{Timeout: connectTimeout, KeepAlive: 30 * time.Second, ControlContext: controlPublic()},
		listed:  &net.Dialer{Timeout: connectTimeout, KeepAlive: 30 * time.Second, ControlContext: controlListed},
		clouds:  &net.Dialer{Timeout: connectTimeout, ControlContext: controlMetadata},
	}
	if c.timeout <= 0 {
		c.timeout = defaultTimeout
	}
	if c.maxConns <= 0 {
		c.maxConns = defaultConns
	}
	for _, entry := range p.Allow {
		key, err := allowKey(entry)
		if err != nil {
			return nil, err
		}
		c.allowed[key] = true
	}
	for _, h := range p.Tunnels {
		if name, ok := canonicalHost(h); ok {
			c.tunnels[name] = true
		}
	}
	if p.Private != nil {
		own := p
		own.Roots, own.Private = p.Private, nil
		var err error
		if c.private, err = New(own); err != nil {
			return nil, err
		}
	}
	c.pool, c.roots = newPool(func() *http.Transport { return c.transport(p.Roots) }), p.Roots
	return c, nil
}

func (c *Client) transport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                  nil,
		DialContext:            c.dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    connectTimeout,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second},
		DisableCompression:     true, // decoded in body.go, under a limit
		MaxIdleConnsPerHost:    64,
		MaxIdleConns:           1024,
		IdleConnTimeout:        idle,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
}

// presenting is a transport for one request that shows a certificate.
func (c *Client) presenting(cert tls.Certificate) *http.Transport {
	t := c.transport(c.roots)
	t.TLSClientConfig.Certificates = []tls.Certificate{cert}
	t.DisableKeepAlives = true
	return t
}

// Close drops idle connections. Requests that run are not touched.
func (c *Client) Close() {
	c.pool.closeIdle()
	if c.private != nil {
		c.private.Close()
	}
}

// Check judges a URL when it is configured: well-formed, no userinfo, https
// unless the operator listed its host and port, and no private address written
// as a literal. It resolves nothing: a name is judged at every dial.
func (c *Client) Check(_ context.Context, rawurl string) error {
	u, err := parse(rawurl)
	if err != nil {
		return err
	}
	return c.permit(u)
}

// Do sends req to a place within bound and reads the whole answer. It takes the
// method, URL, headers and body of req, and nothing from its context. The body
// of req is always closed. Errors are *fault.Error, and none of them quotes the
// URL's path or query, a header, or what the upstream said.
func (c *Client) Do(ctx context.Context, bound Bound, req *http.Request, lim Limits) (*Response, error) {
	if lim.Body <= 0 {
		lim.Body = defaultBody
	}
	if lim.Timeout <= 0 {
		lim.Timeout = c.timeout
	}
	out, err := c.prepare(bound, req, cleanHeader)
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, lim.Timeout)
	defer cancel()
	a := &attempt{host: out.URL.Host, replayable: replayable(out)}
	out = out.WithContext(httptrace.WithClientTrace(limited, a.trace(limited)))
	var resp *http.Response
	if bound.Certificate != nil {
		own := c.presenting(*bound.Certificate)
		defer own.CloseIdleConnections()
		resp, err = own.RoundTrip(out)
	} else {
		resp, err = c.pool.roundTrip(out, bound.Party, a)
	}
	if err != nil {
		return nil, a.fail(ctx, limited, err)
	}
	a.sent.Store(true)
	a.status, a.retry = resp.StatusCode, retryAfter(resp.Header)
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusSwitchingProtocols || resp.ProtoMajor != 1 && resp.ProtoMajor != 2 {
		return nil, a.fail(ctx, limited, errSwitched)
	}
	if err := countHeaders(resp.Header); err != nil {
		return nil, a.fail(ctx, limited, err)
	}
	body, err := readBody(resp, lim.Body)
	// Giving up tells the upstream so before the socket closes. An upstream that
	// ends its answer upon that makes half a body look whole.
	if err == nil {
		err = limited.Err()
	}
	if err != nil {
		return nil, a.fail(ctx, limited, err)
	}
	resp.Header.Del("Content-Encoding")
	resp.Header.Del("Content-Length")
	return &Response{Status: resp.StatusCode, Header: resp.Header, Body: body, Sent: true}, nil
}

// prepare returns the request that will be sent: a copy whose URL was judged in
// the very form in which it goes out, with the headers that clean lets through.
func (c *Client) prepare(bound Bound, req *http.Request, clean func(http.Header) (http.Header, error)) (*http.Request, error) {
	if req.URL == nil {
		return nil, badURL("The request has no URL.")
	}
	u, err := reparse(req.URL)
	if err != nil {
		return nil, err
	}
	if err := c.permit(u); err != nil {
		return nil, err
	}
	if !bound.Contains(u) {
		return nil, fault.New(fault.Denied, "destination_denied", "The request goes to a place that this connection is not bound to.").
			WithHint("Use only the hosts and paths that the provider's record names. If the record changed, reconnect.")
	}
	if req.Host != "" && !strings.EqualFold(req.Host, u.Host) {
		return nil, fault.New(fault.Denied, "destination_denied", "The request names another host than its URL.")
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, "QUERY":
	default:
		return nil, fault.New(fault.Invalid, "request_invalid", "The request's method is not one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, QUERY.")
	}
	header, err := clean(req.Header)
	if err != nil {
		return nil, err
	}
	out := &http.Request{
		Method: req.Method, URL: u, Header: header,
		Body: req.Body, GetBody: req.GetBody, ContentLength: req.ContentLength,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	return out, nil
}

// permit judges scheme and literal address.
func (c *Client) permit(u *urlRef) error {
	listed := c.allowed[hostPort(u)]
	if u.Scheme != "https" && !listed {
		return fault.New(fault.Denied, "destination_denied", "Plain http is not allowed to this host.").
			WithHint("Use https, or ask the operator to add this host and port to AMBIT_OUTBOUND_ALLOW.")
	}
	return checkLiteral(u.Hostname(), listed)
}

// dial picks the dialer by the name and port that the request asked for.
func (c *Client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if c.allowed[strings.ToLower(addr)] {
		return c.counted(ctx, c.listed, network, addr)
	}
	return c.counted(ctx, c.public, network, addr)
}

// cleanHeader copies h without the fields that belong to a connection or that
// this package decides. A field that could break out of its line is refused.
func cleanHeader(h http.Header) (http.Header, error) {
	out := make(http.Header, len(h)+2)
	for name, values := range h {
		if !httpguts.ValidHeaderFieldName(name) {
			return nil, fault.New(fault.Invalid, "request_invalid", "A header name of the request is not valid.")
		}
		switch strings.ToLower(name) {
		case "connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer",
			"transfer-encoding", "upgrade", "expect", "host", "content-length", "accept-encoding":
			continue
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return nil, fault.New(fault.Invalid, "request_invalid", "A header value of the request holds a control character.")
			}
		}
		out[name] = append([]string(nil), values...)
	}
	out.Set("Accept-Encoding", "gzip")
	if out.Get("User-Agent") == "" {
		out.Set("User-Agent", "ambit")
	}
	return out, nil
}

func countHeaders(h http.Header) error {
	lines, size := 0, 0
	for name, values := range h {
		for _, v := range values {
			lines++
			size += len(name) + len(v) + len(": \r\n")
		}
	}
	if lines > maxHeaderLines || size > maxHeaderBytes {
		return errHeaders
	}
	return nil
}

// replayable repeats the transport's own rule: only such requests does it send
// again after bytes went out on a connection that then died.
func replayable(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	_, key := req.Header["Idempotency-Key"]
	_, xkey := req.Header["X-Idempotency-Key"]
	return key || xkey
}

// attempt watches one request on its way out.
type attempt struct {
	host       string
	replayable bool
	sent       atomic.Bool
	status     int           // of the answer, once its head is there
	retry      time.Duration // that the answer asks for
}

// trace marks the request as sent as soon as a connection is handed to it. The
// later hook, after the headers were written, would race a cancellation: the
// writing goroutine may still put the bytes on the wire after the call returned.
// A second GetConn means that the transport starts over, which for a request
// that cannot be replayed it does only when nothing was written.
func (a *attempt) trace(ctx context.Context) *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn: func(string) {
			if !a.replayable {
				a.sent.Store(false)
			}
		},
		GotConn: func(info httptrace.GotConnInfo) {
			if info.Reused {
				atRest(ctx, info.Conn)
			}
			a.sent.Store(true)
		},
		WroteHeaders:         func() { a.sent.Store(true) },
		GotFirstResponseByte: func() { a.sent.Store(true) },
	}
}
