package keyring_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is moved by the test.
type clock struct{ at atomic.Int64 }

func (c *clock) Now() time.Time          { return time.Unix(1_800_000_000, c.at.Load()) }
func (c *clock) Advance(d time.Duration) { c.at.Add(int64(d)) }

// wrapped gives a guard whose keeper has answered once, and a blob of it.
func wrapped(t *testing.T, s *keyringtest.Server, cfg keyring.Config) (*keyring.Guard, []byte) {
	t.Helper()
	g := s.Guard(t, cfg)
	blob, err := g.Wrap(t.Context(), crypt.NewSeed(), keyring.Context{AAD: []byte("place")})
	if err == nil {
		err = g.Prove(t.Context())
	}
	if err != nil || g.Usable() != nil || g.Ready() != nil {
		t.Fatalf("a good keeper: %v, %v, %v", err, g.Usable(), g.Ready())
	}
	return g, blob
}

// F5: what a keeper answers decides by its class whether unwrapped keys go on.
// A 429 or 5xx is never an answer, and no failure says where the key lies.
func TestF5ClassesOfFailure(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		mode   keyringtest.Mode
		code   string
		class  keyring.Class
		usable bool
	}{
		{keyringtest.Silent, keyring.CodeUnavailable, keyring.Unavailable, true},
		{keyringtest.Denied, keyring.CodeDenied, keyring.Denied, false},
		{keyringtest.Throttled, keyring.CodeThrottled, keyring.Throttled, true},
		{keyringtest.Broken, keyring.CodeUnavailable, keyring.Unavailable, true},
		{keyringtest.Cut, keyring.CodeUnavailable, keyring.Unavailable, true},
		{keyringtest.Garbage, keyring.CodeUnavailable, keyring.Unavailable, true},
		{keyringtest.Short, keyring.CodeUnavailable, keyring.Unavailable, true},
		{keyringtest.WrongKey, keyring.CodeMismatch, keyring.Mismatch, false},
		{"down", keyring.CodeUnavailable, keyring.Unavailable, true},
	} {
		t.Run(string(row.mode), func(t *testing.T) {
			t.Parallel()
			s, clk := keyringtest.New(t), &clock{}
			g, _ := wrapped(t, s, keyring.Config{Timeout: 3 * time.Second, Now: clk.Now})
			var heard []keyring.State
			g.Watch(func(is keyring.State) { heard = append(heard, is) })
			if row.mode == "down" {
				s.Down()
			} else {
				s.Be(row.mode)
			}
			err := g.Prove(t.Context())
			if !fault.Is(err, row.code) || fault.Of(err).Kind != fault.Unavailable || fault.Of(err).Hint == "" || fault.Of(err).RetryAfter <= 0 {
				t.Errorf("got %v, want %s", err, row.code)
			}
			if text := fault.Of(err).Message + fault.Of(err).Hint; strings.Contains(text, "127.0.0.1") || strings.Contains(text, "http") {
				t.Errorf("callers are told where the key lies: %s", text)
			}
			if is := g.State(); is.Class != row.class || is.Usable != row.usable || (g.Usable() == nil) != row.usable {
				t.Errorf("got %+v, want class %v, usable %v", is, row.class, row.usable)
			}
			if g.Ready() == nil {
				t.Error("it counts as ready")
			}
			if !row.usable && !fault.Is(g.Usable(), row.code) {
				t.Errorf("not usable for %v, want %s", g.Usable(), row.code)
			}
			if len(heard) != 1 || heard[0].Class != row.class || heard[0].Usable != row.usable {
				t.Errorf("watchers heard %+v, want one change to %v", heard, row.class)
			}
			// And it ends by itself.
			if row.mode == "down" {
				s.Up(t)
			}
			s.Be(keyringtest.Fine)
			clk.Advance(time.Minute)
			if err := g.Prove(t.Context()); err != nil || g.Usable() != nil || g.Ready() != nil || g.State().Class != keyring.Fine {
				t.Errorf("mended: %v, %+v", err, g.State())
			}
			if len(heard) != 2 || !heard[1].Usable || heard[1].Class != keyring.Fine {
				t.Errorf("watchers heard %+v, want the end too", heard)
			}
		})
	}
}

