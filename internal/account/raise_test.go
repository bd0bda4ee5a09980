package account_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// raising is one change that takes a person's agreement. Each row is made on
// fresh people, by an owner.
type raising struct {
	name   string
	action string // of its audit entry
	change func(by account.Actor, ag account.Agreement) error
	undo   func() error // where the same change could be made again
}

// raisings lists every method of the room that raises authority.
func (w *world) raisings(t testing.TB, owner *accounttest.Human) []raising {
	t.Helper()
	ctx, sys := t.Context(), account.System("test")
	o := org(owner.Person).Organization
	user := func(role account.Role) id.User {
		u, err := w.CreateUser(ctx, sys, account.NewUser{Environment: w.env, Organization: o, Role: role, Name: "Ada"}, none)
		check(t, err)
		return u.ID
	}
	nobody, err := w.CreateUser(ctx, sys, account.NewUser{Environment: w.env, Name: "Nobody"}, none)
	check(t, err)
	member, second, third, disabled := user(account.RoleMember), user(account.RoleOwner), user(account.RoleOwner), user(account.RoleMember)
	fourth := user(account.RoleOwner)
	check(t, w.DisableUser(ctx, sys, disabled, none))
	have := must(w.Organization(ctx, w.env, o))(t)
	yes, no := true, false
	have = must(w.UpdateOrganization(ctx, sys, o, have.Version, account.OrganizationChange{RequirePasskey: &yes}, none))(t)
	person := func(by account.Actor) account.Person { p, _ := by.Person(); return p }
	return []raising{
		{"taking back the demand for passkeys", "organization.changed", func(by account.Actor, ag account.Agreement) error {
			_, err := w.UpdateOrganization(ctx, by, o, have.Version, account.OrganizationChange{RequirePasskey: &no}, ag)
			return err
		}, nil},
		{"a higher role", "member.role_changed", func(by account.Actor, ag account.Agreement) error {
			return w.SetRole(ctx, by, o, member, account.RoleAdmin, ag)
		}, func() error { return w.SetRole(ctx, sys, o, member, account.RoleMember, none) }},
		{"taking an owner's role", "member.role_changed", func(by account.Actor, ag account.Agreement) error {
			return w.SetRole(ctx, by, o, second, account.RoleMember, ag)
		}, func() error { return w.SetRole(ctx, sys, o, second, account.RoleOwner, none) }},
		{"removing an owner", "member.removed", func(by account.Actor, ag account.Agreement) error {
			return w.RemoveMember(ctx, by, o, third, ag)
		}, func() error { return w.AddMember(ctx, sys, o, third, account.RoleOwner, none) }},
		{"disabling an owner", "user.disabled", func(by account.Actor, ag account.Agreement) error {
			return w.DisableUser(ctx, by, fourth, ag)
		}, func() error { return w.EnableUser(ctx, sys, fourth, none) }},
		{"a place", "member.added", func(by account.Actor, ag account.Agreement) error {
			return w.AddMember(ctx, by, o, nobody.ID, account.RoleAuditor, ag)
		}, func() error { return w.RemoveMember(ctx, sys, o, nobody.ID, none) }},
		{"a user with a role", "user.created", func(by account.Actor, ag account.Agreement) error {
			_, err := w.CreateUser(ctx, by, account.NewUser{Environment: w.env, Organization: o, Name: "New", Email: "new@example.com"}, ag)
			return err
		}, nil},
		{"a user with a link", "user.invited", func(by account.Actor, ag account.Agreement) error {
			_, _, err := w.InviteUser(ctx, person(by), account.NewUser{Environment: w.env, Organization: o, Name: "Newer"}, ag)
			return err
		}, nil},
		{"a link", "user.invited", func(by account.Actor, ag account.Agreement) error {
			_, err := w.Invite(ctx, person(by), member, ag)
			return err
		}, nil},
		{"enabling", "user.enabled", func(by account.Actor, ag account.Agreement) error { return w.EnableUser(ctx, by, disabled, ag) },
			func() error { return w.DisableUser(ctx, sys, disabled, none) }},
		{"one's own e-mail", "user.profile_changed", func(by account.Actor, ag account.Agreement) error {
			return w.SetProfile(ctx, person(by), person(by).Name(), "moved@example.com", ag)
		}, nil},
		{"an environment", "environment.created", func(by account.Actor, ag account.Agreement) error {
			_, err := w.CreateEnvironment(ctx, by, "staging", ag)
			return err
		}, nil},
	}
}

