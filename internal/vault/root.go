package vault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// The settings of a server say which root keys it has; the database says which of
// them is primary, so that nodes agree on it and it can change while they run.
const (
	primarySQL = `select ref from root_primary where id = 'server'`
	// Where nobody has noted it yet, it is the one that wrapped the newest key.
	adoptPrimarySQL = `insert into root_primary (id, ref, changed_at)
select 'server', coalesce((select v.root_ref from kek_version v where v.root_ref not in (select ref from root_brought) order by v.created_at desc, v.kek_id limit 1), $1), $2
where true on conflict (id) do nothing`
	changePrimarySQL = `update root_primary set ref = $1, changed_at = $2 where id = 'server' and ref <> $1`
)

// AdoptRoot makes the root key primary that the database names, or names it there
// if nobody did. A server that lacks that key is refused. It comes before all else.
func (v *Vault) AdoptRoot(ctx context.Context) error {
	if err := v.fillContexts(ctx); err != nil {
		return err
	}
	if v.roots.Describe().Ref == "" {
		return keyring.Failure(keyring.CodeUnavailable, errors.New("the root key was not opened yet"))
	}
	err := v.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, adoptPrimarySQL, v.roots.Describe().Ref, sqldb.Micros(v.now()))
		return err
	})
	if err != nil {
		return sqldb.Wrap("note the primary root key", err)
	}
	return v.readPrimary(ctx)
}

// PrimaryOf gives the root key on the ring that the database names as primary, or
// that of the ring where it names none. It takes a database that nobody has
// migrated yet, and writes nothing.
func PrimaryOf(ctx context.Context, db *sqldb.DB, roots *keyring.Ring) (*keyring.Guard, error) {
	if made, err := db.HasTable(ctx, "root_primary"); err != nil || !made {
		return roots.Primary(), err
	}
	var ref string
	err := db.Reader().QueryRowContext(ctx, primarySQL).Scan(&ref)
	switch {
	case sqldb.NoRows(err):
		return roots.Primary(), nil
	case err != nil:
		return nil, sqldb.Wrap("read the primary root key", err)
	}
	return roots.ByRef(ref)
}

func (v *Vault) readPrimary(ctx context.Context) error {
	v.rotator.readPrimary.Store(false)
	var ref string
	err := v.db.Reader().QueryRowContext(ctx, primarySQL).Scan(&ref)
	if sqldb.NoRows(err) {
		return nil
	}
	if err != nil {
		v.rotator.readPrimary.Store(true)
		return sqldb.Wrap("read the primary root key", err)
	}
	if !v.roots.SetPrimary(ref) {
		return fault.New(fault.Unavailable, keyring.CodeMismatch, "The root key of this database is another one.").
			WithHint("Start the server with that key in AMBIT_ROOT_KEY or AMBIT_ROOT_KEYS_OTHER.").WithCause(fmt.Errorf("the root key %s is not on the ring", ref))
	}
	return nil
}

// primary is the server's own root key, as of the last that was heard of it.
func (v *Vault) primary(ctx context.Context) *keyring.Guard {
	if v.rotator.readPrimary.Load() {
		if err := v.readPrimary(ctx); err != nil {
			v.log.Warn("which root key is primary could not be read; the one from before is used", "error", err)
		}
	}
	return v.roots.Primary()
}

