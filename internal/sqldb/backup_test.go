package sqldb_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// A backup is one moment of the database, while writers go on: of pairs of rows
// that are written together it has both or none.
func TestBackupIsOneMoment(t *testing.T) {
	t.Parallel()
	db := sqldbtest.Open(t, sqldb.SQLite)
	itemTable(t, db)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
				if err := put(ctx, tx, fmt.Sprintf("%06d-a", n)); err != nil {
					return err
				}
				return put(ctx, tx, fmt.Sprintf("%06d-b", n))
			})
		}
	})
	for i := range 5 {
		dir := filepath.Join(t.TempDir(), "data")
		mustDo(t, os.MkdirAll(dir, 0o700))
		file := filepath.Join(dir, "ambit.db")
		mustDo(t, db.Backup(t.Context(), file))
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		copied := sqldbtest.OpenConfig(t, sqldb.Config{DataDir: dir})
		if got := scan[string](t, copied.Reader(), `pragma integrity_check`); got != "ok" {
			t.Errorf("backup %d: %s", i, got)
		}
		if odd := scan[int64](t, copied.Reader(), `select count(*) % 2 from item`); odd != 0 {
			t.Errorf("backup %d has half a transaction", i)
		}
	}
	close(stop)
	wg.Wait()
	taken := filepath.Join(t.TempDir(), "taken")
	mustDo(t, os.WriteFile(taken, []byte("mine"), 0o600))
	if err := db.Backup(t.Context(), taken); !fault.Is(err, "backup_file") {
		t.Errorf("over a file that is there: %v", err)
	}
	if b, _ := os.ReadFile(taken); string(b) != "mine" {
		t.Error("the file was overwritten")
	}
	db.EachConnection(t.Context(), func(want string, setting func(string) (string, error)) {
		if got, err := setting("query_only"); err != nil || got != want {
			t.Errorf("query_only %s, %v after a backup, want %s", got, err, want)
		}
	})
}
