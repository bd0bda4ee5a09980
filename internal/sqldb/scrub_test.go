package sqldb_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// K5: what was deleted is not in the database's files any more once Scrub says so.
func TestScrub(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			cfg := sqldbtest.Config(t, engine)
			db := sqldbtest.OpenConfig(t, cfg)
			const insert = `insert into lease (name, owner, until) values ($1, $2, 0)`
			update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
				for name, owner := range map[string]string{"goes": "canary-that-goes", "stays": "canary-that-stays"} {
					if _, err := tx.ExecContext(ctx, insert, name, owner); err != nil {
						return err
					}
				}
				return nil
			})
			update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
				_, err := tx.ExecContext(ctx, `delete from lease where name = 'goes'`)
				return err
			})
			for limit := time.Now().Add(30 * time.Second); ; {
				err := db.Scrub(t.Context(), "lease")
				if err == nil {
					break
				}
				if time.Now().After(limit) || !fault.Is(err, "scrub_busy") && fault.Of(err).Kind != fault.Unavailable {
					t.Fatal(err)
				}
			}
			var raw []byte
			if engine == sqldb.SQLite {
				for _, name := range []string{"ambit.db", "ambit.db-wal"} {
					doc, err := os.ReadFile(filepath.Join(cfg.DataDir, name))
					mustDo(t, err)
					raw = append(raw, doc...)
				}
			} else {
				var err error
				raw, err = os.ReadFile(filepath.Join(scan[string](t, db.Reader(), `select current_setting('data_directory')`), scan[string](t, db.Reader(), `select pg_relation_filepath('lease')`)))
				mustDo(t, err)
			}
			if !bytes.Contains(raw, []byte("canary-that-stays")) {
				t.Fatal("the files lack what was not deleted; the scan proves nothing")
			}
			if bytes.Contains(raw, []byte("canary-that-goes")) {
				t.Error("what was deleted is in the files")
			}
		})
	}
}
