package integration

import (
	"context"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
)

// Holder is exactly who owns connections: a user in an organization, or, without
// a user, the organization itself.
type Holder struct {
	Organization id.Organization
	User         id.User
}

// Names is how a product names whom it means: by our ids, or by its own names
// for them, which are our external ids.
type Names struct {
	User, Organization string
}

// Subject is who was named.
type Subject struct {
	User         id.User         // empty: nobody was named
	Organization id.Organization // empty: unknown, and so without any connection
	unknown      bool            // the user is not there yet
}

// Holder is whose connections are meant.
func (s Subject) Holder(o Ownership) Holder {
	if o == Organizations {
		return Holder{Organization: s.Organization}
	}
	return Holder{s.Organization, s.User}
}

// known reports whether the subject can own anything.
func (s Subject) known() bool { return s.Organization != "" && !s.unknown }

// who finds whom the application names, for something that changes nothing. A
// user or organization that it could make just in time, and has not, owns nothing
// yet; to others it is absent. A user who is named without an organization has one
// of their own, which nobody else is in: what different users connect is never in
// one tenant, unless the product says so.
func (s *Service) who(ctx context.Context, by account.Actor, n Names) (Subject, error) {
	return s.resolve(ctx, by, n, false)
}

// whoever is who, and makes what is not there.
func (s *Service) whoever(ctx context.Context, by account.Actor, n Names) (Subject, error) {
	return s.resolve(ctx, by, n, true)
}

func noUser() *fault.Error {
	return fault.New(fault.NotFound, "user_not_found", "There is no such user.").
		WithHint("Make the user first, or use a key with the scope " + account.ScopeUsersWrite + ", for which users are made just in time.")
}

func noOrganization() *fault.Error {
	return fault.New(fault.NotFound, "organization_not_found", "There is no such organization.").
		WithHint("Name one with organization_id, or use a key of the whole environment with the scope " + account.ScopeOrganizationsWrite + ", for which organizations are made just in time.")
}

func (s *Service) resolve(ctx context.Context, by account.Actor, n Names, create bool) (Subject, error) {
	var sub Subject
	if n.User == "" && n.Organization == "" {
		return sub, fault.New(fault.Invalid, "user_required", "user_id is missing.")
	}
	if n.User != "" {
		u, ok, err := s.user(ctx, by, n.User, create)
		if err != nil {
			return sub, err
		}
		sub.User, sub.unknown = u, !ok
	}
	var err error
	switch {
	case n.Organization != "":
		sub.Organization, err = s.organization(ctx, by, n.Organization, n.Organization, create)
	case by.Organization() != "":
		sub.Organization = by.Organization()
	case sub.User != "":
		sub.Organization, err = s.organization(ctx, by, personal(sub.User), n.User, create)
	}
	if err != nil {
		return Subject{}, err
	}
	if sub.Organization == "" || sub.User == "" {
		return sub, nil
	}
	// What belongs to another organization looks absent to a key of one.
	if by.Organization() != "" && sub.Organization != by.Organization() {
		return Subject{}, noOrganization()
	}
	return sub, s.member(ctx, by, &sub, create)
}

// personal is the external id of the organization of one user alone.
func personal(u id.User) string { return "personal/" + string(u) }

// here is the user as the actor sees them: to a key of one organization only its
// active members are there, so that it does not learn who else has an account.
func (s *Service) here(ctx context.Context, by account.Actor, u account.User, err error) (account.User, error) {
	if err != nil || by.Organization() == "" {
		return u, err
	}
	if in, err := s.cfg.People.Active(ctx, by.Environment(), by.Organization(), u.ID); err != nil || !in {
		return account.User{}, orElse(err, noUser())
	}
	return u, nil
}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// user finds a user by our id or the product's. Not ok is one who could be made;
// nobody is made of a name that looks like our id.
func (s *Service) user(ctx context.Context, by account.Actor, name string, create bool) (user id.User, ok bool, err error) {
	uid, err := parsed(id.User(""), name)
	ours := err == nil
	look := func() (account.User, error) {
		if ours {
			u, err := s.cfg.People.User(ctx, by.Environment(), uid)
			if u, err = s.here(ctx, by, u, err); fault.KindOf(err) != fault.NotFound {
				return u, err
			}
		}
		u, err := s.cfg.People.UserByExternalID(ctx, by.Environment(), name)
		return s.here(ctx, by, u, err)
	}
	u, err := look()
	if fault.KindOf(err) != fault.NotFound {
		return u.ID, err == nil, err
	}
	if ours || by.May(by.Organization(), account.ManageMembers) != nil {
		return "", false, noUser()
	}
	if !create {
		return "", false, nil
	}
	n := account.NewUser{Environment: by.Environment(), Name: name, ExternalID: name, Organization: by.Organization()}
	made, err := s.cfg.People.CreateUser(ctx, by, n, account.Agreement{})
	if fault.KindOf(err) == fault.Conflict { // somebody else was faster, or it is somebody of another organization
		if made, err = look(); fault.KindOf(err) == fault.NotFound {
			err = noUser()
		}
	}
	return made.ID, err == nil, err
}

// organization finds an organization by our id or the product's. None is one that
// could be made.
func (s *Service) organization(ctx context.Context, by account.Actor, name, label string, create bool) (id.Organization, error) {
	look := func() (account.Organization, error) {
		if oid, err := parsed(id.Organization(""), name); err == nil {
			if o, err := s.cfg.People.Organization(ctx, by.Environment(), oid); !fault.Is(err, "not_found") {
				return o, err
			}
		}
		return s.cfg.People.OrganizationByExternalID(ctx, by.Environment(), name)
	}
	o, err := look()
	if !fault.Is(err, "not_found") {
		if err == nil && by.Organization() != "" && o.ID != by.Organization() {
			return "", noOrganization()
		}
		return o.ID, err
	}
	if by.May("", account.ManageTenants) != nil {
		return "", noOrganization()
	}
	if !create {
		return "", nil
	}
	made, err := s.cfg.People.CreateOrganization(ctx, by, by.Environment(), label, name)
	if fault.KindOf(err) == fault.Conflict {
		made, err = look()
	}
	return made.ID, err
}

// member holds the user to being a member of the organization, or makes them one.
func (s *Service) member(ctx context.Context, by account.Actor, sub *Subject, create bool) error {
	in, err := s.cfg.People.Active(ctx, by.Environment(), sub.Organization, sub.User)
	if err != nil || in {
		return err
	}
	if !create || by.May(sub.Organization, account.ManageMembers) != nil {
		sub.unknown = true // no member owns anything there
		if create {
			return fault.New(fault.NotFound, "user_not_found", "The user is no active member of the organization.").
				WithHint("Add the user to it first, or use a key with the scope " + account.ScopeUsersWrite + ".")
		}
		return nil
	}
	err = s.cfg.People.AddMember(ctx, by, sub.Organization, sub.User, account.RoleMember, account.Agreement{})
	if fault.Is(err, "already_member") { // and disabled, or somebody else was faster
		if in, err = s.cfg.People.Active(ctx, by.Environment(), sub.Organization, sub.User); err == nil && !in {
			err = fault.New(fault.Denied, "user_disabled", "The user is disabled.")
		}
	}
	return err
}

// parsed is id.Parse for the kind of its first argument.
func parsed[K id.Kind](_ id.ID[K], s string) (id.ID[K], error) { return id.Parse[K](s) }
