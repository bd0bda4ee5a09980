package statement_test

import (
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/statement"
)

// Issue 5: what each statement can change. Rows under a dialect hold for it alone.
func TestSQL(t *testing.T) {
	t.Parallel()
	const (
		any = statement.Dialect("any")
		pg  = statement.Postgres
		sf  = statement.Snowflake
	)
	rows := map[policy.Effect]map[statement.Dialect][]string{
		policy.Read: {
			any: {"select 1", "SELECT a, b FROM s.t WHERE c = 'x;''DROP TABLE t' -- ; DROP TABLE t\n LIMIT 5;", "(select 1) union all (select 2)", "values (1),(2)",
				"with x (a, b) as (select 1, 2), y as (select * from x) select count(*), max(a) over (partition by b order by (a)) from y",
				"select /* DELETE FROM t */ upper(trim(a)) from t as u(a) where a in ('b') and exists (select 1) group by a having count(*) > 1",
				"select cast(a as numeric(10,2)), a::varchar(20) from t", `select "a""b" from "T"`, "explain select 1", "explain analyze select 1", "show tables", "select 1;;;",
				"select case when (a) then (b) else (c) end from t where not (a) or (b)", "select 1.5e-3, 1_000, .5", "describe table t"},
			pg: {`select E'it\'s; DROP TABLE t' from t`, "select $$; DROP TABLE t$$", "select $a$ $$; DROP $a$", "select a->>'b', c #>> '{d}' from t", `select 'a\' from t`, "table t",
				"explain (analyze, format json) select lower(a) from t", "select pg_catalog.lower(a), ARRAY[1,2], a[1] from t", "select count(*) filter (where a) from t",
				"with x as materialized (select 1) select * from x", "select $1, $2::int", `select "lower"('A')`},
			sf: {`select 'it\'s; DROP TABLE t'`, "select $$; DROP TABLE t$$", "select t.$1 from @stage t // DROP TABLE t\n", "select value:a.b::string from t, lateral flatten(input => v)",
				"select * from table(information_schema.query_history(result_limit => 10))", "select * from table(result_scan(last_query_id()))", "show tables in schema a.b",
				"select * from t qualify row_number() over (order by a) = 1", "select * from t at(offset => -60)", "list @s", "desc table t", "show tables ->> select * from $1"},
		},
		policy.Write: {
			any: {"insert into t values (1)", "insert into s.t (a, b) select 1, 2", "update t set a = 1 where b = 2", "merge into t using u on (a = b) when matched then update set c = 1 when not matched then insert (a) values (1)",
				"select 1; update t set a = 1", "with x as (select 1) insert into t select * from x", "select * from t for update", "set x = 1", "use role admin", "begin", "commit; select 1",
				"explain update t set a = 1"},
			pg: {"with x as (insert into t values (1) returning a) select * from x", "select nextval('s')", "select s.nextval", "select set_config('a', 'b', false)", "select * from t for key share", "begin isolation level serializable read only",
				"insert into t (a) values (1) on conflict (a) do update set b = 1 returning *", "reset role"},
			sf: {"copy into t from @s", "copy into t (a, b) from @s", "select s.nextval", "show tables ->> insert into t select 1"},
		},
		policy.Destructive: {
			any: {"delete from t", "truncate t", "drop table t", "create table t (a int)", "alter table t add b int", "with x as (delete from t returning *) select * from x", "select 1; drop table t",
				"select 1 /* ; */ ; /* x */ drop table t", "merge into t using u on a = b when matched then delete", "call p()", "execute immediate 'x'", "select evil()", "select s.lower(a) from t", "select lower(evil(a)) from t",
				"select a into b from c", "select t.insert into b from t", "", ";", "--", "select 'open", "select \"open", "select /* open", "select /* /* */ */ 1", "select /*! drop table t */ 1", "select (1", "select 1)", "hello", "explain delete from t",
				"insert into t select evil()", "update t set a = evil()", "select a.b.c(1)", "select f (1)", "select f/**/(1)", "select f\n(1)", "select \x00", "select \u00a0 1", "select 'a' 'b'", "select e'a'\n'\\' || '; drop table t --'",
				"select 1into x", "select '\xff'", "declare x int; begin end", "begin delete from t; end", "begin let x := 1; end", "vacuum", "explain explain delete from t", "comment on table t is 'x'", "select 1 \\; drop table t",
				"select `a`", "do 'x'", "copy t to 'f'", "lock table t", "notify x", "select (f)(1)", "-- a\r drop table t", "select xmlelement(name a)", "replace into t values (1)", "undrop table t"},
			pg: {"select pg_terminate_backend(1)", "select pg_read_file('x')", "select query_to_xml('drop table t', true, true, '')", "select lo_import('x')", "copy t to program 'x'", "do $$ begin end $$", `select U&'\0041'`,
				"select dblink_exec('x', 'y')", "select pg_sleep(1000)", `select "evil"(1)`, `select "LOWER"(a)`, "select * from evil(a) as (b int)", "select 1 // 2", "select $tag$ x", "explain (analyze) delete from t", "select over(1)",
				"listen x", "discard all", "select pg_catalog.pg_reload_conf()", "select 1 from a where b in (select evil(c))", "create schema s", "refresh materialized view v", "select 1 group by rollup(a), evil(b)", "select set(1)"},
			sf: {"execute task t", "insert overwrite into t select 1", "copy into @s from t", "copy into 's3://b' from t", "select system$cancel_query('x')", "select identifier('f')(1)", "begin\n drop table t; end", "create task t as select 1",
				"select 1 from @s/a--b ; drop table t", "put file://a @s", "select a # b", "show tables ->> drop table t", "with x as procedure () returns int as $$ x $$ call x()", "select ai_complete('a', 'b')", `select "lower"(a) from t`},
		},
		policy.Access: {
			any: {"grant select on t to u", "revoke all on t from u", "create user u", "create or replace role r", "alter user u set password = 'x'", "drop role r", "select 1; grant a to b", "alter table t owner to u", "create policy p on t",
				"drop table t; create user u"},
			pg: {"alter system set x = 1", "alter default privileges grant select on tables to u", "reassign owned by a to b", "create server s", "create subscription s", "security label on table t is 'x'", "create schema s (x) grant select on t to u"},
			sf: {"create share s", "create security integration i", "create network policy p", "create secret s", "alter account set x = 1", "drop database role r"},
		},
	}
	for want, byDialect := range rows {
		for d, list := range byDialect {
			for _, dialect := range statement.Dialects() {
				if d != any && d != dialect {
					continue
				}
				for _, src := range list {
					if got := statement.SQL(src, dialect); got.Effect != want || (got.Why == "") != (want == policy.Read) {
						t.Errorf("%q in %q: got %q (%s), want %s", src, dialect, got.Effect, got.Why, want)
					}
				}
			}
		}
	}
}

