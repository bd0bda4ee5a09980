package account

import (
	"cmp"
	"context"
	"strconv"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
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

// check gives n with its defaults, and its e-mail in the one form.
func (n NewUser) check() (NewUser, error) {
	var err error
	if n.Email, err = optionalEmail(n.Email); err != nil {
		return n, err
	}
	if err := checkName("A name", n.Name); err != nil {
		return n, err
	}
	return n, checkExternalID(n.ExternalID)
}

// raise is what a person agrees to who makes this user.
func (n NewUser) raise(link bool) Raise {
	r := Raise{Action: "user.created", Environment: n.Environment, Organization: n.Organization, To: string(n.Role),
		Facts: map[string]string{"name": n.Name, "email": n.Email, "external_id": n.ExternalID}}
	if link {
		r.Facts["link"] = "yes"
	}
	return r
}

// CreateUser makes a user. They cannot sign in before somebody gives them a
// link; see Invite.
func (s *Service) CreateUser(ctx context.Context, by Actor, n NewUser, ag Agreement) (User, error) {
	u, _, err := s.createUser(ctx, by, n, false, ag)
	return u, err
}

// InviteUser makes a user and their first sign-in link, with one agreement.
func (s *Service) InviteUser(ctx context.Context, p Person, n NewUser, ag Agreement) (u User, linkURL secret.Value, err error) {
	if err := p.browser(); err != nil {
		return User{}, secret.Value{}, err
	}
	return s.createUser(ctx, ByPerson(p), n, true, ag)
}

func (s *Service) createUser(ctx context.Context, by Actor, n NewUser, link bool, ag Agreement) (u User, linkURL secret.Value, err error) {
	none := func(err error) (User, secret.Value, error) { return User{}, secret.Value{}, err }
	if by, err = s.within(ctx, by, n.Environment); err != nil {
		return none(err)
	}
	if n.Organization == "" {
		err = by.May("", ManageMembers)
	} else {
		n.Role = cmp.Or(n.Role, RoleMember)
		by, err = s.mayGive(ctx, by, n.Environment, n.Organization, n.Role)
	}
	if err != nil {
		return none(err)
	}
	if n, err = n.check(); err != nil {
		return none(err)
	}
	u = User{ID: id.NewUser(), Environment: n.Environment, Email: n.Email, Name: n.Name, ExternalID: n.ExternalID, CreatedAt: s.now(), Version: 1}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		// Before anybody is asked to agree; the database decides it again.
		if taken, err := clashes(ctx, tx, u); err != nil || taken {
			return orElse(err, userTaken())
		}
		// A user who is a member of nothing can do nothing.
		w, err := s.Weigh(ctx, tx, by, n.raise(link), n.Organization != "" || link, ag)
		if err != nil {
			return err
		}
		linkURL, err = s.addUser(ctx, tx, by, w, u, n, link)
		return err
	})
	if sqldb.IsUnique(err) {
		return none(userTaken())
	}
	if err != nil {
		return none(sqldb.Wrap("create a user", err))
	}
	return u, linkURL, nil
}

// addUser writes a new user, their place and, if asked to, their link.
func (s *Service) addUser(ctx context.Context, tx *sqldb.Tx, by Actor, w Weighed, u User, n NewUser, link bool) (linkURL secret.Value, err error) {
	if err := insertUser(ctx, tx, u, by.key.id); err != nil {
		return secret.Value{}, err
	}
	w = w.made(string(u.ID))
	e := w.enter(entry(by, u.Environment, n.Organization, "user.created", string(u.ID)))
	if n.Organization != "" {
		if _, err := insertMember(ctx, tx, w, n.Organization, u.ID, n.Role, sqldb.Micros(u.CreatedAt)); err != nil {
			return secret.Value{}, err
		}
		e.Detail = map[string]string{"role": string(n.Role)}
	}
	s.audit.Append(tx, e)
	if !link {
		return secret.Value{}, nil
	}
	return s.addLink(ctx, tx, by, w, u, "user.invited")
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
	return userIn(ctx, s.db.Reader(), env, user)
}

func userIn(ctx context.Context, q sqldb.Querier, env id.Environment, user id.User) (User, error) {
	u, err := selectUserIn(ctx, q, env, user)
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
	rows, err := selectUsers(ctx, s.db.Lists(string(env)), env, l.After, l.limit()+1)
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
	rows, err := selectMembers(ctx, s.db.Lists(string(org)), org, l.After, l.limit()+1)
	if err != nil {
		return nil, "", sqldb.Wrap("list members", err)
	}
	rows, next := page(rows, l.limit(), func(m Member) string { return string(m.ID) })
	return rows, next, nil
}

