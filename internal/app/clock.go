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

// clock is the wall clock of this process. It never goes backwards, so that
// nothing that has ended revives, and it knows when it is off.
type clock struct {
	db  *sqldb.DB
	log *slog.Logger

	last atomic.Int64 // the latest time given, Unix nanoseconds
	skew atomic.Int64

	stop chan struct{}
	wg   sync.WaitGroup
}

func newClock(db *sqldb.DB, log *slog.Logger) *clock {
	return &clock{db: db, log: log, stop: make(chan struct{})}
}

// Now is the present, or the latest time already given if the system's clock
// was set back.
func (c *clock) Now() time.Time {
	now := time.Now().UnixNano()
	for {
		last := c.last.Load()
		if now <= last {
			return time.Unix(0, last).UTC()
		}
		if c.last.CompareAndSwap(last, now) {
			return time.Unix(0, now).UTC()
		}
	}
}

// Ready refuses while the clock is off.
func (c *clock) Ready() error {
	if skew := time.Duration(c.skew.Load()); skew.Abs() > maxSkew {
		return fault.New(fault.Unavailable, "clock_skew", "This server's clock is off, so it makes no calls.").
			WithHint("The operator must set the clock; see `ambit doctor`.").WithRetry(10 * time.Second)
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
