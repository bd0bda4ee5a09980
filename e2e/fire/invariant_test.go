//go:build e2e

package fire

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

// invariant is what must be true of a database at any moment, whatever process
// died at whatever step. query gives the rows that break it, one text each.
type invariant struct{ what, query string }

// What rests on audit entries counts on their columns only: [audit.Verify] holds
// those against the sealed bodies.
var invariants = []invariant{
	// Sessions and approvals.
	{"an active session has an approval that a person gave, at least one grant, and an end",
		`select s.id from session s left join approval a on a.id = s.approval_id and a.kind = 'session'
where s.state = 'active' and (a.state is null or a.state <> 'approved' or a.decided_by = '' or s.user_id = '' or s.approved_at = 0 or s.expires_at <= s.approved_at
	or not exists (select 1 from session_grant g where g.session_id = s.id))`},
	{"a session that was approved is in the audit as approved, once",
		`select s.id from session s where s.approved_at > 0 and (select count(*) from audit_entry e where e.session_id = s.id and e.action = 'session.approved') <> 1`},
	{"a session that was never approved grants nothing",
		`select g.session_id from session_grant g join session s on s.id = g.session_id where s.approved_at = 0`},
	{"a pending session waits for an undecided approval",
		`select s.id from session s join approval a on a.id = s.approval_id where s.state = 'pending' and a.state not in ('pending', 'expired')`},
	{"a decided approval says who decided and when, and the audit does too",
		`select a.id from approval a where a.state in ('approved', 'used', 'denied') and (a.decided_by = '' or a.decided_at = 0 or not exists (
	select 1 from audit_entry e where e.session_id = a.session_id and e.action = a.kind || case a.state when 'denied' then '.denied' else '.approved' end))`},
	{"a session's approval is never used up like a call's", `select id from approval where kind = 'session' and state = 'used'`},
	{"each session is in the audit as requested, once",
		`select s.id from session s where (select count(*) from audit_entry e where e.session_id = s.id and e.action = 'session.requested') <> 1`},
	{"an ended session is in the audit as ended",
		`select s.id from session s where s.state = 'ended' and s.reason <> 'expired' and not exists (
	select 1 from audit_entry e where e.session_id = s.id and e.action = 'session.' || s.reason)`},
	{"each session has a handle", `select s.id from session s where not exists (select 1 from session_handle h where h.session_id = s.id)`},

	// Intents and outcomes.
	{"an outcome belongs to one intent", `select o.id from audit_entry o left join audit_entry i on i.id = o.ref and i.kind = 'intent' where o.kind = 'outcome' and i.id is null`},
	{"an intent has at most one outcome", `select ref from audit_entry where kind = 'outcome' group by ref having count(*) > 1`},
	{"an intent is of a session that was approved",
		`select i.id from audit_entry i left join session s on s.id = i.session_id where i.kind = 'intent' and (s.id is null or s.approved_at = 0)`},
	{"an intent is on a connection that its session grants",
		`select i.id from audit_entry i where i.kind = 'intent' and not exists (
	select 1 from session_grant g where g.session_id = i.session_id and g.connection_id = i.connection_id)`},
	{"no intent follows the end of its session, in the same run",
		`select i.id from audit_entry i join audit_entry e on e.session_id = i.session_id and e.chain_id = i.chain_id and e.seq < i.seq
where i.kind = 'intent' and e.action in ('session.revoked', 'session.completed', 'session.expired')`},

	// Connections and credentials.
	{"a connection that is not ended has its credential, of the version it names",
		`select c.id from connection c left join credential k on k.connection_id = c.id
where c.state <> 'disconnected' and (k.version is null or k.version <> c.credential_version or k.envelope is null or k.revoke_state <> '')`},
	{"the credential of an ended connection is given back or about to be",
		`select c.id from connection c left join credential k on k.connection_id = c.id where c.state = 'disconnected' and coalesce(k.revoke_state, '') = ''`},
	{"a credential that was given back is destroyed", `select connection_id from credential where revoke_state in ('revoked', 'unsupported') and envelope is not null`},
	{"no credential is without a connection", `select k.connection_id from credential k left join connection c on c.id = k.connection_id where c.id is null`},
	{"no session works on an ended connection",
		`select s.id from session s join session_grant g on g.session_id = s.id join connection c on c.id = g.connection_id where s.state = 'active' and c.state = 'disconnected'`},
	{"no request waits for ended connections alone",
		`select s.id from session s where s.state = 'pending' and exists (select 1 from session_asked a where a.session_id = s.id) and not exists (
	select 1 from session_asked a join connection c on c.id = a.connection_id where a.session_id = s.id and c.state <> 'disconnected')`},
	{"each connection is in the audit, once", `select c.id from connection c where (select count(*) from audit_entry e where e.connection_id = c.id and e.action = 'connection.connected') <> 1`},
	{"each ended connection is in the audit as ended",
		`select c.id from connection c where c.state = 'disconnected' and not exists (select 1 from audit_entry e where e.connection_id = c.id and e.action = 'connection.disconnected')`},
	{"a connection's record is kept", `select c.id from connection c left join provider_snapshot p on p.environment_id = c.environment_id and p.digest = c.record_digest where p.digest is null`},

	// Agents and their tokens.
	{"a token that lives is of an enabled agent",
		`select f.id from token_family f join agent a on a.id = f.agent_id where a.disabled_at > 0 and f.revoked_at = 0 and f.created_at <= a.disabled_at`},
	{"a code is spent if and only if it gave tokens",
		`select c.family_id from authorization_code c left join token_family f on f.id = c.family_id where (c.used_at > 0) <> (f.id is not null)`},
	{"each family has a token", `select f.id from token_family f where not exists (select 1 from agent_token t where t.family_id = f.id)`},
	{"a spent refresh token has a successor, and only that one lives",
		`select t.family_id from agent_token t left join agent_token n on n.hash = t.replaced_by where t.replaced_at > 0 and n.hash is null`},
	{"a family has at most one refresh token that is not spent",
		`select family_id from agent_token where kind = 'refresh' and replaced_at = 0 and revoked_at = 0 group by family_id having count(*) > 1`},
	{"each agent is in the audit", `select a.id from agent a where not exists (select 1 from audit_entry e where e.agent_id = a.id and e.action in ('agent.registered', 'agent.consented'))`},
	{"each issued family is in the audit",
		`select a.id from agent a where (select count(*) from token_family f where f.agent_id = a.id) <> (select count(*) from audit_entry e where e.agent_id = a.id and e.action = 'token.issued')`},

	// People.
	{"a person who can sign in is in the audit", `select p.id from passkey p where not exists (select 1 from audit_entry e where e.user_id = p.user_id and e.action = 'passkey.registered')`},
	{"a member is a person of the organization's environment",
		`select m.user_id from membership m join organization o on o.id = m.organization_id join person p on p.id = m.user_id where o.environment_id <> p.environment_id`},
	{"a sign-in is of a person with a passkey", `select l.id from login l where l.method = 'passkey' and not exists (select 1 from passkey p where p.user_id = l.user_id)`},
	{"API keys and their entries are as many",
		`select 'made ' || (select count(*) from api_key) || ', recorded ' || (select count(*) from audit_entry where action = 'api_key.created')
where (select count(*) from api_key) <> (select count(*) from audit_entry where action = 'api_key.created')`},

	// Secrets.
	{"a secret has the version that it names",
		`select o.id from secret_object o left join secret_version v on v.object_id = o.id and v.version = o.current_version where v.version is null`},
	{"secrets and their entries are as many",
		`select 'there are ' || n || ', recorded ' || made from (select (select count(*) from secret_object where deleted_at = 0) as n,
(select coalesce(sum(case action when 'secret.deleted' then -1 else 1 end), 0) from audit_entry where action in ('secret.created', 'secret.deleted', 'secret.undeleted') and decision <> 'deny') as made) s
where n <> made`},
	{"each key of a context is in the audit",
		`select 'made ' || (select count(*) from kek) where (select count(*) from kek) <> (select count(*) from audit_entry where action = 'key.created')`},
}

