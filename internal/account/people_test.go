package account_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
)

func TestLastOwnerStays(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		by, o := account.ByPerson(owner.Person), org(owner.Person).Organization
		wantCode(t, w.SetRole(ctx, by, o, owner.User(), account.RoleAdmin, none), "last_owner")
		wantCode(t, w.RemoveMember(ctx, by, o, owner.User(), none), "last_owner")
		wantCode(t, w.DisableUser(ctx, by, owner.User(), none), "last_owner")
		wantCode(t, w.DisableUser(ctx, account.System("console"), owner.User(), none), "last_owner")

		second := w.join(t, owner, account.RoleOwner, "second@example.com")
		check(t, owner.Do(t, func(ag account.Agreement) error { return w.DisableUser(ctx, by, second.User(), ag) }))
		wantCode(t, w.RemoveMember(ctx, by, o, owner.User(), none), "last_owner") // a disabled owner is none
		check(t, owner.Do(t, func(ag account.Agreement) error { return w.EnableUser(ctx, by, second.User(), ag) }))

		// Two owners who remove each other at once: one stays.
		second.SignIn(t)
		var wg sync.WaitGroup
		errs := make([]error, 2)
		remove := func(of *accounttest.Human, by account.Actor) func(account.Agreement) error {
			return func(ag account.Agreement) error { return w.RemoveMember(ctx, by, o, of.User(), ag) }
		}
		wg.Go(func() { errs[0] = owner.Do(t, remove(second, by)) })
		wg.Go(func() { errs[1] = second.Do(t, remove(owner, account.ByPerson(second.Person))) })
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Errorf("got %v and %v, want exactly one success", errs[0], errs[1])
		}
		for _, err := range errs {
			if err != nil && !fault.Is(err, "last_owner") {
				t.Error(err)
			}
		}
	})
}

func TestLeaving(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		by, o := account.ByPerson(owner.Person), org(owner.Person).Organization
		mia := w.join(t, owner, account.RoleMember, "mia@example.com")
		lee := w.join(t, owner, account.RoleMember, "lee@example.com")

		w.veto = errVeto
		if err := w.RemoveMember(ctx, by, o, mia.User(), none); err == nil || !strings.Contains(err.Error(), errVeto.Error()) {
			t.Errorf("got %v though what she runs could not be ended", err)
		}
		mia.Reload(t) // nothing was half done
		if len(mia.Organizations()) != 1 {
			t.Error("she is out though what she runs goes on")
		}
		w.veto, w.left = nil, nil

		check(t, w.RemoveMember(ctx, by, o, mia.User(), none))
		_, err := w.Authenticate(ctx, mia.Token, "")
		wantCode(t, err, "unauthenticated")
		mia.SignIn(t) // she is a user still, of nothing
		if len(mia.Organizations()) != 0 || mia.May(o, account.RoleMember) {
			t.Errorf("got %+v", mia.Organizations())
		}
		link := must(w.Recover(ctx, "lee@example.com"))(t)
		check(t, w.DisableUser(ctx, by, lee.User(), none))
		_, err = w.Authenticate(ctx, lee.Token, "")
		wantCode(t, err, "unauthenticated")
		_, err = w.Link(ctx, accounttest.LinkToken(link))
		wantCode(t, err, "link_expired")
		_, err = w.Recover(ctx, "lee@example.com")
		wantCode(t, err, "user_disabled")
		flow, options, err := w.BeginSignIn(ctx)
		check(t, err)
		_, err = w.FinishSignIn(ctx, flow, must(lee.Assert(options))(t), "")
		wantCode(t, err, "sign_in_refused")
		want := []string{string(w.env) + " " + string(o) + " " + string(mia.User()), string(w.env) + "  " + string(lee.User())}
		if diff := cmp.Diff(want, w.left); diff != "" {
			t.Errorf("who left (-want +got):\n%s", diff)
		}
		if ok := must(w.Active(ctx, w.env, o, lee.User()))(t); ok {
			t.Error("a disabled user is active")
		}
		check(t, owner.Do(t, func(ag account.Agreement) error { return w.EnableUser(ctx, by, lee.User(), ag) }))
		lee.SignIn(t)
		if ok := must(w.Active(ctx, w.env, o, lee.User()))(t); !ok {
			t.Error("an enabled member is not active")
		}
		check(t, w.RemoveMember(ctx, account.ByPerson(lee.Person), o, lee.User(), none)) // leaving by oneself
		for _, a := range []string{"member.removed", "user.disabled", "user.enabled"} {
			w.audited(t, a)
		}
	})
}

