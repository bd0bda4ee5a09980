package audit

import (
	"context"
	"fmt"
	"math/bits"
	"strconv"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

const insertChainSQL = `insert into audit_chain (id, node, run_id, key_ref, key_wrapped, started_at) values ($1, $2, $3, $4, $5, $6)`

func insertChain(ctx context.Context, q sqldb.Querier, id, node, run, ref string, wrapped []byte, now time.Time) error {
	_, err := q.ExecContext(ctx, insertChainSQL, id, node, run, ref, wrapped, sqldb.Micros(now))
	return err
}

const insertEntriesSQL = `insert into audit_entry (chain_id, seq, id, time, kind, ref, environment_id, organization_id,
	agent_id, user_id, session_id, connection_id, action, decision, body, hash) values `

const entryColumnCount = 16

// linked is a row in its place in a chain.
type linked struct {
	head head
	row
}

// insertEntries writes rows in one statement for each power of two of them, so that
// a batch costs few messages to a database server and few texts are compiled. The
// first row takes the name of its chain from the entry at after, which it follows,
// unless that is of no chain: if it is gone, so is the name, which must not be null.
func insertEntries(ctx context.Context, tx *sqldb.Tx, after head, all []linked, explain func(error) error) error {
	for len(all) > 0 {
		size := min(bits.Len(uint(len(all))), len(inserts)) - 1
		n := 1 << size
		args := make([]any, 0, n*entryColumnCount+2)
		for _, l := range all[:n] {
			b, e := l.body, l.body.Entry
			args = append(args, l.head.chain, l.head.seq, b.ID, b.Time, b.Kind, b.Ref, e.Environment, e.Organization,
				e.Agent, e.User, e.Session, e.Connection, e.Action, e.Decision, l.doc, l.head.hash)
		}
		query := inserts[size].free
		if after.chain != "" {
			query = inserts[size].after
			args = append(args, after.seq, after.hash)
		}
		if err := tx.Later(ctx, explain, query, args...); err != nil {
			return err
		}
		all, after = all[n:], head{}
	}
	return nil
}

func insertFailed(err error) error {
	if sqldb.IsUnique(err) { // its place is taken: another node closed the run of this one
		return errRunClosed(err)
	}
	return fmt.Errorf("appending to the audit chain: %w", err)
}

// tuples are the placeholders of rows of so many columns.
func tuples(rows, columns int) string {
	b := make([]byte, 0, rows*columns*5)
	for i := range rows * columns {
		switch {
		case i == 0:
			b = append(b, '(')
		case i%columns == 0:
			b = append(b, "),("...)
		default:
			b = append(b, ',')
		}
		b = append(b, '$')
		b = strconv.AppendInt(b, int64(i+1), 10)
	}
	return string(append(b, ')'))
}

// inserts are the texts of an insert of 1, 2, 4 … 32 rows: free ones, and ones of
// which the first takes its chain from the entry that it follows.
var inserts = func() (texts [6]struct{ free, after string }) {
	for i := range texts {
		n := 1 << i
		rest, k := tuples(n, entryColumnCount)[len("($1"):], n*entryColumnCount
		texts[i].free = insertEntriesSQL + "($1" + rest
		texts[i].after = insertEntriesSQL + fmt.Sprintf("((select chain_id from audit_entry where chain_id = $1 and seq = $%d and hash = $%d)", k+1, k+2) + rest
	}
	return texts
}()

const entryExistsSQL = `select count(*) from audit_entry where id = $1`

func entryExists(ctx context.Context, q sqldb.Querier, e id.Event) (bool, error) {
	var n int
	err := q.QueryRowContext(ctx, entryExistsSQL, e).Scan(&n)
	return n > 0, err
}

const latestHeadsSQL = `select e.chain_id, e.seq, e.hash from audit_entry e
join (select c.id, (select max(seq) from audit_entry where chain_id = c.id) as last
      from (select id from audit_chain order by started_at desc, id desc limit 8) c) h
on e.chain_id = h.id and e.seq = h.last order by e.chain_id`

// latestHeads gives the heads of the eight chains that started last.
func latestHeads(ctx context.Context, q sqldb.Querier) ([]head, error) {
	rows, err := q.QueryContext(ctx, latestHeadsSQL)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var heads []head
	for rows.Next() {
		var h head
		if err := rows.Scan(&h.chain, &h.seq, &h.hash); err != nil {
			return nil, err
		}
		heads = append(heads, h)
	}
	return heads, rows.Err()
}

// stored is one row as it stands in the table.
type stored struct {
	head
	id, kind, ref                                                                 string
	time                                                                          int64
	environment, organization, agent, user, session, connection, action, decision string
	body                                                                          []byte
}

const entryColumns = `chain_id, seq, hash, id, kind, ref, time, environment_id, organization_id, agent_id, user_id,
	session_id, connection_id, action, decision, body`

func scanEntry(rows sqldb.Rows) (stored, error) {
	var s stored
	err := rows.Scan(&s.chain, &s.seq, &s.hash, &s.id, &s.kind, &s.ref, &s.time, &s.environment, &s.organization,
		&s.agent, &s.user, &s.session, &s.connection, &s.action, &s.decision, &s.body)
	return s, err
}

func queryEntries(ctx context.Context, q sqldb.Querier, query string, args ...any) ([]stored, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []stored
	for rows.Next() {
		s, err := scanEntry(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

// chainRow is a chain as it stands in the table.
type chainRow struct {
	id, node  string
	run       string
	wrapped   []byte
	startedAt int64
}

const chainsSQL = `select id, node, run_id, key_wrapped, started_at from audit_chain order by started_at, id`

func allChains(ctx context.Context, q sqldb.Querier) ([]chainRow, error) {
	return queryChains(ctx, q, chainsSQL)
}

func queryChains(ctx context.Context, q sqldb.Querier, query string, args ...any) ([]chainRow, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []chainRow
	for rows.Next() {
		var c chainRow
		if err := rows.Scan(&c.id, &c.node, &c.run, &c.wrapped, &c.startedAt); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, rows.Err()
}

const (
	signerSQL       = `select key_wrapped, verifier from audit_signer where id = 'checkpoint'`
	insertSignerSQL = `insert into audit_signer (id, key_ref, key_wrapped, verifier) values ('checkpoint', $1, $2, $3) on conflict (id) do nothing`
)

// Empty reports whether db holds no chain yet. It takes a database that nobody
// has migrated yet.
func Empty(ctx context.Context, db *sqldb.DB) (bool, error) {
	if made, err := db.HasTable(ctx, "audit_chain"); err != nil || !made {
		return !made, err
	}
	var n int
	if err := db.Reader().QueryRowContext(ctx, `select count(*) from (select id from audit_chain limit 1) c`).Scan(&n); err != nil {
		return false, sqldb.Wrap("look for audit chains", err)
	}
	return n == 0, nil
}
