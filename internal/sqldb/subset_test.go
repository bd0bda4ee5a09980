package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// update runs fn in a transaction that must succeed.
func update(t *testing.T, db *sqldb.DB, fn func(ctx context.Context, tx *sqldb.Tx) error) {
	t.Helper()
	if err := db.Update(t.Context(), fn); err != nil {
		t.Fatalf("update: %v", err)
	}
}

// exec runs one statement in a transaction of its own.
func exec(t *testing.T, db *sqldb.DB, query string, args ...any) {
	t.Helper()
	update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	})
}

// scan reads one column of one row.
func scan[T any](t *testing.T, q sqldb.Querier, query string, args ...any) (v T) {
	t.Helper()
	if err := q.QueryRowContext(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

// column reads one column of all rows.
func column[T any](t *testing.T, q sqldb.Querier, query string, args ...any) (all []T) {
	t.Helper()
	rows, err := q.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		var v T
		if err := rows.Scan(&v); err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// itemTable makes a table with one column of each kind that rooms use.
func itemTable(t *testing.T, db *sqldb.DB) {
	t.Helper()
	ddl := `create table item (id text primary key, tenant text not null, expires_at bigint not null, live boolean not null, body bytea, version bigint not null)`
	if db.Engine() == sqldb.SQLite {
		ddl = `create table item (id text primary key, tenant text not null, expires_at integer not null, live integer not null, body blob, version integer not null) strict`
	}
	exec(t, db, ddl)
}

const insertItem = `insert into item (id, tenant, expires_at, live, body, version) values ($1, $2, $3, $4, $5, 1)`

// The statement shapes that rooms may use, each with the same text on both
// engines. A shape missing here is not part of the shared subset.
func TestSharedSubset(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		itemTable(t, db)
		type name string // typed ids have an underlying string
		const micros = int64(1_790_000_000_123_456)
		body := []byte{0, 1, 0xff, '\''}
		for i, id := range []name{"a", "b", "c", "d"} {
			exec(t, db, insertItem, id, "t1", micros+int64(i/2), i%2 == 0, body)
		}
		r := db.Reader()

		t.Run("placeholders out of order and repeated", func(t *testing.T) {
			got := scan[name](t, r, `select id from item where tenant = $2 and id = $1 and $2 = tenant`, name("b"), "t1")
			if got != "b" {
				t.Errorf("got %q, want b", got)
			}
		})
		t.Run("types round trip", func(t *testing.T) {
			var gotMicros int64
			var gotLive bool
			var gotBody []byte
			err := r.QueryRowContext(t.Context(), `select expires_at, live, body from item where id = $1`, "a").Scan(&gotMicros, &gotLive, &gotBody)
			if err != nil || gotMicros != micros || !gotLive || !cmp.Equal(gotBody, body) {
				t.Errorf("got %v %v %v %v", gotMicros, gotLive, gotBody, err)
			}
		})
		t.Run("null", func(t *testing.T) {
			exec(t, db, insertItem, "n", "t2", 0, false, nil)
			var b []byte
			if err := r.QueryRowContext(t.Context(), `select body from item where id = $1`, "n").Scan(&b); err != nil || b != nil {
				t.Errorf("got %v %v, want nil", b, err)
			}
		})
		t.Run("upsert returning", func(t *testing.T) {
			update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
				got := scan[int64](t, tx, insertItem+` on conflict (id) do update set version = item.version + 1, tenant = excluded.tenant returning version`, "u", "t3", 1, true, nil)
				if got != 1 {
					t.Errorf("first: got version %d, want 1", got)
				}
				got = scan[int64](t, tx, insertItem+` on conflict (id) do update set version = item.version + 1, tenant = excluded.tenant returning version`, "u", "t3", 1, true, nil)
				if got != 2 {
					t.Errorf("second: got version %d, want 2", got)
				}
				return nil
			})
		})
		t.Run("compare and swap", func(t *testing.T) {
			const swap = `update item set tenant = $3, version = version + 1 where id = $1 and version = $2 returning version`
			update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
				if got := scan[int64](t, tx, swap, "d", 1, "t1"); got != 2 {
					t.Errorf("got version %d, want 2", got)
				}
				var v int64
				err := tx.QueryRowContext(ctx, swap, "d", 1, "t1").Scan(&v)
				if !sqldb.NoRows(err) || !sqldb.NoRows(sqldb.Wrap("swap", err)) {
					t.Errorf("stale version: got %v, want no rows", err)
				}
				return nil
			})
		})
		t.Run("keyset paging by row value", func(t *testing.T) {
			got := column[string](t, r, `select id from item where tenant = $3 and (expires_at, id) > ($1, $2) order by expires_at, id limit 2`, micros, "a", "t1")
			if diff := cmp.Diff([]string{"b", "c"}, got); diff != "" {
				t.Error(diff)
			}
		})
		t.Run("claim one", func(t *testing.T) {
			update(t, db, func(ctx context.Context, tx *sqldb.Tx) error {
				got := scan[string](t, tx, `update item set live = $1 where id = (select id from item where live = $2 and tenant = $3 order by expires_at, id limit 1) returning id`, false, true, "t1")
				if got != "a" {
					t.Errorf("got %q, want a", got)
				}
				return nil
			})
		})
		t.Run("filter, common table expression, in list", func(t *testing.T) {
			got := scan[int64](t, r, `with mine as (select id, live from item where tenant = $1) select count(*) filter (where live) from mine where id in ($2, $3)`, "t1", "c", "d")
			if got != 1 {
				t.Errorf("got %d, want 1", got)
			}
		})
		t.Run("exists, coalesce, left join, union all", func(t *testing.T) {
			got := column[string](t, r, `
select i.id from item i left join item o on o.id = i.tenant where coalesce(o.id, '') = '' and exists (select 1 from item x where x.id = i.id) and i.id = $1
union all select 'z' order by 1`, "a")
			if diff := cmp.Diff([]string{"a", "z"}, got); diff != "" {
				t.Error(diff)
			}
		})
		t.Run("unique violation", func(t *testing.T) {
			err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
				_, err := tx.ExecContext(ctx, insertItem, "a", "t1", 1, true, nil)
				return sqldb.Wrap("insert", err)
			})
			if !sqldb.IsUnique(err) {
				t.Errorf("got %v, want a unique violation", err)
			}
		})
	})
}

// An error of the function is the caller's, and nothing it wrote stays.
func TestUpdateRollsBackOnError(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		itemTable(t, db)
		sentinel := errors.New("stop")
		err := db.Update(t.Context(), func(ctx context.Context, tx *sqldb.Tx) error {
			if _, err := tx.ExecContext(ctx, insertItem, "a", "t", 1, true, nil); err != nil {
				return err
			}
			return sentinel
		})
		if err != sentinel {
			t.Errorf("got %v, want the function's own error unchanged", err)
		}
		err = db.Reader().QueryRowContext(t.Context(), `select id from item`).Scan(new(string))
		if !errors.Is(err, sql.ErrNoRows) {
			t.Errorf("got %v, want no row", err)
		}
	})
}
