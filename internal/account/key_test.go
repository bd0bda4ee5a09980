package account_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
)

func TestAPIKeyLifecycle(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		o := org(owner.Person).Organization
		n := account.NewKey{Environment: w.env, Organization: o, Name: "backend", Expires: w.now().Add(time.Hour),
			Scopes: []string{account.ScopeAuditRead, account.ScopeVaultRead, account.ScopeAuditRead}}
		_, _, err := w.CreateKey(ctx, owner.Person, n, account.Proof{})
		wantCode(t, err, "proof_required")

		// The proof is for this key and no other.
		wider := n
		wider.Scopes = account.Scopes()
		elsewhere, longer := n, n
		elsewhere.Organization = ""
		longer.Expires = time.Time{}
		for name, other := range map[string]account.NewKey{"more scopes": wider, "the whole environment": elsewhere, "no expiry": longer} {
			if _, _, err := w.CreateKey(ctx, owner.Person, other, owner.Proof(t, w.KeyDigest(owner.Person, n))); !fault.Is(err, "proof_refused") {
				t.Errorf("%s: got %v", name, err)
			}
		}
		made, tok, err := w.CreateKey(ctx, owner.Person, n, owner.Proof(t, w.KeyDigest(owner.Person, n)))
		check(t, err)
		_, _, err = w.CreateKey(ctx, owner.Person, n, owner.Proof(t, w.KeyDigest(owner.Person, n)))
		wantCode(t, err, "key_exists") // one proof, or one repeated form, makes one key

		k, err := w.AuthenticateKey(ctx, tok)
		check(t, err)
		if k.ID() != made.ID || k.Environment() != w.env || k.Organization() != o || !k.Has(account.ScopeVaultRead) || k.Has(account.ScopeVaultWrite) || k.Has("") {
			t.Errorf("got %+v", k)
		}
		keys, _, err := w.Keys(ctx, account.ByPerson(owner.Person), o, account.List{})
		check(t, err)
		made.LastUsedAt = w.now()
		if diff := cmp.Diff([]account.APIKey{made}, keys); diff != "" {
			t.Errorf("keys (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{account.ScopeVaultRead, account.ScopeAuditRead}, keys[0].Scopes); diff != "" {
			t.Error(diff)
		}

		text := token(tok) // S9
		for i := range text {
			if _, err := w.AuthenticateKey(ctx, secret.FromString(text[:i])); !fault.Is(err, "invalid_api_key") {
				t.Fatalf("a prefix of %d: got %v", i, err)
			}
		}
		for _, bad := range []string{text + "A", text + "=", text + "\n", " " + text, strings.ToUpper(text), strings.Replace(text, "sk_", "pk_", 1), token(owner.Token)} {
			if _, err := w.AuthenticateKey(ctx, secret.FromString(bad)); !fault.Is(err, "invalid_api_key") {
				t.Errorf("%q: got %v", bad, err)
			}
		}
		if _, err := w.Authenticate(ctx, tok, ""); !fault.Is(err, "unauthenticated") {
			t.Errorf("an API key signs a person in: %v", err)
		}

		mia := w.join(t, owner, account.RoleMember, "mia@example.com")
		wantCode(t, w.RevokeKey(ctx, account.ByPerson(mia.Person), made.ID), "not_allowed")
		wantCode(t, w.RevokeKey(ctx, account.ByKey(k), made.ID), "person_required")
		wantCode(t, w.RevokeKey(ctx, account.ByPerson(owner.Person), id.NewKey()), "not_found")
		check(t, w.RevokeKey(ctx, account.ByPerson(owner.Person), made.ID))
		_, err = w.AuthenticateKey(ctx, tok)
		wantCode(t, err, "invalid_api_key")
		check(t, w.RevokeKey(ctx, account.ByPerson(owner.Person), made.ID))

		n.Name = "second"
		_, tok, err = w.CreateKey(ctx, owner.Person, n, owner.Proof(t, w.KeyDigest(owner.Person, n)))
		check(t, err)
		w.advance(time.Hour)
		_, err = w.AuthenticateKey(ctx, tok)
		wantCode(t, err, "invalid_api_key")
		w.audited(t, "api_key.created")
		w.audited(t, "api_key.revoked")
	})
}

