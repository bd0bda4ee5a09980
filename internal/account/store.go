package account

import (
	"context"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Environments and organizations.

const (
	insertEnvironmentSQL = `insert into environment (id, name, operator_id, created_at, version) values ($1, $2, $3, $4, 1) on conflict (name) do nothing`
	environmentColumns   = `select id, name, operator_id, created_at, version from environment`
	listEnvironmentsSQL  = environmentColumns + ` order by id`
	environmentByIDSQL   = environmentColumns + ` where id = $1`

	insertOrganizationSQL = `insert into organization (id, environment_id, name, external_id, require_passkey, no_vending, created_at, version) values ($1, $2, $3, $4, $5, 0, $6, 1)`
	organizationColumns   = `select id, environment_id, name, external_id, require_passkey, no_vending, created_at, version from organization`
	organizationByIDSQL   = organizationColumns + ` where id = $1`
	organizationByNameSQL = organizationColumns + ` where environment_id = $1 and external_id = $2 and external_id <> ''`
	listOrganizationsSQL  = organizationColumns + ` where environment_id = $1 and id > $2 order by id limit $3`
	listOwnSQL            = organizationColumns + ` where environment_id = $1 and id > $2 and id in (select organization_id from membership where user_id = $4) order by id limit $3`
	updateOrganizationSQL = `update organization set name = $1, require_passkey = $2, no_vending = $5, version = version + 1 where id = $3 and version = $4`
	lockOrganizationSQL   = `update organization set version = version + 1 where id = $1`
)

// insertEnvironment reports whether the name was free.
func insertEnvironment(ctx context.Context, tx *sqldb.Tx, w Weighed, e Environment) (bool, error) {
	if err := w.For(string(e.ID)); err != nil {
		return false, err
	}
	return changed(tx.ExecContext(ctx, insertEnvironmentSQL, e.ID, e.Name, e.Operator, sqldb.Micros(e.CreatedAt)))
}

func scanEnvironment(row sqldb.Scanner) (Environment, error) {
	var e Environment
	var created int64
	err := row.Scan(&e.ID, &e.Name, &e.Operator, &created, &e.Version)
	e.CreatedAt = sqldb.Time(created)
	return e, err
}

func selectEnvironments(ctx context.Context, q sqldb.Querier) ([]Environment, error) {
	return sqldb.Collect(scanEnvironment)(q.QueryContext(ctx, listEnvironmentsSQL))
}

func selectEnvironment(ctx context.Context, q sqldb.Querier, env id.Environment) (Environment, error) {
	return scanEnvironment(q.QueryRowContext(ctx, environmentByIDSQL, env))
}

func insertOrganization(ctx context.Context, tx *sqldb.Tx, o Organization) error {
	_, err := tx.ExecContext(ctx, insertOrganizationSQL, o.ID, o.Environment, o.Name, o.ExternalID, number(o.RequirePasskey), sqldb.Micros(o.CreatedAt))
	return err
}

func scanOrganization(row sqldb.Scanner) (Organization, error) {
	var o Organization
	var require, still, created int64
	err := row.Scan(&o.ID, &o.Environment, &o.Name, &o.ExternalID, &require, &still, &created, &o.Version)
	o.RequirePasskey, o.NoVending, o.CreatedAt = require != 0, still != 0, sqldb.Time(created)
	return o, err
}

func selectOrganization(ctx context.Context, q sqldb.Querier, org id.Organization) (Organization, error) {
	return scanOrganization(q.QueryRowContext(ctx, organizationByIDSQL, org))
}

func selectOrganizationByExternalID(ctx context.Context, q sqldb.Querier, env id.Environment, external string) (Organization, error) {
	return scanOrganization(q.QueryRowContext(ctx, organizationByNameSQL, env, external))
}

// selectOrganizations lists those of env, or of them those of one user.
func selectOrganizations(ctx context.Context, q sqldb.Querier, env id.Environment, of id.User, after string, limit int) ([]Organization, error) {
	if of == "" {
		return sqldb.Collect(scanOrganization)(q.QueryContext(ctx, listOrganizationsSQL, env, after, limit))
	}
	return sqldb.Collect(scanOrganization)(q.QueryContext(ctx, listOwnSQL, env, after, limit, of))
}

func updateOrganization(ctx context.Context, tx *sqldb.Tx, w Weighed, o Organization) (bool, error) {
	if err := w.For(string(o.ID)); err != nil {
		return false, err
	}
	return changed(tx.ExecContext(ctx, updateOrganizationSQL, o.Name, number(o.RequirePasskey), o.ID, o.Version, number(o.NoVending)))
}

// lockOrganization makes changes to an organization's members wait for each
// other, so that two owners cannot remove one another.
func lockOrganization(ctx context.Context, tx *sqldb.Tx, org id.Organization) error {
	_, err := tx.ExecContext(ctx, lockOrganizationSQL, org)
	return err
}

// Users and members.

const (
	insertUserSQL = `insert into person (id, environment_id, email, name, external_id, disabled_at, created_at, version, made_by) values ($1, $2, $3, $4, $5, 0, $6, 1, $7)`
	userFields    = `p.id, p.environment_id, p.email, p.name, p.external_id, p.disabled_at, p.created_at, p.version`
	userColumns   = `select ` + userFields + ` from person p`
	userByIDSQL   = userColumns + ` where p.id = $1`
	// A user is seen in the environment where they were made and wherever they
	// are a member.
	userInSQL = userColumns + ` where p.id = $1 and (p.environment_id = $2 or exists (
		select 1 from membership m join organization o on o.id = m.organization_id where m.user_id = p.id and o.environment_id = $2))`
	userByExternalIDSQL = userColumns + ` where p.environment_id = $1 and p.external_id = $2 and p.external_id <> ''`
	usersByEmailSQL     = userColumns + ` where p.email = $1 and p.email <> '' order by p.id limit 2`
	listUsersSQL        = userColumns + ` where p.environment_id = $1 and p.id > $2 order by p.id limit $3`
	clashSQL            = `select count(*) from person where environment_id = $1 and id <> $2 and (email = $3 and email <> '' or external_id = $4 and external_id <> '')`
	disableSQL          = `update person set disabled_at = $1, version = version + 1 where id = $2 and disabled_at = 0`
	enableSQL           = `update person set disabled_at = 0, version = version + 1 where id = $1 and disabled_at <> 0`
	setProfileSQL       = `update person set name = $1, email = $2, version = version + 1 where id = $3 and disabled_at = 0`
	setTOTPEmailSQL     = `update totp set email = $1, version = version + 1 where user_id = $2`

	insertMemberSQL = `insert into membership (organization_id, user_id, role, created_at, version) values ($1, $2, $3, $4, 1) on conflict (organization_id, user_id) do nothing`
	setRoleSQL      = `update membership set role = $1, version = version + 1 where organization_id = $2 and user_id = $3`
	deleteMemberSQL = `delete from membership where organization_id = $1 and user_id = $2`
	roleSQL         = `select role from membership where organization_id = $1 and user_id = $2`
	roleNowSQL      = `select m.role from membership m join person p on p.id = m.user_id join organization o on o.id = m.organization_id
		where m.organization_id = $1 and m.user_id = $2 and o.environment_id = $3 and p.disabled_at = 0`
	holdRoleSQL = `select m.role from membership m join person p on p.id = m.user_id
		where m.organization_id = $1 and m.user_id = $2 and p.disabled_at = 0`
	otherOwnersSQL = `select count(*) from membership m join person p on p.id = m.user_id
		where m.organization_id = $1 and m.user_id <> $2 and m.role = 'owner' and p.disabled_at = 0`
	listMembersSQL = `select ` + userFields + `, m.organization_id, m.role from membership m join person p on p.id = m.user_id
		where m.organization_id = $1 and m.user_id > $2 order by m.user_id limit $3`
	placesSQL = `select m.organization_id, m.role, o.environment_id, o.id = e.operator_id from membership m
		join organization o on o.id = m.organization_id join environment e on e.id = o.environment_id where m.user_id = $1 order by m.organization_id`
	ownersSQL = `select distinct m.user_id from membership m join person p on p.id = m.user_id
		where m.role = 'owner' and p.disabled_at = 0 and (m.organization_id in (select organization_id from membership where user_id = $1)
			or m.organization_id = (select operator_id from environment where id = $2)) order by m.user_id`
)

// insertUser notes also which key made the user; empty: none.
func insertUser(ctx context.Context, tx *sqldb.Tx, u User, by id.Key) error {
	_, err := tx.ExecContext(ctx, insertUserSQL, u.ID, u.Environment, u.Email, u.Name, u.ExternalID, sqldb.Micros(u.CreatedAt), by)
	return err
}

func (u *User) fields(disabled, created *int64) []any {
	return []any{&u.ID, &u.Environment, &u.Email, &u.Name, &u.ExternalID, disabled, created, &u.Version}
}

func scanUser(row sqldb.Scanner) (User, error) {
	var u User
	var disabled, created int64
	err := row.Scan(u.fields(&disabled, &created)...)
	u.DisabledAt, u.CreatedAt = sqldb.Time(disabled), sqldb.Time(created)
	return u, err
}

func selectUser(ctx context.Context, q sqldb.Querier, user id.User) (User, error) {
	return scanUser(q.QueryRowContext(ctx, userByIDSQL, user))
}

func selectUserIn(ctx context.Context, q sqldb.Querier, env id.Environment, user id.User) (User, error) {
	return scanUser(q.QueryRowContext(ctx, userInSQL, user, env))
}

func selectUserByExternalID(ctx context.Context, q sqldb.Querier, env id.Environment, external string) (User, error) {
	return scanUser(q.QueryRowContext(ctx, userByExternalIDSQL, env, external))
}

func selectUsersByEmail(ctx context.Context, q sqldb.Querier, email string) ([]User, error) {
	return sqldb.Collect(scanUser)(q.QueryContext(ctx, usersByEmailSQL, email))
}

func selectUsers(ctx context.Context, q sqldb.Querier, env id.Environment, after string, limit int) ([]User, error) {
	return sqldb.Collect(scanUser)(q.QueryContext(ctx, listUsersSQL, env, after, limit))
}

// clashes reports whether another user of the environment has u's e-mail or
// external id.
func clashes(ctx context.Context, tx *sqldb.Tx, u User) (bool, error) {
	var n int64
	err := tx.QueryRowContext(ctx, clashSQL, u.Environment, u.ID, u.Email, u.ExternalID).Scan(&n)
	return n > 0, err
}

// disable and enable report whether that changed anything.

func disable(ctx context.Context, tx *sqldb.Tx, w Weighed, user id.User, at int64) (bool, error) {
	if err := w.For(string(user)); err != nil {
		return false, err
	}
	return changed(tx.ExecContext(ctx, disableSQL, at, user))
}

func enable(ctx context.Context, tx *sqldb.Tx, w Weighed, user id.User) (bool, error) {
	if err := w.For(string(user)); err != nil {
		return false, err
	}
	return changed(tx.ExecContext(ctx, enableSQL, user))
}

func setProfile(ctx context.Context, tx *sqldb.Tx, w Weighed, user id.User, name, email string) (bool, error) {
	if err := w.For(string(user)); err != nil {
		return false, err
	}
	ok, err := changed(tx.ExecContext(ctx, setProfileSQL, name, email, user))
	if err != nil || !ok {
		return ok, err
	}
	_, err = tx.ExecContext(ctx, setTOTPEmailSQL, email, user)
	return true, err
}

func insertMember(ctx context.Context, tx *sqldb.Tx, w Weighed, org id.Organization, user id.User, r Role, at int64) (bool, error) {
	if err := w.For(string(user)); err != nil {
		return false, err
	}
	return changed(tx.ExecContext(ctx, insertMemberSQL, org, user, string(r), at))
}

func setRole(ctx context.Context, tx *sqldb.Tx, w Weighed, org id.Organization, user id.User, r Role) error {
	if err := w.For(string(user)); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, setRoleSQL, string(r), org, user)
	return err
}

