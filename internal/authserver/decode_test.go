package authserver_test

import (
	"encoding/json"
	"net/url"
	"testing"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/authserver"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/google/go-cmp/cmp"
)

func FuzzParams(f *testing.F) {
	f.Add("grant_type=authorization_code&code=a%20b&redirect_uri=https%3A%2F%2Fa")
	f.Add("a=1&a=2")
	f.Add("a=%zz;b")
	f.Add("=&&==")
	f.Fuzz(func(t *testing.T, raw string) {
		values, repeated, err := authserver.ParseParams(raw)
		if err != nil {
			if k := fault.KindOf(err); k != fault.Invalid && k != fault.TooLarge {
				t.Errorf("%q: got %v, want invalid or too large", raw, err)
			}
			return
		}
		std, err := url.ParseQuery(raw)
		if err != nil {
			t.Fatalf("%q was accepted and the standard parser says %v", raw, err)
		}
		for name, list := range std {
			v, ok := values[name]
			if single := len(list) == 1; single != ok || single == repeated[name] || ok && v != list[0] {
				t.Errorf("%q: %q is read as %q, repeated %v; want %q", raw, name, v, repeated[name], list)
			}
			if !utf8.ValidString(v) {
				t.Errorf("%q: %q is not text", raw, v)
			}
		}
	})
}

func TestRegistrationIsReadStrictly(t *testing.T) {
	t.Parallel()
	got, err := authserver.ParseRegistration([]byte(`{"redirect_uris":["https://a.example/cb"],"client_name":"x","grant_types":["authorization_code"],
		"response_types":["code"],"token_endpoint_auth_method":"none","application_type":"web","jwks":{"keys":[]},"unknown":1,"Redirect_uri":"y"}`))
	want := agent.NewClient{RedirectURIs: []string{"https://a.example/cb"}, Name: "x", Grants: []string{"authorization_code"}, AuthMethod: "none", ApplicationType: "web", Keys: `{"keys":[]}`}
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{
		``, `null`, `[]`, `"x"`, `{`, `{} {}`, `{"redirect_uris":"https://a.example/cb"}`, `{"redirect_uris":[1]}`, `{"client_name":{}}`,
		`{"client_name":"a","client_name":"b"}`, `{"client_name":"a","CLIENT_NAME":"b"}`, `{"response_types":["token"]}`,
		"{\"client_name\":\"\xff\"}", `{"client_name":"\u0000"}`, `{"grant_types":"authorization_code"}`,
	} {
		if _, err := authserver.ParseRegistration([]byte(bad)); !fault.Is(err, "invalid_client_metadata") {
			t.Errorf("%s: got %v, want invalid_client_metadata", bad, err)
		}
	}
}

func FuzzRegistration(f *testing.F) {
	f.Add([]byte(`{"redirect_uris":["https://a.example/cb"],"client_name":"x","token_endpoint_auth_method":"none"}`))
	f.Add([]byte(`{"Redirect_URIs":["https://a.example/cb"]}`))
	f.Add([]byte(`{"redirect_uris":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := authserver.ParseRegistration(body)
		if err != nil {
			if !fault.Is(err, "invalid_client_metadata") {
				t.Errorf("%q: got %v", body, err)
			}
			return
		}
		var doc map[string]any
		if err := json.Unmarshal(body, &doc); err != nil {
			t.Fatalf("%q was accepted and is not an object: %v", body, err)
		}
		if uris, _ := doc["redirect_uris"].([]any); len(uris) != len(n.RedirectURIs) {
			t.Errorf("%q: got %d redirect URIs, want those of the exact name", body, len(n.RedirectURIs))
		}
	})
}
