package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

type scanner interface{ Scan(...any) error }

// clients

func insertClient(ctx context.Context, tx *sqldb.Tx, c Client, address string) error {
	const query = `
insert into oauth_client (id, environment_id, organization_id, name, redirect_uris, grants, auth_method, application_type,
  secret_hash, address, created_at, expires_at, version, keys, keys_url, workload)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 1, $13, $14, $15)`
	uris, err := json.Marshal(c.RedirectURIs)
	if err != nil {
		return err
	}
	grants, err := json.Marshal(c.Grants)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, query, c.ID, c.Environment, c.Organization, c.Name, string(uris), string(grants), c.AuthMethod, c.ApplicationType,
		c.secretHash, address, sqldb.Micros(c.CreatedAt), sqldb.Micros(c.ExpiresAt), c.keys, c.keysURL, c.workload)
	return err
}

// selectClient reads a client; lock is "" or Tx.ShareLock.
func selectClient(ctx context.Context, q sqldb.Querier, client id.Client, lock string) (Client, error) {
	const query = `select ` + clientColumns + ` from oauth_client where id = $1`
	return scanClient(q.QueryRowContext(ctx, query+lock, client))
}

// clientByURL reads the client that the document at an address describes.
func clientByURL(ctx context.Context, q sqldb.Querier, address string) (Client, error) {
	const query = `select ` + clientColumns + ` from oauth_client where url = $1 and url <> ''`
	return scanClient(q.QueryRowContext(ctx, query, address))
}

// saveDocument stores what a document says now. One that a person has consented
// to stays; any other is kept for another while.
func saveDocument(ctx context.Context, tx *sqldb.Tx, c Client, address string) (Client, error) {
	const query = `
insert into oauth_client as c (id, environment_id, organization_id, name, redirect_uris, grants, auth_method, application_type,
  secret_hash, address, created_at, expires_at, version, keys, keys_url, url, fresh_until)
values ($1, '', '', $2, $3, $4, $5, $6, null, $7, $8, $9, 1, $10, $11, $12, $13)
on conflict (url) where url <> '' do update set name = excluded.name, redirect_uris = excluded.redirect_uris, grants = excluded.grants,
  auth_method = excluded.auth_method, application_type = excluded.application_type, keys = excluded.keys, keys_url = excluded.keys_url,
  fresh_until = excluded.fresh_until, expires_at = case when c.expires_at = 0 then 0 else excluded.expires_at end, version = c.version + 1
returning ` + clientColumns
	uris, err := json.Marshal(c.RedirectURIs)
	if err != nil {
		return Client{}, err
	}
	grants, err := json.Marshal(c.Grants)
	if err != nil {
		return Client{}, err
	}
	return scanClient(tx.QueryRowContext(ctx, query, c.ID, c.Name, string(uris), string(grants), c.AuthMethod, c.ApplicationType, address,
		sqldb.Micros(c.CreatedAt), sqldb.Micros(c.ExpiresAt), c.keys, c.keysURL, c.url, sqldb.Micros(c.freshUntil)))
}

const clientColumns = `id, environment_id, organization_id, name, redirect_uris, grants, auth_method, application_type, secret_hash,
  created_at, expires_at, version, url, keys, keys_url, fresh_until, old_secret_hash, old_secret_until, workload`

func scanClient(row scanner) (Client, error) {
	var c Client
	var uris, grants string
	var created, expires, fresh, old int64
	err := row.Scan(&c.ID, &c.Environment, &c.Organization, &c.Name, &uris, &grants, &c.AuthMethod,
		&c.ApplicationType, &c.secretHash, &created, &expires, &c.Version, &c.url, &c.keys, &c.keysURL, &fresh, &c.oldSecretHash, &old, &c.workload)
	if err != nil {
		return Client{}, err
	}
	if err := json.Unmarshal([]byte(uris), &c.RedirectURIs); err != nil {
		return Client{}, fmt.Errorf("reading redirect URIs of a client: %w", err)
	}
	if err := json.Unmarshal([]byte(grants), &c.Grants); err != nil {
		return Client{}, fmt.Errorf("reading grants of a client: %w", err)
	}
	c.CreatedAt, c.ExpiresAt = sqldb.Time(created), sqldb.Time(expires)
	c.freshUntil, c.oldSecretUntil = sqldb.Time(fresh), sqldb.Time(old)
	return c, nil
}

