package connection

import (
	"context"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Restored is the reason of a connection that came back with a backup.
const Restored = "restored"

// DoubtRestored marks every connection of a database that was restored from a
// backup: its owner may have disconnected it since, and its tokens may have been
// replaced. A reconnect shows that it is still wanted.
func (s *Service) DoubtRestored(ctx context.Context, tx *sqldb.Tx) (int64, error) {
	const query = `update connection set state = 'needs_reauthorization', reason = $1, updated_at = $2, version = version + 1 where state = 'connected'`
	res, err := tx.ExecContext(ctx, query, Restored, sqldb.Micros(s.cfg.Now()))
	if err != nil {
		return 0, sqldb.Wrap("mark connections", err)
	}
	return res.RowsAffected()
}
