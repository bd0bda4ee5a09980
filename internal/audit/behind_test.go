package audit_test

import (
	"fmt"
	"testing"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
)

// K7, a bug: a server that ran on after its database was put back went on counting
// from the head that it remembered, so the log's last number was soon past the
// checkpoint's, and the next start served what had lost a revoke.
func TestPutBackShowsBehindHigherNumbers(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		w.record(t, l, 5)
		l.Stop()
		if err := audit.CheckBehind(t.Context(), w.db, w.dir, "server.restored"); err != nil {
			t.Fatalf("as it was left: %v", err)
		}
		refused := func(what string) {
			t.Helper()
			if err := audit.CheckBehind(t.Context(), w.db, w.dir, "server.restored"); !fault.Is(err, "database_put_back") {
				t.Errorf("%s: %v", what, err)
			}
		}
		last := scan[int64](t, w.db, `select max(seq) from audit_entry`)
		exec(t, w.db, fmt.Sprintf(`update audit_entry set seq = %d where seq = %d`, last+1000, last-2))
		refused("its entry is there and one before it is gone")
		exec(t, w.db, fmt.Sprintf(`update audit_entry set seq = %d where seq = %d`, last-2, last+1000),
			fmt.Sprintf(`update audit_entry set seq = seq + 100 where seq > %d`, last-3))
		refused("its entry is gone and later ones are there")
		exec(t, w.db, fmt.Sprintf(`update audit_entry set seq = %d where seq = %d`, last, last+98))
		refused("another entry stands in its place")
	})
}
