package vault

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/failpoint"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Rotation says when keys are replaced, and how the work goes on. Zero values take
// the defaults.
type Rotation struct {
	MaxWraps int64         // of one version; default 2^30
	MaxAge   time.Duration // of one version; default 90 days
	// Grace is how long a version is kept after another took its place, even if
	// nothing is under it any more; default 1 h. It outlasts whoever sealed just
	// before and has not written yet.
	Grace time.Duration
	Every time.Duration // between looks at what is to be done; default 1 min

	block int64 // wraps that are reserved at once
}

const (
	defaultMaxWraps = 1 << 30
	hardMaxWraps    = 1 << 32 // NIST SP 800-38D: random nonces under one key
	defaultMaxAge   = 90 * 24 * time.Hour
	reserveBlock    = 1 << 16

	rotationLease = "key rotation"
	leaseLife     = time.Minute
	sweepPage     = 100
)

func (r Rotation) withDefaults() Rotation {
	if r.MaxWraps == 0 {
		r.MaxWraps = defaultMaxWraps
	}
	if r.MaxAge == 0 {
		r.MaxAge = defaultMaxAge
	}
	if r.Grace == 0 {
		r.Grace = time.Hour
	}
	if r.Every == 0 {
		r.Every = time.Minute
	}
	if r.block == 0 {
		r.block = reserveBlock
	}
	return r
}

// rotator is what looks after the keys. There is no list of jobs: what is to be
// done is what differs from how it should be, so whoever dies in the middle leaves
// nothing behind but less to do.
type rotator struct {
	wake        chan struct{}
	readPrimary *atomic.Bool // the server's root key may be another now
	scrub       *atomic.Bool // keys were shredded
	ctx         context.Context
	cancel      context.CancelFunc
	wg          *sync.WaitGroup
}

func newRotator() rotator {
	ctx, cancel := context.WithCancel(context.Background())
	return rotator{wake: make(chan struct{}, 1), readPrimary: &atomic.Bool{}, scrub: &atomic.Bool{}, ctx: ctx, cancel: cancel, wg: &sync.WaitGroup{}}
}

func (r rotator) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Start looks after the keys until Stop: of several nodes one at a time.
func (v *Vault) Start() { v.rotator.wg.Go(v.rotate) }

// Stop ends what Start began.
func (v *Vault) Stop() {
	v.rotator.cancel()
	v.rotator.wg.Wait()
}

func (v *Vault) rotate() {
	next := time.NewTimer(v.rotation.Every)
	defer next.Stop()
	for {
		select {
		case <-v.rotator.ctx.Done():
			return
		case <-next.C:
		case <-v.rotator.wake:
		}
		_ = v.primary(v.rotator.ctx)
		if err := v.Rotate(v.rotator.ctx); err != nil && v.rotator.ctx.Err() == nil {
			v.log.Warn("some keys could not be looked after; it is tried again", "error", err)
		}
		next.Reset(v.rotation.Every)
	}
}

// Rotate does what is to be done, unless another node is at it: keys that are due
// get another version, seeds are wrapped by the root key that they should be under,
// values by the version that seals, and versions that nothing is under are
// destroyed. It can be cut off anywhere and be begun again. What cannot be done, as
// with a root key that is away, holds up nothing else and is an error in the end.
func (v *Vault) Rotate(ctx context.Context) error {
	lease, ok, err := v.db.Acquire(ctx, rotationLease, leaseLife)
	if err != nil || !ok {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = lease.Release(ctx)
	}()
	w := &sweep{Vault: v, lease: lease, renewed: time.Now(), last: time.Now()}
	for _, step := range []func(context.Context) error{w.replaceDue, w.followBindings, w.rewrapSeeds, w.rewrapAudit, w.moveValues, w.retire, w.forgetRoots, w.scrubAgain} {
		err = errors.Join(err, step(ctx))
		if ctx.Err() != nil || errors.Is(err, errLeaseLost) {
			break
		}
	}
	return err
}

// sweep is one run of Rotate.
type sweep struct {
	*Vault
	lease   *sqldb.Lease
	renewed time.Time
	last    time.Time // when pace last let somebody go on
}

var errLeaseLost = errors.New("another node looks after the keys now")

// pace leaves half of the time to everybody else, and keeps the lease.
func (w *sweep) pace(ctx context.Context) error {
	rest := min(time.Since(w.last), 100*time.Millisecond)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(rest):
	}
	if time.Since(w.renewed) > leaseLife/4 {
		if ok, err := w.lease.Renew(ctx, leaseLife); err != nil || !ok {
			return errors.Join(errLeaseLost, err)
		}
		w.renewed = time.Now()
	}
	w.last = time.Now()
	return failpoint.Hit("vault.rotate: next")
}

