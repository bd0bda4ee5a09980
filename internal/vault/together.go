package vault

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// change is one of those that share a transaction. Its do must leave nothing behind
// in memory when it runs again, and no row when it returns nil without having
// changed what it wanted.
type change struct {
	key string // what it changes; they run in the order of their keys, so that nodes do not wait for each other
	ctx context.Context
	do  func(ctx context.Context, tx *sqldb.Tx) error
}

const maxTogether = 32

// together lets changes of secrets that come at once share a transaction, and with
// it one wait for the disk.
func (v *Vault) together() *sqldb.Line[*change] {
	return &sqldb.Line[*change]{Most: maxTogether, Key: func(c *change) string { return c.key }, Work: v.changeAll}
}

// errAlone is the answer to a change that must run by itself.
var errAlone = errors.New("the change did not go with others")

// update runs do in a transaction, with others or alone. Its error says, as that of
// sqldb.DB.Update does, whether anything may have been changed.
func (v *Vault) update(ctx context.Context, key string, do func(ctx context.Context, tx *sqldb.Tx) error) error {
	err := v.changes.Do(&change{key: key, ctx: ctx, do: do})
	if errors.Is(err, errAlone) {
		return v.db.Update(ctx, flushed(do))
	}
	return err
}

// flushed is do with all that it put off: the end of a transaction, where the audit
// writes, is no place to find out that somebody was faster.
func flushed(do func(ctx context.Context, tx *sqldb.Tx) error) func(ctx context.Context, tx *sqldb.Tx) error {
	return func(ctx context.Context, tx *sqldb.Tx) error {
		if err := do(ctx, tx); err != nil {
			return err
		}
		return tx.Flush(ctx)
	}
}

// changeAll does changes in one transaction. When it fails, each is to run alone,
// since the fault may be that of one; unless they may have been made.
func (v *Vault) changeAll(batch []*change, answers []error) error {
	if len(batch) == 1 {
		answers[0] = v.db.Update(batch[0].ctx, flushed(batch[0].do))
		return nil
	}
	// The transaction is not its leader's alone, so that one's leaving ends it for nobody.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(batch[0].ctx), 10*time.Second)
	defer cancel()
	ordered := slices.SortedStableFunc(slices.Values(batch), func(a, b *change) int { return cmp.Compare(a.key, b.key) })
	err := v.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		for _, c := range ordered {
			if c.ctx.Err() != nil {
				return c.ctx.Err() // each alone: this one finds it out by itself
			}
			if err := c.do(ctx, tx); err != nil {
				return err
			}
		}
		return tx.Flush(ctx)
	})
	if err != nil && !sqldb.Uncertain(err) {
		err = errAlone
	}
	for i := range answers {
		answers[i] = err
	}
	return nil
}