func TestWhoMakesKeys(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		by, o := account.ByPerson(owner.Person), org(owner.Person).Organization
		admin := w.join(t, owner, account.RoleAdmin, "admin@example.com")
		mia := w.join(t, owner, account.RoleMember, "mia@example.com")
		auditor := w.join(t, owner, account.RoleAuditor, "auditor@example.com")
		tenant := must(w.CreateOrganization(ctx, by, w.env, "Tenant", ""))(t)
		boss := accounttest.Join(t, w.Service, w.env, tenant.ID, account.RoleOwner, "boss@example.com")
		other := must(w.CreateEnvironment(ctx, account.System("test"), "staging", none))(t)
		low, high := []string{account.ScopeAuditRead}, []string{account.ScopeVaultRead}
		invites := []string{account.ScopeOrganizationsWrite, account.ScopeUsersWrite} // a first owner, where there is none
		for _, c := range []struct {
			what   string
			h      *accounttest.Human
			env    id.Environment
			org    id.Organization
			scopes []string
			want   string
		}{
			{"a member", mia, w.env, o, low, "not_allowed"},
			{"an auditor", auditor, w.env, o, low, "not_allowed"},
			{"an admin", admin, w.env, o, low, "ok"},
			{"an admin, for the whole environment", admin, w.env, "", low, "ok"},
			{"an admin, to read secrets", admin, w.env, o, high, "not_allowed"}, // T5
			{"an admin, to vend", admin, w.env, "", []string{account.ScopeConnectionsVend}, "not_allowed"},
			{"an admin, to make first owners", admin, w.env, "", invites, "not_allowed"}, // or they would make themselves one
			{"an admin, in one organization", admin, w.env, o, invites, "ok"},
			{"an owner, to make first owners", owner, w.env, "", invites, "ok"},
			{"an owner, to read secrets", owner, w.env, o, high, "ok"},
			{"a tenant's owner, for the tenant", boss, w.env, tenant.ID, high, "ok"},
			{"a tenant's owner, for the whole environment", boss, w.env, "", low, "not_allowed"},
			{"a tenant's owner, for another tenant", boss, w.env, o, low, "not_found"},
			{"an organization of another environment", owner, w.env, other.Operator, low, "not_found"},
			{"another environment", boss, other.ID, "", low, "not_found"},
			{"no environment", owner, "", "", low, "not_found"},
			{"no scope", owner, w.env, o, nil, "invalid_scope"},
			{"an unknown scope", owner, w.env, o, []string{"admin"}, "invalid_scope"},
			{"two scopes in one", owner, w.env, o, []string{"audit:read vault:read"}, "invalid_scope"},
		} {
			n := account.NewKey{Environment: c.env, Organization: c.org, Name: c.what, Scopes: c.scopes}
			_, tok, err := w.CreateKey(ctx, c.h.Person, n, c.h.Proof(t, w.KeyDigest(c.h.Person, n)))
			got := "ok"
			if err != nil {
				got = fault.Of(err).Code
			}
			if got != c.want || (got == "ok") == tok.IsZero() {
				t.Errorf("%s: got %s, want %s", c.what, got, c.want)
			}
		}
		n := account.NewKey{Environment: w.env, Name: "old", Scopes: low, Expires: w.now()}
		_, _, err := w.CreateKey(ctx, owner.Person, n, owner.Proof(t, w.KeyDigest(owner.Person, n)))
		wantCode(t, err, "invalid_expiry")
		for what, n := range map[string]account.NewKey{
			"foreign organization": {Environment: w.env, Organization: other.Operator, Name: "x", Scopes: low},
			"unknown environment":  {Environment: id.NewEnvironment(), Name: "x", Scopes: low},
		} {
			if _, _, err := w.IssueKey(ctx, n); !fault.Is(err, "not_found") {
				t.Errorf("%s: got %v", what, err)
			}
		}
	})
}

// Each start of a local server used to leave another key for everything alive.
func TestReissuedKeyReplacesItsOwn(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		n := account.NewKey{Environment: w.env, Name: "local", Scopes: account.Scopes()}
		_, mine, err := w.CreateKey(ctx, owner.Person, n, owner.Proof(t, w.KeyDigest(owner.Person, n)))
		if err != nil {
			t.Fatal(err)
		}
		other := must2(w.IssueKey(ctx, account.NewKey{Environment: w.env, Name: "another", Scopes: account.Scopes()}))(t)
		first := must2(w.ReissueKey(ctx, n))(t)
		second := must2(w.ReissueKey(ctx, n))(t)
		for what, c := range map[string]struct {
			key   secret.Value
			lives bool
		}{"the first": {first, false}, "the second": {second, true}, "another name": {other, true}, "a person's of that name": {mine, true}} {
			if _, err := w.AuthenticateKey(ctx, c.key); (err == nil) != c.lives {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

func must2(_ account.APIKey, token secret.Value, err error) func(t *testing.T) secret.Value {
	return func(t *testing.T) secret.Value {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
}

// Rule 4: an organization that demands passkeys takes no code for a key of its
// own, also not from those who run its environment and are no members.
func TestKeyByCodeWherePasskeysAreDemanded(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		app := w.registerApp(t, owner)
		strict := must(w.CreateOrganization(ctx, account.ByPerson(owner.Person), w.env, "Strict", ""))(t)
		makeKey := func(name string, proof account.Proof) error {
			n := account.NewKey{Environment: w.env, Organization: strict.ID, Name: name, Scopes: []string{account.ScopeVaultRead}}
			if proof.TOTP == "" {
				proof = owner.Proof(t, w.KeyDigest(owner.Person, n))
			}
			_, _, err := w.CreateKey(ctx, owner.Person, n, proof)
			return err
		}
		code := func() account.Proof {
			w.advance(time.Minute)
			return account.Proof{TOTP: app.code(t, w.now())}
		}
		check(t, makeKey("by code", code()))
		yes := true
		_ = must(w.UpdateOrganization(ctx, account.System("test"), strict.ID, strict.Version, account.OrganizationChange{RequirePasskey: &yes}, none))(t)
		wantCode(t, makeKey("by code again", code()), "passkey_required")
		check(t, makeKey("by passkey", account.Proof{}))
	})
}
