// Package throttle holds a keyed token bucket: one rate for many callers, each
// with a budget of its own, in bounded memory.
//
// A Limiter keeps at most a fixed number of keys, and forgets those whose budget
// is whole again, which are like any other key. When it is full, the key that was
// used least recently goes, so a flood of made-up keys costs the flooder its own
// history first and never more memory. Callers must give each caller
// one key only: [Address] does that for network addresses (threats.md W7).
package throttle

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limiter is a set of token buckets. It is safe for concurrent use.
type Limiter struct {
	rate    rate.Limit
	burst   int
	maxKeys int
	now     func() time.Time

	mu     sync.Mutex
	byKey  map[string]*list.Element
	recent *list.List // of *bucket, most recently used first
}

type bucket struct {
	key   string
	limit *rate.Limiter
}

// New returns a Limiter that lets each key through burst times at once and
// perSecond times a second over time, and remembers at most maxKeys keys.
func New(perSecond float64, burst, maxKeys int, now func() time.Time) *Limiter {
	return &Limiter{
		rate: rate.Limit(perSecond), burst: max(burst, 1), maxKeys: max(maxKeys, 1), now: now,
		byKey: map[string]*list.Element{}, recent: list.New(),
	}
}

// Allow spends one token of key. When there is none it spends nothing and says
// after how long there will be one.
func (l *Limiter) Allow(key string) (ok bool, retryAfter time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	r := l.bucket(key, now).ReserveN(now, 1)
	if wait := r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		return false, wait
	}
	return true, 0
}

// Ready reports what Allow would answer and spends nothing: for doors that
// count failures only, which ask first and spend afterwards.
func (l *Limiter) Ready(key string) (ok bool, retryAfter time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, known := l.byKey[key]
	if !known {
		return true, 0
	}
	missing := 1 - e.Value.(*bucket).limit.TokensAt(l.now())
	if missing <= 0 {
		return true, 0
	}
	if l.rate <= 0 {
		return false, rate.InfDuration
	}
	return false, time.Duration(missing / float64(l.rate) * float64(time.Second))
}

// Len is the number of keys held.
func (l *Limiter) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.byKey)
}

func (l *Limiter) bucket(key string, now time.Time) *rate.Limiter {
	if e, ok := l.byKey[key]; ok {
		l.recent.MoveToFront(e)
		return e.Value.(*bucket).limit
	}
	for range 2 { // so that more is forgotten than comes
		if oldest := l.recent.Back(); oldest != nil && oldest.Value.(*bucket).limit.TokensAt(now) >= float64(l.burst) {
			l.forget(oldest)
		}
	}
	for len(l.byKey) >= l.maxKeys {
		l.forget(l.recent.Back())
	}
	b := &bucket{key: key, limit: rate.NewLimiter(l.rate, l.burst)}
	l.byKey[key] = l.recent.PushFront(b)
	return b.limit
}

func (l *Limiter) forget(e *list.Element) {
	l.recent.Remove(e)
	delete(l.byKey, e.Value.(*bucket).key)
}

// Address is the one key for a caller's network address, with or without a
// port: IPv4 in its plain form even when mapped into IPv6, IPv6 as its /64,
// because one caller commands a whole /64. What is no address is one shared key.
func Address(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return "unknown"
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	p, _ := ip.Prefix(64)
	return p.String()
}
