package audit_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// panics reports whether fn ended with a panic. It does not wait for ever.
func panics(t *testing.T, fn func()) bool {
	t.Helper()
	done := make(chan bool, 1)
	go func() {
		defer func() { done <- recover() != nil }()
		fn()
	}()
	select {
	case p := <-done:
		return p
	case <-time.After(20 * time.Second):
		t.Fatal("it hangs")
		return false
	}
}

// silent answers for none of its calls.
type silent struct{}

func (silent) Check(context.Context, *sqldb.Tx, []audit.Fence) []error { return nil }

// L2: a fence that did not answer for a call let it through.
func TestFenceThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		if _, err := l.Begin(t.Context(), w.entry("tool.call"), silent{}); !fault.Is(err, "audit_unavailable") {
			t.Errorf("got %v, want the call refused", err)
		}
		if n := w.entries(t, "tool.call"); n != 0 {
			t.Errorf("%d entries of a call that was refused", n)
		}
	})
}

// L2, L6: a fence that panicked let its caller hang for ever, with the pen, and
// lost the outcomes of the batch. Its call is not made, the others are made or
// denied, and each outcome is written.
func TestPanicOfAFence(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		bug := audit.FenceFunc(func(context.Context, *sqldb.Tx) error { panic("bug") })
		const calls = 10
		for range calls {
			in, err := l.Begin(t.Context(), w.entry("tool.call"), nil)
			if err != nil {
				t.Fatal(err)
			}
			l.Finish(in, audit.Outcome{Status: "ok"}) // waits for the next batch, which panics
			panics(t, func() { _, err = l.Begin(t.Context(), w.entry("tool.bug"), bug) })
			if !fault.Is(err, "audit_unavailable") {
				t.Errorf("got %v", err)
			}
		}
		within(t, "every outcome is written", func() bool {
			return scan[int](t, w.db, `select count(*) from audit_entry where action = 'tool.call' and kind = 'outcome'`) == calls
		})

		var all sync.WaitGroup
		for range calls {
			all.Go(func() {
				if _, err := l.Begin(t.Context(), w.entry("tool.bug"), bug); !fault.Is(err, "audit_unavailable") {
					t.Errorf("a call whose fence panics: got %v", err)
				}
			})
			all.Go(func() {
				if err := w.call(t, l); err != nil && !fault.Is(err, "audit_unavailable") {
					t.Errorf("a call beside it: got %v", err)
				}
			})
		}
		panics(t, all.Wait) // returns: nobody hangs
		if err := w.call(t, l); err != nil {
			t.Errorf("a call afterwards: %v", err)
		}
		l.Stop()
		if n := w.entries(t, "tool.bug"); n != 0 {
			t.Errorf("%d calls whose fence panicked are on record as begun", n)
		}
		w.wantIntact(t)
	})
}

// L2: a panic while entries are linked left the chain locked, so that every later
// call waited for ever.
func TestPanicOfTheChain(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w world) {
		l := w.start(t)
		in, err := l.Begin(t.Context(), w.entry("tool.call"), nil)
		if err != nil {
			t.Fatal(err)
		}
		l.Unlink()
		l.Finish(in, audit.Outcome{Status: "ok"})
		for range 3 {
			panics(t, func() { _, err = l.Begin(t.Context(), w.entry("tool.bug"), nil) })
			if !fault.Is(err, "audit_unavailable") {
				t.Errorf("a call: got %v", err)
			}
			if !panics(t, func() { err = l.Record(t.Context(), w.entry("tool.bug")) }) {
				t.Errorf("an entry: got %v, want the panic", err)
			}
		}
		l.Abandon()
		if err := w.call(t, l); err != nil {
			t.Errorf("a call afterwards: %v", err)
		}
		l.Stop()
		if n := w.entries(t, "tool.bug"); n != 0 {
			t.Errorf("%d entries stand whose transaction panicked", n)
		}
		if n := scan[int](t, w.db, `select count(*) from audit_entry where action = 'tool.call' and kind = 'outcome'`); n != 2 {
			t.Errorf("%d outcomes, want both", n)
		}
		w.wantIntact(t)
	})
}
