package web_test

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/pquerna/otp/totp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/custody"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

// Rule 4: for every form it is decided whether a cookie is enough for it.
func TestEveryFormIsDecided(t *testing.T) {
	t.Parallel()
	list := accounttest.Decided(t, "`(/ui/[^`]*)`")
	seen := map[string]bool{}
	for _, r := range newSite(t).Pages.Routes() {
		method, path, _ := strings.Cut(r.Pattern, " ")
		if method != http.MethodPost && !strings.HasPrefix(path, "/ui/callback/") {
			continue // no GET changes anything; see TestNoPageChangesAnything
		}
		if base, ok := strings.CutSuffix(path, "/challenge"); ok {
			if c := cmp.Or(list[base], list[base+"/approve"]); c == "" || c == "Takes none" {
				t.Errorf("%s gives a challenge for what takes no proof", path)
			}
			continue
		}
		seen[path] = true
		if list[path] == "" {
			t.Errorf("%s is a new form: decide in docs/decisions/0006-raising-authority.md whether it takes a proof, and prove it below", path)
		}
	}
	for path := range list {
		if !seen[path] {
			t.Errorf("the decision has %s, and there is no such form", path)
		}
	}
}

// everything is what the database keeps, but for what every request leaves
// there: who was seen when, the audit, and proofs that were spent.
func (s *site) everything(t testing.TB, db *sqldb.DB) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for table, columns := range map[string]string{
		"environment": "id || name", "organization": "id || name || require_passkey || no_vending", "person": "id || email || name || disabled_at", "membership": "organization_id || user_id || role",
		"passkey": "id || label", "totp": "user_id || sealed_version", "enroll_link": "id", "api_key": "id || revoked_at", "agent": "id || ceiling || disabled_at || owner_id",
		"oauth_client": "id || version", "provider": "slug || version || client_id", "connection": "id || state || credential_version", "credential": "connection_id || version", "kek": "id || version || shredded_at", "key_binding": "id || root_ref", "cli_request": "id || user_id",
	} {
		rows, err := db.Reader().QueryContext(t.Context(), "select "+columns+" from "+table)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			out[table] = append(out[table], line)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		slices.Sort(out[table])
	}
	return out
}

// attempt is a form that raises authority, filled in.
type attempt struct {
	path string
	form url.Values
	says string // on the page that asks
}

