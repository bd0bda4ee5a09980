package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// objectRow is a named secret with the envelope of one of its versions.
type objectRow struct {
	Object
	organization string // item of the key context, "" without one
	envelope     []byte
}

// version is one value of a named secret on its way into the table, or out of it.
type version struct {
	VersionInfo
	object   id.Secret
	envelope []byte
}

// A deleted secret stands under a name that no other can have, so that its own is
// free, and keeps its own beside.
const objectColumns = `o.id, case when o.deleted_at = 0 then o.name else o.deleted_name end, o.environment_id, o.organization_id, o.key_context, o.kek_id,
	o.current_version, c.version_id, c.content, c.size, o.description, o.tags, o.metadata, o.write_only, o.expires_at, o.rotate_by,
	o.created_at, o.updated_at, o.updated_by_kind, o.updated_by_id, o.updated_by_name, o.deleted_at, o.purge_at`

// An empty $2 is a caller of the whole environment.
const objectFrom = ` from secret_object o join secret_version c on c.object_id = o.id and c.version = o.current_version
where o.environment_id = $1 and ($2 = '' or o.organization_id = $2)`

const (
	objectByIDSQL    = `select ` + objectColumns + `, c.envelope` + objectFrom + ` and o.id = $3 and o.deleted_at = 0`
	anyObjectByIDSQL = `select ` + objectColumns + `, c.envelope` + objectFrom + ` and o.id = $3`
	objectByNameSQL  = `select ` + objectColumns + `, c.envelope` + objectFrom + ` and o.name = $3 and o.deleted_at = 0`
)

func objectByID(ctx context.Context, q sqldb.Querier, c Caller, s id.Secret) (objectRow, error) {
	return objectWhere(ctx, q, objectByIDSQL, c, string(s))
}

// anyObjectByID also gives one that is deleted.
func anyObjectByID(ctx context.Context, q sqldb.Querier, c Caller, s id.Secret) (objectRow, error) {
	return objectWhere(ctx, q, anyObjectByIDSQL, c, string(s))
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
	var items, tags, metadata []byte
	var created, updated, expires, rotate, deleted, purge, writeOnly int64
	err := row.Scan(append([]any{&r.ID, &r.Name, &r.Environment, &r.organization, &items, &r.KEK, &r.Version, &r.VersionID, &r.Content, &r.Size,
		&r.Description, &tags, &metadata, &writeOnly, &expires, &rotate, &created, &updated, &r.UpdatedBy.Kind, &r.UpdatedBy.ID, &r.UpdatedByName,
		&deleted, &purge}, more...)...)
	if err != nil {
		return err
	}
	r.CreatedAt, r.UpdatedAt, r.ExpiresAt, r.RotateBy = sqldb.Time(created), sqldb.Time(updated), sqldb.Time(expires), sqldb.Time(rotate)
	r.DeletedAt, r.PurgeAt, r.WriteOnly = sqldb.Time(deleted), sqldb.Time(purge), writeOnly != 0
	if err := r.decode(items, tags, metadata); err != nil {
		return err
	}
	// The column decides who sees the secret; the context is what its seal proves.
	if r.Context[organizationItem] != r.organization {
		return fmt.Errorf("the organization of %s is not that of its key context: %w", r.ID, crypt.ErrIntegrity)
	}
	return nil
}

func (r *objectRow) decode(items, tags, metadata []byte) error {
	for _, part := range []struct {
		doc   []byte
		dst   any
		empty string
	}{{items, &r.Context, ""}, {tags, &r.Tags, "[]"}, {metadata, &r.Metadata, "{}"}} {
		if string(part.doc) == part.empty {
			continue
		}
		if err := json.Unmarshal(part.doc, part.dst); err != nil {
			return fmt.Errorf("reading what is noted of %s: %w", r.ID, err)
		}
	}
	return nil
}

const insertObjectSQL = `insert into secret_object (id, environment_id, organization_id, name, name_folded, key_context, kek_id, current_version,
	updated_at, updated_by_kind, updated_by_id, updated_by_name, created_at, description, text_folded, tags, metadata, write_only, expires_at, rotate_by)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)`

