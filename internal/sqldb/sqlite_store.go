package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"time"

	"github.com/ambit-dev/ambit/internal/sqldb/lite"
)

// sqlite is the engine in this process: one connection that writes, several
// that read.
type sqlite struct{ writer, readers *connPool }

func (s *sqlite) version(ctx context.Context) (version string, err error) {
	c, err := s.writer.take(ctx)
	if err != nil {
		return "", err
	}
	defer s.writer.give(c)
	return version, first(ctx, c, "select sqlite_version()", &version)
}

// ping reads a page of the file.
func (s *sqlite) ping(ctx context.Context) error {
	return s.row(ctx, "select count(*) from sqlite_schema", nil).Scan(new(int))
}

// close closes readers first: the last connection to go moves the write-ahead
// log into the database, and only the writer may.
func (s *sqlite) connections() (all Connections) {
	for _, p := range []*connPool{s.writer, s.readers} {
		all.Open += p.size
		all.Busy += p.size - len(p.idle)
		all.Waits += p.waits.Load()
		all.Waited += time.Duration(p.waited.Load())
	}
	return all
}

func (s *sqlite) close() (err error) {
	for _, p := range []*connPool{s.readers, s.writer} {
		if p != nil {
			err = errors.Join(err, p.close())
		}
	}
	return err
}

func (s *sqlite) query(ctx context.Context, query string, args []any) (Rows, error) {
	c, err := s.readers.take(ctx)
	if err != nil {
		return nil, err
	}
	return s.readers.query(ctx, c, query, args)
}

// near reads where the last writes are at hand. Whoever finds somebody writing
// does not wait for it.
func (s *sqlite) near(ctx context.Context, query string, args []any) (Rows, error) {
	select {
	case c := <-s.writer.idle:
		return s.writer.query(ctx, c, query, args)
	default:
		return s.query(ctx, query, args)
	}
}

// urgent is query: those who read do not wait for the one who writes.
func (s *sqlite) urgent(ctx context.Context, query string, args []any) (Rows, error) {
	return s.query(ctx, query, args)
}

func (s *sqlite) row(ctx context.Context, query string, args []any) Row {
	return oneOf(s.query(ctx, query, args))
}

func (s *sqlite) begin(ctx context.Context, _ time.Duration, urgent bool) (transaction, error) {
	c, err := s.writer.takeFor(ctx, urgent)
	if err != nil {
		return nil, err
	}
	if _, err := c.Exec(context.Background(), "begin immediate", nil); err != nil {
		s.writer.give(c)
		return nil, err
	}
	return &liteTx{conn: c, pool: s.writer}, nil
}

// liteTx is the transaction on the one writer.
type liteTx struct {
	conn *lite.Conn
	pool *connPool
	open []*liteRows // to be closed before somebody else has the connection
}

type changed int64

func (c changed) RowsAffected() (int64, error) { return int64(c), nil }

func (t *liteTx) exec(ctx context.Context, query string, args []any) (Result, error) {
	n, err := t.conn.Exec(ctx, query, args)
	return changed(n), err
}

func (t *liteTx) execLater(ctx context.Context, explain func(error) error, query string, args []any) error {
	if _, err := t.conn.Exec(ctx, query, args); err != nil {
		return explain(err)
	}
	return nil
}

func (t *liteTx) flush(context.Context) error { return nil } // nothing is put off

func (t *liteTx) query(ctx context.Context, query string, args []any) (Rows, error) {
	cursor, err := t.conn.Query(ctx, query, args)
	if err != nil {
		return nil, err
	}
	rows := &liteRows{cursor: cursor}
	t.open = append(t.open, rows)
	return rows, nil
}

func (t *liteTx) row(ctx context.Context, query string, args []any) Row {
	return oneOf(t.query(ctx, query, args))
}

func (t *liteTx) commit() error {
	t.closeRows()
	_, err := t.conn.Exec(context.Background(), "commit", nil)
	return err
}

// rollback also ends what a failed commit has left open.
func (t *liteTx) rollback() {
	t.closeRows()
	if t.conn.InTransaction() {
		_, _ = t.conn.Exec(context.Background(), "rollback", nil)
	}
}

