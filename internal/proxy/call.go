package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
)

// call makes one request a call of the gateway, and hands on what comes back as it
// comes. Where it goes was fixed by the connection; of the request only its path
// and query count.
func (s *Server) call(w http.ResponseWriter, r *http.Request, by caller, who agent.Identity, to place) {
	upgrade := r.ProtoMajor == 1 && r.Header.Get("Upgrade") != "" && httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade")
	dropHop(r.Header)
	raw := gateway.Raw{Identity: who, Handle: by.handle, Method: r.Method, URL: to.url(r.URL), Header: r.Header, Length: r.ContentLength, Trailer: r.Trailer,
		Upgrade: upgrade, Door: "proxy", Address: by.address}
	if r.Body != nil && r.Body != http.NoBody {
		raw.Body = r.Body
	}
	x, err := s.gateway.Exchange(r.Context(), raw)
	if err != nil {
		s.refuse(w, r, inTunnel(err))
		return
	}
	defer x.Close()
	if x.Socket() != nil {
		s.socket(w, r, x)
		return
	}
	answer(w, r, x)
}

// url is where a request to this place goes.
func (p place) url(asked *url.URL) *url.URL {
	host := net.JoinHostPort(p.host, p.port)
	if p.port == map[string]string{"http": "80", "https": "443"}[p.scheme] {
		if host = p.host; asIPv6(p.host) {
			host = "[" + p.host + "]"
		}
	}
	return &url.URL{Scheme: p.scheme, Host: host, Path: asked.Path, RawPath: asked.RawPath, RawQuery: asked.RawQuery, ForceQuery: asked.ForceQuery}
}

func asIPv6(host string) bool { return net.ParseIP(host) != nil && net.ParseIP(host).To4() == nil }

// inTunnel is a refusal as a client inside a tunnel gets it, where no proxy asks for
// credentials.
func inTunnel(err error) error {
	if f := fault.Of(err); f.Kind == fault.Unauthenticated {
		return fault.New(fault.Denied, f.Code, f.Message).WithHint(f.Hint)
	}
	return err
}

// answer copies an answer whose length is not known piece by piece, so that
// nothing of a stream is held back. One that breaks off breaks off here too.
func answer(w http.ResponseWriter, r *http.Request, x *gateway.Exchange) {
	rc := http.NewResponseController(w)
	stop := context.AfterFunc(x.Context(), func() {
		if _, cut := x.Cut(); cut { // whoever reads slowly is cut too
			_ = rc.SetWriteDeadline(time.Now())
		}
	})
	defer stop()
	h := w.Header()
	for name, values := range x.Header {
		h[name] = values
	}
	if _, told := h["Content-Type"]; !told {
		h["Content-Type"] = nil // nobody's guess
	}
	if x.Length >= 0 && h.Get("Content-Length") == "" && x.Status != http.StatusNoContent && x.Status != http.StatusNotModified && r.Method != http.MethodHead {
		h.Set("Content-Length", strconv.FormatInt(x.Length, 10))
	}
	announced := slices.Collect(maps.Keys(x.Trailer()))
	for _, name := range announced {
		h.Add("Trailer", name)
	}
	if len(announced) > 0 && r.ProtoMajor == 1 {
		h.Del("Content-Length") // trailers come after chunks only (RFC 9112 §7.1.2)
	}
	w.WriteHeader(x.Status)
	if x.Length < 0 && rc.Flush() != nil {
		return
	}
	if err := copyOut(w, rc, x); err != nil {
		panic(http.ErrAbortHandler)
	}
	for name, values := range x.Trailer() {
		if !slices.Contains(announced, name) {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
}

func copyOut(w io.Writer, rc *http.ResponseController, x *gateway.Exchange) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := x.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
			if x.Length < 0 && err == nil {
				if werr := rc.Flush(); werr != nil {
					return werr
				}
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// socket joins the client with the provider after a switch of protocols (RFC 9110
// §7.8), until either is done or the session is over.
func (s *Server) socket(w http.ResponseWriter, r *http.Request, x *gateway.Exchange) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	client := early(conn, buffered)
	defer client.Close()
	stop := context.AfterFunc(x.Context(), func() { _ = client.Close() })
	defer stop()
	h := x.Header.Clone()
	h.Set("Connection", "Upgrade")
	if h.Get("Upgrade") == "" {
		h.Set("Upgrade", r.Header.Get("Upgrade"))
	}
	_ = client.SetDeadline(time.Time{})
	if _, err := fmt.Fprintf(client, "HTTP/1.1 101 Switching Protocols\r\n"); err != nil {
		return
	}
	if err := h.Write(client); err != nil {
		return
	}
	if _, err := io.WriteString(client, "\r\n"); err != nil {
		return
	}
	up := make(chan struct{})
	go func() {
		defer close(up)
		_, _ = io.Copy(x.Socket(), client)
		_ = x.Close() // which ends the other way too
	}()
	_, _ = io.Copy(client, x.Socket())
	_ = client.Close()
	_ = x.Close()
	<-up
}
