package account

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

const (
	insertProviderSQL = `insert into identity_provider (id, environment_id, organization_id, name, issuer, client_id, envelope, sealed_version, admits, created_at, version)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1)`
	providerColumns   = `select id, environment_id, organization_id, name, issuer, client_id, envelope, sealed_version, admits, created_at, version from identity_provider`
	providerSQL       = providerColumns + ` where id = $1`
	providersSQL      = providerColumns + ` where organization_id = $1 order by id`
	providersOfSQL    = providerColumns + ` where organization_id in (select organization_id from membership where user_id = $1) order by organization_id, id`
	countProvidersSQL = `select count(*) from identity_provider where organization_id = $1`
	// A secret that stays is not written: its key may have changed since it was read.
	updateProviderSQL = `update identity_provider set envelope = case when sealed_version = $2 then envelope else $1 end, sealed_version = $2, admits = $3, version = version + 1
		where id = $4 and version = $5`
	deleteProviderSQL = `delete from identity_provider where id = $1`
	forgetThereSQL    = `delete from person_identity where provider_id = $1`
	forgetCodesSQL    = `delete from fresh_code where provider_id = $1`
	// A command line that a login of the provider has let in, and that has not come for its own.
	forgetLinesSQL = `delete from cli_request where provider_id = $1 and ($2 = '' or user_id = $2)`
	// What somebody did at another issuer than the operator's provider has now.
	endFormerSQL = `update login set revoked_at = $1, version = version + 1 where provider_id = 'operator' and revoked_at = 0
		and not exists (select 1 from person_identity i where i.provider_id = 'operator' and i.issuer = $2 and i.user_id = login.user_id)`
	forgetFormerLinesSQL = `delete from cli_request where provider_id = 'operator'
		and not exists (select 1 from person_identity i where i.provider_id = 'operator' and i.issuer = $1 and i.user_id = cli_request.user_id)`
	forgetFormerCodesSQL = `delete from fresh_code where provider_id = 'operator' and issuer <> $1`

	endThereSQL = `update login set revoked_at = $1, version = version + 1 where provider_id = $2 and revoked_at = 0`

	endAtSQL = `update login set revoked_at = $1, version = version + 1 where user_id = $2 and provider_id = $3 and revoked_at = 0`

	insertIdentitySQL = `insert into person_identity (provider_id, issuer, subject, user_id, organization_id, created_at, used_at) values ($1, $2, $3, $4, $5, $6, $6)
		on conflict (provider_id, issuer, subject) do nothing`
	identitySQL    = `select user_id from person_identity where provider_id = $1 and issuer = $2 and subject = $3`
	useIdentitySQL = `update person_identity set used_at = $1 where provider_id = $2 and issuer = $3 and subject = $4 and user_id = $5`
	identitiesSQL  = `select provider_id, issuer, subject, organization_id, created_at, used_at from person_identity where user_id = $1 order by created_at, provider_id, subject`
	// What ends is remembered of an organization's own providers.
	rememberSQL = `insert into former_identity (organization_id, issuer, subject, user_id, ended_at)
		select organization_id, issuer, subject, user_id, cast($1 as bigint) from person_identity where organization_id <> '' and provider_id = $2 and ($3 = '' or user_id = $3 and issuer = $4 and subject = $5)
		on conflict (organization_id, issuer, subject) do update set user_id = excluded.user_id, ended_at = excluded.ended_at`
	// An organization may have an issuer twice: who left is known by the other one too.
	formerSQL = `select user_id from former_identity where organization_id = $1 and issuer = $2 and subject = $3
		union all select user_id from person_identity i where organization_id = $1 and issuer = $2 and subject = $3
		and not exists (select 1 from membership m where m.organization_id = i.organization_id and m.user_id = i.user_id) limit 1`
	recallSQL = `delete from former_identity where organization_id = $1 and issuer = $2 and subject = $3`
	// Somebody who has left the organization has no more use for its provider's word.
	leftSQL = `delete from person_identity where organization_id <> '' and provider_id = $1 and issuer = $2 and subject = $3
		and not exists (select 1 from membership m where m.organization_id = person_identity.organization_id and m.user_id = person_identity.user_id) returning user_id`
	deleteIdentitySQL = `delete from person_identity where user_id = $1 and provider_id = $2 and issuer = $3 and subject = $4`

	putCodeSQL = `insert into fresh_code (login_id, code_hash, provider_id, issuer, subject, proved_at, expires_at) values ($1, $2, $3, $4, $5, $6, $7)
		on conflict (login_id) do update set code_hash = excluded.code_hash, provider_id = excluded.provider_id, issuer = excluded.issuer, subject = excluded.subject,
			proved_at = excluded.proved_at, expires_at = excluded.expires_at`
	codeSQL = `select c.code_hash, c.provider_id, c.issuer, c.subject, c.proved_at, i.organization_id, i.user_id from fresh_code c
		join person_identity i on i.provider_id = c.provider_id and i.issuer = c.issuer and i.subject = c.subject where c.login_id = $1 and c.expires_at > $2`
	takeCodeSQL   = `delete from fresh_code where login_id = $1 and code_hash = $2 and expires_at > $3`
	sweepCodesSQL = `delete from fresh_code where expires_at <= $1`
)

