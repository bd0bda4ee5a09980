package account_test

import (
	"slices"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Rule 4, T5: an application makes the first owner of an organization that has
// none, and nothing else by the same road: no second owner, no way into an
// account that somebody uses or that reaches further.
func TestInviteFirstOwner(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx, sys := t.Context(), account.System("test")
		run := org(owner.Person).Organization
		admin := w.join(t, owner, account.RoleAdmin, "admin@example.com")
		tenant := must(w.CreateOrganization(ctx, sys, w.env, "Acme", "acme-1"))(t)
		key := func(env id.Environment, org id.Organization, scopes ...account.Scope) account.Actor {
			_, tok, err := w.IssueKey(ctx, account.NewKey{Environment: env, Organization: org, Name: "Billing", Scopes: scopes})
			check(t, err)
			return account.ByKey(must(w.AuthenticateKey(ctx, tok))(t))
		}
		both := []account.Scope{account.ScopeOrganizationsWrite, account.ScopeUsersWrite}
		app := key(w.env, "", both...)
		invite := func(by account.Actor, o id.Organization, email string) (account.User, secret.Value, error) {
			return w.InviteFirstOwner(ctx, by, o, account.NewUser{Name: "Boss", Email: email, Role: account.RoleMember})
		}
		code := func(by account.Actor, o id.Organization, email string) string {
			_, link, err := invite(by, o, email)
			if err == nil {
				return "ok"
			}
			if !link.IsZero() {
				t.Error("a refusal gives a link")
			}
			return fault.Of(err).Code
		}
		other := must(w.CreateEnvironment(ctx, sys, "staging", none))(t)
		for _, row := range []struct {
			name string
			by   account.Actor
			org  id.Organization
			mail string
			want string
		}{
			{"a key without organizations:write", key(w.env, "", account.ScopeUsersWrite), tenant.ID, "boss@acme.example", "missing_scope"},
			{"a key without users:write", key(w.env, "", account.ScopeOrganizationsWrite), tenant.ID, "boss@acme.example", "missing_scope"},
			{"a key of the organization itself", key(w.env, tenant.ID, both...), tenant.ID, "boss@acme.example", "not_allowed"},
			{"a key of another environment", key(other.ID, "", both...), tenant.ID, "boss@acme.example", "not_found"},
			{"an owner's cookie", account.ByPerson(owner.Person), tenant.ID, "boss@acme.example", "api_key_required"},
			{"nobody", account.Actor{}, tenant.ID, "boss@acme.example", "unauthenticated"},
			{"the organization that runs the environment", app, run, "boss@acme.example", "has_owner"},
			{"an organization that is not there", app, id.NewOrganization(), "boss@acme.example", "not_found"},
			{"no address", app, tenant.ID, "", "invalid_email"},
			{"the address of somebody who is there", app, tenant.ID, "admin@example.com", "user_exists"},
		} {
			if got := code(row.by, row.org, row.mail); got != row.want {
				t.Errorf("%s: got %s, want %s", row.name, got, row.want)
			}
		}

		u, first, err := invite(app, tenant.ID, "Boss@acme.example")
		check(t, err)
		again, link, err := invite(app, tenant.ID, "boss@acme.example")
		check(t, err)
		if again.ID != u.ID {
			t.Errorf("a new link made another user, %s and %s", u.ID, again.ID)
		}
		_, err = w.Link(ctx, accounttest.LinkToken(first))
		wantCode(t, err, "link_expired")
		if got := code(app, tenant.ID, "eve@acme.example"); got != "has_owner" {
			t.Errorf("an owner beside one who was invited: %s", got)
		}
		// Somebody gave the invited one a place where the application has none.
		check(t, w.AddMember(ctx, sys, run, u.ID, account.RoleAdmin, none))
		if got := code(app, tenant.ID, "boss@acme.example"); got != "has_owner" {
			t.Errorf("a link that reaches further: %s", got)
		}
		_, err = w.Link(ctx, accounttest.LinkToken(link))
		wantCode(t, err, "link_expired") // also the one that was made before
		check(t, w.RemoveMember(ctx, sys, run, u.ID, none))
		_, link, err = invite(app, tenant.ID, "boss@acme.example")
		check(t, err)
		boss := accounttest.Enroll(t, w.Service, link)
		if !boss.May(tenant.ID, account.RoleOwner) || len(boss.Organizations()) != 1 {
			t.Errorf("got %+v", boss.Organizations())
		}
		if got := code(app, tenant.ID, "boss@acme.example"); got != "has_owner" {
			t.Errorf("a way into an account that is used: %s", got)
		}

		// Who runs the environment is told, whoever it is that was invited is not.
		for _, h := range []*accounttest.Human{owner, admin, boss} {
			notices := must(w.Notices(ctx, h.Person))(t)
			told := slices.ContainsFunc(notices, func(n account.Notice) bool { return n.Kind == "user.first_owner_link" && n.User == u.ID })
			if want := h == owner; told != want {
				t.Errorf("%s was told: %v, want %v", h.Name(), told, want)
			}
		}
		w.audited(t, "user.first_owner_link")
	})
}
