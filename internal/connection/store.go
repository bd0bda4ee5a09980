package connection

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

const columns = `id, environment_id, organization_id, user_id, provider, state, reason, account_id, account_label, auth_method,
	pinned, record_digest, scopes, credential_version, created_at, updated_at, ended_at, version,
	place, asked, reauthorize_by`

// row is a connection whose record is still to be found by its digest.
type row struct {
	Connection
	digest [32]byte
}

func (r *row) scan(scan func(...any) error) error {
	var pinned, digest []byte
	var scopes, asked string
	var created, updated, ended, by int64
	err := scan(&r.ID, &r.Environment, &r.Organization, &r.Owner, &r.Provider, &r.State, &r.Reason, &r.AccountID, &r.AccountLabel, &r.AuthMethod,
		&pinned, &digest, &scopes, &r.CredentialVersion, &created, &updated, &ended, &r.Version,
		&r.Place, &asked, &by)
	if err != nil {
		return err
	}
	r.Scopes, r.ReauthorizeBy = strings.Fields(scopes), sqldb.Time(by)
	if asked != "" {
		r.Asked = strings.Fields(asked)
	}
	r.CreatedAt, r.UpdatedAt, r.EndedAt = sqldb.Time(created), sqldb.Time(updated), sqldb.Time(ended)
	if copy(r.digest[:], digest) != len(r.digest) {
		return fmt.Errorf("the connection %s has no record digest", r.ID)
	}
	if err := json.Unmarshal(pinned, &r.Pinned); err != nil {
		return fmt.Errorf("the pinned places of connection %s are not readable: %w", r.ID, err)
	}
	return nil
}

func (s *Service) one(ctx context.Context, q sqldb.Querier, query string, args ...any) (Connection, error) {
	var r row
	err := r.scan(q.QueryRowContext(ctx, query, args...).Scan)
	if sqldb.NoRows(err) {
		return Connection{}, notFound()
	}
	if err != nil {
		return Connection{}, sqldb.Wrap("read a connection", err)
	}
	err = s.fill(ctx, q, &r)
	return r.Connection, err
}

func (s *Service) many(ctx context.Context, q sqldb.Querier, query string, args ...any) ([]Connection, error) {
	found, err := scanAll(ctx, q, query, args...)
	if err != nil {
		return nil, err
	}
	out := make([]Connection, len(found))
	for i := range found {
		if err := s.fill(ctx, q, &found[i]); err != nil {
			return nil, err
		}
		out[i] = found[i].Connection
	}
	return out, nil
}

// scanAll finishes its query before another one runs on the same transaction.
func scanAll(ctx context.Context, q sqldb.Querier, query string, args ...any) ([]row, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, sqldb.Wrap("list connections", err)
	}
	defer rows.Close()
	var found []row
	for rows.Next() {
		var r row
		if err := r.scan(rows.Scan); err != nil {
			return nil, sqldb.Wrap("list connections", err)
		}
		found = append(found, r)
	}
	return found, sqldb.Wrap("list connections", rows.Err())
}

// fill sets the record. A record that this version of the server does not take
// any more must not hide the connection: it then needs a reconnect.
func (s *Service) fill(ctx context.Context, q sqldb.Querier, r *row) error {
	rec, err := s.snapshot(ctx, q, r.Environment, r.digest)
	if err == nil {
		rec, err = s.bound(rec, r.Pinned.Values)
	}
	if fault.Is(err, recordOutdated) {
		r.Record.ID, r.Record.Auth = r.Provider, provider.Auth(r.AuthMethod)
		if r.State == Connected {
			r.State, r.Reason = NeedsReauth, recordOutdated
		}
		return nil
	}
	r.Record = rec
	return err
}

const recordOutdated = "record_outdated"

// Snapshot gives the record with this digest, as connections of env were made
// with it. One that was seen before costs no query.
func (s *Service) Snapshot(ctx context.Context, env id.Environment, digest [32]byte) (provider.Record, error) {
	return s.snapshot(ctx, s.cfg.DB.Reader(), env, digest)
}

// Bound is Snapshot, filled in as the connection is that pins these places.
func (s *Service) Bound(ctx context.Context, env id.Environment, digest [32]byte, pinned provider.Pinned) (provider.Record, error) {
	rec, err := s.Snapshot(ctx, env, digest)
	if err != nil {
		return provider.Record{}, err
	}
	return s.bound(rec, pinned.Values)
}

func (s *Service) bound(rec provider.Record, values map[string]string) (provider.Record, error) {
	out, err := s.library.Bind(rec, values)
	if err != nil {
		return provider.Record{}, outdated(err)
	}
	return out, nil
}

