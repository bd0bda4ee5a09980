package sqldb_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	osexec "os/exec"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// migratePlace names the database to a copy of the test binary that plays an
// upgrade about to be killed.
const migratePlace = "AMBIT_TEST_MIGRATE_PLACE"

const (
	laterSteps = 12
	laterRows  = 1500
)

// later gives steps that take a while, so that a kill hits the middle of one.
func later(engine sqldb.Engine) (files [][2]string) {
	for i := range laterSteps {
		table := fmt.Sprintf("later_%d", i)
		text := fmt.Sprintf(`create table %[1]s (n integer not null primary key) strict;
insert into %[1]s with recursive c(n) as (select 1 union all select n + 1 from c where n < %[2]d) select n from c;
create index %[1]s_by_n on %[1]s (n);`, table, laterRows)
		if engine == sqldb.PostgreSQL {
			text = fmt.Sprintf("create table %[1]s (n bigint not null primary key);\ninsert into %[1]s select generate_series(1, %[2]d);\ncreate index %[1]s_by_n on %[1]s (n);", table, laterRows)
		}
		files = append(files, [2]string{fmt.Sprintf("9%03d_%s.sql", i+1, table), text})
	}
	return files
}

// migrateChild upgrades and says when it begins and when it is done.
func migrateChild(place string) {
	var at [3]string
	err := json.Unmarshal([]byte(place), &at)
	var db *sqldb.DB
	if err == nil {
		db, err = sqldb.Open(context.Background(), sqldb.Config{DataDir: at[0], URL: at[1], Schema: at[2], Connections: 2})
	}
	if err == nil {
		fmt.Println("begin")
		var b sqldb.Binary
		if b, err = sqldb.NewBinary(db.Engine(), 0, later(db.Engine())...); err == nil {
			err = b.Migrate(context.Background(), db)
		}
	}
	fmt.Println("end", err)
}

// F12: kill -9 at any moment of an upgrade leaves the schema before a step or
// after it and nothing in between, loses no row, and the next start goes on.
func TestKilledMigrationIsWhole(t *testing.T) {
	t.Parallel()
	rounds := 6
	if os.Getenv("AMBIT_LONG") == "1" {
		rounds = 50
	}
	self, err := os.Executable()
	mustDo(t, err)
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			middle := 0
			var cfg sqldb.Config
			var rec sqldbtest.Recording
			fresh := true
			for round := range rounds {
				if fresh {
					cfg = sqldbtest.Config(t, engine)
					rec = sqldbtest.First(t, engine, cfg)
				}
				place, err := json.Marshal([3]string{cfg.DataDir, cfg.URL, cfg.Schema})
				mustDo(t, err)
				child := osexec.CommandContext(t.Context(), self)
				child.Env = append(os.Environ(), migratePlace+"="+string(place))
				out, err := child.StdoutPipe()
				mustDo(t, err)
				mustDo(t, child.Start())
				lines := bufio.NewReader(out)
				if line, err := lines.ReadString('\n'); err != nil || line != "begin\n" {
					t.Fatalf("the child said %q, %v", line, err)
				}
				time.Sleep(time.Duration(rand.IntN(60_000)) * time.Microsecond)
				_ = child.Process.Kill()
				_, _ = io.Copy(io.Discard, lines)
				_ = child.Wait()
				done := looksWhole(t, cfg, engine, rec)
				if t.Failed() {
					t.Fatalf("round %d", round)
				}
				if fresh = done == laterSteps; done > 0 && !fresh {
					middle++
				}
			}
			t.Logf("%d of %d kills came between the first of the later steps and the last", middle, rounds)
			// Whatever was left is finished by the next start.
			db, err := sqldb.Open(t.Context(), cfg)
			mustDo(t, err)
			mustDo(t, binaryOf(t, db, 0, later(engine)...).Migrate(t.Context(), db))
			mustDo(t, db.Close())
			if got := looksWhole(t, cfg, engine, rec); got != laterSteps {
				t.Errorf("%d of %d steps after the next start", got, laterSteps)
			}
		})
	}
}

