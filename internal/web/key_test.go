package web_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/custody"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/awskms"
	"github.com/ambit-dev/ambit/internal/keyring/azurekv"
	"github.com/ambit-dev/ambit/internal/keyring/gcpkms"
	"github.com/ambit-dev/ambit/internal/keyring/transit"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

// seal stores a value of a new secret through the page.
func (b *browser) store(name, value string) {
	b.t.Helper()
	b.get("/ui/secrets/new").submit("/ui/secrets", func(v url.Values) {
		v.Set("name", name)
		v.Set("value", value)
	}).follow().says("Stored.")
}

// Issue 4, keys: a customer's root key is bound through the wizard: named, tried and
// confirmed; what was sealed before follows and the page counts it; then the key is
// replaced, evicted, and taken out again. A name of the audit stands behind each.
func TestRootKeyIsBroughtThroughTheWizard(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := siteOn(t, db)
		b := s.person(t, "owner@example.com", account.RoleOwner)
		b.store("prod/db", "first")
		keys := b.get("/ui/keys").want(http.StatusOK).says("No root key is bound", "Wraps new keys", "under the server's root key", "1 value")
		kek := keys.link(orgName(s))
		rotate := strings.Split(kek, "?")[0] + "/rotate"

		wizard := b.get(keys.link("Bring your own key")).link("HSM (PKCS#11)")
		page := b.get(wizard).want(http.StatusOK)
		named := fields(page.form("/ui/keys/bind"))
		named.Set("ref", s.Spare)
		page = b.get("/ui/keys/bind?"+named.Encode()).want(http.StatusOK).says("Allow its use", "AMBIT_ROOT_KEYS_OTHER", s.Spare)
		page = page.submit("/ui/keys/probe", nil).want(http.StatusOK).says("It wraps", "It unwraps what it wrapped", "does not open for another context", "does not open when it was changed", "Bind it")
		page = page.confirmed("/ui/keys/bind", nil, orgName(s)+" is sealed under a root key of your own", s.Spare, "Required: without this key nothing is sealed or opened").follow().
			says("Bound.", "0 of 1 key under this root key", "Switching the data off")
		at := page.url.Path
		b.get(at).submit(at+"/migrate", nil).follow().says("is moved now")
		if err := s.Vault.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.get(at).says("1 of 1 key under this root key")
		b.get("/ui/keys").says("1 of 1 key under it", "Version 2", "under the customer's own root key")
		b.get(kek).submit(rotate, nil).follow().says("The key has another version", "0 of 1 value under version 3")
		if err := s.Vault.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.get(kek).says("All 1 value under version 3", "1,073,741,824")
		b.get(at).submit(at+"/doubt", nil).follow().says("Forgotten on every node")
		b.get(b.get(at).link("Take it out")).want(http.StatusOK).says("is no longer sealed under").submit(at+"/end", nil).follow().says("Taken out")
		b.get(at).want(http.StatusNotFound)
	})
}

func orgName(s *site) string {
	o, err := s.Accounts.Organization(context.Background(), s.Environment, s.Organization)
	if err != nil {
		return err.Error()
	}
	return o.Name
}

// Issue 4, keys: shredding says what is lost, wants it typed and a passkey, and then
// nobody reads it any more.
func TestShreddingSaysWhatIsLost(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "owner@example.com", account.RoleOwner)
	b.store("prod/db", "first")
	b.store("prod/mail", "second")
	kek := b.get("/ui/keys").link(orgName(s))
	page := b.get(b.get(kek).link("Destroy the key")).want(http.StatusOK).says("You destroy the key of "+orgName(s)+", for good", "2 versions of secrets")
	wrong := fields(page.form("/ui/keys/shred"))
	wrong.Set("typed", "yes")
	b.post("/ui/keys/shred/challenge", wrong, "Accept", "application/json").want(http.StatusUnprocessableEntity).says("is not kek_")
	b.post("/ui/keys/shred", wrong).want(http.StatusUnprocessableEntity).says("Type it exactly", "2 versions of secrets")
	page.submit("/ui/keys/shred", func(v url.Values) { v.Set("typed", v.Get("key")) }).want(http.StatusOK).says("can be read by nobody any more")
	b.get(kek).says("was destroyed")
	b.get("/ui/keys").says("Destroyed")
	secrets := b.get("/ui/secrets")
	at := secrets.link("prod/db")
	b.get(at + "/reveal").want(http.StatusGone).says("The key of this secret was destroyed")
}

