package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// A call that runs when its process dies never gets its outcome from there. Each
// life of a process is therefore a run, which renews a row while it lives. When a
// run is over, whoever notices first (another node, or the next start) closes it
// and gives each call that it left open the outcome "unknown".
//
// A run is closed by an entry at the end of each of its chains. That takes the
// place in which the run itself would append next, so the database lets only one
// of the two through: a run that still lives has appended and is left alone; one
// that only stalled finds the place taken, and goes on in a new run with a new
// chain. What it then knows of a call that was settled is recorded beside the
// outcome, never instead of it.

const (
	statusUnknown = "unknown"
	codeUnknown   = "outcome_unknown"

	chainClosed   = "audit.chain_closed"
	runClosed     = "audit.run_closed"
	callEndedLate = "call.ended_late"

	defaultBeat  = 5 * time.Second
	beatsPerLife = 6 // a run that misses so many is over
	settleLease  = time.Minute
)

// errRunClosed ends a transaction of a run that another node has closed.
func errRunClosed(cause error) error {
	return fault.New(fault.Unavailable, "audit_unavailable", "This server did not answer for a while and was taken for dead. It starts its audit anew.").
		WithHint("Try again.").WithCause(cause).WithRetry(time.Second)
}

// run is a row of audit_run.
type run struct {
	id, node string
	closedAt int64
}

// live renews this run, and settles others that are over, until Stop. The two do
// not wait for each other: settling may take longer than a life.
func (l *Log) live() {
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { l.each(ctx, "the run of this node could not be renewed", l.renew) })
	loops.Go(func() { l.each(ctx, "calls of runs that are over could not be settled", l.Settle) })
	<-l.stop
	cancel()
	loops.Wait()
}

// each does something now and at every beat until ctx ends.
func (l *Log) each(ctx context.Context, failed string, do func(context.Context) error) {
	tick := time.NewTicker(l.beat)
	defer tick.Stop()
	for {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn(failed, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// renew says that this run lives. Another process cannot have a database of its
// own open, so there nothing needs to be said.
func (l *Log) renew(ctx context.Context) error {
	running := l.chain.running()
	if _, alone := l.db.Handle(); alone || running == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, max(l.beat, defaultBeat))
	defer cancel()
	if err := l.chain.stands(ctx, l.db.Reader()); err != nil {
		return err
	}
	now, err := l.db.Clock(ctx)
	if err != nil {
		return err
	}
	renewed := false
	err = l.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) (err error) {
		renewed, err = renewRun(ctx, tx, running, now.Add(beatsPerLife*l.beat))
		return err
	})
	if err == nil && !renewed {
		l.chain.closed(running)
		l.log.Error("this node was taken for dead; it goes on in a new run", "run", running)
	}
	return err
}

// leave ends this run when the log has stopped. Calls that are still open are
// left to be settled at once.
func (l *Log) leave() {
	running := l.chain.running()
	if running == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	settled := int64(0)
	if l.open.Load() == 0 {
		settled = sqldb.Micros(l.now())
	}
	err := l.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		return leaveRun(ctx, tx, running, l.node, settled)
	})
	if err != nil {
		l.log.Warn("the end of this run could not be recorded", "run", running, "error", err)
	}
}

// Settle closes runs that are over and gives the calls that they left open the
// outcome "unknown". One node at a time does it; the others return at once.
func (l *Log) Settle(ctx context.Context) error {
	handle, alone := l.db.Handle()
	now, err := l.db.Clock(ctx)
	if err != nil {
		return err
	}
	over := overRuns{alone: alone, handle: handle, now: sqldb.Micros(now), running: l.chain.running()}
	runs, err := unsettledRuns(ctx, l.db.Reader(), over)
	if err != nil || len(runs) == 0 {
		return sqldb.Wrap("look for runs that are over", err)
	}
	lease, mine, err := l.db.Acquire(ctx, "audit.settle", settleLease)
	if err != nil || !mine {
		return err
	}
	defer func() {
		if rerr := lease.Release(context.WithoutCancel(ctx)); rerr != nil {
			l.log.Warn("a lease could not be given back", "lease", "audit.settle", "error", rerr)
		}
	}()
	var failed error
	for _, r := range runs { // one that cannot be settled must not hold up the others
		if err := l.settleRun(ctx, r, over, lease); err != nil {
			failed = errors.Join(failed, fmt.Errorf("settling the run %s: %w", r.id, err))
		}
	}
	return failed
}