func insertProvider(ctx context.Context, tx *sqldb.Tx, w Weighed, i IdentityProvider) error {
	if err := w.For(string(i.ID)); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, insertProviderSQL, i.ID, i.Environment, i.Organization, i.Name, i.Issuer, i.ClientID, i.envelope, i.sealed, number(i.Admits), sqldb.Micros(i.CreatedAt))
	return err
}

func scanProvider(row sqldb.Scanner) (IdentityProvider, error) {
	var i IdentityProvider
	var admits, created int64
	err := row.Scan(&i.ID, &i.Environment, &i.Organization, &i.Name, &i.Issuer, &i.ClientID, &i.envelope, &i.sealed, &admits, &created, &i.Version)
	i.Admits, i.CreatedAt = admits != 0, sqldb.Time(created)
	return i, err
}

func selectProvider(ctx context.Context, q sqldb.Querier, provider id.IdentityProvider) (IdentityProvider, error) {
	return scanProvider(q.QueryRowContext(ctx, providerSQL, provider))
}

// holdProvider is selectProvider for a transaction, to the end of which the provider
// stays as it is.
func holdProvider(ctx context.Context, tx *sqldb.Tx, provider id.IdentityProvider) (IdentityProvider, error) {
	return scanProvider(tx.QueryRowContext(ctx, providerSQL+tx.ShareLock(), provider))
}

func selectProviders(ctx context.Context, q sqldb.Querier, org id.Organization) ([]IdentityProvider, error) {
	return sqldb.Collect(scanProvider)(q.QueryContext(ctx, providersSQL, org))
}

// selectProvidersOf lists those of the organizations that a user is a member of.
func selectProvidersOf(ctx context.Context, q sqldb.Querier, user id.User) ([]IdentityProvider, error) {
	return sqldb.Collect(scanProvider)(q.QueryContext(ctx, providersOfSQL, user))
}

func countProviders(ctx context.Context, tx *sqldb.Tx, org id.Organization) (n int, err error) {
	err = tx.QueryRowContext(ctx, countProvidersSQL, org).Scan(&n)
	return n, err
}

func updateProvider(ctx context.Context, tx *sqldb.Tx, w Weighed, i IdentityProvider) (bool, error) {
	if err := w.For(string(i.ID)); err != nil {
		return false, err
	}
	return changed(tx.ExecContext(ctx, updateProviderSQL, i.envelope, i.sealed, number(i.Admits), i.ID, i.Version))
}

// deleteProvider forgets a provider, who is who there, codes of fresh sign-ins, and
// command lines that its logins let in.
func deleteProvider(ctx context.Context, tx *sqldb.Tx, provider id.IdentityProvider, at time.Time) (found bool, people int64, err error) {
	if found, err = changed(tx.ExecContext(ctx, deleteProviderSQL, provider)); err != nil || !found {
		return found, 0, err
	}
	if _, err := tx.ExecContext(ctx, forgetCodesSQL, provider); err != nil {
		return true, 0, err
	}
	if _, err := tx.ExecContext(ctx, forgetLinesSQL, provider, ""); err != nil {
		return true, 0, err
	}
	if err := remember(ctx, tx, "", identity{provider: provider}, at); err != nil {
		return true, 0, err
	}
	res, err := tx.ExecContext(ctx, forgetThereSQL, provider)
	if err != nil {
		return true, 0, err
	}
	people, err = res.RowsAffected()
	return true, people, err
}

