package sqldb_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

func TestMigrationRace(t *testing.T) {
	t.Parallel()
	for _, engine := range sqldbtest.Engines() {
		t.Run(engine.String(), func(t *testing.T) {
			t.Parallel()
			cfg := sqldbtest.Config(t, engine)
			cfg.Connections = 2
			nodes := 8
			if engine == sqldb.SQLite {
				nodes = 1 // the folder's lock allows one; its callers race all the same
			}
			var handles []*sqldb.DB
			for range nodes {
				db, err := sqldb.Open(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { db.Close() })
				handles = append(handles, db)
			}
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					if err := handles[i%nodes].Migrate(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			got := column[int64](t, handles[0].Reader(), `select version from schema_version order by version`)
			want, _ := steps(t, engine)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("applied steps: %s", diff)
			}
		})
	}
}

func steps(t *testing.T, engine sqldb.Engine) (versions []int64, names []string) {
	t.Helper()
	versions, names, err := sqldb.Steps(engine)
	if err != nil {
		t.Fatal(err)
	}
	return versions, names
}

func TestMigrationsArePaired(t *testing.T) {
	t.Parallel()
	_, lite := steps(t, sqldb.SQLite)
	_, pg := steps(t, sqldb.PostgreSQL)
	if diff := cmp.Diff(lite, pg); diff != "" {
		t.Errorf("sqlite (-) and postgres (+) differ:\n%s", diff)
	}
}

// F12: an older binary refuses a newer schema, and says what to do.
func TestForeignSchemaIsRefused(t *testing.T) {
	t.Parallel()
	for code, changes := range map[string][]string{
		"schema_newer": {`insert into schema_version (version, name, checksum, applied_at) values (9000, 'future', '', 1)`,
			`insert into schema_floor (version, oldest) values (9000, 9000)`},
		"schema_differs": {`update schema_version set checksum = 'edited' where version = 1`},
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
				for _, change := range changes {
					exec(t, db, change)
				}
				err := db.Migrate(t.Context())
				if !fault.Is(err, code) || fault.Of(err).Hint == "" {
					t.Errorf("got %v, want %s with a hint", err, code)
				}
			})
		})
	}
}

// Both folders lead to the same tables, columns, kinds of value, nulls and
// unique keys.
func TestEnginesHaveOneSchema(t *testing.T) {
	t.Parallel()
	lite := describeSQLite(t, sqldbtest.Open(t, sqldb.SQLite))
	pg := describePostgres(t, sqldbtest.Open(t, sqldb.PostgreSQL))
	if diff := cmp.Diff(lite, pg); diff != "" {
		t.Errorf("sqlite (-) and postgres (+) differ:\n%s", diff)
	}
	if !slices.Contains(lite, "lease.until integer not null") {
		t.Errorf("the description lacks what is known to exist: %v", lite)
	}
}

func describe(t *testing.T, db *sqldb.DB, columns, indexes string) []string {
	t.Helper()
	kinds := map[string]string{"bigint": "integer", "boolean": "integer", "bytea": "blob"}
	var all []string
	rows, err := db.Reader().QueryContext(t.Context(), columns)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var table, name, kind string
		var null bool
		if err := rows.Scan(&table, &name, &kind, &null); err != nil {
			t.Fatal(err)
		}
		kind = strings.ToLower(kind)
		if k, ok := kinds[kind]; ok {
			kind = k
		}
		line := fmt.Sprintf("%s.%s %s", table, name, kind)
		if !null {
			line += " not null"
		}
		all = append(all, line)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	// One row for each column of each unique key, in order.
	keys := make(map[string][]string)
	rows, err = db.Reader().QueryContext(t.Context(), indexes)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var table, index, name string
		var partial bool
		if err := rows.Scan(&table, &index, &name, &partial); err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprint(table, " ", index, " partial=", partial)
		keys[key] = append(keys[key], name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for key, names := range keys {
		table, rest, _ := strings.Cut(key, " ")
		_, partial, _ := strings.Cut(rest, " ")
		all = append(all, fmt.Sprintf("%s unique (%s) %s", table, strings.Join(names, ", "), partial))
	}
	slices.Sort(all)
	return all
}

func describeSQLite(t *testing.T, db *sqldb.DB) []string {
	for _, table := range column[string](t, db.Reader(), `select name from pragma_table_list where schema = 'main' and type = 'table' and strict = 0 and name not like 'sqlite_%'`) {
		t.Errorf("table %s is not strict", table)
	}
	return describe(t, db, `
select s.name, c.name, c.type, c."notnull" = 0 and c.pk = 0
from sqlite_schema s join pragma_table_info(s.name) c
where s.type = 'table' and s.name not like 'sqlite_%'`, `
select * from (
	select s.name, i.name as idx, coalesce(c.name, '(expression)'), i.partial
	from sqlite_schema s join pragma_index_list(s.name) i join pragma_index_info(i.name) c
	where s.type = 'table' and i."unique" = 1
	order by s.name, i.name, c.seqno)
union all
select s.name, 'rowid', c.name, 0
from sqlite_schema s join pragma_table_info(s.name) c
where s.type = 'table' and c.pk = 1
	and not exists (select 1 from pragma_index_list(s.name) i where i.origin = 'pk')`)
}

func describePostgres(t *testing.T, db *sqldb.DB) []string {
	return describe(t, db, `
select table_name, column_name, data_type, is_nullable = 'YES'
from information_schema.columns where table_schema = current_schema()`, `
select t.relname, x.relname, coalesce(a.attname, '(expression)'), i.indpred is not null
from pg_index i
join pg_class t on t.oid = i.indrelid
join pg_class x on x.oid = i.indexrelid
join pg_namespace n on n.oid = t.relnamespace
cross join lateral unnest(i.indkey) with ordinality k(num, pos)
left join pg_attribute a on a.attrelid = t.oid and a.attnum = k.num and k.num > 0
where n.nspname = current_schema() and i.indisunique
order by t.relname, x.relname, k.pos`)
}