// keepClient ends the expiry of a client that a person has consented to.
func keepClient(ctx context.Context, tx *sqldb.Tx, client id.Client) error {
	const query = `update oauth_client set expires_at = 0, version = version + 1 where id = $1 and expires_at <> 0`
	_, err := tx.ExecContext(ctx, query, client)
	return err
}

// updateClientSecret puts a new secret, beside which the old one counts for a time.
func updateClientSecret(ctx context.Context, tx *sqldb.Tx, client id.Client, hash []byte, overlap time.Duration, now time.Time) error {
	const (
		put  = `update oauth_client set secret_hash = $2, old_secret_hash = null, old_secret_until = 0, version = version + 1 where id = $1`
		keep = `update oauth_client set old_secret_hash = secret_hash, secret_hash = $2, old_secret_until = $3, version = version + 1 where id = $1`
	)
	if overlap == 0 {
		return one(tx.ExecContext(ctx, put, client, hash))
	}
	return one(tx.ExecContext(ctx, keep, client, hash, sqldb.Micros(now.Add(overlap))))
}

// updateClientKeys puts keys in the place of what an agent's client had.
func updateClientKeys(ctx context.Context, tx *sqldb.Tx, w account.Weighed, a Agent, c Client) error {
	const query = `update oauth_client set auth_method = $2, keys = $3, keys_url = $4, workload = $5, secret_hash = null, old_secret_hash = null, old_secret_until = 0,
  version = version + 1 where id = $1`
	if err := w.For(string(a.ID)); err != nil {
		return err
	}
	return one(tx.ExecContext(ctx, query, a.Client, c.AuthMethod, c.keys, c.keysURL, c.workload))
}

// agents

const agentColumns = `a.id, a.environment_id, a.organization_id, a.name, a.verified, a.kind, a.owner_id, a.client_id, a.client_host,
  a.ceiling, a.disabled_at, a.muted_until, a.last_seen_at, a.created_at, a.version`

func scanAgent(row scanner, more ...any) (Agent, error) {
	var a Agent
	var ceiling string
	var disabled, muted, seen, created int64
	err := row.Scan(append([]any{&a.ID, &a.Environment, &a.Organization, &a.Name, &a.Verified, &a.Kind, &a.Owner, &a.Client, &a.ClientHost,
		&ceiling, &disabled, &muted, &seen, &created, &a.Version}, more...)...)
	if err != nil {
		return Agent{}, err
	}
	if err := json.Unmarshal([]byte(ceiling), &a.Ceiling); err != nil {
		return Agent{}, fmt.Errorf("reading the ceiling of an agent: %w", err)
	}
	a.DisabledAt, a.MutedUntil, a.LastSeenAt, a.CreatedAt = sqldb.Time(disabled), sqldb.Time(muted), sqldb.Time(seen), sqldb.Time(created)
	return a, nil
}

func insertAgent(ctx context.Context, tx *sqldb.Tx, a Agent) error {
	const query = `
insert into agent (id, environment_id, organization_id, name, verified, kind, owner_id, client_id, client_host, ceiling,
  disabled_at, last_seen_at, created_at, version)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, 0, $11, 1)`
	ceiling, err := json.Marshal(a.Ceiling)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, query, a.ID, a.Environment, a.Organization, a.Name, a.Verified, a.Kind, a.Owner, a.Client, a.ClientHost,
		string(ceiling), sqldb.Micros(a.CreatedAt))
	return err
}

// consentAgent finds or makes the agent that a client is for one person in one
// organization. A label given now replaces the name; the rest of an agent that
// exists stays.
func consentAgent(ctx context.Context, tx *sqldb.Tx, a Agent) (Agent, error) {
	const query = `
insert into agent as a (id, environment_id, organization_id, name, verified, kind, owner_id, client_id, client_host, ceiling,
  disabled_at, last_seen_at, created_at, version)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, '{}', 0, 0, $10, 1)
on conflict (client_id, organization_id, owner_id) do update set
  name = case when excluded.verified then excluded.name else a.name end,
  verified = (excluded.verified or a.verified),
  client_host = excluded.client_host, version = a.version + 1
returning id, environment_id, organization_id, name, verified, kind, owner_id, client_id, client_host, ceiling,
  disabled_at, muted_until, last_seen_at, created_at, version`
	return scanAgent(tx.QueryRowContext(ctx, query, a.ID, a.Environment, a.Organization, a.Name, a.Verified, a.Kind, a.Owner, a.Client, a.ClientHost,
		sqldb.Micros(a.CreatedAt)))
}

