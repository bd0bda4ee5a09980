package web_test

import (
	"bytes"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/vault"
)

// Issue 4: a secret's whole life on its pages.
func TestSecretPages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "owner@example.com", account.RoleOwner)
	b.get("/ui/secrets").says("No secret yet")
	b.get("/ui/secrets/new").submit("/ui/secrets", func(v url.Values) { v.Set("name", "x"); v.Set("value", "") }).want(http.StatusUnprocessableEntity).says("value is empty")
	made := b.get("/ui/secrets/new").submit("/ui/secrets", func(v url.Values) {
		v.Set("name", "prod/db")
		v.Set("value", "first\r\nline")
		v.Set("tags", "Blue, pci")
		v.Set("expires", "2099-01-31")
	}).follow().says("Stored", "prod/db", "blue", "2099-01-31")
	at := strings.SplitN(made.url.Path, "?", 2)[0]
	b.get("/ui/secrets?tag=pci").says("prod/db")
	b.get("/ui/secrets?search=nothing").says("Nothing matches")
	b.get(at).submit(at+"/value", func(v url.Values) { v.Set("value", "second") }).follow().says("Stored", "Version 2")
	b.get(at).submit(at+"/notes", func(v url.Values) {
		v.Set("description", "The database.")
		v.Set("metadata", "owner=ops\r\n")
		v.Set("rotate", "2098-05-01")
	}).follow().says("Saved", "The database.", "ops", "2098-05-01")
	b.get(at).submit(at+"/notes", func(v url.Values) { v.Set("metadata", "nonsense") }).want(http.StatusUnprocessableEntity).says("NAME=TEXT")
	b.get(at).submit(at+"/restore", nil).follow().says("current one again", "Version 3")
	b.get(at).submit(at+"/delete", nil).follow().says("Deleted. It can be taken back", "Take it back")
	b.get("/ui/secrets").not("prod/db")
	b.get("/ui/secrets?state=deleted").says("prod/db")
	b.get(at).submit(at+"/undelete", nil).follow().says("It is back")
	b.get("/ui/secrets/" + string(id.NewSecret())).want(http.StatusNotFound)
	member := s.person(t, "member@example.com", account.RoleMember)
	member.get("/ui/secrets").want(http.StatusForbidden)
	member.get(at).want(http.StatusForbidden)
}

// T5, A9: a value is shown to an owner only, who proves presence for exactly that
// version, and the audit has their proof. Nothing else shows it.
func TestRevealASecret(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	owner := s.person(t, "owner@example.com", account.RoleOwner)
	admin := s.person(t, "admin@example.com", account.RoleAdmin)
	c := vault.Caller{Actor: audit.Actor{Kind: "system", ID: "test"}, Environment: s.Environment, Reach: vault.Everything()}
	o, err := s.Vault.Create(t.Context(), c, vault.NewObject{Name: "k", Context: map[string]string{"organization_id": string(s.Organization)}, Value: vault.Value{Secret: secret.FromString("canary-one")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Vault.Update(t.Context(), c, o.ID, vault.Value{Secret: secret.FromString("canary-two")}, ""); err != nil {
		t.Fatal(err)
	}
	at := "/ui/secrets/" + string(o.ID)
	owner.get(at).want(http.StatusOK).says("Show the value").not("canary")
	admin.get(at).want(http.StatusOK).not("canary", "Show the value")
	admin.get(at + "/reveal").want(http.StatusForbidden).not("canary")
	admin.post(at+"/reveal", url.Values{}).want(http.StatusForbidden).not("canary")
	owner.post(at+"/reveal", url.Values{"org": {string(s.Organization)}}).want(http.StatusOK).says("see the value of").not("canary") // the cookie alone
	owner.get(at+"/reveal").want(http.StatusOK).says("Version 2").not("canary").submit(at+"/reveal", nil).want(http.StatusOK).says("canary-two").not("canary-one")
	owner.get(at+"/reveal?version="+o.VersionID).says("Version 1").submit(at+"/reveal", nil).want(http.StatusOK).says("canary-one").not("canary-two")

	// A proof over one version shows no other, and counts once.
	ask := owner.get(at + "/reveal?version=" + o.VersionID)
	values := fields(ask.form(at + "/reveal"))
	owner.prove(at+"/reveal/challenge", "get", values)
	other := url.Values{}
	for k, v := range values {
		other[k] = v
	}
	other.Del("version")
	owner.post(at+"/reveal", other).want(http.StatusForbidden).not("canary")
	p, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Action: "secret.read", Decision: "allow", Limit: 50})
	if err != nil || len(p.Records) != 2 {
		t.Fatalf("%d reads on record, %v; want 2", len(p.Records), err)
	}
	for _, r := range p.Records {
		if r.User == "" || !strings.Contains(string(r.Evidence), `"method":"passkey"`) || r.Object != string(o.ID) {
			t.Errorf("a read without its proof: %+v", r)
		}
	}
	if _, err := s.Vault.Change(t.Context(), c, o.ID, vault.Edit{WriteOnly: true}); err != nil {
		t.Fatal(err)
	}
	owner.get(at).says("Nobody reads its value").not("Show the value")
	owner.get(at + "/reveal").want(http.StatusForbidden).not("canary")
}

// T2: a key made for some secrets says so, and its proof is over that too.
func TestKeyForSomeSecrets(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "owner@example.com", account.RoleOwner)
	fill := func(v url.Values) {
		v.Set("name", "Prod")
		v.Set("days", "7")
		v["scope"] = []string{account.ScopeVaultRead}
		v.Set("secret_prefix", "prod/")
		v.Set("secret_context", "region=eu")
	}
	b.get("/ui/apikeys/new").submit("/ui/apikeys", fill).want(http.StatusOK).says("sk_")
	b.get("/ui/apikeys").says("Only secrets whose name begins with prod/", "region eu")
	// A bug: a line of nothing after the last part was no part.
	b.get("/ui/apikeys/new").submit("/ui/apikeys", func(v url.Values) {
		fill(v)
		v.Set("secret_prefix", "")
		v.Set("secret_context", "region=us\r\n \r\n")
	}).want(http.StatusOK).says("sk_")
	b.get("/ui/apikeys").says("region us")
	for name, x := range map[string][2]string{"secret_prefix": {" \u00a0", "only white space"}, "secret_context": {" \r\n", "NAME=VALUE"}} { // no bound is left of either
		v := fields(b.get("/ui/apikeys/new").form("/ui/apikeys"))
		fill(v)
		v.Set("secret_prefix", "")
		v.Set("secret_context", "")
		v.Set(name, x[0])
		b.post("/ui/apikeys/challenge", v).want(http.StatusUnprocessableEntity).says(x[1])
	}
	page := b.get("/ui/apikeys/new")
	values := fields(page.form("/ui/apikeys"))
	fill(values)
	values.Set("name", "Wider")
	b.prove("/ui/apikeys/challenge", "get", values)
	values.Set("secret_prefix", "")
	b.post("/ui/apikeys", values).want(http.StatusForbidden)
}

