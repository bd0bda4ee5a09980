package sqldb

import (
	"context"
	"crypto/sha256"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/failpoint"
	"github.com/ambit-dev/ambit/internal/fault"
)

const (
	// txLimit bounds a transaction: while one is open others wait, on SQLite
	// all writers, on PostgreSQL those after the same rows.
	txLimit     = 30 * time.Second
	commitGrace = 10 * time.Second
	// commitLimit bounds the wait for the answer to a commit, from when it is sent.
	// It is short since others wait for the end of this one: rows, and the audit's
	// chain. A commit that is not answered in time is [Uncertain].
	commitLimit = 5 * time.Second
	maxAttempts = 5
	maxPayload  = 4000
)

// Tx is one write transaction. It belongs to the goroutine that runs the
// function given to [DB.Update] and ends with it.
type Tx struct {
	db      *DB
	on      transaction
	failed  error // the first statement error; nothing may follow it
	before  []func(ctx context.Context) error
	done    []func(committed bool)
	notices []notice
	points  failpoint.Names
}

// inTx marks the context given to a transaction's function, so that a nested
// Update, which on SQLite would wait for itself, is refused on both engines.
type inTx struct{ db *DB }

// Update runs fn in one write transaction and commits when fn and every
// [Tx.BeforeCommit] hook return nil. An error of fn rolls back and is returned
// unchanged; errors of beginning and committing come as faults. The context
// given to fn ends with ctx or after 30 seconds. On PostgreSQL fn may run up
// to five times, each time with a new Tx.
func (db *DB) Update(ctx context.Context, fn func(ctx context.Context, tx *Tx) error) error {
	if err := db.outside(ctx); err != nil {
		return err
	}
	if err := db.enter(); err != nil {
		return err
	}
	defer db.inflight.Done()
	return db.attempts(ctx, txLimit, false, fn)
}

// outside refuses the context of a transaction's function.
func (db *DB) outside(ctx context.Context) error {
	if ctx.Value(inTx{db}) != nil {
		return fault.New(fault.Internal, "nested_transaction", "A transaction was opened inside another one.")
	}
	return nil
}

func (db *DB) attempts(ctx context.Context, limit time.Duration, urgent bool, fn func(ctx context.Context, tx *Tx) error) error {
	for n := 1; ; n++ {
		retry, err := db.attempt(ctx, limit, urgent, fn)
		if err == nil || !retry || n == maxAttempts || ctx.Err() != nil {
			return err
		}
		db.log.DebugContext(ctx, "transaction runs again", "attempt", n, "error", err)
		wait := time.Duration(1<<n) * 5 * time.Millisecond
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait/2 + rand.N(wait)):
		}
	}
}

func (db *DB) attempt(ctx context.Context, limit time.Duration, urgent bool, fn func(ctx context.Context, tx *Tx) error) (retry bool, err error) {
	defer func() { db.connectionLost(err) }()
	on, err := db.store.begin(ctx, limit, urgent)
	if err != nil {
		return transient(err), Wrap("open a transaction", err)
	}
	defer on.release()
	tx := &Tx{db: db, on: on}
	committed := false
	// Hooks run while the connection is still held, so on SQLite they see
	// commits in their order. The deferred form also serves a panic in fn.
	defer func() {
		if !committed {
			on.rollback()
		}
		callEach(tx.done, committed)
	}()

	within, cancel := context.WithTimeout(context.WithValue(ctx, inTx{db}, true), limit)
	defer cancel()
	if err := tx.run(within, fn); err != nil {
		db.connectionLost(tx.failed)
		return transient(tx.failed) || transient(err), err
	}
	if err := on.commit(); err != nil {
		if outcomeOpen(err) {
			return false, unsure(err)
		}
		if late, ok := errors.AsType[beforeCommit](err); ok {
			return transient(err), late.error
		}
		return transient(err), Wrap("commit", err)
	}
	if err := tx.points.Hit("after commit"); err != nil {
		return false, unsure(err)
	}
	committed = true
	db.commits.Add(1)
	if db.engine == SQLite {
		db.hub.publish(tx.notices...)
	}
	return false, nil
}

// callEach calls all in their order, the rest also after one that panics: what
// they give back others wait for.
func callEach(done []func(committed bool), committed bool) {
	if len(done) > 0 {
		defer callEach(done[1:], committed)
		done[0](committed)
	}
}

func (tx *Tx) run(ctx context.Context, fn func(ctx context.Context, tx *Tx) error) error {
	if err := fn(ctx, tx); err != nil {
		return err
	}
	for i := 0; i < len(tx.before); i++ { // a hook may register another
		if err := tx.before[i](ctx); err != nil {
			return err
		}
	}
	if tx.failed == nil {
		tx.sendNotices(ctx)
	}
	if tx.failed != nil {
		return Wrap("run a statement", tx.failed)
	}
	if err := ctx.Err(); err != nil {
		return Wrap("commit", err)
	}
	return tx.points.Hit("before commit")
}

// BeforeCommit registers a step that runs after the function, in order of
// registration; its error aborts the transaction and is what Update returns.
func (tx *Tx) BeforeCommit(fn func(ctx context.Context) error) { tx.before = append(tx.before, fn) }

// Done registers a call for the end of the transaction, however it ends. It
// must be quick and must not use the database. False also stands for a commit
// whose outcome is unknown; see [Uncertain].
func (tx *Tx) Done(fn func(committed bool)) { tx.done = append(tx.done, fn) }

