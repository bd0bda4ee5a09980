package account

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/issuer"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// An identity provider's answer that is believed (see federated.go) signs somebody in,
// is the first way in of an invited user, or one more of somebody who is here.
//
// Who somebody is is the provider, the issuer and the subject. An e-mail address or
// a name links nobody to anything: whoever runs a provider writes those.

func unknownIdentity() error {
	return fault.New(fault.Unauthenticated, "identity_unknown", "Nobody here is known by this sign-in.").
		WithHint("Ask an owner or admin for an invitation, and accept it with this sign-in. If you have a passkey, sign in with it and add this sign-in on your account page.")
}

// signInFederated signs in whoever is known by an identity. A provider that admits
// people makes a member of whoever is not. In a browser where somebody else is signed
// in it signs nobody in: the person might not notice whose account they work in
// (threats.md W2).
func (s *Service) signInFederated(ctx context.Context, p Person, is identity, who issuer.Identity, e audit.Entry) (login secret.Value, err error) {
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		i, err := s.held(ctx, tx, is.provider)
		if err != nil {
			return err
		}
		user, err := selectIdentity(ctx, tx, is)
		if err != nil {
			return err
		}
		if p.user != "" && p.user != user && (user != "" || i.Admits) {
			return fault.New(fault.Conflict, "signed_in_already", "You are signed in as somebody else than this sign-in is of.").
				WithHint("Nothing has changed. To change who you are here, sign out first, then sign in again.")
		}
		if user == "" {
			if user, err = s.admitMember(ctx, tx, i, is, who, e); err != nil {
				return err
			}
		}
		u, err := selectUser(ctx, tx, user)
		if err != nil {
			return err
		}
		if ok, err := lockUser(ctx, tx, user); err != nil || !ok {
			return orElse(err, unknownIdentity())
		}
		left := fault.New(fault.Denied, "not_a_member", "You are not a member of the organization any more.").WithHint("Ask an owner or admin of it.")
		if err := is.counts(ctx, tx, user, left); err != nil {
			return err
		}
		if ok, err := useIdentity(ctx, tx, is, user, s.now()); err != nil || !ok {
			return orElse(err, unknownIdentity()) // taken from them a moment ago
		}
		login, err = s.federatedLogin(ctx, tx, u, is, e)
		return err
	})
	return login, sqldb.Wrap("sign in", err)
}

// federatedLogin makes the login of somebody whom a provider has vouched for, and
// puts it on record.
func (s *Service) federatedLogin(ctx context.Context, tx *sqldb.Tx, u User, is identity, e audit.Entry) (secret.Value, error) {
	e.Environment, e.Actor, e.User, e.Object, e.Decision = u.Environment, audit.Actor{Kind: "user", ID: string(u.ID)}, u.ID, string(u.ID), "allow"
	s.audit.Append(tx, e)
	return s.newLogin(ctx, tx, loginRow{user: u.ID, method: MethodFederated, provider: is.provider, organization: is.organization, address: e.Address})
}

// admitMember makes a member of somebody whom nobody has invited, where the
// organization's provider says so. They get no e-mail address: a recovery finds
// people by it, and this one is only the provider's word.
func (s *Service) admitMember(ctx context.Context, tx *sqldb.Tx, i IdentityProvider, is identity, who issuer.Identity, e audit.Entry) (id.User, error) {
	if i.Organization == "" || !i.Admits {
		return "", unknownIdentity()
	}
	if user, err := former(ctx, tx, is); err != nil {
		return "", err
	} else if user != "" { // to come back takes the word of somebody of the organization
		return "", fault.New(fault.Denied, "not_a_member", "This sign-in was a member's here before, and lets nobody in by itself any more.").
			WithHint("Ask an owner or admin of the organization for an invitation or a recovery link, and accept it with this sign-in.")
	}
	if ok, wait := s.admissions.Allow(string(i.ID)); !ok {
		return "", fault.New(fault.Limited, tooManyAttempts, "Too many new people came from this identity provider.").WithHint("Wait a little and sign in again.").WithRetry(wait)
	}
	name := who.Name
	if checkName("A name", name) != nil {
		name = "New member"
	}
	by, now := System("sign-in"), s.now()
	u := User{ID: id.NewUser(), Environment: i.Environment, Name: name, CreatedAt: now, Version: 1}
	w, err := s.Weigh(ctx, tx, by, Raise{}, true, Agreement{}) // the owners agreed to it when they set the provider up
	if err != nil {
		return "", err
	}
	if _, err := s.addUser(ctx, tx, by, w, u, NewUser{Environment: i.Environment, Organization: i.Organization, Name: name, Role: RoleMember}, false); err != nil {
		return "", err
	}
	ok, err := insertIdentity(ctx, tx, is, u.ID, now)
	if err == nil && !ok {
		err = fault.New(fault.Conflict, "identity_taken", "Somebody signed in with this at the same moment.").WithHint("Sign in again.")
	}
	e.Action, e.Actor, e.User, e.Object, e.Decision = "identity.added", audit.Actor{Kind: "user", ID: string(u.ID)}, u.ID, string(u.ID), ""
	s.audit.Append(tx, e)
	return u.ID, err
}