// state is all that this room keeps about who may do what.
func (w *world) state(t testing.TB) string {
	t.Helper()
	var out strings.Builder
	for _, query := range []string{
		`select id || ' ' || name from environment order by id`, `select id || ' ' || name || ' ' || require_passkey from organization order by id`,
		`select id || ' ' || environment_id || ' ' || email || ' ' || name || ' ' || disabled_at from person order by id`,
		`select organization_id || ' ' || user_id || ' ' || role from membership order by organization_id, user_id`,
		`select id || ' ' || user_id from enroll_link order by id`, `select id from api_key order by id`,
	} {
		rows, err := w.db.Reader().QueryContext(t.Context(), query)
		check(t, err)
		for rows.Next() {
			var line string
			check(t, rows.Scan(&line))
			out.WriteString(line + "\n")
		}
		check(t, rows.Err())
		check(t, rows.Close())
	}
	return out.String()
}

// asked gives what a change would have its person agree to.
func asked(t testing.TB, err error) account.Raise {
	t.Helper()
	need, ok := errors.AsType[*account.Unproven](err)
	if !ok {
		t.Fatalf("got %v, want to be asked", err)
	}
	return need.Raise
}

// Rule 4, A9, W2: each change that raises authority takes an agreement to
// exactly it, by the person of the login, once; a cookie, a command line's
// login, or an agreement to anything else changes nothing.
func TestRaisingTakesAnAgreement(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		cosmo := w.join(t, owner, account.RoleOwner, "cosmo@example.com")
		cli := account.ByPerson(w.commandLine(t, owner))
		list := w.raisings(t, owner)
		before := w.state(t)
		by := account.ByPerson(owner.Person)
		var raises []account.Raise
		for _, r := range list {
			wantCode(t, r.change(by, none), "proof_required")
			wantCode(t, r.change(cli, none), "browser_required")
			raises = append(raises, asked(t, r.change(by, account.Asking())))
		}
		for i, r := range list {
			other := must(owner.Agree(t, raises[(i+1)%len(list)]))(t)
			wantCode(t, r.change(by, other), "changed_meanwhile")
			wantCode(t, r.change(cli, other), "browser_required")
			theirs := must(cosmo.Agree(t, raises[i]))(t)
			wantCode(t, r.change(by, theirs), "changed_meanwhile")
			for what, bend := range map[string]func(*account.Raise){
				"organization": func(r *account.Raise) { r.Organization = id.NewOrganization() },
				"environment":  func(r *account.Raise) { r.Environment = id.NewEnvironment() },
				"action":       func(r *account.Raise) { r.Action += "x" },
				"object":       func(r *account.Raise) { r.Object = string(id.NewUser()) },
				"version":      func(r *account.Raise) { r.Version++ },
				"before":       func(r *account.Raise) { r.From += "x" },
				"after":        func(r *account.Raise) { r.To += "x" },
				"a fact":       func(r *account.Raise) { r.Facts = map[string]string{"x": "y"} },
			} {
				bent := raises[i]
				bend(&bent)
				ag, err := owner.Agree(t, bent)
				check(t, err)
				if err := r.change(by, ag); !fault.Is(err, "changed_meanwhile") {
					t.Errorf("%s, with an agreement of another %s: got %v", r.name, what, err)
				}
			}
		}
		if diff := cmp.Diff(before, w.state(t)); diff != "" {
			t.Fatalf("without an agreement something changed (-before +after):\n%s", diff)
		}

		// An agreement is of one login: a stolen one has another.
		again := *owner
		again.SignIn(t)
		for i, r := range list {
			ag := must(owner.Agree(t, raises[i]))(t)
			wantCode(t, r.change(account.ByPerson(again.Person), ag), "changed_meanwhile")
		}

		for _, r := range list {
			w.advance(time.Second)                          // so that its entry is the newest
			now := asked(t, r.change(by, account.Asking())) // the demand for passkeys moved the organization's version
			if r.action != now.Action && r.action != "user.invited" {
				t.Errorf("%s: asks for %s, want %s", r.name, now.Action, r.action)
			}
			ag := must(owner.Agree(t, now))(t)
			if err := r.change(by, ag); err != nil {
				t.Fatalf("%s: %v", r.name, err)
			}
			w.evidenced(t, owner, r.action, now)
			if r.undo != nil {
				check(t, r.undo())
			}
			after := w.state(t)
			if err := r.change(by, ag); err == nil && r.action != "user.profile_changed" || w.state(t) != after {
				t.Errorf("%s: the agreement counted twice: %v", r.name, err)
			}
		}
	})
}