// F5: one blob that does not open says nothing about the root key.
func TestF5OneBadBlobIsNoOutage(t *testing.T) {
	t.Parallel()
	s := keyringtest.New(t)
	g, blob := wrapped(t, s, keyring.Config{})
	if _, err := g.Unwrap(t.Context(), blob, keyring.Context{AAD: []byte("another place")}); !errors.Is(err, crypt.ErrIntegrity) {
		t.Errorf("got %v, want ErrIntegrity", err)
	}
	if g.Usable() != nil || g.Ready() != nil {
		t.Errorf("the guard gave up the root key: %v, %v", g.Usable(), g.Ready())
	}
	// Nor does it prove anything.
	if g := s.Guard(t, keyring.Config{}); true {
		_, _ = g.Unwrap(t.Context(), []byte("nonsense"), keyring.Context{})
		if g.Usable() == nil || g.Ready() == nil {
			t.Error("a blob that does not open counts as proof")
		}
	}
}

// F5, K4: while the keeper cannot be reached, unwrapped keys go on for the grace
// and not longer, and asking whether they do asks nobody.
func TestF5GraceEnds(t *testing.T) {
	t.Parallel()
	s, clk := keyringtest.New(t), &clock{}
	g, _ := wrapped(t, s, keyring.Config{Grace: 5 * time.Minute, Now: clk.Now})
	s.Down()
	asked := s.Asked()
	for range 4 {
		clk.Advance(74 * time.Second)
		_ = g.Prove(t.Context())
		if err := g.Usable(); err != nil {
			t.Fatalf("within the grace: %v", err)
		}
	}
	clk.Advance(5 * time.Second)
	if err := g.Usable(); !fault.Is(err, keyring.CodeUnavailable) {
		t.Errorf("after the grace: got %v", err)
	}
	if s.Asked() != asked {
		t.Error("a server that is down was asked")
	}
	// The first who needs a key after the outage ends it.
	s.Up(t)
	clk.Advance(2 * time.Second)
	if err := g.Assure(t.Context()); err != nil || g.Usable() != nil {
		t.Errorf("after the outage: %v", err)
	}
}

// F5: a keeper that wants to be asked less is asked less, however many callers
// there are; so is one that refuses.
func TestF5RefusalsAreNotRepeated(t *testing.T) {
	t.Parallel()
	for _, mode := range []keyringtest.Mode{keyringtest.Throttled, keyringtest.Denied} {
		s, clk := keyringtest.New(t), &clock{}
		g, blob := wrapped(t, s, keyring.Config{Now: clk.Now})
		s.Be(mode)
		first := s.Asked()
		var wg sync.WaitGroup
		_, err := g.Unwrap(t.Context(), blob, keyring.Context{AAD: []byte("place")})
		for range 100 {
			wg.Go(func() {
				if _, again := g.Unwrap(t.Context(), blob, keyring.Context{AAD: []byte("place")}); fault.Of(again).Code != fault.Of(err).Code || fault.Of(again).RetryAfter <= 0 {
					t.Errorf("%s: got %v after %v", mode, again, err)
				}
			})
		}
		wg.Wait()
		if got := s.Asked() - first; got != 1 {
			t.Errorf("%s: asked %d times, want once", mode, got)
		}
		clk.Advance(3 * time.Second)
		_, _ = g.Unwrap(t.Context(), blob, keyring.Context{AAD: []byte("place")})
		if got := s.Asked() - first; got != 2 {
			t.Errorf("%s: asked %d times after the wait, want twice", mode, got)
		}
	}
}