// What each role may do with members, to the letter of the rules.
func TestRolesOverMembers(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		o := org(owner.Person).Organization
		second := w.join(t, owner, account.RoleOwner, "second@example.com")
		admin := w.join(t, owner, account.RoleAdmin, "admin@example.com")
		mia := w.join(t, owner, account.RoleMember, "mia@example.com")
		auditor := w.join(t, owner, account.RoleAuditor, "auditor@example.com")
		_, tok, err := w.IssueKey(ctx, account.NewKey{Environment: w.env, Name: "app", Scopes: []string{account.ScopeUsersWrite}})
		check(t, err)
		app := account.ByKey(must(w.AuthenticateKey(ctx, tok))(t))
		humans := map[id.User]*accounttest.Human{owner.User(): owner, admin.User(): admin, mia.User(): mia, auditor.User(): auditor}
		set := func(by account.Actor, u id.User, r account.Role) string {
			change := func(ag account.Agreement) error { return w.SetRole(ctx, by, o, u, r, ag) }
			err := change(none)
			if h := humans[by.User()]; h != nil {
				err = h.Do(t, change)
			}
			if err == nil {
				return "ok"
			}
			return fault.Of(err).Code
		}
		p := func(h *accounttest.Human) account.Actor { return account.ByPerson(h.Person) }
		for _, c := range []struct {
			what string
			by   account.Actor
			user id.User
			role account.Role
			want string
		}{
			{"an admin makes an approver", p(admin), mia.User(), account.RoleApprover, "ok"},
			{"an admin makes an admin", p(admin), mia.User(), account.RoleAdmin, "ok"},
			{"an admin makes an owner", p(admin), mia.User(), account.RoleOwner, "not_allowed"},
			{"an admin makes himself an owner", p(admin), admin.User(), account.RoleOwner, "not_allowed"},
			{"an admin unmakes an owner", p(admin), second.User(), account.RoleMember, "not_allowed"},
			{"an owner makes a member", p(owner), mia.User(), account.RoleMember, "ok"},
			{"a member makes himself an admin", p(mia), mia.User(), account.RoleAdmin, "not_allowed"},
			{"an auditor makes himself a member", p(auditor), auditor.User(), account.RoleMember, "not_allowed"},
			{"an application makes an approver", app, mia.User(), account.RoleApprover, "ok"},
			{"an application makes an admin", app, mia.User(), account.RoleAdmin, "person_required"},
			{"an application unmakes an admin", app, admin.User(), account.RoleMember, "person_required"},
			{"nobody does", account.Actor{}, mia.User(), account.RoleMember, "unauthenticated"},
			{"an unknown role", p(owner), mia.User(), "root", "invalid_role"},
			{"a role in capitals", p(owner), mia.User(), "Owner", "invalid_role"},
			{"an unknown user", p(owner), id.NewUser(), account.RoleMember, "not_found"},
		} {
			if got := set(c.by, c.user, c.role); got != c.want {
				t.Errorf("%s: got %s, want %s", c.what, got, c.want)
			}
		}
		// A role counts at the next request.
		check(t, owner.Do(t, func(ag account.Agreement) error {
			return w.SetRole(ctx, p(owner), o, mia.User(), account.RoleAdmin, ag)
		}))
		mia.Reload(t)
		if !mia.May(o, account.RoleAdmin) {
			t.Error("the new role does not count")
		}
	})
}

