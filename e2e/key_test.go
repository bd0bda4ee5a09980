//go:build e2e

package e2e

import (
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest/awstest"
)

// Issue 4, "CLI and UI": in a real browser an owner brings their own root key in AWS
// KMS: names it, sees what to allow, tries it, binds it with a passkey and watches
// what was sealed before follow; replaces the key and watches that; has it forgotten
// after it was disabled, and comes back; takes it out; destroys the key. The key's
// policy is the one that the wizard says: it allows calls for the organization only.
func TestKeyPages(t *testing.T) {
	t.Parallel()
	kms := awstest.New(t)
	key := kms.Key()
	plain := httptest.NewServer(kms) // the binary does not know the fake's certificate
	t.Cleanup(plain.Close)
	u, err := url.Parse(plain.URL)
	if err != nil {
		t.Fatal(err)
	}
	s := dev(t, sqlite, "AWS_ENDPOINT_URL="+plain.URL, "AWS_ACCESS_KEY_ID="+awstest.AccessKey, "AWS_SECRET_ACCESS_KEY="+awstest.SecretKey, "AMBIT_OUTBOUND_ALLOW="+u.Host)
	c := client.New(s.URL, s.APIKey)
	const secrets = 40
	for i := range secrets {
		if _, err := c.CreateSecret(t.Context(), client.NewSecret{Name: fmt.Sprintf("prod/%d", i), Context: map[string]string{"organization_id": s.OrganizationID}, SecretValue: client.SecretValue{Value: fmt.Sprintf("value %d", i)}}); err != nil {
			t.Fatal(err)
		}
	}
	key.Allow(map[string]string{"organization": s.OrganizationID}, map[string]string{"purpose": "probe"}) // as the wizard says

	b := signIn(t, s)
	b.open("/ui/keys")
	b.inspect("keys before")
	b.clickText("Bring your own key")
	b.arrives("/ui/keys/bind")
	b.inspect("bind services")
	b.clickText("AWS KMS")
	b.until("the fields are shown", `document.querySelector("#f-arn")`)
	b.fill("#f-arn", "arn:aws:s3:::bucket")
	b.clickText("Next: what to allow")
	b.until("the mistake is named", `document.body.innerText.includes("names no key")`)
	b.inspect("bind mistake")
	b.fill("#f-arn", key.ARN)
	b.fill("#f-principal", "arn:aws:iam::111122223333:role/ambit")
	b.clickText("Next: what to allow")
	b.until("the statements are shown", `document.querySelector(".snippet")`)
	if got := b.text("#allow"); !strings.Contains(got, `"kms:EncryptionContext:organization": "`+s.OrganizationID+`"`) || !strings.Contains(got, "awskms:///"+key.ARN) {
		t.Errorf("the page says %s", got)
	}
	b.inspect("bind allow")
	key.Be("Denied")
	b.clickText("Try the key")
	b.until("the refusal is shown", `document.querySelector(".probe .chip.bad")`)
	b.inspect("bind refused")
	key.Be("Enabled")
	b.clickText("Try again")
	b.until("all steps passed", `document.querySelectorAll(".probe .chip.good").length === 4`)
	b.inspect("bind passed")
	b.clickText("Bind this key")
	b.until("the page asks", `document.querySelector("form[data-passkey=get]")`)
	b.inspect("bind asks")
	b.click("[data-prove]")
	b.arrives("/ui/bindings/")
	// Nobody reloads: the page follows by itself.
	b.until("what was sealed before has followed", `document.querySelector(".progress p")?.textContent.match(/^(\d+) of \1 keys? under this root key/) && !document.querySelector("[data-progress]")`)
	b.inspect("binding")
	binding := b.location()
	if len(key.Contexts()) == 0 {
		t.Error("KMS was never asked")
	}

	b.open("/ui/keys")
	b.inspect("keys bound")
	b.openKey("default")
	b.until("the key is shown", `document.body.innerText.includes("Replace it")`)
	b.inspect("key")
	b.clickText("Encrypt anew")
	b.until("every value is under the third version", fmt.Sprintf(`/^All %d values under version 3/.test(document.querySelector(".progress p")?.textContent)`, secrets))
	b.inspect("key replaced")

	key.Be("Disabled")
	b.open(binding)
	b.clickText("Forget it now")
	b.until("it is forgotten", `document.body.innerText.includes("Forgotten on every node")`)
	page, err := c.Secrets(t.Context(), client.SecretFilter{})
	if err != nil || len(page.Data) == 0 {
		t.Fatalf("%d secrets, %v", len(page.Data), err)
	}
	if _, err := c.SecretValue(t.Context(), page.Data[0].ID, "", ""); err == nil {
		t.Error("a value was read though its owner disabled the key")
	}
	b.open(binding)
	b.until("the page says so", `document.body.innerText.includes("Refused")`)
	b.inspect("binding refused")
	key.Be("Enabled")
	for {
		if _, err := c.SecretValue(t.Context(), page.Data[0].ID, "", ""); err == nil {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal("the key is back, and nothing is read")
		}
	}

	b.open(binding)
	b.clickText("Take it out…")
	b.until("the page asks", `document.querySelector("form[data-passkey=get]")`)
	b.inspect("binding end asks")
	b.click("[data-prove]")
	b.until("it is taken out", `document.body.innerText.includes("Taken out.")`)
	b.openKey("default")
	b.clickText("Destroy the key…")
	b.until("the page asks", `document.querySelector("#typed")`)
	if got := b.text("main"); !strings.Contains(got, "40 versions of secrets") {
		t.Errorf("the page does not say what is lost: %s", got)
	}
	b.inspect("shred asks")
	b.click("[data-prove]")
	b.until("it wants to be typed", `document.querySelector("#typed:invalid")`)
	b.fill("#typed", ask[string](b, `document.querySelector("label[for=typed] code").textContent`))
	b.click("[data-prove]")
	b.until("it is done", `document.body.innerText.includes("can be read by nobody any more")`)
	b.inspect("shredded")
	if _, err := c.SecretValue(t.Context(), page.Data[0].ID, "", ""); err == nil {
		t.Error("a value was read though its key was destroyed")
	}
}

// openKey goes to the key of a context, by the words for it.
func (b *browser) openKey(of string) {
	b.t.Helper()
	b.until("the key is listed", fmt.Sprintf(`[...document.querySelectorAll("a[href^='/ui/keys/kek_']")].some((e) => e.textContent === %q)`, of))
	b.open(ask[string](b, fmt.Sprintf(`[...document.querySelectorAll("a[href^='/ui/keys/kek_']")].find((e) => e.textContent === %q).getAttribute("href")`, of)))
}
