package vault

import (
	"context"
	"strconv"
	"time"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// kekRow is a key-encrypting key as stored: its seed is wrapped by the root key
// for exactly this row.
type kekRow struct {
	id          id.KEK
	environment id.Environment
	hash        string // SHA-256 of context, hex
	context     []byte
	version     uint32
	rootRef     string
	wrapped     []byte
	commitment  []byte
	createdAt   time.Time
}

// binding is what the seed is wrapped for. Its labels are read from the context
// itself and not from look-up columns.
func (r kekRow) binding() keyring.Context {
	c := keyring.Context{
		AAD:     crypt.Fields("ambit kek seed 1", string(r.context), string(r.id), strconv.FormatUint(uint64(r.version), 10)),
		Purpose: "kek",
	}
	parts, ok := crypt.Parts(r.context)
	if !ok || len(parts) < 2 {
		return c
	}
	c.Environment = parts[1]
	for i := 2; i+1 < len(parts); i += 2 {
		if parts[i] == organizationItem {
			c.Organization = parts[i+1]
		}
	}
	return c
}

const kekColumns = `id, environment_id, context_hash, context, version, root_ref, wrapped_seed, commitment, created_at`

const (
	kekByHashSQL = `select ` + kekColumns + ` from kek where context_hash = $1`
	kekByIDSQL   = `select ` + kekColumns + ` from kek where id = $1`
	insertKEKSQL = `insert into kek (` + kekColumns + `) values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (context_hash) do nothing`
)

func kekByHash(ctx context.Context, q sqldb.Querier, hash string) (kekRow, error) {
	return scanKEK(ctx, q, kekByHashSQL, hash)
}

func kekRowByID(ctx context.Context, q sqldb.Querier, k id.KEK) (kekRow, error) {
	return scanKEK(ctx, q, kekByIDSQL, string(k))
}

func scanKEK(ctx context.Context, q sqldb.Querier, query, arg string) (kekRow, error) {
	var r kekRow
	var created int64
	err := q.QueryRowContext(ctx, query, arg).Scan(&r.id, &r.environment, &r.hash, &r.context, &r.version, &r.rootRef, &r.wrapped, &r.commitment, &created)
	r.createdAt = sqldb.Time(created)
	return r, err
}

// insertKEK reports whether this row is the one that now stands.
func insertKEK(ctx context.Context, q sqldb.Querier, r kekRow) (bool, error) {
	res, err := q.ExecContext(ctx, insertKEKSQL, r.id, r.environment, r.hash, r.context, r.version, r.rootRef, r.wrapped, r.commitment, sqldb.Micros(r.createdAt))
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}
