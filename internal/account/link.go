package account

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// console is the actor of what somebody does on the server itself.
func console() Actor { return System("console") }

// Bootstrap sets an empty database up: environment "production" with its
// organization "default" and one owner. While no owner of it has a passkey it
// also gives a fresh link for the first one, for the console to print
// (threats.md T6). Several nodes may each have printed one; the first that is
// used voids the others.
func (s *Service) Bootstrap(ctx context.Context) (linkURL secret.Value, needed bool, err error) {
	owner, err := s.firstOwner(ctx)
	if err != nil || owner.ID == "" {
		return secret.Value{}, false, err
	}
	n, err := s.Owners(ctx, owner.Environment)
	if err != nil || n.WithPasskey > 0 {
		return secret.Value{}, false, err
	}
	linkURL, err = s.consoleLink(ctx, owner, bootstrapLink)
	if errors.Is(err, errOwned) {
		return secret.Value{}, false, nil
	}
	return linkURL, err == nil, err
}

const bootstrapLink = "user.bootstrap_link"

// errOwned is that somebody became the first owner while a link was made.
var errOwned = errors.New("an owner has a passkey already")

// firstOwner gives the oldest enabled owner of the oldest environment, and
// makes everything if there is none. No user means that every owner is
// disabled, which the console mends with recover.
func (s *Service) firstOwner(ctx context.Context) (User, error) {
	envs, err := selectEnvironments(ctx, s.db.Reader())
	if err != nil {
		return User{}, sqldb.Wrap("list environments", err)
	}
	if len(envs) == 0 {
		now := s.now()
		e := Environment{ID: id.NewEnvironment(), Name: "production", Operator: id.NewOrganization(), CreatedAt: now, Version: 1}
		u := User{ID: id.NewUser(), Environment: e.ID, Name: "Owner", CreatedAt: now, Version: 1}
		made := false
		err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
			w, err := s.Weigh(ctx, tx, console(), Raise{}, true, Agreement{})
			if err != nil {
				return err
			}
			// Of several nodes that start on an empty database one makes it.
			if made, err = s.addEnvironment(ctx, tx, console(), w.made(string(e.ID)), e); err != nil || !made {
				return err
			}
			_, err = s.addUser(ctx, tx, console(), w, u, NewUser{Organization: e.Operator, Role: RoleOwner}, false)
			return err
		})
		if err != nil || made {
			return u, sqldb.Wrap("set up an empty database", err)
		}
		if envs, err = selectEnvironments(ctx, s.db.Reader()); err != nil {
			return User{}, sqldb.Wrap("list environments", err)
		}
	}
	u, err := selectFirstOwner(ctx, s.db.Reader(), envs[0].Operator)
	if sqldb.NoRows(err) {
		return User{}, nil
	}
	return u, sqldb.Wrap("read the first owner", err)
}

// OwnerCount says how well an environment is guarded against losing the way in.
type OwnerCount struct {
	Owners       int // enabled, of the organization that runs the environment
	WithPasskey  int
	WithPasskeys int // of them, those with a second passkey
}

// Owners counts them, so that a second passkey can be urged.
func (s *Service) Owners(ctx context.Context, env id.Environment) (OwnerCount, error) {
	n, err := selectOwnerCount(ctx, s.db.Reader(), env)
	return n, sqldb.Wrap("count owners", err)
}

// addLink makes a link for a user and voids those from before, except that links
// for the first owner stand side by side. The token stands in the URL's
// fragment, which browsers send to no server.
func (s *Service) addLink(ctx context.Context, tx *sqldb.Tx, by Actor, w Weighed, u User, action string) (secret.Value, error) {
	token, now := secret.Token(linkPrefix), s.now()
	if err := w.For(string(u.ID)); err != nil {
		return secret.Value{}, err
	}
	ok, err := lockUser(ctx, tx, u.ID)
	if err != nil {
		return secret.Value{}, err
	}
	if !ok {
		return secret.Value{}, fault.New(fault.Conflict, "user_disabled", "The user is disabled.").WithHint("Enable the user first.")
	}
	if action != bootstrapLink {
		err = deleteLinks(ctx, tx, u.ID)
	} else if err = sweepLinks(ctx, tx, u.ID, now); err == nil {
		var n OwnerCount
		if n, err = selectOwnerCount(ctx, tx, u.Environment); n.WithPasskey > 0 {
			err = errOwned
		}
	}
	if err != nil {
		return secret.Value{}, err
	}
	if err := insertLink(ctx, tx, link{id: "link_" + rand.Text(), user: u.ID, expires: now.Add(LinkAge)}, token.Hash(), now); err != nil {
		return secret.Value{}, err
	}
	e := w.enter(entry(by, u.Environment, "", action, string(u.ID)))
	e.User = u.ID
	event := s.audit.Append(tx, e)
	if action == NoticeRecovery || action == NoticeFirstOwner {
		err = s.tellOwners(ctx, tx, Notice{ID: event, Kind: action, User: u.ID, At: now}, u.Environment)
	}
	return linkURL(s.base, token), err
}

// tellOwners gives a notice to every owner whom what happened to its user
// concerns.
func (s *Service) tellOwners(ctx context.Context, tx *sqldb.Tx, n Notice, env id.Environment) error {
	owners, err := selectOwners(ctx, tx, n.User, env)
	if err != nil {
		return err
	}
	for _, o := range owners {
		if n.Kind == NoticeFirstOwner && o == n.User {
			continue
		}
		if err := insertNotice(ctx, tx, n, o); err != nil {
			return err
		}
	}
	return nil
}

