package vault

import (
	"context"
	"fmt"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

const (
	shreddedKeysSQL = `select id from kek where environment_id = $1 and ($2 = '' or organization_id = $2) and ($3 = '' or user_id = $3) and ($4 = '' or id = $4) and shredded_at = 0 order by id`
	tombstoneSQL    = `update kek set shredded_at = $5 where environment_id = $1 and ($2 = '' or organization_id = $2) and ($3 = '' or user_id = $3) and ($4 = '' or id = $4) and shredded_at = 0`
	destroySQL      = `delete from kek_version where kek_id in (select id from kek where environment_id = $1 and ($2 = '' or organization_id = $2) and ($3 = '' or user_id = $3) and ($4 = '' or id = $4))`
	unbindAllSQL    = `delete from key_binding where environment_id = $1 and ($2 = '' or organization_id = $2) and ($3 = '' or user_id = $3)
	returning id, environment_id, organization_id, user_id, root_ref`
)

// Shred destroys, in tx, the keys of a scope for good: of an organization, a user,
// or, where kek is given, that one key of the scope. Whatever they sealed can be
// read by nobody any more, here and in every backup that is taken from now on; and
// the contexts never get another key. Afterwards [Vault.Scrub] takes what was
// deleted from the database's files.
func (v *Vault) Shred(ctx context.Context, tx *sqldb.Tx, w Weighed, s Scope, kek id.KEK, e audit.Entry) (keys int, err error) {
	object := s.String()
	if kek != "" {
		object = string(kek)
	}
	if err := w.For(object); err != nil {
		return 0, err
	}
	if s.Environment == "" || s.Organization == "" && s.User == "" && kek == "" {
		return 0, fault.New(fault.Invalid, "invalid_scope", "A whole environment is not shredded.").WithHint("Name an organization, a user or a key.")
	}
	args := []any{s.Environment, s.Organization, s.User, kek}
	ids, err := textsOf(ctx, tx, shreddedKeysSQL, args...)
	if err != nil {
		return 0, sqldb.Wrap("list keys", err)
	}
	if len(ids) == 0 {
		return 0, fault.New(fault.NotFound, "not_found", "There is no such key.").WithHint("See: ambit key list")
	}
	if _, err := tx.ExecContext(ctx, tombstoneSQL, append(args, sqldb.Micros(v.now()))...); err != nil {
		return 0, sqldb.Wrap("shred keys", err)
	}
	if _, err := tx.ExecContext(ctx, destroySQL, args...); err != nil {
		return 0, sqldb.Wrap("shred keys", err)
	}
	if kek == "" {
		if err := v.unbindAll(ctx, tx, e, args[:3]...); err != nil {
			return 0, sqldb.Wrap("end bindings of root keys", err)
		}
	}
	forget := func() { v.keyChanged("") }
	if len(ids) > 100 {
		tx.Notify(keyChannel, "") // all of them
	} else {
		for _, k := range ids {
			tx.Notify(keyChannel, "key "+k)
		}
		forget = func() {
			for _, k := range ids {
				v.keyChanged("key " + k)
			}
		}
	}
	e.Action, e.Object, e.Environment, e.Organization, e.User = "key.shredded", object, s.Environment, s.Organization, s.User
	e.Detail = map[string]string{"keys": fmt.Sprint(len(ids))}
	v.audit.AppendEvent(tx, e)
	tx.Done(func(committed bool) {
		if committed {
			v.rotator.scrub.Store(true)
			forget()
		}
	})
	return len(ids), nil
}

// unbindAll ends the bindings of a scope and of all scopes in it.
func (v *Vault) unbindAll(ctx context.Context, tx *sqldb.Tx, e audit.Entry, scope ...any) error {
	rows, err := tx.QueryContext(ctx, unbindAllSQL, scope...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var b Binding
		if err := rows.Scan(&b.ID, &b.Environment, &b.Organization, &b.User, &b.RootRef); err != nil {
			return err
		}
		v.audit.AppendEvent(tx, b.unbound(e))
	}
	return rows.Err()
}

// textsOf reads a column of texts.
func textsOf(ctx context.Context, q sqldb.Querier, query string, args ...any) ([]string, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

// Scrub takes the wraps of keys that were shredded from the database's files; see
// [sqldb.DB.Scrub]. Where somebody is in the way it is done again by itself.
func (v *Vault) Scrub(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return v.db.Scrub(ctx, "kek_version")
}

// scrubAgain is Scrub once more, some time after a shredding: whoever read from
// before it has finished by then.
func (w *sweep) scrubAgain(ctx context.Context) error {
	if !w.rotator.scrub.Load() {
		return nil
	}
	err := w.Scrub(ctx)
	if err == nil {
		w.rotator.scrub.Store(false)
	}
	return err
}
