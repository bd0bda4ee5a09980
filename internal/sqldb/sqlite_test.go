package sqldb_test

import (
	"bytes"
	"context"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// A PRAGMA run once protects one connection of a pool; ours hold on each.
func TestPragmasOnEveryConnection(t *testing.T) {
	t.Parallel()
	db := sqldbtest.Open(t, sqldb.SQLite)
	connections := map[string]int{}
	db.EachConnection(t.Context(), func(queryOnly string, setting func(string) (string, error)) {
		connections[queryOnly]++
		for name, want := range sqldb.Pragmas(queryOnly) {
			if got, err := setting(name); err != nil || got != want {
				t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
			}
		}
	})
	var size int
	if err := db.Reader().QueryRowContext(t.Context(), `pragma page_size`).Scan(&size); err != nil || size != 2048 {
		t.Errorf("a new file has pages of %d bytes, %v, want 2048", size, err)
	}
	if connections["0"] != 1 || connections["1"] < 4 {
		t.Errorf("got %v, want one connection that writes and several that do not", connections)
	}
}

func TestVersionFloor(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{
		"3.51.2": false, "3.51.3": true, "3.51.10": true, "3.54.1": true, "3.9.9": false, "4.0": true, "3": false, "": false,
	} {
		if got := sqldb.AtLeast(version, "3.51.3"); got != want {
			t.Errorf("%q: got %v, want %v", version, got, want)
		}
	}
}

func TestFolderIsPrivate(t *testing.T) {
	t.Parallel()
	cfg := sqldbtest.Config(t, sqldb.SQLite)
	sqldbtest.OpenConfig(t, cfg)
	for path, want := range map[string]os.FileMode{cfg.DataDir: 0o700, filepath.Join(cfg.DataDir, "ambit.db"): 0o600, filepath.Join(cfg.DataDir, "ambit.db-wal"): 0o600, filepath.Join(cfg.DataDir, "lock"): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: got %v, %v, want %v", path, info, err, want)
		}
	}
}

func TestSecondOwnerIsRefused(t *testing.T) {
	t.Parallel()
	cfg := sqldbtest.Config(t, sqldb.SQLite)
	db := sqldbtest.OpenConfig(t, cfg)
	_, err := sqldb.Open(t.Context(), cfg)
	if !fault.Is(err, "data_folder_locked") || !strings.Contains(fault.Of(err).Message, "Another ambit process uses this folder") {
		t.Errorf("got %v, want data_folder_locked", err)
	}
	exec1(t, db) // the refused attempt took nothing from the owner
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	sqldbtest.OpenConfig(t, cfg)
}

// A folder that cannot be written to used to be told as one that another process
// uses, and whoever believed it looked for a process that was not there.
func TestFolderThatCannotBeWrittenToIsNotALockedOne(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	sealFolder(t, dir)
	_, err := sqldb.Open(t.Context(), sqldb.Config{DataDir: dir})
	if f := fault.Of(err); f == nil || f.Code != "data_folder_not_writable" || f.Hint == "" || !strings.Contains(f.Message, dir) {
		t.Errorf("got %v, want data_folder_not_writable with the folder and what to do", err)
	}
}

func exec1(t *testing.T, db *sqldb.DB) {
	t.Helper()
	update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
		return tx.QueryRowContext(ctx, `select 1`).Scan(new(int))
	})
}

// The hint is a command; following it must be enough.
func TestExposedFolderIsRefusedWithTheCommandThatMendsIt(t *testing.T) {
	t.Parallel()
	spoil := map[string]func(t *testing.T, dir string){
		"data_folder_mode": func(t *testing.T, dir string) {
			if err := os.Chmod(dir, 0o750); err != nil {
				t.Fatal(err)
			}
		},
		"data_folder_owner": func(t *testing.T, dir string) {
			if os.Geteuid() != 0 {
				t.Skip("giving a folder away needs root")
			}
			if err := os.Chown(dir, 65534, 65534); err != nil {
				t.Fatal(err)
			}
		},
	}
	for code, spoil := range spoil {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "it's ? 100% # odd")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			spoil(t, dir)
			_, err := sqldb.Open(t.Context(), sqldb.Config{DataDir: dir})
			if !fault.Is(err, code) {
				t.Fatalf("got %v, want %s", err, code)
			}
			command, ok := strings.CutPrefix(fault.Of(err).Hint, "Run: ")
			if !ok {
				t.Fatalf("hint %q is no command", fault.Of(err).Hint)
			}
			if out, err := osexec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", command, err, out)
			}
			sqldbtest.OpenConfig(t, sqldb.Config{DataDir: dir})
			if _, err := os.Stat(filepath.Join(dir, "ambit.db")); err != nil {
				t.Errorf("the database is not in the folder named: %v", err)
			}
		})
	}
}

func TestDamagedFileIsAClearError(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ambit.db"), bytes.Repeat([]byte("not a database. "), 512), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := sqldb.Open(t.Context(), sqldb.Config{DataDir: dir})
	if !fault.Is(err, "database_unavailable") || !strings.Contains(fault.Of(err).Hint, "backup") {
		t.Errorf("got %v, want database_unavailable that speaks of the backup", err)
	}
	if _, err := sqldb.Open(t.Context(), sqldb.Config{}); !fault.Is(err, "database_not_configured") {
		t.Errorf("got %v, want database_not_configured", err)
	}
}

// K6: a deleted value is gone from every file once the server has stopped.
func TestDeletedBytesLeaveTheFiles(t *testing.T) {
	t.Parallel()
	canary := []byte("canary-7f3a9e1b55")
	cfg := sqldbtest.Config(t, sqldb.SQLite)
	db, err := sqldb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	itemTable(t, db)
	exec(t, db, insertItem, "a", "t", 1, true, canary)
	found := func() (n int) {
		files, err := filepath.Glob(filepath.Join(cfg.DataDir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			n += bytes.Count(data, canary)
		}
		return n
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if found() == 0 {
		t.Fatal("the canary was never on disk: the test sees nothing")
	}
	if db, err = sqldb.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	exec(t, db, `delete from item where id = $1`, "a")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if n := found(); n != 0 {
		t.Errorf("found the deleted value %d times", n)
	}
}
