package proxy

import (
	"net"
	"net/http"
	"net/url"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/rawhttp"
)

// call makes one request a call of the gateway, and hands on what comes back as it
// comes. Where it goes was fixed by the connection; of the request only its path
// and query count.
func (s *Server) call(w http.ResponseWriter, r *http.Request, by caller, who agent.Identity, to place) {
	dropHop(r.Header)
	raw := gateway.Raw{Identity: who, Handle: by.handle, Method: r.Method, URL: to.url(r.URL), Header: r.Header, Length: r.ContentLength, Trailer: r.Trailer,
		Door: "proxy", Address: by.address}
	exchange := func(raw gateway.Raw) (*gateway.Exchange, error) { return s.gateway.Exchange(r.Context(), raw) }
	if err := rawhttp.Pass(w, r, raw, exchange, func(*gateway.Exchange, http.Header) {}); err != nil {
		s.refuse(w, r, inTunnel(err))
	}
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