func (l *Log) settleRun(ctx context.Context, r run, over overRuns, lease *sqldb.Lease) error {
	if r.closedAt == 0 {
		if closed, err := l.closeRun(ctx, r, over); err != nil || !closed {
			return err // it lives, or somebody else was first
		}
	}
	return l.settleCalls(ctx, r, lease)
}

// closeRun closes a run that is over, and all its chains. False means that it is
// not over after all.
func (l *Log) closeRun(ctx context.Context, r run, over overRuns) (closed bool, err error) {
	chains, err := chainsOfRun(ctx, l.db.Reader(), r.id)
	if err != nil {
		return false, sqldb.Wrap("list the chains of a run", err)
	}
	keys := map[string]secret.Value{} // the keeper may be slow: not in the transaction
	for _, c := range chains {
		if keys[c.id], err = chainKey(ctx, l.keeper, c.id, c.wrapped); err != nil {
			return false, fmt.Errorf("unwrapping the key of the audit chain %s: %w", c.id, err)
		}
	}
	err = l.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if closed, err = closeRunRow(ctx, tx, r.id, l.node, sqldb.Micros(l.now()), over); err != nil || !closed {
			return err
		}
		if chains, err = chainsOfRun(ctx, tx, r.id); err != nil {
			return err
		}
		detail := map[string]string{"node": r.node}
		for i, c := range chains {
			end, err := l.closeChain(ctx, tx, c.id, keys[c.id])
			if err != nil {
				return err
			}
			detail[followsPrefix+strconv.Itoa(i)] = end.String()
		}
		// Its own chain names the ends, so that its checkpoints vouch for them.
		l.AppendEvent(tx, Entry{Actor: system, Action: runClosed, Object: r.id, Detail: detail})
		return nil
	})
	if sqldb.IsUnique(err) {
		l.log.Info("a run that seemed over has just appended; it lives", "run", r.id, "node", r.node)
		return false, nil
	}
	if closed = closed && err == nil; closed {
		l.log.Warn("a run is over: its process ended without a word", "run", r.id, "node", r.node)
	}
	return closed, sqldb.Wrap("close a run", err)
}

// closeChain puts the last entry into a chain of another run. Its place is where
// that run would append next.
func (l *Log) closeChain(ctx context.Context, tx *sqldb.Tx, chainID string, key secret.Value) (head, error) {
	if key.IsZero() {
		return head{}, fmt.Errorf("the audit chain %s began while its run was closed", chainID)
	}
	end, err := headOf(ctx, tx, chainID)
	if err != nil {
		return head{}, err
	}
	e := l.complete(Entry{Actor: system, Action: chainClosed, Object: chainID, Detail: map[string]string{"by": l.node}})
	r := entryRow(KindEvent, e)
	if r.err != nil {
		return head{}, r.err
	}
	end.hash = newLinks(key).link(end.hash, end.seq+1, r.doc)
	end.seq++
	return end, insertEntries(ctx, tx, head{}, []linked{{end, r}}, insertFailed)
}

var system = Actor{Kind: "system", ID: "server"}

// settleCalls gives the open calls of a closed run their outcome. Nothing can be
// added to a closed run, so once through its chains is enough; whoever is
// interrupted is followed by another.
func (l *Log) settleCalls(ctx context.Context, r run, lease *sqldb.Lease) error {
	chains, err := chainsOfRun(ctx, l.db.Reader(), r.id)
	if err != nil {
		return sqldb.Wrap("list the chains of a run", err)
	}
	settled := 0
	for _, c := range chains {
		for seq := int64(0); ; {
			page, err := openCalls(ctx, l.db.Reader(), c.id, seq)
			if err != nil {
				return sqldb.Wrap("list the open calls of a run", err)
			}
			if len(page) == 0 {
				break
			}
			if held, err := lease.Renew(ctx, settleLease); err != nil || !held {
				return err // somebody else goes on
			}
			n, err := l.settlePage(ctx, page)
			if sqldb.IsUnique(err) {
				continue // its own node, awake again, told the end of a call first: look again
			}
			if err != nil {
				return err
			}
			settled, seq = settled+n, page[len(page)-1].seq
		}
	}
	err = l.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		return markSettled(ctx, tx, r.id, sqldb.Micros(l.now()))
	})
	if err == nil && settled > 0 {
		l.log.Warn("calls of a run that is over were settled: nobody knows how they ended", "run", r.id, "node", r.node, "calls", settled)
	}
	return sqldb.Wrap("mark a run as settled", err)
}

