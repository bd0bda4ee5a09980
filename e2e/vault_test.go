//go:build e2e

package e2e

import (
	"encoding/json"
	"net/url"
	"testing"

	"github.com/ambit-dev/ambit/client"
)

// Issue 4: the SDK of WorkOS, as it comes from npm, gets through every method that it
// has for the vault against the built binary.
func TestForeignVaultClient(t *testing.T) {
	t.Parallel()
	onBothEngines(t, func(t *testing.T, engine string) {
		s := dev(t, engine)
		u, err := url.Parse(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		out, err := script(t, "workos-vault.mjs", map[string]any{"host": u.Hostname(), "port": u.Port(), "key": s.APIKey, "organization": s.OrganizationID}).Run()
		if err != nil {
			t.Fatal(err)
		}
		var told struct{ Blob string }
		if err := json.Unmarshal([]byte(out), &told); err != nil || told.Blob == "" {
			t.Fatalf("the script said %q", out)
		}
		// What that SDK encrypted in its own process opens here.
		c := client.New(s.URL, s.APIKey)
		d, err := c.DecryptBlob(t.Context(), "", told.Blob, "row 1")
		if err != nil || d.Value != "kept by the application \u00e9" || d.Layout != "node" {
			t.Errorf("the blob of the SDK: %+v, %v", d, err)
		}
	})
}

// Issue 4, T5: a secret goes in through the page, and its owner sees it again with a
// passkey; the pages fit every screen and hold nothing that shuts anybody out.
func TestSecretPages(t *testing.T) {
	t.Parallel()
	s := dev(t, sqlite)
	b := signIn(t, s)
	b.open("/ui/secrets")
	b.inspect("secrets empty")
	b.clickText("Store a secret")
	b.until("the form is shown", `document.querySelector("#value")`)
	b.inspect("secret new")
	b.fill("#name", "prod/db-password")
	b.fill("#value", "correct horse battery staple")
	b.fill("#tags", "pci, team-a")
	b.clickText("Store it")
	b.until("it is stored", `document.body.innerText.includes("Stored.")`)
	b.inspect("secret")
	b.clickText("Show the value")
	b.until("the page asks", `document.querySelector("form[data-passkey=get]")`)
	b.inspect("secret asks")
	b.click("[data-prove]")
	b.until("the value is shown", `document.querySelector("textarea")?.value === "correct horse battery staple"`)
	b.inspect("secret value")
	b.open("/ui/secrets")
	b.until("the list has it", `document.body.innerText.includes("prod/db-password")`)
	b.inspect("secrets")
}
