package throttle_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-dev/ambit/internal/throttle"
)

// line writes down the deadlines that it is given, as times from the start.
type line struct {
	http.ResponseWriter
	began        time.Time
	reads, write time.Duration
	set          int
}

func (l *line) SetReadDeadline(t time.Time) error {
	l.set++
	l.reads = t.Sub(l.began)
	return nil
}

func (l *line) SetWriteDeadline(t time.Time) error {
	l.set++
	l.write = t.Sub(l.began)
	return nil
}

func (l *line) FlushError() error { return nil }

// W5: each write has a time by its size. Who ended the writing is not overruled, and a
// request that is over changes no deadline of what comes after it on its connection.
func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &line{ResponseWriter: httptest.NewRecorder(), began: time.Now()}
		p := throttle.Pace(l, 30*time.Second)
		rc := http.NewResponseController(p)
		wants := func(what string, want time.Duration) {
			t.Helper()
			if l.write != want {
				t.Errorf("%s: until %v, want %v", what, l.write, want)
			}
		}
		_, _ = p.Write(make([]byte, 10))
		wants("a little", 30*time.Second)
		time.Sleep(time.Minute)
		_, _ = p.Write(make([]byte, 640<<10))
		wants("640 KiB, later", 100*time.Second)
		time.Sleep(time.Second)
		if err := rc.Flush(); err != nil {
			t.Error(err)
		}
		wants("what is buffered", 91*time.Second)
		_ = rc.SetWriteDeadline(time.Now().Add(-time.Second))
		_, _ = p.Write(make([]byte, 10))
		wants("after the end", 60*time.Second)
		_ = rc.SetReadDeadline(time.Now().Add(time.Second))
		p.Over()
		before := l.set
		if rc.SetReadDeadline(time.Time{}) == nil || rc.SetWriteDeadline(time.Time{}) == nil || l.set != before || l.reads != 62*time.Second {
			t.Errorf("after the handler: %d deadlines more, the body until %v", l.set-before, l.reads)
		}
	})
}
