package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/qr"
)

// open routes are those that work without a sign-in; there are no others.
var open = map[string]bool{
	"GET /ui/signin": true, "POST /ui/signin": true, "POST /ui/signin/begin": true, "POST /ui/signin/passkey": true,
	"GET /ui/enroll": true, "POST /ui/enroll/look": true, "POST /ui/enroll/begin": true, "POST /ui/enroll": true,
	"GET /ui/signin/with/{provider}": true, "GET /ui/signin/from/{provider}": true, "POST /ui/enroll/with": true,
	"POST /ui/enroll/authenticator": true, "POST /ui/enroll/authenticator/confirm": true,
	"GET /ui/vouch": true, "POST /ui/vouch/look": true, "POST /ui/vouch": true,
}

// split gives the method of a pattern, and a path that it matches.
func split(pattern string) (method, path string) {
	method, path, ok := strings.Cut(pattern, " ")
	if !ok {
		return "GET", pattern + "no/such/page"
	}
	ids := map[string]string{
		"approvals": string(id.NewApproval()), "sessions": string(id.NewSession()), "connections": string(id.NewConnection()), "agents": string(id.NewAgent()),
		"keys": string(id.NewKEK()), "apikeys": string(id.NewKey()), "bindings": string(id.NewBinding()), "members": string(id.NewUser()), "passkeys": string(id.NewPasskey()), "logins": string(id.NewLogin()), "notices": string(id.NewEvent()), "users": string(id.NewUser()), "drafts": string(id.NewDraft()), "secrets": string(id.NewSecret()), "connect": string(id.NewTicket()), "webhooks": string(id.NewWebhook()),
	}
	parts := strings.Split(strings.TrimSuffix(path, "{$}"), "/")
	for i, p := range parts {
		switch p {
		case "{id}":
			parts[i] = ids[parts[i-1]]
		case "{flow}":
			parts[i] = string(id.NewFlow())
		case "{code}":
			parts[i] = "BCDFGHJK"
		case "{environment}":
			parts[i] = string(id.NewEnvironment())
		case "{provider}":
			parts[i] = "tracker"
		}
	}
	return method, strings.Join(parts, "/")
}

func (b *browser) send(method, path string, header ...string) *doc {
	b.t.Helper()
	if method == http.MethodGet {
		return b.get(path)
	}
	return b.post(path, url.Values{}, header...)
}

// S5, W3: every route but the few that are listed refuses whoever is not signed
// in, whatever the request looks like.
func TestEveryRouteNeedsASignIn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.open(t)
	stale := s.person(t, "gone@example.com", account.RoleMember)
	token := stale.cookie()
	stale.get("/ui/account").submit("/ui/account/signout", nil).to("/ui/signin")
	for _, r := range s.Pages.Routes() {
		if r.Open != open[r.Pattern] {
			t.Errorf("%s: open is %v, want %v", r.Pattern, r.Open, open[r.Pattern])
		}
		if r.Open {
			continue
		}
		method, path := split(r.Pattern)
		for _, cookie := range []string{"", "ambit=" + token, "ambit=x", "ambit=" + token + "; ambit=" + token, "__Host-ambit=" + token} {
			req, _ := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
			req.Header.Set("Sec-Fetch-Site", "same-origin")
			req.Header.Set("Cookie", cookie)
			d := b.do(req)
			if method == http.MethodGet {
				d.want(http.StatusSeeOther).to("/ui/signin?next=")
			} else {
				d.want(http.StatusUnauthorized)
			}
		}
	}
	for _, path := range []string{"/ui/%2e%2e/ui/account", "/ui//account", "/ui/account;x", "/ui/account%2f", "/ui/account/", "/ui/events", "/ui/Account"} {
		if d := b.get(path); d.status == http.StatusOK {
			t.Errorf("%s: got 200 without a sign-in", path)
		}
	}
}

// A7, S10: the headers that keep the pages ours are on every answer.
func TestHeadersOnEveryRoute(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	guest, owner := s.open(t), s.person(t, "owner@example.com", account.RoleOwner)
	want := map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; " +
			"base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "X-Frame-Options": "DENY",
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
	}
	routes := []string{"GET /", "GET /ui/assets/x", "GET /ui/events"}
	for _, r := range s.Pages.Routes() {
		routes = append(routes, r.Pattern)
	}
	for _, b := range []*browser{guest, owner} {
		for _, pattern := range routes {
			method, path := split(pattern)
			if b == owner && (path == "/ui/events" || strings.HasSuffix(path, "/signout")) {
				continue // a stream does not end; the owner stays signed in
			}
			d := b.send(method, path)
			for name, value := range want {
				if got := d.header.Get(name); got != value {
					t.Errorf("%s %s: %s is %q, want %q", method, path, name, got, value)
				}
			}
			if d.header.Get("X-Request-Id") == "" || !strings.Contains(d.header.Get("Permissions-Policy"), "publickey-credentials-get=(self)") {
				t.Errorf("%s %s: no request id or permissions policy", method, path)
			}
			if d.status == http.StatusInternalServerError {
				t.Errorf("%s %s: got 500: %s", method, path, d.text("main"))
			}
		}
	}
}

