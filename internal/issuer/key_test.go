package issuer_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/issuer"
	"github.com/ambit-dev/ambit/internal/outbound"
)

// publishes starts a server on which issuers lie below paths: their metadata, whose
// endpoints and keys are as told, and a reader that may reach them.
func publishes(t *testing.T, now func() time.Time, told func(base, path string) (authorization, keys string)) (string, *issuer.Reader) {
	t.Helper()
	var srv *httptest.Server
	srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, ok := strings.CutSuffix(r.URL.Path, "/.well-known/openid-configuration")
		if !ok {
			http.NotFound(w, r)
			return
		}
		authorization, keys := told(srv.URL, path)
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":%q,"token_endpoint":%q,"jwks_uri":%q}`, srv.URL+path, authorization, srv.URL+"/token", keys)
	}))
	t.Cleanup(srv.Close)
	client, err := outbound.New(outbound.Policy{Allow: []string{strings.TrimPrefix(srv.URL, "http://")}})
	if err != nil {
		t.Fatal(err)
	}
	return srv.URL, issuer.NewConfigured(client, now)
}

// W5: an issuer that names another's metadata as its keys breaks nobody's sign-in but
// its own.
func TestOneIssuerCannotBreakAnother(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	base, r := publishes(t, func() time.Time { return now }, func(base, path string) (string, string) {
		if path == "/mallory" {
			return base + "/authorize", base + "/victim/.well-known/openid-configuration"
		}
		return base + "/authorize", base + "/keys"
	})
	ctx := t.Context()
	if _, err := r.Discover(ctx, base+"/victim"); err != nil {
		t.Fatal(err)
	}
	now = now.Add(61 * time.Minute) // what is remembered of the victim must be looked at again
	m, err := r.Discover(ctx, base+"/mallory")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Keys(ctx, m.Keys, true); err == nil {
		t.Error("metadata were taken for keys")
	}
	if _, err := r.Discover(ctx, base+"/victim"); err != nil {
		t.Errorf("the victim's metadata after somebody else named them: %v", err)
	}
}

// Many tenants of one host are looked at, each for itself.
func TestManyIssuersOnOneHost(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	base, r := publishes(t, func() time.Time { return now }, func(base, _ string) (string, string) { return base + "/authorize", base + "/keys" })
	for i := range 90 {
		if _, err := r.Discover(t.Context(), fmt.Sprintf("%s/tenant-%d", base, i)); err != nil {
			t.Fatalf("the issuer number %d: %v", i, err)
		}
	}
}

// O9: a browser is sent to addresses of the web only, whatever an issuer says.
func TestEndpointsAreOfTheWeb(t *testing.T) {
	t.Parallel()
	for _, place := range []string{"javascript:alert(1)", "search-ms:query=x", "data:text/html,x", "/authorize", "//evil.example/authorize"} {
		base, r := publishes(t, time.Now, func(base, _ string) (string, string) { return place, base + "/keys" })
		m, err := r.Discover(t.Context(), base+"/odd")
		if err == nil {
			_, err = issuer.Party{Issuer: base + "/odd", ClientID: "ambit", Redirect: "https://ambit.example/back"}.AuthorizationURL(m, issuer.Ask{})
		}
		if err == nil {
			t.Errorf("a browser is sent to %s", place)
		} else if fault.Of(err).Kind == fault.Internal {
			t.Errorf("%s: %v", place, err)
		}
	}
}
