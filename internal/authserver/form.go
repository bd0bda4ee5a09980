package authserver

import (
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

const (
	maxForm   = 16 << 10
	maxParams = 40
)

// params are the parameters of an OAuth request. RFC 6749 §3.1 forbids sending
// one twice; repeated holds the names for which that was done, so that a caller
// which must answer in some other way still can.
type params struct {
	values   map[string]string
	repeated map[string]bool
}

func (p params) get(name string) string          { return p.values[name] }
func (p params) secret(name string) secret.Value { return secret.FromString(p.values[name]) }
func (p params) has(name string) bool            { return p.values[name] != "" }

// parseParams decodes a query or form. Empty values count as absent.
func parseParams(raw string) (params, error) {
	p := params{values: map[string]string{}, repeated: map[string]bool{}}
	if len(raw) > maxForm || strings.Count(raw, "&") >= maxParams {
		return p, fault.New(fault.TooLarge, "invalid_request", "The request has too many or too long parameters.")
	}
	parsed, err := url.ParseQuery(raw)
	if err != nil {
		// The parser's own text quotes the input.
		return p, fault.New(fault.Invalid, "invalid_request", "The parameters are not well-formed.")
	}
	for name, list := range parsed {
		for _, v := range append(list, name) {
			if !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
				return p, fault.New(fault.Invalid, "invalid_request", "The parameters hold characters that are not text.")
			}
		}
		if len(list) > 1 {
			p.repeated[name] = true
			continue
		}
		p.values[name] = list[0]
	}
	return p, nil
}

// readForm reads the body of a request to the token or revocation endpoint.
// Parameters come in the body only: a URL ends up in logs.
func readForm(w http.ResponseWriter, r *http.Request) (params, error) {
	if r.URL.RawQuery != "" {
		return params{}, fault.New(fault.Invalid, "invalid_request", "Send the parameters in the body, not in the URL.")
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		return params{}, fault.New(fault.Invalid, "invalid_request", "Content-Type is application/x-www-form-urlencoded.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		return params{}, fault.New(fault.TooLarge, "body_too_large", "The form is too large or was cut off.")
	}
	p, err := parseParams(string(body))
	if err == nil && len(p.repeated) > 0 {
		err = fault.New(fault.Invalid, "invalid_request", "A parameter is sent twice.")
	}
	return p, err
}
