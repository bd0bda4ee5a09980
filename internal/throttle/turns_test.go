package throttle_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ambit-dev/ambit/internal/throttle"
)

// W7: whoever has many waiting waits for themselves; another's turn comes at once.
func TestTurnsOfOneKeyLeaveRoom(t *testing.T) {
	t.Parallel()
	turns := throttle.NewTurns(4, 2)
	release := make(chan struct{})
	var running, most atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			done, err := turns.Wait(t.Context(), "flood")
			if err != nil {
				t.Error(err)
				return
			}
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			<-release
			running.Add(-1)
			done()
		})
	}
	done, err := turns.Wait(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	done()
	close(release)
	wg.Wait()
	if n := most.Load(); n > 2 {
		t.Errorf("%d ran at once", n)
	}
	if n := turns.Keys(); n != 0 {
		t.Errorf("%d keys are remembered", n)
	}
}

func TestTurnsEndWithTheirContext(t *testing.T) {
	t.Parallel()
	turns := throttle.NewTurns(1, 1)
	first, err := turns.Wait(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, key := range []string{"a", "b"} {
		if _, err := turns.Wait(ctx, key); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", key, err)
		}
	}
	first()
	if done, err := turns.Wait(t.Context(), "b"); err != nil {
		t.Error(err)
	} else {
		done()
	}
	if n := turns.Keys(); n != 0 {
		t.Errorf("%d keys are remembered", n)
	}
}
