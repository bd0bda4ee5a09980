package vault

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Sealed is a column in which a room keeps what Seal gave it. Each room names its
// own with [Vault.Keeps], so that what is in them follows when keys change; a test
// of package app holds the list against the schema. Names and expressions are text
// of the program, never input.
type Sealed struct {
	Table, Column string
	Key           []string // the columns of the primary key
	Join          string   // what Fields needs beside the table, which is called s
	Fields        string   // what Place is read from
	// Place reads a row's Fields and says where its value belongs.
	Place func(scan func(dest ...any) error) (Place, error)

	// spot stands in for Place where this room keeps something; c is the context of
	// the key that sealed the row.
	spot func(c keyContext, scan func(dest ...any) error) (spot, error)
}

// spot is where an envelope belongs, in the form that sealAt takes.
type spot struct {
	context keyContext
	place   []byte
	named   Place
}

func (s Sealed) spotOf(c keyContext, scan func(dest ...any) error) (spot, error) {
	if s.spot != nil {
		return s.spot(c, scan)
	}
	p, err := s.Place(scan)
	return spot{p.context(), p.bytes(), p}, err
}

// String names the column.
func (s Sealed) String() string { return s.Table + "." + s.Column }

// Keeps adds columns to those that hold what this vault sealed. It is called while
// the server is put together.
func (v *Vault) Keeps(columns ...Sealed) { v.columns = append(v.columns, columns...) }

// Columns lists what Keeps was told, and this room's own.
func (v *Vault) Columns() []Sealed { return slices.Clone(v.columns) }

// ownColumns are those of named secrets.
func (v *Vault) ownColumns() []Sealed {
	return []Sealed{
		{
			Table: "secret_version", Column: "envelope", Key: []string{"object_id", "version"},
			Join: `join secret_object o on o.id = s.object_id join secret_version c on c.object_id = s.object_id and c.version = s.version`, Fields: objectColumns + `, s.version`,
			spot: func(_ keyContext, scan func(dest ...any) error) (spot, error) {
				var r objectRow
				var version int64
				if err := r.scan(scanner(scan), &version); err != nil {
					return spot{}, err
				}
				r.Version = version
				return spot{r.context(), r.place(), r.named()}, nil
			},
		},
		{
			Table: "secret_request", Column: "digest_sealed", Key: []string{"caller_id", "key_hash"}, Fields: `s.caller_id, s.key_hash`,
			spot: requestSpot,
		},
	}
}

// scanner lets a function be scanned like a row.
type scanner func(dest ...any) error

func (s scanner) Scan(dest ...any) error { return s(dest...) }

const holdsSQL = `substr(s.%s, 2, 20) = $1`

// sealedRow is one value that is not under the key that it should be under.
type sealedRow struct {
	key      []any
	envelope []byte
	spot     spot
	err      error // of reading where it belongs
}

// under reads some rows whose value a version of the key of c sealed.
func (s Sealed) under(ctx context.Context, q sqldb.Querier, c keyContext, prefix []byte, limit, offset int) ([]sealedRow, error) {
	var cols strings.Builder
	for _, k := range s.Key {
		cols.WriteString("s." + k + ", ")
	}
	query := `select ` + cols.String() + `s.` + s.Column + `, ` + s.Fields + ` from ` + s.Table + ` s ` + s.Join +
		` where ` + fmt.Sprintf(holdsSQL, s.Column) + ` limit $2 offset $3`
	rows, err := q.QueryContext(ctx, query, prefix, limit, offset)
	if err != nil {
		return nil, sqldb.Wrap("read "+s.String(), err)
	}
	defer rows.Close()
	var out []sealedRow
	for rows.Next() {
		r := sealedRow{key: make([]any, len(s.Key))}
		r.spot, r.err = s.spotOf(c, func(dest ...any) error {
			all := make([]any, 0, len(r.key)+1+len(dest))
			for i := range r.key {
				all = append(all, &r.key[i])
			}
			return rows.Scan(append(append(all, &r.envelope), dest...)...)
		})
		if r.envelope == nil && r.err != nil {
			return nil, sqldb.Wrap("read "+s.String(), r.err)
		}
		out = append(out, r)
	}
	return out, sqldb.Wrap("read "+s.String(), rows.Err())
}

// replace puts another envelope in the place of a row's, unless the row has
// changed since it was read.
func (s Sealed) replace(ctx context.Context, tx *sqldb.Tx, r sealedRow, envelope []byte) (bool, error) {
	query := `update ` + s.Table + ` set ` + s.Column + ` = $1 where `
	args := []any{envelope}
	for i, k := range s.Key {
		args = append(args, r.key[i])
		query += k + ` = $` + strconv.Itoa(len(args)) + ` and `
	}
	args = append(args, r.envelope)
	return changed(tx.ExecContext(ctx, query+s.Column+` = $`+strconv.Itoa(len(args)), args...))
}

// count says how many values a version of a key still seals here.
func (s Sealed) count(ctx context.Context, q sqldb.Querier, prefix []byte) (n int64, err error) {
	err = q.QueryRowContext(ctx, `select count(*) from `+s.Table+` s where `+fmt.Sprintf(holdsSQL, s.Column), prefix).Scan(&n)
	return n, sqldb.Wrap("count "+s.String(), err)
}

// anew gives a row's value under the version that seals now. Only its data key is
// wrapped anew, unless full says that the value must be encrypted anew too, or it
// is in a form that leaves no choice.
func (v *Vault) anew(ctx context.Context, row kekRow, c keyContext, r sealedRow, full bool) ([]byte, error) {
	from, err := v.kekByID(ctx, row.id.Bytes(), row.version)
	if err != nil {
		return nil, err
	}
	if full || !crypt.Rewrappable(r.envelope) {
		if r.err != nil {
			return nil, r.err
		}
		var value secret.Value
		if value, err = v.openAt(ctx, r.spot.context, r.spot.place, r.envelope, r.spot.named); err != nil {
			return nil, err
		}
		_, envelope, err := v.sealAt(ctx, r.spot.context, r.spot.place, value)
		return envelope, err
	}
	to, err := v.kekFor(ctx, c)
	if err != nil {
		return nil, err
	}
	if to.id != row.id { // a context has one key
		return nil, v.integrity(Place{Kind: "kek", Object: string(row.id)})
	}
	if to.Version() == from.Version() {
		return r.envelope, nil
	}
	envelope, err := from.Rewrap(to.KEK, r.envelope)
	if err != nil {
		return nil, v.integrity(r.spot.named)
	}
	return envelope, nil
}

// requestSpot is where the digest of a create request is sealed.
func requestSpot(c keyContext, scan func(dest ...any) error) (spot, error) {
	var caller string
	var keyHash []byte
	if err := scan(&caller, &keyHash); err != nil {
		return spot{}, err
	}
	p := Place{Environment: c.environment, Kind: "secret_request", Object: caller + " " + hex.EncodeToString(keyHash), Version: 1}
	return spot{p.context(), p.bytes(), p}, nil
}
