package account

import (
	"context"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/throttle"
)

const (
	strangerWindow = time.Minute
	maxStrangers   = 10_000
)

// strangers counts the refused sign-ins of nobody's: those whose e-mail or
// passkey belongs to no person. Each would be an audit entry that anybody can
// make, so that one entry per address and minute stands for all of them
// (threats.md W7). Refusals of a person's own sign-in are recorded one by one.
type strangers struct {
	mu sync.Mutex
	by map[string]*stranger
}

type stranger struct {
	since  time.Time // of the entry written last
	unsaid int       // refusals that no entry counts yet
}

func newStrangers() *strangers { return &strangers{by: map[string]*stranger{}} }

// meet reports whether a refusal gets an entry of its own, and how many before
// it that entry must count.
func (s *strangers) meet(address string, now time.Time) (before int, say bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.by) >= maxStrangers {
		for k, st := range s.by {
			if age := now.Sub(st.since); age >= strangerWindow || age < 0 {
				delete(s.by, k)
			}
		}
		if len(s.by) >= maxStrangers {
			address = "" // one key for all that there is no room for
		}
	}
	st, known := s.by[address]
	if !known {
		s.by[address] = &stranger{since: now}
		return 0, true
	}
	if age := now.Sub(st.since); age >= 0 && age < strangerWindow {
		st.unsaid++
		return 0, false
	}
	before, st.unsaid, st.since = st.unsaid, 0, now
	return before, true
}

// turnedAway records a refused sign-in.
func (s *Service) turnedAway(ctx context.Context, e audit.Entry, code string) {
	if e.User != "" {
		s.refused(ctx, e, code)
		return
	}
	before, say := s.strangers.meet(throttle.Address(e.Address), s.now())
	if !say {
		return
	}
	if before > 0 {
		e.Detail = maps.Clone(e.Detail)
		if e.Detail == nil {
			e.Detail = map[string]string{}
		}
		e.Detail["attempts_before"] = strconv.Itoa(before)
	}
	s.refused(ctx, e, code)
}
