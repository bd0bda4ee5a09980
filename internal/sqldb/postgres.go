package sqldb

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ambit-dev/ambit/internal/fault"
)

const (
	applicationName = "ambit"
	defaultPool     = 16
)

func poolSize(cfg Config) int {
	if cfg.Connections == 0 {
		return defaultPool
	}
	return cfg.Connections
}

// isLocal reports whether a connection to host stays on the machine; a path is
// that of a socket.
func isLocal(host string) bool {
	if host == "localhost" || filepath.IsAbs(host) {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// postgresConfig reads the URL and adds what we set for our own connections.
func postgresConfig(cfg Config) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fault.New(fault.Invalid, "database_url", "The database URL cannot be read.").
			WithHint("Use postgres://user:password@host:5432/database?sslmode=verify-full.").WithCause(err)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	preset := func(name, value string) {
		if config.RuntimeParams[name] == "" {
			config.RuntimeParams[name] = value
		}
	}
	preset("application_name", applicationName)
	// A node that froze inside a transaction must not keep its row locks from
	// the others, who may want to revoke.
	preset("idle_in_transaction_session_timeout", "30000")
	preset("tcp_keepalives_idle", "15")
	preset("tcp_keepalives_interval", "5")
	preset("tcp_keepalives_count", "3")
	if cfg.Schema != "" {
		config.RuntimeParams["search_path"] = pgx.Identifier{cfg.Schema}.Sanitize()
	}
	return config, nil
}

func (db *DB) openPostgres(ctx context.Context, cfg Config) (err error) {
	db.engine = PostgreSQL
	config, err := postgresConfig(cfg)
	if err != nil {
		return err
	}
	size := poolSize(cfg)
	engine, err := db.openPool(ctx, cfg.URL, config, size)
	if err != nil {
		return err
	}
	db.store = engine
	db.lanes = newLanes(size, size/4)
	defer func() {
		if err != nil {
			db.release()
		}
	}()

	const query = `select coalesce(current_schema(), ''), current_setting('synchronous_commit'), current_setting('fsync')`
	var synchronous, fsync string
	if err := engine.pool.QueryRow(ctx, query).Scan(&db.schema, &synchronous, &fsync); err != nil {
		return cannotConnect(config, "open the database", err)
	}
	if db.schema == "" {
		return fault.New(fault.Invalid, "database_schema", "The database has no schema to work in.").
			WithHint("Create the schema, or set search_path for this user.")
	}
	if synchronous == "off" {
		return fault.New(fault.Invalid, "database_setting", "PostgreSQL acknowledges commits before they are durable (synchronous_commit=off).").
			WithHint("Run: alter database " + pgx.Identifier{config.Database}.Sanitize() + " set synchronous_commit = on")
	}
	if fsync == "off" {
		db.log.WarnContext(ctx, "postgresql runs with fsync=off and can lose or damage data in a crash")
	}
	db.newListen = func() *listener {
		l := &listener{config: config, channel: pgChannel(db.schema), hub: db.hub, log: db.log}
		l.start()
		return l
	}
	return nil
}

// postgres is the engine over a network.
type postgres struct {
	db   *DB
	pool *pgxpool.Pool

	waits, waited atomic.Int64 // for a connection that anybody may have: how often, and nanoseconds
}

// share waits for a connection that anybody may have, and counts the wait.
func (p *postgres) share(ctx context.Context) error {
	l := p.db.lanes
	if l.common == nil || len(l.common) < cap(l.common) {
		return l.share(ctx)
	}
	began := time.Now()
	defer func() {
		p.waits.Add(1)
		p.waited.Add(int64(time.Since(began)))
	}()
	return l.share(ctx)
}

// openPool makes a pool of connections of which none is open yet.
func (db *DB) openPool(ctx context.Context, url string, config *pgx.ConnConfig, size int) (*postgres, error) {
	pooled, err := pgxpool.ParseConfig(url) // only for its defaults
	if err != nil {
		return nil, Wrap("read the database URL", err)
	}
	pooled.ConnConfig = config
	pooled.MaxConns = int32(size)
	pooled.MaxConnIdleTime = 5 * time.Minute
	pooled.MaxConnLifetime = time.Hour
	pooled.ShouldPing = db.suspect
	pool, err := pgxpool.NewWithConfig(ctx, pooled)
	if err != nil {
		return nil, Wrap("open the database", err)
	}
	return &postgres{db: db, pool: pool}, nil
}

func (p *postgres) query(ctx context.Context, query string, args []any) (Rows, error) {
	if err := p.share(ctx); err != nil {
		return nil, err
	}
	return p.read(ctx, query, args, p.db.lanes.unshare)
}

func (p *postgres) near(ctx context.Context, query string, args []any) (Rows, error) {
	return p.query(ctx, query, args)
}

func (p *postgres) urgent(ctx context.Context, query string, args []any) (Rows, error) {
	return p.read(ctx, query, args, func() {})
}

// read calls release when its rows are closed or there are none. A read that found
// its connection dead is tried once more; by then the pool looks at each of its
// connections before using it.
func (p *postgres) read(ctx context.Context, query string, args []any, release func()) (Rows, error) {
	args, err := plain(args)
	if err != nil {
		release()
		return nil, err
	}
	for again := false; ; again = true {
		rows, err := begun(p.pool.Query(ctx, query, args...))
		if err == nil {
			return &heldRows{Rows: rows, release: release}, nil
		}
		if again || !p.db.connectionLost(err) {
			release()
			return nil, err // not a nil pointer in an interface
		}
	}
}

func (p *postgres) row(ctx context.Context, query string, args []any) Row {
	return oneOf(p.query(ctx, query, args))
}

func (p *postgres) ping(ctx context.Context) error { return p.pool.Ping(ctx) }

// close waits for connections in use, but not for ever.
func (p *postgres) close() error {
	closed := make(chan struct{})
	go func() { // the pool's own way has no deadline
		defer close(closed)
		p.pool.Close()
	}()
	select {
	case <-closed:
		return nil
	case <-time.After(closeWait):
		return errors.New("a query was still running when the database was closed")
	}
}

func (p *postgres) connections() Connections {
	s := p.pool.Stat()
	return Connections{Open: int(s.TotalConns()), Busy: int(s.AcquiredConns()), Waits: s.EmptyAcquireCount() + p.waits.Load(),
		Waited: s.EmptyAcquireWaitTime() + time.Duration(p.waited.Load())}
}

func (p *postgres) begin(ctx context.Context, limit time.Duration, urgent bool) (transaction, error) {
	release := func() {}
	if !urgent {
		if err := p.share(ctx); err != nil {
			return nil, err
		}
		release = p.db.lanes.unshare
	}
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		release()
		return nil, err
	}
	t := &postgresTx{conn: conn, done: release, patient: limit > txLimit}
	t.hold, t.cancel = context.WithTimeout(context.WithoutCancel(ctx), limit+commitGrace)
	t.later("begin isolation level read committed", nil, nil)
	return t, nil
}

