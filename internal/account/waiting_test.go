package account_test

import (
	"context"
	"fmt"
	"strings"
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
					values ($1, $2, $3, $4, '', $5, $6, 1)`, fmt.Sprint("flood", i), unusedCode(i), fmt.Appendf(nil, "%032d", i), address,
					sqldb.Micros(w.now()), sqldb.Micros(w.now().Add(account.FlowAge))); err != nil {
					return err
				}
			}
			return nil
		}))
		// S14: what a person has before them stays, though it is the oldest at its
		// address.
		opened := unusedCode(0)
		_, err = w.CLIRequest(t.Context(), owner.Person, opened)
		check(t, err)
		for range 20 {
			_, _, err := w.StartCLI(t.Context(), "2001:db8::1")
			check(t, err)
		}
		late, _, err := w.StartCLI(t.Context(), "192.0.2.8")
		check(t, err)
		for what, code := range map[string]string{"another address's": quiet, "a later": late, "an opened": opened} {
			if _, err := w.CLIRequest(t.Context(), owner.Person, code); err != nil {
				t.Errorf("%s sign-in: %v", what, err)
			}
		}
		var n int
		check(t, db.Reader().QueryRowContext(t.Context(), `select count(*) from cli_request`).Scan(&n))
		if n > account.MaxWaiting || n < account.MaxWaiting*9/10 {
			t.Errorf("%d wait", n)
		}
	})
}

// unusedCode is a code in letters that codes have.
func unusedCode(i int) string {
	return "BCDF" + strings.NewReplacer("0", "G", "1", "H", "2", "J", "3", "K", "4", "L", "5", "M", "6", "N", "7", "P", "8", "Q", "9", "R").Replace(fmt.Sprintf("%04d", i))
}

// W7: guesses at e-mails of nobody leave a bounded number of rows.
func TestNobodysGuessesAreBounded(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for i := range 200_000 {
		seen[account.Nobody(fmt.Sprintf("nobody%d@example.com", i))] = true
	}
	if len(seen) > 16_384 || len(seen) < 16_000 {
		t.Errorf("200,000 e-mails are counted under %d subjects", len(seen))
	}
}
