package account

import (
	"context"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// NewUser says whom to make. Without an organization the user is nowhere a
// member, and only those who run the environment can make them.
type NewUser struct {
	Environment  id.Environment
	Email        string
	Name         string
	ExternalID   string
	Organization id.Organization
	Role         Role // empty: member
}

// CreateUser makes a user. They cannot sign in before somebody gives them a
// link; see Invite.
func (s *Service) CreateUser(ctx context.Context, by Actor, n NewUser) (User, error) {
	by, err := s.within(ctx, by, n.Environment)
	if err != nil {
		return User{}, err
	}
	u := User{ID: id.NewUser(), Environment: n.Environment, Name: n.Name, ExternalID: n.ExternalID, CreatedAt: s.now(), Version: 1}
	if n.Organization == "" {
		if err := by.May("", ManageMembers); err != nil {
			return User{}, err
		}
	} else {
		if n.Role == "" {
			n.Role = RoleMember
		}
		if by, err = s.mayGive(ctx, by, n.Environment, n.Organization, n.Role); err != nil {
			return User{}, err
		}
	}
	if u.Email, err = optionalEmail(n.Email); err != nil {
		return User{}, err
	}
	if err := checkName("A name", n.Name); err != nil {
		return User{}, err
	}
	if err := checkExternalID(n.ExternalID); err != nil {
		return User{}, err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := insertUser(ctx, tx, u); err != nil {
			return err
		}
		e := entry(by, u.Environment, n.Organization, "user.created", string(u.ID))
		if n.Organization != "" {
			if _, err := insertMember(ctx, tx, n.Organization, u.ID, n.Role, sqldb.Micros(u.CreatedAt)); err != nil {
				return err
			}
			e.Detail = map[string]string{"role": string(n.Role)}
		}
		s.audit.Append(tx, e)
		return nil
	})
	if sqldb.IsUnique(err) {
		return User{}, userTaken()
	}
	if err != nil {
		return User{}, sqldb.Wrap("create a user", err)
	}
	return u, nil
}

func userTaken() error {
	return fault.New(fault.Conflict, "user_exists", "Another user of the environment has this e-mail or external id.")
}

func optionalEmail(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	return CanonicalEmail(s)
}

// User looks a user up as seen from env: one made there or a member of one of
// its organizations. It is a look-up, not an authorization.
func (s *Service) User(ctx context.Context, env id.Environment, user id.User) (User, error) {
	u, err := selectUserIn(ctx, s.db.Reader(), env, user)
	if sqldb.NoRows(err) {
		return User{}, notFound("user")
	}
	return u, sqldb.Wrap("read a user", err)
}

// UserByExternalID is User by the product's own name for them.
func (s *Service) UserByExternalID(ctx context.Context, env id.Environment, external string) (User, error) {
	u, err := selectUserByExternalID(ctx, s.db.Reader(), env, external)
	if sqldb.NoRows(err) {
		return User{}, notFound("user")
	}
	return u, sqldb.Wrap("read a user", err)
}

// Users lists the users made in env, for those who run it.
func (s *Service) Users(ctx context.Context, by Actor, env id.Environment, l List) ([]User, string, error) {
	by, err := s.within(ctx, by, env)
	if err != nil {
		return nil, "", err
	}
	if err := by.May("", ViewMembers); err != nil {
		return nil, "", err
	}
	rows, err := selectUsers(ctx, s.db.Reader(), env, l.After, l.limit()+1)
	if err != nil {
		return nil, "", sqldb.Wrap("list users", err)
	}
	rows, next := page(rows, l.limit(), func(u User) string { return string(u.ID) })
	return rows, next, nil
}

// Members lists who is in org.
func (s *Service) Members(ctx context.Context, by Actor, org id.Organization, l List) ([]Member, string, error) {
	if _, _, err := s.reach(ctx, by, org, ViewMembers); err != nil {
		return nil, "", err
	}
	rows, err := selectMembers(ctx, s.db.Reader(), org, l.After, l.limit()+1)
	if err != nil {
		return nil, "", sqldb.Wrap("list members", err)
	}
	rows, next := page(rows, l.limit(), func(m Member) string { return string(m.ID) })
	return rows, next, nil
}

