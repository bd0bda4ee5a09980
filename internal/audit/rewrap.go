package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// What the root keys wrap of the audit: a key for each chain, and the one that
// signs checkpoints.
const (
	rootsSQL = `select key_ref, count(*) from (select key_ref from audit_chain union all select key_ref from audit_signer) k group by key_ref`

	otherChainsSQL = `select id, key_ref, key_wrapped from audit_chain where key_ref <> $1 order by id limit $2 offset $3`
	otherSignerSQL = `select id, key_ref, key_wrapped from audit_signer where key_ref <> $1 order by id limit $2 offset $3`
	moveChainSQL   = `update audit_chain set key_ref = $1, key_wrapped = $2 where id = $3 and key_wrapped = $4`
	moveSignerSQL  = `update audit_signer set key_ref = $1, key_wrapped = $2 where id = $3 and key_wrapped = $4`
)

// Roots counts the keys of the audit by the root key that wraps them.
func (l *Log) Roots(ctx context.Context) (map[string]int64, error) {
	counts, err := sqldb.Counts(l.db.Reader().QueryContext(ctx, rootsSQL))
	return counts, sqldb.Wrap("count the keys of the audit", err)
}

// Rewrap wraps the keys of the audit anew that another root key than the primary
// one wraps, and says how many it moved. Each is written only after what will
// stand there was opened. A key that does not open is left, and is an error in the
// end. pace is called before each; its error ends the work.
func (l *Log) Rewrap(ctx context.Context, pace func(context.Context) error) (moved int, err error) {
	for _, t := range []struct {
		find, move string
		context    func(id string) keyring.Context
	}{
		{otherSignerSQL, moveSignerSQL, func(string) keyring.Context { return signerContext }},
		{otherChainsSQL, moveChainSQL, chainContext},
	} {
		n, ferr := l.rewrap(ctx, t.find, t.move, t.context, pace)
		moved += n
		if err = errors.Join(err, ferr); ctx.Err() != nil {
			break
		}
	}
	return moved, err
}

type wrappedKey struct {
	id, ref string
	blob    []byte
}

func (l *Log) rewrap(ctx context.Context, find, move string, of func(id string) keyring.Context, pace func(context.Context) error) (moved int, failed error) {
	const page = 100
	bad := 0
	for {
		to := l.keeper.Describe().Ref
		keys, err := wrappedKeys(ctx, l.db.Reader(), find, to, page, bad)
		if err != nil {
			return moved, sqldb.Wrap("list keys of the audit", err)
		}
		for _, k := range keys {
			if err := pace(ctx); err != nil {
				return moved, err
			}
			blob, err := l.wrapAnew(ctx, k, of(k.id))
			if errors.Is(err, crypt.ErrIntegrity) {
				bad++
				failed = fmt.Errorf("the audit key %s does not open under %s: %w", k.id, k.ref, err)
				continue
			}
			if err != nil {
				return moved, err
			}
			err = l.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
				tx.Named("key.rewrapped", "audit")
				_, err := tx.ExecContext(ctx, move, to, blob, k.id, k.blob)
				return err
			})
			if err != nil {
				return moved, sqldb.Wrap("wrap a key of the audit anew", err)
			}
			moved++
		}
		if len(keys) < page {
			return moved, failed
		}
	}
}

func (l *Log) wrapAnew(ctx context.Context, k wrappedKey, of keyring.Context) ([]byte, error) {
	key, err := l.keeper.Unwrap(ctx, k.blob, of)
	if err != nil {
		return nil, err
	}
	blob, err := l.keeper.Wrap(ctx, key, of)
	if err != nil {
		return nil, err
	}
	var again secret.Value
	if again, err = l.keeper.Unwrap(ctx, blob, of); err == nil && !again.Equal(key) {
		err = errors.New("what the root key wrapped opens to something else")
	}
	return blob, err
}

func wrappedKeys(ctx context.Context, q sqldb.Querier, query, not string, limit, offset int) ([]wrappedKey, error) {
	rows, err := q.QueryContext(ctx, query, not, limit, offset)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []wrappedKey
	for rows.Next() {
		var k wrappedKey
		if err := rows.Scan(&k.id, &k.ref, &k.blob); err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, rows.Err()
}
