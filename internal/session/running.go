package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// The causes of the context of a call that was cut.
var (
	errEnded       = errors.New("the session was ended while the call was running")
	errExpired     = errors.New("the session expired while the call was running")
	errUnconfirmed = errors.New("the database did not say in time whether the session still stands")
	errStopping    = errors.New("the server stops")
)

// Why a call was cut although its session may go on, beside the reasons for
// which a session ends.
const (
	Unconfirmed = "session_unconfirmed" // this node could not ask the database for a second
	Stopping    = "server_stopping"     // this node stops, and the time to finish is over
)

// Cut reports whether ctx ended because its session did, and why: [Revoked],
// which stands for every end by somebody's will, [Expired], or this node's own
// reasons, [Unconfirmed] and [Stopping].
func Cut(ctx context.Context) (reason string, cut bool) {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errEnded):
		return Revoked, true
	case errors.Is(cause, errExpired):
		return Expired, true
	case errors.Is(cause, errUnconfirmed):
		return Unconfirmed, true
	case errors.Is(cause, errStopping):
		return Stopping, true
	}
	return "", false
}

// running knows the calls under way in this process, so that a revoke can cut
// them. It decides nothing: authority is always read from the database.
type running struct {
	mu        sync.Mutex
	bySession map[id.Session]map[*call]struct{}
	stopping  bool // calls that begin now are cut at once
}

type call struct {
	cancel context.CancelCauseFunc
	ended  chan struct{} // closed when nothing of it is sent any more
}

func newRunning() *running { return &running{bySession: map[id.Session]map[*call]struct{}{}} }

// track gives the context that a call runs under. The caller calls done when
// the call has ended.
// left is what remains of the session, by the clock that judges it: from here on
// it runs down whatever becomes of the wall clock.
func (r *running) track(ctx context.Context, s id.Session, left time.Duration) (tracked context.Context, done func()) {
	ctx, stop := context.WithTimeoutCause(ctx, left, errExpired)
	ctx, cancel := context.WithCancelCause(ctx)
	c := &call{cancel: cancel, ended: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		cancel(errStopping)
	}
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
		close(c.ended)
	}
}

// settleFor is how long a revoke waits for calls that it cut. They leave their
// connection at once; one that does not holds nobody up.
const settleFor = time.Second

// settle waits until the calls of sessions that were cut have let go of their
// connections: what is cancelled may still be on its way to the socket.
func (r *running) settle(ctx context.Context, sessions []id.Session) {
	r.mu.Lock()
	var calls []*call
	for _, s := range sessions {
		for c := range r.bySession[s] {
			calls = append(calls, c)
		}
	}
	r.mu.Unlock()
	late := time.NewTimer(settleFor)
	defer late.Stop()
	for _, c := range calls {
		select {
		case <-c.ended:
		case <-late.C:
			return
		case <-ctx.Done():
			return
		}
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

// cutAll cancels every call.
func (r *running) cutAll(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, calls := range r.bySession {
		for c := range calls {
			c.cancel(cause)
		}
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

// CutCalls cancels every call that runs in this process, and every one that
// begins from now on: the server stops and has waited for them long enough.
func (s *Service) CutCalls() {
	s.running.mu.Lock()
	s.running.stopping = true
	s.running.mu.Unlock()
	s.running.cutAll(errStopping)
}

const (
	watchEvery  = 100 * time.Millisecond
	unsureAfter = 900 * time.Millisecond // within the second that product.md rule 7 gives
	askAtLeast  = 200 * time.Millisecond // after this process was held up itself, the database may answer all the same
)

// watch cuts what other nodes have revoked also while their notices do not
// arrive: then it reads the sessions of running calls over and over. A call of
// which nothing is known for most of a second is cut, since a revoke may have
// come that this node cannot hear of.
func (s *Service) watch() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	known := time.Now()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		asked := time.Now()
		if missed := s.missed.Swap(false); !missed && s.db.Hearing() || len(s.running.sessions()) == 0 {
			known = asked
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), max(unsureAfter-asked.Sub(known), askAtLeast))
		err := s.recheckRunning(ctx)
		cancel()
		switch {
		case err == nil:
			known = asked
			continue
		case time.Since(known) >= unsureAfter:
			s.log.Warn("running calls are cut: the database does not say whether their sessions still stand", "error", err)
			s.running.cutAll(errUnconfirmed)
			known = time.Now()
		}
		s.missed.Store(true)
	}
}

// recheckRunning reads the sessions of all running calls again and cuts those
// that are no longer active.
func (s *Service) recheckRunning(ctx context.Context) error {
	for some := range slices.Chunk(s.running.sessions(), activeBatch) {
		active, err := activeOf(ctx, s.db.Reader(), some)
		if err != nil {
			return sqldb.Wrap("look whether sessions still stand", err)
		}
		for _, ses := range some {
			if !active[ses] {
				s.running.cut(ses, errEnded)
			}
		}
	}
	return nil
}
