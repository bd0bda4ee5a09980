package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

const (
	maxLine = 1 << 20
	// overlap is how far back a new stream starts: entries become visible
	// somewhat out of order.
	overlap = 40 * time.Second
)

// FollowAudit calls fn for each new audit entry until ctx ends, fn fails, or
// the server refuses. The outcome of a call comes as an entry of its own, of
// kind "outcome", whose Ref is the call. A stream that breaks is taken up again
// where it broke, and no entry is given twice.
func (c *Client) FollowAudit(ctx context.Context, f AuditFilter, fn func(Event) error) error {
	seen := map[string]time.Time{}
	for pause := time.Duration(0); ; {
		began := time.Now()
		err := c.followOnce(ctx, f, func(e Event) error {
			if _, ok := seen[e.ID]; ok {
				return nil
			}
			seen[e.ID] = e.Time
			if since := e.Time.Add(-overlap); since.After(f.Since) {
				f.Since = since
				for k, t := range seen {
					if t.Before(since) {
						delete(seen, k)
					}
				}
			}
			return fn(e)
		})
		var own *stopped
		switch {
		case errors.As(err, &own):
			return own.err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		var e *Error
		if errors.As(err, &e) && e.Status != 0 && e.Status != http.StatusTooManyRequests && e.Status < 500 {
			return err
		}
		if len(seen) == 0 && f.Since.IsZero() {
			if err != nil && time.Since(began) < time.Second && pause == 0 && e != nil && e.Status == 0 {
				return err // it was never reached
			}
			f.Since = began.Add(-overlap)
		}
		if time.Since(began) > time.Minute {
			pause = 0
		}
		pause = min(max(2*pause, 500*time.Millisecond), maxPause)
		if e != nil && e.RetryAfter > pause {
			pause = e.RetryAfter
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// stopped carries what the caller's function returned.
type stopped struct{ err error }

func (s *stopped) Error() string { return s.err.Error() }

func (c *Client) followOnce(ctx context.Context, f AuditFilter, fn func(Event) error) error {
	f.After, f.Limit = "", 0
	resp, err := c.send(ctx, get("/v1/audit/stream", f.query()))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return readError(resp)
	}
	defer resp.Body.Close()
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