func insertObject(ctx context.Context, tx *sqldb.Tx, o Object) error {
	items, err := strictjson.CanonicalOf(o.Context)
	if err != nil {
		return fmt.Errorf("encoding a key context: %w", err)
	}
	tags, metadata, err := o.Facts.encode()
	if err != nil {
		return err
	}
	return tx.Later(ctx, storing, insertObjectSQL, o.ID, o.Environment, o.Context[organizationItem], o.Name, folded(o.Name), items, o.KEK, o.Version,
		sqldb.Micros(o.UpdatedAt), o.UpdatedBy.Kind, o.UpdatedBy.ID, o.UpdatedByName, sqldb.Micros(o.CreatedAt),
		o.Description, folded(o.Description), tags, metadata, number(o.WriteOnly), sqldb.Micros(o.ExpiresAt), sqldb.Micros(o.RotateBy))
}

func storing(err error) error { return fmt.Errorf("storing a secret: %w", err) }

func (f Facts) encode() (tags, metadata []byte, err error) {
	tags, metadata = []byte("[]"), []byte("{}")
	if len(f.Tags) > 0 {
		tags, err = strictjson.CanonicalOf(f.Tags)
	}
	if err == nil && len(f.Metadata) > 0 {
		metadata, err = strictjson.CanonicalOf(f.Metadata)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("encoding what is noted of a secret: %w", err)
	}
	return tags, metadata, nil
}

func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

const (
	insertLabelSQL = `insert into secret_label (object_id, label, environment_id) values ($1, $2, $3)`
	deleteLabelSQL = `delete from secret_label where object_id = $1 and label = $2`
)

func insertLabels(ctx context.Context, tx *sqldb.Tx, s id.Secret, env id.Environment, labels []string) error {
	for _, l := range labels {
		if err := tx.Later(ctx, storing, insertLabelSQL, s, l, env); err != nil {
			return err
		}
	}
	return nil
}

func deleteLabel(ctx context.Context, q sqldb.Querier, s id.Secret, label string) error {
	_, err := q.ExecContext(ctx, deleteLabelSQL, s, label)
	return err
}

// A version goes with the secret that has it as its current one by then, and has
// nowhere to go if that was overtaken or deleted: the secret's id must not be null.
// So nobody has to wait for what the statements before it did.
const insertVersionSQL = `insert into secret_version (object_id, version, version_id, envelope, size, etag, created_at, content, by_kind, by_id, by_name)
values ((select id from secret_object where id = $1 and current_version = $2 and deleted_at = 0), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`

// errOvertaken says that a secret was changed or deleted since it was read.
var errOvertaken = errors.New("the secret was changed meanwhile")

// insertVersion stores the value of a secret whose row is written before it in the
// same transaction, which fails with errOvertaken if that could not be.
func insertVersion(ctx context.Context, tx *sqldb.Tx, v version) error {
	return tx.Later(ctx, func(err error) error {
		if sqldb.IsNull(err) || sqldb.IsUnique(err) {
			return errOvertaken
		}
		return storing(err)
	}, insertVersionSQL,
		v.object, v.Version, v.ID, v.envelope, v.Size, v.ETag, sqldb.Micros(v.CreatedAt), v.Content, v.CreatedBy.Kind, v.CreatedBy.ID, v.CreatedByName)
}

const advanceObjectSQL = `update secret_object set current_version = $1, updated_at = $2, updated_by_kind = $3, updated_by_id = $4, updated_by_name = $5,
	expires_at = $6, rotate_by = $7, expiry_told = 0, rotation_told = 0
where id = $8 and current_version = $9 and deleted_at = 0`

// advanceObject makes o.Version the current one, if the one before still is. Only
// insertVersion finds out whether it was.
func advanceObject(ctx context.Context, tx *sqldb.Tx, o Object) error {
	return tx.Later(ctx, storing, advanceObjectSQL, o.Version, sqldb.Micros(o.UpdatedAt), o.UpdatedBy.Kind, o.UpdatedBy.ID, o.UpdatedByName,
		sqldb.Micros(o.ExpiresAt), sqldb.Micros(o.RotateBy), o.ID, o.Version-1)
}

