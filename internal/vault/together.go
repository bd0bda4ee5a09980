package vault

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// together lets changes of secrets that come at once share a transaction, and with
// it one wait for the disk. Who comes when nobody writes, writes what waits, its own
// first; who comes meanwhile waits. No goroutine stands in between.
type together struct {
	mu      sync.Mutex
	writing bool
	waiting []*part
}

// part is one change of a shared transaction. Its do must leave nothing behind in
// memory when it runs again, and no row when it returns nil without having changed
// what it wanted.
type part struct {
	key  string // what it changes; parts run in the order of their keys, so that nodes do not wait for each other
	ctx  context.Context
	do   func(ctx context.Context, tx *sqldb.Tx) error
	turn chan verdict
}

// verdict is what a part is told: how it went, that it runs alone, or that the next
// transaction is its to lead.
type verdict struct {
	lead, alone bool
	err         error
}

const maxTogether = 32

// update runs do in a transaction, with others or alone. Its error says, as that of
// sqldb.DB.Update does, whether anything may have been changed.
func (v *Vault) update(ctx context.Context, key string, do func(ctx context.Context, tx *sqldb.Tx) error) error {
	p := &part{key: key, ctx: ctx, do: do}
	was := verdict{lead: v.together.enter(p)}
	if !was.lead {
		was = <-p.turn // whoever writes answers all that waits
	}
	if was.lead {
		was = v.lead(p)
	}
	if was.alone {
		return v.db.Update(ctx, do)
	}
	return was.err
}

// enter lets a part wait. It reports that nobody writes, so that this one must.
func (t *together) enter(p *part) (lead bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	lead = !t.writing
	t.writing = true
	if !lead {
		p.turn = make(chan verdict, 1)
	}
	t.waiting = append(t.waiting, p)
	return lead
}

func (t *together) take() (batch []*part) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(t.waiting), maxTogether)
	batch, t.waiting = t.waiting[:n:n], append([]*part(nil), t.waiting[n:]...)
	return batch
}

// leave ends the writing. When parts wait, the first of them leads.
func (t *together) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) > 0 {
		t.waiting[0].turn <- verdict{lead: true}
		return
	}
	t.writing = false
}

// lead writes one transaction and gives the pen on. It returns what became of own.
func (v *Vault) lead(own *part) (mine verdict) {
	batch := v.together.take()
	all := verdict{err: errors.New("the writer of a shared transaction failed")}
	defer func() { // also after a panic: the others must not wait for ever
		defer v.together.leave()
		for _, p := range batch {
			if p != own {
				p.turn <- all
			}
		}
	}()
	if len(batch) == 1 {
		all = verdict{err: v.db.Update(own.ctx, own.do)}
		return all
	}
	slices.SortStableFunc(batch, func(a, b *part) int { return cmp.Compare(a.key, b.key) })
	// The transaction is not its leader's alone, so that one's leaving ends it for nobody.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(own.ctx), 10*time.Second)
	defer cancel()
	err := v.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		for _, p := range batch {
			if p.ctx.Err() != nil {
				return p.ctx.Err() // each alone: this one finds it out by itself
			}
			if err := p.do(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	})
	all = verdict{err: err}
	if err != nil && !sqldb.Uncertain(err) { // nothing was changed; the fault may be that of one
		all = verdict{alone: true}
	}
	return all
}