// consoleLink makes a link for the server's own console.
func (s *Service) consoleLink(ctx context.Context, u User, action string) (linkURL secret.Value, err error) {
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		w, err := s.Weigh(ctx, tx, console(), Raise{Object: string(u.ID)}, true, Agreement{})
		if err != nil {
			return err
		}
		linkURL, err = s.addLink(ctx, tx, console(), w, u, action)
		return err
	})
	if err != nil {
		return secret.Value{}, sqldb.Wrap("make a link", err)
	}
	return linkURL, nil
}

// Recover makes a link for a user named by id or e-mail, on the server's
// console. It is audited, and every owner of the user's organizations is told.
func (s *Service) Recover(ctx context.Context, user string) (linkURL secret.Value, err error) {
	u, err := s.named(ctx, user)
	if err != nil {
		return secret.Value{}, err
	}
	return s.consoleLink(ctx, u, NoticeRecovery)
}

func (s *Service) named(ctx context.Context, name string) (User, error) {
	if uid, err := parseUser(name); err == nil {
		u, err := selectUser(ctx, s.db.Reader(), uid)
		if sqldb.NoRows(err) {
			return User{}, notFound("user")
		}
		return u, sqldb.Wrap("read a user", err)
	}
	email, err := CanonicalEmail(name)
	if err != nil {
		return User{}, notFound("user").WithHint("Name the user by id or e-mail.")
	}
	users, err := selectUsersByEmail(ctx, s.db.Reader(), email)
	switch {
	case err != nil:
		return User{}, sqldb.Wrap("read users", err)
	case len(users) == 0:
		return User{}, notFound("user")
	case len(users) > 1:
		return User{}, fault.New(fault.Conflict, "ambiguous_user", "More than one environment has a user with this e-mail.").WithHint("Name the user by id.")
	}
	return users[0], nil
}

// Invite gives a link to a user who cannot sign in yet, or only at an organization's
// identity provider, which gives them no way to make a passkey. Whoever gives it could
// use it themselves, so it takes an agreement, and never works for a user who
// has a passkey or an authenticator app: only the server's console recovers
// those (threats.md T5). One agreement makes one link, for what the user may do
// at that moment.
func (s *Service) Invite(ctx context.Context, p Person, user id.User, ag Agreement) (linkURL secret.Value, err error) {
	if err := p.browser(); err != nil {
		return secret.Value{}, err
	}
	u, err := visible(ctx, s.db.Reader(), ByPerson(p), user)
	if err != nil {
		return secret.Value{}, err
	}
	places, err := selectPlaces(ctx, s.db.Reader(), user)
	if err != nil {
		return secret.Value{}, sqldb.Wrap("read memberships", err)
	}
	r := Raise{Action: "user.invited", Environment: u.Environment, Object: string(user), To: "link", Facts: rolesIn(places)}
	for _, m := range places {
		o, by, err := s.reach(ctx, ByPerson(p), m.Organization, ManageMembers)
		if err != nil {
			return secret.Value{}, err
		}
		if err := mayTouch(by, o, m.Role); err != nil {
			return secret.Value{}, err
		}
	}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := s.notEnrolled(ctx, tx, user); err != nil {
			return err
		}
		w, err := s.Weigh(ctx, tx, ByPerson(p), r, true, ag)
		if err != nil {
			return err
		}
		linkURL, err = s.addLink(ctx, tx, ByPerson(p), w, u, "user.invited")
		return err
	})
	if err != nil {
		return secret.Value{}, sqldb.Wrap("make a link", err)
	}
	return linkURL, nil
}

func (s *Service) notEnrolled(ctx context.Context, q sqldb.Querier, user id.User) error {
	n, err := s.factors(ctx, q, user)
	if err == nil && n.own() {
		err = fault.New(fault.Conflict, "already_enrolled", "This user can sign in already.").
			WithHint("If they lost their passkeys, run ambit recover on the server.")
	}
	return err
}

// What owners are told of, by the action of its audit entry.
const (
	NoticeRecovery   = "user.recovery_link"
	NoticeFirstOwner = "user.first_owner_link"
	NoticeRestored   = "server.restored"
	NoticeWebhook    = "webhook.disabled"
)

// Notice is something that an owner must be told.
type Notice struct {
	ID       id.Event
	Kind     string  // user.recovery_link, user.first_owner_link server.restored or webhook.disabled
	User     id.User // whom it is about; of a restore and a webhook, who is told
	UserName string
	At       time.Time
}

// NoticeOwners tells the owners of whoever runs env, in the caller's transaction,
// of what the audit entry event says.
func (s *Service) NoticeOwners(ctx context.Context, tx *sqldb.Tx, env id.Environment, kind string, event id.Event, at time.Time) error {
	_, err := tx.ExecContext(ctx, noticeToOwnersSQL, event, kind, sqldb.Micros(at), env)
	return sqldb.Wrap("tell the owners", err)
}

// Notices lists what the person has not dismissed, newest first.
func (s *Service) Notices(ctx context.Context, p Person) ([]Notice, error) {
	if p.user == "" {
		return nil, unauthenticated()
	}
	if p.confined != "" {
		return nil, nil // they may be about other organizations
	}
	out, err := selectNotices(ctx, s.db.Reader(), p.user)
	return out, sqldb.Wrap("list notices", err)
}

// DismissNotice takes a notice from the person's list, not from other owners'.
func (s *Service) DismissNotice(ctx context.Context, p Person, event id.Event) error {
	if err := p.browser(); err != nil {
		return err
	}
	if p.confined != "" { // which does not see them either
		return notFound("notice")
	}
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		ok, err := dismissNotice(ctx, tx, p.user, event, s.now())
		if err == nil && !ok {
			err = notFound("notice")
		}
		return err
	})
	return sqldb.Wrap("dismiss a notice", err)
}
