package gatewaytest

import (
	"context"
	"testing"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Break makes statements fail in the database, as a disk that fails would, until
// mend. when names them in SQL, such as "insert on audit_entry".
func Break(t testing.TB, db *sqldb.DB, when string) (mend func()) {
	t.Helper()
	table := when[len(when)-len(lastWord(when)):]
	set, unset := []string{"create trigger broken before " + when + " begin select raise(abort, 'the disk fails'); end"}, []string{"drop trigger broken"}
	if db.Engine() == sqldb.PostgreSQL {
		set = []string{
			"create function broken() returns trigger language plpgsql as $$ begin raise exception 'the disk fails' using errcode = '58030'; end $$",
			"create trigger broken before " + when + " for each row execute function broken()",
		}
		unset = []string{"drop trigger broken on " + table, "drop function broken()"}
	}
	run := func(statements []string) {
		Must(t, db.Update(context.WithoutCancel(t.Context()), func(ctx context.Context, tx *sqldb.Tx) error {
			for _, s := range statements {
				if _, err := tx.ExecContext(ctx, s); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	run(set)
	return func() { t.Helper(); run(unset) }
}

func lastWord(s string) string {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == ' ' {
			return s[i+1:]
		}
	}
	return s
}
