package sqldb_test

import (
	"context"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// What the next releases bring, for the tests here: a step that only adds, and
// one beside which only its own binary can run.
var (
	adds   = [2]string{"9001_adds.sql", "create table added (id text not null primary key);"}
	breaks = [2]string{"9002_breaks.sql", "-- oldest: 9001\nalter table added rename to moved;"}
)

func binaryOf(t *testing.T, db *sqldb.DB, first int, files ...[2]string) sqldb.Binary {
	t.Helper()
	b, err := sqldb.NewBinary(db.Engine(), first, files...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// F12, issue 3 item 1: the binary before goes on beside a step that only adds,
// and starts anew on it; it is refused after one that does more.
func TestOlderBinaryBesideANewerSchema(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		ctx := t.Context()
		now, next, last := binaryOf(t, db, 0), binaryOf(t, db, 0, adds), binaryOf(t, db, 0, adds, breaks)
		mustDo(t, next.Migrate(ctx, db))
		mustDo(t, now.Migrate(ctx, db))
		if versions := column[int64](t, db.Reader(), `select version from schema_version where version > 9000`); len(versions) != 1 {
			t.Errorf("steps %v, want the one that the newer binary added", versions)
		}
		m, err := now.Join(ctx, db, "old")
		mustDo(t, err)
		m.Stop()
		mustDo(t, last.Migrate(ctx, db))
		mustDo(t, next.Migrate(ctx, db)) // it knows the step that the last one asks for
		for what, err := range map[string]error{"start": now.Migrate(ctx, db), "join": second(now.Join(ctx, db, "old"))} {
			if !fault.Is(err, "schema_newer") || fault.Of(err).Hint == "" || !strings.Contains(fault.Of(err).Message, "9002_breaks") {
				t.Errorf("%s of the binary two before: got %v, want schema_newer that names the step", what, err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

// A step that is more than an addition waits until no node lives that could not
// go on beside it.
func TestABreakingStepWaitsForOldNodes(t *testing.T) {
	t.Parallel()
	cfg := sqldbtest.Config(t, sqldb.PostgreSQL)
	db, other := sqldbtest.OpenConfig(t, cfg), sqldbtest.OpenConfig(t, cfg)
	ctx := t.Context()
	now, last := binaryOf(t, db, 0), binaryOf(t, db, 0, adds, breaks)
	old, err := now.Join(ctx, other, "node-7")
	mustDo(t, err)
	err = last.Migrate(ctx, db)
	if !fault.Is(err, "schema_in_use") || fault.Of(err).Hint == "" || !strings.Contains(fault.Of(err).Message, "node-7") {
		t.Fatalf("got %v, want schema_in_use that names the node", err)
	}
	if got := column[string](t, db.Reader(), `select name from schema_version where version > 9000`); !slices.Equal(got, []string{"adds"}) {
		t.Errorf("applied %v, want the step that only adds", got)
	}
	mustDo(t, old.Renew(ctx))
	mustDo(t, old.Ready())

	// It dies; after a while nobody waits for it any more.
	old.Die()
	exec(t, db, `update node set seen_at = seen_at - 21000000`)
	mustDo(t, last.Migrate(ctx, db))

	// It was only held up, and comes back: it may not act, and knows it.
	if err := old.Renew(ctx); !fault.Is(err, "schema_newer") {
		t.Errorf("the node that came back: %v", err)
	}
	if err := old.Ready(); !fault.Is(err, "schema_newer") {
		t.Errorf("it says that it is ready: %v", err)
	}
	select {
	case <-old.Outdated():
	default:
		t.Error("it does not stop")
	}
}

// A node that others may count as dead does not act, and comes back by itself.
func TestANodeDoubtsItself(t *testing.T) {
	t.Parallel()
	db := sqldbtest.Open(t, sqldb.PostgreSQL)
	m, err := db.Join(t.Context(), sqldb.Node{Name: "n", Binary: "1", Settings: "{}"}, func(others []sqldb.Node) error {
		if len(others) != 0 {
			t.Errorf("others %+v", others)
		}
		return nil
	})
	mustDo(t, err)
	mustDo(t, m.Ready())
	m.Doubt(16 * time.Second)
	if err := m.Ready(); !fault.Is(err, "node_lost") {
		t.Errorf("got %v", err)
	}
	mustDo(t, m.Renew(t.Context()))
	mustDo(t, m.Ready())
	list, err := db.Nodes(t.Context())
	mustDo(t, err)
	if len(list) != 1 || list[0].Name != "n" || list[0].Settings != "{}" || list[0].Schema == 0 {
		t.Errorf("nodes %+v", list)
	}
	m.Stop()
	if list, err := db.Nodes(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("after it left: %+v, %v", list, err)
	}
}

// Whoever joins learns of the others and may refuse.
func TestJoiningMayBeRefused(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		ctx := t.Context()
		first, err := db.Join(ctx, sqldb.Node{Name: "a"}, func([]sqldb.Node) error { return nil })
		mustDo(t, err)
		refused := fault.New(fault.Invalid, "no", "No.")
		var seen []sqldb.Node
		_, err = db.Join(ctx, sqldb.Node{Name: "b"}, func(others []sqldb.Node) error { seen = others; return refused })
		if !fault.Is(err, "no") {
			t.Errorf("got %v", err)
		}
		want := 1
		if db.Engine() == sqldb.SQLite {
			want = 0 // one process owns the folder: whoever is in the table has died
		}
		if len(seen) != want {
			t.Errorf("%d others, want %d", len(seen), want)
		}
		first.Stop()
		if n := scan[int64](t, db.Reader(), `select count(*) from node`); n != 0 {
			t.Errorf("%d rows are left", n)
		}
	})
}

// A server that has nothing to migrate needs no right to change the schema.
func TestStartWithoutTheRightToMigrate(t *testing.T) {
	t.Parallel()
	cfg := sqldbtest.Config(t, sqldb.PostgreSQL)
	admin := sqldbtest.OpenConfig(t, cfg)
	role := "r" + strings.ToLower(cfg.Schema)
	exec(t, admin, `create role `+role+` login`)
	t.Cleanup(func() {
		if err := admin.Update(context.Background(), func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := tx.ExecContext(ctx, `drop owned by `+role+`; drop role `+role)
			return err
		}); err != nil {
			t.Error(err)
		}
	})
	exec(t, admin, `grant usage on schema `+cfg.Schema+` to `+role)
	exec(t, admin, `grant select, insert, update, delete on all tables in schema `+cfg.Schema+` to `+role)
	low := cfg
	low.URL = asRole(t, cfg.URL, role)
	db := sqldbtest.OpenConfig(t, low) // migrates, which here only looks
	if _, ok, err := db.Acquire(t.Context(), "x", time.Minute); err != nil || !ok {
		t.Errorf("work: %v, %v", ok, err)
	}
	err := binaryOf(t, db, 0, adds).Migrate(t.Context(), db)
	if err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("a step without the right to it: %v", err)
	}
}

// Migrations wait for a table that a call uses and let other calls pass in
// between, so that nodes go on serving.
func TestMigrationGivesWayToCalls(t *testing.T) {
	t.Parallel()
	cfg := sqldbtest.Config(t, sqldb.PostgreSQL)
	db, other := sqldbtest.OpenConfig(t, cfg), sqldbtest.OpenConfig(t, cfg)
	itemTable(t, db)
	alters := [2]string{"9001_alters.sql", "alter table item add column more text not null default '';"}
	holding, release := make(chan struct{}), make(chan struct{})
	held := make(chan error, 1)
	go func() {
		held <- other.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			if err := put(ctx, tx, "slow"); err != nil {
				return err
			}
			close(holding)
			<-release
			return nil
		})
	}()
	<-holding
	migrated := make(chan error, 1)
	go func() { migrated <- binaryOf(t, db, 0, alters).Migrate(t.Context(), db) }()
	// The step waits for the slow call; others are not made to wait with it for long.
	for i := range 3 {
		exec(t, other, insertItem, string(rune('a'+i)), "t", 1, true, nil)
	}
	select {
	case err := <-migrated:
		t.Fatalf("migrated while a call used the table: %v", err)
	default:
	}
	close(release)
	mustDo(t, <-held)
	mustDo(t, <-migrated)
	if got := ids(t, db); len(got) != 4 {
		t.Errorf("rows %v, want all four", got)
	}
}

// The header of a step is read strictly: a misspelt number must not make a
// breaking step look like an addition.
func TestStepHeader(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"-- oldest: x\n", "-- oldest: 0\n", "-- oldest: -1\n", "-- oldest: 10000\n", "-- oldest: \n"} {
		if _, err := sqldb.NewBinary(sqldb.SQLite, 0, [2]string{"9999_x.sql", text}); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// released is the last step that the first release has. Steps up to it have no
// older binary to spare.
const released = 10

// The rule of docs/decisions/0007-several-nodes.md: a step only adds, or says
// that it does not.
func TestStepsOnlyAdd(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		text string
		adds bool
	}{
		{"create table a (b text not null);\ncreate unique index c on a (b);", true},
		{"create unique index c on a (b);", false},
		{"create table a (b text not null);\ncreate index c on a (b);", true},
		{"alter table a add column b text not null default '';", true},
		{"alter table a add column b text not null;", false},
		{"alter table a add column b text;", true},
		{"alter table a drop column b;", false},
		{"alter table a rename to b;", false},
		{"drop table a;", false},
		{"update a set b = 1;", false},
		{"create table a (updated_at integer not null);", true},
		{"alter table a add column b text not null default '';\ncreate unique index c on a (b) where b <> '';", true},
		{"alter table a add column b text not null default '';\ncreate unique index c on a (d, b) where b <> '';", true},
		{"alter table a add column b text not null default '';\ncreate unique index c on a (d, b) where d <> '';", false},
		{"alter table a add column b text not null default '';\ncreate unique index c on a (b);", false},
		{"alter table a add column b text not null default 'x';\ncreate unique index c on a (b) where b <> '';", false},
		{"create unique index c on a (b) where b <> '';", false},
	} {
		if got := onlyAdds(row.text); got != row.adds {
			t.Errorf("%q: only adds %v, want %v", row.text, got, row.adds)
		}
	}
	for _, engine := range sqldbtest.Engines() {
		list, err := sqldb.StepTexts(engine)
		mustDo(t, err)
		for _, s := range list {
			if s.Version > released && s.Oldest == 0 && !onlyAdds(s.Text) {
				t.Errorf("%s/%s does more than add: spare the older binary, or name the oldest one that can run beside it", engine, s.Step)
			}
		}
	}
}

var partial = regexp.MustCompile(`^create unique index \w+ on (\w+) \([\w, ]+\) where (\w+) <> ''$`)

// onlyAdds reports whether statements are among those that leave everything as
// it was for whoever does not know them.
func onlyAdds(text string) bool {
	created := map[string]bool{}
	empty := map[string]bool{} // columns that whoever does not know them leaves empty
	table := func(words []string, at int) string {
		if at >= len(words) {
			return ""
		}
		name, _, _ := strings.Cut(words[at], "(")
		return name
	}
	for _, statement := range strings.Split(regexp.MustCompile(`(?m)--.*$`).ReplaceAllString(text, ""), ";") {
		statement = strings.ToLower(strings.Join(strings.Fields(statement), " "))
		words := strings.Fields(statement)
		nullable := !strings.Contains(statement, "not null") || strings.Contains(statement, "default")
		switch {
		case statement == "", strings.HasPrefix(statement, "create index "), strings.HasPrefix(statement, "drop index "):
		case strings.HasPrefix(statement, "create table "):
			created[table(words, 2)] = true
		case strings.HasPrefix(statement, "create unique index ") && created[table(words, 5)]:
		case partial.MatchString(statement):
			// It binds rows that have the column, which the older binary makes none of.
			if part := partial.FindStringSubmatch(statement); !empty[part[1]+"."+part[2]] {
				return false
			}
		case strings.HasPrefix(statement, "alter table ") && strings.Contains(statement, " add column ") && (nullable || created[table(words, 2)]):
			if strings.HasSuffix(statement, " text not null default ''") {
				empty[words[2]+"."+words[5]] = true
			}
		default:
			return false
		}
	}
	return true
}

// asRole is the URL for another role of the same server.
func asRole(t *testing.T, address, role string) string {
	t.Helper()
	u, err := url.Parse(address)
	mustDo(t, err)
	u.User = url.User(role)
	return u.String()
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