// Active reports whether user is enabled and a member of org, which is in env.
func (s *Service) Active(ctx context.Context, env id.Environment, org id.Organization, user id.User) (bool, error) {
	ok, err := selectActive(ctx, s.db.Reader(), env, org, user)
	return ok, sqldb.Wrap("read a membership", err)
}

// mayGive says whether by may give role r in org of env.
func (s *Service) mayGive(ctx context.Context, by Actor, env id.Environment, org id.Organization, r Role) (Actor, error) {
	if _, err := ParseRole(string(r)); err != nil {
		return Actor{}, err
	}
	o, by, err := s.reach(ctx, by, org, ManageMembers)
	if err != nil {
		return Actor{}, err
	}
	if o.Environment != env {
		return Actor{}, notFound("organization")
	}
	return by, mayTouch(by, o, r)
}

// mayTouch says whether by, who manages the members of o, may give or take role
// r. Applications make nobody an owner or admin: what those may do goes beyond
// any scope.
func mayTouch(by Actor, o Organization, r Role) error {
	if by.kind == "api_key" && (r == RoleOwner || r == RoleAdmin) {
		return fault.New(fault.Denied, "person_required", "An API key cannot make, change or remove owners and admins.").
			WithHint("An owner does this in the web UI.")
	}
	if r == RoleOwner && !by.ownerOf(o) {
		return fault.New(fault.Denied, "not_allowed", "Only an owner makes, changes or removes owners.")
	}
	return nil
}

// AddMember gives a user who exists a place in org. The user must be the
// actor's to see: of the actor's environment if they run it, else a member of
// an organization that the actor manages.
func (s *Service) AddMember(ctx context.Context, by Actor, org id.Organization, user id.User, r Role) error {
	o, by, err := s.reach(ctx, by, org, ManageMembers)
	if err != nil {
		return err
	}
	if _, err := ParseRole(string(r)); err != nil {
		return err
	}
	if err := mayTouch(by, o, r); err != nil {
		return err
	}
	if _, err := s.visible(ctx, by, user); err != nil {
		return err
	}
	return s.changeMembers(ctx, "add a member", o, func(ctx context.Context, tx *sqldb.Tx) error {
		ok, err := insertMember(ctx, tx, org, user, r, sqldb.Micros(s.now()))
		if err != nil {
			return err
		}
		if !ok {
			return fault.New(fault.Conflict, "already_member", "The user is a member already.").WithHint("Change the role instead.")
		}
		s.memberEntry(tx, by, o, user, "member.added", map[string]string{"role": string(r)})
		return nil
	})
}

// visible gives a user that the actor may name.
func (s *Service) visible(ctx context.Context, by Actor, user id.User) (User, error) {
	u, err := selectUser(ctx, s.db.Reader(), user)
	if sqldb.NoRows(err) {
		return User{}, notFound("user")
	}
	if err != nil {
		return User{}, sqldb.Wrap("read a user", err)
	}
	if by.IsSystem() || by.Environment() == u.Environment && by.May("", ManageMembers) == nil {
		return u, nil
	}
	places, err := selectPlaces(ctx, s.db.Reader(), user)
	if err != nil {
		return User{}, sqldb.Wrap("read memberships", err)
	}
	for _, m := range places {
		if at := by.In(m.Environment); at.Environment() == m.Environment && at.May(m.Organization, ManageMembers) == nil {
			return u, nil
		}
	}
	return User{}, notFound("user")
}

