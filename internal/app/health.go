package app

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
)

const (
	healthLimit = 2 * time.Second // for all parts together, which are looked at side by side
	healthFresh = time.Second     // probes within it share one look
	healthQueue = 256             // probes that wait for one look
)

// health answers the probes of whoever runs servers: /healthz says that the
// process answers, /readyz whether this node can do its work now. Anybody can
// ask, so answers name parts and codes and nothing else, and asking often costs
// nothing: one look serves everybody for a second.
type health struct {
	parts    []part
	now      func() time.Time
	draining atomic.Bool
	sealed   bool // the server waits for its root key

	mu      sync.Mutex
	last    Readiness
	at      time.Time     // when the last look ended
	looking chan struct{} // closed at the end of the look under way; nil: none is
	waiting int           // for it
}

// part is one thing that must be in order. One that is optional is reported and
// does not make the node unready.
type part struct {
	name     string
	optional bool
	look     func(ctx context.Context) error
	bearable func() bool // whether calls can do without it for now; may be nil
}

// Readiness is the answer of /readyz.
type Readiness struct {
	Status string      `json:"status"` // ready, not_ready, sealed or draining
	Parts  []PartState `json:"parts"`
}

// PartState is what was found of one part.
type PartState struct {
	Name  string  `json:"name"`
	State string  `json:"state"`          // ok, failed, or degraded for what calls can do without
	Code  string  `json:"code,omitempty"` // why, as in docs/operations.md
	Took  float64 `json:"took_ms"`
}

func (a *App) newHealth() *health {
	return &health{now: time.Now, parts: []part{
		{name: "database", look: a.db.Ping},
		// It is asked every minute. While its grace lasts calls go on, and a balancer
		// must not take all nodes out at once.
		{name: "keeper", look: func(context.Context) error { return a.roots.Primary().Ready() }, bearable: func() bool { return a.roots.Primary().State().Usable }},
		{name: "audit", look: a.Audit.Ready},
		{name: "checkpoints", optional: true, look: func(context.Context) error { return a.witnessed() }},
		{name: "clock", look: func(context.Context) error { return a.clock.Ready() }},
		{name: "node", look: func(context.Context) error { return a.member.Ready() }},
	}}
}

// witnessed reports whether checkpoints are written. Without them calls are made
// and recorded as ever, but nothing outside the database vouches for the record.
func (a *App) witnessed() error {
	if w := a.Audit.Witness(); w.Err != nil || w.Overdue {
		return fault.New(fault.Unavailable, "checkpoint_failed", "The last audit checkpoint could not be written.").WithCause(w.Err)
	}
	return nil
}

// look gives the state of every part, not older than a second. A probe during a
// look gets what that look finds. Those that wait for it are bounded too: one more
// gets what was found before, as does one whose caller has left.
func (h *health) look(ctx context.Context) Readiness {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch now := h.now(); {
	case h.looking == nil && !h.at.IsZero() && now.Sub(h.at) < healthFresh && !now.Before(h.at):
	case h.looking == nil:
		done := make(chan struct{})
		h.looking = done
		h.mu.Unlock()
		found := h.lookNow(context.WithoutCancel(ctx))
		h.mu.Lock()
		h.last, h.at, h.looking = found, h.now(), nil
		close(done)
	case h.waiting < healthQueue:
		done := h.looking
		h.waiting++
		h.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
		}
		h.mu.Lock()
		h.waiting--
	}
	if h.at.IsZero() { // nothing was found yet, so nothing is promised
		return Readiness{Status: "not_ready", Parts: []PartState{}}
	}
	return h.last
}

func (h *health) lookNow(ctx context.Context) Readiness {
	ctx, cancel := context.WithTimeout(ctx, healthLimit)
	defer cancel()
	r := Readiness{Status: "ready", Parts: make([]PartState, len(h.parts))}
	var wg sync.WaitGroup
	for i, p := range h.parts {
		wg.Go(func() {
			began := time.Now()
			err := p.look(ctx)
			s := PartState{Name: p.name, State: "ok", Took: float64(time.Since(began).Microseconds()) / 1000}
			if err != nil {
				s.State, s.Code = "failed", fault.Of(err).Code
				if p.optional || p.bearable != nil && p.bearable() {
					s.State = "degraded"
				}
			}
			r.Parts[i] = s
		})
	}
	wg.Wait()
	for _, s := range r.Parts {
		if s.State == "failed" {
			r.Status = "not_ready"
		}
	}
	if h.sealed {
		r.Status = "sealed"
	}
	return r
}

func (h *health) alive(w http.ResponseWriter, _ *http.Request) {
	answerProbe(w, http.StatusOK, map[string]string{"status": "alive"})
}

func (h *health) ready(w http.ResponseWriter, r *http.Request) {
	found, status := h.look(r.Context()), http.StatusOK
	if h.draining.Load() { // never from memory: balancers must hear it at once
		found.Status = "draining"
	}
	if found.Status != "ready" {
		status = http.StatusServiceUnavailable
	}
	answerProbe(w, status, found)
}

func answerProbe(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
