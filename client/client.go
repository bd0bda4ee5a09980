// Package client speaks to an Ambit server's management API, /v1. It is what
// the ambit command uses, and knows nothing of the server's insides.
//
// A [Client] holds the server's address and one token: an API key (sk_…) or the
// stored login of a command line (amb_login_…). Every method takes a context,
// sends one request, and returns what the server answered or an [*Error] with a
// stable code. Reads and repeatable changes are tried again when the server
// asks for it with 429 or 503; nothing else ever is, but by a [Client.Patient] one.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	maxAnswer   = 32 << 20
	maxAttempts = 4
	maxPause    = 30 * time.Second // a server that asks for more is reported instead
	maxPatience = 200              // how often a patient client sends one call
)

// Client is a connection to one server. It is safe for concurrent use.
type Client struct {
	base        *url.URL
	token       func() string // behind a closure, so that printing a Client shows no token
	environment string
	http        *http.Client
	patient     bool
	err         error // why the client cannot work, told by each call
}

// New makes a client of the server at baseURL, such as http://localhost:7420.
// The token may be empty for the few calls that need none. A token is sent over
// https, or http to this very machine; any other address fails at the first call.
func New(baseURL, token string) *Client {
	c := &Client{token: func() string { return token }, http: &http.Client{
		Transport: &http.Transport{
			Proxy:       http.ProxyFromEnvironment,
			DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			// An audit verification takes its time; contexts bound the calls.
			TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
		},
		// A redirect would take the token along.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	c.base, c.err = parseBase(baseURL)
	return c
}

// Check says what is wrong with the address of a server; nil is fine.
func Check(baseURL string) error {
	_, err := parseBase(baseURL)
	return err
}

func parseBase(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, &Error{Code: "server_url_invalid", Message: "The server's address is not a URL.", Hint: "For example http://localhost:7420."}
	}
	host := u.Hostname()
	ip := net.ParseIP(host)
	local := host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return nil, &Error{Code: "server_url_invalid", Message: "Plain http would send the token in clear over the network.", Hint: "Use the https address of the server."}
	}
	return u, nil
}

// In gives a client whose calls act in another environment. It matters for a
// person's login only; an API key stays in its own.
func (c *Client) In(environmentID string) *Client {
	d := *c
	d.environment = environmentID
	return &d
}

// Patient gives a client for work of many calls: one that the server's door refuses with
// rate_limited, which did nothing, is sent again when the server says so, also if it makes
// something.
func (c *Client) Patient() *Client {
	d := *c
	d.patient = true
	return &d
}

// URL is the server's address.
func (c *Client) URL() string {
	if c.base == nil {
		return ""
	}
	return strings.TrimRight(c.base.String(), "/")
}

// Error is an answer that is not a success. Code is stable; Message and Hint
// are for people.
type Error struct {
	Status     int // HTTP status; 0 when there was no answer
	Code       string
	Message    string
	Hint       string
	RequestID  string
	RetryAfter time.Duration
	Fields     map[string]string // further facts, such as url
}

func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message + " (" + e.Code + ")"
	}
	return e.Message + " " + e.Hint + " (" + e.Code + ")"
}

// Is reports whether err is an [*Error] with this code.
func Is(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// call is one request.
type call struct {
	method string
	path   string // escaped, below the base
	query  url.Values
	body   any
	repeat bool // may be sent again: doing it twice is doing it once
}

func get(path string, query url.Values) call {
	return call{method: http.MethodGet, path: path, query: query, repeat: true}
}

// do sends a call and decodes the answer into out, unless out is nil.
func (c *Client) do(ctx context.Context, r call, out any) error {
	for attempt := 1; ; attempt++ {
		resp, err := c.send(ctx, r)
		if err != nil {
			return err
		}
		if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
			return decode(resp, out)
		}
		e := readError(resp)
		again, most := r.repeat && (e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable), maxAttempts
		if c.patient && e.Status == http.StatusTooManyRequests && e.Code == "rate_limited" {
			again, most = true, maxPatience
		}
		if !again || attempt >= most || e.RetryAfter > maxPause {
			return e
		}
		pause := e.RetryAfter
		if pause == 0 {
			pause = 250 * time.Millisecond << min(attempt, maxAttempts)
		}
		pause += rand.N(pause/4 + 1) // so that many clients do not come back as one
		select {
		case <-ctx.Done():
			return errors.Join(e, ctx.Err())
		case <-time.After(pause):
		}
	}
}

