// Package sqldb opens the database, SQLite in a locked folder or PostgreSQL by
// URL, and runs the same SQL text on both: $N placeholders, int64 microseconds,
// upsert with RETURNING, compare-and-swap by version, row-value paging. It
// knows transactions, error classes, migrations, leases and change notices, and
// it knows no table of any other room.
//
// Every write goes through [DB.Update]. SQLite has one writer connection, so
// updates run one after another; PostgreSQL runs them side by side at read
// committed and a lost race (serialization failure, deadlock, lost connection
// before the commit) is run again, so fn must change nothing but the database.
// A statement that fails ends its transaction on both engines alike: later
// statements are refused and nothing commits. When Update returns nil the
// change is on stable storage.
package sqldb

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Engine is the kind of database behind a [DB].
type Engine int

const (
	SQLite Engine = iota + 1
	PostgreSQL
)

func (e Engine) String() string {
	switch e {
	case SQLite:
		return "sqlite"
	case PostgreSQL:
		return "postgres"
	}
	return "unknown"
}

// Config says which database to open.
type Config struct {
	DataDir     string           // SQLite: a folder of our own, made with mode 0700 and locked while open
	URL         string           // PostgreSQL, when set; DataDir is then not used
	Schema      string           // PostgreSQL: the search path; empty leaves it to the server
	Connections int              // PostgreSQL: most connections of the pool; 0 means 16
	Logger      *slog.Logger     // nil discards
	Now         func() time.Time // nil means time.Now
}

// Querier is what a [Tx] and [DB.Reader] have in common, in the shapes of
// database/sql.
type Querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) Row
}

// Result is what a statement did.
type Result interface {
	RowsAffected() (int64, error)
}

// Rows is the answer of a query. Close it, also after its last row.
type Rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close() error
	Columns() ([]string, error)
}

// Scanner is one row to read: a [Row], or where [Rows] stand.
type Scanner interface{ Scan(dest ...any) error }

// Collect reads all rows of a query, each by scan:
//
//	sqldb.Collect(scan)(q.QueryContext(…))
func Collect[T any](scan func(Scanner) (T, error)) func(Rows, error) ([]T, error) {
	return func(rows Rows, err error) ([]T, error) {
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var out []T
		for rows.Next() {
			v, err := scan(rows)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, rows.Err()
	}
}

// Row is the answer of a query for one row. Scan ends it.
type Row interface {
	Scan(dest ...any) error
	Err() error
}

// store is one of the two engines.
type store interface {
	// query and row run outside a transaction and see the newest commit.
	query(ctx context.Context, query string, args []any) (Rows, error)
	row(ctx context.Context, query string, args []any) Row
	// near is query for few rows by key, which are read to their end at once.
	near(ctx context.Context, query string, args []any) (Rows, error)
	// urgent is query on a connection that is kept for what ends access.
	urgent(ctx context.Context, query string, args []any) (Rows, error)
	// begin opens a write transaction that may last for limit; urgent ones come
	// before others.
	begin(ctx context.Context, limit time.Duration, urgent bool) (transaction, error)
	ping(ctx context.Context) error
	// scrub tries once; see [DB.Scrub].
	scrub(ctx context.Context, table string) (done bool, err error)
	close() error
	connections() Connections
}

// beforeCommit is the error of a statement that was sent with the commit, and
// what the engine said of it.
type beforeCommit struct {
	error
	said error
}

func (b beforeCommit) Unwrap() error { return b.error }

// transaction is an open write transaction on a connection of its own, which
// release gives back. commit and rollback do not hear a caller's cancellation:
// a commit cut in the middle would leave the outcome unknown.
type transaction interface {
	exec(ctx context.Context, query string, args []any) (Result, error)
	// execLater may put the statement off to the next one or to the commit.
	execLater(ctx context.Context, explain func(error) error, query string, args []any) error
	// flush runs what was put off.
	flush(ctx context.Context) error
	query(ctx context.Context, query string, args []any) (Rows, error)
	row(ctx context.Context, query string, args []any) Row
	commit() error
	rollback()
	release()
}

// DB is an open database. It is safe for concurrent use.
type DB struct {
	engine Engine
	schema string // PostgreSQL: current schema, which separates locks and notices
	log    *slog.Logger
	now    func() time.Time
	owner  string // prefix of this handle's lease owners

	store  store
	lanes  lanes
	folder *folder // SQLite only
	hub    *hub

	listenOnce sync.Once
	listener   *listener // PostgreSQL only, from the first Subscribe on
	newListen  func() *listener

	statements, commits atomic.Uint64
	lostAt              atomic.Int64 // PostgreSQL: when a connection was last found dead, in Unix nanoseconds

	mu       sync.Mutex // guards closed, and inflight against a Wait that has begun
	closed   bool
	inflight sync.WaitGroup
}

// Open opens the database and checks that it is set up to keep what it
// acknowledges. It does not migrate.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	db := &DB{log: cfg.Logger, now: cfg.Now, owner: rand.Text()}
	if db.log == nil {
		db.log = slog.New(slog.DiscardHandler)
	}
	if db.now == nil {
		db.now = time.Now
	}
	var err error
	switch {
	case cfg.URL != "":
		err = db.openPostgres(ctx, cfg)
	case cfg.DataDir != "":
		err = db.openSQLite(ctx, cfg)
	default:
		err = fault.New(fault.Invalid, "database_not_configured", "No database is configured.").
			WithHint("Set a data folder for SQLite or a PostgreSQL URL.")
	}
	if err != nil {
		return nil, err
	}
	db.hub = newHub()
	return db, nil
}