// evidenced checks that the newest entry of action keeps a proof over the
// document of r, which stands beside it and can be verified without us.
func (w *world) evidenced(t testing.TB, h *accounttest.Human, action string, r account.Raise) {
	t.Helper()
	var found audit.Record
	for _, env := range must(w.Environments(t.Context(), account.System("test")))(t) {
		page, err := w.audit.List(t.Context(), audit.Filter{Environment: env.ID, Action: action, Limit: 1})
		check(t, err)
		if len(page.Records) == 1 && page.Records[0].Time.After(found.Time) {
			found = page.Records[0]
		}
	}
	var kept struct {
		User     id.User `json:"user_id"`
		Document string  `json:"document"`
	}
	check(t, json.Unmarshal(found.Evidence, &kept))
	digest := sha256.Sum256([]byte(kept.Document))
	if err := account.VerifyEvidence(found.Evidence, digest, publicURL); err != nil || kept.User != h.User() {
		t.Errorf("%s: the evidence of %s: %v", action, kept.User, err)
	}
	var doc account.Raise
	check(t, json.Unmarshal([]byte(kept.Document), &doc))
	if diff := cmp.Diff(r, doc); diff != "" {
		t.Errorf("%s: what was agreed to (-want +kept):\n%s", action, diff)
	}
	changed := strings.Replace(string(found.Evidence), `\"to\":`, `\"to\": `, 1)
	if err := account.VerifyEvidence([]byte(changed), digest, publicURL); err == nil {
		t.Errorf("%s: a document that was changed verifies", action)
	}
}

// What lowers authority needs nothing, so that it stays quick.
func TestLoweringIsQuick(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		o := org(owner.Person).Organization
		cli := account.ByPerson(w.commandLine(t, owner))
		for _, by := range []account.Actor{account.ByPerson(owner.Person), cli} {
			admin := w.join(t, owner, account.RoleAdmin, "a"+strconv.Itoa(len(w.left))+"@example.com")
			for _, r := range []account.Role{account.RoleApprover, account.RoleMember} {
				check(t, w.SetRole(ctx, by, o, admin.User(), r, none))
				wantCode(t, w.SetRole(ctx, by, o, admin.User(), r, account.Asking()), "nothing_to_confirm") // it is so already
			}
			// Asking does nothing, not even what needs no agreement.
			wantCode(t, w.RemoveMember(ctx, by, o, admin.User(), account.Asking()), "nothing_to_confirm")
			wantCode(t, w.DisableUser(ctx, by, admin.User(), account.Asking()), "nothing_to_confirm")
			if r := must(w.roleOf(ctx, o, admin.User()))(t); r != account.RoleMember {
				t.Errorf("asking made them %q", r)
			}
			check(t, w.DisableUser(ctx, by, admin.User(), none))
			check(t, w.RemoveMember(ctx, by, o, admin.User(), none))
		}
		yes := true
		have := must(w.Organization(ctx, w.env, o))(t)
		_ = must(w.UpdateOrganization(ctx, cli, o, have.Version, account.OrganizationChange{RequirePasskey: &yes}, none))(t)
		check(t, w.SetProfile(ctx, owner.Person, "Olga", owner.Email(), none))
	})
}

