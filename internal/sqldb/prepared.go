package sqldb

import (
	"context"
	"database/sql"
	"sync"
)

// prepared keeps the compiled statements of a SQLite pool by their text: the
// rooms run the same few hundred, and compiling one costs about as much as
// running it. On PostgreSQL the driver does the same, and prepared is nil.
type prepared struct {
	pool *sql.DB

	mu     sync.RWMutex
	byText map[string]*sql.Stmt
}

// maxPrepared bounds the statements kept. Lists with filters make their text
// from the filters that are set; what comes after the first ones runs as text.
const maxPrepared = 512

func newPrepared(pool *sql.DB) *prepared {
	return &prepared{pool: pool, byText: map[string]*sql.Stmt{}}
}

// known gives a statement that is compiled already, or nil.
func (p *prepared) known(query string) *sql.Stmt {
	if p == nil {
		return nil
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.byText[query]
}

// get compiles a statement at its first use. It gives nil when the query must
// run as text, which then also reports what is wrong with it.
func (p *prepared) get(ctx context.Context, query string) *sql.Stmt {
	if s := p.known(query); s != nil || p == nil {
		return s
	}
	p.mu.RLock()
	full := len(p.byText) >= maxPrepared
	p.mu.RUnlock()
	if full {
		return nil
	}
	s, err := p.pool.PrepareContext(ctx, query)
	if err != nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if other := p.byText[query]; other != nil { // somebody was faster
		_ = s.Close()
		return other
	}
	p.byText[query] = s
	return s
}

// learn compiles what a transaction ran as text. It is called when the
// transaction has given its connection back: the writer has only that one.
func (p *prepared) learn(ctx context.Context, queries []string) {
	for _, q := range queries {
		p.get(context.WithoutCancel(ctx), q)
	}
}