func deleteMember(ctx context.Context, tx *sqldb.Tx, w Weighed, org id.Organization, user id.User) error {
	if err := w.For(string(user)); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, deleteMemberSQL, org, user)
	return err
}

func selectRole(ctx context.Context, q sqldb.Querier, org id.Organization, user id.User) (Role, error) {
	var r Role
	err := q.QueryRowContext(ctx, roleSQL, org, user).Scan(&r)
	return r, err
}

// selectRoleNow gives the role of a user who is enabled; none if they have none.
func selectRoleNow(ctx context.Context, q sqldb.Querier, env id.Environment, org id.Organization, user id.User) (Role, error) {
	var r Role
	err := q.QueryRowContext(ctx, roleNowSQL, org, user, env).Scan(&r)
	if sqldb.NoRows(err) {
		return "", nil
	}
	return r, err
}

func selectHeldRole(ctx context.Context, tx *sqldb.Tx, org id.Organization, user id.User) (Role, error) {
	var r Role
	err := tx.QueryRowContext(ctx, holdRoleSQL+tx.ShareLock(), org, user).Scan(&r)
	return r, err
}

// hasOtherOwner reports whether org has an enabled owner beside user.
func hasOtherOwner(ctx context.Context, tx *sqldb.Tx, org id.Organization, user id.User) (bool, error) {
	var n int64
	err := tx.QueryRowContext(ctx, otherOwnersSQL, org, user).Scan(&n)
	return n > 0, err
}

