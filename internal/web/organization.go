package web

import (
	"cmp"
	"context"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
)

func (s *Server) organization(v *visit) (answer, error) {
	p, err := s.organizationPage(v)
	if err != nil {
		return nil, err
	}
	return show(p), nil
}

// organizationPage is also the form that a change of members came from, as it
// was filled in.
func (s *Server) organizationPage(v *visit) (*OrganizationPage, error) {
	org, err := s.people.Organization(v.ctx(), v.here.Environment, v.here.Organization)
	if err != nil {
		return nil, err
	}
	members, next, err := s.people.Members(v.ctx(), v.actor(), org.ID, account.List{After: v.form("after")})
	if err != nil {
		return nil, err
	}
	p := &OrganizationPage{Frame: Frame{Title: "Organization", Section: "organization"}, Role: string(v.here.Role), Runs: v.here.Runs, Name: v.form("name"), Email: v.form("email"),
		Roles: roleOptions(cmp.Or(account.Role(v.form("role")), account.RoleMember)), CanManage: v.may(account.ManageMembers),
		CanStop: v.may(account.Revoke), CanSet: v.here.Role == account.RoleOwner, RequirePasskey: org.RequirePasskey, NoVending: org.NoVending, Version: org.Version}
	for _, m := range members {
		p.Members = append(p.Members, MemberRow{ID: m.ID, Name: m.Name, Email: m.Email, Role: string(m.Role), Roles: roleOptions(m.Role), You: m.ID == v.person.User(), Disabled: !m.DisabledAt.IsZero()})
	}
	if next != "" {
		p.Next = v.query("/ui/organization", "after", next)
	}
	return p, s.tenants(v, p)
}

// tenants adds the environment's other organizations, for those who run it.
func (s *Server) tenants(v *visit, p *OrganizationPage) error {
	if v.actor().May("", account.ManageTenants) != nil {
		return nil
	}
	list, next, err := s.people.Organizations(v.ctx(), v.actor(), v.here.Environment, account.List{After: v.form("tenants"), Limit: 50})
	if err != nil {
		return err
	}
	p.Operates = true
	for _, o := range list {
		if o.ID != v.here.Organization {
			p.Tenants = append(p.Tenants, Place{ID: string(o.ID), Name: o.Name, Environment: o.ExternalID})
		}
	}
	if next != "" {
		p.MoreTenants = v.query("/ui/organization", "tenants", next)
	}
	return nil
}

func roleOptions(chosen account.Role) []Option {
	var out []Option
	for _, r := range []struct {
		role  account.Role
		label string
	}{{account.RoleOwner, "owner: everything"}, {account.RoleAdmin, "admin: manages all but owners"}, {account.RoleApprover, "approver: decides for the organization"},
		{account.RoleMember, "member: own agents and accounts"}, {account.RoleAuditor, "auditor: reads only"}} {
		out = append(out, Option{Value: string(r.role), Label: r.label, Chosen: r.role == chosen})
	}
	return out
}

// byMembers is the form of every change of members.
func (s *Server) byMembers(v *visit) func() (page, error) {
	return func() (page, error) { return s.organizationPage(v) }
}

// memberAdd makes a user with a role, and their first sign-in link.
func (s *Server) memberAdd(v *visit) (change, error) {
	n := account.NewUser{Environment: v.here.Environment, Email: v.form("email"), Name: v.form("name"), ExternalID: v.form("external_id"),
		Organization: v.here.Organization, Role: account.Role(v.form("role"))}
	back := v.query("/ui/organization")
	return change{back: back, form: s.byMembers(v),
		try: func(ag account.Agreement) (answer, error) {
			u, link, err := s.people.InviteUser(v.ctx(), v.person, n, ag)
			if err != nil {
				return nil, err
			}
			return s.invited(u, link, back), nil
		},
		ask: func(r account.Raise) (page, error) { return s.newUserPage(v, r), nil }}, nil
}

func (s *Server) invited(u account.User, link secret.Value, back string) answer {
	return show(&OncePage{Frame: Frame{Title: "Invite", Section: "organization", Narrow: true}, Word: "Made", Sentence: "Give this link to " + oneLine(u.Name) + ".",
		Values: []Fact{{Name: "Sign-in link", Value: reveal(link)}}, Back: back})
}

func member(v *visit) (id.User, error) { return parseID(id.User(v.r.PathValue("id"))) }

// memberRole gives a member another role, or makes a user who is none one.
func (s *Server) memberRole(v *visit) (change, error) {
	u, err := member(v)
	if err != nil {
		return change{}, err
	}
	role, back := account.Role(v.form("role")), v.query("/ui/organization")
	return change{back: back, form: s.byMembers(v),
		try: func(ag account.Agreement) (answer, error) {
			err := s.people.SetRole(v.ctx(), v.actor(), v.here.Organization, u, role, ag)
			if fault.Is(err, "not_found") {
				err = s.people.AddMember(v.ctx(), v.actor(), v.here.Organization, u, role, ag)
			}
			return goTo(v.query("/ui/organization", "done", "role")), err
		},
		ask: func(r account.Raise) (page, error) { return s.placePage(v, r), nil }}, nil
}

