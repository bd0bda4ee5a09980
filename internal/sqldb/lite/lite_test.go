package lite_test

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"os"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/sqldb/lite"
)

func open(t testing.TB) *lite.Conn {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "x.db"))
}

func openAt(t testing.TB, path string) *lite.Conn {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	c, err := lite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func exec(t testing.TB, c *lite.Conn, query string, args ...any) int64 {
	t.Helper()
	n, err := c.Exec(t.Context(), query, args)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// all reads one column of all rows.
func all[T any](t testing.TB, c *lite.Conn, query string, args ...any) (out []T) {
	t.Helper()
	rows, err := c.Query(t.Context(), query, args)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	for {
		more, err := rows.Next()
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		if !more {
			return out
		}
		var v T
		if err := rows.Scan(&v); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		out = append(out, v)
	}
}

func TestPlaceholdersGoByNumber(t *testing.T) {
	t.Parallel()
	c := open(t)
	for range 2 { // compiled, and compiled already
		got := all[string](t, c, `select $3 || $1 || $2 || $3 || $11`, "a", "b", "c", "", "", "", "", "", "", "", "k")
		if diff := cmp.Diff([]string{"cabck"}, got); diff != "" {
			t.Error(diff)
		}
	}
	for _, args := range [][]any{nil, {"a"}, {"a", "b", "c"}} {
		if _, err := c.Query(t.Context(), `select $2, $1`, args); err == nil {
			t.Errorf("%d arguments for two placeholders were taken", len(args))
		}
	}
	if _, err := c.Query(t.Context(), `select $name`, []any{"a"}); err == nil {
		t.Error("a placeholder that is no number was taken")
	}
}

type name string
type number int32

func TestValuesRoundTrip(t *testing.T) {
	t.Parallel()
	c := open(t)
	exec(t, c, `create table v (t text, b blob, i integer, r real) strict`)
	long := strings.Repeat("lang\u00e4 ", 50_000)
	for _, v := range []struct {
		t any
		b []byte
		i any
	}{
		{"", []byte{}, int64(math.MinInt64)}, {long, bytes.Repeat([]byte{0, 255}, 300_000), int64(math.MaxInt64)},
		{name("a'b"), []byte{0}, 7}, {"x", nil, true}, {nil, nil, nil}, {sql.NullString{String: "s", Valid: true}, nil, number(-3)},
	} {
		exec(t, c, `delete from v`)
		if n := exec(t, c, `insert into v (t, b, i) values ($1, $2, $3)`, v.t, v.b, v.i); n != 1 {
			t.Errorf("changed %d rows", n)
		}
		rows, err := c.Query(t.Context(), `select t, b, i, r from v`, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"t", "b", "i", "r"}, rows.Columns()); diff != "" {
			t.Error(diff)
		}
		var text sql.NullString
		var blob []byte
		var integer, real any
		if more, err := rows.Next(); !more || err != nil {
			t.Fatal(more, err)
		}
		if err := rows.Scan(&text, &blob, &integer, &real); err != nil {
			t.Fatal(err)
		}
		rows.Close()
		switch want := v.t.(type) {
		case string:
			if text.String != want || !text.Valid {
				t.Errorf("text: got %d bytes, want %d", len(text.String), len(want))
			}
		case name:
			if text.String != string(want) {
				t.Errorf("text: got %q", text.String)
			}
		case nil:
			if text.Valid || integer != nil {
				t.Errorf("null: got %v %v", text, integer)
			}
		}
		if !bytes.Equal(blob, v.b) || (blob == nil) != (v.b == nil) {
			t.Errorf("blob: got %d bytes, nil %v; want %d, nil %v", len(blob), blob == nil, len(v.b), v.b == nil)
		}
		switch want := v.i.(type) {
		case int64:
			if integer != want {
				t.Errorf("integer: got %v, want %v", integer, want)
			}
		case bool:
			if integer != int64(1) {
				t.Errorf("bool: got %v", integer)
			}
		case number:
			if integer != int64(want) {
				t.Errorf("named integer: got %v", integer)
			}
		}
		if real != nil {
			t.Errorf("real: got %v", real)
		}
	}
	if _, err := c.Exec(t.Context(), `insert into v (t) values ($1)`, []any{struct{}{}}); err == nil {
		t.Error("a struct was stored")
	}
}

// What does not fit is an error, never a value that looks right.
// growing is longer each time that it is asked.
type growing struct{ asked int }

func (g *growing) Value() (driver.Value, error) {
	g.asked++
	return strings.Repeat("g", 10_000*g.asked), nil
}

// shouted is a string that says itself how it is stored.
type shouted string

func (s shouted) Value() (driver.Value, error) { return strings.ToUpper(string(s)), nil }

// A pointer, a sql.NullString and a driver.Valuer were measured as nothing and
// then copied, beyond the end of the buffer or to no address at all.
func TestConvertedArgumentsAreMeasured(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 100_000)
	named, blob, nothing := name(long), []byte(long), (*string)(nil)
	grown := new(growing)
	for _, x := range []struct {
		what string
		arg  any
		want any
	}{
		{"*string", &long, long}, {"*name", &named, long}, {"name", named, long}, {"*[]byte", &blob, blob}, {"empty *string", new(string), ""},
		{"json.RawMessage", json.RawMessage(long), blob}, {"sql.NullString", sql.NullString{String: long, Valid: true}, long},
		{"*sql.NullString", &sql.NullString{String: long, Valid: true}, long}, {"no sql.NullString", sql.NullString{String: long}, nil},
		{"nil *string", nothing, nil}, {"nil driver.Valuer", (*sql.NullString)(nil), nil}, {"nil *int", (*int)(nil), nil},
		{"shouted", shouted(long), strings.ToUpper(long)}, {"growing", grown, strings.Repeat("g", 10_000)},
	} {
		c := open(t) // its statements have no buffer yet
		got := all[any](t, c, `select $1`, x.arg)
		if !cmp.Equal([]any{x.want}, got) {
			t.Errorf("%s: got %.60v, want %.60v", x.what, got, x.want)
		}
		// Beside others, in a buffer that is there; the argument stands twice.
		if got := all[string](t, c, `select $1 || coalesce($2, '') || coalesce($2, '') || $3`, "<", x.want, ">"); len(got) != 1 || got[0][0] != '<' || got[0][len(got[0])-1] != '>' {
			t.Errorf("%s: the neighbours are hurt", x.what)
		}
	}
	if grown.asked != 1 {
		t.Errorf("the value was asked for %d times, want once: it may have changed since it was measured", grown.asked)
	}
	args := []any{&long}
	all[any](t, open(t), `select $1`, args...)
	if args[0] != &long {
		t.Error("the caller's arguments were changed")
	}
}