const editObjectSQL = `update secret_object set description = $1, text_folded = $2, tags = $3, metadata = $4, write_only = $5,
	expiry_told = case when expires_at = $6 then expiry_told else 0 end, expires_at = $6,
	rotation_told = case when rotate_by = $7 then rotation_told else 0 end, rotate_by = $7,
	updated_at = $8, updated_by_kind = $9, updated_by_id = $10, updated_by_name = $11
where id = $12 and current_version = $13 and updated_at = $14 and deleted_at = 0`

// editObject stores what surrounds the value of o, if nobody has changed o since
// it was read.
func editObject(ctx context.Context, q sqldb.Querier, o Object, read time.Time) (bool, error) {
	tags, metadata, err := o.Facts.encode()
	if err != nil {
		return false, err
	}
	return changed(q.ExecContext(ctx, editObjectSQL, o.Description, folded(o.Description), tags, metadata, number(o.WriteOnly), sqldb.Micros(o.ExpiresAt),
		sqldb.Micros(o.RotateBy), sqldb.Micros(o.UpdatedAt), o.UpdatedBy.Kind, o.UpdatedBy.ID, o.UpdatedByName, o.ID, o.Version, sqldb.Micros(read)))
}

// No canonical name begins with a space, so that of a deleted secret is nobody's.
const deleteObjectSQL = `update secret_object set deleted_at = $1, purge_at = $2, deleted_name = name, name = ' ' || id
where id = $3 and current_version = $4 and deleted_at = 0`

// deleteObject puts o out of sight, if it is still at this version.
func deleteObject(ctx context.Context, q sqldb.Querier, o Object) (bool, error) {
	return changed(q.ExecContext(ctx, deleteObjectSQL, sqldb.Micros(o.DeletedAt), sqldb.Micros(o.PurgeAt), o.ID, o.Version))
}

const undeleteObjectSQL = `update secret_object set deleted_at = 0, purge_at = 0, name = deleted_name, deleted_name = '',
	updated_at = $1, updated_by_kind = $2, updated_by_id = $3, updated_by_name = $4
where id = $5 and deleted_at <> 0`

func undeleteObject(ctx context.Context, q sqldb.Querier, o Object) (bool, error) {
	return changed(q.ExecContext(ctx, undeleteObjectSQL, sqldb.Micros(o.UpdatedAt), o.UpdatedBy.Kind, o.UpdatedBy.ID, o.UpdatedByName, o.ID))
}

