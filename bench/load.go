package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// load calls from n callers at once until the calls or the time are used up,
// and fails when a call does: a refusal is quicker than the work and would
// make the numbers look good.
func load(ctx context.Context, o options, n int, call func(context.Context) error) (Row, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var left atomic.Int64
	left.Store(int64(o.calls))
	took := make([][]time.Duration, n)
	errs := make([]error, n)
	began := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for left.Add(-1) >= 0 && time.Since(began) < o.seconds {
				start := time.Now()
				if err := call(ctx); err != nil {
					errs[i] = err
					cancel()
					return
				}
				took[i] = append(took[i], time.Since(start))
			}
		})
	}
	wg.Wait()
	wall := time.Since(began)
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return Row{}, err
		}
	}
	all := slices.Concat(took...)
	if len(all) == 0 {
		return Row{}, errors.New("no call was made")
	}
	slices.Sort(all)
	at := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))].Microseconds()) / 1000 }
	return Row{Concurrency: n, Calls: len(all), P50: at(0.5), P99: at(0.99), Rate: float64(len(all)) / wall.Seconds()}, nil
}
