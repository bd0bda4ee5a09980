package audit

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// overRuns says which runs are over: those that left; on a database that only
// one process can have open, those of another handle; else those that were not
// renewed in time. The running one of the process that asks is not.
type overRuns struct {
	alone   bool
	handle  string
	now     int64
	running string
}

const overSQL = `(lives_until = 0 or ($1 = 1 and handle <> $2) or ($1 = 0 and lives_until <= $3))`

func (o overRuns) args(more ...any) []any {
	alone := 0
	if o.alone {
		alone = 1
	}
	return append([]any{alone, o.handle, o.now}, more...)
}

const insertRunSQL = `insert into audit_run (id, node, handle, started_at, lives_until, closed_at, closed_by, settled_at) values ($1, $2, $3, $4, $5, 0, '', 0)`

func insertRun(ctx context.Context, q sqldb.Querier, run, node, handle string, now, until time.Time) error {
	_, err := q.ExecContext(ctx, insertRunSQL, run, node, handle, sqldb.Micros(now), sqldb.Micros(until))
	return err
}

const runIsOpenSQL = `select closed_at from audit_run where id = $1`

func runIsOpen(ctx context.Context, tx *sqldb.Tx, run string) (bool, error) {
	var closed int64
	err := tx.QueryRowContext(ctx, runIsOpenSQL+tx.ShareLock(), run).Scan(&closed)
	if sqldb.NoRows(err) {
		return false, nil
	}
	return closed == 0, err
}

const renewRunSQL = `update audit_run set lives_until = $2 where id = $1 and closed_at = 0`

func renewRun(ctx context.Context, q sqldb.Querier, run string, until time.Time) (bool, error) {
	return changedOne(q.ExecContext(ctx, renewRunSQL, run, sqldb.Micros(until)))
}

const (
	leaveRunSQL = `update audit_run set lives_until = 0, closed_at = $2, closed_by = $3, settled_at = $2 where id = $1 and closed_at = 0`
	leaveCalls  = `update audit_run set lives_until = 0 where id = $1 and closed_at = 0`
)

// leaveRun ends a run by its own will. When calls are left open (at is 0),
// somebody else closes it.
func leaveRun(ctx context.Context, q sqldb.Querier, run, node string, at int64) error {
	if at == 0 {
		_, err := q.ExecContext(ctx, leaveCalls, run)
		return err
	}
	_, err := q.ExecContext(ctx, leaveRunSQL, run, at, node)
	return err
}

const unsettledRunsSQL = `select id, node, closed_at from audit_run where settled_at = 0 and id <> $4 and (closed_at > 0 or ` + overSQL + `) order by started_at, id limit 50`

func unsettledRuns(ctx context.Context, q sqldb.Querier, over overRuns) ([]run, error) {
	rows, err := q.QueryContext(ctx, unsettledRunsSQL, over.args(over.running)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []run
	for rows.Next() {
		var r run
		if err := rows.Scan(&r.id, &r.node, &r.closedAt); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

const closeRunSQL = `update audit_run set closed_at = $4, closed_by = $5 where id = $6 and closed_at = 0 and ` + overSQL

func closeRunRow(ctx context.Context, q sqldb.Querier, run, by string, at int64, over overRuns) (bool, error) {
	return changedOne(q.ExecContext(ctx, closeRunSQL, over.args(at, by, run)...))
}

const closeRestoredSQL = `update audit_run set closed_at = $1, closed_by = $2 where closed_at = 0 and id <> $3`

// EndRestored closes, in tx, the runs of a database that was put back. Nothing is
// added to their chains, whose next places checkpoints may have seen taken; the
// calls that they left open are settled at the next start.
func (l *Log) EndRestored(ctx context.Context, tx *sqldb.Tx) error {
	_, err := tx.ExecContext(ctx, closeRestoredSQL, sqldb.Micros(l.now()), l.node, l.chain.running())
	return sqldb.Wrap("close the runs of a restored database", err)
}

const markSettledSQL = `update audit_run set settled_at = $2 where id = $1 and settled_at = 0`

func markSettled(ctx context.Context, q sqldb.Querier, run string, at int64) error {
	_, err := q.ExecContext(ctx, markSettledSQL, run, at)
	return err
}

func changedOne(res sqldb.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

const chainsOfRunSQL = `select id, node, run_id, key_wrapped, started_at from audit_chain where run_id = $1 order by started_at, id`

func chainsOfRun(ctx context.Context, q sqldb.Querier, run string) ([]chainRow, error) {
	return queryChains(ctx, q, chainsOfRunSQL, run)
}

const headOfSQL = `select seq, hash from audit_entry where chain_id = $1 order by seq desc limit 1`

func headOf(ctx context.Context, q sqldb.Querier, chain string) (head, error) {
	h := head{chain: chain}
	err := q.QueryRowContext(ctx, headOfSQL, chain).Scan(&h.seq, &h.hash)
	return h, err
}

const openCallsSQL = `select ` + entryColumns + ` from audit_entry i where i.chain_id = $1 and i.seq > $2 and i.kind = 'intent'
and not exists (select 1 from audit_entry o where o.ref = i.id and o.ref <> '') order by i.seq limit 100`

// openCalls lists the intents of a chain after seq that have no outcome.
func openCalls(ctx context.Context, q sqldb.Querier, chain string, seq int64) ([]stored, error) {
	return queryEntries(ctx, q, openCallsSQL, chain, seq)
}

const outcomeOfSQL = `select id from audit_entry where ref = $1 and ref <> ''`

func outcomeOf(ctx context.Context, q sqldb.Querier, intent id.Event) (outcome id.Event, found bool, err error) {
	err = q.QueryRowContext(ctx, outcomeOfSQL, intent).Scan(&outcome)
	if sqldb.NoRows(err) {
		return "", false, nil
	}
	return outcome, err == nil, err
}