// UseRoot makes another of the server's root keys the primary one, in tx. From
// then on new keys are wrapped by it, and those that others of the server's root
// keys wrap are wrapped anew, in the background. It must be on this server's ring.
func (v *Vault) UseRoot(ctx context.Context, tx *sqldb.Tx, ref string, e audit.Entry) error {
	if !slices.ContainsFunc(v.roots.Own(), func(g *keyring.Guard) bool { return g.Describe().Ref == ref }) {
		return fault.New(fault.NotFound, "root_key_unknown", "The server has no such root key.").
			WithHint("Add it to AMBIT_ROOT_KEYS_OTHER on every node, restart them one by one, and try again.")
	}
	done, err := changed(tx.ExecContext(ctx, changePrimarySQL, ref, sqldb.Micros(v.now())))
	if err != nil {
		return sqldb.Wrap("change the primary root key", err)
	}
	if !done {
		return fault.New(fault.Conflict, "root_key_is_primary", "That is the primary root key already.")
	}
	tx.Notify(keyChannel, "primary")
	e.Action, e.Object = "root_key.changed", ref
	v.audit.AppendEvent(tx, e)
	tx.Done(func(committed bool) {
		if committed {
			v.rotator.readPrimary.Store(true)
			v.rotator.poke()
		}
	})
	return nil
}

// Rest counts what another of the server's root keys wraps than the primary one, of
// contexts and of the audit: 0 when a change of it is carried out.
func (v *Vault) Rest(ctx context.Context) (n int64, err error) {
	primary := v.primary(ctx).Describe().Ref
	if err := v.db.Reader().QueryRowContext(ctx, staleSeedsSQL, primary).Scan(&n); err != nil {
		return 0, sqldb.Wrap("count seeds", err)
	}
	audits, err := v.audit.Roots(ctx)
	for ref, keys := range audits {
		if ref != primary {
			n += keys
		}
	}
	return n, err
}

// Mode says what becomes of a context whose customer's root key cannot be used.
type Mode string

const (
	// Required is a binding that never falls back: without the customer's root key
	// nothing is sealed or opened.
	Required Mode = "required"
	// Preferred is a binding without which new values are sealed under the server's
	// own root key until the customer's is back. What is under the customer's waits.
	Preferred Mode = "preferred"
)

// Binding says that a customer's root key wraps the keys of some contexts: those
// of an organization, those of one of its users there, or, with neither, all of an
// environment. The most exact one counts.
type Binding struct {
	ID           id.Binding
	Environment  id.Environment
	Organization id.Organization // empty: the whole environment
	User         id.User         // empty: the whole organization
	Mode         Mode
	RootRef      string
	URI          string
	CreatedBy    audit.Actor
	CreatedAt    time.Time
	UpdatedAt    time.Time
	Version      int64

	turn int64 // which change of its scope's root key this is; 0: not counted
}

func (b Binding) exactness() int {
	n := 0
	if b.Organization != "" {
		n++
	}
	if b.User != "" {
		n++
	}
	return n
}

const (
	bindingColumns = `b.id, b.environment_id, b.organization_id, b.user_id, b.mode, b.root_ref, r.uri, b.created_by_kind, b.created_by_id, b.created_at, b.updated_at, b.version, b.proof, b.turn, b.turn_proof, r.proof`
	bindingFrom    = ` from key_binding b join root_brought r on r.ref = b.root_ref`
	bindingForSQL  = `select ` + bindingColumns + bindingFrom + `
where b.environment_id = $1 and b.organization_id in ('', $2) and b.user_id in ('', $3)`
	bindingsSQL    = `select ` + bindingColumns + bindingFrom + ` order by b.id`
	broughtURISQL  = `select uri, proof from root_brought where ref = $1`
	forgetRootsSQL = `delete from root_brought where ref not in (select root_ref from kek_version) and ref not in (select root_ref from key_binding) returning ref`
)

// What a server vouches for, so that a writer of the database cannot have keys
// wrapped by a root key of their own (threats.md K1).
const (
	vouchedRoot    = "root key"
	vouchedBinding = "binding of a root key"
	vouchedTurn    = "turn of a binding"
)

// vouched are the fields of a binding that a server vouches for.
func (b Binding) vouched() []string {
	return []string{string(b.Environment), string(b.Organization), string(b.User), string(b.Mode), b.RootRef}
}

// vouchedTurn are those and which change of its scope's root key the binding is.
func (b Binding) vouchedTurn() []string {
	return append(b.vouched(), string(b.ID), strconv.FormatInt(b.turn, 10))
}

