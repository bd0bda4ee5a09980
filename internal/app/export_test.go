package app

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/throttle"
)

// Client gives tests what the edge takes a request's client to be.
func (a *App) Client(r *http.Request) string { return a.client(r) }

// Keepers is the way out that a back end gets for a root key, the operator's or a
// customer's.
func Keepers(cfg Config, client *outbound.Client, scheme string, ours bool) http.RoundTripper {
	return cfg.options(client, scheme, ours).HTTP.Transport
}

// NewOutbound makes the way out of a server.
func (c Config) NewOutbound() (*outbound.Client, error) { return c.newOutbound() }

// OpenBrought opens a customer's root key.
func OpenBrought(ctx context.Context, client *outbound.Client, uri string) (keyring.Keeper, error) {
	return openBrought(ctx, Config{}, client, uri)
}

// DoubtRoot has the root key asked before it is used again, as after the minute in
// which the server asks by itself.
func (a *App) DoubtRoot() { a.roots.Primary().Doubt() }

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
func (a *App) Narrow(strangers, known, revocations int) {
	a.load = newLoad(strangers, known, revocations)
}

// Fill takes every place for requests until release: of strangers from as many
// addresses, and of as many organizations, as it needs.
func (a *App) Fill() (release func()) {
	strangers, known := fill(a.load.strangers.Enter), a.FillKnown()
	return func() { strangers(); known() }
}

// FillKnown takes every place for requests of callers who are known.
func (a *App) FillKnown() (release func()) {
	return fill(func(group string) (func(), bool, bool) { return a.load.known.enter(group, "caller") })
}

func fill(enter func(key string) (leave func(), ok, full bool)) (release func()) {
	var leaves []func()
	for i := 0; ; i++ {
		leave, ok, full := enter(fmt.Sprint("filler ", i))
		if full {
			return func() {
				for _, leave := range leaves {
					leave()
				}
			}
		}
		if ok {
			leaves = append(leaves, leave)
		}
	}
}

// InLobby is how many strangers' requests wait for their client.
func (a *App) InLobby() int { n, _ := a.load.lobby.Waiting(); return n }

// Pace serves h with answers that a client must take within limit.
func Pace(h http.Handler, limit time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&counted{Paced: throttle.Pace(w, limit)}, r)
	})
}

// Commits counts the transactions that the server has committed.
func (a *App) Commits() uint64 { return a.db.Stats().Commits }
