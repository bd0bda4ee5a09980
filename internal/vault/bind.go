package vault

import (
	"context"
	"strings"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Scope says whose keys are meant: those of an organization, of a user, or of a
// user in an organization. With neither, those of the whole environment.
type Scope struct {
	Environment  id.Environment
	Organization id.Organization
	User         id.User
}

// String names the scope, for the audit and for what is agreed to.
func (s Scope) String() string {
	parts := []string{string(s.Environment)}
	if s.Organization != "" {
		parts = append(parts, string(s.Organization))
	}
	if s.User != "" {
		parts = append(parts, string(s.User))
	}
	return strings.Join(parts, "/")
}

// Weighed says that somebody may make this change; package account makes them.
type Weighed interface{ For(object string) error }

// Scope is whose keys the binding is about.
func (b Binding) Scope() Scope { return Scope{b.Environment, b.Organization, b.User} }

// Bindings lists those of an environment, or of one organization in it.
func (v *Vault) Bindings(ctx context.Context, env id.Environment, org id.Organization) ([]Binding, error) {
	all, err := v.bindings(ctx, v.db.Reader(), bindingsSQL)
	if err != nil {
		return nil, sqldb.Wrap("list the bindings of root keys", err)
	}
	var out []Binding
	for _, b := range all {
		if b.Environment == env && (org == "" || b.Organization == org) {
			out = append(out, b)
		}
	}
	return out, nil
}

// Binding finds one by its id, where Bindings would list it.
func (v *Vault) Binding(ctx context.Context, env id.Environment, org id.Organization, b id.Binding) (Binding, error) {
	all, err := v.Bindings(ctx, env, org)
	if err != nil {
		return Binding{}, err
	}
	for _, found := range all {
		if found.ID == b {
			return found, nil
		}
	}
	return Binding{}, fault.New(fault.NotFound, "not_found", "No such binding.")
}

// Try opens a root key and tries it for a scope, before anything is entrusted to it.
// A file is found only among the server's own root keys (threats.md T7).
func (v *Vault) Try(ctx context.Context, s Scope, uri string) (keyring.Report, error) {
	labels := keyring.Context{Environment: string(s.Environment), Organization: string(s.Organization)}
	owner := string(s.Environment)
	if s.Organization != "" {
		owner = string(s.Organization)
	}
	g, stop, err := v.named(ctx, uri, owner)
	if err != nil {
		return keyring.Report{}, err
	}
	defer stop()
	return keyring.Probe(ctx, g, labels), nil
}

// CheckRoot says what is wrong with the URI of a root key. It asks no keeper.
func (v *Vault) CheckRoot(ctx context.Context, uri string) error {
	_, stop, err := v.named(ctx, uri, "")
	if err == nil {
		stop()
	}
	return err
}

// named opens the root key that a URI names, until stop. One of the server's own
// goes by its ref, and by that alone: by where it lies, whoever may try keys could
// find out where that is.
func (v *Vault) named(ctx context.Context, uri, owner string) (g *keyring.Guard, stop func(), err error) {
	for _, g := range v.roots.Own() {
		if uri != g.Describe().Ref {
			continue
		}
		if g == v.primary(ctx) {
			return nil, nil, fault.New(fault.Invalid, "root_key_is_primary", "That is the server's own root key.").WithHint("Bind another one, or none.")
		}
		return g, func() {}, nil
	}
	if g, err = v.roots.Open(ctx, uri, owner); err != nil {
		return nil, nil, err
	}
	return g, g.Stop, nil
}

const (
	insertBroughtSQL = `insert into root_brought (ref, uri, created_at, proof) values ($1, $2, $3, $4) on conflict (ref) do update set uri = excluded.uri, proof = excluded.proof`
	putBindingSQL    = `insert into key_binding (id, environment_id, organization_id, user_id, mode, root_ref, created_by_kind, created_by_id, created_at, updated_at, version, proof)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, 1, $10)
on conflict (environment_id, organization_id, user_id) do update set mode = excluded.mode, root_ref = excluded.root_ref, proof = excluded.proof, updated_at = excluded.updated_at, version = key_binding.version + 1
returning id, version`
	turnSQL          = `update key_binding set turn = $1, turn_proof = $2 where id = $3`
	deleteBindingSQL = `delete from key_binding where id = $1 and version = $2`
)

// Bind lets a root key that Try passed wrap the keys of a scope, in tx; it replaces
// what was bound there. From then on new values are sealed under it, and those from
// before follow in the background.
func (v *Vault) Bind(ctx context.Context, tx *sqldb.Tx, w Weighed, b Binding, e audit.Entry) (Binding, error) {
	if err := w.For(b.Scope().String()); err != nil {
		return Binding{}, err
	}
	if b.Mode != Required && b.Mode != Preferred {
		return Binding{}, fault.New(fault.Invalid, "invalid_mode", `A binding is "required" or "preferred".`)
	}
	if b.User != "" && b.Organization == "" {
		return Binding{}, fault.New(fault.Invalid, "invalid_scope", "A binding is for an environment, an organization, or a user in an organization.")
	}
	now := v.now()
	if _, err := tx.ExecContext(ctx, insertBroughtSQL, b.RootRef, b.URI, sqldb.Micros(now), v.audit.Vouch(vouchedRoot, b.RootRef, b.URI)); err != nil {
		return Binding{}, sqldb.Wrap("note a root key", err)
	}
	b.CreatedBy, b.CreatedAt, b.UpdatedAt = e.Actor, now, now
	err := tx.QueryRowContext(ctx, putBindingSQL, id.NewBinding(), b.Environment, b.Organization, b.User, b.Mode, b.RootRef, e.Actor.Kind, e.Actor.ID, sqldb.Micros(now), v.audit.Vouch(vouchedBinding, b.vouched()...)).
		Scan(&b.ID, &b.Version)
	if err == nil { // the row is ours until the end, so nobody else takes this turn
		b.turn, err = audit.RootKeyChanges(ctx, tx, b.Environment, b.Organization, b.User)
	}
	if err == nil {
		b.turn++ // with the entry below
		_, err = tx.ExecContext(ctx, turnSQL, b.turn, v.audit.Vouch(vouchedTurn, b.vouchedTurn()...), b.ID)
	}
	if err != nil {
		return Binding{}, sqldb.Wrap("bind a root key", err)
	}
	e.Action, e.Object, e.Environment, e.Organization, e.User = "root_key.bound", string(b.ID), b.Environment, b.Organization, b.User
	e.Detail = map[string]string{"root": b.RootRef, "uri": b.URI, "mode": string(b.Mode), "scope": b.Scope().String()}
	v.audit.AppendEvent(tx, e)
	v.followSoon(tx)
	return b, nil
}

// Unbind ends a binding, in tx. What the root key wraps comes back under the root key
// that counts then, in the background; that takes the customer's key until it is done.
func (v *Vault) Unbind(ctx context.Context, tx *sqldb.Tx, w Weighed, b Binding, e audit.Entry) error {
	if err := w.For(b.Scope().String()); err != nil {
		return err
	}
	done, err := changed(tx.ExecContext(ctx, deleteBindingSQL, b.ID, b.Version))
	if err != nil {
		return sqldb.Wrap("end the binding of a root key", err)
	}
	if !done {
		return fault.New(fault.Conflict, "version_conflict", "The binding was changed in the meantime.").WithHint("Look at it again.")
	}
	v.audit.AppendEvent(tx, b.unbound(e))
	v.followSoon(tx)
	return nil
}

// unbound is the record of a binding's end.
func (b Binding) unbound(e audit.Entry) audit.Entry {
	e.Action, e.Object, e.Environment, e.Organization, e.User = "root_key.unbound", string(b.ID), b.Environment, b.Organization, b.User
	e.Detail = map[string]string{"root": b.RootRef, "scope": b.Scope().String()}
	return e
}

// followSoon has every node look up anew which keys seal, once tx has committed.
func (v *Vault) followSoon(tx *sqldb.Tx) {
	tx.Notify(keyChannel, "bound")
	tx.Done(func(committed bool) {
		if committed {
			v.keyChanged("bound") // at once here: whoever hears of the change may rely on it
			v.rotator.poke()
		}
	})
}

// Doubt makes every node forget what a root key unwrapped, and ask it before it
// unwraps anything more, in tx. It is for a customer who has disabled their key and
// does not want to wait until that is noticed.
func (v *Vault) Doubt(tx *sqldb.Tx, b Binding, e audit.Entry) {
	tx.Notify(keyChannel, "root "+b.RootRef)
	e.Action, e.Object, e.Environment, e.Organization, e.User = "root_key.doubted", string(b.ID), b.Environment, b.Organization, b.User
	e.Detail = map[string]string{"root": b.RootRef}
	v.audit.AppendEvent(tx, e)
	tx.Done(func(committed bool) {
		if committed {
			v.keyChanged("root " + b.RootRef)
		}
	})
}

// Moved says how far the keys of a binding are.
type Moved struct {
	Keys    int64         // contexts of the scope
	Under   int64         // of them sealing under the bound root key
	Waiting int64         // versions that other root keys wrap and that still hold values, or may
	Holding int64         // of these, versions that are not known to be empty
	State   keyring.State // of the root key
}

const movedSQL = `select count(*), coalesce(sum(case when v.root_ref = $4 then 1 else 0 end), 0),
	coalesce(sum((select count(*) from kek_version o where o.kek_id = k.id and o.root_ref <> $4 and o.version <> k.version)), 0),
	coalesce(sum((select count(*) from kek_version o where o.kek_id = k.id and o.root_ref <> $4 and o.version <> k.version and o.emptied_at = 0)), 0)
from kek k join kek_version v on v.kek_id = k.id and v.version = k.version
where k.shredded_at = 0 and k.environment_id = $1 and ($2 = '' or k.organization_id = $2) and ($3 = '' or k.user_id = $3)`

// Progress says how far a binding is carried out.
func (v *Vault) Progress(ctx context.Context, b Binding) (m Moved, err error) {
	err = v.db.Reader().QueryRowContext(ctx, movedSQL, b.Environment, b.Organization, b.User, b.RootRef).Scan(&m.Keys, &m.Under, &m.Waiting, &m.Holding)
	if err != nil {
		return Moved{}, sqldb.Wrap("count keys", err)
	}
	g, err := v.rootOf(ctx, b.RootRef)
	if err != nil {
		return Moved{}, err
	}
	m.State = g.State()
	return m, nil
}

// Wake has the keys looked after now, as far as this node or another is at it.
func (v *Vault) Wake() { v.rotator.poke() }