// Named says what the transaction does, for those who test what happens when the
// process dies in it (package failpoint). It costs nothing in the product. Audit
// entries name themselves.
func (tx *Tx) Named(what, part string) { tx.points.Add(what, part) }

// Notify tells the subscribers of channel, on every node, once and only if
// the transaction commits. Equal notices of one transaction are one. A payload
// over 4000 bytes makes the transaction fail.
func (tx *Tx) Notify(channel, payload string) {
	if len(payload) > maxPayload || len(channel) > 100 || strings.Contains(channel, "\n") {
		tx.fail(fmt.Errorf("notice on %.100q: %d bytes, at most %d", channel, len(payload), maxPayload))
		return
	}
	if err := checkText([]any{channel, payload}); err != nil {
		tx.fail(err)
		return
	}
	n := notice{channel: channel, payload: payload}
	for _, have := range tx.notices {
		if have == n {
			return
		}
	}
	tx.notices = append(tx.notices, n)
}

// ShareLock is what to append to a SELECT so that the rows it reads cannot
// change before this transaction ends. SQLite has one writer and needs nothing.
func (tx *Tx) ShareLock() string {
	if tx.db.engine == PostgreSQL {
		return " for share"
	}
	return ""
}

// Serialize makes transactions that name the same thing run one after another,
// on all nodes, from here to their end: for rules that count rows before adding
// one, which a lock on existing rows does not hold. SQLite has one writer and
// needs nothing. It comes before any read that must not be stale.
func (tx *Tx) Serialize(ctx context.Context, name string) error {
	if tx.db.engine != PostgreSQL {
		return nil
	}
	_, err := tx.ExecContext(ctx, advisoryLockSQL, tx.db.advisoryKey(name))
	return err
}

const advisoryLockSQL = `select pg_advisory_xact_lock($1)`

// advisoryKey is the number by which PostgreSQL knows a name of ours.
func (db *DB) advisoryKey(name string) int64 {
	sum := sha256.Sum256([]byte("ambit " + name + " " + db.schema))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// Engine says which engine the transaction runs on.
func (tx *Tx) Engine() Engine { return tx.db.engine }

func (tx *Tx) fail(err error) {
	if tx.failed == nil && err != nil {
		tx.failed = err
	}
}

// ready reports why a statement cannot run, or counts it.
func (tx *Tx) ready(args []any) error {
	if tx.failed != nil {
		return fmt.Errorf("an earlier statement ended the transaction: %w", tx.failed)
	}
	if err := checkText(args); err != nil {
		tx.fail(err)
		return err
	}
	tx.db.statements.Add(1)
	return nil
}

// ExecContext runs a statement.
func (tx *Tx) ExecContext(ctx context.Context, query string, args ...any) (Result, error) {
	if err := tx.ready(args); err != nil {
		return nil, err
	}
	res, err := tx.on.exec(ctx, query, args)
	tx.fail(err)
	return res, err
}

// Later runs a statement whose result nobody waits for, at the latest with the
// commit: over a network it costs no message of its own. When it fails, so does
// the transaction, with what explain makes of the error.
func (tx *Tx) Later(ctx context.Context, explain func(error) error, query string, args ...any) error {
	if err := tx.ready(args); err != nil {
		return err
	}
	err := tx.on.execLater(ctx, explain, query, args)
	tx.fail(err)
	return err
}

// Flush runs what [Tx.Later] put off, all in one message, and gives the error of the
// first that failed. It is for what may well fail: with the commit, a failure costs
// the audit its chain.
func (tx *Tx) Flush(ctx context.Context) error {
	if tx.failed != nil {
		return fmt.Errorf("an earlier statement ended the transaction: %w", tx.failed)
	}
	err := tx.on.flush(ctx)
	tx.fail(err)
	return err
}

// QueryContext runs a query.
func (tx *Tx) QueryContext(ctx context.Context, query string, args ...any) (Rows, error) {
	if err := tx.ready(args); err != nil {
		return nil, err
	}
	rows, err := tx.on.query(ctx, query, args)
	tx.fail(err)
	return rows, err
}

// QueryRowContext runs a query for one row.
func (tx *Tx) QueryRowContext(ctx context.Context, query string, args ...any) Row {
	if err := tx.ready(args); err != nil {
		return noRow{err}
	}
	row := tx.on.row(ctx, query, args)
	tx.fail(row.Err())
	return row
}

// checkText refuses what PostgreSQL cannot store as text and SQLite would, so
// that hostile input meets the same answer on both. It looks at what a driver
// would store: behind pointers, and at what a driver.Valuer gives.
func checkText(args []any) error {
	for _, arg := range args {
		switch v := arg.(type) {
		case nil, int64, int, bool, []byte:
		case string:
			if !storable(v) {
				return invalidText()
			}
		default:
			if err := checkOther(arg); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkOther(arg any) error {
	if _, ok := arg.(driver.Valuer); !ok {
		if v := reflect.ValueOf(arg); v.Kind() == reflect.String {
			return checkText([]any{v.String()})
		}
	}
	text, err := driver.DefaultParameterConverter.ConvertValue(arg)
	if s, ok := text.(string); err == nil && ok && !storable(s) { // the engine says what else is wrong
		return invalidText()
	}
	return nil
}

// storable reports whether s is text on both engines.
func storable(s string) bool { return strings.IndexByte(s, 0) < 0 && utf8.ValidString(s) }