// upload sends a form with a file, as a browser does.
func (b *browser) upload(path string, form url.Values, content []byte) *doc {
	b.t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for name := range form {
		_ = w.WriteField(name, form.Get(name))
	}
	part, err := w.CreateFormFile("file", "client.p12")
	if err != nil {
		b.t.Fatal(err)
	}
	_, _ = part.Write(content)
	_ = w.Close()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.site.URL+path, &body)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", w.FormDataContentType())
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	return b.do(req)
}

// Issue 4, objects: files go in and come out through the pages as they are, up to 1
// MiB; a value is a text or a file, and a file leaves only with a passkey.
func TestSecretFiles(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "owner@example.com", account.RoleOwner)
	file := append([]byte{0, 0xff, '\r', '\n', 0xfe}, bytes.Repeat([]byte("\x00\r\n"), 349_000)...) // close to 1 MiB
	form := fields(b.get("/ui/secrets/new").form("/ui/secrets"))
	form.Set("name", "prod/../client key.p12")
	form.Set("value", "")
	made := b.upload("/ui/secrets", form, file).follow().says("A file, 1047005 bytes")
	at := made.url.Path
	ask := b.get(made.link("Save")).want(http.StatusOK).says("Save it as a file")
	thief := s.thief(t, b)
	thief.post(at+"/reveal", fields(ask.form(at+"/reveal"))).want(http.StatusOK).says("Save it as a file")
	got := ask.submit(at+"/reveal", nil).want(http.StatusOK)
	if got.body != string(file) || got.header.Get("Content-Disposition") != `attachment; filename="client_key.p12"` || got.header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("%d bytes come back, with %v", len(got.body), got.header)
	}
	form.Set("value", "both")
	b.upload("/ui/secrets", form, []byte("x")).want(http.StatusUnprocessableEntity).says("There is a text and a file")
	form.Set("value", "")
	b.upload("/ui/secrets", form, make([]byte, 1<<20+1)).says("over 1048576 bytes")
	b.upload("/ui/secrets", form, make([]byte, 2<<20)).want(http.StatusRequestEntityTooLarge).says("too large")
	form.Set("name", "text")
	b.upload("/ui/secrets", form, []byte("just text")).follow().says("Text, 9 bytes")
	version := fields(b.get(at).form(at + "/value"))
	b.upload(at+"/value", version, []byte("-----BEGIN")).follow().says("Version 2", "Text, 10 bytes")
}
