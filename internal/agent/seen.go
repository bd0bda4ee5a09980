package agent

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// seenEvery is how exact last_seen_at is. It is for people, so a call never
// waits for it and an update lost to a full queue does not matter.
const seenEvery = time.Minute

// Start runs the updates of last_seen_at until Stop.
func (s *Service) Start() { s.wg.Go(s.recordSeen) }

// Stop ends what Start began and returns when it has ended.
func (s *Service) Stop() {
	close(s.stop)
	s.wg.Wait()
}

func (s *Service) seen(a id.Agent, last, now time.Time) {
	if now.Sub(last) < seenEvery {
		return
	}
	select {
	case s.seenQueue <- a:
	default:
	}
}

func (s *Service) recordSeen() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	waiting := map[id.Agent]struct{}{}
	for {
		select {
		case a := <-s.seenQueue:
			waiting[a] = struct{}{}
			continue
		case <-s.stop:
			return
		case <-tick.C:
		}
		if len(waiting) == 0 {
			continue
		}
		now := s.now()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := s.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
			for _, a := range slices.Sorted(maps.Keys(waiting)) { // one order on all nodes: no deadlock
				if err := touchAgent(ctx, tx, a, now); err != nil {
					return err
				}
			}
			return nil
		})
		cancel()
		if err != nil {
			s.log.Warn("the time agents were last seen is not recorded", "agents", len(waiting), "error", err)
		}
		clear(waiting)
	}
}
