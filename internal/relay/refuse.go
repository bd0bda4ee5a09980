package relay

import (
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"strconv"

	"github.com/ambit-dev/ambit/internal/fault"
)

// codes gives the codes of our own rooms the names and statuses of this wire,
// where it has some.
var codes = map[string]struct {
	code   string
	status int
}{
	"reconnect":               {"relay_authorization_required", http.StatusPaymentRequired},
	"connect_provider":        {"relay_authorization_required", http.StatusPaymentRequired},
	"credential_incomplete":   {"relay_credential_error", http.StatusBadGateway},
	"credential_unusable":     {"relay_credential_error", http.StatusBadGateway},
	"upstream_unreachable":    {"relay_upstream_unreachable", http.StatusBadGateway},
	"upstream_timeout":        {"relay_upstream_timeout", http.StatusBadGateway},
	"upstream_cancelled":      {"relay_upstream_unreachable", http.StatusBadGateway},
	"upstream_broken":         {"relay_upstream_broken", http.StatusBadGateway},
	"upstream_too_large":      {"relay_upstream_broken", http.StatusBadGateway},
	"upstream_answer_refused": {"relay_upstream_broken", http.StatusBadGateway},
	"answer_withheld":         {"answer_withheld", http.StatusBadGateway},
	"outcome_unknown":         {"outcome_unknown", http.StatusBadGateway},
}

// statusOf is the status of a refusal.
func statusOf(f *fault.Error) int {
	switch f.Kind {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.Unauthenticated:
		return http.StatusUnauthorized
	case fault.Denied, fault.Expired:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.Limited:
		return http.StatusTooManyRequests
	case fault.TooLarge:
		return http.StatusRequestEntityTooLarge
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// refuse is Refuse, with a line in the log for what is our own fault.
func (s *Server) refuse(w http.ResponseWriter, err error) {
	if fault.KindOf(err) == fault.Internal {
		s.log.Error("a request to the relay failed", "error", err)
	}
	Refuse(w, err)
}

// Refuse answers with an error of ours: its code and message, what to do next, and
// what else it tells, such as approval_url.
func Refuse(w http.ResponseWriter, err error) {
	f := fault.Of(err)
	status, code := statusOf(f), f.Code
	if c, ok := codes[code]; ok {
		status, code = c.status, c.code
	}
	body := map[string]any{}
	for name, value := range maps.All(f.Fields) {
		body[name] = value
	}
	body["code"], body["message"] = code, f.Message
	if f.Kind == fault.Internal {
		body["message"] = "Something went wrong on our side."
	}
	if f.Hint != "" {
		body["hint"] = f.Hint
	}
	if code == "relay_authorization_required" {
		body["authorization_url"] = f.Fields["connect_url"]
	}
	h := w.Header()
	guard(h)
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
	}
	if status == http.StatusUnauthorized {
		// Both: git and others answer the second, and only when they are asked.
		h["Www-Authenticate"] = []string{`Bearer realm="ambit"`, `Basic realm="ambit", charset="UTF-8"`}
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
