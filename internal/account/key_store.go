package account

import (
	"context"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/throttle"
	"github.com/ambit-dev/ambit/internal/vault"
)

// API keys.

const (
	insertKeySQL = `insert into api_key (id, environment_id, organization_id, name, token_hash, request_digest, scopes, created_by_kind, created_by_id, created_at, expires_at, last_used_at, revoked_at, version, secret_rules)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, 0, 1, $12)`
	keyColumns   = `select id, environment_id, organization_id, name, token_hash, scopes, created_by_id, created_at, expires_at, last_used_at, revoked_at, secret_rules from api_key`
	keyByHashSQL = keyColumns + ` where token_hash = $1`
	keyByIDSQL   = keyColumns + ` where id = $1`
	// Ids start with a prefix below "~", so that "~" is after all of them.
	listKeysSQL  = keyColumns + ` where environment_id = $1 and ($2 = '' or organization_id = $2) and id < $3 order by id desc limit $4`
	issuedSQL    = keyColumns + ` where environment_id = $1 and organization_id = $2 and name = $3 and created_by_kind = $4 and created_by_id = $5 and revoked_at = 0 order by id`
	revokeKeySQL = `update api_key set revoked_at = $1, version = version + 1 where id = $2 and revoked_at = 0`
	touchKeySQL  = `update api_key set last_used_at = $1 where id = $2 and last_used_at < $1`
)

func insertKey(ctx context.Context, tx *sqldb.Tx, k APIKey, byKind string, hash [32]byte, digest []byte) error {
	rules, err := vault.RulesJSON(k.Secrets)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, insertKeySQL, k.ID, k.Environment, k.Organization, k.Name, hash[:], digest, strings.Join(k.Scopes, " "), byKind, k.CreatedBy,
		sqldb.Micros(k.CreatedAt), sqldb.Micros(k.ExpiresAt), rules)
	return err
}

func scanKey(row sqldb.Scanner) (APIKey, []byte, error) {
	var k APIKey
	var hash, rules []byte
	var scopes string
	var created, expires, used, revoked int64
	err := row.Scan(&k.ID, &k.Environment, &k.Organization, &k.Name, &hash, &scopes, &k.CreatedBy, &created, &expires, &used, &revoked, &rules)
	if err != nil {
		return k, nil, err
	}
	k.Scopes = strings.Fields(scopes)
	k.CreatedAt, k.ExpiresAt, k.LastUsedAt, k.RevokedAt = sqldb.Time(created), sqldb.Time(expires), sqldb.Time(used), sqldb.Time(revoked)
	if string(rules) != "[]" {
		k.Secrets, err = vault.RulesOf(rules)
	}
	return k, hash, err
}

func selectKeyByHash(ctx context.Context, q sqldb.Querier, hash [32]byte) (APIKey, []byte, error) {
	return scanKey(q.QueryRowContext(ctx, keyByHashSQL, hash[:]))
}

func selectKey(ctx context.Context, q sqldb.Querier, key id.Key) (APIKey, error) {
	k, _, err := scanKey(q.QueryRowContext(ctx, keyByIDSQL, key))
	return k, err
}

func selectKeys(ctx context.Context, q sqldb.Querier, env id.Environment, org id.Organization, after string, limit int) ([]APIKey, error) {
	if after == "" {
		after = "~"
	}
	return sqldb.Collect(func(row sqldb.Scanner) (APIKey, error) {
		k, _, err := scanKey(row)
		return k, err
	})(q.QueryContext(ctx, listKeysSQL, env, org, after, limit))
}

func selectIssued(ctx context.Context, q sqldb.Querier, n NewKey, by audit.Actor) ([]APIKey, error) {
	return sqldb.Collect(func(row sqldb.Scanner) (APIKey, error) {
		k, _, err := scanKey(row)
		return k, err
	})(q.QueryContext(ctx, issuedSQL, n.Environment, n.Organization, n.Name, by.Kind, by.ID))
}

func revokeKey(ctx context.Context, tx *sqldb.Tx, key id.Key, at time.Time) (bool, error) {
	return changed(tx.ExecContext(ctx, revokeKeySQL, sqldb.Micros(at), key))
}

func touchKey(ctx context.Context, tx *sqldb.Tx, key id.Key, at time.Time) error {
	_, err := tx.ExecContext(ctx, touchKeySQL, sqldb.Micros(at), key)
	return err
}

// Command lines that wait.

