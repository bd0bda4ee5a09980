package account_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
)

// The whole table of rights: o owner, a admin, p approver, m member, r auditor;
// then the scope that gives it to an application.
const rights = `
view                 oapmr agents:read
use_own              oapm  -
view_members         oapmr users:read
manage_members       oa    users:write
vouch_users          -     users:vouch
manage_agents        oa    agents:write
approve_sessions     oap   -
view_connections     oapmr connections:read
manage_connections   oa    connections:write
vend_connections     -     connections:vend
view_sessions        oapr  sessions:read
revoke               oap   sessions:revoke
read_audit           oar   audit:read
view_secrets         oar   vault:read
reveal_secrets       o     vault:read
write_secrets        oa    vault:write
delete_secrets       oa    vault:delete
create_keys          oa    -
manage_providers     oa    providers:write
manage_tenants       oa    organizations:write
manage_organization  oa    organizations:write
view_keys            oar   keys:read
manage_root_keys     oa    keys:write
manage_webhooks      oa    webhooks:write
fly                  -     -
`

func TestRights(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		ctx := t.Context()
		o := org(owner.Person).Organization
		people := map[string]account.Person{"o": owner.Person}
		for letter, r := range map[string]account.Role{"a": account.RoleAdmin, "p": account.RoleApprover, "m": account.RoleMember, "r": account.RoleAuditor} {
			people[letter] = w.join(t, owner, r, letter+"@example.com").Person
		}
		keys := map[string]account.Key{}
		for _, s := range account.Scopes() {
			_, tok, err := w.IssueKey(ctx, account.NewKey{Environment: w.env, Organization: o, Name: s, Scopes: []string{s}})
			check(t, err)
			keys[s] = must(w.AuthenticateKey(ctx, tok))(t)
		}
		var got strings.Builder
		for line := range strings.Lines(strings.TrimSpace(rights) + "\n") {
			p := account.Permission(strings.Fields(line)[0])
			roles, scope := "", "-"
			for _, letter := range []string{"o", "a", "p", "m", "r"} {
				by := account.ByPerson(people[letter])
				// These people's organization runs the environment: its owners,
				// admins and auditors have there what they have in it. Its
				// members and approvers do not, or they would see every tenant.
				runs := letter == "o" || letter == "a" || letter == "r"
				switch here, everywhere := by.May(o, p), by.May("", p); {
				case (here == nil && runs) != (everywhere == nil):
					t.Errorf("%s, %s: %v in the organization, %v in the environment", letter, p, here, everywhere)
				case here == nil:
					roles += letter
				case !fault.Is(here, "not_allowed"):
					t.Errorf("%s, %s: got %v", letter, p, here)
				}
			}
			for _, s := range account.Scopes() {
				by := account.ByKey(keys[s])
				if by.May(o, p) == nil {
					scope = s
				}
				if err := by.May("", p); err == nil {
					t.Errorf("a key of one organization has %s in the whole environment", p)
				}
			}
			if roles == "" {
				roles = "-"
			}
			fmt.Fprintf(&got, "%-20s %-5s %s\n", p, roles, scope)
			if err := (account.Actor{}).May(o, p); err == nil {
				t.Errorf("nobody has %s", p)
			}
			if err := account.ByPerson(account.Person{}).May(o, p); err == nil {
				t.Errorf("the zero Person has %s", p)
			}
			if err := account.ByKey(account.Key{}).May("", p); err == nil {
				t.Errorf("the zero Key has %s", p)
			}
			check(t, account.System("test").May(o, p))
		}
		if diff := cmp.Diff(strings.TrimLeft(rights, "\n"), got.String()); diff != "" {
			t.Errorf("rights (-want +got):\n%s", diff)
		}
	})
}

func TestActorNamesItself(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, owner *accounttest.Human) {
		by := account.ByPerson(owner.Person)
		if a := by.Audit(); a.Kind != "user" || a.ID != string(owner.User()) {
			t.Errorf("got %+v", a)
		}
		if by.Environment() != w.env || by.Address() != accounttest.Address || by.User() != owner.User() || by.From("::1").Address() != "::1" {
			t.Errorf("got %+v", by)
		}
		k, tok, err := w.IssueKey(t.Context(), account.NewKey{Environment: w.env, Name: "app", Scopes: []string{account.ScopeAuditRead}})
		check(t, err)
		app := account.ByKey(must(w.AuthenticateKey(t.Context(), tok))(t))
		if a := app.Audit(); a.Kind != "api_key" || a.ID != string(k.ID) || app.Name() != "app" || app.User() != "" {
			t.Errorf("got %+v", a)
		}
		if app.In(id.NewEnvironment()).Environment() != w.env {
			t.Error("a key left its environment")
		}
		if a := account.System("console").Audit(); a.Kind != "system" || a.ID != "console" {
			t.Errorf("got %+v", a)
		}
		if _, ok := app.Person(); ok {
			t.Error("a key is a person")
		}
	})
}
