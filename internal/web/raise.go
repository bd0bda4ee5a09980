package web

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
)

// said makes the sentence of a ConfirmPage: plain words and names in turn.
func said(parts ...string) []string {
	for i := 1; i < len(parts); i += 2 {
		parts[i] = oneLine(parts[i])
	}
	return parts
}

// aRole says a role with its article.
func aRole(r account.Role) string {
	if r == account.RoleMember {
		return "a member"
	}
	return "an " + string(r)
}

// roleAllows is what people are told about a role when somebody gets it.
func roleAllows(r account.Role) string {
	return map[account.Role]string{
		account.RoleOwner:    "An owner may do everything here, make and remove other owners, and read secrets.",
		account.RoleAdmin:    "An admin manages people, agents, accounts and keys here: everything but owners.",
		account.RoleApprover: "An approver decides what agents may do with the organization's accounts.",
		account.RoleMember:   "A member has agents and accounts of their own here.",
		account.RoleAuditor:  "An auditor sees everything here, and changes nothing.",
	}[r]
}

func (s *Server) confirming(v *visit, title, section string, sentence []string, label string) *ConfirmPage {
	return &ConfirmPage{Frame: Frame{Title: title, Section: section, Narrow: true}, Eyebrow: title, Said: sentence, Label: label}
}

// who gives a user's name and the line that tells them from others of that name.
func (s *Server) who(v *visit, env id.Environment, user id.User) (name, line string) {
	u, err := s.people.User(v.ctx(), env, user)
	if err != nil {
		return string(user), ""
	}
	line = oneLine(u.Email)
	if line == "" {
		line = string(u.ID)
	}
	if user == v.person.User() {
		line += ", you yourself"
	}
	return u.Name, line
}

// placePage asks for a change of somebody's place in an organization.
func (s *Server) placePage(v *visit, r account.Raise) *ConfirmPage {
	name, line := s.who(v, r.Environment, id.User(r.Object))
	old, role, org := account.Role(r.From), account.Role(r.To), v.here.OrganizationName
	var p *ConfirmPage
	switch {
	case r.Action == "member.removed":
		p = s.confirming(v, "Remove an owner", "organization", said("", name, " leaves ", org, ", and is no longer ", "an owner", "."), "Remove them")
		p.Danger = true
		p.Lines = []string{line, "They are signed out, and what acts for them here ends."}
	case old == account.RoleOwner:
		p = s.confirming(v, "Change an owner's role", "organization", said("", name, " is no longer an owner of ", org, ", but ", aRole(role), "."), "Take the role")
		p.Danger = true
		p.Lines = []string{line, roleAllows(role)}
	default:
		p = s.confirming(v, "Give a role", "organization", said("", name, " becomes ", aRole(role), " of ", org, "."), "Give the role")
		p.Lines = []string{line, roleAllows(role)}
		if old != "" {
			p.Lines[0] = strings.TrimPrefix(line+". Until now "+aRole(old)+".", ". ")
		}
	}
	return p
}

// newUserPage asks for a new user, their role and their first link.
func (s *Server) newUserPage(v *visit, r account.Raise) *ConfirmPage {
	role := account.Role(r.To)
	p := s.confirming(v, "Add a person", "organization", said("", r.Facts["name"], " becomes ", aRole(role), " of ", v.here.OrganizationName, "."), "Add and make the link")
	if email := r.Facts["email"]; email != "" {
		p.Lines = append(p.Lines, oneLine(email))
	}
	p.Lines = append(p.Lines, roleAllows(role), "You get a sign-in link for them. It works once, for 15 minutes. Whoever opens it first becomes this person here, so give it to nobody else.")
	return p
}

// places says what a user may do where, as far as the viewer can read it.
func (s *Server) places(v *visit, r account.Raise) string {
	var parts []string
	for _, org := range slices.Sorted(maps.Keys(r.Facts)) {
		name := org
		if o, err := s.people.Organization(v.ctx(), r.Environment, id.Organization(org)); err == nil {
			name = oneLine(o.Name)
		}
		parts = append(parts, aRole(account.Role(r.Facts[org]))+" of "+name)
	}
	if len(parts) == 0 {
		return "They are a member of nothing."
	}
	return "They are " + andList(parts) + "."
}

func (s *Server) invitePage(v *visit, r account.Raise) *ConfirmPage {
	name, line := s.who(v, r.Environment, id.User(r.Object))
	p := s.confirming(v, "First sign-in", "organization", said("Make a sign-in link for ", name, "?"), "Make the link")
	p.Lines = []string{line, s.places(v, r), "The link works once, for 15 minutes. Whoever opens it first becomes this person here, so give it to nobody else."}
	return p
}