// Nothing is written beyond the end of the buffer, even if a value is longer than
// it was measured.
func TestLongerThanMeasuredIsRefused(t *testing.T) {
	t.Parallel()
	c := open(t)
	for _, measured := range []int{0, 1, 1000} {
		if text, blob := lite.Place(c, measured, measured); text != nil || blob != nil {
			t.Errorf("%d bytes: got %v and %v", measured, text, blob)
		}
		if text, blob := lite.Place(c, measured, measured+1); text == nil || blob == nil {
			t.Errorf("%d bytes in %d: text %v, blob %v; want errors", measured+1, measured, text, blob)
		}
	}
}

func TestScanIsStrict(t *testing.T) {
	t.Parallel()
	c := open(t)
	for _, bad := range []struct {
		query string
		dest  any
	}{
		{`select null`, new(string)}, {`select null`, new(int64)}, {`select null`, new(bool)}, {`select null`, new(float64)}, {`select null`, new(name)},
		{`select 'x'`, new(int64)}, {`select x'01'`, new(int64)}, {`select 1.5`, new(int)}, {`select 1 << 40`, new(number)},
		{`select -1`, new(uint32)}, {`select 1`, new(struct{})}, {`select 1`, name("")}, {`select 1`, (*name)(nil)},
	} {
		rows, err := c.Query(t.Context(), bad.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := rows.Scan(bad.dest); err == nil && bad.dest != nil {
			t.Errorf("%s into %T was taken", bad.query, bad.dest)
		}
		if more, err := rows.Next(); !more || err != nil {
			t.Fatal(err)
		}
		if err := rows.Scan(bad.dest, bad.dest); err == nil {
			t.Errorf("%s into two values was taken", bad.query)
		}
		rows.Close()
		if err := rows.Scan(bad.dest); err == nil {
			t.Error("a closed cursor was read")
		}
	}
	if got := all[uint32](t, c, `select 7`); got[0] != 7 {
		t.Errorf("got %v", got)
	}
	if got := all[string](t, c, `select 7`); got[0] != "7" {
		t.Errorf("got %q, want the number as text", got)
	}
	if got := all[int64](t, c, `select '7'`); got[0] != 7 {
		t.Errorf("got %v, want the text as a number", got)
	}
}

func TestScriptsAndErrors(t *testing.T) {
	t.Parallel()
	c := open(t)
	exec(t, c, "-- a comment\ncreate table a (n integer primary key) strict;\n create table b (n integer references a (n)) strict; -- the end\n")
	exec(t, c, `create trigger g after insert on a begin insert into b values (new.n); delete from b where n = 3; end`)
	exec(t, c, `insert into a values ($1)`, 2)
	if got := all[int64](t, c, `select n from b`); len(got) != 1 {
		t.Errorf("the trigger made %v", got)
	}
	if _, err := c.Exec(t.Context(), `insert into a values ($1); select 1`, []any{4}); err == nil {
		t.Error("a script with arguments was taken")
	}
	if _, err := c.Query(t.Context(), `select 1; select 2`, nil); err == nil {
		t.Error("a query of two statements was taken")
	}
	if _, err := c.Query(t.Context(), `-- nothing`, nil); err == nil {
		t.Error("a query of no statement was taken")
	}
	_, err := c.Exec(t.Context(), `insert into a values ($1)`, []any{2})
	if e, ok := errors.AsType[*lite.Error](err); !ok || e.Code != sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY {
		t.Errorf("got %v, want a violated primary key", err)
	}
	_, err = c.Exec(t.Context(), `nonsense`, nil)
	if e, ok := errors.AsType[*lite.Error](err); !ok || e.Code != sqlite3.SQLITE_ERROR || !strings.Contains(err.Error(), "syntax error") {
		t.Errorf("got %v, want a syntax error", err)
	}
	if _, err := lite.Open(filepath.Join(t.TempDir(), "absent.db")); err == nil {
		t.Error("a file that is not there was opened")
	}
	exec(t, c, `insert into a values ($1)`, 5) // the connection works on after errors
}

// A statement that is running is not used a second time, and one that is put
// back holds nothing of its last run.
func TestStatementsInUse(t *testing.T) {
	t.Parallel()
	c := open(t)
	exec(t, c, `create table a (n integer primary key, t text) strict`)
	for i := range 4 {
		exec(t, c, `insert into a values ($1, $2)`, i, strings.Repeat("x", 1<<(5*i)))
	}
	const query = `select n from a where n >= $1 order by n`
	outer, err := c.Query(t.Context(), query, []any{1})
	if err != nil {
		t.Fatal(err)
	}
	var pairs []int64
	for more, err := outer.Next(); more; more, err = outer.Next() {
		var n int64
		if serr := outer.Scan(&n); serr != nil || err != nil {
			t.Fatal(serr, err)
		}
		for _, m := range all[int64](t, c, query, n) {
			pairs = append(pairs, 10*n+m)
		}
	}
	outer.Close()
	if diff := cmp.Diff([]int64{11, 12, 13, 22, 23, 33}, pairs); diff != "" {
		t.Error(diff)
	}
	if got := all[int64](t, c, query, 3); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

// The engine runs a statement of the hot path as it was compiled: planning it
// anew at each run would cost more than running it.
func TestBindingDoesNotCompileAnew(t *testing.T) {
	t.Parallel()
	c := open(t)
	exec(t, c, `create table a (n integer primary key, t text not null, s text not null) strict; create index a_live on a (t) where s <> 'ended'`)
	for i := range 50 {
		exec(t, c, `insert into a values ($1, $2, $3)`, i, "t", "active")
	}
	exec(t, c, `analyze`)
	before := lite.Compiled(c)
	for range 20 {
		all[int64](t, c, `select n from a where t = $1 and s <> 'ended' and ($2 = '' or s = $2) and n > $3`, "t", "active", 3)
	}
	if n := lite.Compiled(c) - before; n != 0 {
		t.Errorf("the statement was compiled anew %d times", n)
	}
}

func TestCancelledStatementsEnd(t *testing.T) {
	t.Parallel()
	c := open(t)
	const endless = `with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r`
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Query(ctx, endless, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
	if _, err := c.Exec(ctx, `create table late (n integer)`, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a statement that does not begin", err)
	}
	if got := all[int64](t, c, `select count(*) from sqlite_schema`); got[0] != 0 {
		t.Error("the late statement ran")
	}
}

// The engine asks for a context while it compiles too: the one of a statement
// that has ended must not interrupt it.
func TestCompilingIsNotInterruptedByAnEndedStatement(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	c, other := openAt(t, path), openAt(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	rows, err := c.Query(ctx, `select count(*) from sqlite_schema`, nil)
	if err != nil {
		t.Fatal(err)
	}
	rows.Close()
	cancel()
	var script strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&script, "create table t%d (n integer) strict;", i)
	}
	exec(t, other, "begin; "+script.String()+" commit")
	// It does not know the table yet and reads all of them while it compiles.
	if got := all[int64](t, c, `select count(*) from t999`); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

func TestTransactions(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	c, other := openAt(t, path), openAt(t, path)
	exec(t, c, `pragma journal_mode = wal`)
	exec(t, c, `create table a (n integer primary key) strict`)
	exec(t, c, `begin immediate`)
	if !c.InTransaction() {
		t.Error("no transaction is open after begin")
	}
	exec(t, c, `insert into a values (1)`)
	if got := all[int64](t, other, `select n from a`); got != nil {
		t.Errorf("another connection sees %v before the commit", got)
	}
	_, err := other.Exec(t.Context(), `begin immediate`, nil)
	if e, ok := errors.AsType[*lite.Error](err); !ok || e.Code != sqlite3.SQLITE_BUSY {
		t.Errorf("a second writer: got %v, want busy", err)
	}
	exec(t, c, `commit`)
	if c.InTransaction() {
		t.Error("a transaction is open after commit")
	}
	if got := all[int64](t, other, `select n from a`); len(got) != 1 {
		t.Errorf("another connection sees %v after the commit", got)
	}
}

func BenchmarkRead(b *testing.B) {
	c := open(b)
	exec(b, c, `create table a (n integer primary key, t text not null, b blob not null) strict`)
	exec(b, c, `insert into a values ($1, $2, $3)`, 1, "text", []byte("blob"))
	ctx, args := context.Background(), []any{1}
	var n int64
	var text string
	var blob []byte
	b.ReportAllocs()
	for b.Loop() {
		rows, err := c.Query(ctx, `select n, t, b from a where n = $1`, args)
		if err != nil {
			b.Fatal(err)
		}
		if more, err := rows.Next(); !more || err != nil {
			b.Fatal(err)
		}
		if err := rows.Scan(&n, &text, &blob); err != nil {
			b.Fatal(err)
		}
		rows.Close()
	}
}
