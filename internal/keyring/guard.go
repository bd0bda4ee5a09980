package keyring

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Config says how a Guard treats its keeper. Zero values take the defaults.
type Config struct {
	Timeout time.Duration // of one call; default 10 s
	// Every is how often the keeper is asked whether it still lets us use the
	// root key; default 1 min. It is how late a disabled key is noticed.
	Every time.Duration
	// Grace is how long unwrapped keys may be used after the keeper last
	// answered; default 5 min (threats.md K4).
	Grace    time.Duration
	Parallel int // calls at once; default 16
	// Labels are those of the blob that the guard asks with. A key whose policy
	// makes conditions of them would refuse it otherwise.
	Labels Context
	// Theirs says that the root key is a customer's, which failures then say, and
	// that its trouble is the customer's: it is logged as a warning.
	Theirs bool
	Now    func() time.Time
	Logger *slog.Logger
}

// State is what a Guard knows about its keeper without asking.
type State struct {
	Class  Class     // of the last failure; Fine when there was none since
	Since  time.Time // when the class began
	Proven time.Time // when the keeper last unwrapped something; zero: never
	// Usable says whether keys that were unwrapped may be used.
	Usable bool
}

// Guard stands in front of a keeper. It is safe for concurrent use.
type Guard struct {
	keeper Keeper
	cfg    Config
	log    *slog.Logger
	born   time.Time
	until  atomic.Int64 // since born: how long unwrapped keys may be used; at most 0: not at all
	slots  chan struct{}

	mu       sync.Mutex
	class    Class
	since    time.Time
	proven   time.Time
	failures int       // in a row
	hold     time.Time // until then nothing is asked and the last failure is the answer
	last     *fault.Error
	watchers []func(State)
	probe    []byte // a blob of our own to ask with
	told     State  // what watchers last heard

	proving  singleflight.Group
	ctx      context.Context // until Stop
	cancel   context.CancelFunc
	watching sync.WaitGroup
	stopping sync.Once
}

const (
	maxHold     = 30 * time.Second
	deniedHold  = time.Second
	brokenHold  = time.Second
	brokenAfter = 3 // failures in a row, before each caller stops waiting for its own
)

// NewGuard puts a guard in front of k. Without Start the keeper is asked only
// when a key is needed.
func NewGuard(k Keeper, cfg Config) *Guard {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&cfg.Timeout, 10*time.Second)
	set(&cfg.Every, time.Minute)
	set(&cfg.Grace, 5*time.Minute)
	if cfg.Parallel <= 0 {
		cfg.Parallel = 16
	}
	if cfg.Now == nil {
		cfg.Now = time.Now // which also counts while the wall clock is set
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Guard{keeper: k, cfg: cfg, log: cfg.Logger, born: cfg.Now(), since: cfg.Now(), slots: make(chan struct{}, cfg.Parallel)}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

// Describe names the root key.
func (g *Guard) Describe() Description { return g.keeper.Describe() }

// Wrap seals a seed; see [Keeper].
func (g *Guard) Wrap(ctx context.Context, seed secret.Value, c Context) ([]byte, error) {
	// That we may not wrap says nothing about what was unwrapped.
	learn := func(err error) {
		if class := ClassOf(err); class == Unavailable || class == Throttled {
			g.note(ctx, err)
		}
	}
	blob, err := ask(ctx, g, learn, func(ctx context.Context) ([]byte, error) { return g.keeper.Wrap(ctx, seed, c) })
	return blob, g.public(err)
}

// Unwrap opens a blob; see [Keeper]. Its success or failure decides whether keys
// that were unwrapped before may go on.
func (g *Guard) Unwrap(ctx context.Context, blob []byte, c Context) (secret.Value, error) {
	learn := func(err error) {
		if err == nil || ClassOf(err) != Fine {
			g.note(ctx, err)
		}
	}
	seed, err := ask(ctx, g, learn, func(ctx context.Context) (secret.Value, error) { return g.keeper.Unwrap(ctx, blob, c) })
	return seed, g.public(err)
}

// errHeld marks the answer that is given without asking.
var errHeld = errors.New("the keeper is not asked for now")

// ask runs one call, in its turn and not for longer than the limit. A back end
// that does not heed its context keeps its turn until it returns, so that
// however many callers there are, no more than Parallel calls hang. A turn is
// given on when its end was learnt, and who had to wait for one looks again
// whether the keeper may be asked: those who queue before a keeper that hangs do
// not each ask it.
func ask[T any](ctx context.Context, g *Guard, learn func(error), call func(context.Context) (T, error)) (got T, err error) {
	learnt := make(chan struct{})
	defer func() { learn(err); close(learnt) }()
	if err := g.held(); err != nil {
		return got, err
	}
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	defer cancel()
	select {
	case g.slots <- struct{}{}:
	case <-ctx.Done():
		return got, fmt.Errorf("waiting for the keeper's other callers: %w", ctx.Err())
	}
	if err := cmp.Or(g.held(), ctx.Err()); err != nil {
		<-g.slots
		return got, err
	}
	type result struct {
		got T
		err error
	}
	answer := make(chan result, 1)
	go func() { // Stop waits for it by taking all slots
		defer func() { <-learnt; <-g.slots }()
		var r result
		r.got, r.err = call(ctx)
		answer <- r
	}()
	select {
	case r := <-answer:
		return r.got, r.err
	case <-ctx.Done():
		return got, fmt.Errorf("asking the keeper: %w", ctx.Err())
	}
}

// held gives the last failure again while the keeper must not be asked.
func (g *Guard) held() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if wait := g.hold.Sub(g.cfg.Now()); wait > 0 && g.last != nil {
		return g.last.WithRetry(wait).WithCause(errors.Join(errHeld, g.last))
	}
	return nil
}

