package transit

import (
	"net/url"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	p, err := parse("transit+https://vault.example.com:8200/team/transit/keys/ambit-1?namespace=a/b&auth=approle&auth-mount=app2&as=x")
	if want := (place{"https://vault.example.com:8200", "vault.example.com:8200", "a/b", "team/transit", "ambit-1", "approle", "app2", "x"}); err != nil || p != want {
		t.Errorf("got %+v, %v", p, err)
	}
	p, err = parse("transit+http://[::1]:8200/transit/keys/k")
	if err != nil || p.origin != "http://[::1]:8200" || p.auth != "token" || p.authMount != "token" {
		t.Errorf("got %+v, %v", p, err)
	}
	for _, uri := range []string{
		"", "transit", "transit+https://", "https://h/transit/keys/k", "transit+ftp://h/transit/keys/k", "transit+https:h/transit/keys/k",
		"transit+https://h/keys/k", "transit+https://h/transit/k", "transit+https://h/transit/keys/", "transit+https://h/transit/keys/k/",
		"transit+https://h//keys/k", "transit+https://h/../keys/k", "transit+https://h/transit/keys/..", "transit+https://h/transit/keys/%6b",
		"transit+https://user:pw@h/transit/keys/k", "transit+https://h/transit/keys/k#x", "transit+https://H/transit/keys/k",
		"transit+https://h:/transit/keys/k", "transit+https://h:080/transit/keys/k", "transit+https://h:99999999/transit/keys/k",
		"transit+httpS://h/transit/keys/k", // found by the fuzzer: a second spelling
		"transit+http://h/transit/keys/k", "transit+http://10.0.0.1/transit/keys/k", "transit+http://localhost.example.com/transit/keys/k",
		"transit+https://h/transit/keys/k?token=x", "transit+https://h/transit/keys/k?auth=x", "transit+https://h/transit/keys/k?as=a&as=b",
		"transit+https://h/transit/keys/k?namespace=../x", "transit+https://h/transit/keys/k?as=../x", "transit+https://h/transit/keys/k?as=a/b",
		"transit+https://h/transit/keys/k?namespace=", "transit+https://h/transit/keys/k\n", "transit+https://h/transit/keys/" + strings.Repeat("k", 200),
	} {
		if p, err := parse(uri); err == nil {
			t.Errorf("%q is read as %+v", uri, p)
		}
	}
}

// FuzzParse holds that what is read goes to the host that is written, by another
// reading of the text, and names nothing outside its folders.
func FuzzParse(f *testing.F) {
	f.Add("transit+https://vault.example.com:8200/team/transit/keys/ambit-1?namespace=a/b&auth=approle&auth-mount=app2&as=x")
	f.Add("transit+http://[::1]:8200/transit/keys/k")
	f.Add("transit+https://a@b/transit/keys/k?as=..")
	f.Fuzz(func(t *testing.T, uri string) {
		p, err := parse(uri)
		if err != nil {
			return
		}
		u, err := url.Parse(p.origin + "/v1/" + p.mount + "/encrypt/" + p.key)
		if err != nil || u.Host != p.host || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.RawPath != "" {
			t.Fatalf("%q gives %+v: %v, %+v", uri, p, err, u)
		}
		rest, ok := strings.CutPrefix(uri, "transit+"+u.Scheme+"://")
		if authority, _, _ := strings.Cut(rest, "/"); !ok || authority != p.host {
			t.Errorf("%q goes to %q", uri, p.host)
		}
		if u.Scheme == "http" && !strings.HasPrefix(p.host, "127.") && !strings.HasPrefix(p.host, "[::1]") && !strings.HasPrefix(p.host, "localhost") {
			t.Errorf("%q goes in clear to %q", uri, p.host)
		}
		for _, part := range append(strings.Split(u.Path, "/"), p.as, p.authMount, p.namespace) {
			if part == "." || part == ".." || strings.ContainsAny(part, "\\ \x00\r\n") {
				t.Errorf("%q has the part %q", uri, part)
			}
		}
	})
}