// Active reports whether user is enabled and a member of org, which is in env.
func (s *Service) Active(ctx context.Context, env id.Environment, org id.Organization, user id.User) (bool, error) {
	r, err := s.RoleNow(ctx, env, org, user)
	return r != "", err
}

// HoldRole gives the role that user has in org, and keeps it so to the end of the
// transaction. It is empty for who is disabled or no member.
func (s *Service) HoldRole(ctx context.Context, tx *sqldb.Tx, org id.Organization, user id.User) (Role, error) {
	r, err := selectHeldRole(ctx, tx, org, user)
	if sqldb.NoRows(err) {
		return "", nil
	}
	return r, sqldb.Wrap("read a membership", err)
}

// RoleNow gives the role that user has in org, which is in env. It is empty for who is
// disabled or no member.
func (s *Service) RoleNow(ctx context.Context, env id.Environment, org id.Organization, user id.User) (Role, error) {
	r, err := selectRoleNow(ctx, s.db.Reader(), env, org, user)
	return r, sqldb.Wrap("read a membership", err)
}

// Among gives the enabled members of org who are in users or have one of roles.
func (s *Service) Among(ctx context.Context, q sqldb.Querier, org id.Organization, users []id.User, roles []string) ([]id.User, error) {
	var any []string
	for _, u := range users {
		any = append(any, string(u))
	}
	if any = append(any, roles...); len(any) == 0 { // no id looks like a role
		return nil, nil
	}
	marks, args := sqldb.In(any)
	query := `select m.user_id from membership m join person p on p.id = m.user_id
		where p.disabled_at = 0 and (m.user_id in (` + marks + `) or m.role in (` + marks + `)) and m.organization_id = $` + strconv.Itoa(len(args)+1)
	list, err := sqldb.Collect(func(from sqldb.Scanner) (u id.User, err error) { return u, from.Scan(&u) })(q.QueryContext(ctx, query, append(args, org)...))
	return list, sqldb.Wrap("list members", err)
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
func (s *Service) AddMember(ctx context.Context, by Actor, org id.Organization, user id.User, r Role, ag Agreement) error {
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
	if _, err := visible(ctx, s.db.Reader(), by, user); err != nil {
		return err
	}
	return s.changeMembers(ctx, "add a member", o, func(ctx context.Context, tx *sqldb.Tx) error {
		already := fault.New(fault.Conflict, "already_member", "The user is a member already.").WithHint("Change the role instead.")
		if _, err := selectRole(ctx, tx, org, user); !sqldb.NoRows(err) {
			return cmp.Or[error](err, already)
		}
		w, err := s.Weigh(ctx, tx, by, place(o, user, "member.added", "", r), true, ag)
		if err != nil {
			return err
		}
		ok, err := insertMember(ctx, tx, w, org, user, r, sqldb.Micros(s.now()))
		if err == nil && !ok {
			err = already
		}
		if err == nil {
			err = s.voidInvitations(ctx, tx, user, true)
		}
		if err != nil {
			return err
		}
		s.memberEntry(tx, by, w, o, user, "member.added", map[string]string{"role": string(r)})
		return nil
	})
}

// voidInvitations ends the links of somebody who has no way in of their own and gains
// something: whoever made such a link could use it, and made it for less.
func (s *Service) voidInvitations(ctx context.Context, tx *sqldb.Tx, user id.User, gained bool) error {
	n, err := s.factors(ctx, tx, user)
	if err != nil || n.own() || !gained {
		return err
	}
	return deleteLinks(ctx, tx, user)
}

// place is a change of user's place in o.
func place(o Organization, user id.User, action string, from, to Role) Raise {
	return Raise{Action: action, Environment: o.Environment, Organization: o.ID, Object: string(user), From: string(from), To: string(to)}
}

// visible gives a user that the actor may name.
func visible(ctx context.Context, q sqldb.Querier, by Actor, user id.User) (User, error) {
	u, err := selectUser(ctx, q, user)
	if sqldb.NoRows(err) {
		return User{}, notFound("user")
	}
	if err != nil {
		return User{}, sqldb.Wrap("read a user", err)
	}
	if by.IsSystem() || by.Environment() == u.Environment && by.May("", ManageMembers) == nil {
		return u, nil
	}
	places, err := selectPlaces(ctx, q, user)
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
func (s *Service) SetRole(ctx context.Context, by Actor, org id.Organization, user id.User, r Role, ag Agreement) error {
	o, by, err := s.reach(ctx, by, org, ManageMembers)
	if err != nil {
		return err
	}
	if _, err := ParseRole(string(r)); err != nil {
		return err
	}
	return s.changeMembers(ctx, "change a role", o, func(ctx context.Context, tx *sqldb.Tx) error {
		old, err := s.memberRole(ctx, tx, o, user)
		if err != nil {
			return err
		}
		for _, touched := range []Role{old, r} {
			if err := mayTouch(by, o, touched); err != nil {
				return err
			}
		}
		if r != RoleOwner {
			if err := keepOwner(ctx, tx, org, user, old); err != nil {
				return err
			}
		}
		w, err := s.Weigh(ctx, tx, by, place(o, user, "member.role_changed", old, r), raises(old, r), ag)
		if err != nil || old == r {
			return err
		}
		if err := setRole(ctx, tx, w, org, user, r); err != nil {
			return err
		}
		if err := s.voidInvitations(ctx, tx, user, r.gains(old)); err != nil {
			return err
		}
		s.memberEntry(tx, by, w, o, user, "member.role_changed", map[string]string{"from": string(old), "to": string(r)})
		return nil
	})
}

// RemoveMember takes a user out of org, ends their logins, and what they have
// running there. People can leave by themselves. Taking an owner out takes an
// agreement: owners are who could undo what a stolen login does.
func (s *Service) RemoveMember(ctx context.Context, by Actor, org id.Organization, user id.User, ag Agreement) error {
	perm := ManageMembers
	if by.User() == user && user != "" {
		perm = View
	}
	o, by, err := reachIn(ctx, s.before(by), by, org, perm)
	if err != nil {
		return err
	}
	return sqldb.Wrap("remove a member", s.ending(ctx, by, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := lockOrganization(ctx, tx, o.ID); err != nil {
			return err
		}
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
		w, err := s.Weigh(ctx, tx, by, place(o, user, "member.removed", old, ""), old == RoleOwner, ag)
		if err != nil {
			return err
		}
		if err := deleteMember(ctx, tx, w, org, user); err != nil {
			return err
		}
		if _, err := endLogins(ctx, tx, user, s.now()); err != nil {
			return err
		}
		if err := s.onLeft(ctx, tx, o.Environment, org, user); err != nil {
			return err
		}
		s.memberEntry(tx, by, w, o, user, "member.removed", map[string]string{"role": string(old)})
		return nil
	}))
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
func (s *Service) memberEntry(tx *sqldb.Tx, by Actor, w Weighed, o Organization, user id.User, action string, detail map[string]string) {
	e := w.enter(entry(by, o.Environment, o.ID, action, string(user)))
	e.User, e.Detail = user, detail
	s.audit.Append(tx, e)
}

// DisableUser shuts a user out everywhere and ends what they have running. It
// takes somebody who manages every place that the user has, or who runs the
// user's environment; for an owner an agreement too, as RemoveMember.
func (s *Service) DisableUser(ctx context.Context, by Actor, user id.User, ag Agreement) error {
	u, by, err := whole(ctx, s.before(by), by, user)
	if err != nil {
		return err
	}
	err = s.ending(ctx, by, func(ctx context.Context, tx *sqldb.Tx) error {
		places, err := touchAll(ctx, tx, by, user)
		if err != nil {
			return err
		}
		owner := false
		for _, m := range places {
			if err := keepOwner(ctx, tx, m.Organization, user, m.Role); err != nil {
				return err
			}
			owner = owner || m.Role == RoleOwner
		}
		now := s.now()
		w, err := s.Weigh(ctx, tx, by, able(u, "user.disabled", "enabled", "disabled"), owner, ag)
		if err != nil {
			return err
		}
		ok, err := disable(ctx, tx, w, user, sqldb.Micros(now))
		if err != nil || !ok {
			return err
		}
		if _, err := endLogins(ctx, tx, user, now); err != nil {
			return err
		}
		if err := deleteLinks(ctx, tx, user); err != nil {
			return err
		}
		if err := s.onLeft(ctx, tx, u.Environment, "", user); err != nil {
			return err
		}
		e := w.enter(entry(by, u.Environment, "", "user.disabled", string(user)))
		e.User = user
		s.audit.Append(tx, e)
		return nil
	})
	return sqldb.Wrap("disable a user", err)
}

// touchAll locks every organization of a user and gives their places, each with
// the role that they have now. It refuses unless the actor may change them in
// each. The order is that of the ids, so that two such transactions cannot
// deadlock.
func touchAll(ctx context.Context, tx *sqldb.Tx, by Actor, user id.User) ([]Membership, error) {
	places, err := selectPlaces(ctx, tx, user)
	if err != nil {
		return nil, err
	}
	var held []Membership
	for _, m := range places {
		if err := lockOrganization(ctx, tx, m.Organization); err != nil {
			return nil, err
		}
		m.Role, err = selectRole(ctx, tx, m.Organization, user)
		if sqldb.NoRows(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		at := by.In(m.Environment)
		if at.Environment() != m.Environment {
			return nil, fault.New(fault.Denied, "not_allowed", "The user is also a member in another environment.").WithHint("Change their membership instead.")
		}
		if err := mayTouch(at, Organization{ID: m.Organization, Environment: m.Environment}, m.Role); err != nil {
			return nil, err
		}
		held = append(held, m)
	}
	return held, nil
}

// able is a change of whether u may sign in at all.
func able(u User, action, from, to string) Raise {
	return Raise{Action: action, Environment: u.Environment, Object: string(u.ID), From: from, To: to}
}

// rolesIn is what a user may do, for what gives all of it.
func rolesIn(places []Membership) map[string]string {
	out := map[string]string{}
	for _, m := range places {
		out[string(m.Organization)] = string(m.Role)
	}
	return out
}

// EnableUser lets a disabled user sign in again.
func (s *Service) EnableUser(ctx context.Context, by Actor, user id.User, ag Agreement) error {
	u, by, err := whole(ctx, s.db.Reader(), by, user)
	if err != nil {
		return err
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if u, err = selectUser(ctx, tx, user); err != nil {
			return err
		}
		r := able(u, "user.enabled", "disabled", "enabled")
		r.Version = u.Version
		// Enabling gives every place back, so whoever may not make an owner may not
		// bring one back either: disabling is how a stolen owner is shut out.
		places, err := touchAll(ctx, tx, by, user)
		if err != nil {
			return err
		}
		r.Facts = rolesIn(places)
		w, err := s.Weigh(ctx, tx, by, r, !u.DisabledAt.IsZero(), ag)
		if err != nil || u.DisabledAt.IsZero() {
			return err
		}
		ok, err := enable(ctx, tx, w, user)
		if err != nil || !ok {
			return err
		}
		e := w.enter(entry(by, u.Environment, "", "user.enabled", string(user)))
		e.User = user
		s.audit.Append(tx, e)
		return nil
	})
	return sqldb.Wrap("enable a user", err)
}

// whole gives a user all of whose places the actor manages.
func whole(ctx context.Context, q sqldb.Querier, by Actor, user id.User) (User, Actor, error) {
	u, err := visible(ctx, q, by, user)
	if err != nil {
		return User{}, Actor{}, err
	}
	home := by.In(u.Environment)
	if home.Environment() == u.Environment && home.May("", ManageMembers) == nil {
		return u, home, nil
	}
	places, err := selectPlaces(ctx, q, user)
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

// SetProfile changes a person's own name and e-mail. The e-mail takes an
// agreement: a sign-in by code and a recovery find the person by it, and others
// tell by it who somebody is. A login that counts in one organization changes
// nothing that the others see.
func (s *Service) SetProfile(ctx context.Context, p Person, name, email string, ag Agreement) error {
	if err := p.Own(); err != nil {
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
		if ok, err := lockUser(ctx, tx, p.user); err != nil || !ok {
			return orElse(err, unauthenticated())
		}
		taken, err := clashes(ctx, tx, User{ID: p.user, Environment: p.home, Email: email})
		if err != nil {
			return err
		}
		if taken {
			return userTaken()
		}
		u, err := selectUser(ctx, tx, p.user)
		if err != nil {
			return err
		}
		r := Raise{Action: "user.profile_changed", Environment: u.Environment, Object: string(u.ID), From: u.Email, To: email}
		w, err := s.Weigh(ctx, tx, ByPerson(p), r, email != u.Email, ag)
		if err != nil {
			return err
		}
		ok, err := setProfile(ctx, tx, w, p.user, name, email)
		if err != nil {
			return err
		}
		if !ok {
			return unauthenticated()
		}
		s.audit.Append(tx, w.enter(personEntry(p, "user.profile_changed", string(p.user))))
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
