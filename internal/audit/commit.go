package audit

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Fence is the last check of a call: it runs in the transaction that writes the
// intent, so that the database orders it against a revoke.
type Fence interface {
	// Check decides for several fences of its own type at once, in their order. It
	// must check with a share lock that each call may still start. An error lets
	// no intent be written for its call, and must not have written anything.
	Check(ctx context.Context, tx *sqldb.Tx, all []Fence) []error
}

// Intent is a call whose intent is durable and whose outcome is still open.
type Intent struct {
	Event id.Event

	ctx   context.Context // of the caller, while it waits
	row   row
	fence Fence
	run   string // that it began in
}

// commits groups intents and outcomes into transactions: each round of intents
// takes the outcomes along that wait.
type commits struct {
	line *sqldb.Line[*Intent]

	mu       sync.Mutex
	stopped  bool
	outcomes []waitingOutcome // oldest first
	taken    []waitingOutcome // those that are being written
	late     chan struct{}    // there are outcomes, which may have to be written alone
}

// waitingOutcome is an outcome that waits, and since when.
type waitingOutcome struct {
	row
	since time.Time
}

const (
	maxBatch    = 64
	maxWaiting  = 1024   // calls whose intent is not yet durable
	maxOutcomes = 10_000 // finished calls whose outcome is not yet durable
	// outcomeWait is how long an outcome waits for an intent to be written with: a
	// call at a time costs one wait for the disk, not two.
	outcomeWait = 20 * time.Millisecond
	// maxClosed is how often a log that stops goes on in a new run, because another
	// node took it for dead.
	maxClosed = 3
)

func newCommits(write func(batch []*Intent, refused []error) error) *commits {
	return &commits{late: make(chan struct{}, 1), line: &sqldb.Line[*Intent]{Most: maxBatch, Limit: maxWaiting, Work: write}}
}

// Begin makes the intent of e durable and returns only then. fence runs in the
// same transaction, before the entry. Its error is returned unchanged, and no
// entry is written. Any other error means that the call must not run (threats.md
// L2). The fence may be nil.
func (l *Log) Begin(ctx context.Context, e Entry, fence Fence) (*Intent, error) {
	if err := l.witness.refusal(); err != nil {
		return nil, err
	}
	if !Recorded {
		return &Intent{Event: id.NewEvent(), ctx: ctx}, nil
	}
	return l.join(ctx, KindIntent, e, fence)
}

// Access is Record for what happens often, such as the reading of a value: e is
// durable when it returns, and was written with whatever else waited.
func (l *Log) Access(ctx context.Context, e Entry) error {
	_, err := l.join(ctx, KindEvent, e, nil)
	return err
}

// join has an entry written in the next batch.
func (l *Log) join(ctx context.Context, kind string, e Entry, fence Fence) (*Intent, error) {
	e = l.complete(e)
	in := &Intent{Event: e.ID, ctx: ctx, row: entryRow(kind, e), fence: fence}
	if in.row.err != nil {
		return nil, unavailable(in.row.err) // alone, not with the batch it would have spoiled
	}
	if err := l.commits.admits(); err != nil {
		return nil, err
	}
	err := l.commits.line.Do(in)
	if errors.Is(err, sqldb.ErrLineFull) {
		err = behind()
	}
	if err != nil {
		return nil, err
	}
	return in, nil
}

// Finish adds the outcome of a call. It does not wait: outcomes are written with
// the next intents, or soon by themselves. Begin refuses calls when too many wait.
func (l *Log) Finish(in *Intent, o Outcome) {
	if !Recorded {
		return
	}
	o.Status, o.Code = storable(o.Status), storable(o.Code)
	b := body{Kind: KindOutcome, Ref: in.Event, Outcome: &o, Entry: in.row.body.Entry.columns(), ID: id.NewEvent(), Time: sqldb.Micros(l.now()), run: in.run}
	if !l.commits.finish(encode(b)) {
		l.log.Error("an outcome came after the audit log stopped, or while it was full", "intent", in.Event)
	}
}

