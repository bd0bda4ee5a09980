package sqldb

import (
	"context"
	"crypto/rand"
	"time"
)

// Lease is the right to be the only one at a task, on all nodes, until it ends.
// Its end is judged by the database's clock.
type Lease struct {
	db          *DB
	name, owner string
}

// Acquire takes the lease called name for ttl unless somebody holds it; false
// means somebody does. Nobody is woken when a lease ends: try again. On
// SQLite the lease of a process that died is nobody's.
func (db *DB) Acquire(ctx context.Context, name string, ttl time.Duration) (*Lease, bool, error) {
	const query = `
insert into lease (name, owner, until) values ($1, $2, $3)
on conflict (name) do update set owner = excluded.owner, until = excluded.until
where lease.until <= $4 or substr(lease.owner, 1, length($5)) <> $5
returning owner`
	l := &Lease{db: db, name: name, owner: db.owner + "." + rand.Text()}
	living := "" // what the names of all who may live begin with
	if db.engine == SQLite {
		living = db.owner + "." // the folder is locked: nobody else does
	}
	held, err := l.write(ctx, "acquire a lease", func(ctx context.Context, tx *Tx, now int64) error {
		var owner string
		return tx.QueryRowContext(ctx, query, l.name, l.owner, now+ttl.Microseconds(), now, living).Scan(&owner)
	})
	if !held || err != nil {
		return nil, false, err
	}
	return l, true, nil
}

// Renew makes the lease last ttl from now. False means that it had ended and
// must be acquired again: whatever it protected may have another owner.
func (l *Lease) Renew(ctx context.Context, ttl time.Duration) (bool, error) {
	const query = `update lease set until = $1 where name = $2 and owner = $3 and until > $4 returning owner`
	return l.write(ctx, "renew a lease", func(ctx context.Context, tx *Tx, now int64) error {
		var owner string
		return tx.QueryRowContext(ctx, query, now+ttl.Microseconds(), l.name, l.owner, now).Scan(&owner)
	})
}

// Release gives the lease back early. A lease that ended, or that another
// owner has taken since, is left alone.
func (l *Lease) Release(ctx context.Context) error {
	const query = `delete from lease where name = $1 and owner = $2`
	_, err := l.write(ctx, "release a lease", func(ctx context.Context, tx *Tx, now int64) error {
		_, err := tx.ExecContext(ctx, query, l.name, l.owner)
		return err
	})
	return err
}

// Writable commits a write, and so finds a full disk, a read-only one or a
// PostgreSQL standby before a caller does.
func (db *DB) Writable(ctx context.Context) error {
	const query = `
insert into lease (name, owner, until) values ('writable', $1, 0)
on conflict (name) do update set owner = excluded.owner`
	return Wrap("write to the database", db.Update(ctx, func(ctx context.Context, tx *Tx) error {
		_, err := tx.ExecContext(ctx, query, db.owner)
		return err
	}))
}

// write runs a statement on the lease table. The clock is read before the
// transaction: a time slightly in the past can only shorten our own lease and
// lengthen another's.
func (l *Lease) write(ctx context.Context, op string, fn func(ctx context.Context, tx *Tx, now int64) error) (bool, error) {
	now, err := l.db.Clock(ctx)
	if err != nil {
		return false, err
	}
	err = l.db.Update(ctx, func(ctx context.Context, tx *Tx) error { return fn(ctx, tx, Micros(now)) })
	if NoRows(err) {
		return false, nil
	}
	return err == nil, Wrap(op, err)
}