func revokeProviderLogins(ctx context.Context, tx *sqldb.Tx, provider id.IdentityProvider, at time.Time) (int64, error) {
	res, err := tx.ExecContext(ctx, endThereSQL, sqldb.Micros(at), provider)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// endFormer ends what the operator's provider made for people who are not known at
// issuer.
func endFormer(ctx context.Context, tx *sqldb.Tx, issuer string, at time.Time) (int64, error) {
	for _, query := range []string{forgetFormerLinesSQL, forgetFormerCodesSQL} {
		if _, err := tx.ExecContext(ctx, query, issuer); err != nil {
			return 0, err
		}
	}
	res, err := tx.ExecContext(ctx, endFormerSQL, sqldb.Micros(at), issuer)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func endLoginsAt(ctx context.Context, tx *sqldb.Tx, user id.User, provider id.IdentityProvider, at time.Time) error {
	if _, err := tx.ExecContext(ctx, forgetLinesSQL, provider, user); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, endAtSQL, sqldb.Micros(at), user, provider)
	return err
}

// identity is who somebody is at a provider.
type identity struct {
	provider        id.IdentityProvider
	issuer, subject string
	organization    id.Organization // of the provider
	created, used   time.Time
}

// counts gives refusal where the user is no member of the organization whose provider
// it is.
func (i identity) counts(ctx context.Context, tx *sqldb.Tx, user id.User, refusal error) error {
	if i.organization == "" {
		return nil
	}
	_, err := selectRole(ctx, tx, i.organization, user)
	if sqldb.NoRows(err) {
		err = refusal
	}
	return err
}

// detail says which it is, for the audit.
func (i identity) detail() map[string]string {
	return map[string]string{"provider": string(i.provider), "issuer": i.issuer, "subject": i.subject}
}

// remember keeps whose an identity was that ends; without a user, all of its provider.
func remember(ctx context.Context, tx *sqldb.Tx, user id.User, i identity, at time.Time) error {
	_, err := tx.ExecContext(ctx, rememberSQL, sqldb.Micros(at), i.provider, user, i.issuer, i.subject)
	return err
}

// former gives whose an identity was that has ended, or of somebody who has left; empty:
// nobody's.
func former(ctx context.Context, q sqldb.Querier, i identity) (user id.User, err error) {
	err = q.QueryRowContext(ctx, formerSQL, i.organization, i.issuer, i.subject).Scan(&user)
	if sqldb.NoRows(err) {
		return "", nil
	}
	return user, err
}

// takeFromLeaver frees an identity whose holder has left the organization, and gives who
// that was; empty: nobody.
func takeFromLeaver(ctx context.Context, tx *sqldb.Tx, i identity) (user id.User, err error) {
	err = tx.QueryRowContext(ctx, leftSQL, i.provider, i.issuer, i.subject).Scan(&user)
	if sqldb.NoRows(err) {
		return "", nil
	}
	return user, err
}

// insertIdentity reports whether it was nobody's yet. What was remembered of it is
// settled by whoever let the user in.
func insertIdentity(ctx context.Context, tx *sqldb.Tx, i identity, user id.User, at time.Time) (bool, error) {
	if _, err := tx.ExecContext(ctx, recallSQL, i.organization, i.issuer, i.subject); err != nil {
		return false, err
	}
	return changed(tx.ExecContext(ctx, insertIdentitySQL, i.provider, i.issuer, i.subject, user, i.organization, sqldb.Micros(at)))
}

// selectIdentity gives whose an identity is; empty: nobody's.
func selectIdentity(ctx context.Context, q sqldb.Querier, i identity) (user id.User, err error) {
	err = q.QueryRowContext(ctx, identitySQL, i.provider, i.issuer, i.subject).Scan(&user)
	if sqldb.NoRows(err) {
		return "", nil
	}
	return user, err
}

// useIdentity reports whether it is still the user's.
func useIdentity(ctx context.Context, tx *sqldb.Tx, i identity, user id.User, at time.Time) (bool, error) {
	return changed(tx.ExecContext(ctx, useIdentitySQL, sqldb.Micros(at), i.provider, i.issuer, i.subject, user))
}

func selectIdentities(ctx context.Context, q sqldb.Querier, user id.User) ([]identity, error) {
	return sqldb.Collect(func(row sqldb.Scanner) (identity, error) {
		var i identity
		var created, used int64
		err := row.Scan(&i.provider, &i.issuer, &i.subject, &i.organization, &created, &used)
		i.created, i.used = sqldb.Time(created), sqldb.Time(used)
		return i, err
	})(q.QueryContext(ctx, identitiesSQL, user))
}

func deleteIdentity(ctx context.Context, tx *sqldb.Tx, user id.User, i identity, at time.Time) (bool, error) {
	if err := remember(ctx, tx, user, i, at); err != nil {
		return false, err
	}
	return changed(tx.ExecContext(ctx, deleteIdentitySQL, user, i.provider, i.issuer, i.subject))
}

// freshCode is what a fresh sign-in at a provider gave a login.
type freshCode struct {
	hash   []byte
	who    identity
	user   id.User // whose the identity is now
	proved time.Time
}

func putCode(ctx context.Context, tx *sqldb.Tx, login id.Login, c freshCode, now time.Time) error {
	if _, err := tx.ExecContext(ctx, sweepCodesSQL, sqldb.Micros(now)); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, putCodeSQL, login, c.hash, c.who.provider, c.who.issuer, c.who.subject, sqldb.Micros(c.proved), sqldb.Micros(now.Add(FreshCodeAge)))
	return err
}

func selectCode(ctx context.Context, q sqldb.Querier, login id.Login, now time.Time) (freshCode, error) {
	var c freshCode
	var proved int64
	err := q.QueryRowContext(ctx, codeSQL, login, sqldb.Micros(now)).Scan(&c.hash, &c.who.provider, &c.who.issuer, &c.who.subject, &proved, &c.who.organization, &c.user)
	c.proved = sqldb.Time(proved)
	return c, err
}

func takeCode(ctx context.Context, tx *sqldb.Tx, login id.Login, c freshCode, now time.Time) (bool, error) {
	return changed(tx.ExecContext(ctx, takeCodeSQL, login, c.hash, sqldb.Micros(now)))
}