// looksWhole holds the tables against the recorded steps, and the rows against
// those from before. It gives how many of the later steps are there.
func looksWhole(t *testing.T, cfg sqldb.Config, engine sqldb.Engine, rec sqldbtest.Recording) (done int) {
	t.Helper()
	db, err := sqldb.Open(t.Context(), cfg)
	mustDo(t, err)
	defer db.Close()
	if engine == sqldb.PostgreSQL { // the killed one's transaction ends when the server notices
		update(t, db, func(ctx context.Context, tx *sqldb.Tx) error { return tx.Serialize(ctx, "migrate") })
	} else if got := scan[string](t, db.Reader(), `pragma integrity_check`); got != "ok" {
		t.Errorf("integrity check says %s", got)
	}
	recorded := map[string]bool{}
	for _, name := range column[string](t, db.Reader(), `select name from schema_version`) {
		recorded[name] = true
	}
	names := []string{"node", "schema_floor"} // of step 8
	for i := range laterSteps {
		names = append(names, fmt.Sprintf("later_%d", i))
	}
	for _, table := range names {
		there, err := db.HasTable(t.Context(), table)
		mustDo(t, err)
		step := table
		if table == "schema_floor" {
			step = "node"
		}
		if there != recorded[step] {
			t.Errorf("table %s: there %v, its step recorded %v", table, there, recorded[step])
		}
		if there && table != "node" && table != "schema_floor" {
			done++
			if n := scan[int64](t, db.Reader(), `select count(*) from `+table); n != laterRows {
				t.Errorf("table %s has %d rows, want %d", table, n, laterRows)
			}
		}
	}
	for table, want := range rec.Facts.Counts {
		if n := scan[int64](t, db.Reader(), `select count(*) from `+table); int(n) < want {
			t.Errorf("%s has %d rows, had %d", table, n, want)
		}
	}
	return done
}

// leasePlace names the database to a copy of the test binary that takes a lease
// and holds it until it is killed.
const leasePlace = "AMBIT_TEST_LEASE_PLACE"

func leaseChild(place string) {
	var at [2]string
	err := json.Unmarshal([]byte(place), &at)
	var db *sqldb.DB
	if err == nil {
		db, err = sqldb.Open(context.Background(), sqldb.Config{URL: at[0], Schema: at[1], Connections: 2})
	}
	if err == nil {
		_, held, aerr := db.Acquire(context.Background(), "work", 2*time.Second)
		fmt.Println(held, aerr)
	} else {
		fmt.Println(err)
	}
	time.Sleep(time.Minute)
}

// Issue 3 item 1: work that a killed node held a lease for is taken over when
// the lease ends, and not before.
func TestKilledLeaseHolderIsReplaced(t *testing.T) {
	t.Parallel()
	cfg := sqldbtest.Config(t, sqldb.PostgreSQL)
	db := sqldbtest.OpenConfig(t, cfg)
	self, err := os.Executable()
	mustDo(t, err)
	place, err := json.Marshal([2]string{cfg.URL, cfg.Schema})
	mustDo(t, err)
	child := osexec.CommandContext(t.Context(), self)
	child.Env = append(os.Environ(), leasePlace+"="+string(place))
	out, err := child.StdoutPipe()
	mustDo(t, err)
	mustDo(t, child.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "true <nil>\n" {
		t.Fatalf("the holder said %q, %v", line, err)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	var ends int64
	mustDo(t, db.Reader().QueryRowContext(t.Context(), `select until from lease where name = 'work'`).Scan(&ends))
	until(t, "the lease is taken over", func() bool {
		_, got, err := db.Acquire(t.Context(), "work", time.Minute)
		mustDo(t, err)
		return got
	})
	now, err := db.Clock(t.Context())
	mustDo(t, err)
	if sqldb.Micros(now) < ends {
		t.Error("the lease was taken before it had ended")
	}
}
