package web_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Issue 5: an account at a provider of OAuth 1.0 is connected on the same pages as one
// of OAuth 2, also where the person says no.
func TestConnectByOAuth1(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	said := func(w http.ResponseWriter, r *http.Request, token string) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write([]byte("oauth_token=" + token + "&oauth_token_secret=secret-of-" + token + "&oauth_callback_confirmed=true"))
	}
	s.Serve("old.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch signed := r.Header.Get("Authorization"); {
		case !strings.HasPrefix(signed, "OAuth "):
			w.WriteHeader(http.StatusUnauthorized)
		case strings.HasSuffix(r.URL.Path, "/request"):
			said(w, r, "temporary-1")
		case strings.HasSuffix(r.URL.Path, "/token") && strings.Contains(signed, `oauth_token="temporary-1"`) && strings.Contains(signed, `oauth_verifier="v-1"`):
			said(w, r, "account-1")
		case strings.Contains(signed, `oauth_token="account-1"`):
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"id":"7","name":"mia"}`))
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	at := s.Sandbox.URL + "/old.example"
	record := "id: old\nname: Old\nauth: oauth2\noauth2: {request_url: " + at + "/request, authorize_url: " + at + "/authorize, token_url: " + at + "/token}\n" +
		"identity: {path: /me, id: id, label: name}\napi: {base: [\"" + at + "\"]}\ngeneric: {read: true}\n"
	_, err := s.Providers.Put(t.Context(), s.System.In(s.Environment), provider.Input{YAML: []byte(record), ClientID: "ours", ClientSecret: secret.FromString("our-secret-1")}, account.Agreement{})
	gatewaytest.Must(t, err)
	b := s.person(t, "mia@example.com", account.RoleMember)
	begin := func() string {
		page := b.get("/ui/connections/new?provider=old").want(http.StatusOK).submit("/ui/connections", nil).want(http.StatusOK)
		return page.link("Continue to Old")
	}
	if to := begin(); to != at+"/authorize?oauth_token=temporary-1" {
		t.Fatalf("the person goes to %s", to)
	}
	back := "/ui/callback/" + string(s.Environment) + "/old?"
	b.get(back + "denied=temporary-1").want(http.StatusForbidden).says("access was declined")
	begin()
	b.get(back+"oauth_token=temporary-1&oauth_verifier=v-1").want(http.StatusOK).says("Connected", "Old is connected as mia")
	b.get(back + "oauth_token=temporary-1&oauth_verifier=v-1").want(http.StatusGone)
	b.get("/ui/connections").says("Old", "mia", "Connected")
}
