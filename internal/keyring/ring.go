package keyring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

// RingConfig is what a Ring needs.
type RingConfig struct {
	// Open opens the root key that a URI names; nil opens none. The URI holds no
	// secret.
	Open func(ctx context.Context, uri string) (Keeper, error)
	// Admit refuses a URI that is not for owner to bring, the id of an organization or
	// an environment; nil admits all.
	Admit func(uri, owner string) error
	// Guard says how root keys are treated that the ring opens itself.
	Guard Config
}

// Ring is all the root keys that a server can use, each behind a guard of its
// own, so that trouble with one is no trouble for what another wrapped. Those of
// the server itself are added at the start; of them one is primary and wraps what
// nobody else has a say in. Those that customers brought are opened when something
// needs them. It is safe for concurrent use.
type Ring struct {
	cfg RingConfig

	mu       sync.Mutex
	primary  *Guard
	own      []*Guard
	brought  map[string]*Guard // by ref
	watchers []func(*Guard, State)
	started  bool
	stopped  bool
}

// NewRing makes a ring without a key.
func NewRing(cfg RingConfig) *Ring {
	if cfg.Guard.Logger == nil {
		cfg.Guard.Logger = slog.New(slog.DiscardHandler)
	}
	return &Ring{cfg: cfg, brought: map[string]*Guard{}}
}

// RingOf is a ring with one root key, which is the primary one.
func RingOf(g *Guard) *Ring {
	r := NewRing(RingConfig{})
	r.Add(g)
	return r
}

// Add puts a root key of the server itself on the ring. The first one is primary
// until SetPrimary says otherwise.
func (r *Ring) Add(g *Guard) {
	r.mu.Lock()
	r.own = append(r.own, g)
	if r.primary == nil {
		r.primary = g
	}
	r.mu.Unlock()
	g.Watch(func(is State) { r.tell(g, is) })
}

func (r *Ring) tell(g *Guard, is State) {
	r.mu.Lock()
	watchers := r.watchers
	r.mu.Unlock()
	for _, fn := range watchers {
		fn(g, is)
	}
}

// Primary is the root key that new keys are wrapped by, unless a customer's is.
func (r *Ring) Primary() *Guard {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.primary
}

// SetPrimary makes another root key of the server the primary one. It reports
// whether it has that key.
func (r *Ring) SetPrimary(ref string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.own {
		if g.Describe().Ref == ref {
			r.primary = g
			return true
		}
	}
	return false
}

// Wrap seals a seed under the primary root key; see [Keeper].
func (r *Ring) Wrap(ctx context.Context, seed secret.Value, c Context) ([]byte, error) {
	return r.Primary().Wrap(ctx, seed, c)
}

// Unwrap opens what any of the server's own root keys wrapped, the primary one
// asked first. Where none opens it and one could not be asked, that is the error.
func (r *Ring) Unwrap(ctx context.Context, blob []byte, c Context) (secret.Value, error) {
	primary := r.Primary()
	seed, err := primary.Unwrap(ctx, blob, c)
	for _, g := range r.Own() {
		if err == nil || ctx.Err() != nil {
			break
		}
		if g == primary {
			continue
		}
		found, other := g.Unwrap(ctx, blob, c)
		if other == nil || errors.Is(err, crypt.ErrIntegrity) {
			seed, err = found, other
		}
	}
	return seed, err
}

// Describe names the primary root key.
func (r *Ring) Describe() Description { return r.Primary().Describe() }

// Own lists the server's root keys, those that it was started with first.
func (r *Ring) Own() []*Guard {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.own)
}

// ByRef finds a root key that is on the ring. One that is not is a failure with
// the code CodeMismatch: what it wrapped needs a key that this server lacks.
func (r *Ring) ByRef(ref string) (*Guard, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.own {
		if g.Describe().Ref == ref {
			return g, nil
		}
	}
	if g, ok := r.brought[ref]; ok {
		return g, nil
	}
	for _, g := range r.own {
		if g.Describe().Ref == "" { // not opened yet: it may be this one
			return nil, Failure(CodeUnavailable, fmt.Errorf("the root key %s is not on the ring, and that at %s is not there yet", ref, g.Describe().Location))
		}
	}
	return nil, fault.New(fault.Unavailable, CodeMismatch, "The root key does not open this vault.").
		WithHint("Start the server with the root key that this was sealed under (AMBIT_ROOT_KEY, AMBIT_ROOT_KEYS_OTHER).").
		WithCause(fmt.Errorf("the root key %s is not on the ring", ref))
}

