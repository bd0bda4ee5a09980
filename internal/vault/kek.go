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

// kekRow is one version of a key-encrypting key as stored: its seed is wrapped by
// a root key for exactly this row.
type kekRow struct {
	id          id.KEK
	environment id.Environment
	hash        string // SHA-256 of context, hex
	context     []byte
	primary     uint32 // the version that seals
	reseal      uint32 // versions before it are encrypted anew, not only wrapped anew
	shredded    time.Time

	version    uint32
	rootRef    string
	wrapped    []byte
	commitment []byte
	wraps      int64 // reserved; see budget
	createdAt  time.Time
}

// binding is what the seed is wrapped for. Its labels are read from the context
// itself and not from look-up columns.
func (r kekRow) binding() keyring.Context {
	c := keyring.Context{
		AAD:     crypt.Fields("ambit kek seed 1", string(r.context), string(r.id), strconv.FormatUint(uint64(r.version), 10)),
		Purpose: "kek",
	}
	if of, ok := parseContext(r.context); ok {
		c.Environment, c.Organization = string(of.environment), of.items[organizationItem]
	}
	return c
}

// parseContext is the inverse of canonical.
func parseContext(canonical []byte) (keyContext, bool) {
	parts, ok := crypt.Parts(canonical)
	if !ok || len(parts) < 2 || len(parts)%2 != 0 || parts[0] != contextFormat {
		return keyContext{}, false
	}
	c := keyContext{environment: id.Environment(parts[1]), items: map[string]string{}}
	for i := 2; i < len(parts); i += 2 {
		c.items[parts[i]] = parts[i+1]
	}
	return c, true
}

const kekColumns = `k.id, k.environment_id, k.context_hash, k.context, k.version, k.reseal, k.shredded_at`
const versionColumns = `v.version, v.root_ref, v.wrapped_seed, v.commitment, v.wraps, v.created_at`

const (
	versionFrom = `select ` + kekColumns + `, ` + versionColumns + ` from kek k join kek_version v on v.kek_id = k.id and `
	// A key that was shredded has no versions.
	shreddedFrom = ` union all select ` + kekColumns + `, 0, '', null, null, 0, 0 from kek k where k.shredded_at > 0 and `

	kekByHashSQL  = versionFrom + `v.version = k.version where k.context_hash = $1` + shreddedFrom + `k.context_hash = $1`
	kekPrimarySQL = versionFrom + `v.version = k.version where k.id = $1` + shreddedFrom + `k.id = $1`
	kekVersionSQL = versionFrom + `v.version = $2 where k.id = $1` + shreddedFrom + `k.id = $1 and $2 >= 0`
	insertKEKSQL  = `insert into kek (id, environment_id, context_hash, context, version, created_at, organization_id, user_id)
values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (context_hash) do nothing`
	insertKEKVersionSQL = `insert into kek_version (kek_id, version, root_ref, wrapped_seed, commitment, wraps, created_at) values ($1, $2, $3, $4, $5, $6, $7)`
	// To nobody's harm but their own: of two who make the next version the second
	// changes nothing.
	promoteKEKSQL = `update kek set version = $1, reseal = case when $2 then $1 else reseal end where id = $3 and version = $4 and shredded_at = 0`
	kekStateSQL   = `select version, shredded_at from kek where id = $1`
)

// kekByHash gives the version that seals, or of a shredded key a row without one.
func kekByHash(ctx context.Context, q sqldb.Querier, hash string) (kekRow, error) {
	var r kekRow
	return r, r.scan(q.QueryRowContext(ctx, kekByHashSQL, hash))
}

// kekPrimary is kekByHash by the id of the key.
func kekPrimary(ctx context.Context, q sqldb.Querier, k id.KEK) (kekRow, error) {
	var r kekRow
	return r, r.scan(q.QueryRowContext(ctx, kekPrimarySQL, k))
}

// kekVersion gives one version of a key, or of a shredded key a row without one.
func kekVersion(ctx context.Context, q sqldb.Querier, k id.KEK, version uint32) (kekRow, error) {
	var r kekRow
	return r, r.scan(q.QueryRowContext(ctx, kekVersionSQL, k, int64(version)))
}

func (r *kekRow) scan(row interface{ Scan(...any) error }) error {
	var primary, reseal, version, created, shredded int64
	err := row.Scan(&r.id, &r.environment, &r.hash, &r.context, &primary, &reseal, &shredded,
		&version, &r.rootRef, &r.wrapped, &r.commitment, &r.wraps, &created)
	r.primary, r.reseal, r.version = uint32(primary), uint32(reseal), uint32(version)
	r.createdAt, r.shredded = sqldb.Time(created), sqldb.Time(shredded)
	return err
}

// insertKEK stores a new key with its first version. It reports whether this one
// now stands.
func insertKEK(ctx context.Context, q sqldb.Querier, r kekRow, c keyContext) (bool, error) {
	made, err := changed(q.ExecContext(ctx, insertKEKSQL, r.id, r.environment, r.hash, r.context, int64(r.version), sqldb.Micros(r.createdAt),
		c.items[organizationItem], c.items[userItem]))
	if err != nil || !made {
		return false, err
	}
	return true, insertKEKVersion(ctx, q, r)
}

func insertKEKVersion(ctx context.Context, q sqldb.Querier, r kekRow) error {
	_, err := q.ExecContext(ctx, insertKEKVersionSQL, r.id, int64(r.version), r.rootRef, r.wrapped, r.commitment, r.wraps, sqldb.Micros(r.createdAt))
	return err
}

// promoteKEK makes r the version that seals, if the one before still does.
func promoteKEK(ctx context.Context, q sqldb.Querier, r kekRow, reseal bool) (bool, error) {
	ok, err := changed(q.ExecContext(ctx, promoteKEKSQL, int64(r.version), reseal, r.id, int64(r.primary)))
	if err != nil || !ok {
		return false, err
	}
	return true, insertKEKVersion(ctx, q, r)
}

// kekState gives the version that seals now, and whether the key was shredded.
func kekState(ctx context.Context, q sqldb.Querier, k id.KEK) (primary uint32, shredded bool, err error) {
	var version, at int64
	err = q.QueryRowContext(ctx, kekStateSQL, k).Scan(&version, &at)
	return uint32(version), at != 0, err
}

const keepVersionSQL = `update kek_version set kept = 1 where kek_id = $1 and version = $2`

// keepVersion notes that the version of a key that sealed this envelope must stay:
// the envelope goes to somebody else, and nobody can put it under another version.
func keepVersion(ctx context.Context, q sqldb.Querier, envelope []byte) error {
	kekID, version, err := crypt.Inspect(envelope)
	if err != nil {
		return err
	}
	ok, err := changed(q.ExecContext(ctx, keepVersionSQL, id.KEKFromBytes(kekID), int64(version)))
	if err == nil && !ok {
		err = keyMissing()
	}
	return err
}

const reserveSQL = `update kek_version set wraps = wraps + $1 where kek_id = $2 and version = $3 returning wraps`

// reserve counts n more wraps of a version, before they are made, and gives the
// number that may have been made in all.
func reserve(ctx context.Context, q sqldb.Querier, k id.KEK, version uint32, n int64) (all int64, err error) {
	err = q.QueryRowContext(ctx, reserveSQL, n, k, int64(version)).Scan(&all)
	return all, err
}