func selectMembers(ctx context.Context, q sqldb.Querier, org id.Organization, after string, limit int) ([]Member, error) {
	return sqldb.Collect(func(row sqldb.Scanner) (Member, error) {
		var m Member
		var disabled, created int64
		err := row.Scan(append(m.User.fields(&disabled, &created), &m.Organization, &m.Role)...)
		m.DisabledAt, m.CreatedAt = sqldb.Time(disabled), sqldb.Time(created)
		return m, err
	})(q.QueryContext(ctx, listMembersSQL, org, after, limit))
}

// selectPlaces lists where a user is a member.
func selectPlaces(ctx context.Context, q sqldb.Querier, user id.User) ([]Membership, error) {
	return sqldb.Collect(func(row sqldb.Scanner) (Membership, error) {
		var m Membership
		err := row.Scan(&m.Organization, &m.Role, &m.Environment, &m.operates)
		return m, err
	})(q.QueryContext(ctx, placesSQL, user))
}

// selectOwners lists who must hear what happens to user: the owners of their
// organizations, and of the one that runs their environment.
func selectOwners(ctx context.Context, q sqldb.Querier, user id.User, home id.Environment) ([]id.User, error) {
	return sqldb.Collect(func(row sqldb.Scanner) (id.User, error) {
		var u id.User
		err := row.Scan(&u)
		return u, err
	})(q.QueryContext(ctx, ownersSQL, user, home))
}

// What every query shares.

// changed reports whether a statement touched a row.
func changed(res sqldb.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// number is how a boolean column is written.
func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