// postgresTx sends what it can in one message: its beginning goes with the first
// statement, and what nobody waits for with the next one or with the commit.
type postgresTx struct {
	conn    *pgxpool.Conn
	hold    context.Context // the time that the transaction may take
	patient bool            // it may commit for all of that time
	cancel  context.CancelFunc
	done    func() // gives its place back
	waiting []statement
	open    []*pgRows // to be closed before the end
	said    error     // of a statement that waited and failed
	active  bool      // something was sent, so that there is something to roll back
}

// statement waits to be sent with another.
type statement struct {
	query   string
	args    []any
	explain func(error) error // may be nil
}

func (s statement) failed(err error) error {
	if s.explain == nil {
		return err
	}
	return s.explain(err)
}

func (t *postgresTx) later(query string, args []any, explain func(error) error) {
	t.waiting = append(t.waiting, statement{query, args, explain})
}

// send sends what waits, and a last statement whose answer is the next that
// is read from the results.
func (t *postgresTx) send(ctx context.Context, query string, args []any) (pgx.BatchResults, error) {
	var batch pgx.Batch
	for _, s := range t.waiting {
		batch.Queue(s.query, s.args...)
	}
	batch.Queue(query, args...)
	sent := t.waiting
	t.waiting, t.active = nil, true
	results := t.conn.SendBatch(ctx, &batch)
	for _, s := range sent {
		if _, err := results.Exec(); err != nil {
			_ = results.Close()
			t.said = err
			return nil, s.failed(err)
		}
	}
	return results, nil
}

