package credential

import (
	"context"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// RefreshAfter refreshes as the owner of the lease, with between happening once
// the credential was read and the lease taken. It gives the version that the
// caller would use.
func (s *Service) RefreshAfter(t *testing.T, conn id.Connection, between func()) (int64, error) {
	t.Helper()
	r, err := s.load(t.Context(), conn)
	if err != nil {
		return 0, err
	}
	if mine, err := s.take(t.Context(), r, s.now()); err != nil || !mine {
		t.Fatalf("the lease: %v, %v", mine, err)
	}
	between()
	fresh, err := s.refreshOwned(context.WithoutCancel(t.Context()), r)
	return fresh.version, err
}

// RefreshUncertain refreshes as the owner of the lease, up to a commit that was not
// carried out and that the database does not speak about; between happens before
// anybody looks. It says whether the outcome was known then, and gives the version
// that the caller would use.
func (s *Service) RefreshUncertain(t *testing.T, conn id.Connection, between func()) (version int64, known bool, err error) {
	t.Helper()
	r, err := s.load(t.Context(), conn)
	if err != nil {
		return 0, false, err
	}
	if mine, err := s.take(t.Context(), r, s.now()); err != nil || !mine {
		t.Fatalf("the lease: %v, %v", mine, err)
	}
	ctx := context.WithoutCancel(t.Context())
	got, err := s.askAnew(ctx, &r)
	if err != nil {
		return 0, false, err
	}
	next := got.row
	if next.envelope, err = s.seal(ctx, next, got.material); err != nil {
		return 0, false, err
	}
	between()
	fresh, known, err := s.look(ctx, got, next, false)
	return fresh.version, known, err
}

// Plant stores n more connections like this one, each with a credential of its own
// that opens in its place.
func (s *Service) Plant(ctx context.Context, like id.Connection, n int) error {
	const insertSQL = `insert into connection (id, environment_id, organization_id, user_id, provider, state, reason, account_id, account_label, auth_method, pinned, record_digest, scopes,
		credential_version, created_at, updated_at, ended_at, version, place, asked, reauthorize_by)
		select $2, environment_id, organization_id, user_id, provider, state, reason, $2, account_label, auth_method, pinned, record_digest, scopes,
		credential_version, created_at, updated_at, ended_at, version, place, asked, reauthorize_by from connection where id = $1`
	r, err := s.load(ctx, like)
	if err != nil {
		return err
	}
	m, err := s.material(ctx, r)
	if err != nil {
		return err
	}
	r.obtainedAt, r.expiresAt = s.now(), s.now().Add(24*time.Hour)
	r.keepAt, r.checkAt = s.now().Add(24*time.Hour), s.now().Add(24*time.Hour)
	for done := 0; done < n; {
		var rows []row
		for ; done < n && len(rows) < 1000; done++ {
			r.connection = id.NewConnection()
			if r.envelope, err = s.seal(ctx, r, m); err != nil {
				return err
			}
			rows = append(rows, r)
		}
		err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
			for _, r := range rows {
				if _, err := tx.ExecContext(ctx, insertSQL, like, r.connection); err != nil {
					return err
				}
				if _, err := insertRow(ctx, tx, r); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Due makes n grants of those that were planted lapse unless they are refreshed now.
func (s *Service) Due(ctx context.Context, n int) error {
	return s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, `update credential set keep_at = $1, next_attempt_at = 0 where connection_id in (select connection_id from credential order by connection_id desc limit $2)`, sqldb.Micros(s.now()), n)
		return err
	})
}
