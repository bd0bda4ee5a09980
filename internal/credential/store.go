package credential

import (
	"context"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

// row is a credential as stored. The envelope opens only in its place.
type row struct {
	connection   id.Connection
	environment  id.Environment
	organization id.Organization
	user         id.User
	provider     string
	kind         provider.Auth
	version      int64
	envelope     []byte
	expiresAt    time.Time // zero: does not expire, or nobody said
	refreshable  bool
	scopes       []string
	obtainedAt   time.Time
	leaseOwner   string
	leaseUntil   time.Time
	attemptAt    time.Time // a refresh of this version was started and not finished
	failures     int
	nextAttempt  time.Time
	lastError    string
	revokeState  string
	revokeTries  int
	revokeNext   time.Time
	keepAt       time.Time // when an idle grant is refreshed; zero: never
	checkAt      time.Time // when the credential is tried; zero: never
}

func (r row) place() vault.Place {
	return vault.Place{Environment: r.environment, Organization: r.organization, User: r.user, Kind: "credential", Object: string(r.connection),
		Version: r.version, Provider: r.provider}
}

// keeps lists what this room has sealed.
func keeps() []vault.Sealed {
	return []vault.Sealed{
		{
			Table: "credential", Column: "envelope", Key: []string{"connection_id"},
			Fields: `s.connection_id, s.environment_id, s.organization_id, s.user_id, s.provider, s.version`,
			Place: func(scan func(dest ...any) error) (vault.Place, error) {
				var r row
				err := scan(&r.connection, &r.environment, &r.organization, &r.user, &r.provider, &r.version)
				return r.place(), err
			},
		},
		{
			Table: "oauth_flow", Column: "envelope", Key: []string{"id"}, Fields: `s.id, s.environment_id, s.organization_id, s.started_by, s.provider`,
			Place: func(scan func(dest ...any) error) (vault.Place, error) {
				var f flow
				err := scan(&f.id, &f.environment, &f.organization, &f.startedBy, &f.provider)
				return f.place(), err
			},
		},
	}
}

// clockSkew is how far a provider's clock may be ahead of ours.
const clockSkew = 5 * time.Second

// earlyWindow is how long before its end a token counts as stale: a fifth of
// its life, at most five minutes, and the skew, but never more than half of its
// life, or a short token would be stale when it comes. It differs by up to a tenth
// from one credential to the next, so that those that were made together are not
// refreshed together (oauth.md §3.1 rule 11).
func (r row) earlyWindow() time.Duration {
	life := r.expiresAt.Sub(r.obtainedAt)
	return min(spread(min(5*time.Minute, life/5), r)+clockSkew, life/2)
}

func (r row) stale(now time.Time) bool {
	return !r.expiresAt.IsZero() && !now.Before(r.expiresAt.Add(-r.earlyWindow()))
}

func (r row) expired(now time.Time) bool {
	return !r.expiresAt.IsZero() && !now.Before(r.expiresAt)
}

// leased reports whether somebody is refreshing this version.
func (r row) leased(now time.Time) bool { return r.leaseOwner != "" && !r.leaseUntil.Before(now) }

const rowColumns = `connection_id, environment_id, organization_id, user_id, provider, kind, version, envelope, expires_at, refreshable, scopes,
	obtained_at, lease_owner, lease_until, attempt_started_at, failures, next_attempt_at, last_error, revoke_state, revoke_attempts, revoke_next_at,
	keep_at, check_at`

const (
	loadRowSQL   = `select ` + rowColumns + ` from credential where connection_id = $1`
	insertRowSQL = `insert into credential (` + rowColumns + `)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, '', 0, 0, 0, 0, '', '', 0, 0, $13, $14)
on conflict (connection_id) do update set kind = excluded.kind, version = excluded.version, envelope = excluded.envelope,
	expires_at = excluded.expires_at, refreshable = excluded.refreshable, scopes = excluded.scopes, obtained_at = excluded.obtained_at,
	lease_owner = '', lease_until = 0, attempt_started_at = 0, failures = 0, next_attempt_at = 0, last_error = '',
	revoke_state = '', revoke_attempts = 0, revoke_next_at = 0, keep_at = excluded.keep_at, check_at = excluded.check_at
where credential.version = excluded.version - 1`
	leaseSQL = `update credential set lease_owner = $3, lease_until = $4, attempt_started_at = $5
where connection_id = $1 and version = $2 and revoke_state = '' and lease_owner = $6`
	prolongLeaseSQL   = `update credential set lease_until = $4 where connection_id = $1 and version = $2 and lease_owner = $3`
	releaseLeasesSQL  = `update credential set lease_owner = '', lease_until = 0 where lease_owner <> ''`
	storeRefreshedSQL = `update credential set version = version + 1, envelope = $3, expires_at = $4, refreshable = $5, scopes = $6, obtained_at = $7,
	lease_owner = '', lease_until = 0, attempt_started_at = 0, failures = 0, next_attempt_at = 0, last_error = '', keep_at = $8
where connection_id = $1 and version = $2`
	storeFailureSQL = `update credential set lease_owner = '', lease_until = 0, attempt_started_at = case when $6 = 1 then attempt_started_at else 0 end,
	failures = failures + 1, next_attempt_at = $4, last_error = $5, keep_at = case when $7 = 1 then $4 else keep_at end
where connection_id = $1 and version = $2 and lease_owner = $3`
	dueRevocationsSQL = `select ` + rowColumns + ` from credential where revoke_state = 'pending' and revoke_next_at <= $1 order by revoke_next_at limit 40`
	setRevokeSQL      = `update credential set revoke_state = $2, revoke_attempts = revoke_attempts + 1, revoke_next_at = $3 where connection_id = $1`
	beginRevokeSQL    = `update credential set revoke_state = 'pending', revoke_attempts = 0, revoke_next_at = $2 where connection_id = $1`
	destroySQL        = `update credential set envelope = null, refreshable = $2, revoke_state = $3, revoke_next_at = 0, keep_at = 0, check_at = 0 where connection_id = $1`
	destroyVersionSQL = destroySQL + ` and version = $4`
)

func scanRow(from sqldb.Scanner) (row, error) {
	var r row
	var expires, obtained, lease, attempt, next, revokeNext, keep, check int64
	var scopes string
	err := from.Scan(&r.connection, &r.environment, &r.organization, &r.user, &r.provider, &r.kind, &r.version, &r.envelope, &expires, &r.refreshable, &scopes,
		&obtained, &r.leaseOwner, &lease, &attempt, &r.failures, &next, &r.lastError, &r.revokeState, &r.revokeTries, &revokeNext, &keep, &check)
	r.scopes = strings.Fields(scopes)
	r.expiresAt, r.obtainedAt, r.leaseUntil = sqldb.Time(expires), sqldb.Time(obtained), sqldb.Time(lease)
	r.attemptAt, r.nextAttempt, r.revokeNext = sqldb.Time(attempt), sqldb.Time(next), sqldb.Time(revokeNext)
	r.keepAt, r.checkAt = sqldb.Time(keep), sqldb.Time(check)
	return r, err
}

func loadRow(ctx context.Context, q sqldb.Querier, conn id.Connection) (row, error) {
	return scanRow(q.QueryRowContext(ctx, loadRowSQL, conn))
}

// insertRow stores a new credential, or replaces the version before it. It
// reports whether it did.
func insertRow(ctx context.Context, q sqldb.Querier, r row) (bool, error) {
	return changed(q.ExecContext(ctx, insertRowSQL, r.connection, r.environment, r.organization, r.user, r.provider, r.kind, r.version, r.envelope,
		sqldb.Micros(r.expiresAt), flag(r.refreshable), strings.Join(r.scopes, " "), sqldb.Micros(r.obtainedAt), sqldb.Micros(r.keepAt), sqldb.Micros(r.checkAt)))
}

// takeLease takes the lease on r from whoever r says has it, if anybody.
func takeLease(ctx context.Context, q sqldb.Querier, r row, owner string, now time.Time) (bool, error) {
	return changed(q.ExecContext(ctx, leaseSQL, r.connection, r.version, owner, sqldb.Micros(now.Add(leaseFor)), sqldb.Micros(now), r.leaseOwner))
}

// releaseLeases ends every lease. That an attempt was begun stays known.
func releaseLeases(ctx context.Context, tx *sqldb.Tx) error {
	_, err := tx.ExecContext(ctx, releaseLeasesSQL)
	return err
}

func prolongLease(ctx context.Context, q sqldb.Querier, r row, owner string, until time.Time) (bool, error) {
	return changed(q.ExecContext(ctx, prolongLeaseSQL, r.connection, r.version, owner, sqldb.Micros(until)))
}

// storeRefreshed needs no lease, only the version: who has an answer to this
// version's refresh token has the only answer, even if its lease ran out while
// the database was down.
func storeRefreshed(ctx context.Context, q sqldb.Querier, was, now row) (bool, error) {
	return changed(q.ExecContext(ctx, storeRefreshedSQL, was.connection, was.version, now.envelope, sqldb.Micros(now.expiresAt), flag(now.refreshable),
		strings.Join(now.scopes, " "), sqldb.Micros(now.obtainedAt), sqldb.Micros(now.keepAt)))
}

// storeFailure gives the lease back. open keeps the mark that an attempt may
// have reached the provider; again has upkeep try once more when it may, also if
// nobody calls.
func storeFailure(ctx context.Context, q sqldb.Querier, r row, owner string, next time.Time, why string, open, again bool) (bool, error) {
	return changed(q.ExecContext(ctx, storeFailureSQL, r.connection, r.version, owner, sqldb.Micros(next), why, flag(open), flag(again)))
}

// flag is a bool as both engines store it.
func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func selectRows(ctx context.Context, q sqldb.Querier, query string, args ...any) ([]row, error) {
	return sqldb.Collect(scanRow)(q.QueryContext(ctx, query, args...))
}

func changed(res interface{ RowsAffected() (int64, error) }, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}
