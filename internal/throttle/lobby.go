package throttle

import "sync"

// Lobby bounds how many wait for somebody else's next move: a client that sends
// its request bit by bit, or takes its answer so. Nobody is turned away. Who comes
// when it is full, or when their key has its share, takes the place of the one who
// has been there longest: of their own key when that has its share, else of the
// key with most. So whoever fills it cuts themselves off first, and those who are
// quick are never in its way.
type Lobby struct {
	all, each int

	mu     sync.Mutex
	n      int
	clock  uint64
	guests map[string][]*guest // by key, in the order in which they came
}

type guest struct {
	since uint64
	cut   func()
}

// NewLobby lets all wait at once, and each of one key; both at least 1.
func NewLobby(all, each int) *Lobby {
	return &Lobby{all: max(all, 1), each: max(min(each, all), 1), guests: map[string][]*guest{}}
}

// Enter takes a place for key. The caller calls leave at the end, as often as it
// likes. cut is called at most once and never after leave: it must make the
// waiting end, be quick, and not call the lobby.
func (l *Lobby) Enter(key string, cut func()) (leave func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case len(l.guests[key]) >= l.each:
		l.evict(key)
	case l.n >= l.all:
		l.evict(l.fullest())
	}
	g := &guest{l.clock, cut}
	l.clock++
	l.n++
	l.guests[key] = append(l.guests[key], g)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, other := range l.guests[key] {
			if other == g {
				l.remove(key, i)
				return
			}
		}
	}
}

// fullest is the key with most guests; among equals the one whose first has been
// there longest.
func (l *Lobby) fullest() (key string) {
	for k, list := range l.guests {
		best := l.guests[key]
		if len(list) > len(best) || len(list) == len(best) && list[0].since < best[0].since {
			key = k
		}
	}
	return key
}

func (l *Lobby) evict(key string) {
	oldest := l.guests[key][0]
	l.remove(key, 0)
	oldest.cut()
}

func (l *Lobby) remove(key string, i int) {
	list := l.guests[key]
	copy(list[i:], list[i+1:])
	list[len(list)-1] = nil
	if list = list[:len(list)-1]; len(list) == 0 {
		delete(l.guests, key)
	} else {
		l.guests[key] = list
	}
	l.n--
}

// Waiting is how many wait, and for how many keys.
func (l *Lobby) Waiting() (n, keys int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n, len(l.guests)
}