const (
	cliColumns   = `select id, code, poll_hash, address, user_id, created_at, expires_at, version, organization_id, provider_id from cli_request`
	cliByCodeSQL = cliColumns + ` where code = $1 and expires_at > $2`
	cliByPollSQL = cliColumns + ` where poll_hash = $1 and expires_at > $2`
	insertCLISQL = `insert into cli_request (id, code, poll_hash, address, user_id, created_at, expires_at, version) values ($1, $2, $3, $4, '', $5, $6, 1)`
	confirmSQL   = `update cli_request set user_id = $1, organization_id = $5, provider_id = $6, version = version + 1 where id = $2 and version = $3 and user_id = '' and expires_at > $4
		and exists (select 1 from login where id = $7 and revoked_at = 0)`
	takeCLISQL  = `delete from cli_request where id = $1 and version = $2`
	sweepCLISQL = `delete from cli_request where expires_at <= $1`
	countCLISQL = `select count(*) from cli_request`
	// Those that a user has let in, and that have not come for their logins.
	forgetUsersSQL = `delete from cli_request where user_id = $1`

	unopenedCLISQL = `select id, address from cli_request where user_id = '' and opened_by = '' order by created_at, id`
	forgetCLISQL   = `delete from cli_request where id = $1`
	openCLISQL     = `update cli_request set opened_by = $1 where id = $2 and opened_by <> $1`
	closeCLISQL    = `update cli_request set opened_by = '' where opened_by = $1 and id not in (
		select id from cli_request where opened_by = $1 order by created_at desc, id desc limit $2)`
)

func scanCLI(row sqldb.Scanner) (CLIRequest, error) {
	var r CLIRequest
	var created, expires int64
	err := row.Scan(&r.id, &r.Code, &r.pollHash, &r.Address, &r.user, &created, &expires, &r.version, &r.organization, &r.provider)
	r.CreatedAt, r.ExpiresAt = sqldb.Time(created), sqldb.Time(expires)
	return r, err
}

func selectCLI(ctx context.Context, q sqldb.Querier, code string, now time.Time) (CLIRequest, error) {
	return scanCLI(q.QueryRowContext(ctx, cliByCodeSQL, code, sqldb.Micros(now)))
}

func selectCLIByPoll(ctx context.Context, q sqldb.Querier, hash [32]byte, now time.Time) (CLIRequest, error) {
	return scanCLI(q.QueryRowContext(ctx, cliByPollSQL, hash[:], sqldb.Micros(now)))
}

func insertCLI(ctx context.Context, tx *sqldb.Tx, r CLIRequest, poll [32]byte) error {
	_, err := tx.ExecContext(ctx, insertCLISQL, r.id, r.Code, poll[:], r.Address, sqldb.Micros(r.CreatedAt), sqldb.Micros(r.ExpiresAt))
	return err
}

// confirmCLI reports false too where the login that confirms it has ended.
func confirmCLI(ctx context.Context, tx *sqldb.Tx, r CLIRequest, p Person, now time.Time) (bool, error) {
	return changed(tx.ExecContext(ctx, confirmSQL, p.user, r.id, r.version, sqldb.Micros(now), p.confined, p.provider, p.login))
}

func takeCLI(ctx context.Context, tx *sqldb.Tx, r CLIRequest) (bool, error) {
	return changed(tx.ExecContext(ctx, takeCLISQL, r.id, r.version))
}

// sweepCLI forgets what has expired and counts what waits.
func sweepCLI(ctx context.Context, tx *sqldb.Tx, now time.Time) (int, error) {
	if _, err := tx.ExecContext(ctx, sweepCLISQL, sqldb.Micros(now)); err != nil {
		return 0, err
	}
	var n int
	err := tx.QueryRowContext(ctx, countCLISQL).Scan(&n)
	return n, err
}

// openCLI notes that a person has a request before them.
func openCLI(ctx context.Context, tx *sqldb.Tx, r CLIRequest, user id.User) error {
	if ok, err := changed(tx.ExecContext(ctx, openCLISQL, user, r.id)); err != nil || !ok {
		return err
	}
	_, err := tx.ExecContext(ctx, closeCLISQL, user, maxOpened)
	return err
}

// thinCLI forgets the oldest requests of the address that has most of those that
// nobody has opened, if there are any, and gives how many of n then wait.
func thinCLI(ctx context.Context, tx *sqldb.Tx, n int) (int, error) {
	rows, err := tx.QueryContext(ctx, unopenedCLISQL)
	if err != nil {
		return n, err
	}
	defer rows.Close()
	by := map[string][]string{} // ids, oldest first
	most := ""
	for rows.Next() {
		var id, address string
		if err := rows.Scan(&id, &address); err != nil {
			return n, err
		}
		address = throttle.Address(address)
		if by[address] = append(by[address], id); len(by[address]) > len(by[most]) {
			most = address
		}
	}
	if err := rows.Err(); err != nil {
		return n, err
	}
	rows.Close()
	oldest := by[most]
	for _, id := range oldest[:min(len(oldest), maxWaiting/10)] {
		if _, err := tx.ExecContext(ctx, forgetCLISQL, id); err != nil {
			return n, err
		}
		n--
	}
	return n, nil
}
