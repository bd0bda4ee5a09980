package web_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/issuer/issuertest"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/web"
)

// newFederatedSite is newSite with an identity provider of the operator.
func newFederatedSite(t *testing.T, subject string) (*site, *issuertest.Issuer) {
	t.Helper()
	db := sqldbtest.Open(t, sqldb.SQLite)
	w := gatewaytest.New(t, db)
	idp := issuertest.New(t, subject, w.Clock.Now)
	client, err := outbound.New(outbound.Policy{Allow: []string{idp.Host}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	w.Accounts, err = account.New(account.Config{DB: db, Vault: w.Vault, Audit: w.Audit, PublicURL: w.PublicURL, Now: w.Clock.Now, Outbound: client,
		SignIn: account.OperatorSignIn{Name: "Example Login", Issuer: idp.URL, ClientID: issuertest.ClientID, Secret: secret.FromString(issuertest.Secret)}})
	if err != nil {
		t.Fatal(err)
	}
	return siteOf(t, w, db, web.Limits{RefusalRate: 1e6, RefusalBurst: 1e6}), idp
}

// led is get as another site's page makes a browser do it.
func (b *browser) led(path string) *doc {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.site.URL+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	return b.do(req)
}

// W2: no other site's page sends a browser to an identity provider, and an answer of
// one does not make somebody who is signed in another person. Any page could lead a
// browser there, so that its person went on in a stranger's account.
func TestSignInElsewhereReplacesNobody(t *testing.T) {
	t.Parallel()
	s, idp := newFederatedSite(t, "mallory@idp")
	mallory := accounttest.Join(t, s.Accounts, s.Environment, s.Organization, account.RoleMember, "mallory@example.com")
	other := s.open(t)
	other.Human = mallory
	other.signIn("/ui/account")
	ask := other.get("/ui/account/signins/operator").want(http.StatusOK)
	left := ask.submit("/ui/account/signins/operator", nil).want(http.StatusOK)
	other.arrive(idp.Answer(t, left.link("Go on at "+idp.Host))).want(http.StatusSeeOther).to("/ui/account?done=identity")

	v := s.person(t, "v@example.com", account.RoleMember)
	before := v.cookie()
	v.led("/ui/signin/with/operator").want(http.StatusOK).says("The link opens " + idp.Host)
	v.arrive(idp.Answer(t, v.get("/ui/signin/with/operator").want(http.StatusSeeOther).header.Get("Location"))).want(http.StatusConflict).says("sign out first")
	if v.cookie() != before {
		t.Error("the answer of a provider replaced the login of somebody else")
	}
	v.get("/ui/account").want(http.StatusOK)

	// Whoever is nobody yet signs in; so does the same person once more.
	w := s.open(t)
	page := w.led("/ui/signin/with/operator").want(http.StatusOK)
	w.arrive(idp.Answer(t, page.link("Go on at "+idp.Host))).want(http.StatusSeeOther).to("/ui/")
	w.arrive(idp.Answer(t, w.get("/ui/signin/with/operator").header.Get("Location"))).want(http.StatusSeeOther).to("/ui/")
}

func (b *browser) arrive(q url.Values) *doc {
	b.t.Helper()
	return b.get("/ui/signin/from/operator?" + q.Encode())
}
