package account_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// W7, and a bug: command lines that nobody confirms, started at a few addresses,
// had everybody else's sign-in refused for as long as they lived.
func TestUnconfirmedCommandLinesMakeWay(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := newWorld(t, db)
		owner := accounttest.Owner(t, w.Service)
		quiet, _, err := w.StartCLI(t.Context(), "192.0.2.7")
		check(t, err)
		check(t, db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			for i := range account.MaxWaiting - 1 {
				address := fmt.Sprintf("2001:db8:0:%d::%d", i%4, i) // a /64 is one address
				if _, err := tx.ExecContext(ctx, `insert into cli_request (id, code, poll_hash, address, user_id, created_at, expires_at, version)
					values ($1, $2, $3, $4, '', $5, $6, 1)`, fmt.Sprint("flood", i), fmt.Sprintf("F%07d", i), fmt.Appendf(nil, "%032d", i), address,
					sqldb.Micros(w.now()), sqldb.Micros(w.now().Add(account.FlowAge))); err != nil {
					return err
				}
			}
			return nil
		}))
		for range 20 {
			_, _, err := w.StartCLI(t.Context(), "2001:db8::1")
			check(t, err)
		}
		late, _, err := w.StartCLI(t.Context(), "192.0.2.8")
		check(t, err)
		for _, code := range []string{quiet, late} {
			if _, err := w.CLIRequest(t.Context(), owner.Person, code); err != nil {
				t.Errorf("the sign-in of another address: %v", err)
			}
		}
		var n int
		check(t, db.Reader().QueryRowContext(t.Context(), `select count(*) from cli_request`).Scan(&n))
		if n != account.MaxWaiting {
			t.Errorf("%d wait", n)
		}
	})
}
