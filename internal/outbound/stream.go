package outbound

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Stream is an answer that is read while it arrives. Close it: what is not read
// to its end is given up.
type Stream struct {
	Status int
	// Header is as the upstream sent it, but for a body that is decoded: then it has
	// no Content-Encoding and no Content-Length.
	Header http.Header
	// Length is of the body in bytes; -1: not known.
	Length int64

	resp   *http.Response
	body   io.Reader
	socket io.ReadWriteCloser // after a switch of protocols
	a      *attempt
	parent context.Context
	ctx    context.Context
	cancel context.CancelCauseFunc
	close  sync.Once
	after  func() // gives back what only this request used
	// quiet ends a body of which nothing comes for too long.
	quiet *time.Timer
	limit time.Duration
}

// StreamLimits bound one streamed request. Zero fields take the defaults.
type StreamLimits struct {
	Head  time.Duration // from a request that was sent whole to the answer's head; default 2 min
	Quiet time.Duration // in which nothing of the body comes; default 15 min
}

const (
	defaultHead  = 2 * time.Minute
	defaultQuiet = 15 * time.Minute
)

var (
	errHead  = errors.New("no answer in time")
	errQuiet = errors.New("nothing came for too long")

	errWithheld = errors.New("the answer may not be passed on")
)

// Stream sends req to a place within bound and gives its answer as soon as its
// head is there. It is [Client.Do] for requests and answers of any size: the body
// of req is read while it is sent, the answer's while it arrives, and both end at
// once when ctx does. An answer may come in gzip, br or zstd if the request's
// Accept-Encoding offers it, and is decoded under a limit; any other coding is
// refused. An Upgrade header asks for a switch of protocols, upon which
// [Stream.Socket] is set.
//
// Errors are as those of Do.
func (c *Client) Stream(ctx context.Context, bound Bound, req *http.Request, lim StreamLimits) (*Stream, error) {
	out, err := c.prepare(bound, req, streamHeader)
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	s := &Stream{parent: ctx, limit: cmp.Or(lim.Quiet, defaultQuiet), a: &attempt{host: out.URL.Host, replayable: replayable(out) && out.Body == nil}, after: func() {}}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	// An answer may come while its request is still being sent, and then nothing is late.
	var came atomic.Bool
	late := time.AfterFunc(time.Hour, func() {
		if !came.Load() {
			s.cancel(errHead)
		}
	})
	defer late.Stop()
	out.Trailer = req.Trailer
	trace := s.a.trace(s.ctx)
	trace.WroteRequest = func(httptrace.WroteRequestInfo) { late.Reset(cmp.Or(lim.Head, defaultHead)) }
	out = out.WithContext(httptrace.WithClientTrace(s.ctx, trace))
	resp, err := s.roundTrip(c, out, bound)
	came.Store(true)
	if err != nil {
		err = s.fail(err) // before our own end of it hides why
		_ = s.Close()
		return nil, err
	}
	s.a.sent.Store(true)
	s.a.status, s.a.retry = resp.StatusCode, retryAfter(resp.Header)
	s.resp = resp
	if err := s.take(resp, out.Header.Get("Upgrade") != ""); err != nil {
		err = s.fail(err)
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Stream) roundTrip(c *Client, out *http.Request, bound Bound) (*http.Response, error) {
	upgrade := out.Header.Get("Upgrade") != ""
	if bound.Certificate == nil && !upgrade {
		return c.pool.roundTrip(out, bound.Party, s.a)
	}
	own := c.transport(c.roots)
	if bound.Certificate != nil {
		own = c.presenting(*bound.Certificate)
	}
	if upgrade { // which HTTP/2 has in another form
		own.Protocols = new(http.Protocols)
		own.Protocols.SetHTTP1(true)
	}
	s.after = own.CloseIdleConnections
	return own.RoundTrip(out)
}

// take reads the head of an answer.
func (s *Stream) take(resp *http.Response, upgrade bool) error {
	s.Status, s.Header, s.Length = resp.StatusCode, resp.Header, resp.ContentLength
	if resp.ProtoMajor != 1 && resp.ProtoMajor != 2 {
		return errSwitched
	}
	if err := countHeaders(resp.Header); err != nil {
		return err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		socket, ok := resp.Body.(io.ReadWriteCloser)
		if !upgrade || !ok {
			return errSwitched
		}
		s.socket = socket
		return nil
	}
	body, decoded, err := decoding(resp)
	if err != nil {
		return err
	}
	if s.body = body; decoded {
		s.Length = -1
		resp.Header.Del("Content-Encoding")
		resp.Header.Del("Content-Length")
	}
	s.quiet = time.AfterFunc(s.limit, func() { s.cancel(errQuiet) })
	return nil
}

// Refuse is f for an answer that is not passed on: [Answered] gives its status.
func (s *Stream) Refuse(f *fault.Error) error {
	return f.WithCause(&departure{sent: true, answered: s.Status, retry: s.a.retry, err: errWithheld})
}

// Trailer is what came after the body, once Read has given io.EOF. Before, it holds
// the names that the head announced, without values.
func (s *Stream) Trailer() http.Header { return s.resp.Trailer }

// Socket is the connection after a switch of protocols; nil: there was none. It
// ends with ctx and with Close.
func (s *Stream) Socket() io.ReadWriter {
	if s.socket == nil {
		return nil
	}
	return s.socket
}

// Read reads the decoded body. Its error is io.EOF or one of Do's.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	if err == nil {
		s.quiet.Reset(s.limit)
		return n, nil
	}
	s.quiet.Stop()
	if err == io.EOF && s.ctx.Err() == nil {
		return n, io.EOF
	}
	if err == io.EOF { // an upstream that ends its answer upon being given up makes half of it look whole
		err = s.ctx.Err()
	}
	return n, s.fail(err)
}