// Without a dialect everything is destructive. It was read by what two dialects have
// in common, and in MySQL and SQL Server these change something.
func TestSQLOfNobodyKnowsWhom(t *testing.T) {
	t.Parallel()
	for _, src := range []string{"select 1", "SELECT 1 --1; DELETE FROM users", "SELECT 1 EXEC xp_cmdshell 'dir'", "SELECT 1 SHUTDOWN"} {
		for _, d := range []statement.Dialect{"", "mysql"} {
			if got := statement.SQL(src, d); got.Effect != policy.Destructive || got.Why == "" {
				t.Errorf("%q in %q: got %q (%s)", src, d, got.Effect, got.Why)
			}
		}
	}
}

func TestGraphQL(t *testing.T) {
	t.Parallel()
	for want, list := range map[policy.Effect][]string{
		policy.Read:  {"{ me { id } }", "query Q($a: Int) { a(x: $a, s: \"mutation { deleteAll }\") { ...F } } fragment F on T { deleteMe }", "# mutation\n{ a }"},
		policy.Write: {"mutation { issueCreate(input: {}) { id } }", "query A { a } mutation B { keyboardUpdate }", "mutation { a: update { deleted } }"},
		policy.Destructive: {"mutation { issueDelete(id: 1) { ok } }", "mutation { ok: removeAll }", "mutation { ... on M { deleteIssue } }", "mutation { ...F } fragment F on M { a ...G } fragment G on M { purge_all ...F }",
			"subscription { a }", "", "{", "mutation", "fragment F on T { a }", "mutation { ...Missing }", "query { a } }", strings.Repeat("{a", 30_000), "query { a(b: \"\"\"open) }", "{ a } mutation { bulkUpdate }"},
		policy.Access: {"mutation { apiKeyCreate { key } }", "mutation { webhookCreate }", "mutation { APIKeyRotate }", "mutation { invite_user: organizationInviteCreate }", "mutation { x: addCollaborator deleteIssue }", "mutation { createOAuthToken }"},
	} {
		for _, doc := range list {
			if got := statement.GraphQL(doc); got.Effect != want {
				t.Errorf("%.80q: got %q (%s), want %s", doc, got.Effect, got.Why, want)
			}
		}
	}
}