// T1: what belongs to another environment looks like what does not exist.
func TestForeignLooksAbsent(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		sys := account.System("test")
		other := must(w.CreateEnvironment(ctx, sys, "staging", none))(t)
		stranger := accounttest.Join(t, w.Service, other.ID, other.Operator, account.RoleOwner, "mia@example.com")
		mine := org(owner.Person)
		tenant := must(w.CreateOrganization(ctx, account.ByPerson(owner.Person), w.env, "Tenant", "t-1"))(t)
		neighbour := must(w.CreateOrganization(ctx, account.ByPerson(owner.Person), w.env, "Neighbour", ""))(t)
		guest := accounttest.Join(t, w.Service, w.env, neighbour.ID, account.RoleOwner, "guest@example.com")
		_, tok, err := w.IssueKey(ctx, account.NewKey{Environment: other.ID, Name: "all", Scopes: account.Scopes()})
		check(t, err)
		foreignKey := must(w.AuthenticateKey(ctx, tok))(t)
		k, tok, err := w.IssueKey(ctx, account.NewKey{Environment: w.env, Organization: neighbour.ID, Name: "one", Scopes: account.Scopes()})
		check(t, err)
		oneKey := must(w.AuthenticateKey(ctx, tok))(t)

		actors := map[string]account.Actor{
			"an owner of another environment":      account.ByPerson(stranger.Person),
			"the same, who says they act here":     account.ByPerson(stranger.Person).In(w.env),
			"a key of another environment":         account.ByKey(foreignKey),
			"the same, that says it acts here":     account.ByKey(foreignKey).In(w.env),
			"an owner of another organization":     account.ByPerson(guest.Person),
			"a key confined to another":            account.ByKey(oneKey),
			"a person of no organization any more": account.ByPerson(leftBehind(t, w, owner)),
		}
		for who, by := range actors {
			for _, o := range []id.Organization{tenant.ID, mine.Organization, id.NewOrganization()} {
				probes := map[string]func() error{
					"Members":      func() error { _, _, err := w.Members(ctx, by, o, account.List{}); return err },
					"SetRole":      func() error { return w.SetRole(ctx, by, o, owner.User(), account.RoleMember, none) },
					"RemoveMember": func() error { return w.RemoveMember(ctx, by, o, owner.User(), none) },
					"AddMember":    func() error { return w.AddMember(ctx, by, o, owner.User(), account.RoleMember, none) },
					"Update": func() error {
						name := "x"
						_, err := w.UpdateOrganization(ctx, by, o, 1, account.OrganizationChange{Name: &name}, none)
						return err
					},
					"Keys": func() error { _, _, err := w.Keys(ctx, by, o, account.List{}); return err },
					"CreateUser": func() error {
						_, err := w.CreateUser(ctx, by, account.NewUser{Environment: w.env, Organization: o, Name: "x"}, none)
						return err
					},
					"May": func() error { return by.In(w.env).May(o, account.View) },
				}
				for what, probe := range probes {
					if who == "a key of another environment" || who == "the same, that says it acts here" {
						if what == "May" {
							continue // does not know whose the organization is; the look-up below does
						}
					}
					if err := probe(); !fault.Is(err, "not_found") {
						t.Errorf("%s, %s: got %v", who, what, err)
					}
				}
			}
			if err := w.DisableUser(ctx, by, owner.User(), none); !fault.Is(err, "not_found") {
				t.Errorf("%s, DisableUser: got %v", who, err)
			}
		}
		for what, err := range map[string]error{
			"Organization":             second(w.Organization(ctx, other.ID, mine.Organization)),
			"OrganizationByExternalID": second(w.OrganizationByExternalID(ctx, other.ID, "t-1")),
			"User":                     second(w.User(ctx, other.ID, owner.User())),
			"Users":                    third(w.Users(ctx, account.ByPerson(stranger.Person), w.env, account.List{})),
			"Organizations":            third(w.Organizations(ctx, account.ByPerson(stranger.Person), w.env, account.List{})),
			"RevokeKey":                w.RevokeKey(ctx, account.ByPerson(stranger.Person), k.ID),
			"RevokeKey, unknown":       w.RevokeKey(ctx, account.ByPerson(stranger.Person), id.NewKey()),
		} {
			wantCode(t, err, "not_found")
			if got := fault.Of(err).Message; strings.Contains(got, "Tenant") || strings.Contains(got, "example.com") {
				t.Errorf("%s says %q", what, got)
			}
		}
		if ok := must(w.Active(ctx, other.ID, mine.Organization, owner.User()))(t); ok {
			t.Error("active in an organization that is of another environment")
		}
		envs := must(w.Environments(ctx, account.ByPerson(stranger.Person)))(t)
		if len(envs) != 1 || envs[0].ID != other.ID {
			t.Errorf("got %+v", envs)
		}
		// The same e-mail in two environments is two people.
		_, err = w.Recover(ctx, "mia@example.com")
		check(t, err)
		_ = accounttest.Join(t, w.Service, w.env, neighbour.ID, account.RoleMember, "mia@example.com")
		_, err = w.Recover(ctx, "mia@example.com")
		wantCode(t, err, "ambiguous_user")
	})
}

func leftBehind(t testing.TB, w *world, owner *accounttest.Human) account.Person {
	t.Helper()
	h := w.join(t, owner, account.RoleOwner, "gone@example.com")
	check(t, w.RemoveMember(t.Context(), account.System("test"), org(owner.Person).Organization, h.User(), none))
	h.SignIn(t)
	return h.Person
}