func (t *postgresTx) exec(ctx context.Context, query string, args []any) (Result, error) {
	if len(args) == 0 { // several statements in one text, which only the simple protocol takes
		sent := t.waiting
		t.waiting, t.active = nil, true
		for _, s := range sent {
			if _, err := t.conn.Exec(ctx, s.query, s.args...); err != nil {
				return nil, s.failed(err)
			}
		}
		tag, err := t.conn.Exec(ctx, query)
		return tagged{tag}, err
	}
	args, err := plain(args)
	if err != nil {
		return nil, err
	}
	results, err := t.send(ctx, query, args)
	if err != nil {
		return nil, err
	}
	tag, err := last(results)
	return tagged{tag}, err
}

// last reads the answer to the last statement that was sent.
func last(results pgx.BatchResults) (pgconn.CommandTag, error) {
	tag, err := results.Exec()
	if closed := results.Close(); err == nil {
		err = closed
	}
	return tag, err
}

func (t *postgresTx) execLater(_ context.Context, explain func(error) error, query string, args []any) error {
	args, err := plain(args)
	if err == nil {
		t.later(query, args, explain)
	}
	return err
}

func (t *postgresTx) flush(ctx context.Context) error {
	n := len(t.waiting) - 1
	if n < 0 || n == 0 && !t.active { // nothing, or nothing but the beginning
		return nil
	}
	s := t.waiting[n]
	t.waiting = t.waiting[:n]
	results, err := t.send(ctx, s.query, s.args)
	if err != nil {
		return err
	}
	if _, err = last(results); err != nil {
		err = s.failed(err)
	}
	return err
}

func (t *postgresTx) query(ctx context.Context, query string, args []any) (Rows, error) {
	args, err := plain(args)
	if err != nil {
		return nil, err
	}
	results, err := t.send(ctx, query, args)
	if err != nil {
		return nil, err
	}
	rows, err := begun(results.Query())
	if err != nil {
		_ = results.Close()
		return nil, err
	}
	rows.results = results
	t.open = append(t.open, rows)
	return rows, nil
}

func (t *postgresTx) row(ctx context.Context, query string, args []any) Row {
	return oneOf(t.query(ctx, query, args))
}

func (t *postgresTx) closeRows() {
	for _, r := range t.open {
		_ = r.Close()
	}
	t.open = nil
}

// commit reports success only when the server says that it committed: a
// transaction that has failed is rolled back by its commit. It waits for its own
// time only, so that a connection that lost a packet does not hold what the
// transaction holds until that ends.
func (t *postgresTx) commit() error {
	t.closeRows()
	if !t.active && len(t.waiting) == 1 { // nothing but the beginning
		return nil
	}
	ctx, cancel := t.hold, context.CancelFunc(func() {})
	if !t.patient {
		ctx, cancel = context.WithTimeout(t.hold, commitLimit)
	}
	defer cancel()
	results, err := t.send(ctx, "commit", nil)
	if err != nil {
		return beforeCommit{err, t.said}
	}
	tag, err := last(results)
	if err == nil {
		t.active = false
		if tag.String() != "COMMIT" {
			err = pgx.ErrTxCommitRollback
		}
	}
	return err
}