const (
	unfilledSQL = `select id, context from kek where organization_id is null order by id limit $1`
	fillSQL     = `update kek set organization_id = $1, user_id = $2 where id = $3`
)

// fillContexts reads into columns whose the keys are that were made before there
// were such columns.
func (v *Vault) fillContexts(ctx context.Context) error {
	for {
		n := 0
		err := v.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
			n = 0
			type unfilled struct {
				id      string
				context []byte
			}
			var all []unfilled
			rows, err := tx.QueryContext(ctx, unfilledSQL, sweepPage)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var u unfilled
				if err := rows.Scan(&u.id, &u.context); err != nil {
					return err
				}
				all = append(all, u)
			}
			if err := rows.Err(); err != nil {
				return err
			}
			for _, u := range all {
				c, _ := parseContext(u.context) // one that cannot be read is nobody's
				if _, err := tx.ExecContext(ctx, fillSQL, c.items[organizationItem], c.items[userItem], u.id); err != nil {
					return err
				}
			}
			n = len(all)
			return nil
		})
		if err != nil || n < sweepPage {
			return sqldb.Wrap("note whose the keys are", err)
		}
	}
}

const rowsFrom = ` from kek k join kek_version v on v.kek_id = k.id where k.shredded_at = 0 and `

const (
	dueSQL      = `select ` + kekColumns + `, ` + versionColumns + rowsFrom + `v.version = k.version and (v.wraps >= $1 or v.created_at < $2) order by k.id limit $3 offset $4`
	boundSQL    = `select ` + kekColumns + `, ` + versionColumns + rowsFrom + `v.version = k.version and v.root_ref <> $1 and k.environment_id = $2 and ($3 = '' or k.organization_id = $3) and ($4 = '' or k.user_id = $4) order by k.id limit $5 offset $6`
	broughtSQL  = `select ` + kekColumns + `, ` + versionColumns + rowsFrom + `v.version = k.version and v.root_ref in (select ref from root_brought) order by k.id limit $1 offset $2`
	underSQL    = `select ` + kekColumns + `, ` + versionColumns + rowsFrom + `v.root_ref = $1 order by k.id, v.version limit $2 offset $3`
	outdatedSQL = `select ` + kekColumns + `, ` + versionColumns + rowsFrom + `v.version < k.version and v.emptied_at = 0 order by k.id, v.version limit $1 offset $2`
	emptiedSQL  = `select ` + kekColumns + `, ` + versionColumns + rowsFrom + `v.version < k.version and v.kept = 0 and v.emptied_at between 1 and $1 order by k.id, v.version limit $2 offset $3`
)

func kekRows(ctx context.Context, q sqldb.Querier, query string, args ...any) ([]kekRow, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, sqldb.Wrap("list keys", err)
	}
	defer rows.Close()
	var out []kekRow
	for rows.Next() {
		var r kekRow
		if err := r.scan(rows); err != nil {
			return nil, sqldb.Wrap("list keys", err)
		}
		out = append(out, r)
	}
	return out, sqldb.Wrap("list keys", rows.Err())
}

// each does something with every row of a list that grows shorter by it. Rows that
// stay, because they should or because it failed, are passed over.
func (w *sweep) each(ctx context.Context, query string, args []any, do func(ctx context.Context, r kekRow) (gone bool, err error)) (failed error) {
	stay := 0
	for {
		rows, err := kekRows(ctx, w.db.Reader(), query, append(args[:len(args):len(args)], sweepPage, stay)...)
		if err != nil {
			return errors.Join(failed, err)
		}
		for _, r := range rows {
			if err := w.pace(ctx); err != nil {
				return errors.Join(failed, err)
			}
			gone, err := do(ctx, r)
			if err != nil && failed == nil { // there may be as many as keys
				failed = fmt.Errorf("the key %s: %w", r.id, err)
			}
			if !gone {
				stay++
			}
		}
		if len(rows) < sweepPage {
			return failed
		}
	}
}

// replaceDue gives another version to every key that has sealed enough or is old.
func (w *sweep) replaceDue(ctx context.Context) error {
	return w.each(ctx, dueSQL, []any{w.rotation.MaxWraps, sqldb.Micros(w.now().Add(-w.rotation.MaxAge))}, func(ctx context.Context, r kekRow) (bool, error) {
		return w.replace(ctx, r, "due")
	})
}

// replace makes the next version under the root key that the context should be under.
func (w *sweep) replace(ctx context.Context, r kekRow, why string) (bool, error) {
	c, ok := parseContext(r.context)
	if !ok {
		return false, w.integrity(Place{Kind: "kek", Object: string(r.id)})
	}
	ref, err := w.desired(ctx, c)
	if err == nil {
		_, err = w.nextVersion(ctx, r, ref, false, why)
	}
	return err == nil, err
}

