package session

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
)

// The causes of the context of a call that was cut.
var (
	errEnded   = errors.New("the session was ended while the call was running")
	errExpired = errors.New("the session expired while the call was running")
)

// Cut reports whether ctx ended because its session did, and why: [Revoked],
// which stands for every end by somebody's will, or [Expired].
func Cut(ctx context.Context) (reason string, cut bool) {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errEnded):
		return Revoked, true
	case errors.Is(cause, errExpired):
		return Expired, true
	}
	return "", false
}

// running knows the calls under way in this process, so that a revoke can cut
// them. It decides nothing: authority is always read from the database.
type running struct {
	mu        sync.Mutex
	bySession map[id.Session]map[*call]struct{}
}

type call struct{ cancel context.CancelCauseFunc }

func newRunning() *running { return &running{bySession: map[id.Session]map[*call]struct{}{}} }

// track gives the context that a call runs under. The caller calls done when
// the call has ended.
func (r *running) track(ctx context.Context, s id.Session, until time.Time) (tracked context.Context, done func()) {
	ctx, stop := context.WithDeadlineCause(ctx, until, errExpired)
	ctx, cancel := context.WithCancelCause(ctx)
	c := &call{cancel: cancel}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bySession[s] == nil {
		r.bySession[s] = map[*call]struct{}{}
	}
	r.bySession[s][c] = struct{}{}
	return ctx, func() {
		r.mu.Lock()
		delete(r.bySession[s], c)
		if len(r.bySession[s]) == 0 {
			delete(r.bySession, s)
		}
		r.mu.Unlock()
		cancel(nil)
		stop()
	}
}

// cut cancels the calls of a session. They end by themselves soon after.
func (r *running) cut(s id.Session, cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.bySession[s] {
		c.cancel(cause)
	}
}

func (r *running) sessions() []id.Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]id.Session, 0, len(r.bySession))
	for s := range r.bySession {
		out = append(out, s)
	}
	return out
}

// recheckRunning reads the sessions of all running calls again, after notices
// may have been lost, and cuts those that are no longer active.
func (s *Service) recheckRunning() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, ses := range s.running.sessions() {
		state, err := stateOf(ctx, s.db.Reader(), ses)
		if err != nil {
			s.log.Warn("a running call's session could not be read; the call is cut", "session", ses, "error", err)
		}
		if err != nil || state != Active {
			s.running.cut(ses, errEnded)
		}
	}
}
