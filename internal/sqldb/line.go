package sqldb

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// Line has work that comes at once done in one round, so that many share a
// transaction and its wait for the disk. Who comes when nobody works leads a round:
// its own work first, and what waits. Who comes meanwhile waits, and the first of
// those leads the next round. No goroutine stands in between, so whoever comes
// alone is served at once.
//
// Those whom a round has answered often come back at once. So the next one waits
// until as many are there as the last one knew of, but no longer than twice what that
// one took. When they stay away, no round after it waits for them again.
//
// Its fields are set before its first use. It is safe for concurrent use.
type Line[T any] struct {
	Most  int // in one round
	Limit int // of those who wait; 0 is none
	// Key says what an item is about. Two of one key are never in one round; nil
	// lets all be.
	Key func(T) string
	// Work does one round. It gives each item an answer in its place; the error is
	// for [Line.Round]. It may be called with no items, by Round.
	Work func(batch []T, answers []error) error

	mu      sync.Mutex
	working bool
	waiting []*seat[T]

	took  time.Duration // of the last round
	ended time.Time
	known int           // how many the last round served, and found waiting at its end
	full  chan struct{} // closed when as many wait; nil while nobody gathers
}

type seat[T any] struct {
	item  T
	empty bool // of Round
	turn  chan turn
}

// turn is what one who waits is told: an answer, or that the next round is theirs
// to lead.
type turn struct {
	lead bool
	err  error
}

// patience bounds how long a round waits for those who may come back.
const patience = 2 * time.Millisecond

// ErrLineFull is the answer to an item that there was no room for.
var ErrLineFull = errors.New("too many wait in line")

var errBroken = errors.New("the work that this was a part of was not finished")

// Do has item worked on and gives its answer. It waits for that whatever happens:
// work that was begun is not left behind.
func (l *Line[T]) Do(item T) error { return l.wait(&seat[T]{item: item}) }

// Round does one round, also if nobody waits, and gives its error.
func (l *Line[T]) Round() error { return l.wait(&seat[T]{empty: true}) }

func (l *Line[T]) wait(s *seat[T]) error {
	lead, err := l.enter(s)
	if err != nil {
		return err
	}
	if !lead {
		if t := <-s.turn; !t.lead {
			return t.err
		}
	}
	return l.round(s)
}

func (l *Line[T]) enter(s *seat[T]) (lead bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Limit > 0 && len(l.waiting) >= l.Limit {
		return false, ErrLineFull
	}
	lead = !l.working
	l.working = true
	if !lead {
		s.turn = make(chan turn, 1)
	}
	l.waiting = append(l.waiting, s)
	if l.full != nil && l.enough() {
		close(l.full)
		l.full = nil
	}
	return lead, nil
}

// enough reports whether no more are expected. l.mu is held.
func (l *Line[T]) enough() bool { return len(l.waiting) >= min(l.known, l.Most) }

// gather waits for those who may come back.
func (l *Line[T]) gather() {
	l.mu.Lock()
	left := time.Until(l.ended.Add(min(2*l.took, patience)))
	if l.enough() || left <= 0 {
		l.mu.Unlock()
		return
	}
	full := make(chan struct{})
	l.full = full
	l.mu.Unlock()
	late := time.NewTimer(left)
	defer late.Stop()
	select {
	case <-full:
	case <-late.C:
		l.mu.Lock()
		l.full = nil
		l.mu.Unlock()
	}
}

// take gives who is in the next round: the first, and of those behind it whoever
// is about something else than all before.
func (l *Line[T]) take() (batch []*seat[T]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var rest []*seat[T]
	var keys []string
	for _, s := range l.waiting {
		if len(batch) == l.Most {
			rest = append(rest, s)
			continue
		}
		if l.Key != nil && !s.empty {
			key := l.Key(s.item)
			if slices.Contains(keys, key) {
				rest = append(rest, s)
				continue
			}
			keys = append(keys, key)
		}
		batch = append(batch, s)
	}
	l.waiting = rest
	return batch
}

// round leads one round and gives the answer to own.
func (l *Line[T]) round(own *seat[T]) (mine error) {
	if !own.empty {
		l.gather()
	}
	began := time.Now()
	batch := l.take()
	items := make([]T, 0, len(batch))
	for _, s := range batch {
		if !s.empty {
			items = append(items, s.item)
		}
	}
	answers := make([]error, len(items))
	whole, done := errBroken, false
	defer func() { // also after a panic: the others must not wait for ever
		defer l.leave(len(batch), began)
		i := 0
		for _, s := range batch {
			answer := whole
			if !s.empty {
				if done {
					answer = answers[i]
				}
				i++
			}
			if s == own { // who may have no turn
				mine = answer
				continue
			}
			s.turn <- turn{err: answer}
		}
	}()
	whole = l.Work(items, answers)
	done = true
	return nil // what the deferred function says
}

// leave ends a round. When others wait, the first of them leads.
func (l *Line[T]) leave(served int, began time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = time.Now()
	l.took, l.known = l.ended.Sub(began), served+len(l.waiting)
	if len(l.waiting) > 0 {
		l.waiting[0].turn <- turn{lead: true}
		return
	}
	l.working = false
}

// Waiting is how many wait for a round, and whether one is under way.
func (l *Line[T]) Waiting() (n int, working bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting), l.working
}
