package session

import (
	"context"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// EndRestored ends every session of a database that was restored from a backup,
// and withdraws every open request: each may have been ended since the backup
// was made, and what has ended must not revive. It gives the number of sessions.
func (s *Service) EndRestored(ctx context.Context, tx *sqldb.Tx) (int64, error) {
	const (
		sessions  = `update session set state = 'ended', reason = 'revoked', ended_at = $1, version = version + 1 where state <> 'ended'`
		approvals = `update approval set state = 'withdrawn', decided_at = $1, version = version + 1 where state in ('pending', 'approved')`
	)
	now := sqldb.Micros(s.now())
	if _, err := tx.ExecContext(ctx, approvals, now); err != nil {
		return 0, sqldb.Wrap("withdraw requests", err)
	}
	res, err := tx.ExecContext(ctx, sessions, now)
	if err != nil {
		return 0, sqldb.Wrap("end sessions", err)
	}
	return res.RowsAffected()
}
