package app

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
)

const (
	cutGrace    = 3 * time.Second // for calls that were cut to be answered
	forcedClose = 5 * time.Second // for everything to end after a second signal
)

// Run serves until ctx ends, and then drains: it says at once that it is not
// ready, goes on serving for Config.DrainDelay so that balancers notice, takes
// no more connections, ends streams and long polls, lets running requests finish
// for Config.Drain, cuts what then still runs, and stops. When Config.Force
// closes it waits for nothing. ready is called once requests are answered.
func (a *App) Run(ctx context.Context, ready func()) (err error) {
	defer func() {
		if a.forced() {
			err = errors.Join(err, a.closeSoon())
		} else {
			a.closeAll()
		}
	}()
	h, err := a.handler()
	if err != nil {
		return err
	}
	srv, err := a.server(h)
	if err != nil {
		return err
	}
	if a.console, err = a.openConsole(a.consoleMux()); err != nil {
		return err
	}
	a.start()
	failed := make(chan error, len(a.listen)+len(a.atProxy))
	for _, l := range a.atProxy {
		go func() { failed <- a.proxy.Serve(a.secureProxy(l)) }()
	}
	for _, l := range a.listen {
		go func() { failed <- srv.Serve(a.secure(l)) }()
	}
	if ready != nil {
		ready()
	}
	a.tell("READY=1")
	a.log.Info("serving", "url", a.public.String(), "engine", a.db.Engine().String())
	select {
	case <-ctx.Done():
		err = nil
	case err = <-failed:
	case <-a.member.Outdated():
		err = a.member.Ready()
	}
	a.drain(srv, err != nil)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// drain stops serving. A server that failed has nobody to be polite to.
func (a *App) drain(srv *http.Server, failed bool) {
	began := time.Now()
	a.health.draining.Store(true)
	a.tell("STOPPING=1")
	if !failed && a.cfg.DrainDelay > 0 {
		a.log.Info("draining: not ready, and still serving", "delay", a.cfg.DrainDelay)
		a.wait(a.cfg.DrainDelay)
	}
	a.log.Info("draining: running requests may finish", "within", a.cfg.Drain)
	a.pages.Stop()
	a.management.Stop()
	a.tools.Stop()
	a.Sessions.EndWaits()
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = srv.Shutdown(context.Background()) // until Close, which follows
		_ = a.proxy.Shutdown(context.Background())
	}()
	a.wait(a.cfg.Drain, over)
	a.Sessions.CutCalls()
	select {
	case <-over:
	case <-time.After(cutGrace):
	}
	_ = srv.Close()
	a.proxy.Close()
	<-over
	if !a.requests.finish(cutGrace) {
		a.log.Warn("some requests did not end; they are left behind")
	}
	a.log.Info("drained", "took", time.Since(began).Round(time.Millisecond))
}

// wait returns after d, when one of early is closed, or when it is forced to.
func (a *App) wait(d time.Duration, early ...<-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	var soon <-chan struct{}
	if len(early) > 0 {
		soon = early[0]
	}
	select {
	case <-timer.C:
	case <-soon:
	case <-a.cfg.Force:
		a.log.Warn("told to stop at once")
	}
}

func (a *App) forced() bool {
	select {
	case <-a.cfg.Force:
		return true
	default:
		return false
	}
}

// closeSoon closes everything, but leaves behind what takes long, such as a
// provider that does not answer a refresh.
func (a *App) closeSoon() error {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		a.closeAll()
	}()
	select {
	case <-closed:
		return nil
	case <-time.After(forcedClose):
		return fault.New(fault.Unavailable, "forced_stop", "The server was stopped before everything had ended.")
	}
}

// tell speaks to the service manager that started us, if one did (sd_notify(3)).
func (a *App) tell(state string) {
	if a.cfg.NotifySocket == "" {
		return
	}
	name := a.cfg.NotifySocket
	if rest, abstract := strings.CutPrefix(name, "@"); abstract {
		name = "\x00" + rest
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte(state))
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		a.log.Warn("the service manager could not be told", "state", state, "error", err)
	}
}

// requests counts those under way, so that a stop can wait for the last one.
type requests struct {
	mu     sync.Mutex
	n      int
	closed bool
	idle   chan struct{} // made by finish, closed when none is left
}

// begin reports whether a request may still begin; if so the caller calls end.
func (r *requests) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.n++
	return true
}

func (r *requests) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n--; r.n == 0 && r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
}

// finish lets no more begin and reports whether the others ended in time.
func (r *requests) finish(within time.Duration) bool {
	r.mu.Lock()
	r.closed = true
	if r.n == 0 {
		r.mu.Unlock()
		return true
	}
	idle := make(chan struct{})
	r.idle = idle
	r.mu.Unlock()
	select {
	case <-idle:
		return true
	case <-time.After(within):
		return false
	}
}
