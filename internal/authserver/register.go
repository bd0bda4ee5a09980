package authserver

import (
	"io"
	"mime"
	"net/http"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
)

// register lets a client introduce itself (RFC 7591). What it says about itself
// is never shown to a person as fact.
func (s *Server) register(w http.ResponseWriter, r *http.Request) {
	address := s.caller(r)
	if ok, wait := s.registrations.Allow(address); !ok {
		s.fail(w, r, tooMany(wait))
		return
	}
	n, err := readRegistration(w, r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	n.Address = address
	c, sec, err := s.agents.RegisterClient(r.Context(), n)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeClient(w, c, sec)
}

func readRegistration(w http.ResponseWriter, r *http.Request) (agent.NewClient, error) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return agent.NewClient{}, fault.New(fault.Invalid, "invalid_client_metadata", "Content-Type is application/json.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		return agent.NewClient{}, fault.New(fault.TooLarge, "body_too_large", "The registration is too large or was cut off.")
	}
	n, err := agent.ReadClient(body)
	n.ID = "" // the name is ours to give
	return n, err
}