func (s *Server) memberRemove(v *visit) (change, error) {
	u, err := member(v)
	if err != nil {
		return change{}, err
	}
	return change{back: v.query("/ui/organization"), form: s.byMembers(v),
		try: func(ag account.Agreement) (answer, error) {
			return goTo(v.query("/ui/organization", "done", "removed")), s.people.RemoveMember(v.ctx(), v.actor(), v.here.Organization, u, ag)
		},
		ask: func(r account.Raise) (page, error) { return s.placePage(v, r), nil }}, nil
}

// memberRevoke ends what acts for a user in this organization.
func (s *Server) memberRevoke(v *visit) (answer, error) {
	u, err := member(v)
	if err != nil {
		return nil, err
	}
	return s.revoke(v, session.Aim{User: u, Organization: v.here.Organization}, v.query("/ui/organization"), func() (string, error) {
		return s.names(v, v.here.Environment).user(u), nil
	})
}

// invite makes a link for a member who cannot sign in yet.
func (s *Server) invite(v *visit) (change, error) {
	uid, err := member(v)
	if err != nil {
		return change{}, err
	}
	if ok, err := s.people.Active(v.ctx(), v.here.Environment, v.here.Organization, uid); err != nil || !ok || !v.may(account.ManageMembers) {
		return change{}, fault.New(fault.NotFound, "not_found", "No such member.").WithCause(err)
	}
	back := v.query("/ui/organization")
	return change{back: back, form: s.byMembers(v),
		try: func(ag account.Agreement) (answer, error) {
			link, err := s.people.Invite(v.ctx(), v.person, uid, ag)
			if err != nil {
				return nil, err
			}
			u, err := s.people.User(v.ctx(), v.here.Environment, uid)
			return s.invited(u, link, back), err
		},
		ask: func(r account.Raise) (page, error) { return s.invitePage(v, r), nil }}, nil
}

func (s *Server) userDisable(v *visit) (change, error) {
	return s.userAble(v, "user_disabled", s.people.DisableUser)
}

func (s *Server) userEnable(v *visit) (change, error) {
	return s.userAble(v, "user_enabled", s.people.EnableUser)
}

// userAble shuts a user out of all there is, or lets them in again.
func (s *Server) userAble(v *visit, done string, set func(context.Context, account.Actor, id.User, account.Agreement) error) (change, error) {
	u, err := member(v)
	if err != nil {
		return change{}, err
	}
	return change{back: v.query("/ui/organization"),
		try: func(ag account.Agreement) (answer, error) {
			err := v.anywhere(func(by account.Actor) (id.Organization, error) { return v.here.Organization, set(v.ctx(), by, u, ag) })
			return goTo(v.query("/ui/organization", "done", done)), err
		},
		ask: func(r account.Raise) (page, error) { return s.ablePage(v, r), nil }}, nil
}

// organizationSettings changes what approving needs, and whether credentials are
// handed to applications.
func (s *Server) organizationSettings(v *visit) (change, error) {
	version := v.version()
	demand, still := v.form("require_passkey") == "yes", v.form("no_vending") == "yes"
	return change{back: v.query("/ui/organization"), form: s.byMembers(v),
		try: func(ag account.Agreement) (answer, error) {
			_, err := s.people.UpdateOrganization(v.ctx(), v.actor(), v.here.Organization, version, account.OrganizationChange{RequirePasskey: &demand, NoVending: &still}, ag)
			return goTo(v.query("/ui/organization", "done", "saved")), err
		},
		ask: func(r account.Raise) (page, error) { return s.settingsPage(v, r), nil }}, nil
}

// environmentNew makes an environment, whose owner is the person.
func (s *Server) environmentNew(v *visit) (change, error) {
	by := v.actor()
	for _, m := range v.person.Organizations() {
		if at := v.actorIn(m.Environment); by.May("", account.ManageTenants) != nil && at.May("", account.ManageTenants) == nil {
			by = at
		}
	}
	name := v.form("name")
	return change{back: v.query("/ui/organization"), form: s.byMembers(v),
		try: func(ag account.Agreement) (answer, error) {
			e, err := s.people.CreateEnvironment(v.ctx(), by, name, ag)
			return goTo("/ui/organization?org=" + string(e.Operator) + "&done=environment"), err
		},
		ask: func(r account.Raise) (page, error) { return s.environmentPage(v, r), nil }}, nil
}

func (s *Server) organizationRevoke(v *visit) (answer, error) {
	return s.revoke(v, session.Aim{Organization: v.here.Organization}, v.query("/ui/organization"), func() (string, error) {
		return v.here.OrganizationName, nil
	})
}
