package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb/lite"
)

// pragma is a setting that every SQLite connection gets when it is opened.
type pragma struct{ name, set, want string }

func pragmas(queryOnly string) []pragma {
	return []pragma{
		{"busy_timeout", "5000", "5000"}, // first, so that the others may wait
		{"journal_mode", "WAL", "wal"},
		{"synchronous", "FULL", "2"},
		{"foreign_keys", "1", "1"},
		{"secure_delete", "1", "1"},
		{"temp_store", "MEMORY", "2"}, // no row ever in a temporary file
		{"trusted_schema", "0", "0"},
		{"query_only", queryOnly, queryOnly}, // last: it would refuse journal_mode
	}
}

// minSQLite is the first release without the write-ahead log reset bug, which
// could damage a database that two connections write and checkpoint at once.
const minSQLite = "3.51.3"

func (db *DB) openSQLite(ctx context.Context, cfg Config) (err error) {
	db.engine = SQLite
	if db.folder, err = openFolder(cfg.DataDir); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			db.release()
		}
	}()
	path := filepath.Join(db.folder.path, "ambit.db")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return unusable("database_not_writable", "The database file cannot be opened for writing: "+path, "chmod 600 "+quote(path), err)
	}
	file.Close() // before SQLite opens it: closing a file drops the process's record locks on it

	lite.Fdatasync()
	store := &sqlite{}
	db.store = store
	if store.writer, err = openPool(ctx, path, 1, "0"); err != nil {
		return err
	}
	version, err := store.version(ctx)
	if err != nil {
		return Wrap("read the SQLite version", err)
	}
	if !atLeast(version, minSQLite) {
		return fault.New(fault.Internal, "sqlite_too_old", "SQLite "+version+" can damage databases.").
			WithHint("Build with SQLite " + minSQLite + " or newer.")
	}
	readers := min(8, max(4, runtime.GOMAXPROCS(0)))
	db.lanes = newLanes(readers, 0)
	store.readers, err = openPool(ctx, path, readers, "1")
	return err
}

// newPageSizeSQL is for a new file; one that is there keeps its own. A call writes a
// dozen pages, most of them for the last few bytes of an index: half of SQLite's
// usual 4,096 bytes is half of what goes to disk.
const newPageSizeSQL = `pragma page_size = 2048`

// setUp gives a connection its settings and reads them back, since a misspelt
// one is taken in silence.
func setUp(ctx context.Context, c *lite.Conn, settings []pragma) error {
	if _, err := c.Exec(ctx, newPageSizeSQL, nil); err != nil {
		return Wrap("set the page size", err)
	}
	for _, p := range settings {
		if _, err := c.Exec(ctx, "pragma "+p.name+"="+p.set, nil); err != nil {
			return Wrap("set "+p.name, err)
		}
	}
	for _, p := range settings {
		var got string
		if err := first(ctx, c, "pragma "+p.name, &got); err != nil {
			return Wrap("read the setting "+p.name, err)
		}
		if got != p.want {
			return fault.New(fault.Internal, "database_setting", fmt.Sprintf("SQLite runs with %s=%s instead of %s.", p.name, got, p.want)).
				WithHint("Put the data folder on a local disk that supports write-ahead logging.")
		}
	}
	return nil
}

// first reads the first row of a query without arguments.
func first(ctx context.Context, c *lite.Conn, query string, dest ...any) error {
	rows, err := c.Query(ctx, query, nil)
	if err != nil {
		return err
	}
	defer rows.Close()
	if ok, err := rows.Next(); err != nil || !ok {
		return errors.Join(err, sql.ErrNoRows)
	}
	return rows.Scan(dest...)
}

// atLeast compares dotted versions of numbers.
func atLeast(version, floor string) bool {
	v, f := strings.Split(version, "."), strings.Split(floor, ".")
	for i := range f {
		want, _ := strconv.Atoi(f[i])
		got := 0
		if i < len(v) {
			got, _ = strconv.Atoi(v[i])
		}
		if got != want {
			return got > want
		}
	}
	return true
}

func folderFault(code, message, command string) *fault.Error {
	return fault.New(fault.Invalid, code, message).WithHint("Run: " + command)
}

// quote makes s one word of a POSIX shell.
func quote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '/' && r != '.' && r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
