package world

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Shot is one call to make.
type Shot struct {
	Node    *Node
	Session *Session
	Tool    string        // third_list and the like
	Wait    time.Duration // how long the third party takes to answer
}

// Op is a call as its caller saw it. The caller keeps these, so that what the
// servers say afterwards can be held against them.
type Op struct {
	Shot
	ID         string // the argument id, unique; arrivals and intents bear it too
	Start, End time.Time
	Answer     Answer
}

// Load calls from several workers at a set rate.
type Load struct {
	Workers int
	Rate    float64          // calls a second of all workers together; 0: as fast as they can
	Next    func(i int) Shot // the i-th call
	Seen    func(op Op)      // told of each call that ended, if set; it may run at the same time for several
	Timeout time.Duration    // of one call; default 30 s
	Stop    <-chan struct{}  // ends the load: no call starts after; or the end of the context, which cuts calls too
}

var runs atomic.Int64

// ID makes an id that no other call of this process bears.
func ID(i int) string { return fmt.Sprintf("c%d-%d", runs.Add(1), i) }

// Run calls until Stop or ctx ends, waits for what is under way, and gives every
// call in the order of its start.
func (l Load) Run(ctx context.Context) []Op {
	if l.Timeout == 0 {
		l.Timeout = 30 * time.Second
	}
	began := time.Now()
	var next atomic.Int64
	ops := make([][]Op, l.Workers)
	var wg sync.WaitGroup
	for w := range l.Workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1) - 1)
				if l.Rate > 0 && !l.pause(ctx, time.Until(began.Add(time.Duration(float64(i)/l.Rate*float64(time.Second))))) {
					return
				}
				select {
				case <-l.Stop:
					return
				case <-ctx.Done():
					return
				default:
				}
				op := l.Next(i).Do(ctx, l.Timeout)
				ops[w] = append(ops[w], op)
				if l.Seen != nil {
					l.Seen(op)
				}
			}
		})
	}
	wg.Wait()
	all := slices.Concat(ops...)
	slices.SortFunc(all, func(a, b Op) int { return a.Start.Compare(b.Start) })
	return all
}

// pause waits for the turn of a call and reports whether it still comes.
func (l Load) pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-l.Stop:
	case <-ctx.Done():
	}
	return false
}

// Do makes one call.
func (s Shot) Do(ctx context.Context, timeout time.Duration) Op {
	return Op{Shot: s, ID: ID(0)}.Again(ctx, timeout)
}

// Again makes the identical call once more.
func (op Op) Again(ctx context.Context, timeout time.Duration) Op {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	op.Start = time.Now()
	op.Answer = op.Session.Call(ctx, op.Node, op.Tool, op.args())
	op.End = time.Now()
	return op
}

func (op Op) args() map[string]any {
	args := map[string]any{"id": op.ID}
	if op.Wait > 0 {
		args["wait_ms"] = op.Wait.Milliseconds()
	}
	return args
}

// Background runs the load until stop is called, which gives what was done.
func (l Load) Background(ctx context.Context) (stop func() []Op) {
	end, done := make(chan struct{}), make(chan []Op, 1)
	l.Stop = end
	go func() { done <- l.Run(ctx) }()
	return func() []Op {
		close(end)
		return <-done
	}
}
