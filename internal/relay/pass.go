package relay

import (
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/ambit-dev/ambit/internal/gateway"
)

// pass makes the exchange and gives its answer on while it arrives.
func (s *Server) pass(w http.ResponseWriter, r *http.Request, raw gateway.Raw, exchange func(gateway.Raw) (*gateway.Exchange, error)) {
	_ = http.NewResponseController(w).EnableFullDuplex() // an answer may begin before the request has ended; HTTP/2 does so anyway
	raw.Upgrade = r.ProtoMajor == 1 && httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade") && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
	raw.Body = gateway.BodyOf(w, r)
	x, err := exchange(raw)
	if err != nil {
		s.refuse(w, err)
		return
	}
	defer x.Close()
	err = x.Answer(w, r, func(h http.Header) {
		guard(h)
		if !x.Ours {
			h.Set(HeaderStatus, strconv.Itoa(x.Status))
			h.Set(HeaderEvent, string(x.Event))
		}
		if x.Note != "" {
			h.Set("X-Relay-Note", strings.Join(strings.Fields(x.Note), " "))
		}
	})
	if err != nil {
		s.refuse(w, err)
	}
}
