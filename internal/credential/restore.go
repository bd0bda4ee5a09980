package credential

import (
	"context"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// ForgetRestored forgets authorizations at providers that were under way when the
// backup was made from which the database was restored.
func (s *Service) ForgetRestored(ctx context.Context, tx *sqldb.Tx) error {
	const query = `delete from oauth_flow`
	_, err := tx.ExecContext(ctx, query)
	return sqldb.Wrap("forget open authorizations", err)
}
