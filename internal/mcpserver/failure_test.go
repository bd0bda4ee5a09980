package mcpserver_test

import (
	"testing"

	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// A dead database is told as such, with when to come back, and is neither a
// bad token nor a call that worked.
func TestDatabaseGone(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, shared *sqldb.DB) {
		db := sqldbtest.Open(t, shared.Engine())
		w := worldOn(t, db, generous)
		token := w.agent(t, "builder").token
		must(t, db.Close())
		got := w.send(t, token, message{body: ping})
		got.want(t, 503, -32603)
		if got.header.Get("Retry-After") == "" || got.header.Get("Www-Authenticate") != "" {
			t.Errorf("got headers %v, want Retry-After and no challenge", got.header)
		}
	})
}