func selectAgent(ctx context.Context, q sqldb.Querier, agent id.Agent, lock string) (Agent, error) {
	const query = `select ` + agentColumns + ` from agent a where a.id = $1`
	return scanAgent(q.QueryRowContext(ctx, query+lock, agent))
}

// agentOfClient is the agent that an admin made together with client.
func agentOfClient(ctx context.Context, q sqldb.Querier, client id.Client, lock string) (Agent, error) {
	const query = `select ` + agentColumns + ` from agent a where a.client_id = $1`
	return scanAgent(q.QueryRowContext(ctx, query+lock, client))
}

// listAgents reads a page, newest first. An empty owner means all owners.
func listAgents(ctx context.Context, q sqldb.Querier, env id.Environment, org id.Organization, owner id.User, before id.Agent, limit int) ([]Agent, error) {
	const query = `select ` + agentColumns + ` from agent a
where a.environment_id = $1 and ($2 = '' or a.organization_id = $2) and ($3 = '' or a.owner_id = $3) and ($4 = '' or a.id < $4)
order by a.id desc limit $5`
	rows, err := q.QueryContext(ctx, query, env, string(org), string(owner), string(before), limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Agent
	for rows.Next() {
		a, err := scanAgent(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, rows.Err()
}

func updateCeiling(ctx context.Context, tx *sqldb.Tx, w account.Weighed, agent id.Agent, version int64, ceiling string) error {
	const query = `update agent set ceiling = $3, version = version + 1 where id = $1 and version = $2`
	if err := w.For(string(agent)); err != nil {
		return err
	}
	return one(tx.ExecContext(ctx, query, agent, version, ceiling))
}

// bumpAgent marks that an agent changed, from the version that was read.
func bumpAgent(ctx context.Context, tx *sqldb.Tx, agent id.Agent, version int64) error {
	const query = `update agent set version = version + 1 where id = $1 and version = $2`
	return one(tx.ExecContext(ctx, query, agent, version))
}

// setDisabled also orders itself after every issuance for the agent, which
// holds a share lock on this row.
func setDisabled(ctx context.Context, tx *sqldb.Tx, w account.Weighed, agent id.Agent, at time.Time) (Agent, error) {
	if err := w.For(string(agent)); err != nil {
		return Agent{}, err
	}
	const query = `update agent as a set disabled_at = $2, version = a.version + 1 where a.id = $1
returning id, environment_id, organization_id, name, verified, kind, owner_id, client_id, client_host, ceiling,
  disabled_at, muted_until, last_seen_at, created_at, version`
	return scanAgent(tx.QueryRowContext(ctx, query, agent, sqldb.Micros(at)))
}

func setMuted(ctx context.Context, tx *sqldb.Tx, agent id.Agent, until time.Time) (Agent, error) {
	const query = `update agent as a set muted_until = $2, version = a.version + 1 where a.id = $1
returning id, environment_id, organization_id, name, verified, kind, owner_id, client_id, client_host, ceiling,
  disabled_at, muted_until, last_seen_at, created_at, version`
	return scanAgent(tx.QueryRowContext(ctx, query, agent, sqldb.Micros(until)))
}

func touchAgent(ctx context.Context, tx *sqldb.Tx, agent id.Agent, at time.Time) error {
	const query = `update agent set last_seen_at = $2 where id = $1 and last_seen_at < $3`
	_, err := tx.ExecContext(ctx, query, agent, sqldb.Micros(at), sqldb.Micros(at.Add(-seenEvery)))
	return err
}

// authorization requests and codes

func insertRequest(ctx context.Context, tx *sqldb.Tx, r AuthRequest, created time.Time) error {
	const query = `
insert into authorize_request (id, client_id, redirect_uri, state, challenge, resource, scope, address, created_at, expires_at, decided_at, asks)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, $11)`
	_, err := tx.ExecContext(ctx, query, r.ID, r.Client.ID, r.RedirectURI, r.State, r.Challenge, r.Resource, r.Scope, r.Address,
		sqldb.Micros(created), sqldb.Micros(r.ExpiresAt), r.Asks.document())
	return err
}

// thinRequests makes room for one more request, and says if there is none.
func thinRequests(ctx context.Context, tx *sqldb.Tx, now time.Time) (full bool, err error) {
	const (
		count  = `select count(*) from authorize_request`
		expire = `delete from authorize_request where expires_at <= $1`
		thin   = `delete from authorize_request where id in (select id from authorize_request where opened_by = '' and address = (
  select address from authorize_request where opened_by = '' group by address order by count(*) desc, address limit 1)
order by created_at, id limit $1)`
	)
	var n int
	if err := tx.QueryRowContext(ctx, count).Scan(&n); err != nil || n < maxRequests {
		return false, err
	}
	expired, err := affected(tx.ExecContext(ctx, expire, sqldb.Micros(now)))
	if err != nil || expired > 0 {
		return false, err
	}
	thinned, err := affected(tx.ExecContext(ctx, thin, maxRequests/10))
	return thinned == 0, err
}

// openRequest notes that a person has a request before them.
func openRequest(ctx context.Context, tx *sqldb.Tx, flow id.Flow, user id.User) error {
	const (
		open     = `update authorize_request set opened_by = $1 where id = $2`
		lessOpen = `update authorize_request set opened_by = '' where opened_by = $1 and id not in (
select id from authorize_request where opened_by = $1 order by created_at desc, id desc limit $2)`
	)
	if _, err := tx.ExecContext(ctx, open, user, flow); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, lessOpen, user, maxOpened)
	return err
}

func selectRequest(ctx context.Context, q sqldb.Querier, flow id.Flow, now time.Time) (AuthRequest, error) {
	const query = `
select r.id, r.client_id, r.redirect_uri, r.state, r.challenge, r.resource, r.scope, r.address, r.opened_by, r.expires_at, coalesce(d.user_code, ''), r.asks
from authorize_request r left join device_code d on d.flow_id = r.id
where r.id = $1 and r.decided_at = 0 and r.expires_at > $2`
	var r AuthRequest
	var expires int64
	var asks string
	err := q.QueryRowContext(ctx, query, flow, sqldb.Micros(now)).Scan(&r.ID, &r.Client.ID, &r.RedirectURI, &r.State, &r.Challenge, &r.Resource, &r.Scope, &r.Address, &r.openedBy, &expires, &r.UserCode, &asks)
	if err != nil {
		return r, err
	}
	r.ExpiresAt = sqldb.Time(expires)
	r.Asks, err = readAsks(asks)
	return r, err
}

// decideRequest lets exactly one decision through.
func decideRequest(ctx context.Context, tx *sqldb.Tx, flow id.Flow, now time.Time) error {
	const query = `update authorize_request set decided_at = $2 where id = $1 and decided_at = 0 and expires_at > $2`
	return one(tx.ExecContext(ctx, query, flow, sqldb.Micros(now)))
}

type code struct {
	hash                   []byte
	family                 string
	flow                   id.Flow
	agent                  id.Agent
	client                 id.Client
	redirectURI, challenge string
	audience, scope        string
	created, expires, used time.Time
	session                id.Session // that the token is for; empty: it is an identity
	sessionEnds            time.Time
	details                string // of the session, for the client
}

// sessionChallenge starts the stored challenge of a code for a session. No verifier fits
// it: a binary that does not know of such codes, and would give an identity that is
// refreshed for one, gives nothing.
const sessionChallenge = "session "

func insertCode(ctx context.Context, tx *sqldb.Tx, c code) error {
	const query = `
insert into authorization_code (hash, family_id, flow_id, agent_id, client_id, redirect_uri, challenge, audience, scope, created_at, expires_at, used_at, session_id, session_expires_at, details)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, $12, $13, $14)`
	challenge := c.challenge
	if c.session != "" {
		challenge = sessionChallenge + challenge
	}
	_, err := tx.ExecContext(ctx, query, c.hash, c.family, c.flow, c.agent, c.client, c.redirectURI, challenge, c.audience, c.scope,
		sqldb.Micros(c.created), sqldb.Micros(c.expires), c.session, sqldb.Micros(c.sessionEnds), c.details)
	return err
}

func selectCode(ctx context.Context, q sqldb.Querier, hash []byte) (code, error) {
	const query = `
select family_id, flow_id, agent_id, client_id, redirect_uri, challenge, audience, scope, created_at, expires_at, used_at, session_id, session_expires_at, details
from authorization_code where hash = $1`
	c := code{hash: hash}
	var created, expires, used, ends int64
	err := q.QueryRowContext(ctx, query, hash).Scan(&c.family, &c.flow, &c.agent, &c.client, &c.redirectURI, &c.challenge, &c.audience, &c.scope,
		&created, &expires, &used, &c.session, &ends, &c.details)
	c.sessionEnds = sqldb.Time(ends)
	if c.session != "" {
		c.challenge = strings.TrimPrefix(c.challenge, sessionChallenge)
	}
	c.created, c.expires, c.used = sqldb.Time(created), sqldb.Time(expires), sqldb.Time(used)
	return c, err
}

func consumeCode(ctx context.Context, tx *sqldb.Tx, hash []byte, now time.Time) error {
	const query = `update authorization_code set used_at = $2 where hash = $1 and used_at = 0 and expires_at > $2`
	return one(tx.ExecContext(ctx, query, hash, sqldb.Micros(now)))
}

// families and tokens

type family struct {
	id           string
	agent        id.Agent
	client       id.Client
	user         id.User
	environment  id.Environment
	organization id.Organization
	audience     string
	scope        string
	session      id.Session
	created      time.Time
	expires      time.Time
	revoked      time.Time
}

func insertFamily(ctx context.Context, tx *sqldb.Tx, f family) error {
	const query = `
insert into token_family (id, agent_id, client_id, user_id, environment_id, organization_id, audience, scope, session_id,
  created_at, expires_at, revoked_at, version)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, 1)`
	var session any
	if f.session != "" {
		session = string(f.session)
	}
	_, err := tx.ExecContext(ctx, query, f.id, f.agent, f.client, f.user, f.environment, f.organization, f.audience, f.scope, session,
		sqldb.Micros(f.created), sqldb.Micros(f.expires))
	return err
}

// holdFamily takes the family's row for this transaction, so that rotations go
// one after another and none passes a revocation.
func holdFamily(ctx context.Context, tx *sqldb.Tx, familyID string, now time.Time) error {
	const query = `update token_family set version = version + 1 where id = $1 and revoked_at = 0 and expires_at > $2`
	return one(tx.ExecContext(ctx, query, familyID, sqldb.Micros(now)))
}

// revokeFamily reports whether this call did it.
func revokeFamily(ctx context.Context, tx *sqldb.Tx, familyID string, now time.Time) (bool, error) {
	const query = `update token_family set revoked_at = $2, version = version + 1 where id = $1 and revoked_at = 0`
	n, err := affected(tx.ExecContext(ctx, query, familyID, sqldb.Micros(now)))
	return n > 0, err
}

func revokeFamiliesOfAgent(ctx context.Context, tx *sqldb.Tx, agent id.Agent, now time.Time) (int64, error) {
	const query = `update token_family set revoked_at = $2, version = version + 1 where agent_id = $1 and revoked_at = 0`
	return affected(tx.ExecContext(ctx, query, agent, sqldb.Micros(now)))
}

func revokeFamiliesOfUser(ctx context.Context, tx *sqldb.Tx, user id.User, org id.Organization, now time.Time) (int64, error) {
	const query = `
update token_family set revoked_at = $3, version = version + 1
where user_id = $1 and ($2 = '' or organization_id = $2) and revoked_at = 0`
	return affected(tx.ExecContext(ctx, query, user, string(org), sqldb.Micros(now)))
}

func revokeFamiliesOfSession(ctx context.Context, tx *sqldb.Tx, session id.Session, now time.Time) (int64, error) {
	const query = `update token_family set revoked_at = $2, version = version + 1 where session_id = $1 and revoked_at = 0`
	return affected(tx.ExecContext(ctx, query, string(session), sqldb.Micros(now)))
}

const (
	kindAccess  = "access"
	kindRefresh = "refresh"
)

type token struct {
	hash                       []byte
	kind                       string
	created, expires           time.Time
	revoked, replaced          time.Time
	replacedBy                 []byte
	sealedAccess, sealedNext   []byte
	successorExpires           time.Time // of the successor's access token
	family                     family
	agent                      Agent
	successorUsed, successorOK bool
}

func insertToken(ctx context.Context, tx *sqldb.Tx, familyID string, hash []byte, kind string, created, expires time.Time) error {
	const query = `
insert into agent_token (hash, family_id, kind, created_at, expires_at, revoked_at, replaced_at, successor_expires_at)
values ($1, $2, $3, $4, $5, 0, 0, 0)`
	_, err := tx.ExecContext(ctx, query, hash, familyID, kind, sqldb.Micros(created), sqldb.Micros(expires))
	return err
}

// selectToken is the one read of authentication: the token, its family, its
// agent, and whether the token that replaced it was itself used.
func selectToken(ctx context.Context, q sqldb.Querier, hash []byte) (token, error) {
	const query = `
select ` + agentColumns + `,
  t.kind, t.created_at, t.expires_at, t.revoked_at, t.replaced_at, t.replaced_by, t.sealed_access, t.sealed_refresh, t.successor_expires_at,
  f.id, f.agent_id, f.client_id, f.user_id, f.environment_id, f.organization_id, f.audience, f.scope, coalesce(f.session_id, ''),
  f.created_at, f.expires_at, f.revoked_at, coalesce(n.replaced_at, -1)
from agent_token t
join token_family f on f.id = t.family_id
join agent a on a.id = f.agent_id
left join agent_token n on n.hash = t.replaced_by
where t.hash = $1`
	t := token{hash: hash}
	f := &t.family
	var created, expires, revoked, replaced, successor, fCreated, fExpires, fRevoked, next int64
	var err error
	t.agent, err = scanAgent(q.QueryRowContext(ctx, query, hash),
		&t.kind, &created, &expires, &revoked, &replaced, &t.replacedBy, &t.sealedAccess, &t.sealedNext, &successor,
		&f.id, &f.agent, &f.client, &f.user, &f.environment, &f.organization, &f.audience, &f.scope, &f.session,
		&fCreated, &fExpires, &fRevoked, &next)
	t.created, t.expires, t.revoked, t.replaced = sqldb.Time(created), sqldb.Time(expires), sqldb.Time(revoked), sqldb.Time(replaced)
	t.successorExpires = sqldb.Time(successor)
	f.created, f.expires, f.revoked = sqldb.Time(fCreated), sqldb.Time(fExpires), sqldb.Time(fRevoked)
	t.successorOK, t.successorUsed = next >= 0, next > 0
	return t, err
}

// replaceToken spends a refresh token, once.
func replaceToken(ctx context.Context, tx *sqldb.Tx, old []byte, next issued, now time.Time) error {
	const query = `
update agent_token set replaced_at = $2, replaced_by = $3, sealed_access = $4, sealed_refresh = $5, successor_expires_at = $6
where hash = $1 and kind = 'refresh' and replaced_at = 0 and revoked_at = 0 and expires_at > $2`
	return one(tx.ExecContext(ctx, query, old, sqldb.Micros(now), next.refreshHash[:], next.sealedAccess, next.sealedRefresh,
		sqldb.Micros(next.accessExpires)))
}

func revokeToken(ctx context.Context, tx *sqldb.Tx, hash []byte, now time.Time) error {
	const query = `update agent_token set revoked_at = $2 where hash = $1 and revoked_at = 0`
	_, err := tx.ExecContext(ctx, query, hash, sqldb.Micros(now))
	return err
}

// errStale says that a compare-and-swap found another state.
var errStale = fault.New(fault.Conflict, "conflict", "It was changed meanwhile; read it again.")

// one turns an update of no row into errStale.
func one(res interface{ RowsAffected() (int64, error) }, err error) error {
	n, err := affected(res, err)
	if err == nil && n == 0 {
		return errStale
	}
	return err
}

func affected(res interface{ RowsAffected() (int64, error) }, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}