func (l *Log) settlePage(ctx context.Context, page []stored) (settled int, err error) {
	err = l.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		settled = 0
		for _, s := range page {
			intent, err := decodeBody(s.body)
			if err != nil || intent.Entry == nil {
				return errors.Join(fmt.Errorf("the entry %d of the audit chain %s is no call", s.seq, s.chain), err)
			}
			if _, told, err := outcomeOf(ctx, tx, intent.ID); err != nil || told {
				if err != nil {
					return err
				}
				continue
			}
			l.add(tx, encode(body{Kind: KindOutcome, Ref: intent.ID, Entry: intent.Entry.columns(), ID: id.NewEvent(), Time: sqldb.Micros(l.now()),
				Outcome: &Outcome{Status: statusUnknown, Code: codeUnknown, SettledBy: storable(l.node)}}))
			settled++
		}
		return nil
	})
	return settled, sqldb.Wrap("settle calls", err)
}

// outcomeRow is what is about to be written of an outcome. ok is false if it
// stands already. The outcome of a call that was settled meanwhile becomes an
// entry of its own.
func (l *Log) outcomeRow(ctx context.Context, tx *sqldb.Tx, o row) (r row, ok bool, err error) {
	b := o.body
	if !b.again && b.run != "" && b.run == l.chain.running() {
		return o, true, nil
	}
	if stands, err := entryExists(ctx, tx, b.ID); err != nil || stands {
		return row{}, false, err
	}
	switch _, settled, err := outcomeOf(ctx, tx, b.Ref); {
	case err != nil:
		return row{}, false, err
	case !settled:
		return o, true, nil
	}
	e := *b.Entry
	e.ID, e.Actor, e.Action, e.Object, e.Decision, e.Code, e.Time = b.ID, system, callEndedLate, string(b.Ref), "", b.Outcome.Code, sqldb.Time(b.Time)
	e.Detail = map[string]string{"status": b.Outcome.Status}
	if b.Outcome.UpstreamStatus != 0 {
		e.Detail["upstream_status"] = strconv.Itoa(b.Outcome.UpstreamStatus)
	}
	l.log.Warn("a call ended after it had been settled as unknown", "intent", b.Ref, "status", b.Outcome.Status)
	return entryRow(KindEvent, l.complete(e)), true, nil
}

// count keeps the number of open calls, and ties those that began to their run.
func (l *Log) count(batch []*Intent, refused []error, outcomes int, err error) {
	if err != nil {
		if sqldb.Uncertain(err) {
			l.abandoned(batch)
		}
		return
	}
	l.open.Add(-int64(outcomes))
	running := l.chain.running()
	for i, in := range batch {
		if refused[i] == nil && in.row.body.Kind == KindIntent {
			in.run = running
			l.open.Add(1)
		}
	}
}

// abandoned counts a batch of which nobody knows whether it was committed: its
// intents may stand although they were refused, to be settled.
func (l *Log) abandoned(batch []*Intent) {
	if slices.ContainsFunc(batch, func(in *Intent) bool { return in.row.body.Kind == KindIntent }) {
		l.open.Add(1)
	}
}

// running names the run of this process, or nothing before its first entry.
func (c *chain) running() string {
	if r := c.run.Load(); r != nil {
		return *r
	}
	return ""
}

// closed leaves a run that another node has closed, with its chain.
func (c *chain) closed(run string) {
	defer c.lock()()
	if c.running() == run {
		c.run.Store(nil)
		c.head.chain = ""
	}
}

// openRun gives the run that a new chain belongs to: the one that goes on, or a
// new one. The row stays locked, so that no chain begins in a run while it is
// closed.
func (l *Log) openRun(ctx context.Context, tx *sqldb.Tx, running string) (string, error) {
	if running != "" {
		if open, err := runIsOpen(ctx, tx, running); err != nil || open {
			return running, err
		}
	}
	handle, _ := l.db.Handle()
	r := string(id.NewEvent())
	// Until it is first renewed, by the database's clock as it was at the start.
	return r, insertRun(ctx, tx, r, l.node, handle, l.now(), time.Now().Add(l.ahead+beatsPerLife*l.beat))
}
