package outbound

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
)

// departure is the cause inside every fault of a request that was tried.
type departure struct {
	sent     bool
	answered int // status of an answer that was refused; 0: none
	retry    time.Duration
	err      error
}

func (d *departure) Error() string {
	if d.sent {
		return "after sending: " + d.err.Error()
	}
	return "before sending: " + d.err.Error()
}

func (d *departure) Unwrap() error { return d.err }

// Sent reports whether bytes of the request may have reached the upstream. When
// true, nobody here knows what the upstream did with it. It is false for errors
// of other origin.
func Sent(err error) bool {
	d, ok := errors.AsType[*departure](err)
	return ok && d.sent
}

// Answered gives the status of an answer that arrived and was refused for its size
// or its coding: the upstream has decided, and only what it said is missing. ok is
// false for errors of other origin, among them an answer that broke off.
func Answered(err error) (status int, ok bool) {
	d, ok := errors.AsType[*departure](err)
	if !ok || d.answered == 0 {
		return 0, false
	}
	return d.answered, true
}

// RetryAfter gives how long a refused answer asks its caller to wait, at most an
// hour; 0 when it does not say, or not in seconds (RFC 9110 §10.2.3).
func RetryAfter(err error) time.Duration {
	d, ok := errors.AsType[*departure](err)
	if !ok {
		return 0
	}
	return d.retry
}

func retryAfter(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil {
		return 0
	}
	return time.Duration(max(0, min(n, 3600))) * time.Second
}

// refused reports whether err is our own refusal of an answer.
func refused(err error) bool {
	for _, ours := range []error{errBody, errRatio, errHeaders, errEncoding, errGzip} {
		if errors.Is(err, ours) {
			return true
		}
	}
	return false
}

func deniedPlace() *fault.Error {
	return fault.New(fault.Denied, "destination_denied", "The address of this host may not be reached.").
		WithHint("Private addresses need an entry host:port in the operator's AMBIT_OUTBOUND_ALLOW. Metadata services are never reached.")
}

// fail turns what went wrong into a fault. parent is the caller's context,
// limited the one with our timeout.
func (a *attempt) fail(parent, limited context.Context, err error) error {
	sent := a.sent.Load()
	f := a.classify(parent, limited, err, sent)
	if sent {
		f = f.WithHint("The request may have reached the upstream. Look there before trying it again.")
	}
	d := &departure{sent: sent, err: safe(parent, limited, err)}
	if refused(d.err) {
		d.answered, d.retry = a.status, a.retry
	}
	return f.WithCause(d)
}

func (a *attempt) classify(parent, limited context.Context, err error, sent bool) *fault.Error {
	unavailable := func(code, format string, args ...any) *fault.Error {
		return fault.New(fault.Unavailable, code, fmt.Sprintf(format, args...)).WithHint("Nothing was sent. Try again later.")
	}
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(parent.Err(), context.Canceled):
		return unavailable("upstream_cancelled", "The request to %s was cancelled.", a.host)
	case limited.Err() != nil:
		return unavailable("upstream_timeout", "The upstream %s did not answer in time.", a.host)
	case isType[*deniedAddress](err):
		return deniedPlace()
	case errors.Is(err, errConns):
		return fault.New(fault.Unavailable, "overloaded", "The server has too many connections open.").WithHint("Nothing was sent. Try again shortly.").WithRetry(time.Second)
	case errors.Is(err, errBody), errors.Is(err, errRatio), errors.Is(err, errHeaders), headersOver(err):
		return unavailable("upstream_too_large", "The answer of %s is over the size limit.", a.host)
	case errors.Is(err, errEncoding), errors.Is(err, errGzip):
		return unavailable("upstream_broken", "The answer of %s is in a coding that was not asked for, or broken.", a.host)
	case isType[*tls.CertificateVerificationError](err), isType[tls.RecordHeaderError](err):
		return unavailable("upstream_unreachable", "%s did not prove who it is: its certificate or TLS answer is not valid.", a.host)
	case errors.As(err, &timeout) && timeout.Timeout():
		return unavailable("upstream_timeout", "The upstream %s did not answer in time.", a.host)
	case isType[*net.DNSError](err):
		return unavailable("upstream_unreachable", "The name of %s could not be resolved.", a.host)
	case sent:
		return unavailable("upstream_broken", "The upstream %s broke off or gave a malformed answer.", a.host)
	}
	return unavailable("upstream_unreachable", "The upstream %s could not be reached.", a.host)
}

func isType[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// headersOver recognises the transport's two unexported errors by their text; a
// test notices when the text changes.
func headersOver(err error) bool {
	s := err.Error()
	return strings.Contains(s, "response headers exceeded") || strings.Contains(s, "header list larger than")
}

// safe keeps of an error only what cannot quote the request or the answer: the
// text of a malformed answer may hold a credential that the upstream echoed.
func safe(parent, limited context.Context, err error) error {
	if parent.Err() != nil {
		return parent.Err()
	}
	if limited.Err() != nil {
		return limited.Err()
	}
	for _, known := range []error{io.EOF, io.ErrUnexpectedEOF, errBody, errRatio, errHeaders, errEncoding, errSwitched, errGzip, errConns} {
		if errors.Is(err, known) {
			return known
		}
	}
	if e, ok := errors.AsType[*deniedAddress](err); ok {
		return e
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return e
	}
	if headersOver(err) {
		return errHeaders
	}
	return fmt.Errorf("transport error of type %T", err)
}