// Issue 4, keys: who does not rule over keys sees where they stand and changes
// nothing; who has no say at all sees nothing. Keys of others look absent (T1).
func TestWhoSeesKeys(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	owner, auditor, member := s.person(t, "owner@example.com", account.RoleOwner), s.person(t, "auditor@example.com", account.RoleAuditor), s.person(t, "member@example.com", account.RoleMember)
	owner.store("prod/db", "first")
	kek := owner.get("/ui/keys").link(orgName(s))
	at := strings.Split(kek, "?")[0]
	auditor.get("/ui/keys").want(http.StatusOK).not("Bring your own key")
	auditor.get(kek).want(http.StatusOK).says("Version 1").not("Replace it")
	auditor.post(at+"/rotate", url.Values{}).want(http.StatusForbidden)
	auditor.get("/ui/keys/bind").want(http.StatusForbidden)
	auditor.get("/ui/keys/shred?key=" + strings.TrimPrefix(at, "/ui/keys/")).want(http.StatusForbidden)
	for _, path := range []string{"/ui/keys", kek, "/ui/keys/bind", "/ui/keys/progress"} {
		if d := member.get(path); d.status < 400 {
			t.Errorf("a member sees %s: %s", path, d.text("main"))
		}
	}
	elsewhere, err := s.Accounts.CreateEnvironment(t.Context(), s.System, "staging", account.Agreement{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Custody.Bind(t.Context(), s.System.In(elsewhere.ID), custody.NewBinding{URI: s.Spare, Mode: vault.Preferred}, account.Agreement{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Vault.Seal(t.Context(), vault.Place{Environment: elsewhere.ID, Kind: "credential", Object: "1", Version: 1}, secret.FromString("x")); err != nil {
		t.Fatal(err)
	}
	list, _, err := s.Custody.Keys(t.Context(), s.System.In(elsewhere.ID), "", "", "", 10)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d keys, %v", len(list), err)
	}
	owner.get("/ui/keys").not(string(list[0].ID))
	owner.get("/ui/keys/" + string(list[0].ID)).want(http.StatusNotFound)
	owner.post("/ui/keys/"+string(list[0].ID)+"/rotate", url.Values{}).want(http.StatusNotFound)
	owner.get("/ui/bindings/" + string(b.ID)).want(http.StatusNotFound)
	owner.post("/ui/bindings/"+string(b.ID)+"/doubt", url.Values{}).want(http.StatusNotFound)
}

// Issue 4, keys: what the wizard writes for each service is read back as it was, and
// names the key, the organization and nothing that was not filled in.
func TestWizardOfEachService(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.OpenRoot = func(ctx context.Context, uri string) (keyring.Keeper, error) {
		scheme, _, _ := strings.Cut(uri, ":")
		open := map[string]func(context.Context, string, keyring.Options) (keyring.Keeper, error){"awskms": awskms.Open, "azurekv": azurekv.Open, "gcpkms": gcpkms.Open, "transit+https": transit.Open}[scheme]
		if open == nil {
			return nil, fault.New(fault.Invalid, "root_key_scheme", "No such service.")
		}
		env := map[string]string{"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "s"}
		return open(ctx, uri, keyring.Options{HTTP: &http.Client{}, Env: func(name string) string { return env[name] }})
	}
	b := s.person(t, "owner@example.com", account.RoleOwner)
	org := string(s.Organization)
	for _, x := range []struct {
		service, uri string
		fields       url.Values
		says         []string
	}{
		{"awskms", "awskms:///arn:aws:kms:eu-central-1:444455556666:key/1234abcd-12ab-34cd-56ef-1234567890ab?external_id=acme&role=arn%3Aaws%3Aiam%3A%3A444455556666%3Arole%2Fambit-key",
			url.Values{"arn": {"arn:aws:kms:eu-central-1:444455556666:key/1234abcd-12ab-34cd-56ef-1234567890ab"}, "role": {"arn:aws:iam::444455556666:role/ambit-key"}, "external_id": {"acme"}, "principal": {"arn:aws:iam::111122223333:role/ambit"}},
			[]string{`"kms:EncryptionContext:organization": "` + org + `"`, `"kms:EncryptionContext:purpose": "probe"`, `"sts:ExternalId": "acme"`, "arn:aws:iam::111122223333:role/ambit"}},
		// A role without an external id was to be pasted without a condition: anybody's server could use it.
		{"awskms", "awskms:///arn:aws:kms:eu-central-1:444455556666:key/1234abcd-12ab-34cd-56ef-1234567890ab?external_id=" + org + "&role=arn%3Aaws%3Aiam%3A%3A444455556666%3Arole%2Fambit-key",
			url.Values{"arn": {"arn:aws:kms:eu-central-1:444455556666:key/1234abcd-12ab-34cd-56ef-1234567890ab"}, "role": {"arn:aws:iam::444455556666:role/ambit-key"}},
			[]string{`"sts:ExternalId": "` + org + `"`}},
		{"gcpkms", "gcpkms://projects/acme-prod/locations/europe-west3/keyRings/ambit/cryptoKeys/root?impersonate=ambit-key%40acme-prod.iam.gserviceaccount.com",
			url.Values{"project": {"acme-prod"}, "location": {"europe-west3"}, "ring": {"ambit"}, "key": {"root"}, "impersonate": {"ambit-key@acme-prod.iam.gserviceaccount.com"}},
			[]string{"gcloud kms keys add-iam-policy-binding root", "roles/iam.serviceAccountTokenCreator"}},
		{"azurekv", "azurekv://acme.managedhsm.azure.net/keys/root?tenant=acme.onmicrosoft.com",
			url.Values{"host": {"acme.managedhsm.azure.net"}, "key": {"root"}, "tenant": {"acme.onmicrosoft.com"}},
			[]string{"az keyvault role assignment create --hsm-name acme", "az ad sp create"}},
		{"transit", "transit+https://vault.example.com:8200/transit/keys/root?auth=approle&namespace=team/a",
			url.Values{"address": {"https://vault.example.com:8200"}, "mount": {"transit"}, "key": {"root"}, "auth": {"approle"}, "namespace": {"team/a"}},
			[]string{`path "transit/encrypt/root" { capabilities = ["update"] }`, "$AMBIT_TRANSIT_CREDENTIALS/vault.example.com:8200/", "role-id and secret-id"}},
	} {
		q := url.Values{"service": {x.service}, "reach": {"organization"}, "mode": {"preferred"}, "org": {org}}
		b.get("/ui/keys/bind?" + q.Encode()).want(http.StatusOK).not("Try the key")
		for name, values := range x.fields {
			q[name] = values
		}
		written := fields(b.get("/ui/keys/bind?" + q.Encode()).want(http.StatusOK).form("/ui/keys/probe"))
		// A command line's wish comes as the URI alone.
		asked := b.get("/ui/keys/bind?" + url.Values{"uri": {x.uri}, "mode": {"preferred"}, "org": {org}, "reach": {"organization"}}.Encode()).want(http.StatusOK)
		read := fields(asked.form("/ui/keys/probe"))
		for name := range read {
			if read.Get(name) != written.Get(name) {
				t.Errorf("%s: %s is read back as %q, was %q", x.service, name, read.Get(name), written.Get(name))
			}
		}
		if read.Get("mode") != "preferred" {
			t.Errorf("%s: the mode is lost", x.service)
		}
		shown := b.get("/ui/keys/bind?" + q.Encode())
		text := textOf(shown.root)
		for _, want := range append(x.says, x.uri) {
			if !strings.Contains(text, want) {
				t.Errorf("%s: the page does not say %s", x.service, want)
			}
		}
	}
	// What the service's own reader refuses is said before anything is tried.
	b.get("/ui/keys/bind?" + url.Values{"service": {"awskms"}, "arn": {"arn:aws:s3:::bucket"}, "org": {org}}.Encode()).says("names no key").not("Try the key")
	// Credentials that the server lacks are for later: what to paste is shown all the same.
	b.get("/ui/keys/bind?"+url.Values{"service": {"transit"}, "address": {"https://vault.example.com"}, "mount": {"transit"}, "key": {"root"}, "org": {org}}.Encode()).says("has no credentials", "Try the key")
	b.get("/ui/keys/bind?" + url.Values{"uri": {"https://example.com/key"}, "org": {org}}.Encode()).says("Bring your own key")
}

// The form for API keys was at another address once.
func TestOldAddressOfAPIKeys(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "owner@example.com", account.RoleOwner)
	b.get("/ui/keys/new").want(http.StatusSeeOther).to("/ui/apikeys/new")
	b.get("/ui/keys").says("Keys of applications are API keys")
}
