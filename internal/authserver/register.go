package authserver

import (
	"encoding/json"
	"io"
	"mime"
	"net/http"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/strictjson"
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
	return parseRegistration(body)
}

// parseRegistration reads client metadata. Members that we do not know are
// ignored, as RFC 7591 §2 asks; names count only in their exact spelling, which
// a map gives and a struct would not.
func parseRegistration(body []byte) (agent.NewClient, error) {
	bad := func(msg string) (agent.NewClient, error) {
		return agent.NewClient{}, fault.New(fault.Invalid, "invalid_client_metadata", msg)
	}
	if err := strictjson.Check(body, strictjson.Limits{Bytes: maxForm, Depth: 8, Items: 500}); err != nil {
		return bad(fault.Of(err).Message)
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(body, &doc); err != nil || doc == nil {
		return bad("The registration is a JSON object.")
	}
	var n agent.NewClient
	var responses []string
	for name, dst := range map[string]any{
		"redirect_uris": &n.RedirectURIs, "client_name": &n.Name, "grant_types": &n.Grants, "response_types": &responses,
		"token_endpoint_auth_method": &n.AuthMethod, "application_type": &n.ApplicationType,
	} {
		raw, ok := doc[name]
		if !ok || string(raw) == "null" {
			continue
		}
		if err := json.Unmarshal(raw, dst); err != nil {
			return bad(name + " has the wrong type.")
		}
	}
	for _, t := range responses {
		if t != "code" {
			return bad("response_types is code.")
		}
	}
	return n, nil
}
