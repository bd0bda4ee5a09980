package app_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// plainColumns are the columns of bytes that hold nothing sealed, each with what it
// holds. A new column of bytes fails the test below until it is listed here or its
// room names it with Vault.Keeps.
var plainColumns = map[string]string{
	"agent_token.hash": "a digest", "agent_token.replaced_by": "a digest", "api_key.request_digest": "a digest", "api_key.token_hash": "a digest",
	"audit_chain.key_wrapped": "wrapped by a root key; the audit's own Rewrap", "audit_signer.key_wrapped": "wrapped by a root key; the audit's own Rewrap",
	"audit_entry.body": "public to readers of the audit", "audit_entry.hash": "a digest",
	"authorization_code.hash": "a digest", "cli_request.poll_hash": "a digest", "connection.pinned": "a record", "connection.record_digest": "a digest",
	"enroll_link.token_hash": "a digest", "integration_return.token_hash": "a digest", "vouch_link.token_hash": "a digest", "connect_ticket.token_hash": "a digest", "guess.subject": "a digest", "kek.context": "names", "kek_version.commitment": "says nothing of the key",
	"kek_version.wrapped_seed": "wrapped by a root key", "login.token_hash": "a digest", "oauth_client.secret_hash": "a digest",
	"oauth_flow.record_digest": "a digest", "oauth_flow.state_hash": "a digest", "passkey.credential_id": "public", "passkey.public_key": "public",
	"provider_notice.digest": "a digest", "provider.record": "a record", "provider_draft.record": "a record", "provider_snapshot.digest": "a digest", "provider_snapshot.record": "a record",
	"secret_object.key_context": "names", "secret_object.metadata": "in clear, as documented", "secret_object.tags": "in clear, as documented",
	"api_key.secret_rules": "rules", "secret_request.answer": "names, or what an application holds sealed under a version that is kept", "secret_request.key_hash": "a digest",
	"mcp_look.tools": "what a server says of its tools", "client_assertion.hash": "a digest", "device_code.hash": "a digest", "oauth_client.old_secret_hash": "a digest", "approval.first_decision": "a decision", "organization_rule.document": "rules", "proxy_authority.certificate": "public", "session_grant.limits": "a grant",
	"webhook_delivery.body": "what applications are told", "session.asked": "a request", "session_grant.tools": "a grant", "signin_flow.state": "a challenge", "spent_proof.digest": "a digest",
	"fresh_code.code_hash": "a digest", "challenge_key.key": "signs challenges of some minutes", "root_brought.proof": "a digest under a key", "key_binding.proof": "a digest under a key", "key_binding.turn_proof": "a digest under a key",
}

// Issue 4, rotation: no column that holds something sealed is forgotten when keys
// change. Every column of bytes is either named by its room or known to be plain.
func TestEverySealedColumnIsNamed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, sqldb.SQLite)
	a, err := app.New(t.Context(), c.cfg)
	must(t, err)
	defer a.Close()
	named := map[string]bool{}
	for _, col := range a.Vault.Columns() {
		named[col.String()] = true
	}
	db := sqldbtest.Open(t, sqldb.SQLite)
	rows, err := db.Reader().QueryContext(t.Context(), `select m.name || '.' || p.name from sqlite_schema m, pragma_table_info(m.name) p where m.type = 'table' and lower(p.type) = 'blob'`)
	must(t, err)
	defer rows.Close()
	var all []string
	for rows.Next() {
		var name string
		must(t, rows.Scan(&name))
		all = append(all, name)
		if named[name] == (plainColumns[name] != "") {
			t.Errorf("%s holds something sealed: by its room %v, by the list of plain columns %v", name, named[name], plainColumns[name] == "")
		}
	}
	must(t, rows.Err())
	if len(all) < 30 {
		t.Errorf("only %d columns were looked at", len(all))
	}
	for _, name := range slices.Concat(slices.Collect(maps.Keys(named)), slices.Collect(maps.Keys(plainColumns))) {
		if !slices.Contains(all, name) {
			t.Errorf("%s is listed and is no column", name)
		}
	}
}