// SetRole changes what a member may do. An organization keeps an owner.
func (s *Service) SetRole(ctx context.Context, by Actor, org id.Organization, user id.User, r Role) error {
	o, by, err := s.reach(ctx, by, org, ManageMembers)
	if err != nil {
		return err
	}
	if _, err := ParseRole(string(r)); err != nil {
		return err
	}
	return s.changeMembers(ctx, "change a role", o, func(ctx context.Context, tx *sqldb.Tx) error {
		old, err := s.memberRole(ctx, tx, o, user)
		if err != nil || old == r {
			return err
		}
		for _, touched := range []Role{old, r} {
			if err := mayTouch(by, o, touched); err != nil {
				return err
			}
		}
		if err := keepOwner(ctx, tx, org, user, old); err != nil {
			return err
		}
		if err := setRole(ctx, tx, org, user, r); err != nil {
			return err
		}
		s.memberEntry(tx, by, o, user, "member.role_changed", map[string]string{"from": string(old), "to": string(r)})
		return nil
	})
}

// RemoveMember takes a user out of org, ends their logins, and what they have
// running there. People can leave by themselves.
func (s *Service) RemoveMember(ctx context.Context, by Actor, org id.Organization, user id.User) error {
	perm := ManageMembers
	if by.User() == user && user != "" {
		perm = View
	}
	o, by, err := s.reach(ctx, by, org, perm)
	if err != nil {
		return err
	}
	return s.changeMembers(ctx, "remove a member", o, func(ctx context.Context, tx *sqldb.Tx) error {
		old, err := s.memberRole(ctx, tx, o, user)
		if err != nil {
			return err
		}
		if perm == ManageMembers {
			if err := mayTouch(by, o, old); err != nil {
				return err
			}
		}
		if err := keepOwner(ctx, tx, org, user, old); err != nil {
			return err
		}
		if err := deleteMember(ctx, tx, org, user); err != nil {
			return err
		}
		if _, err := revokeLogins(ctx, tx, user, "", "", s.now()); err != nil {
			return err
		}
		if err := s.onLeft(ctx, tx, o.Environment, org, user); err != nil {
			return err
		}
		s.memberEntry(tx, by, o, user, "member.removed", map[string]string{"role": string(old)})
		return nil
	})
}

func (s *Service) changeMembers(ctx context.Context, what string, o Organization, fn func(ctx context.Context, tx *sqldb.Tx) error) error {
	return sqldb.Wrap(what, s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := lockOrganization(ctx, tx, o.ID); err != nil {
			return err
		}
		return fn(ctx, tx)
	}))
}

func (s *Service) memberRole(ctx context.Context, tx *sqldb.Tx, o Organization, user id.User) (Role, error) {
	r, err := selectRole(ctx, tx, o.ID, user)
	if sqldb.NoRows(err) {
		return "", notFound("member")
	}
	return r, err
}

// keepOwner refuses to take the last enabled owner out of an organization that
// the transaction has locked.
func keepOwner(ctx context.Context, tx *sqldb.Tx, org id.Organization, user id.User, old Role) error {
	if old != RoleOwner {
		return nil
	}
	other, err := hasOtherOwner(ctx, tx, org, user)
	if err != nil {
		return err
	}
	if !other {
		return fault.New(fault.Conflict, "last_owner", "This is the organization's last owner.").WithHint("Make somebody else an owner first.")
	}
	return nil
}

// memberEntry records a change of user's place in o. The entry's user is the
// one concerned.
func (s *Service) memberEntry(tx *sqldb.Tx, by Actor, o Organization, user id.User, action string, detail map[string]string) {
	e := entry(by, o.Environment, o.ID, action, string(user))
	e.User, e.Detail = user, detail
	s.audit.Append(tx, e)
}

