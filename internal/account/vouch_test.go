package account_test

import (
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
)

// key is an application's, for org or, without one, the whole environment.
func (w *world) key(t testing.TB, org id.Organization, scopes ...account.Scope) account.Actor {
	t.Helper()
	_, tok, err := w.IssueKey(t.Context(), account.NewKey{Environment: w.env, Organization: org, Name: "Product back end", Scopes: scopes})
	check(t, err)
	return account.ByKey(must(w.AuthenticateKey(t.Context(), tok))(t))
}

// Issue 5, product.md rule 4: an application signs in a user that it made, once, in
// one organization, for nothing that raises authority, and never somebody who could
// do more. It is on record as that key's word.
func TestVouch(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		by := w.key(t, "", account.ScopeUsersWrite, account.ScopeOrganizationsWrite, account.ScopeUsersVouch)
		acme := must(w.CreateOrganization(ctx, by, w.env, "Acme", "acme"))(t)
		other := must(w.CreateOrganization(ctx, by, w.env, "Other", "other"))(t)
		made := func(name string, role account.Role) account.User {
			return must(w.CreateUser(ctx, by, account.NewUser{Environment: w.env, Name: name, ExternalID: name, Organization: acme.ID, Role: role}, none))(t)
		}
		ann := made("ann", account.RoleMember)
		check(t, w.AddMember(ctx, by, other.ID, ann.ID, account.RoleApprover, none))
		vouch := func(by account.Actor, org id.Organization, u id.User) error {
			_, err := w.Vouch(ctx, by, org, u, "/ui/connect/x")
			return err
		}
		follow := func(p account.Person, link secret.Value) (secret.Value, string, error) {
			return w.FollowVouch(ctx, p, accounttest.LinkToken(link), "192.0.2.1")
		}

		t.Run("who is vouched for, and by whom", func(t *testing.T) {
			boss := must(w.CreateUser(ctx, account.System("test"), account.NewUser{Environment: w.env, Name: "boss", Organization: acme.ID, Role: account.RoleAdmin}, none))(t)
			console := must(w.CreateUser(ctx, account.System("test"), account.NewUser{Environment: w.env, Name: "console", Organization: acme.ID}, none))(t)
			risen := made("risen", account.RoleMember)
			check(t, w.SetRole(ctx, account.System("test"), acme.ID, risen.ID, account.RoleAdmin, none))
			elsewhere := made("elsewhere", account.RoleMember)
			check(t, w.AddMember(ctx, account.System("test"), other.ID, elsewhere.ID, account.RoleOwner, none))
			enrolled := made("enrolled", account.RoleMember)
			accounttest.Enroll(t, w.Service, must(w.Recover(ctx, string(enrolled.ID)))(t))
			off := made("off", account.RoleMember)
			check(t, w.DisableUser(ctx, by, off.ID, none))
			foreign := must(w.CreateEnvironment(ctx, account.System("test"), "staging", none))(t)
			_, tok, err := w.IssueKey(ctx, account.NewKey{Environment: foreign.ID, Name: "foreign", Scopes: []account.Scope{account.ScopeUsersVouch}})
			check(t, err)
			for name, c := range map[string]struct {
				by   account.Actor
				org  id.Organization
				user id.User
				code string
			}{
				"an admin":                {by, acme.ID, boss.ID, "not_made_by_application"},
				"made at the console":     {by, acme.ID, console.ID, "not_made_by_application"},
				"an admin now":            {by, acme.ID, risen.ID, "role_not_vouched"},
				"an owner elsewhere":      {by, acme.ID, elsewhere.ID, "role_not_vouched"},
				"with a passkey":          {by, acme.ID, enrolled.ID, "already_enrolled"},
				"disabled":                {by, acme.ID, off.ID, "not_found"},
				"no member":               {by, org(owner.Person).Organization, ann.ID, "not_found"},
				"without the scope":       {w.key(t, "", account.ScopeUsersWrite), acme.ID, ann.ID, "missing_scope"},
				"a key of another tenant": {w.key(t, other.ID, account.ScopeUsersVouch), acme.ID, ann.ID, "not_found"},
				"a key of elsewhere":      {account.ByKey(must(w.AuthenticateKey(ctx, tok))(t)), acme.ID, ann.ID, "not_found"},
				"a person":                {account.ByPerson(owner.Person), acme.ID, ann.ID, "api_key_required"},
				"the server":              {account.System("test").In(w.env), acme.ID, ann.ID, "api_key_required"},
			} {
				if err := vouch(c.by, c.org, c.user); !fault.Is(err, c.code) {
					t.Errorf("%s: got %v, want %s", name, err, c.code)
				}
			}
		})

		link := must(w.Vouch(ctx, by, acme.ID, ann.ID, "/ui/connect/x"))(t)
		if says := must(w.Voucher(ctx, accounttest.LinkToken(link)))(t); says.Name != "ann" || says.OrganizationName != "Acme" || says.KeyName != "Product back end" {
			t.Errorf("the link says %+v", says)
		}
		_, _, err := follow(owner.Person, link)
		wantCode(t, err, "signed_in_as_other")
		login, next, err := follow(account.Person{}, link)
		check(t, err)
		_, _, err = follow(account.Person{}, link)
		wantCode(t, err, "link_expired")
		p := must(w.Authenticate(ctx, login, "192.0.2.1"))(t)
		if places := p.Organizations(); next != "/ui/connect/x" || !p.Vouched() || p.User() != ann.ID || len(places) != 1 || places[0].Organization != acme.ID {
			t.Fatalf("signed in as %s at %+v on the way to %s", p.User(), places, next)
		}
		w.audited(t, "user.vouched")
		w.audited(t, "signin.vouched")

		check(t, p.ConnectsAt("anywhere"))
		// Where the application named providers, it is enough for those and no others.
		named, _, err := follow(account.Person{}, must(w.Vouch(ctx, by, acme.ID, ann.ID, "/ui/connect/y", "github", "slack"))(t))
		check(t, err)
		only := must(w.Authenticate(ctx, named, "192.0.2.1"))(t)
		check(t, only.ConnectsAt("slack"))
		wantCode(t, only.ConnectsAt("salesforce"), "provider_not_named")
		check(t, owner.Person.ConnectsAt("salesforce"))
		t.Run("what it is enough for", func(t *testing.T) {
			for _, perm := range []account.Permission{account.UseOwn, account.View, account.ViewConnections} {
				check(t, account.ByPerson(p).May(acme.ID, perm))
			}
			for _, perm := range []account.Permission{account.ViewMembers, account.ManageMembers, account.ManageAgents, account.ApproveSessions, account.ManageConnections, account.ViewSessions,
				account.Revoke, account.ReadAudit, account.ViewSecrets, account.RevealSecrets, account.WriteSecrets, account.CreateKeys, account.ManageProviders, account.ManageSettings} {
				if err := account.ByPerson(p).May(acme.ID, perm); fault.KindOf(err) != fault.Denied {
					t.Errorf("%s: got %v", perm, err)
				}
			}
			if p.May(acme.ID, account.RoleMember) {
				t.Error("it has its role")
			}
			if err := account.ByPerson(p).May(other.ID, account.View); fault.KindOf(err) != fault.NotFound {
				t.Errorf("in another organization: %v", err)
			}
			_, err := w.Challenge(ctx, p, [32]byte{1})
			wantCode(t, err, "sign_in_required")
			_, err = w.Prove(ctx, p, [32]byte{1}, acme.ID, account.Proof{TOTP: "123456"})
			wantCode(t, err, "sign_in_required")
		})
		t.Run("a role that rose ends it", func(t *testing.T) {
			check(t, w.SetRole(ctx, account.System("test"), acme.ID, ann.ID, account.RoleAdmin, none))
			if places := must(w.Authenticate(ctx, login, ""))(t).Organizations(); len(places) != 0 {
				t.Errorf("an admin on an application's word: %+v", places)
			}
			check(t, w.SetRole(ctx, account.System("test"), acme.ID, ann.ID, account.RoleMember, none))
		})
		t.Run("it does not last", func(t *testing.T) {
			late := must(w.Vouch(ctx, by, acme.ID, ann.ID, "/ui/"))(t)
			w.advance(account.VouchAge)
			_, _, err := follow(account.Person{}, late)
			wantCode(t, err, "link_expired")
			w.advance(account.VouchedAge)
			_, err = w.Authenticate(ctx, login, "")
			wantCode(t, err, "unauthenticated")
		})
		t.Run("a key that was revoked gives no word", func(t *testing.T) {
			k := w.key(t, "", account.ScopeUsersVouch)
			link := must(w.Vouch(ctx, k, acme.ID, ann.ID, "/ui/"))(t)
			check(t, w.RevokeKey(ctx, account.ByPerson(owner.Person), id.Key(k.Audit().ID)))
			_, _, err := follow(account.Person{}, link)
			wantCode(t, err, "link_expired")
		})
		t.Run("nobody piles links up", func(t *testing.T) {
			var err error
			for range 21 {
				err = vouch(by, acme.ID, ann.ID)
			}
			wantCode(t, err, "too_many_links")
			w.advance(account.VouchAge + time.Second)
			check(t, vouch(by, acme.ID, ann.ID))
		})
	})
}
