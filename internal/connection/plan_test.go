package connection

import (
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// A bug: each round of the scheduler read every connection to find those that a
// person must renew soon.
func TestARoundReadsOnlyWhatExpires(t *testing.T) {
	t.Parallel()
	db := sqldbtest.Open(t, sqldb.SQLite)
	for _, query := range []string{expiringSQL, overdueSQL} {
		var id, parent, unused int
		var plan string
		if err := db.Reader().QueryRowContext(t.Context(), "explain query plan "+query, 1).Scan(&id, &parent, &unused, &plan); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(plan, "SEARCH") || !strings.Contains(plan, "connection_by_reauthorize") {
			t.Errorf("%s\n%s", plan, query)
		}
	}
}
