package provider

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

// RFC 5849 publishes a base string (§3.4.1.1) and three signatures (§1.2).
func TestOAuth1Vectors(t *testing.T) {
	t.Parallel()
	at := func(raw string) *url.URL {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	form, err := url.ParseQuery("c2&a3=2+q")
	if err != nil {
		t.Fatal(err)
	}
	const base = "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D%26c2%3D%26oauth_consumer_key%3D9djdj82h48djs9d2" +
		"%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1%26oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7"
	got := oauth1Base("post", at("HTTP://EXAMPLE.COM:80/request?b5=%3D%253D&a3=a&c%40=&a2=r%20b"), form, [][2]string{{"oauth_consumer_key", "9djdj82h48djs9d2"}, {"oauth_token", "kkk9d7dh3k39sjv7"},
		{"oauth_signature_method", "HMAC-SHA1"}, {"oauth_timestamp", "137131201"}, {"oauth_nonce", "7d8f3e4a"}})
	if got != base {
		t.Errorf("the base string is\n%s\nwant\n%s", got, base)
	}
	for _, row := range []struct {
		method, url, tokenSecret, signature string
		protocol                            [][2]string
	}{
		{"POST", "https://photos.example.net/initiate", "", "74KNZJeDHnMBp0EMJ9ZHt%2FXKycU%3D", [][2]string{{"oauth_consumer_key", "dpf43f3p2l4k3l03"}, {"oauth_signature_method", "HMAC-SHA1"},
			{"oauth_timestamp", "137131200"}, {"oauth_nonce", "wIjqoS"}, {"oauth_callback", "http://printer.example.com/ready"}}},
		{"POST", "https://photos.example.net/token", "hdhd0244k9j7ao03", "gKgrFCywp7rO0OXSjdot%2FIHF7IU%3D", [][2]string{{"oauth_consumer_key", "dpf43f3p2l4k3l03"}, {"oauth_token", "hh5s93j4hdidpola"},
			{"oauth_signature_method", "HMAC-SHA1"}, {"oauth_timestamp", "137131201"}, {"oauth_nonce", "walatlh"}, {"oauth_verifier", "hfdp7dh39dks9884"}}},
		{"GET", "http://photos.example.net/photos?file=vacation.jpg&size=original", "pfkkdhi9sl3r4s00", "MdpQcU8iPSUjWoN%2FUDMsK2sui9I%3D", [][2]string{{"oauth_consumer_key", "dpf43f3p2l4k3l03"},
			{"oauth_token", "nnch734d00sl2jdk"}, {"oauth_signature_method", "HMAC-SHA1"}, {"oauth_timestamp", "137131202"}, {"oauth_nonce", "chapoH"}}},
	} {
		if got := oauth1Header(row.method, at(row.url), nil, "kd94hf93k423kf44", row.tokenSecret, row.protocol); !strings.HasSuffix(got, `oauth_signature="`+row.signature+`"`) {
			t.Errorf("%s: got %s, want the signature %s", row.url, got, row.signature)
		}
	}
}

// A record that signs with OAuth 1.0 asks for the four parts, signs each request
// anew, over whatever an agent set, and keeps every secret and the header itself out
// of what comes back (threats.md U1).
func TestOAuth1Injection(t *testing.T) {
	t.Parallel()
	e, err := FindEntry("x_keys")
	if err != nil {
		t.Fatal(err)
	}
	r := e.Shown
	cred := Credential{Kind: APIKey, Values: map[string]secret.Value{}}
	for _, name := range r.CredentialFields() {
		cred.Values[name] = secret.FromString("value-of-the-" + name)
	}
	if len(cred.Values) != 4 {
		t.Errorf("asks for %v", r.CredentialFields())
	}
	sign := func(body string) (string, *Redactor) {
		u, _ := url.Parse("https://api.x.com/2/users/me?a=b")
		req := &http.Request{Method: "POST", URL: u, Header: http.Header{"Authorization": {"Bearer of-an-agent"}, "Content-Type": {"application/x-www-form-urlencoded"}},
			GetBody: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }}
		red, err := r.Inject(req, cred)
		if err != nil || len(req.Header["Authorization"]) != 1 {
			t.Fatalf("%v, %v", req.Header, err)
		}
		return req.Header.Get("Authorization"), red
	}
	one, red := sign("x=1")
	other, _ := sign("x=1")
	if !strings.HasPrefix(one, `OAuth oauth_consumer_key="value-of-the-consumer_key"`) || one == other || strings.Contains(one, "secret=") || strings.Contains(one, "of-the-token_secret") {
		t.Errorf("signed as %s, then as %s", one, other)
	}
	for _, leak := range []string{one, "value-of-the-consumer_secret", "value-of-the-token_secret", "value-of-the-token"} {
		if out := red.Text([]byte("said: " + leak)); bytes.Contains(out, []byte(leak)) {
			t.Errorf("%s comes back", leak)
		}
	}
	for _, name := range []string{"consumer_secret", "token_secret"} { // what signs is sent to nobody
		f := filling{rec: r, cred: cred}
		if got := f.text(placeholderMark + name); got != placeholderMark+name || f.filled {
			t.Errorf("a placeholder for the %s is filled", name)
		}
	}
	u, _ := url.Parse("https://api.x.com/2/media")
	streams := &http.Request{Method: "POST", URL: u, Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, Body: io.NopCloser(strings.NewReader("a=b"))}
	if err := SignForOAuth1(streams, cred.Values, "n", time.Now()); !fault.Is(err, "body_too_large") {
		t.Errorf("a form that cannot be read before it is signed: %v", err)
	}
	if err := SignForOAuth1(&http.Request{Method: "GET", URL: &url.URL{Scheme: "https", Host: "h"}, Header: http.Header{}}, map[string]secret.Value{}, "n", time.Now()); err == nil {
		t.Error("signed with nothing")
	}
}