// FuzzSQL's oracle: no text before or after a statement that destroys hides it,
// and what reads alone reads with a comment and with another that reads.
func FuzzSQL(f *testing.F) {
	for _, s := range []string{"select 1", "'", "\"", "$$", "$a$", "--", "/*", "//", "e'\\", "#", "@s/a--", "select (", "with x as (", "\\", "1e", "u&'", "select 'a'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, d := range statement.Dialects() {
			for _, whole := range []string{s + "\n; DROP TABLE t", "DROP TABLE t;\n" + s} {
				if v := statement.SQL(whole, d); policy.Worse(v.Effect, policy.Destructive) != v.Effect || v.Why == "" {
					t.Fatalf("%q in %q: got %v", whole, d, v)
				}
			}
			if v := statement.SQL(s, d); v.Effect == policy.Read {
				if again := statement.SQL("/* x */ "+s+"\n;select 1", d); again.Effect != policy.Read {
					t.Fatalf("%q in %q: got %v", s, d, again)
				}
			}
		}
	})
}

// FuzzGraphQL's oracle: a document that reads does not, with a mutation in it.
func FuzzGraphQL(f *testing.F) {
	for _, s := range []string{"{a}", "query Q", "fragment F on T {a}", "\"\"\"", "#", "\ufeff{a}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if statement.GraphQL(s).Effect != policy.Read {
			return // it may read otherwise with more behind it
		}
		for _, whole := range []string{s + "\nmutation { deleteAll }", "mutation { deleteAll }\n" + s} {
			if v := statement.GraphQL(whole); policy.Worse(v.Effect, policy.Destructive) != v.Effect {
				t.Fatalf("%q: got %v", whole, v)
			}
		}
	})
}

// Issue 5: what a statement may be about, for a person who decides on it.
func TestNames(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]string{
		`delete from Shop."Orders" where a = 'from secrets'`: `"delete" "from" "shop"."Orders" "where" "a" |`,
		`drop schema if exists x`:                            `"drop" "schema" "if" "exists" "x" | x`,
		`truncate db.s.t; drop table "a""b"`:                 `"truncate" "s"."t" "drop" "table" "a""b" |`,
		`select 'open`:                                       ` |`,
	} {
		relations, schemas := statement.Names(src)
		if got := strings.Join(relations, " ") + " | " + strings.Join(schemas, " "); strings.TrimSpace(got) != strings.TrimSpace(want) {
			t.Errorf("%s: got %s, want %s", src, got, want)
		}
	}
	if relations, _ := statement.Names(strings.Repeat("a b c ", 1000) + strings.Join(strings.Split(strings.Repeat("x1,", 10), ","), " ")); len(relations) > 200 {
		t.Errorf("%d names", len(relations))
	}
}
