package audit

import (
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Witness is how far the checkpoint folder is behind the log.
type Witness struct {
	Entries int64         // of this process' chain that no checkpoint has seen
	Behind  time.Duration // since the oldest of them could have been seen; 0: nothing is
	Overdue bool          // for so long that it is an alarm
	Err     error         // why the last checkpoint could not be written
}

// witness watches the writing of checkpoints. All its times are of the
// monotonic clock.
type witness struct {
	overdue, limit time.Duration

	mu      sync.Mutex
	since   time.Time // when the head moved beyond the last checkpoint; zero: it has not
	entries int64
	err     error
	told    bool // the alarm was raised
}

// moved is told of the head at every look: how many entries no checkpoint has.
func (w *witness) moved(entries int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.entries = entries
	switch {
	case entries == 0:
		w.since = time.Time{}
	case w.since.IsZero():
		w.since = time.Now()
	}
}

// wrote is told how the writing of a checkpoint that began at began has ended.
func (w *witness) wrote(began time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err = err; err == nil && !w.since.IsZero() {
		w.since = began // what came meanwhile, moved says
	}
}

func (w *witness) behind() time.Duration {
	if w.since.IsZero() {
		return 0
	}
	return time.Since(w.since)
}

// changed reports whether being overdue has begun or ended since it was asked last.
func (w *witness) changed() (overdue, changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	overdue = w.behind() > w.overdue
	changed = overdue != w.told
	w.told = overdue
	return overdue, changed
}

// refusal is why calls must not begin, if the operator wants them witnessed.
func (w *witness) refusal() error {
	if w.limit == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.behind() <= w.limit {
		return nil
	}
	return fault.New(fault.Unavailable, "audit_unwitnessed", "No audit checkpoint could be written for too long; calls are refused until one is.").
		WithHint("The operator must mend the checkpoint folder; see `ambit doctor`.").WithRetry(10 * time.Second)
}

// Waiting says how many calls wait for their intent to be durable, and how many
// finished ones for their outcome.
func (l *Log) Waiting() (intents, outcomes int) { return l.commits.depth() }

// Witness says how far the checkpoint folder is behind.
func (l *Log) Witness() Witness {
	w := &l.witness
	w.mu.Lock()
	defer w.mu.Unlock()
	return Witness{Entries: w.entries, Behind: w.behind(), Overdue: w.behind() > w.overdue, Err: w.err}
}
