package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress tells a person at a terminal how far long work has come, on one line of
// standard error that goes away with it. Programs and pipes get none of it.
type progress struct {
	w     io.Writer // nil: nobody watches
	now   func() time.Time
	shown time.Time
}

// showEvery is how often the line changes.
const showEvery = 200 * time.Millisecond

func (c *command) progress() *progress {
	p := &progress{now: time.Now}
	if f, ok := c.stderr.(*os.File); ok && !c.json && term.IsTerminal(int(f.Fd())) {
		p.w = f
	}
	return p
}

// at shows how much is done.
func (p *progress) at(n int64, one, many string) {
	if now := p.now(); p.w != nil && now.Sub(p.shown) >= showEvery {
		p.shown = now
		fmt.Fprintf(p.w, "\r\x1b[K%s…", count(n, one, many))
	}
}

// shared is at for work that several goroutines do.
func (p *progress) shared(one, many string) func(n, bytes int64) {
	var busy sync.Mutex
	return func(n, bytes int64) {
		if p.w == nil || !busy.TryLock() {
			return
		}
		defer busy.Unlock()
		if now := p.now(); now.Sub(p.shown) >= showEvery {
			p.shown = now
			fmt.Fprintf(p.w, "\r\x1b[K%s, %d MiB…", count(n, one, many), bytes>>20)
		}
	}
}

// end takes the line away.
func (p *progress) end() {
	if p.w != nil && !p.shown.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
