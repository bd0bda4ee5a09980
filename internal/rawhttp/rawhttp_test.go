package rawhttp_test

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-dev/ambit/internal/rawhttp"
)

// slowly is a client's connection on which size bytes come at every step, as a
// server sees it.
type slowly struct {
	http.ResponseWriter
	left, size int
	step       time.Duration
	until      time.Time
}

func (s *slowly) SetReadDeadline(t time.Time) error { s.until = t; return nil }

func (s *slowly) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	if !s.until.IsZero() && time.Until(s.until) < s.step {
		time.Sleep(time.Until(s.until))
		return 0, os.ErrDeadlineExceeded
	}
	time.Sleep(s.step)
	n := min(len(p), s.left, s.size)
	s.left -= n
	return n, nil
}

func (s *slowly) Close() error { return nil }

// An attacker, W5: a body of a byte every few seconds held its place in front of the
// decision for as long as it liked. A slow line and a silent side of a talk pass.
func TestSlowBodyEnds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		left, size int
		step       time.Duration
		media      string
		whole      bool
		atMost     time.Duration
	}{
		{"a byte now and then", 1 << 20, 1, 9 * time.Second, "application/json", false, 31 * time.Second},
		{"a little at once, then nothing", 1 << 20, 64 << 10, 40 * time.Second, "application/json", false, 31 * time.Second},
		{"just too slow", 8 << 20, 8 << 10, time.Second, "application/json", false, 70 * time.Second},
		{"a slow line", 4 << 20, 20 << 10, time.Second, "application/json", true, 4 * time.Minute},
		{"one side of a talk", 10, 1, 10 * time.Minute, "application/grpc", true, 2 * time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			conn := &slowly{ResponseWriter: httptest.NewRecorder(), left: test.left, size: test.size, step: test.step}
			r := httptest.NewRequest("POST", "/", strings.NewReader("x"))
			r.Body = conn
			r.Header.Set("Content-Type", test.media)
			began := time.Now()
			_, err := bufio.NewReaderSize(rawhttp.BodyOf(http.NewResponseController(conn), r), 64<<10).WriteTo(struct{ io.Writer }{io.Discard})
			if took := time.Since(began); (err == nil) != test.whole || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || took > test.atMost {
				t.Errorf("%s: after %v: %v", test.name, took, err)
			}
			if test.whole && !conn.until.IsZero() {
				t.Errorf("%s: a deadline is left behind", test.name)
			}
		})
	}
}