// followBindings gives another version, under the right root key, to every key that
// a customer's root key should wrap and does not, or does and should not. A seed
// that another root key has ever wrapped is worth as little as that one, so it is
// not wrapped anew.
func (w *sweep) followBindings(ctx context.Context) error {
	all, err := w.bindings(ctx, w.db.Reader(), bindingsSQL)
	if err != nil {
		return sqldb.Wrap("list the bindings of root keys", err)
	}
	move := func(ctx context.Context, r kekRow) (bool, error) {
		c, ok := parseContext(r.context)
		if !ok {
			return false, w.integrity(Place{Kind: "kek", Object: string(r.id)})
		}
		ref, err := w.desired(ctx, c)
		if err != nil || ref == r.rootRef {
			return false, err
		}
		return w.replace(ctx, r, "bound")
	}
	for _, b := range all {
		err = errors.Join(err, w.each(ctx, boundSQL, []any{b.RootRef, b.Environment, b.Organization, b.User}, move))
	}
	return errors.Join(err, w.each(ctx, broughtSQL, nil, move))
}

const moveSeedSQL = `update kek_version set root_ref = $1, wrapped_seed = $2 where kek_id = $3 and version = $4 and root_ref = $5 and wrapped_seed = $6`

// rewrapSeeds wraps by the primary root key what others of the server's own wrap.
// That takes one call for each context and touches no value.
func (w *sweep) rewrapSeeds(ctx context.Context) (err error) {
	for _, g := range w.roots.Own() {
		if g == w.primary(ctx) {
			continue
		}
		err = errors.Join(err, w.each(ctx, underSQL, []any{g.Describe().Ref}, w.rewrapSeed))
	}
	return err
}

// rewrapSeed replaces the wrap of one seed, after what takes its place was opened.
func (w *sweep) rewrapSeed(ctx context.Context, r kekRow) (bool, error) {
	if c, ok := parseContext(r.context); ok { // one of the server's own root keys may be bound too
		if ref, err := w.desired(ctx, c); err != nil || ref == r.rootRef {
			return false, err
		}
	}
	from, err := w.rootOf(ctx, r.rootRef)
	if err != nil {
		return false, err
	}
	seed, err := from.Unwrap(ctx, r.wrapped, r.binding())
	if errors.Is(err, crypt.ErrIntegrity) {
		return false, w.integrity(Place{Kind: "kek", Object: string(r.id)})
	}
	if err != nil {
		return false, err
	}
	to, next := w.primary(ctx), r
	next.rootRef = to.Describe().Ref
	if next.wrapped, err = to.Wrap(ctx, seed, r.binding()); err != nil {
		return false, err
	}
	if _, err = w.unwrapUnder(ctx, to, next); err != nil {
		return false, err
	}
	gone := false
	err = w.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		tx.Named("key.rewrapped", "seed")
		gone, err = changed(tx.ExecContext(ctx, moveSeedSQL, next.rootRef, next.wrapped, r.id, int64(r.version), r.rootRef, r.wrapped))
		if gone { // what is held goes on to count by the right root key
			tx.Notify(keyChannel, "key "+string(r.id))
		}
		return err
	})
	return gone, sqldb.Wrap("wrap a seed anew", err)
}

func (w *sweep) rewrapAudit(ctx context.Context) error {
	_, err := w.audit.Rewrap(ctx, w.pace)
	return err
}

// moveValues puts every value under the version of its key that seals, and notes
// which versions are left with nothing.
func (w *sweep) moveValues(ctx context.Context) error {
	return w.each(ctx, outdatedSQL, nil, func(ctx context.Context, r kekRow) (bool, error) {
		c, ok := parseContext(r.context)
		if !ok {
			return false, w.integrity(Place{Kind: "kek", Object: string(r.id)})
		}
		var failed error
		for _, col := range w.columns {
			if err := w.moveColumn(ctx, col, r, c); err != nil && failed == nil {
				failed = err
			}
			if ctx.Err() != nil {
				break
			}
		}
		if failed != nil {
			return false, failed
		}
		return w.emptied(ctx, r)
	})
}

const emptySQL = `update kek_version set emptied_at = $1 where kek_id = $2 and version = $3`

// emptied notes that nothing is under a version, if it is so, or that something is
// again.
func (w *sweep) emptied(ctx context.Context, r kekRow) (bool, error) {
	n, err := w.countUnder(ctx, w.db.Reader(), r)
	if err != nil || n > 0 {
		return false, err
	}
	return true, sqldb.Wrap("note that a key is empty", w.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, emptySQL, sqldb.Micros(w.now()), r.id, int64(r.version))
		return err
	}))
}