func changed(res sqldb.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

const versionsSQL = `select v.version_id, v.version, v.created_at, v.version = o.current_version, v.content, v.size, v.etag, v.by_kind, v.by_id, v.by_name
from secret_version v join secret_object o on o.id = v.object_id
where v.object_id = $1 order by v.version desc limit $2`

func versionsOf(ctx context.Context, q sqldb.Querier, s id.Secret, limit int) ([]VersionInfo, error) {
	rows, err := q.QueryContext(ctx, versionsSQL, s, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []VersionInfo
	for rows.Next() {
		var v VersionInfo
		var created int64
		if err := rows.Scan(&v.ID, &v.Version, &created, &v.Current, &v.Content, &v.Size, &v.ETag, &v.CreatedBy.Kind, &v.CreatedBy.ID, &v.CreatedByName); err != nil {
			return nil, err
		}
		v.CreatedAt = sqldb.Time(created)
		out = append(out, v)
	}
	return out, rows.Err()
}

const versionByIDSQL = `select version_id, version, content, size, envelope from secret_version where object_id = $1 and version_id = $2`

func versionByID(ctx context.Context, q sqldb.Querier, s id.Secret, versionID string) (version, error) {
	v := version{object: s}
	err := q.QueryRowContext(ctx, versionByIDSQL, s, versionID).Scan(&v.ID, &v.Version, &v.Content, &v.Size, &v.envelope)
	return v, err
}

// listQuery is a query in the making. Only text written here and placeholders
// enter it (threats.md U4).
type listQuery struct {
	text strings.Builder
	args []any
}

// arg is the placeholder of a value.
func (q *listQuery) arg(v any) string {
	q.args = append(q.args, v)
	return fmt.Sprintf("$%d", len(q.args))
}

func (q *listQuery) and(cond string) { q.text.WriteString(" and " + cond) }

func (q *listQuery) labelled(label string) string {
	return "o.id in (select object_id from secret_label where environment_id = $1 and label = " + q.arg(label) + ")"
}

// prefixed is not a range: what lies between two texts depends on the collation.
func (q *listQuery) prefixed(prefix string) string {
	return fmt.Sprintf("substr(%s, 1, %s) = %s", nameSQL, q.arg(len([]rune(prefix))), q.arg(prefix))
}

const nameSQL = `case when o.deleted_at = 0 then o.name else o.deleted_name end`

// within narrows the list to what rules cover.
func (q *listQuery) within(rules []Rule) {
	either := []string{"1 = 0"}
	for _, r := range rules {
		all := []string{"1 = 1"}
		if r.Prefix != "" {
			all = append(all, q.prefixed(r.Prefix))
		}
		for _, k := range slices.Sorted(maps.Keys(r.Context)) {
			all = append(all, q.labelled(contextLabel(k, r.Context[k])))
		}
		either = append(either, "("+strings.Join(all, " and ")+")")
	}
	q.and("(" + strings.Join(either, " or ") + ")")
}

func (q *listQuery) selected(o ListOptions) {
	if o.Deleted {
		q.and("o.deleted_at <> 0 and o.purge_at <> 0") // the second has an index of its own
	} else {
		q.and("o.deleted_at = 0")
	}
	if o.Search != "" {
		mark := q.arg("%" + likeEscaper.Replace(folded(o.Search)) + "%")
		q.and(`(o.name_folded like ` + mark + ` escape '\' or o.text_folded like ` + mark + ` escape '\')`)
	}
	if o.Prefix != "" {
		q.and(q.prefixed(o.Prefix))
	}
	for _, t := range o.Tags {
		q.and(q.labelled(tagLabel(t)))
	}
	for _, k := range slices.Sorted(maps.Keys(o.Context)) {
		q.and(q.labelled(contextLabel(k, o.Context[k])))
	}
	if !o.UpdatedAfter.IsZero() {
		q.and("o.updated_at > " + q.arg(sqldb.Micros(o.UpdatedAfter)))
	}
}

// listObjects reads up to limit objects from a point on.
func listObjects(ctx context.Context, db sqldb.Querier, c Caller, o ListOptions, from *position, descending bool, limit int) ([]Object, error) {
	q := listQuery{args: []any{c.Environment, c.Organization}}
	q.text.WriteString(`select ` + objectColumns + objectFrom)
	if rules, all := c.Reach.narrowed(); !all {
		q.within(rules)
	}
	q.selected(o)
	direction, than := "asc", ">"
	if descending {
		direction, than = "desc", "<"
	}
	if from != nil {
		q.and("(o.updated_at, o.id) " + than + " (" + q.arg(from.updated) + ", " + q.arg(from.id) + ")")
	}
	fmt.Fprintf(&q.text, " order by o.updated_at %s, o.id %s limit %s", direction, direction, q.arg(limit))
	rows, err := db.QueryContext(ctx, q.text.String(), q.args...)
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

// request is one that made something, as remembered under its idempotency key.
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
// that are too old by now are forgotten.
func rememberRequest(ctx context.Context, q sqldb.Querier, caller string, keyHash []byte, r request, now time.Time) (bool, error) {
	if _, err := q.ExecContext(ctx, forgetRequestsSQL, sqldb.Micros(now.Add(-requestLife))); err != nil {
		return false, err
	}
	return changed(q.ExecContext(ctx, insertRequestSQL, caller, keyHash, r.digestSealed, r.answer, sqldb.Micros(now)))
}
