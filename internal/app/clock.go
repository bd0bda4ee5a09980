package app

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// maxSkew is how far this node's clock may be from the database's before it
// refuses calls: expiry must mean the same on every node.
const maxSkew = 2 * time.Second

// clock is the time of this process. It follows the system's clock forward, also
// in jumps, and never goes back, so that nothing that has ended revives. When the
// system's clock is set back, it goes on at the pace of the monotonic clock: it
// does not stand still either, so that nothing lasts longer than it was given. It
// gives way a little while it is ahead by less than matters, and it knows when it
// is off: by the server's clock on PostgreSQL, by the system's on SQLite.
type clock struct {
	db   *sqldb.DB
	log  *slog.Logger
	wall func() time.Time
	mono func() time.Duration // since some moment, whatever the wall clock does

	mu   sync.Mutex
	last time.Time     // given last
	at   time.Duration // when, by mono

	skew atomic.Int64

	stop chan struct{}
	wg   sync.WaitGroup
}

func newClock(db *sqldb.DB, log *slog.Logger) *clock {
	began := time.Now()
	return &clock{db: db, log: log, wall: time.Now, mono: func() time.Duration { return time.Since(began) }, stop: make(chan struct{})}
}

// Now is the present.
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	mono, wall := c.mono(), c.wall().Round(0).UTC()
	passed := max(mono-c.at, 0)
	now := c.last.Add(passed)
	if ahead := now.Sub(wall); ahead > 0 && ahead <= maxSkew {
		now = now.Add(-min(ahead, passed/10))
	}
	if c.last.IsZero() || wall.After(now) {
		now = wall
	}
	c.last, c.at = now, mono
	return now
}

// Ready refuses while the clock is off.
func (c *clock) Ready() error {
	if skew := time.Duration(c.skew.Load()); skew.Abs() > maxSkew {
		return fault.New(fault.Unavailable, "clock_skew", "This server's clock is off, so it makes no calls.").
			WithHint("The operator must set the clock, or restart the server if it is right now; see `ambit doctor`.").WithRetry(10 * time.Second)
	}
	return nil
}

// Skew is how far this process is ahead of the database.
func (c *clock) Skew() time.Duration { return time.Duration(c.skew.Load()) }

func (c *clock) start() { c.wg.Go(c.watch) }
func (c *clock) close() { close(c.stop); c.wg.Wait() }

func (c *clock) watch() {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		if err := c.compare(); err != nil {
			c.log.Warn("the database's clock could not be read", "error", err)
		}
		select {
		case <-c.stop:
			return
		case <-tick.C:
		}
	}
}

func (c *clock) compare() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	before := time.Now()
	theirs, err := c.db.Clock(ctx)
	if err != nil {
		return fmt.Errorf("reading the database's clock: %w", err)
	}
	// Half the round trip is the best guess of when the answer was made. What
	// counts is the time this process gives out, which may be held forward.
	took := time.Since(before)
	skew := c.Now().Sub(theirs) - took/2
	if was := time.Duration(c.skew.Swap(int64(skew))); skew.Abs() > maxSkew && was.Abs() <= maxSkew {
		c.log.Error("the clock is off; calls are refused", "skew", skew)
	}
	return nil
}
