package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// objectRow is a named secret with the envelope of its current version.
type objectRow struct {
	Object
	organization string // item of the key context, "" without one
	envelope     []byte
}

// version is one value of a named secret on its way into the table.
type version struct {
	object    id.Secret
	number    int64
	id        string
	envelope  []byte
	size      int
	etag      string
	createdAt time.Time
}

const objectColumns = `o.id, o.name, o.environment_id, o.organization_id, o.key_context, o.kek_id, o.current_version, c.version_id,
	o.created_at, o.updated_at, o.updated_by_kind, o.updated_by_id, o.updated_by_name`

// An empty $2 is a caller of the whole environment.
const objectFrom = ` from secret_object o join secret_version c on c.object_id = o.id and c.version = o.current_version
where o.environment_id = $1 and ($2 = '' or o.organization_id = $2)`

const (
	objectByIDSQL   = `select ` + objectColumns + `, c.envelope` + objectFrom + ` and o.id = $3`
	objectByNameSQL = `select ` + objectColumns + `, c.envelope` + objectFrom + ` and o.name = $3`
)

func objectByID(ctx context.Context, q sqldb.Querier, c Caller, s id.Secret) (objectRow, error) {
	return objectWhere(ctx, q, objectByIDSQL, c, string(s))
}

func objectByName(ctx context.Context, q sqldb.Querier, c Caller, name string) (objectRow, error) {
	return objectWhere(ctx, q, objectByNameSQL, c, name)
}

func objectWhere(ctx context.Context, q sqldb.Querier, query string, c Caller, key string) (objectRow, error) {
	var r objectRow
	err := r.scan(q.QueryRowContext(ctx, query, c.Environment, c.Organization, key), &r.envelope)
	return r, err
}

func (r *objectRow) scan(row interface{ Scan(...any) error }, more ...any) error {
	var items []byte
	var created, updated int64
	err := row.Scan(append([]any{&r.ID, &r.Name, &r.Environment, &r.organization, &items, &r.KEK, &r.Version, &r.VersionID,
		&created, &updated, &r.UpdatedBy.Kind, &r.UpdatedBy.ID, &r.UpdatedByName}, more...)...)
	if err != nil {
		return err
	}
	r.CreatedAt, r.UpdatedAt = sqldb.Time(created), sqldb.Time(updated)
	if err := json.Unmarshal(items, &r.Context); err != nil {
		return fmt.Errorf("reading the key context of %s: %w", r.ID, err)
	}
	// The column decides who sees the secret; the context is what its seal proves.
	if r.Context[organizationItem] != r.organization {
		return fmt.Errorf("the organization of %s is not that of its key context: %w", r.ID, crypt.ErrIntegrity)
	}
	return nil
}

const insertObjectSQL = `insert into secret_object (id, environment_id, organization_id, name, name_folded, key_context, kek_id, current_version,
	updated_at, updated_by_kind, updated_by_id, updated_by_name, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`

func insertObject(ctx context.Context, q sqldb.Querier, o Object) error {
	items, err := strictjson.CanonicalOf(o.Context)
	if err != nil {
		return fmt.Errorf("encoding a key context: %w", err)
	}
	_, err = q.ExecContext(ctx, insertObjectSQL, o.ID, o.Environment, o.Context[organizationItem], o.Name, folded(o.Name), items, o.KEK, o.Version,
		sqldb.Micros(o.UpdatedAt), o.UpdatedBy.Kind, o.UpdatedBy.ID, o.UpdatedByName, sqldb.Micros(o.CreatedAt))
	return err
}

const insertVersionSQL = `insert into secret_version (object_id, version, version_id, envelope, size, etag, created_at)
values ($1, $2, $3, $4, $5, $6, $7)`

func insertVersion(ctx context.Context, q sqldb.Querier, v version) error {
	_, err := q.ExecContext(ctx, insertVersionSQL, v.object, v.number, v.id, v.envelope, v.size, v.etag, sqldb.Micros(v.createdAt))
	return err
}

const advanceObjectSQL = `update secret_object set current_version = $1, updated_at = $2, updated_by_kind = $3, updated_by_id = $4, updated_by_name = $5
where id = $6 and current_version = $7`

// advanceObject makes o.Version the current one, if the one before still is.
func advanceObject(ctx context.Context, q sqldb.Querier, o Object) (bool, error) {
	return changed(q.ExecContext(ctx, advanceObjectSQL, o.Version, sqldb.Micros(o.UpdatedAt), o.UpdatedBy.Kind, o.UpdatedBy.ID, o.UpdatedByName,
		o.ID, o.Version-1))
}