func TestAssetsNeverChangeUnderTheirAddress(t *testing.T) {
	t.Parallel()
	b := newSite(t).open(t)
	page := b.get("/ui/signin").want(http.StatusOK)
	for n := range page.root.Descendants() {
		address := attr(n, "src")
		if n.Data == "link" {
			address = attr(n, "href")
		}
		if address == "" {
			continue
		}
		d := b.get(address).want(http.StatusOK)
		if got := d.header.Get("Cache-Control"); got != "public, max-age=31536000, immutable" {
			t.Errorf("%s: Cache-Control is %q", address, got)
		}
	}
	b.get("/ui/assets/0000000000000000/js/ambit.js").want(http.StatusNotFound)
}

// A6: what another site's page sends changes nothing.
func TestFormsOfOtherSitesAreRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "owner@example.com", account.RoleOwner)
	for _, r := range s.Pages.Routes() {
		method, path := split(r.Pattern)
		if method != http.MethodPost {
			continue
		}
		for _, from := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Site", "", "Origin", "https://evil.example"}, {"Sec-Fetch-Site", "", "Origin", "null"}} {
			b.send(method, path, from...).want(http.StatusForbidden).says("another site")
		}
	}
	b.get("/ui/account").want(http.StatusOK)
}

// T6, W2: the first owner's way in, from the printed link to a cookie that
// scripts and other sites cannot have.
func TestEnrolSignInSignOut(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	link, err := s.Accounts.Recover(t.Context(), string(accounttest.Join(t, s.Accounts, s.Environment, s.Organization, account.RoleOwner, "first@example.com").User()))
	if err != nil {
		t.Fatal(err)
	}
	token := accounttest.LinkToken(link)
	b := s.open(t)
	b.Human = &accounttest.Human{Authenticator: accounttest.New(s.Accounts.Origin())}
	enroll := b.get("/ui/enroll").want(http.StatusOK)
	look := func(want int) *doc {
		return b.post("/ui/enroll/look", url.Values{"token": {show(token)}}, "Accept", "application/json").want(want)
	}
	look(http.StatusOK)
	look(http.StatusOK) // looking uses nothing up
	done := enroll.submit("/ui/enroll", func(v url.Values) { v.Set("token", show(token)) }).want(http.StatusSeeOther).to("/ui/account")
	set := done.header.Get("Set-Cookie")
	for _, part := range []string{"ambit=amb_login_", "; Path=/", "; HttpOnly", "; SameSite=Lax"} {
		if !strings.Contains(set, part) {
			t.Errorf("the cookie is %q, want it to hold %q", set, part)
		}
	}
	if strings.Contains(set, "Domain") {
		t.Errorf("the cookie names a domain: %q", set)
	}
	done.follow().says("Add a second passkey now", "My device", "Add a passkey")
	b.post("/ui/enroll", url.Values{"token": {show(token)}, "credential": {"{}"}, "label": {"again"}}).want(http.StatusGone)
	look(http.StatusGone) // a used link used to be welcomed, and refused when the passkey was made

	before := b.cookie()
	b.signIn("/ui/account")
	after := b.cookie()
	if before == after {
		t.Fatal("signing in kept the old token")
	}
	old := s.open(t)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/ui/account", nil)
	req.Header.Set("Cookie", "ambit="+before)
	if got := old.do(req).want(http.StatusSeeOther).header.Get("Set-Cookie"); !strings.Contains(got, "ambit=; Path=/; Max-Age=0") {
		t.Errorf("a dead cookie is answered with %q, want it cleared", got)
	}
	b.get("/ui/account").says("Add a passkey")
	// W2, a bug: what a program behind another port of the host planted beside the
	// cookie signed the person out of everything, what ends access included.
	with := func(cookies string) *doc {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/ui/account", nil)
		req.Header.Set("Cookie", cookies)
		return s.open(t).do(req)
	}
	with("ambit=planted; ambit=" + after + "; ambit=").says("Add a passkey")
	second := s.person(t, "second@example.com", account.RoleMember)
	with("ambit=" + after + "; ambit=" + second.cookie()).want(http.StatusSeeOther) // two people are nobody
	out := b.get("/ui/").submit("/ui/signout", nil).want(http.StatusSeeOther).to("/ui/signin")
	if got := out.header.Get("Set-Cookie"); !strings.Contains(got, "ambit=; Path=/; Max-Age=0") {
		t.Errorf("signing out sets %q, want the cookie cleared", got)
	}
	b.get("/ui/account").want(http.StatusSeeOther).to("/ui/signin")
}