// Bring gives the root key of a customer, by its ref and the URI to open it by.
// Nothing is opened before something is wrapped or unwrapped; a key with another
// ref found there is a mismatch. It is asked now and then with labels.
func (r *Ring) Bring(ref, uri string, labels Context) *Guard {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.own {
		if g.Describe().Ref == ref {
			return g
		}
	}
	if g, ok := r.brought[ref]; ok {
		return g
	}
	open, cfg := r.cfg.Open, r.cfg.Guard
	cfg.Labels = labels
	g := NewGuard(Lazy(ref, uri, func(ctx context.Context) (Keeper, error) {
		if open == nil {
			return nil, errors.New("this server opens no root keys of others")
		}
		return open(ctx, uri)
	}), cfg)
	g.Watch(func(is State) { r.tell(g, is) })
	r.brought[ref] = g
	if r.started && !r.stopped {
		g.Start()
	}
	return g
}

// Open opens a root key that is not on the ring, to try it for owner; without one,
// whose it is is not looked at. The caller stops the guard.
func (r *Ring) Open(ctx context.Context, uri, owner string) (*Guard, error) {
	if r.cfg.Open == nil {
		return nil, fault.New(fault.Invalid, "root_key_scheme", "This server opens no root keys of others.")
	}
	if r.cfg.Admit != nil && owner != "" {
		if err := r.cfg.Admit(uri, owner); err != nil {
			return nil, err
		}
	}
	k, err := r.cfg.Open(ctx, uri)
	if err != nil {
		return nil, err
	}
	return NewGuard(k, r.cfg.Guard), nil
}

// Return takes a customer's root key off the ring.
func (r *Ring) Return(ref string) {
	r.mu.Lock()
	g := r.brought[ref]
	delete(r.brought, ref)
	r.mu.Unlock()
	if g != nil {
		g.Stop()
	}
}

// Watch calls fn for every change of any root key's state; see [Guard.Watch].
func (r *Ring) Watch(fn func(*Guard, State)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watchers = append(r.watchers[:len(r.watchers):len(r.watchers)], fn)
}

// Start asks every root key now and then whether it may still be used.
func (r *Ring) Start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started = true
	for _, g := range r.allLocked() {
		g.Start()
	}
}

func (r *Ring) allLocked() []*Guard {
	all := slices.Clone(r.own)
	for _, g := range r.brought {
		all = append(all, g)
	}
	return all
}

// Stop ends what Start began, and all use of the keys.
func (r *Ring) Stop() {
	r.mu.Lock()
	r.stopped = true
	all := r.allLocked()
	r.mu.Unlock()
	for _, g := range all {
		g.Stop()
	}
}

// Lazy is a root key that is opened when it is first used. Until then it goes by
// ref and where; with an empty ref, whatever is found counts. Where it cannot be
// opened it is a keeper that is away, and is tried again with the next call.
func Lazy(ref, where string, open func(ctx context.Context) (Keeper, error)) Keeper {
	return &lazy{ref: ref, where: where, open: open}
}

type lazy struct {
	ref, where string
	open       func(ctx context.Context) (Keeper, error)

	opening sync.Mutex // held while it is opened, which a guard bounds in time
	mu      sync.Mutex
	keeper  Keeper
}

func (l *lazy) opened() Keeper {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.keeper
}

func (l *lazy) get(ctx context.Context) (Keeper, error) {
	if k := l.opened(); k != nil {
		return k, nil
	}
	l.opening.Lock()
	defer l.opening.Unlock()
	if k := l.opened(); k != nil {
		return k, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k, err := l.open(ctx)
	if err != nil {
		if ClassOf(err) == Fine { // about no blob, so about the keeper
			err = Failure(CodeUnavailable, err)
		}
		return nil, err
	}
	if ref := k.Describe().Ref; l.ref != "" && ref != l.ref {
		return nil, Failure(CodeMismatch, fmt.Errorf("the root key at %s is %s and should be %s", l.where, ref, l.ref))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keeper = k
	return k, nil
}

// Wrap opens the key if need be.
func (l *lazy) Wrap(ctx context.Context, seed secret.Value, c Context) ([]byte, error) {
	k, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	return k.Wrap(ctx, seed, c)
}

// Unwrap opens the key if need be.
func (l *lazy) Unwrap(ctx context.Context, blob []byte, c Context) (secret.Value, error) {
	k, err := l.get(ctx)
	if err != nil {
		return secret.Value{}, err
	}
	return k.Unwrap(ctx, blob, c)
}

// Describe is that of the key once it is open.
func (l *lazy) Describe() Description {
	if k := l.opened(); k != nil {
		return k.Describe()
	}
	return Description{Ref: l.ref, Location: l.where}
}

// Close closes the key if it was opened and is one that can be.
func (l *lazy) Close() error {
	if c, ok := l.opened().(io.Closer); ok {
		return c.Close()
	}
	return nil
}
