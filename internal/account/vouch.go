package account

import (
	"context"
	"crypto/subtle"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// A product's users need not know of Ambit. Its back end can say who they are: it
// gets a link with which one user, whom a key of this environment made, signs in
// once to connect accounts. Such a sign-in counts in one organization, for half an
// hour, and for nothing that raises authority: it proves no presence, so that it
// approves nothing, and of the permissions of its role it has those in vouchedMay.
// Nobody is vouched for who could do more by themselves: owners and admins, and
// whoever has a passkey or an authenticator app. All of that is looked at when the
// link is made, when it is followed, and the role at every request.

// vouchedMay lists what a person who is signed in on an application's word may do
// as far as their role lets them.
func vouchedMay(p Permission) bool { return p == UseOwn || p == View || p == ViewConnections }

// vouchable reports whether somebody with this role may be vouched for.
func vouchable(r Role) bool { return r == RoleMember || r == RoleApprover || r == RoleAuditor }

func vouchedOnly() error {
	return fault.New(fault.Denied, "sign_in_required", "You are here on the word of an application, which is enough to connect an account and nothing else.").
		WithHint("Sign in by yourself for this.")
}

// maxVouched bounds the links of one user that are open at once.
const maxVouched = 20

const (
	insertVouchSQL = `insert into vouch_link (token_hash, environment_id, organization_id, user_id, key_id, next, created_at, expires_at, providers) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)`
	sweepVouchSQL  = `delete from vouch_link where expires_at <= $1`
	countVouchSQL  = `select count(*) from vouch_link where user_id = $1`
	vouchFields    = `token_hash, environment_id, organization_id, user_id, key_id, next, expires_at, providers`
	vouchSQL       = `select ` + vouchFields + ` from vouch_link where token_hash = $1 and expires_at > $2`
	takeVouchSQL   = `delete from vouch_link where token_hash = $1 and expires_at > $2 returning ` + vouchFields
	madeBySQL      = `select made_by from person where id = $1 and environment_id = $2`
	vouchingKeySQL = `select name from api_key where id = $1 and revoked_at = 0 and (expires_at = 0 or expires_at > $2)`
)

type vouch struct {
	environment  id.Environment
	organization id.Organization
	user         id.User
	key          id.Key
	next         string
	providers    []string // at which the user may connect; none: at all
	expires      time.Time
}

// Vouch gives a link with which a user signs in once, on the word of the key that
// asks. It leads to next, a page of ours, and is enough to connect at these providers,
// by their ids; at all of them where none is named. Only a key with the scope for it asks,
// only for an active member of org who was made by a key of its environment.
func (s *Service) Vouch(ctx context.Context, by Actor, org id.Organization, user id.User, next string, providers ...string) (linkURL secret.Value, err error) {
	if by.kind != "api_key" {
		return secret.Value{}, fault.New(fault.Denied, "api_key_required", "Only an application's key vouches for its users.")
	}
	if err := by.May(org, VouchUsers); err != nil {
		return secret.Value{}, err
	}
	token, now := secret.Token(vouchPrefix), s.now()
	hash := token.Hash()
	v := vouch{environment: by.env, organization: org, user: user, key: by.key.id, next: next, providers: providers}
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if ok, err := lockUser(ctx, tx, user); err != nil || !ok {
			return orElse(err, notFound("user"))
		}
		if err := s.mayVouch(ctx, tx, v); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, sweepVouchSQL, sqldb.Micros(now)); err != nil {
			return err
		}
		var open int
		if err := tx.QueryRowContext(ctx, countVouchSQL, user).Scan(&open); err != nil {
			return err
		}
		if open >= maxVouched {
			return fault.New(fault.Limited, "too_many_links", "The user has many sign-in links that nobody has followed.").
				WithHint("Ask for one when the user needs it.").WithRetry(VouchAge)
		}
		if _, err := tx.ExecContext(ctx, insertVouchSQL, hash[:], v.environment, org, user, v.key, next, sqldb.Micros(now), sqldb.Micros(now.Add(VouchAge)), strings.Join(providers, " ")); err != nil {
			return err
		}
		e := entry(by, v.environment, org, "user.vouched", string(user))
		e.User = user
		if len(providers) > 0 {
			e.Detail = map[string]string{"providers": strings.Join(providers, " ")}
		}
		s.audit.Append(tx, e)
		return nil
	})
	if err != nil {
		return secret.Value{}, sqldb.Wrap("vouch for a user", err)
	}
	return vouchURL(s.base, token), nil
}