// raising are forms that take a proof, with what they would change.
func (s *site) raising(t *testing.T) []attempt {
	t.Helper()
	ctx := t.Context()
	user := func(name string, role account.Role) id.User {
		u, err := s.Accounts.CreateUser(ctx, s.System, account.NewUser{Environment: s.Environment, Organization: s.Organization, Role: role, Name: name}, account.Agreement{})
		if err != nil {
			t.Fatal(err)
		}
		return u.ID
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	member, boss, gone, leaving := user("Ada", account.RoleMember), user("Boss", account.RoleOwner), user("Gone", account.RoleMember), user("Leah", account.RoleOwner)
	shut := user("Sam", account.RoleOwner)
	must(s.Accounts.DisableUser(ctx, s.System, gone, account.Agreement{}))
	owner := s.Person(t, "agents@example.com", account.RoleMember)
	a, _ := s.Service(t, agent.Autonomous, owner.ID)
	a, err := s.Agents.SetCeiling(ctx, s.System, a.ID, a.Version, policy.Ceiling{Providers: []string{"tracker"}, Effects: []policy.Effect{policy.Read}}, account.Agreement{})
	must(err)
	off, _ := s.Service(t, agent.Autonomous, owner.ID)
	_, err = s.Agents.Disable(ctx, s.System, off.ID)
	must(err)
	o, err := s.Accounts.Organization(ctx, s.Environment, s.Organization)
	must(err)
	demand := true
	o, err = s.Accounts.UpdateOrganization(ctx, s.System, o.ID, o.Version, account.OrganizationChange{RequirePasskey: &demand}, account.Agreement{})
	must(err)
	with := func(pairs ...string) url.Values {
		v := url.Values{"org": {string(s.Organization)}}
		for i := 0; i+1 < len(pairs); i += 2 {
			v.Add(pairs[i], pairs[i+1])
		}
		return v
	}
	members := "/ui/organization/members/"
	// A root key is bound to one person's keys, and taken out of another's.
	bound, err := s.Custody.Bind(ctx, s.System.In(s.Environment), custody.NewBinding{Organization: s.Organization, User: boss, URI: s.Spare, Mode: vault.Required}, account.Agreement{})
	must(err)
	_, err = s.Vault.Seal(ctx, vault.Place{Environment: s.Environment, Organization: s.Organization, User: leaving, Kind: "credential", Object: "1", Version: 1}, secret.FromString("x"))
	must(err)
	return []attempt{
		// The demand comes first: it is read from the version of the organization, which changes of members move.
		{"/ui/organization/settings", with("version", fmt.Sprint(o.Version)), "codes of authenticator apps approve again"},
		{members + "new", with("name", "New", "email", "new@example.com", "role", "admin"), "New becomes an admin"},
		{members + string(member) + "/role", with("role", "admin"), "Ada becomes an admin"},
		{members + string(boss) + "/role", with("role", "member"), "Boss is no longer an owner"},
		{members + string(leaving) + "/remove", with(), "Leah leaves"},
		{members + string(member) + "/invite", with(), "Make a sign-in link for Ada?"},
		{"/ui/users/" + string(gone) + "/enable", with(), "Gone can sign in again"},
		{"/ui/users/" + string(shut) + "/disable", with(), "Sam can no longer sign in"},
		{"/ui/environments/new", with("name", "staging"), "a new environment, staging"},
		{"/ui/agents/" + string(a.ID) + "/ceiling", with("version", fmt.Sprint(a.Version), "effect", "read", "effect", "write", "providers", "tracker"), "may be granted more"},
		{"/ui/agents/" + string(off.ID) + "/enable", with(), "may sign in and ask for access again"},
		{"/ui/keys/bind", with("reach", "user", "user_id", string(member), "uri", s.Spare), s.Spare},
		{"/ui/bindings/" + string(bound.ID) + "/end", with(), "is no longer sealed under"},
		{"/ui/keys/shred", with("reach", "user", "user_id", string(leaving), "typed", string(leaving)), "You destroy all keys of Leah"},
		{"/ui/account/profile", with("name", "Owner", "email", "thief@example.com"), "You will be known as thief@example.com"},
	}
}

// A9, W2, rule 4: with the cookie of an owner alone none of the forms that raise
// authority changes anything; with their passkey each does what its page says,
// once, and the proof of one is none for another.
func TestCookieAloneRaisesNothing(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := siteOn(t, db)
		b := s.person(t, "owner@example.com", account.RoleOwner)
		thief := s.thief(t, b)
		list := s.raising(t)
		draft := thief.draft(t)
		list = append(list, attempt{draft, url.Values{}, "may be connected"})
		stranger := s.person(t, "stranger@example.com", account.RoleAdmin)
		before := s.everything(t, db)
		for _, x := range list {
			thief.get(x.path + "?" + x.form.Encode()).want(http.StatusOK).says(x.says)
			thief.post(x.path, x.form).want(http.StatusOK).says(x.says)
			asked := joined(x.form, url.Values{"nonce": {"n"}})
			theirs := string(stranger.Proof(t, thief.challenged(x.path, asked)).Assertion)
			for name, proof := range map[string]url.Values{"no passkey": {"credential": {"{}"}}, "a wrong code": {"code": {"123456"}}, "another's passkey": {"credential": {theirs}}} {
				if d := thief.post(x.path, joined(asked, proof)); d.status < 400 || d.status >= 500 {
					t.Errorf("%s with %s: got status %d: %s", x.path, name, d.status, d.text("main"))
				}
			}
		}
		if diff := gocmp.Diff(before, s.everything(t, db)); diff != "" {
			t.Fatalf("with the cookie alone something changed (-before +after):\n%s", diff)
		}

		// The person themselves, and then whoever has their cookie and what they sent.
		for i, x := range list {
			var sent url.Values
			before := s.everything(t, db)
			b.post(x.path, x.form).want(http.StatusOK).submit(x.path, func(v url.Values) { sent = v })
			after := s.everything(t, db)
			if gocmp.Equal(before, after) {
				t.Errorf("%s changed nothing, though it was confirmed", x.path)
			}
			// Synced passkeys do not count their uses, so no counter helps.
			if err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
				_, err := tx.ExecContext(ctx, `update passkey set sign_count = 0`)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			other := list[(i+1)%len(list)]
			thief.post(other.path, joined(other.form, url.Values{"nonce": sent["nonce"], "credential": sent["credential"]}))
			thief.post(x.path, sent)
			if diff := gocmp.Diff(after, s.everything(t, db)); diff != "" {
				t.Errorf("%s: what was sent counted once more (-before +after):\n%s", x.path, diff)
			}
		}
	})
}

