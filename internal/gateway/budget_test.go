package gateway_test

import (
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Issue 3 item 4: what one call may cost the database once everything is warm: the
// joined read, the fence, the intent and the outcome. The outcome goes along with
// the next intent, or into a transaction of its own when none comes in time.
func TestBudgetOfACall(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		w.KeyProvider(t, "tracker")
		p := w.Person(t, "mia@example.com", account.RoleMember)
		w.Connect(t, p, "tracker", false)
		bot := w.Agent(t, p, "Bot")
		handle := w.Active(t, p, bot, "tracker")
		calls := func(n uint64) {
			for range n {
				if _, err := w.Call(t, bot, handle, "tracker_get_issue", map[string]any{"number": 1}); err != nil {
					t.Fatal(err)
				}
			}
		}
		calls(5)
		before := db.Stats()
		const n = 100
		calls(n)
		after := db.Stats()
		// Beside the calls, leases and the like run every few seconds.
		const aside = 60
		if got := after.Statements - before.Statements; got > 4*n+aside {
			t.Errorf("%d statements for %d calls, want at most four a call", got, n)
		}
		if got := after.Commits - before.Commits; got > 2*n+aside {
			t.Errorf("%d commits for %d calls, want at most two a call", got, n)
		}
	})
}