// mayVouch holds a user against all that must be so for an application's word to
// count for them.
func (s *Service) mayVouch(ctx context.Context, tx *sqldb.Tx, v vouch) error {
	now, err := selectRoleNow(ctx, tx, v.environment, v.organization, v.user)
	if err != nil || now == "" {
		return orElse(err, notFound("user"))
	}
	var made id.Key
	if err := tx.QueryRowContext(ctx, madeBySQL, v.user, v.environment).Scan(&made); err != nil || made == "" {
		if err == nil || sqldb.NoRows(err) {
			err = fault.New(fault.Denied, "not_made_by_application", "The user was not made by an API key of this environment.").WithHint("They sign in by themselves.")
		}
		return err
	}
	places, err := selectPlaces(ctx, tx, v.user)
	if err != nil {
		return err
	}
	for _, m := range places {
		if !vouchable(m.Role) {
			return fault.New(fault.Denied, "role_not_vouched", "Nobody vouches for an owner or admin.").WithHint("They sign in by themselves.")
		}
	}
	n, err := s.factors(ctx, tx, v.user)
	if err == nil && n.any() {
		err = fault.New(fault.Denied, "already_enrolled", "This user can sign in by themselves.").WithHint("Send them to the page without a link.")
	}
	return err
}

// Voucher is what a link on an application's word says to whoever opens it.
type Voucher struct {
	User             id.User
	Name             string
	OrganizationName string
	KeyName          string // of the application's key
	ExpiresAt        time.Time
}

func vouchGone() error {
	return fault.New(fault.Expired, "link_expired", "This link was used, or is too old.").WithHint("Go back to the application that you came from and start again.")
}

func scanVouch(row sqldb.Scanner, hash [32]byte) (vouch, error) {
	var v vouch
	var stored []byte
	var expires int64
	var providers string
	err := row.Scan(&stored, &v.environment, &v.organization, &v.user, &v.key, &v.next, &expires, &providers)
	v.providers = strings.Fields(providers)
	if v.expires = sqldb.Time(expires); sqldb.NoRows(err) || err == nil && subtle.ConstantTimeCompare(stored, hash[:]) != 1 {
		err = vouchGone()
	}
	return v, err
}

// Voucher looks at a link without using it up.
func (s *Service) Voucher(ctx context.Context, token secret.Value) (Voucher, error) {
	if !secret.IsToken(token, vouchPrefix) {
		return Voucher{}, vouchGone()
	}
	hash, q := token.Hash(), s.db.Reader()
	v, err := scanVouch(q.QueryRowContext(ctx, vouchSQL, hash[:], sqldb.Micros(s.now())), hash)
	if err != nil {
		return Voucher{}, sqldb.Wrap("read a link", err)
	}
	u, err := selectUser(ctx, q, v.user)
	if err != nil {
		return Voucher{}, sqldb.Wrap("read a user", err)
	}
	o, err := selectOrganization(ctx, q, v.organization)
	if err != nil {
		return Voucher{}, sqldb.Wrap("read an organization", err)
	}
	key, err := s.vouchingKey(ctx, q, v.key)
	return Voucher{User: u.ID, Name: u.Name, OrganizationName: o.Name, KeyName: key, ExpiresAt: v.expires}, err
}

// vouchingKey gives the name of the key whose word it is; a key that was revoked
// has none.
func (s *Service) vouchingKey(ctx context.Context, q sqldb.Querier, key id.Key) (string, error) {
	var name string
	err := q.QueryRowContext(ctx, vouchingKeySQL, key, sqldb.Micros(s.now())).Scan(&name)
	if sqldb.NoRows(err) {
		return "", vouchGone()
	}
	return name, sqldb.Wrap("read an API key", err)
}

// FollowVouch uses a link up and signs its user in, for what [Service.Vouch] says.
// Whoever is signed in as somebody else stays that, and the link stays good: it
// may have been sent to make them connect their account for another (threats.md
// O1). Whoever is signed in as this user already gets no login, since theirs is no
// less.
func (s *Service) FollowVouch(ctx context.Context, p Person, token secret.Value, address string) (login secret.Value, next string, err error) {
	if !secret.IsToken(token, vouchPrefix) {
		return secret.Value{}, "", vouchGone()
	}
	hash := token.Hash()
	err = s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		login = secret.Value{}
		v, err := scanVouch(tx.QueryRowContext(ctx, takeVouchSQL, hash[:], sqldb.Micros(s.now())), hash)
		if err != nil {
			return err
		}
		if p.user != "" && p.user != v.user && !p.Vouched() {
			return fault.New(fault.Conflict, "signed_in_as_other", "You are signed in as "+p.name+", and this link is somebody else's.").
				WithHint("If it is meant for you, sign out first and open it again.")
		}
		if ok, err := lockUser(ctx, tx, v.user); err != nil || !ok {
			return orElse(err, vouchGone())
		}
		if err := s.mayVouch(ctx, tx, v); err != nil {
			return err
		}
		if _, err := s.vouchingKey(ctx, tx, v.key); err != nil {
			return err
		}
		next = v.next
		if p.user != v.user || p.Vouched() {
			if login, err = s.newLogin(ctx, tx, loginRow{user: v.user, method: MethodVouched, organization: v.organization, providers: strings.Join(v.providers, " "), address: address}); err != nil {
				return err
			}
		}
		s.audit.Append(tx, audit.Entry{Environment: v.environment, Organization: v.organization, Actor: audit.Actor{Kind: "user", ID: string(v.user)}, User: v.user,
			Action: "signin.vouched", Object: string(v.user), Address: address, Detail: map[string]string{"vouched_by": string(v.key)}})
		return nil
	})
	return login, next, sqldb.Wrap("sign a user in", err)
}