// note learns from the end of a call. What the caller did not wait for, and what
// was not asked, says nothing about the keeper.
func (g *Guard) note(ctx context.Context, err error) {
	if errors.Is(err, errHeld) || err != nil && ctx.Err() != nil {
		return
	}
	class := ClassOf(err)
	now := g.cfg.Now()
	g.mu.Lock()
	if class == Fine {
		g.proven, g.failures, g.hold, g.last = now, 0, time.Time{}, nil
		g.until.Store(int64(now.Sub(g.born) + g.cfg.Grace))
	} else {
		g.failures++
		g.last = g.failure(class, err)
		switch {
		case class == Throttled:
			g.hold = now.Add(min(max(fault.Of(err).RetryAfter, time.Second), maxHold))
		case class == Denied, class == Mismatch:
			g.hold = now.Add(deniedHold)
			g.until.Store(0)
		case g.failures >= brokenAfter:
			g.hold = now.Add(brokenHold)
		}
	}
	if class != g.class {
		g.class, g.since = class, now
	}
	g.mu.Unlock()
	g.tell(err)
}

// tell lets the log and the watchers know what has changed since they last heard.
func (g *Guard) tell(err error) {
	g.mu.Lock()
	is, was := g.stateLocked(g.cfg.Now()), g.told
	g.told = is
	watchers := g.watchers
	g.mu.Unlock()
	if is.Class == was.Class && is.Usable == was.Usable {
		return
	}
	key := g.Describe()
	switch {
	case is.Class != Fine || !is.Usable:
		level := slog.LevelError
		if g.cfg.Theirs {
			level = slog.LevelWarn
		}
		g.log.Log(context.Background(), level, "the root key is in trouble", "key", key.Ref, "location", key.Location, "class", is.Class.String(), "usable", is.Usable, "error", err)
	case !was.Proven.IsZero():
		g.log.Info("the root key can be used again", "key", key.Ref)
	}
	for _, fn := range watchers {
		fn(is)
	}
}

// failure is what callers are told: nothing of where the key lies.
func (g *Guard) failure(class Class, err error) *fault.Error {
	make := Failure
	if g.cfg.Theirs {
		make = theirs
	}
	f := make(codes[class], err)
	if retry := fault.Of(err).RetryAfter; retry > 0 {
		return f.WithRetry(retry)
	}
	return f.WithRetry(time.Second)
}

func (g *Guard) public(err error) error {
	if err == nil || errors.Is(err, errHeld) {
		return err
	}
	if class := ClassOf(err); class != Fine {
		return g.failure(class, err)
	}
	return err // about one blob
}

