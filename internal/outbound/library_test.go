package outbound_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
)

// Issue 4, keepers: what the SDK of a cloud sends passes the gates that every
// request passes.
func TestLibraryPassesTheSameGates(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/away" {
			http.Redirect(w, r, "https://elsewhere.test/", http.StatusFound)
			return
		}
		w.Header().Set("X-Seen", r.Header.Get("Authorization"))
		_, _ = w.Write(append([]byte(r.Method+" "), body...))
	}, true)
	lib := u.client.Library(outbound.Library{Party: "keeper"})
	post := func(client *http.Client, url, body string) (*http.Response, string, error) {
		resp, err := client.Do(request(t, "POST", url, struct{ io.Reader }{strings.NewReader(body)}))
		if err != nil {
			return nil, "", err
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		return resp, string(text), err
	}
	if resp, text, err := post(lib, u.URL+"/", "question"); err != nil || text != "POST question" || resp.Header.Get("X-Seen") != "Bearer "+canary {
		t.Errorf("got %q, %v", text, err)
	}
	if resp, _, err := post(lib, u.URL+"/away", ""); err != nil || resp.StatusCode != http.StatusFound {
		t.Errorf("a redirect is an answer: %v, %v", resp, err)
	}
	if _, _, err := post(lib, u.URL+"/", strings.Repeat("x", 1<<20+1)); !fault.Is(err, "request_invalid") {
		t.Errorf("a body over the limit: %v", err)
	}
	stranger := newClient(t, outbound.Policy{})
	for _, metadata := range []bool{false, true} {
		lib := stranger.Library(outbound.Library{Party: "keeper", Metadata: metadata})
		for _, url := range []string{u.URL, "http://127.0.0.1:80/", "https://169.254.169.254/", "http://169.254.169.253.nip.test:1/", "http://10.0.0.1/"} {
			if _, _, err := post(lib, url, ""); !fault.Is(err, "destination_denied") && !fault.Is(err, "upstream_unreachable") {
				t.Errorf("%s with metadata %v: %v", url, metadata, err)
			}
		}
	}
}

// Only the client for which the operator said so reaches a metadata service, on
// no port but theirs; a listed host never does.
func TestLibraryMetadata(t *testing.T) {
	t.Parallel()
	c := newClient(t, outbound.Policy{Allow: []string{"169.254.169.254:80", "169.254.169.254:8080"}})
	var asked []string
	c.SetConnect(func(address string) error { asked = append(asked, address); return errStopped })
	get := func(lib outbound.Library, url string) error {
		_, err := c.Library(lib).Do(request(t, "GET", url, nil))
		return err
	}
	for _, row := range []struct {
		lib  outbound.Library
		url  string
		code string
	}{
		{outbound.Library{}, "http://169.254.169.254/latest", "destination_denied"},
		{outbound.Library{Metadata: true}, "http://169.254.169.254:8080/", "destination_denied"},
		{outbound.Library{Metadata: true}, "http://169.254.1.1/", "destination_denied"},
	} {
		if err := get(row.lib, row.url); !fault.Is(err, row.code) {
			t.Errorf("%s with %+v: got %v", row.url, row.lib, err)
		}
	}
	if len(asked) != 0 {
		t.Errorf("it got as far as %v", asked)
	}
	for _, url := range []string{"http://169.254.169.254/latest", "http://169.254.170.2:80/role", "http://[fd00:ec2::254]/"} {
		if err := get(outbound.Library{Metadata: true}, url); err == nil || fault.Is(err, "destination_denied") {
			t.Errorf("%s: got %v, want it tried", url, err)
		}
	}
	if len(asked) != 3 {
		t.Errorf("tried %v, want three", asked)
	}
}
