package sqldb

import (
	"context"
	"database/sql"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

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
	pool := sql.OpenDB(stdlib.GetConnector(*config, stdlib.OptionShouldPing(db.suspect)))
	pool.SetMaxOpenConns(size)
	pool.SetMaxIdleConns(size)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	pool.SetConnMaxLifetime(time.Hour)
	db.store = &postgres{db: db, pool: pool}
	db.lanes = newLanes(size, size/4)
	defer func() {
		if err != nil {
			db.release()
		}
	}()

	const query = `select coalesce(current_schema(), ''), current_setting('synchronous_commit'), current_setting('fsync')`
	var synchronous, fsync string
	if err := pool.QueryRowContext(ctx, query).Scan(&db.schema, &synchronous, &fsync); err != nil {
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
	pool *sql.DB

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

// A read that found its connection dead is tried once more; by then the pool
// looks at each of its connections before using it.
func (p *postgres) query(ctx context.Context, query string, args []any) (Rows, error) {
	if err := p.share(ctx); err != nil {
		return nil, err
	}
	rows, err := p.pool.QueryContext(ctx, query, args...)
	if p.db.connectionLost(err) {
		rows, err = p.pool.QueryContext(ctx, query, args...)
	}
	if err != nil {
		p.db.lanes.unshare()
		return nil, err // not a nil pointer in an interface
	}
	return &heldRows{Rows: rows, release: p.db.lanes.unshare}, nil
}

func (p *postgres) row(ctx context.Context, query string, args []any) Row {
	return oneOf(p.query(ctx, query, args))
}

func (p *postgres) ping(ctx context.Context) error { return p.pool.PingContext(ctx) }
func (p *postgres) close() error                   { return p.pool.Close() }

func (p *postgres) connections() Connections {
	s := p.pool.Stats()
	return Connections{Open: s.OpenConnections, Busy: s.InUse, Waits: s.WaitCount + p.waits.Load(), Waited: s.WaitDuration + time.Duration(p.waited.Load())}
}

func (p *postgres) begin(ctx context.Context, limit time.Duration, urgent bool) (_ transaction, err error) {
	release := func() {}
	if !urgent {
		if err := p.share(ctx); err != nil {
			return nil, err
		}
		release = p.db.lanes.unshare
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	conn, err := p.pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	hold, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit+commitGrace)
	tx, err := conn.BeginTx(hold, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		cancel()
		_ = conn.Close()
		return nil, err
	}
	return &postgresTx{conn: conn, tx: tx, cancel: cancel, done: release}, nil
}

type postgresTx struct {
	conn   *sql.Conn
	tx     *sql.Tx
	cancel context.CancelFunc // of the time that the transaction may take
	done   func()             // gives its place back
}

func (t *postgresTx) exec(ctx context.Context, query string, args []any) (Result, error) {
	return t.tx.ExecContext(ctx, query, args...)
}

func (t *postgresTx) query(ctx context.Context, query string, args []any) (Rows, error) {
	rows, err := t.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err // not a nil pointer in an interface
	}
	return rows, nil
}

func (t *postgresTx) row(ctx context.Context, query string, args []any) Row {
	return t.tx.QueryRowContext(ctx, query, args...)
}

func (t *postgresTx) commit() error { return t.tx.Commit() }
func (t *postgresTx) rollback()     { _ = t.tx.Rollback() }

func (t *postgresTx) release() {
	t.cancel()
	_ = t.conn.Close()
	t.done()
}

// suspect says whether the pool should ask a connection for a sign of life
// before using it: after a second of rest, and when another one was found dead
// since its last use. A restarted server so costs one failure, not one for
// each connection.
func (db *DB) suspect(_ context.Context, p stdlib.ShouldPingParams) bool {
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