// Close gives up what was not read. It may be called again.
func (s *Stream) Close() error {
	s.close.Do(func() {
		s.end()
		if s.resp != nil {
			_ = s.resp.Body.Close()
		}
		s.after()
	})
	return nil
}

func (s *Stream) end() {
	if s.quiet != nil {
		s.quiet.Stop()
	}
	s.cancel(nil)
}

// fail makes a fault of what went wrong. Our own limits count as the timeout.
func (s *Stream) fail(err error) error {
	if s.parent.Err() != nil {
		return s.a.fail(s.parent, s.ctx, err)
	}
	switch cause := context.Cause(s.ctx); {
	case errors.Is(cause, errHead), errors.Is(cause, errQuiet):
		return s.a.fail(context.Background(), s.ctx, cause)
	case s.ctx.Err() != nil: // closed by its reader
		return s.a.fail(s.ctx, s.ctx, err)
	}
	return s.a.fail(s.parent, s.ctx, err)
}

// streamHeader is cleanHeader for requests whose answer goes to a client of its
// own: what the answer may be coded in is the client's, as far as we can read it.
func streamHeader(h http.Header) (http.Header, error) {
	out, err := cleanHeader(h)
	if err != nil {
		return nil, err
	}
	out.Set("Accept-Encoding", acceptable(h.Values("Accept-Encoding"), h.Get("Range") != ""))
	if h.Get("User-Agent") == "" {
		out["User-Agent"] = []string{""} // none, instead of the library's
	}
	if httpguts.HeaderValuesContainsToken(h.Values("Te"), "trailers") {
		out.Set("Te", "trailers")
	}
	if up := h.Get("Upgrade"); up != "" {
		out.Set("Connection", "Upgrade")
		out.Set("Upgrade", up)
	}
	return out, nil
}

// acceptable offers of the codings that a client takes those that we decode. A
// part of a coded body cannot be decoded.
func acceptable(offered []string, part bool) string {
	var out []string
	if !part {
		for _, line := range offered {
			for coding := range strings.SplitSeq(line, ",") {
				name, weight, _ := strings.Cut(coding, ";")
				name = strings.ToLower(strings.TrimSpace(name))
				zero := strings.HasPrefix(strings.ReplaceAll(strings.TrimSpace(weight), " ", ""), "q=0") && !strings.ContainsAny(weight, "123456789")
				if _, ok := decoders[name]; ok && !zero && !slices.Contains(out, name) {
					out = append(out, name)
				}
			}
		}
	}
	if len(out) == 0 {
		return "identity"
	}
	return strings.Join(out, ", ")
}
