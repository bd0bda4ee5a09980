package vault

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

const (
	// remindBefore is how long before a date there is a first reminder of it.
	remindBefore = 7 * 24 * time.Hour
	sweepLease   = 2 * time.Minute
	sweepBatch   = 100
	sweepBatches = 100 // in one sweep; the next one goes on
)

// Sweep purges deleted secrets whose restore window is over, and puts reminders
// on record: a week before a secret expires or should be rotated, and when it
// does. Of all nodes one does it at a time; for the others there is nothing to do.
func (v *Vault) Sweep(ctx context.Context) error {
	lease, got, err := v.db.Acquire(ctx, "vault sweep", sweepLease)
	if err != nil || !got {
		return err
	}
	defer func() { _ = lease.Release(context.WithoutCancel(ctx)) }() // it ends by itself
	for _, step := range []func(context.Context) (int, error){v.purge, v.remindOfExpiry, v.remindOfRotation} {
		for range sweepBatches {
			n, err := step(ctx)
			if err != nil {
				return sqldb.Wrap("sweep the vault", err)
			}
			if n < sweepBatch {
				break
			}
			if held, err := lease.Renew(ctx, sweepLease); err != nil || !held {
				return err
			}
		}
	}
	return nil
}

// purge removes a batch of secrets with all their versions, and says how many.
func (v *Vault) purge(ctx context.Context) (n int, err error) {
	now := v.now()
	err = v.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		due, err := dueObjects(ctx, tx, purgeableSQL, sqldb.Micros(now), sweepBatch)
		if err != nil {
			return err
		}
		n = len(due)
		for _, d := range due {
			gone, err := purgeObject(ctx, tx, d.id, sqldb.Micros(now))
			if err != nil {
				return err
			}
			if gone { // and not by another node, whose lease this one has
				v.audit.AppendEvent(tx, d.entry("secret.purged"))
			}
		}
		return nil
	})
	return n, err
}

func (v *Vault) remindOfExpiry(ctx context.Context) (int, error) {
	return v.remind(ctx, expirySQL, toldExpirySQL, "secret.expires_soon", "secret.expired")
}

func (v *Vault) remindOfRotation(ctx context.Context) (int, error) {
	return v.remind(ctx, rotationSQL, toldRotationSQL, "secret.rotation_soon", "secret.rotation_due")
}

// remind puts one batch of reminders on record, each once: a row's stage is how
// far it has been told.
func (v *Vault) remind(ctx context.Context, query, told, soon, now string) (n int, err error) {
	at := v.now()
	err = v.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		due, err := dueObjects(ctx, tx, query, sqldb.Micros(at.Add(remindBefore)), sqldb.Micros(at), sweepBatch)
		if err != nil {
			return err
		}
		n = len(due)
		for _, d := range due {
			stage, action := 1, soon
			if !d.at.After(at) {
				stage, action = 2, now
			}
			first, err := changed(tx.ExecContext(ctx, told, stage, d.id))
			if err != nil {
				return err
			}
			if first {
				v.audit.AppendEvent(tx, d.entry(action))
			}
		}
		return nil
	})
	return n, err
}

// dueObject is a secret for which a date has come.
type dueObject struct {
	id           id.Secret
	name         string
	environment  id.Environment
	organization string
	at           time.Time
}

func (d dueObject) entry(action string) audit.Entry {
	e := audit.Entry{Environment: d.environment, Actor: audit.Actor{Kind: "system", ID: "vault"}, Action: action, Object: string(d.id),
		Detail: map[string]string{"name": d.name, "at": d.at.Format(time.RFC3339)}}
	_ = parseID(&e.Organization, d.organization) // an application may have filed anything under that name
	return e
}

const (
	dueColumns   = `select o.id, ` + nameSQL + `, o.environment_id, o.organization_id, `
	purgeableSQL = dueColumns + `o.purge_at from secret_object o where o.purge_at <> 0 and o.purge_at <= $1 order by o.purge_at limit $2`
	purgeSQL     = `delete from secret_object where id = $1 and purge_at <> 0 and purge_at <= $2`
	expirySQL    = dueColumns + `o.expires_at from secret_object o where o.expires_at <> 0 and o.expiry_told < 2 and o.deleted_at = 0
and (o.expiry_told = 0 and o.expires_at <= $1 or o.expires_at <= $2) order by o.expires_at limit $3`
	rotationSQL = dueColumns + `o.rotate_by from secret_object o where o.rotate_by <> 0 and o.rotation_told < 2 and o.deleted_at = 0
and (o.rotation_told = 0 and o.rotate_by <= $1 or o.rotate_by <= $2) order by o.rotate_by limit $3`
	toldExpirySQL   = `update secret_object set expiry_told = $1 where id = $2 and expiry_told < $1`
	toldRotationSQL = `update secret_object set rotation_told = $1 where id = $2 and rotation_told < $1`
)

func dueObjects(ctx context.Context, q sqldb.Querier, query string, args ...any) ([]dueObject, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []dueObject
	for rows.Next() {
		var d dueObject
		var at int64
		if err := rows.Scan(&d.id, &d.name, &d.environment, &d.organization, &at); err != nil {
			return nil, err
		}
		d.at = sqldb.Time(at)
		out = append(out, d)
	}
	return out, rows.Err()
}

func purgeObject(ctx context.Context, q sqldb.Querier, s id.Secret, now int64) (gone bool, err error) {
	return changed(q.ExecContext(ctx, purgeSQL, s, now))
}
