package web

import (
	"crypto/rand"
	"strconv"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/session"
)

func (s *Server) organization(v *visit) (answer, error) {
	org, err := s.people.Organization(v.ctx(), v.here.Environment, v.here.Organization)
	if err != nil {
		return nil, err
	}
	members, next, err := s.people.Members(v.ctx(), v.actor(), org.ID, account.List{After: v.form("after")})
	if err != nil {
		return nil, err
	}
	p := &OrganizationPage{Frame: Frame{Title: "Organization", Section: "organization"}, Role: string(v.here.Role), Roles: roleOptions(account.RoleMember), CanManage: v.may(account.ManageMembers),
		CanStop: v.may(account.Revoke), CanSet: v.here.Role == account.RoleOwner, RequirePasskey: org.RequirePasskey, Version: org.Version}
	for _, m := range members {
		p.Members = append(p.Members, MemberRow{ID: m.ID, Name: m.Name, Email: m.Email, Role: string(m.Role), Roles: roleOptions(m.Role), You: m.ID == v.person.User(), Disabled: !m.DisabledAt.IsZero()})
	}
	if next != "" {
		p.Next = v.query("/ui/organization", "after", next)
	}
	return show(p), nil
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

func (s *Server) memberAdd(v *visit) (answer, error) {
	u, err := s.people.CreateUser(v.ctx(), v.actor(), account.NewUser{Environment: v.here.Environment, Email: v.form("email"), Name: v.form("name"),
		Organization: v.here.Organization, Role: account.Role(v.form("role"))})
	if err != nil {
		return nil, err
	}
	return goTo(v.query("/ui/organization/members/" + string(u.ID) + "/invite")), nil
}

func member(v *visit) (id.User, error) { return parseID(id.User(v.r.PathValue("id"))) }

func (s *Server) memberRole(v *visit) (answer, error) {
	u, err := member(v)
	if err != nil {
		return nil, err
	}
	if err := s.people.SetRole(v.ctx(), v.actor(), v.here.Organization, u, account.Role(v.form("role"))); err != nil {
		return nil, err
	}
	return goTo(v.query("/ui/organization", "done", "role")), nil
}

func (s *Server) memberRemove(v *visit) (answer, error) {
	u, err := member(v)
	if err != nil {
		return nil, err
	}
	if err := s.people.RemoveMember(v.ctx(), v.actor(), v.here.Organization, u); err != nil {
		return nil, err
	}
	return goTo(v.query("/ui/organization", "done", "removed")), nil
}

// memberRevoke ends what acts for a user in this organization.
func (s *Server) memberRevoke(v *visit) (answer, error) {
	u, err := member(v)
	if err != nil {
		return nil, err
	}
	return s.revoke(v, session.Aim{User: u, Organization: v.here.Organization}, s.names(v, v.here.Environment).user(u), v.query("/ui/organization"))
}

func (s *Server) invite(v *visit) (answer, error) {
	u, err := s.invited(v)
	if err != nil {
		return nil, err
	}
	return show(s.invitePage(v, u)), nil
}

func (s *Server) invited(v *visit) (account.User, error) {
	uid, err := member(v)
	if err != nil {
		return account.User{}, err
	}
	if err := v.actor().May(v.here.Organization, account.ManageMembers); err != nil {
		return account.User{}, err
	}
	if ok, err := s.people.Active(v.ctx(), v.here.Environment, v.here.Organization, uid); err != nil || !ok {
		return account.User{}, fault.New(fault.NotFound, "not_found", "No such member.").WithCause(err)
	}
	return s.people.User(v.ctx(), v.here.Environment, uid)
}

func (s *Server) invitePage(v *visit, u account.User) *ConfirmPage {
	to := "/ui/organization/members/" + string(u.ID) + "/invite"
	return &ConfirmPage{Frame: Frame{Title: "Invite", Section: "organization", Narrow: true}, Eyebrow: "First sign-in", Sentence: "Make a sign-in link for " + oneLine(u.Name) + "?",
		Lines:  []string{"It works once, for 15 minutes. Whoever opens it first becomes this person here, so give it to nobody else."},
		Action: v.query(to), Begin: v.query(to + "/challenge"), Label: "Make the link", Nonce: rand.Text(), Back: v.query("/ui/organization"), TOTP: s.codeAllowed(v)}
}

func (s *Server) inviteChallenge(v *visit) (answer, error) {
	u, err := s.invited(v)
	if err != nil {
		return nil, err
	}
	return s.challenge(v, s.people.InviteDigest(v.person, u.ID, v.form("nonce")))
}

func (s *Server) inviteMake(v *visit) (answer, error) {
	u, err := s.invited(v)
	if err != nil {
		return nil, err
	}
	link, err := s.people.Invite(v.ctx(), v.person, u.ID, v.form("nonce"), v.proof())
	if err != nil {
		return again(s.invitePage(v, u), err)
	}
	return show(&OncePage{Frame: Frame{Title: "Invite", Section: "organization", Narrow: true}, Word: "Made", Sentence: "Give this link to " + oneLine(u.Name) + ".",
		Values: []Fact{{Name: "Sign-in link", Value: reveal(link)}}, Back: v.query("/ui/organization")}), nil
}

func (s *Server) organizationSettings(v *visit) (answer, error) {
	version, _ := strconv.ParseInt(v.form("version"), 10, 64)
	demand := v.form("require_passkey") == "yes"
	_, err := s.people.UpdateOrganization(v.ctx(), v.actor(), v.here.Organization, version, account.OrganizationChange{RequirePasskey: &demand})
	if err != nil {
		return nil, err
	}
	return goTo(v.query("/ui/organization", "done", "saved")), nil
}

func (s *Server) organizationRevoke(v *visit) (answer, error) {
	return s.revoke(v, session.Aim{Organization: v.here.Organization}, v.here.OrganizationName, v.query("/ui/organization"))
}
