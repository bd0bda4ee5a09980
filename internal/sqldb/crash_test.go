package sqldb_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// crashFolder names the data folder to a copy of the test binary that plays
// the server about to be killed.
const crashFolder = "AMBIT_TEST_CRASH_FOLDER"

// crashWriter adds rows for ever and prints each number once it is acknowledged.
func crashWriter(dir string) {
	ctx := context.Background()
	db, err := sqldb.Open(ctx, sqldb.Config{DataDir: dir})
	if err != nil {
		fmt.Println("open:", err)
		return
	}
	for {
		var n int64
		err := db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
			return tx.QueryRowContext(ctx, `insert into crash (n) select coalesce(max(n), 0) + 1 from crash returning n`).Scan(&n)
		})
		if err != nil {
			fmt.Println("write:", err)
			return
		}
		fmt.Println(n)
	}
}

// F1: kill -9 of a writer loses no acknowledged row, leaves no gap, and frees
// the folder.
func TestKilledWriterLosesNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	db, err := sqldb.Open(t.Context(), sqldb.Config{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	exec(t, db, `create table crash (n integer primary key) strict`)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for cycle := range 10 {
		child := osexec.CommandContext(t.Context(), self)
		child.Env = append(os.Environ(), crashFolder+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		var acked int64
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			n, err := strconv.ParseInt(lines.Text(), 10, 64)
			if err != nil {
				t.Errorf("cycle %d: the child said %q", cycle, lines.Text())
				break
			}
			if acked == 0 {
				time.AfterFunc(time.Duration(5+rand.IntN(40))*time.Millisecond, func() { child.Process.Kill() })
			}
			acked = n
		}
		child.Process.Kill()
		child.Wait()
		if acked == 0 {
			t.Fatalf("cycle %d: nothing was acknowledged", cycle)
		}
		db, err := sqldb.Open(t.Context(), sqldb.Config{DataDir: dir})
		if err != nil {
			t.Fatalf("cycle %d: reopen: %v", cycle, err)
		}
		if last := scan[int64](t, db.Reader(), `select max(n) from crash`); last < acked {
			t.Errorf("cycle %d: row %d was acknowledged, the last one kept is %d", cycle, acked, last)
		}
		if gaps := scan[int64](t, db.Reader(), `select max(n) - count(*) from crash`); gaps != 0 {
			t.Errorf("cycle %d: %d rows are missing", cycle, gaps)
		}
		if got := scan[string](t, db.Reader(), `pragma integrity_check`); got != "ok" {
			t.Errorf("cycle %d: integrity check says %s", cycle, got)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// F3: on a full disk a write is refused with a code of its own, reads go on,
// and writes go on by themselves when there is space again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	mount := t.TempDir()
	mountTiny(t, mount)
	db := sqldbtest.OpenConfig(t, sqldb.Config{DataDir: filepath.Join(mount, "data")})
	itemTable(t, db)
	ballast := filepath.Join(mount, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	kept := 0
	for ; err == nil && kept < 10_000; kept++ {
		err = db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := tx.ExecContext(ctx, insertItem, fmt.Sprintf("%05d", kept), "t", 1, true, make([]byte, 8192))
			return sqldb.Wrap("insert", err)
		})
	}
	kept--
	requireFull(t, err)
	if got := scan[int64](t, db.Reader(), `select count(*) from item`); got != int64(kept) {
		t.Errorf("got %d rows, want the %d acknowledged", got, kept)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	exec(t, db, insertItem, "after", "t", 1, true, make([]byte, 8192))
	if got := scan[string](t, db.Reader(), `pragma integrity_check`); got != "ok" {
		t.Errorf("integrity check says %s", got)
	}
}