func second[T any](_ T, err error) error        { return err }
func third[T, U any](_ T, _ U, err error) error { return err }

// Those who run an environment look after its tenants without being in them.
func TestRunningAnEnvironment(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		by := account.ByPerson(owner.Person)
		admin := w.join(t, owner, account.RoleAdmin, "admin@example.com")
		tenant := must(w.CreateOrganization(ctx, by, w.env, "Tenant", "t-1"))(t)
		_, err := w.CreateOrganization(ctx, by, w.env, "Again", "t-1")
		wantCode(t, err, "external_id_taken")
		boss := must(agreed(t, owner, func(ag account.Agreement) (account.User, error) {
			return w.CreateUser(ctx, by, account.NewUser{Environment: w.env, Organization: tenant.ID, Role: account.RoleOwner, Name: "Boss", Email: "boss@tenant.example", ExternalID: "u-1"}, ag)
		}))(t)
		_, err = agreed(t, owner, func(ag account.Agreement) (account.User, error) {
			return w.CreateUser(ctx, by, account.NewUser{Environment: w.env, Organization: tenant.ID, Name: "Copy", Email: "BOSS@Tenant.example"}, ag)
		})
		wantCode(t, err, "user_exists") // G8
		wantCode(t, w.SetRole(ctx, account.ByPerson(admin.Person), tenant.ID, boss.ID, account.RoleMember, none), "not_allowed")
		if err := by.May(tenant.ID, account.ApproveSessions); !fault.Is(err, "not_found") {
			t.Errorf("running the environment approves in a tenant: %v", err)
		}
		members, _, err := w.Members(ctx, by, tenant.ID, account.List{})
		check(t, err)
		if len(members) != 1 || members[0].ID != boss.ID || members[0].Role != account.RoleOwner {
			t.Errorf("got %+v", members)
		}
		add := func(ag account.Agreement) error {
			return w.AddMember(ctx, by, tenant.ID, admin.User(), account.RoleAuditor, ag)
		}
		check(t, owner.Do(t, add))
		wantCode(t, owner.Do(t, add), "already_member")
		got := must(w.UserByExternalID(ctx, w.env, "u-1"))(t)
		if got.ID != boss.ID || got.Email != "boss@tenant.example" {
			t.Errorf("got %+v", got)
		}
		create := func(ag account.Agreement) (account.Environment, error) {
			return w.CreateEnvironment(ctx, by, "staging", ag)
		}
		env := must(agreed(t, owner, create))(t)
		_, err = agreed(t, owner, create)
		wantCode(t, err, "name_taken")
		owner.Reload(t)
		if r, _ := owner.Role(env.Operator); r != account.RoleOwner {
			t.Errorf("got role %q in the new environment", r)
		}
		check(t, account.ByPerson(owner.Person).In(env.ID).May("", account.ManageProviders))
		_, err = w.CreateEnvironment(ctx, account.ByPerson(w.join(t, owner, account.RoleMember, "m@example.com").Person), "mine", none)
		wantCode(t, err, "not_allowed")

		var seen []string
		l := account.List{Limit: 2}
		for {
			rows, next, err := w.Users(ctx, by, w.env, l)
			check(t, err)
			for _, u := range rows {
				seen = append(seen, string(u.ID))
			}
			if l.After = next; next == "" {
				break
			}
		}
		if len(seen) != 4 {
			t.Errorf("got %d users over pages of 2: %v", len(seen), seen)
		}
		orgs, _, err := w.Organizations(ctx, by, w.env, account.List{})
		check(t, err)
		if len(orgs) != 2 {
			t.Errorf("got %+v", orgs)
		}
	})
}

func TestBadNames(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		by, o := account.ByPerson(owner.Person), org(owner.Person).Organization
		for _, bad := range []string{"", " x", "x\n", "a\u202eb", "a\x00b", "\xff", strings.Repeat("x", 201)} {
			_, err := w.CreateUser(ctx, by, account.NewUser{Environment: w.env, Organization: o, Name: bad}, none)
			wantCode(t, err, "invalid_name")
			_, err = w.CreateOrganization(ctx, by, w.env, bad, "")
			wantCode(t, err, "invalid_name")
		}
		_, err := w.CreateUser(ctx, by, account.NewUser{Environment: w.env, Organization: o, Name: "x", Email: "two@at@signs"}, none)
		wantCode(t, err, "invalid_email")
		_, err = w.CreateUser(ctx, by, account.NewUser{Environment: "env_none", Name: "x"}, none)
		wantCode(t, err, "not_found")
	})
}