// batch writes what waits. A panic is an error here: the goroutine may be that of
// another call than the one that panics.
func (l *Log) batch(batch []*Intent, refused []error) (err error) {
	outcomes := l.commits.take()
	defer l.commits.written()
	written := false
	defer func() { // no outcome is lost
		if written {
			return
		}
		broken := errors.New("the writer of the batch failed")
		err = unavailable(broken)
		l.log.Error("writing audit entries panicked", "panic", fmt.Sprintf("%T", recover()), "stack", string(debug.Stack()))
		for i := range refused {
			refused[i] = unavailable(broken)
		}
		l.abandoned(batch)
		l.writeAgain(outcomes, broken)
	}()
	if len(batch) > 0 || len(outcomes) > 0 {
		err = l.write(batch, outcomes, refused)
	}
	written = true
	return err
}

// write writes one batch and says of each intent why it is not written. What the
// fence refuses gets its error, and when the transaction fails all get that.
func (l *Log) write(batch []*Intent, outcomes []waitingOutcome, refused []error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := l.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		check(ctx, tx, batch, refused)
		rows := make([]row, 0, len(batch)+len(outcomes))
		for i, in := range batch {
			if refused[i] == nil {
				rows = append(rows, in.row)
			}
		}
		for _, o := range outcomes {
			r, ok, err := l.outcomeRow(ctx, tx, o.row)
			if err != nil {
				return err
			}
			if ok {
				rows = append(rows, r)
			}
		}
		l.add(tx, rows...)
		return nil
	})
	l.count(batch, refused, len(outcomes), err)
	for i := range refused {
		switch {
		case err != nil:
			refused[i] = unavailable(err)
		case errors.Is(refused[i], context.Canceled), errors.Is(refused[i], context.DeadlineExceeded):
			refused[i] = unavailable(refused[i])
		}
	}
	if err != nil {
		l.writeAgain(outcomes, err)
	}
	return err
}

// writeAgain lets outcomes wait again whose transaction failed.
func (l *Log) writeAgain(outcomes []waitingOutcome, cause error) {
	if len(outcomes) == 0 {
		return
	}
	lost := l.commits.putBack(outcomes)
	l.log.Warn("outcomes could not be written and will be tried again", "count", len(outcomes)-lost, "error", cause)
	if lost > 0 {
		l.log.Error("outcomes were lost: the audit log is full", "count", lost)
	}
}

// check asks the fences of a batch.
func check(ctx context.Context, tx *sqldb.Tx, batch []*Intent, refused []error) {
	fences, at := make([]Fence, 0, len(batch)), make([]int, 0, len(batch))
	for i, in := range batch {
		if refused[i] = in.ctx.Err(); refused[i] == nil && in.fence != nil { // else nobody waits for this call any more
			fences, at = append(fences, in.fence), append(at, i)
		}
	}
	for len(fences) > 0 {
		n := 1
		for n < len(fences) && reflect.TypeOf(fences[n]) == reflect.TypeOf(fences[0]) {
			n++
		}
		answers := fences[0].Check(ctx, tx, fences[:n])
		for i := range n {
			if len(answers) == n {
				refused[at[i]] = answers[i]
			} else { // no answer is no
				refused[at[i]] = unavailable(errors.New("a fence did not answer for each of its calls"))
			}
		}
		fences, at = fences[n:], at[n:]
	}
}