func (t *liteTx) closeRows() {
	for _, r := range t.open {
		_ = r.Close()
	}
	t.open = nil
}

func (t *liteTx) release() { t.pool.give(t.conn) }

// liteRows are the rows of a query, on a connection that they may have to give
// back.
type liteRows struct {
	cursor *lite.Cursor
	conn   *lite.Conn // nil in a transaction
	pool   *connPool
	err    error
	closed bool
}

func (r *liteRows) Next() bool {
	if r.closed || r.err != nil {
		return false
	}
	ok, err := r.cursor.Next()
	if r.err = err; !ok {
		_ = r.Close()
	}
	return ok
}

func (r *liteRows) Scan(dest ...any) error {
	if r.closed {
		return errRowsClosed
	}
	return r.cursor.Scan(dest...)
}

func (r *liteRows) Err() error { return r.err }

func (r *liteRows) Columns() ([]string, error) {
	if r.closed {
		return nil, errRowsClosed
	}
	return r.cursor.Columns(), nil
}

func (r *liteRows) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	r.cursor.Close()
	if r.conn != nil {
		r.pool.give(r.conn)
	}
	return nil
}

var errRowsClosed = errors.New("the rows are closed")

// oneOf makes one row of the rows of a query.
func oneOf(rows Rows, err error) Row {
	if err != nil {
		return noRow{err}
	}
	return firstRow{rows}
}

type firstRow struct{ rows Rows }

func (r firstRow) Err() error { return r.rows.Err() }

func (r firstRow) Scan(dest ...any) error {
	defer r.rows.Close()
	if !r.rows.Next() {
		return cmp.Or(r.rows.Err(), sql.ErrNoRows)
	}
	return r.rows.Scan(dest...)
}

// connPool hands connections out, each to one goroutine at a time.
type connPool struct {
	idle chan *lite.Conn
	next chan *lite.Conn // to who is urgent and waits already
	size int
	stop chan struct{} // closed when the pool is

	waits, waited atomic.Int64 // how often, and nanoseconds
}

func openPool(ctx context.Context, path string, size int, queryOnly string) (*connPool, error) {
	p := &connPool{idle: make(chan *lite.Conn, size), next: make(chan *lite.Conn), stop: make(chan struct{})}
	for range size {
		c, err := lite.Open(path)
		if err == nil {
			p.size++
			p.idle <- c
			err = setUp(ctx, c, pragmas(queryOnly))
		}
		if err != nil {
			return nil, errors.Join(Wrap("open the database", err), p.close())
		}
	}
	return p, nil
}

func (p *connPool) take(ctx context.Context) (*lite.Conn, error) { return p.takeFor(ctx, false) }

func (p *connPool) takeFor(ctx context.Context, urgent bool) (*lite.Conn, error) {
	select {
	case <-p.stop:
		return nil, closed()
	default:
	}
	select {
	case c := <-p.idle:
		return c, nil
	default:
	}
	began := time.Now()
	defer func() {
		p.waits.Add(1)
		p.waited.Add(int64(time.Since(began)))
	}()
	var next chan *lite.Conn
	if urgent {
		next = p.next
	}
	select {
	case c := <-next:
		return c, nil
	case c := <-p.idle:
		return c, nil
	case <-p.stop:
		return nil, closed()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *connPool) give(c *lite.Conn) {
	select {
	case p.next <- c:
	default:
		p.idle <- c
	}
}

// query runs on c, which goes back to the pool when the rows are closed.
func (p *connPool) query(ctx context.Context, c *lite.Conn, query string, args []any) (Rows, error) {
	cursor, err := c.Read(ctx, query, args)
	if err != nil {
		p.give(c)
		return nil, err
	}
	return &liteRows{cursor: cursor, conn: c, pool: p}, nil
}

// closeWait is how long a connection in use is waited for.
const closeWait = 5 * time.Second

// close takes every connection and closes it.
func (p *connPool) close() (err error) {
	close(p.stop)
	patience := time.NewTimer(closeWait)
	defer patience.Stop()
	for range p.size {
		select {
		case c := <-p.idle:
			err = errors.Join(err, c.Close())
		case <-patience.C:
			return errors.Join(err, errors.New("a query was still running when the database was closed"))
		}
	}
	return err
}
