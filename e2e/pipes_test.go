//go:build e2e

package e2e

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/client"
)

// machineRecord is a provider that gives tokens for a client's own credentials.
const machineRecord = `id: machine
name: Machine
auth: client_credentials
mint: {token_url: "{base}/token"}
api: {base: ["{base}"]}
inject: {header: Authorization, format: "Bearer {access_token}"}
`

// Issue 5: the SDK of WorkOS, as it comes from npm, gets through every method that it
// has for Pipes against the built binary, with a provider that nobody here wrote;
// between its two halves a person connects at the page that it was given.
func TestForeignPipesClient(t *testing.T) {
	t.Parallel()
	onBothEngines(t, foreignPipesClient)
}

func foreignPipesClient(t *testing.T, engine string) {
	port := freePort(t)
	place := "127.0.0.1:" + port
	s := dev(t, engine, "AMBIT_OUTBOUND_ALLOW="+place, "AMBIT_ALLOW_VEND=true")
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	secret, back := "foreign-client-secret-"+random(), s.URL+"/ui/callback/"+s.EnvironmentID+"/foreign_idp"
	var ready struct{ Issuer string }
	stop, err := script(t, "oidc-provider.mjs", map[string]any{"port": port, "client_id": "ambit", "client_secret": secret, "ttl": 3600, "redirect_uris": []string{back}}).Start(&ready)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	b := signIn(t, s)
	c := client.New(s.URL, s.APIKey)
	var users struct{ Data []struct{ ID string } }
	getJSON(t, s.URL+"/v1/users", s.APIKey, &users)
	if len(users.Data) != 1 {
		t.Fatalf("users: %+v", users)
	}
	if _, err := c.PutProvider(t.Context(), "machine", client.PutProvider{YAML: strings.ReplaceAll(machineRecord, "{base}", ready.Issuer)}); err != nil {
		t.Fatal(err)
	}
	input := map[string]any{"host": u.Hostname(), "port": u.Port(), "key": s.APIKey, "organization": s.OrganizationID, "user": users.Data[0].ID, "half": 1,
		"foreign": map[string]string{"issuer": ready.Issuer, "client_id": "ambit", "client_secret": secret, "redirect_uri": back}}
	half := func() (told struct {
		URL     string
		Called  []string
		Methods int
	}) {
		t.Helper()
		out, err := script(t, "workos-pipes.mjs", input).Run()
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(out), &told); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return told
	}
	first := half()
	b.open(strings.TrimPrefix(first.URL, s.URL))
	b.clickText("Continue")
	b.until("the way to the provider is shown", `document.querySelector("a.button.primary")?.href.startsWith("`+ready.Issuer+`")`)
	b.click("a.button.primary")
	b.until("the account is connected", `document.readyState === "complete" && document.body.innerText.includes("is connected as")`)
	b.clickText("Go on")
	b.until("the way back is shown", `document.querySelector("a.button.primary[href]")?.href.startsWith("https://product.example/done?x=1")`)

	input["half"], input["called"] = 2, first.Called
	if second := half(); second.Methods < 25 {
		t.Errorf("the SDK has %d methods", second.Methods)
	}
}
