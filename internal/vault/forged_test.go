package vault_test

import (
	"context"
	"testing"

	"github.com/ambit-dev/ambit/internal/audit"
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

// K1, K7: the row of a binding that was ended, or replaced, does not count when a
// writer of the database puts it back, whatever else of it they change; and no
// change of a binding that the servers make is taken for one.
func TestEndedBindingsStayEnded(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *byok, vault.Binding){
		"unbound": func(t *testing.T, b *byok, bound vault.Binding) {
			b.do(t, func(ctx context.Context, tx *sqldb.Tx) error {
				return b.Unbind(ctx, tx, weighed{}, bound, audit.Entry{Actor: b.c.Actor})
			})
		},
		"replaced": func(t *testing.T, b *byok, _ vault.Binding) { b.bind(t, vault.Preferred) },
		"shredded": func(t *testing.T, b *byok, _ vault.Binding) {
			b.do(t, func(ctx context.Context, tx *sqldb.Tx) error {
				_, err := b.Shred(ctx, tx, weighed{}, vault.Scope{Environment: b.c.Environment, Organization: b.org}, "", audit.Entry{Actor: b.c.Actor})
				return err
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
				b := newBYOK(t, db)
				first := b.bind(t, vault.Required)
				exec(t, db, `create table old_binding as select * from key_binding`, `create table old_root as select * from root_brought`)
				end(t, b, first)
				if all, err := b.Bindings(t.Context(), b.c.Environment, ""); err != nil {
					t.Fatalf("what servers did is taken for a forgery: %v, %v", all, err)
				}
				for what, change := range map[string]string{
					"as it was": "", "not counted": `update key_binding set turn = 0`, "counted on": `update key_binding set turn = turn + 1, version = version + 1`,
				} {
					exec(t, db, `delete from key_binding`, `insert into root_brought select * from old_root where ref not in (select ref from root_brought)`, `insert into key_binding select * from old_binding`)
					if change != "" {
						exec(t, db, change)
					}
					v := b.beside(t)
					if all, err := v.Bindings(t.Context(), b.c.Environment, ""); !fault.Is(err, "sealed_value_invalid") {
						t.Errorf("%s, put back %s: believed as %v, %v", name, what, all, err)
					}
					if _, err := v.Create(t.Context(), b.c, vault.NewObject{Name: what, Context: map[string]string{"organization_id": string(b.org), "user": what}, Value: vault.Value{Secret: value(1, 1)}}); err == nil {
						t.Errorf("%s, put back %s: a value was sealed", name, what)
					}
				}
			})
		})
	}
}
