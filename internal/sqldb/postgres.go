package sqldb

import (
	"context"
	"database/sql"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ambit-dev/ambit/internal/fault"
)

func (db *DB) openPostgres(ctx context.Context, cfg Config) (err error) {
	db.engine = PostgreSQL
	config, err := pgx.ParseConfig(cfg.URL)
	if err != nil {
		return fault.New(fault.Invalid, "database_url", "The database URL cannot be read.").
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
	preset("application_name", "ambit")
	// A node that froze inside a transaction must not keep its row locks from
	// the others, who may want to revoke.
	preset("idle_in_transaction_session_timeout", "30000")
	preset("tcp_keepalives_idle", "15")
	preset("tcp_keepalives_interval", "5")
	preset("tcp_keepalives_count", "3")
	if cfg.Schema != "" {
		config.RuntimeParams["search_path"] = pgx.Identifier{cfg.Schema}.Sanitize()
	}

	size := cfg.Connections
	if size == 0 {
		size = 16
	}
	pool := sql.OpenDB(stdlib.GetConnector(*config, stdlib.OptionShouldPing(db.suspect)))
	pool.SetMaxOpenConns(size)
	pool.SetMaxIdleConns(size)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	pool.SetConnMaxLifetime(time.Hour)
	db.writer, db.reader = pool, pool
	defer func() {
		if err != nil {
			db.release()
		}
	}()

	const query = `select coalesce(current_schema(), ''), current_setting('synchronous_commit'), current_setting('fsync')`
	var synchronous, fsync string
	if err := pool.QueryRowContext(ctx, query).Scan(&db.schema, &synchronous, &fsync); err != nil {
		return Wrap("open the database", err)
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
