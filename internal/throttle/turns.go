package throttle

import (
	"context"
	"sync"
)

// Turns lets a few run at once, all together and of one key; the others wait for
// their turn, of which each key has few in the line of all, so that whoever has
// many waiting waits for themselves. Callers bound how many wait. It remembers
// only keys that have something running or waiting.
type Turns struct {
	all  chan struct{}
	each int

	mu    sync.Mutex
	byKey map[string]*turn
}

type turn struct {
	line chan struct{}
	n    int // running and waiting
}

// NewTurns lets all things run at once, and each of one key; both at least 1.
func NewTurns(all, each int) *Turns {
	return &Turns{all: make(chan struct{}, max(all, 1)), each: max(min(each, all), 1), byKey: map[string]*turn{}}
}

// Wait returns when it is key's turn, after which the caller calls done once, or
// when ctx ends, with its error.
func (t *Turns) Wait(ctx context.Context, key string) (done func(), err error) {
	own := t.join(key)
	if err := enter(ctx, own.line); err != nil {
		t.leave(key, own)
		return nil, err
	}
	if err := enter(ctx, t.all); err != nil {
		<-own.line
		t.leave(key, own)
		return nil, err
	}
	return func() {
		<-t.all
		<-own.line
		t.leave(key, own)
	}, nil
}

func enter(ctx context.Context, line chan struct{}) error {
	select {
	case line <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *Turns) join(key string) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.byKey[key]
	if own == nil {
		own = &turn{line: make(chan struct{}, t.each)}
		t.byKey[key] = own
	}
	own.n++
	return own
}

func (t *Turns) leave(key string, own *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if own.n--; own.n == 0 {
		delete(t.byKey, key)
	}
}

// Keys is of how many keys something runs or waits.
func (t *Turns) Keys() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byKey)
}