func (t *postgresTx) rollback() {
	t.closeRows()
	if !t.active || t.conn.Conn().IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(t.hold, commitLimit)
	defer cancel()
	if _, err := t.conn.Exec(ctx, "rollback"); err != nil {
		_ = t.conn.Conn().Close(ctx)
	}
}

func (t *postgresTx) release() {
	t.cancel()
	t.conn.Release()
	t.done()
}

// tagged is what a statement did.
type tagged struct{ tag pgconn.CommandTag }

func (t tagged) RowsAffected() (int64, error) { return t.tag.RowsAffected(), nil }

// plain turns arguments into what every column takes, as database/sql does:
// named types into the types below their names.
func plain(args []any) ([]any, error) {
	out := make([]any, len(args))
	for i, arg := range args {
		v, err := driver.DefaultParameterConverter.ConvertValue(arg)
		if err != nil {
			return nil, fmt.Errorf("argument $%d: %w", i+1, err)
		}
		out[i] = v
	}
	return out, nil
}

// pgRows are the rows of a query. The first is read ahead, since only then the
// server has said whether the statement went well.
type pgRows struct {
	rows    pgx.Rows
	results pgx.BatchResults // that it is the last of, in a transaction
	ahead   bool
	closed  bool
}

func begun(rows pgx.Rows, err error) (*pgRows, error) {
	if err != nil {
		return nil, err
	}
	ahead := rows.Next()
	if err := rows.Err(); err != nil {
		rows.Close()
		return nil, err
	}
	return &pgRows{rows: rows, ahead: ahead}, nil
}

func (r *pgRows) Next() bool {
	if r.ahead {
		r.ahead = false
		return true
	}
	if !r.closed && r.rows.Next() {
		return true
	}
	_ = r.Close()
	return false
}

func (r *pgRows) Scan(dest ...any) error {
	if r.closed {
		return errRowsClosed
	}
	var flags []flagScan
	for i, f := range r.rows.FieldDescriptions() {
		if i >= len(dest) {
			break
		}
		// The columns of both engines are the same, and SQLite has no bool.
		if to, ok := dest[i].(*bool); ok && f.DataTypeOID != pgtype.BoolOID {
			if flags == nil {
				dest, flags = slices.Clone(dest), make([]flagScan, 0, len(dest)) // whose places stay
			}
			flags = append(flags, flagScan{to: to})
			dest[i] = &flags[len(flags)-1].n
		}
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	for _, f := range flags {
		*f.to = f.n != 0
	}
	return nil
}

// flagScan reads a number as a bool.
type flagScan struct {
	to *bool
	n  int64
}

func (r *pgRows) Err() error { return r.rows.Err() }

func (r *pgRows) Columns() ([]string, error) {
	if r.closed {
		return nil, errRowsClosed
	}
	var names []string
	for _, f := range r.rows.FieldDescriptions() {
		names = append(names, f.Name)
	}
	return names, nil
}

func (r *pgRows) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	r.rows.Close()
	if r.results != nil {
		return r.results.Close()
	}
	return nil
}

// suspect says whether the pool should ask a connection for a sign of life
// before using it: after a second of rest, and when another one was found dead
// since its last use. A restarted server so costs one failure, not one for
// each connection.
func (db *DB) suspect(_ context.Context, p pgxpool.ShouldPingParams) bool {
	lastUse := time.Now().Add(-p.IdleDuration).UnixNano()
	return p.IdleDuration > time.Second || lastUse <= db.lostAt.Load()
}

// connectionLost reports and remembers that err is a dead connection.
func (db *DB) connectionLost(err error) bool {
	if err == nil || db.engine != PostgreSQL || classify(err) != classLost {
		return false
	}
	db.lostAt.Store(time.Now().UnixNano())
	return true
}