func TestRemovingAPasskeyTakesAProof(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "two@example.com", account.RoleMember)
	other := accounttest.New(s.Accounts.Origin())
	first := b.Authenticator
	form := b.get("/ui/account/passkeys/new").says("First show that it is you").submit("/ui/account/passkeys/new", nil).want(http.StatusOK)
	b.Authenticator = other
	form.submit("/ui/account/passkeys", func(v url.Values) { v.Set("label", "Blue key") }).follow().says("Blue key")
	page := b.get(b.get("/ui/account").link("Remove")).want(http.StatusOK)
	b.post(page.url.Path, url.Values{}).want(http.StatusUnprocessableEntity)
	b.Authenticator = first
	page.says("test").submit(page.url.Path, nil).to("/ui/account")
	b.get("/ui/account").to("/ui/signin") // what signed in with it is signed out
	b.Authenticator = other
	b.signIn("/ui/account")
	b.get("/ui/account").says("You have one passkey", "Blue key")
}

// show is what the browser reads off the address bar.
func show(v interface{ Reveal() []byte }) string { return string(v.Reveal()) }

func TestSignInByCode(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "coder@example.com", account.RoleApprover)
	page := b.get("/ui/account/authenticator").submit("/ui/account/authenticator", nil).want(http.StatusOK)
	secret := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(page.text("code"), " "), " "), " ", "")
	code := func() string {
		c, err := totp.GenerateCode(secret, s.Clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	// The phone scans what the link holds, drawn in the page itself: no request, no
	// script, nothing inline that the policy would stop.
	drawn, err := qr.Encode(page.link("Open in an app"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(page.body, `<path d="`+drawn.Path()+`"/></svg>`) || !strings.Contains(page.link("Open in an app"), "secret="+secret) {
		t.Errorf("the page does not draw the code of %s", page.link("Open in an app"))
	}
	page.says("Scan this with the app").not("style=")
	page.submit("/ui/account/authenticator/confirm", func(v url.Values) { v.Set("code", code()) }).follow().says("The authenticator app is set up")
	b.get("/ui/").submit("/ui/signout", nil)

	s.Clock.Advance(time.Minute)
	sign := func(email, code, next string) *doc {
		return b.get("/ui/signin?next="+url.QueryEscape(next)).submit("/ui/signin", func(v url.Values) { v.Set("email", email); v.Set("code", code) })
	}
	sign("coder@example.com", "000000", "/ui/").want(http.StatusUnauthorized).says("not accepted")
	sign("nobody@example.com", code(), "/ui/").want(http.StatusUnauthorized).says("not accepted")
	sign("coder@example.com", code(), "//evil.example").to("/ui/")
	b.get("/ui/account").want(http.StatusOK)
}

// G10: after a sign-in the browser stays here.
func TestNextStaysHere(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "next@example.com", account.RoleMember)
	for _, next := range []string{"https://evil.example", "//evil.example", "/\\evil.example", "/ui/%5cevil.example", "/ui/..//evil.example", "/ui/@evil.example", "javascript:alert(1)", "/ui/%0d%0aX: y"} {
		b.get("/ui/signin?next="+url.QueryEscape(next)).submit("/ui/signin/passkey", func(v url.Values) { v.Set("next", next) }).want(http.StatusSeeOther)
		if got := b.get("/ui/signin?next=" + url.QueryEscape(next)).form("/ui/signin"); fields(got).Get("next") != "/ui/" {
			t.Errorf("next=%q becomes %q", next, fields(got).Get("next"))
		}
	}
	guest := s.open(t)
	guest.get("/ui/sessions?state=ended").to("/ui/signin?next=%2Fui%2Fsessions%3Fstate%3Dended")
	guest.get("/ui/callback/" + string(s.Environment) + "/tracker?code=c&state=s").to("/ui/signin?next=%2Fui%2Fconnections")
}