// DisableUser shuts a user out everywhere and ends what they have running. It
// takes somebody who manages every place that the user has, or who runs the
// user's environment.
func (s *Service) DisableUser(ctx context.Context, by Actor, user id.User) error {
	u, by, err := s.whole(ctx, by, user)
	if err != nil {
		return err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		places, err := selectPlaces(ctx, tx, user) // in the order of their ids, so that two such transactions cannot deadlock
		if err != nil {
			return err
		}
		for _, m := range places {
			if err := lockOrganization(ctx, tx, m.Organization); err != nil {
				return err
			}
			role, err := selectRole(ctx, tx, m.Organization, user)
			if sqldb.NoRows(err) {
				continue
			}
			if err != nil {
				return err
			}
			at := by.In(m.Environment)
			if at.Environment() != m.Environment {
				return fault.New(fault.Denied, "not_allowed", "The user is also a member in another environment.").WithHint("Remove their membership instead.")
			}
			if err := mayTouch(at, Organization{ID: m.Organization, Environment: m.Environment}, role); err != nil {
				return err
			}
			if err := keepOwner(ctx, tx, m.Organization, user, role); err != nil {
				return err
			}
		}
		now := s.now()
		ok, err := disable(ctx, tx, user, sqldb.Micros(now))
		if err != nil || !ok {
			return err
		}
		if _, err := revokeLogins(ctx, tx, user, "", "", now); err != nil {
			return err
		}
		if err := deleteLinks(ctx, tx, user); err != nil {
			return err
		}
		if err := s.onLeft(ctx, tx, u.Environment, "", user); err != nil {
			return err
		}
		e := entry(by, u.Environment, "", "user.disabled", string(user))
		e.User = user
		s.audit.Append(tx, e)
		return nil
	})
	return sqldb.Wrap("disable a user", err)
}

// EnableUser lets a disabled user sign in again.
func (s *Service) EnableUser(ctx context.Context, by Actor, user id.User) error {
	u, by, err := s.whole(ctx, by, user)
	if err != nil {
		return err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		ok, err := enable(ctx, tx, user)
		if err != nil || !ok {
			return err
		}
		e := entry(by, u.Environment, "", "user.enabled", string(user))
		e.User = user
		s.audit.Append(tx, e)
		return nil
	})
	return sqldb.Wrap("enable a user", err)
}

// whole gives a user all of whose places the actor manages.
func (s *Service) whole(ctx context.Context, by Actor, user id.User) (User, Actor, error) {
	u, err := s.visible(ctx, by, user)
	if err != nil {
		return User{}, Actor{}, err
	}
	home := by.In(u.Environment)
	if home.Environment() == u.Environment && home.May("", ManageMembers) == nil {
		return u, home, nil
	}
	places, err := selectPlaces(ctx, s.db.Reader(), user)
	if err != nil {
		return User{}, Actor{}, sqldb.Wrap("read memberships", err)
	}
	for _, m := range places {
		at := by.In(m.Environment)
		if at.Environment() != m.Environment || at.May(m.Organization, ManageMembers) != nil {
			return User{}, Actor{}, fault.New(fault.Denied, "not_allowed", "The user is also a member of organizations that you do not manage.").
				WithHint("Remove them from your organization instead.")
		}
	}
	return u, home, nil
}

// SetProfile changes a person's own name and e-mail.
func (s *Service) SetProfile(ctx context.Context, p Person, name, email string) error {
	if err := p.browser(); err != nil {
		return err
	}
	if err := checkName("A name", name); err != nil {
		return err
	}
	email, err := optionalEmail(email)
	if err != nil {
		return err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		taken, err := clashes(ctx, tx, User{ID: p.user, Environment: p.home, Email: email})
		if err != nil {
			return err
		}
		if taken {
			return userTaken()
		}
		ok, err := setProfile(ctx, tx, p.user, name, email)
		if err != nil {
			return err
		}
		if !ok {
			return unauthenticated()
		}
		s.audit.Append(tx, personEntry(p, "user.profile_changed", string(p.user)))
		return nil
	})
	if sqldb.IsUnique(err) {
		return userTaken()
	}
	return sqldb.Wrap("change a profile", err)
}

func parseUser(s string) (u id.User, err error) { return u, parseID(&u, s) }

// parseID is id.Parse where the kind of id is that of dst.
func parseID[K id.Kind](dst *id.ID[K], s string) error {
	v, err := id.Parse[K](s)
	*dst = v
	return err
}
