package relay

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/rawhttp"
)

// pass makes the exchange and gives its answer on while it arrives.
func (s *Server) pass(w http.ResponseWriter, r *http.Request, raw gateway.Raw, exchange func(gateway.Raw) (*gateway.Exchange, error)) {
	err := rawhttp.Pass(w, r, raw, exchange, func(x *gateway.Exchange, h http.Header) {
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