// enrollFederated makes an identity the first way in of the user of a link, and uses
// the link up.
func (s *Service) enrollFederated(ctx context.Context, linkID string, is identity, e audit.Entry) (login secret.Value, err error) {
	l, ok, err := selectLinkByID(ctx, s.db.Reader(), linkID, s.now())
	if err != nil {
		return secret.Value{}, sqldb.Wrap("read a link", err)
	}
	if !ok {
		return secret.Value{}, linkGone()
	}
	u, err := selectUser(ctx, s.db.Reader(), l.user)
	if err != nil {
		return secret.Value{}, sqldb.Wrap("read a user", err)
	}
	added := e
	added.Environment, added.Actor, added.User, added.Action, added.Object = u.Environment, audit.Actor{Kind: "user", ID: string(u.ID)}, u.ID, "identity.added", string(u.ID)
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if _, err := s.held(ctx, tx, is.provider); err != nil {
			return err
		}
		return s.enrolling(ctx, tx, l, added, func(ctx context.Context, tx *sqldb.Tx, first bool) error {
			if !first {
				return passkeyFirst()
			}
			if err := is.counts(ctx, tx, u.ID, linkGone()); err != nil {
				return err
			}
			left, err := takeFromLeaver(ctx, tx, is)
			if err != nil {
				return err
			}
			if left != "" {
				gone := added
				gone.Action, gone.User, gone.Object, gone.Detail = "identity.removed", left, string(left), is.detail()
				s.audit.Append(tx, gone)
			}
			if ok, err := insertIdentity(ctx, tx, is, u.ID, s.now()); err != nil || !ok {
				return orElse(err, identityTaken())
			}
			login, err = s.federatedLogin(ctx, tx, u, is, e)
			return err
		})
	})
	return login, sqldb.Wrap("enrol a user", err)
}

func identityTaken() error {
	return fault.New(fault.Conflict, "identity_taken", "This sign-in is somebody's already.").WithHint("Sign out at the identity provider, and sign in there as yourself.")
}

// addFederated makes an identity one more way in of the login that left for it.
func (s *Service) addFederated(ctx context.Context, p Person, login id.Login, is identity) error {
	if p.user == "" || p.login != login {
		return flowGone()
	}
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if _, err := s.held(ctx, tx, is.provider); err != nil {
			return err
		}
		if ok, err := lockUser(ctx, tx, p.user); err != nil || !ok {
			return orElse(err, unauthenticated())
		}
		if err := is.counts(ctx, tx, p.user, notFound("identity provider")); err != nil {
			return err
		}
		if ok, err := insertIdentity(ctx, tx, is, p.user, s.now()); err != nil || !ok {
			return orElse(err, identityTaken())
		}
		done := personEntry(p, "identity.added", string(p.user))
		done.Detail = is.detail()
		s.audit.Append(tx, done)
		return nil
	})
	return sqldb.Wrap("add a way to sign in", err)
}

// Identity is one of a person's ways in at an identity provider.
type Identity struct {
	Provider        IdentityProvider
	Issuer, Subject string
	CreatedAt, Used time.Time
}

// Identities lists them. A provider that is no longer there has only its id.
func (s *Service) Identities(ctx context.Context, p Person) ([]Identity, error) {
	if p.user == "" {
		return nil, unauthenticated()
	}
	rows, err := selectIdentities(ctx, s.db.Reader(), p.user)
	if err != nil {
		return nil, sqldb.Wrap("list identities", err)
	}
	var out []Identity
	for _, r := range rows {
		if p.confined != "" && r.organization != p.confined {
			continue
		}
		i, err := s.provider(ctx, s.db.Reader(), r.provider)
		if err != nil && fault.KindOf(err) != fault.NotFound {
			return nil, err
		}
		if err != nil {
			i = IdentityProvider{ID: r.provider, Issuer: r.issuer, Name: "A provider that is not set up any more"}
		}
		out = append(out, Identity{Provider: i, Issuer: r.issuer, Subject: r.subject, CreatedAt: r.created, Used: r.used})
	}
	return out, nil
}

// ForgetIdentity takes a sign-in at a provider from a person, and ends the logins
// that the provider made for them. It lowers what they can do, so it takes no proof;
// a person keeps a way in.
func (s *Service) ForgetIdentity(ctx context.Context, p Person, provider id.IdentityProvider, at, subject string) error {
	if err := p.Own(); err != nil {
		return err
	}
	err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if ok, err := lockUser(ctx, tx, p.user); err != nil || !ok {
			return orElse(err, unauthenticated())
		}
		is := identity{provider: provider, issuer: at, subject: subject}
		ok, err := deleteIdentity(ctx, tx, p.user, is, s.now())
		if err != nil || !ok {
			return orElse(err, notFound("sign-in"))
		}
		n, err := s.factors(ctx, tx, p.user)
		if err != nil {
			return err
		}
		if !n.any() {
			return fault.New(fault.Conflict, "last_factor", "This is your only way to sign in.").WithHint("Register a passkey first.")
		}
		if err := endLoginsAt(ctx, tx, p.user, provider, s.now()); err != nil {
			return err
		}
		e := personEntry(p, "identity.removed", string(p.user))
		e.Detail = is.detail()
		s.audit.Append(tx, e)
		return nil
	})
	return sqldb.Wrap("remove a way to sign in", err)
}
