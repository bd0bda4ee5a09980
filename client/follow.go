package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"time"
)

const (
	maxLine = 1 << 20
	// overlap is how far back a new stream starts: entries become visible
	// somewhat out of order.
	overlap        = 40 * time.Second
	minFollowPause = 500 * time.Millisecond
)

// FollowAudit calls fn for each new audit entry until ctx ends, fn fails, or
// the server refuses. The outcome of a call comes as an entry of its own, of
// kind "outcome", whose Ref is the call. A stream that breaks is taken up again
// where it broke, and no entry is given twice.
func (c *Client) FollowAudit(ctx context.Context, f AuditFilter, fn func(Event) error) error {
	f.After, f.Limit, f.Until = "", 0, time.Time{}
	seen := map[string]time.Time{}
	once := func(e Event) error {
		if _, ok := seen[e.ID]; ok {
			return nil
		}
		seen[e.ID] = e.Time
		if since := e.Time.Add(-overlap); since.After(f.Since) {
			f.Since = since
			maps.DeleteFunc(seen, func(_ string, t time.Time) bool { return t.Before(since) })
		}
		return fn(e)
	}
	pause, ever := minFollowPause, false
	begin := func(at time.Time) {
		if pause, ever = minFollowPause, true; f.Since.IsZero() {
			f.Since = at // what was there before is not new
		}
	}
	for {
		err := c.followOnce(ctx, f, begin, once)
		if own, ok := errors.AsType[*stopped](err); ok {
			return own.err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		e, ok := errors.AsType[*Error](err)
		passing := ok && (e.Status == http.StatusTooManyRequests || e.Status >= 500)
		if err != nil && !passing && (!ever || ok && e.Status != 0) {
			return err // never reached, or refused
		}
		wait := pause
		if ok {
			wait = max(wait, e.RetryAfter)
		}
		pause = min(2*pause, maxPause)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// stopped carries what the caller's function returned.
type stopped struct{ err error }

func (s *stopped) Error() string { return s.err.Error() }

// followOnce reads one stream to its end. begin hears when it began, by the
// server's clock.
func (c *Client) followOnce(ctx context.Context, f AuditFilter, begin func(time.Time), fn func(Event) error) error {
	resp, err := c.send(ctx, get("/v1/audit/stream", f.query()))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return readError(resp)
	}
	defer resp.Body.Close()
	at, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		at = time.Now()
	}
	begin(at)
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) == 0 {
			continue // a sign of life
		}
		refused := &Error{Status: http.StatusForbidden}
		if refused.fill(line) {
			switch refused.Code {
			case "stream_ended", "internal", "database_unavailable":
				refused.Status = http.StatusServiceUnavailable
			}
			return refused
		}
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return &Error{Status: resp.StatusCode, Code: "answer_invalid", Message: "The stream holds something that is no audit entry."}
		}
		if err := fn(e); err != nil {
			return &stopped{err}
		}
	}
	return lines.Err()
}
