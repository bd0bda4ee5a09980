package app

import (
	"log/slog"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// dial is a wall clock that the test sets, beside a monotonic one that it moves.
type dial struct {
	c    *clock
	wall time.Time
	mono time.Duration
}

func newDial(db *sqldb.DB) *dial {
	d := &dial{wall: time.Now()}
	d.c = newClock(db, slog.New(slog.DiscardHandler))
	d.c.wall, d.c.mono = func() time.Time { return d.wall }, func() time.Duration { return d.mono }
	return d
}

func (d *dial) pass(by time.Duration) { d.wall, d.mono = d.wall.Add(by), d.mono+by }
func (d *dial) set(by time.Duration)  { d.wall = d.wall.Add(by) }

// F9: whatever is done to the wall clock, the time that is given never goes back
// and never runs slower than time passes, but for the little that it gives way:
// so nothing revives, and nothing lasts longer than it was given.
func TestF9ClockNeverGoesBackNorStops(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	for _, jump := range []time.Duration{time.Second, -time.Second, 2 * time.Second, -3 * time.Second, time.Minute, -time.Minute, time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour, 10 * year, -10 * year} {
		d := newDial(nil)
		began := d.c.Now()
		last := began
		look := func(what string) time.Time {
			t.Helper()
			now := d.c.Now()
			if now.Before(last) {
				t.Errorf("%v, %s: the time went back by %v", jump, what, last.Sub(now))
			}
			last = now
			return now
		}
		d.pass(10 * time.Minute)
		look("before")
		d.set(jump)
		at := look("the jump")
		if jump > 0 && at.Sub(began) < 10*time.Minute+jump {
			t.Errorf("%v: a jump forward was not followed: %v", jump, at.Sub(began))
		}
		for range 200 {
			d.pass(6 * time.Second)
			look("after")
		}
		// 20 minutes have passed since; what was given 20 minutes then is over.
		if got := last.Sub(at); got < 20*time.Minute-maxSkew || got > 20*time.Minute+time.Second {
			t.Errorf("%v: 20 minutes took %v", jump, got)
		}
	}
}

// F9: a suspended machine wakes with the wall clock ahead of the monotonic one.
func TestF9Suspend(t *testing.T) {
	t.Parallel()
	d := newDial(nil)
	began := d.c.Now()
	d.set(8 * time.Hour)
	if got := d.c.Now().Sub(began); got < 8*time.Hour {
		t.Errorf("after 8 hours of sleep the clock has moved %v", got)
	}
}

// F9: small steps back are made good, so that they do not add up.
func TestF9SmallStepsBackAreMadeGood(t *testing.T) {
	t.Parallel()
	d := newDial(nil)
	d.c.Now()
	for range 50 {
		d.set(-500 * time.Millisecond)
		d.c.Now()
		d.pass(10 * time.Second)
		d.c.Now()
	}
	if ahead := d.c.Now().Sub(d.wall); ahead > maxSkew {
		t.Errorf("fifty steps of half a second put the clock %v ahead", ahead)
	}
}

// F9: a node that is more than two seconds off the database's clock, either way,
// makes no calls and says why; on SQLite the database's clock is the system's.
func TestF9NodeThatIsOffRefuses(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		for _, off := range []time.Duration{0, time.Second, -time.Second, 4 * time.Second, -4 * time.Second, time.Hour, -time.Hour, 10 * 365 * 24 * time.Hour, -10 * 365 * 24 * time.Hour} {
			d := newDial(db)
			d.wall = time.Now().Add(off)
			if err := d.c.compare(); err != nil {
				t.Fatal(err)
			}
			err := d.c.Ready()
			if off.Abs() > maxSkew != (err != nil) {
				t.Errorf("%v off: %v", off, err)
			}
			if err != nil && (!fault.Is(err, "clock_skew") || fault.Of(err).Hint == "") {
				t.Errorf("%v off: got %v", off, err)
			}
		}
	})
}