// stands reports whether a binding is the last change of its scope's root key that
// is on record. Whoever puts back the row of one that was ended would have to take
// later entries out of the audit too, which shows there (threats.md K7).
func (v *Vault) stands(ctx context.Context, q sqldb.Querier, b Binding, proof []byte) (bool, error) {
	if b.turn == 0 { // of a binary that did not count: good while it is the only one there ever was
		b.turn = 1
	} else if !v.audit.Vouches(proof, vouchedTurn, b.vouchedTurn()...) {
		return false, nil
	}
	now, err := audit.RootKeyChanges(ctx, q, b.Environment, b.Organization, b.User)
	return now == b.turn, err
}

// checkRoot refuses a customer's root key that no server has noted, as wrong at p.
func (v *Vault) checkRoot(p Place, ref, uri string, proof []byte) error {
	if v.audit.Vouches(proof, vouchedRoot, ref, uri) {
		return nil
	}
	return v.integrity(p)
}

// bindings reads bindings. One that no server has made, or that has ended, is an
// alarm, and nothing is done by any of them.
func (v *Vault) bindings(ctx context.Context, q sqldb.Querier, query string, args ...any) ([]Binding, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	type proofs struct{ binding, turn, root []byte }
	var out []Binding
	var shown []proofs
	defer rows.Close()
	for rows.Next() {
		var b Binding
		var p proofs
		var created, updated int64
		if err := rows.Scan(&b.ID, &b.Environment, &b.Organization, &b.User, &b.Mode, &b.RootRef, &b.URI, &b.CreatedBy.Kind, &b.CreatedBy.ID, &created, &updated, &b.Version, &p.binding, &b.turn, &p.turn, &p.root); err != nil {
			return nil, err
		}
		b.CreatedAt, b.UpdatedAt = sqldb.Time(created), sqldb.Time(updated)
		out, shown = append(out, b), append(shown, p)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	for i, b := range out {
		at := Place{Environment: b.Environment, Organization: b.Organization, User: b.User, Kind: "binding", Object: string(b.ID), Version: b.Version}
		if !v.audit.Vouches(shown[i].binding, vouchedBinding, b.vouched()...) {
			return nil, v.integrity(at)
		}
		if stands, err := v.stands(ctx, q, b, shown[i].turn); err != nil || !stands {
			return nil, cmp.Or(err, v.integrity(at))
		}
		if err := v.checkRoot(at, b.RootRef, b.URI, shown[i].root); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// bindingFor gives the binding that counts for a context; nil: none.
func (v *Vault) bindingFor(ctx context.Context, q sqldb.Querier, c keyContext) (*Binding, error) {
	all, err := v.bindings(ctx, q, bindingForSQL, c.environment, c.items[organizationItem], c.items[userItem])
	if err != nil {
		return nil, sqldb.Wrap("look up whose root key counts", err)
	}
	var best *Binding
	for i, b := range all {
		if best == nil || b.exactness() > best.exactness() {
			best = &all[i]
		}
	}
	return best, nil
}

// desired is the root key that a context's keys should be wrapped by.
func (v *Vault) desired(ctx context.Context, c keyContext) (string, error) {
	b, err := v.bindingFor(ctx, v.db.Reader(), c)
	if err != nil {
		return "", err
	}
	if b != nil {
		return b.RootRef, nil
	}
	return v.primary(ctx).Describe().Ref, nil
}

// broughtURI is where a customer's root key is, if a server has noted it.
func (v *Vault) broughtURI(ctx context.Context, q sqldb.Querier, ref string) (uri string, err error) {
	var proof []byte
	if err = q.QueryRowContext(ctx, broughtURISQL, ref).Scan(&uri, &proof); err == nil {
		err = v.checkRoot(Place{Kind: "root key", Object: ref}, ref, uri, proof)
	}
	return uri, err
}
