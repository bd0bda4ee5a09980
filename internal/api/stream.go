package api

import (
	"bytes"
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
)

const (
	maxStreams       = 100 // in this process
	maxCallerStreams = 4
	maxStreamAge     = time.Hour
	streamWrite      = 30 * time.Second // for a client that does not read
)

// streams counts the audit streams that are open: each one asks the database
// twice a second.
type streams struct {
	mu   sync.Mutex
	all  int
	open map[string]int // by caller
}

func (s *streams) begin(caller string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= maxStreams || s.open[caller] >= maxCallerStreams {
		return fault.New(fault.Limited, "too_many_streams", "Too many audit streams are open.").WithHint("Close one first.").WithRetry(5 * time.Second)
	}
	s.all++
	s.open[caller]++
	return nil
}

func (s *streams) end(caller string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.open[caller]--; s.open[caller] == 0 {
		delete(s.open, caller)
	}
}

func (a *API) streamAudit(ctx context.Context, c *call, in *streamInput) (func(), error) {
	f, err := a.selected(ctx, c.by, in.Selection)
	if err != nil {
		return nil, err
	}
	if f.Since.IsZero() { // before the answer begins: who has that, is told what happens from then on
		f.Since = a.now()
	}
	caller := c.by.Audit().ID
	if err := a.streams.begin(caller); err != nil {
		return nil, err
	}
	return func() {
		defer a.streams.end(caller)
		ctx, cancel := context.WithTimeout(ctx, maxStreamAge)
		defer cancel()
		(&stream{a: a, c: c, filter: f}).run(ctx)
	}, nil
}

// stream is one follower of the audit log.
type stream struct {
	a      *API
	c      *call
	filter audit.Filter
}

// run writes until the client leaves, the stream is old, or the caller may not
// read any longer.
func (s *stream) run(ctx context.Context) {
	h := s.c.w.Header()
	h.Set("Content-Type", "application/x-ndjson")
	h.Set("X-Accel-Buffering", "no") // proxies would hold lines back
	s.c.w.WriteHeader(http.StatusOK)
	if !s.line(nil) {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	records, ended := make(chan audit.Record), make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		ended <- s.a.cfg.Audit.Follow(ctx, s.filter, func(r audit.Record) error {
			select {
			case records <- r:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	defer wg.Wait()
	defer cancel()
	defer func() { _ = http.NewResponseController(s.c.w).SetWriteDeadline(time.Time{}) }() // the connection may serve another request
	beat := time.NewTicker(s.a.cfg.Heartbeat)
	defer beat.Stop()
	for {
		select {
		case r := <-records:
			if !s.line(eventOf(r)) {
				return
			}
		case <-beat.C:
			if err := s.stillAllowed(); err != nil {
				s.last(err)
				return
			}
			if !s.line(nil) {
				return
			}
		case <-s.a.stop:
			s.last(fault.New(fault.Unavailable, "stream_ended", "The server is shutting down.").WithHint("Open it again."))
			return
		case err := <-ended:
			if ctx.Err() != nil {
				err = fault.New(fault.Unavailable, "stream_ended", "The stream has been open for an hour.").WithHint("Open it again.")
			}
			s.last(err)
			return
		}
	}
}

// stillAllowed authenticates again: a stream must not outlive its key.
func (s *stream) stillAllowed() error {
	c := &call{w: s.c.w, r: s.c.r}
	if err := s.a.authenticate(c, s.a.cfg.Address(c.r), false); err != nil {
		return err
	}
	if err := (rules{scopes: []account.Scope{account.ScopeAuditRead}}).check(c); err != nil {
		return err
	}
	return s.a.mayReadAudit(c.by, s.filter)
}

func (s *stream) last(err error) {
	f := fault.Of(err)
	if f.Kind == fault.Internal {
		s.a.log.Error("an audit stream failed", "error", f.Error())
	}
	s.line(bodyOf(f, s.c.w.Header().Get("X-Request-ID")))
}

// line reports whether the client still takes what it is sent. Nil is an empty
// line.
func (s *stream) line(v any) bool {
	var doc bytes.Buffer
	if v == nil {
		doc.WriteByte('\n')
	} else if err := encode(&doc, v); err != nil {
		s.a.log.Error("an audit entry could not be sent", "error", err)
		return false
	}
	rc := http.NewResponseController(s.c.w)
	_ = rc.SetWriteDeadline(time.Now().Add(streamWrite)) // not every writer has one
	if _, err := s.c.w.Write(doc.Bytes()); err != nil {
		return false
	}
	return rc.Flush() == nil
}
