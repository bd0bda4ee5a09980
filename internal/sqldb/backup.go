package sqldb

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/ambit-dev/ambit/internal/disk"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb/lite"
)

// Backup writes a consistent copy of a SQLite database, as of one commit, into a
// new file with mode 0600. Reads and writes go on meanwhile.
func (db *DB) Backup(ctx context.Context, path string) (err error) {
	store, ok := db.store.(*sqlite)
	if !ok {
		return fault.New(fault.Invalid, "backup_elsewhere", "The database is PostgreSQL, which has its own backups.").
			WithHint("Use pg_dump or continuous archiving; see docs/operations.md.")
	}
	if err := db.enter(); err != nil {
		return err
	}
	defer db.inflight.Done()
	if err := disk.Create(path, nil); err != nil { // ours alone, before anything is in it
		says := "The file for the backup cannot be made."
		if errors.Is(err, fs.ErrExist) {
			says = path + " exists already."
		}
		return fault.New(fault.Invalid, "backup_file", says).WithHint("Name a file that does not exist, in a folder that the server may write.").WithCause(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	c, err := store.readers.take(ctx)
	if err != nil {
		return Wrap("back up the database", err)
	}
	defer store.readers.give(c)
	if err := vacuumInto(ctx, c, path); err != nil {
		return Wrap("back up the database", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return Wrap("back up the database", err)
	}
	return Wrap("back up the database", errors.Join(f.Sync(), f.Close()))
}

// vacuumInto copies on a reader, so that nobody waits. A reader may not write
// anywhere, also not into a new file, so that is lifted for this statement.
func vacuumInto(ctx context.Context, c *lite.Conn, path string) (err error) {
	if _, err := c.Exec(ctx, "pragma query_only = 0", nil); err != nil {
		return err
	}
	defer func() {
		_, again := c.Exec(context.Background(), "pragma query_only = 1", nil)
		err = errors.Join(err, again)
	}()
	_, err = c.Exec(ctx, "vacuum into $1", []any{path})
	return err
}
