package agent

import (
	"context"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// EndRestored ends every token and forgets every authorization under way, in a
// database that was restored from a backup: codes and refresh tokens that have
// been used since would count again. It gives the number of issuances ended.
func (s *Service) EndRestored(ctx context.Context, tx *sqldb.Tx) (int64, error) {
	const (
		devices  = `delete from device_code`
		codes    = `delete from authorization_code`
		requests = `delete from authorize_request`
		families = `update token_family set revoked_at = $1, version = version + 1 where revoked_at = 0`
	)
	for _, query := range []string{codes, devices, requests} {
		if _, err := tx.ExecContext(ctx, query); err != nil {
			return 0, sqldb.Wrap("forget authorizations", err)
		}
	}
	res, err := tx.ExecContext(ctx, families, sqldb.Micros(s.now()))
	if err != nil {
		return 0, sqldb.Wrap("end tokens", err)
	}
	return res.RowsAffected()
}
