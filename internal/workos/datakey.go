package workos

import (
	"context"
	"encoding/base64"
	"net/http"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/vault"
)

// Data keys. The requests call a key context "context"; those of secrets call it
// "key_context".

func (s *Server) createDataKey(ctx context.Context, c vault.Caller, r *http.Request) (answer, error) {
	var in struct {
		Context map[string]string `json:"context"`
	}
	doc, err := decode(r, &in)
	if err != nil {
		return answer{}, err
	}
	if in.Context == nil {
		return answer{}, unprocessable{fault.New(fault.Invalid, "missing_field", "context is required.")}
	}
	once, err := onceOf(r, doc)
	if err != nil {
		return answer{}, err
	}
	k, err := s.vault.CreateDataKey(ctx, c, once, contextOf(in.Context))
	if err != nil {
		return answer{}, unprocessable{err}
	}
	return vendDataKey(k, true), nil
}

func (s *Server) decryptDataKey(ctx context.Context, c vault.Caller, r *http.Request) (answer, error) {
	var in struct {
		Keys string `json:"keys"`
	}
	if _, err := decode(r, &in); err != nil {
		return answer{}, fault.Of(err) // this route knows no 422
	}
	wrapped, err := wrappedOf("keys", in.Keys)
	if err != nil {
		return answer{}, err
	}
	k, err := s.vault.DecryptDataKey(ctx, c, wrapped)
	if err != nil {
		return answer{}, err
	}
	return vendDataKey(k, false), nil
}

func (s *Server) rekeyDataKey(ctx context.Context, c vault.Caller, r *http.Request) (answer, error) {
	var in struct {
		Keys    string            `json:"encrypted_keys"`
		Context map[string]string `json:"context"`
	}
	doc, err := decode(r, &in)
	if err != nil {
		return answer{}, err
	}
	if in.Context == nil {
		return answer{}, unprocessable{fault.New(fault.Invalid, "missing_field", "encrypted_keys and context are required.")}
	}
	wrapped, err := wrappedOf("encrypted_keys", in.Keys)
	if err != nil {
		return answer{}, err
	}
	once, err := onceOf(r, doc)
	if err != nil {
		return answer{}, err
	}
	k, err := s.vault.RekeyDataKey(ctx, c, once, wrapped, contextOf(in.Context))
	switch {
	case fault.Is(err, "invalid_key_context"):
		return answer{}, unprocessable{err}
	case err != nil:
		return answer{}, err
	}
	return vendDataKey(k, true), nil
}

func wrappedOf(name, text string) ([]byte, error) {
	wrapped, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(wrapped) == 0 {
		return nil, fault.New(fault.Invalid, "invalid_encrypted_keys", name+" is not what came with a data key: standard base64.")
	}
	return wrapped, nil
}
