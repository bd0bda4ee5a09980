package web_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// thief is a browser that holds the cookie of b and no passkey of theirs.
func (s *site) thief(t *testing.T, b *browser) *browser {
	t.Helper()
	out := s.open(t)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	out.http.Jar.SetCookies(u, []*http.Cookie{{Name: "ambit", Value: b.cookie(), Path: "/"}})
	out.Human = &accounttest.Human{Authenticator: accounttest.New(s.Accounts.Origin())}
	out.get("/ui/account").want(http.StatusOK)
	return out
}

// refused checks that an answer is a refusal, whatever its reason.
func (d *doc) refused() *doc {
	d.b.t.Helper()
	if d.status < 400 || d.status >= 500 {
		d.b.t.Errorf("%s: got status %d with a stolen cookie: %s", d.url.Path, d.status, d.text("main"))
	}
	return d
}

// A9, W2: the cookie of an owner who signed in a moment ago is no way to get
// one of one's own, nor keys, links or agents.
func TestStolenCookieMakesNothing(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := siteOn(t, db)
		b := s.person(t, "owner@example.com", account.RoleOwner)
		new := accounttest.Join(t, s.Accounts, s.Environment, s.Organization, account.RoleMember, "new@example.com")
		thief := s.thief(t, b)
		code := url.Values{"code": {"123456"}, "grant": {"x"}, "label": {"mine"}, "credential": {"{}"}, "nonce": {"n"}, "name": {"x"}, "kind": {"autonomous"}, "scope": {"vault:read"}, "days": {"7"}}
		for _, path := range []string{
			"/ui/account/passkeys/begin", "/ui/account/passkeys", "/ui/account/passkeys/new", "/ui/account/authenticator", "/ui/account/authenticator/confirm",
			"/ui/agents", "/ui/apikeys", "/ui/organization/members/" + string(new.User()) + "/invite",
		} {
			thief.post(path, url.Values{}).refused()
			thief.post(path, code).refused()
			code.Del("credential")
			thief.post(path, code).refused()
			code.Set("credential", "{}")
		}
		keys, err := s.Accounts.Passkeys(t.Context(), b.Person)
		if err != nil || len(keys) != 1 {
			t.Errorf("the owner has %d passkeys, %v; want the one they made", len(keys), err)
		}
		if has, err := s.Accounts.HasTOTP(t.Context(), b.Person); err != nil || has {
			t.Errorf("an authenticator app is registered: %v, %v", has, err)
		}
	})
}

// recorded gives the newest proof that the audit keeps of an action, as the
// answer of a passkey that it once was.
func (s *site) recorded(t *testing.T, action string) string {
	t.Helper()
	page, err := s.Audit.List(t.Context(), audit.Filter{Environment: s.Environment, Action: action, Limit: 1})
	if err != nil || len(page.Records) != 1 {
		t.Fatalf("the audit has %d of %s, %v", len(page.Records), action, err)
	}
	var e struct {
		ID         string `json:"credential_id"`
		ClientData string `json:"client_data_json"`
		Data       string `json:"authenticator_data"`
		Signature  string `json:"signature"`
	}
	if err := json.Unmarshal(page.Records[0].Evidence, &e); err != nil || e.Signature == "" {
		t.Fatalf("the evidence of %s: %+v, %v", action, e, err)
	}
	doc, err := json.Marshal(map[string]any{"id": e.ID, "rawId": e.ID, "type": "public-key", "clientExtensionResults": map[string]any{},
		"response": map[string]string{"clientDataJSON": e.ClientData, "authenticatorData": e.Data, "signature": e.Signature}})
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

// A9, T5: what the audit keeps of a proof does not act a second time for who
// reads it and holds the cookie of the login that made it.
func TestStolenCookieReplaysNoProof(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := siteOn(t, db)
		b := s.person(t, "owner@example.com", account.RoleOwner)
		u, err := s.Accounts.CreateUser(t.Context(), account.System("test"), account.NewUser{Environment: s.Environment, Organization: s.Organization, Role: account.RoleMember, Name: "Ada"}, account.Agreement{})
		if err != nil {
			t.Fatal(err)
		}
		thief := s.thief(t, b)
		for _, act := range []struct{ page, form, action string }{
			{"/ui/agents/new", "/ui/agents", "agent.registered"},
			{"/ui/organization/members/" + string(u.ID) + "/invite", "/ui/organization/members/" + string(u.ID) + "/invite", "user.invited"},
			{"/ui/account/passkeys/new", "/ui/account/passkeys/new", "user.unlocked"},
		} {
			var sent url.Values
			b.get(act.page).submit(act.form, func(v url.Values) {
				if v.Has("name") {
					v.Set("name", "Nightly report")
				}
				sent = v
			}).want(http.StatusOK)
			sent.Set("credential", s.recorded(t, act.action))
			// Synced passkeys do not count their uses, so no counter helps.
			if err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
				_, err := tx.ExecContext(ctx, `update passkey set sign_count = 0`)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			thief.post(act.form, sent).refused().says("used already")
			sent.Set("nonce", "another")
			thief.post(act.form, sent).refused()
		}
	})
}