// Usable is nil while keys that were unwrapped may be used: the keeper answered
// within the grace and has not refused since. It asks nobody, and costs next to
// nothing.
func (g *Guard) Usable() error {
	if int64(g.cfg.Now().Sub(g.born)) < g.until.Load() {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last != nil {
		return g.last
	}
	return g.failure(Unavailable, errors.New("the keeper has not been asked for too long"))
}

// Doubt makes unwrapped keys count no more until the keeper is asked again: what
// to call when its owner says that it was disabled.
func (g *Guard) Doubt() {
	g.mu.Lock()
	g.until.Store(0)
	g.mu.Unlock()
	g.tell(errors.New("somebody asked to look again"))
}

// Assure is Usable, but asks the keeper when the answer would be no: so the first
// caller after an outage ends it. Of many callers one asks.
func (g *Guard) Assure(ctx context.Context) error {
	if g.Usable() == nil {
		return nil
	}
	g.tell(nil)
	ch := g.proving.DoChan("", func() (any, error) { return nil, g.Prove(g.ctx) })
	select {
	case r := <-ch:
		return r.Err
	case <-ctx.Done():
		return g.failure(Unavailable, ctx.Err())
	}
}

// Prove asks the keeper to unwrap something that it wrapped for this purpose.
func (g *Guard) Prove(ctx context.Context) error {
	c := probeContext(g.cfg.Labels, "ambit keeper probe 1")
	g.mu.Lock()
	blob := g.probe
	g.mu.Unlock()
	if blob == nil {
		made, err := g.Wrap(ctx, crypt.NewSeed(), c)
		if class := ClassOf(err); class == Denied || class == Mismatch {
			g.note(ctx, err)
		}
		if err != nil {
			return err
		}
		g.mu.Lock()
		g.probe, blob = made, made
		g.mu.Unlock()
	}
	_, err := g.Unwrap(ctx, blob, c)
	if errors.Is(err, ErrVersionRetired) {
		return g.retired(ctx)
	}
	if errors.Is(err, crypt.ErrIntegrity) {
		err = g.failure(Mismatch, errors.New("what this keeper wrapped a while ago it no longer opens"))
		g.note(ctx, err)
	}
	return err
}

// retired forgets what older versions of the root key wrapped, which the owner
// may have meant by retiring them, and goes on with the newest.
func (g *Guard) retired(ctx context.Context) error {
	g.mu.Lock()
	g.probe = nil
	g.mu.Unlock()
	g.note(ctx, g.failure(Denied, ErrVersionRetired))
	g.mu.Lock()
	g.hold = time.Time{}
	g.mu.Unlock()
	return g.Prove(ctx)
}

// Watch calls fn whenever the class of failure changes, or whether keys may be
// used. fn must be quick and must not call g.
func (g *Guard) Watch(fn func(State)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watchers = append(g.watchers[:len(g.watchers):len(g.watchers)], fn)
}

// State is what is known now.
func (g *Guard) State() State {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stateLocked(g.cfg.Now())
}

func (g *Guard) stateLocked(now time.Time) State {
	return State{Class: g.class, Since: g.since, Proven: g.proven, Usable: int64(now.Sub(g.born)) < g.until.Load()}
}

// Ready is nil unless the keeper failed when it was last asked, or was never
// asked. It asks nobody: for probes of the server.
func (g *Guard) Ready() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.last != nil:
		return g.last
	case g.proven.IsZero():
		return Failure(CodeUnavailable, errors.New("the keeper has not been asked yet"))
	}
	return nil
}

// Start asks the keeper now and then, until Stop.
func (g *Guard) Start() { g.watching.Go(g.watch) }

// watch also notices that the grace has run out when nobody needs a key.
func (g *Guard) watch() {
	for {
		wait := g.cfg.Every
		if g.Prove(g.ctx) != nil {
			wait = min(g.cfg.Every, max(time.Second, g.cfg.Every/12))
		}
		g.tell(nil)
		select {
		case <-g.ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// Stop ends what Start began, and all use of the keeper. Calls that still run get
// as long as one may take.
func (g *Guard) Stop() { g.stopping.Do(g.end) }

func (g *Guard) end() {
	defer g.close()
	g.cancel()
	g.watching.Wait()
	patience := time.After(g.cfg.Timeout + time.Second)
	for range cap(g.slots) {
		select {
		case g.slots <- struct{}{}:
		case <-patience:
			return
		}
	}
}

// close lets go of what the back end holds, such as a process.
func (g *Guard) close() {
	if c, ok := g.keeper.(io.Closer); ok {
		_ = c.Close()
	}
}
