package provider_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/ambit-dev/ambit/internal/provider"
)

// A1, rule 5: how a server is to read a body is among what is decided on, for JSON as for
// all else: the same text under another type is another request.
func TestTypeOfABodyIsDecidedOn(t *testing.T) {
	t.Parallel()
	rec := parse(t, `id: host
name: Host
auth: api_key
api: {base: ["https://host.example/api"]}
generic: {read: true, write: true}
inject: {header: X-Api-Key, format: "{api_key}"}
`)
	u, err := url.Parse("https://host.example/api/things")
	if err != nil {
		t.Fatal(err)
	}
	for media, want := range map[string]string{
		"":                             `{"base":"https://host.example/api","body":{"a":1},"method":"PATCH","path":"/things"}`,
		"application/json":             `{"base":"https://host.example/api","body":{"a":1},"body_type":"application/json","method":"PATCH","path":"/things"}`,
		"application/merge-patch+json": `{"base":"https://host.example/api","body":{"a":1},"body_type":"application/merge-patch+json","method":"PATCH","path":"/things"}`,
	} {
		h := http.Header{}
		if media != "" {
			h.Set("Content-Type", media)
		}
		readings, err := rec.Read(provider.Raw{Method: "PATCH", URL: u, Header: h, Body: []byte(`{"a":1}`), Whole: true}, rec.API.Base...)
		if err != nil || string(readings[0].Request.Args) != want {
			t.Errorf("%q: %v, %s, want %s", media, err, readings[0].Request.Args, want)
		}
	}
}
