package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/secret"
)

// spare is the key of a chain that may be needed. A chain begins inside a
// transaction that others wait for, and must begin also while the keeper of the
// root key is away: so its key is wrapped before, and never there.
type spare struct {
	chain   string
	key     secret.Value
	root    string // that wrapped it
	wrapped []byte
}

// spares are ready to be taken. used is signalled when one was.
type spares struct {
	ready chan spare
	used  chan struct{}
}

const keptSpares = 2

// noKey says that chains had to be left more often than keys could be wrapped.
func noKey() error {
	return fault.New(fault.Unavailable, "audit_unavailable", "The audit log cannot be written, so nothing was done.").WithHint("Try again shortly.").
		WithCause(errors.New("no key for a new audit chain is ready; the keeper of the root key is asked for one")).WithRetry(time.Second)
}

func newSpares() spares {
	return spares{ready: make(chan spare, keptSpares), used: make(chan struct{}, 1)}
}

// take gives a key that this root key wrapped; those of another are forgotten.
func (s spares) take(root string) (spare, bool) {
	select {
	case s.used <- struct{}{}:
	default:
	}
	for {
		select {
		case k := <-s.ready:
			if k.root == root {
				return k, true
			}
		default:
			return spare{}, false
		}
	}
}

// put gives back a spare that no commit was tried with.
func (s spares) put(k spare) {
	if k.chain == "" {
		return
	}
	select {
	case s.ready <- k:
	default:
	}
}

// fill wraps keys until enough are ready.
func (s spares) fill(ctx context.Context, keeper keyring.Keeper) error {
	for len(s.ready) < cap(s.ready) {
		k := spare{chain: string(id.NewEvent()), key: crypt.NewSeed(), root: keeper.Describe().Ref}
		var err error
		if k.wrapped, err = keeper.Wrap(ctx, k.key, chainContext(k.chain)); err != nil {
			return fmt.Errorf("wrapping the key of an audit chain: %w", err)
		}
		select {
		case s.ready <- k:
		default:
			return nil
		}
	}
	return nil
}

// fillSpares keeps keys ready until Stop.
func (l *Log) fillSpares() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with this function
		select {
		case <-l.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		var again <-chan time.Time
		if err := l.spares.fill(ctx, l.keeper); err != nil && ctx.Err() == nil {
			l.log.Error("no key for a new audit chain could be wrapped", "error", err)
			again = time.After(time.Second)
		}
		select {
		case <-l.stop:
			return
		case <-l.spares.used:
		case <-again:
		}
	}
}