// F5: a keeper that hangs costs a bounded number of calls, however late some of
// the callers come to ask, and gives each caller its answer in time; a caller who
// leaves gets away at once and proves nothing. The clock stands still, so what
// the keeper is spared after three failures is spared until the test moves it.
func TestF5SlowKeeper(t *testing.T) {
	t.Parallel()
	s, clk := keyringtest.New(t), &clock{}
	g, blob := wrapped(t, s, keyring.Config{Timeout: 3 * time.Second, Parallel: 3, Now: clk.Now})
	s.Be(keyringtest.Silent)
	asked := s.Asked()
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { _, err := g.Unwrap(ctx, blob, keyring.Context{AAD: []byte("place")}); left <- err }()
	for s.Asked() == asked {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-left; !fault.Is(err, keyring.CodeUnavailable) {
		t.Errorf("left: got %v", err)
	}
	if g.Ready() != nil {
		t.Errorf("a caller who left is held against the keeper: %v", g.Ready())
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * 10 * time.Millisecond) // as on a busy machine
			if _, err := g.Unwrap(t.Context(), blob, keyring.Context{AAD: []byte("place")}); !fault.Is(err, keyring.CodeUnavailable) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	// Who left, three at once, and one for each turn that came free before the
	// third failure.
	if got := s.Asked() - asked; got > 1+3+2 {
		t.Errorf("a keeper that hangs was asked %d times, want at most 6", got)
	}
	if g.Usable() != nil {
		t.Error("slow is not refused: unwrapped keys go on")
	}

	// Slow but in time is an answer.
	s.Be(keyringtest.Slow)
	s.Delay(100 * time.Millisecond)
	clk.Advance(time.Minute)          // the last hold is over
	for g.Prove(t.Context()) != nil { // a busy machine may be late once or more
		clk.Advance(time.Minute)
	}
}

// stubborn is a back end that does not heed its context.
type stubborn struct {
	keyring.Keeper
	held    chan struct{}
	running atomic.Int64
}

func (s *stubborn) Unwrap(context.Context, []byte, keyring.Context) (secret.Value, error) {
	s.running.Add(1)
	<-s.held
	return secret.Value{}, errors.New("late")
}

// F5: a back end that never returns, such as a file on a dead mount, holds up no
// caller for longer than the limit and no more goroutines than allowed.
func TestF5BackEndThatNeverReturns(t *testing.T) {
	t.Parallel()
	k := &stubborn{Keeper: keyringtest.New(t).Keeper(t), held: make(chan struct{})}
	g := keyring.NewGuard(k, keyring.Config{Timeout: 50 * time.Millisecond, Parallel: 2})
	for range 6 {
		if _, err := g.Unwrap(t.Context(), nil, keyring.Context{}); !fault.Is(err, keyring.CodeUnavailable) {
			t.Errorf("got %v", err)
		}
	}
	if n := k.running.Load(); n > 2 {
		t.Errorf("%d calls run at once, want at most 2", n)
	}
	close(k.held)
	g.Stop()
}

// F5, K4: a disabled key is noticed though nobody needs it, and so is the end of
// the grace.
func TestF5GuardWatches(t *testing.T) {
	t.Parallel()
	for _, mode := range []keyringtest.Mode{keyringtest.Denied, keyringtest.Broken} {
		s := keyringtest.New(t)
		g := s.Guard(t, keyring.Config{Every: 20 * time.Millisecond, Grace: 200 * time.Millisecond})
		states := make(chan keyring.State, 100)
		g.Watch(func(is keyring.State) { states <- is })
		g.Start()
		wait := func(what string, ok func(keyring.State) bool) {
			t.Helper()
			for limit := time.After(30 * time.Second); ; {
				select {
				case is := <-states:
					if ok(is) {
						return
					}
				case <-limit:
					t.Fatalf("%s: never %s; now %+v", mode, what, g.State())
				}
			}
		}
		wait("usable", func(is keyring.State) bool { return is.Usable })
		s.Be(mode)
		wait("given up", func(is keyring.State) bool { return !is.Usable })
		s.Be(keyringtest.Fine)
		wait("usable again", func(is keyring.State) bool { return is.Usable && is.Class == keyring.Fine })
		g.Stop()
	}
}
