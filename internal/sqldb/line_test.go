package sqldb_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// many runs do for each number at once and waits for all.
func many(n int, do func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { do(i) })
	}
	wg.Wait()
}

// Who comes while a round is under way is in the next one, with the others who did;
// who comes alone waits for nobody. After a round those whom it served are waited
// for once, and not when they stay away.
func TestLineSharesRounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const long = time.Millisecond
		var sizes []int
		line := &sqldb.Line[int]{Most: 8, Work: func(batch []int, answers []error) error {
			time.Sleep(long)
			sizes = append(sizes, len(batch))
			for i, n := range batch {
				if n == 3 {
					answers[i] = errors.New("three")
				}
			}
			return nil
		}}
		took := func(do func()) time.Duration {
			began := time.Now()
			do()
			return time.Since(began)
		}
		if d := took(func() { _ = line.Do(0) }); d != long {
			t.Errorf("one alone took %v, a round takes %v", d, long)
		}
		many(8, func(i int) {
			if err := line.Do(i); (err != nil) != (i == 3) {
				t.Errorf("%d was answered %v", i, err)
			}
		})
		if want := []int{1, 1, 7}; !slices.Equal(sizes, want) {
			t.Fatalf("eight at once had rounds of %v, want %v", sizes, want)
		}
		// All eight come back within a round's time, one after another.
		sizes = nil
		many(8, func(i int) {
			time.Sleep(time.Duration(i) * long / 10)
			_ = line.Do(0)
		})
		if want := []int{7, 1}; !slices.Equal(sizes, want) { // the last round served seven
			t.Errorf("seven who came back had rounds of %v, want %v", sizes, want)
		}
		time.Sleep(time.Second)
		for range 2 {
			if d := took(func() { _ = line.Do(0) }); d != long {
				t.Errorf("one alone took %v after others, a round takes %v", d, long)
			}
		}
	})
}

// Two items about the same are never in one round, and all are in the end.
func TestLineKeepsApart(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string]int{}
	line := &sqldb.Line[string]{Most: 4, Key: func(s string) string { return s }, Work: func(batch []string, _ []error) error {
		mu.Lock()
		defer mu.Unlock()
		if sorted := slices.Sorted(slices.Values(batch)); len(slices.Compact(sorted)) != len(batch) || len(batch) > 4 {
			t.Errorf("one round had %q", batch)
		}
		for _, s := range batch {
			seen[s]++
		}
		return nil
	}}
	many(60, func(i int) {
		if err := line.Do(fmt.Sprint(i % 3)); err != nil {
			t.Error(err)
		}
	})
	if seen["0"] != 20 || seen["1"] != 20 || seen["2"] != 20 {
		t.Errorf("worked on %v, want each 20 times", seen)
	}
}

// A round that panics answers those it had with an error, and the next one goes on.
func TestLineAfterAPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		line := &sqldb.Line[bool]{Most: 8, Limit: 2, Work: func(batch []bool, _ []error) error {
			time.Sleep(time.Millisecond)
			if slices.Contains(batch, true) {
				panic("broken")
			}
			return nil
		}}
		var wg sync.WaitGroup
		wg.Go(func() { _ = line.Do(false) })
		synctest.Wait()
		wg.Go(func() {
			defer func() { _ = recover() }()
			_ = line.Do(true) // leads the next round
		})
		synctest.Wait()
		wg.Go(func() {
			if err := line.Do(false); err == nil {
				t.Error("an item of a round that panicked was answered as done")
			}
		})
		synctest.Wait()
		if err := line.Do(false); !errors.Is(err, sqldb.ErrLineFull) {
			t.Errorf("beyond the limit: %v, want ErrLineFull", err)
		}
		wg.Wait()
		if err := line.Do(false); err != nil {
			t.Errorf("after a panic: %v", err)
		}
		if err := line.Round(); err != nil {
			t.Errorf("a round for nobody: %v", err)
		}
		if n, working := line.Waiting(); n != 0 || working {
			t.Errorf("at rest %d wait, working %v", n, working)
		}
	})
}
