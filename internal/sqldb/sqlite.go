package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"modernc.org/sqlite"

	"github.com/ambit-dev/ambit/internal/fault"
)

// pragma is a setting of every SQLite connection. It goes into the data source
// name, since a PRAGMA run on a pool sets one connection of it, and is read
// back, since the driver takes a misspelt one in silence.
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
		return folderFault("database_not_writable", "The database file cannot be opened.", "ls -l "+quote(path)).WithCause(err)
	}
	file.Close() // before SQLite opens it: closing a file drops the process's record locks on it

	if db.writer, err = openPool(ctx, path, 1, "0", "immediate"); err != nil {
		return err
	}
	var version string
	if err := db.writer.QueryRowContext(ctx, "select sqlite_version()").Scan(&version); err != nil {
		return Wrap("read the SQLite version", err)
	}
	if !atLeast(version, minSQLite) {
		return fault.New(fault.Internal, "sqlite_too_old", "SQLite "+version+" can damage databases.").
			WithHint("Build with SQLite " + minSQLite + " or newer.")
	}
	db.reader, err = openPool(ctx, path, min(8, max(4, runtime.GOMAXPROCS(0))), "1", "deferred")
	return err
}

func openPool(ctx context.Context, path string, size int, queryOnly, txlock string) (*sql.DB, error) {
	query := url.Values{"_txlock": {txlock}}
	for _, p := range pragmas(queryOnly) {
		query.Add("_pragma", p.name+"("+p.set+")")
	}
	dsn := (&url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: query.Encode()}).String()
	connector, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	pool := sql.OpenDB(connector)
	pool.SetMaxOpenConns(size)
	pool.SetMaxIdleConns(size)
	if err := checkPool(ctx, pool, size, pragmas(queryOnly)); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// checkPool fills the pool and reads the settings of each connection.
func checkPool(ctx context.Context, pool *sql.DB, size int, want []pragma) error {
	for range size {
		conn, err := pool.Conn(ctx)
		if err != nil {
			return Wrap("open the database", err)
		}
		defer conn.Close()
		for _, p := range want {
			var got string
			if err := conn.QueryRowContext(ctx, "pragma "+p.name).Scan(&got); err != nil {
				return Wrap("read the setting "+p.name, err)
			}
			if got != p.want {
				return fault.New(fault.Internal, "database_setting", fmt.Sprintf("SQLite runs with %s=%s instead of %s.", p.name, got, p.want)).
					WithHint("Put the data folder on a local disk that supports write-ahead logging.")
			}
		}
	}
	return nil
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
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
