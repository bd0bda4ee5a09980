package mcpserver

import (
	"sync"

	"github.com/ambit-dev/ambit/internal/id"
)

const maxWaits = 8

// waits counts the long polls of each agent, so that one agent cannot hold
// more than a few connections open. A poll over the limit answers at once.
type waits struct {
	mu      sync.Mutex
	byAgent map[id.Agent]int
}

func newWaits() *waits { return &waits{byAgent: map[id.Agent]int{}} }

// begin reports whether the agent may wait; if so the caller calls end.
func (w *waits) begin(a id.Agent) (ok bool, end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byAgent[a] >= maxWaits {
		return false, func() {}
	}
	w.byAgent[a]++
	return true, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.byAgent[a]--; w.byAgent[a] == 0 {
			delete(w.byAgent, a)
		}
	}
}