// writeLate writes outcomes that no intent came for in time, and at the stop
// whatever waits.
func (l *Log) writeLate() {
	defer close(l.committed)
	pause := time.NewTimer(0)
	<-pause.C
	wait := func(d time.Duration) (stopped bool) {
		pause.Reset(d)
		select {
		case <-pause.C:
			return false
		case <-l.stop:
			return true
		}
	}
	for stopped := false; !stopped; {
		select {
		case <-l.commits.late:
		case <-l.stop:
			stopped = true
		}
		for !stopped {
			left, some := l.commits.dueIn()
			if !some {
				break
			}
			if left > 0 {
				stopped = wait(left)
				continue
			}
			if l.commits.line.Round() != nil {
				stopped = wait(100 * time.Millisecond)
			}
		}
	}
	for closed := 0; l.commits.close(); {
		err := l.commits.line.Round()
		if sqldb.IsUnique(err) && closed < maxClosed { // its run was closed, and the next one can be written to
			closed++
			continue
		}
		if err != nil {
			l.log.Error("the audit log stopped with entries unwritten", "error", err)
			return
		}
	}
}

// admits reports why no intent can be written now.
func (c *commits) admits() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.stopped:
		return unavailable(errors.New("the log is stopped"))
	case len(c.outcomes) > maxOutcomes*9/10:
		return behind()
	}
	return nil
}

// finish lets an outcome wait, unless it can never be written.
func (c *commits) finish(r row) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped || len(c.outcomes) >= maxOutcomes {
		return false
	}
	if c.outcomes = append(c.outcomes, waitingOutcome{r, time.Now()}); len(c.outcomes) == 1 {
		c.tell()
	}
	return true
}

func (c *commits) tell() {
	select {
	case c.late <- struct{}{}:
	default:
	}
}

// take gives the outcomes that the next transaction writes, until written.
func (c *commits) take() []waitingOutcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.outcomes), 4*maxBatch)
	c.taken, c.outcomes = c.outcomes[:n:n], append([]waitingOutcome(nil), c.outcomes[n:]...)
	return c.taken
}

func (c *commits) written() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken = nil
}

// answered gives the calls of a session that have ended with an answer or an error
// which is not durable yet.
func (c *commits) answered(session id.Session) map[id.Event]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := map[id.Event]bool{}
	for _, list := range [][]waitingOutcome{c.outcomes, c.taken} {
		for _, o := range list {
			if status := o.body.Outcome.Status; o.body.Entry.Session == session && (status == "ok" || status == "error") {
				calls[o.body.Ref] = true
			}
		}
	}
	return calls
}

// putBack returns outcomes whose transaction failed, and may have committed after
// all. It reports how many there was no room for.
func (c *commits) putBack(outcomes []waitingOutcome) (lost int) {
	for i := range outcomes {
		outcomes[i].body.again = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	room := max(0, maxOutcomes-len(c.outcomes))
	lost = max(0, len(outcomes)-room)
	c.outcomes = append(outcomes[:len(outcomes)-lost:len(outcomes)-lost], c.outcomes...)
	c.tell()
	return lost
}

// dueIn is after how long the oldest outcome must be written alone.
func (c *commits) dueIn() (left time.Duration, some bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.outcomes) == 0 {
		return 0, false
	}
	return outcomeWait - time.Since(c.outcomes[0].since), true
}

// close admits nothing more and reports whether something is left to write.
func (c *commits) close() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	intents, writing := c.line.Waiting()
	return intents > 0 || len(c.outcomes) > 0 || writing
}

// depth is how many intents and outcomes wait.
func (c *commits) depth() (intents, outcomes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	intents, _ = c.line.Waiting()
	return intents, len(c.outcomes)
}

// keepsUp refuses calls while too many outcomes wait to be written.
func (c *commits) keepsUp() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.outcomes) > maxOutcomes*9/10 {
		return behind()
	}
	return nil
}

func behind() error {
	return fault.New(fault.Unavailable, "audit_unavailable", "The audit log is behind; calls are refused until it has caught up.").WithRetry(time.Second)
}

func unavailable(cause error) error {
	if fault.Is(cause, codePutBack) {
		return cause
	}
	return fault.New(fault.Unavailable, "audit_unavailable", "The audit log cannot be written, so the call was not made.").
		WithHint("Try again shortly.").WithCause(cause).WithRetry(time.Second)
}