// Close refuses new work, waits for running updates, stops the listener and
// the notice dispatcher, and gives the folder back.
func (db *DB) Close() error {
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return nil
	}
	db.closed = true
	db.mu.Unlock()
	db.inflight.Wait()
	if db.listener != nil {
		db.listener.stop()
	}
	db.hub.stop()
	return db.release()
}

func (db *DB) release() error {
	var err error
	if db.store != nil {
		err = db.store.close()
	}
	if db.folder != nil {
		db.folder.unlock()
	}
	return Wrap("close the database", err)
}

// enter counts one piece of work that Close must wait for.
func (db *DB) enter() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return closed()
	}
	db.inflight.Add(1)
	return nil
}

func closed() error {
	return fault.New(fault.Unavailable, codeUnavailable, "The database is closed.").
		WithHint("The server is shutting down; try again in a moment.")
}

// Handle names this open handle, one of its kind. alone means that no other
// process can have the database open at the same time, as with SQLite's locked
// folder: what another handle left there is over.
func (db *DB) Handle() (name string, alone bool) { return db.owner, db.engine == SQLite }

// Engine says which engine is behind db.
func (db *DB) Engine() Engine { return db.engine }

// Ping reports whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	return Wrap("ping the database", db.store.ping(ctx))
}

// databaseClock is PostgreSQL's clock in microseconds.
const databaseClock = `select (extract(epoch from clock_timestamp()) * 1000000)::bigint`

// Clock is the database's clock, which all nodes share: the server's on
// PostgreSQL, our own on SQLite.
func (db *DB) Clock(ctx context.Context) (time.Time, error) {
	if db.engine == SQLite {
		return Time(Micros(db.now())), nil
	}
	var us int64
	if err := db.Reader().QueryRowContext(ctx, databaseClock).Scan(&us); err != nil {
		return time.Time{}, Wrap("read the database's clock", err)
	}
	return Time(us), nil
}

// Stats counts the work since Open.
type Stats struct {
	Statements uint64 // statements sent by callers, without begin and commit
	Commits    uint64 // transactions committed by Update
}

// Stats reads the counters.
func (db *DB) Stats() Stats {
	return Stats{Statements: db.statements.Load(), Commits: db.commits.Load()}
}

// Connections is how the pool of connections is used.
type Connections struct {
	Open, Busy int
	Waits      int64 // times that somebody waited for a connection, since Open
	Waited     time.Duration
}

// Connections reads the state of the pool. On SQLite, whose one writer is shared
// by design, waiting for it counts too.
func (db *DB) Connections() Connections { return db.store.connections() }

// Reader gives reads outside any transaction: each statement sees the newest
// commit. It refuses Exec. Pass its errors through [Wrap].
func (db *DB) Reader() Querier { return reader{db} }

type reader struct{ db *DB }

func (r reader) ExecContext(context.Context, string, ...any) (Result, error) {
	return nil, fault.New(fault.Internal, "write_outside_update", "A write was tried outside a transaction.")
}

func (r reader) QueryContext(ctx context.Context, query string, args ...any) (Rows, error) {
	if err := checkText(args); err != nil {
		return nil, err
	}
	r.db.statements.Add(1)
	return r.db.store.query(ctx, query, args)
}

func (r reader) QueryRowContext(ctx context.Context, query string, args ...any) Row {
	if err := checkText(args); err != nil {
		return noRow{err}
	}
	r.db.statements.Add(1)
	return r.db.store.row(ctx, query, args)
}

// Near is [DB.Reader] for what each call reads by key: a few rows, read to their
// end at once. On SQLite, where each commit empties the caches of the connections
// that read, it reads on the one that writes while nobody writes; so it must hold
// no query that takes long, since a write that comes meanwhile waits for it.
func (db *DB) Near() Querier { return near{reader{db}} }

type near struct{ reader }

func (n near) QueryContext(ctx context.Context, query string, args ...any) (Rows, error) {
	if err := checkText(args); err != nil {
		return nil, err
	}
	n.db.statements.Add(1)
	return n.db.store.near(ctx, query, args)
}

func (n near) QueryRowContext(ctx context.Context, query string, args ...any) Row {
	return oneOf(n.QueryContext(ctx, query, args...))
}

// noRow is a row that could not be read.
type noRow struct{ err error }

func (r noRow) Scan(...any) error { return r.err }
func (r noRow) Err() error        { return r.err }

// Counts reads a query of names and numbers to its end.
func Counts(rows Rows, err error) (map[string]int64, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	counts := map[string]int64{}
	for rows.Next() {
		var name string
		var n int64
		if err := rows.Scan(&name, &n); err != nil {
			return nil, err
		}
		counts[name] = n
	}
	return counts, rows.Err()
}

// In gives the placeholders of an IN list from $1 on, and their arguments. Lists
// of about the same length have the same text, so that few statements are
// compiled: the last value is repeated up to the next power of two.
func In[T any](values []T) (marks string, args []any) {
	size := 1
	for size < len(values) {
		size *= 2
	}
	args = make([]any, size)
	var b strings.Builder
	for i := range args {
		args[i] = values[min(i, len(values)-1)]
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(i + 1))
	}
	return b.String(), args
}

// Micros is t as Unix microseconds, the form of every time column. The zero
// time is 0, which columns use for "none".
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Time undoes [Micros]; the result is in UTC.
func Time(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
