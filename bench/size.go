package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ambit-dev/ambit/e2e/world"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// few is how many rows sessions, connections and audit entries have each in the
// small database.
const few = 1_000

// maxActive is how many of the sessions are active, and take turns in the calls.
const maxActive = 10_000

// sized measures the same call in a small and in a large database.
func sized(ctx context.Context, o options, dir, binary, engine string, up *world.Third) (rows []Row, err error) {
	var pg *cluster
	if engine == "postgres" {
		if pg, err = newCluster(ctx, o.database); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, pg.stop()) }()
	}
	home := filepath.Join(dir, engine+"-sizes")
	b, err := newBroker(ctx, world.Config{Dir: home, Binary: binary, Database: pg.at(""), Third: up})
	defer func() { err = errors.Join(err, b.Stop()) }()
	if err != nil {
		return nil, err
	}
	g := grower{session: b.session.ID}
	for _, size := range []int{few, o.rows} {
		if err := b.Stop(); err != nil {
			return nil, err
		}
		cfg := sqldb.Config{URL: pg.at("")}
		if pg == nil {
			cfg.DataDir = b.Nodes[0].DataDir()
		}
		if err := g.grow(ctx, cfg, size); err != nil {
			return nil, fmt.Errorf("growing to %d rows: %w", size, err)
		}
		if err := b.Start(ctx); err != nil {
			return nil, err
		}
		bodies, err := g.calls()
		if err != nil {
			return nil, err
		}
		var turn atomic.Int64
		call := func(ctx context.Context) error {
			return b.send(ctx, bodies[int(turn.Add(1))%len(bodies)])
		}
		if _, err := load(ctx, options{calls: 2 * len(bodies), seconds: 30 * time.Second}, 16, call); err != nil { // each was used
			return nil, err
		}
		measured, err := rounds(ctx, o, fmt.Sprintf("%s, %d rows, %d active", engine, size, len(bodies)), b, nil, up, call)
		if err != nil {
			return nil, err
		}
		rows = append(rows, measured...)
	}
	return rows, nil
}

// grower adds rows that are like the first of their kind.
type grower struct {
	session string // that is repeated
	rows    int    // so far
	handles []string
}

// grow adds what is missing. The server must not run on SQLite, and need not on
// PostgreSQL.
func (g *grower) grow(ctx context.Context, cfg sqldb.Config, to int) error {
	db, err := sqldb.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	if g.rows == 0 {
		if err := copyRows(ctx, db, "audit_chain", "id = (select min(id) from audit_chain)", 0, 1, map[string]string{"id": "'bench'", "run_id": "''"}); err != nil {
			return err
		}
	}
	same := "id = '" + g.session + "'"
	active := min(to, maxActive)
	for g.rows < to {
		n := min(to-g.rows, 20_000)
		state := "'ended'"
		if g.rows < active {
			n = min(n, active-g.rows)
			state = "'active'"
		}
		from := g.rows
		if err := copyRows(ctx, db, "session", same, from, n, map[string]string{"id": "'ses_bench' || n.i", "state": state}); err != nil {
			return err
		}
		if state == "'active'" {
			if err := g.activate(ctx, db, from, n); err != nil {
				return err
			}
		}
		if err := copyRows(ctx, db, "connection", "id = (select min(id) from connection)", from, n,
			map[string]string{"id": "'con_bench' || n.i", "account_id": "'bench' || n.i"}); err != nil {
			return err
		}
		if err := copyRows(ctx, db, "audit_entry", "id = (select min(id) from audit_entry where kind = 'event')", from, n,
			map[string]string{"chain_id": "'bench'", "seq": "n.i", "id": "'evt_bench' || n.i"}); err != nil {
			return err
		}
		g.rows += n
	}
	return nil
}

// activate gives sessions their grant and a handle that is known here.
func (g *grower) activate(ctx context.Context, db *sqldb.DB, from, n int) error {
	if err := copyRows(ctx, db, "session_grant", "session_id = '"+g.session+"'", from, n, map[string]string{"session_id": "'ses_bench' || n.i"}); err != nil {
		return err
	}
	return db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		const query = `insert into session_handle (hash, session_id) values ($1, $2)`
		for i := from + 1; i <= from+n; i++ {
			handle := fmt.Sprintf("bench-handle-%d", i)
			hash := sha256.Sum256([]byte(handle))
			if _, err := tx.ExecContext(ctx, query, hex.EncodeToString(hash[:]), fmt.Sprintf("ses_bench%d", i)); err != nil {
				return err
			}
			g.handles = append(g.handles, handle)
		}
		return nil
	})
}

// calls are the bodies of the measured call, one a session.
func (g *grower) calls() (bodies [][]byte, err error) {
	for _, handle := range g.handles {
		body, err := world.ToolCall("third_list", map[string]any{"session": handle})
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, body)
	}
	return bodies, nil
}

// copyRows repeats one row n times, with the columns in other set to SQL over n.i,
// which counts up from from+1.
func copyRows(ctx context.Context, db *sqldb.DB, table, where string, from, n int, other map[string]string) error {
	rows, err := db.Reader().QueryContext(ctx, "select * from "+table+" limit 1")
	if err != nil {
		return err
	}
	names, err := rows.Columns()
	if err = errors.Join(err, rows.Close()); err != nil {
		return err
	}
	values := make([]string, len(names))
	for i, name := range names {
		if values[i] = other[name]; values[i] == "" {
			values[i] = "r." + name
		}
	}
	query := fmt.Sprintf(`with recursive n (i) as (select %d union all select i + 1 from n where i < %d)
insert into %s (%s) select %s from n, (select * from %s where %s) r`, from+1, from+n, table, strings.Join(names, ", "), strings.Join(values, ", "), table, where)
	return db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, query)
		return err
	})
}