func outdated(cause error) error {
	return fault.New(fault.Conflict, recordOutdated, "The provider record that this connection was made with is not valid any more.").
		WithHint("Reconnect.").WithCause(cause)
}

func (s *Service) snapshot(ctx context.Context, q sqldb.Querier, env id.Environment, digest [32]byte) (provider.Record, error) {
	if rec, ok := s.library.Known(digest); ok {
		return rec, nil
	}
	const query = `select record from provider_snapshot where environment_id = $1 and digest = $2`
	var text []byte
	if err := q.QueryRowContext(ctx, query, env, digest[:]).Scan(&text); err != nil {
		return provider.Record{}, sqldb.Wrap("read a provider snapshot", err)
	}
	rec, err := s.library.Parse(text)
	if err != nil {
		return provider.Record{}, outdated(err)
	}
	if rec.Digest() != digest {
		return provider.Record{}, fault.New(fault.Internal, "snapshot_altered", "The provider record of a connection was changed in the database.")
	}
	return rec, nil
}

// SaveSnapshot stores the text of a record, so that flows and connections can
// name it by its digest.
func SaveSnapshot(ctx context.Context, tx *sqldb.Tx, env id.Environment, rec provider.Record, at int64) ([32]byte, error) {
	const query = `insert into provider_snapshot (environment_id, digest, record, created_at) values ($1, $2, $3, $4)
		on conflict (environment_id, digest) do nothing`
	digest := rec.TextDigest()
	_, err := tx.ExecContext(ctx, query, env, digest[:], rec.Source(), at)
	return digest, sqldb.Wrap("keep a provider snapshot", err)
}

func (s *Service) insert(ctx context.Context, tx *sqldb.Tx, c Connection, digest [32]byte) error {
	const query = `insert into connection (` + columns + `)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)`
	pinned, err := json.Marshal(c.Pinned)
	if err != nil {
		return fmt.Errorf("encode the pinned places of a connection: %w", err)
	}
	_, err = tx.ExecContext(ctx, query, c.ID, c.Environment, c.Organization, c.Owner, c.Provider, c.State, c.Reason, c.AccountID, c.AccountLabel, c.AuthMethod,
		pinned, digest[:], strings.Join(c.Scopes, " "), c.CredentialVersion, sqldb.Micros(c.CreatedAt), sqldb.Micros(c.UpdatedAt), sqldb.Micros(c.EndedAt), c.Version,
		c.Place, strings.Join(c.Asked, " "), sqldb.Micros(c.ReauthorizeBy))
	if sqldb.IsUnique(err) {
		return duplicate()
	}
	return sqldb.Wrap("write a connection", err)
}

// save writes what may change of c over the row that has the version before.
func (s *Service) save(ctx context.Context, tx *sqldb.Tx, c Connection, digest [32]byte) error {
	const query = `update connection set state = $3, reason = $4, account_id = $5, account_label = $6, auth_method = $7, pinned = $8, record_digest = $9,
		scopes = $10, credential_version = $11, updated_at = $12, ended_at = $13, version = $14,
		place = $15, asked = $16, reauthorize_by = $17, noticed_at = 0
		where environment_id = $1 and id = $2 and version = $14 - 1`
	pinned, err := json.Marshal(c.Pinned)
	if err != nil {
		return fmt.Errorf("encode the pinned places of a connection: %w", err)
	}
	res, err := tx.ExecContext(ctx, query, c.Environment, c.ID, c.State, c.Reason, c.AccountID, c.AccountLabel, c.AuthMethod, pinned, digest[:],
		strings.Join(c.Scopes, " "), c.CredentialVersion, sqldb.Micros(c.UpdatedAt), sqldb.Micros(c.EndedAt), c.Version,
		c.Place, strings.Join(c.Asked, " "), sqldb.Micros(c.ReauthorizeBy))
	if sqldb.IsUnique(err) {
		return duplicate()
	}
	return written(res, err)
}

// written says that a change which met no row came too late.
func written(res sqldb.Result, err error) error {
	if err != nil {
		return sqldb.Wrap("write a connection", err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return fault.New(fault.Conflict, "version_conflict", "The connection was changed in the meantime.").WithHint("Read it again and repeat the change.")
	}
	return nil
}

func duplicate() error {
	return fault.New(fault.Conflict, "already_connected", "This account is connected already.").WithHint("Reconnect that connection instead.")
}

func notFound() error {
	return fault.New(fault.NotFound, "not_found", "No such connection.")
}