// countUnder counts the values under a version of a key.
func (v *Vault) countUnder(ctx context.Context, q sqldb.Querier, r kekRow) (all int64, err error) {
	prefix := crypt.Prefix(r.id.Bytes(), r.version)
	for _, col := range v.columns {
		n, err := col.count(ctx, q, prefix)
		if err != nil {
			return 0, err
		}
		all += n
	}
	return all, nil
}

func (w *sweep) moveColumn(ctx context.Context, col Sealed, r kekRow, c keyContext) (failed error) {
	prefix, stay, full := crypt.Prefix(r.id.Bytes(), r.version), 0, r.version < r.reseal
	for {
		rows, err := col.under(ctx, w.db.Reader(), c, prefix, sweepPage, stay)
		if err != nil {
			return errors.Join(failed, err)
		}
		if len(rows) == 0 {
			return failed
		}
		if err := w.pace(ctx); err != nil {
			return errors.Join(failed, err)
		}
		next := make([][]byte, len(rows))
		for i, row := range rows {
			if next[i], err = w.anew(ctx, r, c, row, full); err != nil {
				if failed == nil {
					failed = fmt.Errorf("a value in %s: %w", col, err)
				}
				stay++
			}
		}
		err = w.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
			tx.Named("key.values_moved", col.Table)
			for i, row := range rows {
				if next[i] == nil {
					continue
				}
				if _, err := col.replace(ctx, tx, row, next[i]); err != nil { // one that changed meanwhile is under the right key
					return err
				}
			}
			return nil
		})
		if err != nil {
			return errors.Join(failed, sqldb.Wrap("put values under another key", err))
		}
		if len(rows) < sweepPage {
			return failed
		}
	}
}

// retire destroys versions that were empty for long enough: whoever sealed with one
// just before it was found empty has written by now.
func (w *sweep) retire(ctx context.Context) error {
	return w.each(ctx, emptiedSQL, []any{sqldb.Micros(w.now().Add(-w.rotation.Grace))}, w.retireOne)
}

const deleteVersionSQL = `delete from kek_version where kek_id = $1 and version = $2 and kept = 0`

func (w *sweep) retireOne(ctx context.Context, r kekRow) (gone bool, err error) {
	err = w.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if n, err := w.countUnder(ctx, tx, r); err != nil || n > 0 {
			if err == nil {
				_, err = tx.ExecContext(ctx, emptySQL, 0, r.id, int64(r.version))
			}
			return err
		}
		done, err := changed(tx.ExecContext(ctx, deleteVersionSQL, r.id, int64(r.version)))
		if err != nil || !done {
			return err
		}
		tx.Notify(keyChannel, "key "+string(r.id))
		w.audit.AppendEvent(tx, keyEntry(r, "key.version_destroyed", map[string]string{"version": strconv.FormatUint(uint64(r.version), 10), "root": r.rootRef}))
		return nil
	})
	return err == nil, sqldb.Wrap("destroy a version of a key", err) // one that is in use again is on the other list
}

// forgetRoots lets go of customers' root keys that wrap nothing and are bound to
// nothing.
func (w *sweep) forgetRoots(ctx context.Context) error {
	var refs []string
	err := w.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) (err error) {
		refs, err = textsOf(ctx, tx, forgetRootsSQL)
		for _, ref := range refs {
			w.audit.AppendEvent(tx, audit.Entry{Actor: audit.Actor{Kind: "system", ID: "vault"}, Action: "root_key.forgotten", Object: ref})
		}
		return err
	})
	if err != nil {
		return sqldb.Wrap("forget root keys", err)
	}
	for _, ref := range refs {
		w.roots.Return(ref)
	}
	return nil
}

// Replace gives a key another version, in the background of which everything under
// the old one follows. With reseal the values are encrypted anew under new data
// keys, and not only their data keys wrapped anew.
func (v *Vault) Replace(ctx context.Context, kek id.KEK, reseal bool) error {
	r, err := kekPrimary(ctx, v.db.Reader(), kek)
	if sqldb.NoRows(err) {
		return errNoKey
	}
	if err != nil {
		return sqldb.Wrap("look up a key", err)
	}
	c, ok := parseContext(r.context)
	switch {
	case !r.shredded.IsZero():
		return errShredded
	case !ok:
		return v.integrity(Place{Kind: "kek", Object: string(r.id)})
	}
	ref, err := v.desired(ctx, c)
	if err != nil {
		return err
	}
	_, err = v.nextVersion(ctx, r, ref, reseal, "asked")
	return err
}

var errNoKey = fault.New(fault.NotFound, "not_found", "No such key.")