func (w *world) roleOf(ctx context.Context, o id.Organization, u id.User) (r account.Role, err error) {
	err = w.db.Reader().QueryRowContext(ctx, `select role from membership where organization_id = $1 and user_id = $2`, o, u).Scan(&r)
	return r, err
}

// Applications have scopes, and the console the machine: neither is what a
// stolen cookie is.
func TestApplicationsAndTheServerGoOn(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		o := org(owner.Person).Organization
		_, tok, err := w.IssueKey(ctx, account.NewKey{Environment: w.env, Name: "app", Scopes: []string{account.ScopeUsersWrite}})
		check(t, err)
		for i, by := range []account.Actor{account.ByKey(must(w.AuthenticateKey(ctx, tok))(t)), account.System("console")} {
			u := must(w.CreateUser(ctx, by, account.NewUser{Environment: w.env, Organization: o, Name: "x", Email: strconv.Itoa(i) + "@example.com"}, none))(t)
			check(t, w.SetRole(ctx, by, o, u.ID, account.RoleApprover, none))
			check(t, w.DisableUser(ctx, by, u.ID, none))
			check(t, w.EnableUser(ctx, by, u.ID, none))
			check(t, w.RemoveMember(ctx, by, o, u.ID, none))
			check(t, w.AddMember(ctx, by, o, u.ID, account.RoleMember, none))
		}
		wantCode(t, second(w.CreateUser(ctx, account.Actor{}, account.NewUser{Environment: w.env, Name: "x"}, none)), "unauthenticated")
	})
}

// Disabling is how a stolen owner is shut out, so only those bring an owner back
// who may make one: no application, and no admin.
func TestEnablingAnOwnerTakesAnOwner(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		o := org(owner.Person).Organization
		mallory := w.join(t, owner, account.RoleOwner, "mallory@example.com")
		admin := w.join(t, owner, account.RoleAdmin, "admin@example.com")
		by := account.ByPerson(owner.Person)
		check(t, owner.Do(t, func(ag account.Agreement) error { return w.DisableUser(ctx, by, mallory.User(), ag) }))
		for _, at := range []id.Organization{"", o} {
			_, tok, err := w.IssueKey(ctx, account.NewKey{Environment: w.env, Organization: at, Name: "app", Scopes: []string{account.ScopeUsersRead, account.ScopeUsersWrite}})
			check(t, err)
			err = w.EnableUser(ctx, account.ByKey(must(w.AuthenticateKey(ctx, tok))(t)), mallory.User(), none)
			if err == nil || fault.KindOf(err) != fault.Denied {
				t.Errorf("a key of %q enabled an owner: %v", at, err)
			}
		}
		wantCode(t, w.EnableUser(ctx, account.ByPerson(admin.Person), mallory.User(), account.Asking()), "not_allowed")
		u := must(w.User(ctx, w.env, mallory.User()))(t)
		if u.DisabledAt.IsZero() {
			t.Error("the owner is back")
		}
		check(t, owner.Do(t, func(ag account.Agreement) error { return w.EnableUser(ctx, by, mallory.User(), ag) }))
	})
}

