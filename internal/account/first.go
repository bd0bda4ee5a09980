package account

import (
	"context"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// InviteFirstOwner makes the first owner of an organization and their sign-in
// link; until they have used one, calling it again with the same e-mail makes a
// new link. It is how a product's back end hands a customer the organization
// that it made for them. It takes an application's key for the whole
// environment, with the scopes for organizations and for users both: what such
// a key makes it could fill with anything, and an organization with an owner is
// out of its reach. Those who run the environment are told (see Notices).
func (s *Service) InviteFirstOwner(ctx context.Context, by Actor, org id.Organization, n NewUser) (u User, linkURL secret.Value, err error) {
	none := func(err error) (User, secret.Value, error) { return User{}, secret.Value{}, err }
	if _, person := by.Person(); person {
		return none(fault.New(fault.Denied, "api_key_required", "A person invites an owner with their own agreement."))
	}
	if err := by.May("", ManageTenants); err != nil {
		return none(err)
	}
	o, by, err := s.reach(ctx, by, org, ManageMembers)
	if err != nil {
		return none(err)
	}
	n.Environment, n.Organization, n.Role = o.Environment, o.ID, RoleOwner
	if n, err = n.check(); err != nil {
		return none(err)
	}
	if n.Email == "" {
		return none(fault.New(fault.Invalid, "invalid_email", "An owner who is invited has an e-mail address."))
	}
	err = s.changeMembers(ctx, "invite a first owner", o, func(ctx context.Context, tx *sqldb.Tx) error {
		w, err := s.Weigh(ctx, tx, by, Raise{}, true, Agreement{})
		if err != nil {
			return err
		}
		var invited bool
		if u, invited, err = s.invitedOwner(ctx, tx, o, n.Email); err != nil {
			return err
		}
		if !invited {
			u = User{ID: id.NewUser(), Environment: o.Environment, Email: n.Email, Name: n.Name, ExternalID: n.ExternalID, CreatedAt: s.now(), Version: 1}
			if _, err := s.addUser(ctx, tx, by, w, u, n, false); err != nil {
				return err
			}
		}
		linkURL, err = s.addLink(ctx, tx, by, w.made(string(u.ID)), u, NoticeFirstOwner)
		return err
	})
	if sqldb.IsUnique(err) {
		return none(userTaken())
	}
	if err != nil {
		return none(err)
	}
	return u, linkURL, nil
}

// invitedOwner gives the owner with this e-mail who was invited, has not signed
// in yet, and is a member of nothing else, where the link would count too. It
// refuses once o has any other owner.
func (s *Service) invitedOwner(ctx context.Context, tx *sqldb.Tx, o Organization, email string) (User, bool, error) {
	list, err := selectOwnersOf(ctx, tx, o.ID)
	if err != nil || len(list) == 0 {
		return User{}, false, err
	}
	taken := fault.New(fault.Conflict, "has_owner", "The organization has an owner, or has invited another.").
		WithHint("Further owners are made by an owner, in the web UI.")
	if len(list) > 1 || list[0].Email != email {
		return User{}, false, taken
	}
	places, err := selectPlaces(ctx, tx, list[0].ID)
	if err != nil {
		return User{}, false, err
	}
	n, err := s.factors(ctx, tx, list[0].ID)
	if err != nil {
		return User{}, false, err
	}
	if n.any() || len(places) != 1 {
		return User{}, false, taken
	}
	return list[0], true, nil
}
