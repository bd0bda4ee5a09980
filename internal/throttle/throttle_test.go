package throttle_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/throttle"
)

type clock struct{ us atomic.Int64 }

func (c *clock) now() time.Time          { return time.UnixMicro(c.us.Load()) }
func (c *clock) advance(d time.Duration) { c.us.Add(d.Microseconds()) }

func newClock() *clock {
	c := &clock{}
	c.us.Store(1_790_000_000_000_000)
	return c
}

func TestBurstThenRate(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := throttle.New(2, 3, 10, c.now)
	for i := range 3 {
		if ok, _ := l.Allow("a"); !ok {
			t.Fatalf("call %d of the burst refused", i+1)
		}
	}
	ok, wait := l.Allow("a")
	if ok || wait != 500*time.Millisecond {
		t.Fatalf("got %v, retry after %v; want a refusal with 500ms", ok, wait)
	}
	if ok, _ := l.Allow("b"); !ok {
		t.Error("another key shares the budget")
	}
	c.advance(wait)
	if ok, _ := l.Allow("a"); !ok {
		t.Error("refused after waiting as told")
	}
	c.advance(-time.Hour)
	if ok, _ := l.Allow("a"); ok {
		t.Error("a clock that steps back gives new tokens")
	}
}

func TestReadySpendsNothing(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := throttle.New(1, 1, 10, c.now)
	for range 5 {
		if ok, _ := l.Ready("a"); !ok {
			t.Fatal("asking spent a token")
		}
	}
	l.Allow("a")
	ok, wait := l.Ready("a")
	if ok || wait <= 0 || wait > time.Second {
		t.Fatalf("got %v, %v after the token was spent", ok, wait)
	}
	c.advance(wait)
	if ok, _ := l.Ready("a"); !ok {
		t.Error("not ready after waiting as told")
	}
}

// W7: the limiter's own memory is bounded, and the key used last is kept.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	l := throttle.New(0.001, 1, 100, newClock().now)
	l.Allow("victim")
	for i := range 10_000 {
		l.Allow(fmt.Sprint("flood", i))
		if ok, _ := l.Allow("victim"); ok {
			t.Fatal("a key in use was forgotten")
		}
	}
	if got := l.Len(); got != 100 {
		t.Errorf("got %d keys, want 100", got)
	}
}

// Who has a whole budget again is like somebody new, and is forgotten as others
// come: a server keeps the callers of now, not all that there have ever been.
func TestWholeBudgetsAreForgotten(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := throttle.New(1, 2, 1000, c.now)
	for i := range 100 {
		l.Allow(fmt.Sprint("early", i))
	}
	c.advance(500 * time.Millisecond)
	for i := range 10 {
		l.Allow(fmt.Sprint("soon", i))
	}
	if got := l.Len(); got != 110 {
		t.Fatalf("%d keys while none is whole, want 110", got)
	}
	c.advance(time.Second)
	for i := range 100 {
		l.Allow(fmt.Sprint("late", i))
	}
	if got := l.Len(); got != 100 {
		t.Errorf("%d keys, want the 100 of now", got)
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	l := throttle.New(0, 50, 8, newClock().now)
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 20 {
				l.Ready("k")
				if ok, _ := l.Allow("k"); ok {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got := passed.Load(); got != 50 {
		t.Errorf("got %d passes, want exactly the burst of 50", got)
	}
}

// W7: one caller has one key, however its address is written.
func TestAddressIsCanonical(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"192.0.2.7:1234":                "192.0.2.7",
		"192.0.2.7":                     "192.0.2.7",
		"[::ffff:192.0.2.7]:80":         "192.0.2.7",
		"[2001:db8:1:2:aaaa::1]:5":      "2001:db8:1:2::/64",
		"2001:db8:1:2:bbbb::2":          "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1":              "fe80::/64",
		"":                              "unknown",
		"@":                             "unknown",
		"192.0.2.7, 198.51.100.1":       "unknown",
		"2001:DB8:1:2:0000:0000:0:0001": "2001:db8:1:2::/64",
	} {
		if got := throttle.Address(in); got != want {
			t.Errorf("Address(%q): got %q, want %q", in, got, want)
		}
	}
}

func FuzzAddress(f *testing.F) {
	f.Add("192.0.2.7:1")
	f.Add("[::1%lo]:2")
	f.Fuzz(func(t *testing.T, s string) {
		if got := throttle.Address(s); got == "" || len(got) > 43 {
			t.Errorf("Address(%q) = %q", s, got)
		}
	})
}
