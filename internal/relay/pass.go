package relay

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
)

const (
	// bodyPause is how long the client may take for each piece of its body.
	bodyPause = 30 * time.Second
	buffer    = 32 << 10
)

// pass makes the exchange and gives its answer on while it arrives.
func (s *Server) pass(w http.ResponseWriter, r *http.Request, raw gateway.Raw, exchange func(gateway.Raw) (*gateway.Exchange, error)) {
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex() // an answer may begin before the request has ended; HTTP/2 does so anyway
	raw.Upgrade = r.ProtoMajor == 1 && httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade") && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
	if r.Body != nil && r.Body != http.NoBody {
		raw.Body = &pausing{r.Body, rc}
	}
	x, err := exchange(raw)
	if err != nil {
		Refuse(w, err)
		return
	}
	defer x.Close()
	// Whatever of the client's is waited for, the end of the session ends it.
	defer context.AfterFunc(x.Context(), func() {
		if _, cut := x.Cut(); !cut {
			return
		}
		_ = rc.SetReadDeadline(time.Unix(1, 0))
		_ = rc.SetWriteDeadline(time.Unix(1, 0))
	})()
	h := w.Header()
	for name, values := range x.Header {
		h[name] = values
	}
	guard(h)
	if !x.Ours {
		h.Set(HeaderStatus, strconv.Itoa(x.Status))
		h.Set(HeaderEvent, string(x.Event))
	}
	if x.Note != "" {
		h.Set("X-Relay-Note", strings.Join(strings.Fields(x.Note), " "))
	}
	if x.Socket() != nil {
		s.socket(w, r, rc, x)
		return
	}
	for name := range x.Trailer() {
		h.Add("Trailer", name)
	}
	w.WriteHeader(x.Status)
	if err := s.copy(w, rc, r.Method, x); err != nil {
		// Half an answer must not look whole.
		panic(http.ErrAbortHandler)
	}
	for name, values := range x.Trailer() {
		h[http.TrailerPrefix+name] = values
	}
}

// copy gives a body on. What has no length is passed on piece by piece.
func (s *Server) copy(w http.ResponseWriter, rc *http.ResponseController, method string, x *gateway.Exchange) error {
	if method == http.MethodHead {
		return nil
	}
	piecewise := x.Length < 0
	if piecewise {
		if err := rc.Flush(); err != nil {
			return err
		}
	}
	buf := make([]byte, buffer)
	for {
		n, err := x.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
			if piecewise {
				if ferr := rc.Flush(); ferr != nil {
					return ferr
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// socket joins the client's connection and the provider's.
func (s *Server) socket(w http.ResponseWriter, r *http.Request, rc *http.ResponseController, x *gateway.Exchange) {
	conn, rw, err := rc.Hijack()
	if err != nil {
		Refuse(w, fault.New(fault.Unavailable, "relay_upgrade_failed", "The connection could not be switched.").WithCause(err))
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Time{})
	stop := context.AfterFunc(x.Context(), func() { _ = conn.Close() })
	defer stop()
	h := w.Header().Clone()
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", r.Header.Get("Upgrade"))
	head := &http.Response{StatusCode: x.Status, ProtoMajor: 1, ProtoMinor: 1, Header: h}
	if err := head.Write(conn); err != nil {
		return
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(x.Socket(), rw.Reader)
		_ = x.Close()
	}()
	_, _ = io.Copy(conn, x.Socket())
	_ = x.Close()
	_ = conn.Close()
	<-ended
}

// pausing gives each piece of a body a time of its own, so that a client that
// stops holds nothing for long while a large body takes what it needs.
type pausing struct {
	io.ReadCloser
	rc *http.ResponseController
}

func (b *pausing) Read(p []byte) (int, error) {
	_ = b.rc.SetReadDeadline(time.Now().Add(bodyPause))
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}
