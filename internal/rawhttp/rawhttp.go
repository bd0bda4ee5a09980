// Package rawhttp is what the doors for raw HTTP have in common: a client's body is
// read, and its answer given on while it arrives, in the same way whoever opened the
// connection. What package gateway decides is not its concern, and neither what a
// door's own wire adds.
package rawhttp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
)

const (
	// A client's body may be waited for bodyGrace altogether, and longer by what came
	// at bodySpeed, in bytes a second: a client that sends a byte now and then holds
	// nothing for long (threats.md W5). How slowly the provider takes it does not count.
	bodyGrace = 30 * time.Second
	bodySpeed = 16 << 10
	copied    = 32 << 10 // at once, of an answer
)

// Pass makes one exchange of a request, of which raw lacks Upgrade and Body, and gives
// its answer on. mark adds what the door's wire has to the headers. An error means that
// nothing was given on, and the door says so; an answer that breaks off later ends the
// handler by panicking with [http.ErrAbortHandler], so that half of it does not look
// whole. w is, or is around, a [throttle.Paced].
func Pass(w http.ResponseWriter, r *http.Request, raw gateway.Raw, exchange func(gateway.Raw) (*gateway.Exchange, error), mark func(*gateway.Exchange, http.Header)) error {
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex() // an answer may begin before the request has ended; HTTP/2 does so anyway
	// To no other protocol than WebSocket, and HTTP/2 has it in another form.
	raw.Upgrade = r.ProtoMajor == 1 && httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade") && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
	raw.Body = bodyOf(rc, r)
	x, err := exchange(raw)
	if err != nil {
		return err
	}
	defer x.Close()
	// Whatever of the client's is waited for, the end of the session ends it.
	defer context.AfterFunc(x.Context(), func() {
		if _, cut := x.Cut(); cut {
			_ = rc.SetReadDeadline(time.Unix(1, 0))
			_ = rc.SetWriteDeadline(time.Unix(1, 0))
		}
	})()
	h := w.Header()
	for name, values := range x.Header {
		h[name] = values
	}
	if _, told := h["Content-Type"]; !told {
		h["Content-Type"] = nil // nobody's guess
	}
	mark(x, h)
	if x.Socket() != nil {
		return join(rc, x, r, h)
	}
	answer(w, rc, x, r)
	return nil
}

// bodyOf is the body of a client's request, to be read under a limit of time; nil:
// there is none. One side of a talk has none: it may be silent for as long as its
// session lasts.
func bodyOf(rc *http.ResponseController, r *http.Request) io.Reader {
	switch {
	case r.Body == nil || r.Body == http.NoBody:
		return nil
	case gateway.Talks(r.Method, r.Header):
		return r.Body
	}
	return &inTime{from: r.Body, rc: rc}
}

type inTime struct {
	from   io.Reader
	rc     *http.ResponseController
	came   int64
	waited time.Duration
}

func (b *inTime) Read(p []byte) (int, error) {
	began := time.Now()
	_ = b.rc.SetReadDeadline(began.Add(bodyGrace + time.Duration(b.came/bodySpeed)*time.Second - b.waited))
	n, err := b.from.Read(p)
	b.came, b.waited = b.came+int64(n), b.waited+time.Since(began)
	if err != nil {
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// answer gives an answer on.
func answer(w http.ResponseWriter, rc *http.ResponseController, x *gateway.Exchange, r *http.Request) {
	h := w.Header()
	tellLength(h, x, r.Method)
	trailers := announced(h, x.Trailer(), r.ProtoMajor)
	w.WriteHeader(x.Status)
	if giveOn(w, rc, x) != nil {
		panic(http.ErrAbortHandler)
	}
	for name, values := range x.Trailer() {
		if !slices.Contains(trailers, name) {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
}

// tellLength tells the length of an answer whose head lacks it.
func tellLength(h http.Header, x *gateway.Exchange, method string) {
	if x.Length >= 0 && h.Get("Content-Length") == "" && x.Status != http.StatusNoContent && x.Status != http.StatusNotModified && method != http.MethodHead {
		h.Set("Content-Length", strconv.FormatInt(x.Length, 10))
	}
}

// announced names the trailers in the head, and gives their names. In HTTP/1 they
// come after chunks only (RFC 9112 §7.1.2).
func announced(h, trailer http.Header, major int) []string {
	var names []string
	for name := range trailer {
		h.Add("Trailer", name)
		names = append(names, name)
	}
	if len(names) > 0 && major == 1 {
		h.Del("Content-Length")
	}
	return names
}

// giveOn gives the body on, piece by piece when its length is not known.
func giveOn(w io.Writer, rc *http.ResponseController, x *gateway.Exchange) error {
	piecewise := x.Length < 0
	if piecewise {
		if err := rc.Flush(); err != nil {
			return err
		}
	}
	size := int64(copied)
	if x.Length >= 0 {
		size = min(size-1, x.Length) + 1 // and the end, in one reading
	}
	buf := make([]byte, size)
	for {
		n, err := x.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
			if piecewise && err == nil {
				if ferr := rc.Flush(); ferr != nil {
					return ferr
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// join joins the client's connection and the provider's (RFC 9110 §7.8), until either
// is done or the session is over.
func join(rc *http.ResponseController, x *gateway.Exchange, r *http.Request, h http.Header) error {
	conn, rw, err := rc.Hijack()
	if err != nil {
		return fault.New(fault.Unavailable, "upgrade_failed", "The connection could not be switched.").WithHint("Use HTTP/1.1.").WithCause(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Time{})
	defer context.AfterFunc(x.Context(), func() { _ = conn.Close() })()
	h = h.Clone()
	h.Set("Connection", "Upgrade")
	if h.Get("Upgrade") == "" {
		h.Set("Upgrade", r.Header.Get("Upgrade"))
	}
	var head strings.Builder
	head.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = h.Write(&head)
	if _, err := io.WriteString(conn, head.String()+"\r\n"); err != nil {
		return nil
	}
	up := make(chan struct{})
	go func() {
		defer close(up)
		_, _ = io.Copy(x.Socket(), rw.Reader)
		_ = x.Close() // which ends the other way too
	}()
	_, _ = io.Copy(conn, x.Socket())
	_ = x.Close()
	_ = conn.Close()
	<-up
	return nil
}
