//go:build e2e && linux

package fire

import (
	"context"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/e2e/lossy"
	"github.com/ambit-dev/ambit/e2e/world"
)

// F3: each operation on the disk fails in its turn: once with an I/O error, or
// from then on because the disk is full, or read-only. What needs the disk is
// refused with a code that says so, the process lives, nothing goes upstream
// without an intent, and when the disk works again so does the server, by itself.
func TestDiskFails(t *testing.T) {
	t.Parallel()
	d := newDiskLife(t)
	l, ctx := d.life, t.Context()
	l.mayLoseGrants = true // a full disk can outlast a refresh
	var ops atomic.Int64
	d.disk.Fail(func(op lossy.Op) syscall.Errno {
		if !spared(op) {
			ops.Add(1)
		}
		return 0
	})
	d.work(t, ctx)
	total := int(ops.Load())
	if total < 100 {
		t.Fatalf("the work takes only %d operations of the disk", total)
	}
	kinds := []fault{
		{"an I/O error", syscall.EIO, 1}, {"I/O errors", syscall.EIO, 1 << 30}, {"a full disk", syscall.ENOSPC, 1 << 30}, {"a read-only disk", syscall.EROFS, 1 << 30},
	}
	turns := 0
	for i := 0; i < total; i += max(1, total/rounds(800)) {
		f := kinds[turns%len(kinds)]
		turns++
		if l.tired() {
			must(t, l.renew(ctx))
		}
		var seen atomic.Int64
		d.disk.Fail(func(op lossy.Op) syscall.Errno {
			if n := int(seen.Load()); spared(op) || f.errno != syscall.EIO && op.Kind == "read" {
				return 0
			} else if seen.Add(1); n >= i && n < i+f.times {
				return f.errno
			}
			return 0
		})
		d.work(t, ctx)
		d.disk.Fail(nil)
		if !l.w.Nodes[0].Running() {
			t.Fatalf("%s at operation %d ended the process", f.name, i)
		}
		d.recovers(t, ctx, f.name, i)
		if turns%8 == 0 {
			for _, b := range d.examine(t) {
				t.Errorf("%s at operation %d: %s", f.name, i, b)
			}
		}
		if t.Failed() {
			break
		}
	}
	acked := d.finish(t)
	for _, b := range d.examine(t) {
		t.Errorf("in the end: %s", b)
	}
	t.Logf("%d failures over %d operations, %d calls acknowledged", turns, total, acked)
}

// fault is how a disk fails, and for how many operations.
type fault struct {
	name  string
	errno syscall.Errno
	times int
}

// spared is the file that SQLite maps into memory: an error there is a signal
// that no program can answer.
func spared(op lossy.Op) bool { return strings.HasSuffix(op.Name, "-shm") }

// work does a little of everything. Whatever fails must say that the storage is
// to blame, not that something went wrong.
func (d *diskLife) work(t *testing.T, ctx context.Context) {
	t.Helper()
	l := d.life
	for range 2 {
		_ = l.op(world.Shot{Node: l.w.Nodes[0], Session: l.session, Tool: "third_list"}.Do(ctx, time.Minute))
	}
	for _, a := range acts {
		if a.name != "secret" && a.name != "session" && a.name != "key" && a.name != "oauth" {
			continue
		}
		if err := a.do(l, ctx); err != nil && vague(err.Error()) {
			t.Errorf("%s: %v", a.name, err)
		}
	}
	for _, op := range l.ops[max(0, len(l.ops)-8):] {
		if vague(op.Answer.Code + string(op.Answer.Facts)) {
			t.Errorf("a call ended with %s %s", op.Answer.Code, op.Answer.Facts)
		}
	}
}

// vague reports an answer that tells neither people nor programs what to do.
func vague(answer string) bool {
	for _, word := range []string{"internal", "answered 500", "http_500", "no_answer", "EOF", "reset by peer"} {
		if strings.Contains(answer, word) {
			return true
		}
	}
	return false
}

// recovers waits until everything works again, by itself.
func (d *diskLife) recovers(t *testing.T, ctx context.Context, what string, at int) {
	t.Helper()
	l := d.life
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = l.wake(ctx); err != nil {
			continue
		}
		if err = l.op(world.Shot{Node: l.w.Nodes[0], Session: l.session, Tool: "third_create"}.Do(ctx, time.Minute)); err != nil {
			continue
		}
		if err = l.secret(ctx); err == nil {
			break
		}
	}
	if err != nil {
		t.Errorf("%s at operation %d: it does not recover: %v", what, at, err)
		return
	}
	if err := l.kept(ctx); err != nil {
		t.Errorf("%s at operation %d: %v", what, at, err)
	}
}
