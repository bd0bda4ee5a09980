package throttle

import "sync"

// Shares bounds how much runs at once: all together, and of one key, so that a
// flood of one leaves room for the others. Who finds no room is told so at once;
// nothing queues. It remembers only keys that have something running.
type Shares struct {
	all, each int

	mu      sync.Mutex
	running int
	byKey   map[string]int
}

// NewShares lets all things run at once, and each of one key; both at least 1.
func NewShares(all, each int) *Shares {
	return &Shares{all: max(all, 1), each: max(min(each, all), 1), byKey: map[string]int{}}
}

// Enter takes one place for key. When ok, the caller calls leave once at the end;
// when not, full tells whether it is the whole that has no room, or the key's
// share.
func (s *Shares) Enter(key string) (leave func(), ok, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running >= s.all {
		return nil, false, true
	}
	if s.byKey[key] >= s.each {
		return nil, false, false
	}
	s.running++
	s.byKey[key]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running--
		if s.byKey[key]--; s.byKey[key] == 0 {
			delete(s.byKey, key)
		}
	}, true, false
}

// Running is how much runs, and for how many keys.
func (s *Shares) Running() (running, keys int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running, len(s.byKey)
}
