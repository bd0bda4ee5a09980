package provider

import "net/http"

// Filled puts the credential into a raw request; nil: it is refused.
func Filled(rec Record, out *http.Request, client http.Header, body []byte, c Credential) *http.Request {
	setBody(out, body)
	if _, err := rec.injectRaw(out, client, c); err != nil {
		return nil
	}
	return out
}