const deleteObjectSQL = `delete from secret_object where id = $1 and current_version = $2`

// deleteObject removes o and its versions, if it is still at this version.
func deleteObject(ctx context.Context, q sqldb.Querier, o Object) (bool, error) {
	return changed(q.ExecContext(ctx, deleteObjectSQL, o.ID, o.Version))
}

func changed(res sqldb.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

const versionsSQL = `select v.version_id, v.version, v.created_at, v.version = o.current_version, v.size, v.etag
from secret_version v join secret_object o on o.id = v.object_id
where v.object_id = $1 order by v.version desc`

func versionsOf(ctx context.Context, q sqldb.Querier, s id.Secret) ([]VersionInfo, error) {
	rows, err := q.QueryContext(ctx, versionsSQL, s)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []VersionInfo
	for rows.Next() {
		var v VersionInfo
		var created int64
		if err := rows.Scan(&v.ID, &v.Version, &created, &v.Current, &v.Size, &v.ETag); err != nil {
			return nil, err
		}
		v.CreatedAt = sqldb.Time(created)
		out = append(out, v)
	}
	return out, rows.Err()
}

// listObjects reads up to limit objects from a point on. Only text written here
// and placeholders enter the query (threats.md U4).
func listObjects(ctx context.Context, q sqldb.Querier, c Caller, o ListOptions, from *position, descending bool, limit int) ([]Object, error) {
	query := `select ` + objectColumns + objectFrom
	args := []any{c.Environment, c.Organization}
	cond := func(text string, values ...any) {
		marks := make([]any, len(values))
		for i, v := range values {
			args = append(args, v)
			marks[i] = len(args)
		}
		query += fmt.Sprintf(" and "+text, marks...)
	}
	if o.Search != "" {
		cond(`o.name_folded like $%d escape '\'`, "%"+likeEscaper.Replace(folded(o.Search))+"%")
	}
	if !o.UpdatedAfter.IsZero() {
		cond("o.updated_at > $%d", sqldb.Micros(o.UpdatedAfter))
	}
	direction, than := "asc", ">"
	if descending {
		direction, than = "desc", "<"
	}
	if from != nil {
		cond("(o.updated_at, o.id) "+than+" ($%d, $%d)", from.updated, from.id)
	}
	args = append(args, limit)
	query += fmt.Sprintf(" order by o.updated_at %s, o.id %s limit $%d", direction, direction, len(args))
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Object
	for rows.Next() {
		var r objectRow
		if err := r.scan(rows); err != nil {
			return nil, err
		}
		out = append(out, r.Object)
	}
	return out, rows.Err()
}

// likeEscaper makes a text stand for itself in LIKE.
var likeEscaper = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// request is a create request as remembered under its idempotency key.
type request struct {
	digestSealed []byte
	answer       []byte
}

const requestSQL = `select digest_sealed, answer from secret_request where caller_id = $1 and key_hash = $2 and created_at > $3`

func requestByKey(ctx context.Context, q sqldb.Querier, caller string, keyHash []byte, since time.Time) (request, error) {
	var r request
	err := q.QueryRowContext(ctx, requestSQL, caller, keyHash, sqldb.Micros(since)).Scan(&r.digestSealed, &r.answer)
	return r, err
}

const (
	forgetRequestsSQL = `delete from secret_request where created_at <= $1`
	insertRequestSQL  = `insert into secret_request (caller_id, key_hash, digest_sealed, answer, created_at) values ($1, $2, $3, $4, $5)
on conflict (caller_id, key_hash) do nothing`
)

// rememberRequest reports whether this request is the first of its key; those
// from before the time since are forgotten.
func rememberRequest(ctx context.Context, q sqldb.Querier, caller string, keyHash, digestSealed []byte, o Object, since time.Time) (bool, error) {
	if _, err := q.ExecContext(ctx, forgetRequestsSQL, sqldb.Micros(since)); err != nil {
		return false, err
	}
	answer, err := json.Marshal(o)
	if err != nil {
		return false, fmt.Errorf("encoding an answer: %w", err)
	}
	return changed(q.ExecContext(ctx, insertRequestSQL, caller, keyHash, digestSealed, answer, sqldb.Micros(o.CreatedAt)))
}
