package vault_test

import (
	"context"
	"testing"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

// K1, a bug: who could write the database bound a root key of their own to
// contexts, or named one as what wraps a key, and the servers gave it the seeds.
// Such rows are an alarm, nothing is wrapped or unwrapped by what they name, and
// what was sealed before still opens.
func TestForgedRootKeysGetNothing(t *testing.T) {
	t.Parallel()
	const (
		root    = `insert into root_brought (ref, uri, created_at) values ('kit:evil', 'kit:evil', 1)`
		binding = `insert into key_binding (id, environment_id, organization_id, user_id, mode, root_ref, created_by_kind, created_by_id, created_at, updated_at, version)
			select 'kbind_evil', environment_id, '', '', 'required', 'kit:evil', 'user', 'user_x', 1, 1, 1 from kek limit 1`
		// Proofs of other rows prove nothing here.
		borrowed = `update root_brought set proof = (select proof from root_brought where ref <> 'kit:evil') where ref = 'kit:evil'`
		moved    = `update root_brought set uri = 'kit:evil'`
		widened  = `update key_binding set organization_id = ''`
		version  = `insert into kek_version (kek_id, version, root_ref, wrapped_seed, commitment, wraps, created_at)
			select kek_id, version + 1, 'kit:evil', wrapped_seed, commitment, wraps, created_at from kek_version`
		sealing = `update kek set version = version + 1`
	)
	for name, forge := range map[string][]string{
		"a binding":                 {root, binding},
		"a binding, proof borrowed": {root, borrowed, binding, `update key_binding set proof = (select proof from key_binding where id <> 'kbind_evil') where id = 'kbind_evil'`},
		"another place of a key":    {moved},
		"a binding widened":         {widened},
		"a version":                 {root, version, sealing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
				b := newBYOK(t, db)
				b.bind(t, vault.Required)
				mustRotate(t, b.Vault)
				b.do(t, func(ctx context.Context, tx *sqldb.Tx) error {
					for _, query := range forge {
						if _, err := tx.ExecContext(ctx, query); err != nil {
							return err
						}
					}
					return nil
				})
				node := b.beside(t) // which holds nothing yet
				org := ""
				if name == "a version" || name == "another place of a key" {
					org = string(b.org)
				}
				_, err := node.Create(t.Context(), b.c, object("fresh", org, value(1, 1)))
				if name == "a version" { // is replaced, like any that another root key should wrap
					if n := count(t, db, `select count(*) from kek k join kek_version v on v.kek_id = k.id and v.version = k.version where v.root_ref = 'kit:evil' and k.organization_id = $1`, b.org); err != nil || n != 0 {
						t.Errorf("%d keys seal by the forged version, %v", n, err)
					}
					return
				}
				if !fault.Is(err, "sealed_value_invalid") {
					t.Errorf("sealed by a forged row: %v", err)
				}
				if err := node.Rotate(t.Context()); err == nil {
					t.Error("the keys were looked after by forged rows")
				}
				if n := count(t, db, `select count(*) from kek_version where root_ref = 'kit:evil'`); n != 0 {
					t.Errorf("%d versions are wrapped by the forged root key", n)
				}
				if err := b.reads(t, node, b.other); err != nil {
					t.Errorf("what was sealed before: %v", err)
				}
				until(t, func() bool {
					return count(t, db, `select count(*) from audit_entry where action = 'vault.integrity_failed'`) > 0
				})
			})
		})
	}
}