// challenged gives the digest that a form asks a passkey to sign.
func (b *browser) challenged(path string, form url.Values) (digest [32]byte) {
	b.t.Helper()
	d := b.post(path+"/challenge", form, "Accept", "application/json").want(http.StatusOK)
	var begun struct {
		Options struct {
			PublicKey struct{ Challenge string } `json:"publicKey"`
		}
	}
	if err := json.Unmarshal([]byte(d.body), &begun); err != nil {
		b.t.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(begun.Options.PublicKey.Challenge)
	if err != nil || copy(digest[:], raw) != len(digest) {
		b.t.Fatalf("%s gives no challenge: %s", path, d.body)
	}
	return digest
}

// joined is one form of several.
func joined(forms ...url.Values) url.Values {
	out := url.Values{}
	for _, f := range forms {
		for k, v := range f {
			out[k] = v
		}
	}
	return out
}

// draft hands in a provider record, which a cookie may, and gives its page.
func (b *browser) draft(t *testing.T) string {
	t.Helper()
	d := b.post("/ui/providers", url.Values{"yaml": {"id: elsewhere\nname: Elsewhere\nwebsite: https://elsewhere.example\nauth: api_key\napi: {base: [\"https://api.elsewhere.example\"]}\n" +
		"inject: {header: Authorization, format: \"Bearer {api_key}\"}\ngeneric: {read: true}\n"}}).want(http.StatusSeeOther)
	return d.header.Get("Location")
}

// Without script there is no passkey: a code of the person's authenticator app
// stands in, where the organization allows it, once.
func TestRaisingWithoutScript(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.person(t, "owner@example.com", account.RoleOwner)
	page := b.get("/ui/account/authenticator").submit("/ui/account/authenticator", nil).want(http.StatusOK)
	seed := strings.ReplaceAll(strings.TrimSpace(page.text("code")), " ", "")
	code := func() string {
		s.Clock.Advance(time.Minute)
		c, err := totp.GenerateCode(seed, s.Clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	page.submit("/ui/account/authenticator/confirm", func(v url.Values) { v.Set("code", code()) })
	u, err := s.Accounts.CreateUser(t.Context(), s.System, account.NewUser{Environment: s.Environment, Organization: s.Organization, Name: "Ada"}, account.Agreement{})
	if err != nil {
		t.Fatal(err)
	}
	at := "/ui/organization/members/" + string(u.ID) + "/role"
	asked := func(role string) (*doc, url.Values) {
		d := b.post(at, url.Values{"role": {role}, "org": {string(s.Organization)}}).want(http.StatusOK).says("Ada becomes")
		return d, fields(d.form(at))
	}
	_, form := asked("admin")
	used := code()
	wrong := b.post(at, joined(form, url.Values{"code": {"000000"}})).want(http.StatusForbidden).says("The code was not accepted", "Ada becomes an admin")
	form = fields(wrong.form(at)) // nothing is lost: the page that asks is there again
	b.post(at, joined(form, url.Values{"code": {used}})).follow().says("role was changed")
	_, form = asked("owner")
	b.post(at, joined(form, url.Values{"code": {used}})).want(http.StatusForbidden)
	b.get("/ui/organization").submit("/ui/organization/settings", func(v url.Values) { v.Set("require_passkey", "yes") }).follow()
	d, form := asked("owner")
	d.not("Use a code instead")
	b.post(at, joined(form, url.Values{"code": {code()}})).want(http.StatusForbidden).says("demands a passkey")
}

// What one person handed in, nobody else finds.
func TestDraftsAreTheirAuthors(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b, other := s.person(t, "owner@example.com", account.RoleOwner), s.person(t, "admin@example.com", account.RoleAdmin)
	at := b.draft(t)
	other.get(at).want(http.StatusNotFound)
	other.post(at, url.Values{}).want(http.StatusNotFound)
	other.post(at+"/challenge", url.Values{}).want(http.StatusNotFound)
	b.get(at).says("api.elsewhere.example")
	s.Clock.Advance(2 * provider.DraftAge)
	b.signIn("/ui/")
	b.get(at).want(http.StatusNotFound)
}

// A page is looked at without changing anything, also one that asks.
func TestNoPageChangesAnything(t *testing.T) {
	t.Parallel()
	s := siteOn(t, sqldbtest.Open(t, sqldb.SQLite))
	b := s.person(t, "owner@example.com", account.RoleOwner)
	u, err := s.Accounts.CreateUser(t.Context(), s.System, account.NewUser{Environment: s.Environment, Organization: s.Organization, Role: account.RoleAdmin, Name: "Ada"}, account.Agreement{})
	if err != nil {
		t.Fatal(err)
	}
	a, _ := s.Service(t, agent.Autonomous, s.Person(t, "x@example.com", account.RoleMember).ID)
	before := s.everything(t, s.DB)
	// Each of these would go through as a form, since it lowers something.
	for _, path := range []string{
		"/ui/organization/members/" + string(u.ID) + "/role?role=member", "/ui/organization/members/" + string(u.ID) + "/remove", "/ui/users/" + string(u.ID) + "/disable",
		"/ui/agents/" + string(a.ID) + "/ceiling?version=1&effect=read", "/ui/organization/settings?require_passkey=yes&version=1", "/ui/account/profile?name=Thief&email=owner@example.com",
	} {
		b.get(path)
		at, query, _ := strings.Cut(path, "?")
		b.post(at+"/challenge?"+query, url.Values{}, "Accept", "application/json").want(http.StatusConflict)
	}
	for _, r := range s.Pages.Routes() {
		if method, path := split(r.Pattern); method == http.MethodGet && !strings.HasPrefix(path, "/ui/callback/") {
			b.get(path)
		}
	}
	if diff := gocmp.Diff(before, s.everything(t, s.DB)); diff != "" {
		t.Errorf("looking changed something (-before +after):\n%s", diff)
	}
}

// A key that replaces another where nobody can tell whose account it opens is
// confirmed: the sessions that are open go on with it.
func TestReplacingAKeyOfAnUnknownAccount(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Put(t, strings.Replace(s.MirrorRecord("mirror", `{header: X-Mirror-Auth, format: "{api_key}"}`), "identity: {path: /me, id: id, label: id}\n", "", 1))
	b := s.person(t, "mia@example.com", account.RoleMember)
	page := b.get("/ui/connections/new?provider=mirror").want(http.StatusOK)
	page.submit("/ui/connections", func(v url.Values) { v.Set("key.api_key", "first-key-0123456789") }).want(http.StatusOK).says("is connected")
	conn := s.connected(t, b)[0]
	if conn.AccountID != "" {
		t.Fatalf("the provider tells the account %q", conn.AccountID)
	}
	again := b.get("/ui/connections/new?provider=mirror&reconnect=" + string(conn.ID)).want(http.StatusOK).says("does not tell whose account")
	values := fields(again.form("/ui/connections"))
	values.Set("key.api_key", "thiefs-key-0123456789")
	s.thief(t, b).post("/ui/connections", values).want(http.StatusUnprocessableEntity).says("needs your passkey")
	if now := s.connected(t, b)[0]; now.CredentialVersion != conn.CredentialVersion {
		t.Fatal("the cookie alone replaced a key")
	}
	by := account.ByPerson(b.Person).In(s.Environment)
	if _, err := s.Credentials.AddKey(t.Context(), by, credential.Start{Environment: s.Environment, Organization: s.Organization, Provider: "mirror", Reconnect: conn.ID}, b.User(),
		map[string]secret.Value{"api_key": secret.FromString("thiefs-key-0123456789")}, account.Agreement{}); !fault.Is(err, "proof_required") {
		t.Errorf("without an agreement: %v", err)
	}
	again.submit("/ui/connections", func(v url.Values) { v.Set("key.api_key", "second-key-0123456789") }).want(http.StatusOK).says("is connected")
	if list := s.connected(t, b); len(list) != 1 || list[0].ID != conn.ID || list[0].CredentialVersion != conn.CredentialVersion+1 {
		t.Errorf("got %+v", list)
	}
	found, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Action: "connection.reconnected", Limit: 1})
	if err != nil || len(found.Records) != 1 || len(found.Records[0].Evidence) == 0 {
		t.Errorf("the audit keeps no proof of it: %+v, %v", found.Records, err)
	}
}
