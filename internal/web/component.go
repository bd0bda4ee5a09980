package web

import (
	_ "embed"
	"net/http"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/throttle"
)

// What a product's page loads from here: the element <ambit-connect>, and what
// became of a connect token. These two are the only answers that a page of another
// origin can read. No cookie counts at either: who asks shows the token, and is
// told of that alone.

//go:embed component/ambit-connect.js
var component []byte

const (
	componentPath = "/connect/ambit-connect.js"
	statePath     = "/connect/state"
)

func (s *Server) mountComponent(mux *http.ServeMux) {
	mux.HandleFunc("GET "+componentPath, func(w http.ResponseWriter, _ *http.Request) {
		shared(w)
		w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
		w.Header().Set("Cache-Control", "public, max-age=3600")
		_, _ = w.Write(component)
	})
	mux.HandleFunc("OPTIONS "+statePath, func(w http.ResponseWriter, _ *http.Request) {
		shared(w)
		w.Header().Set("Access-Control-Allow-Methods", "GET")
		w.Header().Set("Access-Control-Allow-Headers", "Authorization")
		w.Header().Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET "+statePath, s.ticketState)
}

// shared lets pages of all origins read an answer, without credentials of the
// browser (threats.md W3).
func shared(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
}

// ticketAnswer is what a connect token tells.
type ticketAnswer struct {
	State      string    `json:"state"` // pending, connecting, connected, failed or expired
	Provider   string    `json:"provider,omitempty"`
	Connection string    `json:"connection_id,omitempty"`
	Code       string    `json:"code,omitempty"` // why it failed
	ExpiresAt  time.Time `json:"expires_at"`
}

func (s *Server) ticketState(w http.ResponseWriter, r *http.Request) {
	shared(w)
	w.Header().Set("Cache-Control", "no-store")
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		token = ""
	}
	t, err := s.integrations.Look(r.Context(), secret.FromString(token))
	if err != nil {
		f := fault.Of(err)
		if f.Kind == fault.Unauthenticated {
			if ok, wait := s.refusals.Allow(throttle.Address(s.address(r))); !ok {
				f = fault.New(fault.Limited, "too_many_attempts", "Too many requests of your network were refused.").WithRetry(wait)
			}
		} else {
			s.log.Error("what became of a connect token could not be told", "error", err)
		}
		retryAfter(w, f)
		writeJSON(w, status(f.Kind), map[string]string{"code": f.Code, "message": f.Message})
		return
	}
	writeJSON(w, http.StatusOK, ticketAnswer{State: string(t.State), Provider: t.Provider, Connection: string(t.Connection), Code: t.Code, ExpiresAt: t.ExpiresAt})
}
