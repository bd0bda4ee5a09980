package provider

import (
	"io"
	"net/http"
	"net/url"
)

// Filled puts the credential into a raw request; nil: it is refused.
func Filled(rec Record, out *http.Request, client http.Header, body []byte, c Credential) *http.Request {
	setBody(out, body)
	if _, err := rec.injectRaw(out, Outgoing{Request: &Request{}, Header: client}, c); err != nil {
		return nil
	}
	return out
}

// FillFrames is what goes up a socket to w.
func FillFrames(rec Record, cred Credential, w io.Writer) io.Writer {
	return &fillingFrames{dst: w, fill: (&filling{rec: rec, cred: cred, forms: &formSet{}}).message}
}

// ReadDefinition reads what a server lists.
func ReadDefinition(doc []byte) (Definition, error) { return parseDefinition(doc) }

// RegistryScopes is what the token of a request to a registry is for.
func RegistryScopes(method string, u *url.URL) []string { return registryScopes(method, u) }
