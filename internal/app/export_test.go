package app

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Client gives tests what the edge takes a request's client to be.
func (a *App) Client(r *http.Request) string { return a.client(r) }

// Probes is a health whose parts a test breaks.
type Probes struct{ h health }

// NewProbes has one part, and one that calls can do without, at the time of now.
func NewProbes(now func() time.Time, must, optional func() error) *Probes {
	wrap := func(f func() error) func(context.Context) error { return func(context.Context) error { return f() } }
	return &Probes{health{now: now, parts: []part{{name: "must", look: wrap(must)}, {name: "optional", optional: true, look: wrap(optional)}}}}
}

// Ready answers a probe.
func (p *Probes) Ready(w http.ResponseWriter, r *http.Request) { p.h.ready(w, r) }

// Drain says that the server stops.
func (p *Probes) Drain() { p.h.draining.Store(true) }

// ErrSkew is what the clock says when it is off.
func ErrSkew() error {
	c := clock{}
	c.skew.Store(int64(maxSkew + time.Millisecond))
	return fault.Of(c.Ready())
}

// Narrow lets the server, which must not run yet, take fewer requests at once.
func (a *App) Narrow(requests, revocations int) { a.load = newLoad(requests, revocations) }

// Fill takes every place for requests, from as many addresses as it needs, until
// release.
func (a *App) Fill() (release func()) {
	var leaves []func()
	for i := 0; ; i++ {
		leave, ok, _ := a.load.requests.Enter(fmt.Sprint(i))
		if !ok {
			return func() {
				for _, leave := range leaves {
					leave()
				}
			}
		}
		leaves = append(leaves, leave)
	}
}

// Pace serves h with answers that a client must take within limit.
func Pace(h http.Handler, limit time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(pace(w, limit), r) })
}
