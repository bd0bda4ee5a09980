//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"

	"github.com/ambit-dev/ambit/client"
)

// Issue 5: a page of a product, at an origin of its own, has its user connect an
// account. The window signs them in on the product's word, leads through a provider
// that nobody here wrote, and the page is told; nothing else of Ambit is open to it.
func TestConnectElement(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	s := dev(t, sqlite, "AMBIT_OUTBOUND_ALLOW=127.0.0.1:"+port)
	secret := "foreign-client-secret-" + random()
	var ready struct{ Issuer string }
	stop, err := script(t, "oidc-provider.mjs", map[string]any{"port": port, "client_id": "ambit", "client_secret": secret, "ttl": 3600,
		"redirect_uris": []string{s.URL + "/ui/callback/" + s.EnvironmentID + "/foreign"}}).Start(&ready)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	if _, err := client.New(s.URL, s.APIKey).PutProvider(t.Context(), "foreign", client.PutProvider{YAML: fmt.Sprintf(foreignRecord, ready.Issuer), ClientID: "ambit", ClientSecret: secret, ClientFor: "all", AcceptShared: true}); err != nil {
		t.Fatal(err)
	}
	var token struct{ Token, URL string }
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/v1/connect-tokens", strings.NewReader(`{"user_id":"u-42","organization_id":"acme","providers":["foreign"],"sign_in_link":true}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.APIKey)
	req.Header.Set("Content-Type", "application/json")
	sendJSON(t, req, http.StatusCreated, &token)

	product := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = fmt.Fprintf(w, `<!doctype html><title>Product</title><script type="module" src="%s/connect/ambit-connect.js"></script>
			<ambit-connect token="%s" url="%s">Connect</ambit-connect>
			<script>for (const name of ["connected", "failed", "expired", "blocked"]) addEventListener("ambit-" + name, (e) => { window.told = { name, ...e.detail }; });</script>`, s.URL, token.Token, token.URL)
	}))
	t.Cleanup(product.Close)
	b := newBrowser(t, s.URL)
	b.open(product.URL)
	b.until("the element is there", `document.querySelector("ambit-connect")?.shadowRoot?.querySelector("button")`)
	opened := chromedp.WaitNewTarget(b.ctx, func(i *target.Info) bool { return strings.HasPrefix(i.URL, s.URL) })
	b.click("ambit-connect")
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithTargetID(<-opened))
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // it lives as long as the context of the first call
		t.Fatal(err)
	}
	w := &browser{t: t, ctx: ctx, base: s.URL}
	w.until("the window says who it is about", `document.body.innerText.includes("ambit dev says that you are u-42 of acme")`)
	w.clickText("That is me, go on")
	w.arrives("/ui/connect/")
	w.until("the page is for the product's user", `document.body.innerText.includes("u-42") && !document.querySelector("nav")`)
	w.clickText("Continue")
	w.until("the way to the provider is shown", fmt.Sprintf(`document.querySelector("a.button.primary")?.href.startsWith(%q)`, ready.Issuer))
	w.click("a.button.primary")
	w.until("the account is connected", `document.body.innerText.includes("is connected as mallory@foreign.example") && document.body.innerText.includes("You can close this window")`)

	b.until("the page is told", `window.told`)
	told := ask[map[string]string](b, `window.told`)
	if told["name"] != "connected" || told["provider"] != "foreign" || !strings.HasPrefix(told["connection"], "conn_") {
		t.Errorf("the page is told %v", told)
	}
	if state := ask[string](b, `document.querySelector("ambit-connect").getAttribute("state")`); state != "connected" {
		t.Errorf("the element is %q", state)
	}
	// Nothing else of the server can be read from there.
	b.mute(true)
	for _, path := range []string{"/ui/", "/v1/connections", "/data-integrations"} {
		ask[string](b, fmt.Sprintf(`window.read = "", fetch(%q, { credentials: "include" }).then(() => { read = "yes"; }, () => { read = "no"; }), "asked"`, s.URL+path))
		b.until("the fetch has ended", `window.read`)
		if ask[string](b, `window.read`) != "no" {
			t.Errorf("a page of another origin reads %s", path)
		}
	}
}
