package throttle_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/throttle"
)

// A flood of one key fills its share and no more; the rest is for the others.
func TestSharesLeaveRoomForOthers(t *testing.T) {
	t.Parallel()
	s := throttle.NewShares(8, 2)
	var leaves []func()
	take := func(key string, want, wantFull bool) {
		t.Helper()
		leave, ok, full := s.Enter(key)
		if ok != want || full != wantFull {
			t.Errorf("%s: got %v, full %v", key, ok, full)
		}
		if ok {
			leaves = append(leaves, leave)
		}
	}
	for range 100 {
		if leave, ok, _ := s.Enter("flood"); ok {
			leaves = append(leaves, leave)
		}
	}
	take("flood", false, false)
	for i := range 6 {
		take(fmt.Sprintf("quiet %d", i), true, false)
	}
	take("late", false, true)
	if running, keys := s.Running(); running != 8 || keys != 7 {
		t.Errorf("%d run for %d keys", running, keys)
	}
	for _, leave := range leaves {
		leave()
	}
	if running, keys := s.Running(); running != 0 || keys != 0 {
		t.Errorf("at the end %d run for %d keys", running, keys)
	}
}

func TestSharesUnderARace(t *testing.T) {
	t.Parallel()
	s := throttle.NewShares(10, 3)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			for range 200 {
				if leave, ok, _ := s.Enter(fmt.Sprint(i % 5)); ok {
					if running, _ := s.Running(); running > 10 {
						t.Errorf("%d run at once", running)
					}
					leave()
				}
			}
		})
	}
	wg.Wait()
	if running, keys := s.Running(); running != 0 || keys != 0 {
		t.Errorf("at the end %d run for %d keys", running, keys)
	}
}