// An organization that demands passkeys takes no code for what concerns it,
// from its members and from those who run its environment.
func TestAgreeingByCode(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx, sys := t.Context(), account.System("test")
		by := account.ByPerson(owner.Person)
		app := w.registerApp(t, owner)
		tenant := must(w.CreateOrganization(ctx, by, w.env, "Tenant", ""))(t)
		u := must(w.CreateUser(ctx, sys, account.NewUser{Environment: w.env, Organization: tenant.ID, Name: "Ada"}, none))(t)
		agree := func(r account.Raise) account.Agreement {
			w.advance(time.Minute)
			return must(w.Agree(ctx, owner.Person, r, "n", account.Proof{TOTP: app.code(t, w.now())}))(t)
		}
		promote := func(r account.Role, ag account.Agreement) error { return w.SetRole(ctx, by, tenant.ID, u.ID, r, ag) }
		check(t, promote(account.RoleApprover, agree(asked(t, promote(account.RoleApprover, account.Asking())))))
		yes := true
		tenant = must(w.Organization(ctx, w.env, tenant.ID))(t)
		_ = must(w.UpdateOrganization(ctx, sys, tenant.ID, tenant.Version, account.OrganizationChange{RequirePasskey: &yes}, none))(t)
		wantCode(t, promote(account.RoleAdmin, agree(asked(t, promote(account.RoleAdmin, account.Asking())))), "passkey_required")
		check(t, owner.Do(t, func(ag account.Agreement) error { return promote(account.RoleAdmin, ag) }))

		own := org(owner.Person).Organization
		have := must(w.Organization(ctx, w.env, own))(t)
		_ = must(w.UpdateOrganization(ctx, sys, own, have.Version, account.OrganizationChange{RequirePasskey: &yes}, none))(t)
		owner.Reload(t)
		w.advance(time.Minute)
		_, err := w.Agree(ctx, owner.Person, account.Raise{Action: "x", To: "y"}, "m", account.Proof{TOTP: app.code(t, w.now())})
		wantCode(t, err, "passkey_required")
		for _, nonce := range []string{"", strings.Repeat("n", 65)} {
			_, err := w.Agree(ctx, owner.Person, account.Raise{Action: "x"}, nonce, account.Proof{TOTP: "123456"})
			wantCode(t, err, "invalid_nonce")
		}
	})
}

// A role raises if it brings any permission that the old one lacks, and taking
// an owner's raises the rest.
func TestWhatRaisesARole(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		o, by := org(owner.Person).Organization, account.ByPerson(owner.Person)
		u := must(w.CreateUser(ctx, account.System("test"), account.NewUser{Environment: w.env, Organization: o, Name: "Ada"}, none))(t)
		roles := []account.Role{account.RoleOwner, account.RoleAdmin, account.RoleApprover, account.RoleMember, account.RoleAuditor}
		quick := []string{"admin approver", "admin member", "admin auditor", "approver member"}
		for _, old := range roles {
			for _, r := range roles {
				check(t, w.SetRole(ctx, account.System("test"), o, u.ID, old, none))
				want := "proof_required"
				if old == r || slices.Contains(quick, string(old)+" "+string(r)) {
					want = ""
				}
				got := ""
				if err := w.SetRole(ctx, by, o, u.ID, r, none); err != nil {
					got = fault.Of(err).Code
				}
				if got != want {
					t.Errorf("%s to %s: got %q, want %q", old, r, got, want)
				}
			}
		}
	})
}

// The list that raises are computed from has every permission there is.
func TestPermissionsAreComplete(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(gotoken.NewFileSet(), "may.go", nil, 0)
	check(t, err)
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Type == nil {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); ok && name.Name == "Permission" {
			lit := spec.Values[0].(*ast.BasicLit)
			p, err := strconv.Unquote(lit.Value)
			check(t, err)
			if !slices.Contains(account.Permissions(), account.Permission(p)) {
				t.Errorf("permissions() lacks %s", spec.Names[0].Name)
			}
		}
		return true
	})
	if len(account.Permissions()) < 20 {
		t.Errorf("got %d permissions", len(account.Permissions()))
	}
}

// A row of authority is not written by a change that was not weighed, or
// weighed for another.
func TestNothingIsWrittenUnweighed(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		check(t, w.db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			weighed, err := w.Weigh(ctx, tx, account.System("test"), account.Raise{Object: "a"}, true, none)
			if err != nil {
				return err
			}
			if weighed.For("a") != nil || weighed.For("b") == nil || weighed.For("") == nil || (account.Weighed{}).For("") == nil || (account.Weighed{}).For("a") == nil {
				t.Error("a change passes that was not weighed")
			}
			_, err = w.Weigh(ctx, tx, account.Actor{}, account.Raise{}, false, none)
			wantCode(t, err, "unauthenticated")
			return nil
		}))
		before := w.state(t)
		for name, err := range w.WriteUnweighed(t.Context(), org(owner.Person).Organization, owner.User()) {
			if err == nil || fault.KindOf(err) != fault.Internal {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if diff := cmp.Diff(before, w.state(t)); diff != "" {
			t.Errorf("something was written:\n%s", diff)
		}
	})
}
