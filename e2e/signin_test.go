//go:build e2e

package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/e2e/world"
)

// A person is invited, accepts with a sign-in at a certified OpenID provider, and
// comes back with it; who is not known by it stays out, and an organization's own
// provider lets its people into that organization (threats.md G8, O1).
func TestSignInElsewhere(t *testing.T) {
	t.Parallel()
	idp, port := freePort(t), freePort(t)
	base, secret := "http://localhost:"+port, "secret-"+random()
	n := &world.Node{Command: "dev", Home: t.TempDir(), Listen: "localhost:" + port}
	n.Env = []string{"AMBIT_ROOT_KEY=" + filepath.Join(n.Home, "root.key"), "AMBIT_OUTBOUND_ALLOW=127.0.0.1:" + idp, "AMBIT_SIGNIN_ISSUER=http://127.0.0.1:" + idp,
		"AMBIT_SIGNIN_CLIENT_ID=ambit", "AMBIT_SIGNIN_CLIENT_SECRET=" + secret, "AMBIT_SIGNIN_NAME=Example Login"}
	s := start(t, n)
	var ready struct{ Issuer string }
	stop, err := script(t, "oidc-provider.mjs", map[string]any{"port": idp, "client_id": "ambit", "client_secret": secret, "redirect_uris": []string{base + "/ui/signin/from/operator"}}).Start(&ready)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)

	owner := signIn(t, s)
	owner.open("/ui/organization")
	owner.fill("#new-name", "Ada Novak")
	owner.fill("#new-email", "ada@example.com")
	owner.clickText("Add")
	owner.until("the page asks", `document.querySelector("form[data-passkey=get]")`)
	owner.click("[data-prove]")
	owner.until("the link is shown", `document.querySelector(".once")`)
	link := owner.text(".once code")

	ada := newBrowser(t, s.URL)
	ada.open("/ui/signin")
	ada.inspect("signin-elsewhere")
	ada.clickText("Sign in with Example Login")
	ada.until("nobody is known by it yet", `document.body.innerText.includes("Nobody here is known by this sign-in")`)

	ada.open(strings.TrimPrefix(link, s.URL))
	ada.until("the link works", `document.getElementById("link-works")?.checkVisibility()`)
	ada.clickText("Does your company have a sign-in of its own?")
	ada.clickText("Use another sign-in")
	ada.until("it says who they become", `document.querySelector("h1")?.innerText.includes("You become Ada Novak here")`)
	ada.inspect("signin-leave")
	ada.click("a.button.primary")
	ada.until("Ada is signed in", `document.querySelector("nav.nav") && document.readyState === "complete"`)
	ada.open("/ui/account")
	ada.until("it is one of their ways in", `document.body.innerText.includes("Example Login")`)
	ada.inspect("account-elsewhere")
	ada.clickText("Sign out everywhere")
	ada.until("they are signed out", `location.pathname === "/ui/signin"`)
	ada.clickText("Sign in with Example Login")
	ada.until("Ada is signed in again", `document.querySelector("nav.nav") && document.readyState === "complete"`)
	if got := ada.location(); !strings.HasPrefix(got, s.URL+"/ui/") {
		t.Errorf("signed in, and at %s", got)
	}

	// An organization's own, as its owner adds it.
	owner.open("/ui/organization/signin")
	owner.inspect("organization-signin")
	owner.fill("#name", "Our login")
	owner.fill("#issuer", ready.Issuer)
	owner.fill("#client_id", "ambit")
	owner.fill("#client_secret", secret)
	owner.clickText("Add")
	owner.until("the page asks", `document.querySelector("form[data-passkey=get]")`)
	owner.says("may sign in at 127.0.0.1:" + idp)
	owner.inspect("organization-signin-ask")
	owner.click("[data-prove]")
	owner.until("it is there", `document.querySelector(".notice.good") && document.body.innerText.includes("Our login")`)
	owner.inspect("organization-signin-added")
}
