package sqldb

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ambit-dev/ambit/internal/fault"
)

const (
	scrubTries = 25
	scrubPause = 200 * time.Millisecond
)

// Scrub takes from the database's files what rows of a table held that were deleted
// before. On SQLite, whose pages are overwritten by a delete, it empties the
// write-ahead log, which has the pages of before; on PostgreSQL it writes the table
// anew, for which others wait who want it. It reaches no backup, no archive of the
// log and no copy that a file system or a disk keeps. Who still reads from before
// the delete may hold it up: then it is an error, and to be done again.
func (db *DB) Scrub(ctx context.Context, table string) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.inflight.Done()
	for n := 1; ; n++ {
		done, err := db.store.scrub(ctx, table)
		if done || n == scrubTries || ctx.Err() != nil {
			if err == nil && !done {
				err = fault.New(fault.Unavailable, "scrub_busy", "Others still read what was deleted.").WithHint("Try again.")
			}
			return Wrap("scrub "+table, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(scrubPause):
		}
	}
}

func (s *sqlite) scrub(ctx context.Context, _ string) (bool, error) {
	c, err := s.writer.take(ctx)
	if err != nil {
		return false, err
	}
	defer s.writer.give(c)
	rows, err := c.Query(ctx, "pragma wal_checkpoint(truncate)", nil)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	var busy, log, moved int64
	if ok, err := rows.Next(); err != nil || !ok {
		return false, err
	}
	err = rows.Scan(&busy, &log, &moved)
	return err == nil && busy == 0, err
}

// scrub waits for the table a short while only, since who comes after waits behind
// it. Rows that somebody's snapshot still shows are written along; the server says
// how many, and then it is not done.
func (p *postgres) scrub(ctx context.Context, table string) (bool, error) {
	cfg := p.pool.Config().ConnConfig.Copy()
	said, dead := false, int64(0)
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if first, _, _ := strings.Cut(n.Detail, " "); first != "" {
			if count, err := strconv.ParseInt(first, 10, 64); err == nil {
				said, dead = true, dead+count
			}
		}
	}
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return false, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = c.Close(ctx)
	}()
	if _, err := c.Exec(ctx, "set lock_timeout = '2s'"); err != nil {
		return false, err
	}
	_, err = c.Exec(ctx, `vacuum (full, verbose) "`+strings.ReplaceAll(table, `"`, `""`)+`"`)
	return err == nil && said && dead == 0, err
}