func (c *Client) send(ctx context.Context, r call) (*http.Response, error) {
	if c.err != nil {
		return nil, c.err
	}
	u := *c.base
	u.Path, u.RawPath = "", ""
	raw := strings.TrimRight(u.String(), "/") + strings.TrimRight(c.base.EscapedPath(), "/") + r.path
	if len(r.query) > 0 {
		raw += "?" + r.query.Encode()
	}
	var body io.Reader
	if r.body != nil {
		doc, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("encoding a request: %w", err)
		}
		body = bytes.NewReader(doc)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, raw, body)
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	if t := c.token(); t != "" {
		req.Header.Set("Authorization", "Bearer "+t)
	}
	if c.environment != "" {
		req.Header.Set("Ambit-Environment", c.environment)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		// url.Error would print the whole address again, query and all.
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return nil, fmt.Errorf("%w: %w", c.unreachable(err), err)
	}
	return resp, nil
}

func (c *Client) unreachable(err error) *Error {
	e := &Error{Code: "server_unreachable", Message: "The server at " + c.URL() + " cannot be reached: " + reason(err) + ".",
		Hint: "Is it running? Start it with ambit serve, or name another with --server or AMBIT_SERVER."}
	_, signer := errors.AsType[x509.UnknownAuthorityError](err)
	_, other := errors.AsType[*tls.CertificateVerificationError](err)
	_, plain := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case signer:
		e.Hint = "If the server is your own, trust who signed its certificate, or the certificate itself if nobody else did: set SSL_CERT_FILE to its PEM file (on macOS, add it to the keychain). Checking is never switched off."
	case other:
		e.Hint = "Use the name that the certificate is for, or renew it: ambit doctor on the server looks at it."
	case plain, strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		e.Hint = "It does not speak TLS on this port: is the address http://… ?"
	}
	return e
}

// reason is the innermost part of why a connection failed, such as "connection
// refused".
func reason(err error) string {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return dns.Err
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	return err.Error()
}

func decode(resp *http.Response, out any) error {
	defer resp.Body.Close()
	doc, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("%w: %w", &Error{Code: "server_unreachable", Message: "The answer of the server at " + resp.Request.URL.Host + " broke off.", Hint: "Try again."}, err)
	}
	if len(doc) > maxAnswer {
		return &Error{Status: resp.StatusCode, Code: "answer_too_large", Message: "The server's answer is over 32 MiB.", Hint: "Ask for smaller pages."}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(doc, out); err != nil {
		return &Error{Status: resp.StatusCode, Code: "answer_invalid", Message: "The answer is not one of an Ambit server.", Hint: "Check the server's address.",
			RequestID: resp.Header.Get("X-Request-ID")}
	}
	return nil
}

// readError makes an Error of any answer, also of one that a proxy in front of
// the server gave.
func readError(resp *http.Response) *Error {
	defer resp.Body.Close()
	e := &Error{Status: resp.StatusCode, RequestID: resp.Header.Get("X-Request-ID"), RetryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	doc, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && e.fill(doc) {
		return e
	}
	e.Code, e.Message = "http_"+strconv.Itoa(resp.StatusCode), "The server answered "+resp.Status+"."
	if resp.StatusCode == http.StatusMisdirectedRequest {
		e.Hint = "Use exactly the address that the server calls its public URL."
	}
	return e
}

// fill reads {"error": {…}}, or the code and message of WorkOS' Pipes.
func (e *Error) fill(doc []byte) bool {
	var body struct {
		Error   map[string]any `json:"error"`
		Code    string         `json:"code"`
		Message string         `json:"message"`
	}
	if json.Unmarshal(doc, &body) != nil {
		return false
	}
	e.Code, e.Message = body.Code, body.Message
	for name, v := range body.Error {
		s, ok := v.(string)
		if !ok {
			continue
		}
		switch name {
		case "code":
			e.Code = s
		case "message":
			e.Message = s
		case "hint":
			e.Hint = s
		case "request_id":
			e.RequestID = s
		default:
			if e.Fields == nil {
				e.Fields = map[string]string{}
			}
			e.Fields[name] = s
		}
	}
	return e.Code != ""
}

// retryAfter reads both forms of RFC 9110 §10.2.3.
func retryAfter(h string) time.Duration {
	if n, err := strconv.Atoi(h); err == nil && n >= 0 {
		return time.Duration(min(n, 24*3600)) * time.Second
	}
	if t, err := http.ParseTime(h); err == nil {
		return max(0, time.Until(t))
	}
	return 0
}

// seg escapes one path segment.
func seg(s string) string {
	if s == "" || s == "." || s == ".." {
		return "-" // never a valid id, and never another path
	}
	return url.PathEscape(s)
}