func (s *Server) ablePage(v *visit, r account.Raise) *ConfirmPage {
	name, line := s.who(v, r.Environment, id.User(r.Object))
	if r.Action == "user.disabled" {
		p := s.confirming(v, "Shut an owner out", "organization", said("", name, " can no longer sign in", " anywhere", "."), "Shut them out")
		p.Danger = true
		p.Lines = []string{line, "They own an organization. They are signed out, and what acts for them ends."}
		return p
	}
	p := s.confirming(v, "Let somebody in again", "organization", said("", name, " can sign in again."), "Let them in")
	p.Lines = []string{line, s.places(v, r)}
	return p
}

func (s *Server) settingsPage(v *visit, r account.Raise) *ConfirmPage {
	codes := strings.HasPrefix(r.To, "passkey or code") && !strings.HasPrefix(r.From, "passkey or code")
	vending := strings.HasSuffix(r.From, "no vending") && !strings.HasSuffix(r.To, "no vending")
	allowed, line := "codes of authenticator apps", "Until now approving takes a passkey here. A code can be read out to somebody; a passkey cannot."
	verb := " approve again."
	if vending {
		verb = " are handed to applications again."
		if allowed = "keys of its accounts"; codes {
			allowed, verb = "codes of authenticator apps", " approve again, and keys of its accounts are handed to applications again."
		}
	}
	p := s.confirming(v, "What guards it", "organization", said("In ", v.here.OrganizationName, ", ", allowed, verb), "Allow it")
	if codes {
		p.Lines = append(p.Lines, line)
	}
	if vending {
		p.Lines = append(p.Lines, "Whoever holds an API key with the scope for it then gets a credential itself, and uses it outside of any session.")
	}
	return p
}

func (s *Server) profilePage(_ *visit, r account.Raise) *ConfirmPage {
	to := r.To
	p := &ConfirmPage{Frame: Frame{Title: "Your e-mail address", Section: "account", Narrow: true}, Eyebrow: "Your e-mail address", Label: "Change it"}
	if p.Said = said("You will be known as ", to, "."); to == "" {
		p.Said = said("You will have ", "no e-mail address", " here.")
	}
	if r.From != "" {
		p.Lines = append(p.Lines, "Until now "+oneLine(r.From)+".")
	}
	p.Lines = append(p.Lines, "You are found by it when you sign in with a code or are recovered, and others tell by it who you are.")
	return p
}

func (s *Server) environmentPage(v *visit, r account.Raise) *ConfirmPage {
	p := s.confirming(v, "Make an environment", "organization", said("You become the owner of a new environment, ", r.To, "."), "Make it")
	p.Lines = []string{"Nothing in it is shared with other environments: not people, agents, accounts or keys. You stay its owner whatever becomes of you elsewhere."}
	return p
}

// ceilingPage says how much more an agent may be granted.
func (s *Server) ceilingPage(v *visit, label string, r account.Raise) *ConfirmPage {
	var from, to policy.Ceiling
	_ = json.Unmarshal([]byte(r.From), &from) // as package agent writes them
	_ = json.Unmarshal([]byte(r.To), &to)
	p := s.confirming(v, "Raise an agent's limit", "agents", said("", label, " may be granted ", "more", ": to "+granting(to)+"."), "Raise the limit")
	p.Lines = []string{"Until now: to " + granting(from) + ".", "It still has to ask each time, and somebody has to approve."}
	return p
}

// granting says what a ceiling leaves room for.
func granting(c policy.Ceiling) string {
	effects := c.Effects
	if len(effects) == 0 {
		effects = policy.Effects()
	}
	if len(c.Providers) == 0 {
		return verbs(effects) + ", at any provider"
	}
	return verbs(effects) + ", at " + oneLine(andList(c.Providers))
}

func (s *Server) agentKeysPage(v *visit, label string, r account.Raise) *ConfirmPage {
	p := s.confirming(v, "Change an agent's keys", "agents", said("", label, " will prove itself with ", r.To, "."), "Use these keys")
	p.Lines = []string{"Until now: with " + oneLine(r.From) + ".", "Whoever has the private keys is this agent. The tokens that it has end."}
	return p
}

func (s *Server) agentEnablePage(v *visit, label string) *ConfirmPage {
	p := s.confirming(v, "Enable an agent", "agents", said("", label, " may sign in and ask for access again."), "Enable it")
	p.Lines = []string{"Its old tokens and sessions stay ended."}
	return p
}