// checkInvariants reads a database past the servers.
func checkInvariants(ctx context.Context, db *sqldb.DB) (broken []string, err error) {
	for _, i := range invariants {
		rows, err := db.Reader().QueryContext(ctx, i.query)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", i.what, err)
		}
		var bad []string
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				return nil, err
			}
			bad = append(bad, s)
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return nil, err
		}
		if len(bad) > 0 {
			broken = append(broken, fmt.Sprintf("%q is not true of %s", i.what, strings.Join(bad[:min(len(bad), 3)], ", ")))
		}
	}
	return broken, nil
}

// sealed is a column of envelopes and where each belongs.
type sealed struct {
	query string // environment, organization, user, object, version, provider, envelope
	kind  string
}

var sealedColumns = []sealed{
	{`select environment_id, organization_id, user_id, connection_id, version, provider, envelope from credential where envelope is not null`, "credential"},
	{`select environment_id, organization_id, started_by, id, 1, provider, envelope from oauth_flow`, "oauth_flow"},
	{`select environment_id, organization_id, user_id, id, 1, '', subject from approval where kind = 'call'`, "approval"},
}

// checkSealed opens what is sealed: the keys fit, and no row is half another's.
func checkSealed(ctx context.Context, db *sqldb.DB, v *vault.Vault) (broken []string, opened int, err error) {
	for _, s := range sealedColumns {
		rows, err := db.Reader().QueryContext(ctx, s.query)
		if err != nil {
			return nil, 0, err
		}
		type item struct {
			place    vault.Place
			envelope []byte
		}
		var items []item
		for rows.Next() {
			it := item{place: vault.Place{Kind: s.kind}}
			var provider string
			if err := rows.Scan(&it.place.Environment, &it.place.Organization, &it.place.User, &it.place.Object, &it.place.Version, &provider, &it.envelope); err != nil {
				return nil, 0, err
			}
			it.place.Provider = provider
			items = append(items, it)
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return nil, 0, err
		}
		for _, it := range items {
			if _, err := v.Open(ctx, it.place, it.envelope); err != nil {
				broken = append(broken, fmt.Sprintf("%s %s does not open: %v", s.kind, it.place.Object, err))
			}
			opened++
		}
	}
	return broken, opened, nil
}

// examine holds a database against everything above, and its audit against its
// chains and checkpoints. It starts a chain of its own there, as any node does.
func examine(t testing.TB, db *sqldb.DB, keeper *keyring.Guard, checkpoints string) (broken []string) {
	t.Helper()
	ctx := t.Context()
	report, err := audit.Verify(ctx, audit.VerifyConfig{DB: db, Keeper: keeper, Checkpoints: []string{checkpoints}})
	must(t, err)
	for _, p := range report.Problems {
		broken = append(broken, fmt.Sprintf("audit: %s %d %s", p.Chain, p.Seq, p.What))
	}
	more, err := checkInvariants(ctx, db)
	must(t, err)
	broken = append(broken, more...)
	log, err := audit.New(ctx, audit.Config{DB: db, Keeper: keeper, CheckpointDir: checkpoints, Node: "examiner"})
	must(t, err)
	more, _, err = checkSealed(ctx, db, vault.New(vault.Config{DB: db, Keeper: keeper, Audit: log}))
	must(t, err)
	return append(broken, more...)
}
